//! Model checking: the parts that threads share, under shuttle's scheduler, over thousands of interleavings per test.
//!
//! The sources are compiled into this test a second time, with shuttle's mutex and atomics in the place of those of `std`. DashMap stays
//! itself: each of its operations is one step here. `SHUTTLE_ITERATIONS=n` looks longer.
#![allow(dead_code, unreachable_pub, missing_docs, missing_debug_implementations, clippy::pedantic)]

#[path = "../src/cluster"]
mod cluster {
    pub(crate) mod queue;
}
#[path = "../src/encodings.rs"]
mod encodings;
#[path = "../src/event.rs"]
mod event;
#[path = "../src/ids.rs"]
mod ids;
#[path = "../src/observe.rs"]
mod observe;
#[path = "../src/topic.rs"]
mod topic;
#[path = "../src/local"]
mod local {
    pub(crate) mod ahead;
    pub(crate) mod budget;
    pub(crate) mod clock;
    pub(crate) mod hash;
    pub(crate) mod incident;
    pub(crate) mod interest;
    pub(crate) mod member;
    pub(crate) mod meter;
    pub(crate) mod options;
    pub(crate) mod port;
    pub(crate) mod rate;
    pub(crate) mod remote;
    pub(crate) mod ring;
    pub(crate) mod shard;
    pub(crate) mod slab;
    pub(crate) mod table;
}
mod sync {
    pub(crate) use shuttle::sync::Mutex;
    pub(crate) use shuttle::sync::MutexGuard;
    pub(crate) use shuttle::sync::atomic::AtomicBool;
    pub(crate) use shuttle::sync::atomic::AtomicU64;
    pub(crate) use shuttle::sync::atomic::AtomicUsize;
    pub(crate) use shuttle::sync::atomic::Ordering;
    pub(crate) use std::sync::Arc;

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock().ok()
    }

    pub(crate) fn thread_key() -> u64 {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        shuttle::thread_local! {
            static KEY: u64 = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        KEY.with(|key| *key)
    }
}

use std::any::TypeId;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Wake;
use std::task::Waker;

use shuttle::sync::Condvar;
use shuttle::thread;

use crate::cluster::queue::Queue;
use crate::cluster::queue::Refused;
use crate::event::Event;
use crate::event::Head;
use crate::ids::SubscriberId;
use crate::local::options::SubscribeOptions;
use crate::local::port::Pushed;
use crate::local::shard::Shard;
use crate::local::shard::Shared;
use crate::local::shard::Turn;
use crate::local::slab::Key;
use crate::local::table::Took;
use crate::sync::Arc;
use crate::sync::AtomicU64;
use crate::sync::Mutex;
use crate::sync::Ordering;
use crate::topic::Topic;

fn check(test: impl Fn() + Send + Sync + 'static) {
    let iterations = std::env::var("SHUTTLE_ITERATIONS").map_or(1_500, |text| text.parse().expect("a number"));
    let test = std::sync::Arc::new(test);
    let same = std::sync::Arc::clone(&test);
    shuttle::check_random(move || same(), iterations);
    // Few, well-placed preemptions find what random walks miss.
    shuttle::check_pct(move || test(), iterations, 3);
}

/// A thread that sleeps until it is woken, as an executor's does.
struct Sleeper {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Sleeper {
    fn new() -> Arc<Self> {
        Arc::new(Self { woken: Mutex::new(false), bell: Condvar::new() })
    }

    fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.bell.wait(woken).unwrap();
        }
        *woken = false;
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.bell.notify_one();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let sleeper = Sleeper::new();
    let waker = Waker::from(Arc::clone(&sleeper));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => sleeper.sleep(),
        }
    }
}

/// The registry: turns until the shard's port is closed and drained.
fn registry(shard: Arc<Shard>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        shard.settle_here();
        let (sleeper, mut wakers) = (Sleeper::new(), Vec::new());
        let waker = Waker::from(Arc::clone(&sleeper));
        loop {
            match shard.turn(2, &mut wakers, &waker) {
                Turn::Sleep => sleeper.sleep(),
                Turn::Again => thread::yield_now(),
                Turn::Ended => return shard.retire(),
            }
        }
    })
}

