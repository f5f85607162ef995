//! Hub: what the publishers and subscribers of this node share with its relay. Any thread works on it; nobody waits.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::Weak;
use std::time::Instant;

use dashmap::DashMap;
use serde::Serialize;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::sync::oneshot;

use crate::cluster::event::ClusterEvent;
use crate::cluster::event::NodeInfo;
use crate::cluster::frame;
use crate::cluster::frame::Fields;
use crate::cluster::frame::Kind;
use crate::cluster::options::ClusterError;
use crate::cluster::options::ClusterOptions;
use crate::cluster::options::LinkOverflow;
use crate::cluster::queue::Queue;
use crate::cluster::queue::Refused;
use crate::cluster::relay::Relay;
use crate::cluster::stats::ClusterStats;
use crate::cluster::stats::Counters;
use crate::cluster::stats::Peer;
use crate::cluster::stats::PeerStats;
use crate::cluster::subject::Subject;
use crate::cluster::trace;
use crate::cluster::transport::Identity;
use crate::cluster::transport::Transport;
use crate::codec::CodecError;
use crate::event::Payload;
use crate::feed::Done;
use crate::feed::types::Types;
use crate::ids::NodeId;
use crate::local::hash::BuildPrehashed;
use crate::local::interest::Changes;
use crate::local::remote::NotReady;
use crate::local::remote::Remote;
use crate::local::remote::Waiting;
use crate::local::shard::Shared;
use crate::sync::Arc;
use crate::sync::AtomicBool;
use crate::sync::AtomicU64;
use crate::sync::Mutex;
use crate::sync::Ordering;
use crate::sync::lock;
use crate::topic::Topic;

pub(crate) struct Hub {
    pub(crate) shared: Arc<Shared>,
    pub(crate) types: Types,
    pub(crate) options: ClusterOptions,
    /// Broadcasts that wait for the engine.
    pub(crate) outbound: Queue<Queued>,
    pub(crate) link: AtomicBool,
    /// Topics of which everything arrives.
    ready: DashMap<Topic, (), BuildPrehashed>,
    /// Who waits for that.
    waiting: DashMap<Topic, Arc<Notify>, BuildPrehashed>,
    /// Who listens to what, where the nodes tell each other.
    remote: Option<DashMap<Topic, SmallVec<[Listener; 2]>, BuildPrehashed>>,
    nodes: RwLock<Arc<[NodeInfo]>>,
    /// The same nodes, with what is counted of each.
    peers: RwLock<Vec<Peer>>,
    counting: Mutex<HashMap<u64, Counting>>,
    /// What is asked of the relay.
    pub(crate) asked: Queue<Asked>,
    next_ask: AtomicU64,
    pub(crate) changes: Arc<Changes>,
    pub(crate) counters: Counters,
    pub(crate) engine: &'static str,
    closed: AtomicBool,
    pub(crate) done: Arc<Done>,
}

/// Another node, as a listener to a topic.
struct Listener {
    node: NodeId,
    /// It does not get anything now, and will be told what it missed.
    is_deaf: bool,
}

/// Why there is no hub.
pub(crate) enum HubError {
    Refused(ClusterError),
    Thread(std::io::Error),
}

/// A broadcast on its way to the relay.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) subject: Subject,
    /// Without its number.
    pub(crate) frame: Vec<u8>,
}

/// What waits for the relay.
#[derive(Debug)]
pub(crate) enum Queued {
    Frame(Outbound),
    /// So many to each of these subjects found no room or no link, after what is queued before and before what is queued behind.
    Lost(HashMap<Subject, u64>),
}

impl Queued {
    /// `None`: it is only a note.
    fn bytes(&self) -> Option<usize> {
        match self {
            Self::Frame(outbound) => Some(outbound.frame.len()),
            Self::Lost(_) => None,
        }
    }

