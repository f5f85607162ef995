//! Contracts: every backend under the suite of its kind, one line each.

use std::sync::Arc;

use actix_pubsub::log::EmbeddedStore;
#[cfg(feature = "jetstream")]
use actix_pubsub::log::JetStreamStore;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::Store;
use actix_pubsub::testing;

use crate::support::Folder;

#[actix::test]
async fn memory_keeps_the_contract_of_a_store() {
    testing::store::check(|| async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }).await;
}

#[actix::test]
async fn embedded_keeps_the_contract_of_a_store() {
    let folder = Folder::new();
    testing::store::check(|| async { Arc::new(EmbeddedStore::open(folder.file()).unwrap()) as Arc<dyn Store> }).await;
}

#[cfg(feature = "redis")]
#[actix::test]
async fn redis_keeps_the_contract_of_a_store() {
    let (server, cases) = (crate::servers::Server::redis(), std::cell::Cell::new(0));
    // One server for all; each case has topics of its own.
    let open = || {
        cases.set(cases.get() + 1);
        actix_pubsub::log::RedisStore::builder(&server.url()).prefix(&format!("case-{}:", cases.get())).open().unwrap()
    };
    testing::store::check(|| async { Arc::new(open()) as Arc<dyn Store> }).await;
}

#[cfg(feature = "jetstream")]
#[actix::test]
async fn jetstream_keeps_the_contract_of_a_store() {
    let (server, next) = (crate::servers::Server::nats(), std::sync::atomic::AtomicU32::new(0));
    let open = || async {
        let prefix = format!("case-{}", next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        Arc::new(JetStreamStore::builder(&server.url()).prefix(prefix).open().unwrap()) as Arc<dyn Store>
    };
    testing::store::check(open).await;
}
