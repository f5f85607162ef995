//! Orders: a ledger that is killed again and again, and books every order exactly once. `cargo run --example orders`
//!
//! ```text
//! web, app, phone ── append ──> "orders" ──┬── group ledger ──> two Ledgers ── append, key = the order's id ──> "ledger:booked"
//!                                          │                       └── killed mid-work; a Foreman starts them again
//!                                          ├── group notify ──> Notify
//!                                          ├── follow ────────> FanOut ── broadcast "user:ann" ──> Screen
//!                                          └── dead letters ──> "dead:orders"
//! ```
//!
//! The log is a file; kill the whole process in the middle, and a second run goes on where the first stopped:
//!
//! ```text
//! cargo run --example orders -- --store file:/tmp/shop.redb --orders 20000 &
//! kill -9 $!
//! cargo run --example orders -- --store file:/tmp/shop.redb --orders 20000 --resume
//! cargo run --example logctl -- file:/tmp/shop.redb groups orders
//! ```

mod board;
mod ledger;
mod messages;
mod readers;
mod service;
#[path = "../shared/mod.rs"]
mod shared;
mod verify;

use std::error::Error;
use std::ffi::OsString;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix::clock::sleep;
use actix::clock::timeout;
use actix::prelude::*;
use actix_pubsub::PubSub;
use actix_pubsub::log::Store;
use futures::future::Either;
use futures::future::select;

use crate::board::Board;
use crate::board::Failed;
use crate::board::Look;
use crate::board::Table;
use crate::ledger::Drain;
use crate::ledger::Foreman;
use crate::ledger::Kills;
use crate::messages::ORDERS;
use crate::messages::Order;
use crate::messages::SERVICES;
use crate::messages::USERS;
use crate::readers::FanOut;
use crate::readers::Notify;
use crate::readers::Screen;
use crate::shared::address::Address;
use crate::shared::chain;
use crate::shared::thousands;

const USAGE: &str = "usage: orders [--orders N] [--rate N] [--kills N] [--store STORE] [--resume]
  --orders N     how many orders, those of an earlier run included; 2000 unless told otherwise
  --rate N       how many are appended in a second; 400 unless told otherwise
  --kills N      how often a ledger worker is killed in the middle of its work; 12 unless told otherwise
  --store STORE  memory, file:PATH, redis://HOST:PORT or nats://HOST:PORT; a new file in the temp dir unless told otherwise
  --resume       go on with what an earlier run left in the store";

/// Without any progress for this long, something is stuck.
const STALL: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Options {
    orders: u64,
    rate: u32,
    kills: u64,
    store: Option<Address>,
    resume: bool,
}

impl Options {
    /// `None`: help was asked for.
    fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>, lexopt::Error> {
        use lexopt::Arg::Long;
        use lexopt::Arg::Short;
        use lexopt::ValueExt;
        let mut options = Self { orders: 2_000, rate: 400, kills: 12, store: None, resume: false };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("orders") => options.orders = parser.value()?.parse()?,
                Long("rate") => options.rate = parser.value()?.parse()?,
                Long("kills") => options.kills = parser.value()?.parse()?,
                Long("store") => options.store = Some(parser.value()?.parse()?),
                Long("resume") => options.resume = true,
                Long("help") | Short('h') => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        if options.rate == 0 {
            return Err("rate is 0, it must be at least 1".into());
        }
        if options.resume && options.store.is_none() {
            return Err("--resume needs the --store of the earlier run".into());
        }
        Ok(Some(options))
    }
}

/// What every actor of the shop holds.
#[derive(Clone)]
struct Shop {
    pubsub: PubSub,
    board: Arc<Board>,
    kills: Arc<Kills>,
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("orders: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    hide_panics_on_purpose();
    match System::new().block_on(run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orders: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// The back traces of the killed would hide the table. Any other panic is shown.
fn hide_panics_on_purpose() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        if !text.contains("on purpose") && !text.contains("divide by zero") {
            default(panic);
        }
    }));
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let fresh = std::env::temp_dir().join(format!("actix-pubsub-orders-{}.redb", std::process::id()));
    let address = options.store.clone().unwrap_or(Address::File(fresh.clone()));
    let store = address.open("orders")?;
    let again = format!("cargo run --example orders -- --store {address} --orders {} --resume", options.orders);
    let ended = shop(&options, &address, store).await;
    match &ended {
        // The file was made for this run only.
        Ok(()) if options.store.is_none() => drop(std::fs::remove_file(&fresh)),
        // Where the log itself lacks something, another run stops at it, too.
        Err(error) if address.is_kept() && !error.downcast_ref::<Failed>().is_some_and(|failed| failed.for_good) => {
            println!("to go on: {again}");
        }
        _ => {}
    }
    ended
}

