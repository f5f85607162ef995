//! Two actors count what is broadcast: `cargo run --example counter`

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;

struct Counter {
    pubsub: PubSub,
    sum: u32,
}

impl Actor for Counter {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        self.pubsub.subscribe::<u32, _>(ctx, "numbers").expect("a valid topic, on an arbiter");
    }
}

impl Handler<Event<u32>> for Counter {
    type Result = ();
    fn handle(&mut self, number: Event<u32>, ctx: &mut Self::Context) {
        self.sum += *number;
        println!("{} on {}: the sum is {}", *number, number.topic(), self.sum);
        if self.sum == 6 {
            ctx.stop(); // Its subscription ends with it.
        }
    }
}

#[actix::main]
async fn main() {
    let pubsub = PubSub::new();
    for _ in 0..2 {
        Counter { pubsub: pubsub.clone(), sum: 0 }.start();
    }
    while pubsub.subscribers("numbers") < 2 {
        actix::clock::sleep(std::time::Duration::from_millis(1)).await;
    }
    for number in [1_u32, 2, 3] {
        let receipt = pubsub.local_broadcast("numbers", number).expect("a valid topic");
        println!("broadcast {number} to {} arbiter", receipt.ports);
    }
    while pubsub.subscribers("numbers") > 0 {
        actix::clock::sleep(std::time::Duration::from_millis(1)).await;
    }
    println!("nobody listens any more");
}
