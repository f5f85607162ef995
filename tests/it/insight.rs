//! Insight: what a `PubSub` says of itself is so, and names the one that is slow and the thing that went wrong.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::Incident;
use actix_pubsub::IncidentKind;
use actix_pubsub::Overflow;
use actix_pubsub::PubSub;
use actix_pubsub::Stats;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::Topic;
use actix_pubsub::log::MemoryStore;
use futures::StreamExt;

use crate::support::Note;
use crate::support::Probe;
use crate::support::Worker;
use crate::support::append_notes;
use crate::support::failed;
use crate::support::ok;
use crate::support::quiet_panics;
use crate::support::spin_until;
use crate::support::subscribe;
use crate::support::subscribe_with;
use crate::support::system;
use crate::support::until;

/// In total, and the lists agree with the totals.
fn assert_balanced(stats: &Stats) {
    let Stats { addressed, delivered, missed, discarded, waiting, .. } = *stats;
    assert_eq!(addressed, delivered + missed + discarded + waiting, "{stats:?}");
    assert_eq!(stats.subscriptions.iter().map(|one| one.depth).sum::<u64>(), waiting);
    assert_eq!((stats.subscriptions_total, stats.topics), (stats.subscriptions.len(), stats.by_topic.len()));
    assert_eq!(stats.by_topic.iter().map(|topic| topic.subscribers).sum::<usize>(), stats.subscriptions_total);
}

fn at_rest(pubsub: &PubSub) -> bool {
    pubsub.summary().arbiters.iter().all(|arbiter| arbiter.port_depth == 0)
}

