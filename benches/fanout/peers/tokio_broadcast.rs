//! Tokio broadcast: a channel that holds a whole burst, and a task for each subscriber. No actors. Once on bare runtimes, where it is at its
//! fastest, and once on actix arbiters, where an application that has actors would run it.

use std::sync::Arc;

use actix::Arbiter;
use actix::System;
use tokio::sync::broadcast;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::common::gate::Tally;
use crate::common::payload::Payload;
use crate::peers::tokio_home;
use crate::rig::Placement;
use crate::rig::Stage;

pub(crate) fn run(stage: Stage) {
    tokio_home::run(stage, |stage, home| async move {
        let (sender, _) = broadcast::channel(CAPACITY);
        for _ in 0..stage.n {
            home.spawn(listen(sender.subscribe(), stage.gate.tally(0)));
        }
        stage.gate.arrived(stage.n).await;
        stage.direct(|payload| drop(sender.send(Arc::new(payload)))).await;
    });
}

pub(crate) fn run_on_arbiters(stage: Stage) {
    System::new().block_on(async move {
        let (sender, _) = broadcast::channel(CAPACITY);
        let there = (stage.placement != Placement::OneThread).then(Arbiter::new);
        let home = there.as_ref().map_or_else(Arbiter::current, Arbiter::handle);
        let (receivers, gate, n) = (sender.clone(), Arc::clone(&stage.gate), stage.n);
        home.spawn_fn(move || {
            for _ in 0..n {
                drop(actix::spawn(listen(receivers.subscribe(), gate.tally(0))));
            }
        });
        stage.gate.arrived(stage.n).await;
        stage.direct(|payload| drop(sender.send(Arc::new(payload)))).await;
        if let Some(there) = there {
            there.stop();
            there.join().expect("no subscriber panicked");
        }
    });
}

async fn listen(mut receiver: Receiver<Arc<Payload>>, mut tally: Tally) {
    tally.arrive();
    loop {
        match receiver.recv().await {
            Ok(payload) => tally.handle(&payload),
            Err(RecvError::Lagged(_)) => tally.fault(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// As many events as wait for one subscription of ours by default; no burst is longer.
const CAPACITY: usize = 1_024;
