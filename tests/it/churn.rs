//! Churn: exact at every moment, while subscribers come, go and die on several arbiters and others broadcast.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use actix::prelude::*;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use futures::FutureExt;
use futures::StreamExt;

use crate::support::Note;
use crate::support::Probe;
use crate::support::quiet_panics;
use crate::support::spin_until;
use crate::support::system;
use crate::support::until;

#[test]
fn what_begins_after_subscribe_arrives_and_what_ended_before_it_does_not_under_load() {
    let pubsub = PubSub::new();
    let topic = Topic::parse("t").unwrap();
    let (started, returned) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (pubsub, topic, started, returned, stop) =
            (pubsub.clone(), topic.clone(), Arc::clone(&started), Arc::clone(&returned), Arc::clone(&stop));
        std::thread::spawn(move || {
            futures::executor::block_on(async {
                let mut note = 0;
                while !stop.load(Ordering::SeqCst) {
                    note += 1;
                    started.store(note, Ordering::SeqCst);
                    pubsub.broadcast_async(&topic, Note(note)).await.unwrap();
                    returned.store(note, Ordering::SeqCst);
                }
            });
        })
    };
    let subscribers: Vec<_> = (0..4)
        .map(|_| {
            let (pubsub, topic, started, returned) = (pubsub.clone(), topic.clone(), Arc::clone(&started), Arc::clone(&returned));
            std::thread::spawn(move || {
                system(async {
                    for _ in 0..500 {
                        let before = returned.load(Ordering::SeqCst);
                        let mut stream = pubsub.stream::<Note>(&topic).unwrap();
                        let after = started.load(Ordering::SeqCst);
                        let event = stream.next().await.unwrap();
                        assert_eq!(event.missed(), 0);
                        let first = event.0;
                        assert!(first > before, "{first} had been broadcast before {before} returned");
                        assert!(first <= after + 1, "{first} came, but {} began after subscribe returned", after + 1);
                        assert_eq!(stream.next().await.unwrap().0, first + 1);
                    }
                });
            })
        })
        .collect();
    for subscriber in subscribers {
        subscriber.join().unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    publisher.join().unwrap();
    assert_eq!((pubsub.subscribers(&topic), pubsub.topics().len()), (0, 0));
}

#[test]
fn counts_are_exact_after_four_arbiters_of_subscribers_came_went_and_died_under_four_publishers() {
    quiet_panics();
    system(async {
        let pubsub = PubSub::new();
        let stop = Arc::new(AtomicBool::new(false));
        let topics: Arc<Vec<Topic>> = Arc::new((0..5).map(|n| Topic::parse(&format!("t{n}")).unwrap()).collect());
        let publishers: Vec<_> = (0..4)
            .map(|who| {
                let (pubsub, stop, topics) = (pubsub.clone(), Arc::clone(&stop), Arc::clone(&topics));
                std::thread::spawn(move || {
                    let mut note = who;
                    while !stop.load(Ordering::SeqCst) {
                        // One in a hundred kills whoever hears it.
                        pubsub.broadcast(&topics[note as usize % 5], Note(if note % 100 == 0 { 13 } else { 1 })).unwrap();
                        note += 7;
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        let arbiters: Vec<Arbiter> = (0..4).map(|_| Arbiter::new()).collect();
        let finished = Arc::new(AtomicU64::new(0));
        for arbiter in &arbiters {
            let (pubsub, topics, finished) = (pubsub.clone(), Arc::clone(&topics), Arc::clone(&finished));
            arbiter.spawn(async move {
                for round in 0..300_u64 {
                    let (probe, _) = Probe::start_with(|value, _| assert!(value != 13, "on purpose"));
                    let (theirs, topic) = (pubsub.clone(), topics[round as usize % 5].clone());
                    let subscribing = probe.send(crate::support::Do(Box::new(move |_: &mut Probe, ctx: &mut Context<Probe>| {
                        let one = theirs.subscribe::<Note, _>(ctx, &topic).unwrap();
                        theirs.subscribe::<Note, _>(ctx, "t0").unwrap();
                        one
                    })));
                    // The actor may be killed before it answers.
                    if let Ok(subscription) = subscribing.await {
                        match round % 4 {
                            0 => drop(subscription.unsubscribe()),
                            1 => drop(pubsub.unsubscribe_all(&probe)),
                            _ => {}
                        }
                    }
                    // Three of four are let go; a subscription keeps the others alive.
                    if round % 4 != 3 {
                        pubsub.unsubscribe_all(&probe);
                    }
                }
                finished.fetch_add(1, Ordering::SeqCst);
            });
        }
        spin_until("all rounds are done", || finished.load(Ordering::SeqCst) == 4);
        stop.store(true, Ordering::SeqCst);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let counted = || topics.iter().map(|topic| pubsub.subscribers(topic)).sum::<usize>();
        until("ports are empty", || pubsub.stats().arbiters.iter().all(|arbiter| arbiter.port_depth == 0)).await;
        assert_eq!(counted(), pubsub.stats().subscriptions.len());
        pubsub.broadcast_many(topics.iter(), Note(13)).unwrap();
        until("everybody is dead", || counted() == 0).await;
        let stats = pubsub.stats();
        assert_eq!((stats.topics, stats.subscriptions.len()), (0, 0));
        assert!(stats.arbiters.iter().all(|arbiter| arbiter.registry_restarts == 0 && arbiter.foreign_panics == 0));
        for arbiter in arbiters {
            arbiter.stop();
            arbiter.join().unwrap();
        }
    });
}

#[test]
fn a_subscription_made_and_dropped_between_two_events_gets_neither() {
    system(async {
        let pubsub = PubSub::new();
        pubsub.broadcast("t", Note(1)).unwrap();
        let mut stream = pubsub.stream::<Note>("t").unwrap();
        assert!(stream.next().now_or_never().is_none());
        drop(stream);
        assert_eq!(pubsub.broadcast("t", Note(2)).unwrap().ports, 0);
        assert!(pubsub.stream::<Note>("t").unwrap().next().now_or_never().is_none());
    });
}
