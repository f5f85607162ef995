//! The handle, `PubSub`, and every verb on it. Parses what comes in, then hands typed values down.

pub(crate) mod broadcast;
pub(crate) mod builder;
pub(crate) mod sampling;
pub(crate) mod stats;

use std::any::TypeId;
use std::any::type_name;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::task::Context;
use std::task::Poll;

use actix::Actor;
use actix::Addr;
use actix::Arbiter;
use actix::Handler;
use actix::System;
use actix::dev::ToEnvelope;

use crate::cluster::NodeInfo;
use crate::cluster::hub::Hub;
use crate::event::Event;
use crate::event::Traced;
use crate::feed::Done;
use crate::feed::Feed;
use crate::feed::types::Types;
use crate::ids::NodeId;
use crate::ids::SubscriberId;
use crate::local::background::Background;
use crate::local::context::SubscriberContext;
use crate::local::courier;
use crate::local::error::SubscribeError;
#[cfg(feature = "web")]
use crate::local::inbox::Inbox;
use crate::local::options::SubscribeOptions;
use crate::local::pump;
use crate::local::registry::Registry;
use crate::local::shard::Shard;
use crate::local::shard::Shared;
use crate::local::slab::Key;
use crate::local::stream::EventStream;
use crate::local::subscription::Subscription;
use crate::pubsub::builder::Builder;
use crate::pubsub::sampling::Sampling;
use crate::sync::Arc;
use crate::topic::ToTopic;
use crate::topic::Topic;
use crate::topic::TopicError;

/// Topics for actix actors: subscribe an actor, broadcast from anywhere.
///
/// A clone is a handle to the same pub/sub; `Send + Sync`. Any number of independent ones may exist in a process. When the last handle is
/// dropped it shuts down as by [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct PubSub {
    handle: Arc<Handle>,
}

/// A [`PubSub`] that is not kept.
#[cfg(feature = "metrics")]
pub(crate) struct WeakPubSub(Weak<Handle>);

#[cfg(feature = "metrics")]
impl WeakPubSub {
    pub(crate) fn upgrade(&self) -> Option<PubSub> {
        self.0.upgrade().map(|handle| PubSub { handle })
    }
}

struct Handle {
    shared: Arc<Shared>,
    started: std::time::Instant,
    sampling: Sampling,
    background: Background,
    /// The message types that have names.
    #[cfg_attr(not(feature = "web"), expect(dead_code, reason = "the log and the cluster have them, too"))]
    types: Types,
    feed: Option<Arc<Feed>>,
    hub: Option<Arc<Hub>>,
    /// What the web side keeps with it.
    #[cfg(feature = "web")]
    edge: std::sync::OnceLock<Arc<dyn std::any::Any + Send + Sync>>,
    /// What its dashboards share.
    #[cfg(feature = "web")]
    board: std::sync::OnceLock<Arc<dyn std::any::Any + Send + Sync>>,
}

impl Default for PubSub {
    fn default() -> Self {
        Self::new()
    }
}

impl PubSub {
    /// A pub/sub with the default settings. Starts nothing yet: an arbiter's registry starts at the first subscription there.
    pub fn new() -> Self {
        let shared = Arc::new(Shared::new(Builder::PORT_CAPACITY_DEFAULT, Builder::TRACE_LIMIT_DEFAULT));
        Self::of(shared, Sampling::one_in(1), Types::default(), None, None)
    }

    fn of(shared: Arc<Shared>, sampling: Sampling, types: Types, feed: Option<Arc<Feed>>, hub: Option<Arc<Hub>>) -> Self {
        let handle = Handle {
            shared,
            started: std::time::Instant::now(),
            sampling,
            background: Background::default(),
            types,
            feed,
            hub,
            #[cfg(feature = "web")]
            edge: std::sync::OnceLock::new(),
            #[cfg(feature = "web")]
            board: std::sync::OnceLock::new(),
        };
        Self { handle: Arc::new(handle) }
    }

