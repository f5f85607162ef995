//! Table: what it costs to subscribe, to have many subscriptions, topics and arbiters, and to die. Run it by `cargo bench --bench table`.
//!
//! `--test` (tiny), `--only churn,many,topics,arbiters,cleanup`, `--rounds R`, `--json FILE`. What a subscription weighs is in the bench `memory`.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "measured times and counts are far below 2^52")]

mod broadcast;
mod churn;
mod cleanup;
#[path = "../common/mod.rs"]
mod common;
mod many;
mod quiet;

use crate::common::parts;

fn main() {
    parts::run(&[
        ("churn", churn::run),
        ("many", many::run),
        ("topics", broadcast::over_topics),
        ("arbiters", broadcast::over_arbiters),
        ("cleanup", cleanup::run),
    ]);
}
