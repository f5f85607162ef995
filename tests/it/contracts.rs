//! Contracts: every backend under the suite of its kind, one line each.

use std::sync::Arc;

use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::Store;
use actix_pubsub::testing;

#[actix::test]
async fn memory_keeps_the_contract_of_a_store() {
    testing::store::check(|| async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }).await;
}
