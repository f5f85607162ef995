//! Faults: a store that fails as it is told, around one that does not. Knows the contract, and breaks what it allows to break.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::ids::EntryId;
use crate::log::Append;
use crate::log::Appended;
use crate::log::Batch;
use crate::log::Caps;
use crate::log::ConsumerInfo;
use crate::log::Fetch;
use crate::log::Fetched;
use crate::log::Group;
use crate::log::GroupInfo;
use crate::log::Limit;
use crate::log::Limits;
use crate::log::Name;
use crate::log::Outcome;
use crate::log::Pending;
use crate::log::PendingQuery;
use crate::log::Position;
use crate::log::Store;
use crate::log::StoreError;
use crate::log::StoreFuture;
use crate::log::Tail;
use crate::log::Token;
use crate::log::TopicInfo;
use crate::log::Trim;
use crate::topic::Topic;

/// A store with faults. A clone shares its settings.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    down: AtomicBool,
    per_thousand: AtomicU32,
    slow: AtomicBool,
    silent: AtomicBool,
    unreadable: AtomicBool,
    hasty: AtomicBool,
    random: AtomicU64,
    failed: AtomicU64,
}

impl FaultyStore {
    /// No faults yet. `seed` decides when they come.
    pub fn new(inner: Arc<dyn Store>, seed: u64) -> Self {
        Self { inner, faults: Arc::new(Faults { random: AtomicU64::new(seed), ..Faults::default() }) }
    }

    /// Fails everything, or stops doing so.
    pub fn set_down(&self, down: bool) {
        self.faults.down.store(down, Ordering::SeqCst);
    }

    /// Fails so many of a thousand calls: half of them before they are done, half after.
    pub fn fail_per_thousand(&self, calls: u32) {
        self.faults.per_thousand.store(calls, Ordering::SeqCst);
    }

    /// Makes some answers late.
    pub fn set_slow(&self, slow: bool) {
        self.faults.slow.store(slow, Ordering::SeqCst);
    }

    /// Answers nothing, or does so again: who asked while it was silent never gets an answer.
    pub fn set_silent(&self, silent: bool) {
        self.faults.silent.store(silent, Ordering::SeqCst);
    }

    /// Fails reading, and tails, and nothing else.
    pub fn set_unreadable(&self, unreadable: bool) {
        self.faults.unreadable.store(unreadable, Ordering::SeqCst);
    }

    /// Lets `fetch` come back empty at once, against the contract.
    pub fn set_hasty(&self, hasty: bool) {
        self.faults.hasty.store(hasty, Ordering::SeqCst);
    }

    /// Calls that were failed.
    pub fn failed(&self) -> u64 {
        self.faults.failed.load(Ordering::SeqCst)
    }

    fn fault<'a, T: Send + 'a>(&'a self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        self.faults.clone().fault(call)
    }
}

impl Faults {
    fn draw(&self) -> u64 {
        // SplitMix64.
        let mut mixed = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn fail(&self, outcome: Outcome) -> StoreError {
        self.failed.fetch_add(1, Ordering::SeqCst);
        StoreError::Unavailable { outcome, source: Arc::new(io::Error::other("a fault on demand")) }
    }

    fn fault<'a, T: Send + 'a>(self: Arc<Self>, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move {
            let (draw, fail) = (self.draw(), self.per_thousand.load(Ordering::SeqCst));
            if self.slow.load(Ordering::SeqCst) && draw % 7 == 0 {
                tokio::time::sleep(Duration::from_millis(draw % 5)).await;
            }
            if self.silent.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            let failing = draw >> 32 & 0x3FF < u64::from(fail) * 1_024 / 1_000;
            if self.down.load(Ordering::SeqCst) || failing && draw & 1 == 0 {
                return Err(self.fail(Outcome::NotDone));
            }
            let answer = call.await;
            if failing || self.down.load(Ordering::SeqCst) { Err(self.fail(Outcome::Unknown)) } else { answer }
        })
    }
}

impl Store for FaultyStore {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append<'a>(&'a self, topic: &'a Topic, batch: Append) -> StoreFuture<'a, Vec<Appended>> {
        self.fault(self.inner.append(topic, batch))
    }

