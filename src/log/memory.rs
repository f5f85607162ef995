//! Memory: a store in this process's memory, for tests and for history that need not outlive the process; the reference for the others.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bytestring::ByteString;

use crate::ids::EntryId;
use crate::log::clock::Clock;
use crate::log::entry::Append;
use crate::log::entry::Appended;
use crate::log::entry::Batch;
use crate::log::entry::ConsumerInfo;
use crate::log::entry::Entry;
use crate::log::entry::Fetch;
use crate::log::entry::Fetched;
use crate::log::entry::Gap;
use crate::log::entry::GapCause;
use crate::log::entry::Group;
use crate::log::entry::GroupInfo;
use crate::log::entry::Limit;
use crate::log::entry::Limits;
use crate::log::entry::Name;
use crate::log::entry::Pending;
use crate::log::entry::PendingQuery;
use crate::log::entry::Position;
use crate::log::entry::Token;
use crate::log::entry::TopicInfo;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::log::pending::GroupState;
use crate::log::store::Caps;
use crate::log::store::Durability;
use crate::log::store::Store;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
use crate::log::store::letter;
use crate::log::watch::LocalTail;
use crate::log::watch::Watches;
use crate::topic::Topic;

/// A [`Store`] in this process's memory. A clone is a handle to the same store.
///
/// Bounded by nothing but its topics' trimming: give each a retention.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    limits: Limits,
    dedup_window: Window,
    clock: Clock,
    topics: Mutex<Topics>,
    watches: Arc<Watches>,
}

#[derive(Default)]
struct Topics {
    by_name: HashMap<Topic, TopicLog>,
    /// The newest id that any deleted topic had: where topics that are made from now on begin.
    floor: EntryId,
}

impl Topics {
    /// The topic, made if it is not there.
    fn open(&mut self, topic: &Topic) -> &mut TopicLog {
        let floor = self.floor;
        self.by_name.entry(topic.clone()).or_insert_with(|| TopicLog { last: floor, trimmed: floor, ..TopicLog::default() })
    }
}

/// How long a key is known.
struct Window(Duration);

impl Default for Window {
    fn default() -> Self {
        Self(MemoryStore::DEDUP_WINDOW_DEFAULT)
    }
}

#[derive(Default)]
struct TopicLog {
    entries: VecDeque<Entry>,
    bytes: u64,
    /// The newest id, or where the topic began.
    last: EntryId,
    /// The newest entry that was trimmed, or where the topic began.
    trimmed: EntryId,
    appended: u64,
    keys: HashMap<ByteString, EntryId>,
    /// The keys, and when each is forgotten, soonest first.
    keys_until: VecDeque<(u64, ByteString)>,
    groups: BTreeMap<Name, GroupState>,
}

impl MemoryStore {
    /// How long an idempotency key is known, unless told otherwise.
    pub const DEDUP_WINDOW_DEFAULT: Duration = Duration::from_secs(600);

    /// An empty store with the default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store with these settings.
    pub fn with(limits: Limits, dedup_window: Duration, clock: Clock) -> Self {
        let shared = Shared { limits, dedup_window: Window(dedup_window), clock, ..Shared::default() };
        Self { shared: Arc::new(shared) }
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.shared.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.shared.clock.steady_ms()
    }

    /// Runs `with` on a group's topic and state.
    fn group<T>(&self, group: &Group, with: impl FnOnce(&mut TopicLog, &mut GroupState) -> T) -> Result<T, StoreError> {
        let mut topics = self.lock();
        let log = topics.by_name.get_mut(&group.topic).ok_or_else(|| StoreError::NoGroup(group.clone()))?;
        // Taken out, so that both can be borrowed.
        let (name, mut state) = log.groups.remove_entry(&group.name).ok_or_else(|| StoreError::NoGroup(group.clone()))?;
        let answer = with(log, &mut state);
        log.groups.insert(name, state);
        Ok(answer)
    }

