//! Stats: what the relay counts. Knows no engine.

use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::cluster::event::NodeInfo;
use crate::ids::NodeId;
use crate::sync::Arc;
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
    /// Topics that this node asks the engine for, or tells the other nodes of, those that linger included.
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
    /// The other nodes that are up, by their ids; 10,000 at most.
    pub peers: Vec<PeerStats>,
}

/// What a node's relay knows of another node that is up, since that came up last: part of [`ClusterStats`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PeerStats {
    /// Which.
    pub node: NodeId,
    /// What people call it.
    pub name: Arc<str>,
    /// Its broadcasts that came in, those included that were then dropped for a reason of [`ClusterStats`].
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Broadcasts handed to the engine for it. `None` over an engine that carries topics (Redis and NATS without `peer_interest`): it alone knows who gets them.
    pub sent: Option<u64>,
    /// Their bytes.
    pub sent_bytes: Option<u64>,
    /// Its broadcasts that did not arrive here: what [`ClusterEvent::Lost`](crate::cluster::ClusterEvent::Lost) told of it.
    pub lost: u64,
    /// How long nothing has come from it, not even that it is there.
    pub silent_ms: u64,
}

/// What is counted of one node. Written by the relay alone, so that counting needs no locked instruction.
#[derive(Debug)]
pub(crate) struct PeerCounts {
    since: Instant,
    heard_nanos: AtomicU64,
    received: AtomicU64,
    received_bytes: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    lost: AtomicU64,
}

/// Another node that is up, and what is counted of it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) info: NodeInfo,
    pub(crate) counts: Arc<PeerCounts>,
}

impl PeerCounts {
    pub(crate) fn new(now: Instant) -> Self {
        let zero = AtomicU64::default;
        Self {
            since: now,
            heard_nanos: zero(),
            received: zero(),
            received_bytes: zero(),
            sent: zero(),
            sent_bytes: zero(),
            lost: zero(),
        }
    }

    /// Something came from it.
    pub(crate) fn heard(&self, now: Instant) {
        self.heard_nanos.store(now.saturating_duration_since(self.since).as_nanos() as u64, Ordering::Relaxed);
    }

    /// A broadcast of it came.
    pub(crate) fn received(&self, bytes: usize) {
        more(&self.received, 1);
        more(&self.received_bytes, bytes as u64);
    }

    /// A broadcast goes to it.
    pub(crate) fn sent(&self, bytes: usize) {
        more(&self.sent, 1);
        more(&self.sent_bytes, bytes as u64);
    }

    pub(crate) fn lost(&self, events: u64) {
        more(&self.lost, events);
    }
}

impl Peer {
    /// `routed`: this node says who gets what.
    pub(crate) fn stats(&self, routed: bool, now: Instant) -> PeerStats {
        let counts = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let silent = now.saturating_duration_since(counts.since).saturating_sub(Duration::from_nanos(read(&counts.heard_nanos)));
        PeerStats {
            node: self.info.id,
            name: Arc::clone(&self.info.name),
            received: read(&counts.received),
            received_bytes: read(&counts.received_bytes),
            sent: routed.then(|| read(&counts.sent)),
            sent_bytes: routed.then(|| read(&counts.sent_bytes)),
            lost: read(&counts.lost),
            silent_ms: silent.as_millis() as u64,
        }
    }
}

fn more(count: &AtomicU64, by: u64) {
    count.store(count.load(Ordering::Relaxed) + by, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_node_has_been_silent_is_since_it_was_heard_last() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let info = NodeInfo { id: NodeId::from_bits(1), name: "a".into() };
        let peer = Peer { info, counts: Arc::new(PeerCounts::new(start)) };
        let silent = |seconds: u32| peer.stats(true, start + second * seconds).silent_ms;
        assert_eq!(silent(3), 3_000, "since it came");
        peer.counts.heard(start + second * 5);
        assert_eq!((silent(7), silent(5), silent(4)), (2_000, 0, 0));
    }
}
