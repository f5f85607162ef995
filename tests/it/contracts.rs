//! Contracts: every backend under the suite of its kind, one line each.

use std::sync::Arc;

use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::EmbeddedStore;
#[cfg(feature = "jetstream")]
use actix_pubsub::log::JetStreamStore;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::NewEntry;
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
        actix_pubsub::log::RedisStore::builder(&server.url()).prefix(format!("case-{}:", cases.get())).open().unwrap()
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

#[actix::test]
async fn embedded_keeps_an_unreadable_topic_apart() {
    let (folder, bad) = (Folder::new(), Topic::parse("bad").unwrap());
    let (path, payload) = (folder.file(), vec![0xAB; 3_000]);
    let store = EmbeddedStore::open(&path).unwrap();
    store.append(&bad, Append::one(NewEntry::new("n", payload.clone()))).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let mut file = std::fs::read(&path).unwrap();
    let at: Vec<_> = file.windows(payload.len()).enumerate().filter(|(_, bytes)| *bytes == payload).map(|(at, _)| at).collect();
    assert!(!at.is_empty());
    for at in at {
        file[at] ^= 1;
    }
    std::fs::write(&path, file).unwrap();
    let store = EmbeddedStore::open(&path).unwrap();
    let mend = || async { assert!(store.delete(&bad).await.unwrap()) };
    testing::store::check_unreadable(Arc::new(store.clone()), &bad, mend).await;
}

#[cfg(feature = "redis")]
#[actix::test]
async fn redis_keeps_an_unreadable_topic_apart() {
    let (server, bad) = (crate::servers::Server::redis(), Topic::parse("bad").unwrap());
    let store = actix_pubsub::log::RedisStore::connect(&server.url()).await.unwrap();
    let cli = |args: &[&str]| {
        let port = server.port.to_string();
        assert!(std::process::Command::new("redis-cli").args(["-p", &port]).args(args).output().unwrap().status.success());
    };
    cli(&["SET", "bad", "no stream"]);
    testing::store::check_unreadable(Arc::new(store), &bad, || async { cli(&["DEL", "bad"]) }).await;
}

#[cfg(feature = "jetstream")]
#[actix::test]
async fn jetstream_keeps_an_unreadable_topic_apart() {
    let (server, bad) = (crate::servers::Server::nats(), Topic::parse("bad").unwrap());
    let client = async_nats::connect(server.url()).await.unwrap();
    let ask = async |what: &str, body: &str| {
        let answer = client.request(format!("$JS.API.STREAM.{what}.pubsub~bad"), body.to_owned().into()).await.unwrap();
        assert!(!String::from_utf8_lossy(&answer.payload).contains("error"), "{answer:?}");
    };
    ask("CREATE", r#"{"name":"pubsub~bad","subjects":["theirs"],"retention":"limits","storage":"memory","num_replicas":1}"#)
        .await;
    let store = JetStreamStore::new(&server.url()).unwrap();
    testing::store::check_unreadable(Arc::new(store), &bad, || async { ask("DELETE", "").await }).await;
}
