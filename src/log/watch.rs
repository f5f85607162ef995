//! Watch: tails and waiting fetches of a store that lives in this process. Knows which topics moved, not what is in them.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Weak;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::ids::EntryId;
use crate::log::entry::Batch;
use crate::log::entry::Fetch;
use crate::log::entry::Fetched;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::error::StoreError;
use crate::log::failing::Failing;
use crate::log::store::Store;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
use crate::observe;
use crate::sync::lock;
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
    #[cfg(any(feature = "embedded", feature = "redis"))]
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

    /// Calls `fetch` until it brings something or `wait` is over: at once, whenever the topic moves, and when the entry that it says is next is due.
    /// `now_ms` is the steady clock of those due times.
    pub(crate) async fn fetch_within(
        &self,
        topic: &Topic,
        wait: Duration,
        now_ms: impl Fn() -> u64,
        mut fetch: impl FnMut() -> Result<(Vec<Fetched>, Option<u64>), StoreError>,
    ) -> Result<Vec<Fetched>, StoreError> {
        let deadline = Instant::now() + wait.min(Fetch::WAIT_MAX);
        let waiting = self.wait(topic);
        loop {
            let moved = waiting.notify();
            let mut moved = std::pin::pin!(moved.notified());
            // From here on nothing is missed.
            moved.as_mut().enable();
            let (fetched, next_due_ms) = fetch()?;
            if !fetched.is_empty() || Instant::now() >= deadline {
                return Ok(fetched);
            }
            let due = next_due_ms.map(|due_ms| Instant::now() + Duration::from_millis(due_ms.saturating_sub(now_ms())));
            let until = due.map_or(deadline, |due| due.min(deadline));
            // Either is a reason to look again.
            let _ = timeout_at(until, moved).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::MemoryStore;
    use crate::log::Name;
    use crate::log::entry::Append;
    use crate::log::entry::Appended;
    use crate::log::entry::ConsumerInfo;
    use crate::log::entry::Fetch;
    use crate::log::entry::Fetched;
    use crate::log::entry::Group;
    use crate::log::entry::GroupInfo;
    use crate::log::entry::Limits;
    use crate::log::entry::NewEntry;
    use crate::log::entry::Pending;
    use crate::log::entry::PendingQuery;
    use crate::log::entry::Token;
    use crate::log::entry::TopicInfo;
    use crate::log::entry::Trim;
    use crate::log::error::Outcome;
    use crate::log::store::Caps;
    use futures::FutureExt;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    /// A memory store whose reads wait, or fail for the topics that are damaged or for all.
    #[derive(Clone, Debug, Default)]
    struct Odd {
        inner: MemoryStore,
        watches: Arc<Watches>,
        waits: Arc<Mutex<bool>>,
        away: Arc<Mutex<bool>>,
        damaged: Arc<Mutex<HashSet<Topic>>>,
        damaged_reads: Arc<AtomicU32>,
    }

    macro_rules! unused {
        ($($name:ident($($arg:ty),*) -> $answer:ty;)*) => {
            $(fn $name<'a>(&'a self, $(_: $arg),*) -> StoreFuture<'a, $answer> {
                unreachable!("a tail does not call it")
            })*
        };
    }

    impl Store for Odd {
        fn caps(&self) -> Caps {
            self.inner.caps()
        }

        fn limits(&self) -> Limits {
            self.inner.limits()
        }

        fn append<'a>(&'a self, topic: &'a Topic, batch: Append) -> StoreFuture<'a, Vec<Appended>> {
            Box::pin(async move {
                let appended = self.inner.append(topic, batch).await;
                self.watches.moved(topic);
                appended
            })
        }

        fn read<'a>(&'a self, topic: &'a Topic, from: Position, limit: Limit) -> StoreFuture<'a, Batch> {
            Box::pin(async move {
                if *lock(&self.waits) {
                    tokio::task::yield_now().await;
                }
                if *lock(&self.away) {
                    let source = Arc::new(std::io::Error::other("away"));
                    return Err(StoreError::Unavailable { outcome: Outcome::NotDone, source });
                }
                if lock(&self.damaged).contains(topic) {
                    self.damaged_reads.fetch_add(1, Ordering::Relaxed);
                    return Err(StoreError::Corrupt { at: format!("topic {topic}"), detail: "on purpose".to_owned() });
                }
                self.inner.read(topic, from, limit).await
            })
        }

        fn tail(&self) -> Box<dyn Tail> {
            Box::new(LocalTail::new(self.clone(), Arc::clone(&self.watches)))
        }

        unused! {
            trim(&'a Topic, Trim) -> u64;
            info(&'a Topic) -> TopicInfo;
            topics(Option<&'a Topic>, usize) -> Vec<Topic>;
            delete(&'a Topic) -> bool;
            create_group(&'a Group, Position) -> bool;
            delete_group(&'a Group) -> bool;
            groups(&'a Topic) -> Vec<GroupInfo>;
            fetch(&'a Group, &'a Name, Fetch) -> Vec<Fetched>;
            ack(&'a Group, Vec<Token>) -> u64;
            nack(&'a Group, Vec<Token>, Duration) -> u64;
            extend(&'a Group, Vec<Token>, Duration) -> u64;
            pending(&'a Group, PendingQuery) -> Vec<Pending>;
            claim(&'a Group, &'a Name, Duration, Fetch) -> Vec<Fetched>;
            consumers(&'a Group) -> Vec<ConsumerInfo>;
            remove_consumer(&'a Group, &'a Name) -> u64;
        }
    }

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    impl Odd {
        fn append_one(&self, topic: &Topic) {
            self.append(topic, Append::one(NewEntry::new("n", "1"))).now_or_never().unwrap().unwrap();
        }
    }

    fn topics_of(batches: &[(Topic, Batch)]) -> Vec<&str> {
        batches.iter().map(|(topic, _)| topic.as_str()).collect()
    }

    /// One damaged topic of an embedded store ended live delivery of all topics of the process: its read failed, what the look had gathered of the
    /// others was thrown away, and so again at each try. A topic that cannot be read is left out, and the others are brought.
    #[test]
    fn an_unreadable_topic_does_not_stop_the_others_and_comes_back_when_it_is_mended() {
        actix::System::new().block_on(async {
            let (store, bad) = (Odd::default(), topic("bad"));
            let mut tail = store.tail();
            let good: Vec<_> = (0..50).map(|n| topic(&format!("good:{n:02}"))).collect();
            for topic in std::iter::once(&bad).chain(&good) {
                tail.watch(topic, EntryId::MIN);
            }
            lock(&store.damaged).insert(bad.clone());
            store.append_one(&bad);
            for round in 0..3 {
                for topic in &good {
                    store.append_one(topic);
                }
                let batches = tail.next(Limit::default()).await.unwrap();
                assert_eq!(topics_of(&batches), good.iter().map(Topic::as_str).collect::<Vec<_>>(), "round {round}");
                assert!(batches.iter().all(|(_, batch)| batch.entries.len() == 1));
                // It moves on, too, and is left alone all the same.
                store.append_one(&bad);
            }
            assert_eq!(store.damaged_reads.load(Ordering::Relaxed), 1, "it is not tried each time that something moves");
            // With nothing else to tell it is tried now and then, and less and less often.
            let quiet = tokio::time::timeout(Duration::from_secs(2), tail.next(Limit::default())).await;
            assert!(quiet.is_err(), "it was told, or others were: {quiet:?}");
            let tries = store.damaged_reads.load(Ordering::Relaxed);
            assert!((2..=5).contains(&tries), "{tries} tries in two seconds: after 0.2, 0.6 and 1.4 of them");
            lock(&store.damaged).clear();
            let mended = tail.next(Limit::default()).await.unwrap();
            assert_eq!((topics_of(&mended), mended[0].1.entries.len()), (vec!["bad"], 4), "nobody had to tell it to look again");
        });
    }

    #[test]
    fn an_error_of_one_topic_is_told_when_there_is_nothing_else_and_of_the_store_each_time() {
        actix::System::new().block_on(async {
            let (store, t, bad) = (Odd::default(), topic("t"), topic("bad"));
            let mut tail = store.tail();
            tail.watch(&bad, EntryId::MIN);
            lock(&store.damaged).insert(bad.clone());
            assert!(matches!(tail.next(Limit::default()).await, Err(StoreError::Corrupt { .. })));
            tail.watch(&t, EntryId::MIN);
            store.append_one(&t);
            *lock(&store.away) = true;
            for _ in 0..3 {
                assert!(matches!(tail.next(Limit::default()).await, Err(StoreError::Unavailable { .. })));
            }
            *lock(&store.away) = false;
            assert_eq!(topics_of(&tail.next(Limit::default()).await.unwrap()), ["t"]);
            // Neither has a topic that is followed no more.
            tail.unwatch(&bad);
            assert!(tokio::time::timeout(Duration::from_millis(500), tail.next(Limit::default())).await.is_err());
        });
    }

    /// The next 256 topics were taken from a hash set in its own order, and put back where they had been while they had more: with 300 topics
    /// behind, 44 were not read before the others were done, and while those were written to that was never. Each has its turn.
    #[test]
    fn topics_that_have_more_wait_behind_those_that_have_not_had_their_turn() {
        actix::System::new().block_on(async {
            let store = MemoryStore::new();
            let mut tail = store.tail();
            for n in 0..TOPICS_MAX * 2 {
                let topic = topic(&format!("m:{n}"));
                let batch = (0..10).map(|_| NewEntry::new("n", "1")).collect();
                store.append(&topic, Append::many(batch)).await.unwrap();
                tail.watch(&topic, EntryId::MIN);
            }
            let mut seen = HashSet::new();
            for _ in 0..2 {
                seen.extend(tail.next(Limit::entries(1)).await.unwrap().into_iter().map(|(topic, _)| topic));
            }
            assert_eq!(seen.len(), TOPICS_MAX * 2);
        });
    }

    /// Topics were taken off the list before they were read. Over a store whose reads wait, a dropped `next` (the feed drops one at each word from
    /// elsewhere) forgot them: their entries came when the topic moved again, or never. What is looked at is kept until it is answered for.
    #[test]
    fn a_next_that_is_dropped_while_a_read_waits_loses_nothing() {
        actix::System::new().block_on(async {
            let store = Odd::default();
            let mut tail = store.tail();
            for name in ["a", "b"] {
                tail.watch(&topic(name), EntryId::MIN);
                store.append_one(&topic(name));
            }
            *lock(&store.waits) = true;
            for _ in 0..5 {
                assert!(futures::poll!(tail.next(Limit::default())).is_pending());
            }
            let mut one_read = tail.next(Limit::default());
            assert!(futures::poll!(&mut one_read).is_pending());
            assert!(futures::poll!(&mut one_read).is_pending(), "the first topic is read, the second not yet");
            drop(one_read);
            let batches = tokio::time::timeout(Duration::from_secs(5), tail.next(Limit::default())).await.unwrap().unwrap();
            let mut seen = topics_of(&batches);
            seen.sort_unstable();
            assert_eq!(seen, ["a", "b"]);
        });
    }
}
