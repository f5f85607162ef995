//! Hand-over: servers that are killed and started anew, connections that are cut anywhere, and clients of other makers, which end with every event once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix_pubsub::AppendOptions;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::Sse;
use actix_pubsub::web::WebSocket;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web;
use bytes::Bytes;
use eventsource_stream::Eventsource;
use futures::SinkExt;
use futures::StreamExt;
use http_body_util::BodyDataStream;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::Request;

use crate::support::Folder;
use crate::web_support::Process;
use crate::web_support::Proxy;
use crate::web_support::Random;
use crate::web_support::child_of;
use crate::web_support::free_port;
use crate::web_support::http;
use crate::web_support::size;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    n: u64,
}

impl Payload for Order {
    const NAME: &'static str = "order";
}

const TOPIC: &str = "orders";

// ---- the server ------------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Range {
    from: u64,
    to: u64,
}

/// No test: the process that [`Process`] starts.
#[test]
fn handover_child() {
    let Some((port, file)) = child_of() else { return };
    actix_web::rt::System::new().block_on(serve(port, &file)).unwrap();
}

async fn serve(port: u16, file: &Path) -> std::io::Result<()> {
    let pubsub = PubSub::builder().log(EmbeddedStore::open(file).unwrap()).build().unwrap();
    let edge = Edge::of(&pubsub);
    let socket = WebSocket::new(&pubsub).message::<Order>().durable();
    let app = move || {
        App::new()
            .app_data(web::Data::new(pubsub.clone()))
            .route("/ws", socket.route())
            .route("/events", web::get().to(events))
            .route("/append", web::post().to(append))
    };
    let server = actix_web::HttpServer::new(app).workers(2).shutdown_timeout(2).on_connect(edge.on_connect());
    let server = server.shutdown_signal(edge.drain_on_signal(Duration::from_millis(300))).bind(("127.0.0.1", port))?;
    println!("\nPORT {}", server.addrs()[0].port());
    server.run().await
}

async fn events(request: HttpRequest, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    Sse::subscribe(&pubsub).topic(TOPIC).message::<Order>().durable().retry(Duration::from_millis(20)).respond(&request).await
}

async fn append(range: web::Query<Range>, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    for n in range.from..range.to {
        pubsub.append_with(TOPIC, &Order { n }, AppendOptions::new().key(format!("order {n}"))).await?;
    }
    Ok(HttpResponse::Ok().finish())
}

// ---- the clients -----------------------------------------------------------------------------------------------------

/// What one client has: that it is 0, 1, 2, … is asserted with each.
struct Seen {
    who: String,
    next: u64,
    last_id: String,
    connects: u64,
}

impl Seen {
    fn new(who: String) -> Self {
        Self { who, next: 0, last_id: "0-0".into(), connects: 0 }
    }

    fn event(&mut self, data: &Value, id: &str) {
        assert_eq!(data["n"], self.next, "{}: after {} connects, at {id} after {}", self.who, self.connects, self.last_id);
        self.next += 1;
        id.clone_into(&mut self.last_id);
    }
}

/// Between two tries of a client.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn read_sse(addr: SocketAddr, all: u64, number: u64) -> Seen {
    let mut seen = Seen::new(format!("sse {number}"));
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    while seen.next < all {
        seen.connects += 1;
        let request = ask(addr, &seen.last_id);
        let Ok(response) = client.request(request).await else {
            pause().await;
            continue;
        };
        // A browser stops for good at anything else.
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        let mut events = BodyDataStream::new(response.into_body()).eventsource();
        while seen.next < all {
            // An error is a connection that was cut.
            let Some(Ok(event)) = events.next().await else { break };
            assert_eq!(event.event, "order", "{}: {event:?}", seen.who);
            let id = event.id.clone();
            seen.event(&serde_json::from_str(&event.data).unwrap(), &id);
        }
        pause().await;
    }
    seen
}

