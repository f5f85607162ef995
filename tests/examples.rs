//! The small examples, run as a user runs them: what they print is what they promise.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::process::Command;

/// Cargo builds the examples before it runs the tests, into a folder beside them.
fn run(example: &str, args: &[&str]) -> String {
    let mut path: PathBuf = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(example);
    let output = Command::new(&path).args(args).output().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = String::from_utf8(output.stdout).expect("it prints text");
    assert!(output.status.success(), "{example} failed:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn counter_counts_to_six_twice() {
    let text = run("counter", &[]);
    assert_eq!(text.matches("3 on numbers: the sum is 6").count(), 2, "{text}");
    assert!(text.ends_with("nobody listens any more\n"), "{text}");
}

#[test]
fn slow_subscriber_shows_what_each_policy_keeps_and_counts() {
    let text = run("slow_subscriber", &[]);
    for line in [
        "disconnect   was cut off: more than 3 events waited",
        "has room     10 of 1024 wait, 1 delivered, 0 missed",
        "drop oldest  3 of 3 wait, 1 delivered, 7 missed",
        "latest       1 of 3 wait, 1 delivered, 9 missed",
        "keeps up     0 of 3 wait, 11 delivered, 0 missed",
        "drop oldest  got  8, missed 7",
        "latest       got 10, missed 9",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
    assert_eq!(text.matches("has room     got").count(), 11, "{text}");
}

#[test]
fn crash_ends_with_an_exact_table() {
    let text = run("crash", &["2"]);
    assert_eq!((text.matches(": exact").count(), text.matches("WRONG").count()), (2, 0), "{text}");
    let last = text.lines().rfind(|line| line.trim_start().starts_with("2 ")).expect("a line for the last second");
    let deaths: usize = last.split_whitespace().nth(1).expect("a count of deaths").parse().expect("a number");
    assert!(deaths > 100, "{text}");
}
