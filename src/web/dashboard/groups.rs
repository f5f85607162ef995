//! Groups: the log's topics and their consumer groups as the store tells, with what this node does for each. Knows no page.

use std::time::Instant;

use serde::Serialize;

use crate::feed::stats::GroupStats;
use crate::ids::EntryId;
use crate::log::StoreError;
use crate::pubsub::PubSub;
use crate::stream::inspect::LogGroupStats;
use crate::stream::inspect::LogTopicStats;
use crate::topic::Topic;
use crate::web::dashboard::board::Board;
use crate::web::dashboard::board::FRESH;
use crate::web::dashboard::board::now_ms;
use crate::web::dashboard::query::Needle;
use crate::web::dashboard::query::Params;
use crate::web::refusal::Refusal;

/// What is asked of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupsAsked {
    needle: Option<Needle>,
    after: Option<Topic>,
    per: usize,
}

/// One page of the log's topics.
#[derive(Debug, Serialize)]
pub(crate) struct Groups {
    at_ms: u64,
    /// Whether there is a log.
    log: bool,
    items: Vec<TopicShown>,
    /// What the next page comes `after`; `None`: there is none.
    next: Option<Topic>,
    /// Topics that were read for this.
    looked_at: usize,
}

#[derive(Debug, Serialize)]
struct TopicShown {
    topic: Topic,
    entries: u64,
    appended: Option<u64>,
    bytes: Option<u64>,
    first: Option<EntryId>,
    last: EntryId,
    groups: Vec<GroupShown>,
}

#[derive(Debug, Serialize)]
struct GroupShown {
    #[serde(flatten)]
    stored: LogGroupStats,
    /// What this node does for it.
    here: Option<GroupStats>,
}

impl GroupsAsked {
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        let params = Params::parse(query, &["q", "after", "per"])?;
        Ok(Self { needle: params.needle()?, after: params.after()?, per: params.per()? })
    }

    fn finds(&self, of: &LogTopicStats) -> bool {
        let Some(needle) = &self.needle else { return true };
        needle.is_in(of.topic.as_str()) || of.groups.iter().any(|group| needle.is_in(&group.group))
    }
}

impl Board {
    /// One page. The store is asked by one request at a time, and not twice for the same.
    pub(crate) async fn groups(&self, pubsub: &PubSub, asked: GroupsAsked) -> Result<std::sync::Arc<Groups>, StoreError> {
        let mut kept = self.groups.lock().await;
        if let Some((at, of, groups)) = &*kept
            && *of == asked
            && at.elapsed() < FRESH
        {
            return Ok(std::sync::Arc::clone(groups));
        }
        let groups = std::sync::Arc::new(read(pubsub, &asked).await?);
        *kept = Some((Instant::now(), asked, std::sync::Arc::clone(&groups)));
        Ok(groups)
    }
}

async fn read(pubsub: &PubSub, asked: &GroupsAsked) -> Result<Groups, StoreError> {
    let here = pubsub.feed().map(|feed| feed.stats().groups).unwrap_or_default();
    let log = pubsub.feed().is_some();
    let (mut items, mut after, mut looked_at) = (Vec::new(), asked.after.clone(), 0);
    loop {
        // One more than fits tells whether there is a next page; a search may need many pages of the store.
        let max = asked.per + 1 - items.len();
        let topics = pubsub.log_topics(after.as_ref(), max).await?;
        let more = topics.len() == max;
        for topic in topics {
            if items.len() == asked.per {
                return Ok(Groups { at_ms: now_ms(), log, items, next: after, looked_at });
            }
            looked_at += 1;
            after = Some(topic.topic.clone());
            if asked.finds(&topic) {
                items.push(shown(topic, &here));
            }
        }
        let next = after.clone().filter(|_| more);
        if !more || looked_at >= TOPICS_LOOKED_AT_MAX {
            return Ok(Groups { at_ms: now_ms(), log, items, next, looked_at });
        }
    }
}

fn shown(of: LogTopicStats, here: &[GroupStats]) -> TopicShown {
    let LogTopicStats { topic, entries, appended, bytes, first, last, groups } = of;
    let ours = |stored: LogGroupStats| {
        let here = here.iter().find(|group| group.topic == topic && group.group == stored.group).cloned();
        GroupShown { stored, here }
    };
    let groups = groups.into_iter().map(ours).collect();
    TopicShown { topic, entries, appended, bytes, first, last, groups }
}

/// Topics that one search reads before it answers with what it has found: each costs the store a handful of reads.
const TOPICS_LOOKED_AT_MAX: usize = 1_000;
