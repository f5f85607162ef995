//! Readers: the notification worker, which consumes as the group `notify`; the fan-out worker, which follows the log and broadcasts per user;
//! and the users' live screens. None of them knows the ledger.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Consumer;
use actix_pubsub::Delivery;
use actix_pubsub::EntryId;
use actix_pubsub::Event;
use actix_pubsub::Failure;
use actix_pubsub::log::Gap;
use actix_pubsub::log::GapCause;

use crate::Shop;
use crate::ledger::Drain;
use crate::messages::ORDERS;
use crate::messages::Order;
use crate::messages::Update;

/// Tells customers that their order has come in.
pub(crate) struct Notify {
    shop: Shop,
    /// Told in this run: an order that comes again is not told again.
    told: HashSet<EntryId>,
    consumer: Option<Consumer>,
}

impl Notify {
    pub(crate) const NAME: &str = "notify-1";

    pub(crate) fn new(shop: Shop) -> Self {
        Self { shop, told: HashSet::new(), consumer: None }
    }
}

impl Actor for Notify {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.shop.board.alive(Self::NAME, true);
        let options = ConsumeOptions::new().consumer(Self::NAME).concurrency(16).visibility(Duration::from_secs(3));
        match self.shop.pubsub.consume::<Order, _>(ctx, ORDERS, "notify", &options) {
            Ok(consumer) => self.consumer = Some(consumer),
            Err(error) => self.shop.board.fail(error),
        }
    }
}

impl Handler<Delivery<Order>> for Notify {
    type Result = Result<(), Failure>;

    fn handle(&mut self, order: Delivery<Order>, _: &mut Self::Context) -> Self::Result {
        self.shop.board.delivered(Self::NAME, order.attempt());
        if order.number % 100 == 13 && order.attempt() == 1 {
            return Err(Failure::new("the mail server asked to come back later").after(Duration::from_millis(100)));
        }
        if self.told.insert(order.id()) {
            self.shop.board.notified.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Handler<Drain> for Notify {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        match &self.consumer {
            Some(consumer) => Box::pin(consumer.drain()),
            None => Box::pin(std::future::ready(())),
        }
    }
}

/// Broadcasts each new order to whoever looks at its user's screen. It needs no ack: who looks later reads the log.
pub(crate) struct FanOut {
    pub(crate) shop: Shop,
    /// Where this run began: what was appended before has been on the screens.
    pub(crate) from: EntryId,
}

impl FanOut {
    pub(crate) const NAME: &str = "fan-out";
}

impl Actor for FanOut {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.shop.board.alive(Self::NAME, true);
        if let Err(error) = self.shop.pubsub.subscribe_from::<Order, _>(ctx, ORDERS, self.from) {
            self.shop.board.fail(error);
        }
    }
}

impl Handler<Event<Order>> for FanOut {
    type Result = ();

    fn handle(&mut self, order: Event<Order>, _: &mut Self::Context) {
        self.shop.board.delivered(Self::NAME, 1);
        let update = Update { number: order.number, item: order.item.clone() };
        if let Err(error) = self.shop.pubsub.broadcast(format!("user:{}", order.user), update) {
            self.shop.board.fail(error);
        }
    }
}

impl Handler<Gap> for FanOut {
    type Result = ();

    fn handle(&mut self, gap: Gap, _: &mut Self::Context) {
        if gap.cause == GapCause::Undecodable {
            // Another program's entry, of one: the groups make it a dead letter.
            self.shop.board.undecodable.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.shop.board.fail_for_good(format!("the fan-out missed orders after {}: {}", gap.asked_after, gap.cause));
    }
}

/// A user's screen, live.
pub(crate) struct Screen {
    pub(crate) shop: Shop,
    pub(crate) user: usize,
}

impl Actor for Screen {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let topic = format!("user:{}", crate::messages::USERS[self.user]);
        if let Err(error) = self.shop.pubsub.subscribe::<Update, _>(ctx, topic) {
            self.shop.board.fail(error);
        }
    }
}

impl Handler<Event<Update>> for Screen {
    type Result = ();

    fn handle(&mut self, update: Event<Update>, _: &mut Self::Context) {
        self.shop.board.screens[self.user].fetch_add(1, Ordering::Relaxed);
        self.shop.board.missed.fetch_add(update.missed(), Ordering::Relaxed);
    }
}
