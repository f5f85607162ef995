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
use crate::web::dashboard::board::Snapshot;
use crate::web::dashboard::board::now_ms;
use crate::web::dashboard::lists::Ask;
use crate::web::dashboard::lists::GROUPS;
use crate::web::dashboard::lists::Shown;
use crate::web::dashboard::query::Needle;
use crate::web::dashboard::query::PER_MAX;
use crate::web::dashboard::query::Params;
use crate::web::refusal::Refusal;

/// What is asked of the log.
pub(crate) struct GroupsAsked {
    pub(crate) reads: Reads,
    /// Topics with one group each, in another order than by name: of as many topics as are looked at for one answer.
    pub(crate) order: Option<Ask<TopicShown>>,
}

/// What is to be read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reads {
    needle: Option<Needle>,
    after: Option<Topic>,
    /// Topics of one page; `None`: all that are looked at for one answer.
    per: Option<usize>,
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

#[derive(Debug, Clone, Serialize)]
pub(crate) struct TopicShown {
    pub(crate) topic: Topic,
    pub(crate) entries: u64,
    appended: Option<u64>,
    bytes: Option<u64>,
    first: Option<EntryId>,
    last: EntryId,
    pub(crate) groups: Vec<GroupShown>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct GroupShown {
    #[serde(flatten)]
    pub(crate) stored: LogGroupStats,
    /// What this node does for it.
    here: Option<GroupStats>,
}

/// One page of groups in an order.
#[derive(Serialize)]
pub(crate) struct Ordered<'a> {
    log: bool,
    #[serde(flatten)]
    page: Shown<'a, TopicShown>,
    next: Option<&'a Topic>,
    looked_at: usize,
}

impl GroupsAsked {
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        let params = Params::parse(query, &["q", "after", "sort", "dir", "page", "per"])?;
        let after = params.after()?;
        let order = GROUPS.ask_by(&params)?;
        if params.has_any(&["sort", "dir", "page"]) {
            return Ok(Self { reads: Reads { needle: None, after, per: None }, order: Some(order) });
        }
        Ok(Self { reads: Reads { needle: params.needle()?, after, per: Some(params.per()?) }, order: None })
    }
}

impl TopicShown {
    /// Of its first group; those in an order have one at most.
    pub(crate) fn stored<T>(&self, read: impl Fn(&LogGroupStats) -> Option<T>) -> Option<T> {
        self.groups.first().and_then(|group| read(&group.stored))
    }

    pub(crate) fn here<T>(&self, read: impl Fn(&GroupStats) -> T) -> Option<T> {
        self.groups.first().and_then(|group| group.here.as_ref()).map(read)
    }

    /// Itself once for each of its groups.
    fn each_group(&self) -> impl Iterator<Item = Self> {
        let alone = self.groups.is_empty().then(|| self.clone());
        let each = self.groups.iter().map(|group| {
            let Self { topic, entries, appended, bytes, first, last, .. } = self;
            let groups = vec![group.clone()];
            Self {
                topic: topic.clone(),
                entries: *entries,
                appended: *appended,
                bytes: *bytes,
                first: *first,
                last: *last,
                groups,
            }
        });
        alone.into_iter().chain(each)
    }
}

impl Groups {
    /// Each group on its own.
    pub(crate) fn each(&self) -> Snapshot<TopicShown> {
        Snapshot { at_ms: self.at_ms, items: self.items.iter().flat_map(TopicShown::each_group).collect() }
    }

    /// A page of those.
    pub(crate) fn ordered<'a>(&'a self, each: &'a Snapshot<TopicShown>, ask: &Ask<TopicShown>) -> Ordered<'a> {
        Ordered { log: self.log, page: ask.page(each), next: self.next.as_ref(), looked_at: self.looked_at }
    }
}

impl Reads {
    fn finds(&self, of: &LogTopicStats) -> bool {
        let Some(needle) = &self.needle else { return true };
        needle.is_in(of.topic.as_str()) || of.groups.iter().any(|group| needle.is_in(&group.group))
    }
}

impl Board {
    /// One page. The store is asked by one request at a time, and not twice for the same.
    pub(crate) async fn groups(&self, pubsub: &PubSub, asked: Reads) -> Result<std::sync::Arc<Groups>, StoreError> {
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

async fn read(pubsub: &PubSub, asked: &Reads) -> Result<Groups, StoreError> {
    let here = pubsub.feed().map(|feed| feed.stats().groups).unwrap_or_default();
    let log = pubsub.feed().is_some();
    let (mut items, mut after, mut looked_at) = (Vec::new(), asked.after.clone(), 0);
    loop {
        // One more than fits tells whether there is a next page; a search may need many pages of the store.
        let max = asked.per.map_or(PER_MAX, |per| per + 1 - items.len());
        let topics = pubsub.log_topics(after.as_ref(), max).await?;
        let more = topics.len() == max;
        for topic in topics {
            if asked.per == Some(items.len()) {
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

/// Topics that one search, or one order, reads before it answers with what it has found: each costs the store a handful of reads.
const TOPICS_LOOKED_AT_MAX: usize = 1_000;
