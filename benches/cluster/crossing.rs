//! Crossing: how long a note takes from one process to the other at a fixed rate, and how many pass at full speed. Knows no engine's client.

use std::time::Duration;

use actix::System;

use crate::Bench;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::numbers::quantile;
use crate::common::record::PERCENTILES;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::elixir;
use crate::elixir::Pair;
use crate::engine::Engine;
use crate::engine::Peer;
use crate::engine::Servers;
use crate::nats::Nats;
use crate::other::Other;
use crate::ours;
use crate::ours::Ours;
use crate::process;
use crate::redis::Redis;
use crate::report::Samples;
use crate::report::Table;
use crate::tally;
use crate::tcp::Tcp;
use crate::window;
use crate::window::Numbers;
use crate::window::Pace;
use crate::window::Plan;
use crate::window::Sends;
use crate::zenoh::Zenoh;

/// What a round of one peer comes to.
#[derive(Debug, Clone, Default)]
struct Turn {
    p50: f64,
    p99: f64,
    percentiles: [f64; PERCENTILES.len()],
    paces: Vec<Pace>,
    /// CPU of sender, receiver and server for each note at full speed, ns.
    costs: Vec<[f64; 3]>,
    lost: u64,
    disordered: u64,
}

/// How it is measured.
struct Sizes {
    topics: usize,
    notes: u64,
    every: Duration,
    plans: Vec<Plan>,
}

pub(crate) fn run(bench: &mut Bench) {
    let topics = bench.size(20, 1_000);
    let (warm, time) = bench.size((Duration::ZERO, 50), (Duration::from_millis(300), 1_500));
    let plan = |bytes, ahead| Plan { topics, bytes, ahead, warm, time: Duration::from_millis(time) };
    let sizes = Sizes {
        topics,
        notes: bench.size(50, 2_000),
        every: Duration::from_millis(1),
        plans: vec![plan(100, 8_192), plan(1_024, 2_048)],
    };
    let mut peers: Vec<Peer> = Peer::ALL.into_iter().filter(|peer| bench.args.wants_measure(&peer.name())).collect();
    peers.retain(|peer| *peer != Peer::Elixir || elixir::is_there());
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); peers.len()];
    let servers = Servers::start();
    for round in 0..bench.rounds(5) {
        for turned in 0..peers.len() {
            let at = (turned + round) % peers.len();
            let turn = measure(peers[at], &servers, &sizes);
            // The bare client of NATS brings each topic by itself.
            if matches!(peers[at], Peer::Ours(_) | Peer::Elixir) {
                assert_eq!(turn.disordered, 0, "{}: notes of one sender out of order", peers[at].name());
            }
            if bench.args.test {
                assert_eq!(turn.lost, 0, "{} lost notes", peers[at].name());
            }
            turns[at].push(turn);
        }
    }
    record(bench, &peers, &turns, &sizes);
    for ((plan, name), which) in sizes.plans.iter().zip(["100 B", "1 KiB"]).zip(0..) {
        table(bench, &peers, &turns, plan, name, which);
    }
    latencies(bench, &peers, &turns);
}

fn measure(peer: Peer, servers: &Servers, sizes: &Sizes) -> Turn {
    let place = servers.place(peer.engine());
    let engine = peer.engine();
    let start = || Other::receiver(peer, &place, sizes.topics);
    let server = || servers.cpu(engine);
    match peer {
        Peer::Ours(engine) => System::new().block_on(async {
            let pubsub = ours::node(engine, &place, false);
            let other = start();
            other.wait(tally::READY);
            ours::acquainted(&pubsub).await;
            let turn = turn(Ours::new(pubsub.clone(), sizes.topics), &other, sizes, server).await;
            pubsub.shutdown().await;
            turn
        }),
        Peer::Bare(Engine::Zenoh) => {
            let other = start();
            other.wait(tally::READY);
            futures::executor::block_on(turn(Zenoh::connect(&place, sizes.topics), &other, sizes, server))
        }
        Peer::Bare(engine) => runtime().block_on(async {
            let other = start();
            other.wait(tally::READY);
            if engine == Engine::Redis {
                turn(Redis::connect(&place, sizes.topics).await, &other, sizes, server).await
            } else {
                turn(Nats::connect(&place, sizes.topics).await, &other, sizes, server).await
            }
        }),
        Peer::Tcp => runtime().block_on(async {
            let other = start();
            let stream = other.accept();
            other.wait(tally::READY);
            turn(Tcp::new(stream), &other, sizes, server).await
        }),
        Peer::Elixir => beam_turn(sizes),
    }
}

