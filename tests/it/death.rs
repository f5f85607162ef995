//! Death: whatever ends a subscriber ends its subscriptions at once, and nobody else notices.

use std::cell::Cell;

use actix::fut;
use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use futures::StreamExt;

use crate::support::Log;
use crate::support::Note;
use crate::support::Probe;
use crate::support::quiet_panics;
use crate::support::subscribe;
use crate::support::subscribe_with;
use crate::support::system;
use crate::support::until;
use crate::support::within;

/// A victim, dead by `kill`, and a witness on the same arbiter: after the death the count is exact and the witness goes on.
async fn check<F: Future<Output = ()>>(kill: impl FnOnce(PubSub, Addr<Probe>) -> F) {
    quiet_panics();
    let pubsub = PubSub::new();
    let (witness, log) = Probe::start_new();
    subscribe(&pubsub, &witness, "t").await;
    let (victim, _) = Probe::start_with(|value, ctx| match value {
        13 => panic!("on purpose"),
        14 => ctx.stop(),
        15 => ctx.terminate(),
        16 => drop(ctx.spawn(fut::wrap_future(async { panic!("on purpose, later") }))),
        _ => {}
    });
    let subscription = subscribe(&pubsub, &victim, "t").await;
    subscribe(&pubsub, &victim, "another").await;
    assert_eq!((pubsub.subscribers("t"), pubsub.subscribers("another")), (2, 1));
    kill(pubsub.clone(), victim.clone()).await;
    until("the victim is gone", || pubsub.subscribers("t") == 1).await;
    assert_eq!((pubsub.subscribers("another"), pubsub.topics().len(), subscription.is_active()), (0, 1, false));
    assert_eq!(pubsub.stats().subscriptions.len(), 1);
    pubsub.broadcast("t", Note(99)).unwrap();
    until("the witness goes on", || log.values().last() == Some(&99)).await;
    assert!(log.missed().iter().all(|missed| *missed == 0));
}

fn tell(note: u64) -> impl AsyncFnOnce(PubSub, Addr<Probe>) {
    async move |pubsub: PubSub, _| {
        pubsub.broadcast("t", Note(note)).unwrap();
    }
}

#[test]
fn a_handler_that_panics() {
    system(check(|pubsub, victim| tell(13)(pubsub, victim)));
}

#[test]
fn an_actor_that_stops_itself() {
    system(check(|pubsub, victim| tell(14)(pubsub, victim)));
}

#[test]
fn an_actor_that_terminates_itself() {
    system(check(|pubsub, victim| tell(15)(pubsub, victim)));
}

#[test]
fn an_async_handler_that_panics() {
    system(check(|pubsub, victim| tell(16)(pubsub, victim)));
}

#[test]
fn a_panic_with_events_waiting_counts_them_as_discarded() {
    system(async {
        quiet_panics();
        let pubsub = PubSub::new();
        let (victim, log) = Probe::start_with(|value, _| assert!(value != 13, "on purpose"));
        subscribe(&pubsub, &victim, "t").await;
        for note in [1, 2, 13, 4, 5, 6] {
            pubsub.broadcast("t", Note(note)).unwrap();
        }
        until("it is dead", || pubsub.subscribers("t") == 0).await;
        let stats = pubsub.stats();
        assert_eq!((log.values(), stats.delivered, stats.discarded, stats.missed), (vec![1, 2], 3, 3, 0));
    });
}

#[test]
fn a_panic_during_delivery_loses_the_event_for_nobody_else() {
    system(async {
        quiet_panics();
        let pubsub = PubSub::new();
        let mut probes = Vec::new();
        for number in 0..100 {
            let (probe, log) = Probe::start_with(move |_, _| assert!(number % 3 != 0, "on purpose"));
            subscribe(&pubsub, &probe, "t").await;
            probes.push((number, probe, log));
        }
        pubsub.broadcast("t", Note(1)).unwrap();
        pubsub.broadcast("t", Note(2)).unwrap();
        until("the others have both", || probes.iter().all(|(n, _, log)| log.len() == if n % 3 == 0 { 0 } else { 2 })).await;
        assert_eq!(pubsub.subscribers("t"), 66);
    });
}

/// Subscribes and panics at once.
struct Stillborn(PubSub);

impl Actor for Stillborn {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.subscribe::<Note, _>(ctx, "t").unwrap();
        assert_eq!(self.0.subscribers("t"), 1);
        panic!("on purpose");
    }
}

