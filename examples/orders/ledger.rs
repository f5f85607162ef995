//! Ledger: workers of the group `ledger`, which book each order exactly once however often they are killed, and the foreman who starts them again.
//!
//! What makes it exactly once: a booking is itself an entry of the log, appended under the order's id as its key. A worker that starts reads the book first,
//! then consumes; so what was booked and not acked before a crash is known when it comes again. The key keeps out what two workers book at the same time.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::clock::sleep;
use actix::prelude::*;
use actix_pubsub::AppendOptions;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Consumer;
use actix_pubsub::Delivery;
use actix_pubsub::EntryId;
use actix_pubsub::Event;
use actix_pubsub::Failure;
use actix_pubsub::log::Gap;
use futures::future::join_all;

use crate::Shop;
use crate::messages::BOOKED;
use crate::messages::Booking;
use crate::messages::ORDERS;
use crate::messages::Order;

const WORKERS: usize = 2;
/// Who has an order for longer without a word has lost it.
const VISIBILITY: Duration = Duration::from_secs(3);
/// What the look-up of a customer's account takes.
const LOOK_UP: Duration = Duration::from_millis(2);
/// How long a dead worker's place is empty.
const RESTART_AFTER: Duration = Duration::from_millis(50);

/// Finish what is in flight, then leave the group.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drain;

/// How a worker is killed in the middle of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    /// It panics before the booking.
    Before,
    /// It is stopped while the booking is on its way to the store.
    Midway,
    /// It panics after the booking, before the ack.
    After,
}

/// Who is killed when: each so many orders one worker, in each of the three ways by turns.
#[derive(Debug)]
pub(crate) struct Kills {
    every: u64,
    deliveries: AtomicU64,
}

impl Kills {
    pub(crate) fn among(orders: u64, kills: u64) -> Self {
        let every = if kills == 0 { u64::MAX } else { (orders / (kills + 1)).max(1) };
        Self { every, deliveries: AtomicU64::new(0) }
    }

    /// What happens to the worker that has this order. What comes again is spared, or the same order would be hit until it is given up.
    fn at(&self, delivery: &Delivery<Order>) -> Option<Kill> {
        if delivery.attempt() > 1 || delivery.is_poison() {
            return None;
        }
        let delivery = self.deliveries.fetch_add(1, Ordering::Relaxed) + 1;
        delivery.is_multiple_of(self.every).then(|| match delivery / self.every % 3 {
            1 => Kill::After,
            2 => Kill::Before,
            _ => Kill::Midway,
        })
    }
}

struct Ledger {
    name: String,
    shop: Shop,
    foreman: Addr<Foreman>,
    /// The orders that are in the book: what of it this worker has read.
    booked: HashSet<EntryId>,
    /// The book as it was when this worker started.
    book_head: EntryId,
    consumer: Option<Consumer>,
}

impl Ledger {
    /// Everything that was in the book is known: from here on orders may come.
    fn begin_when_read(&mut self, read_to: EntryId, ctx: &mut Context<Self>) {
        if self.consumer.is_some() || read_to < self.book_head {
            return;
        }
        let options = ConsumeOptions::new()
            .consumer(&*self.name)
            .concurrency(8)
            .visibility(VISIBILITY)
            .attempts(8)
            .backoff(Duration::from_millis(20), Duration::from_secs(1));
        match self.shop.pubsub.consume::<Order, _>(ctx, ORDERS, "ledger", &options) {
            Ok(consumer) => self.consumer = Some(consumer),
            Err(error) => self.shop.board.fail(error),
        }
    }
}

impl Actor for Ledger {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let head = read_head(self.shop.clone()).into_actor(self).map(|head, this, ctx| {
            this.book_head = head;
            // All of it, and a gap if a part of it was trimmed.
            if let Err(error) = this.shop.pubsub.subscribe_from::<Booking, _>(ctx, BOOKED, EntryId::MIN) {
                this.shop.board.fail(error);
            }
            this.begin_when_read(EntryId::MIN, ctx);
        });
        ctx.wait(head);
    }
}

/// However it dies, the foreman hears of it.
impl Drop for Ledger {
    fn drop(&mut self) {
        self.foreman.do_send(Died(std::mem::take(&mut self.name)));
    }
}

