//! Remote: subscribers whose context nobody holds, on arbiters elsewhere, in `SyncArbiter`s, and threads without an arbiter.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::Topic;
use futures::StreamExt;

use crate::support::Note;
use crate::support::Probe;
use crate::support::Word;
use crate::support::quiet_panics;
use crate::support::spin_until;
use crate::support::subscribe;
use crate::support::system;
use crate::support::until;
use crate::support::within;

struct Blocking {
    got: Arc<Mutex<Vec<(u64, u64)>>>,
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Actor for Blocking {
    type Context = SyncContext<Self>;
}

impl Handler<Event<Note>> for Blocking {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, _: &mut Self::Context) {
        // Every note waits for its permit.
        self.gate.lock().unwrap().recv().unwrap();
        self.got.lock().unwrap().push((event.0, event.missed()));
    }
}

#[test]
fn a_slow_sync_arbiter_gets_everything_in_order_and_its_backlog_is_bounded_and_visible() {
    system(async {
        let pubsub = PubSub::new();
        let got = Arc::new(Mutex::new(Vec::new()));
        let (permit, gate) = mpsc::channel();
        let gate = Arc::new(Mutex::new(gate));
        let (theirs, gates) = (Arc::clone(&got), Arc::clone(&gate));
        let addr = SyncArbiter::start(1, move || Blocking { got: Arc::clone(&theirs), gate: Arc::clone(&gates) });
        let options = SubscribeOptions::new().capacity(100);
        let subscription = pubsub.subscribe_addr_with::<Note, _>(&addr, "t", &options).unwrap();
        assert_eq!(pubsub.subscribers("t"), 1);
        // Its own queue has no bound, so what is handed over must have one: two windows of 16, and the one asked for between them.
        for note in 0..1_000 {
            if note == 33 {
                until("both windows are full", || subscription.stats().unwrap().delivered == 33).await;
            }
            pubsub.broadcast("t", Note(note)).unwrap();
        }
        until("what fits is handed over", || subscription.stats().unwrap().missed == 1_000 - 33 - 100).await;
        let stats = subscription.stats().unwrap();
        assert_eq!((stats.delivered, stats.depth), (33, 100));
        for _ in 0..133 {
            permit.send(()).unwrap();
        }
        until("it has handled what was kept", || got.lock().unwrap().len() == 133).await;
        let got = got.lock().unwrap();
        let expected: Vec<_> = (0..33).chain(900..1_000).map(|note| (note, if note == 900 { 867 } else { 0 })).collect();
        assert_eq!(*got, expected);
        assert!(subscription.unsubscribe());
        assert_eq!(pubsub.subscribers("t"), 0);
    });
}

#[test]
fn an_addr_can_be_subscribed_from_a_thread_without_an_arbiter() {
    system(async {
        let pubsub = PubSub::new();
        let arbiter = Arbiter::new();
        let (probe, log) = Probe::start_on(&arbiter.handle());
        let theirs = (pubsub.clone(), probe.clone());
        std::thread::spawn(move || {
            let (pubsub, probe) = theirs;
            pubsub.subscribe_addr::<Note, _>(&probe, "t").unwrap();
            assert_eq!(pubsub.subscribers("t"), 1, "effective when it returns");
            pubsub.broadcast("t", Note(1)).unwrap();
        })
        .join()
        .unwrap();
        for note in 2..=500 {
            pubsub.broadcast("t", Note(note)).unwrap();
        }
        pubsub.broadcast_from(&probe, "t", Note(0)).unwrap();
        pubsub.broadcast("t", Note(501)).unwrap();
        until("all arrived", || log.len() == 501).await;
        assert_eq!(log.values(), (1..=501).collect::<Vec<_>>(), "in order, without its own");
        arbiter.stop();
        arbiter.join().unwrap();
        until("its death is noticed without a further event", || pubsub.subscribers("t") == 0).await;
    });
}

