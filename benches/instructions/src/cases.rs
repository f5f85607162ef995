//! Cases: the hot paths, each as the same work every time, on one thread. Knows no valgrind.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Store;
use actix_pubsub::testing::wire;

/// A hot path.
pub struct Case {
    /// Its name in the figures.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// How many of them one run does.
    pub units: u32,
    run: fn(u32),
}

/// All of them.
pub const CASES: [Case; 9] = [
    Case { name: "broadcast", unit: "broadcast to a topic with a subscriber", units: 1_000, run: broadcast },
    Case { name: "deliver_one_by_one", unit: "delivery of one event to 500 actors", units: 50 * SUBSCRIBERS, run: one_by_one },
    Case { name: "deliver_burst", unit: "delivery of 200 events to 500 actors", units: 200 * SUBSCRIBERS, run: burst },
    Case { name: "subscribe", unit: "first subscription to a topic", units: 1_000, run: subscribe },
    Case { name: "subscribe_joining", unit: "subscription to a topic that has one", units: 1_000, run: join },
    Case { name: "unsubscribe", unit: "end of a topic's only subscription", units: 1_000, run: unsubscribe },
    Case { name: "frame_encode", unit: "frame of 100 bytes", units: 1_000, run: encode },
    Case { name: "frame_decode", unit: "frame of 100 bytes", units: 1_000, run: decode },
    Case { name: "append_memory", unit: "entry of 100 bytes", units: 1_000, run: append },
];

const SUBSCRIBERS: u32 = 500;

/// Runs a case in this process.
pub fn run(name: &str) -> Result<(), String> {
    let case = CASES.iter().find(|case| case.name == name).ok_or_else(|| format!("there is no case {name}"))?;
    (case.run)(case.units);
    Ok(())
}

/// What callgrind counts: it goes by the name.
#[inline(never)]
pub fn counted_by_callgrind(work: &mut dyn FnMut()) {
    work();
    std::hint::black_box(());
}

struct Counter {
    pubsub: PubSub,
    heard: Rc<Cell<u32>>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Event<u64>> for Counter {
    type Result = ();

    fn handle(&mut self, _: Event<u64>, _: &mut Self::Context) {
        self.heard.set(self.heard.get() + 1);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Subscribe {
    topics: Arc<Vec<Topic>>,
    counted: bool,
}

impl Handler<Subscribe> for Counter {
    type Result = ();

    fn handle(&mut self, Subscribe { topics, counted }: Subscribe, ctx: &mut Self::Context) {
        let mut work = || {
            for topic in topics.iter() {
                self.pubsub.subscribe::<u64, _>(ctx, topic).expect("on an arbiter");
            }
        };
        if counted { counted_by_callgrind(&mut work) } else { work() }
    }
}

fn topics(number: u32) -> Arc<Vec<Topic>> {
    Arc::new((0..number).map(|nth| Topic::parse(&format!("room:{nth}")).expect("a valid name")).collect())
}

/// A pub/sub on this thread, and so many actors that hear `topics`; all is warm.
async fn crowd(actors: u32, topics: &Arc<Vec<Topic>>) -> (PubSub, Vec<Addr<Counter>>, Rc<Cell<u32>>) {
    let (pubsub, heard) = (PubSub::new(), Rc::new(Cell::new(0)));
    let start = |_| Counter { pubsub: pubsub.clone(), heard: Rc::clone(&heard) }.start();
    let addrs: Vec<_> = (0..actors).map(start).collect();
    for addr in &addrs {
        addr.send(Subscribe { topics: Arc::clone(topics), counted: false }).await.expect("it lives");
    }
    if !topics.is_empty() {
        for event in 0..5_u64 {
            pubsub.local_broadcast(&topics[0], event).expect("a valid topic");
            until(&heard, actors * (event as u32 + 1)).await;
        }
        heard.set(0);
    }
    (pubsub, addrs, heard)
}

/// Lets the arbiter run until so much was heard.
async fn until(heard: &Cell<u32>, events: u32) {
    poll_fn(|cx| {
        if heard.get() >= events {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn broadcast(units: u32) {
    System::new().block_on(async {
        let topics = topics(1);
        let (pubsub, _addrs, heard) = crowd(1, &topics).await;
        counted_by_callgrind(&mut || {
            for event in 0..u64::from(units) {
                pubsub.local_broadcast(&topics[0], event).expect("a valid topic");
            }
        });
        until(&heard, units).await;
    });
}

fn one_by_one(units: u32) {
    deliver(units, 1);
}

fn burst(units: u32) {
    deliver(units, units / SUBSCRIBERS);
}

/// Delivers events, so many at once, to 500 actors.
fn deliver(units: u32, at_once: u32) {
    let system = System::new();
    let topics = topics(1);
    let (pubsub, addrs, heard) = system.block_on(crowd(SUBSCRIBERS, &topics));
    counted_by_callgrind(&mut || {
        system.block_on(async {
            for turn in 1..=units / SUBSCRIBERS / at_once {
                for event in 0..at_once {
                    pubsub.local_broadcast(&topics[0], u64::from(event)).expect("a valid topic");
                }
                until(&heard, turn * at_once * SUBSCRIBERS).await;
            }
        });
    });
    drop(addrs);
}

fn subscribe(units: u32) {
    System::new().block_on(async {
        let (_pubsub, addrs, _) = crowd(1, &topics(0)).await;
        addrs[0].send(Subscribe { topics: topics(units), counted: true }).await.expect("it lives");
    });
}

fn join(units: u32) {
    System::new().block_on(async {
        let topics = topics(units);
        let (pubsub, _addrs, heard) = crowd(1, &topics).await;
        let other = Counter { pubsub: pubsub.clone(), heard }.start();
        other.send(Subscribe { topics, counted: true }).await.expect("it lives");
    });
}

fn unsubscribe(units: u32) {
    System::new().block_on(async {
        let topics = topics(units);
        let (pubsub, addrs, _) = crowd(1, &topics).await;
        counted_by_callgrind(&mut || {
            for topic in topics.iter() {
                assert!(pubsub.unsubscribe::<u64>(&addrs[0], topic));
            }
        });
        assert_eq!(pubsub.subscribers(&topics[0]), 0);
    });
}

fn encode(units: u32) {
    let topic = Topic::parse("room:lobby").expect("a valid name");
    counted_by_callgrind(&mut || {
        for _ in 0..units {
            std::hint::black_box(wire::encode(&topic, "chat.new_message", &[7; 100]));
        }
    });
}

fn decode(units: u32) {
    let topic = Topic::parse("room:lobby").expect("a valid name");
    let frame = wire::encode(&topic, "chat.new_message", &[7; 100]);
    counted_by_callgrind(&mut || {
        for _ in 0..units {
            std::hint::black_box(wire::decode(std::hint::black_box(&frame))).expect("a frame");
        }
    });
}

fn append(units: u32) {
    let (store, topic) = (MemoryStore::new(), Topic::parse("orders").expect("a valid name"));
    let system = System::new();
    let append = |entries: u32| {
        system.block_on(async {
            for _ in 0..entries {
                let entry = NewEntry::new("order.placed", &[7; 100][..]);
                store.append(&topic, Append::one(entry)).await.expect("there is room");
            }
        });
    };
    append(10);
    counted_by_callgrind(&mut || append(units));
}
