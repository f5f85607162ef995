//! Insight: what it costs to be seen. Run it by `cargo bench --bench insight`.
//!
//! `looking`: how long a look takes, by the number of subscribers. `fanout`: what it takes from the fan-out while somebody looks every second.
//! `--test` (tiny), `--only looking,fanout`, `--n 1k,100k`, `--rounds R`.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "measured times and counts are far below 2^52")]

#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod fanout;
mod looking;

use crate::common::parts;

fn main() {
    parts::run(&[("looking", looking::run), ("fanout", fanout::run)]);
}
