//! Browser at the dashboard: its page in a real Chromium: who is slow, hostile names, 100,000 topics, a lost server, wide and narrow, light and dark.
#![allow(missing_docs)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use actix::prelude::*;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Delivery;
use actix_pubsub::Event;
use actix_pubsub::EventStream;
use actix_pubsub::Failure;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::cluster::Memory;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::web::dashboard;
use actix_web::App;
use actix_web::HttpServer;
use actix_web::rt::time::sleep;
use fantoccini::Client;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::common::DEADLINE;
use crate::common::POLL_INTERVAL;
use crate::common::browser::Driver;
use crate::common::browser::Page;
use crate::common::browser::alone;
use crate::common::eventually;

#[allow(dead_code, reason = "not every test needs all of it")]
mod common;

// ---- the stage -------------------------------------------------------------------------------------------------------

/// A server of its own thread, on this port; 0: any.
struct Server {
    addr: SocketAddr,
    handle: actix_web::dev::ServerHandle,
}

impl Server {
    fn start(pubsub: &PubSub, port: u16) -> Self {
        let (pubsub, (tell, told)) = (pubsub.clone(), mpsc::channel());
        thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = HttpServer::new(move || App::new().service(dashboard(&pubsub))).workers(2).disable_signals();
                let server = server.h1_allow_half_closed(false).bind(("127.0.0.1", port)).unwrap();
                let addr = server.addrs()[0];
                let server = server.run();
                tell.send((addr, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (addr, handle) = told.recv().unwrap();
        Self { addr, handle }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/_pubsub/{path}", self.addr)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Tick(u64);

impl Payload for Tick {
    const NAME: &'static str = "tick";
}

/// Reads its topics; the type says what for.
struct Reader<T> {
    pubsub: PubSub,
    topics: Vec<String>,
    _of: std::marker::PhantomData<T>,
}

impl<T: Unpin + 'static> Actor for Reader<T> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for topic in &self.topics {
            self.pubsub.subscribe::<Tick, _>(ctx, topic.as_str()).unwrap();
        }
    }
}

impl<T: Unpin + 'static> Handler<Event<Tick>> for Reader<T> {
    type Result = ();

    fn handle(&mut self, _: Event<Tick>, _: &mut Self::Context) {}
}

struct Prices;
struct Sessions;
struct Screens;
struct مُشترِك;

/// Actors on an arbiter of their own, each with its topics, until the test ends.
fn crowd<T: Unpin + Send + 'static>(pubsub: &PubSub, topics: Vec<Vec<String>>) {
    let (of, subscriptions) = (pubsub.clone(), topics.iter().map(Vec::len).sum::<usize>());
    let before = pubsub.summary().subscriptions_total;
    thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let start = |topics| Reader::<T> { pubsub: of.clone(), topics, _of: std::marker::PhantomData }.start();
            let _actors: Vec<_> = topics.into_iter().map(start).collect();
            std::future::pending::<()>().await;
        });
    });
    eventually("all have subscribed", || pubsub.summary().subscriptions_total == before + subscriptions);
}

/// A consumer that gives up everything.
struct Faulty(PubSub);

impl Actor for Faulty {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.consume::<Tick, _>(ctx, "orders", "group", &ConsumeOptions::new()).unwrap();
    }
}

impl Handler<Delivery<Tick>> for Faulty {
    type Result = Result<(), Failure>;
    fn handle(&mut self, _: Delivery<Tick>, _: &mut Self::Context) -> Self::Result {
        Err(Failure::dead("<img src=x onerror=window.hacked=4>\u{202e}"))
    }
}

/// An actor that keeps its thread.
struct Stuck(PubSub);

impl Actor for Stuck {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.subscribe::<Tick, _>(ctx, "prices:gold").unwrap();
    }
}

impl Handler<Event<Tick>> for Stuck {
    type Result = ();
    fn handle(&mut self, _: Event<Tick>, _: &mut Self::Context) {
        // On purpose: nothing on this arbiter has a turn any more.
        thread::park();
    }
}

/// A consumer with good days and bad ones.
struct Ledger(PubSub);

