//! Fairness: neither a huge fan-out nor a flooded actor starves its arbiter, and one subscription among a thousand costs no more.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use actix::fut;
use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use futures::channel::oneshot;

use crate::support::Note;
use crate::support::Probe;
use crate::support::subscribe_with;
use crate::support::system;
use crate::support::until;
use crate::support::within;

struct Counter {
    pubsub: PubSub,
    count: Rc<Cell<usize>>,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.pubsub.subscribe::<Note, _>(ctx, "t").unwrap();
    }
}

impl Handler<Event<Note>> for Counter {
    type Result = ();

    fn handle(&mut self, _: Event<Note>, _: &mut Self::Context) {
        self.count.set(self.count.get() + 1);
    }
}

/// The longest that a task with a 1 ms timer was late while `work` went on, and how long that took.
async fn lateness_during(work: impl Future<Output = ()>) -> (Duration, Duration) {
    let worst = Rc::new(Cell::new(Duration::ZERO));
    let ticker = actix::spawn({
        let worst = Rc::clone(&worst);
        async move {
            loop {
                let before = Instant::now();
                actix::clock::sleep(Duration::from_millis(1)).await;
                worst.set(worst.get().max(before.elapsed().saturating_sub(Duration::from_millis(1))));
            }
        }
    });
    let start = Instant::now();
    work.await;
    let took = start.elapsed();
    ticker.abort();
    (worst.get(), took)
}

#[test]
fn a_timer_keeps_its_time_during_a_fan_out_to_100_000() {
    const SUBSCRIBERS: usize = 100_000;
    system(async {
        let (pubsub, count) = (PubSub::new(), Rc::new(Cell::new(0)));
        let addrs: Vec<_> =
            (0..SUBSCRIBERS).map(|_| Counter { pubsub: pubsub.clone(), count: Rc::clone(&count) }.start()).collect();
        until("all are there", || pubsub.subscribers("t") == SUBSCRIBERS).await;
        // The median of several: the machine itself may pause any one of them.
        let mut shares = Vec::new();
        for round in 1..=5 {
            let (late, took) = lateness_during(async {
                pubsub.broadcast("t", Note(1)).unwrap();
                until("all have it", || count.get() == round * SUBSCRIBERS).await;
            })
            .await;
            shares.push(late.as_secs_f64() / took.as_secs_f64());
        }
        shares.sort_by(f64::total_cmp);
        // In one slice it would be late by all of it; a slice is some hundredths.
        assert!(shares[2] < 0.25, "late by {:.0} % of the whole fan-out", shares[2] * 100.0);
        drop(addrs);
    });
}

#[test]
fn an_actor_flooded_by_its_own_arbiter_lets_others_run() {
    system(async {
        let (pubsub, count) = (PubSub::new(), Rc::new(Cell::new(0)));
        let _flooded = Counter { pubsub: pubsub.clone(), count: Rc::clone(&count) }.start();
        until("it is there", || pubsub.subscribers("t") == 1).await;
        for _ in 0..10_000 {
            assert_eq!(pubsub.broadcast("t", Note(1)).unwrap().full, 0);
        }
        // A task among the others; the test itself has a turn less often.
        let turns = Rc::new(Cell::new(0));
        let other = actix::spawn({
            let (turns, count) = (Rc::clone(&turns), Rc::clone(&count));
            async move {
                while count.get() < 10_000 {
                    turns.set(turns.get() + 1);
                    crate::support::one_turn().await;
                }
            }
        });
        other.await.unwrap();
        assert!(turns.get() >= 10_000 / 256, "others had a turn after every 256 events, {} in all", turns.get());
    });
}

#[test]
fn an_actor_with_a_backlog_lets_others_run() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        subscribe_with(&pubsub, &probe, "t", SubscribeOptions::new().capacity(10_000)).await;
        let (release, released) = oneshot::channel::<()>();
        within(&probe, move |_, ctx| ctx.wait(fut::wrap_future(async { released.await.unwrap() }))).await;
        for value in 0..10_000 {
            pubsub.broadcast("t", Note(value)).unwrap();
        }
        until("all of them wait for it", || pubsub.summary().waiting == 10_000).await;
        // A task among the others, as above.
        let other = actix::spawn({
            let log = log.clone();
            async move {
                let mut turns = 0;
                while log.len() < 10_000 {
                    turns += usize::from(log.len() > 0);
                    crate::support::one_turn().await;
                }
                turns
            }
        });
        release.send(()).unwrap();
        let turns = other.await.unwrap();
        // One between two polls of the actor.
        assert!(turns >= 10_000 / 256 - 1, "others had {turns} turns");
    });
}
