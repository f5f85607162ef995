//! Cluster chat: the example as its own processes over zenoh, Redis and NATS, met by browsers, WebSockets and HTTP. Knows its protocol, not its code.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

use actix_web::rt::System;
use actix_web::rt::time::timeout;
use futures::SinkExt;
use futures::StreamExt;
use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::common::DEADLINE;
use crate::common::Process;
use crate::common::browser::Driver;
use crate::common::browser::Page;
use crate::common::browser::alone;
use crate::common::eventually;
use crate::common::example;
use crate::common::read_line_with;
#[cfg(unix)]
use crate::common::signal;
use crate::servers::Server;

#[allow(dead_code, reason = "not every test needs all of it")]
mod common;
#[allow(dead_code, unreachable_pub, reason = "not every test needs all of it")]
#[path = "it/servers.rs"]
mod servers;

// ---- pages -----------------------------------------------------------------------------------------------------------

/// Kills the node to which the other one was pointed first, and starts it again.
#[test]
fn pages_on_two_nodes_talk_and_see_a_killed_node_go_and_come_back() {
    let _alone = alone();
    let cluster = zenoh();
    let [here, there] = [(); 2].map(|()| Node::start(&cluster));
    let names = [here.name(), there.name()];
    let [here_name, there_name] = names.each_ref().map(String::as_str);
    let driver = Driver::start();
    System::new().block_on(async {
        let ann = Page::open(&driver, there.port, "Ann").await;
        let ben = Page::open(&driver, here.port, "Ben").await;
        for (page, own, other) in [(&ann, there_name, here_name), (&ben, here_name, there_name)] {
            page.wait_for("#nodes li.up bdi", &[own, other]).await;
            page.wait_for("#own-node", &[own]).await;
            page.wait_for("#people-list bdi", &["Ann", "Ben"]).await;
            page.wait_for("#people-list .node", &[there_name, here_name]).await;
            page.wait_for("#link-down:not([hidden])", &[]).await;
        }
        ann.say("hello from Ann").await;
        ben.wait_for(".msg .text", &["hello from Ann"]).await;
        ben.say("hello from Ben").await;
        let (status, answer) = there.http("POST", "/rooms/lobby?user=Job", "hello from curl");
        assert_eq!((status, &answer["sent_to"]), (202, &json!("every node")));
        for page in [&ann, &ben] {
            page.wait_for(".msg:not(.sending) .text", &["hello from Ann", "hello from Ben", "hello from curl"]).await;
            page.wait_for(".msg .meta .node", &[there_name, here_name, there_name]).await;
        }

        let port = here.port;
        let killed = Instant::now();
        drop(here);
        ann.wait_for("#nodes li.down bdi", &[here_name]).await;
        ann.wait_for("#people-list bdi", &["Ann"]).await;
        assert!(killed.elapsed() < FAILURE, "{:?}", killed.elapsed());
        let down = format!("{here_name} is down: its connection ended");
        ann.wait_for(".notice.down", &[&down]).await;
        ann.wait_for(".notice.left", &["Ben left"]).await;
        ann.say("anybody there?").await;
        ann.wait_for(".msg:last-child:not(.sending) .text", &["anybody there?"]).await;

        let here = Node::start_on(&cluster, port);
        ann.wait_for("#nodes li.up bdi", &[there_name, here_name]).await;
        ann.wait_for("#nodes li.down", &[]).await;
        for page in [&ann, &ben] {
            page.wait_for("#people-list bdi", &["Ann", "Ben"]).await;
            page.wait_for("#status", &["online"]).await;
        }
        eventually("both pages are heard on both nodes", || {
            [&here, &there].iter().all(|node| node.http("GET", "/rooms/lobby/subscribers", "").1["total"] == 6)
        });
        ben.say("back again").await;
        ann.wait_for(".msg:last-child .text", &["back again"]).await;
        ann.say("welcome back").await;
        ben.wait_for(".msg:last-child .text", &["welcome back"]).await;
        for page in [ann, ben] {
            page.client.close().await.unwrap();
        }
    });
}

