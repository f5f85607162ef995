//! Broadcast: what it costs the caller and until the last handler has run, over the number of topics there are and of arbiters with a subscriber.

use std::sync::Arc;
use std::time::Instant;

use actix::Actor;
use actix::Arbiter;
use actix::Context;
use actix::Handler;
use actix::System;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use crate::common::args::Args;
use crate::common::gate::Gate;
use crate::common::gate::Tally;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::numbers::nanos;
use crate::common::payload::Payload;
use crate::common::record::Row;
use crate::common::record::Unit;

/// One pub/sub with so many topics, each with a subscriber of its own on this arbiter.
struct Table {
    pubsub: PubSub,
    topics: Vec<Topic>,
    gate: Arc<Gate>,
    next: Vec<u64>,
    returns: Vec<f64>,
    last: Vec<f64>,
}

struct Listener {
    pubsub: PubSub,
    topic: Topic,
    tally: Tally,
}

/// Subscribed on an arbiter of its own; says when it has handled an event.
struct Distant {
    pubsub: PubSub,
    handled: UnboundedSender<Instant>,
    ready: Option<oneshot::Sender<()>>,
}

/// One topic with a subscriber on each of so many arbiters, and a publisher on another one.
struct Spread {
    pubsub: PubSub,
    arbiters: Vec<Arbiter>,
    handled: UnboundedReceiver<Instant>,
    returns: Vec<f64>,
    last: Vec<f64>,
}

pub(crate) fn over_topics(args: &Args) {
    let sizes: &[usize] = if args.test { &[1, 10] } else { &[1, 100, 10_000, 100_000, 1_000_000] };
    let (broadcasts, rounds) = if args.test { (20, 1) } else { (2_000, args.rounds.unwrap_or(9)) };
    let measured = System::new().block_on(async {
        let mut all = Vec::new();
        for topics in sizes {
            all.push(Table::start(*topics).await);
        }
        for _ in 0..rounds {
            for topics in &mut all {
                topics.turn(broadcasts).await;
            }
        }
        all.into_iter().map(|topics| (topics.topics.len(), topics.returns, topics.last)).collect::<Vec<_>>()
    });
    println!("a broadcast to one of n topics, each with one subscriber, all on one thread:");
    for (topics, returns, last) in &measured {
        print(args, "topics", *topics, returns, last);
    }
}

pub(crate) fn over_arbiters(args: &Args) {
    let sizes: &[usize] = if args.test { &[1, 2] } else { &[1, 2, 4, 8, 16] };
    let (broadcasts, rounds) = if args.test { (20, 1) } else { (500, args.rounds.unwrap_or(9)) };
    let measured = System::new().block_on(async {
        let mut all = Vec::new();
        for arbiters in sizes {
            all.push(Spread::start(*arbiters).await);
        }
        for _ in 0..rounds {
            for arbiters in &mut all {
                arbiters.turn(broadcasts).await;
            }
        }
        all.into_iter().map(Spread::stop).collect::<Vec<_>>()
    });
    println!("a broadcast to one subscriber on each of n other arbiters, all of them asleep:");
    for (arbiters, returns, last) in &measured {
        print(args, "arbiters", *arbiters, returns, last);
    }
}

fn print(args: &Args, parameter: &str, n: usize, returns: &[f64], last: &[f64]) {
    for (measure, samples) in [("publish returns", returns), ("last handled", last)] {
        let row = Row::new(parameter, measure, "actix-pubsub", Unit::Nanos, samples);
        args.record.row(&row.at(parameter, n as f64));
    }
    let (n, returns, last) = (numbers::count(n), numbers::time(median(returns)), numbers::time(median(last)));
    println!("  {n:>6} {parameter}  returns {returns:>9}   last handled {last:>9}");
}

