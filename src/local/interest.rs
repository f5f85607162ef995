//! Interest: which arbiters have subscribers to a topic. Written at the first and the last subscription of a topic on an
//! arbiter, read by every broadcast. Knows no events.

use std::any::TypeId;
use std::collections::HashSet;
use std::sync::OnceLock;

use dashmap::DashMap;
use smallvec::SmallVec;
use tracing::Span;

use crate::event::Traced;
use crate::event::traced;
use crate::local::hash::BuildPrehashed;
use crate::local::shard::Shard;
use crate::local::slab::Key;
use crate::observe;
use crate::sync::Arc;
use crate::sync::AtomicU64;
use crate::sync::AtomicUsize;
use crate::sync::Mutex;
use crate::sync::Ordering;
use crate::sync::lock;
use crate::topic::Topic;

/// One topic, for one message type, on one arbiter.
pub(crate) struct TopicPort {
    topic: Topic,
    message: TypeId,
    message_name: &'static str,
    shard: Arc<Shard>,
    key: Key,
    subscribers: AtomicUsize,
    /// Refused by the full port since the last accepted event. Written under the port's lock.
    lost: AtomicU64,
}

impl TopicPort {
    pub(crate) fn new(topic: Topic, (message, message_name): Message, shard: Arc<Shard>, key: Key) -> Self {
        let (subscribers, lost) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { topic, message, message_name, shard, key, subscribers, lost }
    }

    pub(crate) fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(crate) fn message(&self) -> Message {
        (self.message, self.message_name)
    }

    pub(crate) fn shard(&self) -> &Arc<Shard> {
        &self.shard
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Acquire)
    }

    pub(crate) fn count(&self, more: usize) {
        self.subscribers.fetch_add(more, Ordering::AcqRel);
    }

    pub(crate) fn uncount(&self, fewer: usize) {
        self.subscribers.fetch_sub(fewer, Ordering::AcqRel);
    }

    pub(crate) fn lose(&self) {
        self.lost.fetch_add(1, Ordering::AcqRel);
    }

    /// Refused by the full port, and not told to anyone yet.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }

    /// The span of an event's delivery here, if that of its broadcast is recorded. Made by its publisher, because a registry runs no user code.
    #[inline]
    pub(crate) fn delivery(&self, of: &Traced) -> Traced {
        of.as_ref().and_then(|broadcast| self.delivery_of(broadcast))
    }

    #[cold]
    fn delivery_of(&self, broadcast: &Span) -> Traced {
        let subscribers = self.subscribers();
        let span = observe::deliver_span(broadcast, &self.topic, self.shard.id(), subscribers);
        // Its own, and one for each handler.
        let handlers = if observe::broadcast_spans_enabled() { subscribers } else { 0 };
        self.shard.shared.spans.charge(usize::from(!span.is_disabled()) + handlers);
        // Who records no deliveries may still record what the handlers do.
        traced(if span.is_disabled() { broadcast.clone() } else { span })
    }

    pub(crate) fn take_lost(&self) -> u64 {
        if self.lost.load(Ordering::Acquire) == 0 { 0 } else { self.lost.swap(0, Ordering::AcqRel) }
    }
}

/// A message type and its name in statistics.
pub(crate) type Message = (TypeId, &'static str);

pub(crate) type TopicPorts = Arc<[Arc<TopicPort>]>;

/// Who is told that a topic may have got its first or lost its last subscriber of a message type on an arbiter. Called under a table's lock: it
/// takes note, and looks later.
pub(crate) trait Observer: Send + Sync {
    fn changed(&self, topic: &Topic);
}

/// The topics whose interest changed since somebody looked.
pub(crate) struct Changes {
    topics: Mutex<HashSet<Topic>>,
    /// Tells them that there are some.
    tell: Box<dyn Fn() + Send + Sync>,
}

impl Changes {
    pub(crate) fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self { topics: Mutex::default(), tell: Box::new(tell) }
    }

    pub(crate) fn take(&self) -> HashSet<Topic> {
        std::mem::take(&mut *lock(&self.topics))
    }
}