fn ask(addr: SocketAddr, last_id: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://{addr}/events")).header("last-event-id", last_id);
    request.body(Empty::new()).unwrap()
}

async fn read_ws(addr: SocketAddr, all: u64, number: u64) -> Seen {
    let mut seen = Seen::new(format!("ws {number}"));
    while seen.next < all {
        seen.connects += 1;
        // An error is a connection that was cut, or nobody there.
        let _ = read_ws_once(addr, all, &mut seen).await;
        pause().await;
    }
    seen
}

async fn read_ws_once(addr: SocketAddr, all: u64, seen: &mut Seen) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let stream = tokio::net::TcpStream::connect(addr).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{addr}/ws"), stream).await?;
    socket.send(Message::text(json!({"type":"subscribe","ref":1,"topic":TOPIC,"last_id":seen.last_id}).to_string())).await?;
    while seen.next < all {
        let Some(message) = socket.next().await else { break };
        let Message::Text(text) = message? else { continue };
        let said: Value = serde_json::from_str(&text).unwrap();
        match said["type"].as_str().unwrap() {
            "event" => seen.event(&said["data"], said["id"].as_str().unwrap()),
            "welcome" | "ok" | "live" | "closing" => {}
            _ => panic!("{}: {said}", seen.who),
        }
    }
    Ok(())
}

// ---- the publisher ---------------------------------------------------------------------------------------------------

/// Appends 0, 1, 2, …; what was not answered is sent again, under the same keys.
fn publish(addr: SocketAddr, all: u64, published: &AtomicU64) {
    let mut from = 0;
    while from < all {
        let to = (from + 25).min(all);
        if matches!(http(addr, "POST", &format!("/append?from={from}&to={to}")), Ok((200, _))) {
            published.store(to, Ordering::SeqCst);
            from = to;
        } else {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn clients_of_a_server_that_is_killed_again_and_again_get_every_event_once() {
    let (kills, all, clients) = (size("HANDOVER_KILLS", 5), size("HANDOVER_EVENTS", 1_500), size("HANDOVER_CLIENTS", 40));
    let (random, folder, port) = (Random::seeded(), Folder::new(), free_port());
    let file = folder.file();
    let start = || Process::start("web_handover::handover_child", port, &file);
    let mut server = start();
    let proxy = Proxy::start(server.addr, &random, 1..40_000);
    let (addr, direct, begun) = (proxy.addr, server.addr, Instant::now());
    let published = Arc::new(AtomicU64::new(0));
    let publisher = std::thread::spawn({
        let published = Arc::clone(&published);
        move || publish(direct, all, &published)
    });
    let done = Arc::new(AtomicBool::new(false));
    let readers = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let sse = (0..clients / 2).map(|number| tokio::spawn(read_sse(addr, all, number)));
                let ws = (clients / 2..clients).map(|number| tokio::spawn(read_ws(addr, all, number)));
                let mut connects = 0;
                for reader in sse.chain(ws).collect::<Vec<_>>() {
                    let seen = reader.await.unwrap();
                    assert_eq!(seen.next, all);
                    connects += seen.connects;
                }
                done.store(true, Ordering::SeqCst);
                connects
            })
        }
    });
    for kill in 1..=kills {
        while published.load(Ordering::SeqCst) < all * kill / (kills + 1) {
            assert!(!readers.is_finished() || done.load(Ordering::SeqCst), "a client failed");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Each fourth in good order: told to end, and gone when its drain window is over.
        if kill % 4 == 0 {
            let took = server.terminate();
            assert!(took < Duration::from_secs(8), "{took:?} to end");
        } else {
            server.kill();
        }
        server = start();
    }
    publisher.join().unwrap();
    let connects = readers.join().unwrap();
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    println!(
        "{clients} clients got {all} events over {kills} restarts, {connects} connects, {cuts} cuts, in {:?}",
        begun.elapsed()
    );
    assert!(connects > clients * (kills / 2), "{connects} connects");
}