/// The same by two nodes of Erlang's, which measure themselves.
fn beam_turn(sizes: &Sizes) -> Turn {
    let mut pair = Pair::start(sizes.topics);
    let (mut turn, topics) = (Turn::default(), sizes.topics);
    pair.ask(&format!("pace {topics} {}", sizes.notes / 5), "paced");
    let times = pair.ask(&format!("pace {topics} {}", sizes.notes), "paced");
    (turn.p50, turn.p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    turn.percentiles = PERCENTILES.map(|percentile| quantile(&times, percentile / 100.0));
    for plan in &sizes.plans {
        let (warm, time) = (plan.warm.as_millis(), plan.time.as_millis());
        pair.ask(&format!("full {topics} {} {} {warm} {time}", plan.bytes, plan.ahead), "warm");
        let cpus = |pair: &Pair| [process::cpu(pair.sender.id()), process::cpu(pair.receiver.id())];
        let before = cpus(&pair);
        let rushed = pair.told("rushed");
        let after = cpus(&pair);
        let [notes, nanos] = rushed[..] else { panic!("{rushed:?} is no answer") };
        let each = |at: usize| after[at].saturating_sub(before[at]) as f64 / notes.max(1.0);
        turn.costs.push([each(0), each(1), 0.0]);
        turn.paces.push(Pace { per_second: notes / nanos * 1e9, notes: notes as u64 });
        turn.lost += pair.told("settled")[0] as u64;
    }
    turn
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn turn(mut sends: impl Sends, other: &Other, sizes: &Sizes, server: impl Fn() -> u64) -> Turn {
    let (mut turn, mut numbers) = (Turn::default(), Numbers::default());
    let window = &other.window;
    // What the first notes make is not measured.
    window::fixed_rate(&mut sends, &mut numbers, sizes.topics, sizes.notes / 5, sizes.every).await;
    settle(other, &numbers).await;
    other.ask(tally::ASK_TIME);
    window::fixed_rate(&mut sends, &mut numbers, sizes.topics, sizes.notes, sizes.every).await;
    settle(other, &numbers).await;
    other.ask(tally::ASK_LATENCY);
    let [_, p50, p99, _] = other.wait(tally::LATENCY);
    (turn.p50, turn.p99) = (p50 as f64, p99 as f64);
    turn.percentiles = PERCENTILES.map(|_| other.wait(tally::PERCENTILE)[2] as f64);
    let cpus = || [process::cpu(std::process::id()), process::cpu(other.id()), server()];
    for plan in &sizes.plans {
        let mut before = [0; 3];
        let pace = window::full_speed(&mut sends, window, &mut numbers, plan, || before = cpus()).await;
        let after = cpus();
        let each = |at: usize| after[at].saturating_sub(before[at]) as f64 / (pace.notes.max(1)) as f64;
        turn.costs.push([each(0), each(1), each(2)]);
        turn.paces.push(pace);
        settle(other, &numbers).await;
    }
    turn.lost = numbers.next - window.got().min(numbers.next);
    turn.disordered = window.disordered();
    turn
}

/// Waits until everything has come, or nothing has for a second.
async fn settle(other: &Other, numbers: &Numbers) {
    let (mut seen, mut quiet) = (0, 0);
    while other.window.got() < numbers.next && quiet < 10 {
        other.window.changed().await;
        quiet = if other.window.got() == seen { quiet + 1 } else { 0 };
        seen = other.window.got();
    }
}

fn samples(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> Samples {
    Samples(turns.iter().map(of).collect())
}

fn record(bench: &Bench, peers: &[Peer], turns: &[Vec<Turn>], sizes: &Sizes) {
    for (peer, turns) in peers.iter().zip(turns) {
        let (name, base) =
            (peer.name(), peer.engine().map_or_else(|| Peer::Tcp.name(), |engine| Peer::Bare(engine.client()).name()));
        let row = |measure, setting, value, unit, samples: &Samples| {
            let row = Row::new("crossing", measure, &name, unit, &samples.0).base(&base).setting(setting);
            bench.args.record.row(&row.at(if measure == ONE_WAY { "percentile" } else { "bytes" }, value));
        };
        for (which, plan) in sizes.plans.iter().enumerate() {
            let rates = samples(turns, |turn| turn.paces[which].per_second);
            row("notes at full speed", "", plan.bytes as f64, Unit::PerSecond, &rates);
            for (at, side) in ["sender", "receiver", "server"].into_iter().enumerate() {
                let costs = samples(turns, |turn| turn.costs[which][at]);
                row("CPU of a note at full speed", side, plan.bytes as f64, Unit::Nanos, &costs);
            }
        }
        for (at, percentile) in PERCENTILES.into_iter().enumerate() {
            row(ONE_WAY, "", percentile, Unit::Nanos, &samples(turns, |turn| turn.percentiles[at]));
        }
        row("notes lost", "", 0.0, Unit::Count, &samples(turns, |turn| turn.lost as f64));
    }
}

const ONE_WAY: &str = "one way, 100 B, 1,000 notes a second";

/// The samples of a peer's bare client.
fn bare<'a>(peer: Peer, peers: &[Peer], turns: &'a [Vec<Turn>]) -> Option<&'a [Turn]> {
    let Peer::Ours(engine) = peer else { return None };
    let at = peers.iter().position(|peer| *peer == Peer::Bare(engine.client()))?;
    Some(&turns[at])
}

fn table(bench: &mut Bench, peers: &[Peer], turns: &[Vec<Turn>], plan: &Plan, name: &str, which: usize) {
    let mut rows = Vec::new();
    for (peer, turns_of) in peers.iter().zip(turns) {
        let rates = samples(turns_of, |turn| turn.paces[which].per_second);
        let cpu = |at: usize| median(&samples(turns_of, |turn| turn.costs[which][at]).0);
        let ratio =
            bare(*peer, peers, turns).map(|theirs| median(&rates.over(&samples(theirs, |turn| turn.paces[which].per_second)).0));
        let lost: u64 = turns_of.iter().map(|turn| turn.lost).sum();
        rows.push(vec![
            peer.name(),
            numbers::rate(median(&rates.0)),
            format!("{} .. {}", numbers::rate(rates.min()), numbers::rate(rates.max())),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            ratio.map_or_else(String::new, |ratio| (if ratio >= 0.8 { "pass" } else { "FAIL" }).to_owned()),
            numbers::time(cpu(0)),
            numbers::time(cpu(1)),
            numbers::time(cpu(2)),
            lost.to_string(),
        ]);
    }
    bench.report.tables.push(Table {
        title: format!("Notes of {name} at full speed over {} topics, at most {} under way", plan.topics, plan.ahead),
        headings: vec!["", "notes", "min .. max", "of the bare client", ">= 0.80", "CPU: sender", "receiver", "server", "lost"],
        rows,
    });
}

fn latencies(bench: &mut Bench, peers: &[Peer], turns: &[Vec<Turn>]) {
    let mut rows = Vec::new();
    for (peer, turns_of) in peers.iter().zip(turns) {
        let (p50, p99) = (samples(turns_of, |turn| turn.p50), samples(turns_of, |turn| turn.p99));
        let ratio = bare(*peer, peers, turns).map(|theirs| median(&p50.over(&samples(theirs, |turn| turn.p50)).0));
        rows.push(vec![
            peer.name(),
            numbers::time(median(&p50.0)),
            format!("{} .. {}", numbers::time(p50.min()), numbers::time(p50.max())),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            ratio.map_or_else(String::new, |ratio| (if ratio <= 1.3 { "pass" } else { "FAIL" }).to_owned()),
            numbers::time(median(&p99.0)),
            format!("{} .. {}", numbers::time(p99.min()), numbers::time(p99.max())),
        ]);
    }
    bench.report.tables.push(Table {
        title: "One way, 100 B, 1,000 notes a second".to_owned(),
        headings: vec!["", "p50", "min .. max", "of the bare client", "<= 1.30", "p99", "min .. max"],
        rows,
    });
}
