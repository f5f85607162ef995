//! Meter: what a registry measures of itself. Knows no table.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Written by one registry, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    turns: AtomicU64,
    slice_us: AtomicU64,
    sweep_us: AtomicU64,
}

impl Meter {
    pub(crate) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// What others took between two turns of one fan-out.
    pub(crate) fn slice(&self, time: Duration) {
        self.slice_us.store(time.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn sweep(&self, time: Duration) {
        self.sweep_us.store(time.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    pub(crate) fn slice_us(&self) -> u64 {
        self.slice_us.load(Ordering::Relaxed)
    }

    pub(crate) fn sweep_us(&self) -> u64 {
        self.sweep_us.load(Ordering::Relaxed)
    }
}
