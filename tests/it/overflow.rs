//! Overflow: a subscriber that does not keep up loses by its own policy, exactly counted, and nobody else notices.

use std::sync::Arc;
use std::sync::Mutex;

use actix::fut;
use actix::prelude::*;
use actix_pubsub::CloseReason;
use actix_pubsub::Overflow;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::SubscriptionClosed;
use futures::StreamExt;
use futures::channel::oneshot;

use crate::support::Log;
use crate::support::Note;
use crate::support::Probe;
use crate::support::subscribe;
use crate::support::subscribe_with;
use crate::support::system;
use crate::support::until;
use crate::support::within;

/// A probe that handles note 0 until it is released.
struct Stalled {
    probe: Addr<Probe>,
    log: Log,
    release: oneshot::Sender<()>,
    subscription: actix_pubsub::Subscription,
}

async fn stalled(pubsub: &PubSub, options: SubscribeOptions) -> Stalled {
    let (release, released) = oneshot::channel();
    let mut released = Some(released);
    let (probe, log) = Probe::start_with(move |value, ctx| {
        if let (0, Some(released)) = (value, released.take()) {
            ctx.wait(fut::wrap_future(async { released.await.unwrap_or(()) }));
        }
    });
    let subscription = subscribe_with(pubsub, &probe, "t", options).await;
    pubsub.broadcast("t", Note(0)).unwrap();
    until("it is stalled", || log.len() == 1).await;
    Stalled { probe, log, release, subscription }
}

fn options(capacity: usize, overflow: Overflow) -> SubscribeOptions {
    SubscribeOptions::new().capacity(capacity).overflow(overflow)
}

fn publish(pubsub: &PubSub, notes: std::ops::RangeInclusive<u64>) {
    for note in notes {
        assert_eq!(pubsub.broadcast("t", Note(note)).unwrap().full, 0);
    }
}

#[test]
fn drop_oldest_keeps_capacity_events_and_counts_the_rest_exactly() {
    system(async {
        for (published, kept, missed) in [(8, 1..=8, 0), (9, 2..=9, 1), (5_000, 4_993..=5_000, 4_992)] {
            let pubsub = PubSub::new();
            let it = stalled(&pubsub, options(8, Overflow::DropOldest)).await;
            publish(&pubsub, 1..=published);
            until("all is queued", || pubsub.stats().arbiters[0].port_depth == 0).await;
            let stats = it.subscription.stats().unwrap();
            assert_eq!((stats.depth, stats.capacity, stats.missed, stats.delivered), (8, 8, missed, 1));
            it.release.send(()).unwrap();
            until("it has caught up", || it.log.values().last() == Some(&published)).await;
            assert_eq!(it.log.values()[1..], kept.collect::<Vec<_>>());
            assert_eq!(it.log.missed()[1..], [missed, 0, 0, 0, 0, 0, 0, 0], "told once, with the next event");
        }
    });
}

#[test]
fn latest_keeps_all_up_to_its_capacity_and_only_the_newest_beyond() {
    system(async {
        for (published, kept, missed) in [(4, 1..=4, 0), (5, 5..=5, 4), (100, 100..=100, 99)] {
            let pubsub = PubSub::new();
            let it = stalled(&pubsub, options(4, Overflow::Latest)).await;
            publish(&pubsub, 1..=published);
            until("all is queued", || pubsub.stats().arbiters[0].port_depth == 0).await;
            let depth = kept.clone().count() as u64;
            assert_eq!(it.subscription.stats().map(|stats| (stats.depth, stats.missed)), Some((depth, missed)));
            it.release.send(()).unwrap();
            until("it has caught up", || it.log.values().last() == Some(&published)).await;
            assert_eq!(it.log.values()[1..], kept.collect::<Vec<_>>());
            assert_eq!(it.log.missed()[1], missed);
        }
    });
}

/// Tells what it was told.
struct Closings(Arc<Mutex<Vec<SubscriptionClosed>>>);

impl Actor for Closings {
    type Context = Context<Self>;
}

impl Handler<SubscriptionClosed> for Closings {
    type Result = ();

    fn handle(&mut self, closed: SubscriptionClosed, _: &mut Self::Context) {
        self.0.lock().unwrap().push(closed);
    }
}

#[test]
fn disconnect_ends_the_subscription_one_past_its_capacity_and_says_so() {
    system(async {
        for (published, ended) in [(8, false), (9, true), (50, true)] {
            let pubsub = PubSub::new();
            let told = Arc::new(Mutex::new(Vec::new()));
            let closings = Closings(Arc::clone(&told)).start();
            let options = options(8, Overflow::Disconnect).on_close(closings.clone().recipient());
            let it = stalled(&pubsub, options).await;
            publish(&pubsub, 1..=published);
            until("all is queued", || pubsub.stats().arbiters[0].port_depth == 0).await;
            assert_eq!((it.subscription.is_active(), pubsub.subscribers("t")), (!ended, usize::from(!ended)));
            it.release.send(()).unwrap();
            if ended {
                until("it is told", || told.lock().unwrap().len() == 1).await;
                let told = told.lock().unwrap();
                assert_eq!(told[0].reason, CloseReason::Overflow { capacity: 8 });
                assert_eq!((told[0].topic.as_str(), told[0].discarded), ("t", 8), "what may wait is discarded");
            } else {
                until("it has caught up", || it.log.len() == 9).await;
                assert_eq!(it.log.values(), (0..=8).collect::<Vec<_>>());
            }
            drop(it.probe);
        }
    });
}

