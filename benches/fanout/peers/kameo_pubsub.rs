//! Kameo pubsub: the `PubSub` of `kameo_actors` as an actor. Unbounded mailboxes and best effort: that loses nothing and is faster than waiting
//! for each subscriber in turn.

use std::sync::Arc;

use kameo::Actor;
use kameo::actor::Spawn;
use kameo::mailbox;
use kameo::message::Context;
use kameo::message::Message;
use kameo_actors::DeliveryStrategy;
use kameo_actors::pubsub::PubSub;
use kameo_actors::pubsub::Publish;

use crate::common::gate::Tally;
use crate::common::payload::Payload;
use crate::peers::tokio_home;
use crate::rig::Stage;

#[derive(Actor)]
struct Listener(Tally);

pub(crate) fn run(stage: Stage) {
    tokio_home::run(stage, |stage, home| async move {
        let mut pubsub = PubSub::<Arc<Payload>>::new(DeliveryStrategy::BestEffort);
        for _ in 0..stage.n {
            let _guard = home.enter();
            pubsub.subscribe(Listener::spawn_with_mailbox(Listener(stage.gate.tally(0)), mailbox::unbounded()));
            stage.gate.arrive();
        }
        let pubsub = PubSub::spawn_with_mailbox(pubsub, mailbox::unbounded());
        stage.direct(|payload| pubsub.tell(Publish(Arc::new(payload))).try_send().expect("the pub/sub runs")).await;
    });
}

impl Message<Arc<Payload>> for Listener {
    type Reply = ();

    async fn handle(&mut self, payload: Arc<Payload>, _: &mut Context<Self, ()>) {
        self.0.handle(&payload);
    }
}
