//! Machine: one line that says where and when the numbers were taken. Reads `/proc`, and runs `rustc` and `date`.

use std::fs;
use std::process::Command;
use std::thread;

/// Cores, processor, compiler and date.
pub(crate) fn line() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("?", |(_, name)| name.trim());
    format!("{cores} cores, {model}, {}, {}", run("rustc", "--version"), run("date", "+%F"))
}

/// How busy the machine is: runnable processes over the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

fn run(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    output.map_or_else(|_| format!("{program} ?"), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
