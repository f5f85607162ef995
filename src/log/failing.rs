//! Failing: the topics of a tail that could not be read, and when each is tried again. Pure; knows no store.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::topic::Topic;

/// Topics that could not be read. Invariant: `by_time` holds exactly the pairs (retry time, topic) of `by_topic`.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    /// When each is tried again, and how often it failed.
    by_topic: HashMap<Topic, (Instant, u32)>,
    by_time: BTreeSet<(Instant, Topic)>,
}

impl Failing {
    /// Returns how often it has failed by now.
    pub(crate) fn failed(&mut self, topic: &Topic, now: Instant) -> u32 {
        let failures = self.remove(topic).saturating_add(1);
        let retry_at = now + RETRY_MAX.min(RETRY_MIN * 2_u32.saturating_pow(failures.min(16) - 1));
        self.by_topic.insert(topic.clone(), (retry_at, failures));
        self.by_time.insert((retry_at, topic.clone()));
        failures
    }

    /// Returns how often it had failed.
    pub(crate) fn remove(&mut self, topic: &Topic) -> u32 {
        let Some((retry_at, failures)) = self.by_topic.remove(topic) else { return 0 };
        self.by_time.remove(&(retry_at, topic.clone()));
        failures
    }

    pub(crate) fn is_due(&self, topic: &Topic, now: Instant) -> bool {
        self.by_topic.get(topic).is_none_or(|(retry_at, _)| *retry_at <= now)
    }

    pub(crate) fn due(&self, now: Instant) -> impl Iterator<Item = &Topic> {
        self.by_time.iter().take_while(move |(retry_at, _)| *retry_at <= now).map(|(_, topic)| topic)
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(retry_at, _)| *retry_at)
    }
}

/// A topic that cannot be read is tried again after this time, then after twice that, up to the longest.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
