//! Service: appends its orders at a steady rate, each under a key, and repeats an append whose answer it did not get. Knows no consumer.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::clock::interval;
use actix::clock::sleep;
use actix_pubsub::AppendError;
use actix_pubsub::AppendOptions;
use actix_pubsub::EntryId;
use actix_pubsub::Followed;
use actix_pubsub::PubSub;
use futures::StreamExt;
use futures::stream;

use crate::board::Board;
use crate::messages::ORDERS;
use crate::messages::Order;

/// The answers that one service waits for at once.
const IN_FLIGHT: usize = 64;
/// Each so many appends, the answer is "lost", and the append is repeated.
const REPEAT_EVERY: u64 = 40;

/// The numbers of the orders that an earlier run appended.
pub(crate) async fn appended_before(pubsub: &PubSub, head: EntryId) -> Result<HashSet<u64>, Box<dyn Error>> {
    let mut numbers = HashSet::new();
    if head == EntryId::MIN {
        return Ok(numbers);
    }
    let mut history = pubsub.stream_from::<Order>(ORDERS, EntryId::MIN)?;
    while let Some(followed) = history.next().await {
        match followed {
            Followed::Event(order) => {
                numbers.insert(order.number);
                if order.id() >= Some(head) {
                    break;
                }
            }
            Followed::Gap(gap) => return Err(format!("orders after {} are gone: {}", gap.asked_after, gap.cause).into()),
        }
    }
    Ok(numbers)
}

/// Appends these orders, one `every` so often, until all are in the log or `stop` is set.
pub(crate) async fn run(pubsub: PubSub, board: Arc<Board>, orders: Vec<Order>, every: Duration, stop: Arc<AtomicBool>) {
    let ticks = interval(every.max(Duration::from_micros(1)));
    stream::unfold((ticks, orders.into_iter(), stop), |(mut ticks, mut orders, stop)| async move {
        let order = orders.next()?;
        ticks.tick().await;
        (!stop.load(Ordering::Relaxed)).then_some((order, (ticks, orders, stop)))
    })
    .map(|order| append(&pubsub, &board, order))
    .buffer_unordered(IN_FLIGHT)
    .collect::<()>()
    .await;
    board.services_done.fetch_add(1, Ordering::Relaxed);
}

async fn append(pubsub: &PubSub, board: &Board, order: Order) {
    let mut answers_wanted = if order.number % REPEAT_EVERY == 7 { 2 } else { 1 };
    while answers_wanted > 0 {
        match pubsub.append_with(ORDERS, &order, AppendOptions::new().key(order.key())).await {
            Ok(appended) => {
                answers_wanted -= 1;
                let count = if appended.duplicate { &board.repeats } else { &board.appended };
                count.fetch_add(1, Ordering::Relaxed);
            }
            // Whether it was done or not: under the same key it is done once.
            Err(AppendError::Store(error)) if error.is_transient() => sleep(Duration::from_millis(200)).await,
            Err(error) => {
                board.fail(error);
                return;
            }
        }
    }
}