async fn read_head(shop: Shop) -> EntryId {
    loop {
        match shop.pubsub.head(BOOKED).await {
            Ok(head) => return head,
            // The store is away; without the book no order may be booked.
            Err(error) => {
                shop.board.trouble(&error);
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

impl Handler<Event<Booking>> for Ledger {
    type Result = ();

    fn handle(&mut self, booking: Event<Booking>, ctx: &mut Self::Context) {
        self.booked.insert(booking.order);
        self.begin_when_read(booking.id().unwrap_or_default(), ctx);
    }
}

impl Handler<Gap> for Ledger {
    type Result = ();

    fn handle(&mut self, gap: Gap, ctx: &mut Self::Context) {
        // It would book again what the lost part of the book says is booked.
        self.shop.board.fail_for_good(format!("the book is incomplete after {}: {}", gap.asked_after, gap.cause));
        ctx.stop();
    }
}

impl Handler<Delivery<Order>> for Ledger {
    type Result = ResponseActFuture<Self, Result<(), Failure>>;

    fn handle(&mut self, order: Delivery<Order>, ctx: &mut Self::Context) -> Self::Result {
        self.shop.board.delivered(&self.name, order.attempt());
        if self.booked.contains(&order.id()) {
            self.shop.board.suppressed.fetch_add(1, Ordering::Relaxed);
            return Box::pin(fut::ready(Ok(())));
        }
        let kill = self.shop.kills.at(&order);
        assert!(kill != Some(Kill::Before), "killed on purpose before the booking");
        if kill == Some(Kill::Midway) {
            ctx.run_later(LOOK_UP + Duration::from_micros(500), |_, ctx| ctx.terminate());
        }
        let (shop, worker) = (self.shop.clone(), self.name.clone());
        let booking = async move { book(&shop, worker, &order).await }.into_actor(self);
        Box::pin(booking.map(move |booked, this, _| {
            let duplicate = booked?;
            assert!(kill != Some(Kill::After), "killed on purpose after the booking");
            if duplicate {
                this.shop.board.suppressed.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }))
    }
}

/// Appends the booking; `true`: it was there.
async fn book(shop: &Shop, worker: String, order: &Delivery<Order>) -> Result<bool, Failure> {
    sleep(LOOK_UP).await;
    let cents = order.cents()?;
    let booking = Booking {
        order: order.id(),
        number: order.number,
        user: order.user.clone(),
        cents,
        cents_each: cents / order.quantity,
        worker,
        attempt: order.attempt(),
    };
    let key = order.id().to_string();
    loop {
        match shop.pubsub.append_with(BOOKED, &booking, AppendOptions::new().key(key.clone())).await {
            Ok(appended) => {
                shop.board.well();
                return Ok(appended.duplicate);
            }
            // The disk is full, or the store is away: no doing of this order, which would be given up for it.
            Err(error) if error.is_transient() => {
                shop.board.trouble(&error);
                sleep(Duration::from_millis(200)).await;
                // If that fails, too, another worker has it later, and the key keeps it from being booked twice.
                let _ = order.extend(VISIBILITY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Handler<Drain> for Ledger {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        match &self.consumer {
            Some(consumer) => Box::pin(consumer.drain()),
            None => Box::pin(std::future::ready(())),
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Died(String);

/// Starts the workers, and each again when it has died. A supervisor would not: actix's does not restart an actor that panicked.
pub(crate) struct Foreman {
    shop: Shop,
    workers: BTreeMap<String, Addr<Ledger>>,
    closing: bool,
}

impl Foreman {
    pub(crate) fn new(shop: Shop) -> Self {
        Self { shop, workers: BTreeMap::new(), closing: false }
    }

    fn hire(&mut self, name: String, ctx: &mut Context<Self>) {
        if self.closing {
            return;
        }
        self.shop.board.alive(&name, true);
        let worker = Ledger {
            name: name.clone(),
            shop: self.shop.clone(),
            foreman: ctx.address(),
            booked: HashSet::new(),
            book_head: EntryId::MIN,
            consumer: None,
        };
        self.workers.insert(name, worker.start());
    }
}

impl Actor for Foreman {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for number in 1..=WORKERS {
            self.hire(format!("ledger-{number}"), ctx);
        }
    }
}

impl Handler<Died> for Foreman {
    type Result = ();

    fn handle(&mut self, Died(name): Died, ctx: &mut Self::Context) {
        if !self.closing {
            self.shop.board.alive(&name, false);
            ctx.run_later(RESTART_AFTER, move |this, ctx| this.hire(name, ctx));
        }
    }
}

impl Handler<Drain> for Foreman {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        self.closing = true;
        let drained: Vec<_> = self.workers.values().map(|worker| worker.send(Drain)).collect();
        Box::pin(async move {
            // One that is dead has nothing in flight.
            let _ = join_all(drained).await;
        })
    }
}
