//! Regressions of the log for actors. Each begins with what broke.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::AppendError;
use actix_pubsub::ConsumeError;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Delivery;
use actix_pubsub::Failure;
use actix_pubsub::Followed;
use actix_pubsub::LogStream;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::log::Append;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::Group;
use actix_pubsub::log::GroupInfo;
use actix_pubsub::log::Limit;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::PendingQuery;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;
use actix_pubsub::testing::faults::FaultyStore;
use futures::FutureExt;
use futures::StreamExt;

use crate::support::Folder;
use crate::support::Handled;
use crate::support::Note;
use crate::support::Word;
use crate::support::Worker;
use crate::support::append_notes as append;
use crate::support::group;
use crate::support::memory;
use crate::support::ok;
use crate::support::quiet_panics;
use crate::support::spin_until;
use crate::support::system;
use crate::support::until;

struct Stop;

impl Message for Stop {
    type Result = ();
}

impl Handler<Stop> for Worker {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn options() -> ConsumeOptions {
    ConsumeOptions::new().backoff(ms(1), ms(5))
}

fn info(store: &MemoryStore) -> Option<GroupInfo> {
    store.groups(&group().topic).now_or_never().unwrap().unwrap().into_iter().next()
}

fn settled(store: &MemoryStore) -> bool {
    info(store).is_some_and(|info| info.pending == 0 && info.lag == Some(0))
}

fn dead(store: &MemoryStore) -> Vec<String> {
    let dead = "dead:t".parse().unwrap();
    let letters = store.read(&dead, Position::Start, Limit::entries(1_000)).now_or_never().unwrap().unwrap();
    letters.entries.iter().map(|letter| String::from_utf8(letter.payload.to_vec()).unwrap()).collect()
}

/// Reads until it is live and has returned `count` events.
async fn read_live(stream: &mut LogStream<Note>, count: usize) {
    for _ in 0..count {
        assert!(matches!(stream.next().await, Some(Followed::Event(_))));
    }
    until("it is live", || {
        assert!(stream.next().now_or_never().is_none());
        stream.is_live()
    })
    .await;
}

/// A full port refuses the newest events. A follower was to notice that by what came next; if nothing came next, it stayed live for good without them.
#[test]
fn a_follower_behind_a_full_port_gets_the_end_of_a_burst_although_nothing_follows_it() {
    system(async {
        let pubsub = PubSub::builder().port_capacity(16).log(MemoryStore::new()).build().unwrap();
        let mut live = pubsub.stream_from::<Note>("t", Position::Start).unwrap();
        append(&pubsub, 0..1).await;
        read_live(&mut live, 1).await;
        let probe = pubsub.stream_from::<Word>("t", Position::Start).unwrap();
        pubsub.append_many("t", &(1..=100).map(Note).collect::<Vec<_>>()).await.unwrap();
        // The arbiter is busy for so long that the feed has published everything.
        std::thread::sleep(ms(100));
        for value in 1..=100 {
            match tokio::time::timeout(MINUTE, live.next()).await {
                Ok(Some(Followed::Event(event))) => assert_eq!(event.0, value),
                other => panic!("{other:?} for {value}"),
            }
        }
        drop(probe);
    });
}

/// A follower whose subscription was ended through `stats` and `unsubscribe_all` while the store was away looped in its poll for ever.
#[test]
fn a_follower_that_was_unsubscribed_from_outside_ends() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        system(async move {
            let store = FaultyStore::new(Arc::new(MemoryStore::new()), 1);
            store.set_down(true);
            let pubsub = PubSub::builder().log(store).build().unwrap();
            let mut live = pubsub.stream_from::<Note>("t", Position::Start).unwrap();
            assert!(live.next().now_or_never().is_none());
            assert_eq!(pubsub.unsubscribe_all(pubsub.stats().subscriptions[0].subscriber), 1);
            let ended = tokio::time::timeout(MINUTE, live.next()).await;
            tell.send(matches!(ended, Ok(None))).unwrap();
        });
    });
    assert_eq!(told.recv_timeout(MINUTE), Ok(true));
}

/// One poll walked through hundreds of thousands of entries of other types, and its arbiter did nothing else meanwhile.
#[test]
fn a_follower_yields_while_it_looks_through_entries_of_other_types() {
    system(async {
        let (store, pubsub) = memory();
        for _ in 0..10 {
            let batch = (0..4_000).map(|_| NewEntry::new("other", "{}")).collect();
            store.append(&group().topic, Append::many(batch)).await.unwrap();
        }
        append(&pubsub, 0..1).await;
        let mut stream = pubsub.stream_from::<Note>("t", Position::Start).unwrap();
        let mut polls = 0;
        while stream.next().now_or_never().is_none() {
            polls += 1;
        }
        assert!(polls >= 8, "{polls} polls for 40,000 entries");
    });
}

