//! Dashboard: what its JSON, its stream and its guard promise, over real sockets. The page is in `tests/browser_dashboard.rs`.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::Failure;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::cluster::Memory;
use actix_pubsub::log::Fetch;
use actix_pubsub::log::Group;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;
use actix_pubsub::web::Dashboard;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::bearer_token;
use actix_pubsub::web::dashboard;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpServer;
use serde_json::Value;
use serde_json::json;

use crate::support::Worker;
use crate::support::append_notes;
use crate::support::failed;
use crate::support::memory;
use crate::support::spin_until;
use crate::support::until;
use crate::web_support::DEADLINE;
use crate::web_support::serve;

// ---- servers and requests --------------------------------------------------------------------------------------------

/// Serves the dashboard as its users do, with two workers, until the test ends.
fn watch(pubsub: &PubSub) -> SocketAddr {
    bind(Ipv4Addr::LOCALHOST, dashboard(pubsub))
}

fn bind(ip: Ipv4Addr, dashboard: Dashboard) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let server = HttpServer::new(move || App::new().service(dashboard.clone())).workers(2).disable_signals();
            let server = server.h1_allow_half_closed(false).bind((ip, 0)).unwrap();
            tell.send(server.addrs()[0]).unwrap();
            server.run().await.unwrap();
        });
    });
    SocketAddr::from((Ipv4Addr::LOCALHOST, told.recv().unwrap().port()))
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// One request on a connection of its own; of the body, as much as there is at the end of the connection.
fn request(addr: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {addr}\r\n") };
    write!(socket, "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Answer { status: head[9..12].parse().unwrap(), head, body }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&rest[..length]);
        body = &rest[(length + 2).min(rest.len())..];
    }
    whole
}

fn get(addr: SocketAddr, path: &str) -> Value {
    let answer = request(addr, "GET", path, "Accept: */*\r\n");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

/// One who watches.
struct Watcher {
    lines: BufReader<TcpStream>,
}

impl Watcher {
    fn open(addr: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(socket, "GET /_pubsub/live HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
        let mut lines = BufReader::new(socket);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        Self { lines }
    }

    /// The data of the next overview; `None` at the end of the stream.
    fn next_text(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).unwrap() == 0 || line == "0\r\n" {
                return None;
            }
            if let Some(data) = line.strip_prefix("data:") {
                return Some(data.trim().to_owned());
            }
        }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_text().expect("the stream goes on")).unwrap()
    }
}

// ---- actors ----------------------------------------------------------------------------------------------------------

#[derive(Debug)]
struct Tick;

/// Reads one topic, or as many as it is told.
struct Reader {
    pubsub: PubSub,
    topics: Vec<String>,
}

impl Actor for Reader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for topic in &self.topics {
            self.pubsub.subscribe::<Tick, _>(ctx, topic.as_str()).unwrap();
        }
    }
}

impl Handler<Event<Tick>> for Reader {
    type Result = ();

    fn handle(&mut self, _: Event<Tick>, _: &mut Self::Context) {}
}

