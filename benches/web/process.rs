//! Process: how much memory and processor time a process uses, from `/proc`; zero where there is none. Knows no bench.

use std::fs;
use std::ops::Sub;

/// Processor time of all threads of a process, ns.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) ran: u64,
    /// Ready to run, while the core was another's.
    pub(crate) waited: u64,
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { ran: self.ran.saturating_sub(before.ran), waited: self.waited.saturating_sub(before.waited) }
    }
}

/// Of a process id, or of `self`. To the nanosecond, which `/proc/PID/stat` is not.
pub(crate) fn cpu(id: &str) -> Cpu {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten();
    threads.flatten().fold(Cpu::default(), |sum, thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or(0));
        let mut number = || numbers.next().unwrap_or(0);
        Cpu { ran: sum.ran + number(), waited: sum.waited + number() }
    })
}

/// Bytes of its memory that are in RAM.
pub(crate) fn resident(id: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}
