//! Child: this bench as a process of its own, that opens a store and reads it, so that its memory is that of the store. Knows no other part.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use actix::System;
use actix_pubsub::EntryId;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::Limit;
use actix_pubsub::log::Store;

use crate::reader;
use crate::replay;

/// What a child found.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) open: Duration,
    /// KiB that the opening added to its memory.
    pub(crate) opened_kib: u64,
    /// Time of the replay into an actor; zero for many topics.
    pub(crate) replay: Duration,
    /// KiB at the replay's peak, less those before the store was opened.
    pub(crate) peak_kib: u64,
    /// Time of reading all topics in pages.
    pub(crate) pages: Duration,
}

/// Starts one for a store of so many entries in so many topics.
pub(crate) fn start(path: &Path, topics: u64, entries: u64) -> Found {
    let this = env::current_exe().expect("a program");
    let asked = format!("{topics} {entries} {}", path.display());
    let output = Command::new(this).env(ASKED, asked).output().expect("it starts");
    assert!(output.status.success(), "the child failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let number: HashMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, number)| (name, number.parse().expect("a number")))
        .collect();
    Found {
        open: Duration::from_nanos(number["open"]),
        opened_kib: number["opened"],
        replay: Duration::from_nanos(number["replay"]),
        peak_kib: number["peak"],
        pages: Duration::from_nanos(number["pages"]),
    }
}

pub(crate) fn is_one() -> bool {
    env::var_os(ASKED).is_some()
}

/// The child's work.
pub(crate) fn run() {
    let asked = env::var(ASKED).expect("it was asked");
    let mut words = asked.splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).expect("a number");
    let (topics, entries) = (number(), number());
    let path = words.next().expect("a path").to_owned();
    System::new().block_on(async move {
        let before = memory("VmRSS");
        let start = Instant::now();
        let store = EmbeddedStore::open(&path).expect("a store");
        say("open", start.elapsed().as_nanos());
        say("opened", u128::from(memory("VmRSS").saturating_sub(before)));
        let mut replayed = Duration::ZERO;
        if topics == 1 {
            let pubsub = PubSub::builder().log(store.clone()).build().expect("a pub/sub");
            let topic = Topic::parse(&topic(0)).expect("a topic");
            replayed = reader::replay(&pubsub, &topic, entries).await;
            pubsub.shutdown().await;
        }
        say("replay", replayed.as_nanos());
        say("peak", u128::from(memory("VmHWM").saturating_sub(before)));
        say("pages", read_all(&store, topics, entries).await.as_nanos());
        store.close().await.expect("a close");
    });
}

async fn read_all(store: &EmbeddedStore, topics: u64, entries: u64) -> Duration {
    if topics == 1 {
        return replay::pages(store, &Topic::parse(&topic(0)).expect("a topic"), entries).await;
    }
    let (start, mut count) = (Instant::now(), 0);
    for number in 0..topics {
        let (topic, mut at) = (Topic::parse(&topic(number)).expect("a topic"), EntryId::MIN);
        loop {
            let batch = store.read(&topic, at.into(), Limit::default()).await.expect("a page");
            (at, count) = (batch.next, count + batch.entries.len() as u64);
            if batch.caught_up {
                break;
            }
        }
    }
    assert_eq!(count, entries, "topics lack entries");
    start.elapsed()
}

/// What the topic of this number is called.
pub(crate) fn topic(number: u64) -> String {
    format!("device:{number}")
}

fn say(name: &str, number: u128) {
    println!("{name}={number}");
}

/// KiB, as Linux counts them; 0 elsewhere.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The variable that makes a process a child.
const ASKED: &str = "ACTIX_PUBSUB_BENCH_LOG";
