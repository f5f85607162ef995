//! Stats: what this node does with the log, counted; and what goes wrong with it, told. Knows no store.

use std::error::Error;
use std::fmt::Display;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::feed::Feed;
use crate::ids::EntryId;
use crate::local::incident::IncidentKind;
use crate::log::Group;
use crate::observe;
use crate::topic::Topic;

/// What this node does with the log: part of [`Stats`](crate::Stats). For what the store keeps, see `PubSub::log_topics`.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LogStats {
    /// Topics that are followed for subscribers here.
    pub topics: usize,
    /// Entries appended by this node.
    pub appended: u64,
    /// Entries that are no message of their name.
    pub undecodable: u64,
    /// Entries whose name no message type here has.
    pub unknown: u64,
    /// Groups with a consumer here, now or before.
    pub groups: Vec<GroupStats>,
}

/// A consumer group as this node sees it: part of [`LogStats`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupStats {
    /// Its topic.
    pub topic: Topic,
    /// Its name.
    pub group: String,
    /// The name of the message type that it consumes.
    pub message: &'static str,
    /// Its consumers on this node.
    pub consumers: usize,
    /// Entries given to a handler here.
    pub delivered: u64,
    /// Of them, those that had been given to one before, here or elsewhere.
    pub redelivered: u64,
    /// Entries whose handler answered `Ok`.
    pub handled: u64,
    /// Entries whose handler answered `Err`, or nothing.
    pub failed: u64,
    /// Entries given up.
    pub dead_letters: u64,
}

#[derive(Debug)]
pub(crate) struct GroupCounters {
    message: &'static str,
    consumers: AtomicUsize,
    delivered: AtomicU64,
    redelivered: AtomicU64,
    handled: AtomicU64,
    failed: AtomicU64,
    dead_letters: AtomicU64,
}

impl GroupCounters {
    pub(crate) fn new(message: &'static str) -> Self {
        Self {
            message,
            consumers: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            redelivered: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
        }
    }

    pub(crate) fn message(&self) -> &'static str {
        self.message
    }

    pub(crate) fn joined(&self) {
        self.consumers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn left(&self) {
        self.consumers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn count_delivered(&self, attempt: u32) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if attempt > 1 {
            self.redelivered.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_handled(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, group: &Group) -> GroupStats {
        GroupStats {
            topic: group.topic.clone(),
            group: group.name.as_str().to_owned(),
            message: self.message,
            consumers: self.consumers.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            redelivered: self.redelivered.load(Ordering::Relaxed),
            handled: self.handled.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
        }
    }
}

impl Feed {
    pub(crate) fn stats(&self) -> LogStats {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let mut groups: Vec<_> = groups.iter().map(|(group, counters)| counters.read(group)).collect();
        groups.sort_unstable_by(|one, other| (&one.topic, &one.group).cmp(&(&other.topic, &other.group)));
        LogStats {
            topics: self.standing.len(),
            appended: self.appended.load(Ordering::Relaxed),
            undecodable: self.undecodable.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            groups,
        }
    }

    pub(crate) fn count_appended(&self, entries: usize) {
        self.appended.fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_unknown(&self) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
    }

    // ---- telling -----------------------------------------------------------------------------------------------------

    pub(crate) fn tell_unavailable(&self, doing: &'static str, topic: &Topic, error: &dyn Error) {
        observe::log_unavailable(doing, topic, error);
        let what = IncidentKind::LogUnavailable { doing, topic: topic.clone(), error: observe::chain(error) };
        self.shared.incidents.add(what);
    }

    pub(crate) fn tell_gap(&self, topic: &Topic, asked_after: EntryId, cause: &dyn Display) {
        observe::history_gap(topic, asked_after, cause);
        self.shared.incidents.add(IncidentKind::HistoryGap { topic: topic.clone(), asked_after, cause: cause.to_string() });
    }

    pub(crate) fn tell_undecodable(&self, topic: &Topic, id: EntryId, name: &str, error: &str) {
        self.undecodable.fetch_add(1, Ordering::Relaxed);
        observe::entry_undecodable(topic, id, name, error);
        let what = IncidentKind::Undecodable { topic: topic.clone(), message: name.to_owned(), error: error.to_owned() };
        self.shared.incidents.add(what);
    }

    pub(crate) fn tell_failed(&self, group: &Group, counters: &GroupCounters, entry: EntryId, attempt: u32, reason: &str) {
        counters.failed.fetch_add(1, Ordering::Relaxed);
        observe::delivery_failed(&group.topic, group.name.as_str(), entry, attempt, reason);
        let (topic, group) = (group.topic.clone(), group.name.as_str().to_owned());
        self.shared.incidents.add(IncidentKind::DeliveryFailed { topic, group, entry, reason: reason.to_owned() });
    }

    pub(crate) fn tell_dead(&self, group: &Group, counters: &GroupCounters, entry: EntryId, attempt: u32, reason: &str) {
        counters.dead_letters.fetch_add(1, Ordering::Relaxed);
        observe::delivery_dead(&group.topic, group.name.as_str(), entry, attempt, reason);
        let (topic, group) = (group.topic.clone(), group.name.as_str().to_owned());
        self.shared.incidents.add(IncidentKind::DeadLetter { topic, group, entry, reason: reason.to_owned() });
    }
}
