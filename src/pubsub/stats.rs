//! Stats: everything that a `PubSub` knows of itself, in one typed snapshot. Asks each layer; knows no one's insides.

use serde::Serialize;

use crate::cluster::ClusterStats;
use crate::feed::stats::LogStats;
use crate::ids::NodeId;
use crate::local::incident::Incident;
use crate::local::stats::ArbiterStats;
use crate::local::stats::Slowest;
use crate::local::stats::SubscriptionStats;
use crate::local::stats::TopicStats;
use crate::local::stats::Walk;
use crate::pubsub::PubSub;

/// Everything that a `PubSub` knows of itself: what `PubSub::stats` returns.
///
/// Each arbiter is read in slices of some microseconds, so at a busy moment the parts are not of one instant. At rest they are exact, and then
/// `addressed` is `delivered + missed + discarded + waiting`.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// This node.
    pub node: NodeId,
    /// Since this `PubSub` was made.
    pub uptime_ms: u64,
    /// Topics with at least one subscription.
    pub topics: usize,
    /// Actors and streams that are subscribed.
    pub subscribers: usize,
    /// How many subscriptions there are.
    pub subscriptions_total: usize,
    /// Events for subscriptions: one per broadcast and subscription that was there, those included that a full port refused.
    pub addressed: u64,
    /// Events handed to handlers, streams and mailboxes, one per subscriber.
    pub delivered: u64,
    /// Events that subscriptions missed, by overflow or at a full port, told to them or to be told with the next one.
    pub missed: u64,
    /// Events that waited for a subscription when it ended, or in a port for it when its arbiter stopped.
    pub discarded: u64,
    /// Events that wait for subscriptions.
    pub waiting: u64,
    /// Incidents so far, the same again counted each time: see `PubSub::incidents`.
    pub incidents: u64,
    /// One per arbiter with a registry, those that stopped left out.
    pub arbiters: Vec<ArbiterStats>,
    /// One per topic and message type, by name.
    pub by_topic: Vec<TopicStats>,
    /// One per subscription.
    pub subscriptions: Vec<SubscriptionStats>,
    /// The relay, where there is a cluster.
    pub cluster: Option<ClusterStats>,
    /// What this node does with the log, where there is one.
    pub log: Option<LogStats>,
}

impl PubSub {
    /// A snapshot of everything: topics, subscriptions with their depth and losses, arbiters with their ports, the relay, the log.
    ///
    /// # Cost
    /// A walk over all subscriptions, in slices that no delivery waits for longer than some 50 µs.
    pub fn stats(&self) -> Stats {
        let mut subscriptions = Vec::new();
        let walk = Walk::over(self.shared(), true, |subscription| subscriptions.push(subscription));
        Stats { subscriptions, by_topic: TopicStats::all(self.shared()), ..self.summarize(walk) }
    }

    /// As [`stats`](Self::stats) without its lists of topics and subscriptions: what one looks at once a second.
    ///
    /// # Cost
    /// A glance at each subscription, in the same slices; only those that something waits for cost more.
    pub fn summary(&self) -> Stats {
        self.summarize(Walk::over(self.shared(), false, |_| {}))
    }

    /// The `max` subscriptions that are furthest behind, the worst first: by the age of what waits for them or the time that they have taken nothing, whichever
    /// is longer, then by how much waits. Those for which nothing waits are not among them.
    ///
    /// ```
    /// use actix_pubsub::PubSub;
    ///
    /// # actix::System::new().block_on(async {
    /// let pubsub = PubSub::new();
    /// let unread = pubsub.stream::<u32>("price:gold").unwrap();
    /// pubsub.local_broadcast("price:gold", 1_970_u32).unwrap();
    /// let slow = pubsub.top_slow(10);
    /// assert_eq!((slow.len(), slow[0].subscriber, slow[0].depth), (1, unread.subscriber_id(), 1));
    /// # });
    /// ```
    pub fn top_slow(&self, max: usize) -> Vec<SubscriptionStats> {
        let mut slowest = Slowest::new(max);
        Walk::over(self.shared(), false, |subscription| slowest.see(subscription));
        slowest.into_vec()
    }

    /// [`summary`](Self::summary) and the first of [`top_slow`](Self::top_slow), in one walk.
    #[cfg(feature = "metrics")]
    pub(crate) fn summary_and_slowest(&self) -> (Stats, Option<SubscriptionStats>) {
        let mut slowest = Slowest::new(1);
        let walk = Walk::over(self.shared(), false, |subscription| slowest.see(subscription));
        (self.summarize(walk), slowest.into_vec().into_iter().next())
    }

    /// One per topic and message type, by name.
    #[cfg(feature = "metrics")]
    pub(crate) fn by_topic(&self) -> Vec<TopicStats> {
        TopicStats::all(self.shared())
    }

    /// How many incidents there have been, kind by kind, those of which there was none included.
    #[cfg(feature = "metrics")]
    pub(crate) fn incidents_by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.shared().incidents.by_kind()
    }

    /// What went wrong lately, newest first: deaths by panic, overflows, full ports, dead letters, gaps, nodes and links that went. The last 256.
    pub fn incidents(&self) -> Vec<Incident> {
        self.shared().incidents.list()
    }

    /// The list of `stats` alone.
    #[cfg(feature = "web")]
    pub(crate) fn topic_stats(&self) -> Vec<TopicStats> {
        TopicStats::all(self.shared())
    }

    /// The list of `stats` alone.
    #[cfg(feature = "web")]
    pub(crate) fn subscription_stats(&self) -> Vec<SubscriptionStats> {
        let mut subscriptions = Vec::new();
        Walk::over(self.shared(), true, |subscription| subscriptions.push(subscription));
        subscriptions
    }

    fn summarize(&self, walk: Walk) -> Stats {
        let shared = self.shared();
        Stats {
            node: shared.node,
            uptime_ms: self.handle.started.elapsed().as_millis() as u64,
            topics: shared.interest.len(),
            subscribers: walk.subscribers,
            subscriptions_total: walk.subscriptions,
            addressed: walk.total.addressed,
            delivered: walk.total.delivered,
            missed: walk.total.missed,
            discarded: walk.total.discarded,
            waiting: walk.waiting,
            incidents: shared.incidents.total(),
            arbiters: walk.arbiters,
            by_topic: Vec::new(),
            subscriptions: Vec::new(),
            cluster: self.hub().map(|hub| hub.stats()),
            log: self.feed().map(|feed| feed.stats()),
        }
    }
}
