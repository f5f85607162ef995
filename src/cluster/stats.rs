//! Stats: what the relay counts. Knows no engine.

use serde::Serialize;

use crate::sync::AtomicU64;
use crate::sync::Ordering;

/// What a node's relay knows of itself: part of [`Stats`](crate::Stats).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClusterStats {
    /// The engine.
    pub engine: &'static str,
    /// Whether there is a link to it now.
    pub link_up: bool,
    /// Links made so far; the first one counts.
    pub links: u64,
    /// Links that ended, and tries to make one that failed.
    pub link_failures: u64,
    /// Other nodes that are up.
    pub nodes: usize,
    /// Topics that this node asks the engine for, those that linger included.
    pub topics: u64,
    /// Broadcasts handed to the engine.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Broadcasts that wait for the engine.
    pub queue_depth: usize,
    /// The most that waited at once.
    pub queue_peak: usize,
    /// How many may wait.
    pub queue_capacity: usize,
    /// Broadcasts not sent because nobody listens elsewhere.
    pub dropped_nobody_listens: u64,
    /// Broadcasts not sent because the queue was full.
    pub dropped_queue_full: u64,
    /// Broadcasts not sent because there was no link.
    pub dropped_link_down: u64,
    /// Frames that came in, of whatever kind.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Broadcasts of other nodes that were given to this node's subscribers.
    pub delivered: u64,
    /// Frames of this node that the engine brought back.
    pub dropped_own: u64,
    /// Broadcasts that came twice.
    pub dropped_old: u64,
    /// Broadcasts to topics that this node had left by then.
    pub dropped_unasked: u64,
    /// Bytes that are no frame, or one over the limit.
    pub dropped_malformed: u64,
    /// Frames of a newer version.
    pub dropped_newer: u64,
    /// Broadcasts of a message whose name no type here has.
    pub dropped_unknown_message: u64,
    /// Broadcasts whose payload is no message of its name.
    pub dropped_undecodable: u64,
    /// Frames that came in while too many waited for the relay.
    pub dropped_inbound_full: u64,
    /// Broadcasts of other nodes that did not arrive: the sum of [`ClusterEvent::Lost`](crate::cluster::ClusterEvent::Lost).
    pub lost: u64,
    /// Panics of the transport, which the relay survived. Anything but 0 is a bug.
    pub panics: u64,
}

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