impl Table {
    async fn start(count: usize) -> Self {
        let (pubsub, gate) = (PubSub::new(), Gate::new());
        let topics: Vec<_> = (0..count).map(|number| Topic::parse(&format!("room:{number}")).expect("a valid name")).collect();
        for topic in &topics {
            Listener { pubsub: pubsub.clone(), topic: topic.clone(), tally: gate.tally(0) }.start();
        }
        gate.arrived(count).await;
        Self { pubsub, next: vec![0; count], topics, gate, returns: Vec::new(), last: Vec::new() }
    }

    /// To topics all over the table, one event at a time.
    async fn turn(&mut self, broadcasts: usize) {
        let (mut returns, mut last) = (Vec::new(), Vec::new());
        for at in 0..broadcasts {
            let at = (self.returns.len() * broadcasts + at) * STRIDE % self.topics.len();
            let payload = Payload::new(self.next[at]);
            self.next[at] += 1;
            self.gate.expect([1, 0]);
            let start = Instant::now();
            self.pubsub.local_broadcast(&self.topics[at], payload).expect("the pub/sub is open");
            returns.push(nanos(start.elapsed()));
            last.push(nanos(self.gate.done().await.saturating_duration_since(start)));
        }
        assert_eq!(self.gate.faults(), 0, "every event arrived, in order");
        self.returns.push(median(&returns));
        self.last.push(median(&last));
    }
}

/// Prime to all numbers of topics, and larger than what fits a cache.
const STRIDE: usize = 7_919;

impl Spread {
    async fn start(count: usize) -> Self {
        let (pubsub, (tell, handled), mut arbiters) = (PubSub::new(), unbounded_channel(), Vec::new());
        for _ in 0..count {
            let (arbiter, (ready, is_ready)) = (Arbiter::new(), oneshot::channel());
            let distant = Distant { pubsub: pubsub.clone(), handled: tell.clone(), ready: Some(ready) };
            arbiter.spawn_fn(move || drop(distant.start()));
            is_ready.await.expect("it subscribes");
            arbiters.push(arbiter);
        }
        Self { pubsub, arbiters, handled, returns: Vec::new(), last: Vec::new() }
    }

    async fn turn(&mut self, broadcasts: usize) {
        let (mut returns, mut last) = (Vec::new(), Vec::new());
        for _ in 0..broadcasts {
            let start = Instant::now();
            let receipt = self.pubsub.local_broadcast(NEWS, Payload::new(0)).expect("the pub/sub is open");
            returns.push(nanos(start.elapsed()));
            assert_eq!(receipt.ports, self.arbiters.len());
            let mut end = start;
            for _ in &self.arbiters {
                end = end.max(self.handled.recv().await.expect("each arbiter has a subscriber"));
            }
            last.push(nanos(end - start));
        }
        self.returns.push(median(&returns));
        self.last.push(median(&last));
    }

    fn stop(self) -> (usize, Vec<f64>, Vec<f64>) {
        let count = self.arbiters.len();
        for arbiter in self.arbiters {
            arbiter.stop();
            arbiter.join().expect("no subscriber panicked");
        }
        (count, self.returns, self.last)
    }
}

const NEWS: &str = "news";

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.pubsub.subscribe::<Payload, _>(ctx, &self.topic).expect("on an arbiter");
        self.tally.arrive();
    }
}

impl Handler<Event<Payload>> for Listener {
    type Result = ();

    fn handle(&mut self, event: Event<Payload>, _: &mut Context<Self>) {
        self.tally.handle(&event);
    }
}

impl Actor for Distant {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.pubsub.subscribe::<Payload, _>(ctx, NEWS).expect("on an arbiter");
        if let Some(ready) = self.ready.take() {
            ready.send(()).expect("it is waited for");
        }
    }
}

impl Handler<Event<Payload>> for Distant {
    type Result = ();

    fn handle(&mut self, _: Event<Payload>, _: &mut Context<Self>) {
        // The bench may have ended.
        let _ = self.handled.send(Instant::now());
    }
}
