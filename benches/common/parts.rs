//! Parts: a bench of several parts, run in order, and how it says whether a goal is kept. Knows no part.

use crate::common::args::Args;
use crate::common::machine;

pub(crate) type Part = fn(&Args);

/// Runs the parts that the arguments name, all by default.
pub(crate) fn run(parts: &[(&str, Part)]) {
    let args = Args::read();
    if !args.test {
        println!("{}", machine::line());
    }
    for (name, run) in parts {
        if args.wants(name) {
            println!();
            run(&args);
        }
    }
    args.record.end();
}

/// A goal, kept or not; in a test nothing is said of time.
pub(crate) fn goal(args: &Args, kept: bool, what: &str) {
    if !args.test {
        println!("  {}  {what}", if kept { "pass" } else { "FAIL" });
    }
}
