//! Context: which actix contexts an actor can subscribe in. Knows no subscriptions.

use actix::Actor;
use actix::Context;
use actix::dev::AsyncContextParts;

/// The context of an actor that can subscribe: `Context`, and with the feature `web` those of actix-web-actors.
///
/// An own context type joins in with one line; `AsyncContextParts` is what `ContextFut` asks of it anyway.
pub trait SubscriberContext: AsyncContextParts<<Self as SubscriberContext>::Actor> {
    /// The actor that runs in it.
    type Actor: Actor<Context = Self>;
}

impl<A: Actor<Context = Self>> SubscriberContext for Context<A> {
    type Actor = A;
}

#[cfg(feature = "web")]
impl<A: Actor<Context = Self>> SubscriberContext for actix_web_actors::ws::WebsocketContext<A> {
    type Actor = A;
}

#[cfg(feature = "web")]
impl<A: Actor<Context = Self>> SubscriberContext for actix_web_actors::HttpContext<A> {
    type Actor = A;
}
