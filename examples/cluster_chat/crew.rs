//! Crew: several nodes from one command, each a process of its own, so that one can be killed and the others see it. Knows no cluster.

use std::env;
use std::error::Error;
use std::io;
use std::io::Read;
use std::io::Write;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use actix_web::rt::signal;
use actix_web::rt::task::JoinHandle;
use actix_web::rt::task::spawn_blocking;
use futures::future::Either;
use futures::future::join_all;
use futures::future::select;
use tokio::sync::oneshot;

/// Tells a node that it ends when its standard input does: with the process that started it, however that ends.
pub(crate) const MEMBER: &str = "--member";

/// Starts a node for each list of arguments, and ends when all have ended; at SIGTERM and SIGINT it ends them.
pub(crate) async fn run(nodes: Vec<Vec<String>>) -> Result<(), Box<dyn Error>> {
    let program = env::current_exe()?;
    let mut started = Vec::new();
    for args in nodes {
        let child = Command::new(&program).args(&args).arg(MEMBER).stdin(Stdio::piped()).spawn();
        started.push((args, child.map_err(|error| format!("cannot start {}: {error}", program.display()))?));
    }
    // A node lives as long as this is held.
    let inputs: Vec<_> = started.iter_mut().filter_map(|(_, child)| child.stdin.take()).collect();
    let all = join_all(started.into_iter().map(|(args, child)| wait(args, child)));
    if let Either::Right(((), all)) = select(all, Box::pin(stop())).await {
        drop(inputs);
        all.await;
    }
    Ok(())
}

/// Waits for the end of a node, and says how to start it again.
fn wait(args: Vec<String>, mut child: Child) -> JoinHandle<()> {
    spawn_blocking(move || {
        let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let again = args.join(" ");
        // Whoever closed our standard output does not want to know.
        let _ = writeln!(
            io::stdout(),
            "cluster_chat: process {} has ended: {ended}. To start it again: cargo run --features nats,redis,zenoh --example cluster_chat -- {again}",
            child.id()
        );
    })
}

/// Resolves at SIGTERM and SIGINT.
#[cfg(unix)]
async fn stop() {
    let terminate = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            // No handler for it: then only the other.
            Err(_) => futures::future::pending().await,
        }
    };
    select(Box::pin(terminate), Box::pin(signal::ctrl_c())).await;
}

#[cfg(not(unix))]
async fn stop() {
    // No handler for it: then nothing ends them but their own end.
    if signal::ctrl_c().await.is_err() {
        futures::future::pending().await
    }
}

/// Resolves at the end of the standard input.
pub(crate) async fn parent_gone() {
    let (tell, told) = oneshot::channel::<()>();
    // A thread of its own: one that reads does not end when the rest of the process wants to.
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        drop(tell);
    });
    // It says nothing but its end.
    let _ = told.await;
}