    /// As [`group`](Self::group), for what may make a waiting fetch look again.
    fn change<T>(&self, group: &Group, change: impl FnOnce(&mut TopicLog, &mut GroupState) -> T) -> Result<T, StoreError> {
        let (answer, wakes) = self.group(group, |log, state| {
            let (full, due_ms) = (state.room() == 0, state.next_due_ms());
            let answer = change(log, state);
            (answer, state.wakes_since(full, due_ms))
        })?;
        if wakes {
            self.shared.watches.moved(&group.topic);
        }
        Ok(answer)
    }

    fn append_now(&self, topic: &Topic, batch: Append) -> Result<Vec<Appended>, StoreError> {
        batch.check(&self.shared.limits)?;
        if batch.entries.is_empty() {
            return Ok(Vec::new());
        }
        let (wall_ms, now_ms) = (self.shared.clock.wall_ms(), self.now());
        let mut topics = self.lock();
        if batch.expect_last.is_some_and(|last| last != EntryId::MIN) && !topics.by_name.contains_key(topic) {
            let expected = batch.expect_last.unwrap_or_default();
            return Err(StoreError::Conflict { expected, last: Some(EntryId::MIN) });
        }
        let appended = topics.open(topic).append(batch, wall_ms, now_ms, self.shared.dedup_window.0);
        drop(topics);
        if appended.is_ok() {
            self.shared.watches.moved(topic);
        }
        appended
    }

    fn fetch_now(&self, group: &Group, consumer: &Name, fetch: Fetch) -> Result<(Vec<Fetched>, Option<u64>), StoreError> {
        let now_ms = self.now();
        self.group(group, |log, state| {
            state.seen(consumer, now_ms);
            let mut fetched: Vec<_> =
                state.take_due(consumer, fetch, now_ms).into_iter().map(|token| log.fetched(token)).collect();
            let room = fetch.entries.saturating_sub(fetched.len()).min(state.room());
            let from = log.entries.partition_point(|entry| entry.id <= state.last);
            let first = log.appended - log.entries.len() as u64;
            for index in from..log.entries.len().min(from.saturating_add(room)) {
                let entry = log.entries[index].clone();
                let token = state.take_new(entry.id, first + index as u64 + 1, consumer, fetch, now_ms);
                fetched.push(Fetched { id: token.id, attempt: token.attempt, entry: Some(entry), token });
            }
            (fetched, state.next_due_ms())
        })
    }
}

