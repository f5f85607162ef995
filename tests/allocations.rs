//! Allocations: what a delivery and an idle subscription cost in memory. A binary of its own, because it counts the whole
//! process.
#![allow(missing_docs)]

use std::alloc::System as Heap;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Mutex;

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use futures::StreamExt;
use stats_alloc::Region;
use stats_alloc::StatsAlloc;

#[global_allocator]
static HEAP: &StatsAlloc<Heap> = &stats_alloc::INSTRUMENTED_SYSTEM;

const SUBSCRIBERS: usize = 10_000;

/// One test at a time: they count the whole process.
static COUNTING: Mutex<()> = Mutex::new(());

struct Counter(Rc<Cell<usize>>);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Event<u64>> for Counter {
    type Result = ();

    fn handle(&mut self, _: Event<u64>, _: &mut Self::Context) {
        self.0.set(self.0.get() + 1);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Join(PubSub, Topic);

impl Handler<Join> for Counter {
    type Result = ();

    fn handle(&mut self, Join(pubsub, topic): Join, ctx: &mut Self::Context) {
        pubsub.subscribe::<u64, _>(ctx, &topic).unwrap();
    }
}

async fn heard(count: &Cell<usize>, expected: usize) {
    while count.get() < expected {
        actix::clock::timeout(std::time::Duration::from_millis(1), std::future::pending::<()>()).await.ok();
    }
}

#[test]
fn a_delivery_allocates_nothing_and_an_idle_subscription_takes_at_most_250_bytes() {
    let _alone = COUNTING.lock();
    System::new().block_on(async {
        let (pubsub, topic, count) = (PubSub::new(), Topic::parse("t").unwrap(), Rc::new(Cell::new(0)));
        let addrs: Vec<_> = (0..SUBSCRIBERS).map(|_| Counter(Rc::clone(&count)).start()).collect();
        // The registry, and the room that actors make for their first message, are there before anything is counted.
        let first = Counter(Rc::clone(&count)).start();
        first.send(Join(pubsub.clone(), topic.clone())).await.unwrap();
        for addr in &addrs {
            addr.send(Join(pubsub.clone(), topic.clone())).await.unwrap();
            pubsub.unsubscribe_all(addr);
        }
        pubsub.local_broadcast(&topic, 0_u64).unwrap();
        heard(&count, 1).await;
        for addr in &addrs {
            assert!(addr.connected());
        }

        let before = HEAP.stats();
        for addr in &addrs {
            addr.send(Join(pubsub.clone(), topic.clone())).await.unwrap();
        }
        assert_eq!(pubsub.subscribers(&topic), SUBSCRIBERS + 1);
        let after = HEAP.stats();
        let held = |stats: &stats_alloc::Stats| stats.bytes_allocated - stats.bytes_deallocated;
        let each = (held(&after) - held(&before)) / SUBSCRIBERS;
        assert!((1..=250).contains(&each), "an idle subscription takes {each} bytes");

        // Once around, so that every list has its size.
        pubsub.local_broadcast(&topic, 1_u64).unwrap();
        heard(&count, 2 + SUBSCRIBERS).await;
        let region = Region::new(HEAP);
        for event in 0..20_u64 {
            pubsub.local_broadcast(&topic, event).unwrap();
            heard(&count, 2 + SUBSCRIBERS + (event as usize + 1) * (SUBSCRIBERS + 1)).await;
        }
        for event in 0..200_u64 {
            pubsub.local_broadcast(&topic, event).unwrap();
        }
        heard(&count, 2 + SUBSCRIBERS + 220 * (SUBSCRIBERS + 1)).await;
        let allocations = region.change().allocations;
        // Some per event, its own among them; none per delivery, of which there were ten thousand times as many.
        assert!(allocations < 220 * 20, "{allocations} allocations for 220 events to {SUBSCRIBERS} subscribers");
        drop(addrs);
    });
}

/// A `tracing` subscriber that records all spans of a level, as far as it can without memory of its own.
struct Records(tracing::Level);

impl tracing::Subscriber for Records {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= self.0
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.0.into())
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

const BROADCASTS: usize = 1_000;

#[test]
fn spans_that_nobody_records_allocate_nothing() {
    let _alone = COUNTING.lock();
    System::new().block_on(async {
        let topic = Topic::parse("t").unwrap();
        let (all, none) = (PubSub::new(), PubSub::builder().trace_sampling(0).build().unwrap());
        let streams = || (all.stream::<u64>(&topic).unwrap(), none.stream::<u64>(&topic).unwrap());
        let (mut heard_all, mut heard_none) = streams();
        let mut count = async |sampled: bool| {
            let (pubsub, events) = if sampled { (&all, &mut heard_all) } else { (&none, &mut heard_none) };
            let mut round = async || {
                for event in 0..BROADCASTS as u64 {
                    pubsub.local_broadcast(&topic, event).unwrap();
                    assert_eq!(*events.next().await.unwrap(), event);
                }
            };
            // Once around, so that every list has its size.
            round().await;
            let region = Region::new(HEAP);
            round().await;
            region.change().allocations
        };
        // What happens once may come late on a busy machine: the registry's start is a turn of the arbiter like any other.
        let _ = (count(true).await, count(false).await);
        let (nobody, off) = (count(true).await, count(false).await);
        let coarse = tracing::subscriber::set_default(Records(tracing::Level::INFO));
        let too_fine = count(true).await;
        drop(coarse);
        let _fine = tracing::subscriber::set_default(Records(tracing::Level::DEBUG));
        let (sampled_out, recorded) = (count(false).await, count(true).await);
        assert_eq!((off, too_fine, sampled_out), (nobody, nobody, nobody));
        assert_eq!(recorded, nobody + 2 * BROADCASTS, "one for the span of each, and one for that of its delivery");
    });
}