#[test]
fn counters_balance_after_churn_deaths_and_overflow_on_four_arbiters() {
    quiet_panics();
    system(async {
        let pubsub = PubSub::builder().port_capacity(256).build().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let topics: Arc<Vec<Topic>> = Arc::new((0..3).map(|n| Topic::parse(&format!("t{n}")).unwrap()).collect());
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let (pubsub, stop, topics) = (pubsub.clone(), Arc::clone(&stop), Arc::clone(&topics));
                std::thread::spawn(move || {
                    let mut note = 1;
                    while !stop.load(Ordering::Relaxed) {
                        pubsub.local_broadcast(&topics[note as usize % 3], Note(note)).unwrap();
                        note += 1;
                    }
                })
            })
            .collect();
        let mut kept = Vec::new();
        let homes: Vec<_> = (0..4).map(|_| Arbiter::new()).collect();
        for round in 0..40_u64 {
            for arbiter in &homes {
                let (pubsub, topics) = (pubsub.clone(), Arc::clone(&topics));
                let (tell, told) = std::sync::mpsc::channel();
                arbiter.spawn_fn(move || {
                    let overflow = [Overflow::DropOldest, Overflow::Latest, Overflow::Disconnect][round as usize % 3];
                    let options = SubscribeOptions::new().capacity(1 + round as usize % 7).overflow(overflow);
                    let unread = pubsub.stream_with::<Note>(&topics[0], &options).unwrap();
                    let (probe, _) = Probe::start_with(move |value, ctx| match value % 1_000 {
                        7 => panic!("on purpose"),
                        8 => ctx.stop(),
                        _ => {}
                    });
                    let subscriber = pubsub.clone();
                    probe.do_send(crate::support::Do(Box::new(move |_, ctx: &mut Context<Probe>| {
                        for topic in topics.iter() {
                            subscriber.subscribe_with::<Note, _>(ctx, topic, &options).unwrap();
                        }
                    })));
                    tell.send((probe, unread)).unwrap();
                });
                let (probe, unread) = told.recv().unwrap();
                // Some streams are never read, some are dropped with all that waits in them.
                if round % 2 == 0 {
                    kept.push((probe, unread));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let still = |pubsub: &PubSub| {
            let one = pubsub.summary();
            (one.addressed, one.delivered, one.missed, one.discarded, one.waiting)
        };
        until("all is handled", || {
            at_rest(&pubsub) && {
                let before = still(&pubsub);
                std::thread::yield_now();
                pubsub.stats().subscriptions.iter().all(|one| one.depth == 0 || one.actor.contains("EventStream"))
                    && before == still(&pubsub)
            }
        })
        .await;
        let stats = pubsub.stats();
        assert!(stats.missed > 0 && stats.discarded > 0 && stats.waiting > 0 && stats.delivered > 0, "{stats:?}");
        assert_balanced(&stats);
        drop(kept);
        until("the streams are gone", || !pubsub.stats().subscriptions.iter().any(|one| one.actor.contains("EventStream"))).await;
        let after = pubsub.stats();
        assert!(after.discarded > stats.discarded);
        assert_balanced(&after);
        for arbiter in homes {
            arbiter.stop();
            arbiter.join().unwrap();
        }
        let end = pubsub.stats();
        assert_eq!(
            (end.arbiters.len(), end.addressed, end.delivered),
            (0, after.addressed, after.delivered),
            "what was counted stays"
        );
        assert_balanced(&end);
    });
}

#[test]
fn what_a_subscription_counts_is_what_was_published_to_it() {
    system(async {
        let pubsub = PubSub::new();
        let options = SubscribeOptions::new().capacity(10);
        let mut stream = pubsub.stream_with::<Note>("t", &options).unwrap();
        for note in 0..100 {
            pubsub.local_broadcast("t", Note(note)).unwrap();
        }
        until("all is queued", || at_rest(&pubsub)).await;
        let of = stream.subscription().stats().unwrap();
        assert_eq!((of.delivered, of.missed, of.depth), (0, 90, 10));
        for _ in 0..4 {
            stream.next().await.unwrap();
        }
        let of = stream.subscription().stats().unwrap();
        assert_eq!((of.delivered, of.missed, of.depth), (4, 90, 6));
        assert!(of.taken_ms.is_some() && of.oldest_ms.is_some());
        let topic = &pubsub.stats().by_topic[0];
        assert_eq!((topic.topic.as_str(), topic.subscribers, topic.events, topic.backlog), ("t", 1, 100, 6));
        assert_balanced(&pubsub.stats());
        // An actor is given several at once.
        let (probe, log) = Probe::start_new();
        let of = subscribe(&pubsub, &probe, "many").await;
        for note in 0..10 {
            pubsub.local_broadcast("many", Note(note)).unwrap();
        }
        until("it has them", || log.len() == 10 && at_rest(&pubsub)).await;
        assert_eq!(of.stats().map(|of| (of.delivered, of.missed, of.depth)), Some((10, 0, 0)));
    });
}

/// An actor that handled a batch and pushed its own events out of its inbox meanwhile counted them as missed. An event that was never for it is no loss.
#[test]
fn own_events_that_overflow_the_own_inbox_while_a_batch_is_handled_are_not_missed() {
    system(async {
        let pubsub = PubSub::new();
        let speaker = pubsub.clone();
        let (probe, log) = Probe::start_with(move |value, ctx| {
            if value == 1 {
                for note in 100..120 {
                    speaker.local_broadcast_from(&ctx.address(), "t", Note(note)).unwrap();
                }
            }
        });
        subscribe_with(&pubsub, &probe, "t", SubscribeOptions::new().capacity(4)).await;
        for note in 0..3 {
            pubsub.local_broadcast("t", Note(note)).unwrap();
        }
        until("the batch is handled", || log.len() == 3 && at_rest(&pubsub)).await;
        pubsub.local_broadcast("t", Note(3)).unwrap();
        until("the next one came", || log.len() == 4).await;
        assert_eq!((log.values(), log.missed()), (vec![0, 1, 2, 3], vec![0; 4]));
        assert_balanced(&pubsub.stats());
    });
}

#[test]
fn a_paused_subscriber_among_100_000_is_first_in_top_slow_with_its_exact_depth() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        let options = SubscribeOptions::new().metadata("the paused one");
        let streams: Vec<_> = (0..100_000).map(|n| pubsub.stream::<Note>(format!("t{}", n % 1_000)).unwrap()).collect();
        let (tell, told) = futures::channel::oneshot::channel::<()>();
        let mut told = Some(told);
        let (paused, heard) = Probe::start_with(move |_, ctx| {
            if let Some(told) = told.take() {
                ctx.wait(actix::fut::wrap_future(async { told.await.unwrap_or(()) }));
            }
        });
        let subscription = subscribe_with(&pubsub, &paused, "t7", options).await;
        subscribe(&pubsub, &probe, "t7").await;
        pubsub.local_broadcast("t7", Note(0)).unwrap();
        until("it is paused", || heard.len() == 1).await;
        // The others read what they have: only this one does not.
        let mut readers = futures::stream::select_all(streams);
        for note in 1..=250 {
            pubsub.local_broadcast("t7", Note(note)).unwrap();
            if note % 50 == 0 {
                let mut read = 0;
                while read < 100 * if note == 50 { 51 } else { 50 } {
                    readers.next().await.unwrap();
                    read += 1;
                }
            }
        }
        until("the other actor has read", || log.len() == 251).await;
        let slow = pubsub.top_slow(3);
        assert_eq!(slow.len(), 1, "nobody else is behind: {slow:?}");
        let (first, own) = (&slow[0], subscription.stats().unwrap());
        assert_eq!((first.subscriber, first.depth, own.depth), (subscription.subscriber_id(), 250, 250));
        assert_eq!((first.topic.as_str(), first.metadata.as_deref()), ("t7", Some("the paused one")));
        assert!(first.actor.ends_with("support::Probe"), "{}", first.actor);
        until("its age is seen", || pubsub.top_slow(1)[0].stalled_ms >= 20).await;
        let aged = &pubsub.top_slow(1)[0];
        assert!(aged.oldest_ms >= Some(aged.stalled_ms), "{aged:?}");
        drop(tell);
        until("it has caught up", || heard.len() == 251).await;
        assert_eq!(pubsub.top_slow(3).len(), 0);
        let summary = pubsub.summary();
        assert_eq!((summary.subscriptions_total, summary.subscribers, summary.waiting), (100_002, 100_002, 0));
        assert_eq!((summary.subscriptions.len(), summary.by_topic.len()), (0, 0));
        assert_balanced(&pubsub.stats());
    });
}

