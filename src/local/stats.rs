//! Stats: what waits where on this node's arbiters. Reads tables in slices; changes nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::sync::Arc;

use serde::Serialize;

use crate::ids::SubscriberId;
use crate::local::clock::Tick;
use crate::local::member::Member;
use crate::local::member::Place;
use crate::local::options::Overflow;
use crate::local::shard::Shard;
use crate::local::shard::Shared;
use crate::local::table::Counts;
use crate::local::table::Table;
use crate::sync::Ordering;
use crate::topic::Topic;

/// One arbiter's registry and its port: part of [`Stats`](crate::Stats).
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
    /// Events handed to subscribers here.
    pub delivered: u64,
    /// Of them, those of the last whole second.
    pub delivered_per_second: u64,
    /// Events in the port.
    pub port_depth: usize,
    /// The most that were in the port at once.
    pub port_peak: usize,
    /// The port's limit, in events.
    pub port_capacity: usize,
    /// Events that found the port full.
    pub port_refused: u64,
    /// How long the port has not been emptied: its registry has had no turn, because the arbiter's thread is busy.
    pub port_waits_ms: u64,
    /// Turns that the registry has had.
    pub turns: u64,
    /// What others took on the arbiter's thread between the last two turns of one fan-out, in microseconds. The registry aims at 500.
    pub slice_us: u64,
    /// How long the last look for dead subscribers took, in microseconds; the background registry has one every 250 ms.
    pub sweep_us: u64,
    /// How often the registry panicked and was started again. Anything but 0 is a bug of this crate.
    pub registry_restarts: u64,
    /// Panics of wakers, of payloads being dropped and of mailboxes, which this crate ran and survived.
    pub foreign_panics: u64,
}

/// One topic on this node, for one message type: part of [`Stats`](crate::Stats).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TopicStats {
    /// Its name.
    pub topic: Topic,
    /// Its message type, as `std::any::type_name` writes it.
    pub message: &'static str,
    /// Subscriptions.
    pub subscribers: usize,
    /// Arbiters that they are on.
    pub arbiters: usize,
    /// Events since its first subscriber came, those included that a full port refused; on the arbiter that had the most.
    pub events: u64,
    /// Events kept for its slowest subscriber; on the arbiter that keeps the most.
    pub backlog: usize,
}

/// One subscription: part of [`Stats`](crate::Stats).
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
    /// Number of the arbiter that serves it.
    pub arbiter: u32,
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
    /// How long the oldest of what waits has waited, to 10 ms; `None` while nothing waits.
    pub oldest_ms: Option<u64>,
    /// How long it has had something to read and has taken nothing, to 10 ms; 0 while nothing waits.
    pub stalled_ms: u64,
    /// When its subscriber last took something of any topic, in milliseconds before now, to 10 ms; `None`: never.
    pub taken_ms: Option<u64>,
}

/// What the walk over the tables of all arbiters finds.
pub(crate) struct Walk {
    pub(crate) total: Counts,
    /// Events that wait for subscriptions.
    pub(crate) waiting: u64,
    pub(crate) subscriptions: usize,
    pub(crate) subscribers: usize,
    pub(crate) arbiters: Vec<ArbiterStats>,
}

impl Walk {
    /// Looks at every subscription; `each` is given those that something waits for, or all of them.
    pub(crate) fn over(shared: &Shared, all: bool, mut each: impl FnMut(SubscriptionStats)) -> Self {
        let shards = shared.shards();
        let (mut total, mut waiting, mut subscriptions) = (shared.retired_counts(), 0, 0);
        for shard in &shards {
            let end = shard.with(|table| {
                total.add(table.counts);
                table.members_end()
            });
            for from in (0..end).step_by(SLICE_MEMBERS as usize) {
                let now = Tick::now();
                // The lock is for the look; what is made of it is handed on after.
                let slice: Vec<_> = shard.with(|table| {
                    let members = (from..end.min(from + SLICE_MEMBERS)).filter_map(|index| table.member_at(index));
                    let mut seen = |member: &Member| {
                        subscriptions += 1;
                        let refused = table.refused(member);
                        total.addressed += refused;
                        total.missed += refused;
                        if table.may_wait(member) {
                            let effective = table.effective(member);
                            waiting += effective.depth;
                            total.missed += effective.missed;
                        } else {
                            total.missed += table.untold(member);
                            if !all {
                                return None;
                            }
                        }
                        SubscriptionStats::read(table, member, shard.id(), now)
                    };
                    members.filter_map(|(_, member)| seen(member)).collect()
                });
                slice.into_iter().for_each(&mut each);
            }
        }
        let arbiters: Vec<_> = shards.iter().map(|shard| ArbiterStats::read(shard)).collect();
        let subscribers = arbiters.iter().map(|arbiter| arbiter.subscribers).sum();
        Self { total, waiting, subscriptions, subscribers, arbiters }
    }
}

/// The subscriptions that are furthest behind, of those that it is shown.
pub(crate) struct Slowest {
    worst: BinaryHeap<Reverse<Slow>>,
    max: usize,
}

impl Slowest {
    pub(crate) fn new(max: usize) -> Self {
        Self { worst: BinaryHeap::new(), max }
    }

    pub(crate) fn see(&mut self, subscription: SubscriptionStats) {
        if subscription.depth == 0 {
            return;
        }
        self.worst.push(Reverse(Slow(subscription)));
        if self.worst.len() > self.max {
            self.worst.pop();
        }
    }

    /// The worst first.
    pub(crate) fn into_vec(self) -> Vec<SubscriptionStats> {
        // Ascending of the reversed.
        self.worst.into_sorted_vec().into_iter().map(|Reverse(Slow(subscription))| subscription).collect()
    }
}

