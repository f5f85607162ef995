//! Churn: pairs of subscribe and unsubscribe per second, on one thread.

use std::sync::Arc;
use std::time::Instant;

use actix::Actor;
use actix::Addr;
use actix::AsyncContext;
use actix::Context;
use actix::Handler;
use actix::Message;
use actix::Recipient;
use actix::System;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use dashmap::DashMap;
use tokio::sync::broadcast;

use crate::common::args::Args;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::parts::goal;
use crate::common::record::Row;
use crate::common::record::Unit;

/// An actor that does in its own context what it is told.
struct Member;

/// Makes a task anew for each round.
type Again = Box<dyn Fn() -> Task>;

type Task = Box<dyn FnOnce(&mut Context<Member>) -> f64 + Send>;

/// Answers with pairs per second.
#[derive(Message)]
#[rtype(result = "f64")]
struct Run(Task);

#[derive(Message)]
#[rtype(result = "()")]
struct News;

pub(crate) fn run(args: &Args) {
    let (others, pairs, rounds) = if args.test { (100, 100, 1) } else { (100_000, 20_000, args.rounds.unwrap_or(9)) };
    let results = System::new().block_on(measure(others, pairs, rounds));
    println!("subscribe + unsubscribe, pairs per second on one thread:");
    for (what, rates) in &results {
        println!("  {what:64} {:>12}", numbers::rate(median(rates)));
    }
    for (what, rates) in &results {
        let row = Row::new("churn", "subscribe + unsubscribe", what, Unit::PerSecond, rates).base(LISTED);
        args.record.row(&row.at("other subscribers", others as f64));
    }
    let rate = |at: usize| median(&results[at].1);
    goal(args, rate(0) >= 1e6, "actix-pubsub: at least 1 M/s with distinct topics");
    goal(args, rate(2) >= 1e6, "actix-pubsub: at least 1 M/s on one topic that 100k others share");
}

async fn measure(others: usize, pairs: usize, rounds: usize) -> Vec<(&'static str, Vec<f64>)> {
    let pubsub = PubSub::new();
    let shared = Topic::parse("room:lobby").expect("a valid name");
    let names: Vec<String> = (0..pairs).map(|number| format!("room:{number}")).collect();
    let topics: Vec<Topic> = names.iter().map(|name| Topic::parse(name).expect("a valid name")).collect();
    let recipients: DashMap<String, Vec<Recipient<News>>> = DashMap::new();
    let (sender, receiver) = broadcast::channel::<()>(16);

    let crowd: Vec<Addr<Member>> = (0..others).map(|_| Member.start()).collect();
    for member in &crowd {
        let (pubsub, shared) = (pubsub.clone(), shared.clone());
        let subscribed = member.send(Run(Box::new(move |ctx| {
            pubsub.subscribe::<News, _>(ctx, &shared).expect("on an arbiter");
            0.0
        })));
        subscribed.await.expect("the member runs");
        recipients.entry(shared_name()).or_default().push(member.clone().recipient());
    }
    let receivers: Vec<_> = (0..others).map(|_| receiver.resubscribe()).collect();
    assert_eq!(pubsub.subscribers(&shared), others);

    let member = Member.start();
    let tasks: Vec<(&'static str, Again)> = vec![
        (
            "actix-pubsub, distinct topics, subscribe all, then unsubscribe all",
            Box::new({
                let (pubsub, topics) = (pubsub.clone(), topics.clone());
                move || distinct(pubsub.clone(), topics.clone())
            }),
        ),
        (
            "actix-pubsub, distinct topics, named by &str, one after another",
            Box::new({
                let (pubsub, names) = (pubsub.clone(), names.clone());
                move || one_by_one(pubsub.clone(), names.clone())
            }),
        ),
        (
            "actix-pubsub, one topic with 100k others",
            Box::new({
                let (pubsub, shared) = (pubsub.clone(), shared.clone());
                move || same_topic(pubsub.clone(), shared.clone(), pairs)
            }),
        ),
        (
            "DashMap<String, Vec<Recipient>>, distinct topics",
            Box::new({
                let (recipients, names) = (Arc::new(DashMap::new()), names.clone());
                move || listed(Arc::clone(&recipients), names.clone())
            }),
        ),
        (
            LISTED,
            Box::new({
                let recipients = Arc::new(recipients);
                move || listed(Arc::clone(&recipients), vec![shared_name(); LISTED_PAIRS])
            }),
        ),
        ("tokio broadcast (no actor), one channel with 100k others", Box::new(move || received(sender.clone(), pairs))),
    ];
    let mut results: Vec<_> = tasks.iter().map(|(what, _)| (*what, Vec::new())).collect();
    for _ in 0..rounds {
        for (at, (_, task)) in tasks.iter().enumerate() {
            results[at].1.push(member.send(Run(task())).await.expect("the member runs"));
        }
    }
    drop(receivers);
    assert_eq!(pubsub.subscribers(&shared), others, "whoever unsubscribed is gone, nobody else is");
    assert_eq!(pubsub.topics().len(), 1, "topics without subscribers are gone");
    results
}

