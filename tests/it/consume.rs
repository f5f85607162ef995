//! Consumer groups: every entry handled at least once, none acked unhandled, none stuck. On the store in memory; every store keeps one contract.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::ConsumeError;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Consumer;
use actix_pubsub::EntryId;
use actix_pubsub::Failure;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::log::Append;
use actix_pubsub::log::Batch;
use actix_pubsub::log::DEAD_LETTER_ATTEMPTS;
use actix_pubsub::log::DEAD_LETTER_ID;
use actix_pubsub::log::DEAD_LETTER_REASON;
use actix_pubsub::log::GroupInfo;
use actix_pubsub::log::Limit;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::PendingQuery;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;
use actix_pubsub::log::Trim;
use actix_pubsub::testing::faults::FaultyStore;

use crate::support::Handled;
use crate::support::Note;
use crate::support::Word;
use crate::support::Worker;
use crate::support::append_notes as append;
use crate::support::failed;
use crate::support::group;
use crate::support::memory;
use crate::support::ok;
use crate::support::quiet_panics;
use crate::support::system;
use crate::support::until;

async fn info(store: &dyn Store) -> GroupInfo {
    let groups = store.groups(&group().topic).await.unwrap();
    groups.into_iter().find(|info| info.name == group().name).expect("the group is there")
}

/// Waits until the group has nothing left to do.
async fn until_done(store: &dyn Store) {
    for _ in 0..30_000 {
        let groups = store.groups(&group().topic).await.unwrap_or_default();
        if groups.first().is_some_and(|info| info.pending == 0 && info.lag == Some(0)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("stuck: {:?} {:?}", info(store).await, store.pending(&group(), PendingQuery::first(10)).await);
}

async fn dead_letters(store: &dyn Store) -> Batch {
    store.read(&"dead:t".parse().unwrap(), Position::Start, Limit::entries(1_000)).await.unwrap()
}

fn values(handled: &Handled) -> Vec<u64> {
    handled.lock().unwrap().iter().map(|(value, _)| *value).collect()
}

#[test]
fn ok_acks_and_a_lone_consumer_handles_in_the_logs_order() {
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..50).await;
        let worker = Worker::new(&pubsub, |_, _| ok());
        let handled = Arc::clone(&worker.handled);
        worker.start();
        append(&pubsub, 50..300).await;
        until_done(&store).await;
        assert_eq!(values(&handled), (0..300).collect::<Vec<_>>());
        assert!(handled.lock().unwrap().iter().all(|(_, attempt)| *attempt == 1));
    });
}

#[test]
fn an_entry_is_not_acked_before_its_handlers_future_says_ok() {
    system(async {
        let (store, pubsub) = memory();
        let (go, gone) = tokio::sync::watch::channel(false);
        let worker = Worker::new(&pubsub, move |_, _| {
            let mut gone = gone.clone();
            Box::pin(async move {
                gone.wait_for(|gone| *gone).await.map_err(|_| Failure::new("nobody says go"))?;
                Ok(())
            })
        });
        let handled = Arc::clone(&worker.handled);
        worker.start();
        append(&pubsub, 0..2).await;
        until("the first is in hand", || values(&handled) == [0]).await;
        let now = info(&store).await;
        assert_eq!((now.pending, now.lag), (1, Some(1)), "one at a time, and it is pending");
        go.send(true).unwrap();
        until_done(&store).await;
        assert_eq!(values(&handled), [0, 1]);
    });
}