/// The intake did not know of `extend`: the slot of an extended handler was given to another, and `drain` left while it ran.
#[test]
fn an_extended_delivery_keeps_its_slot_and_holds_a_drain() {
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..2).await;
        let (go, gone) = tokio::sync::watch::channel(false);
        let worker = Worker::with(&pubsub, options().visibility(ms(50)), move |delivery, _| {
            let (extend, mut gone) = (delivery.extend(MINUTE), gone.clone());
            Box::pin(async move {
                assert!(extend.await?);
                gone.wait_for(|gone| *gone).await?;
                Ok(())
            })
        });
        let (handled, consumer) = (Arc::clone(&worker.handled), Arc::clone(&worker.consumer));
        worker.start();
        until("the first runs", || handled.lock().unwrap().len() == 1).await;
        // Well past the visibility that it was fetched with.
        tokio::time::sleep(ms(200)).await;
        assert_eq!(*handled.lock().unwrap(), [(0, 1)]);
        let consumer = consumer.lock().unwrap().clone().unwrap();
        let mut drained = std::pin::pin!(consumer.drain());
        assert!(tokio::time::timeout(ms(100), &mut drained).await.is_err(), "it runs, and is ours");
        go.send(true).unwrap();
        drained.await;
        assert_eq!(info(&store).map(|info| (info.pending, info.lag)), Some((0, Some(1))));
    });
}

/// Atomic handlers are one at a time, whatever the concurrency: the others lay in the queue until their time was over, again and again, and became
/// dead letters that nobody had tried.
#[test]
fn entries_that_wait_for_an_atomic_handler_do_not_die_untried() {
    struct Atomic(PubSub, Handled);
    impl Actor for Atomic {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Self::Context) {
            let options = options().visibility(ms(100)).concurrency(40).attempts(3);
            self.0.consume::<Note, _>(ctx, "t", "workers", &options).unwrap();
        }
    }
    impl Handler<Delivery<Note>> for Atomic {
        type Result = AtomicResponse<Self, Result<(), Failure>>;
        fn handle(&mut self, note: Delivery<Note>, _: &mut Self::Context) -> Self::Result {
            self.1.lock().unwrap().push((note.0, note.attempt()));
            let work = async {
                tokio::time::sleep(ms(25)).await;
                Ok(())
            };
            AtomicResponse::new(Box::pin(actix::fut::wrap_future::<_, Self>(work)))
        }
    }
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..40).await;
        let handled = Handled::default();
        Atomic(pubsub, Arc::clone(&handled)).start();
        until("all is settled", || settled(&store)).await;
        assert!(dead(&store).is_empty());
        let done: BTreeSet<_> = handled.lock().unwrap().iter().map(|(value, _)| *value).collect();
        assert_eq!(done, (0..40).collect());
    });
}

/// A panic used up an attempt of everything that was in flight: after a few, all of them were dead letters.
#[test]
fn a_poison_takes_none_of_those_with_it_that_were_handled_beside_it() {
    quiet_panics();
    for late in [false, true] {
        system(async move {
            let (store, pubsub) = memory();
            append(&pubsub, 0..6).await;
            while !settled(&store) {
                // It panics at once, or in its future, where nobody sees whose it is.
                let worker = Worker::with(&pubsub, options().concurrency(6).attempts(3), move |delivery, ctx| {
                    let value = delivery.0;
                    assert!(value != 5 || late, "on purpose");
                    if value == 5 {
                        ctx.spawn(actix::fut::wrap_future::<_, Worker>(async {
                            tokio::task::yield_now().await;
                            panic!("on purpose");
                        }));
                        return Box::pin(std::future::pending());
                    }
                    Box::pin(async {
                        tokio::time::sleep(ms(10)).await;
                        Ok(())
                    })
                });
                let addr = worker.start();
                until("it died, or all is done", || !addr.connected() || settled(&store)).await;
            }
            assert_eq!(dead(&store), ["5"]);
        });
    }
}

