//! Subscription: the handle that `subscribe` returns. Knows where its subscription is, holds nothing of it.

use std::fmt;

use crate::ids::SubscriberId;
use crate::local::clock::Tick;
use crate::local::remote::ClusterReady;
use crate::local::remote::NotReady;
use crate::local::shard::Shard;
use crate::local::slab::Key;
use crate::local::stats::SubscriptionStats;
use crate::sync::Arc;
use crate::topic::Topic;

/// A handle to one subscription: to end it, or to look at it. Any thread may use it.
///
/// Dropping it does nothing: the subscription lives inside its subscriber and ends with it.
#[derive(Clone)]
pub struct Subscription {
    shard: Arc<Shard>,
    member: Key,
    topic: Topic,
    subscriber: SubscriberId,
}

impl Subscription {
    pub(crate) fn new(shard: Arc<Shard>, member: Key, topic: Topic, subscriber: SubscriberId) -> Self {
        Self { shard, member, topic, subscriber }
    }

    /// The topic subscribed to.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The subscriber: what `broadcast_from` takes so that it does not receive its own event. Costs nothing, where asking a
    /// context for its address allocates.
    pub fn subscriber_id(&self) -> SubscriberId {
        self.subscriber
    }

    /// Whether it has not ended.
    pub fn is_active(&self) -> bool {
        self.shard.with(|table| table.member(self.member).is_some())
    }

    /// Ends it; `false` if it had ended before. No event reaches the subscriber after this returned, if it is called on the subscriber's
    /// own thread; from another thread, one that is being handled or handed over may still arrive.
    pub fn unsubscribe(&self) -> bool {
        self.shard.unsubscribe(self.member)
    }

    /// Resolves when the cluster knows of this subscription: what another node broadcasts from then on arrives, while the link to the engine is up. `subscribe`
    /// itself is effective for this node's broadcasts when it returns. Where there is no cluster it resolves at once; while there is no link it waits.
    ///
    /// # Errors
    /// [`NotReady`](crate::cluster::NotReady): it will never be.
    pub fn cluster_ready(&self) -> ClusterReady {
        let Some(remote) = self.shard.shared.remote.get() else { return ClusterReady::new(None) };
        let message = self.shard.with(|table| {
            let member = table.member(self.member)?;
            Some(table.topic(member.topic)?.shared.message())
        });
        let Some(message) = message else {
            return ClusterReady::new(Some(Box::pin(std::future::ready(Err(NotReady::NotSubscribed)))));
        };
        ClusterReady::new(Some(remote.ready(self.topic.clone(), message)))
    }

    /// What waits, what was delivered, what was missed; `None` once it has ended.
    pub fn stats(&self) -> Option<SubscriptionStats> {
        self.shard.with(|table| {
            let (key, member) = table.member_at(self.member.index)?;
            (key == self.member).then(|| SubscriptionStats::read(table, member, self.shard.id(), Tick::now())).flatten()
        })
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("topic", &self.topic).field("subscriber", &self.subscriber).finish_non_exhaustive()
    }
}

impl From<&Subscription> for SubscriberId {
    fn from(subscription: &Subscription) -> Self {
        subscription.subscriber
    }
}
