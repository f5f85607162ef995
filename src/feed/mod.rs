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
#[cfg(feature = "web")]
pub(crate) mod raw;
pub(crate) mod retention;
pub(crate) mod runner;
pub(crate) mod stats;
pub(crate) mod types;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::sync::mpsc;

use crate::feed::retention::Retentions;
use crate::feed::stats::GroupCounters;
use crate::feed::types::Types;
use crate::ids::EntryId;
use crate::local::hash::BuildPrehashed;
use crate::local::interest::Changes;
use crate::local::shard::Shared;
use crate::log::Group;
use crate::log::Store;
use crate::log::StoreError;
use crate::topic::Topic;

/// What a feed shares with the rest of its node.
pub(crate) struct Feed {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) types: Types,
    pub(crate) retention: Retentions,
    appended: AtomicU64,
    undecodable: AtomicU64,
    unknown: AtomicU64,
    standing: DashMap<Topic, Stand, BuildPrehashed>,
    /// Who waits for it to stand on a topic.
    waiting: DashMap<Topic, Arc<Notify>, BuildPrehashed>,
    /// Topics on which it failed to stand; it tries again after a rest.
    resting: DashMap<Topic, (), BuildPrehashed>,
    /// The groups that are consumed here, each as one type.
    groups: Mutex<HashMap<Group, Arc<GroupCounters>>>,
    /// Consumers that have not ended.
    intakes: AtomicUsize,
    control: mpsc::UnboundedSender<Control>,
    changes: Arc<Changes>,
    closed: AtomicBool,
    ended: Notify,
    done: Arc<Done>,
}

/// Where the feed stands in a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stand {
    /// Counts up when the topic's log turns out to be another one.
    pub(crate) epoch: u32,
    /// Where it began: what is after this was published, or will be.
    pub(crate) base: EntryId,
    /// Everything up to here was published, or was there before.
    pub(crate) at: EntryId,
}

/// Set when the feed's thread has let go of everything.
#[derive(Default)]
pub(crate) struct Done {
    is: AtomicBool,
    notify: Notify,
}

impl Done {
    pub(crate) fn set(&self) {
        self.is.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub(crate) async fn wait(&self) {
        let mut notified = std::pin::pin!(self.notify.notified());
        // Before the look: what happens after it is not missed.
        notified.as_mut().enable();
        if !self.is.load(Ordering::Acquire) {
            notified.await;
        }
    }
}

/// What the feed's thread is told.
pub(crate) enum Control {
    /// There are changed topics to look at.
    Changed,
    /// The head of a topic, which was asked for to stand there.
    Head(Topic, Result<EntryId, StoreError>),
    /// An append to a topic begins on which the feed does not stand: it must not stand behind what that appends.
    Hold(Topic),
    /// That append has ended, with this id if it is known.
    Release(Topic, Option<EntryId>),
    /// Something to do on the feed's thread, whoever asked for it may be gone.
    Job(Job),
    /// The pub/sub was closed.
    Close,
}

pub(crate) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Feed {
    /// Makes a feed and starts its thread.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        shared: Arc<Shared>,
        types: Types,
        retention: Retentions,
    ) -> std::io::Result<Arc<Self>> {
        let (control, controlled) = mpsc::unbounded_channel();
        let tell = control.clone();
        let changes = Arc::new(Changes::new(move || {
            // The feed may have ended.
            let _ = tell.send(Control::Changed);
        }));
        shared.interest.observe(Box::new(Arc::clone(&changes)));
        let feed = Arc::new(Self {
            store,
            shared,
            types,
            retention,
            appended: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            standing: DashMap::default(),
            waiting: DashMap::default(),
            resting: DashMap::default(),
            groups: Mutex::default(),
            intakes: AtomicUsize::new(0),
            done: Arc::default(),
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

    /// Where the feed stands in the topic, if it does.
    pub(crate) fn stands(&self, topic: &Topic) -> Option<Stand> {
        self.standing.get(topic).map(|stand| *stand)
    }

    /// Waits until the feed stands on a topic. `None`: it was closed, or nobody here listens to the topic any more.
    pub(crate) async fn standing(&self, topic: &Topic) -> Option<Stand> {
        loop {
            let notify = self.waiting(topic);
            let mut notified = std::pin::pin!(notify.notified());
            // Before the look: what happens after it is not missed.
            notified.as_mut().enable();
            if let Some(stand) = self.stands(topic) {
                // Others may wait beside this one.
                self.tried(topic);
                return Some(stand);
            }
            if self.is_closed() || !self.shared.interest.contains(topic) {
                self.tried(topic);
                return None;
            }
            notified.await;
        }
    }

    /// As [`standing`](Self::standing), but waits no longer than for the try that is under way.
    pub(crate) async fn try_stand(&self, topic: &Topic) -> Option<Stand> {
        let notify = self.waiting(topic);
        let mut notified = std::pin::pin!(notify.notified());
        notified.as_mut().enable();
        let idle = || self.is_closed() || !self.shared.interest.contains(topic) || self.resting.contains_key(topic);
        if self.stands(topic).is_none() && !idle() {
            notified.await;
        }
        self.stands(topic)
    }

    fn waiting(&self, topic: &Topic) -> Arc<Notify> {
        Arc::clone(&self.waiting.entry(topic.clone()).or_default())
    }

    /// An append begins to a topic on which the feed does not stand. What it appends reaches whoever is subscribed by now, when the feed stands.
    pub(crate) fn hold(self: &Arc<Self>, topic: &Topic) -> Hold {
        // An ended feed publishes nothing.
        let _ = self.control.send(Control::Hold(topic.clone()));
        Hold { feed: Arc::clone(self), topic: topic.clone(), id: None }
    }

    /// Notes that a group is consumed as this type here. `Err`: it is as another.
    pub(crate) fn consumes(&self, group: &Group, message: &'static str) -> Result<Arc<GroupCounters>, &'static str> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let known = groups.entry(group.clone()).or_insert_with(|| Arc::new(GroupCounters::new(message)));
        if known.message() == message { Ok(Arc::clone(known)) } else { Err(known.message()) }
    }

    pub(crate) fn intake_begins(&self) {
        self.intakes.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn intake_ends(&self) {
        if self.intakes.fetch_sub(1, Ordering::AcqRel) == 1 && self.is_closed() {
            // The runner waits for this.
            self.spawn(std::future::ready(()));
        }
    }

    pub(crate) fn done(&self) -> Arc<Done> {
        Arc::clone(&self.done)
    }

    fn stood(&self, topic: &Topic, stand: Stand) {
        self.standing.insert(topic.clone(), stand);
        self.resting.remove(topic);
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

/// See [`Feed::hold`]. Given back when it is dropped.
pub(crate) struct Hold {
    feed: Arc<Feed>,
    topic: Topic,
    pub(crate) id: Option<EntryId>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // An ended feed publishes nothing.
        let _ = self.feed.control.send(Control::Release(self.topic.clone(), self.id));
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("store", &self.store).field("topics", &self.standing.len()).finish_non_exhaustive()
    }
}