// ---- engines ---------------------------------------------------------------------------------------------------------

#[test]
fn nodes_over_zenoh_are_one_chat() {
    smoke(&zenoh());
}

#[test]
fn nodes_over_redis_are_one_chat() {
    let server = Server::redis();
    smoke(&server.url());
}

#[test]
fn nodes_over_nats_are_one_chat() {
    let server = Server::nats();
    smoke(&server.url());
}

fn smoke(cluster: &str) {
    let [here, there] = [(); 2].map(|()| Node::start(cluster));
    here.sees(&[&there]);
    there.sees(&[&here]);
    System::new().block_on(async {
        let [mut ann, mut ben] = [Guest::enter(&here, "Ann").await, Guest::enter(&there, "Ben").await];
        for node in [&here, &there] {
            node.has_guests(&["Ann", "Ben"]);
        }
        eventually("both are subscribed everywhere", || {
            [&here, &there].iter().all(|node| node.http("GET", "/rooms/lobby/subscribers", "").1["total"] == 6)
        });
        ann.say("hello").await;
        for guest in [&mut ann, &mut ben] {
            let said = guest.hears("hello").await;
            assert_eq!((&said["user"], &said["node"]), (&json!("Ann"), &json!(here.name())));
        }
        assert_eq!(there.http("POST", "/rooms/lobby", "by curl").0, 202);
        assert_eq!(ann.hears("by curl").await["node"], there.name());

        // As `kill -9` does: nothing is said, nothing is closed.
        let (port, name) = (here.port, here.name());
        drop(here);
        eventually("it is down", || there.nodes(true) == [name.as_str()]);
        there.has_guests(&["Ben"]);

        let here = Node::start_on(cluster, port);
        here.sees(&[&there]);
        there.sees(&[&here]);
        here.has_guests(&["Ben"]);
        let mut ann = Guest::enter(&here, "Ann").await;
        there.has_guests(&["Ann", "Ben"]);
        eventually("both are subscribed everywhere", || {
            [&here, &there].iter().all(|node| node.http("GET", "/rooms/lobby/subscribers", "").1["total"] == 6)
        });
        ben.say("welcome back").await;
        assert_eq!(ann.hears("welcome back").await["node"], there.name());
    });
    #[cfg(unix)]
    leaves(here_again(cluster, &there), &there);
}

/// One more node, which the others see.
#[cfg(unix)]
fn here_again(cluster: &str, there: &Node) -> Node {
    let node = Node::start(cluster);
    node.sees(&[there]);
    eventually("it is up", || there.nodes(false).contains(&node.name()));
    node
}

/// SIGTERM: it says so, and ends well.
#[cfg(unix)]
fn leaves(mut node: Node, other: &Node) {
    signal("-TERM", node.process.0.id());
    eventually("it has ended", || node.process.0.try_wait().unwrap().is_some());
    assert!(node.process.0.wait().unwrap().success());
    eventually("it is told to be down", || {
        let (_, news) = other.http("GET", "/nodes", "");
        let gone = news["nodes"].as_array().unwrap().iter().find(|told| told["name"] == node.name()).expect("it is told of");
        gone["down"] == "it left" || gone["down"] == "its connection ended"
    });
}

/// The story: with one seed, whoever starts while it is away is alone for good.
#[test]
fn nodes_meet_in_any_order_and_after_the_first_one_has_gone() {
    let cluster = zenoh();
    let [first, second] = [(); 2].map(|()| Node::start(&cluster));
    second.sees(&[&first]);
    let port = first.port;
    drop(first);
    let third = Node::start(&cluster);
    second.sees(&[&third]);
    third.sees(&[&second]);
    let first = Node::start_on(&cluster, port);
    first.sees(&[&second, &third]);
    second.sees(&[&first, &third]);
    third.sees(&[&first, &second]);
    // More than there are ports to meet at.
    let fourth = Node::start(&cluster);
    fourth.sees(&[&first, &second, &third]);
    third.sees(&[&first, &second, &fourth]);
}

// ---- the command line ------------------------------------------------------------------------------------------------

