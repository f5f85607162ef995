//! Cost: what more entries and more topics cost: to append, in the file, to open, in memory, to read. It must grow with them and no faster.

use std::fs;
use std::time::Duration;

use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Store;

use crate::Bench;
use crate::child;
use crate::common::numbers;
use crate::common::numbers::nanos;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::folder::Folder;
use crate::note::Note;
use crate::report::Goal;
use crate::report::Table;
use crate::rounds::crowd;

/// Entries and topics.
const SIZES: [(u64, u64); 6] =
    [(10_000, 1), (100_000, 1), (1_000_000, 1), (10_000_000, 1), (1_000_000, 1_000), (1_000_000, 100_000)];
const SIZES_TEST: [(u64, u64); 3] = [(100, 1), (500, 1), (500, 50)];
/// What a replay may take besides the engine's cache: two pages of entries, events, threads; KiB.
const PAGES_KIB: u64 = 16 << 10;
/// Sizes above are for `--large`.
const SMALL_MAX: u64 = 1_000_000;

pub(crate) async fn run(bench: &mut Bench) {
    let sizes: &[(u64, u64)] = if bench.args.test { &SIZES_TEST } else { &SIZES };
    let headings = vec!["entries", "topics", "append", "file", "open", "memory", "pages", "replay", "peak memory"];
    let mut table = Table { title: "Cost of more entries and topics, in the embedded store", headings, rows: Vec::new() };
    let mut peaks = Vec::new();
    for &(entries, topics) in sizes {
        if entries > SMALL_MAX && !bench.args.large {
            continue;
        }
        let folder = Folder::new();
        let path = folder.file("store");
        let store = EmbeddedStore::open(&path).expect("a store");
        let appended = fill(&store, entries, topics, bench.size(16, 1_024)).await;
        store.close().await.expect("a close");
        let file = fs::metadata(&path).expect("a file").len();
        drop(store);
        let found = child::start(&path, topics, entries);
        let rate = |took: Duration| {
            if took.is_zero() { "-".to_owned() } else { numbers::rate(entries as f64 / took.as_secs_f64()) }
        };
        record(bench, (entries, topics), appended, file, &found);
        let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
        table.rows.push(vec![
            entries.to_string(),
            topics.to_string(),
            rate(appended),
            format!("{} B each", file / entries),
            numbers::time(nanos(found.open)),
            mib(found.opened_kib),
            rate(found.pages),
            rate(found.replay),
            mib(found.peak_kib),
        ]);
        if topics == 1 {
            peaks.push((entries, found.peak_kib));
        } else if topics == 100_000 {
            let open = nanos(found.open) / topics as f64;
            bench.report.times("open, each of 100k topics".to_owned(), open, "promised", 10_000.0, Goal::AtMost(1.0));
        }
        if (entries, topics) == (1_000_000, 1) {
            bench.report.times("open, 1 M entries".to_owned(), nanos(found.open), "promised", 1e9, Goal::AtMost(1.0));
        }
    }
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let bound = EmbeddedStore::CACHE_BYTES_DEFAULT as u64 / 1024 + PAGES_KIB;
    for (entries, peak) in peaks {
        let what = format!("peak memory of a replay, {} entries", numbers::count(entries as usize));
        let ratio = peak as f64 / bound as f64;
        bench.report.bound(what, mib(peak), "cache and pages", mib(bound), ratio, Goal::AtMost(1.0));
    }
    bench.report.table(table);
}

fn record(bench: &Bench, (entries, topics): (u64, u64), appended: Duration, file: u64, found: &child::Found) {
    let setting = format!("{} topics", numbers::count(topics as usize));
    let row = |measure, unit, sample: f64| {
        let row = Row::new("cost", measure, "embedded store", unit, &[sample]);
        bench.args.record.row(&row.setting(&setting).at("entries", entries as f64));
    };
    let rate = |took: Duration| entries as f64 / took.as_secs_f64();
    row("append, 1,024 at once", Unit::PerSecond, rate(appended));
    row("file, each entry", Unit::Bytes, file as f64 / entries as f64);
    row("open", Unit::Nanos, nanos(found.open));
    row("memory once open", Unit::Bytes, (found.opened_kib << 10) as f64);
    row("pages", Unit::PerSecond, rate(found.pages));
    if !found.replay.is_zero() {
        row("replay into a handler", Unit::PerSecond, rate(found.replay));
        row("peak memory of a replay", Unit::Bytes, (found.peak_kib << 10) as f64);
    }
}

/// Many appenders, over all topics in turn. The entries of one topic are numbered from zero if it is the only one.
async fn fill(store: &EmbeddedStore, entries: u64, topics: u64, appenders: u64) -> Duration {
    if topics == 1 {
        // The reader checks their order: so they have to be appended in it. A queue of appends keeps it, as all are of one thread.
        return fill_in_order(store, entries, appenders).await;
    }
    let names: std::rc::Rc<[Topic]> = (0..topics).map(|number| Topic::parse(&child::topic(number)).expect("a topic")).collect();
    let store = store.clone();
    let (_, took) = crowd(appenders, entries, move |number| {
        let (store, topic) = (store.clone(), names[(number % topics) as usize].clone());
        async move {
            let entry = NewEntry::new("bench.note", Note::json(number));
            store.append(&topic, Append::one(entry)).await.expect("an append");
        }
    })
    .await;
    took
}

async fn fill_in_order(store: &EmbeddedStore, entries: u64, appenders: u64) -> Duration {
    let (store, topic) = (store.clone(), Topic::parse(&child::topic(0)).expect("a topic"));
    let next = std::rc::Rc::new(std::cell::Cell::new(0));
    let (_, took) = crowd(appenders, entries, move |_| {
        let (store, topic, number) = (store.clone(), topic.clone(), next.replace(next.get() + 1));
        async move {
            let entry = NewEntry::new("bench.note", Note::json(number));
            store.append(&topic, Append::one(entry)).await.expect("an append");
        }
    })
    .await;
    took
}