    /// Settings first.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// The span of a broadcast, if it has one.
    #[inline]
    fn span(&self, topic: &Topic) -> Traced {
        self.handle.sampling.broadcast(topic, &self.shared().spans)
    }

    pub(crate) fn feed(&self) -> Option<&Arc<Feed>> {
        self.handle.feed.as_ref()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn is_closed(&self) -> bool {
        self.shared().is_closed()
    }

    /// For who looks at it and must not keep it.
    #[cfg(feature = "metrics")]
    pub(crate) fn downgrade(&self) -> WeakPubSub {
        WeakPubSub(Arc::downgrade(&self.handle))
    }

    fn hub(&self) -> Option<&Arc<Hub>> {
        self.handle.hub.as_ref()
    }

    #[cfg(feature = "web")]
    pub(crate) fn types(&self) -> &Types {
        &self.handle.types
    }

    #[cfg(feature = "web")]
    pub(crate) fn edge(&self) -> &std::sync::OnceLock<Arc<dyn std::any::Any + Send + Sync>> {
        &self.handle.edge
    }

    #[cfg(feature = "web")]
    pub(crate) fn board(&self) -> &std::sync::OnceLock<Arc<dyn std::any::Any + Send + Sync>> {
        &self.handle.board
    }

    /// What people call this node; `None`, where there is no cluster.
    #[cfg(feature = "web")]
    pub(crate) fn node_name(&self) -> Option<std::sync::Arc<str>> {
        self.hub().map(|hub| hub.node_name())
    }

    /// This node: what [`Event::node`] says of the events broadcast here.
    pub fn node(&self) -> NodeId {
        self.shared().node
    }

    // ---- subscribing -------------------------------------------------------------------------------------------------

    /// Subscribes the actor of `ctx` to a topic, for messages of type `M`. Effective when it returns.
    ///
    /// Events are handed to `Handler<Event<M>>` directly inside the actor's context: its mailbox is not used. The subscription ends with
    /// the actor, whatever ends it. Subscribing twice is the same as once; the first one's options stay.
    ///
    /// ```
    /// use actix::prelude::*;
    /// use actix_pubsub::{Event, PubSub};
    ///
    /// struct Session { pubsub: PubSub }
    ///
    /// impl Actor for Session {
    ///     type Context = Context<Self>;
    ///
    ///     fn started(&mut self, ctx: &mut Self::Context) {
    ///         self.pubsub.subscribe::<String, _>(ctx, "room:lobby").expect("a valid topic, on an arbiter");
    ///     }
    /// }
    ///
    /// impl Handler<Event<String>> for Session {
    ///     type Result = ();
    ///
    ///     fn handle(&mut self, event: Event<String>, _: &mut Self::Context) {
    ///         println!("{}: {}", event.topic(), *event);
    /// #       System::current().stop();
    ///     }
    /// }
    ///
    /// let system = System::new();
    /// let pubsub = PubSub::new();
    /// system.block_on(async {
    ///     let session = Session { pubsub: pubsub.clone() }.start();
    ///     # session.send(Ready).await.unwrap();
    ///     pubsub.local_broadcast("room:lobby", String::from("hello")).unwrap();
    /// });
    /// # struct Ready;
    /// # impl Message for Ready { type Result = (); }
    /// # impl Handler<Ready> for Session { type Result = (); fn handle(&mut self, _: Ready, _: &mut Self::Context) {} }
    /// # system.run().unwrap();
    /// ```
    ///
    /// An actor without the handler does not compile:
    /// ```compile_fail,E0277
    /// use actix::prelude::*;
    /// use actix_pubsub::PubSub;
    ///
    /// struct Deaf { pubsub: PubSub }
    /// impl Actor for Deaf {
    ///     type Context = Context<Self>;
    ///     fn started(&mut self, ctx: &mut Self::Context) {
    ///         let _ = self.pubsub.subscribe::<String, _>(ctx, "room:lobby");
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`SubscribeError::Topic`], [`SubscribeError::NoArbiter`], [`SubscribeError::Closed`]; nothing was changed.
    pub fn subscribe<M, C>(&self, ctx: &mut C, topic: impl ToTopic) -> Result<Subscription, SubscribeError>
    where
        M: Send + Sync + 'static,
        C: SubscriberContext + ToEnvelope<C::Actor, Event<M>>,
        C::Actor: Handler<Event<M>>,
    {
        self.subscribe_with::<M, C>(ctx, topic, &SubscribeOptions::new())
    }