fn distinct(pubsub: PubSub, topics: Vec<Topic>) -> Task {
    Box::new(move |ctx| {
        let mut subscriptions = Vec::with_capacity(topics.len());
        let start = Instant::now();
        for topic in &topics {
            subscriptions.push(pubsub.subscribe::<News, _>(ctx, topic).expect("on an arbiter"));
        }
        for subscription in &subscriptions {
            assert!(subscription.unsubscribe());
        }
        per_second(topics.len(), start)
    })
}

fn one_by_one(pubsub: PubSub, names: Vec<String>) -> Task {
    Box::new(move |ctx| {
        let start = Instant::now();
        for name in &names {
            let subscription = pubsub.subscribe::<News, _>(ctx, name).expect("on an arbiter");
            assert!(subscription.unsubscribe());
        }
        per_second(names.len(), start)
    })
}

fn same_topic(pubsub: PubSub, topic: Topic, pairs: usize) -> Task {
    Box::new(move |ctx| {
        let start = Instant::now();
        for _ in 0..pairs {
            let subscription = pubsub.subscribe::<News, _>(ctx, &topic).expect("on an arbiter");
            assert!(subscription.unsubscribe());
        }
        per_second(pairs, start)
    })
}

fn listed(topics: Arc<DashMap<String, Vec<Recipient<News>>>>, names: Vec<String>) -> Task {
    Box::new(move |ctx| {
        let start = Instant::now();
        for name in &names {
            let me: Recipient<News> = ctx.address().recipient();
            topics.entry(name.clone()).or_default().push(me.clone());
            topics.remove_if_mut(name, |_, recipients| {
                recipients.retain(|recipient| *recipient != me);
                recipients.is_empty()
            });
        }
        per_second(names.len(), start)
    })
}

fn received(sender: broadcast::Sender<()>, pairs: usize) -> Task {
    Box::new(move |_| {
        let start = Instant::now();
        for _ in 0..pairs {
            drop(sender.subscribe());
        }
        per_second(pairs, start)
    })
}

fn per_second(pairs: usize, start: Instant) -> f64 {
    pairs as f64 / start.elapsed().as_secs_f64()
}

fn shared_name() -> String {
    "room:lobby".to_owned()
}

const LISTED: &str = "DashMap<String, Vec<Recipient>>, one topic with 100k others";
/// Fewer, because each walks over all others.
const LISTED_PAIRS: usize = 100;

impl Actor for Member {
    type Context = Context<Self>;
}

impl Handler<Run> for Member {
    type Result = f64;

    fn handle(&mut self, run: Run, ctx: &mut Context<Self>) -> f64 {
        run.0(ctx)
    }
}

impl Handler<News> for Member {
    type Result = ();

    fn handle(&mut self, _: News, _: &mut Context<Self>) {}
}

impl Handler<Event<News>> for Member {
    type Result = ();

    fn handle(&mut self, _: Event<News>, _: &mut Context<Self>) {}
}
