//! Insight: what it costs to be seen. Run it by `cargo bench --bench insight`.
//!
//! `looking`: how long a look takes, by the number of subscribers. `fanout`: what it takes from the fan-out while somebody looks every second; with
//! `--features prometheus` also while Prometheus does. `traced`: what it takes while spans are recorded. `bursts`: some bursts and nothing else, for
//! `benches/compiled.sh`, which compares a build with metrics and spans to one without.
//! `--test` (tiny), `--only looking,fanout`, `--n 1k,100k`, `--rounds R`.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "measured times and counts are far below 2^52")]

mod bursts;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod fanout;
mod looking;
mod traced;

use crate::common::parts;

fn main() {
    parts::run(&[("looking", looking::run), ("fanout", fanout::run), ("traced", traced::run), ("bursts", bursts::run)]);
}
