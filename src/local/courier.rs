//! Courier: the future that brings events to an actor whose context we do not hold, through its mailbox. Knows one seat and one
//! `Addr`; runs on the background registry's arbiter.
//!
//! What waits stays in the ring, under the subscription's own capacity, until the mailbox has room. A `SyncArbiter` takes
//! everything into an unbounded queue of its own, so room alone is no bound: every [`WINDOW_EVENTS`]th event is sent as a
//! request, and the next window waits until the actor has answered that one.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use actix::Actor;
use actix::Addr;
use actix::Handler;
use actix::WeakAddr;
use actix::dev::ToEnvelope;
use actix::prelude::SendError;
use actix_rt::ArbiterHandle;

use crate::event::Erased;
use crate::event::Event;
use crate::event::Head;
use crate::local::shard::Shard;
use crate::local::slab::Key;
use crate::local::table::Taken;
use crate::local::table::Took;
use crate::sync::Arc;
use crate::sync::Ordering;

/// Hands one event to a mailbox; `bool`: and asks for an answer.
pub(crate) type Send<A> = fn(&Addr<A>, Erased, u64, bool) -> Sent;

pub(crate) enum Sent {
    Queued,
    /// Resolves when the actor has handled it, or will not.
    Asked(Pin<Box<dyn Future<Output = ()>>>),
    /// As `Asked`, but the mailbox is full: nothing more may be sent until it resolves.
    Waits(Pin<Box<dyn Future<Output = ()>>>),
    Closed,
}

pub(crate) fn send<A, M>(addr: &Addr<A>, event: Erased, missed: u64, ask: bool) -> Sent
where
    A: Actor + Handler<Event<M>>,
    A::Context: ToEnvelope<A, Event<M>>,
    M: std::marker::Send + Sync + 'static,
{
    let Ok(head) = event.downcast::<Head<M>>() else { return Sent::Queued };
    let event = Event::new(head, missed);
    let request = |event| {
        // By a sender of its own: actix queues the first message of each sender even where the mailbox is full, so that this one has its
        // place before whatever is sent next.
        let request = addr.clone().send(event);
        Box::pin(async move {
            // A refusal means that the actor is gone; the next poll sees that for itself.
            let _ = request.await;
        })
    };
    if ask {
        return Sent::Asked(request(event));
    }
    match addr.try_send(event) {
        Ok(()) => Sent::Queued,
        Err(SendError::Full(event)) => Sent::Waits(request(event)),
        Err(SendError::Closed(_)) => Sent::Closed,
    }
}

pub(crate) struct Courier<A: Actor> {
    place: Unseat,
    first: Send<A>,
    more: Vec<Send<A>>,
    weak: WeakAddr<A>,
    /// Held while a subscription keeps the actor alive.
    strong: Option<Addr<A>>,
    since_asked: usize,
    asked: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waits: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Its seat is gone; only the answers to what it sent are awaited.
    ended: bool,
}

impl<A: Actor> Courier<A> {
    fn new(place: Unseat, first: Send<A>, addr: Addr<A>) -> Self {
        let (weak, strong) = (addr.downgrade(), Some(addr));
        Self { place, first, more: Vec::new(), weak, strong, since_asked: 0, asked: None, waits: None, ended: false }
    }

    /// Starts on the background registry's arbiter. Until it runs, what is broadcast waits in the seat.
    pub(crate) fn launch(shard: &Arc<Shard>, arbiter: &ArbiterHandle, seat: Key, first: Send<A>, addr: &Addr<A>) {
        let alive = addr.downgrade();
        let alive = move || alive.upgrade().is_some();
        shard.with(|table| table.monitor(seat, Arc::new(alive)));
        shard.couriers.fetch_add(1, Ordering::AcqRel);
        let (shard, addr) = (Unseat { shard: Arc::clone(shard), seat }, addr.clone());
        arbiter.spawn_fn(move || {
            drop(actix_rt::spawn(Self::new(shard, first, addr)));
        });
    }

    fn handler(&mut self, index: u16) -> Send<A> {
        let Some(at) = usize::from(index).checked_sub(1) else { return self.first };
        if at >= self.more.len() {
            self.more = self.place.shard.handlers(self.place.seat);
        }
        self.more.get(at).copied().unwrap_or(self.first)
    }

    /// Whether the mailbox may be given more.
    fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(waits) = &mut self.waits {
            if waits.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.waits = None;
        }
        if self.since_asked >= WINDOW_EVENTS
            && let Some(asked) = &mut self.asked
        {
            if asked.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.asked = None;
        }
        true
    }

    /// The end, once the actor has answered: actix skips a message in a mailbox whose sender does not wait for its answer any more.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ended = true;
        for request in [&mut self.asked, &mut self.waits] {
            if let Some(pending) = request
                && pending.as_mut().poll(cx).is_ready()
            {
                *request = None;
            }
        }
        if self.asked.is_none() && self.waits.is_none() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn forward(&mut self, addr: &Addr<A>, taken: Taken) -> bool {
        let Some(event) = taken.event else { return true };
        let ask = self.since_asked >= WINDOW_EVENTS;
        self.since_asked = if ask { 0 } else { self.since_asked + 1 };
        match self.handler(taken.handler)(addr, event, taken.missed, ask) {
            Sent::Queued => {}
            Sent::Asked(asked) => self.asked = Some(asked),
            Sent::Waits(waits) => self.waits = Some(waits),
            Sent::Closed => return false,
        }
        true
    }
}

// No field is pinned in place: the futures inside are boxed.
impl<A: Actor> Unpin for Courier<A> {}

impl<A: Actor> Future for Courier<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.ended {
            return this.poll_end(cx);
        }
        let Some(addr) = this.strong.take().or_else(|| this.weak.upgrade()).filter(Addr::connected) else {
            return Poll::Ready(());
        };
        let mut batch = Vec::with_capacity(1);
        for _ in 0..POLL_EVENTS {
            if !this.has_room(cx) {
                this.strong = Some(addr);
                return Poll::Pending;
            }
            let took = this.place.shard.take_one(this.place.seat, cx.waker(), &mut batch);
            if let Some(taken) = batch.pop()
                && !this.forward(&addr, taken)
            {
                return Poll::Ready(());
            }
            match took {
                Took::Idle => {
                    this.strong = Some(addr);
                    return Poll::Pending;
                }
                // Nothing keeps the actor alive: `addr` is let go.
                Took::Loose => return Poll::Pending,
                Took::Ended => return this.poll_end(cx),
                Took::More | Took::Batch => {}
            }
        }
        this.strong = Some(addr);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Ends the seat when dropped, whether its courier ever ran or not.
struct Unseat {
    shard: Arc<Shard>,
    seat: Key,
}

impl Drop for Unseat {
    fn drop(&mut self) {
        self.shard.unseat(self.seat, None);
        self.shard.couriers.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Events that may be in an actor's mailbox unanswered, twice: the default capacity of an actix mailbox is 16.
const WINDOW_EVENTS: usize = 16;
/// Events that one poll forwards before others have their turn.
const POLL_EVENTS: usize = 256;
