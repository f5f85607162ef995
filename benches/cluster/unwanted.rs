//! Unwanted: broadcasts to topics that no other node wants: what they cost the caller, the wire and the other node.

use std::time::Duration;
use std::time::Instant;

use actix::System;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;

use crate::Bench;
use crate::common::numbers;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::elixir;
use crate::elixir::Pair;
use crate::engine;
use crate::engine::Engine;
use crate::engine::Peer;
use crate::engine::Servers;
use crate::note::Note;
use crate::other::Other;
use crate::ours;
use crate::process;
use crate::report::Samples;
use crate::report::Table;
use crate::tally;

/// For each broadcast.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    caller_ns: f64,
    wire_bytes: f64,
    /// CPU in ns: of this process, of the other one, of the server.
    own: f64,
    other: f64,
    server: f64,
}

pub(crate) fn run(bench: &mut Bench) {
    let bursts = bench.size(2, 50);
    let servers = Servers::start();
    let mut peers: Vec<Peer> = Engine::ALL.into_iter().chain(Engine::PEERS).map(Peer::Ours).collect();
    if elixir::is_there() {
        peers.push(Peer::Elixir);
    }
    let mut costs = vec![Vec::new(); peers.len()];
    for round in 0..bench.rounds(5) {
        for turned in 0..peers.len() {
            let at = (turned + round) % peers.len();
            costs[at].push(match peers[at] {
                Peer::Ours(engine) => measure(engine, &servers, bursts),
                _ => measure_elixir(bursts),
            });
        }
    }
    let mut rows = Vec::new();
    for (peer, costs) in peers.into_iter().zip(&costs) {
        let of = |of: fn(&Cost) -> f64| Samples(costs.iter().map(of).collect());
        let name = peer.name();
        let row = |measure, unit, of: &Samples| {
            bench.args.record.row(&Row::new("unwanted", measure, &name, unit, &of.0));
        };
        row("the caller's time", Unit::Nanos, &of(|cost| cost.caller_ns));
        row("on the wire", Unit::Bytes, &of(|cost| cost.wire_bytes));
        row("CPU of the other node", Unit::Nanos, &of(|cost| cost.other));
        row("CPU of the server", Unit::Nanos, &of(|cost| cost.server));
        row("CPU of this node", Unit::Nanos, &of(|cost| cost.own));
        let caller = of(|cost| cost.caller_ns);
        rows.push(vec![
            name,
            numbers::time(caller.median()),
            format!("{} .. {}", numbers::time(caller.min()), numbers::time(caller.max())),
            format!("{:.1}", of(|cost| cost.wire_bytes).median()),
            numbers::time(of(|cost| cost.other).median()),
            numbers::time(of(|cost| cost.server).median()),
            numbers::time(of(|cost| cost.own).median()),
        ]);
    }
    bench.report.tables.push(Table {
        title: format!("A broadcast of 100 B that no other node wants, {bursts} bursts of {BURST}"),
        headings: vec!["", "caller", "min .. max", "bytes on the wire", "CPU: other node", "server", "this node"],
        rows,
    });
}

fn measure(engine: Engine, servers: &Servers, bursts: usize) -> Cost {
    let place = servers.place(Some(engine));
    System::new().block_on(async {
        let pubsub = ours::node(engine, &place, false);
        // It is interested in one topic, of another name.
        let other = Other::receiver(Peer::Ours(engine), &place, 1);
        other.wait(tally::READY);
        ours::acquainted(&pubsub).await;
        let topics: Vec<_> = (0..1_000).map(|number| Topic::parse(&format!("unwanted:{number}")).expect("a topic")).collect();
        burst(&pubsub, &topics).await;
        let port = engine::port(&place);
        let seen = || {
            [
                process::cpu(std::process::id()),
                process::cpu(other.id()),
                servers.cpu(Some(engine)),
                process::wire_bytes(port).unwrap_or(0),
            ]
        };
        let (before, mut caller) = (seen(), Duration::ZERO);
        for _ in 0..bursts {
            caller += burst(&pubsub, &topics).await;
        }
        // What is with the engine has passed by then.
        actix::clock::sleep(Duration::from_millis(100)).await;
        let after = seen();
        let broadcasts = (bursts * BURST) as f64;
        let each = |at: usize| after[at].saturating_sub(before[at]) as f64 / broadcasts;
        let cost = Cost {
            caller_ns: numbers::nanos(caller) / broadcasts,
            own: each(0),
            other: each(1),
            server: each(2),
            wire_bytes: each(3),
        };
        pubsub.shutdown().await;
        cost
    })
}

/// Between two nodes of Erlang's, where each node gets everything.
fn measure_elixir(bursts: usize) -> Cost {
    let mut pair = Pair::start(1);
    pair.ask(&format!("unwanted 1 {BURST}"), "unwanted");
    let seen = |pair: &Pair| {
        [process::cpu(pair.sender.id()), process::cpu(pair.receiver.id()), process::wire_bytes(pair.port).unwrap_or(0)]
    };
    let before = seen(&pair);
    let caller = pair.ask(&format!("unwanted {bursts} {BURST}"), "unwanted")[0];
    let after = seen(&pair);
    let broadcasts = (bursts * BURST) as f64;
    let each = |at: usize| after[at].saturating_sub(before[at]) as f64 / broadcasts;
    Cost { caller_ns: caller / broadcasts, own: each(0), other: each(1), server: 0.0, wire_bytes: each(2) }
}

/// Broadcasts what fits the queue; the time that it took the caller, not that until it has gone out.
async fn burst(pubsub: &PubSub, topics: &[Topic]) -> Duration {
    let notes: Vec<_> = (0..BURST).map(|_| Note(vec![7; 100])).collect();
    let start = Instant::now();
    for (number, note) in notes.into_iter().enumerate() {
        pubsub.broadcast(&topics[number % topics.len()], note).expect("it broadcasts");
    }
    let took = start.elapsed();
    while pubsub.stats().cluster.is_some_and(|cluster| cluster.queue_depth > 0) {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }
    took
}

const BURST: usize = 4_096;
