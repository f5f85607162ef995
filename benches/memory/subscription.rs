//! Subscription: the memory of one idle subscription of an actor that exists already.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::Addr;
use actix::AsyncContext;
use actix::Context;
use actix::Handler;
use actix::Message;
use actix::Recipient;
use actix::System;
use actix_broker::ArbiterBroker;
use actix_broker::BrokerSubscribe;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use dashmap::DashMap;
use tokio::sync::broadcast;
use tokio::time::sleep;

use crate::common::args::Args;
use crate::common::gate::Gate;
use crate::common::parts::goal;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::heap::Heap;

/// What the actors are told to do.
#[derive(Clone)]
enum Way {
    Nothing,
    Pubsub(PubSub, Name),
    Listed(Arc<DashMap<String, Vec<Recipient<News>>>>),
    Broker,
    /// The receiver alone, no task: a lower bound.
    Tokio(broadcast::Sender<()>),
}

#[derive(Clone, Copy)]
enum Name {
    Shared,
    /// Each actor has one of its own.
    Distinct,
    /// Each actor has ten of its own.
    Ten,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Subscribe(Way, usize);

#[derive(Clone, Message)]
#[rtype(result = "()")]
struct News;

struct Idle {
    gate: Arc<Gate>,
    receiver: Option<broadcast::Receiver<()>>,
}

pub(crate) fn run(args: &Args) {
    let n = if args.test { 1_000 } else { args.n.first().copied().unwrap_or(100_000) };
    println!("one idle subscription, {n} actors that existed before:");
    let pubsub = PubSub::new;
    let (sender, receiver) = broadcast::channel(16);
    let ways = [
        ("actix-pubsub, one shared topic", Way::Pubsub(pubsub(), Name::Shared), n),
        ("actix-pubsub, a topic for each", Way::Pubsub(pubsub(), Name::Distinct), n),
        ("actix-pubsub, ten topics for each, per subscription", Way::Pubsub(pubsub(), Name::Ten), n * 10),
        (LISTED, Way::Listed(Arc::default()), n),
        ("actix-broker", Way::Broker, n),
        ("tokio broadcast receiver, without its task", Way::Tokio(sender), n),
    ];
    let mut shared = 0.0;
    for (what, way, subscriptions) in ways {
        let (idle, used) = System::new().block_on(measure(way, n));
        let ((bytes, blocks), (after, blocks_after)) = (idle.each(subscriptions), used.each(subscriptions));
        println!("  {what:52} {bytes:6.0} B in {blocks:.2} blocks; after an event {after:6.0} B in {blocks_after:.2}");
        for (measure, bytes) in [("idle", bytes), ("after an event", after)] {
            let row = Row::new("subscription", measure, what, Unit::Bytes, &[bytes]).base(LISTED);
            args.record.row(&row.at("actors", n as f64));
        }
        if what.contains("shared") {
            shared = bytes.max(after);
        }
    }
    drop(receiver);
    goal(args, shared <= 250.0, &format!("actix-pubsub, one shared topic: {shared:.0} B (at most 250)"));
}

/// The heap that `n` subscriptions take, before and after one event.
async fn measure(way: Way, n: usize) -> (Heap, Heap) {
    let gate = Gate::new();
    let actors: Vec<Addr<Idle>> = (0..n).map(|_| Idle { gate: Arc::clone(&gate), receiver: None }.start()).collect();
    // Each handles a message first, and one of them starts what a thread has once.
    tell(&actors, &gate, &Way::Nothing, 1).await;
    let starter = Idle { gate: Arc::clone(&gate), receiver: None }.start();
    tell(std::slice::from_ref(&starter), &gate, &way, n + 1).await;

    let before = Heap::now();
    tell(&actors, &gate, &way, n + 1 + 1).await;
    let idle = Heap::now().since(before);
    if let Way::Pubsub(pubsub, name) = &way {
        let topics = if matches!(name, Name::Shared) {
            vec!["room:lobby".to_owned()]
        } else {
            pubsub.topics().iter().map(ToString::to_string).collect()
        };
        for topic in topics {
            pubsub.local_broadcast(topic.as_str(), News).expect("the pub/sub is open");
        }
        let patience = Instant::now() + PATIENCE;
        while pubsub.stats().subscriptions.iter().any(|subscription| subscription.depth > 0) {
            assert!(Instant::now() < patience, "not all was handled");
            sleep(SETTLE).await;
        }
    }
    sleep(SETTLE).await;
    (idle, Heap::now().since(before))
}

/// Has every actor do it, and waits for the last one and for what settles after it.
async fn tell(actors: &[Addr<Idle>], gate: &Gate, way: &Way, first: usize) {
    for (number, actor) in actors.iter().enumerate() {
        actor.do_send(Subscribe(way.clone(), number + first));
    }
    gate.arrived(first - 1 + actors.len()).await;
    sleep(SETTLE).await;
}

impl Actor for Idle {
    type Context = Context<Self>;
}

impl Handler<Subscribe> for Idle {
    type Result = ();

    fn handle(&mut self, Subscribe(way, number): Subscribe, ctx: &mut Context<Self>) {
        match way {
            Way::Nothing => {}
            Way::Pubsub(pubsub, name) => {
                let topics = match name {
                    Name::Shared => vec!["room:lobby".to_owned()],
                    Name::Distinct => vec![format!("room:{number}")],
                    Name::Ten => (0..10).map(|part| format!("room:{number}:{part}")).collect(),
                };
                for topic in topics {
                    pubsub.subscribe::<News, _>(ctx, topic).expect("on an arbiter");
                }
            }
            Way::Listed(topics) => topics.entry("room:lobby".to_owned()).or_default().push(ctx.address().recipient()),
            Way::Broker => self.subscribe_async::<ArbiterBroker, News>(ctx),
            Way::Tokio(sender) => self.receiver = Some(sender.subscribe()),
        }
        self.gate.arrive();
    }
}

impl Handler<News> for Idle {
    type Result = ();

    fn handle(&mut self, _: News, _: &mut Context<Self>) {}
}

impl Handler<Event<News>> for Idle {
    type Result = ();

    fn handle(&mut self, _: Event<News>, _: &mut Context<Self>) {}
}

const LISTED: &str = "DashMap<String, Vec<Recipient>>, one topic";
/// Long enough for every actor to be polled once more.
const SETTLE: Duration = Duration::from_millis(300);
/// Nothing takes this long but an event that nobody handles.
const PATIENCE: Duration = Duration::from_secs(120);
