//! Consumer: an actor as a member of a consumer group. Options, the verb and the handle; the work itself is in `intake`.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use actix::AsyncContext;
use actix::Handler;
use actix::dev::ToEnvelope;
use tokio::sync::Notify;

use crate::event::Payload;
use crate::feed::types::NameTaken;
use crate::local::context::SubscriberContext;
use crate::log::Group;
use crate::log::Name;
use crate::log::Position;
use crate::pubsub::PubSub;
use crate::stream::delivery::Delivery;
use crate::stream::error::ConsumeError;
use crate::stream::intake::Intake;
use crate::stream::member::Member;
use crate::topic::ToTopic;
use crate::topic::Topic;
use crate::topic::TopicError;

/// How an actor consumes.
#[derive(Debug, Clone)]
pub struct ConsumeOptions {
    pub(crate) consumer: Option<String>,
    pub(crate) concurrency: usize,
    pub(crate) visibility: Duration,
    pub(crate) attempts_max: u32,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) start: Position,
    pub(crate) dead_letter: Option<String>,
}

impl ConsumeOptions {
    /// The most handlers of one consumer at once.
    pub const CONCURRENCY_MAX: usize = 10_000;
    /// The longest visibility timeout: 12 hours.
    pub const VISIBILITY_MAX: Duration = Duration::from_secs(12 * 3_600);

    /// One handler at a time, 30 s of visibility, 5 deliveries, back-off from 200 ms to 60 s, a new group begins at the start.
    pub fn new() -> Self {
        Self {
            consumer: None,
            concurrency: 1,
            visibility: Duration::from_secs(30),
            attempts_max: 5,
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(60),
            start: Position::Start,
            dead_letter: None,
        }
    }

    /// What this consumer is called; its own name for each call unless told otherwise. Two consumers of a group must not share one.
    pub fn consumer(mut self, name: impl Into<String>) -> Self {
        self.consumer = Some(name.into());
        self
    }

    /// How many handlers may run at once, 1 to [`CONCURRENCY_MAX`](Self::CONCURRENCY_MAX). With 1, a consumer that is alone in its group handles first
    /// deliveries in the log's order.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }

    /// How long a handler may take before its entry is anyone's again, 1 ms to [`VISIBILITY_MAX`](Self::VISIBILITY_MAX).
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.visibility = visibility;
        self
    }

    /// How often an entry is delivered before it becomes a dead letter, at least 1.
    pub fn attempts(mut self, max: u32) -> Self {
        self.attempts_max = max;
        self
    }

    /// How long a failed entry rests: `min` after the first failure, twice as long after each further one, at most `max`.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.backoff_min, self.backoff_max) = (min, max);
        self
    }

    /// Where the group begins if this makes it.
    pub fn start(mut self, from: impl Into<Position>) -> Self {
        self.start = from.into();
        self
    }

    /// The topic of the group's dead letters; `dead:` and the topic's name unless told otherwise.
    pub fn dead_letter(mut self, topic: impl Into<String>) -> Self {
        self.dead_letter = Some(topic.into());
        self
    }

    fn check(&self) -> Result<(), ConsumeError> {
        let within = |option, value: u64, min, max| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(ConsumeError::Option { option, value, min, max }) }
        };
        let ms = |of: Duration| u64::try_from(of.as_millis()).unwrap_or(u64::MAX);
        within("concurrency", self.concurrency as u64, 1, Self::CONCURRENCY_MAX as u64)?;
        within("visibility in ms", ms(self.visibility), 1, ms(Self::VISIBILITY_MAX))?;
        within("attempts", u64::from(self.attempts_max), 1, u64::from(u32::MAX))
    }

    fn dead_letter_topic(&self, topic: &Topic) -> Result<Topic, TopicError> {
        match &self.dead_letter {
            Some(name) => Topic::parse(name),
            None => Topic::parse(&format!("dead:{}", topic.as_str())),
        }
    }
}