/// Ordered by how far behind it is.
struct Slow(SubscriptionStats);

impl Slow {
    fn rank(&self) -> (u64, u64, u64, Reverse<&Topic>, Reverse<SubscriberId>) {
        let Self(of) = self;
        let (behind, depth, missed) = of.slowness();
        // The names, so that two looks at the same thing show the same order.
        (behind, depth, missed, Reverse(&of.topic), Reverse(of.subscriber))
    }
}

impl PartialEq for Slow {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Slow {}

impl PartialOrd for Slow {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slow {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl TopicStats {
    /// Every topic with a subscriber, by name.
    pub(crate) fn all(shared: &Shared) -> Vec<Self> {
        let mut topics: BTreeMap<(Topic, &'static str), Self> = BTreeMap::new();
        for shard in shared.shards() {
            let end = shard.with(|table| table.topics_end());
            for from in (0..end).step_by(SLICE_MEMBERS as usize) {
                let slice: Vec<_> = shard.with(|table| {
                    let indices = from..end.min(from + SLICE_MEMBERS);
                    indices.filter_map(|index| Self::read(table, index)).collect()
                });
                for one in slice {
                    topics.entry((one.topic.clone(), one.message)).and_modify(|known| known.join(&one)).or_insert(one);
                }
            }
        }
        topics.into_values().collect()
    }

    fn read(table: &Table, index: u32) -> Option<Self> {
        let state = table.topic(index)?;
        let (topic, message) = (state.shared.topic().clone(), state.shared.message().1);
        let events = table.total(index) + state.shared.lost();
        Some(Self { topic, message, subscribers: state.shared.subscribers(), arbiters: 1, events, backlog: table.backlog(index) })
    }

    fn join(&mut self, other: &Self) {
        self.subscribers += other.subscribers;
        self.arbiters += other.arbiters;
        self.events = self.events.max(other.events);
        self.backlog = self.backlog.max(other.backlog);
    }
}

impl ArbiterStats {
    fn read(shard: &Shard) -> Self {
        let (subscribers, counts, per_second, pending) = shard.with(|table| {
            table.look_at(Tick::now());
            (table.seats(), table.counts, table.delivered_last_second(), table.pending.len())
        });
        Self {
            arbiter: shard.id(),
            background: shard.background,
            subscribers,
            events: counts.events,
            delivered: counts.delivered,
            delivered_per_second: per_second,
            port_depth: shard.port.len() + pending,
            port_peak: shard.port.peak(),
            port_capacity: shard.port.capacity(),
            port_refused: shard.port.refused(),
            port_waits_ms: shard.port.waits_ms(Tick::now()),
            turns: shard.meter.turns(),
            slice_us: shard.meter.slice_us(),
            sweep_us: shard.meter.sweep_us(),
            registry_restarts: shard.restarts.load(Ordering::Relaxed),
            foreign_panics: shard.foreign_panics.load(Ordering::Relaxed),
        }
    }
}

impl SubscriptionStats {
    /// How far behind it is: in time, then in events. Where nothing waits it is less than wherever something does.
    pub(crate) fn slowness(&self) -> (u64, u64, u64) {
        (self.oldest_ms.unwrap_or(0).max(self.stalled_ms), self.depth, self.missed)
    }

    pub(crate) fn read(table: &Table, member: &Member, arbiter: u32, now: Tick) -> Option<Self> {
        let waiting = table.effective(member);
        let (topic, seat) = (table.topic(member.topic)?, table.seat_at(member.seat)?);
        let waits = waiting.depth > 0;
        Some(Self {
            topic: topic.shared.topic().clone(),
            message: topic.shared.message().1,
            subscriber: seat.id,
            actor: (seat.actor)(),
            metadata: member.metadata(),
            arbiter,
            overflow: member.overflow,
            depth: waiting.depth,
            capacity: member.capacity as usize,
            delivered: member.delivered,
            missed: member.missed + waiting.missed + table.refused(member),
            oldest_ms: waiting.oldest.filter(|_| waits).map(|oldest| oldest.age_ms(now)),
            // Not told of it yet: the fan-out is about to come to it.
            stalled_ms: if waits && matches!(member.place(), Place::Ready(_)) {
                member.stalled_ms(seat.taken_at, now)
            } else {
                0
            },
            taken_ms: seat.taken_at.map(|taken| taken.age_ms(now)),
        })
    }
}

/// Subscriptions read per locking of a table: some 50 µs.
const SLICE_MEMBERS: u32 = 256;

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use super::*;
    use crate::local::options::SubscribeOptions;

    /// The table is locked for a slice at a time: what others do to it between two slices shows in those that are looked at later.
    #[test]
    fn a_look_at_all_subscriptions_lets_others_at_their_table_again_and_again() {
        let shard = Arc::new(Shared::new(16, 0)).add_shard(false).expect("it is open");
        let (topic, message) = (Topic::parse("t").expect("a valid name"), (TypeId::of::<u64>(), "u64"));
        let subscribe = |_| {
            let seat = shard.sit(SubscriberId::unique(), || "actor").unwrap_or_else(|_| panic!("a new seat"));
            shard.subscribe(seat, &topic, message, &SubscribeOptions::new(), |_| 0).expect("the seat is there")
        };
        let mut members: Vec<_> = (0..4 * SLICE_MEMBERS).map(subscribe).collect();
        let mut seen = 0;
        // For each that it shows the last one leaves.
        let walk = Walk::over(&shard.shared, true, |_| {
            seen += 1;
            shard.unsubscribe(members.pop().expect("there are more"));
        });
        assert_eq!(
            (walk.subscriptions, seen),
            (2 * SLICE_MEMBERS as usize, 2 * SLICE_MEMBERS),
            "those that had left were looked at"
        );
    }
}