    /// The frames among these, as lost.
    fn lost(items: Vec<Self>) -> Self {
        let mut items = items.into_iter();
        // The first is mostly the note of those before: it is not made anew for each frame.
        let mut lost = match items.next() {
            Some(Self::Lost(lost)) => lost,
            Some(Self::Frame(Outbound { subject, .. })) => HashMap::from([(subject, 1)]),
            None => HashMap::new(),
        };
        for item in items {
            match item {
                Self::Frame(Outbound { subject, .. }) => add_lost(&mut lost, subject, 1),
                Self::Lost(more) => more.into_iter().for_each(|(subject, frames)| add_lost(&mut lost, subject, frames)),
            }
        }
        Self::Lost(lost)
    }
}

fn add_lost(lost: &mut HashMap<Subject, u64>, subject: Subject, frames: u64) {
    if lost.len() < LOST_SUBJECTS_MAX || lost.contains_key(&subject) {
        *lost.entry(subject).or_default() += frames;
    }
}

/// What the relay is asked.
#[derive(Debug)]
pub(crate) enum Asked {
    /// How many subscribers each node has.
    Count { id: u64, topic: Topic },
    /// There is something to look at: topics, or the end.
    Changed,
}

struct Counting {
    counts: Vec<(NodeId, u64)>,
    missing: Vec<NodeId>,
    done: Option<oneshot::Sender<Counted>>,
}

/// What the nodes said to a question for their subscribers.
pub(crate) struct Counted {
    pub(crate) counts: Vec<(NodeId, u64)>,
    pub(crate) silent: Vec<NodeId>,
}

/// What becomes of a broadcast towards the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Crossing {
    /// It is for this node only, or this pub/sub is of no cluster.
    #[default]
    Local,
    /// No other node listens, and none that did was lost from sight lately. Only an engine over which the nodes tell each other what they listen to says
    /// so; with others it is sent all the same.
    NobodyListens,
    /// It waits to be sent. What becomes of it after that is not known here: a node that listens and does not get it is told so.
    Queued,
    /// The queue for the engine was full: it is not sent.
    Full,
    /// There is no link to the engine: it is not sent.
    LinkDown,
}

/// A frame that can be sent, or why it is not.
#[derive(Debug)]
pub(crate) enum Prepared {
    Frame(Outbound),
    Not(Crossing, Option<Subject>),
}

/// Why a message can be no frame.
#[derive(Debug)]
pub(crate) enum Unsendable {
    Encode(CodecError),
    TooLarge { bytes: usize, max: usize },
}

impl Hub {
    /// `tells`: the nodes tell each other what they listen to.
    pub(crate) fn new(
        shared: Arc<Shared>,
        types: Types,
        options: ClusterOptions,
        (engine, tells): (&'static str, bool),
        changes: Arc<Changes>,
    ) -> Self {
        Self {
            types,
            outbound: Queue::new(options.queue_frames, QUEUE_BYTES_MAX),
            shared,
            options,
            link: AtomicBool::new(false),
            ready: DashMap::default(),
            waiting: DashMap::default(),
            remote: tells.then(DashMap::default),
            nodes: RwLock::new(Arc::from([])),
            peers: RwLock::default(),
            counting: Mutex::default(),
            asked: Queue::new(ASKED_MAX, usize::MAX),
            next_ask: AtomicU64::new(0),
            changes,
            counters: Counters::default(),
            engine,
            closed: AtomicBool::new(false),
            done: Arc::default(),
        }
    }

    /// A hub and its relay, on a thread of its own.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        types: &Types,
        transport: Arc<dyn Transport>,
        options: &ClusterOptions,
    ) -> Result<Arc<Self>, HubError> {
        let cluster = options.check().map_err(HubError::Refused)?;
        transport.check().map_err(|source| HubError::Refused(ClusterError::Transport(source)))?;
        let caps = transport.caps();
        let hub = Arc::new_cyclic(|hub: &Weak<Self>| {
            let relay = hub.clone();
            let changes = Arc::new(Changes::new(move || relay.upgrade().into_iter().for_each(|hub| hub.wake())));
            Self::new(Arc::clone(shared), types.clone(), options.clone(), (caps.engine, !caps.confirms_interest), changes)
        });
        types.add_local::<ClusterEvent>();
        let identity = Identity {
            cluster,
            node: shared.node,
            name: options.node(),
            frame_bytes_max: options.frame_bytes_max,
            failure_timeout: options.timing().failure,
        };
        Relay::launch(Arc::clone(&hub), transport, identity).map_err(HubError::Thread)?;
        // There is none before: this is a new pub/sub.
        let _ = shared.remote.set(Box::new(Readiness(Arc::downgrade(&hub))));
        shared.interest.observe(Box::new(Arc::clone(&hub.changes)));
        Ok(hub)
    }

