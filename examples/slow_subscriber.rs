//! What a subscriber that does not keep up gets, by overflow policy: `cargo run --example slow_subscriber`
//!
//! Four subscribers have room for three events and are busy while ten are broadcast; one keeps up. Nobody waits for the busy ones,
//! `stats` names them, and each learns exactly what it missed.

use std::time::Duration;

use actix::clock::sleep;
use actix::fut;
use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::Overflow;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::SubscriptionClosed;

struct Reader {
    name: &'static str,
    pubsub: PubSub,
    options: SubscribeOptions,
    busy: bool,
}

impl Actor for Reader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let options = self.options.clone().metadata(self.name).on_close(ctx.address().recipient());
        self.pubsub.subscribe_with::<u32, _>(ctx, "ticks", &options).expect("a valid topic, on an arbiter");
    }
}

impl Handler<Event<u32>> for Reader {
    type Result = ();

    fn handle(&mut self, tick: Event<u32>, ctx: &mut Self::Context) {
        if self.name != "keeps up" {
            println!("{:<12} got {:>2}, missed {}", self.name, *tick, tick.missed());
        }
        if std::mem::take(&mut self.busy) {
            // Busy for a while: a slow socket, a slow database. Its other events wait meanwhile.
            ctx.wait(fut::wrap_future(sleep(Duration::from_millis(200))));
        }
    }
}

impl Handler<SubscriptionClosed> for Reader {
    type Result = ();

    fn handle(&mut self, closed: SubscriptionClosed, _: &mut Self::Context) {
        println!("{:<12} was cut off: {}", self.name, closed.reason);
    }
}

#[actix::main]
async fn main() {
    let pubsub = PubSub::new();
    let three = SubscribeOptions::new().capacity(3);
    let readers = [
        ("keeps up", three.clone(), false),
        ("drop oldest", three.clone(), true),
        ("latest", three.clone().overflow(Overflow::Latest), true),
        ("disconnect", three.overflow(Overflow::Disconnect), true),
        ("has room", SubscribeOptions::new(), true),
    ];
    for (name, options, busy) in readers {
        Reader { name, pubsub: pubsub.clone(), options, busy }.start();
    }
    for tick in 0..=10_u32 {
        sleep(Duration::from_millis(2)).await;
        pubsub.local_broadcast("ticks", tick).expect("a valid topic");
    }
    sleep(Duration::from_millis(2)).await;
    println!("\nwhile they are busy, stats say:");
    let mut subscriptions = pubsub.stats().subscriptions;
    subscriptions.sort_by_key(|subscription| std::cmp::Reverse(subscription.depth + subscription.missed));
    for it in subscriptions {
        let name = it.metadata.as_deref().unwrap_or_default();
        println!("{name:<12} {} of {} wait, {} delivered, {} missed", it.depth, it.capacity, it.delivered, it.missed);
    }
    println!();
    sleep(Duration::from_millis(250)).await;
}
