//! SSE feed: a ticker of prices as server-sent events, of which a page that was away misses none.
//!
//! ```text
//! cargo run --example sse_feed                     # then open the printed address, cut the network, and look at the ticks
//! curl -N http://127.0.0.1:8080/prices             # from now on
//! curl -N 'http://127.0.0.1:8080/prices?last_event_id=0-0'
//! ```
//!
//! A browser sends the id of the last event it had when it connects again, and the log goes on after it. `PORT` as the only argument takes another one.

use std::error::Error;
use std::time::Duration;

use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::Retention;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::Sse;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::HttpServer;
use actix_web::rt;
use actix_web::web;
use serde::Deserialize;
use serde::Serialize;

/// A price, and how many there were before it: a page sees for itself that none is missing.
#[derive(Debug, Serialize, Deserialize)]
struct Price {
    tick: u64,
    cents: u64,
}

impl Payload for Price {
    const NAME: &'static str = "market.price";
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    // In memory, so it ends with the process; an `EmbeddedStore` here, and it does not.
    let pubsub = PubSub::builder().log(MemoryStore::new()).retain("prices", Retention::entries(1_000)).build()?;
    rt::spawn(tick(pubsub.clone()));

    let edge = Edge::of(&pubsub);
    let server = HttpServer::new(move || {
        let app = App::new().app_data(web::Data::new(pubsub.clone()));
        app.route("/", web::get().to(page)).route("/prices", web::get().to(prices))
    })
    .on_connect(edge.on_connect())
    .h1_allow_half_closed(false)
    .shutdown_signal(edge.drain_on_signal(Duration::from_secs(2)))
    .bind(("127.0.0.1", port))?;
    println!("sse_feed: http://{}/", server.addrs()[0]);
    Ok(server.run().await?)
}

/// `GET /prices`: the stream.
async fn prices(request: HttpRequest, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    Sse::subscribe(&pubsub).topic("prices").message::<Price>().durable().retry(Duration::from_millis(500)).respond(&request).await
}

async fn page() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(include_str!("page.html"))
}

/// A price that wanders about, four times a second.
async fn tick(pubsub: PubSub) {
    let mut interval = rt::time::interval(Duration::from_millis(250));
    let (mut cents, mut seed) = (10_000_u64, 1_u64);
    for tick in 0.. {
        interval.tick().await;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        cents = (cents + (seed >> 33) % 101).saturating_sub(50).clamp(5_000, 15_000);
        // A store in memory is never away.
        if let Err(error) = pubsub.append("prices", &Price { tick, cents }).await {
            eprintln!("sse_feed: {error}");
        }
    }
}