/// Actors on an arbiter of their own, each with its topics, until the test ends.
fn crowd(pubsub: &PubSub, topics: Vec<Vec<String>>) {
    let (of, subscriptions) = (pubsub.clone(), topics.iter().map(Vec::len).sum::<usize>());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let _actors: Vec<_> = topics.into_iter().map(|topics| Reader { pubsub: of.clone(), topics }.start()).collect();
            // They subscribe when they start, which is before this comes round again.
            actix_web::rt::task::yield_now().await;
            tell.send(()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    // Not by looking at once and again: each look takes the lock that the subscribing needs.
    told.recv().unwrap();
    spin_until("all have subscribed", || pubsub.summary().subscriptions_total == subscriptions);
}

// ---- what it shows ---------------------------------------------------------------------------------------------------

#[test]
fn a_paused_subscriber_among_ten_thousand_is_first_with_its_exact_depth() {
    let pubsub = PubSub::new();
    crowd(&pubsub, vec![vec!["prices".to_owned()]; 10_000]);
    let options = SubscribeOptions::new().capacity(64).metadata("session 7");
    let paused = pubsub.stream_with::<Tick>("prices", &options).unwrap();
    let addr = watch(&pubsub);
    for _ in 0..7 {
        pubsub.local_broadcast("prices", Tick).unwrap();
    }
    spin_until("the others have read all", || pubsub.summary().delivered == 70_000 && pubsub.summary().waiting == 7);
    let mut watcher = Watcher::open(addr);
    let slow = &watcher.next()["slow"];
    assert_eq!(slow.as_array().map(Vec::len), Some(1));
    let of =
        |item: &Value| (item["depth"].clone(), item["capacity"].clone(), item["metadata"].clone(), item["subscriber"].clone());
    let expected = (json!(7), json!(64), json!("session 7"), json!(paused.subscriber_id().to_string()));
    assert_eq!(of(&slow[0]), expected);
    let page = get(addr, "/_pubsub/subscribers?per=3");
    assert_eq!((&page["total"], &page["matched"], &page["items"][1]["depth"]), (&json!(10_001), &json!(10_001), &json!(0)));
    assert_eq!(of(&page["items"][0]), expected);
    assert_eq!(page["items"].as_array().map(Vec::len), Some(3));
    let found = get(addr, "/_pubsub/subscribers?q=SESSION%207");
    assert_eq!((&found["total"], &found["matched"], of(&found["items"][0])), (&json!(10_001), &json!(1), expected));

    // One event more is there in one of the next two overviews, one second apart: one of them may be on its way.
    pubsub.local_broadcast("prices", Tick).unwrap();
    let depths = [watcher.next(), watcher.next()].map(|overview| overview["slow"][0]["depth"].clone());
    assert_eq!(depths[1], json!(8), "{depths:?}");
    drop(paused);
}

#[test]
fn a_hundred_thousand_topics_are_found_sorted_and_paged_in_small_answers() {
    let pubsub = PubSub::new();
    let topics: Vec<_> = (0..100_000).map(|number| format!("device:{number:06}")).collect();
    crowd(&pubsub, vec![topics]);
    for _ in 0..3 {
        pubsub.local_broadcast("device:077777", Tick).unwrap();
    }
    spin_until("they were delivered", || pubsub.summary().delivered == 3);
    let addr = watch(&pubsub);
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["topic"].as_str().unwrap().to_owned()).collect()
    };
    let first = request(addr, "GET", "/_pubsub/topics?per=200", "");
    println!("200 of 100,000 topics are {} bytes", first.body.len());
    assert!(first.body.len() < 40_000, "{} bytes", first.body.len());
    let (first, second) = (first.json(), get(addr, "/_pubsub/topics?per=200&page=2"));
    assert_eq!((&first["total"], &first["matched"], names(&first).len()), (&json!(100_000), &json!(100_000), 200));
    assert_eq!((names(&first)[199].as_str(), names(&second)[0].as_str()), ("device:000199", "device:000200"));
    let last = get(addr, "/_pubsub/topics?per=200&page=500&sort=topic&dir=asc");
    assert_eq!(names(&last)[199], "device:099999");
    assert!(names(&get(addr, "/_pubsub/topics?per=200&page=501")).is_empty());
    let found = get(addr, "/_pubsub/topics?q=Device:0777&sort=topic&dir=desc");
    assert_eq!((&found["matched"], names(&found)[0].as_str()), (&json!(100), "device:077799"));
    assert_eq!(get(addr, "/_pubsub/topics?q=7777")["matched"], json!(19), "anywhere in it");
    let busiest = get(addr, "/_pubsub/topics?sort=events&per=1");
    assert_eq!((names(&busiest)[0].as_str(), &busiest["items"][0]["events"]), ("device:077777", &json!(3)));
    let subscribers = request(addr, "GET", "/_pubsub/subscribers?sort=delivered", "");
    println!("50 of 100,000 subscriptions are {} bytes", subscribers.body.len());
    assert!(subscribers.body.len() < 40_000, "{} bytes", subscribers.body.len());
    let delivered = subscribers.json()["items"][0].clone();
    assert_eq!((&delivered["topic"], &delivered["delivered"]), (&json!("device:077777"), &json!(3)));
    let overview = request(addr, "GET", "/_pubsub", "");
    println!("the overview is {} bytes", overview.body.len());
    assert!(overview.body.len() < 20_000, "{} bytes", overview.body.len());
    assert_eq!(overview.json()["stats"]["topics"], json!(100_000));
}

