//! Latency: from an append to the handler of a live subscriber, one entry at a time, beside a commit of one entry by the bare engine.

use std::time::Instant;

use actix::Actor;
use actix::Arbiter;
use actix::Context;
use actix::Handler;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::Gap;
use actix_pubsub::log::Position;
use tokio::sync::mpsc;

use crate::Bench;
use crate::bare::BareEngine;
use crate::common::numbers::nanos;
use crate::common::numbers::quantile;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::folder::Folder;
use crate::note::Note;
use crate::report::Goal;

/// Says when an event was handled.
struct Listener {
    pubsub: PubSub,
    topic: Topic,
    follows: bool,
    next: u64,
    handled: mpsc::UnboundedSender<Instant>,
}

/// One way to listen.
struct Way {
    name: &'static str,
    topic: Topic,
    handled: mpsc::UnboundedReceiver<Instant>,
    number: u64,
    took: Vec<f64>,
}

pub(crate) async fn run(bench: &mut Bench) {
    let (warm, samples) = bench.size((1, 3), (50, 1_500));
    let folder = Folder::new();
    let store = EmbeddedStore::open(folder.file("store")).expect("a store");
    let pubsub = PubSub::builder().log(store.clone()).build().expect("a pub/sub");
    let mut engine = BareEngine::create(&folder.file("engine"));
    let (here, there) = (Arbiter::current(), Arbiter::new());
    let mut ways = Vec::new();
    for (name, follows, arbiter) in [
        ("subscriber, same arbiter", false, &here),
        ("subscriber, another arbiter", false, &there.handle()),
        ("follower, same arbiter", true, &here),
        ("follower, another arbiter", true, &there.handle()),
    ] {
        let (handled, told) = mpsc::unbounded_channel();
        let topic = Topic::parse(&format!("latency:{}", ways.len())).expect("a topic");
        let (pubsub, of) = (pubsub.clone(), topic.clone());
        Listener::start_in_arbiter(arbiter, move |_| Listener { pubsub, topic: of, follows, next: 0, handled });
        ways.push(Way { name, topic, handled: told, number: 0, took: Vec::new() });
    }
    while ways.iter().any(|way| pubsub.subscribers(&way.topic) == 0) {
        tokio::task::yield_now().await;
    }
    let quiet = Topic::parse("latency:nobody").expect("a topic");
    let (payload, mut commits, mut returns) = (Note::json(1), Vec::new(), Vec::new());
    for sample in 0..warm + samples {
        let start = Instant::now();
        engine.append_same(1, 1, &payload);
        commits.push(nanos(start.elapsed()));
        let start = Instant::now();
        pubsub.append(&quiet, &Note::new(sample as u64)).await.expect("an append");
        returns.push(nanos(start.elapsed()));
        for way in &mut ways {
            way.sample(&pubsub).await;
        }
    }
    engine.check();
    let all =
        ways.iter().map(|way| (way.name, &way.took)).chain([(COMMIT, &commits), ("append returns, nobody listens", &returns)]);
    for (peer, samples) in all {
        let row = Row::new("latency", "one entry, from its append on", peer, Unit::Nanos, &[]).base(COMMIT);
        bench.args.record.percentiles(&row, &samples[warm..]);
    }
    let of = |samples: &[f64], q| quantile(&samples[warm..], q);
    for (quantile, q) in [("p50", 0.5), ("p99", 0.99)] {
        let base = of(&commits, q);
        let peer = format!("{quantile} of a bare commit");
        for way in &ways {
            let what = format!("append to handler, {quantile}, {}", way.name);
            bench.report.times(what, of(&way.took, q), &peer, base, Goal::AtMost(2.0));
        }
        bench.report.times(format!("append returns, {quantile}, nobody listens"), of(&returns, q), &peer, base, Goal::Free);
    }
    pubsub.shutdown().await;
    there.stop();
    there.join().expect("no handler panics");
    store.close().await.expect("a close");
}

const COMMIT: &str = "bare commit";

impl Way {
    async fn sample(&mut self, pubsub: &PubSub) {
        let note = Note::new(self.number);
        self.number += 1;
        let start = Instant::now();
        pubsub.append(&self.topic, &note).await.expect("an append");
        let handled = self.handled.recv().await.expect("it is handled");
        self.took.push(nanos(handled.saturating_duration_since(start)));
        assert!(self.handled.is_empty(), "an event came twice");
    }
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.follows {
            self.pubsub.subscribe_from::<Note, _>(ctx, &self.topic, Position::End).expect("a topic of the log");
        } else {
            self.pubsub.subscribe::<Note, _>(ctx, &self.topic).expect("on an arbiter");
        }
    }
}

impl Handler<Event<Note>> for Listener {
    type Result = ();

    fn handle(&mut self, note: Event<Note>, _: &mut Context<Self>) {
        let now = Instant::now();
        assert_eq!(note.number, self.next, "an event was lost, doubled or out of order");
        self.next += 1;
        // The bench may have ended.
        let _ = self.handled.send(now);
    }
}

impl Handler<Gap> for Listener {
    type Result = ();

    fn handle(&mut self, gap: Gap, _: &mut Context<Self>) {
        panic!("nothing was trimmed: {gap:?}");
    }
}