impl Actor for Ledger {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        for group in ["ledger", "mail"] {
            self.0.consume::<Tick, _>(ctx, "orders", group, &ConsumeOptions::new()).unwrap();
        }
    }
}

impl Handler<Delivery<Tick>> for Ledger {
    type Result = ResponseFuture<Result<(), Failure>>;
    fn handle(&mut self, order: Delivery<Tick>, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move {
            match order.0 {
                3 => Err(Failure::dead("no such customer: 4711")),
                5 | 6 => Err("the bank does not answer".into()),
                20.. => std::future::pending().await,
                _ => Ok(()),
            }
        })
    }
}

/// A subscriber that takes nothing.
fn stalled(pubsub: &PubSub, topic: &str, metadata: &str, capacity: usize) -> EventStream<Tick> {
    pubsub.stream_with(topic, &SubscribeOptions::new().capacity(capacity).metadata(metadata)).unwrap()
}

fn check(test: impl AsyncFnOnce(&Driver)) {
    let _alone = alone();
    let driver = Driver::start();
    actix_web::rt::System::new().block_on(test(&driver));
}

/// Waits until a script answers with what is wanted.
async fn until(client: &Client, script: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + DEADLINE;
    loop {
        let value = client.execute(script, Vec::new()).await.unwrap();
        if wanted(&value) {
            return value;
        }
        assert!(Instant::now() < until, "{script} is {value} after {DEADLINE:?}");
        sleep(POLL_INTERVAL).await;
    }
}

/// A row of the slowest subscribers: actor, topic, metadata, waiting.
const SLOWEST: &str =
    "return [...document.querySelectorAll('#slow tbody tr:first-child td')].slice(0, 4).map((cell) => cell.textContent)";

// ---- the tests -------------------------------------------------------------------------------------------------------

#[test]
fn a_paused_subscriber_is_first_on_the_page_with_its_exact_depth() {
    check(async |driver| {
        let pubsub = PubSub::new();
        crowd::<Prices>(&pubsub, vec![vec!["prices".to_owned()]; 10_000]);
        let _paused = stalled(&pubsub, "prices", "session 7", 64);
        let server = Server::start(&pubsub, 0);
        let page = driver.open(&server.url("")).await;
        until(&page, "return document.querySelector('#link').textContent", |text| text == "live").await;
        for depth in [7, 8] {
            while pubsub.top_slow(1).first().is_none_or(|slow| slow.depth < depth) {
                pubsub.local_broadcast("prices", Tick(1)).unwrap();
            }
            let first = json!(["EventStream<Tick>", "prices", "session 7", format!("{depth} / 64")]);
            until(&page, SLOWEST, |row| *row == first).await;
        }
        let rows = "return document.querySelectorAll('#slow tbody tr').length";
        until(&page, rows, |rows| *rows == 1).await;
        let tiles = "return Object.fromEntries([...document.querySelectorAll('#tiles > div')].map((tile) => [tile.dataset.tile, tile.children[1].textContent]))";
        until(&page, tiles, |tiles| {
            (&tiles["subscribers"], &tiles["topics"], &tiles["waiting"]) == (&json!("10,001"), &json!("1"), &json!("8"))
        })
        .await;
        page.goto(&server.url("subscribers")).await.unwrap();
        let listed = "return [...document.querySelectorAll('#list-table tbody tr:first-child td')].slice(0, 4).map((cell) => cell.textContent)";
        until(&page, listed, |row| *row == json!(["EventStream<Tick>", "prices", "session 7", "8 / 64"])).await;
        page.close().await.unwrap();
    });
}

