//! Replay: history from its first entry to its last, into an actor's handler and in pages, beside a scan of the bare engine.

use std::time::Duration;
use std::time::Instant;

use actix_pubsub::EntryId;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::Limit;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Store;

use crate::Bench;
use crate::bare::BareEngine;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::folder::Folder;
use crate::note::Note;
use crate::reader;
use crate::report::Goal;
use crate::rounds;
use crate::rounds::Peer;

const ACTOR: &str = "subscribe_from";
const PAGES: &str = "pages of the store";
const SCAN: &str = "scan of the bare engine";
const DECODED: &str = "the same, decoded";

pub(crate) async fn run(bench: &mut Bench) {
    let promised = 1e6;
    for (batch, entries) in bench.size([(1_024, 3_000), (64, 500), (1, 20)], [(1_024, 1_000_000), (64, 200_000), (1, 5_000)]) {
        let rates = measure(bench, batch, entries).await;
        bench.record(&rates, |peer, samples| {
            let row = Row::new("replay", "entries read", peer, Unit::PerSecond, samples).base(DECODED);
            row.at("entries a commit", batch as f64)
        });
        let of = |what: &str| format!("{what}, appended {batch} at a time");
        if batch == 1_024 {
            bench.report.promise(of("replay into a handler"), rates.median(ACTOR), promised);
        }
        bench.report.rates(of("replay into a handler"), &rates, ACTOR, SCAN, Goal::Free);
        bench.report.rates(of("replay into a handler"), &rates, ACTOR, DECODED, Goal::Free);
        bench.report.rates(of("pages of the store"), &rates, PAGES, SCAN, Goal::Free);
    }
}

async fn measure(bench: &Bench, batch: u64, entries: u64) -> rounds::Rates {
    let folder = Folder::new();
    let store = EmbeddedStore::open(folder.file("store")).expect("a store");
    let pubsub = PubSub::builder().log(store.clone()).build().expect("a pub/sub");
    let topic = Topic::parse("notes").expect("a topic");
    fill(&store, &topic, entries, batch).await;
    let mut engine = BareEngine::create(&folder.file("engine"));
    engine.append(entries, batch, Note::json);

    let peers = vec![
        Peer::new(ACTOR, || {
            let (pubsub, topic) = (pubsub.clone(), topic.clone());
            async move { (entries, reader::replay(&pubsub, &topic, entries).await) }
        }),
        Peer::new(PAGES, || {
            let (store, topic) = (store.clone(), topic.clone());
            async move { (entries, pages(&store, &topic, entries).await) }
        }),
        Peer::new(SCAN, || {
            let (start, mut bytes) = (Instant::now(), 0);
            let count = engine.scan(|_, payload| bytes += payload.len());
            assert_eq!((count, bytes as u64), (entries, 100 * entries), "the bare engine lacks entries");
            std::future::ready((entries, start.elapsed()))
        }),
        Peer::new(DECODED, || {
            let start = Instant::now();
            let count = engine.scan(|number, payload| {
                let note: Note = serde_json::from_slice(payload).expect("a note");
                assert_eq!(note.number, number);
            });
            assert_eq!(count, entries, "the bare engine lacks entries");
            std::future::ready((entries, start.elapsed()))
        }),
    ];
    let rates = rounds::run(&bench.args, bench.rounds(7), peers).await;
    pubsub.shutdown().await;
    store.close().await.expect("a close");
    rates
}

/// Appends numbered notes, in commits of this size.
pub(crate) async fn fill(store: &dyn Store, topic: &Topic, entries: u64, batch: u64) {
    let mut number = 0;
    while number < entries {
        let end = (number + batch).min(entries);
        let notes = (number..end).map(|number| NewEntry::new("bench.note", Note::json(number))).collect();
        store.append(topic, Append::many(notes)).await.expect("an append");
        number = end;
    }
}

/// Reads a topic page by page, the pages that a follower reads.
pub(crate) async fn pages(store: &dyn Store, topic: &Topic, entries: u64) -> Duration {
    let start = Instant::now();
    let (mut at, mut count) = (EntryId::MIN, 0);
    loop {
        let batch = store.read(topic, at.into(), Limit::default()).await.expect("a page");
        count += batch.entries.len() as u64;
        at = batch.next;
        if batch.caught_up {
            break;
        }
    }
    assert_eq!(count, entries, "a page lacks entries");
    start.elapsed()
}
