//! Regressions of the log's stores: each begins with its story. Those of a store's insides are beside the code.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use actix_pubsub::EntryId;
use actix_pubsub::Topic;
use actix_pubsub::log::*;
use actix_pubsub::testing::faults::FaultyStore;
use actix_pubsub::testing::store::CASES;

use crate::support::Folder;

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn name(name: &str) -> Name {
    Name::parse(name).unwrap()
}

fn group() -> Group {
    Group::new(topic("t"), name("workers"))
}

fn entry(n: u64) -> NewEntry {
    NewEntry::new("n", n.to_string())
}

async fn append(store: &dyn Store, topic: &Topic, n: u64) -> EntryId {
    store.append(topic, Append::one(entry(n))).await.unwrap()[0].id
}

/// A deleted topic that was made again went on with larger ids, so that a position from before the delete looked like one of the new log: a reader
/// went on there and was not told that what it had not read yet is gone. The store keeps where deleted topics ended, over a reopening, too.
#[actix::test]
async fn embedded_tells_positions_from_before_a_delete_over_a_reopening() {
    let (folder, t) = (Folder::new(), topic("t"));
    let path = folder.file();
    let store = EmbeddedStore::open(&path).unwrap();
    let (first, last) = (append(&store, &t, 0).await, append(&store, &t, 1).await);
    assert!(store.delete(&t).await.unwrap());
    store.close().await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    let anew = append(&store, &t, 2).await;
    assert!(anew > last);
    store.close().await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    let batch = store.read(&t, Position::After(first), Limit::default()).await.unwrap();
    let gap = batch.gap.expect("1 is gone");
    assert_eq!((gap.cause, gap.resumes_at, gap.certain), (GapCause::Trimmed, Some(anew), true));
    assert_eq!(store.read(&t, Position::After(EntryId::MIN), Limit::default()).await.unwrap().gap, None);
}

/// A clock that stepped back between the two gave the new topic ids below those of the old one: the same position then named two entries.
#[actix::test]
async fn a_topic_made_again_has_larger_ids_though_the_clock_stepped_back() {
    let wall_ms = Arc::new(std::sync::atomic::AtomicU64::new(1_000_000));
    let read = Arc::clone(&wall_ms);
    let clock = Clock::from_fns(move || read.load(std::sync::atomic::Ordering::Relaxed), || 0);
    let store = MemoryStore::with(Limits::default(), Duration::from_secs(1), clock);
    let old = append(&store, &topic("t"), 0).await;
    store.delete(&topic("t")).await.unwrap();
    wall_ms.store(5, std::sync::atomic::Ordering::Relaxed);
    assert!(append(&store, &topic("t"), 1).await > old);
}

/// Dead letters were appended without the retention of their topic, which grew without bound however little it was to keep.
#[actix::test]
async fn a_dead_letter_trims_its_topic_in_the_same_step() {
    let (store, dead) = (MemoryStore::new(), topic("dead:t"));
    for n in 0..10 {
        append(&store, &group().topic, n).await;
    }
    store.create_group(&group(), Position::Start).await.unwrap();
    for fetched in store.fetch(&group(), &name("c"), Fetch::entries(10)).await.unwrap() {
        store.dead_letter(&group(), fetched, &dead, "no", Some(Trim::Len(2))).await.unwrap();
        assert!(store.info(&dead).await.unwrap().entries <= 2);
    }
    assert_eq!(store.info(&dead).await.unwrap().appended, Some(10));
}

/// A store of one's own may write dead letters in its own way; the one with faults did it in the default's way instead, and so tested another one.
#[actix::test]
async fn a_faulty_store_writes_dead_letters_as_the_one_inside_does_and_fails_as_it_is_told() {
    let inner = Wrong::default();
    let faulty = FaultyStore::new(Arc::new(inner.clone()), 1);
    let id = EntryId::new(1, 0);
    let fetched = Fetched { id, entry: None, attempt: 1, token: Token { id, attempt: 1, handle: None } };
    faulty.set_down(true);
    let down = faulty.dead_letter(&group(), fetched.clone(), &topic("dead"), "no", None).await;
    assert!(matches!(down, Err(StoreError::Unavailable { .. })), "{down:?}");
    faulty.set_down(false);
    assert_eq!(faulty.dead_letter(&group(), fetched, &topic("dead"), "no", None).await.unwrap(), Some(EntryId::MAX));
}

/// The contract suite passed stores that lose entries. Each of these does, in one way, and fails in the case that is named.
#[actix::test]
async fn the_suite_refuses_stores_that_lose_what_it_promises() {
    crate::support::quiet_panics();
    let own = "whoever_reads_beside_appenders_sees_every_entry_once_and_in_order";
    for (case, breach) in [
        (own, Breach::ShowsLate),
        ("watching_a_watched_topic_sets_its_position", Breach::WatchesOnce),
        ("a_group_begins_at_a_time", Breach::BeginsAtStart),
        ("a_waiting_fetch_wakes_for_an_append", Breach::NeverWaits),
    ] {
        let (_, run) = CASES.iter().find(|(name, _)| *name == case).unwrap();
        assert!(
            tokio::task::spawn_local(run(Arc::new(MemoryStore::new()))).await.is_ok(),
            "{case} fails for a store that is right"
        );
        assert!(
            tokio::task::spawn_local(run(Arc::new(Wrong { breach, ..Wrong::default() }))).await.is_err(),
            "{case} passes for a store that is wrong"
        );
    }
}

