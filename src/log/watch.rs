//! Watch: tails and waiting fetches of a store that lives in this process. Knows which topics moved, not what is in them.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;

use tokio::sync::Notify;

use crate::ids::EntryId;
use crate::log::entry::Batch;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::store::Store;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
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

/// The topics of one tail that moved since it looked.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    topics: Mutex<HashSet<Topic>>,
    notify: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dirty {
    pub(crate) fn add(&self, topic: &Topic) {
        lock(&self.topics).insert(topic.clone());
        self.notify.notify_one();
    }

    /// Takes at most `max` of them.
    #[cfg(feature = "redis")]
    pub(crate) fn take(&self, max: usize) -> Vec<Topic> {
        let mut topics = lock(&self.topics);
        let taken: Vec<_> = topics.iter().take(max).cloned().collect();
        for topic in &taken {
            topics.remove(topic);
        }
        taken
    }

    /// Waits for one. May return without one.
    #[cfg(feature = "redis")]
    pub(crate) async fn added(&self) {
        self.notify.notified().await;
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
pub(crate) struct LocalTail<S> {
    store: S,
    watches: Arc<Watches>,
    dirty: Arc<Dirty>,
    positions: HashMap<Topic, EntryId>,
}

impl<S: Store> LocalTail<S> {
    pub(crate) fn new(store: S, watches: Arc<Watches>) -> Self {
        Self { store, watches, dirty: Arc::default(), positions: HashMap::new() }
    }
}

impl<S: Store> Tail for LocalTail<S> {
    fn watch(&mut self, topic: &Topic, after: EntryId) {
        if self.positions.insert(topic.clone(), after).is_none() {
            self.watches.watch(topic, &self.dirty);
        }
        // There may be entries already.
        self.dirty.add(topic);
    }

    fn unwatch(&mut self, topic: &Topic) {
        if self.positions.remove(topic).is_some() {
            self.watches.unwatch(topic, &self.dirty);
        }
    }

    fn next(&mut self, limit: Limit) -> StoreFuture<'_, Vec<(Topic, Batch)>> {
        Box::pin(async move {
            loop {
                let moved: Vec<Topic> = lock(&self.dirty.topics).iter().take(TOPICS_MAX).cloned().collect();
                let mut batches = Vec::new();
                for topic in &moved {
                    // Taken off before the reading: what comes during it puts the topic back.
                    lock(&self.dirty.topics).remove(topic);
                    let Some(after) = self.positions.get(topic).copied() else { continue };
                    let batch = match self.store.read(topic, Position::After(after), limit).await {
                        Ok(batch) => batch,
                        Err(error) => {
                            self.dirty.add(topic);
                            for (topic, _) in &batches {
                                self.dirty.add(topic);
                            }
                            return Err(error);
                        }
                    };
                    if !batch.caught_up {
                        self.dirty.add(topic);
                    }
                    if !batch.entries.is_empty() || batch.gap.is_some() {
                        batches.push((topic.clone(), batch));
                    }
                }
                if !batches.is_empty() {
                    // No wait between here and the return: a dropped future has moved nothing.
                    for (topic, batch) in &batches {
                        self.positions.insert(topic.clone(), batch.next);
                    }
                    return Ok(batches);
                }
                if moved.is_empty() {
                    self.dirty.notify.notified().await;
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