impl TopicLog {
    fn append(&mut self, batch: Append, wall_ms: u64, now_ms: u64, window: Duration) -> Result<Vec<Appended>, StoreError> {
        while self.keys_until.front().is_some_and(|(until, _)| *until <= now_ms) {
            if let Some((_, key)) = self.keys_until.pop_front() {
                self.keys.remove(&key);
            }
        }
        let known = |key: &Option<ByteString>| key.as_ref().and_then(|key| self.keys.get(key).copied());
        let all_known: Option<Vec<EntryId>> = batch.entries.iter().map(|entry| known(&entry.dedup)).collect();
        if let Some(ids) = all_known {
            return Ok(ids.into_iter().map(|id| Appended { id, duplicate: true }).collect());
        }
        if let Some(expected) = batch.expect_last
            && expected != self.newest()
        {
            return Err(StoreError::Conflict { expected, last: Some(self.newest()) });
        }
        let mut ids = Vec::with_capacity(batch.entries.len());
        let mut last = self.last;
        // Ids first: nothing is done if they run out.
        for _ in &batch.entries {
            last = if wall_ms > last.ms() {
                EntryId::new(wall_ms, 0)
            } else {
                last.next().ok_or(StoreError::IdsExhausted { last: self.last })?
            };
            ids.push(last);
        }
        let (mut ids, mut appended) = (ids.into_iter(), Vec::with_capacity(batch.entries.len()));
        for entry in batch.entries {
            if let Some(id) = entry.dedup.as_ref().and_then(|key| self.keys.get(key).copied()) {
                appended.push(Appended { id, duplicate: true });
                continue;
            }
            let Some(id) = ids.next() else { break };
            if let Some(key) = entry.dedup {
                let until = now_ms.saturating_add(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
                self.keys_until.push_back((until, key.clone()));
                self.keys.insert(key, id);
            }
            let entry = Entry { id, name: entry.name, payload: entry.payload, headers: entry.headers };
            self.bytes += bytes(&entry);
            self.entries.push_back(entry);
            self.appended += 1;
            self.last = id;
            appended.push(Appended { id, duplicate: false });
        }
        if let Some(to) = batch.trim {
            self.trim(to, wall_ms);
        }
        Ok(appended)
    }

    /// The newest id ever appended.
    fn newest(&self) -> EntryId {
        if self.appended == 0 { EntryId::MIN } else { self.last }
    }

    fn trim(&mut self, to: Trim, wall_ms: u64) -> u64 {
        let remove = match to {
            Trim::Len(keep) => self.entries.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX)),
            Trim::Before(id) => self.entries.partition_point(|entry| entry.id < id),
            Trim::Age(age) => {
                let oldest = wall_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                self.entries.partition_point(|entry| entry.id.ms() < oldest)
            }
        };
        for entry in self.entries.drain(..remove) {
            self.bytes -= bytes(&entry);
            self.trimmed = entry.id;
        }
        remove as u64
    }

    fn read(&self, topic: &Topic, from: Position, limit: Limit) -> Batch {
        let (after, gap) = match from {
            Position::Start => (self.trimmed, None),
            Position::End => (self.last, None),
            Position::Since(ms) => {
                let at = EntryId::new(ms, 0).prev().unwrap_or_default();
                // A time to come: what is appended until then is before it, too, but no reader can be put ahead of the log.
                (at.max(self.trimmed).min(self.last), None)
            }
            Position::After(id) if id > self.last => (self.trimmed, Some((id, GapCause::Ahead))),
            // Nothing of this topic was trimmed yet, and the position is not from the one that was deleted under its name.
            Position::After(EntryId::MIN) if self.entries.len() as u64 == self.appended => (self.trimmed, None),
            Position::After(id) if id < self.trimmed => (self.trimmed, Some((id, GapCause::Trimmed))),
            Position::After(id) => (id, None),
        };
        let start = self.entries.partition_point(|entry| entry.id <= after);
        let (mut entries, mut read_bytes) = (Vec::new(), 0);
        for entry in self.entries.range(start..) {
            if !entries.is_empty() && (entries.len() >= limit.entries || read_bytes >= limit.bytes) {
                break;
            }
            read_bytes += entry.payload.len();
            entries.push(entry.clone());
        }
        let resumes_at = self.entries.get(start).map(|entry| entry.id);
        let gap = gap.map(|(asked_after, cause)| Gap::new(topic.clone(), asked_after, resumes_at, cause, true));
        let caught_up = start + entries.len() == self.entries.len();
        Batch { next: entries.last().map_or(after, |entry| entry.id), entries, gap, caught_up }
    }

    fn find(&self, id: EntryId) -> Option<&Entry> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok().map(|index| &self.entries[index])
    }

    fn fetched(&self, token: Token) -> Fetched {
        Fetched { id: token.id, entry: self.find(token.id).cloned(), attempt: token.attempt, token }
    }

    /// How many of the topic's entries there have been up to `id`.
    fn ordinal(&self, id: EntryId) -> u64 {
        let first = self.appended - self.entries.len() as u64;
        first + self.entries.partition_point(|entry| entry.id <= id) as u64
    }

    fn group_info(&self, name: &Name, state: &GroupState) -> GroupInfo {
        let gone = self.appended - self.entries.len() as u64;
        let mut info = GroupInfo::new(name.clone());
        info.last_delivered = state.last;
        info.lag = Some(self.appended - self.ordinal(state.last));
        info.pending = state.len() as u64;
        info.skipped = state.skipped(gone);
        info.consumers = state.consumers_len() as u64;
        info
    }
}

fn bytes(entry: &Entry) -> u64 {
    let headers: usize = entry.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    (entry.payload.len() + entry.name.len() + headers) as u64
}

