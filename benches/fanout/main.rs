//! Fanout: this crate beside its peers, from 1 to 100,000 subscribers. Run it by `cargo bench --bench fanout`.
//!
//! All peers are built first and measured in turns, so that what disturbs one round disturbs all of them. Each turn sends single
//! events, for the time until publish returns and until the last handler has run, and bursts, for deliveries per second.
//! Every delivery is checked: a peer that loses, doubles or reorders an event ends the bench.
//!
//! `--test` (tiny), `--markdown`, `--only NAME,..`, `--n 1,10k,..`, `--placement 1t,2t,spread`,
//! `--measure single,burst`, `--rounds R`, `--json FILE` (for single events the median of each round).

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "measured times and counts are far below 2^52")]

#[path = "../common/mod.rs"]
mod common;
mod goals;
mod peers;
mod report;
mod rig;

use std::time::Instant;

use crate::common::args::Args;
use crate::common::beam;
use crate::common::machine;
use crate::common::numbers::median;
use crate::peers::ELIXIR;
use crate::peers::Peer;
use crate::report::Report;
use crate::report::Samples;
use crate::rig::Placement;
use crate::rig::Rig;
use crate::rig::Turn;

fn main() {
    let args = Args::read();
    let start = Instant::now();
    let mut report = Report::default();
    let mut peers: Vec<_> = peers::ALL.iter().filter(|peer| args.wants(peer.name)).collect();
    peers.retain(|peer| peer.name != ELIXIR || beam::is_there());
    for plan in PLANS.iter().filter(|plan| args.n.is_empty() || args.n.contains(&plan.n)) {
        // Sizes beyond this take longer to build than a test may.
        if args.test && plan.n > 1_000 && args.n.is_empty() {
            continue;
        }
        for placement in Placement::ALL.into_iter().filter(|placement| args.wants_placement(placement.name())) {
            // With one subscriber there is nothing to spread.
            if placement == Placement::Spread && plan.n == 1 {
                continue;
            }
            measure(plan, placement, &peers, &args, &mut report);
            eprintln!(
                "{:4.0} s, load {:.2}: {} subscribers, {}",
                start.elapsed().as_secs_f64(),
                machine::load(),
                plan.n,
                placement.name()
            );
        }
    }
    if args.test {
        println!("fanout: every peer delivered every event to every subscriber, once and in order");
        return;
    }
    report.print(args.markdown);
    goals::print(&report);
    args.record.end();
}

/// Builds all peers, then lets them take turns.
fn measure(plan: &Plan, placement: Placement, peers: &[&Peer], args: &Args, report: &mut Report) {
    let mut peers: Vec<_> = peers.iter().filter(|peer| peer.runs(placement)).collect();
    // One start of its virtual machine for each placement shows that it works.
    peers.retain(|peer| peer.name != ELIXIR || !args.test || plan.n == 100);
    let rigs: Vec<_> = peers.iter().map(|peer| Rig::build(peer.name, peer.run, plan.n, placement)).collect();
    let (mut turn, rounds) = if args.test { (TEST, 2) } else { (plan.turn, args.rounds.unwrap_or(plan.rounds)) };
    turn.singles *= usize::from(args.wants_measure("single"));
    turn.bursts *= usize::from(args.wants_measure("burst"));
    let mut samples: Vec<_> = peers.iter().map(|_| Samples::default()).collect();
    let mut medians = samples.clone();
    for round in 0..rounds {
        for turned in 0..rigs.len() {
            // Each round another one is first.
            let at = (turned + round) % rigs.len();
            let took = rigs[at].turn(turn);
            medians[at].publish.push(median(&took.publish));
            medians[at].last.push(median(&took.last));
            samples[at].publish.extend(took.publish);
            samples[at].last.extend(took.last);
            if turn.bursts > 0 {
                samples[at].rate.push((turn.burst * turn.bursts * plan.n) as f64 / took.burst_seconds);
            }
        }
    }
    for ((peer, samples), mut medians) in peers.iter().zip(samples).zip(medians) {
        report.add(plan.n, placement, peer.name, &samples);
        medians.rate = samples.rate;
        medians.record(&args.record, plan.n, placement, peer.name);
    }
}

struct Plan {
    n: usize,
    turn: Turn,
    rounds: usize,
}

const TEST: Turn = Turn { singles: 3, burst: 100, bursts: 2 };

/// A burst is no longer than a channel of 1,024 holds, and all bursts of a turn are about a million deliveries or more.
const PLANS: &[Plan] = &[
    Plan { n: 1, turn: Turn { singles: 200, burst: 1_000, bursts: 200 }, rounds: 11 },
    Plan { n: 10, turn: Turn { singles: 200, burst: 1_000, bursts: 50 }, rounds: 11 },
    Plan { n: 100, turn: Turn { singles: 100, burst: 1_000, bursts: 10 }, rounds: 11 },
    Plan { n: 1_000, turn: Turn { singles: 50, burst: 1_000, bursts: 1 }, rounds: 11 },
    Plan { n: 10_000, turn: Turn { singles: 15, burst: 128, bursts: 1 }, rounds: 7 },
    Plan { n: 100_000, turn: Turn { singles: 5, burst: 64, bursts: 1 }, rounds: 5 },
];
