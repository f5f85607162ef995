//! Regressions: what was found broken once, with the story of each.
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::Mutex;
use std::sync::mpsc;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::*;
use futures::FutureExt;

use crate::support::*;

fn elsewhere(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work).join().unwrap();
}

/// Ten events came in before a `Disconnect` member was visited: it read the last four as if it were `DropOldest`, and stayed.
#[test]
fn disconnect_in_a_burst_through_the_port() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        let subscription =
            subscribe_with(&pubsub, &probe, "t", SubscribeOptions::new().capacity(4).overflow(Overflow::Disconnect)).await;
        let theirs = pubsub.clone();
        elsewhere(move || (0..10).for_each(|n| assert_eq!(theirs.broadcast("t", Note(n)).unwrap().full, 0)));
        until("it is cut off", || !subscription.is_active()).await;
        within(&probe, |_, _| ()).await;
        assert!(log.missed().iter().all(|missed| *missed == 0), "a Disconnect subscriber saw a gap");
    });
}

/// The same on the publisher's own arbiter, where a topic of nine is fanned out by the registry.
#[test]
fn disconnect_in_a_burst_on_its_own_arbiter_with_nine_subscribers() {
    system(async {
        let pubsub = PubSub::new();
        let mut all = Vec::new();
        for _ in 0..9 {
            let (probe, log) = Probe::start_new();
            let options = SubscribeOptions::new().capacity(4).overflow(Overflow::Disconnect);
            all.push((subscribe_with(&pubsub, &probe, "t", options).await, probe, log));
        }
        (0..10).for_each(|n| assert_eq!(pubsub.broadcast("t", Note(n)).unwrap().full, 0));
        until("all are cut off", || all.iter().all(|(subscription, ..)| !subscription.is_active())).await;
        assert!(all.iter().all(|(.., log)| log.missed().iter().all(|missed| *missed == 0)));
    });
}

/// A batch of events was taken before the handler of the first one unsubscribed: it got the others all the same.
#[test]
fn nothing_arrives_after_unsubscribe_in_a_handler() {
    system(async {
        let pubsub = PubSub::new();
        let handle: Arc<Mutex<Option<Subscription>>> = Arc::default();
        let theirs = Arc::clone(&handle);
        let (probe, log) = Probe::start_with(move |n, _| {
            if n == 1 {
                assert!(theirs.lock().unwrap().as_ref().unwrap().unsubscribe());
            }
        });
        *handle.lock().unwrap() = Some(subscribe(&pubsub, &probe, "t").await);
        (0..10).for_each(|n| assert_eq!(pubsub.broadcast("t", Note(n)).unwrap().full, 0));
        until("it has unsubscribed", || pubsub.subscribers("t") == 0 && pubsub.stats().delivered == 2).await;
        // Whatever is still in a batch would be handled before this.
        within(&probe, |_, _| ()).await;
        let stats = pubsub.stats();
        assert_eq!(log.values(), [0, 1]);
        assert_eq!((stats.delivered, stats.discarded), (2, 8));
    });
}

/// The drop of an evicted payload broadcast from within the registry's turn, which then slept on the fan-out it had not seen.
#[test]
fn a_broadcast_in_a_payloads_drop_within_a_turn_reaches_a_big_topic() {
    struct Bomb(Option<PubSub>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if let Some(pubsub) = &self.0 {
                drop(pubsub.local_broadcast("big", Note(7)));
            }
        }
    }
    system(async {
        let pubsub = PubSub::new();
        let _stalled = pubsub.stream_with::<Bomb>("small", &SubscribeOptions::new().capacity(1)).unwrap();
        let mut probes = Vec::new();
        for _ in 0..20 {
            let (probe, log) = Probe::start_new();
            subscribe(&pubsub, &probe, "big").await;
            probes.push((probe, log));
        }
        let theirs = pubsub.clone();
        elsewhere(move || {
            theirs.local_broadcast("small", Bomb(Some(theirs.clone()))).unwrap();
            theirs.local_broadcast("small", Bomb(None)).unwrap();
        });
        until("all have it", || probes.iter().all(|(_, log)| log.len() == 1)).await;
    });
}

struct Slow(Arc<Mutex<Vec<u64>>>);
impl Actor for Slow {
    type Context = SyncContext<Self>;
}
impl Handler<Event<Note>> for Slow {
    type Result = ();
    fn handle(&mut self, event: Event<Note>, _: &mut Self::Context) {
        std::thread::sleep(Duration::from_millis(2));
        self.0.lock().unwrap().push(event.0);
    }
}

/// The background registry stopped its thread at a shutdown, and with it the couriers and what they had yet to bring.
#[test]
fn a_shutdown_delivers_what_waits_for_a_slow_courier() {
    system(async {
        let pubsub = PubSub::new();
        let got = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&got);
        let addr = SyncArbiter::start(1, move || Slow(Arc::clone(&theirs)));
        pubsub.subscribe_addr::<Note, _>(&addr, "t").unwrap();
        (0..200).for_each(|n| assert_eq!(pubsub.broadcast("t", Note(n)).unwrap().full, 0));
        pubsub.shutdown().await;
        until("it has handled all", || got.lock().unwrap().len() == 200).await;
    });
}