impl Handler<Event<Note>> for Stillborn {
    type Result = ();

    fn handle(&mut self, _: Event<Note>, _: &mut Self::Context) {}
}

#[test]
fn a_panic_in_started() {
    system(async {
        quiet_panics();
        let pubsub = PubSub::new();
        let addr = Stillborn(pubsub.clone()).start();
        until("it is dead", || !addr.connected()).await;
        assert_eq!((pubsub.subscribers("t"), pubsub.topics().len()), (0, 0));
    });
}

/// Uses the pub/sub in every callback of its end.
struct Talkative(PubSub);

impl Actor for Talkative {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.subscribe::<Note, _>(ctx, "t").unwrap();
    }

    fn stopping(&mut self, ctx: &mut Self::Context) -> Running {
        self.0.broadcast("t", Note(1)).unwrap();
        self.0.subscribe::<Note, _>(ctx, "late").unwrap();
        Running::Stop
    }

    fn stopped(&mut self, ctx: &mut Self::Context) {
        self.0.broadcast("t", Note(2)).unwrap();
        self.0.subscribe::<Note, _>(ctx, "later").unwrap();
        self.0.unsubscribe_all(&ctx.address());
    }
}

impl Handler<Event<Note>> for Talkative {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, ctx: &mut Self::Context) {
        match event.0 {
            13 => panic!("on purpose"),
            _ => ctx.stop(),
        }
    }
}

#[test]
fn broadcasting_and_subscribing_while_dying_neither_aborts_nor_leaves_anything() {
    system(async {
        quiet_panics();
        for note in [13, 14] {
            let pubsub = PubSub::new();
            let (witness, log) = Probe::start_new();
            subscribe(&pubsub, &witness, "t").await;
            let addr = Talkative(pubsub.clone()).start();
            until("it is there", || pubsub.subscribers("t") == 2).await;
            pubsub.broadcast("t", Note(note)).unwrap();
            until("it is dead", || !addr.connected() && pubsub.subscribers("t") == 1).await;
            assert_eq!(pubsub.topics(), ["t"], "nothing it subscribed to while dying is left");
            until("nor is it a subscriber without subscriptions", || pubsub.summary().subscribers == 1).await;
            until("its last words are heard", || log.values() == [note, 1, 2]).await;
        }
    });
}

#[test]
fn an_arbiter_that_stops_takes_its_own_subscriptions_and_no_others() {
    system(async {
        let pubsub = PubSub::new();
        let arbiter = Arbiter::new();
        let (witness, log) = Probe::start_new();
        subscribe(&pubsub, &witness, "t").await;
        let probes: Vec<_> = (0..50).map(|_| Probe::start_on(&arbiter.handle()).0).collect();
        for probe in &probes {
            subscribe(&pubsub, probe, "t").await;
        }
        let stream = {
            let (tell, told) = std::sync::mpsc::channel();
            let theirs = pubsub.clone();
            arbiter.spawn_fn(move || tell.send(theirs.stream::<Note>("t").unwrap()).unwrap());
            told.recv().unwrap()
        };
        assert_eq!((pubsub.subscribers("t"), pubsub.stats().arbiters.len()), (52, 2));
        arbiter.stop();
        arbiter.join().unwrap();
        assert_eq!(stream.collect::<Vec<_>>().await.len(), 0, "its arbiter is gone, so it ends");
        assert_eq!((pubsub.subscribers("t"), pubsub.stats().arbiters.len()), (1, 1));
        pubsub.broadcast("t", Note(1)).unwrap();
        until("the witness goes on", || log.len() == 1).await;
    });
}

#[test]
fn a_system_that_stops_leaves_a_pubsub_that_serves_the_next_one_on_the_same_thread() {
    let pubsub = PubSub::new();
    for round in 0..3 {
        let runner = System::new();
        let (probe, log) = runner.block_on(async { Probe::start_new() });
        runner.block_on(async {
            subscribe(&pubsub, &probe, "t").await;
            assert_eq!(pubsub.subscribers("t"), 1);
            pubsub.broadcast("t", Note(round)).unwrap();
            until("it is heard", || log.values() == [round]).await;
            System::current().stop();
        });
        runner.run().unwrap();
        assert_eq!(pubsub.subscribers("t"), 0, "gone with its system");
    }
}

