//! Inspect: what the log's store keeps, topic by topic and group by group, for who watches over it. Asks the store; changes nothing.

use std::time::Duration;
use std::time::SystemTime;

use serde::Serialize;

use crate::ids::EntryId;
use crate::log::Group;
use crate::log::Pending;
use crate::log::PendingQuery;
use crate::log::Store;
use crate::log::StoreError;
use crate::pubsub::PubSub;
use crate::topic::Topic;

/// A topic of the log as its store knows it: what [`PubSub::log_topics`] lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogTopicStats {
    /// Its name.
    pub topic: Topic,
    /// Entries kept.
    pub entries: u64,
    /// Entries ever appended; `None` where the engine does not count them.
    pub appended: Option<u64>,
    /// Bytes that the entries take, payloads and headers; `None` where the engine does not say.
    pub bytes: Option<u64>,
    /// The oldest entry kept.
    pub first: Option<EntryId>,
    /// The newest ever appended; [`EntryId::MIN`] for none.
    pub last: EntryId,
    /// Its consumer groups, by name.
    pub groups: Vec<LogGroupStats>,
}

/// A consumer group as its store knows it, whoever consumes: part of [`LogTopicStats`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogGroupStats {
    /// Its name.
    pub group: String,
    /// Entries kept that no consumer has had; `None` where the engine cannot tell.
    pub lag: Option<u64>,
    /// Entries delivered and not acked.
    pub pending: u64,
    /// How long ago the oldest of those was appended or, where ids carry no time, delivered last; `None` where there is none, or the engine cannot list them.
    pub oldest_pending_ms: Option<u64>,
    /// How often that one was delivered.
    pub oldest_pending_attempt: Option<u32>,
    /// The newest entry that was delivered, or where the group began.
    pub last_delivered: EntryId,
    /// Entries trimmed before any consumer had them; `None` where the engine cannot tell.
    pub skipped: Option<u64>,
    /// Its consumers.
    pub consumers: u64,
}

impl PubSub {
    /// The topics of the log with their groups, by name: those after `after`, `max` at most. None, where this pub/sub has no log.
    ///
    /// Asks the store: what is told is of all nodes that share it. For what this node does, see [`LogStats`](crate::LogStats).
    ///
    /// # Cost
    /// A handful of reads per topic and group: for a look now and then, and in pages.
    ///
    /// # Errors
    /// What the store says; a topic that was deleted meanwhile is left out.
    pub async fn log_topics(&self, after: Option<&Topic>, max: usize) -> Result<Vec<LogTopicStats>, StoreError> {
        let Some(feed) = self.feed() else { return Ok(Vec::new()) };
        let mut topics = Vec::new();
        for topic in feed.store.topics(after, max).await? {
            topics.push(read(&*feed.store, topic).await?);
        }
        Ok(topics)
    }

    /// The topics that are consumed here, then others by name, `max` at most.
    #[cfg(feature = "metrics")]
    pub(crate) async fn log_topics_consumed_first(&self, max: usize) -> Result<Vec<LogTopicStats>, StoreError> {
        let Some(feed) = self.feed() else { return Ok(Vec::new()) };
        let mut topics: Vec<_> = feed.stats().groups.into_iter().map(|group| group.topic).collect();
        topics.dedup();
        topics.truncate(max);
        let missing = max - topics.len();
        // As many as there may be among them that are known already.
        let others = if missing == 0 { Vec::new() } else { feed.store.topics(None, max).await? };
        let others: Vec<_> = others.into_iter().filter(|topic| !topics.contains(topic)).take(missing).collect();
        topics.extend(others);
        let mut stats = Vec::new();
        for topic in topics {
            stats.push(read(&*feed.store, topic).await?);
        }
        Ok(stats)
    }
}

async fn read(store: &dyn Store, topic: Topic) -> Result<LogTopicStats, StoreError> {
    let info = store.info(&topic).await?;
    let mut groups = Vec::new();
    for known in store.groups(&topic).await? {
        let group = Group::new(topic.clone(), known.name.clone());
        let mut oldest = None;
        if store.caps().pending && known.pending > 0 {
            // The group may have gone since it was listed.
            oldest = store.pending(&group, PendingQuery::first(1)).await.unwrap_or_default().into_iter().next();
        }
        let times_in_ids = store.caps().times_in_ids;
        let age = |pending: &Pending| {
            if times_in_ids { age_ms(pending.id, SystemTime::now()) } else { pending.idle.as_millis() as u64 }
        };
        groups.push(LogGroupStats {
            group: known.name.as_str().to_owned(),
            lag: known.lag,
            pending: known.pending,
            oldest_pending_ms: oldest.as_ref().map(age),
            oldest_pending_attempt: oldest.map(|pending| pending.attempt),
            last_delivered: known.last_delivered,
            skipped: known.skipped,
            consumers: known.consumers,
        });
    }
    let (entries, appended, bytes, first, last) = (info.entries, info.appended, info.bytes, info.first, info.last);
    Ok(LogTopicStats { topic, entries, appended, bytes, first, last, groups })
}

/// By the clock of whoever keeps the log: an entry of the future is 0 old.
fn age_ms(id: EntryId, now: SystemTime) -> u64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    (now.as_millis() as u64).saturating_sub(id.ms())
}