#[test]
fn hostile_names_are_text_in_a_real_browser() {
    check(async |driver| {
        let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
        let names = [
            "<script>window.hacked = 1</script>".to_owned(),
            "\"'><img src=x onerror=window.hacked=2>".to_owned(),
            "</td></tr></table><h1>gone</h1>&amp;&lt;".to_owned(),
            "\u{202e}gpj.exe\u{2067}\u{202e}".to_owned(),
            "\u{5d0}\u{5d1}\u{5d2} 1 \u{5d3}".to_owned(),
            "javascript:window.hacked=3//{{hacked}}${hacked}".to_owned(),
            "W".repeat(255),
            "\u{1f469}\u{200d}\u{1f467}".repeat(23),
        ];
        let streams: Vec<_> = names.iter().map(|name| stalled(&pubsub, name, &format!("{name}\n{name}"), 16)).collect();
        crowd::<مُشترِك>(&pubsub, vec![vec!["prices".to_owned()]]);
        for name in &names {
            pubsub.local_broadcast(name.as_str(), Tick(1)).unwrap();
        }
        pubsub.append("orders", &Tick(1)).await.unwrap();
        let _faulty = Faulty(pubsub.clone()).start();

        let server = Server::start(&pubsub, 0);
        let client = driver.open(&server.url("")).await;
        let watch = "window.violations = []; new ReportingObserver((reports) => window.violations.push(...reports.map((report) => report.body.effectiveDirective)), { types: ['csp-violation'], buffered: true }).observe(); \
            addEventListener('securitypolicyviolation', (event) => window.violations.push(event.effectiveDirective))";
        client.execute(watch, Vec::new()).await.unwrap();
        let page = Page { client };
        let check = async |selector: &str, wanted: &[String]| {
            let script = format!("return [...document.querySelectorAll({selector:?})].map((node) => node.textContent)");
            let mut wanted = wanted.to_vec();
            wanted.sort();
            until(&page.client, &script, |texts| {
                let mut texts: Vec<String> = serde_json::from_value(texts.clone()).unwrap();
                texts.sort();
                texts == wanted
            })
            .await;
        };
        let metadata: Vec<_> = names.iter().map(|name| format!("{name}\n{name}")).collect();
        check("#slow td:nth-child(2) bdi", &names).await;
        check("#slow td:nth-child(3) bdi", &metadata).await;
        let reason = "return document.querySelector('#incidents-short .about')?.textContent ?? ''";
        until(&page.client, reason, |text| text.as_str().unwrap().contains("<img src=x onerror=window.hacked=4>")).await;
        fits(&page.client, "overview").await;

        for (view, column, wanted) in [("topics", 1, names.to_vec()), ("subscribers", 3, metadata)] {
            page.click(&format!("#tabs [data-view={view}]")).await;
            let selector = format!("#list-table td:nth-child({column}) bdi");
            let script = format!("return [...document.querySelectorAll({selector:?})].map((node) => node.textContent)");
            until(&page.client, &script, |texts| {
                let texts: Vec<String> = serde_json::from_value(texts.clone()).unwrap();
                wanted.iter().all(|name| texts.contains(name))
            })
            .await;
            fits(&page.client, view).await;
        }
        let types = "return [...document.querySelectorAll('#list-table td:nth-child(1) bdi')].map((node) => [node.textContent, node.title])";
        until(&page.client, types, |types| {
            types
                .as_array()
                .unwrap()
                .iter()
                .any(|of| of[0] == "Reader<مُشترِك>" && of[1].as_str().unwrap().contains("browser_dashboard::"))
        })
        .await;
        page.click("#tabs [data-view=groups]").await;
        until(&page.client, "return document.querySelector('#list-table td:nth-child(2) bdi')?.textContent", |text| {
            text == "group" || text == "–"
        })
        .await;
        page.click("#tabs [data-view=incidents]").await;
        until(&page.client, "return document.querySelector('#list-incidents')?.textContent ?? ''", |text| {
            text.as_str().unwrap().contains("hacked=4")
        })
        .await;

        let seen = page.client.execute(
            "return [window.hacked ?? null, document.querySelectorAll('h1, img, table script').length, window.violations]",
            Vec::new(),
        );
        assert_eq!(seen.await.unwrap(), json!([null, 1, []]), "markup became markup, or a script ran, or wanted to");
        // The one that watches for violations does see them.
        page.client.execute("new Image().src = '/x.png'; const script = document.createElement('script'); script.src = 'https://evil.example/x.js'", Vec::new()).await.ok();
        until(&page.client, "return window.violations", |seen| seen.as_array().unwrap().contains(&json!("img-src"))).await;
        page.client.close().await.unwrap();
        drop(streams);
    });
}