    /// As [`subscribe`](Self::subscribe), with options.
    ///
    /// # Errors
    /// Those of `subscribe`, and [`SubscribeError::Capacity`].
    pub fn subscribe_with<M, C>(
        &self,
        ctx: &mut C,
        topic: impl ToTopic,
        options: &SubscribeOptions,
    ) -> Result<Subscription, SubscribeError>
    where
        M: Send + Sync + 'static,
        C: SubscriberContext + ToEnvelope<C::Actor, Event<M>>,
        C::Actor: Handler<Event<M>>,
    {
        let topic = topic.to_topic()?;
        let addr = ctx.address();
        let who = SubscriberId::of(&addr);
        let local = self.ready(options).and_then(|()| self.local_shard())?;
        loop {
            // All of an actor's subscriptions are on its one seat, wherever its first one put it.
            let (shard, seat, mine) = match self.shared().seat_in(&local, who) {
                Some(seat) => (Arc::clone(&local), seat, false),
                None => match local.sit(who, type_name::<C::Actor>) {
                    Ok(seat) => {
                        let first = pump::deliver::<C::Actor, M> as pump::Deliver<C::Actor>;
                        ctx.spawn(pump::Pump::new(Arc::clone(&local), seat, first, addr.downgrade()));
                        (Arc::clone(&local), seat, true)
                    }
                    Err((shard, seat)) => (shard, seat, false),
                },
            };
            if let Some(member) = join_actor::<M, C::Actor>(&shard, seat, mine, &topic, options) {
                return Ok(Subscription::new(shard, member, topic.into_owned(), who));
            }
            // The seat ended between the two steps; it is forgotten by now.
        }
    }

    /// Subscribes an actor whose context the caller does not hold: from any thread, for any actor, one in a `SyncArbiter` included. Effective when it returns.
    ///
    /// If the actor has subscribed by its own context before, this is the same as if it did so again. Otherwise events go through its
    /// mailbox, sent by the background registry as fast as the mailbox takes them; what does not fit waits under the subscription's own
    /// capacity. `delivered` then means handed to the mailbox, and the actor's death is noticed at the next event or within
    /// a quarter of a second.
    ///
    /// # Errors
    /// [`SubscribeError::Topic`], [`SubscribeError::Closed`], [`SubscribeError::Background`]; nothing was changed.
    pub fn subscribe_addr<M, A>(&self, addr: &Addr<A>, topic: impl ToTopic) -> Result<Subscription, SubscribeError>
    where
        M: Send + Sync + 'static,
        A: Actor + Handler<Event<M>>,
        A::Context: ToEnvelope<A, Event<M>>,
    {
        self.subscribe_addr_with::<M, A>(addr, topic, &SubscribeOptions::new())
    }

