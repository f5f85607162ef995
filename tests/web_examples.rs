//! The small examples of the web edge, run as a user runs them, and spoken to over real sockets as `curl` and a browser speak to them.
#![allow(missing_docs)]

#[cfg(feature = "redis")]
#[allow(dead_code, unreachable_pub, reason = "not every test needs all of it")]
#[path = "it/servers.rs"]
mod servers;

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

/// The end of an answer without a length; RFC 9112, section 7.1.
const LAST_CHUNK: &str = "\r\n0\r\n\r\n";
/// How long anything may take, with other tests on the same cores.
const DEADLINE: Duration = Duration::from_secs(20);

// ---- sse_feed --------------------------------------------------------------------------------------------------------

/// The ticks in a stream, each with the id of its event.
fn ticks(text: &str) -> Vec<(String, u64)> {
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    let event = |block: &str| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        let data: Value = serde_json::from_str(&field("data:")?).ok()?;
        Some((field("id:")?, data["tick"].as_u64()?))
    };
    whole.split("\n\n").filter_map(event).collect()
}

#[test]
fn sse_feed_goes_on_after_the_last_id_that_a_page_had() {
    let server = Server::start("sse_feed", &["0"]);
    let mut first = server.open("GET /prices HTTP/1.1", "");
    let seen = ticks(first.until(|text| ticks(text).len() >= 3));
    drop(first);
    let (id, tick) = seen.last().expect("three ticks");

    // Something happens while nobody listens: another stream, from the beginning, sees it.
    let mut other = server.open("GET /prices?last_event_id=0-0 HTTP/1.1", "");
    let all = ticks(other.until(|text| ticks(text).len() as u64 >= tick + 4));
    let from_zero: Vec<u64> = all.iter().map(|(_, tick)| *tick).collect();
    assert_eq!(from_zero, (0..all.len() as u64).collect::<Vec<_>>());

    let mut again = server.open("GET /prices HTTP/1.1", &format!("Last-Event-ID: {id}\r\n"));
    let missed = ticks(again.until(|text| ticks(text).len() >= 3));
    let missed: Vec<u64> = missed.iter().map(|(_, tick)| *tick).collect();
    assert_eq!(missed, (tick + 1..tick + 1 + missed.len() as u64).collect::<Vec<_>>());
    let (status, page) = server.request("GET /", "", "");
    assert!(status == 200 && page.contains("new EventSource(\"/prices\")"), "{page}");
}

// ---- tutorial --------------------------------------------------------------------------------------------------------

/// A reader types what the guide shows; what is tested here is the file.
#[test]
fn the_tutorial_ends_with_the_example_of_that_name_word_for_word() {
    let guide = include_str!("../src/docs/guide/tutorial.md");
    let program = guide.split("```rust,no_run\n").last().and_then(|rest| rest.split("```").next()).expect("a program");
    assert_eq!(program, include_str!("../examples/tutorial.rs"));
}

