//! The feed: carries what is appended to the log to this node's subscribers, live, in the log's order.
//!
//! ```text
//!   Store ── tail ──> feed (one thread) ──┬─> subscribers of M            Event<M> with its id
//!                       ^                 └─> followers of M, `Logged<M>`   the same, with what lies before it
//!                       │ topics with a subscriber here
//!                     interest
//! ```
//!
//! The feed *stands* on a topic when it follows it from a position; from then on it misses nothing. It stands where anyone here is subscribed.
//!
//! Guarantees, each for one topic: events come in the log's order and once. Each [`Logged`](logged::Logged) event names the entry of its type
//! before it, so that a follower sees for itself whether it missed one, whatever was dropped on the way.

pub(crate) mod backoff;
pub(crate) mod logged;
pub(crate) mod place;
pub(crate) mod retention;
pub(crate) mod runner;
pub(crate) mod types;

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::sync::mpsc;

use crate::feed::retention::Retentions;
use crate::feed::types::Types;
use crate::ids::EntryId;
use crate::local::hash::BuildPrehashed;
use crate::local::interest::Observer;
use crate::local::shard::Shared;
use crate::log::Store;
use crate::log::StoreError;
use crate::topic::Topic;

/// What a feed shares with the rest of its node.
pub(crate) struct Feed {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) types: Types,
    pub(crate) retention: Retentions,
    pub(crate) undecodable: AtomicU64,
    pub(crate) unknown: AtomicU64,
    /// Where the feed stands, and the epoch of that: it counts up when a topic's log turns out to be another one.
    standing: DashMap<Topic, u32, BuildPrehashed>,
    /// Who waits for it to stand on a topic.
    waiting: DashMap<Topic, Arc<Notify>, BuildPrehashed>,
    control: mpsc::UnboundedSender<Control>,
    changes: Arc<Changes>,
    closed: AtomicBool,
    ended: Notify,
}

/// What the feed's thread is told.
pub(crate) enum Control {
    /// There are changed topics to look at.
    Changed,
    /// The head of a topic, which was asked for to stand there.
    Head(Topic, Result<EntryId, StoreError>),
    /// Something to do on the feed's thread, whoever asked for it may be gone.
    Job(Job),
    /// The pub/sub was closed.
    Close,
}

pub(crate) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The topics whose interest changed since the feed looked.
struct Changes {
    topics: Mutex<HashSet<Topic>>,
    control: mpsc::UnboundedSender<Control>,
}

impl Changes {
    fn add(&self, topic: Topic) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let first = topics.is_empty();
        topics.insert(topic);
        drop(topics);
        if first {
            // The feed may have ended.
            let _ = self.control.send(Control::Changed);
        }
    }

    fn take(&self) -> HashSet<Topic> {
        std::mem::take(&mut *self.topics.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Noting(Arc<Changes>);

impl Observer for Noting {
    fn changed(&self, topic: &Topic) {
        self.0.add(topic.clone());
    }
}

impl Feed {
    /// Makes a feed and starts its thread.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        shared: Arc<Shared>,
        types: Types,
        retention: Retentions,
    ) -> std::io::Result<Arc<Self>> {
        let (control, controlled) = mpsc::unbounded_channel();
        let changes = Arc::new(Changes { topics: Mutex::default(), control: control.clone() });
        shared.interest.observe(Box::new(Noting(Arc::clone(&changes))));
        let feed = Arc::new(Self {
            store,
            shared,
            types,
            retention,
            undecodable: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            standing: DashMap::default(),
            waiting: DashMap::default(),
            control,
            changes,
            closed: AtomicBool::new(false),
            ended: Notify::new(),
        });
        runner::launch(Arc::clone(&feed), controlled)?;
        Ok(feed)
    }

    /// Follows nothing from now on, and ends when its jobs are done.
    pub(crate) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // It may have ended by itself.
            let _ = self.control.send(Control::Close);
            self.waiting.retain(|_, notify| {
                notify.notify_waiters();
                false
            });
            self.ended.notify_waiters();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Resolves when the feed is closed.
    pub(crate) async fn closed(&self) {
        let mut ended = std::pin::pin!(self.ended.notified());
        ended.as_mut().enable();
        if !self.is_closed() {
            ended.await;
        }
    }

    /// Runs `job` on the feed's thread, for who cannot wait for it, such as a `Drop`.
    pub(crate) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        // An ended feed has no store to do anything with.
        let _ = self.control.send(Control::Job(Box::pin(job)));
    }

    /// The epoch of the topic, if the feed stands there.
    pub(crate) fn stands(&self, topic: &Topic) -> Option<u32> {
        self.standing.get(topic).map(|epoch| *epoch)
    }

    /// Waits until the feed stands on a topic that has a subscriber here. `None`: it was closed.
    pub(crate) async fn standing(&self, topic: &Topic) -> Option<u32> {
        loop {
            if let Some(epoch) = self.try_stand(topic).await {
                return Some(epoch);
            }
            if self.is_closed() {
                return None;
            }
        }
    }

    /// As [`standing`](Self::standing), but gives up when one try of the feed has failed.
    pub(crate) async fn try_stand(&self, topic: &Topic) -> Option<u32> {
        let notify = Arc::clone(&self.waiting.entry(topic.clone()).or_default());
        let mut notified = std::pin::pin!(notify.notified());
        // Before the look: what happens after it is not missed.
        notified.as_mut().enable();
        if let Some(epoch) = self.stands(topic) {
            // Others may wait beside this one.
            self.tried(topic);
            return Some(epoch);
        }
        // Nobody is interested, so nobody looks: then there is nothing to wait for.
        if self.is_closed() || !self.shared.interest.contains(topic) {
            self.tried(topic);
            return None;
        }
        notified.await;
        self.stands(topic)
    }

    fn stood(&self, topic: &Topic, epoch: u32) {
        self.standing.insert(topic.clone(), epoch);
        self.tried(topic);
    }

    /// A try to stand on a topic has ended, this way or the other.
    fn tried(&self, topic: &Topic) {
        if let Some((_, notify)) = self.waiting.remove(topic) {
            notify.notify_waiters();
        }
    }

    /// Leaves a topic in which nobody is interested. Whoever subscribes sees either that the feed still stands, for good, or that it has left.
    fn leave(&self, topic: &Topic) -> bool {
        let left = self.standing.remove_if(topic, |_, _| !self.shared.interest.contains(topic)).is_some();
        self.tried(topic);
        left
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("store", &self.store).field("topics", &self.standing.len()).finish_non_exhaustive()
    }
}