    /// As [`subscribe_addr`](Self::subscribe_addr), with options.
    ///
    /// # Errors
    /// Those of `subscribe_addr`, and [`SubscribeError::Capacity`].
    pub fn subscribe_addr_with<M, A>(
        &self,
        addr: &Addr<A>,
        topic: impl ToTopic,
        options: &SubscribeOptions,
    ) -> Result<Subscription, SubscribeError>
    where
        M: Send + Sync + 'static,
        A: Actor + Handler<Event<M>>,
        A::Context: ToEnvelope<A, Event<M>>,
    {
        let topic = topic.to_topic()?;
        let who = SubscriberId::of(addr);
        self.ready(options)?;
        loop {
            let (shard, seat, fresh) = match self.shared().home(who) {
                Some((shard, seat)) => (shard, seat, None),
                None => {
                    let (background, system) = self.handle.background.get(self.shared())?;
                    match background.sit(who, type_name::<A>) {
                        Ok(seat) => (background, seat, Some(system)),
                        Err((shard, seat)) => (shard, seat, None),
                    }
                }
            };
            let member = join_actor::<M, A>(&shard, seat, fresh.is_some(), &topic, options);
            if let Some(system) = fresh {
                // After it has something to wait for: a courier ends with its last subscription.
                let first = courier::send::<A, M> as courier::Send<A>;
                courier::Courier::launch(&shard, system.arbiter(), seat, first, addr);
            }
            if let Some(member) = member {
                return Ok(Subscription::new(shard, member, topic.into_owned(), who));
            }
        }
    }

