//! Log: the durable log beside the bare engine, a raw file and plain Redis Streams. Run it by `cargo bench --bench log --features embedded,redis`.
//!
//! `--test` (tiny), `--only append,replay,latency,redis,cost,consumers`, `--n 64,..` (appenders), `--measure "bare engine",..` (peers), `--rounds R`,
//! `--markdown`, `--json FILE`, and `--large` for 10 million entries, some minutes.
//! Peers take turns, so that what disturbs one round disturbs all of them; a ratio is the median of the ratios within the rounds. Every entry is
//! counted and its place checked. The files are in a folder of the system's for temporary ones, which is removed in the end.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    reason = "measured times and counts are far below 2^52"
)]

mod append;
mod bare;
mod child;
#[path = "../common/mod.rs"]
mod common;
mod consumers;
mod cost;
mod folder;
mod latency;
mod note;
mod reader;
#[cfg(feature = "redis")]
mod redis;
mod replay;
mod report;
mod rounds;

use std::time::Instant;

use actix::System;

use crate::common::args::Args;
use crate::common::machine;
use crate::common::record::Row;
use crate::report::Report;
use crate::rounds::Rates;

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

    /// A row for each peer: `row` makes it, of the peer's name and samples.
    pub(crate) fn record<'a>(&self, rates: &'a Rates, row: impl Fn(&'a str, &'a [f64]) -> Row<'a>) {
        for (peer, samples) in rates.peers() {
            self.args.record.row(&row(peer, samples));
        }
    }
}

fn main() {
    if child::is_one() {
        child::run();
        return;
    }
    let mut bench = Bench { args: Args::read(), report: Report::default() };
    let start = Instant::now();
    let mut part = |name: &str, run: &dyn Fn(&mut Bench)| {
        if bench.args.wants(name) {
            run(&mut bench);
            eprintln!("{:4.0} s, load {:.2}: {name}", start.elapsed().as_secs_f64(), machine::load());
        }
    };
    part("append", &|bench| System::new().block_on(append::run(bench)));
    part("replay", &|bench| System::new().block_on(replay::run(bench)));
    part("latency", &|bench| System::new().block_on(latency::run(bench)));
    part("redis", &redis_part);
    part("cost", &|bench| System::new().block_on(cost::run(bench)));
    part("consumers", &|bench| System::new().block_on(consumers::run(bench)));
    if bench.args.test {
        println!("log: every entry was appended, replayed and consumed, in order and without loss");
        return;
    }
    bench.report.print(bench.args.markdown);
    bench.args.record.end();
}

#[cfg(feature = "redis")]
fn redis_part(bench: &mut Bench) {
    System::new().block_on(redis::run(bench));
}

#[cfg(not(feature = "redis"))]
fn redis_part(bench: &mut Bench) {
    bench.report.skip("redis: skipped, needs `--features redis`");
}