#[test]
fn the_slowest_come_first_and_no_more_than_were_asked_for() {
    system(async {
        let pubsub = PubSub::new();
        let streams: Vec<_> = (0..5).map(|n| pubsub.stream::<Note>(format!("t{n}")).unwrap()).collect();
        for (depth, _) in streams.iter().enumerate() {
            for note in 0..depth as u64 {
                pubsub.local_broadcast(format!("t{depth}"), Note(note)).unwrap();
            }
        }
        until("all is queued", || at_rest(&pubsub)).await;
        // Within one tick of the clock or two: those of the earlier tick first, among them by depth.
        let slow = pubsub.top_slow(10);
        assert_eq!(slow.len(), 4, "the one with nothing is not slow");
        let rank = |at: usize| (slow[at].oldest_ms.max(Some(slow[at].stalled_ms)), slow[at].depth);
        assert!((1..4).all(|at| rank(at - 1) >= rank(at)), "{slow:?}");
        assert_eq!(
            pubsub.top_slow(2).iter().map(|one| one.subscriber).collect::<Vec<_>>(),
            [slow[0].subscriber, slow[1].subscriber]
        );
        assert!(pubsub.top_slow(0).is_empty());
    });
}

fn find(incidents: &[Incident], is: impl Fn(&IncidentKind) -> bool) -> Option<&Incident> {
    incidents.iter().find(|incident| is(&incident.what))
}

#[test]
fn a_death_by_panic_is_an_incident_with_the_actor_and_what_it_left_behind() {
    quiet_panics();
    system(async {
        let pubsub = PubSub::new();
        let (victim, _) = Probe::start_with(|_, _| panic!("on purpose"));
        subscribe(&pubsub, &victim, "t").await;
        subscribe(&pubsub, &victim, "another").await;
        let (quiet, _) = Probe::start_with(|_, ctx| ctx.stop());
        subscribe(&pubsub, &quiet, "t").await;
        for note in 1..=5 {
            pubsub.local_broadcast("t", Note(note)).unwrap();
        }
        until("both are gone", || pubsub.subscribers("t") == 0).await;
        let incidents = pubsub.incidents();
        assert_eq!(incidents.len(), 1, "who stops is none: {incidents:?}");
        let IncidentKind::Panicked { actor, subscriptions, discarded } = &incidents[0].what else { panic!("{incidents:?}") };
        assert_eq!(*discarded, 4, "what was behind the one that killed it");
        assert!(actor.ends_with("support::Probe"), "{actor}");
        assert_eq!((*subscriptions, incidents[0].times, pubsub.summary().incidents), (2, 1, 1));
    });
}