#[cfg(unix)]
#[test]
fn one_command_starts_two_nodes_and_ends_them() {
    let mut command = Command::new(example("cluster_chat"));
    let command = command.args(["--nodes", "2", "--port", "0", "--cluster", &zenoh()]).stdout(Stdio::piped());
    let mut process = Process(command.spawn().unwrap());
    let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
    let mut ports = Vec::new();
    let mut ids = Vec::new();
    while ports.len() < 2 {
        let mut line = String::new();
        assert!(stdout.read_line(&mut line).unwrap() > 0);
        ports.extend(line.split_once(ADDRESS).map(|(_, port)| port.trim().trim_end_matches('/').parse::<u16>().unwrap()));
        ids.extend(line.split_once("it is process ").map(|(_, id)| id.trim().parse::<u32>().unwrap()));
    }
    let name = |port: &u16| format!("node-{port}");
    for (at, port) in ports.iter().enumerate() {
        eventually("it sees the other", || nodes(*port, false) == [name(port), name(&ports[1 - at])]);
    }
    signal("-KILL", ids[0]);
    let rest = read_line_with(&mut stdout, "has ended: ").expect("it tells of the end");
    assert!(rest.contains("signal: 9") && rest.contains("To start it again: cargo run"), "{rest}");

    // One of them is left, and goes with the one that started it.
    signal("-TERM", process.0.id());
    eventually("it has ended", || process.0.try_wait().unwrap().is_some());
    assert!(process.0.wait().unwrap().success());
    assert!(ports.iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err()));
}

/// Its terminal was silent when the link failed, and a node alone said that it had sent to every node.
#[test]
fn a_node_says_in_its_terminal_and_in_its_answers_who_is_there() {
    let mut server = Server::redis();
    let mut command = Command::new(example("cluster_chat"));
    command.args(["--port", "0", "--cluster", &server.url()]).stdout(Stdio::piped());
    let mut process = Process(command.spawn().unwrap());
    let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
    let port = read_line_with(&mut stdout, ADDRESS).expect("the server says its address");
    let port: u16 = port.trim_end_matches('/').parse().expect("an address ends with a port");
    let said = || http(port, "POST", "/rooms/lobby?user=Ann", "hello").1["sent_to"].clone();
    eventually("the link is up", || http(port, "GET", "/nodes", "").1["link_down"].is_null());
    assert_eq!(said(), "this node, there is no other now");

    let other = Node::start(&server.url());
    let name = other.name();
    read_line_with(&mut stdout, &format!("node-{port}: {name} is up")).expect("it tells of the other");
    assert_eq!(said(), "every node");
    drop(other);
    read_line_with(&mut stdout, &format!("node-{port}: {name} is down: ")).expect("it tells of its end");
    assert_eq!(said(), "this node, there is no other now");

    server.kill();
    let why = read_line_with(&mut stdout, "there is no link to the others: ").expect("it tells of the link");
    assert!(!why.is_empty());
    assert_eq!(said(), "this node, the others cannot be reached now");
    server.restart();
    read_line_with(&mut stdout, "there is a link to the others").expect("it tells that it is back");
}

#[test]
fn a_wrong_command_line_is_refused_with_what_is_wrong() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    for (args, code, told) in [
        (&["--cluster", "amqp://h"][..], 2, "\"amqp://h\" is no cluster: zenoh"),
        (&["--cluster", "zenoh:x"], 2, "\"x\" is no list of ports"),
        (&["--nodes", "0"], 2, "\"0\" is no number of nodes, 1 to 16"),
        (&["--nodes", "2", "--port", "65535"], 2, "2 nodes from port 65535 on"),
        (&["--name", " "], 2, "name is blank"),
        (&["--colour"], 2, "invalid option '--colour'"),
        (&["--port", &taken], 1, "--port takes another one"),
        (&["--port", "0", "--cluster", "redis://"], 1, "the pub/sub cannot be of this cluster"),
    ] {
        let ended = Command::new(example("cluster_chat")).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(code) && said.contains(told), "{args:?}: {} {said}", ended.status);
    }
}