    /// What people call this node.
    #[cfg(feature = "web")]
    pub(crate) fn node_name(&self) -> Arc<str> {
        self.options.node()
    }

    pub(crate) fn stats(&self) -> ClusterStats {
        let counters = &self.counters;
        ClusterStats {
            engine: self.engine,
            link_up: self.link.load(Ordering::Acquire),
            links: counters.links.get(),
            link_failures: counters.link_failures.get(),
            nodes: self.nodes().len(),
            topics: counters.topics.load(Ordering::Relaxed),
            sent: counters.sent.get(),
            sent_bytes: counters.sent_bytes.get(),
            queue_depth: self.outbound.len(),
            queue_peak: self.outbound.peak(),
            queue_capacity: self.outbound.capacity(),
            dropped_nobody_listens: counters.nobody.get(),
            dropped_queue_full: counters.full.get(),
            dropped_link_down: counters.link_down.get(),
            received: counters.received.get(),
            received_bytes: counters.received_bytes.get(),
            delivered: counters.delivered.get(),
            dropped_own: counters.own.get(),
            dropped_old: counters.old.get(),
            dropped_unasked: counters.unasked.get(),
            dropped_malformed: counters.malformed.get(),
            dropped_newer: counters.newer.get(),
            dropped_unknown_message: counters.unknown.get(),
            dropped_undecodable: counters.undecodable.get(),
            dropped_inbound_full: counters.inbound_full.get(),
            lost: counters.lost.get(),
            panics: counters.panics.get(),
            peers: self.peer_stats(),
        }
    }

    fn peer_stats(&self) -> Vec<PeerStats> {
        let (peers, now) = (self.peers.read().unwrap_or_else(PoisonError::into_inner), Instant::now());
        peers.iter().map(|peer| peer.stats(self.remote.is_some(), now)).collect()
    }

    // ---- publishing --------------------------------------------------------------------------------------------------

    /// A broadcast as it will be sent. Encodes where there is somebody to get it.
    pub(crate) fn prepare<M: Payload>(&self, topic: &Topic, to: Option<NodeId>, message: &M) -> Result<Prepared, Unsendable> {
        self.prepare_with(topic, to, M::NAME, |frame| self.options.codec.encode(message, frame))
    }

    /// One message to several topics, encoded once.
    pub(crate) fn prepare_many<M: Payload>(&self, topics: &[Topic], message: &M) -> Result<Vec<Prepared>, Unsendable> {
        let mut payload = Vec::new();
        let mut prepare = |topic| {
            self.prepare_with(topic, None, M::NAME, |frame| {
                if payload.is_empty() {
                    self.options.codec.encode(message, &mut payload)?;
                }
                frame.extend_from_slice(&payload);
                Ok(())
            })
        };
        topics.iter().map(&mut prepare).collect()
    }