#[test]
fn an_actor_has_one_seat_whoever_subscribed_it_first() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        // First from outside, then from inside: other topics, another type, and the same again.
        pubsub.subscribe_addr::<Note, _>(&probe, "a").unwrap();
        subscribe(&pubsub, &probe, "a").await;
        subscribe(&pubsub, &probe, "b").await;
        let theirs = pubsub.clone();
        within(&probe, move |_, ctx| theirs.subscribe::<Word, _>(ctx, "a").map(drop).unwrap()).await;
        assert_eq!((pubsub.subscribers("a"), pubsub.subscribers("b")), (2, 1));
        for value in 0..300 {
            pubsub.broadcast(if value % 2 == 0 { "a" } else { "b" }, Note(value)).unwrap();
        }
        pubsub.broadcast("a", Word("x".repeat(300))).unwrap();
        until("all are there", || log.len() == 301).await;
        assert_eq!(log.values(), (0..=300).collect::<Vec<_>>(), "one order over topics and types");
        // The other way round: first from inside, on another arbiter, then from outside.
        let arbiter = Arbiter::new();
        let (other, log) = Probe::start_on(&arbiter.handle());
        subscribe(&pubsub, &other, "c").await;
        pubsub.subscribe_addr::<Note, _>(&other, "c").unwrap();
        pubsub.subscribe_addr::<Word, _>(&other, "c").unwrap();
        assert_eq!(pubsub.subscribers("c"), 2);
        pubsub.broadcast("c", Note(1)).unwrap();
        pubsub.broadcast("c", Word("four".into())).unwrap();
        until("both are there", || log.len() == 2).await;
        assert_eq!(log.values(), [1, 4]);
        arbiter.stop();
        arbiter.join().unwrap();
        assert_eq!(pubsub.subscribers("c"), 0, "gone with its own context");
    });
}

#[test]
fn a_subscription_from_outside_holds_its_actor_unless_told_not_to_and_ends_with_it() {
    system(async {
        quiet_panics();
        let pubsub = PubSub::new();
        let (kept, log) = Probe::start_with(|value, _| assert!(value != 13, "on purpose"));
        pubsub.subscribe_addr::<Note, _>(&kept, "kept").unwrap();
        let (loose, _) = Probe::start_new();
        let options = SubscribeOptions::new().keep_alive(false);
        pubsub.subscribe_addr_with::<Note, _>(&loose, "loose", &options).unwrap();
        drop((kept, loose));
        until("the loose one is gone", || pubsub.subscribers("loose") == 0).await;
        pubsub.broadcast("kept", Note(1)).unwrap();
        until("the kept one hears", || log.len() == 1).await;
        pubsub.broadcast("kept", Note(13)).unwrap();
        until("its death is noticed", || pubsub.subscribers("kept") == 0).await;
    });
}

#[test]
fn a_stream_of_a_thread_without_an_arbiter_is_served_and_may_move_between_threads() {
    let pubsub = PubSub::new();
    let topic = Topic::parse("t").unwrap();
    let mut stream = pubsub.stream::<Note>(&topic).unwrap();
    assert_eq!(pubsub.subscribers(&topic), 1);
    pubsub.broadcast(&topic, Note(1)).unwrap();
    let (first, mut stream) = std::thread::spawn(move || {
        let first = futures::executor::block_on(stream.next()).unwrap().0;
        (first, stream)
    })
    .join()
    .unwrap();
    pubsub.broadcast(&topic, Note(2)).unwrap();
    assert_eq!((first, futures::executor::block_on(stream.next()).unwrap().0), (1, 2));
    assert_eq!(pubsub.stats().arbiters.iter().filter(|arbiter| arbiter.background).count(), 1);
    drop(stream);
    assert_eq!(pubsub.subscribers(&topic), 0);
    futures::executor::block_on(pubsub.shutdown());
    spin_until("the background registry has ended", || pubsub.stats().arbiters.is_empty());
}
