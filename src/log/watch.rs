//! Watch: tails and waiting fetches of a store that lives in this process. Knows which topics moved, not what is in them.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::ids::EntryId;
use crate::log::entry::Batch;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::error::StoreError;
use crate::log::store::Store;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
use crate::observe;
use crate::topic::Topic;

/// Who is to be told when a topic moves.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    topics: Mutex<HashMap<Topic, Watched>>,
}

#[derive(Debug, Default)]
struct Watched {
    tails: Vec<Weak<Dirty>>,
    /// Waiting fetches, of any group.
    fetches: Weak<Notify>,
}

/// The topics of one tail that moved since it looked, each once, the longest waiting first.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    topics: Mutex<Queue>,
    notify: Notify,
}

/// Invariant: `order` holds exactly the topics of `queued`.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<Topic>,
    queued: HashSet<Topic>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dirty {
    /// Puts a topic at the back, unless it waits already.
    pub(crate) fn add(&self, topic: &Topic) {
        let mut topics = lock(&self.topics);
        if topics.queued.insert(topic.clone()) {
            topics.order.push_back(topic.clone());
        }
        drop(topics);
        self.notify.notify_one();
    }

    /// Takes at most `max` of them off the front. One that is put back has its turn after all others.
    pub(crate) fn take(&self, max: usize) -> Vec<Topic> {
        let mut topics = lock(&self.topics);
        let count = max.min(topics.order.len());
        let taken: Vec<_> = topics.order.drain(..count).collect();
        for topic in &taken {
            topics.queued.remove(topic);
        }
        taken
    }

    /// Waits for one. May return without one.
    pub(crate) async fn added(&self) {
        self.notify.notified().await;
    }

    fn is_empty(&self) -> bool {
        lock(&self.topics).order.is_empty()
    }
}

impl Watches {
    /// Any topic may have moved.
    #[cfg(feature = "redis")]
    pub(crate) fn moved_all(&self) {
        let topics: Vec<_> = lock(&self.topics).keys().cloned().collect();
        for topic in topics {
            self.moved(&topic);
        }
    }

    /// The topic has new entries, or a group of it has something for anyone again.
    pub(crate) fn moved(&self, topic: &Topic) {
        let topics = lock(&self.topics);
        let Some(watched) = topics.get(topic) else { return };
        for tail in watched.tails.iter().filter_map(Weak::upgrade) {
            tail.add(topic);
        }
        if let Some(fetches) = watched.fetches.upgrade() {
            fetches.notify_waiters();
        }
    }

    /// What is notified when the topic moves, for who waits.
    pub(crate) fn wait<'a>(&'a self, topic: &'a Topic) -> Waiting<'a> {
        let mut topics = lock(&self.topics);
        let watched = topics.entry(topic.clone()).or_default();
        let notify = watched.fetches.upgrade().unwrap_or_else(|| {
            let notify = Arc::new(Notify::new());
            watched.fetches = Arc::downgrade(&notify);
            notify
        });
        Waiting { watches: self, topic, notify: Some(notify) }
    }

    pub(crate) fn watch(&self, topic: &Topic, tail: &Arc<Dirty>) {
        let mut topics = lock(&self.topics);
        let watched = topics.entry(topic.clone()).or_default();
        watched.tails.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(tail)));
        watched.tails.push(Arc::downgrade(tail));
    }

    pub(crate) fn unwatch(&self, topic: &Topic, tail: &Arc<Dirty>) {
        let mut topics = lock(&self.topics);
        let Some(watched) = topics.get_mut(topic) else { return };
        watched.tails.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(tail)));
        if watched.tails.is_empty() && watched.fetches.strong_count() == 0 {
            topics.remove(topic);
        }
    }
}

/// One that waits for a topic; the topic is forgotten after the last.
pub(crate) struct Waiting<'a> {
    watches: &'a Watches,
    topic: &'a Topic,
    notify: Option<Arc<Notify>>,
}