#[test]
fn a_page_of_a_hundred_thousand_topics_is_used_like_any_other() {
    check(async |driver| {
        let pubsub = PubSub::new();
        crowd::<Prices>(&pubsub, vec![(0..100_000).map(|number| format!("device:{number:06}")).collect()]);
        pubsub.local_broadcast("device:077777", Tick(1)).unwrap();
        let server = Server::start(&pubsub, 0);
        let client = driver.open(&server.url("topics")).await;
        let page = Page { client };
        let names = "#list-table td:nth-child(1) bdi";
        let first = "return document.querySelector('#list-table td:nth-child(1) bdi')?.textContent";
        page.wait_for("#list-count", &["100,000 topics"]).await;
        until(&page.client, first, |name| name == "device:000000").await;
        page.click("#next").await;
        until(&page.client, first, |name| name == "device:000050").await;
        page.wait_for("#place", &["51–100"]).await;
        // By keys alone: the field of the search, and its text.
        page.client.execute("document.querySelector('#find').focus()", Vec::new()).await.unwrap();
        page.client.active_element().await.unwrap().send_keys("DEVICE:0777").await.unwrap();
        page.wait_for("#list-count", &["100 of 100,000 topics"]).await;
        until(&page.client, first, |name| name == "device:077700").await;
        page.click("#list-table th:nth-child(5) button").await;
        until(&page.client, first, |name| name == "device:077777").await;
        until(&page.client, "return document.querySelector('#list-table th:nth-child(5)').getAttribute('aria-sort')", |sort| {
            sort == "descending"
        })
        .await;
        page.click("#list-table th:nth-child(5) button").await;
        until(&page.client, first, |name| name == "device:077700").await;
        // What is asked for is in the address: loaded again, it is the same.
        page.client.refresh().await.unwrap();
        page.wait_for("#list-count", &["100 of 100,000 topics"]).await;
        assert_eq!(page.texts(names).await.len(), 50);
        let nodes = page.client.execute("return document.querySelectorAll('*').length", Vec::new()).await.unwrap();
        assert!(nodes.as_u64().unwrap() < 2_000, "{nodes} nodes for one page of a list");
        page.click("#tabs [data-view=overview]").await;
        until(&page.client, "return document.querySelector('#tiles [data-tile=topics] .value').textContent", |text| {
            text == "100,000"
        })
        .await;
        page.client.close().await.unwrap();
    });
}

#[test]
fn a_page_says_that_the_server_is_gone_and_goes_on_when_it_is_back_and_pauses() {
    check(async |driver| {
        let pubsub = PubSub::new();
        crowd::<Prices>(&pubsub, vec![vec!["prices".to_owned()]]);
        let server = Server::start(&pubsub, 0);
        let page = Page { client: driver.open(&server.url("")).await };
        page.wait_for("#link", &["live"]).await;
        let delivered = "return document.querySelector('#tiles [data-tile=delivered] .sub').textContent";
        until(&page.client, delivered, |text| text == "0 so far").await;

        page.click("#pause").await;
        page.wait_for("#link", &["paused"]).await;
        pubsub.local_broadcast("prices", Tick(1)).unwrap();
        // Two that the page gets and does not show.
        let heard = "const done = arguments[0]; let heard = 0; const source = new EventSource('live'); source.addEventListener('overview', () => { if (++heard === 3) { source.close(); done(heard); } })";
        page.client.execute_async(heard, Vec::new()).await.unwrap();
        assert_eq!(page.client.execute(delivered, Vec::new()).await.unwrap(), "0 so far");
        page.click("#pause").await;
        page.wait_for("#link", &["live"]).await;
        until(&page.client, delivered, |text| text == "1 so far").await;

        let port = server.addr.port();
        server.handle.stop(false).await;
        page.wait_for("#link", &["connection lost"]).await;
        let notice = "return document.querySelector('#notice').hidden ? '' : document.querySelector('#notice').textContent";
        until(&page.client, notice, |text| text.as_str().unwrap().contains("Trying again")).await;
        pubsub.local_broadcast("prices", Tick(2)).unwrap();
        let _server = Server::start(&pubsub, port);
        page.wait_for("#link", &["live"]).await;
        until(&page.client, notice, |text| text == "").await;
        until(&page.client, delivered, |text| text == "2 so far").await;
        page.client.close().await.unwrap();
    });
}