#[test]
fn a_failed_entry_comes_again_and_then_becomes_a_dead_letter_with_its_reason() {
    system(async {
        let (store, pubsub) = memory();
        let worker = Worker::new(&pubsub, |delivery, _| match delivery.0 {
            1 => failed("not today"),
            2 => failed(Failure::dead("never")),
            3 if delivery.attempt() == 1 => failed(Failure::new("later").after(Duration::from_millis(2))),
            _ => ok(),
        })
        .options(|options| options.attempts(3));
        let handled = Arc::clone(&worker.handled);
        worker.start();
        append(&pubsub, 0..5).await;
        until_done(&store).await;
        let mut attempts: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (value, attempt) in handled.lock().unwrap().iter() {
            attempts.entry(*value).or_default().push(*attempt);
        }
        let expected = [(0, vec![1]), (1, vec![1, 2, 3]), (2, vec![1]), (3, vec![1, 2]), (4, vec![1])];
        assert_eq!(attempts, expected.into_iter().collect());
        let letters = dead_letters(&store).await;
        let mut said: Vec<_> = letters
            .entries
            .iter()
            .map(|entry| (entry.payload.to_vec(), entry.header(DEAD_LETTER_REASON).unwrap().to_owned()))
            .collect();
        said.sort();
        assert_eq!(said, [(b"1".to_vec(), "not today".to_owned()), (b"2".to_vec(), "never".to_owned())]);
        let spent = letters.entries.iter().find(|entry| *entry.payload == *b"1").unwrap();
        assert_eq!(spent.header(DEAD_LETTER_ATTEMPTS), Some("3"));
        assert!(spent.header(DEAD_LETTER_ID).unwrap().parse::<EntryId>().is_ok());
    });
}

#[test]
fn what_a_panicked_or_stopped_consumer_had_goes_to_the_others_at_once() {
    quiet_panics();
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..1).await;
        // The visibility is a minute: only giving back helps.
        let slow = |options: ConsumeOptions| options.visibility(Duration::from_secs(60)).attempts(100);
        let panicking = Worker::new(&pubsub, |_, _| panic!("on purpose")).options(slow);
        let seen = Arc::clone(&panicking.handled);
        panicking.start();
        until("it has died of it", || values(&seen) == [0]).await;
        let stopped = Worker::new(&pubsub, |_, ctx| {
            ctx.stop();
            Box::pin(std::future::pending())
        })
        .options(slow);
        let seen = Arc::clone(&stopped.handled);
        stopped.start();
        until("it has stopped over it", || values(&seen) == [0]).await;
        let healthy = Worker::new(&pubsub, |_, _| ok()).options(slow);
        let handled = Arc::clone(&healthy.handled);
        healthy.start();
        until_done(&store).await;
        assert_eq!(*handled.lock().unwrap(), [(0, 3)]);
        until("the dead have left the group", || {
            let consumers = futures::FutureExt::now_or_never(store.consumers(&group())).unwrap().unwrap();
            consumers.len() == 1
        })
        .await;
    });
}

#[test]
fn silence_past_the_visibility_redelivers_and_a_late_ok_still_acks() {
    system(async {
        let (store, pubsub) = memory();
        let (go, gone) = tokio::sync::watch::channel(false);
        let silent = Worker::new(&pubsub, move |delivery, _| {
            let (mut gone, first) = (gone.clone(), delivery.attempt() == 1);
            Box::pin(async move {
                if first {
                    gone.wait_for(|gone| *gone).await.map_err(|_| Failure::new("nobody says go"))?;
                    return Ok(());
                }
                std::future::pending().await
            })
        })
        .options(|options| options.visibility(Duration::from_millis(50)).attempts(1_000));
        let handled = Arc::clone(&silent.handled);
        silent.start();
        append(&pubsub, 0..1).await;
        until("it came again, to the only consumer there is", || handled.lock().unwrap().len() >= 2).await;
        go.send(true).unwrap();
        until_done(&store).await;
    });
}

#[test]
fn no_more_handlers_run_at_once_than_were_allowed() {
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..500).await;
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&running), Arc::clone(&most));
        Worker::new(&pubsub, move |_, _| {
            let (running, most) = counts.clone();
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        })
        .options(|options| options.concurrency(7))
        .start();
        until_done(&store).await;
        assert_eq!(most.load(Ordering::SeqCst), 7);
    });
}