#[test]
fn groups_of_the_log_are_told_with_what_this_node_did_for_them() {
    actix_web::rt::System::new().block_on(async {
        let (_store, pubsub) = memory();
        append_notes(&pubsub, 0..5).await;
        for number in 0..4 {
            pubsub.append(format!("room:{number}").as_str(), &crate::support::Note(1)).await.unwrap();
        }
        let worker =
            Worker::new(
                &pubsub,
                |note, _| if note.0 == 3 { failed(Failure::dead("on <b>purpose</b>")) } else { crate::support::ok() },
            );
        let handled = worker.handled.clone();
        let _worker = worker.start();
        until("all were handled", || handled.lock().unwrap().len() == 5 && pubsub.incidents().len() == 1).await;
        let addr = watch(&pubsub);
        let ask = move |path: &'static str| actix_web::web::block(move || get(addr, path));
        let topic = |page: &Value, name: &str| {
            let of = |item: &&Value| item["topic"] == name;
            page["items"].as_array().unwrap().iter().find(of).cloned().unwrap_or_default()
        };
        let mut page = Value::Null;
        for _ in 0..10_000 {
            page = ask("/_pubsub/groups").await.unwrap();
            if topic(&page, "t")["groups"][0]["pending"] == 0 {
                break;
            }
        }
        let group = &topic(&page, "t")["groups"][0];
        assert_eq!(
            (&page["log"], &group["group"], &group["lag"], &group["pending"]),
            (&json!(true), &json!("workers"), &json!(0), &json!(0))
        );
        let here = &group["here"];
        assert_eq!((&here["delivered"], &here["handled"], &here["dead_letters"]), (&json!(5), &json!(4), &json!(1)));
        assert_eq!(topic(&page, "dead:t")["entries"], 1);
        assert_eq!(topic(&page, "room:2")["groups"], json!([]));

        let first = ask("/_pubsub/groups?per=2").await.unwrap();
        assert_eq!((first["items"].as_array().unwrap().len(), &first["next"]), (2, &first["items"][1]["topic"]));
        assert_eq!(first["next"], "room:0");
        let second = ask("/_pubsub/groups?per=2&after=room:0").await.unwrap();
        assert_eq!((&second["items"][0]["topic"], &second["next"]), (&json!("room:1"), &json!("room:2")));
        let end = ask("/_pubsub/groups?per=2&after=room:2").await.unwrap();
        assert_eq!((end["items"].as_array().unwrap().len(), &end["next"]), (2, &Value::Null));
        let found = ask("/_pubsub/groups?q=WORK").await.unwrap();
        assert_eq!((&found["items"][0]["topic"], found["items"].as_array().unwrap().len()), (&json!("t"), 1));

        let incidents = ask("/_pubsub/incidents?q=dead").await.unwrap();
        assert_eq!(
            (&incidents["items"][0]["kind"], &incidents["items"][0]["reason"]),
            (&json!("dead_letter"), &json!("on <b>purpose</b>"))
        );
        assert_eq!(ask("/_pubsub/incidents?q=nothing").await.unwrap()["matched"], 0);
    });
}