    fn prepare_with(
        &self,
        topic: &Topic,
        to: Option<NodeId>,
        message: &str,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<Prepared, Unsendable> {
        if to.is_none() && !self.anyone_listens(topic) {
            self.counters.nobody.add(1);
            return Ok(Prepared::Not(Crossing::NobodyListens, None));
        }
        let subject = to.map_or_else(|| Subject::Topic(topic.clone()), Subject::Node);
        if !self.link.load(Ordering::Acquire) {
            return Ok(Prepared::Not(Crossing::LinkDown, Some(subject)));
        }
        let trace = trace::current();
        let fields = Fields {
            topic: topic.as_str(),
            message,
            codec: self.options.codec.name(),
            traceparent: trace.as_ref().map_or("", |trace| &trace.parent),
            tracestate: trace.as_ref().map_or("", |trace| &trace.state),
        };
        let kind = if to.is_some() { Kind::Direct } else { Kind::Event };
        let mut frame = frame::begin(kind, self.shared.node, &fields, PAYLOAD_GUESS_BYTES);
        encode(&mut frame).map_err(Unsendable::Encode)?;
        let (bytes, max) = (frame.len(), self.options.frame_bytes_max);
        if bytes > max {
            return Err(Unsendable::TooLarge { bytes, max });
        }
        Ok(Prepared::Frame(Outbound { subject, frame }))
    }

    /// Whether another node may listen.
    fn anyone_listens(&self, topic: &Topic) -> bool {
        match &self.remote {
            Some(remote) => remote.contains_key(topic),
            None => true,
        }
    }

    /// The relay is to look again.
    pub(crate) fn wake(&self) {
        // A full queue is looked at in any case.
        let _ = self.asked.push(Asked::Changed, 0);
    }

    /// Queues what was prepared.
    pub(crate) fn send(&self, prepared: Prepared) -> Crossing {
        let outbound = match prepared {
            Prepared::Frame(outbound) => outbound,
            Prepared::Not(crossing, subject) => return self.not_sent(crossing, subject),
        };
        let bytes = outbound.frame.len();
        let queued = match self.options.overflow {
            LinkOverflow::Refuse => self.outbound.push(Queued::Frame(outbound), bytes),
            LinkOverflow::DropOldest => self.outbound.push_over(Queued::Frame(outbound), bytes, Queued::bytes, |oldest| {
                let frames = oldest.iter().filter(|item| matches!(item, Queued::Frame(_)));
                self.counters.full.add(frames.count() as u64);
                Queued::lost(oldest)
            }),
        };
        match queued {
            Ok(()) => Crossing::Queued,
            Err((Refused::Full, Queued::Frame(outbound))) => self.not_sent(Crossing::Full, Some(outbound.subject)),
            // The pub/sub is shut down; who listens is told that this node has left.
            Err(_) => Crossing::LinkDown,
        }
    }

    /// As [`send`](Self::send), but waits for room.
    pub(crate) async fn send_async(&self, prepared: Prepared) -> Crossing {
        match prepared {
            Prepared::Frame(outbound) => {
                let bytes = outbound.frame.len();
                let mut outbound = Some(Queued::Frame(outbound));
                match std::future::poll_fn(|cx| self.outbound.poll_push(cx, &mut outbound, bytes)).await {
                    Ok(()) => Crossing::Queued,
                    // It waits where it is full, so the pub/sub is shut down.
                    Err(_) => Crossing::LinkDown,
                }
            }
            Prepared::Not(crossing, subject) => self.not_sent(crossing, subject),
        }
    }

    /// Notes that a frame to this subject was not sent, so that those who listen learn of it.
    fn not_sent(&self, crossing: Crossing, subject: Option<Subject>) -> Crossing {
        if let Some(subject) = subject {
            let counter = if crossing == Crossing::Full { &self.counters.full } else { &self.counters.link_down };
            counter.add(1);
            // In its place among those that are sent: who hears of this node by one before is told of this one, too.
            self.outbound.note(|last| {
                if let Some(Queued::Lost(lost)) = last {
                    add_lost(lost, subject, 1);
                    return None;
                }
                Some(Queued::Lost(HashMap::from([(subject, 1)])))
            });
        }
        crossing
    }

    // ---- readiness ---------------------------------------------------------------------------------------------------

    pub(crate) fn set_ready(&self, topic: &Topic) {
        self.ready.insert(topic.clone(), ());
        self.look_again(topic);
    }

    /// A topic is left, unless somebody listens by now. Who subscribes sees either that it is ready, for good, or that it is not.
    pub(crate) fn leave(&self, topic: &Topic) -> bool {
        if self.listens(topic) {
            return false;
        }
        let ready = self.ready.remove_if(topic, |_, ()| !self.listens(topic)).is_some();
        self.look_again(topic);
        ready || !self.listens(topic)
    }

    pub(crate) fn unready(&self) {
        self.ready.clear();
    }

    /// Whether a subscriber here can get events from elsewhere.
    pub(crate) fn listens(&self, topic: &Topic) -> bool {
        self.shared.interest.contains_type(topic, |message| !self.types.is_local(message))
    }

    fn look_again(&self, topic: &Topic) {
        if let Some((_, notify)) = self.waiting.remove(topic) {
            notify.notify_waiters();
        }
    }

    async fn ready(self: Arc<Self>, topic: Topic) -> Result<(), NotReady> {
        loop {
            let notify = Arc::clone(&self.waiting.entry(topic.clone()).or_default());
            let mut notified = std::pin::pin!(notify.notified());
            // Before the look: what happens after it is not missed.
            notified.as_mut().enable();
            let outcome = match () {
                () if self.is_closed() => Err(NotReady::Closed),
                () if !self.listens(&topic) => Err(NotReady::NotSubscribed),
                () if self.ready.contains_key(&topic) => Ok(()),
                () => {
                    notified.await;
                    continue;
                }
            };
            // Others may wait beside this one, and look for themselves.
            self.look_again(&topic);
            return outcome;
        }
    }

    // ---- other nodes -------------------------------------------------------------------------------------------------

    pub(crate) fn remote_listens(&self, node: NodeId, anew: bool, more: Vec<Topic>, less: &[Topic]) {
        let Some(remote) = &self.remote else { return };
        if anew {
            self.remote_deaf(node);
        }
        for topic in more {
            let mut listeners = remote.entry(topic).or_default();
            match listeners.iter_mut().find(|listener| listener.node == node) {
                Some(listener) => listener.is_deaf = false,
                None => listeners.push(Listener { node, is_deaf: false }),
            }
        }
        for topic in less {
            remote.remove_if_mut(topic, |_, listeners| {
                listeners.retain(|other| other.node != node);
                listeners.is_empty()
            });
        }
    }

    /// A node gets nothing for now. What is broadcast to it is numbered all the same, so that it learns how much it missed.
    pub(crate) fn remote_deaf(&self, node: NodeId) {
        for mut listeners in self.remote.iter().flat_map(DashMap::iter_mut) {
            listeners.iter_mut().filter(|listener| listener.node == node).for_each(|listener| listener.is_deaf = true);
        }
    }

    /// A node has told everything: it does not listen to what it has not named.
    pub(crate) fn remote_settled(&self, node: NodeId) {
        self.remote_retain(|listener| listener.node != node || !listener.is_deaf);
    }

    /// A node is not expected back.
    pub(crate) fn remote_forget(&self, node: NodeId) {
        self.remote_retain(|listener| listener.node != node);
    }

    fn remote_retain(&self, keep: impl Fn(&Listener) -> bool) {
        if let Some(remote) = &self.remote {
            remote.retain(|_, listeners| {
                listeners.retain(|listener| keep(listener));
                !listeners.is_empty()
            });
        }
    }

    /// The nodes that listen to a topic; `None`: the engine knows.
    pub(crate) fn listeners(&self, topic: &Topic) -> Option<SmallVec<[NodeId; 2]>> {
        let listeners = self.remote.as_ref()?.get(topic);
        let hearing = listeners.iter().flat_map(|listeners| listeners.iter()).filter(|listener| !listener.is_deaf);
        Some(hearing.map(|listener| listener.node).collect())
    }

    pub(crate) fn nodes(&self) -> Arc<[NodeInfo]> {
        Arc::clone(&self.nodes.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_nodes(&self, peers: Vec<Peer>) {
        let nodes = peers.iter().map(|peer| peer.info.clone()).collect();
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
        *self.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
        // Who has gone is not waited for.
        let known = self.nodes();
        let mut counting = lock(&self.counting);
        for count in counting.values_mut() {
            count.missing.retain(|node| known.iter().any(|known| known.id == *node));
        }
        counting.retain(|_, count| !count.finish());
    }

    // ---- counting ----------------------------------------------------------------------------------------------------

    /// Asks every other node for its subscribers.
    pub(crate) fn count(&self, topic: &Topic) -> oneshot::Receiver<Counted> {
        let (done, counted) = oneshot::channel();
        let id = self.next_ask.fetch_add(1, Ordering::Relaxed);
        let missing: Vec<_> = self.nodes().iter().map(|node| node.id).collect();
        let mut counting = Counting { counts: Vec::new(), missing, done: Some(done) };
        if self.is_closed() || !self.link.load(Ordering::Acquire) {
            counting.give_up();
        } else if !counting.finish() {
            lock(&self.counting).insert(id, counting);
            if self.asked.push(Asked::Count { id, topic: topic.clone() }, 0).is_err() {
                self.stop_counting(id);
            }
        }
        counted
    }

    pub(crate) fn counted(&self, node: NodeId, id: u64, subscribers: u64) {
        let mut counting = lock(&self.counting);
        let Some(count) = counting.get_mut(&id) else { return };
        if let Some(at) = count.missing.iter().position(|missing| *missing == node) {
            count.missing.swap_remove(at);
            count.counts.push((node, subscribers));
            if count.finish() {
                counting.remove(&id);
            }
        }
    }

    /// Whoever has not answered is silent.
    pub(crate) fn stop_counting(&self, id: u64) {
        if let Some(mut counting) = lock(&self.counting).remove(&id) {
            counting.give_up();
        }
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.outbound.close();
            // Closing it wakes the relay.
            self.asked.close();
            self.waiting.retain(|_, notify| {
                notify.notify_waiters();
                false
            });
        }
    }
}

impl Counting {
    fn finish(&mut self) -> bool {
        if self.missing.is_empty() {
            self.give_up();
        }
        self.done.is_none()
    }

    fn give_up(&mut self) {
        if let Some(done) = self.done.take() {
            let (counts, silent) = (std::mem::take(&mut self.counts), std::mem::take(&mut self.missing));
            // Who asked may have gone.
            let _ = done.send(Counted { counts, silent });
        }
    }
}

/// What the local side asks of a cluster.
pub(crate) struct Readiness(pub(crate) Weak<Hub>);

impl Remote for Readiness {
    fn ready(&self, topic: Topic, (message, name): (TypeId, &'static str)) -> Waiting {
        match self.0.upgrade() {
            None => Box::pin(std::future::ready(Err(NotReady::Closed))),
            Some(hub) if !hub.types.is_named(message) => Box::pin(std::future::ready(Err(NotReady::Unnamed { message: name }))),
            Some(hub) => Box::pin(hub.ready(topic)),
        }
    }
}

/// Bytes that may wait for the engine.
const QUEUE_BYTES_MAX: usize = 64 * 1_048_576;
/// Questions that may wait for the relay.
const ASKED_MAX: usize = 1_024;
/// Subjects whose losses are told apart between two frames that are sent; of those beyond nobody is told.
const LOST_SUBJECTS_MAX: usize = 1_000_000;
const PAYLOAD_GUESS_BYTES: usize = 128;
