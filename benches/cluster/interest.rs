//! Interest: what many topics of one node take of its memory, and how long it takes until the cluster knows of all, at first and after a loss.

use std::process;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use actix::System;
use actix_pubsub::PubSub;
use actix_pubsub::cluster::ClusterEvent;
use futures::StreamExt;

use crate::Bench;
use crate::common::numbers;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::engine::Engine;
use crate::engine::Servers;
use crate::other::Other;
use crate::ours;
use crate::process as usage;
use crate::report::Samples;
use crate::report::Table;
use crate::tally;
use crate::tally::Tally;

/// What one turn comes to.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    bytes_a_topic: f64,
    first_ns: f64,
    again_ns: f64,
}

pub(crate) fn run(bench: &mut Bench) {
    let counts = if bench.args.n.is_empty() { bench.size(vec![100], vec![1_000, 100_000]) } else { bench.args.n.clone() };
    let mut servers = Servers::start();
    let mut rows = Vec::new();
    for count in counts {
        let mut found = [const { Vec::new() }; 3];
        let mut alone = Vec::new();
        for round in 0..bench.rounds(3) {
            alone.push(measure_alone(count));
            for turned in 0..Engine::ALL.len() {
                let at = (turned + round) % Engine::ALL.len();
                found[at].push(measure(Engine::ALL[at], &mut servers, count));
            }
        }
        let record = |name, measure, unit, samples: &Samples| {
            let row = Row::new("interest", measure, name, unit, &samples.0);
            bench.args.record.row(&row.at("topics", count as f64));
        };
        record("no cluster", MEMORY, Unit::Bytes, &Samples(alone.clone()));
        rows.push(vec![
            numbers::count(count),
            "no cluster".into(),
            format!("{:.0} B", Samples(alone).median()),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]);
        for (engine, found) in Engine::ALL.into_iter().zip(&found) {
            let of = |of: fn(&Found) -> f64| Samples(found.iter().map(of).collect());
            let span = |samples: &Samples| format!("{} .. {}", numbers::time(samples.min()), numbers::time(samples.max()));
            let (first, again) = (of(|found| found.first_ns), of(|found| found.again_ns));
            record(engine.name(), MEMORY, Unit::Bytes, &of(|found| found.bytes_a_topic));
            record(engine.name(), "all confirmed", Unit::Nanos, &first);
            record(engine.name(), "all confirmed again", Unit::Nanos, &again);
            rows.push(vec![
                numbers::count(count),
                engine.name().to_owned(),
                format!("{:.0} B", of(|found| found.bytes_a_topic).median()),
                numbers::time(first.median()),
                span(&first),
                numbers::time(again.median()),
                span(&again),
            ]);
        }
    }
    bench.report.tables.push(Table {
        title: "Topics of interest on one node; again: after the server was killed and has come back, on zenoh after the other node was ended and started".to_owned(),
        headings: vec!["topics", "", "memory a topic", "all confirmed", "min .. max", "again", "min .. max"],
        rows,
    });
}

const MEMORY: &str = "memory of a topic";

/// Bytes a topic, without a cluster.
fn measure_alone(count: usize) -> f64 {
    Other::interested(None, "-", count).wait(tally::FOUND)[1] as f64
}

fn measure(engine: Engine, servers: &mut Servers, count: usize) -> Found {
    let place = servers.place(Some(engine));
    System::new().block_on(async {
        let mut pubsub = ours::node(engine, &place, false);
        let other = Other::interested(Some(engine), &place, count);
        let [_, bytes, first, _] = other.wait(tally::FOUND);
        ours::acquainted(&pubsub).await;
        let again = if let Some(server) = servers.of(engine) {
            server.kill();
            // Both notice.
            other.wait(tally::FOUND);
            server.restart();
            let start = Instant::now();
            other.wait(tally::FOUND);
            start.elapsed()
        } else {
            pubsub.shutdown().await;
            // It is told who has gone.
            other.wait(tally::FOUND);
            let start = Instant::now();
            pubsub = ours::node(engine, &place, false);
            ours::acquainted(&pubsub).await;
            start.elapsed()
        };
        pubsub.shutdown().await;
        Found { bytes_a_topic: bytes as f64, first_ns: first as f64, again_ns: numbers::nanos(again) }
    })
}

/// What the second process does: subscribes, tells what it took, then tells of each loss and of each time at which all is there again.
pub(crate) fn node(engine: Engine, place: &str, count: usize, tally: Tally) {
    System::new().block_on(async move {
        let pubsub = ours::node(engine, place, true);
        let mut events = pubsub.stream::<ClusterEvent>(ClusterEvent::TOPIC).expect("it subscribes");
        ours::acquainted(&pubsub).await;
        let (before, start) = (usage::resident_kib(process::id()), Instant::now());
        let subscriptions = ours::listen(&pubsub, count, |_| {}).await;
        let took = start.elapsed();
        tally.say([tally::FOUND, bytes_a_topic(before, count), took.as_nanos() as u64, 0]);
        while let Some(event) = events.next().await {
            match &*event {
                ClusterEvent::LinkDown { .. } => {
                    tally.say([tally::FOUND, 0, 0, 0]);
                    ours::ready(&subscriptions).await;
                    tally.say([tally::FOUND, 0, 0, 0]);
                }
                ClusterEvent::NodeDown { .. } if engine == Engine::Zenoh => tally.say([tally::FOUND, 0, 0, 0]),
                _ => {}
            }
        }
    });
}

/// The same without a cluster.
pub(crate) fn alone(count: usize, tally: &Tally) {
    System::new().block_on(async move {
        let pubsub = PubSub::new();
        let before = usage::resident_kib(process::id());
        let subscriptions = ours::listen(&pubsub, count, |_| {}).await;
        tally.say([tally::FOUND, bytes_a_topic(before, count), 0, 0]);
        thread::sleep(Duration::from_secs(60));
        drop(subscriptions);
    });
}

fn bytes_a_topic(before_kib: u64, count: usize) -> u64 {
    usage::resident_kib(process::id()).saturating_sub(before_kib) * 1_024 / count as u64
}