#[test]
fn groups_are_sorted_by_what_waits_in_them_and_paged() {
    actix_web::rt::System::new().block_on(async {
        let (store, pubsub) = memory();
        // Of each topic two groups: one has fetched as many entries as the topic's number, the other none.
        for number in 0..5_u64 {
            let topic = format!("room:{number}");
            for value in 0..5 {
                pubsub.append(topic.as_str(), &crate::support::Note(value)).await.unwrap();
            }
            for name in ["busy", "idle"] {
                let group = Group::new(topic.parse().unwrap(), name.parse().unwrap());
                store.create_group(&group, Position::Start).await.unwrap();
                if name == "busy" && number > 0 {
                    let fetch = Fetch::entries(number as usize).visibility(Duration::from_secs(3_600));
                    assert_eq!(store.fetch(&group, &"c".parse().unwrap(), fetch).await.unwrap().len() as u64, number);
                }
            }
        }
        pubsub.append("alone", &crate::support::Note(0)).await.unwrap();
        let addr = watch(&pubsub);
        let ask = move |query: &'static str| actix_web::web::block(move || get(addr, &format!("/_pubsub/groups?{query}")));
        let told = |page: &Value| -> Vec<String> {
            let told = |item: &Value| {
                let group = item["groups"][0]["group"].as_str().unwrap_or("-");
                assert!(item["groups"].as_array().unwrap().len() <= 1, "each group on its own: {item}");
                format!("{} {group}", item["topic"].as_str().unwrap())
            };
            page["items"].as_array().unwrap().iter().map(told).collect()
        };
        let pending = ask("sort=pending&per=3").await.unwrap();
        assert_eq!(told(&pending), ["room:4 busy", "room:3 busy", "room:2 busy"]);
        assert_eq!((&pending["matched"], &pending["next"], &pending["looked_at"]), (&json!(11), &Value::Null, &json!(6)));
        assert_eq!((&pending["sort"], &pending["dir"], &pending["log"]), (&json!("pending"), &json!("desc"), &json!(true)));
        let mut all = told(&ask("sort=lag&per=6").await.unwrap());
        assert_eq!(all, ["room:0 busy", "room:0 idle", "room:1 idle", "room:2 idle", "room:3 idle", "room:4 idle"]);
        all.extend(told(&ask("sort=lag&per=6&page=2").await.unwrap()));
        assert_eq!(all[6..], ["room:1 busy", "room:2 busy", "room:3 busy", "room:4 busy", "alone -"], "pages join");
        let found = ask("sort=lag&dir=asc&q=BUSY&per=2").await.unwrap();
        assert_eq!((told(&found), &found["matched"]), (vec!["room:4 busy".to_owned(), "room:3 busy".to_owned()], &json!(5)));
        assert_eq!(told(&ask("sort=topic&dir=desc&per=2&after=room:1").await.unwrap()), ["room:4 busy", "room:4 idle"]);
        for sort in ["entries", "oldest", "attempt", "consumers", "handled", "redelivered", "failed", "dead_letters"] {
            let query: &'static str = format!("sort={sort}").leak();
            assert_eq!(ask(query).await.unwrap()["matched"], 11, "{sort}");
        }
    });
}

#[test]
fn nodes_and_arbiters_are_told() {
    let network = Memory::new();
    let node = |name: &str| {
        let options = ClusterOptions::new().node_name(name);
        PubSub::builder().cluster_with(network.clone(), options).build().unwrap()
    };
    let (one, two) = (node("one"), node("two"));
    spin_until("they have met", || one.nodes().len() == 1);
    crowd(&one, vec![vec!["prices".to_owned()]]);
    let addr = watch(&one);
    let nodes = get(addr, "/_pubsub/nodes");
    assert_eq!((&nodes["name"], &nodes["node"]), (&json!("one"), &json!(one.node().to_string())));
    assert_eq!(nodes["nodes"], json!([{ "id": two.node().to_string(), "name": "two" }]));
    assert_eq!((&nodes["cluster"]["link_up"], &nodes["cluster"]["nodes"]), (&json!(true), &json!(1)));
    let peer = &nodes["cluster"]["peers"][0];
    assert_eq!((&peer["node"], &peer["name"], &peer["sent"]), (&json!(two.node().to_string()), &json!("two"), &Value::Null));
    let arbiters = get(addr, "/_pubsub/arbiters?sort=subscribers");
    assert_eq!((&arbiters["items"][0]["subscribers"], &arbiters["total"]), (&json!(1), &json!(one.summary().arbiters.len())));
    let overview = get(addr, "/_pubsub/");
    assert_eq!((&overview["name"], &overview["nodes"]), (&json!("one"), &nodes["nodes"]));

    let alone = watch(&PubSub::new());
    assert_eq!(
        (get(alone, "/_pubsub/nodes")["cluster"].clone(), get(alone, "/_pubsub/groups")["log"].clone()),
        (Value::Null, json!(false))
    );
}

// ---- the stream ------------------------------------------------------------------------------------------------------

#[test]
fn all_who_watch_get_the_same_overview_and_change_nothing_in_it() {
    let pubsub = PubSub::new();
    let addr = watch(&pubsub);
    let mut watchers: Vec<_> = (0..5).map(|_| Watcher::open(addr)).collect();
    // Those who came while the first overview was made have got it; all get the one after the next.
    let overviews: Vec<Vec<String>> =
        watchers.iter_mut().map(|watcher| (0..3).map(|_| watcher.next_text().expect("it goes on")).collect()).collect();
    let last = &overviews[0][2];
    assert!(overviews.iter().all(|of| of.contains(last) || of[1..].iter().any(|one| overviews[0].contains(one))), "they differ");
    let overview: Value = serde_json::from_str(last).unwrap();
    let stats = &overview["stats"];
    assert_eq!(
        ["topics", "subscribers", "addressed", "delivered", "waiting"].map(|key| &stats[key]),
        [&json!(0), &json!(0), &json!(0), &json!(0), &json!(0)]
    );
    assert_eq!((stats["arbiters"].clone(), pubsub.topics(), pubsub.stats().subscriptions.len()), (json!([]), vec![], 0));
    assert!(overview["rates"]["delivered"].is_number(), "{overview}");
    // A page that is opened now has something to draw.
    let history = get(addr, "/_pubsub")["history"].clone();
    assert!(history.as_array().unwrap().len() >= 2, "{history}");
}