/// A memory store that breaks the contract as it is told.
#[derive(Clone, Debug, Default)]
struct Wrong {
    inner: MemoryStore,
    breach: Breach,
    hidden: Arc<Mutex<BTreeSet<(Topic, EntryId)>>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Breach {
    #[default]
    None,
    /// Ids become visible in another order than they were given.
    ShowsLate,
    /// A tail keeps the position that a topic was first watched at.
    WatchesOnce,
    /// A group begins at the start, whatever time it is told.
    BeginsAtStart,
    /// A fetch is empty at once.
    NeverWaits,
}

struct WrongTail {
    inner: Box<dyn Tail>,
    watched: BTreeSet<Topic>,
}

impl Tail for WrongTail {
    fn watch(&mut self, topic: &Topic, after: EntryId) {
        if self.watched.insert(topic.clone()) {
            self.inner.watch(topic, after);
        }
    }

    fn unwatch(&mut self, topic: &Topic) {
        self.watched.remove(topic);
        self.inner.unwatch(topic);
    }

    fn next(&mut self, limit: Limit) -> StoreFuture<'_, Vec<(Topic, Batch)>> {
        self.inner.next(limit)
    }
}

impl Store for Wrong {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append<'a>(&'a self, topic: &'a Topic, batch: Append) -> StoreFuture<'a, Vec<Appended>> {
        Box::pin(async move {
            let appended = self.inner.append(topic, batch).await?;
            if self.breach == Breach::ShowsLate {
                let ids = || appended.iter().map(|appended| (topic.clone(), appended.id));
                self.hidden.lock().unwrap().extend(ids());
                for _ in 0..appended.last().map_or(0, |last| last.id.seq() % 7) {
                    tokio::task::yield_now().await;
                }
                let mut hidden = self.hidden.lock().unwrap();
                for id in ids() {
                    hidden.remove(&id);
                }
            }
            Ok(appended)
        })
    }

    fn read<'a>(&'a self, topic: &'a Topic, from: Position, limit: Limit) -> StoreFuture<'a, Batch> {
        Box::pin(async move {
            let mut batch = self.inner.read(topic, from, limit).await?;
            batch.entries.retain(|entry| !self.hidden.lock().unwrap().contains(&(topic.clone(), entry.id)));
            Ok(batch)
        })
    }

    fn tail(&self) -> Box<dyn Tail> {
        let inner = self.inner.tail();
        if self.breach == Breach::WatchesOnce { Box::new(WrongTail { inner, watched: BTreeSet::new() }) } else { inner }
    }

    fn trim<'a>(&'a self, topic: &'a Topic, to: Trim) -> StoreFuture<'a, u64> {
        self.inner.trim(topic, to)
    }

    fn info<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, TopicInfo> {
        self.inner.info(topic)
    }

    fn topics<'a>(&'a self, after: Option<&'a Topic>, limit: usize) -> StoreFuture<'a, Vec<Topic>> {
        self.inner.topics(after, limit)
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, bool> {
        self.inner.delete(topic)
    }

    fn create_group<'a>(&'a self, group: &'a Group, from: Position) -> StoreFuture<'a, bool> {
        let start = self.breach == Breach::BeginsAtStart && matches!(from, Position::Since(_));
        self.inner.create_group(group, if start { Position::Start } else { from })
    }

    fn delete_group<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, bool> {
        self.inner.delete_group(group)
    }

    fn groups<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, Vec<GroupInfo>> {
        self.inner.groups(topic)
    }

    fn fetch<'a>(&'a self, group: &'a Group, consumer: &'a Name, fetch: Fetch) -> StoreFuture<'a, Vec<Fetched>> {
        let wait = if self.breach == Breach::NeverWaits { Duration::ZERO } else { fetch.wait };
        self.inner.fetch(group, consumer, Fetch { wait, ..fetch })
    }

    fn ack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>) -> StoreFuture<'a, u64> {
        self.inner.ack(group, tokens)
    }

    fn nack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, delay: Duration) -> StoreFuture<'a, u64> {
        self.inner.nack(group, tokens, delay)
    }

    fn extend<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, visibility: Duration) -> StoreFuture<'a, u64> {
        self.inner.extend(group, tokens, visibility)
    }

    fn pending<'a>(&'a self, group: &'a Group, query: PendingQuery) -> StoreFuture<'a, Vec<Pending>> {
        self.inner.pending(group, query)
    }

    fn claim<'a>(
        &'a self,
        group: &'a Group,
        consumer: &'a Name,
        idle_min: Duration,
        fetch: Fetch,
    ) -> StoreFuture<'a, Vec<Fetched>> {
        self.inner.claim(group, consumer, idle_min, fetch)
    }

    fn consumers<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, Vec<ConsumerInfo>> {
        self.inner.consumers(group)
    }

    fn remove_consumer<'a>(&'a self, group: &'a Group, consumer: &'a Name) -> StoreFuture<'a, u64> {
        self.inner.remove_consumer(group, consumer)
    }

    /// Its own way.
    fn dead_letter<'a>(
        &'a self,
        _: &'a Group,
        _: Fetched,
        _: &'a Topic,
        _: &'a str,
        _: Option<Trim>,
    ) -> StoreFuture<'a, Option<EntryId>> {
        Box::pin(std::future::ready(Ok(Some(EntryId::MAX))))
    }
}