fn message() -> (TypeId, &'static str) {
    (TypeId::of::<u64>(), "u64")
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn publish(shared: &Shared, on: &Topic, id: u64) -> usize {
    let ports = shared.interest.ports(on, message().0);
    let ports = ports.as_deref().unwrap_or_default();
    ports
        .iter()
        .filter(|port| port.shard().publish(port, None, Head::sole(on.clone(), shared.node, id, None)) == Pushed::Queued)
        .count()
}

fn sit(shard: &Arc<Shard>, on: &[&Topic]) -> Key {
    let seat = shard.sit(SubscriberId::unique(), || "model").ok().unwrap();
    for on in on {
        shard.subscribe(seat, on, message(), &SubscribeOptions::new(), |_| 0).unwrap();
    }
    seat
}

/// Reads a seat until it ends.
fn read_to_end(shard: &Shard, seat: Key) -> Vec<u64> {
    let (sleeper, mut batch, mut read) = (Sleeper::new(), Vec::new(), Vec::new());
    let waker = Waker::from(Arc::clone(&sleeper));
    loop {
        let mut took = shard.take_batch(seat, 3, &waker, &mut batch);
        for taken in &batch {
            assert_eq!(taken.missed, 0, "nothing overflows here");
            read.push(*Event::new(taken.event.clone().unwrap().downcast::<Head<u64>>().ok().unwrap(), 0));
        }
        if took == Took::Batch {
            took = shard.settle(seat, &batch, batch.len(), &waker);
        }
        batch.clear();
        match took {
            Took::Ended => return read,
            Took::Idle | Took::Loose => sleeper.sleep(),
            Took::More | Took::Batch => {}
        }
    }
}

#[test]
fn what_is_published_after_subscribe_returned_arrives_and_what_returned_before_it_does_not() {
    check(|| {
        let shared = Arc::new(Shared::new(64, 0));
        let shard = shared.add_shard(false).unwrap();
        let on = topic("t");
        // Somebody listens from the start, so that events are under way when the other joins.
        let first = sit(&shard, &[&on]);
        let turns = registry(Arc::clone(&shard));
        let (started, returned) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let publisher = {
            let (shared, on, started, returned) = (Arc::clone(&shared), on.clone(), Arc::clone(&started), Arc::clone(&returned));
            thread::spawn(move || {
                for id in 1..=4 {
                    started.store(id, Ordering::SeqCst);
                    assert_eq!(publish(&shared, &on, id), 1);
                    returned.store(id, Ordering::SeqCst);
                }
            })
        };
        let before = returned.load(Ordering::SeqCst);
        let joined = sit(&shard, &[&on]);
        let after = started.load(Ordering::SeqCst);
        let reader = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || read_to_end(&shard, joined))
        };
        publisher.join().unwrap();
        shared.close();
        turns.join().unwrap();
        assert_eq!(read_to_end(&shard, first), [1, 2, 3, 4], "the first one gets all, in order");
        let read = reader.join().unwrap();
        assert!(read.iter().all(|id| *id > before), "{read:?} but {before} had returned before");
        assert!((after + 1..=4).all(|id| read.contains(&id)), "{read:?} but those after {after} began later");
        assert!(read.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{read:?} has a hole or is out of order");
    });
}

#[test]
fn nobody_sleeps_on_an_event_and_each_publisher_is_read_in_order_over_two_topics() {
    check(|| {
        let shared = Arc::new(Shared::new(64, 0));
        let shards = [shared.add_shard(false).unwrap(), shared.add_shard(false).unwrap()];
        let topics = [topic("a"), topic("b")];
        let readers: Vec<_> = shards
            .iter()
            .map(|shard| {
                let (seat, shard) = (sit(shard, &[&topics[0], &topics[1]]), Arc::clone(shard));
                thread::spawn(move || read_to_end(&shard, seat))
            })
            .collect();
        let turns: Vec<_> = shards.iter().map(|shard| registry(Arc::clone(shard))).collect();
        let publishers: Vec<_> = (0..2)
            .map(|who| {
                let (shared, topics) = (Arc::clone(&shared), topics.clone());
                thread::spawn(move || {
                    for id in 1..=3 {
                        assert_eq!(publish(&shared, &topics[id as usize % 2], who * 10 + id), 2);
                    }
                })
            })
            .collect();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        shared.close();
        for turns in turns {
            turns.join().unwrap();
        }
        for reader in readers {
            let read = reader.join().unwrap();
            for who in [0, 10] {
                let of: Vec<u64> = read.iter().copied().filter(|id| id / 10 * 10 == who).collect();
                assert_eq!(of, [who + 1, who + 2, who + 3], "of {read:?}");
            }
        }
    });
}

#[test]
fn subscribers_that_come_and_die_while_others_publish_leave_nothing_behind() {
    check(|| {
        let shared = Arc::new(Shared::new(2, 0));
        let shards = [shared.add_shard(false).unwrap(), shared.add_shard(false).unwrap()];
        let on = topic("t");
        let turns: Vec<_> = shards.iter().map(|shard| registry(Arc::clone(shard))).collect();
        let lives: Vec<_> = shards
            .iter()
            .map(|shard| {
                let (shard, on) = (Arc::clone(shard), on.clone());
                thread::spawn(move || {
                    for _ in 0..2 {
                        let seat = sit(&shard, &[&on]);
                        let mut batch = Vec::new();
                        if shard.take_batch(seat, 2, Waker::noop(), &mut batch) == Took::Batch {
                            shard.settle(seat, &batch, 1, Waker::noop());
                        }
                        shard.unseat(seat, None);
                    }
                })
            })
            .collect();
        for id in 0..4 {
            publish(&shared, &on, id);
        }
        for life in lives {
            life.join().unwrap();
        }
        assert_eq!((shared.interest.subscribers(&on), shared.interest.len()), (0, 0));
        shared.close();
        for turns in turns {
            turns.join().unwrap();
        }
        assert!(shared.shards().is_empty(), "a shard outlives its registry and its seats");
    });
}

