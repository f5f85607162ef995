//! Stats: what the relay counts. Knows no engine.

use crate::sync::AtomicU64;
use crate::sync::Ordering;

/// One counter, of any thread.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) nobody: Counter,
    pub(crate) full: Counter,
    pub(crate) link_down: Counter,
    pub(crate) received: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) delivered: Counter,
    pub(crate) own: Counter,
    pub(crate) old: Counter,
    pub(crate) unasked: Counter,
    pub(crate) malformed: Counter,
    pub(crate) newer: Counter,
    pub(crate) unknown: Counter,
    pub(crate) undecodable: Counter,
    pub(crate) inbound_full: Counter,
    pub(crate) lost: Counter,
    pub(crate) links: Counter,
    pub(crate) link_failures: Counter,
    pub(crate) panics: Counter,
    pub(crate) topics: AtomicU64,
}
