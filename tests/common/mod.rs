//! Common: what tests share that run examples as processes of their own, in a browser or without.

pub(crate) mod browser;

use std::env;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

/// How long anything may take, with other tests on the same cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at what is to become true.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A process that ends with this value, also when a test panics.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "not after {DEADLINE:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// What follows `mark` in the first line that holds it.
pub(crate) fn read_line_with(from: &mut impl BufRead, mark: &str) -> Option<String> {
    from.lines().map_while(Result::ok).find_map(|line| line.split_once(mark).map(|(_, rest)| rest.trim().to_owned()))
}

/// Where cargo put an example: beside the folder of this test.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a test is in target/PROFILE/deps");
    let path = profile.join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing. Build it first: cargo build --example {name}", path.display());
    path
}

#[cfg(unix)]
pub(crate) fn signal(signal: &str, process: u32) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(sent.is_ok(), "there is no kill: {sent:?}");
}