#[cfg(feature = "redis")]
#[test]
fn tutorial_is_one_chat_on_two_nodes_with_its_history() {
    let redis = servers::Server::redis();
    let node = || Server::start("tutorial", &["0", &redis.url()]);
    let (here, there) = (node(), node());
    let say = |node: &Server, text: &str| {
        let (status, id) = node.request("POST /rooms/lobby", "", &format!(r#"{{"by":"Ann","text":"{text}"}}"#));
        assert_eq!(status, 201, "{id}");
        id.trim_matches('"').to_owned()
    };
    let first = say(&here, "before anybody listens");
    let mut page = there.open("GET /rooms/lobby HTTP/1.1", "");
    page.until(|text| text.contains(&first) && text.contains(r#"{"by":"Ann","text":"before anybody listens"}"#));
    say(&here, "and now");
    page.until(|text| text.contains("and now"));
    // Who types crosses too, as soon as the nodes know of each other, and is not kept.
    let until = std::time::Instant::now() + DEADLINE;
    for round in 0.. {
        assert!(std::time::Instant::now() < until, "after {round} rounds: {}", page.text);
        assert_eq!(here.request("POST /rooms/lobby/typing", "", r#"{"by":"Ben"}"#).0, 202);
        let mark = format!("round {round}");
        say(&here, &mark);
        page.until(|text| text.contains(&mark));
        if page.text.contains("event: chat.typing") {
            break;
        }
    }
    // Two bots, one group: one answer.
    say(&there, "/ping");
    page.until(|text| text.contains("pong, Ann"));
    let last = say(&here, "the end");
    page.until(|text| text.contains(&last));
    assert_eq!(page.text.matches("pong, Ann").count(), 1, "{}", page.text);

    drop(here);
    let missed = say(&there, "while it was away");
    let here = node();
    let mut again = here.open("GET /rooms/lobby HTTP/1.1", &format!("Last-Event-ID: {last}\r\n"));
    let text = again.until(|text| text.contains(&missed));
    assert!(!text.contains("before anybody listens") && !text.contains("the end"), "from there on: {text}");
    let mut whole = here.open("GET /rooms/lobby HTTP/1.1", "");
    let text = whole.until(|text| text.contains(&missed));
    assert!(text.contains(&first) && !text.contains("chat.typing"), "{text}");
}

// ---- handlers --------------------------------------------------------------------------------------------------------

#[test]
fn handlers_let_a_post_reach_who_listens_with_a_token_and_logout_ends_them() {
    let server = Server::start("handlers", &["0"]);
    for (request, body) in [("POST /news", "psst"), ("GET /events", ""), ("POST /logout", "")] {
        let (status, refusal) = server.request(request, "Authorization: Bearer a.b.c\r\n", body);
        assert!(status == 401 && refusal.contains("unauthorized"), "{request}: {status} {refusal}");
    }
    let tokens = ["Ann", "Ben"].map(|name| server.request("POST /login", "", name).1);
    let [ann, ben] = tokens.each_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));

    let mut stream = server.open("GET /events HTTP/1.1", &ann);
    let mut socket = server.websocket("", &format!("Sec-WebSocket-Protocol: actix-pubsub.v1, bearer.{}\r\n", tokens[0]));
    socket.say(r#"{"type":"subscribe","ref":1,"topic":"secrets"}"#);
    socket.until(|text| text.contains(r#""code":"denied""#));
    socket.say(r#"{"type":"subscribe","ref":2,"topic":"news"}"#);
    socket.until(|text| text.contains(r#""type":"ok""#));
    stream.until(|text| text.contains("200 OK"));
    let mut other = server.open("GET /events HTTP/1.1", &ben);
    other.until(|text| text.contains("200 OK"));

    assert_eq!(server.request("POST /news", &ben, "the build is green").0, 202);
    for listener in [&mut stream, &mut socket, &mut other] {
        listener.until(|text| text.contains(r#"{"by":"Ben","text":"the build is green"}"#));
    }

    assert_eq!(server.request("POST /logout", &ann, "").0, 204);
    socket.until(|text| text.contains(r#""code":4500"#));
    assert!(!stream.until(|text| text.ends_with(LAST_CHUNK)).contains("after the logout"));
    for request in ["GET /events", "POST /news"] {
        let (status, refusal) = server.request(request, &ann, "after the logout");
        assert!(status == 401 && refusal.contains("logged out"), "{request}: {status} {refusal}");
    }
    assert_eq!(server.request("POST /news", &ben, "Ann has left").0, 202);
    other.until(|text| text.contains("Ann has left"));
}

#[test]
fn handlers_end_a_connection_with_its_token() {
    let server = Server::start("handlers", &["0", "4"]);
    let token = server.request("POST /login", "", "Ann").1;
    let authorization = format!("Authorization: Bearer {token}\r\n");
    let mut stream = server.open("GET /events HTTP/1.1", &authorization);
    stream.until(|text| text.contains("200 OK"));
    let mut socket = server.websocket("", &authorization);
    socket.until(|text| text.contains(r#""code":4003"#));
    stream.until(|text| text.ends_with(LAST_CHUNK));
    let (status, refusal) = server.request("GET /events", &authorization, "");
    assert!(status == 401 && refusal.contains("Expired"), "{status} {refusal}");
}

// ---- ws_loop ---------------------------------------------------------------------------------------------------------

#[test]
fn ws_loop_speaks_the_protocol_on_actix_ws() {
    let server = Server::start("ws_loop", &["0"]);
    let [mut one, mut other] = [(); 2].map(|()| server.websocket("", "Sec-WebSocket-Protocol: actix-pubsub.v1\r\n"));
    for socket in [&mut one, &mut other] {
        socket.until(|text| text.to_lowercase().contains("sec-websocket-protocol: actix-pubsub.v1"));
        socket.until(|text| text.contains(r#""type":"welcome""#));
        socket.say(r#"{"type":"subscribe","ref":1,"topic":"all"}"#);
        socket.until(|text| text.contains(r#""type":"ok","ref":1"#));
    }
    one.say(r#"{"type":"publish","ref":2,"topic":"all","event":"said","data":"hello"}"#);
    for socket in [&mut one, &mut other] {
        socket.until(|text| text.contains(r#"{"type":"event","topic":"all","event":"said","data":"hello"}"#));
    }
    // A ping is answered, and so is a close frame, with its code.
    one.frame(0x9, b"still there?");
    one.until(|text| text.contains("still there?"));
    one.frame(0x8, &1_000_u16.to_be_bytes());
    assert!(one.end().ends_with("\u{3}\u{fffd}"), "0x03e8 is 1000");

    other.say("{");
    other.until(|text| text.contains("bad_json"));
    // A frame that is not masked is no WebSocket.
    other.bytes(b"\x81\x02hi");
    assert!(other.end().contains(r#""code":1002"#));
}

// ---- the stage -------------------------------------------------------------------------------------------------------

/// An example that serves on a port of its own, as its own process.
struct Server {
    child: Child,
    address: String,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(example: &str, args: &[&str]) -> Self {
        let mut path = std::env::current_exe().expect("this test has a path");
        path.pop();
        path.pop();
        // Cargo builds the examples before it runs the tests, into a folder beside them.
        path.push("examples");
        path.push(format!("{example}{}", std::env::consts::EXE_SUFFIX));
        let mut command = Command::new(&path);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (mut stdout, mut line) = (BufReader::new(child.stdout.take().expect("it is piped")), String::new());
        stdout.read_line(&mut line).expect("it prints text");
        let address = line.trim().split_once("http://").and_then(|(_, rest)| rest.strip_suffix('/'));
        let address = address.unwrap_or_else(|| panic!("{example} says {line:?}")).to_owned();
        Self { child, address, _stdout: stdout }
    }

    /// Sends the head of a request; what is answered comes out of the connection.
    fn open(&self, line: &str, headers: &str) -> Connection {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut connection = Connection { stream, bytes: Vec::new(), text: String::new() };
        connection.bytes(format!("{line}\r\nHost: {}\r\n{headers}\r\n", self.address).as_bytes());
        connection
    }

    fn websocket(&self, query: &str, headers: &str) -> Connection {
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.open(&format!("GET /ws{query} HTTP/1.1"), &format!("{upgrade}{headers}"))
    }

    /// The status and the body of a request that is answered at once.
    fn request(&self, line: &str, headers: &str, body: &str) -> (u16, String) {
        let media = if body.starts_with('{') { "application/json" } else { "text/plain" };
        let headers = format!("Connection: close\r\nContent-Type: {media}\r\nContent-Length: {}\r\n{headers}", body.len());
        let mut connection = self.open(&format!("{line} HTTP/1.1"), &headers);
        connection.bytes(body.as_bytes());
        let answer = connection.end();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP response");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was read of a connection so far; as text, what is none is �.
struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
    text: String,
}

impl Connection {
    fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// A short frame of a WebSocket, as a client writes it; RFC 6455, section 5.2. Its mask is zero, which leaves the payload as it is.
    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        assert!(payload.len() < 126);
        let head = [0x80 | opcode, 0x80 | payload.len().to_be_bytes()[size_of::<usize>() - 1], 0, 0, 0, 0];
        self.bytes(&[&head[..], payload].concat());
    }

    fn say(&mut self, text: &str) {
        self.frame(0x1, text.as_bytes());
    }

    /// `false`: it has ended.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        let read = self.stream.read(&mut buffer).unwrap_or_else(|error| panic!("{error} after {:?}", self.text));
        self.bytes.extend_from_slice(&buffer[..read]);
        self.text = String::from_utf8_lossy(&self.bytes).into_owned();
        read > 0
    }

    fn until(&mut self, done: impl Fn(&str) -> bool) -> &str {
        while !done(&self.text) {
            assert!(self.read(), "ended after {:?}", self.text);
        }
        &self.text
    }

    fn end(&mut self) -> String {
        while self.read() {}
        self.text.clone()
    }
}