#[test]
fn drain_finishes_what_is_in_flight_takes_nothing_more_and_leaves_the_group() {
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..100).await;
        let (go, gone) = tokio::sync::watch::channel(false);
        let worker = Worker::new(&pubsub, move |_, _| {
            let mut gone = gone.clone();
            Box::pin(async move {
                gone.wait_for(|gone| *gone).await.map_err(|_| Failure::new("nobody says go"))?;
                Ok(())
            })
        })
        .options(|options| options.concurrency(3));
        let (handled, consumer) = (Arc::clone(&worker.handled), Arc::clone(&worker.consumer));
        worker.start();
        until("three run", || values(&handled).len() == 3).await;
        let consumer = consumer.lock().unwrap().clone().unwrap();
        assert_eq!((consumer.is_active(), consumer.group()), (true, &group()));
        until("it says so", || consumer.running() == 3).await;
        let drained = consumer.drain();
        go.send(true).unwrap();
        drained.await;
        assert!(!consumer.is_active());
        assert_eq!(values(&handled).len(), 3);
        let now = info(&store).await;
        assert_eq!((now.pending, now.lag, now.consumers), (0, Some(97), 0));
        consumer.drain().await;
    });
}

#[test]
fn an_undecodable_entry_is_a_dead_letter_and_another_types_entry_is_passed_over() {
    system(async {
        let (store, pubsub) = memory();
        store.append(&group().topic, Append::one(NewEntry::new(Note::NAME, "{broken"))).await.unwrap();
        pubsub.append("t", &Word("a word".into())).await.unwrap();
        store.append(&group().topic, Append::one(NewEntry::new("", "7"))).await.unwrap();
        append(&pubsub, 8..9).await;
        let worker = Worker::new(&pubsub, |_, _| ok());
        let handled = Arc::clone(&worker.handled);
        worker.start();
        until_done(&store).await;
        assert_eq!(values(&handled), [7, 8]);
        let letters = dead_letters(&store).await;
        assert_eq!(letters.entries.len(), 1);
        let reason = letters.entries[0].header(DEAD_LETTER_REASON).unwrap();
        assert!(reason.starts_with("no message of type test.note: "), "{reason}");
        assert_eq!(letters.entries[0].payload, "{broken");
    });
}

#[test]
fn what_was_trimmed_while_it_was_pending_is_not_stuck() {
    quiet_panics();
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..3).await;
        let first = Worker::new(&pubsub, |_, _| panic!("on purpose"));
        let seen = Arc::clone(&first.handled);
        first.start();
        until("it has died of it", || values(&seen) == [0]).await;
        store.trim(&group().topic, Trim::Len(1)).await.unwrap();
        let worker = Worker::new(&pubsub, |_, _| ok());
        let handled = Arc::clone(&worker.handled);
        worker.start();
        until_done(&store).await;
        assert_eq!(values(&handled), [2]);
        assert_eq!(info(&store).await.skipped, Some(1), "1 was never delivered; 0 was");
    });
}

#[test]
fn an_entry_that_kills_every_consumer_becomes_a_dead_letter_and_takes_no_other_with_it() {
    quiet_panics();
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..20).await;
        let handled = Handled::default();
        // What a supervisor does not do for a panic, this does: a new consumer for each that died.
        while futures::FutureExt::now_or_never(store.groups(&group().topic))
            .unwrap()
            .unwrap()
            .first()
            .is_none_or(|info| info.pending > 0 || info.lag != Some(0))
        {
            let mut worker = Worker::new(&pubsub, |delivery, _| {
                assert_ne!(delivery.0, 5, "on purpose");
                ok()
            })
            .options(|options| options.attempts(3));
            worker.handled = Arc::clone(&handled);
            let addr = worker.start();
            until("it died, or all is done", || {
                let groups = futures::FutureExt::now_or_never(store.groups(&group().topic)).unwrap().unwrap();
                !addr.connected() || groups.first().is_some_and(|info| info.pending == 0 && info.lag == Some(0))
            })
            .await;
        }
        let letters = dead_letters(&store).await;
        assert_eq!(letters.entries.iter().map(|entry| entry.payload.to_vec()).collect::<Vec<_>>(), [b"5".to_vec()]);
        assert_eq!(letters.entries[0].header(DEAD_LETTER_REASON), Some("the consumer died of it"));
        // The header said 4: the delivery at which it was given up, and which no handler saw, was counted.
        assert_eq!(letters.entries[0].header(DEAD_LETTER_ATTEMPTS), Some("3"));
        let done: BTreeSet<_> = values(&handled).into_iter().collect();
        assert_eq!(done, (0..20).collect());
        assert_eq!(values(&handled).iter().filter(|value| **value == 5).count(), 3);
    });
}

