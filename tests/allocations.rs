//! Allocations: what a delivery and an idle subscription cost in memory. A binary of its own with one test, because it counts the whole
//! process.
#![allow(missing_docs)]

use std::alloc::System as Heap;
use std::cell::Cell;
use std::rc::Rc;

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use stats_alloc::Region;
use stats_alloc::StatsAlloc;

#[global_allocator]
static HEAP: &StatsAlloc<Heap> = &stats_alloc::INSTRUMENTED_SYSTEM;

const SUBSCRIBERS: usize = 10_000;

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
        let bytes =
            (after.bytes_allocated + before.bytes_deallocated) as i64 - (before.bytes_allocated + after.bytes_deallocated) as i64;
        let each = bytes / SUBSCRIBERS as i64;
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
