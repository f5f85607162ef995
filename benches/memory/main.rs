//! Memory: what a subscription weighs, and what a delivery allocates. Run it by `cargo bench --bench memory`.
//!
//! A bench of its own, because its allocator counts and would slow the others down. `--test` (tiny), `--only subscription,delivery`.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "counts of this process are far below 2^52"
)]

#[path = "../common/mod.rs"]
mod common;
mod delivery;
mod heap;
mod subscription;

use std::alloc::System;

use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::StatsAlloc;

use crate::common::parts;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    parts::run(&[("subscription", subscription::run), ("delivery", delivery::run)]);
}