impl Default for ConsumeOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Consumer groups on the durable log.
impl PubSub {
    /// Makes the actor of `ctx` a consumer of a group: each entry of the topic goes to one of the group's consumers, on whatever node, and comes
    /// again until one has handled it. The group is made if there is none.
    ///
    /// Entries of another type than `M` are nothing to this group, and are acked: a group is of one type, and so that two types do not ack each other's
    /// entries, a second one is refused on this node. An entry of `M` that cannot be decoded, and one that failed too often, becomes a
    /// dead letter: an entry of the [dead-letter topic](ConsumeOptions::dead_letter) with the reason in its headers. What a consumer leaves behind when its
    /// actor dies goes to the others at once, or when its visibility timeout is over if the whole process died.
    ///
    /// ```
    /// use actix::prelude::*;
    /// use actix_pubsub::log::MemoryStore;
    /// use actix_pubsub::{ConsumeOptions, Delivery, Failure, Payload, PubSub};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct OrderPlaced { number: u64 }
    /// impl Payload for OrderPlaced { const NAME: &'static str = "shop.order_placed"; }
    ///
    /// struct Ledger { pubsub: PubSub }
    ///
    /// impl Actor for Ledger {
    ///     type Context = Context<Self>;
    ///     fn started(&mut self, ctx: &mut Self::Context) {
    ///         self.pubsub.consume::<OrderPlaced, _>(ctx, "orders", "ledger", &ConsumeOptions::new()).expect("a pub/sub with a log");
    ///     }
    /// }
    ///
    /// impl Handler<Delivery<OrderPlaced>> for Ledger {
    ///     type Result = Result<(), Failure>;
    ///     fn handle(&mut self, order: Delivery<OrderPlaced>, _: &mut Self::Context) -> Self::Result {
    ///         println!("order {} booked", order.number);
    /// #       System::current().stop();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let system = System::new();
    /// system.block_on(async {
    ///     let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
    ///     Ledger { pubsub: pubsub.clone() }.start();
    ///     pubsub.append("orders", &OrderPlaced { number: 1 }).await.unwrap();
    /// });
    /// system.run().unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ConsumeError`]; nothing was changed. A store that is away is no error: the consumer waits for it.
    pub fn consume<M, C>(
        &self,
        ctx: &mut C,
        topic: impl ToTopic,
        group: &str,
        options: &ConsumeOptions,
    ) -> Result<Consumer, ConsumeError>
    where
        M: Payload,
        C: SubscriberContext + AsyncContext<C::Actor> + ToEnvelope<C::Actor, Delivery<M>>,
        C::Actor: Handler<Delivery<M>>,
    {
        let feed = self.feed().ok_or(ConsumeError::NoLog)?;
        let topic = topic.to_topic()?.into_owned();
        options.check()?;
        let dead_letter = options.dead_letter_topic(&topic)?;
        let group = Arc::new(Group::new(topic, Name::parse(group)?));
        let name = match &options.consumer {
            Some(name) => Name::parse(name)?,
            None => Name::parse(&format!("{}-{}", self.node(), NEXT.fetch_add(1, Ordering::Relaxed)))?,
        };
        feed.types.add::<M>().map_err(|NameTaken { name, by }| ConsumeError::NameTaken { name, by })?;
        if feed.is_closed() {
            return Err(ConsumeError::Closed);
        }
        if dead_letter == group.topic {
            return Err(ConsumeError::DeadLetterTopic(dead_letter));
        }
        let counters = feed.consumes(&group, M::NAME).map_err(|other| ConsumeError::GroupType { name: M::NAME, other })?;
        let own_name = options.consumer.is_none();
        let shared = Arc::new(Shared::default());
        let consumer = Consumer { group: Arc::clone(&group), name: name.clone(), shared: Arc::clone(&shared) };
        let member = Member { feed: Arc::clone(feed), group, name, own_name, dead_letter, counters };
        ctx.spawn(Intake::<M>::new(member, options.clone(), shared));
        Ok(consumer)
    }
}

/// An actor's membership in a group, as [`PubSub::consume`] returns it. Dropping it changes nothing: the membership ends with the actor.
#[derive(Clone)]
pub struct Consumer {
    group: Arc<Group>,
    name: Name,
    shared: Arc<Shared>,
}

impl Consumer {
    /// The group and its topic.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// What this consumer is called there.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Handlers that run now.
    pub fn running(&self) -> usize {
        self.shared.state().running
    }

    /// Leaves the group gracefully: nothing more is fetched, what is in flight is finished and acked, then the consumer is removed from the group. Resolves
    /// when that is done. It need not be awaited.
    ///
    /// A handler whose future never ends keeps it from resolving for the visibility timeout, not longer; one for which the actor itself waits
    /// (`ctx.wait`, `AtomicResponse`) as long as that takes.
    pub fn drain(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.wake(|state| state.draining = true);
        let shared = Arc::clone(&self.shared);
        async move {
            let mut ended = std::pin::pin!(shared.ended.notified());
            // Before the look: an end after it is not missed.
            ended.as_mut().enable();
            if !shared.state().ended {
                ended.await;
            }
        }
    }

    /// `false`: it has ended.
    pub fn is_active(&self) -> bool {
        !self.shared.state().ended
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("group", &self.group).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a consumer's handle and its intake share.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    draining: bool,
    ended: bool,
    running: usize,
    waker: Option<Waker>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it is to leave; if not, `waker` is woken when it is.
    pub(crate) fn draining(&self, waker: &Waker, running: usize) -> bool {
        let mut state = self.state();
        state.running = running;
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        state.draining
    }

    /// Something has changed that the intake is to look at.
    pub(crate) fn poke(&self) {
        self.wake(|_| {});
    }

    pub(crate) fn end(&self) {
        let mut state = self.state();
        (state.ended, state.running) = (true, 0);
        drop(state);
        self.ended.notify_waiters();
    }
}

/// Tells the consumers of one node apart.
static NEXT: AtomicU64 = AtomicU64::new(0);