async fn shop(options: &Options, address: &Address, store: Arc<dyn Store>) -> Result<(), Box<dyn Error>> {
    let pubsub = PubSub::builder().log_shared(Arc::clone(&store)).build()?;
    let head = pubsub.head(ORDERS).await?;
    let before = verify::appended_before(&*store).await?;
    if !before.is_empty() && !options.resume {
        let before = thousands(before.len() as u64);
        return Err(format!("{address} holds {before} orders of an earlier run; --resume goes on with it").into());
    }
    let board = Arc::new(Board::default());
    let kills = Arc::new(Kills::among(options.orders.saturating_sub(before.len() as u64), options.kills));
    let shop = Shop { pubsub: pubsub.clone(), board: Arc::clone(&board), kills };

    for user in 0..USERS.len() {
        Screen { shop: shop.clone(), user }.start();
    }
    FanOut { shop: shop.clone(), from: head }.start();
    let notify = Notify::new(shop.clone()).start();
    let foreman = Foreman::new(shop.clone()).start();

    let stop = Arc::new(AtomicBool::new(false));
    let every = Duration::from_secs(SERVICES.len() as u64) / options.rate;
    for service in SERVICES {
        // What it appended is in the log already; what it was about to append when it died may be, and has the same key.
        let mine = |order: &Order| order.service == service && !before.contains(&order.number);
        let orders = (0..options.orders).map(Order::numbered).filter(mine).collect();
        actix::spawn(service::run(pubsub.clone(), Arc::clone(&board), orders, every, Arc::clone(&stop)));
    }

    let title = format!("orders in {address}");
    let wanted = (0..options.orders).filter(|number| !before.contains(number)).count() as u64;
    let watched = watch(options, title, &board, &*store, wanted);
    let interrupted = match select(pin!(actix_rt::signal::ctrl_c()), pin!(watched)).await {
        Either::Left((signal, _)) => {
            signal?;
            true
        }
        Either::Right((watched, _)) => {
            watched?;
            false
        }
    };
    stop.store(true, Ordering::Relaxed);
    let drained = async { (foreman.send(Drain).await, notify.send(Drain).await) };
    let (ledger, notify) = timeout(DRAIN_TIMEOUT, drained).await.map_err(|_| "the workers did not drain in time")?;
    ledger?;
    notify?;
    if interrupted {
        return Err("interrupted; the workers have drained".into());
    }
    report(&verify::verify(&*store, options.orders).await?, &board)?;
    // Acks may be durable later than the bookings; they are now.
    store.sync().await?;
    // The screens never end by themselves.
    let _ = timeout(DRAIN_TIMEOUT, pubsub.shutdown()).await;
    Ok(())
}

/// Shows the table until everything is done; `wanted` orders are appended in this run.
async fn watch(options: &Options, title: String, board: &Board, store: &dyn Store, wanted: u64) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut table = Table::new(title, options.orders);
    let (mut seen, mut moved_at) = (None::<Look>, started);
    loop {
        if let Some(failure) = board.failure() {
            return Err(failure.into());
        }
        let look = match Look::at(store).await {
            Ok(look) => look,
            // The store is away; it is as stuck as anything else if it does not come back.
            Err(error) if moved_at.elapsed() > STALL => return Err(error),
            Err(error) => {
                board.trouble(&*error);
                if let Some(look) = &seen {
                    table.show(board, look, started.elapsed(), false);
                }
                sleep(LOOK_EVERY).await;
                continue;
            }
        };
        let appended = board.services_done.load(Ordering::Relaxed) == SERVICES.len();
        let shown = board.updates() >= wanted;
        let done = appended && shown && look.is_idle();
        table.show(board, &look, started.elapsed(), done);
        if done {
            return Ok(());
        }
        if seen.as_ref() != Some(&look) {
            (seen, moved_at) = (Some(look), Instant::now());
        } else if moved_at.elapsed() > STALL {
            return Err(format!("nothing moved for {STALL:?}: {look}; {} updates shown", board.updates()).into());
        }
        sleep(LOOK_EVERY).await;
    }
}

fn report(findings: &verify::Findings, board: &Board) -> Result<(), Box<dyn Error>> {
    let orders = thousands(findings.orders as u64);
    println!("\n{orders} orders in the log, {} bookings", thousands(findings.booked as u64));
    if findings.foreign > 0 {
        let live = board.undecodable.load(Ordering::Relaxed);
        println!("{} entries are no orders, {live} of them came while this ran", thousands(findings.foreign as u64));
    }
    for (reason, letters) in &findings.dead {
        println!("{letters} dead letters: {reason}");
    }
    let (kills, suppressed) = (board.deaths(), board.suppressed.load(Ordering::Relaxed));
    println!("{kills} times a ledger worker was killed, {suppressed} duplicates were suppressed");
    if findings.wrong.is_empty() {
        println!("every order is booked exactly once");
        return Ok(());
    }
    for wrong in findings.wrong.iter().take(20) {
        println!("WRONG: {wrong}");
    }
    let why = format!("{} orders are not booked exactly once", findings.wrong.len());
    Err(Failed { why, for_good: true }.into())
}