impl Observer for Arc<Changes> {
    fn changed(&self, topic: &Topic) {
        let mut topics = lock(&self.topics);
        let first = topics.is_empty();
        topics.insert(topic.clone());
        drop(topics);
        if first {
            (self.tell)();
        }
    }
}

pub(crate) struct Interest {
    /// The log's feed and the cluster's relay.
    observers: [OnceLock<Box<dyn Observer>>; 2],
    /// Tells one pub/sub's interest from another's.
    id: u64,
    /// Counts the changes of which arbiters listen to what.
    generation: AtomicU64,
    topics: DashMap<Topic, SmallVec<[(TypeId, TopicPorts); 1]>, BuildPrehashed>,
}

impl Interest {
    pub(crate) fn new() -> Self {
        // Not of `crate::sync`: it orders nothing.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self { observers: [OnceLock::new(), OnceLock::new()], id, generation: AtomicU64::new(0), topics: DashMap::default() }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Tells `observer` of every change from now on. Twice at most.
    pub(crate) fn observe(&self, observer: Box<dyn Observer>) {
        let [one, other] = &self.observers;
        if let Err(observer) = one.set(observer) {
            // A third one would be a bug; the first two keep their places.
            let _ = other.set(observer);
        }
    }

    fn changed(&self, topic: &Topic) {
        self.generation.fetch_add(1, Ordering::Release);
        for observer in self.observers.iter().filter_map(OnceLock::get) {
            observer.changed(topic);
        }
    }

    /// Whether anyone on this node listens to the topic, for whatever type.
    pub(crate) fn contains(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// Whether anyone on this node listens to the topic for one of those types.
    pub(crate) fn contains_type(&self, topic: &Topic, of: impl Fn(TypeId) -> bool) -> bool {
        self.topics.get(topic).is_some_and(|types| types.iter().any(|(message, _)| of(*message)))
    }

    /// The number of changes so far.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The ports to which an event of this type for this topic goes. A snapshot: no lock is held when it returns.
    pub(crate) fn ports(&self, topic: &Topic, message: TypeId) -> Option<TopicPorts> {
        let types = self.topics.get(topic)?;
        types.iter().find(|(of, _)| *of == message).map(|(_, ports)| Arc::clone(ports))
    }

    /// What `shard` has of this topic, if anything.
    pub(crate) fn port(&self, topic: &Topic, message: TypeId, shard: u32) -> Option<Arc<TopicPort>> {
        let types = self.topics.get(topic)?;
        let (_, ports) = types.iter().find(|(of, _)| *of == message)?;
        ports.iter().find(|port| port.shard.id() == shard).map(Arc::clone)
    }

    pub(crate) fn announce(&self, port: &Arc<TopicPort>) {
        let mut types = self.topics.entry(port.topic.clone()).or_default();
        match types.iter_mut().find(|(of, _)| *of == port.message) {
            Some((_, ports)) => *ports = ports.iter().chain([port]).map(Arc::clone).collect(),
            None => types.push((port.message, Arc::from([Arc::clone(port)]))),
        }
        drop(types);
        self.changed(&port.topic);
    }

    pub(crate) fn withdraw(&self, port: &TopicPort) {
        self.topics.remove_if_mut(&port.topic, |_, types| {
            if let Some(at) = types.iter().position(|(of, _)| *of == port.message) {
                let left = || types[at].1.iter().filter(|other| other.shard.id() != port.shard.id());
                if left().next().is_none() {
                    types.swap_remove(at);
                } else {
                    let left: TopicPorts = left().map(Arc::clone).collect();
                    types[at].1 = left;
                }
            }
            types.is_empty()
        });
        self.changed(&port.topic);
    }

    /// Subscriptions to a topic, over all arbiters and message types.
    pub(crate) fn subscribers(&self, topic: &Topic) -> usize {
        self.topics
            .get(topic)
            .map_or(0, |types| types.iter().flat_map(|(_, ports)| ports.iter()).map(|port| port.subscribers()).sum())
    }

    /// Every topic that has a subscriber, in no order.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        self.topics.iter().map(|entry| entry.key().clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }
}
