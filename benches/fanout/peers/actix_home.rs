//! Actix home: the arbiters on which the subscribers of an actix peer live. Knows no peer.

use std::sync::Arc;

use actix::Actor;
use actix::Arbiter;
use actix::Context;
use actix::Message;
use actix::System;
use tokio::sync::oneshot;

use crate::common::gate::Tally;
use crate::common::payload::Payload;
use crate::rig::Placement;
use crate::rig::Stage;

/// The message of the peers that use mailboxes.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct News(pub(crate) Arc<Payload>);

/// Runs a peer in a system of its own: starts its subscribers, then publishes with what `publisher` makes of them.
pub(crate) fn run<A, P>(
    stage: Stage,
    start: impl Fn(Tally) -> A + Send + Clone + 'static,
    publisher: impl FnOnce(Vec<A::Kept>) -> P,
) where
    A: Subscriber,
    P: FnMut(Payload),
{
    System::new().block_on(async move {
        let here = Arbiter::current();
        let there = (stage.placement != Placement::OneThread).then(Arbiter::new);
        let homes = match (stage.placement, &there) {
            (Placement::Spread, Some(there)) => vec![here, there.handle()],
            (_, Some(there)) => vec![there.handle()],
            (_, None) => vec![here],
        };
        let mut kept = Vec::with_capacity(stage.n);
        for (lane, home) in homes.into_iter().enumerate() {
            let (gate, start, count) = (Arc::clone(&stage.gate), start.clone(), stage.placement.lanes(stage.n)[lane]);
            let (done, started) = oneshot::channel();
            home.spawn_fn(move || {
                // The receiver waits for exactly this.
                let _ = done.send((0..count).map(|_| A::keep(start(gate.tally(lane)))).collect::<Vec<_>>());
            });
            kept.extend(started.await.expect("the arbiter runs"));
        }
        stage.gate.arrived(stage.n).await;
        stage.direct(publisher(kept)).await;
        if let Some(there) = there {
            there.stop();
            there.join().expect("no subscriber panicked");
        }
    });
}

/// A subscriber, and what its publisher keeps of it. It arrives at the gate when it is subscribed.
pub(crate) trait Subscriber: Actor<Context = Context<Self>> {
    type Kept: Send + 'static;

    fn keep(self) -> Self::Kept;
}