#[test]
fn a_hundred_thousand_entries_and_consumers_killed_at_random_leave_none_unhandled_and_none_stuck() {
    quiet_panics();
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| RandomState::new().hash_one("seed"));
    println!("SEED={seed}");
    system(async move {
        const ENTRIES: u64 = 100_000;
        let memory = MemoryStore::new();
        let store = FaultyStore::new(Arc::new(memory.clone()), seed);
        store.fail_per_thousand(2);
        let pubsub = PubSub::builder().log(store.clone()).build().unwrap();
        let appender = {
            let pubsub = pubsub.clone();
            actix::spawn(async move {
                for first in (0..ENTRIES).step_by(1_000) {
                    let notes: Vec<_> = (first..first + 1_000).map(Note).collect();
                    let ids = |first: u64| actix_pubsub::AppendOptions::new().key(format!("batch {first}"));
                    // A first entry under a key says whether a batch of an unknown outcome was done.
                    while pubsub.append_with("gate", &Note(first), ids(first)).await.is_err() {}
                    let pubsub = pubsub.log().unwrap();
                    let entries: Vec<_> = notes
                        .iter()
                        .map(|note| NewEntry::new(Note::NAME, note.0.to_string()).dedup(note.0.to_string()))
                        .collect();
                    while pubsub.append(&group().topic, Append::many(entries.clone())).await.is_err() {}
                }
            })
        };
        let finished = Arc::new(Mutex::new(vec![0_u32; usize::try_from(ENTRIES).unwrap()]));
        let mut draw = seed;
        let mut random = move || {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            draw >> 33
        };
        let (mut workers, mut killed) = (Vec::new(), 0);
        // Pending or lag while nobody gets anything done is a stuck group.
        let (mut progress, mut since) = (0, std::time::Instant::now());
        loop {
            let done = finished.lock().unwrap().iter().map(|times| u64::from(*times)).sum::<u64>();
            if done > progress {
                (progress, since) = (done, std::time::Instant::now());
            }
            assert!(since.elapsed() < Duration::from_secs(15), "stuck at {done}: {:?}", info(&memory).await);
            workers.retain(|(addr, _): &(Addr<Worker>, Arc<Mutex<Option<Consumer>>>)| addr.connected());
            while workers.len() < 8 {
                let (finished, mut fate) = (Arc::clone(&finished), random() | 1);
                let worker = Worker::new(&pubsub, move |delivery, ctx| {
                    fate = fate.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let value = usize::try_from(delivery.0).unwrap();
                    match (fate >> 33) % 4_000 {
                        0 => panic!("on purpose"),
                        1 => ctx.stop(),
                        2..10 => return failed("now and then"),
                        _ => {}
                    }
                    let (finished, waits) = (Arc::clone(&finished), (fate >> 40) % 500 == 0);
                    Box::pin(async move {
                        if waits {
                            tokio::task::yield_now().await;
                        }
                        finished.lock().unwrap()[value] += 1;
                        Ok(())
                    })
                })
                .options(|options| options.concurrency(32).attempts(1_000).visibility(Duration::from_secs(2)));
                let consumer = Arc::clone(&worker.consumer);
                workers.push((worker.start(), consumer));
                killed += 1;
            }
            // One leaves as it should, now and then.
            if random() % 50 == 0 {
                let consumer = workers[0].1.lock().unwrap().clone();
                if let Some(consumer) = consumer {
                    consumer.drain().await;
                    workers.swap_remove(0);
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            if appender.is_finished() {
                let now = info(&memory).await;
                if now.lag == Some(0) && now.pending == 0 {
                    break;
                }
            }
        }
        assert!(killed > 20, "{killed} consumers");
        let finished = finished.lock().unwrap().clone();
        let unhandled: Vec<_> = finished.iter().enumerate().filter(|(_, times)| **times == 0).map(|(value, _)| value).collect();
        assert!(unhandled.is_empty(), "acked and never handled: {unhandled:?}");
        assert_eq!(dead_letters(&memory).await.entries.len(), 0);
    });
}

#[test]
fn what_cannot_be_consumed_is_refused_with_the_limit_and_the_value() {
    system(async {
        let plain = PubSub::new();
        let (_, pubsub) = memory();
        let check = |pubsub: &PubSub, topic: &'static str, group: &'static str, options: ConsumeOptions| {
            let pubsub = pubsub.clone();
            let (tell, told) = std::sync::mpsc::channel();
            let worker = Worker::new(&pubsub.clone(), |_, _| ok());
            Worker::create(move |ctx| {
                tell.send(pubsub.consume::<Note, _>(ctx, topic, group, &options).map(drop)).unwrap();
                Worker { pubsub: memory().1, ..worker }
            });
            told.recv().unwrap()
        };
        let options = ConsumeOptions::new;
        assert!(matches!(check(&plain, "t", "g", options()), Err(ConsumeError::NoLog)));
        assert!(matches!(check(&pubsub, "", "g", options()), Err(ConsumeError::Topic(_))));
        assert!(matches!(check(&pubsub, "t", "a b", options()), Err(ConsumeError::Name(_))));
        assert!(matches!(check(&pubsub, "t", "g", options().consumer("")), Err(ConsumeError::Name(_))));
        assert!(matches!(check(&pubsub, "t", "g", options().dead_letter("*")), Err(ConsumeError::Topic(_))));
        for (bad, text) in [
            (options().concurrency(0), "concurrency is 0, it must be 1 to 10000"),
            (options().concurrency(10_001), "concurrency is 10001, it must be 1 to 10000"),
            (options().visibility(Duration::ZERO), "visibility in ms is 0, it must be 1 to 43200000"),
            (options().attempts(0), "attempts is 0, it must be 1 to 4294967295"),
        ] {
            assert_eq!(check(&pubsub, "t", "g", bad).unwrap_err().to_string(), text);
        }
        assert!(check(&pubsub, "t", "g", options().concurrency(10_000)).is_ok());
        drop(pubsub.shutdown());
        assert!(matches!(check(&pubsub, "t", "g", options()), Err(ConsumeError::Closed)));
    });
}

#[test]
fn shutdown_lets_handlers_finish_and_acks_what_they_did() {
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..10).await;
        let (go, gone) = tokio::sync::watch::channel(false);
        let worker = Worker::new(&pubsub, move |_, _| {
            let mut gone = gone.clone();
            Box::pin(async move {
                gone.wait_for(|gone| *gone).await.map_err(|_| Failure::new("nobody says go"))?;
                Ok(())
            })
        });
        let (handled, consumer) = (Arc::clone(&worker.handled), Arc::clone(&worker.consumer));
        worker.start();
        until("one runs", || values(&handled).len() == 1).await;
        drop(pubsub.shutdown());
        go.send(true).unwrap();
        until("it has left", || !consumer.lock().unwrap().as_ref().unwrap().is_active()).await;
        let now = info(&store).await;
        assert_eq!((now.pending, now.lag, now.consumers), (0, Some(9), 0));
    });
}
