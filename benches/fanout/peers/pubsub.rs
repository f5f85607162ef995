//! Pubsub: this crate.

use actix::Actor;
use actix::Context;
use actix::Handler;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;

use crate::common::gate::Tally;
use crate::common::payload::Payload;
use crate::peers::actix_home;
use crate::peers::actix_home::Subscriber;
use crate::rig::Stage;

struct Listener {
    tally: Tally,
    pubsub: PubSub,
    topic: Topic,
}

pub(crate) fn run(stage: Stage) {
    let topic = Topic::parse("room:lobby").expect("a valid name");
    let pubsub = PubSub::new();
    let (known, publisher) = ((pubsub.clone(), topic.clone()), pubsub);
    actix_home::run(
        stage,
        move |tally| Listener { tally, pubsub: known.0.clone(), topic: known.1.clone() },
        |_: Vec<()>| {
            move |payload: Payload| {
                let receipt = publisher.local_broadcast(&topic, payload).expect("the pub/sub is open");
                assert_eq!(receipt.full, 0, "the port is large enough for a burst");
            }
        },
    );
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.pubsub.subscribe::<Payload, _>(ctx, &self.topic).expect("a valid topic, on an arbiter");
        self.tally.arrive();
    }
}

impl Handler<Event<Payload>> for Listener {
    type Result = ();

    fn handle(&mut self, event: Event<Payload>, _: &mut Context<Self>) {
        self.tally.handle(&event);
    }
}

impl Subscriber for Listener {
    type Kept = ();

    fn keep(self) {
        self.start();
    }
}
