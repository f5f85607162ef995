//! Order: each publisher's events, in its order, once, across topics, types and arbiters.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;

use crate::support::spin_until;
use crate::support::system;

struct Tick<const TYPE: u8> {
    publisher: u32,
    n: u32,
}

/// Checks order as it listens, and keeps a digest of the whole sequence.
#[derive(Default)]
struct Listener {
    pubsub: Option<PubSub>,
    last: HashMap<u32, u32>,
    digest: u64,
    got: usize,
    failed: Option<String>,
    results: Arc<Mutex<Vec<(usize, u64, Option<String>)>>>,
    arbiter: usize,
    expected: usize,
    ready: Arc<AtomicUsize>,
}

impl Listener {
    fn hear(&mut self, publisher: u32, n: u32, missed: u64) {
        let last = self.last.insert(publisher, n).unwrap_or(0);
        if n != last + 1 || missed != 0 {
            self.failed.get_or_insert_with(|| format!("publisher {publisher}: {n} after {last}, missed {missed}"));
        }
        self.digest =
            self.digest.rotate_left(7) ^ (u64::from(publisher) << 32 | u64::from(n)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.got += 1;
        if self.got == self.expected {
            self.results.lock().unwrap().push((self.arbiter, self.digest, self.failed.take()));
        }
    }
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let pubsub = self.pubsub.take().unwrap();
        for topic in 0..4 {
            pubsub.subscribe::<Tick<0>, _>(ctx, format!("t{topic}")).unwrap();
            pubsub.subscribe::<Tick<1>, _>(ctx, format!("t{topic}")).unwrap();
        }
        self.ready.fetch_add(1, Ordering::SeqCst);
    }
}

impl<const TYPE: u8> Handler<Event<Tick<TYPE>>> for Listener {
    type Result = ();

    fn handle(&mut self, event: Event<Tick<TYPE>>, _: &mut Self::Context) {
        self.hear(event.publisher, event.n, event.missed());
    }
}

#[test]
fn a_million_events_of_8_publishers_reach_4_arbiters_each_once_in_order_and_in_one_order_per_arbiter() {
    const PUBLISHERS: u32 = 8;
    const EVENTS: u32 = 125_000;
    const ARBITERS: usize = 4;
    const PER_ARBITER: usize = 2;
    system(async {
        let pubsub = PubSub::new();
        let (results, ready) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let arbiters: Vec<Arbiter> = (0..ARBITERS).map(|_| Arbiter::new()).collect();
        for (number, arbiter) in arbiters.iter().enumerate() {
            for _ in 0..PER_ARBITER {
                let (pubsub, results, ready) = (pubsub.clone(), Arc::clone(&results), Arc::clone(&ready));
                Listener::start_in_arbiter(&arbiter.handle(), move |_| Listener {
                    pubsub: Some(pubsub),
                    results,
                    ready,
                    arbiter: number,
                    expected: (PUBLISHERS * EVENTS) as usize,
                    ..Listener::default()
                });
            }
        }
        spin_until("all listen", || ready.load(Ordering::SeqCst) == ARBITERS * PER_ARBITER);
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let pubsub = pubsub.clone();
                std::thread::spawn(move || {
                    let topics: Vec<_> = (0..4).map(|n| Topic::parse(&format!("t{n}")).unwrap()).collect();
                    futures::executor::block_on(async {
                        for n in 1..=EVENTS {
                            let topic = &topics[(n.wrapping_mul(2_654_435_761) >> 30) as usize];
                            let receipt = if n % 3 == 0 {
                                pubsub.local_broadcast_async(topic, Tick::<1> { publisher, n }).await.unwrap()
                            } else {
                                pubsub.local_broadcast_async(topic, Tick::<0> { publisher, n }).await.unwrap()
                            };
                            assert_eq!((receipt.ports, receipt.full), (ARBITERS, 0));
                        }
                    });
                })
            })
            .collect();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let listeners = ARBITERS * PER_ARBITER;
        spin_until("all have heard all", || results.lock().unwrap().len() == listeners);
        let results = results.lock().unwrap();
        for (arbiter, digest, failed) in results.iter() {
            assert_eq!(*failed, None);
            let same = results.iter().filter(|(other, ..)| other == arbiter).all(|(_, other, _)| other == digest);
            assert!(same, "two listeners on arbiter {arbiter} saw two orders");
        }
        for arbiter in arbiters {
            arbiter.stop();
            arbiter.join().unwrap();
        }
    });
}

/// A handler that broadcasts, to a big topic and then to a small one, must be heard in that order by who listens to both, although the
/// big fan-out takes several slices and the small one none.
#[test]
fn a_small_topic_does_not_overtake_a_big_fan_out_for_who_listens_to_both() {
    struct Both {
        pubsub: PubSub,
        heard: Arc<Mutex<Vec<u32>>>,
        big: bool,
    }
    impl Actor for Both {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            self.pubsub.subscribe::<Tick<0>, _>(ctx, "big").unwrap();
            if !self.big {
                self.pubsub.subscribe::<Tick<0>, _>(ctx, "small").unwrap();
            }
        }
    }
    impl Handler<Event<Tick<0>>> for Both {
        type Result = ();

        fn handle(&mut self, event: Event<Tick<0>>, _: &mut Self::Context) {
            if !self.big {
                self.heard.lock().unwrap().push(event.n);
            }
        }
    }
    system(async {
        let pubsub = PubSub::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let start = |big| Both { pubsub: pubsub.clone(), heard: Arc::clone(&heard), big }.start();
        // The one that listens to both is the first to subscribe and so the last to be told of the big one.
        let _both = start(false);
        crate::support::until("it is there", || pubsub.subscribers("small") == 1).await;
        for _ in 0..10_000 {
            start(true);
        }
        crate::support::until("all are there", || pubsub.subscribers("big") == 10_001).await;
        for n in 0..10 {
            pubsub.local_broadcast(if n % 2 == 0 { "big" } else { "small" }, Tick::<0> { publisher: 0, n }).unwrap();
        }
        crate::support::until("it has heard all", || heard.lock().unwrap().len() == 10).await;
        assert_eq!(*heard.lock().unwrap(), (0..10).collect::<Vec<_>>());
    });
}
