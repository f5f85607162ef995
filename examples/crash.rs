//! Actors that panic under load, and a table that stays exact: `cargo run --example crash -- [SECONDS]`
//!
//! Four arbiters of actors listen while two threads broadcast. One event in a thousand makes whoever handles it panic; a nursery on each
//! arbiter starts new ones. Once a second the counts of the pub/sub are printed beside those that the actors keep themselves.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::clock::sleep;
use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;

const ARBITERS: usize = 4;
const ACTORS: usize = 250;
const TOPICS: usize = 8;

#[derive(Default)]
struct Count {
    alive: AtomicUsize,
    deaths: AtomicUsize,
    handled: AtomicUsize,
}

struct Fragile {
    pubsub: PubSub,
    topics: Arc<[Topic]>,
    count: Arc<Count>,
    number: usize,
}

impl Actor for Fragile {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for offset in [0, 3] {
            let topic = &self.topics[(self.number + offset) % TOPICS];
            self.pubsub.subscribe::<u64, _>(ctx, topic).expect("a valid topic, on an arbiter");
        }
        self.count.alive.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.count.alive.fetch_sub(1, Ordering::SeqCst);
        self.count.deaths.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler<Event<u64>> for Fragile {
    type Result = ();

    fn handle(&mut self, event: Event<u64>, _: &mut Self::Context) {
        self.count.handled.fetch_add(1, Ordering::Relaxed);
        // Not all of a topic at once: the number decides who breaks on this one.
        assert!(!(*event % 1_000 == 0 && (*event / 1_000 + self.number as u64).is_multiple_of(10)), "broken on purpose");
    }
}

/// Keeps the arbiter's population up.
async fn nursery(pubsub: PubSub, topics: Arc<[Topic]>, all: Arc<Count>, stop: Arc<AtomicBool>) {
    let own = Arc::new(Count::default());
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        while own.alive.load(Ordering::SeqCst) < ACTORS && !stop.load(Ordering::SeqCst) {
            let count = Arc::clone(&own);
            Fragile { pubsub: pubsub.clone(), topics: Arc::clone(&topics), count, number }.start();
            number += 1;
            sleep(Duration::ZERO).await;
        }
        for (from, to) in [(&own.deaths, &all.deaths), (&own.handled, &all.handled)] {
            to.fetch_add(from.swap(0, Ordering::SeqCst), Ordering::SeqCst);
        }
        sleep(Duration::from_millis(1)).await;
    }
    all.alive.fetch_add(own.alive.load(Ordering::SeqCst), Ordering::SeqCst);
}

#[actix::main]
async fn main() {
    let seconds = std::env::args().nth(1).map_or(5, |text| text.parse().expect("a number of seconds"));
    // Hundreds of back traces would hide the table.
    std::panic::set_hook(Box::new(|_| {}));
    let pubsub = PubSub::new();
    let topics: Arc<[Topic]> = (0..TOPICS).map(|n| Topic::parse(&format!("load:{n}")).expect("a valid name")).collect();
    let (all, stop) = (Arc::new(Count::default()), Arc::new(AtomicBool::new(false)));
    let arbiters: Vec<Arbiter> = (0..ARBITERS).map(|_| Arbiter::new()).collect();
    for arbiter in &arbiters {
        arbiter.spawn(nursery(pubsub.clone(), Arc::clone(&topics), Arc::clone(&all), Arc::clone(&stop)));
    }
    let publishers: Vec<_> = (0..2_u64)
        .map(|first| {
            let (pubsub, topics, stop) = (pubsub.clone(), Arc::clone(&topics), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut event = first;
                while !stop.load(Ordering::SeqCst) {
                    pubsub.local_broadcast(&topics[event as usize / 2 % TOPICS], event).expect("it is open");
                    event += 2;
                    std::thread::sleep(Duration::from_micros(50));
                }
            })
        })
        .collect();
    println!("second   deaths   handled   missed   refused   subscriptions");
    for second in 1..=seconds {
        sleep(Duration::from_secs(1)).await;
        let stats = pubsub.stats();
        let refused: u64 = stats.arbiters.iter().map(|arbiter| arbiter.port_refused).sum();
        let (deaths, handled) = (all.deaths.load(Ordering::SeqCst), all.handled.load(Ordering::SeqCst));
        println!("{second:>6} {deaths:>8} {handled:>9} {:>8} {refused:>9} {:>15}", stats.missed, stats.subscriptions.len());
    }
    stop.store(true, Ordering::SeqCst);
    for publisher in publishers {
        publisher.join().expect("publishers do not panic");
    }
    sleep(Duration::from_millis(100)).await;
    let counted: usize = topics.iter().map(|topic| pubsub.subscribers(topic)).sum();
    let alive = all.alive.load(Ordering::SeqCst);
    println!("\n{alive} actors live, {counted} subscriptions are counted, two for each: {}", verdict(counted == 2 * alive));
    for arbiter in arbiters {
        arbiter.stop();
        arbiter.join().expect("arbiters do not panic");
    }
    println!("arbiters stopped, {} topics are left: {}", pubsub.topics().len(), verdict(pubsub.topics().is_empty()));
}

fn verdict(exact: bool) -> &'static str {
    if exact { "exact" } else { "WRONG" }
}
