//! Stalled: what clients that read nothing cost those that do. Knows no peers: only ours promises anything here.

use std::time::Duration;

use crate::child::Child;
use crate::common::args::Args;
use crate::common::machine;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::server::Server;
use crate::servers;
use crate::turn::BURST;
use crate::turn::PER_CLIENT;
use crate::turn::Pair;
use crate::turn::Phase;

/// The healthy ones' latency on a server of their own, once more there, which is the noise, and on one with stalled ones.
struct Took {
    alone: Phase,
    again: Phase,
    beside: Phase,
}

/// Each server in each round, in turns.
pub(crate) fn compare(args: &Args, rounds: usize) {
    let clients = if args.test { 20 } else { args.n.first().copied().unwrap_or(CLIENTS) };
    let broadcasts = if args.test { 5 } else { BROADCASTS };
    let ours: Vec<_> = servers::all().filter(|server| server.name.starts_with("ours") && args.wants(server.name)).collect();
    let mut rows: Vec<Vec<Took>> = ours.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turned in 0..ours.len() {
            let at = (turned + round) % ours.len();
            rows[at].push(take(ours[at], clients, broadcasts, round));
            eprintln!("load {:.2}: round {}, {}", machine::load(), round + 1, ours[at].name);
        }
    }
    if args.test {
        println!("web: clients that read get every broadcast beside as many that do not");
        return;
    }
    for (server, turns) in ours.iter().zip(&rows) {
        let row = |peer, setting, of: fn(&Took) -> f64| {
            let samples: Vec<f64> = turns.iter().map(of).collect();
            let row = Row::new("stalled", server.name, peer, Unit::Nanos, &samples).base(ALONE);
            args.record.row(&row.setting(setting).at("clients that read", clients as f64));
        };
        row(ALONE, "p50", |took| took.alone.p50);
        row("beside as many that read nothing", "p50", |took| took.beside.p50);
        row("alone once more", "p50", |took| took.again.p50);
        row(ALONE, "p99", |took| took.alone.p99);
        row("beside as many that read nothing", "p99", |took| took.beside.p99);
        row("alone once more", "p99", |took| took.again.p99);
    }
    println!("{}", machine::line());
    println!(
        "{clients} clients that read, alone and beside {clients} that do not; from broadcast to client, medians of {rounds} rounds.\n"
    );
    println!(
        "| server | p50 alone | beside | p99 alone | beside | p99 beside of alone | alone again of alone |\n|:--|--:|--:|--:|--:|--:|--:|"
    );
    for (server, turns) in ours.iter().zip(&rows) {
        let of = |number: fn(&Took) -> f64| median(&turns.iter().map(number).collect::<Vec<_>>());
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            server.name,
            numbers::time(of(|took| took.alone.p50)),
            numbers::time(of(|took| took.beside.p50)),
            numbers::time(of(|took| took.alone.p99)),
            numbers::time(of(|took| took.beside.p99)),
            numbers::times(of(|took| took.beside.p99 / took.alone.p99)),
            numbers::times(of(|took| took.again.p99 / took.alone.p99)),
        );
    }
}

/// Two servers, one after the other, each round the other one first.
fn take(server: &Server, clients: usize, broadcasts: u32, round: usize) -> Took {
    let turn = |crowd| turn(server, clients, broadcasts, crowd);
    let (alone, beside) = if round.is_multiple_of(2) {
        let alone = turn(false);
        (alone, turn(true))
    } else {
        let beside = turn(true);
        (turn(false), beside)
    };
    Took { alone: alone.0, again: alone.1, beside: beside.0 }
}

/// Two phases after the same beginning.
fn turn(server: &Server, clients: usize, broadcasts: u32, crowd: bool) -> (Phase, Phase) {
    let process = Child::server(server.name);
    let port = process.answer("port").parse().expect("a port");
    let mut pair = Pair::of(process, Child::load(server.name, port, clients));
    let crowd = crowd.then(|| {
        let mut crowd = Child::crowd(server.name, port, clients);
        crowd.answer("ready");
        crowd.tell("stall");
        crowd.answer("stalled");
        crowd
    });
    // More than all buffers on the way take.
    pair.phase(FILL / BURST, BURST, Duration::ZERO);
    let gap = PER_CLIENT * clients as u32;
    let first = pair.phase(1, broadcasts, gap);
    if let Some(mut crowd) = crowd {
        crowd.tell("look");
        let stalled: usize = crowd.answer("looked").parse().expect("a number");
        assert!(stalled == clients, "only {stalled} of {clients} were there to the end");
        return (first, first);
    }
    (first, pair.phase(1, broadcasts, gap))
}

const ALONE: &str = "alone";
const CLIENTS: usize = 1_000;
/// For some 3 s: a client that does not read is given up after 10 s.
const BROADCASTS: u32 = 60;
const FILL: u32 = 2_000;
