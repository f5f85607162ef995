//! Follow: a follower inside an actor's own context. Hands it events and gaps; knows nothing of where they come from.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use actix::Actor;
use actix::ActorFuture;
use actix::AsyncContext;
use actix::Handler;
use actix::Message;
use actix::dev::AsyncContextParts;
use actix::dev::MessageResponse;
use actix::dev::ToEnvelope;

use crate::event::Event;
use crate::event::Payload;
use crate::feed::Feed;
use crate::feed::logged::Logged;
#[cfg(feature = "web")]
use crate::feed::raw::Raw;
use crate::feed::types::FromEntry;
use crate::feed::types::NameTaken;
use crate::ids::EntryId;
use crate::local::context::SubscriberContext;
use crate::local::error::SubscribeError;
use crate::local::options::SubscribeOptions;
use crate::log::Gap;
use crate::log::Position;
use crate::pubsub::PubSub;
use crate::stream::error::FollowError;
use crate::stream::follower::Followed;
use crate::stream::follower::Follower;
use crate::stream::follower::LogStream;
use crate::stream::follower::Progress;
use crate::topic::ToTopic;
use crate::topic::Topic;

impl Message for Gap {
    type Result = ();
}

/// Following the durable log.
impl PubSub {
    /// Subscribes the actor of `ctx` to a topic of the log from a position on: history first, then live, in one order, nothing twice, nothing left out.
    ///
    /// Where history is incomplete (it was trimmed, the store was lost) the actor's `Handler<Gap>` says so before the event that follows. Gets what was
    /// appended, and not what was broadcast. Each call is a subscription of its own; it ends with the actor, or by the returned handle.
    ///
    /// ```
    /// use actix::prelude::*;
    /// use actix_pubsub::log::{Gap, MemoryStore};
    /// use actix_pubsub::{EntryId, Event, Payload, PubSub};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Said { text: String }
    /// impl Payload for Said { const NAME: &'static str = "chat.said"; }
    ///
    /// struct Reader { pubsub: PubSub, last: EntryId }
    ///
    /// impl Actor for Reader {
    ///     type Context = Context<Self>;
    ///     fn started(&mut self, ctx: &mut Self::Context) {
    ///         self.pubsub.subscribe_from::<Said, _>(ctx, "room:lobby", self.last).expect("a topic of the log");
    ///     }
    /// }
    ///
    /// impl Handler<Event<Said>> for Reader {
    ///     type Result = ();
    ///     fn handle(&mut self, event: Event<Said>, _: &mut Self::Context) {
    ///         self.last = event.id().expect("it is in the log");
    /// #       if event.text == "two" { System::current().stop(); }
    ///     }
    /// }
    ///
    /// impl Handler<Gap> for Reader {
    ///     type Result = ();
    ///     fn handle(&mut self, gap: Gap, _: &mut Self::Context) {
    ///         println!("what came after {} is gone", gap.asked_after);
    ///     }
    /// }
    ///
    /// let system = System::new();
    /// system.block_on(async {
    ///     let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
    ///     pubsub.append("room:lobby", &Said { text: "one".into() }).await.unwrap();
    ///     Reader { pubsub: pubsub.clone(), last: EntryId::MIN }.start();
    ///     pubsub.append("room:lobby", &Said { text: "two".into() }).await.unwrap();
    /// });
    /// system.run().unwrap();
    /// ```
    ///
    /// # Cost
    /// History is read in pages, as fast as the actor handles them: a backlog of any length takes the memory of two pages.
    ///
    /// # Errors
    /// [`FollowError`]; nothing was changed. A store that is away is no error: the subscription waits for it.
    pub fn subscribe_from<M, C>(
        &self,
        ctx: &mut C,
        topic: impl ToTopic,
        from: impl Into<Position>,
    ) -> Result<LogSubscription, FollowError>
    where
        M: Payload,
        C: SubscriberContext + ToEnvelope<C::Actor, Event<M>>,
        C::Actor: Handler<Event<M>> + Handler<Gap>,
    {
        let follower = self.follower::<M>(topic, from.into())?;
        let topic = follower.topic().clone();
        let shared = Arc::new(Shared::default());
        let progress = Arc::clone(&follower.progress);
        let follow = Follow { follower: Some(follower), progress: Arc::clone(&progress), shared: Arc::clone(&shared) };
        ctx.spawn(follow);
        Ok(LogSubscription { topic, progress, shared })
    }

