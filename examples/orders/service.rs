//! Service: appends its orders at a steady rate, each under a key, and repeats an append whose answer it did not get. Knows no consumer.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::clock::interval;
use actix::clock::sleep;
use actix_pubsub::AppendOptions;
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
                board.well();
            }
            // Whether it was done or not: under the same key it is done once.
            Err(error) if error.is_transient() => {
                board.trouble(&error);
                sleep(Duration::from_millis(200)).await;
            }
            Err(error) => {
                board.fail(error);
                return;
            }
        }
    }
}
