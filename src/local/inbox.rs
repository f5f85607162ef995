//! Inbox: one subscriber with many topics and message types, as a stream of one kind of item. For code that sends events on, and is no actor.

use std::any::TypeId;
use std::any::type_name;
use std::fmt;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use futures_core::Stream;

use crate::event::Erased;
use crate::event::Event;
use crate::event::Head;
use crate::ids::SubscriberId;
use crate::local::error::SubscribeError;
use crate::local::options::SubscribeOptions;
use crate::local::shard::Shard;
use crate::local::slab::Key;
use crate::local::subscription::Subscription;
use crate::local::table::Taken;
use crate::local::table::Took;
use crate::sync::Arc;
use crate::topic::Topic;

/// Makes an item of an event whose type it knows.
type Hand<T> = fn(Erased, u64) -> Option<T>;

/// One seat: the events of all its subscriptions come in one order, as an actor's do, and waking it costs the same however many there are.
///
/// Ends with its last subscription. Dropping it unsubscribes, at once.
pub(crate) struct Inbox<T> {
    shard: Arc<Shard>,
    seat: Key,
    who: SubscriberId,
    hands: Vec<(TypeId, Hand<T>)>,
    taken: Vec<Taken>,
}

impl<T: 'static> Inbox<T> {
    pub(crate) fn new(shard: Arc<Shard>) -> Result<Self, SubscribeError> {
        let who = SubscriberId::unique();
        let Ok(seat) = shard.sit(who, type_name::<Self>) else { return Err(SubscribeError::Closed) };
        Ok(Self { shard, seat, who, hands: Vec::new(), taken: Vec::new() })
    }

    pub(crate) fn subscriber_id(&self) -> SubscriberId {
        self.who
    }

    /// Subscribes to a topic for messages of type `M`; a second time is the same subscription. Effective when it returns.
    pub(crate) fn subscribe<M>(&mut self, topic: &Topic, options: &SubscribeOptions) -> Result<Subscription, SubscribeError>
    where
        M: Send + Sync + 'static,
        T: From<Event<M>>,
    {
        let of = TypeId::of::<M>();
        let at = self.hands.iter().position(|(known, _)| *known == of).unwrap_or_else(|| {
            self.hands.push((of, hand::<M, T>));
            self.hands.len() - 1
        });
        // Message types of one program, so few.
        let index = u16::try_from(at).unwrap_or(u16::MAX);
        let member = self.shard.subscribe(self.seat, topic, (of, type_name::<M>()), options, |_| index);
        let member = member.ok_or(SubscribeError::Closed)?;
        Ok(Subscription::new(Arc::clone(&self.shard), member, topic.clone(), self.who))
    }
}

fn hand<M, T>(event: Erased, missed: u64) -> Option<T>
where
    M: Send + Sync + 'static,
    T: From<Event<M>>,
{
    event.downcast::<Head<M>>().ok().map(|head| T::from(Event::new(head, missed)))
}

impl<T: 'static> Stream for Inbox<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        loop {
            let took = this.shard.take_one(this.seat, cx.waker(), &mut this.taken);
            if let Some(taken) = this.taken.pop()
                && let Some(event) = taken.event
                && let Some((_, hand)) = this.hands.get(usize::from(taken.handler))
                && let Some(item) = hand(event, taken.missed)
            {
                return Poll::Ready(Some(item));
            }
            match took {
                Took::Idle | Took::Loose => return Poll::Pending,
                Took::Ended => return Poll::Ready(None),
                Took::More | Took::Batch => {}
            }
        }
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.shard.unseat(self.seat, None);
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("who", &self.who).finish_non_exhaustive()
    }
}