    /// As [`subscribe_from`](Self::subscribe_from), for code that is no actor.
    ///
    /// ```
    /// use actix_pubsub::log::{MemoryStore, Position};
    /// use actix_pubsub::{Followed, Payload, PubSub};
    /// use futures::StreamExt;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Price(u32);
    /// impl Payload for Price { const NAME: &'static str = "market.price"; }
    ///
    /// # actix::System::new().block_on(async {
    /// let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
    /// pubsub.append("gold", &Price(1_970)).await.unwrap();
    /// let mut prices = pubsub.stream_from::<Price>("gold", Position::Start).unwrap();
    /// match prices.next().await {
    ///     Some(Followed::Event(price)) => assert_eq!(price.0, 1_970),
    ///     other => panic!("{other:?}"),
    /// }
    /// # #[derive(Debug)] struct P;
    /// # impl std::fmt::Debug for Price { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{}", self.0) } }
    /// # });
    /// ```
    ///
    /// # Errors
    /// As `subscribe_from`.
    pub fn stream_from<M: Payload>(&self, topic: impl ToTopic, from: impl Into<Position>) -> Result<LogStream<M>, FollowError> {
        self.follower(topic, from.into()).map(LogStream::new)
    }

    fn follower<M: Payload>(&self, topic: impl ToTopic, from: Position) -> Result<Follower<M>, FollowError> {
        let feed: &Arc<Feed> = self.feed().ok_or(FollowError::NoLog)?;
        feed.types.add::<M>().map_err(|NameTaken { name, by }| FollowError::NameTaken { name, by })?;
        self.follow(feed, topic, from)
    }

    /// As [`stream_from`](Self::stream_from), of all messages, in the log's order, as they were written.
    #[cfg(feature = "web")]
    pub(crate) fn follow_raw(&self, topic: impl ToTopic, from: Position) -> Result<Follower<Raw>, FollowError> {
        self.follow(self.feed().ok_or(FollowError::NoLog)?, topic, from)
    }

    fn follow<M: FromEntry>(&self, feed: &Arc<Feed>, topic: impl ToTopic, from: Position) -> Result<Follower<M>, FollowError> {
        let topic = topic.to_topic().map_err(SubscribeError::from)?.into_owned();
        feed.types.add_local::<Logged<M>>();
        let live = self.stream_with::<Logged<M>>(&topic, &SubscribeOptions::new())?;
        Ok(Follower::new(Arc::clone(feed), topic, live, from))
    }
}

/// A subscription to the log, as [`PubSub::subscribe_from`] returns it. Dropping it changes nothing.
#[derive(Clone)]
pub struct LogSubscription {
    topic: Topic,
    progress: Arc<Progress>,
    shared: Arc<Shared>,
}

impl LogSubscription {
    /// What it follows.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Everything up to this entry was handed to the actor: where to go on after a restart. `None`: nothing yet.
    pub fn position(&self) -> Option<EntryId> {
        self.progress.position()
    }

    /// Whether history was read to its end: what comes now comes as it is appended.
    pub fn is_live(&self) -> bool {
        self.progress.is_live()
    }

    /// Resolves when history was read to its end and handed to the actor: now it is up to date. `false`: the subscription ended before.
    pub fn live(&self) -> impl Future<Output = bool> + Send + 'static {
        let (progress, shared) = (Arc::clone(&self.progress), Arc::clone(&self.shared));
        async move { progress.live(|| shared.state().ended).await }
    }

    /// `false`: it has ended, or was told to.
    pub fn is_active(&self) -> bool {
        !self.shared.state().ended
    }

    /// Ends it: nothing is handed to the actor any more. `false`: it had ended.
    pub fn unsubscribe(&self) -> bool {
        let mut state = self.shared.state();
        let active = !std::mem::replace(&mut state.ended, true);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.progress.ended();
        active
    }
}

impl fmt::Debug for LogSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSubscription")
            .field("topic", &self.topic)
            .field("position", &self.position())
            .field("live", &self.is_live())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ended: bool,
    waker: Option<Waker>,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was told to end; if not, `waker` is woken when it is.
    fn ended(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        state.ended
    }
}

struct Follow<M> {
    follower: Option<Follower<M>>,
    progress: Arc<Progress>,
    shared: Arc<Shared>,
}

impl<A, M> ActorFuture<A> for Follow<M>
where
    A: Actor + Handler<Event<M>> + Handler<Gap>,
    A::Context: AsyncContextParts<A> + AsyncContext<A>,
    M: Payload,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, ctx: &mut A::Context, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for _ in 0..POLL_EVENTS {
            // The context polls this again as soon as it waits no more.
            if ctx.waiting() {
                return Poll::Pending;
            }
            if this.shared.ended(cx.waker()) {
                this.follower = None;
            }
            let Some(follower) = &mut this.follower else { return Poll::Ready(()) };
            match follower.poll_next(cx) {
                Poll::Ready(Some(Followed::Event(event))) => {
                    let response = Handler::<Event<M>>::handle(actor, event, ctx);
                    MessageResponse::<A, Event<M>>::handle(response, ctx, None);
                }
                Poll::Ready(Some(Followed::Gap(gap))) => {
                    let response = Handler::<Gap>::handle(actor, gap, ctx);
                    MessageResponse::<A, Gap>::handle(response, ctx, None);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Its arbiter has others to run.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<M> Drop for Follow<M> {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.progress.ended();
    }
}

/// Events that one poll hands out before it yields.
const POLL_EVENTS: usize = 256;
