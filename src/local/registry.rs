//! Registry: the actor, one per arbiter, that gives a shard its turns: it delivers, monitors and removes the dead. Runs no user code.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::ActorContext;
use actix::ActorFuture;
use actix::AsyncContext;
use actix::Context;
use actix_rt::ArbiterHandle;
use actix_rt::System;
use actix_rt::time::Sleep;

use crate::local::incident::IncidentKind;
use crate::local::meter::Meter;
use crate::local::shard::Shard;
use crate::local::shard::Turn;
use crate::observe;
use crate::sync::Arc;
use crate::sync::Ordering;

pub(crate) struct Registry {
    shard: Arc<Shard>,
    arbiter: ArbiterHandle,
    /// The system that exists for this registry alone, and stops with it.
    system: Option<System>,
    started: bool,
}

impl Registry {
    /// Starts the registry of `shard` on `arbiter`. `false`: that arbiter has ended, and so has the shard.
    ///
    /// It goes through the arbiter's own queue, because the caller may hold the arbiter's thread without running in it, as `main` does
    /// between `System::new()` and `block_on`.
    pub(crate) fn launch(shard: Arc<Shard>, arbiter: &ArbiterHandle, system: Option<System>) -> bool {
        // Dropped unstarted, it retires the shard.
        let registry = Self { shard, arbiter: arbiter.clone(), system, started: false };
        arbiter.spawn_fn(move || {
            registry.shard.settle_here();
            registry.start();
        })
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.started = true;
        observe::registry_started(self.shard.id());
        ctx.spawn(Turns { shard: Arc::clone(&self.shard), slice: Slice::new(), wakers: Vec::new(), refused: 0, pause: None });
        if self.shard.background {
            ctx.run_interval(SWEEP_INTERVAL, |registry, _| {
                let (begun, mut next) = (Instant::now(), Some(0));
                while let Some(from) = next {
                    next = registry.shard.sweep(from);
                }
                registry.shard.meter.sweep(begun.elapsed());
            });
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if std::thread::panicking() && self.started && !self.shard.port.is_closed() {
            // A panic of ours, or one that takes the whole arbiter down; then this one is dropped unstarted, and retires the shard.
            // The table is as it was, and somebody has to go on with it.
            let restarts = self.shard.restarts.fetch_add(1, Ordering::Relaxed) + 1;
            observe::registry_restarted(self.shard.id(), restarts);
            self.shard.shared.incidents.add(IncidentKind::RegistryRestarted { arbiter: self.shard.id() });
            Self::launch(Arc::clone(&self.shard), &self.arbiter, self.system.take());
        } else {
            self.shard.retire();
            observe::registry_ended(self.shard.id());
            if let Some(system) = &self.system {
                system.stop();
            }
        }
    }
}

struct Turns {
    shard: Arc<Shard>,
    slice: Slice,
    wakers: Vec<Waker>,
    refused: u64,
    pause: Option<Pin<Box<Sleep>>>,
}

impl ActorFuture<Registry> for Turns {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Registry, ctx: &mut Context<Registry>, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let visits = this.slice.next(Instant::now, &this.shard.meter);
        this.shard.meter.turn();
        match this.shard.turn(visits, &mut this.wakers, cx.waker()) {
            Turn::Sleep => {
                this.slice.slept();
                this.report();
                Poll::Pending
            }
            Turn::Again => {
                this.slice.yielded(Instant::now());
                // Not `wake_by_ref`: that would be this task's turn again before timers, sockets and the future that the arbiter's thread
                // blocks on, and a burst would overflow whoever reads there.
                let mut yielding = std::pin::pin!(actix_rt::task::yield_now());
                if yielding.as_mut().poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Turn::Ended => {
                if this.shard.couriers.load(Ordering::Acquire) > 0 {
                    // They run on this registry's thread, and have to bring what waits to its actors first.
                    return this.pause(cx);
                }
                ctx.stop();
                Poll::Ready(())
            }
        }
    }
}

impl Turns {
    /// Not by `ctx.run_later`: each of those is a new item of the context, for which it polls all items again, at once.
    fn pause(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let pause = self.pause.insert(Box::pin(actix_rt::time::sleep(COURIERS_INTERVAL)));
        if pause.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Says once per calm that the port has been full.
    fn report(&mut self) {
        let refused = self.shard.port.refused();
        if refused > self.refused {
            let more = refused - self.refused;
            self.refused = refused;
            observe::port_full(self.shard.id(), self.shard.port.capacity());
            self.shard.shared.incidents.add(IncidentKind::PortFull { arbiter: self.shard.id(), refused: more });
        }
    }
}

/// How many subscribers one turn wakes: as many as handle their events in about half a millisecond, by the last turns' measure.
///
/// Those woken stand in the arbiter's queue before everything that becomes ready later, so this is what others wait for.
#[derive(Debug, Clone, Copy)]
struct Slice {
    visits: usize,
    yielded: Option<Instant>,
}

impl Slice {
    fn new() -> Self {
        Self { visits: SLICE_START, yielded: None }
    }

