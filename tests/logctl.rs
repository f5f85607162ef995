//! `logctl`, run as an operator runs it, on a file that `orders` made and on one with what nobody wishes for: what it prints is what is in there.
#![allow(missing_docs)]
#![cfg(feature = "embedded")]

use std::io::BufRead;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::Fetch;
use actix_pubsub::log::Group;
use actix_pubsub::log::Name;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;
use serde_json::Value;

/// Cargo builds the examples before it runs the tests, into a folder beside them.
fn command(example: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(example);
    Command::new(path)
}

/// A process that is just being started has this one's files for a moment, and with them the lock of a store that was closed meanwhile. So none is
/// started while one has a store open.
fn forks() -> MutexGuard<'static, ()> {
    static FORKS: Mutex<()> = Mutex::new(());
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(command: &mut Command) -> Child {
    let _no_store_is_open = forks();
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn output(command: &mut Command) -> Output {
    let process = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    process.wait_with_output().expect("it was started")
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

    /// Runs `fill` on a store in this file, which is closed afterwards.
    fn fill(&self, fill: impl AsyncFnOnce(&EmbeddedStore)) {
        let _nobody_forks = forks();
        actix::System::new().block_on(async {
            let store = EmbeddedStore::open(&self.0).expect("a new file");
            fill(&store).await;
            store.close().await.expect("it can be closed");
        });
    }

    fn logctl(&self, args: &str) -> Output {
        let mut command = command("logctl");
        output(command.arg(self.address()).args(args.split_whitespace()))
    }

    fn text(&self, args: &str) -> String {
        let output = self.logctl(args);
        let (text, error) = (utf8(output.stdout), utf8(output.stderr));
        assert!(output.status.success() && error.is_empty(), "{args}: {error}");
        text
    }

    fn json(&self, args: &str) -> Value {
        let text = self.text(&format!("{args} --json"));
        assert_eq!(text.matches('\n').count(), 1, "one document on one line: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What it says on standard error, in one line, and its exit code.
    fn refusal(&self, args: &str) -> (Option<i32>, String) {
        let output = self.logctl(args);
        let error = utf8(output.stderr);
        assert!(output.stdout.is_empty() && error.starts_with("logctl: ") && error.matches('\n').count() == 1, "{args}: {error}");
        (output.status.code(), error)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("it prints text")
}

/// The cells of a table's row that begins with `first`.
fn row<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let row = table.lines().find(|line| line.split_whitespace().next() == Some(first));
    row.unwrap_or_else(|| panic!("no {first} in:\n{table}")).split_whitespace().collect()
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a valid name")
}

#[test]
fn what_orders_leaves_behind_is_shown_in_both_forms() {
    let file = File::new("logctl-orders");
    let args = ["--store", &file.address(), "--orders", "120", "--rate", "3000", "--kills", "3"];
    let made = output(command("orders").args(args));
    assert!(made.status.success(), "{}", utf8(made.stderr));

    let (text, json) = (file.text("info"), file.json("info"));
    assert_eq!(row(&text, "durability"), ["durability", "synced"]);
    assert_eq!(row(&text, "entries"), ["entries", "240"]);
    assert_eq!((&json["entries"], &json["topics"], &json["groups"]), (&240.into(), &3.into(), &2.into()));

    let (text, json) = (file.text("topics"), file.json("topics"));
    assert_eq!(json.as_array().expect("topics").iter().map(|it| it["topic"].as_str().unwrap()).collect::<Vec<_>>(), {
        ["dead:orders", "ledger:booked", "orders"]
    });
    for (name, entries) in [("orders", "120"), ("ledger:booked", "118"), ("dead:orders", "2")] {
        assert_eq!(row(&text, name)[1], entries, "{text}");
    }
    assert_eq!(json[2]["entries"], 120);

    let (text, json) = (file.text("info orders"), file.json("info orders"));
    assert_eq!((row(&text, "entries")[1], row(&text, "groups")[1]), ("120", "2"));
    assert_eq!(row(&text, "last")[1].trim_end_matches(','), json["last"].as_str().expect("an id"));

    let (text, json) = (file.text("groups orders"), file.json("groups orders"));
    for (at, group) in ["ledger", "notify"].into_iter().enumerate() {
        assert_eq!(row(&text, group)[1..5], ["0", "0", "0", "0"], "{text}");
        assert_eq!((&json[at]["group"], &json[at]["lag"], &json[at]["pending"]), (&group.into(), &0.into(), &0.into()));
    }

    let (text, json) = (file.text("read dead:orders"), file.json("read dead:orders"));
    for line in ["    dead-letter-reason: the consumer died of it", "    dead-letter-topic: orders"] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
    assert_eq!(json["entries"].as_array().map(Vec::len), Some(2));
    assert_eq!((&json["caught_up"], &json["gap"]), (&true.into(), &Value::Null));
    let order: Value = serde_json::from_str(json["entries"][0]["payload"].as_str().expect("text")).expect("JSON");
    assert!(order["number"] == 100 || order["number"] == 60, "{order}");
}

#[test]
fn pages_positions_and_trims_mean_what_they_say() {
    let file = File::new("logctl-pages");
    file.fill(async |store| {
        let entries = (0..30).map(|n| NewEntry::new("n", format!("payload {n}"))).collect();
        store.append(&topic("t"), Append::many(entries)).await.expect("it is open");
    });
    let page = file.json("read t --limit 10");
    assert_eq!((page["entries"].as_array().map(Vec::len), &page["caught_up"]), (Some(10), &false.into()));
    let next = page["next"].as_str().expect("an id");
    assert!(file.text("read t --limit 10").ends_with(&format!("more follow: --from {next}\n")));
    let rest = file.json(&format!("read t --from {next}"));
    assert_eq!((rest["entries"].as_array().map(Vec::len), &rest["caught_up"]), (Some(20), &true.into()));
    assert_eq!(rest["entries"][0]["payload"], "payload 10");
    assert_eq!(file.json("read t --from -5m")["entries"].as_array().map(Vec::len), Some(30));
    assert_eq!(file.json("read t --from end")["entries"].as_array().map(Vec::len), Some(0));

    assert_eq!(file.json("trim t --age 7d")["removed"], 0);
    assert_eq!(file.json("trim t --len 25")["removed"], 5);
    assert_eq!(file.text(&format!("trim t --before {next}")), "4 entries of t removed\n");
    assert_eq!(file.json("info t")["entries"], 21);
    let gap = file.json("read t --from 0-0")["gap"].clone();
    assert_eq!((&gap["cause"], &gap["certain"], gap["resumes_at"].as_str()), (&"trimmed".into(), &true.into(), Some(next)));
    assert!(file.text("read t --from 0-0").starts_with("entries after 0-0 are gone (trimmed), it goes on at "));
}

#[test]
fn pending_entries_are_listed_by_consumer_and_age() {
    let file = File::new("logctl-pending");
    file.fill(async |store| {
        let entries = (0..5).map(|n| NewEntry::new("n", format!("{n}"))).collect();
        store.append(&topic("t"), Append::many(entries)).await.expect("it is open");
        let group = Group::new(topic("t"), Name::parse("g").expect("a name"));
        store.create_group(&group, Position::Start).await.expect("it is open");
        for (consumer, entries) in [("one", 2), ("two", 1)] {
            let fetch = Fetch::entries(entries).visibility(Duration::from_secs(3_600));
            let consumer = Name::parse(consumer).expect("a name");
            assert_eq!(store.fetch(&group, &consumer, fetch).await.expect("it is open").len(), entries);
        }
    });
    assert_eq!(row(&file.text("groups t"), "g")[1..5], ["2", "3", "0", "2"]);
    let (text, json) = (file.text("pending t g"), file.json("pending t g"));
    assert_eq!(text.lines().count(), 4, "{text}");
    assert_eq!(row(&text, json[2]["id"].as_str().expect("an id"))[1], "two", "{text}");
    assert_eq!((&json[0]["consumer"], &json[0]["deliveries"]), (&"one".into(), &1.into()));
    assert!(json[0]["due_in_ms"].as_u64().expect("a time") > 3_000_000, "{json}");
    assert_eq!(file.json("pending t g --consumer one").as_array().map(Vec::len), Some(2));
    assert_eq!(file.json("pending t g --limit 1").as_array().map(Vec::len), Some(1));
    assert_eq!(file.json("pending t g --idle-min 7d").as_array().map(Vec::len), Some(0));
    assert_eq!(row(&file.text("consumers t g"), "one")[1], "2");
    assert_eq!(file.json("consumers t g")[1]["consumer"], "two");
}

/// What stands in a log was written by strangers. Printed as it is, it could move the cursor, change the window's title, or answer in the operator's name.
#[test]
fn a_hostile_entry_does_not_drive_the_terminal() {
    let (file, payload) = (File::new("logctl-hostile"), "a\u{1b}[2J\u{9b}31m\r\n\u{202e}b\u{7f}");
    file.fill(async |store| {
        let hostile = NewEntry::new("na\u{1b}me", payload).header("he\u{7}ader", "va\u{1b}]0;x\u{7}lue");
        let binary = NewEntry::new("", vec![0xff, 0x00, 0x1b]);
        let long = NewEntry::new("long", "x".repeat(10_000));
        store.append(&topic("t"), Append::many(vec![hostile, binary, long])).await.expect("it is open");
    });
    let text = file.text("read t");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with(r"na\u{1b}me  a\u{1b}[2J\u{9b}31m\r\n\u{202e}b\u{7f}"), "{text:?}");
    assert_eq!(lines[1], r"    he\u{7}ader: va\u{1b}]0;x\u{7}lue");
    assert!(lines[2].ends_with("-  hex ff001b"), "{text:?}");
    assert!(lines[3].ends_with("xxx… (10,000 bytes)") && lines[3].len() < 250, "{text:?}");
    assert!(file.text("read t --full").contains(&"x".repeat(10_000)));
    for args in ["read t", "read t --json", "read t --full"] {
        let text = file.text(args);
        assert!(!text.chars().any(|c| c != '\n' && c.is_control() || c == '\u{202e}'), "{args}: {text:?}");
    }
    let json = file.json("read t");
    assert_eq!((&json["entries"][0]["payload"], &json["entries"][0]["name"]), (&payload.into(), &"na\u{1b}me".into()));
    assert_eq!((&json["entries"][1]["payload_hex"], &json["entries"][1]["payload"]), (&"ff001b".into(), &Value::Null));
    // In what it says of an error, too.
    let (code, error) = file.refusal("info \u{202e}t");
    assert!(code == Some(1) && error.contains(r"\u{202e}t"), "{error}");
}

#[cfg(unix)]
#[test]
fn tail_prints_a_line_for_each_entry_until_ctrl_c() {
    let file = File::new("logctl-tail");
    file.fill(async |store| {
        for name in ["a", "b"] {
            store.append(&topic(name), Append::one(NewEntry::new("n", format!("in {name}")))).await.expect("it is open");
        }
    });
    let args = [&*file.address(), "tail", "a", "b", "--from", "start", "--json"];
    let mut process = spawn(command("logctl").args(args).stdout(Stdio::piped()));
    let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    for name in ["a", "b"] {
        let line: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
        assert_eq!((&line["topic"], &line["payload"]), (&name.into(), &format!("in {name}").into()));
    }
    let pid = process.id().to_string();
    assert!(output(Command::new("kill").args(["-INT", &pid])).status.success());
    assert_eq!(process.wait().expect("it was started").code(), Some(0));
    assert!(lines.next().is_none());
}

#[test]
fn who_closes_the_pipe_has_seen_enough() {
    let file = File::new("logctl-pipe");
    file.fill(async |store| {
        let entries = (0..3).map(|_| NewEntry::new("n", "x".repeat(500_000))).collect();
        store.append(&topic("t"), Append::many(entries)).await.expect("it is open");
    });
    let args = [&*file.address(), "read", "t", "--full"];
    let mut process = spawn(command("logctl").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()));
    // More than a pipe holds, and nobody reads it.
    drop(process.stdout.take());
    let output = process.wait_with_output().expect("it was started");
    assert_eq!((output.status.code(), utf8(output.stderr)), (Some(0), String::new()));
}

#[test]
fn a_file_that_another_process_has_open_is_refused_with_advice() {
    let file = File::new("logctl-locked");
    let store = EmbeddedStore::open(&file.0).expect("a new file");
    let (code, error) = file.refusal("topics");
    assert_eq!(code, Some(1));
    assert!(error.contains("is open elsewhere") && error.contains("one process at a time"), "{error}");
    drop(store);
}

#[test]
fn what_is_not_there_is_an_error_and_makes_no_file() {
    let file = File::new("logctl-nothing");
    assert_eq!(file.refusal("topics"), (Some(1), format!("logctl: there is no file {}\n", file.0.display())));
    assert!(!file.0.exists());
    file.fill(async |_| {});
    assert_eq!(file.text("topics").lines().count(), 1);
    for args in ["info nowhere", "groups nowhere", "read nowhere", "trim nowhere --len 1"] {
        let (code, error) = file.refusal(args);
        assert!(code == Some(1) && error.contains("there is no topic nowhere"), "{args}: {error}");
    }
    let (code, error) = file.refusal("pending nowhere nobody");
    assert!(code == Some(1) && error.contains("there is no consumer group nobody of nowhere"), "{error}");
}

#[test]
fn what_it_does_not_understand_is_said_in_one_line_with_code_2() {
    let file = File::new("logctl-usage");
    for (args, says) in [
        ("", "a store and a command"),
        ("frob", "no command \"frob\""),
        ("groups", "groups does not take 0 arguments"),
        ("topics extra", "topics does not take 1 arguments"),
        ("topics --limit 3", "topics takes no --limit"),
        ("read t --limit 0", "at least 1"),
        ("read t --from yesterday", "start, end, an id or -5m"),
        ("read t --from -5", "-5"),
        ("pending t g --idle-min 5", "as in 5m"),
        ("pending t a*b", "forbidden character '*'"),
        ("trim t", "one of --len, --before and --age"),
        ("trim t --len 3 --age 5d", "one of --len, --before and --age"),
        ("trim t --before 17", "not of the form ms-seq"),
        ("trim t --len", "--len"),
        ("topics --frob", "--frob"),
    ] {
        let (code, error) = file.refusal(args);
        assert!(code == Some(2) && error.contains(says), "{args}: {error}");
    }
    for store in ["memory", "sqlite:x", "file:"] {
        let output = output(command("logctl").args([store, "topics"]));
        assert_eq!(output.status.code(), Some(2), "{store}: {}", utf8(output.stderr));
    }
    let help = output(command("logctl").arg("--help"));
    assert!(help.status.success() && utf8(help.stdout).starts_with("usage: logctl STORE COMMAND"));
}