struct Member {
    subscriptions: Subscriptions<Self>,
}
impl Actor for Member {
    type Context = Context<Self>;
}
impl Handler<Event<Note>> for Member {
    type Result = ();
    fn handle(&mut self, _: Event<Note>, _: &mut Self::Context) {}
}
impl<R: 'static> Handler<Do<Self, R>> for Member {
    type Result = MessageResult<Do<Self, R>>;
    fn handle(&mut self, Do(work): Do<Self, R>, ctx: &mut Self::Context) -> Self::Result {
        MessageResult(work(self, ctx))
    }
}

/// The record kept the handle of the ended subscription, so the new one could not be ended through it.
#[test]
fn a_record_that_was_subscribed_anew_can_be_unsubscribed() {
    system(async {
        let pubsub = PubSub::new();
        let member = Member { subscriptions: Subscriptions::new(pubsub.clone()) }.start();
        let theirs = pubsub.clone();
        member
            .send(Do(Box::new(move |member: &mut Member, ctx: &mut Context<Member>| {
                let first = member.subscriptions.subscribe::<Note>(ctx, "t").unwrap();
                assert!(first.unsubscribe()); // or by Overflow::Disconnect
                member.subscriptions.subscribe::<Note>(ctx, "t").unwrap();
                assert!(member.subscriptions.unsubscribe::<Note>("t"));
                assert_eq!(theirs.subscribers("t"), 0, "it said true");
            })))
            .await
            .unwrap();
    });
}

/// Forgetting one topic moved the last one into its place.
#[test]
fn recorded_topics_keep_their_order() {
    system(async {
        let pubsub = PubSub::new();
        let member = Member { subscriptions: Subscriptions::new(pubsub.clone()) }.start();
        member
            .send(Do(Box::new(move |member: &mut Member, ctx: &mut Context<Member>| {
                for topic in ["a", "b", "c"] {
                    member.subscriptions.subscribe::<Note>(ctx, topic).unwrap();
                }
                assert!(member.subscriptions.unsubscribe::<Note>("a"));
                assert_eq!(member.subscriptions.topics().map(ToString::to_string).collect::<Vec<_>>(), ["b", "c"]);
            })))
            .await
            .unwrap();
    });
}

/// The second thread joined the seat first and took the handler that the first one's pump brought along: its events went nowhere.
#[test]
fn two_threads_that_subscribe_one_actor_for_two_types_at_once() {
    system(async {
        let pubsub = PubSub::new();
        for _ in 0..1_000 {
            let (probe, log) = Probe::start_new();
            let barrier = Arc::new(Barrier::new(2));
            let threads = [0, 1].map(|which| {
                let (pubsub, probe, barrier) = (pubsub.clone(), probe.clone(), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    if which == 0 {
                        pubsub.subscribe_addr::<Note, _>(&probe, "n").unwrap();
                    } else {
                        pubsub.subscribe_addr::<Word, _>(&probe, "w").unwrap();
                    }
                })
            });
            for thread in threads {
                thread.join().unwrap();
            }
            pubsub.broadcast("n", Note(1)).unwrap();
            pubsub.broadcast("w", Word(String::from("four"))).unwrap();
            let id = SubscriberId::of(&probe);
            until("handed over", || {
                pubsub.stats().subscriptions.iter().filter(|s| s.subscriber == id).map(|s| s.delivered).sum::<u64>() == 2
            })
            .await;
            until("it is deaf to neither", || log.len() == 2).await;
            pubsub.unsubscribe_all(&probe);
            until("gone", || pubsub.stats().subscriptions.is_empty()).await;
        }
    });
}

struct Calls(Box<dyn Fn() + Send + Sync>);
impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn within_30_s(work: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        work();
        tell.send(()).unwrap();
    });
    assert!(told.recv_timeout(Duration::from_secs(30)).is_ok(), "deadlock");
}

/// Wakers were woken under the lock that a look at the shutdown takes.
#[test]
fn a_shutdown_waker_may_look_at_the_shutdown() {
    within_30_s(|| {
        system(async {
            let pubsub = PubSub::new();
            let (probe, _) = Probe::start_new();
            subscribe(&pubsub, &probe, "t").await;
            let theirs = pubsub.clone();
            let waker = Waker::from(Arc::new(Calls(Box::new(move || {
                let _ = theirs.shutdown().now_or_never();
            }))));
            let mut shutdown = pubsub.shutdown();
            let _ = shutdown.poll_unpin(&mut std::task::Context::from_waker(&waker));
            shutdown.await;
        });
    });
}