#[test]
fn an_actor_that_lost_its_last_addr_lives_on_or_ends_as_its_option_says() {
    system(async {
        let pubsub = PubSub::new();
        let (kept, log) = Probe::start_new();
        subscribe(&pubsub, &kept, "kept").await;
        let (loose, _) = Probe::start_new();
        subscribe_with(&pubsub, &loose, "loose", SubscribeOptions::new().keep_alive(false)).await;
        drop((kept, loose));
        until("the loose one is gone", || pubsub.subscribers("loose") == 0).await;
        assert_eq!(pubsub.subscribers("kept"), 1);
        pubsub.broadcast("kept", Note(1)).unwrap();
        until("the kept one hears", || log.len() == 1).await;
        pubsub.unsubscribe_all(pubsub.stats().subscriptions[0].subscriber);
        until("it ended with its last subscription", || pubsub.stats().arbiters[0].subscribers == 0).await;
    });
}

thread_local!(static DROPPED: Cell<u32> = const { Cell::new(0) });

/// A payload whose end is user code of the worst kind.
struct Bomb(PubSub);

impl Drop for Bomb {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
        // Under a lock of ours this would be a deadlock, and the panic would end the registry.
        self.0.broadcast("t", Note(7)).unwrap();
        panic!("on purpose");
    }
}

#[test]
fn a_payload_that_broadcasts_and_panics_when_dropped_harms_nobody() {
    system(async {
        quiet_panics();
        let pubsub = PubSub::new();
        let (witness, log) = Probe::start_new();
        subscribe(&pubsub, &witness, "t").await;
        let overflowing = pubsub.stream_with::<Bomb>("bombs", &SubscribeOptions::new().capacity(1)).unwrap();
        for _ in 0..3 {
            pubsub.local_broadcast("bombs", Bomb(pubsub.clone())).unwrap();
        }
        until("two have been evicted", || DROPPED.get() == 2 && log.len() == 2).await;
        drop(overflowing);
        until("the last went with its subscription", || DROPPED.get() == 3 && log.len() == 3).await;
        let stats = pubsub.stats();
        assert_eq!((stats.arbiters[0].foreign_panics, stats.arbiters[0].registry_restarts), (3, 0));
    });
}

#[test]
fn a_waker_that_panics_does_not_stop_the_others_from_being_woken() {
    struct Mine;
    impl std::task::Wake for Mine {
        fn wake(self: std::sync::Arc<Self>) {
            panic!("on purpose");
        }
    }
    system(async {
        quiet_panics();
        let pubsub = PubSub::new();
        let mut probes: Vec<(Addr<Probe>, Log)> = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..50 {
            let (probe, log) = Probe::start_new();
            subscribe(&pubsub, &probe, "t").await;
            probes.push((probe, log));
            let mut stream = pubsub.stream::<Note>("t").unwrap();
            let mine = std::task::Waker::from(std::sync::Arc::new(Mine));
            assert!(stream.poll_next_unpin(&mut std::task::Context::from_waker(&mine)).is_pending());
            streams.push(stream);
        }
        pubsub.broadcast("t", Note(1)).unwrap();
        until("all probes have it", || probes.iter().all(|(_, log)| log.values() == [1])).await;
        for stream in &mut streams {
            assert_eq!(stream.next().await.map(|event| event.0), Some(1));
        }
        assert_eq!(pubsub.stats().arbiters[0].foreign_panics, 50);
        within(&probes[0].0, |_, _| ()).await;
    });
}

#[test]
fn deaths_by_the_thousand_at_once_leave_an_exact_table() {
    system(async {
        let pubsub = PubSub::new();
        let (witness, log) = Probe::start_new();
        subscribe(&pubsub, &witness, "t").await;
        for _ in 0..5_000 {
            let pubsub = pubsub.clone();
            let (victim, _) = Probe::start_with(|value, ctx| {
                if value == 14 {
                    ctx.stop();
                }
            });
            subscribe(&pubsub, &victim, "t").await;
        }
        assert_eq!(pubsub.subscribers("t"), 5_001);
        pubsub.broadcast("t", Note(14)).unwrap();
        pubsub.broadcast("t", Note(1)).unwrap();
        until("only the witness is left", || pubsub.subscribers("t") == 1 && log.len() == 2).await;
        let stats = pubsub.stats();
        assert_eq!((stats.subscriptions.len(), stats.arbiters[0].subscribers), (1, 1));
        // Each victim handled one event; the second one was discarded with it.
        assert_eq!((stats.delivered, stats.discarded), (5_002, 5_000));
    });
}