    fn next(&mut self, now: impl FnOnce() -> Instant, meter: &Meter) -> usize {
        if let Some(before) = self.yielded.take() {
            let others = now().saturating_duration_since(before);
            meter.slice(others);
            if others > SLICE_TIME {
                self.visits = (self.visits / 2).max(SLICE_MIN);
            } else if others < SLICE_TIME / 4 {
                self.visits = (self.visits * 2).min(SLICE_MAX);
            }
        }
        self.visits
    }

    fn yielded(&mut self, now: Instant) {
        self.yielded = Some(now);
    }

    fn slept(&mut self) {
        self.yielded = None;
    }
}

/// Others wait no longer than about this for one slice, if their handlers are alike.
const SLICE_TIME: Duration = Duration::from_micros(500);
const SLICE_START: usize = 512;
const SLICE_MIN: usize = 16;
/// Beyond this the subscribers' memory is out of the cache again before they run.
const SLICE_MAX: usize = 1_024;
/// How often the background registry looks whether its couriers have ended.
const COURIERS_INTERVAL: Duration = Duration::from_millis(2);
/// How late the death of a subscriber is noticed that can only be seen from outside and receives nothing.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_panics_is_started_again_with_its_subscriptions() {
        use crate::event::Event;
        use crate::event::Head;
        use crate::ids::SubscriberId;
        use crate::local::options::SubscribeOptions;
        use crate::local::shard::Shared;
        use crate::topic::Topic;
        use std::any::TypeId;

        System::new().block_on(async {
            let shard = Arc::new(Shared::new(16, 0)).add_shard(false).expect("it is open");
            assert!(Registry::launch(Arc::clone(&shard), &actix::Arbiter::current(), None));
            let topic = Topic::parse("t").expect("a valid name");
            let seat = shard.sit(SubscriberId::unique(), || "test").unwrap_or_else(|_| panic!("a new seat"));
            let message = (TypeId::of::<u64>(), "u64");
            shard.subscribe(seat, &topic, message, &SubscribeOptions::new(), |_| 0).expect("the seat is there");
            let port = shard.shared.interest.port(&topic, message.0, shard.id()).expect("it is announced");
            for event in 1..=3_u64 {
                shard.fault.store(true, Ordering::Relaxed);
                shard.port.push(&port, None, Head::sole(topic.clone(), shard.shared.node, event, None));
                let mut batch = Vec::new();
                let got = std::future::poll_fn(|cx| {
                    shard.take_batch(seat, 1, cx.waker(), &mut batch);
                    batch.pop().map_or(Poll::Pending, Poll::Ready)
                })
                .await;
                let head =
                    got.event.expect("it is not handed on yet").downcast::<Head<u64>>().unwrap_or_else(|_| panic!("a u64"));
                assert_eq!((*Event::new(head, 0), shard.restarts.load(Ordering::Relaxed)), (event, event));
            }
            shard.shared.close();
            shard.unseat(seat, None);
            while !shard.shared.shards().is_empty() {
                actix_rt::task::yield_now().await;
            }
        });
    }

    #[test]
    fn who_waits_for_room_at_a_port_is_told_that_its_registry_ended() {
        use crate::event::Head;
        use crate::ids::SubscriberId;
        use crate::local::options::SubscribeOptions;
        use crate::local::port::Pushed;
        use crate::local::shard::Shared;
        use crate::topic::Topic;
        use std::any::TypeId;
        use std::sync::atomic::AtomicBool;

        struct Told(AtomicBool);
        impl std::task::Wake for Told {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }

        let shard = Arc::new(Shared::new(1, 0)).add_shard(false).expect("it is open");
        let topic = Topic::parse("t").expect("a valid name");
        let seat = shard.sit(SubscriberId::unique(), || "test").unwrap_or_else(|_| panic!("a new seat"));
        let message = (TypeId::of::<u64>(), "u64");
        shard.subscribe(seat, &topic, message, &SubscribeOptions::new(), |_| 0).expect("the seat is there");
        let port = shard.shared.interest.port(&topic, message.0, shard.id()).expect("it is announced");
        let event = || Head::sole(topic.clone(), shard.shared.node, 1_u64, None);
        assert_eq!(shard.port.push(&port, None, event()), Pushed::Queued);
        let told = Arc::new(Told(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&told));
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(shard.port.poll_push(&mut cx, &port, None, event()).is_pending());
        shard.retire();
        assert!(told.0.load(Ordering::Relaxed));
        assert_eq!(shard.port.poll_push(&mut cx, &port, None, event()), Poll::Ready(Pushed::Closed));
    }

    fn after(slice: &mut Slice, others: Duration) -> usize {
        let start = Instant::now();
        slice.yielded(start);
        slice.next(|| start + others, &Meter::default())
    }

    #[test]
    fn a_slice_shrinks_while_handlers_are_slow_and_grows_while_they_are_fast() {
        let mut slice = Slice::new();
        assert_eq!(after(&mut slice, Duration::from_millis(5)), SLICE_START / 2);
        for _ in 0..20 {
            after(&mut slice, Duration::from_millis(5));
        }
        assert_eq!(slice.visits, SLICE_MIN);
        for _ in 0..20 {
            after(&mut slice, Duration::from_micros(1));
        }
        assert_eq!(slice.visits, SLICE_MAX);
        assert_eq!(after(&mut slice, SLICE_TIME / 2), SLICE_MAX, "in between it stays");
    }
}