    /// Subscribes code that is no actor: an HTTP handler, a task, a test. Effective when it returns; ends when the stream is dropped.
    ///
    /// ```
    /// use actix_pubsub::PubSub;
    /// use futures::StreamExt;
    ///
    /// # actix::System::new().block_on(async {
    /// let pubsub = PubSub::new();
    /// let mut prices = pubsub.stream::<u32>("price:gold")?;
    /// pubsub.local_broadcast("price:gold", 1_970_u32).unwrap();
    /// assert_eq!(*prices.next().await.unwrap(), 1_970);
    /// # Ok::<(), actix_pubsub::SubscribeError>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`SubscribeError::Topic`], [`SubscribeError::Closed`], [`SubscribeError::Background`]; nothing was changed.
    pub fn stream<M: Send + Sync + 'static>(&self, topic: impl ToTopic) -> Result<EventStream<M>, SubscribeError> {
        self.stream_with(topic, &SubscribeOptions::new())
    }

    /// As [`stream`](Self::stream), with options.
    ///
    /// # Errors
    /// Those of `stream`, and [`SubscribeError::Capacity`].
    pub fn stream_with<M: Send + Sync + 'static>(
        &self,
        topic: impl ToTopic,
        options: &SubscribeOptions,
    ) -> Result<EventStream<M>, SubscribeError> {
        let topic = topic.to_topic()?;
        self.ready(options)?;
        let shard = match self.local_shard() {
            Err(SubscribeError::NoArbiter) => self.handle.background.get(self.shared())?.0,
            here => here?,
        };
        let who = SubscriberId::unique();
        let Ok(seat) = shard.sit(who, type_name::<EventStream<M>>) else { return Err(SubscribeError::Closed) };
        let message = (TypeId::of::<M>(), type_name::<M>());
        let Some(member) = shard.subscribe(seat, &topic, message, options, |_| 0) else { return Err(SubscribeError::Closed) };
        let subscription = Subscription::new(Arc::clone(&shard), member, topic.into_owned(), who);
        Ok(EventStream::new(shard, seat, subscription))
    }

    /// Ends the subscription of `who` (an `&Addr`, a `&Subscription`, a [`SubscriberId`]) to a topic, for messages of type `M`.
    /// `false`: there was none, or the name is no topic.
    pub fn unsubscribe<M: 'static>(&self, who: impl Into<SubscriberId>, topic: impl ToTopic) -> bool {
        let (Ok(topic), Some((shard, seat))) = (topic.to_topic(), self.shared().home(who.into())) else { return false };
        shard.find(seat, &topic, TypeId::of::<M>()).is_some_and(|member| shard.unsubscribe(member))
    }

    /// Ends all subscriptions of `who`. Returns how many there were.
    pub fn unsubscribe_all(&self, who: impl Into<SubscriberId>) -> usize {
        self.shared().home(who.into()).map_or(0, |(shard, seat)| shard.unsubscribe_all(seat))
    }

    /// A subscriber that is no actor and has many topics and types.
    #[cfg(feature = "web")]
    pub(crate) fn inbox<T: 'static>(&self) -> Result<Inbox<T>, SubscribeError> {
        let shard = self.ready(&SubscribeOptions::new()).and_then(|()| self.local_shard())?;
        Inbox::new(shard)
    }

    fn ready(&self, options: &SubscribeOptions) -> Result<(), SubscribeError> {
        if options.capacity == 0 || options.capacity > SubscribeOptions::CAPACITY_MAX {
            return Err(SubscribeError::Capacity { capacity: options.capacity, max: SubscribeOptions::CAPACITY_MAX });
        }
        if self.shared().is_closed() { Err(SubscribeError::Closed) } else { Ok(()) }
    }

    /// The calling thread's shard; made, with its registry, at the first call on an arbiter.
    fn local_shard(&self) -> Result<Arc<Shard>, SubscribeError> {
        LOCAL.with_borrow_mut(|known| {
            let me = Arc::as_ptr(self.shared());
            let system = System::try_current().map_or(usize::MAX, |system| system.id());
            if let Some(at) = known.iter().position(|(shared, of, _)| std::ptr::eq(*shared, me) && *of == system) {
                match known[at].2.upgrade() {
                    Some(shard) if Arc::ptr_eq(&shard.shared, self.shared()) && !shard.is_retired() => return Ok(shard),
                    // Another pub/sub that stood at the same address, or an arbiter that ran on this thread before.
                    _ => known.swap_remove(at),
                };
            }
            let arbiter = Arbiter::try_current().filter(actix_rt::ArbiterHandle::alive).ok_or(SubscribeError::NoArbiter)?;
            let shard = self.shared().add_shard(false).ok_or(SubscribeError::Closed)?;
            if !Registry::launch(Arc::clone(&shard), &arbiter, None) {
                return Err(SubscribeError::NoArbiter);
            }
            known.retain(|(_, _, shard)| shard.strong_count() > 0);
            known.push((me, system, Arc::downgrade(&shard)));
            Ok(shard)
        })
    }

    // ---- looking in --------------------------------------------------------------------------------------------------

    /// Subscriptions to a topic on this node, over all message types. Exact: a dead subscriber is not among them.
    pub fn subscribers(&self, topic: impl ToTopic) -> usize {
        topic.to_topic().map_or(0, |topic| self.shared().interest.subscribers(&topic))
    }

    /// The topics that have a subscriber on this node, sorted by name.
    pub fn topics(&self) -> Vec<Topic> {
        let mut topics = self.shared().interest.topics();
        topics.sort_unstable();
        topics
    }

    // ---- other nodes -------------------------------------------------------------------------------------------------

    /// The other nodes of the cluster that are up, as far as this one knows. None, where there is no cluster.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.hub().map(|hub| hub.nodes().to_vec()).unwrap_or_default()
    }

    /// Asks every node for its subscribers to a topic, over all message types, and counts those of this one.
    ///
    /// Resolves when all have answered, at the latest after the failure time-out: who has not answered by then is named in `silent`, and while there is no
    /// link everybody is.
    pub async fn subscribers_cluster_wide(&self, topic: impl ToTopic) -> Result<ClusterSubscribers, TopicError> {
        let topic = topic.to_topic()?.into_owned();
        let here = self.subscribers(&topic);
        let Some(hub) = self.hub() else { return Ok(ClusterSubscribers { here, ..ClusterSubscribers::default() }) };
        let (nodes, counted) = (hub.nodes(), hub.count(&topic));
        // Ended, the relay has nobody to ask: then all are silent.
        let counted = counted.await.ok();
        let info = |id: &NodeId| nodes.iter().find(|node| node.id == *id).cloned();
        let (counts, silent) = match &counted {
            Some(counted) => (counted.counts.as_slice(), counted.silent.iter().filter_map(info).collect()),
            None => (Default::default(), nodes.to_vec()),
        };
        let there = counts.iter().filter_map(|(id, subscribers)| Some((info(id)?, *subscribers as usize))).collect();
        Ok(ClusterSubscribers { here, there, silent })
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    /// Ends this pub/sub: from now on `subscribe` and `broadcast` answer `Closed`. What was queued before is still delivered, each
    /// subscription ends when it has handled what it has, and [`SubscribeOptions::on_close`] is told.
    ///
    /// The future resolves when the last subscription has ended, the consumers have finished and acked what they were at, the log's thread has let go
    /// of the store, and the relay has sent what was queued, for a second at most, and has left the cluster. It need not be awaited. An actor that never finishes its handler, and a
    /// stream with events that nobody reads, keep it from resolving: put a time limit on it.
    pub fn shutdown(&self) -> Shutdown {
        self.handle.close();
        let threads = self.feed().map(|feed| feed.done()).into_iter().chain(self.hub().map(|hub| Arc::clone(&hub.done)));
        let wait = |done: Arc<Done>| Box::pin(async move { done.wait().await }) as Pin<Box<dyn Future<Output = ()> + Send>>;
        Shutdown { shared: Arc::clone(self.shared()), threads: threads.map(wait).collect() }
    }
}