/// A supervised worker with a name of its own came back under it, and lost its new work to the farewell of its old self.
#[test]
fn a_consumer_that_comes_back_under_its_name_keeps_what_it_has_by_then() {
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..1).await;
        let handled = Handled::default();
        let (go, gone) = tokio::sync::watch::channel(false);
        let addr = Supervisor::start({
            let (pubsub, handled) = (pubsub.clone(), Arc::clone(&handled));
            move |_| {
                let named = options().backoff(ms(50), ms(50)).visibility(MINUTE).consumer("ledger-1").concurrency(4);
                let mut worker = Worker::with(&pubsub, named, move |_, _| {
                    let mut gone = gone.clone();
                    Box::pin(async move {
                        gone.wait_for(|gone| *gone).await?;
                        Ok(())
                    })
                });
                worker.handled = handled;
                worker
            }
        });
        until("it works", || handled.lock().unwrap().len() == 1).await;
        addr.do_send(Stop);
        append(&pubsub, 7..8).await;
        until("it came back, and has both", || handled.lock().unwrap().len() == 3).await;
        // The old one's back-off is over.
        tokio::time::sleep(ms(200)).await;
        go.send(true).unwrap();
        until("all is settled", || settled(&store)).await;
        assert_eq!(handled.lock().unwrap().iter().filter(|(value, _)| *value == 7).count(), 1);
    });
}

/// An undecodable entry with its own topic for dead letters made a thousand entries a second.
#[test]
fn dead_letters_cannot_go_where_they_come_from() {
    struct Back(PubSub);
    impl Actor for Back {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Self::Context) {
            self.0.consume::<Note, _>(ctx, "u", "back", &options().dead_letter("t")).unwrap();
        }
    }
    impl Handler<Delivery<Note>> for Back {
        type Result = Result<(), Failure>;
        fn handle(&mut self, _: Delivery<Note>, _: &mut Self::Context) -> Self::Result {
            Err(Failure::dead("neither"))
        }
    }
    system(async {
        let (store, pubsub) = memory();
        let (tell, told) = std::sync::mpsc::channel();
        Worker::create({
            let pubsub = pubsub.clone();
            move |ctx| {
                let to_itself = pubsub.consume::<Note, _>(ctx, "t", "workers", &options().dead_letter("t"));
                tell.send(to_itself.map(drop)).unwrap();
                Worker::with(&pubsub, options().dead_letter("u"), |_, _| Box::pin(std::future::ready(Err(Failure::dead("no")))))
            }
        });
        assert!(matches!(told.recv().unwrap(), Err(ConsumeError::DeadLetterTopic(topic)) if topic == "t"));
        // Nor over two topics.
        append(&pubsub, 0..1).await;
        Back(pubsub.clone()).start();
        let back = Group::new("u".parse().unwrap(), "back".parse().unwrap());
        until("it rests", || {
            let pending = store.pending(&back, PendingQuery::first(9)).now_or_never().unwrap().unwrap_or_default();
            pending.first().is_some_and(|pending| pending.due_in > Some(Duration::from_secs(40)))
        })
        .await;
        assert_eq!(store.info(&group().topic).await.unwrap().entries, 1);
        assert_eq!(store.info(&back.topic).await.unwrap().entries, 1);
    });
}

/// An ack that waited for the store when its arbiter ended was polled on on the feed's thread, whose runtime is another: that panicked, and the ack and
/// everything after it was lost.
#[test]
fn what_an_arbiter_leaves_behind_is_settled_elsewhere() {
    system(async {
        let store = MemoryStore::new();
        let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
        let pubsub = PubSub::builder().log(faulty.clone()).build().unwrap();
        append(&pubsub, 0..4).await;
        let (arbiter, handled) = (Arbiter::new(), Handled::default());
        Worker::start_in_arbiter(&arbiter.handle(), {
            let (pubsub, faulty, handled) = (pubsub.clone(), faulty.clone(), Arc::clone(&handled));
            move |_| {
                let mut worker = Worker::with(&pubsub, options().visibility(MINUTE).concurrency(4), move |delivery, _| {
                    if delivery.0 == 3 {
                        faulty.set_down(true);
                    }
                    match delivery.0 {
                        0 => Box::pin(std::future::ready(Err(Failure::new("no")))),
                        1 => ok(),
                        _ => Box::pin(std::future::pending()),
                    }
                });
                worker.handled = handled;
                worker
            }
        });
        until("all are in hand", || handled.lock().unwrap().len() == 4).await;
        let failed = faulty.failed();
        until("the ack and the nack wait for the store", || faulty.failed() > failed + 2).await;
        arbiter.stop();
        arbiter.join().unwrap();
        faulty.set_down(false);
        let heir = Worker::with(&pubsub, options().visibility(MINUTE), |_, _| ok());
        let heirs = Arc::clone(&heir.handled);
        heir.start();
        until("all is settled", || settled(&store)).await;
        assert!(!heirs.lock().unwrap().iter().any(|(value, _)| *value == 1), "1 was done");
    });
}

