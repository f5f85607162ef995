//! Machine: where and when the numbers were taken, with which versions, and what else the machine did meanwhile. Reads `/proc`, and runs programs that
//! tell their version.

use std::fs;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// Cores, processor, compiler and date.
pub(crate) fn line() -> String {
    format!("{}, {}, {}", cores(), run("rustc", "--version").unwrap_or_else(|| "rustc ?".to_owned()), date())
}

/// Cores and processor.
pub(crate) fn cores() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("?", |(_, name)| name.trim());
    format!("{cores} cores, {model}")
}

pub(crate) fn date() -> String {
    run("date", "+%F").unwrap_or_else(|| "?".to_owned())
}

/// How busy the machine is: runnable processes over the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// The compiler, this crate and its peers, and the programs beside it that are there.
pub(crate) fn versions() -> Vec<String> {
    let programs = [("rustc", "--version"), ("redis-server", "--version"), ("nats-server", "--version"), ("elixir", "--version")];
    let told = programs.into_iter().filter_map(|(program, argument)| run(program, argument));
    let mut versions: Vec<String> = told.map(|told| told.replace(['\n', '\r'], " ").replace("  ", " ")).collect();
    let locked = LOCK.split("[[package]]").filter_map(|package| {
        let field = |name: &str| package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        let (name, version) = (field("name")?.trim_matches('"'), field("version")?.trim_matches('"'));
        PEERS.contains(&name).then(|| format!("{name} {version}"))
    });
    versions.extend(locked);
    versions
}

/// Since the system was started, in its ticks, over all cores.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Ticks {
    all: f64,
    idle: f64,
    stolen: f64,
}

/// Shares of a time, in percent of all cores.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) busy: f64,
    /// Taken by the host for others: this machine wanted to compute and could not.
    pub(crate) steal: f64,
}

impl Ticks {
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<f64> =
            text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        let at = |at: usize| ticks.get(at).copied().unwrap_or(0.0);
        // user nice system idle iowait irq softirq steal
        Self { all: ticks.iter().sum(), idle: at(3) + at(4), stolen: at(7) }
    }

    pub(crate) fn until(self, later: Self) -> Use {
        let all = later.all - self.all;
        let percent = |part: f64| (1_000.0 * part / all.max(1.0)).round() / 10.0;
        Use { busy: percent(all - (later.idle - self.idle)), steal: percent(later.stolen - self.stolen) }
    }
}

/// Looks at the machine for a second, in which this process does nothing.
pub(crate) fn watch() -> Use {
    let before = Ticks::now();
    thread::sleep(Duration::from_secs(1));
    before.until(Ticks::now())
}

fn run(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stderr(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

const LOCK: &str = include_str!("../../Cargo.lock");

const PEERS: [&str; 16] = [
    "actix",
    "actix-broker",
    "actix-pubsub",
    "actix-web",
    "actix-web-actors",
    "async-nats",
    "axum",
    "dashmap",
    "kameo",
    "kameo_actors",
    "ractor",
    "redb",
    "redis",
    "socketioxide",
    "tokio",
    "zenoh",
];