impl Waiting<'_> {
    pub(crate) fn notify(&self) -> Arc<Notify> {
        self.notify.clone().unwrap_or_default()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut topics = lock(&self.watches.topics);
        self.notify = None;
        if topics.get(self.topic).is_some_and(|watched| watched.tails.is_empty() && watched.fetches.strong_count() == 0) {
            topics.remove(self.topic);
        }
    }
}

/// The tail of such a store: reads a topic again when it moved.
///
/// A topic that cannot be read while the store can (a damaged one) is left alone for a while, longer each time; the others go on meanwhile.
pub(crate) struct LocalTail<S> {
    store: S,
    watches: Arc<Watches>,
    dirty: Arc<Dirty>,
    positions: HashMap<Topic, EntryId>,
    /// Taken off `dirty`, and not yet answered for: what a dropped `next` leaves to the one after it.
    looking: Vec<Topic>,
    failing: Failing,
}

/// Topics that could not be read. Invariant: `by_time` holds exactly the pairs (retry time, topic) of `by_topic`.
#[derive(Debug, Default)]
struct Failing {
    /// When each is tried again, and how often it failed.
    by_topic: HashMap<Topic, (Instant, u32)>,
    by_time: BTreeSet<(Instant, Topic)>,
}

impl Failing {
    /// Returns how often it has failed by now.
    fn failed(&mut self, topic: &Topic, now: Instant) -> u32 {
        let failures = self.remove(topic).saturating_add(1);
        let retry_at = now + FAILING_RETRY_MAX.min(FAILING_RETRY_MIN * 2_u32.saturating_pow(failures.min(16) - 1));
        self.by_topic.insert(topic.clone(), (retry_at, failures));
        self.by_time.insert((retry_at, topic.clone()));
        failures
    }

    /// Returns how often it had failed.
    fn remove(&mut self, topic: &Topic) -> u32 {
        let Some((retry_at, failures)) = self.by_topic.remove(topic) else { return 0 };
        self.by_time.remove(&(retry_at, topic.clone()));
        failures
    }

    fn is_due(&self, topic: &Topic, now: Instant) -> bool {
        self.by_topic.get(topic).is_none_or(|(retry_at, _)| *retry_at <= now)
    }

    fn due(&self, now: Instant) -> impl Iterator<Item = &Topic> {
        self.by_time.iter().take_while(move |(retry_at, _)| *retry_at <= now).map(|(_, topic)| topic)
    }

    fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(retry_at, _)| *retry_at)
    }
}

/// What one look at the topics of a tail brought.
#[derive(Default)]
struct Look {
    batches: Vec<(Topic, Batch)>,
    /// To be read again: there is more of them.
    more: Vec<Topic>,
    /// Topics that cannot be read, those that could until now before the others.
    failed: VecDeque<(Topic, StoreError)>,
    /// The store cannot be read.
    store: Option<StoreError>,
}

impl<S: Store> LocalTail<S> {
    pub(crate) fn new(store: S, watches: Arc<Watches>) -> Self {
        let (dirty, failing) = (Arc::default(), Failing::default());
        Self { store, watches, dirty, positions: HashMap::new(), looking: Vec::new(), failing }
    }

    /// Reads what is looked at. Moves nothing, so that it may be dropped.
    async fn look(&self, limit: Limit) -> Look {
        let (mut look, now) = (Look::default(), Instant::now());
        for topic in &self.looking {
            let Some(after) = self.positions.get(topic).copied() else { continue };
            // Left alone: it is tried again at its time, whether it moves or not.
            if !self.failing.is_due(topic, now) {
                continue;
            }
            match self.store.read(topic, Position::After(after), limit).await {
                Ok(batch) => {
                    if !batch.caught_up {
                        look.more.push(topic.clone());
                    }
                    look.batches.push((topic.clone(), batch));
                }
                // It is the same for all others: they are not asked.
                Err(error @ (StoreError::Unavailable { .. } | StoreError::Closed)) => {
                    look.store = Some(error);
                    break;
                }
                Err(error) => look.failed.push_back((topic.clone(), error)),
            }
        }
        look
    }

