//! Many: an actor with 1,000 subscriptions beside one with a single one. Publisher and actors are on one thread.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::Context;
use actix::Handler;
use actix::System;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;

use crate::common::args::Args;
use crate::common::gate::Gate;
use crate::common::gate::Tally;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::numbers::nanos;
use crate::common::parts::goal;
use crate::common::payload::Payload;
use crate::common::record::Row;
use crate::common::record::Unit;

struct Listener {
    tally: Tally,
    pubsub: PubSub,
    topics: Vec<Topic>,
}

/// A listener and what it took to reach it.
struct Case {
    what: &'static str,
    gate: Arc<Gate>,
    /// Those that are published to, in turns.
    topics: Vec<Topic>,
    next: u64,
    last: Vec<f64>,
    rate: Vec<f64>,
}

pub(crate) fn run(args: &Args) {
    let (singles, burst, rounds) = if args.test { (5, 100, 2) } else { (200, 1_000, args.rounds.unwrap_or(101)) };
    let cases = System::new().block_on(measure(singles, burst, rounds));
    println!("an actor with many subscriptions, one thread:");
    for case in &cases {
        let (last, rate) = (numbers::time(median(&case.last)), numbers::rate(median(&case.rate)));
        for (measure, unit, samples) in [("single event", Unit::Nanos, &case.last), ("sustained", Unit::PerSecond, &case.rate)] {
            let rounds: Vec<f64> = samples.chunks(samples.len().div_ceil(case.rate.len())).map(median).collect();
            args.record.row(&Row::new("many", measure, case.what, unit, &rounds).base(cases[0].what));
        }
        println!("  {:56} single {last:>9}   sustained {rate:>12}", case.what);
    }
    let single = median(&cases[1].last) / median(&cases[0].last);
    let sustained = median(&cases[0].rate) / median(&cases[1].rate);
    goal(
        args,
        single <= 1.1,
        &format!("1,000 subscriptions: a single event takes {single:.2} times as long as with one (at most 1.1)"),
    );
    goal(
        args,
        sustained <= 1.1,
        &format!("1,000 subscriptions: sustained {sustained:.2} times as slow as with one (at most 1.1)"),
    );
}

async fn measure(singles: usize, burst: usize, rounds: usize) -> Vec<Case> {
    let pubsub = PubSub::new();
    let named = |name: &str, count: usize| -> Vec<Topic> {
        (0..count).map(|number| Topic::parse(&format!("{name}:{number}")).expect("a valid name")).collect()
    };
    let (one, many, all) = (named("one", 1), named("many", 1_000), named("all", 1_000));
    let case = |what, topics: Vec<Topic>, heard: Vec<Topic>| {
        let gate = Gate::new();
        Listener { tally: gate.tally(0), pubsub: pubsub.clone(), topics: heard }.start();
        Case { what, gate, topics, next: 0, last: Vec::new(), rate: Vec::new() }
    };
    let mut cases = vec![
        case("one subscription", one.clone(), one),
        case("1,000 subscriptions, events on one of them", many[..1].to_vec(), many),
        case("1,000 subscriptions, events on all of them in turns", all.clone(), all),
    ];
    for case in &cases {
        case.gate.arrived(1).await;
    }
    for _ in 0..rounds {
        for case in &mut cases {
            case.turn(&pubsub, singles, burst).await;
        }
    }
    cases
}

impl Case {
    async fn turn(&mut self, pubsub: &PubSub, singles: usize, burst: usize) {
        for _ in 0..singles {
            let took = self.publish(pubsub, 1).await;
            self.last.push(nanos(took));
        }
        let took = self.publish(pubsub, burst).await;
        self.rate.push(burst as f64 / took.as_secs_f64());
        assert_eq!((self.gate.handled(), self.gate.faults()), (self.next, 0), "every event arrived, in order");
    }

    async fn publish(&mut self, pubsub: &PubSub, events: usize) -> Duration {
        self.gate.expect([events, 0]);
        let start = Instant::now();
        for _ in 0..events {
            let topic = &self.topics[self.next as usize % self.topics.len()];
            pubsub.local_broadcast(topic, Payload::new(self.next)).expect("the pub/sub is open");
            self.next += 1;
        }
        self.gate.done().await.saturating_duration_since(start)
    }
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        for topic in &self.topics {
            self.pubsub.subscribe::<Payload, _>(ctx, topic).expect("on an arbiter");
        }
        self.tally.arrive();
    }
}

impl Handler<Event<Payload>> for Listener {
    type Result = ();

    fn handle(&mut self, event: Event<Payload>, _: &mut Context<Self>) {
        self.tally.handle(&event);
    }
}