#[test]
fn rates_are_those_of_the_seconds_between() {
    let pubsub = PubSub::new();
    crowd(&pubsub, vec![vec!["prices".to_owned()]; 3]);
    let mut watcher = Watcher::open(watch(&pubsub));
    let first = watcher.next();
    for _ in 0..100 {
        pubsub.local_broadcast("prices", Tick).unwrap();
    }
    let mut before = first;
    let (mut delivered, mut accepted) = (0.0, 0.0);
    while before["stats"]["delivered"] != json!(300) {
        let next = watcher.next();
        let seconds = (next["at_ms"].as_f64().unwrap() - before["at_ms"].as_f64().unwrap()) / 1_000.0;
        delivered += next["rates"]["delivered"].as_f64().unwrap() * seconds;
        accepted += next["rates"]["accepted"].as_f64().unwrap() * seconds;
        before = next;
    }
    // To a tenth per second, and the times to a millisecond or two.
    assert!((delivered - 300.0).abs() < 15.0 && (accepted - 100.0).abs() < 5.0, "{delivered} delivered, {accepted} accepted");
}

#[test]
fn a_drain_ends_the_streams_of_who_watches() {
    let pubsub = PubSub::new();
    let addr = serve(&pubsub, {
        let dashboard = dashboard(&pubsub);
        move |config| {
            config.service(dashboard.clone());
        }
    });
    let mut watcher = Watcher::open(addr);
    watcher.next();
    actix_web::rt::System::new().block_on(Edge::of(&pubsub).drain(Duration::from_millis(10)));
    while watcher.next_text().is_some() {}
    assert!(Watcher::open(addr).next_text().is_none(), "a new one ends at once");
}

#[test]
fn one_watcher_too_many_is_refused_with_the_limit() {
    let addr = watch(&PubSub::new());
    let mut watchers: Vec<_> = (0..256).map(|_| Watcher::open(addr)).collect();
    let refused = request(addr, "GET", "/_pubsub/live", "");
    assert_eq!((refused.status, &refused.json()["limit"], &refused.json()["value"]), (503, &json!(256), &json!(257)));
    watchers[0].next();
    watchers.pop();
    spin_until("there is room again", || {
        let mut socket = TcpStream::connect(addr).unwrap();
        write!(socket, "GET /_pubsub/live HTTP/1.1\r\nHost: {addr}\r\n\r\n").unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).unwrap();
        head == *b"HTTP/1.1 200"
    });
}

// ---- who may look ----------------------------------------------------------------------------------------------------