/// Wakers of publishers were woken under the table's lock.
#[test]
fn a_publisher_that_waits_for_room_may_look_at_the_stats_when_woken() {
    within_30_s(|| {
        system(async {
            let pubsub = PubSub::builder().port_capacity(1).build().unwrap();
            let (probe, log) = Probe::start_new();
            let subscription = subscribe(&pubsub, &probe, "t").await;
            let theirs = pubsub.clone();
            elsewhere(move || {
                theirs.broadcast("t", Note(1)).unwrap();
                let waker = Waker::from(Arc::new(Calls(Box::new(move || drop(subscription.stats())))));
                let mut waits = Box::pin(theirs.broadcast_async("t", Note(2)));
                assert!(waits.poll_unpin(&mut std::task::Context::from_waker(&waker)).is_pending());
            });
            until("it has it", || log.len() == 1).await;
        });
    });
}

/// The panic left the shard in the list of the living for ever.
#[test]
fn a_queued_payload_that_panics_when_dropped_does_not_keep_a_shutdown_from_ending() {
    struct Bomb(bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(!self.0 || std::thread::panicking(), "on purpose");
        }
    }
    quiet_panics();
    system(async {
        let pubsub = PubSub::new();
        let arbiter = Arbiter::new();
        let (tell, told) = mpsc::channel();
        let theirs = pubsub.clone();
        arbiter.spawn_fn(move || {
            tell.send(theirs.stream::<Bomb>("t").unwrap()).unwrap();
        });
        let stream = told.recv().unwrap();
        // Its registry has had its first turn when this is answered.
        let (tell, told) = mpsc::channel();
        arbiter.spawn(async move {
            one_turn().await;
            tell.send(()).unwrap();
        });
        told.recv().unwrap();
        let theirs = pubsub.clone();
        arbiter.spawn_fn(move || {
            // More tasks than one tick runs stand before the registry's turn.
            (0..200).for_each(|_| drop(actix_rt::spawn(async {})));
            (0..512).for_each(|_| assert_eq!(theirs.local_broadcast("t", Bomb(false)).map_err(drop).unwrap().full, 0));
            theirs.local_broadcast("t", Bomb(true)).map_err(drop).unwrap();
            Arbiter::current().stop();
        });
        drop(stream);
        assert!(actix::clock::timeout(Duration::from_secs(30), pubsub.shutdown()).await.is_ok(), "it never resolves");
    });
}

/// The panic left `Pump::drop` during an unwinding, which aborts the process.
#[test]
fn a_shutdown_waker_that_panics_does_not_abort_when_an_actor_panics() {
    quiet_panics();
    system(async {
        let pubsub = PubSub::new();
        let theirs: Arc<Mutex<Option<Shutdown>>> = Arc::default();
        let (from, shut) = (pubsub.clone(), Arc::clone(&theirs));
        let (probe, _) = Probe::start_with(move |_, _| {
            let mut shutdown = from.shutdown();
            let waker = Waker::from(Arc::new(Calls(Box::new(|| panic!("on purpose")))));
            let _ = shutdown.poll_unpin(&mut std::task::Context::from_waker(&waker));
            *shut.lock().unwrap() = Some(shutdown);
            panic!("on purpose");
        });
        subscribe(&pubsub, &probe, "t").await;
        pubsub.broadcast("t", Note(1)).unwrap();
        until("it is dead", || !probe.connected()).await;
    });
}

/// The panic left the drop of a batch during an unwinding, which aborts the process.
#[test]
fn a_payload_left_in_a_batch_may_panic_when_its_handler_panicked() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    struct It(Arc<Mutex<Option<Subscription>>>);
    impl Actor for It {
        type Context = Context<Self>;
    }
    impl Handler<Event<Bomb>> for It {
        type Result = ();
        fn handle(&mut self, event: Event<Bomb>, _: &mut Self::Context) {
            std::mem::forget(event);
            self.0.lock().unwrap().as_ref().unwrap().unsubscribe();
            panic!("on purpose");
        }
    }
    impl<R: 'static> Handler<Do<Self, R>> for It {
        type Result = MessageResult<Do<Self, R>>;
        fn handle(&mut self, Do(work): Do<Self, R>, ctx: &mut Self::Context) -> Self::Result {
            MessageResult(work(self, ctx))
        }
    }
    quiet_panics();
    system(async {
        let pubsub = PubSub::new();
        let handle: Arc<Mutex<Option<Subscription>>> = Arc::default();
        let it = It(Arc::clone(&handle)).start();
        let theirs = pubsub.clone();
        let work: Work<It, Subscription> = Box::new(move |_, ctx| theirs.subscribe::<Bomb, _>(ctx, "t").unwrap());
        *handle.lock().unwrap() = Some(it.send(Do(work)).await.unwrap());
        pubsub.local_broadcast("t", Bomb).map_err(drop).unwrap();
        pubsub.local_broadcast("t", Bomb).map_err(drop).unwrap();
        until("it is dead", || !it.connected()).await;
        until("both payloads are gone", || pubsub.stats().discarded == 1).await;
    });
}
