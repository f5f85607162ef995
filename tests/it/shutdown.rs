//! Shutdown: what was queued is delivered or counted, and nothing hangs, panics or leaks.

use std::sync::Arc;

use actix::fut;
use actix::prelude::*;
use actix_pubsub::CloseReason;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::SubscriptionClosed;
use futures::FutureExt;
use futures::StreamExt;
use futures::channel::oneshot;

use crate::support::Note;
use crate::support::Probe;
use crate::support::subscribe;
use crate::support::subscribe_with;
use crate::support::system;
use crate::support::until;
use crate::support::within;

#[test]
fn what_was_queued_before_a_shutdown_is_delivered_on_every_arbiter() {
    system(async {
        let pubsub = PubSub::new();
        let arbiter = Arbiter::new();
        let (here, log) = Probe::start_new();
        let (there, other) = Probe::start_on(&arbiter.handle());
        let (outside, third) = Probe::start_new();
        subscribe(&pubsub, &here, "t").await;
        subscribe(&pubsub, &there, "t").await;
        pubsub.subscribe_addr::<Note, _>(&outside, "t").unwrap();
        let stream = pubsub.stream::<Note>("t").unwrap();
        for note in 0..1_000 {
            pubsub.broadcast("t", Note(note)).unwrap();
        }
        let shutdown = pubsub.shutdown();
        assert!(pubsub.broadcast("t", Note(0)).is_err());
        let streamed: Vec<_> = stream.map(|event| event.0).collect().await;
        shutdown.await;
        assert_eq!(streamed, (0..1_000).collect::<Vec<_>>());
        assert_eq!((log.len(), other.len()), (1_000, 1_000));
        until("the mailbox is read", || third.len() == 1_000).await;
        let stats = pubsub.stats();
        assert_eq!((stats.delivered, stats.discarded, stats.missed, stats.topics), (4_000, 0, 0, 0));
        within(&here, |_, _| ()).await;
        arbiter.stop();
        arbiter.join().unwrap();
    });
}

struct Told(Option<oneshot::Sender<SubscriptionClosed>>);

impl Actor for Told {
    type Context = Context<Self>;
}

impl Handler<SubscriptionClosed> for Told {
    type Result = ();

    fn handle(&mut self, closed: SubscriptionClosed, _: &mut Self::Context) {
        self.0.take().unwrap().send(closed).unwrap();
    }
}

#[test]
fn a_shutdown_tells_who_asked_to_be_told_and_waits_for_a_stalled_subscriber_no_longer_than_its_caller() {
    system(async {
        let pubsub = PubSub::new();
        let (tell, told) = oneshot::channel();
        let listener = Told(Some(tell)).start();
        let (open, gate) = oneshot::channel::<()>();
        let (probe, log) = Probe::start_new();
        within(&probe, move |_, ctx| ctx.wait(fut::wrap_future(async move { gate.await.unwrap_or(()) }))).await;
        let (quick, _) = Probe::start_new();
        let options = SubscribeOptions::new().on_close(listener.clone().recipient());
        subscribe_with(&pubsub, &quick, "t", options).await;
        pubsub.subscribe_addr::<Note, _>(&quick, "u").unwrap();
        drop(open);
        until("it is released", || true).await;
        let (open, gate) = oneshot::channel::<()>();
        subscribe(&pubsub, &probe, "t").await;
        within(&probe, move |_, ctx| ctx.wait(fut::wrap_future(async move { gate.await.unwrap_or(()) }))).await;
        pubsub.broadcast("t", Note(1)).unwrap();
        let mut shutdown = pubsub.shutdown();
        let closed = told.await.unwrap();
        assert_eq!((closed.topic.as_str(), closed.reason, closed.discarded), ("t", CloseReason::Shutdown, 0));
        assert!((&mut shutdown).now_or_never().is_none(), "one subscriber has not read its event yet");
        open.send(()).unwrap();
        shutdown.await;
        assert_eq!(log.values(), [1], "it still got it");
        assert_eq!(pubsub.stats().subscriptions.len(), 0);
    });
}

#[test]
fn dropping_the_last_handle_is_a_shutdown() {
    system(async {
        let pubsub = PubSub::new();
        let stream = pubsub.stream::<Note>("t").unwrap();
        pubsub.broadcast("t", Note(1)).unwrap();
        drop(pubsub);
        assert_eq!(stream.map(|event| event.0).collect::<Vec<_>>().await, [1], "what was queued, then the end");
    });
}

#[test]
fn a_pubsub_that_is_gone_holds_no_memory_of_its_subscribers_payloads() {
    struct Heavy(#[allow(dead_code)] Arc<()>);
    let alive = Arc::new(());
    let runner = System::new();
    runner.block_on(async {
        let pubsub = PubSub::new();
        let stream = pubsub.stream::<Heavy>("t").unwrap();
        let (probe, _) = Probe::start_new();
        subscribe(&pubsub, &probe, "t").await;
        for _ in 0..100 {
            pubsub.local_broadcast("t", Heavy(Arc::clone(&alive))).unwrap();
        }
        assert!(Arc::strong_count(&alive) > 1);
        drop((stream, pubsub));
    });
    drop(runner);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_system_stopped_in_the_middle_of_a_storm_ends_without_a_hang_or_a_panic() {
    let pubsub = PubSub::new();
    let runner = System::new();
    let arbiters: Vec<_> = runner.block_on(async {
        let arbiters: Vec<_> = (0..3).map(|_| Arbiter::new()).collect();
        for arbiter in &arbiters {
            for _ in 0..100 {
                let (probe, _) = Probe::start_on(&arbiter.handle());
                subscribe(&pubsub, &probe, "t").await;
            }
        }
        arbiters
    });
    let publisher = {
        let pubsub = pubsub.clone();
        std::thread::spawn(move || {
            let mut sent = 0_u64;
            while pubsub.broadcast("t", Note(1)).is_ok() && pubsub.subscribers("t") > 0 {
                sent += 1;
            }
            sent
        })
    };
    crate::support::spin_until("the storm is on", || pubsub.stats().delivered > 10_000);
    runner.block_on(async { System::current().stop() });
    runner.run().unwrap();
    for arbiter in arbiters {
        arbiter.join().unwrap();
    }
    assert!(publisher.join().unwrap() > 0);
    let stats = pubsub.stats();
    assert_eq!((stats.topics, stats.subscriptions.len(), stats.arbiters.len()), (0, 0, 0));
    assert!(stats.discarded > 0 || stats.delivered > 10_000, "what was queued is counted");
    futures::executor::block_on(pubsub.shutdown());
}

#[test]
fn a_stream_that_has_read_everything_and_is_not_polled_does_not_keep_a_shutdown_from_ending() {
    system(async {
        let pubsub = PubSub::new();
        let mut read = pubsub.stream::<Note>("t").unwrap();
        let unread = pubsub.stream::<Note>("never").unwrap();
        pubsub.broadcast("t", Note(1)).unwrap();
        assert_eq!(read.next().await.map(|event| event.0), Some(1));
        pubsub.shutdown().await;
        assert!(read.next().await.is_none());
        assert_eq!((unread.subscription().is_active(), pubsub.stats().subscriptions.len()), (false, 0));
    });
}
