//! Tokio home: the runtimes on which the subscribers of a peer without arbiters live, one thread each. Knows no peer.

use std::sync::mpsc;
use std::thread;

use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::rig::Placement;
use crate::rig::Stage;

/// Runs a peer's publisher on this thread. `peer` gets the runtime for its subscribers, on this thread or another.
pub(crate) fn run<F: Future<Output = ()>>(stage: Stage, peer: impl FnOnce(Stage, Handle) -> F) {
    let publisher = runtime();
    if stage.placement == Placement::OneThread {
        let here = publisher.handle().clone();
        publisher.block_on(async { peer(stage, here).await });
        return;
    }
    let (give, take) = mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        let subscribers = runtime();
        give.send(subscribers.handle().clone()).expect("the publisher waits for it");
        // It ends when the other side is dropped, too.
        let _ = subscribers.block_on(stopped);
    });
    let there = take.recv().expect("the thread gives its handle");
    publisher.block_on(async { peer(stage, there).await });
    drop(stop);
    thread.join().expect("no subscriber panicked");
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime can be built")
}