#[test]
fn without_an_authorisation_only_this_machine_may_look() {
    let pubsub = PubSub::new();
    let addr = watch(&pubsub);
    let check = |addr: SocketAddr, headers: &str| {
        let paths = ["/_pubsub", "/_pubsub/", "/_pubsub/topics", "/_pubsub/live", "/_pubsub/dashboard.js", "/_pubsub/none"];
        for path in paths {
            let answer = request(addr, "GET", path, headers);
            let said = answer.json();
            assert_eq!((answer.status, &said["code"]), (403, &json!("not_local")), "{path} with {headers}");
            assert!(said["message"].as_str().unwrap().contains("Dashboard::authorize"), "{said}");
        }
    };
    for host in ["127.0.0.1", "localhost", "LocalHost:80", "[::1]:1"] {
        assert_eq!(request(addr, "GET", "/_pubsub", &format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    for host in ["rebound.example", "127.0.0.1.rebound.example:8080", "0.0.0.0", "192.0.2.1"] {
        check(addr, &format!("Host: {host}\r\n"));
    }
    for header in [
        "Forwarded: for=192.0.2.1",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 proxy",
        // An image, a script or a form of a page of another site: browsers name no origin then.
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors",
    ] {
        check(addr, &format!("{header}\r\n"));
    }
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(request(addr, "GET", "/_pubsub", link).status, 200, "somebody follows a link");
    let open = bind(Ipv4Addr::UNSPECIFIED, dashboard(&pubsub));
    check(open, "");
    let page = request(open, "GET", "/_pubsub", "Accept: text/html,*/*;q=0.8\r\n");
    assert!(
        page.status == 403 && page.head.contains("content-type: text/plain") && page.body.contains("0.0.0.0"),
        "{}",
        page.body
    );
    // A page of another origin: what it asks for is not for it, even if the rest of the server lets every origin read.
    let other = request(addr, "GET", "/_pubsub", "Origin: https://evil.example\r\n");
    assert_eq!((other.status, &other.json()["code"]), (403, &json!("origin")));
    assert_eq!(request(addr, "GET", "/_pubsub", &format!("Origin: http://{addr}\r\n")).status, 200);
}

/// nginx, told only where to pass on to, speaks HTTP/1.0, names its upstream as the host and says nothing of whom it serves: strangers were let in.
#[test]
fn what_a_silent_proxy_passes_on_is_refused() {
    fn answer(mut socket: impl Read + Write, version: &str) -> String {
        write!(socket, "GET /_pubsub/topics {version}\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
    let addr = watch(&PubSub::new());
    let of = |version| answer(TcpStream::connect(addr).unwrap(), version);
    let (by_nginx, own) = (of("HTTP/1.0"), of("HTTP/1.1"));
    assert!(by_nginx.contains(" 403 ") && by_nginx.contains("not_local") && by_nginx.contains("HTTP/1.0"), "{by_nginx}");
    assert!(own.starts_with("HTTP/1.1 200"), "{own}");

    let socket = std::env::temp_dir().join(format!("pubsub-dashboard-{}.sock", std::process::id()));
    let (tell, told) = mpsc::channel();
    let path = socket.clone();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let pubsub = PubSub::new();
            let server = HttpServer::new(move || App::new().service(dashboard(&pubsub))).workers(1).disable_signals();
            let server = server.bind_uds(path).unwrap();
            tell.send(()).unwrap();
            server.run().await.unwrap();
        });
    });
    told.recv().unwrap();
    let by_socket = answer(std::os::unix::net::UnixStream::connect(&socket).unwrap(), "HTTP/1.1");
    std::fs::remove_file(&socket).unwrap();
    assert!(by_socket.starts_with("HTTP/1.1 403") && by_socket.contains("Unix socket"), "{by_socket}");
}

#[test]
fn with_an_authorisation_it_alone_decides() {
    let guarded = dashboard(&PubSub::new()).authorize(async |request: &HttpRequest| {
        // It may take its time.
        actix_web::rt::task::yield_now().await;
        match bearer_token(request) {
            Some(token) if token == "secret" => Ok(()),
            Some(_) => Err(Refusal::denied("not this one")),
            None => Err(Refusal::unauthorized("a token is needed")),
        }
    });
    let addr = bind(Ipv4Addr::UNSPECIFIED, guarded.at("/admin/ops/"));
    for path in ["/admin/ops", "/admin/ops/topics", "/admin/ops/live", "/admin/ops/dashboard.js"] {
        let refused = request(addr, "GET", path, "");
        assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("unauthorized")), "{path}");
        assert_eq!(request(addr, "GET", path, "Authorization: Bearer wrong\r\n").status, 403);
    }
    let from_afar =
        "Authorization: Bearer secret\r\nHost: ops.example\r\nX-Forwarded-For: 192.0.2.1\r\nOrigin: https://other.example\r\n";
    assert_eq!(request(addr, "GET", "/admin/ops", from_afar).status, 200);
    assert_eq!(request(addr, "GET", "/admin/ops/subscribers", from_afar).status, 200);
    assert_eq!(request(addr, "POST", "/admin/ops", "").status, 401, "who may not look is told nothing else");
    assert_eq!(request(addr, "POST", "/admin/ops", from_afar).status, 405);
    assert_eq!(request(addr, "GET", "/_pubsub", from_afar).status, 404);
}

