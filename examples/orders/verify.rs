//! Verify: reads the log from its first entry and says what is wrong. Trusts nothing that the run counted.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashSet;
use std::error::Error;

use actix_pubsub::EntryId;
use actix_pubsub::Payload;
use actix_pubsub::Topic;
use actix_pubsub::log::DEAD_LETTER_GROUP;
use actix_pubsub::log::DEAD_LETTER_ID;
use actix_pubsub::log::DEAD_LETTER_REASON;
use actix_pubsub::log::Entry;
use actix_pubsub::log::Limit;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;

use crate::board::Failed;
use crate::messages::BOOKED;
use crate::messages::Booking;
use crate::messages::DEAD;
use crate::messages::ORDERS;
use crate::messages::Order;

/// What the log holds.
pub(crate) struct Findings {
    pub(crate) orders: usize,
    /// Entries among the orders that are none.
    pub(crate) foreign: usize,
    pub(crate) booked: usize,
    /// Reasons, and how many died of each.
    pub(crate) dead: BTreeMap<String, usize>,
    pub(crate) wrong: Vec<String>,
}

pub(crate) async fn verify(store: &dyn Store, orders_wanted: u64) -> Result<Findings, Box<dyn Error>> {
    let (mut orders, mut numbers) = (BTreeMap::new(), BTreeMap::<u64, usize>::new());
    let (mut foreign, mut undecodable) = (0, Vec::new());
    for entry in read_all(store, ORDERS).await? {
        let Some(order) = order_in(&entry) else {
            foreign += 1;
            if is_named_order(&entry) {
                undecodable.push(entry.id);
            }
            continue;
        };
        *numbers.entry(order.number).or_default() += 1;
        orders.insert(entry.id, order);
    }
    let mut booked = BTreeMap::<EntryId, Vec<Booking>>::new();
    for entry in read_all(store, BOOKED).await? {
        let booking: Booking = serde_json::from_slice(&entry.payload)?;
        booked.entry(booking.order).or_default().push(booking);
    }
    let (mut letters, mut dead) = (BTreeSet::new(), BTreeMap::new());
    for entry in read_all(store, DEAD).await?.iter().filter(|entry| entry.header(DEAD_LETTER_GROUP) == Some("ledger")) {
        letters.insert(entry.header(DEAD_LETTER_ID).unwrap_or_default().parse::<EntryId>()?);
        let reason = entry.header(DEAD_LETTER_REASON).unwrap_or_default();
        // The numbers in them differ.
        let reason = reason.split_inclusive(' ').map(|word| if word.contains(['0', '"']) { "… " } else { word }).collect();
        *dead.entry(reason).or_default() += 1;
    }

    let mut wrong = Vec::new();
    for id in undecodable.iter().filter(|id| !letters.contains(id)) {
        wrong.push(format!("entry {id} is no order, and no dead letter"));
    }
    for number in 0..orders_wanted {
        match numbers.get(&number) {
            Some(1) => {}
            times => wrong.push(format!("order {number} was appended {} times", times.unwrap_or(&0))),
        }
    }
    for (id, order) in &orders {
        let (bookings, is_dead) = (booked.get(id).map_or(&[][..], Vec::as_slice), letters.contains(id));
        match bookings {
            [] if is_dead && order.is_poison() => {}
            [] if is_dead => wrong.push(format!("order {} ({id}) is a dead letter and could have been booked", order.number)),
            [] => wrong.push(format!("order {} ({id}) was not booked", order.number)),
            [_] if is_dead => wrong.push(format!("order {} ({id}) was booked and is a dead letter, too", order.number)),
            [one] if Ok(one.cents) != order.cents() => wrong.push(format!("order {} ({id}) was booked as {one:?}", order.number)),
            [_] => {}
            many => wrong.push(format!("order {} ({id}) was booked {} times", order.number, many.len())),
        }
    }
    for id in booked.keys().filter(|id| !orders.contains_key(id)) {
        wrong.push(format!("there is a booking for {id}, which is no order"));
    }
    Ok(Findings { orders: orders.len(), foreign, booked: booked.values().map(Vec::len).sum(), dead, wrong })
}

/// The numbers of the orders that an earlier run appended. Another program's entries among them are none.
pub(crate) async fn appended_before(store: &dyn Store) -> Result<HashSet<u64>, Box<dyn Error>> {
    Ok(read_all(store, ORDERS).await?.iter().filter_map(order_in).map(|order| order.number).collect())
}

fn is_named_order(entry: &Entry) -> bool {
    entry.name.is_empty() || entry.name == Order::NAME
}

fn order_in(entry: &Entry) -> Option<Order> {
    is_named_order(entry).then(|| serde_json::from_slice(&entry.payload).ok())?
}

async fn read_all(store: &dyn Store, topic: &str) -> Result<Vec<Entry>, Box<dyn Error>> {
    let topic = Topic::parse(topic)?;
    let (mut entries, mut from) = (Vec::new(), Position::After(EntryId::MIN));
    loop {
        let page = store.read(&topic, from, Limit::default()).await?;
        if let Some(gap) = page.gap {
            let why = format!("entries of {topic} after {} are gone: {}", gap.asked_after, gap.cause);
            return Err(Failed { why, for_good: true }.into());
        }
        entries.extend(page.entries);
        if page.caught_up {
            return Ok(entries);
        }
        from = Position::After(page.next);
    }
}