    /// Takes note of a look, and returns what there is to be told. No wait in here: a dropped future has moved nothing.
    fn settle(&mut self, look: Look) -> Option<Result<Vec<(Topic, Batch)>, StoreError>> {
        let now = Instant::now();
        let looked = std::mem::take(&mut self.looking);
        let mut told = None;
        for (topic, error) in look.failed {
            // Once: who stops at an error is not to be stopped by each try.
            if self.failing.failed(&topic, now) == 1 {
                observe::log_unavailable("follow", &topic, &error);
                told.get_or_insert(error);
            }
        }
        for (topic, _) in &look.batches {
            self.failing.remove(topic);
        }
        let batches: Vec<_> =
            look.batches.into_iter().filter(|(_, batch)| !batch.entries.is_empty() || batch.gap.is_some()).collect();
        for (topic, batch) in &batches {
            self.positions.insert(topic.clone(), batch.next);
        }
        for topic in &look.more {
            self.dirty.add(topic);
        }
        if let Some(error) = look.store {
            // Those that were read have moved; it does not matter for the others that they are read once more.
            for topic in looked {
                self.dirty.add(&topic);
            }
            told = Some(error);
        }
        if !batches.is_empty() {
            return Some(Ok(batches));
        }
        told.map(Err)
    }
}

impl<S: Store> Tail for LocalTail<S> {
    fn watch(&mut self, topic: &Topic, after: EntryId) {
        if self.positions.insert(topic.clone(), after).is_none() {
            self.watches.watch(topic, &self.dirty);
        }
        // A new position is worth a try.
        self.failing.remove(topic);
        // There may be entries already.
        self.dirty.add(topic);
    }

    fn unwatch(&mut self, topic: &Topic) {
        self.failing.remove(topic);
        if self.positions.remove(topic).is_some() {
            self.watches.unwatch(topic, &self.dirty);
        }
    }

    fn next(&mut self, limit: Limit) -> StoreFuture<'_, Vec<(Topic, Batch)>> {
        Box::pin(async move {
            // Left by a call that was dropped while it read.
            for topic in std::mem::take(&mut self.looking) {
                self.dirty.add(&topic);
            }
            let mut untold = None;
            loop {
                for topic in self.failing.due(Instant::now()) {
                    self.dirty.add(topic);
                }
                // Taken off before the reading: what comes during it puts the topic back.
                self.looking = self.dirty.take(TOPICS_MAX);
                if self.looking.is_empty() {
                    match self.failing.next_due() {
                        // Either is a reason to look again.
                        Some(due) => drop(timeout_at(due, self.dirty.added()).await),
                        None => self.dirty.added().await,
                    }
                    continue;
                }
                let look = self.look(limit).await;
                let of_store = look.store.is_some();
                match self.settle(look) {
                    Some(Ok(batches)) => return Ok(batches),
                    Some(Err(error)) if of_store => return Err(error),
                    Some(Err(error)) => untold = Some(error),
                    None => {}
                }
                // Of one topic alone an error is told when there is nothing else to tell.
                if self.dirty.is_empty()
                    && let Some(error) = untold
                {
                    return Err(error);
                }
            }
        })
    }
}

impl<S> Drop for LocalTail<S> {
    fn drop(&mut self) {
        for topic in self.positions.keys() {
            self.watches.unwatch(topic, &self.dirty);
        }
    }
}

/// Topics read for one answer.
const TOPICS_MAX: usize = 256;
/// A topic that cannot be read is tried again after this time, then after twice that, up to the longest.
const FAILING_RETRY_MIN: Duration = Duration::from_millis(200);
const FAILING_RETRY_MAX: Duration = Duration::from_secs(30);
