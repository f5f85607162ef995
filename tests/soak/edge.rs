//! Edge: one pub/sub's server, and clients that connect, read, stall, vanish and come back where they were; dashboards and metrics are watched meanwhile.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_pubsub::metrics::MetricsOptions;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Limits;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::Sse;
use actix_pubsub::web::WebSocket;
use actix_pubsub::web::dashboard;
use actix_pubsub::web::metrics;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::HttpServer;
use actix_web::dev::ServerHandle;
use actix_web::rt::System;
use actix_web::web;
use bytes::Bytes;
use eventsource_stream::Eventsource;
use futures::SinkExt;
use futures::Stream;
use futures::StreamExt;
use http_body_util::BodyDataStream;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::Request;

use crate::gate::Gate;
use crate::gate::settles;
use crate::gate::wrong;
use crate::locals::Office;
use crate::logs::LOG;
use crate::logs::Reading;
use crate::support::Note;
use crate::support::Word;
use crate::web_support::Random;
use crate::web_support::http;

// ---- the server ------------------------------------------------------------------------------------------------------

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(office: &Office) -> Self {
        let pubsub = office.pubsub.clone();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            System::new().block_on(async move {
                let mut limits = Limits::default();
                limits.waiting_events = 16;
                let edge = Edge::builder().limits(limits).attach(&pubsub).unwrap();
                let socket = WebSocket::new(&pubsub).message::<Note>().ephemeral::<Word>().durable();
                let (data, options) = (web::Data::new(pubsub.clone()), MetricsOptions::new());
                let app = move || {
                    App::new()
                        .app_data(data.clone())
                        .route("/ws", socket.route())
                        .route("/events", web::get().to(events))
                        .route("/block", web::get().to(block))
                        .route("/metrics", metrics(&pubsub, &options))
                        .service(dashboard(&pubsub))
                };
                let server = HttpServer::new(app).workers(1).shutdown_timeout(1).on_connect(edge.on_connect());
                let server = server.disable_signals().h1_allow_half_closed(false).bind(("127.0.0.1", 0)).unwrap();
                let addr = server.addrs()[0];
                let server = server.run();
                tell.send((addr, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (addr, handle) = told.recv().unwrap();
        Self { addr, handle, thread }
    }

    pub(crate) fn stop(self, system: &actix::SystemRunner) {
        system.block_on(self.handle.stop(true));
        self.thread.join().unwrap();
    }
}

/// A handler that holds up its worker, and all who are served by it.
async fn block() -> HttpResponse {
    std::thread::sleep(Duration::from_millis(400));
    HttpResponse::Ok().finish()
}

async fn events(request: HttpRequest, pubsub: web::Data<actix_pubsub::PubSub>) -> Result<HttpResponse, Refusal> {
    let stream = Sse::subscribe(&pubsub).topic(LOG).message::<Note>().ephemeral::<Word>().durable();
    stream.respond(&request).await
}

// ---- the clients -----------------------------------------------------------------------------------------------------

/// One that comes back to where it was; its part of what is appended has no gap that it was not told of, and neither has what is only broadcast while it is connected.
struct Visitor {
    who: String,
    gate: Gate,
    random: Random,
    reading: Arc<Reading>,
    last_id: String,
    /// The last word on this connection, and what was told to be missed since.
    word: Option<u64>,
    missed: u64,
}

impl Visitor {
    fn connected(&mut self) {
        (self.word, self.missed) = (None, 0);
    }

    fn note(&mut self, data: &Value, id: &str) {
        match data.as_u64() {
            Some(number) => self.reading.entry(&self.who, number),
            None => wrong(format!("{}: {data}", self.who)),
        }
        id.clone_into(&mut self.last_id);
    }

    fn word(&mut self, data: &Value) {
        let number = data.as_str().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
        if let Some(last) = self.word.replace(number)
            && number != last + 1 + self.missed
        {
            wrong(format!("{}: word {number} after {last}, told were {} as missed", self.who, self.missed));
        }
        self.missed = 0;
    }

    fn other(&mut self, kind: &str, data: &Value) {
        match kind {
            "gap" => self.reading.gap(&self.who, data["cause"].as_str().unwrap_or_default()),
            "missed" => self.missed += data["events"].as_u64().unwrap_or(0),
            _ => wrong(format!("{}: {kind} {data}", self.who)),
        }
    }

    /// Now and then it stops to read for a while. `false`: it vanishes.
    async fn stays(&self) -> bool {
        if !self.gate.is_open() {
            return !self.gate.is_over();
        }
        match self.random.below(150) {
            0 => false,
            1 => {
                self.rest().await;
                true
            }
            _ => true,
        }
    }

    async fn rest(&self) {
        let until = tokio::time::Instant::now() + Duration::from_millis(self.random.below(2_000));
        while self.gate.is_open() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn over_sse(mut self, addr: SocketAddr) {
        while !self.gate.is_over() {
            self.connected();
            let Some(mut events) = get(addr, "/events", self.last_id.clone()).await else { continue };
            // An error is the end of the connection.
            while let Some(Ok(event)) = soon(&self.gate, events.next()).await {
                let data = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                match event.event.as_str() {
                    "test.note" => self.note(&data, &event.id),
                    "test.word" => self.word(&data),
                    kind => self.other(kind, &data),
                }
                if !self.stays().await {
                    break;
                }
            }
            drop(events);
            self.rest().await;
        }
    }

    async fn over_ws(mut self, addr: SocketAddr) {
        while !self.gate.is_over() {
            self.connected();
            // An error is the end of the connection, or nobody there.
            let _ = self.over_ws_once(addr).await;
            self.rest().await;
        }
    }

    async fn over_ws_once(&mut self, addr: SocketAddr) -> Result<(), tungstenite::Error> {
        let stream = tokio::net::TcpStream::connect(addr).await?;
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{addr}/ws"), stream).await?;
        let subscribe = json!({"type":"subscribe","ref":1,"topic":LOG,"last_id":self.last_id});
        socket.send(Message::text(subscribe.to_string())).await?;
        while let Some(message) = soon(&self.gate, socket.next()).await {
            let Message::Text(text) = message? else { continue };
            let said: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            match said["type"].as_str().unwrap_or_default() {
                "event" if said["event"] == "test.note" => self.note(&said["data"], said["id"].as_str().unwrap_or_default()),
                "event" => self.word(&said["data"]),
                "welcome" | "ok" | "live" | "closing" => {}
                // The store is away.
                "error" if said["code"] == "unavailable" => return Ok(()),
                kind => self.other(kind, &said),
            }
            if !self.stays().await {
                break;
            }
        }
        Ok(())
    }
}

/// The next, or nothing when all is over.
async fn soon<T>(gate: &Gate, next: impl Future<Output = Option<T>>) -> Option<T> {
    let over = async {
        while !gate.is_over() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        next = next => next,
        () = over => None,
    }
}

/// Between two tries.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// The events of an answer that is well; else nothing, after a pause.
async fn get(
    addr: SocketAddr,
    path: &'static str,
    last_id: String,
) -> Option<impl Stream<Item = Result<eventsource_stream::Event, impl Debug>> + Unpin> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let request = Request::get(format!("http://{addr}{path}")).header("last-event-id", last_id).body(Empty::new()).unwrap();
    match client.request(request).await {
        Ok(response) if response.status() == 200 => Some(BodyDataStream::new(response.into_body()).eventsource()),
        _ => {
            pause().await;
            None
        }
    }
}

/// Looks at the live page again and again.
async fn watch(gate: Gate, addr: SocketAddr, random: Random) {
    while !gate.is_over() {
        let Some(mut events) = get(addr, "/_pubsub/live", String::new()).await else { continue };
        while let Some(Ok(event)) = soon(&gate, events.next()).await {
            if !event.data.is_empty() && serde_json::from_str::<Value>(&event.data).is_err() {
                wrong(format!("the live page says {:?}", event.data));
            }
            if random.below(5) == 0 {
                break;
            }
        }
    }
}

/// Asks for lists and metrics again and again.
fn scrape(office: &Office, addr: SocketAddr) -> JoinHandle<()> {
    let (name, pass) = (office.name, office.gate.pass());
    std::thread::spawn(move || {
        let paths =
            ["/metrics", "/_pubsub", "/_pubsub/subscribers?sort=depth", "/_pubsub/topics", "/_pubsub/groups", "/_pubsub/nodes"];
        for path in paths.iter().cycle() {
            if !pass.wait() {
                return;
            }
            match http(addr, "GET", path) {
                Ok((200, _)) => {}
                // The store is away.
                Ok((503, _)) if path.ends_with("groups") => {}
                // Its worker was held up for so long that it has not read in time what was asked.
                Ok((408, _)) => println!("    {name}: {path} was answered by 408"),
                other => wrong(format!("{name}: {path}: {other:?}")),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    })
}

/// All clients of a server, on one thread, and who scrapes it.
pub(crate) struct Clients {
    readings: Vec<(String, Arc<Reading>)>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(crate) fn start(office: &Office, addr: SocketAddr, random: &Random) -> Self {
        let mut visitors = Vec::new();
        for at in 0..VISITORS {
            let who = format!("{}: {} {at}", office.name, if at % 2 == 0 { "sse" } else { "ws" });
            let (gate, random, last_id) = (office.gate.clone(), random.fork(), "0-0".to_owned());
            visitors.push(Visitor { who, gate, random, reading: Arc::default(), last_id, word: None, missed: 0 });
        }
        let readings = visitors.iter().map(|visitor| (visitor.who.clone(), Arc::clone(&visitor.reading))).collect();
        let (gate, random) = (office.gate.clone(), random.fork());
        let reading = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut clients = vec![tokio::spawn(watch(gate, addr, random))];
                for (at, visitor) in visitors.into_iter().enumerate() {
                    clients.push(if at % 2 == 0 {
                        tokio::spawn(visitor.over_sse(addr))
                    } else {
                        tokio::spawn(visitor.over_ws(addr))
                    });
                }
                for client in clients {
                    client.await.unwrap();
                }
            });
        });
        Self { readings, threads: vec![reading, scrape(office, addr)] }
    }

    /// Nobody appends any more: everybody has everything.
    pub(crate) fn assert_whole(&self, system: &actix::SystemRunner, all: u64) {
        for (who, reading) in &self.readings {
            settles(system, &format!("{who} has all {all}"), || reading.position() == all, || format!("{reading:?}"));
        }
    }

    pub(crate) fn gaps(&self) -> u64 {
        self.readings.iter().map(|(_, reading)| reading.gaps.load(std::sync::atomic::Ordering::SeqCst)).sum()
    }

    pub(crate) fn join(self) {
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// A metric of one label, as the server tells it now; 0 where there is none.
pub(crate) fn metric(addr: SocketAddr, line: &str) -> u64 {
    let (status, body) = http(addr, "GET", "/metrics").unwrap();
    assert_eq!(status, 200, "{body}");
    let found = body.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in {body}"))
}

/// Half of them over SSE, half over WebSockets.
const VISITORS: usize = 6;
