//! Append: durable appends by one and by many tasks, each of which waits for its entry to be on disk.

use std::future::Future;
use std::time::Duration;
use std::time::Instant;

use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Store;

use crate::Bench;
use crate::bare::BareEngine;
use crate::bare::QueuedEngine;
use crate::bare::RawFile;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::folder::Folder;
use crate::note::Note;
use crate::report::Goal;
use crate::rounds;
use crate::rounds::Peer;
use crate::rounds::crowd;

const STORE: &str = "store";
const PUBSUB: &str = "pubsub";
const ENGINE: &str = "bare engine";
const QUEUED: &str = "engine behind a channel";
const RAW: &str = "raw file";
const INSTANT: &str = "store, instant recovery";
const QUICK: &str = "bare engine, quick repair";

/// Appenders, and entries of a turn.
const SIZES: [(u64, u64); 3] = [(1, 400), (64, 25_600), (1_024, 102_400)];
const SIZES_TEST: [(u64, u64); 3] = [(1, 4), (4, 32), (64, 256)];

pub(crate) async fn run(bench: &mut Bench) {
    for (appenders, entries) in bench.size(SIZES_TEST, SIZES) {
        if bench.args.n.is_empty() || bench.args.n.contains(&(appenders as usize)) {
            measure(bench, appenders, entries).await;
        }
    }
}

async fn measure(bench: &mut Bench, appenders: u64, entries: u64) {
    let folder = Folder::new();
    let rounds = bench.rounds(9);
    let store = EmbeddedStore::open(folder.file("store")).expect("a store");
    let under = EmbeddedStore::open(folder.file("pubsub")).expect("a store");
    let pubsub = PubSub::builder().log(under.clone()).build().expect("a pub/sub");
    let topic = Topic::parse("notes").expect("a topic");
    let mut engine = BareEngine::create(&folder.file("engine"));
    let queued = QueuedEngine::start(BareEngine::create(&folder.file("queued")));
    let mut raw = RawFile::create(&folder.file("raw"));
    let instant = EmbeddedStore::builder(folder.file("instant")).instant_recovery().open().expect("a store");
    let mut quick = BareEngine::create(&folder.file("quick")).quick_repair();
    let payload = Note::json(1);

    let peers = vec![
        Peer::new(STORE, || appends(&store, &topic, appenders, entries)),
        Peer::new(PUBSUB, || {
            let (pubsub, topic) = (pubsub.clone(), topic.clone());
            crowd(appenders, entries, move |number| {
                let (pubsub, topic) = (pubsub.clone(), topic.clone());
                async move {
                    pubsub.append(&topic, &Note::new(number)).await.expect("an append");
                }
            })
        }),
        Peer::new(ENGINE, || {
            let start = Instant::now();
            engine.append_same(entries, appenders, &payload);
            std::future::ready((entries, start.elapsed()))
        }),
        Peer::new(QUEUED, || {
            let (append, payload) = (queued.appender(), payload.clone());
            crowd(appenders, entries, move |_| {
                let (append, payload) = (append.clone(), payload.clone());
                async move { append(payload).await }
            })
        }),
        Peer::new(RAW, || {
            let start = Instant::now();
            raw.append(entries, appenders, &payload);
            std::future::ready((entries, start.elapsed()))
        }),
        Peer::new(INSTANT, || appends(&instant, &topic, appenders, entries)),
        Peer::new(QUICK, || {
            let start = Instant::now();
            quick.append_same(entries, appenders, &payload);
            std::future::ready((entries, start.elapsed()))
        }),
    ];
    let rates = rounds::run(&bench.args, rounds, peers).await;

    engine.check();
    queued.finish();
    raw.check();
    quick.check();
    pubsub.shutdown().await;
    for (store, peer) in [(store, STORE), (under, PUBSUB), (instant, INSTANT)] {
        let turns = if bench.args.wants_measure(peer) { rounds as u64 } else { 0 };
        check(&store, &topic, entries * turns).await;
        store.close().await.expect("a close");
    }
    bench.record(&rates, |peer, samples| {
        let row = Row::new("append", "durable entries", peer, Unit::PerSecond, samples).base(ENGINE);
        row.at("appenders", appenders as f64)
    });
    let what = |of: &str| format!("append, {appenders} appenders, {of}");
    let (engine_goal, raw_goal) = match appenders {
        64 => (Goal::AtLeast(0.8), Goal::AtLeast(0.5)),
        1_024 => (Goal::AtLeast(0.8), Goal::Free),
        _ => (Goal::Free, Goal::Free),
    };
    bench.report.rates(what(STORE), &rates, STORE, ENGINE, engine_goal);
    bench.report.rates(what(PUBSUB), &rates, PUBSUB, ENGINE, engine_goal);
    bench.report.rates(what(STORE), &rates, STORE, RAW, raw_goal);
    bench.report.rates(what(STORE), &rates, STORE, QUEUED, Goal::Free);
    bench.report.rates(what(INSTANT), &rates, INSTANT, QUICK, Goal::Free);
}

/// A turn of the store: so many tasks, each with an append under way.
fn appends(store: &EmbeddedStore, topic: &Topic, appenders: u64, entries: u64) -> impl Future<Output = (u64, Duration)> + use<> {
    let (store, topic, payload) = (store.clone(), topic.clone(), Note::json(1));
    crowd(appenders, entries, move |_| {
        let (store, topic, payload) = (store.clone(), topic.clone(), payload.clone());
        async move {
            let entry = NewEntry::new("bench.note", payload);
            store.append(&topic, Append::one(entry)).await.expect("an append");
        }
    })
}

/// Every entry is there once: ids increase, and there are as many as were appended.
async fn check(store: &EmbeddedStore, topic: &Topic, appended: u64) {
    let info = store.info(topic).await.expect("its numbers");
    assert_eq!((info.entries, info.appended), (appended, Some(appended)), "the store lacks entries");
    let (mut count, mut at) = (0, actix_pubsub::EntryId::MIN);
    loop {
        let batch = store.read(topic, at.into(), actix_pubsub::log::Limit::entries(4_096)).await.expect("a page");
        for entry in &batch.entries {
            assert!(entry.id > at, "ids do not increase");
            at = entry.id;
        }
        count += batch.entries.len() as u64;
        if batch.caught_up {
            break;
        }
    }
    assert_eq!(count, appended, "a page lacks entries");
}
