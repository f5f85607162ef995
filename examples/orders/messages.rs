//! Messages: what stands in the topics, and which topics there are. Knows no actor.

use actix_pubsub::EntryId;
use actix_pubsub::Payload;
use serde::Deserialize;
use serde::Serialize;

/// Where the services append.
pub(crate) const ORDERS: &str = "orders";
/// The ledger's book: one entry for each order, under the order's id as its key.
pub(crate) const BOOKED: &str = "ledger:booked";
/// Where an order goes that nobody can handle; the log names it so.
pub(crate) const DEAD: &str = "dead:orders";

/// Who appends.
pub(crate) const SERVICES: [&str; 3] = ["web", "app", "phone"];
/// Who buys, and looks on.
pub(crate) const USERS: [&str; 4] = ["ann", "ben", "cleo", "dan"];

/// Someone bought something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Unique among all orders.
    pub(crate) number: u64,
    pub(crate) service: String,
    pub(crate) user: String,
    pub(crate) item: String,
    pub(crate) quantity: u64,
    /// What all of it costs, as a person would write it.
    pub(crate) amount: String,
}

impl Payload for Order {
    const NAME: &'static str = "shop.order";
}

impl Order {
    /// The order of this number, the same each time. A few cannot be booked: they are what the dead-letter topic is for.
    pub(crate) fn numbered(number: u64) -> Self {
        let index = number as usize;
        let (quantity, cents) = (number % 5 + 1, 199 + number * 37 % 9_000);
        let mut order = Self {
            number,
            service: SERVICES[index % SERVICES.len()].to_owned(),
            user: USERS[index * 7 % USERS.len()].to_owned(),
            item: ["tea", "cup", "pot", "tin"][index / 3 % 4].to_owned(),
            quantity,
            amount: format!("{}.{:02}", cents / 100, cents % 100),
        };
        if number % 250 == 100 {
            // A service sent the letter.
            order.amount = order.amount.replace('.', ".O");
        }
        if number % 1_000 == 60 {
            // The ledger does not expect it, and breaks.
            order.quantity = 0;
        }
        order
    }

    /// What makes a second append of it the same append.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.service, self.number)
    }

    /// Whether the ledger is to give it up.
    pub(crate) fn is_poison(&self) -> bool {
        self.quantity == 0 || self.cents().is_err()
    }

    pub(crate) fn cents(&self) -> Result<u64, String> {
        let refused = || format!("amount {:?} of order {} is no number", self.amount, self.number);
        let (whole, cents) = self.amount.split_once('.').ok_or_else(refused)?;
        match (whole.parse::<u64>(), cents.parse::<u64>()) {
            (Ok(whole), Ok(cents)) if cents < 100 => Ok(whole * 100 + cents),
            _ => Err(refused()),
        }
    }
}

/// The ledger booked an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Booking {
    /// Where the order stands in its topic.
    pub(crate) order: EntryId,
    pub(crate) number: u64,
    pub(crate) user: String,
    pub(crate) cents: u64,
    pub(crate) cents_each: u64,
    /// Which worker, at which delivery.
    pub(crate) worker: String,
    pub(crate) attempt: u32,
}

impl Payload for Booking {
    const NAME: &'static str = "shop.booking";
}

/// What a user's screen is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Update {
    pub(crate) number: u64,
    pub(crate) item: String,
}

impl Payload for Update {
    const NAME: &'static str = "shop.update";
}