// ---- the stage -------------------------------------------------------------------------------------------------------

/// Until this, a node that was killed is seen.
const FAILURE: std::time::Duration = std::time::Duration::from_secs(5);
const ADDRESS: &str = "cluster_chat: http://127.0.0.1:";

/// Ports that are free now, for nodes to meet at.
fn zenoh() -> String {
    let free = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let ports = free.map(|listener| listener.local_addr().unwrap().port().to_string());
    format!("zenoh:{}", ports.join(","))
}

/// The example as its own process.
struct Node {
    process: Process,
    port: u16,
}

impl Node {
    fn start(cluster: &str) -> Self {
        Self::start_on(cluster, 0)
    }

    fn start_on(cluster: &str, port: u16) -> Self {
        let mut command = Command::new(example("cluster_chat"));
        command.args(["--port", &port.to_string(), "--cluster", cluster]).stdout(Stdio::piped());
        let mut process = Process(command.spawn().unwrap());
        let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
        let port = read_line_with(&mut stdout, ADDRESS).expect("the server says its address");
        Self { process, port: port.trim_end_matches('/').parse().expect("an address ends with a port") }
    }

    fn name(&self) -> String {
        format!("node-{}", self.port)
    }

    fn http(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        http(self.port, method, path, body)
    }

    fn nodes(&self, down: bool) -> Vec<String> {
        nodes(self.port, down)
    }

    /// Waits until these are up, and this one.
    #[track_caller]
    fn sees(&self, others: &[&Node]) {
        let mut names: Vec<_> = others.iter().map(|node| node.name()).collect();
        names.sort();
        names.insert(0, self.name());
        eventually(&format!("{names:?} are up"), || self.nodes(false) == names);
    }

    /// Waits until these are in the lobby.
    #[track_caller]
    fn has_guests(&self, names: &[&str]) {
        eventually(&format!("{names:?} are in the lobby of {}", self.name()), || {
            let (_, people) = self.http("GET", "/rooms/lobby", "");
            let mut here: Vec<_> = people["people"].as_array().unwrap().iter().map(|guest| guest["user"].clone()).collect();
            here.sort_by_key(Value::to_string);
            here == names
        });
    }
}

/// The names of the nodes that are up, or down, as one sees it.
fn nodes(port: u16, down: bool) -> Vec<String> {
    let (_, news) = http(port, "GET", "/nodes", "");
    let nodes = news["nodes"].as_array().expect("a list").iter();
    nodes.filter(|node| node["down"].is_string() == down).map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

fn http(port: u16, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP response");
    (head[9..12].parse().expect("a status"), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A WebSocket in the lobby.
struct Guest {
    socket: WebSocketStream<tokio::net::TcpStream>,
}

impl Guest {
    async fn enter(node: &Node, name: &str) -> Self {
        let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).await.unwrap();
        let (socket, _) = client_async(format!("ws://127.0.0.1:{}/ws?name={name}", node.port), stream).await.unwrap();
        let mut guest = Self { socket };
        guest.send(&json!({ "type": "subscribe", "ref": 1, "topic": "room:lobby" })).await;
        guest.until(|message| message["type"] == "ok" && message["ref"] == 1).await;
        guest
    }

    async fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// In the name of another one, on another node: neither is believed.
    async fn say(&mut self, text: &str) {
        let data = json!({ "user": "Eve", "text": text, "node": "nowhere" });
        self.send(&json!({ "type": "publish", "topic": "room:lobby", "event": "chat.said", "data": data })).await;
    }

    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let read = async {
            loop {
                let message = self.socket.next().await.expect("the connection holds").unwrap();
                if let Message::Text(text) = message
                    && let Some(message) = serde_json::from_str(&text).ok().filter(&wanted)
                {
                    return message;
                }
            }
        };
        timeout(DEADLINE, read).await.expect("it comes in time")
    }

    async fn hears(&mut self, text: &str) -> Value {
        self.until(|message| message["event"] == "chat.said" && message["data"]["text"] == text).await["data"].clone()
    }
}
