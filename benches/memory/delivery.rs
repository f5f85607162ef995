//! Delivery: allocations while events are delivered, apart from those that each event costs whoever listens.

use std::sync::Arc;

use actix::Actor;
use actix::Context;
use actix::Handler;
use actix::Message;
use actix::Recipient;
use actix::System;
use actix_pubsub::Event;
use actix_pubsub::PubSub;

use crate::common::args::Args;
use crate::common::gate::Gate;
use crate::common::gate::Tally;
use crate::common::parts::goal;
use crate::common::payload::Payload;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::heap::Heap;

struct Listener {
    tally: Tally,
    pubsub: PubSub,
}

#[derive(Clone, Message)]
#[rtype(result = "()")]
struct News(Arc<Payload>);

pub(crate) fn run(args: &Args) {
    let (events, many) = if args.test { (64, 64) } else { (256, 4_096) };
    println!("allocations while {events} events are delivered, publisher and subscribers on one thread:");
    for burst in [1, events] {
        let cost = |n: usize| System::new().block_on(pubsub(n, events, burst));
        let (one, all) = (cost(1), cost(many));
        let each = (all - one) as f64 / (events * (many - 1)) as f64;
        println!(
            "  actix-pubsub, {burst:3} at a time: {:.2} per event with one subscriber, {each:.5} more per delivery",
            one as f64 / events as f64
        );
        let what = format!("actix-pubsub, {burst} at a time");
        args.record.row(&Row::new("delivery", "allocations per delivery", &what, Unit::Count, &[each]));
        let each_event = one as f64 / events as f64;
        args.record.row(&Row::new("delivery", "allocations per event, one subscriber", &what, Unit::Count, &[each_event]));
        assert!(each < 0.001, "a delivery allocates");
        goal(args, each < 0.001, &format!("actix-pubsub, {burst} at a time: no allocation per delivery"));
    }
    let cost = |n: usize| System::new().block_on(send_loop(n, events));
    let each = (cost(many) - cost(1)) as f64 / (events * (many - 1)) as f64;
    let what = format!("do_send loop, {events} at a time");
    args.record.row(&Row::new("delivery", "allocations per delivery", &what, Unit::Count, &[each]));
    println!("  do_send loop, {events} at a time: {each:.5} per delivery");
}

async fn pubsub(n: usize, events: usize, burst: usize) -> i64 {
    let (pubsub, gate) = (PubSub::new(), Gate::new());
    for _ in 0..n {
        Listener { tally: gate.tally(0), pubsub: pubsub.clone() }.start();
    }
    gate.arrived(n).await;
    let mut next = 0;
    let mut cost = 0;
    // The first time is for what grows once.
    for _ in 0..2 {
        let before = Heap::now();
        for _ in 0..events / burst {
            gate.expect([burst * n, 0]);
            for _ in 0..burst {
                pubsub.local_broadcast("room:lobby", Payload::new(next)).expect("the pub/sub is open");
                next += 1;
            }
            gate.done().await;
        }
        cost = Heap::now().since(before).allocations;
    }
    assert_eq!((gate.handled(), gate.faults()), (next * n as u64, 0), "every event arrived, in order");
    cost
}

async fn send_loop(n: usize, events: usize) -> i64 {
    let gate = Gate::new();
    let recipients: Vec<Recipient<News>> =
        (0..n).map(|_| Listener { tally: gate.tally(0), pubsub: PubSub::new() }.start().recipient()).collect();
    gate.arrived(n).await;
    let mut cost = 0;
    for round in 0..2 {
        let before = Heap::now();
        gate.expect([events * n, 0]);
        for event in 0..events {
            let news = News(Arc::new(Payload::new((round * events + event) as u64)));
            for recipient in &recipients {
                recipient.do_send(news.clone());
            }
        }
        gate.done().await;
        cost = Heap::now().since(before).allocations;
    }
    assert_eq!(gate.faults(), 0, "every message arrived, in order");
    cost
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.pubsub.subscribe::<Payload, _>(ctx, "room:lobby").expect("on an arbiter");
        self.tally.arrive();
    }
}

impl Handler<Event<Payload>> for Listener {
    type Result = ();

    fn handle(&mut self, event: Event<Payload>, _: &mut Context<Self>) {
        self.tally.handle(&event);
    }
}

impl Handler<News> for Listener {
    type Result = ();

    fn handle(&mut self, news: News, _: &mut Context<Self>) {
        self.tally.handle(&news.0);
    }
}