#[test]
fn it_only_reads() {
    let addr = watch(&PubSub::new());
    for path in ["/_pubsub", "/_pubsub/topics", "/_pubsub/live", "/_pubsub/none"] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            let refused = request(addr, method, path, "Content-Length: 0\r\n");
            assert_eq!((refused.status, refused.head.contains("allow: get, head")), (405, true), "{method} {path}");
        }
    }
    for path in ["/_pubsub", "/_pubsub/topics", "/_pubsub/live", "/_pubsub/dashboard.css"] {
        let head = request(addr, "HEAD", path, "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    assert_eq!((request(addr, "GET", "/_pubsub/none", "").status, request(addr, "HEAD", "/_pubsub/none", "").status), (404, 404));
}

#[test]
fn browsers_get_the_page_and_everyone_else_json_and_neither_is_kept_or_framed() {
    let addr = watch(&PubSub::new());
    let chromium = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
    let kinds = [
        ("/_pubsub/", chromium, "text/html"),
        ("/_pubsub/topics?q=x", chromium, "text/html"),
        ("/_pubsub/incidents", chromium, "text/html"),
        ("/_pubsub/?format=json", chromium, "application/json"),
        ("/_pubsub/topics?format=json", chromium, "application/json"),
        ("/_pubsub", "", "application/json"),
        ("/_pubsub/", "Accept: */*\r\n", "application/json"),
        ("/_pubsub/", "Accept: application/json\r\n", "application/json"),
        ("/_pubsub/nodes?format=html", "Accept: */*\r\n", "text/html"),
        ("/_pubsub/dashboard.css", "", "text/css"),
        ("/_pubsub/dashboard.js", "", "text/javascript"),
    ];
    for (path, accept, kind) in kinds {
        let answer = request(addr, "GET", path, accept);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{path} with {accept}: {}", answer.head);
        let policy = "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
            base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        for header in
            [policy, "cache-control: no-store", "x-content-type-options: nosniff", "referrer-policy: no-referrer", "vary: accept"]
        {
            assert!(answer.head.contains(header), "{path} has no {header}: {}", answer.head);
        }
    }
    // Its addresses are relative to its folder.
    let moved = request(addr, "GET", "/_pubsub?sort=x", chromium);
    assert!(moved.status == 307 && moved.head.contains("location: ./_pubsub/?sort=x"), "{}", moved.head);
    let bad = request(addr, "GET", "/_pubsub?format=xml", "");
    assert_eq!((bad.status, &bad.json()["message"]), (400, &json!("format is \"xml\", not one of json, html")));
}

#[test]
fn a_bad_parameter_is_refused_with_the_limit_and_the_value() {
    let addr = watch(&PubSub::new());
    let check = |path: &str, message: &str, limit: Option<u64>, value: Option<u64>| {
        let answer = request(addr, "GET", &format!("/_pubsub/{path}"), "");
        let said = answer.json();
        assert_eq!(
            (answer.status, &said["message"], said["limit"].as_u64(), said["value"].as_u64()),
            (400, &json!(message), limit, value),
            "{path}"
        );
    };
    for list in ["topics", "subscribers", "arbiters", "incidents", "groups"] {
        check(&format!("{list}?per=201"), "per is 201, it has to be 1 to 200", Some(200), Some(201));
        check(&format!("{list}?per=0"), "per is 0, it has to be 1 to 200", Some(1), Some(0));
        check(&format!("{list}?per=x"), "per is \"x\", it has to be 1 to 200", None, None);
        check(&format!("{list}?q={}", "x".repeat(256)), "q is 256 bytes, the limit is 255", Some(255), Some(256));
        assert_eq!(request(addr, "GET", &format!("/_pubsub/{list}?per=200&q={}", "x".repeat(255)), "").status, 200);
    }
    check("topics?page=0", "page is 0, it has to be 1 to 4294967295", Some(1), Some(0));
    check(
        "topics?sort=depth",
        "sort is \"depth\", not one of topic, message, subscribers, arbiters, events, backlog",
        None,
        None,
    );
    check("topics?dir=up", "dir is \"up\", not one of asc, desc", None, None);
    check("topics?sort=topic&sort=topic", "parameter \"sort\" is given twice", None, None);
    check("topics?after=x", "parameter \"after\" is not one of q, sort, dir, page, per, format", None, None);
    check("groups?x=1", "parameter \"x\" is not one of q, after, sort, dir, page, per, format", None, None);
    check(
        "groups?sort=depth",
        "sort is \"depth\", not one of topic, entries, lag, pending, oldest, attempt, consumers, handled, redelivered, failed, dead_letters",
        None,
        None,
    );
    check(&format!("groups?after={}", "x".repeat(256)), "topic is 256 bytes, the limit is 255", Some(255), Some(256));
    check("nodes?x=1", "parameter \"x\" is not one of format", None, None);
    check("?x=1", "parameter \"x\" is not one of format", None, None);
}