/// A message whose `Drop` panics, refused by a full port, ended the feed's thread, and with it all live delivery, without a word; appends hung.
#[test]
fn a_message_that_panics_when_dropped_does_not_end_the_feed() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Bomb(u64);
    impl Payload for Bomb {
        const NAME: &'static str = "test.bomb";
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert_ne!(std::thread::current().name(), Some("actix-pubsub-log"), "on purpose");
        }
    }
    quiet_panics();
    system(async {
        let pubsub = PubSub::builder().port_capacity(1).message::<Bomb>().log(MemoryStore::new()).build().unwrap();
        let plain = pubsub.stream::<Bomb>("t").unwrap();
        pubsub.append("t", &Bomb(0)).await.unwrap();
        pubsub.append_many("t", &(0..50).map(Bomb).collect::<Vec<_>>()).await.unwrap();
        // The arbiter is busy, the port full.
        std::thread::sleep(ms(50));
        let mut other = pubsub.stream_from::<Note>("u", Position::Start).unwrap();
        tokio::time::timeout(MINUTE, pubsub.append("u", &Note(1))).await.expect("it does not hang").unwrap();
        assert!(matches!(tokio::time::timeout(MINUTE, other.next()).await, Ok(Some(Followed::Event(_)))));
        drop(plain);
    });
}

