//! Supervised: the subscriptions of an actor that a supervisor restarts. Knows the handle's verbs, nothing below.

use std::any::TypeId;
use std::fmt;

use actix::Actor;
use actix::Handler;
use actix::dev::ToEnvelope;

use crate::event::Event;
use crate::local::context::SubscriberContext;
use crate::local::error::SubscribeError;
use crate::local::options::SubscribeOptions;
use crate::local::subscription::Subscription;
use crate::pubsub::PubSub;
use crate::topic::ToTopic;
use crate::topic::Topic;

/// An actor's record of what it subscribed to, kept in the actor, so that it can subscribe again after a supervised restart.
///
/// A restart clears the actor's context and with it every subscription. What an actor subscribes to in `started` is there again by itself,
/// because actix calls `started` again; for what it joined later, one line in `restarting` does it:
///
/// ```
/// use actix::prelude::*;
/// use actix_pubsub::{Event, PubSub, Subscriptions};
///
/// struct Worker { subscriptions: Subscriptions<Self> }
///
/// impl Actor for Worker { type Context = Context<Self>; }
///
/// impl Supervised for Worker {
///     fn restarting(&mut self, ctx: &mut Self::Context) {
///         self.subscriptions.restore(ctx);
///     }
/// }
///
/// #[derive(Message)]
/// #[rtype(result = "()")]
/// struct Follow(&'static str);
///
/// impl Handler<Follow> for Worker {
///     type Result = ();
///     fn handle(&mut self, Follow(topic): Follow, ctx: &mut Self::Context) {
///         self.subscriptions.subscribe::<String>(ctx, topic).expect("a valid topic");
///     }
/// }
///
/// impl Handler<Event<String>> for Worker {
///     type Result = ();
///     fn handle(&mut self, _: Event<String>, _: &mut Self::Context) {}
/// }
///
/// # System::new().block_on(async {
/// let pubsub = PubSub::new();
/// let worker = Supervisor::start({ let pubsub = pubsub.clone(); |_| Worker { subscriptions: Subscriptions::new(pubsub) } });
/// worker.send(Follow("orders")).await.unwrap();
/// assert_eq!(pubsub.subscribers("orders"), 1);
/// # });
/// ```
///
/// Events broadcast between the end of the old context and the restart are not delivered, as to any subscriber that is not there.
pub struct Subscriptions<A: Actor> {
    pubsub: PubSub,
    entries: Vec<Entry<A>>,
}

type Again<A> = Box<dyn Fn(&PubSub, &mut <A as Actor>::Context) -> Result<Subscription, SubscribeError>>;

struct Entry<A: Actor> {
    message: TypeId,
    subscription: Subscription,
    again: Again<A>,
}

impl<A> Subscriptions<A>
where
    A: Actor,
    A::Context: SubscriberContext<Actor = A>,
{
    /// An empty record.
    pub fn new(pubsub: PubSub) -> Self {
        Self { pubsub, entries: Vec::new() }
    }

    /// [`PubSub::subscribe`], recorded.
    pub fn subscribe<M>(&mut self, ctx: &mut A::Context, topic: impl ToTopic) -> Result<Subscription, SubscribeError>
    where
        M: Send + Sync + 'static,
        A: Handler<Event<M>>,
        A::Context: ToEnvelope<A, Event<M>>,
    {
        self.subscribe_with::<M>(ctx, topic, &SubscribeOptions::new())
    }

    /// [`PubSub::subscribe_with`], recorded.
    pub fn subscribe_with<M>(
        &mut self,
        ctx: &mut A::Context,
        topic: impl ToTopic,
        options: &SubscribeOptions,
    ) -> Result<Subscription, SubscribeError>
    where
        M: Send + Sync + 'static,
        A: Handler<Event<M>>,
        A::Context: ToEnvelope<A, Event<M>>,
    {
        let (topic, options) = (topic.to_topic()?.into_owned(), options.clone());
        let message = TypeId::of::<M>();
        let again: Again<A> = Box::new(move |pubsub, ctx| pubsub.subscribe_with::<M, _>(ctx, &topic, &options));
        let subscription = again(&self.pubsub, ctx)?;
        let is_same = |entry: &&mut Entry<A>| entry.message == message && entry.subscription.topic() == subscription.topic();
        match self.entries.iter_mut().find(is_same) {
            // Recorded, and still the same subscription with its first options.
            Some(entry) if entry.subscription.is_active() => {}
            Some(entry) => (entry.subscription, entry.again) = (subscription.clone(), again),
            None => self.entries.push(Entry { message, subscription: subscription.clone(), again }),
        }
        Ok(subscription)
    }

    /// Ends a recorded subscription and forgets it; `false` if there is none.
    pub fn unsubscribe<M: 'static>(&mut self, topic: impl ToTopic) -> bool {
        let Ok(topic) = topic.to_topic() else { return false };
        let (message, topic) = (TypeId::of::<M>(), topic.as_ref());
        let Some(at) = self.entries.iter().position(|e| e.message == message && e.subscription.topic() == topic) else {
            return false;
        };
        self.entries.remove(at).subscription.unsubscribe();
        true
    }

    /// Subscribes to everything recorded again. Returns how many could not be, which happens only when the pub/sub was shut down
    /// or the arbiter is stopping.
    // `restarting` has nobody to hand the count to.
    pub fn restore(&mut self, ctx: &mut A::Context) -> usize {
        let mut failed = 0;
        for entry in &mut self.entries {
            match (entry.again)(&self.pubsub, ctx) {
                Ok(subscription) => entry.subscription = subscription,
                Err(_) => failed += 1,
            }
        }
        failed
    }

    /// The topics recorded, in the order in which they were subscribed to.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.entries.iter().map(|entry| entry.subscription.topic())
    }
}

impl<A: Actor> fmt::Debug for Subscriptions<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &entry.subscription)).finish()
    }
}