#[test]
fn a_disconnected_subscriber_lives_on_and_may_subscribe_again() {
    system(async {
        let pubsub = PubSub::new();
        let it = stalled(&pubsub, options(1, Overflow::Disconnect)).await;
        publish(&pubsub, 1..=2);
        until("it is cut off", || !it.subscription.is_active()).await;
        it.release.send(()).unwrap();
        subscribe(&pubsub, &it.probe, "t").await;
        publish(&pubsub, 3..=3);
        until("it hears again", || it.log.len() == 2).await;
        assert_eq!((it.log.values(), it.log.missed()), (vec![0, 3], vec![0, 0]));
    });
}

#[test]
fn a_stalled_subscriber_is_named_by_stats_and_costs_the_others_nothing() {
    system(async {
        let pubsub = PubSub::new();
        let it = stalled(&pubsub, options(100, Overflow::DropOldest).metadata("the slow one")).await;
        let (quick, log) = Probe::start_new();
        subscribe(&pubsub, &quick, "t").await;
        for round in 0..20 {
            publish(&pubsub, round * 500 + 1..=(round + 1) * 500);
            until("the quick one has them", || log.len() as u64 == (round + 1) * 500).await;
        }
        assert!(log.missed().iter().all(|missed| *missed == 0), "the quick one loses nothing");
        assert_eq!(log.values(), (1..=10_000).collect::<Vec<_>>());
        let stats = pubsub.stats();
        let slow = stats.subscriptions.iter().max_by_key(|subscription| subscription.depth).unwrap();
        assert_eq!((slow.depth, slow.missed, slow.metadata.as_deref()), (100, 9_900, Some("the slow one")));
        assert!(slow.actor.ends_with("Probe"), "{}", slow.actor);
        let stalled = || pubsub.stats().subscriptions.iter().any(|subscription| subscription.stalled_ms > 0);
        until("how long it has taken nothing is told", stalled).await;
        assert_eq!(stats.subscriptions.iter().map(|subscription| subscription.depth).sum::<u64>(), 100);
        it.release.send(()).unwrap();
        until("it has caught up", || it.log.values().last() == Some(&10_000)).await;
        assert_eq!((it.log.len(), it.log.missed()[1]), (101, 9_900));
    });
}

/// The memory behind a stalled subscriber is its capacity, however much is published: payloads beyond it are dropped.
#[test]
fn what_a_stalled_subscriber_holds_is_bounded_by_its_capacity() {
    struct Heavy(#[allow(dead_code)] Arc<()>);
    system(async {
        let pubsub = PubSub::new();
        let alive = Arc::new(());
        let stream =
            pubsub.stream_with::<Heavy>("t", &SubscribeOptions::new().capacity(16).overflow(Overflow::DropOldest)).unwrap();
        let mut reader = pubsub.stream::<Heavy>("t").unwrap();
        for _ in 0..1_000 {
            pubsub.local_broadcast("t", Heavy(Arc::clone(&alive))).unwrap();
            reader.next().await.unwrap();
        }
        // The reader's own subscription has the default capacity, but it has read everything.
        assert!(Arc::strong_count(&alive) <= 1 + SubscribeOptions::CAPACITY_DEFAULT, "{}", Arc::strong_count(&alive));
        drop(reader);
        assert_eq!(Arc::strong_count(&alive), 1 + 16, "the ring shrinks to what the rest may need");
        drop(stream);
        assert_eq!(Arc::strong_count(&alive), 1);
    });
}

#[test]
fn a_full_port_is_told_in_the_receipt_and_counted_by_the_subscribers_behind_it() {
    system(async {
        let pubsub = PubSub::builder().port_capacity(4).build().unwrap();
        let arbiter = Arbiter::new();
        let (probe, log) = Probe::start_on(&arbiter.handle());
        subscribe(&pubsub, &probe, "t").await;
        // The arbiter is busy, so nobody drains its port.
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (tell, told) = oneshot::channel();
        arbiter.spawn_fn(move || {
            tell.send(()).unwrap();
            released.recv().unwrap();
        });
        told.await.unwrap();
        let full: usize = (1..=10).map(|note| pubsub.broadcast("t", Note(note)).unwrap().full).sum();
        assert_eq!((full, pubsub.stats().arbiters[0].port_refused), (6, 6));
        let waiting = actix::spawn({
            let pubsub = pubsub.clone();
            async move { pubsub.broadcast_async("t", Note(11)).await.unwrap() }
        });
        release.send(()).unwrap();
        assert_eq!(waiting.await.unwrap().full, 0, "it waited for room");
        until("the last one is there", || log.values().last() == Some(&11)).await;
        assert_eq!((log.values(), log.missed()), (vec![1, 2, 3, 4, 11], vec![0, 0, 0, 0, 6]));
        within(&probe, |_, _| ()).await;
        arbiter.stop();
        arbiter.join().unwrap();
    });
}