/// A future that is done.
fn now<'a, T: Send + 'a>(answer: Result<T, StoreError>) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Store for MemoryStore {
    fn caps(&self) -> Caps {
        Caps::full(Durability::Memory)
    }

    fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn append<'a>(&'a self, topic: &'a Topic, batch: Append) -> StoreFuture<'a, Vec<Appended>> {
        Box::pin(async move { self.append_now(topic, batch) })
    }

    fn read<'a>(&'a self, topic: &'a Topic, from: Position, limit: Limit) -> StoreFuture<'a, Batch> {
        let topics = self.lock();
        now(Ok(match topics.by_name.get(topic) {
            Some(log) => log.read(topic, from, limit),
            None => TopicLog::default().read(topic, from, limit),
        }))
    }

    fn tail(&self) -> Box<dyn Tail> {
        Box::new(LocalTail::new(self.clone(), Arc::clone(&self.shared.watches)))
    }

    fn trim<'a>(&'a self, topic: &'a Topic, to: Trim) -> StoreFuture<'a, u64> {
        let wall_ms = self.shared.clock.wall_ms();
        Box::pin(async move { Ok(self.lock().by_name.get_mut(topic).map_or(0, |log| log.trim(to, wall_ms))) })
    }

    fn info<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, TopicInfo> {
        now(Ok(self.lock().by_name.get(topic).map_or_else(
            || TopicInfo { appended: Some(0), bytes: Some(0), ..TopicInfo::default() },
            |log| TopicInfo {
                entries: log.entries.len() as u64,
                appended: Some(log.appended),
                bytes: Some(log.bytes),
                first: log.entries.front().map(|entry| entry.id),
                last: log.newest(),
                groups: log.groups.len() as u64,
            },
        )))
    }

    fn topics<'a>(&'a self, after: Option<&'a Topic>, limit: usize) -> StoreFuture<'a, Vec<Topic>> {
        let listed = |topic: &&Topic| after.is_none_or(|after| *topic > after);
        let mut topics: Vec<_> = self.lock().by_name.keys().filter(listed).cloned().collect();
        topics.sort_unstable();
        topics.truncate(limit);
        now(Ok(topics))
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut topics = self.lock();
            let deleted = topics.by_name.remove(topic);
            topics.floor = topics.floor.max(deleted.as_ref().map_or(EntryId::MIN, |log| log.last));
            drop(topics);
            let deleted = deleted.is_some();
            self.shared.watches.moved(topic);
            Ok(deleted)
        })
    }

    fn create_group<'a>(&'a self, group: &'a Group, from: Position) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut topics = self.lock();
            let log = topics.open(&group.topic);
            if log.groups.contains_key(&group.name) {
                return Ok(false);
            }
            let state = match from {
                // All of it: what was trimmed is skipped, and counted.
                Position::After(EntryId::MIN) => GroupState::at(EntryId::MIN, Some(0)),
                // A group cannot begin ahead of the log.
                Position::After(id) => {
                    let at = id.min(log.last);
                    GroupState::at(at, (at >= log.trimmed).then(|| log.ordinal(at)))
                }
                from => {
                    let first =
                        log.read(&group.topic, from, Limit { entries: 1, bytes: 0 }).entries.first().map(|entry| entry.id);
                    let at = first.and_then(EntryId::prev).unwrap_or(log.last);
                    GroupState::at(at, Some(log.ordinal(at)))
                }
            };
            log.groups.insert(group.name.clone(), state);
            Ok(true)
        })
    }

    fn delete_group<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut topics = self.lock();
            let deleted = topics.by_name.get_mut(&group.topic).is_some_and(|log| log.groups.remove(&group.name).is_some());
            drop(topics);
            self.shared.watches.moved(&group.topic);
            Ok(deleted)
        })
    }

    fn groups<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, Vec<GroupInfo>> {
        now(Ok(self
            .lock()
            .by_name
            .get(topic)
            .map_or_else(Vec::new, |log| log.groups.iter().map(|(name, state)| log.group_info(name, state)).collect())))
    }

    fn fetch<'a>(&'a self, group: &'a Group, consumer: &'a Name, fetch: Fetch) -> StoreFuture<'a, Vec<Fetched>> {
        Box::pin(self.shared.watches.fetch_within(
            &group.topic,
            fetch.wait,
            || self.now(),
            move || self.fetch_now(group, consumer, fetch),
        ))
    }

    fn ack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let now_ms = self.now();
            self.change(group, |_, state| tokens.iter().filter(|token| state.ack(token, now_ms)).count() as u64)
        })
    }

    fn nack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, delay: Duration) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let now_ms = self.now();
            self.change(group, |_, state| tokens.iter().filter(|token| state.nack(token, delay, now_ms)).count() as u64)
        })
    }

    fn extend<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, visibility: Duration) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let now_ms = self.now();
            self.change(group, |_, state| tokens.iter().filter(|token| state.extend(token, visibility, now_ms)).count() as u64)
        })
    }

    fn dead_letter<'a>(
        &'a self,
        group: &'a Group,
        fetched: Fetched,
        to: &'a Topic,
        reason: &'a str,
        trim: Option<Trim>,
    ) -> StoreFuture<'a, Option<EntryId>> {
        Box::pin(async move {
            let batch = Append { trim, ..Append::one(letter(group, &fetched, reason, self.shared.limits)) };
            batch.check(&self.shared.limits)?;
            let (wall_ms, now_ms, token) = (self.shared.clock.wall_ms(), self.now(), fetched.token);
            let mut topics = self.lock();
            let state = topics.by_name.get(&group.topic).and_then(|log| log.groups.get(&group.name));
            if !state.ok_or_else(|| StoreError::NoGroup(group.clone()))?.is_last(&token) {
                return Ok(None);
            }
            let appended = topics.open(to).append(batch, wall_ms, now_ms, self.shared.dedup_window.0)?;
            let state = topics.by_name.get_mut(&group.topic).and_then(|log| log.groups.get_mut(&group.name));
            if let Some(state) = state {
                state.ack(&token, now_ms);
            }
            drop(topics);
            self.shared.watches.moved(to);
            // There may be room for new entries.
            self.shared.watches.moved(&group.topic);
            Ok(appended.first().map(|appended| appended.id))
        })
    }

    fn pending<'a>(&'a self, group: &'a Group, query: PendingQuery) -> StoreFuture<'a, Vec<Pending>> {
        let now_ms = self.now();
        now(self.group(group, |_, state| state.pending(&query, now_ms)))
    }

    fn claim<'a>(
        &'a self,
        group: &'a Group,
        consumer: &'a Name,
        idle_min: Duration,
        fetch: Fetch,
    ) -> StoreFuture<'a, Vec<Fetched>> {
        Box::pin(async move {
            let now_ms = self.now();
            self.change(group, |log, state| {
                state.seen(consumer, now_ms);
                let tokens = state.claim(consumer, idle_min, fetch, now_ms);
                tokens.into_iter().map(|token| log.fetched(token)).collect()
            })
        })
    }

    fn consumers<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, Vec<ConsumerInfo>> {
        let now_ms = self.now();
        now(self.group(group, |_, state| state.consumers(now_ms)))
    }

    fn remove_consumer<'a>(&'a self, group: &'a Group, consumer: &'a Name) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let now_ms = self.now();
            self.change(group, |_, state| state.remove_consumer(consumer, now_ms).len() as u64)
        })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("topics", &self.lock().by_name.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::entry::NewEntry;
    use futures::FutureExt;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    struct Manual {
        store: MemoryStore,
        topic: Topic,
        wall_ms: Arc<AtomicU64>,
        steady_ms: Arc<AtomicU64>,
    }

    fn manual(wall_ms: u64) -> Manual {
        let (wall_ms, steady_ms) = (Arc::new(AtomicU64::new(wall_ms)), Arc::new(AtomicU64::new(0)));
        let read = |of: &Arc<AtomicU64>| {
            let of = Arc::clone(of);
            move || of.load(Ordering::Relaxed)
        };
        let clock = Clock::from_fns(read(&wall_ms), read(&steady_ms));
        let store = MemoryStore::with(Limits::default(), Duration::from_millis(100), clock);
        Manual { store, topic: Topic::parse("t").unwrap(), wall_ms, steady_ms }
    }

    fn now<T>(future: StoreFuture<'_, T>) -> Result<T, StoreError> {
        future.now_or_never().expect("it waits for nothing")
    }

    impl Manual {
        fn append(&self, entry: NewEntry) -> Result<Appended, StoreError> {
            now(self.store.append(&self.topic, Append::one(entry))).map(|appended| appended[0])
        }
    }

    #[test]
    fn ids_increase_and_reading_goes_on_when_the_clock_steps_back() {
        let world = manual(1_000_000);
        let first = world.append(NewEntry::new("", "1")).unwrap().id;
        world.wall_ms.store(10, Ordering::Relaxed);
        let second = world.append(NewEntry::new("", "2")).unwrap().id;
        assert_eq!((first, second), (EntryId::new(1_000_000, 0), EntryId::new(1_000_000, 1)));
        let on = now(world.store.read(&world.topic, Position::After(first), Limit::default())).unwrap();
        assert_eq!((on.entries.len(), on.gap), (1, None));
        assert_eq!(
            now(world.store.trim(&world.topic, Trim::Age(Duration::from_millis(5)))).unwrap(),
            0,
            "nothing is older than now"
        );
        world.wall_ms.store(2_000_000, Ordering::Relaxed);
        assert_eq!(world.append(NewEntry::new("", "3")).unwrap().id, EntryId::new(2_000_000, 0));
        assert_eq!(now(world.store.trim(&world.topic, Trim::Age(Duration::from_millis(5)))).unwrap(), 2);
    }

    #[test]
    fn a_visibility_does_not_care_for_the_wall_clock() {
        let world = manual(1_000_000);
        let group = Group::new(world.topic.clone(), Name::parse("g").unwrap());
        let consumer = Name::parse("c").unwrap();
        world.append(NewEntry::new("", "1")).unwrap();
        now(world.store.create_group(&group, Position::Start)).unwrap();
        let fetch =
            || now(world.store.fetch(&group, &consumer, Fetch::entries(1).visibility(Duration::from_secs(10)))).unwrap().len();
        assert_eq!(fetch(), 1);
        world.wall_ms.store(9_000_000, Ordering::Relaxed);
        assert_eq!(fetch(), 0);
        world.wall_ms.store(0, Ordering::Relaxed);
        world.steady_ms.store(9_999, Ordering::Relaxed);
        assert_eq!(fetch(), 0);
        world.steady_ms.store(10_000, Ordering::Relaxed);
        assert_eq!(fetch(), 1);
    }

    #[test]
    fn a_key_is_forgotten_after_its_window_and_not_before() {
        let world = manual(5);
        let keyed = || NewEntry::new("", "1").dedup("k");
        assert!(!world.append(keyed()).unwrap().duplicate);
        world.steady_ms.store(99, Ordering::Relaxed);
        assert!(world.append(keyed()).unwrap().duplicate);
        world.steady_ms.store(100, Ordering::Relaxed);
        assert!(!world.append(keyed()).unwrap().duplicate);
    }

    #[test]
    fn when_ids_run_out_an_append_says_so_and_keeps_nothing() {
        let world = manual(u64::MAX);
        assert_eq!(world.append(NewEntry::new("", "1")).unwrap().id, EntryId::new(u64::MAX, 0));
        world.store.lock().by_name.get_mut(&world.topic).unwrap().last = EntryId::new(u64::MAX, u64::MAX - 1);
        let two = Append::many(vec![NewEntry::new("", "2"), NewEntry::new("", "3")]);
        let refused = now(world.store.append(&world.topic, two)).unwrap_err();
        assert!(matches!(refused, StoreError::IdsExhausted { .. }), "{refused:?}");
        assert_eq!(world.append(NewEntry::new("", "4")).unwrap().id, EntryId::MAX);
        assert!(matches!(world.append(NewEntry::new("", "5")), Err(StoreError::IdsExhausted { last: EntryId::MAX })));
        assert_eq!(now(world.store.info(&world.topic)).unwrap().entries, 2);
    }

    /// A group with as much pending as it may have gives nothing new. A fetch that waited in that state was not woken by the ack that made room,
    /// and slept on until the next append or its own end: with enough entries behind, a group stood still.
    #[actix::test]
    async fn memory_wakes_a_waiting_fetch_when_an_ack_makes_room() {
        crate::log::pending::tests_of_room(Arc::new(MemoryStore::new()), crate::log::pending::PENDING_MAX).await;
    }
}