#[test]
fn a_publisher_that_waits_for_room_is_told_of_it_and_loses_nothing() {
    check(|| {
        let shared = Arc::new(Shared::new(1, 0));
        let shard = shared.add_shard(false).unwrap();
        let on = topic("t");
        let seat = sit(&shard, &[&on]);
        let turns = registry(Arc::clone(&shard));
        let publishers: Vec<_> = (0..2_u64)
            .map(|who| {
                let (shared, on) = (Arc::clone(&shared), on.clone());
                thread::spawn(move || {
                    for id in 1..=3 {
                        let ports = shared.interest.ports(&on, message().0).unwrap();
                        let event = Head::sole(on.clone(), shared.node, who * 10 + id, None);
                        let pushed = block_on(poll_fn(|cx| ports[0].shard().poll_publish(cx, &ports[0], None, &event)));
                        assert_eq!(pushed, Pushed::Queued);
                    }
                })
            })
            .collect();
        let reader = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || read_to_end(&shard, seat))
        };
        for publisher in publishers {
            publisher.join().unwrap();
        }
        shared.close();
        turns.join().unwrap();
        let mut read = reader.join().unwrap();
        read.sort_unstable();
        assert_eq!(read, [1, 2, 3, 11, 12, 13]);
    });
}

#[test]
fn a_refused_event_is_counted_by_who_was_there_and_by_nobody_else() {
    check(|| {
        let shared = Arc::new(Shared::new(1, 0));
        let shard = shared.add_shard(false).unwrap();
        let on = topic("t");
        let early = sit(&shard, &[&on]);
        let refused = {
            let (shared, on) = (Arc::clone(&shared), on.clone());
            thread::spawn(move || (1..=3).filter(|id| publish(&shared, &on, *id) == 0).count() as u64)
        };
        let refused = refused.join().unwrap();
        let late = sit(&shard, &[&on]);
        let turns = registry(Arc::clone(&shard));
        // Through the port once it has room; the registry is the only other one here.
        let ports = shared.interest.ports(&on, message().0).unwrap();
        let event = Head::sole(on.clone(), shared.node, 9_u64, None);
        block_on(poll_fn(|cx| ports[0].shard().poll_publish(cx, &ports[0], None, &event)));
        shared.close();
        turns.join().unwrap();
        let missed = |seat| {
            let (mut batch, mut missed) = (Vec::new(), 0);
            while !matches!(shard.take_batch(seat, 1, Waker::noop(), &mut batch), Took::Ended) {
                missed += batch.drain(..).map(|taken| taken.missed).sum::<u64>();
            }
            missed
        };
        assert_eq!((refused, missed(early), missed(late)), (2, 2, 0));
    });
}

#[test]
fn what_waits_for_the_relay_arrives_once_in_its_publishers_order_and_nobody_sleeps_on_it() {
    check(|| {
        // Room for one, so that publishers wait for the relay as it does for them.
        let queue = Arc::new(Queue::new(1, 100));
        let publishers: Vec<_> = (0..2_u64)
            .map(|who| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    for id in 1..=2 {
                        let mut frame = Some(who * 10 + id);
                        assert_eq!(block_on(poll_fn(|cx| queue.poll_push(cx, &mut frame, 1))), Ok(()));
                    }
                })
            })
            .collect();
        let (sleeper, mut taken) = (Sleeper::new(), VecDeque::new());
        let waker = Waker::from(Arc::clone(&sleeper));
        while taken.len() < 4 {
            queue.drain(&mut taken, &waker);
            if taken.len() < 4 {
                sleeper.sleep();
            }
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        for who in 0..2 {
            let of: Vec<_> = taken.iter().copied().filter(|frame| frame / 10 == who).collect();
            assert_eq!(of, [who * 10 + 1, who * 10 + 2]);
        }
        assert_eq!((queue.len(), queue.refused()), (0, 0));
    });
}

#[test]
fn who_waits_for_the_relay_is_woken_when_it_ends() {
    check(|| {
        let queue = Arc::new(Queue::new(1, 100));
        assert!(queue.push(1_u64, 1).is_ok());
        let publisher = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut frame = Some(2);
                (block_on(poll_fn(|cx| queue.poll_push(cx, &mut frame, 1))), frame)
            })
        };
        queue.close();
        assert_eq!(publisher.join().unwrap(), (Err(Refused::Closed), Some(2)));
    });
}
