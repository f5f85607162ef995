//! JetStream: what the store costs against a nats-server of this machine. `cargo bench --features jetstream --bench jetstream`; it prints a table.
//!
//! `--test` (tiny), `--rounds R`, `--json FILE`.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "measured times and counts are far below 2^52")]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../tests/it/servers.rs"]
mod servers;

use std::sync::Arc;
use std::time::Instant;

use actix_pubsub::EntryId;
use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::Fetch;
use actix_pubsub::log::Group;
use actix_pubsub::log::JetStreamStore;
use actix_pubsub::log::Limit;
use actix_pubsub::log::Name;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;
use futures::StreamExt;

use crate::common::args::Args;
use crate::common::record::Row;
use crate::common::record::Unit;

fn entry() -> NewEntry {
    NewEntry::new("bench.entry", vec![b'x'; 100])
}

/// What was done, how many entries per second, in order.
type Rates = Vec<(String, f64)>;

fn row(rates: &mut Rates, what: &str, entries: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let rate = entries as f64 / seconds;
    println!("{what:<46} {entries:>8} in {seconds:>7.3} s  {rate:>9.0}/s");
    rates.push((what.to_owned(), rate));
}

#[actix::main]
async fn main() {
    // `cargo test --benches -- --test` sees only that it runs.
    let args = Args::read();
    let mut rounds: Vec<Rates> = Vec::new();
    for _ in 0..if args.test { 1 } else { args.rounds.unwrap_or(3) } {
        rounds.push(round(args.test).await);
    }
    for (at, (what, _)) in rounds[0].iter().enumerate() {
        let samples: Vec<f64> = rounds.iter().map(|rates| rates[at].1).collect();
        args.record.row(&Row::new("jetstream", "entries", what, Unit::PerSecond, &samples));
    }
    args.record.end();
}

/// On a server of its own.
async fn round(small: bool) -> Rates {
    let mut rates = Rates::new();
    let entries: u64 = if small { 1_000 } else { 100_000 };
    let server = servers::Server::nats();
    let store = Arc::new(JetStreamStore::new(&server.url()).expect("a url"));
    let topic = Topic::parse("bench").expect("a topic");
    store.append(&topic, Append::one(entry())).await.expect("it takes it");

    let one_by_one = entries / 20;
    let started = Instant::now();
    for _ in 0..one_by_one {
        store.append(&topic, Append::one(entry())).await.expect("it takes it");
    }
    row(&mut rates, "append, one after the other", one_by_one, started);

    let started = Instant::now();
    futures::stream::iter(0..entries / 4)
        .for_each_concurrent(64, |_| async {
            store.append(&topic, Append::one(entry())).await.expect("it takes it");
        })
        .await;
    row(&mut rates, "append, 64 at once", entries / 4, started);

    let started = Instant::now();
    for _ in 0..entries / 1_000 {
        store.append(&topic, Append::many(vec![entry(); 1_000])).await.expect("it takes them");
    }
    row(&mut rates, "append, batches of 1,000", entries, started);

    for page in [256, 1_000, 4_000] {
        let (mut read, mut at, started) = (0, EntryId::MIN, Instant::now());
        loop {
            let batch = store.read(&topic, Position::After(at), Limit::entries(page)).await.expect("it reads");
            (read, at) = (read + batch.entries.len() as u64, batch.next);
            if batch.caught_up {
                break;
            }
        }
        row(&mut rates, &format!("read, pages of {page}"), read, started);
    }

    let group = Group::new(topic.clone(), Name::parse("bench").expect("a name"));
    let me = Name::parse("me").expect("a name");
    store.create_group(&group, Position::Start).await.expect("it makes it");
    let (mut acked, started) = (0, Instant::now());
    while acked < entries / 2 {
        let fetched = store.fetch(&group, &me, Fetch::entries(256)).await.expect("it fetches");
        acked += store.ack(&group, fetched.into_iter().map(|one| one.token).collect()).await.expect("it acks");
    }
    row(&mut rates, "fetch of 256, acks confirmed", acked, started);

    let (mut tail, times) = (store.tail(), entries / 100);
    let last = store.info(&topic).await.expect("it says").last;
    tail.watch(&topic, last);
    let started = Instant::now();
    for _ in 0..times {
        store.append(&topic, Append::one(entry())).await.expect("it takes it");
        tail.next(Limit::default()).await.expect("it follows");
    }
    row(&mut rates, "append, then seen by a tail", times, started);

    let topics = if small { 10 } else { 1_000 };
    let started = Instant::now();
    for n in 0..topics {
        let topic = Topic::parse(&format!("topic:{n}")).expect("a topic");
        store.append(&topic, Append::one(entry())).await.expect("it takes it");
    }
    row(&mut rates, "first append to a topic", topics, started);
    rates
}
