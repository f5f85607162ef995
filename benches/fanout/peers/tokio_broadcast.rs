//! Tokio broadcast: a channel that holds a whole burst, and a task for each subscriber. No actors.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::common::payload::Payload;
use crate::peers::tokio_home;
use crate::rig::Stage;

pub(crate) fn run(stage: Stage) {
    tokio_home::run(stage, |stage, home| async move {
        let (sender, _) = broadcast::channel::<Arc<Payload>>(CAPACITY);
        for _ in 0..stage.n {
            let (mut receiver, mut tally) = (sender.subscribe(), stage.gate.tally(0));
            home.spawn(async move {
                tally.arrive();
                loop {
                    match receiver.recv().await {
                        Ok(payload) => tally.handle(&payload),
                        Err(RecvError::Lagged(_)) => tally.fault(),
                        Err(RecvError::Closed) => return,
                    }
                }
            });
        }
        stage.gate.arrived(stage.n).await;
        stage.direct(|payload| drop(sender.send(Arc::new(payload)))).await;
    });
}

/// As many events as wait for one subscription of ours by default; no burst is longer.
const CAPACITY: usize = 1_024;
