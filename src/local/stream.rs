//! Stream: a subscription for code that is no actor. Knows one seat.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use futures_core::Stream;

use crate::event::Event;
use crate::event::Head;
use crate::ids::SubscriberId;
use crate::local::shard::Shard;
use crate::local::slab::Key;
use crate::local::subscription::Subscription;
use crate::local::table::Taken;
use crate::local::table::Took;
use crate::sync::Arc;

/// The events of one topic as a `futures` [`Stream`]: what `PubSub::stream` returns.
///
/// Made on an arbiter, it is served by that arbiter's registry and ends when that arbiter stops; made on any other thread, it is
/// served by the background registry. It may be polled on any thread. Dropping it unsubscribes, at once.
///
/// # Guarantees
/// Those of every subscription: publisher's order, bounded, losses told by [`Event::missed`].
///
/// # Cancel safety
/// Dropping a `next()` loses nothing: an event is taken only when it is returned.
pub struct EventStream<M> {
    shard: Arc<Shard>,
    seat: Key,
    subscription: Subscription,
    taken: Vec<Taken>,
    message: PhantomData<fn() -> M>,
}

impl<M> EventStream<M> {
    pub(crate) fn new(shard: Arc<Shard>, seat: Key, subscription: Subscription) -> Self {
        Self { shard, seat, subscription, taken: Vec::with_capacity(1), message: PhantomData }
    }

    /// The subscription behind this stream: its topic, its statistics.
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Who this stream is; what `broadcast_from` takes so that the stream does not receive it.
    pub fn subscriber_id(&self) -> SubscriberId {
        self.subscription.subscriber_id()
    }
}

impl<M: Send + Sync + 'static> Stream for EventStream<M> {
    type Item = Event<M>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event<M>>> {
        let this = self.get_mut();
        loop {
            let took = this.shard.take_one(this.seat, cx.waker(), &mut this.taken);
            if let Some(taken) = this.taken.pop()
                && let Some(Ok(head)) = taken.event.map(Arc::downcast::<Head<M>>)
            {
                return Poll::Ready(Some(Event::new(head, taken.missed)));
            }
            match took {
                Took::Idle | Took::Loose => return Poll::Pending,
                Took::Ended => return Poll::Ready(None),
                Took::More | Took::Batch => {}
            }
        }
    }
}

impl<M> Drop for EventStream<M> {
    fn drop(&mut self) {
        self.shard.unseat(self.seat, None);
    }
}

impl<M> fmt::Debug for EventStream<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}