#[test]
fn who_overflows_is_an_incident_when_it_learns_of_it_and_while_it_is_stuck() {
    system(async {
        let pubsub = PubSub::new();
        let options = SubscribeOptions::new().capacity(4).metadata("session 7");
        let mut stream = pubsub.stream_with::<Note>("t", &options).unwrap();
        let latest = SubscribeOptions::new().capacity(1).overflow(Overflow::Latest);
        let mut wants_the_latest = pubsub.stream_with::<Note>("prices", &latest).unwrap();
        let ends = SubscribeOptions::new().capacity(2).overflow(Overflow::Disconnect);
        let mut fragile = pubsub.stream_with::<Note>("t", &ends).unwrap();
        for note in 0..10 {
            pubsub.local_broadcast("t", Note(note)).unwrap();
            pubsub.local_broadcast("prices", Note(note)).unwrap();
        }
        let stuck = |what: &IncidentKind| matches!(what, IncidentKind::Stuck { .. });
        // It has to be stuck for a second, and something has to overflow it then.
        let mut sent = 10;
        until("it is seen to be stuck", || {
            pubsub.local_broadcast("t", Note(sent)).unwrap();
            sent += 1;
            find(&pubsub.incidents(), stuck).is_some()
        })
        .await;
        assert_eq!(stream.next().await.unwrap().missed(), sent - 4);
        assert_eq!(wants_the_latest.next().await.unwrap().missed(), 9);
        assert!(fragile.next().await.is_none());
        let incidents = pubsub.incidents();
        let IncidentKind::Stuck { topic, metadata, missed, .. } = &find(&incidents, stuck).unwrap().what else { unreachable!() };
        assert_eq!((topic.as_str(), metadata.as_deref()), ("t", Some("session 7")));
        assert!(*missed > 6, "{missed}");
        let told = find(&incidents, |what| matches!(what, IncidentKind::Overflowed { .. })).expect("it has learned of it");
        let IncidentKind::Overflowed { topic, events, .. } = &told.what else { unreachable!() };
        assert_eq!((topic.as_str(), *events), ("t", sent - 4));
        let closed = find(&incidents, |what| matches!(what, IncidentKind::Disconnected { .. })).expect("it has ended");
        let IncidentKind::Disconnected { topic, discarded, .. } = &closed.what else { unreachable!() };
        assert_eq!((topic.as_str(), *discarded), ("t", 2));
        assert!(incidents.iter().all(|incident| !format!("{incident:?}").contains("prices")), "{incidents:?}");
        assert!(incidents.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
    });
}

#[test]
fn a_full_port_is_an_incident_with_what_it_refused() {
    let pubsub = PubSub::builder().port_capacity(8).build().unwrap();
    system(async {
        let (probe, _) = Probe::start_new();
        subscribe(&pubsub, &probe, "t").await;
        let publisher = pubsub.clone();
        // From another thread, while this one does not run its registry.
        let refused = std::thread::spawn(move || {
            (0..100).map(|note| publisher.local_broadcast("t", Note(note)).unwrap().full as u64).sum::<u64>()
        });
        let refused = refused.join().unwrap();
        assert_eq!(refused, 92);
        let waits = || pubsub.summary().arbiters[0].port_waits_ms;
        spin_until("it is seen to wait", || waits() >= 20);
        let full = |what: &IncidentKind| matches!(what, IncidentKind::PortFull { refused: 92, .. });
        until("it is told", || find(&pubsub.incidents(), full).is_some()).await;
        assert_eq!(waits(), 0);
        let before = pubsub.stats();
        assert_eq!(before.subscriptions[0].missed, 92, "counted before the next event tells it");
        assert_balanced(&before);
        assert!(pubsub.unsubscribe::<Note>(&probe, "t"));
        let after = pubsub.stats();
        assert_eq!((after.addressed, after.missed), (before.addressed, 92), "and after it has left without being told");
        assert_balanced(&after);
    });
}

#[test]
fn the_log_is_seen_as_this_node_and_as_its_store_sees_it() {
    system(async {
        let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
        append_notes(&pubsub, 0..10).await;
        let mut first = true;
        let worker = Worker::new(&pubsub, move |delivery, _| match (delivery.0, std::mem::take(&mut first)) {
            (0, true) => failed("not yet"),
            (5, _) => failed(actix_pubsub::Failure::dead("never")),
            _ => ok(),
        });
        worker.start();
        let seen = || pubsub.summary().log.unwrap().groups.pop();
        until("all is settled", || seen().is_some_and(|group| (group.handled, group.dead_letters) == (9, 1))).await;
        let group = seen().unwrap();
        assert_eq!((group.consumers, group.delivered, group.redelivered, group.failed), (1, 11, 1, 1), "{group:?}");
        let log = pubsub.summary().log.unwrap();
        assert_eq!((log.appended, log.undecodable, log.unknown), (10, 0, 0));
        let incidents = pubsub.incidents();
        let dead = find(&incidents, |what| matches!(what, IncidentKind::DeadLetter { .. })).expect("a dead letter");
        let IncidentKind::DeadLetter { reason, group: of, .. } = &dead.what else { unreachable!() };
        assert_eq!((reason.as_str(), of.as_str()), ("never", group.group.as_str()));
        assert!(find(&incidents, |what| matches!(what, IncidentKind::DeliveryFailed { .. })).is_some());
        let store = pubsub.log().unwrap();
        while store.groups(&group.topic).await.unwrap()[0].pending > 0 {
            // The last ack is on its way.
            crate::support::one_turn().await;
        }
        let topics = pubsub.log_topics(None, 10).await.unwrap();
        assert_eq!(topics.len(), 2, "the topic and its dead letters");
        let topic = topics.iter().find(|topic| topic.topic == group.topic).unwrap();
        assert_eq!((topic.entries, topic.groups.len()), (10, 1));
        let group = &topic.groups[0];
        assert_eq!((group.lag, group.pending, group.oldest_pending_ms), (Some(0), 0, None));
        let page = pubsub.log_topics(Some(&topics[0].topic), 10).await.unwrap();
        assert_eq!(page.len(), 1, "pages go on after a topic");
    });
}

#[test]
fn what_is_pending_has_an_age() {
    system(async {
        let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
        append_notes(&pubsub, 0..3).await;
        let (_hold, held) = futures::channel::oneshot::channel::<()>();
        let mut held = Some(held);
        let worker = Worker::new(&pubsub, move |_, _| {
            let held = held.take();
            Box::pin(async move {
                if let Some(held) = held {
                    // Never answered: the test ends first.
                    held.await.unwrap_or(());
                }
                Ok(())
            })
        });
        worker.start();
        until("one is being handled", || pubsub.summary().log.unwrap().groups.first().is_some_and(|group| group.delivered == 1))
            .await;
        actix::clock::timeout(Duration::from_millis(20), std::future::pending::<()>()).await.unwrap_err();
        let group = pubsub.log_topics(None, 10).await.unwrap().remove(0).groups.remove(0);
        assert_eq!((group.pending, group.lag, group.oldest_pending_attempt), (1, Some(2), Some(1)));
        assert!(group.oldest_pending_ms >= Some(20), "{group:?}");
    });
}

#[test]
fn without_a_log_and_a_cluster_there_is_nothing_to_see_of_them() {
    system(async {
        let pubsub = PubSub::new();
        let stats = pubsub.stats();
        assert!(stats.log.is_none() && stats.cluster.is_none());
        assert_eq!(pubsub.log_topics(None, 10).await.unwrap(), []);
        let text = serde_json::to_value(&stats).unwrap();
        assert_eq!((text["subscribers"].as_u64(), text["cluster"].is_null()), (Some(0), true));
    });
}

#[test]
fn what_was_delivered_in_the_last_second_is_told_for_each_arbiter() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        subscribe(&pubsub, &probe, "t").await;
        let mut sent = 0;
        until("a second is over in which something was delivered", || {
            pubsub.local_broadcast("t", Note(sent)).unwrap();
            sent += 1;
            let arbiter = &pubsub.summary().arbiters[0];
            assert!(arbiter.delivered_per_second <= arbiter.delivered);
            arbiter.delivered_per_second > 0
        })
        .await;
        until("all are handled", || log.len() as u64 == sent).await;
        until("a quiet second is over", || pubsub.summary().arbiters[0].delivered_per_second == 0).await;
    });
}
