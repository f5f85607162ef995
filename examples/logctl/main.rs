//! Logctl: an operator's view of a log, in any store. `cargo run --example logctl -- file:/tmp/shop.redb groups orders`, or `--help`
//!
//! ```text
//! logctl file:/tmp/shop.redb topics
//! logctl file:/tmp/shop.redb pending orders ledger --idle-min 5s
//! logctl file:/tmp/shop.redb read dead:orders
//! logctl redis://127.0.0.1:6379 tail orders dead:orders --json | jq -r .payload      # needs --features redis
//! logctl redis://127.0.0.1:6379 trim orders --age 7d
//! ```

mod args;
mod commands;
#[path = "../shared/mod.rs"]
mod shared;
mod text;

use std::error::Error;
use std::io;
use std::pin::pin;
use std::process::ExitCode;

use actix::System;
use actix_pubsub::log::StoreError;
use futures::future::Either;
use futures::future::select;

use crate::args::Args;
use crate::args::Command;
use crate::args::USAGE;
use crate::commands::Session;
use crate::shared::address::Address;
use crate::shared::chain;
use crate::text::harmless;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("logctl: {}; logctl --help says more", harmless(&error.to_string()));
            return ExitCode::from(2);
        }
    };
    match System::new().block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever closed our standard output has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("logctl: {}{}", harmless(&chain(&*error)), advice(&*error));
            ExitCode::FAILURE
        }
    }
}

/// What to do about it, where that is known.
fn advice(error: &(dyn Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(StoreError::Locked { .. })) {
            return "; a file is open in one process at a time: ask again when that one has ended";
        }
        cause = error.source();
    }
    ""
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    // To look at a log is not to make one.
    if let Address::File(path) = &args.store {
        let cannot = |error| format!("cannot look at {}: {error}", path.display());
        if !path.try_exists().map_err(cannot)? {
            return Err(format!("there is no file {}", path.display()).into());
        }
        // An empty file would become a store.
        let about = path.metadata().map_err(cannot)?;
        if about.is_file() && about.len() == 0 {
            return Err(format!("file {} is empty, it is no store", path.display()).into());
        }
    }
    let store = args.store.open("logctl")?;
    let follows = matches!(args.command, Command::Tail { .. });
    let session = Session { store: &*store, name: args.store.to_string(), json: args.json };
    let work = session.run(args.command);
    if !follows {
        return work.await;
    }
    // The signal first: who sees the first entry may end it.
    match select(pin!(actix_rt::signal::ctrl_c()), pin!(work)).await {
        Either::Left((signal, _)) => Ok(signal?),
        Either::Right((ended, _)) => ended,
    }
}
