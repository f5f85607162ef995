//! Stats: a typed snapshot of what waits where. Reads tables in slices; changes nothing.

use std::sync::Arc;

use serde::Serialize;

use crate::ids::NodeId;
use crate::ids::SubscriberId;
use crate::local::member::Member;
use crate::local::options::Overflow;
use crate::local::shard::Shard;
use crate::local::shard::Shared;
use crate::local::table::Counts;
use crate::local::table::Table;
use crate::sync::Ordering;
use crate::topic::Topic;

/// Everything that a `PubSub` knows of itself: what `PubSub::stats` returns.
///
/// Each arbiter is read in slices of some microseconds, so at a busy moment the parts are not of one instant; at rest they are exact.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// This node.
    pub node: NodeId,
    /// Topics with at least one subscription.
    pub topics: usize,
    /// Events handed to handlers, streams and mailboxes, one per subscriber.
    pub delivered: u64,
    /// Events that subscribers learned they missed, by overflow or at a full port, or that had overflowed when they ended.
    pub missed: u64,
    /// Events that waited for a subscription when it ended, or in a port when its arbiter stopped.
    pub discarded: u64,
    /// One per arbiter with a registry, those that stopped left out.
    pub arbiters: Vec<ArbiterStats>,
    /// One per subscription.
    pub subscriptions: Vec<SubscriptionStats>,
    /// The relay, where there is a cluster.
    pub cluster: Option<ClusterStats>,
}

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

/// One arbiter's registry and its port.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ArbiterStats {
    /// Number of the arbiter within its `PubSub`.
    pub arbiter: u32,
    /// Whether this is the background registry, which serves subscribers from outside.
    pub background: bool,
    /// Subscribers here: actors and streams.
    pub subscribers: usize,
    /// Events accepted, one per broadcast and topic.
    pub events: u64,
    /// Events in the port.
    pub port_depth: usize,
    /// The most that were in the port at once.
    pub port_peak: usize,
    /// The port's limit, in events.
    pub port_capacity: usize,
    /// Events that found the port full.
    pub port_refused: u64,
    /// How often the registry panicked and was started again. Anything but 0 is a bug of this crate.
    pub registry_restarts: u64,
    /// Panics of wakers, of payloads being dropped and of mailboxes, which this crate ran and survived.
    pub foreign_panics: u64,
}

/// One subscription.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Its topic.
    pub topic: Topic,
    /// Its message type, as `std::any::type_name` writes it.
    pub message: &'static str,
    /// Its subscriber.
    pub subscriber: SubscriberId,
    /// The actor's type, as `std::any::type_name` writes it.
    pub actor: &'static str,
    /// What was given to `SubscribeOptions::metadata`.
    pub metadata: Option<Arc<str>>,
    /// What happens at `capacity` + 1.
    pub overflow: Overflow,
    /// Events that wait to be handled.
    pub depth: u64,
    /// Events that may wait.
    pub capacity: usize,
    /// Events handed to the subscriber.
    pub delivered: u64,
    /// Events lost so far, told to the subscriber or to be told with its next event.
    pub missed: u64,
}

impl Stats {
    pub(crate) fn read(shared: &Shared) -> Self {
        let shards = shared.shards();
        let mut total = shared.retired_counts();
        let mut subscriptions = Vec::new();
        for shard in &shards {
            let end = shard.with(|table| {
                total.add(table.counts);
                table.members_end()
            });
            for from in (0..end).step_by(SLICE_MEMBERS as usize) {
                shard.with(|table| {
                    let members = (from..end.min(from + SLICE_MEMBERS)).filter_map(|index| table.member_at(index));
                    subscriptions.extend(members.filter_map(|(_, member)| SubscriptionStats::read(table, member)));
                });
            }
        }
        let Counts { delivered, missed, discarded, .. } = total;
        let arbiters = shards.iter().map(|shard| ArbiterStats::read(shard)).collect();
        Self {
            node: shared.node,
            topics: shared.interest.len(),
            delivered,
            missed,
            discarded,
            arbiters,
            subscriptions,
            cluster: None,
        }
    }
}

impl ArbiterStats {
    fn read(shard: &Shard) -> Self {
        let (subscribers, events, pending) = shard.with(|table| (table.seats(), table.counts.events, table.pending.len()));
        Self {
            arbiter: shard.id(),
            background: shard.background,
            subscribers,
            events,
            port_depth: shard.port.len() + pending,
            port_peak: shard.port.peak(),
            port_capacity: shard.port.capacity(),
            port_refused: shard.port.refused(),
            registry_restarts: shard.restarts.load(Ordering::Relaxed),
            foreign_panics: shard.foreign_panics.load(Ordering::Relaxed),
        }
    }
}

impl SubscriptionStats {
    pub(crate) fn read(table: &Table, member: &Member) -> Option<Self> {
        let waiting = table.effective(member);
        let (topic, seat) = (table.topic(member.topic)?, table.seat_at(member.seat)?);
        Some(Self {
            topic: topic.shared.topic().clone(),
            message: topic.shared.message().1,
            subscriber: seat.id,
            actor: (seat.actor)(),
            metadata: member.extra.as_ref().and_then(|options| options.metadata.clone()),
            overflow: member.overflow,
            depth: waiting.depth,
            capacity: member.capacity as usize,
            delivered: member.delivered,
            missed: member.missed + waiting.missed,
        })
    }
}

/// Subscriptions read per locking of a table: some 50 µs.
const SLICE_MEMBERS: u32 = 256;
