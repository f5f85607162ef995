//! Browser at the edge: a real Chromium with an `EventSource` and `pubsub.js`, while connections are cut anywhere and the server is killed and started anew.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
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
use actix_pubsub::web::client;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::http::header::HeaderValue;
use actix_web::rt::System;
use actix_web::rt::time::sleep;
use actix_web::web;
use fantoccini::Client;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::common::browser::Driver;
use crate::common::browser::alone;
use crate::web_support::Process;
use crate::web_support::Proxy;
use crate::web_support::Random;
use crate::web_support::child_of;
use crate::web_support::free_port;
use crate::web_support::http;
use crate::web_support::size;

#[allow(dead_code, unreachable_pub, reason = "not every test needs each of them")]
#[path = "it/web_support.rs"]
mod web_support;

#[allow(dead_code, reason = "not every test needs all of it")]
mod common;

const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    n: u64,
}

impl Payload for Order {
    const NAME: &'static str = "order";
}

// ---- the server ------------------------------------------------------------------------------------------------------

/// No test: the process that [`Process`] starts.
#[test]
fn browser_edge_child() {
    let Some((port, file)) = child_of() else { return };
    System::new().block_on(serve(port, &file)).unwrap();
}

async fn serve(port: u16, file: &Path) -> std::io::Result<()> {
    let pubsub = PubSub::builder().log(EmbeddedStore::open(file).unwrap()).build().unwrap();
    let edge = Edge::builder().allow_origin("*").attach(&pubsub).unwrap();
    let socket = WebSocket::new(&pubsub).message::<Order>().durable();
    let app = move || {
        App::new()
            .app_data(web::Data::new(pubsub.clone()))
            .route("/", web::get().to(async || HttpResponse::Ok().content_type("text/html; charset=utf-8").body(PAGE)))
            .route("/pubsub.js", web::get().to(client))
            .route("/ws", socket.route())
            .route("/events", web::get().to(events))
            .route("/append", web::post().to(append))
    };
    let server = actix_web::HttpServer::new(app).workers(1).on_connect(edge.on_connect()).bind(("127.0.0.1", port))?;
    println!("\nPORT {}", server.addrs()[0].port());
    server.run().await
}

async fn events(request: HttpRequest, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    let stream = Sse::subscribe(&pubsub).topic("orders").message::<Order>().durable().retry(Duration::from_millis(50));
    let mut response = stream.respond(&request).await?;
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(response)
}

#[derive(Deserialize)]
struct Range {
    from: u64,
    to: u64,
}

async fn append(range: web::Query<Range>, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    for n in range.from..range.to {
        pubsub.append_with("orders", &Order { n }, AppendOptions::new().key(format!("order {n}"))).await?;
    }
    Ok(HttpResponse::Ok().finish())
}

/// Loaded once, from the server itself; its streams go through the proxy.
const PAGE: &str = r#"<!doctype html><title>edge</title><script type="module">
import { PubSubClient } from "/pubsub.js";
const proxy = new URLSearchParams(location.search).get("proxy");
const got = (window.got = { sse: [], ws: [], opens: 0, states: 0, wrong: [] });
const source = new EventSource(`http://${proxy}/events?last_event_id=0-0`);
source.addEventListener("open", () => got.opens++);
source.addEventListener("order", (event) => got.sse.push(JSON.parse(event.data).n));
source.addEventListener("gap", (event) => got.wrong.push(`sse gap ${event.data}`));
source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED) got.wrong.push("sse stopped for good"); });
const client = new PubSubClient(`ws://${proxy}/ws`, { backoffBaseMs: 50, backoffCapMs: 200 });
client.on("state", ({ state }) => { got.states += state === "open"; if (state === "stopped") got.wrong.push("ws stopped for good"); });
client.on("error", (error) => got.wrong.push(`ws ${error.code}`));
client.subscribe("orders", {
  lastId: "0-0",
  onEvent: ({ data }) => got.ws.push(data.n),
  onGap: ({ cause }) => got.wrong.push(`ws gap ${cause}`),
});
</script>"#;

// ---- the browser -----------------------------------------------------------------------------------------------------

async fn got(client: &Client) -> Value {
    client.execute("return window.got", Vec::new()).await.unwrap()
}

fn count(got: &Value, of: &str) -> u64 {
    got[of].as_array().map_or(0, |all| all.len() as u64)
}

#[test]
fn a_page_behind_a_cutting_proxy_gets_every_event_once_over_restarts_of_the_server() {
    let (kills, all) = (size("HANDOVER_KILLS", 3), size("HANDOVER_EVENTS", 1_200));
    let _alone = alone();
    let (random, port) = (Random::seeded(), free_port());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("edge-log-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let start = || Process::start("browser_edge_child", port, &folder.join("log"));
    let mut server = start();
    // The head of an answer comes whole: of one that was cut, Chromium takes what it has, finds no type and stops for good.
    let proxy = Proxy::start(server.addr, &random, 2_000..30_000);
    let driver = Driver::start();
    System::new().block_on(async {
        let page = driver.open(&format!("http://127.0.0.1:{port}/?proxy={}", proxy.addr)).await;
        let mut from = 0;
        for part in 1..=kills + 1 {
            let to = all * part / (kills + 1);
            while from < to {
                let next = (from + 20).min(to);
                assert_eq!(http(server.addr, "POST", &format!("/append?from={from}&to={next}")).unwrap().0, 200);
                from = next;
            }
            if part <= kills {
                // Some of it is there, some is not.
                until(&page, |got| count(got, "sse") > 0 && count(got, "ws") > 0).await;
                server.kill();
                server = start();
            }
        }
        let got = until(&page, |got| count(got, "sse") >= all && count(got, "ws") >= all).await;
        let (opens, states) = (&got["opens"], &got["states"]);
        println!(
            "{all} events over {kills} restarts: {opens} streams, {states} sockets, {} cuts",
            proxy.cuts.load(Ordering::Relaxed)
        );
        let expected = json!((0..all).collect::<Vec<_>>());
        assert!(got["sse"] == expected && got["ws"] == expected, "something is missing or there twice");
        assert!(opens.as_u64() > Some(kills) && states.as_u64() > Some(kills), "{opens} {states}");
        page.close().await.unwrap();
    });
    // What is left is in the target folder.
    let _ = fs::remove_dir_all(&folder);
}

async fn until(page: &Client, holds: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let got = got(page).await;
        assert_eq!(got["wrong"], json!([]));
        if holds(&got) {
            return got;
        }
        let (sse, ws) = (count(&got, "sse"), count(&got, "ws"));
        assert!(Instant::now() < until, "{sse} and {ws} events after {PATIENCE:?}: {} {}", got["opens"], got["states"]);
        sleep(Duration::from_millis(50)).await;
    }
}
