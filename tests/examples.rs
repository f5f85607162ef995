//! The small examples, run as a user runs them: what they print is what they promise.
#![allow(missing_docs)]

#[cfg(feature = "redis")]
#[allow(dead_code, unreachable_pub, reason = "not every test needs all of it")]
#[path = "it/servers.rs"]
mod servers;

use std::io::BufRead;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

/// Cargo builds the examples before it runs the tests, into a folder beside them.
fn command(example: &str, args: &[&str]) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(example);
    let mut command = Command::new(path);
    command.args(args);
    command
}

fn run(example: &str, args: &[&str]) -> String {
    let mut command = command(example, args);
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
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

/// Which node handles first is not said.
#[cfg(feature = "opentelemetry")]
#[test]
fn traces_prints_one_tree_over_two_nodes() {
    let text = run("traces", &[]);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("trace ") && lines[1] == "  POST /orders " && lines[2] == "    pubsub.broadcast topic=orders",
        "{text}"
    );
    let mut tree: Vec<_> = lines[3..].to_vec();
    let elsewhere = tree
        .iter()
        .position(|line| line.starts_with("      on the other node: pubsub.receive topic=orders origin="))
        .expect(&text);
    let there: Vec<_> = tree.drain(elsewhere..elsewhere + 4).skip(1).collect();
    let delivered =
        ["pubsub.deliver topic=orders subscribers=1", "  pubsub.handle topic=orders actor=traces::Kitchen", "    cook order=1"];
    assert_eq!(there, delivered.map(|line| format!("        {line}")), "{text}");
    assert_eq!(tree, delivered.map(|line| format!("      {line}")), "{text}");
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

/// A file that is not there yet, and is gone after the test.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("actix-pubsub-{}-{name}.redb", std::process::id()));
        // One that a killed test of the same number left.
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn address(&self) -> String {
        format!("file:{}", self.0.display())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The number after a word in one of the lines that `orders` prints while it runs.
fn count_after(word: &str, line: &str) -> Option<u64> {
    let mut words = line.split_whitespace().skip_while(|it| *it != word);
    words.nth(1)?.split('/').next()?.parse().ok()
}

#[test]
fn orders_books_each_order_once_although_its_ledger_is_killed_in_a_new_file_by_default() {
    let text = run("orders", &["--orders", "300", "--rate", "3000", "--kills", "9"]);
    assert!(text.ends_with("every order is booked exactly once\n"), "{text}");
    // One order in 300 has no amount, one breaks the ledger each of the 8 times it comes, and 9 kills are asked for.
    for line in ["300 orders in the log, 298 bookings", "1 dead letters: the consumer died of it"] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
    let last = text.lines().rfind(|line| line.contains(" s  appended ")).expect("a line while it runs");
    let count = |word| count_after(word, last).unwrap_or_else(|| panic!("no {word} in {last}"));
    assert_eq!((count("appended"), count("booked"), count("dead")), (300, 298, 2), "{text}");
    // Two that fall on one worker at once are one.
    assert!((10..=17).contains(&count("kills")), "{text}");
    assert!(count("suppressed") > 0, "who is killed between the booking and the ack leaves a duplicate: {text}");
}

#[test]
fn orders_that_is_killed_as_a_whole_goes_on_where_it_stopped_and_books_each_order_once() {
    let file = File::new("kill-9");
    let address = file.address();
    let args = ["--store", &address, "--orders", "1500", "--rate", "700"];
    let (mut before, mut resume) = (0, None);
    for kill in 0..2 {
        let mut process = command("orders", &args).args(resume).stdout(Stdio::piped()).spawn().expect("it runs");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut lines = lines.map(|line| line.expect("it prints text"));
        // It has done something since the last kill, and is not done.
        let middle = lines.find(|line| count_after("booked", line).is_some_and(|booked| booked > before)).expect("a line");
        process.kill().expect("it is ours, and has not been waited for");
        assert!(!process.wait().expect("it was started").success(), "it was killed");
        before = count_after("booked", &middle).expect("a count");
        assert!(before < 1_490, "kill {kill} came too late: {middle}");
        resume = Some("--resume");
    }
    let refused = command("orders", &args).output().expect("it runs");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && error.contains("--resume goes on with it"), "{error}");
    let text = run("orders", &[&args[..], &["--resume"]].concat());
    assert!(text.contains("1,500 orders in the log, 1,492 bookings"), "{text}");
    assert!(text.ends_with("every order is booked exactly once\n"), "{text}");
    let text = run("orders", &[&args[..], &["--resume"]].concat());
    assert!(text.ends_with("every order is booked exactly once\n"), "with nothing left to do: {text}");
}

#[cfg(feature = "redis")]
fn redis_cli(server: &servers::Server, args: &[&str]) {
    let port = server.port.to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(args).output().expect("it is there");
    assert!(output.status.success() && !output.stdout.starts_with(b"ERR"), "{output:?}");
}

/// An entry that is no order stopped the fan-out and with it the run; the advice was to go on with `--resume`, which stopped at the same entry.
#[cfg(feature = "redis")]
#[test]
fn orders_passes_over_what_is_no_order_and_goes_on_with_it_in_the_log() {
    let server = servers::Server::redis();
    let args = ["--store", &server.url(), "--orders", "300", "--rate", "300", "--kills", "2"];
    let mut process = command("orders", &args).stdout(Stdio::piped()).spawn().expect("it runs");
    let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    let mut lines = lines.map(|line| line.expect("it prints text"));
    lines.next().expect("a line while it runs");
    redis_cli(&server, &["XADD", "orders", "*", "name", "shop.order", "payload", "no json"]);
    redis_cli(&server, &["XADD", "orders", "*", "name", "shop.other", "payload", "{}"]);
    let rest: Vec<_> = lines.collect();
    assert!(process.wait().expect("it was started").success(), "{rest:#?}");
    assert!(rest.contains(&"2 entries are no orders, 1 of them came while this ran".to_owned()), "{rest:#?}");
    assert!(rest.contains(&"every order is booked exactly once".to_owned()), "{rest:#?}");
    redis_cli(&server, &["XADD", "orders", "*", "name", "shop.other", "payload", "the last"]);
    let text = run("orders", &[&args[..], &["--resume"]].concat());
    assert!(text.contains("3 entries are no orders, 0 of them"), "{text}");
    // What lacks a part is another matter, and `--resume` no advice.
    redis_cli(&server, &["XTRIM", "orders", "MAXLEN", "=", "100"]);
    let output = command("orders", &args).arg("--resume").output().expect("it runs");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(error.contains("are gone: trimmed") && !out.contains("to go on"), "{out}{error}");
}

/// A store without room was tried again without a word, and orders were given up for it that could have been booked.
#[cfg(feature = "redis")]
#[test]
fn orders_names_a_full_store_while_it_waits_for_room_and_gives_no_order_up_for_it() {
    let server = servers::Server::redis();
    let args = ["--store", &server.url(), "--orders", "900", "--rate", "300", "--kills", "0"];
    let mut process = command("orders", &args).stdout(Stdio::piped()).spawn().expect("it runs");
    let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    let mut lines = lines.map(|line| line.expect("it prints text"));
    lines.next().expect("a line while it runs");
    redis_cli(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    let mut named = 0;
    while named < 4 {
        let line = lines.next().expect("it goes on");
        named += u32::from(line.contains("tried again: ") && line.contains("store has no room to write: "));
    }
    redis_cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    let rest: Vec<_> = lines.collect();
    assert!(process.wait().expect("it was started").success(), "{rest:#?}");
    assert!(!rest[rest.len() - 6..].concat().contains("tried again"), "{rest:#?}");
}

#[test]
fn orders_says_what_it_does_not_understand() {
    for (args, says) in [
        (&["--orders", "many"][..], "\"many\""),
        (&["--rate", "0"], "rate is 0"),
        (&["--resume"], "--resume needs the --store"),
        (&["--store", "sqlite:x"], "\"sqlite:x\" is no store"),
        (&["extra"], "\"extra\""),
    ] {
        let output = command("orders", args).output().expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(says), "{args:?}: {error}");
    }
    assert!(run("orders", &["--help"]).starts_with("usage: orders"));
}
