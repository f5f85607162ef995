//! Ractor port: ractor's `OutputPort`, version 2, which loses nothing.

use std::sync::Arc;

use ractor::Actor;
use ractor::ActorProcessingErr;
use ractor::ActorRef;
use ractor::OutputPort;

use crate::common::gate::Tally;
use crate::common::payload::Payload;
use crate::peers::tokio_home;
use crate::rig::Stage;

struct Listener;

pub(crate) fn run(stage: Stage) {
    tokio_home::run(stage, |stage, home| async move {
        let port = OutputPort::<Arc<Payload>>::default();
        let (gate, n) = (Arc::clone(&stage.gate), stage.n);
        let listeners = home.spawn(async move {
            let mut listeners = Vec::with_capacity(n);
            for _ in 0..n {
                listeners.push(Actor::spawn(None, Listener, gate.tally(0)).await.expect("an actor can be started").0);
            }
            listeners
        });
        for listener in listeners.await.expect("the actors are started") {
            port.subscribe(listener, Some);
            stage.gate.arrive();
        }
        stage.direct(|payload| port.send(Arc::new(payload))).await;
    });
}

impl Actor for Listener {
    type Msg = Arc<Payload>;
    type State = Tally;
    type Arguments = Tally;

    async fn pre_start(&self, _: ActorRef<Arc<Payload>>, tally: Tally) -> Result<Tally, ActorProcessingErr> {
        Ok(tally)
    }

    async fn handle(
        &self,
        _: ActorRef<Arc<Payload>>,
        payload: Arc<Payload>,
        tally: &mut Tally,
    ) -> Result<(), ActorProcessingErr> {
        tally.handle(&payload);
        Ok(())
    }
}
