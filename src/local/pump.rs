//! Pump: the future inside a subscriber's own context that hands it its events. Knows one seat; not where events come from.
//!
//! When it is polled it has the actor and its context, so it calls the handler directly: no mailbox, no box, no envelope. actix
//! drops it with the context in every kind of death, and that `Drop` is the end of the actor's subscriptions.

use std::any::type_name;
use std::cell::RefCell;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use actix::Actor;
use actix::ActorFuture;
use actix::AsyncContext;
use actix::Handler;
use actix::WeakAddr;
use actix::dev::AsyncContextParts;
use actix::dev::MessageResponse;

use crate::event::Erased;
use crate::event::Event;
use crate::event::Head;
use crate::local::shard::Given;
use crate::local::shard::Shard;
use crate::local::slab::Key;
use crate::local::table::Taken;
use crate::local::table::Took;
use crate::observe;
use crate::sync::Arc;

/// Hands one event to an actor's handler for its message type.
pub(crate) type Deliver<A> = fn(&mut A, &mut <A as Actor>::Context, Erased, u64);

pub(crate) fn deliver<A, M>(actor: &mut A, ctx: &mut A::Context, event: Erased, missed: u64)
where
    A: Actor + Handler<Event<M>>,
    M: Send + Sync + 'static,
{
    if let Ok(head) = event.downcast::<Head<M>>() {
        match head.span() {
            None => handle(actor, ctx, Event::new(head, missed)),
            Some(broadcast) => {
                let span = observe::handle_span(broadcast, head.topic(), type_name::<A>(), missed);
                span.in_scope(|| handle(actor, ctx, Event::new(head, missed)));
            }
        }
    }
}

fn handle<A, M>(actor: &mut A, ctx: &mut A::Context, event: Event<M>)
where
    A: Actor + Handler<Event<M>>,
    M: Send + Sync + 'static,
{
    let response = Handler::handle(actor, event, ctx);
    MessageResponse::handle(response, ctx, None);
}

pub(crate) struct Pump<A: Actor> {
    shard: Arc<Shard>,
    seat: Key,
    first: Deliver<A>,
    /// The handlers of further message types, as far as they have been needed.
    more: Option<Box<Vec<Deliver<A>>>>,
    /// Keeps the actor's identity from being used again while the seat is named by it.
    _identity: WeakAddr<A>,
}

impl<A: Actor> Pump<A> {
    pub(crate) fn new(shard: Arc<Shard>, seat: Key, first: Deliver<A>, identity: WeakAddr<A>) -> Self {
        Self { shard, seat, first, more: None, _identity: identity }
    }
}

impl<A> Pump<A>
where
    A: Actor,
    A::Context: AsyncContextParts<A>,
{
    /// Takes what waits, up to `left` events, and calls their handlers.
    fn hand_out(&mut self, actor: &mut A, ctx: &mut A::Context, waker: &Waker, left: &mut usize) -> Took {
        let departures = self.shard.departures();
        let room = || ROOM.try_with(RefCell::take).unwrap_or_default();
        let (given, took) = self.shard.take(self.seat, *left, waker, room);
        match given {
            Given::One(Taken { event, missed, handler: index, .. }) => {
                if let Some(event) = event {
                    handler(index, self.first, &mut self.more, &self.shard, self.seat)(actor, ctx, event, missed);
                }
                took
            }
            Given::Batch(events) => {
                let mut batch = Batch { shard: &self.shard, seat: self.seat, waker, events, handled: 0, departures, took };
                while let Some((event, missed, index)) = batch.next() {
                    handler(index, self.first, &mut self.more, &self.shard, self.seat)(actor, ctx, event, missed);
                    if ctx.waiting() {
                        break;
                    }
                }
                *left = left.saturating_sub(batch.handled);
                batch.finish()
            }
        }
    }
}

/// The handler with this index; those beyond the first are read from the seat when first needed.
fn handler<A: Actor>(
    index: u16,
    first: Deliver<A>,
    more: &mut Option<Box<Vec<Deliver<A>>>>,
    shard: &Shard,
    seat: Key,
) -> Deliver<A> {
    let Some(at) = usize::from(index).checked_sub(1) else { return first };
    let known = more.get_or_insert_default();
    if at >= known.len() {
        **known = shard.handlers(seat);
    }
    known.get(at).copied().unwrap_or(first)
}

impl<A> ActorFuture<A> for Pump<A>
where
    A: Actor,
    A::Context: AsyncContextParts<A>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, ctx: &mut A::Context, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut left = POLL_EVENTS;
        while !ctx.waiting() {
            match this.hand_out(actor, ctx, cx.waker(), &mut left) {
                Took::Ended => return Poll::Ready(()),
                Took::Loose if !ctx.parts().connected() => return Poll::Ready(()),
                Took::Idle | Took::Loose => return Poll::Pending,
                Took::More | Took::Batch if left == 0 => {
                    // Its arbiter has others to run.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Took::More | Took::Batch => {}
            }
        }
        // The context polls this again as soon as it waits no more.
        Poll::Pending
    }
}

impl<A: Actor> Drop for Pump<A> {
    fn drop(&mut self) {
        self.shard.unseat_actor(self.seat, type_name::<A>);
    }
}

/// Events taken and not yet settled. Settles what was handled even when a handler panics.
struct Batch<'a> {
    shard: &'a Shard,
    seat: Key,
    waker: &'a Waker,
    events: Vec<Taken>,
    handled: usize,
    departures: u64,
    took: Took,
}

impl Batch<'_> {
    fn next(&mut self) -> Option<(Erased, u64, u16)> {
        loop {
            let taken = self.events.get_mut(self.handled)?;
            self.handled += 1;
            // Unsubscribed since it was taken, perhaps by the handler of the one before: it stays in the batch, unhandled.
            if self.handled > 1 && self.shard.departures() != self.departures && !self.shard.is_member(taken.member()) {
                continue;
            }
            return Some((taken.event.take()?, taken.missed, taken.handler));
        }
    }

    fn finish(mut self) -> Took {
        self.settle()
    }

    fn settle(&mut self) -> Took {
        if self.took == Took::Batch {
            self.took = self.shard.settle(self.seat, &self.events, self.handled, self.waker);
        }
        self.took
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.settle();
        for taken in self.events.drain(..) {
            if let Some(event) = taken.event {
                // It may be the last of its payload, and this an unwinding.
                self.shard.guarded(|| drop(event));
            }
        }
        let events = std::mem::take(&mut self.events);
        // The thread may be ending; then the room goes with it.
        let _ = ROOM.try_with(|room| room.replace(events));
    }
}

thread_local! {
    /// Room for one batch, shared by all pumps of a thread: only one is polled at a time.
    static ROOM: RefCell<Vec<Taken>> = const { RefCell::new(Vec::new()) };
}

/// Events that one poll hands out before it yields: a flooded actor holds its arbiter for some microseconds.
const POLL_EVENTS: usize = 256;