// ---- how it looks ----------------------------------------------------------------------------------------------------

/// Nothing sticks out of the page to the side, and every text of a table is inside of its panel.
async fn fits(client: &Client, what: &str) {
    let script = "const out = [...document.querySelectorAll('.panel bdi, .panel span, #head bdi, #tiles dd')].filter((node) => !node.parentNode.matches('.about')).filter((node) => { \
            const [own, panel] = [node.getBoundingClientRect(), (node.closest('.panel, #tiles, #head')).getBoundingClientRect()]; \
            return own.width > 0 && (own.left < panel.left - 1 || own.right > panel.right + 1); \
        }).map((node) => node.textContent.slice(0, 40)); \
        return [document.documentElement.scrollWidth - document.documentElement.clientWidth, out]";
    let out = client.execute(script, Vec::new()).await.unwrap();
    assert_eq!(out, json!([0, []]), "{what} does not fit");
}

#[test]
fn every_view_fits_a_desk_and_a_phone_in_light_and_dark() {
    check(async |driver| {
        let (network, store) = (Memory::new(), MemoryStore::new());
        let node = |name: &str| {
            let options = ClusterOptions::new().node_name(name);
            PubSub::builder().log(store.clone()).cluster_with(network.clone(), options).message::<Tick>().build().unwrap()
        };
        let (pubsub, other) = (node("shop-eu-1"), node("shop-eu-2"));
        busy(&pubsub, &other).await;
        let server = Server::start(&pubsub, 0);
        let page = Page { client: driver.open(&server.url("")).await };
        page.wait_for("#link", &["live"]).await;
        // More of them for a picture of two minutes.
        let points: u64 = std::env::var("DASHBOARD_POINTS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
        let plotted = "return (document.querySelector('#plot-delivered .line')?.getAttribute('d').match(/[ML]/g) ?? []).length";
        let end = Instant::now() + Duration::from_secs(points) + DEADLINE;
        while page.client.execute(plotted, Vec::new()).await.unwrap().as_u64() < Some(points) {
            assert!(Instant::now() < end, "nothing is plotted");
            sleep(POLL_INTERVAL).await;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
        fs::create_dir_all(&folder).unwrap();
        let screens = [
            ("desk", 1280, 900, "light"),
            ("desk", 1280, 900, "dark"),
            ("phone", 360, 760, "light"),
            ("phone", 360, 760, "dark"),
        ];
        for (screen, width, height, scheme) in screens {
            let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": screen == "phone" });
            driver.devtools(&page.client, "Emulation.setDeviceMetricsOverride", size).await;
            let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            driver.devtools(&page.client, "Emulation.setEmulatedMedia", features).await;
            for view in ["overview", "subscribers", "topics", "groups", "arbiters", "nodes", "incidents"] {
                page.click(&format!("#tabs [data-view={view}]")).await;
                let shown = match view {
                    "overview" => "#slow tbody tr",
                    "nodes" => "#nodes-table tbody tr",
                    "incidents" => "#list-incidents li",
                    _ => "#list-table tbody tr",
                };
                until(&page.client, &format!("return document.querySelectorAll({shown:?}).length"), |rows| {
                    rows.as_u64() > Some(0)
                })
                .await;
                if view == "groups" {
                    sorts(&page).await;
                }
                fits(&page.client, &format!("{view} on a {screen} in {scheme}")).await;
                let picture = page.client.screenshot().await.unwrap();
                fs::write(folder.join(format!("{view}-{screen}-{scheme}.png")), picture).unwrap();
                if view == "overview" {
                    page.client
                        .execute("scrollTo(0, document.querySelector('#slow').offsetTop - 100)", Vec::new())
                        .await
                        .unwrap();
                    let picture = page.client.screenshot().await.unwrap();
                    fs::write(folder.join(format!("{view}-{screen}-{scheme}-below.png")), picture).unwrap();
                }
            }
        }
        named(&page.client).await;
        page.client.close().await.unwrap();
    });
}

/// The groups are in the order of the column that was pressed, by the server, and by name again in the log's own order.
async fn sorts(page: &Page) {
    let order = "return [location.search, document.querySelector('#list-table th[aria-sort]')?.textContent, \
        document.querySelector('#list-table th[aria-sort]')?.ariaSort, \
        [...document.querySelectorAll('#list-table td[data-label=Entries]')].map((cell) => Number(cell.textContent.replaceAll(',', '')))]";
    for (column, search, dir) in [("Entries", "?sort=entries", "descending"), ("Entries", "?sort=entries&dir=asc", "ascending")] {
        let press = format!(
            "[...document.querySelectorAll('#list-table th button')].find((button) => button.textContent === {column:?}).click()"
        );
        page.client.execute(&press, Vec::new()).await.unwrap();
        until(&page.client, order, |told| {
            let rows: Vec<_> = told[3].as_array().unwrap().iter().map(|cell| cell.as_u64().unwrap()).collect();
            let sorted = rows.is_sorted_by(|one, next| if dir == "ascending" { one <= next } else { one >= next });
            told[0] == search && told[1] == column && told[2] == dir && rows.len() > 1 && sorted
        })
        .await;
    }
    let by_name =
        "[...document.querySelectorAll('#list-table th button')].find((button) => button.textContent === 'Topic').click()";
    page.client.execute(by_name, Vec::new()).await.unwrap();
    until(&page.client, order, |told| told[0] == "" && told[1] == "Topic" && told[2] == "ascending").await;
}

/// Everything that can be pressed is reached by keys and has a name.
async fn named(client: &Client) {
    let script = "return [...document.querySelectorAll('button, a, input, select')].filter((node) => node.tabIndex < 0 || \
        !(node.textContent.trim() || node.labels?.[0]?.textContent.trim() || node.ariaLabel)).map((node) => node.outerHTML)";
    assert_eq!(client.execute(script, Vec::new()).await.unwrap(), json!([]));
}

/// A shop on a bad day: prices that change, sockets that do not read, a thread that is stuck, orders that fail.
async fn busy(pubsub: &PubSub, other: &PubSub) {
    let rooms = |from: usize, to: usize| {
        (from..to).map(|number| vec![format!("room:{}", number % 40), "prices:gold".to_owned()]).collect()
    };
    crowd::<Sessions>(pubsub, rooms(0, 300));
    crowd::<Screens>(pubsub, rooms(300, 420));
    crowd::<Prices>(other, vec![vec!["prices:gold".to_owned(), "room:1".to_owned()]]);
    let slow = [
        ("prices:gold", "session 4711, 192.0.2.17", 96),
        ("prices:gold", "session 4712, 192.0.2.80", 1_024),
        ("room:7", "kiosk Alexanderplatz", 2),
    ];
    for (topic, metadata, capacity) in slow {
        std::mem::forget(stalled(pubsub, topic, metadata, capacity));
    }
    for number in 0..9 {
        std::mem::forget(stalled(pubsub, &format!("room:{number}"), &format!("session {}", 100 + number), 256 << (number % 3)));
    }
    std::mem::forget(stalled(pubsub, "room:\u{5d7}\u{5d3}\u{5e8} \u{202e}<b>", "\u{5d0}\u{5d1} <script>", 32));
    let of = pubsub.clone();
    thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let _stuck = Stuck(of).start();
            std::future::pending::<()>().await;
        });
    });
    for order in 0..60 {
        pubsub.append("orders", &Tick(order)).await.unwrap();
    }
    for topic in ["audit", "payments:eu", "payments:us"] {
        pubsub.append(topic, &Tick(1)).await.unwrap();
    }
    let _ledger = Ledger(pubsub.clone()).start();
    let all = pubsub.clone();
    eventually("all are there", || all.subscribers("prices:gold") >= 423 && all.nodes().len() == 1);
    thread::spawn(move || {
        for round in 0_u64.. {
            // This is the pace of a shop, no wait for anything.
            thread::sleep(Duration::from_millis(40 + (round % 90).abs_diff(45)));
            let _ = all.broadcast("prices:gold", Tick(round));
            let _ = all.broadcast(format!("room:{}", round % 40), Tick(round));
        }
    });
}