/// `mine`: the caller made the seat, so the handler that its poller brings along, the one with index 0, is that of this subscription.
fn join_actor<M, A>(shard: &Arc<Shard>, seat: Key, mine: bool, topic: &Topic, options: &SubscribeOptions) -> Option<Key>
where
    M: Send + Sync + 'static,
    A: Actor + Handler<Event<M>>,
    A::Context: ToEnvelope<A, Event<M>>,
{
    let message = TypeId::of::<M>();
    shard.subscribe(seat, topic, (message, type_name::<M>()), options, |table| {
        if mine {
            0
        } else if shard.background {
            // It may have let its actor go, and has to hold it again.
            table.nudge(seat.index);
            table.handler(seat, message, courier::send::<A, M> as courier::Send<A>, |send| *send as usize)
        } else {
            table.handler(seat, message, pump::deliver::<A, M> as pump::Deliver<A>, |deliver| *deliver as usize)
        }
    })
}

impl Handle {
    fn close(&self) {
        self.shared.close();
        if let Some(feed) = &self.feed {
            feed.close();
        }
        if let Some(hub) = &self.hub {
            hub.close();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for PubSub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PubSub")
            .field("node", &self.node())
            .field("topics", &self.shared().interest.len())
            .finish_non_exhaustive()
    }
}

/// The subscribers to a topic on every node: what [`PubSub::subscribers_cluster_wide`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct ClusterSubscribers {
    /// On this node.
    pub here: usize,
    /// On each other node that answered.
    pub there: Vec<(NodeInfo, usize)>,
    /// Nodes that are up and did not answer.
    pub silent: Vec<NodeInfo>,
}

impl ClusterSubscribers {
    /// All that are known of.
    pub fn total(&self) -> usize {
        self.here + self.there.iter().map(|(_, subscribers)| subscribers).sum::<usize>()
    }
}

/// Resolves when a pub/sub that was shut down has ended its last subscription; see [`PubSub::shutdown`].
#[must_use = "the pub/sub is shut down either way; await this to know when it has drained"]
pub struct Shutdown {
    shared: Arc<Shared>,
    /// The ends of the threads of the log and of the relay.
    threads: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Future for Shutdown {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        while let Some(thread) = this.threads.last_mut() {
            if thread.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.threads.pop();
        }
        if this.shared.poll_drained(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl std::fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shutdown").finish_non_exhaustive()
    }
}

thread_local! {
    /// The shards of this thread, by the address of their `Shared`, which is only ever compared, and by the actix system: a thread may have
    /// one after the other.
    static LOCAL: RefCell<Vec<(*const Shared, usize, Weak<Shard>)>> = const { RefCell::new(Vec::new()) };
}
