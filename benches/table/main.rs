//! Table: what it costs to subscribe, to have many subscriptions, and to die. Run it by `cargo bench --bench table`.
//!
//! `--test` (tiny), `--only churn,many,cleanup`, `--rounds R`. What a subscription weighs is in the bench `memory`.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "measured times and counts are far below 2^52")]

mod churn;
mod cleanup;
#[path = "../common/mod.rs"]
mod common;
mod many;
mod quiet;

use crate::common::args::Args;
use crate::common::machine;

fn main() {
    let args = Args::read();
    if !args.test {
        println!("{}", machine::line());
    }
    let parts: [(&str, Part); 3] = [("churn", churn::run), ("many", many::run), ("cleanup", cleanup::run)];
    for (name, run) in parts {
        if args.wants(name) {
            println!();
            run(&args);
        }
    }
}

type Part = fn(&Args);

/// A goal, kept or not; in a test nothing is said of time.
fn goal(args: &Args, kept: bool, what: &str) {
    if !args.test {
        println!("  {}  {what}", if kept { "pass" } else { "FAIL" });
    }
}
