//! Cluster: what crosses between two processes, beside the bare client of each engine. `cargo bench --bench cluster --features redis,nats,zenoh`.
//!
//! `--test` (tiny), `--only crossing,unwanted,interest,nodes` (parts), `--only crossing --measure "cluster on zenoh",..` (peers), `--rounds R`, `--n 1k,100k` (topics of
//! interest), `--markdown`, `--json FILE`. The bench starts itself as the other node. Peers take turns, each round another one first; a ratio is the median of
//! the ratios within the rounds. Who sends is kept at most a window ahead of who receives, so that a slow receiver loses nothing; what is lost in spite of that is counted.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    reason = "measured times and counts are far below 2^52"
)]

#[path = "../common/mod.rs"]
mod common;
mod crossing;
mod elixir;
mod engine;
mod interest;
mod nats;
mod nodes;
mod note;
mod other;
mod ours;
mod process;
mod redis;
mod report;
#[allow(dead_code, unreachable_pub, missing_docs, clippy::pedantic)]
#[path = "../../tests/it/servers.rs"]
mod servers;
mod tally;
mod tcp;
mod unwanted;
mod window;
mod zenoh;

use std::time::Instant;

use crate::common::args::Args;
use crate::common::machine;
use crate::report::Report;

/// What every part gets.
pub(crate) struct Bench {
    pub(crate) args: Args,
    pub(crate) report: Report,
}

impl Bench {
    /// `full` sizes, or the tiny ones of a test.
    pub(crate) fn size<T>(&self, test: T, full: T) -> T {
        if self.args.test { test } else { full }
    }

    pub(crate) fn rounds(&self, full: usize) -> usize {
        if self.args.test { 1 } else { self.args.rounds.unwrap_or(full) }
    }
}

/// What `--only` names.
type Part = fn(&mut Bench);

fn main() {
    if other::is_one() {
        other::run();
        return;
    }
    let mut bench = Bench { args: Args::read(), report: Report::default() };
    let start = Instant::now();
    let parts: [(&str, Part); 4] =
        [("crossing", crossing::run), ("unwanted", unwanted::run), ("interest", interest::run), ("nodes", nodes::run)];
    for (name, run) in parts {
        if bench.args.wants(name) {
            run(&mut bench);
            eprintln!("{:4.0} s, load {:.2}: {name}", start.elapsed().as_secs_f64(), machine::load());
        }
    }
    if bench.args.test {
        println!("cluster: everything that was sent between two processes arrived, in order");
        return;
    }
    bench.report.print(bench.args.markdown);
    bench.args.record.end();
}
