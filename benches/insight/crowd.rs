//! Crowd: many subscribers on an arbiter of their own, and a publisher that knows when all have handled all. Knows no one who looks.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::Arbiter;
use actix::Context;
use actix::Handler;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;

use crate::common::gate::Gate;
use crate::common::gate::Tally;
use crate::common::payload::Payload;

pub(crate) struct Crowd {
    pub(crate) pubsub: PubSub,
    topic: Topic,
    gate: Arc<Gate>,
    members: usize,
    sent: u64,
    arbiter: Arbiter,
}

struct Member {
    pubsub: PubSub,
    topic: Topic,
    tally: Tally,
}

impl Crowd {
    pub(crate) async fn gather(members: usize) -> Self {
        Self::gather_in(PubSub::new(), members).await
    }

    pub(crate) async fn gather_in(pubsub: PubSub, members: usize) -> Self {
        let topic = Topic::parse("room:lobby").expect("a valid name");
        let (gate, arbiter) = (Gate::new(), Arbiter::new());
        for _ in 0..members {
            let member = Member { pubsub: pubsub.clone(), topic: topic.clone(), tally: gate.tally(0) };
            arbiter.spawn_fn(move || drop(member.start()));
        }
        gate.arrived(members).await;
        Self { pubsub, topic, gate, members, sent: 0, arbiter }
    }

    /// Deliveries per second over about this long: one broadcast after the other, each handled by all before the next.
    pub(crate) async fn rate(&mut self, time: Duration) -> f64 {
        let (start, mut deliveries) = (Instant::now(), 0);
        let end = loop {
            let end = self.burst().await;
            deliveries += self.burst_deliveries();
            if end - start >= time {
                break end;
            }
        };
        assert_eq!(self.gate.faults(), 0);
        deliveries as f64 / (end - start).as_secs_f64()
    }

    /// Some broadcasts at once. Says when the last member had handled the last.
    pub(crate) async fn burst(&mut self) -> Instant {
        self.gate.expect([self.burst_deliveries(), 0]);
        for _ in 0..BURST {
            let sent = self.pubsub.local_broadcast(&self.topic, Payload::new(self.sent)).expect("it is taken");
            assert_eq!((sent.ports, sent.full), (1, 0));
            self.sent += 1;
        }
        self.gate.done().await
    }

    pub(crate) fn burst_deliveries(&self) -> usize {
        self.members * BURST
    }

    pub(crate) fn disperse(self) {
        self.arbiter.stop();
        self.arbiter.join().expect("it ends");
    }
}

impl Actor for Member {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.pubsub.subscribe::<Payload, _>(ctx, &self.topic).expect("on an arbiter");
        self.tally.arrive();
    }
}

impl Handler<Event<Payload>> for Member {
    type Result = ();

    fn handle(&mut self, event: Event<Payload>, _: &mut Self::Context) {
        self.tally.handle(&event);
    }
}

/// Broadcasts that are under way at once.
const BURST: usize = 16;