    fn read<'a>(&'a self, topic: &'a Topic, from: Position, limit: Limit) -> StoreFuture<'a, Batch> {
        if self.faults.unreadable.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(self.faults.fail(Outcome::NotDone))));
        }
        self.fault(self.inner.read(topic, from, limit))
    }

    fn tail(&self) -> Box<dyn Tail> {
        Box::new(FaultyTail { inner: self.inner.tail(), faults: Arc::clone(&self.faults) })
    }

    fn trim<'a>(&'a self, topic: &'a Topic, to: Trim) -> StoreFuture<'a, u64> {
        self.fault(self.inner.trim(topic, to))
    }

    fn info<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, TopicInfo> {
        self.fault(self.inner.info(topic))
    }

    fn topics<'a>(&'a self, after: Option<&'a Topic>, limit: usize) -> StoreFuture<'a, Vec<Topic>> {
        self.fault(self.inner.topics(after, limit))
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, bool> {
        self.fault(self.inner.delete(topic))
    }

    fn create_group<'a>(&'a self, group: &'a Group, from: Position) -> StoreFuture<'a, bool> {
        self.fault(self.inner.create_group(group, from))
    }

    fn delete_group<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, bool> {
        self.fault(self.inner.delete_group(group))
    }

    fn groups<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, Vec<GroupInfo>> {
        self.fault(self.inner.groups(topic))
    }

    fn fetch<'a>(&'a self, group: &'a Group, consumer: &'a Name, fetch: Fetch) -> StoreFuture<'a, Vec<Fetched>> {
        let wait = if self.faults.hasty.load(Ordering::SeqCst) { Duration::ZERO } else { fetch.wait };
        self.fault(self.inner.fetch(group, consumer, fetch.wait(wait)))
    }

    fn ack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>) -> StoreFuture<'a, u64> {
        self.fault(self.inner.ack(group, tokens))
    }

    fn nack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, delay: Duration) -> StoreFuture<'a, u64> {
        self.fault(self.inner.nack(group, tokens, delay))
    }

    fn extend<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, visibility: Duration) -> StoreFuture<'a, u64> {
        self.fault(self.inner.extend(group, tokens, visibility))
    }

    fn pending<'a>(&'a self, group: &'a Group, query: PendingQuery) -> StoreFuture<'a, Vec<Pending>> {
        self.fault(self.inner.pending(group, query))
    }

    fn claim<'a>(
        &'a self,
        group: &'a Group,
        consumer: &'a Name,
        idle_min: Duration,
        fetch: Fetch,
    ) -> StoreFuture<'a, Vec<Fetched>> {
        self.fault(self.inner.claim(group, consumer, idle_min, fetch))
    }

    fn consumers<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, Vec<ConsumerInfo>> {
        self.fault(self.inner.consumers(group))
    }

    fn remove_consumer<'a>(&'a self, group: &'a Group, consumer: &'a Name) -> StoreFuture<'a, u64> {
        self.fault(self.inner.remove_consumer(group, consumer))
    }

    fn dead_letter<'a>(
        &'a self,
        group: &'a Group,
        fetched: Fetched,
        to: &'a Topic,
        reason: &'a str,
        trim: Option<Trim>,
    ) -> StoreFuture<'a, Option<EntryId>> {
        self.fault(self.inner.dead_letter(group, fetched, to, reason, trim))
    }

    fn sync(&self) -> StoreFuture<'_, ()> {
        self.fault(self.inner.sync())
    }
}

struct FaultyTail {
    inner: Box<dyn Tail>,
    faults: Arc<Faults>,
}

impl Tail for FaultyTail {
    fn watch(&mut self, topic: &Topic, after: EntryId) {
        self.inner.watch(topic, after);
    }

    fn unwatch(&mut self, topic: &Topic) {
        self.inner.unwatch(topic);
    }

    fn next(&mut self, limit: Limit) -> StoreFuture<'_, Vec<(Topic, Batch)>> {
        let fail = self.faults.per_thousand.load(Ordering::SeqCst);
        let failing = self.faults.draw() >> 32 & 0x3FF < u64::from(fail) * 1_024 / 1_000;
        if self.faults.down.load(Ordering::SeqCst) || self.faults.unreadable.load(Ordering::SeqCst) || failing {
            // Before it is done only: what a tail has returned has moved on.
            let error = self.faults.fail(Outcome::NotDone);
            return Box::pin(std::future::ready(Err(error)));
        }
        self.inner.next(limit)
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("inner", &self.inner).field("failed", &self.failed()).finish_non_exhaustive()
    }
}