/// A shutdown did not wait for consumers, nor for the thread that holds the store: what was in flight was not acked, and a file could not be opened again.
#[test]
fn a_shutdown_waits_for_consumers_and_lets_go_of_the_store() {
    let (folder, finished) = (Folder::new(), Arc::new(AtomicUsize::new(0)));
    let path = folder.file();
    system(async {
        for round in 0..10 {
            let pubsub = PubSub::builder().log(EmbeddedStore::open(&path).unwrap()).build().unwrap();
            append(&pubsub, round..round + 1).await;
            let (go, gone) = tokio::sync::watch::channel(false);
            let done = Arc::clone(&finished);
            let worker = Worker::with(&pubsub, options(), move |_, _| {
                let (mut gone, done) = (gone.clone(), Arc::clone(&done));
                Box::pin(async move {
                    gone.wait_for(|gone| *gone).await?;
                    done.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
            });
            let handled = Arc::clone(&worker.handled);
            let addr = worker.start();
            until("one runs", || handled.lock().unwrap().len() == 1).await;
            let mut shutdown = std::pin::pin!(pubsub.shutdown());
            assert!(tokio::time::timeout(ms(20), &mut shutdown).await.is_err(), "a handler runs");
            go.send(true).unwrap();
            shutdown.await;
            assert_eq!(*handled.lock().unwrap(), [(round, 1)], "the one before was acked");
            addr.do_send(Stop);
            until("the worker is gone", || !addr.connected()).await;
            drop((addr, pubsub));
        }
    });
    assert_eq!(finished.load(Ordering::SeqCst), 10);
}

/// A stream that had ended and was still held kept a shutdown from ending, if live events lay in its ring.
#[test]
fn a_stream_that_has_ended_does_not_keep_a_shutdown_from_ending() {
    system(async {
        let (_, pubsub) = memory();
        append(&pubsub, 0..1_000).await;
        let mut stream = pubsub.stream_from::<Note>("t", Position::Start).unwrap();
        assert!(stream.next().await.is_some());
        append(&pubsub, 0..10).await;
        let shutdown = pubsub.shutdown();
        while stream.next().await.is_some() {}
        tokio::time::timeout(MINUTE, shutdown).await.expect("nothing holds it up");
        assert!(stream.next().await.is_none());
    });
}

/// An actor that ended after its pub/sub was shut down gave nothing back: its jobs went to a thread that was gone.
#[test]
fn an_actor_that_ends_after_a_shutdown_gives_back_what_it_had() {
    system(async {
        let (store, pubsub) = memory();
        append(&pubsub, 0..3).await;
        let worker = Worker::with(&pubsub, options().concurrency(3), |_, _| Box::pin(std::future::pending()));
        let handled = Arc::clone(&worker.handled);
        let addr = worker.start();
        until("all are in hand", || handled.lock().unwrap().len() == 3).await;
        let mut shutdown = std::pin::pin!(pubsub.shutdown());
        assert!(tokio::time::timeout(ms(50), &mut shutdown).await.is_err());
        addr.do_send(Stop);
        shutdown.await;
        let pending = store.pending(&group(), PendingQuery::first(9)).await.unwrap();
        assert!(pending.iter().all(|pending| pending.due_in < Some(Duration::from_secs(1))), "{pending:?}");
    });
}

/// `End` meant the end when it was first polled: what was appended after the call and before that was left out. And then where the feed was by then.
#[test]
fn the_end_is_where_the_log_ends_at_the_call() {
    system(async {
        let (_, pubsub) = memory();
        append(&pubsub, 0..5).await;
        for round in 0..20 {
            let mut stream = pubsub.stream_from::<Note>("t", Position::End).unwrap();
            append(&pubsub, 100 + round..101 + round).await;
            // What was appended right before the call may come, too.
            loop {
                match tokio::time::timeout(MINUTE, stream.next()).await {
                    Ok(Some(Followed::Event(event))) if event.0 < 100 + round => {}
                    Ok(Some(Followed::Event(event))) => break assert_eq!(event.0, 100 + round),
                    other => panic!("{other:?}"),
                }
            }
            if round % 2 == 0 {
                drop(stream);
            }
        }
    });
}

/// With a head that could not be read, an append went through and never reached a subscription that was there before it; and each further append
/// waited for the feed's back-off.
#[test]
fn an_append_while_the_feed_cannot_stand_arrives_when_it_can_and_does_not_wait_for_it() {
    system(async {
        let faulty = FaultyStore::new(Arc::new(MemoryStore::new()), 1);
        faulty.set_unreadable(true);
        let pubsub = PubSub::builder().message::<Note>().log(faulty.clone()).build().unwrap();
        let mut plain = pubsub.stream::<Note>("t").unwrap();
        let begun = faulty.failed();
        tokio::time::timeout(Duration::from_secs(20), append(&pubsub, 0..200)).await.expect("they do not wait for a back-off");
        assert!(faulty.failed() > begun);
        faulty.set_unreadable(false);
        for value in 0..200 {
            assert_eq!(tokio::time::timeout(MINUTE, plain.next()).await.ok().flatten().map(|event| event.0), Some(value));
        }
    });
}

/// Two types consumed in one group acked each other's entries, which nobody had handled.
#[test]
fn a_group_is_consumed_as_one_type() {
    struct Two(PubSub, std::sync::mpsc::Sender<Result<(), ConsumeError>>);
    impl Actor for Two {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Self::Context) {
            self.1.send(self.0.consume::<Note, _>(ctx, "t", "workers", &options()).map(drop)).unwrap();
            self.1.send(self.0.consume::<Word, _>(ctx, "t", "workers", &options()).map(drop)).unwrap();
            self.1.send(self.0.consume::<Word, _>(ctx, "t", "others", &options()).map(drop)).unwrap();
        }
    }
    impl Handler<Delivery<Note>> for Two {
        type Result = Result<(), Failure>;
        fn handle(&mut self, _: Delivery<Note>, _: &mut Self::Context) -> Self::Result {
            Ok(())
        }
    }
    impl Handler<Delivery<Word>> for Two {
        type Result = Result<(), Failure>;
        fn handle(&mut self, _: Delivery<Word>, _: &mut Self::Context) -> Self::Result {
            Ok(())
        }
    }
    system(async {
        let (tell, told) = std::sync::mpsc::channel();
        let addr = Two(memory().1, tell).start();
        until("it is there", || addr.connected()).await;
        tokio::task::yield_now().await;
        let answers: Vec<_> = (0..3).map(|_| told.recv_timeout(MINUTE).unwrap()).collect();
        assert!(answers[0].is_ok() && answers[2].is_ok());
        assert!(matches!(answers[1], Err(ConsumeError::GroupType { name: "test.word", other: "test.note" })), "{answers:?}");
    });
}

/// A type without a name shared the entries of all types.
#[test]
fn a_message_type_needs_a_name_in_the_log() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Nameless;
    impl Payload for Nameless {
        const NAME: &'static str = "";
    }
    system(async {
        let refused = memory().1.append("t", &Nameless).await;
        assert!(matches!(refused, Err(AppendError::NameTaken { name: "", .. })), "{refused:?}");
    });
}

/// A store whose fetch came back empty at once, against its contract, kept the actor's poll from ever returning.
#[test]
fn a_store_that_does_not_wait_costs_time_and_not_the_arbiter() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        system(async move {
            let store = MemoryStore::new();
            let hasty = FaultyStore::new(Arc::new(store.clone()), 1);
            hasty.set_hasty(true);
            let pubsub = PubSub::builder().log(hasty).build().unwrap();
            Worker::with(&pubsub, options(), |_, _| ok()).start();
            append(&pubsub, 0..10).await;
            until("all is settled", || settled(&store)).await;
            tell.send(()).unwrap();
        });
    });
    spin_until("it is through", || told.try_recv().is_ok());
}
