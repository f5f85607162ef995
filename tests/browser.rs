//! Browser: the chat example as people meet it, in real Chromium pages against the real server. Knows its protocol, not its code.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use actix_web::rt::System;
use fantoccini::Client;
use fantoccini::Locator;
use futures::future::join_all;
use serde_json::Value;
use serde_json::json;

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

#[allow(dead_code, reason = "not every test needs all of it")]
mod common;

// ---- pages -----------------------------------------------------------------------------------------------------------

#[test]
fn everyone_in_a_room_sees_each_message_exactly_once() {
    check(["Ann", "Ben"], async |server, [ann, ben]| {
        ann.say("hello from Ann").await;
        ben.wait_for(".msg:not(.sending) .text", &["hello from Ann"]).await;
        ben.say("hello from Ben").await;
        ann.wait_for(".msg:not(.sending) .text", &["hello from Ann", "hello from Ben"]).await;

        let (status, _) = server.http("POST", "/rooms/lobby", JSON, r#"{"user":"Job","text":"build is green"}"#);
        assert_eq!(status, 201);
        assert_eq!(server.post("lobby?user=cron", "plain text").0, 201);

        // The last one is the barrier: what a page shows before it is all that it got before it.
        ann.say("good night").await;
        let all = ["hello from Ann", "hello from Ben", "build is green", "plain text", "good night"];
        for page in [&ann, &ben] {
            page.wait_for(".msg .text", &all).await;
            page.wait_for(".msg.sending, .msg.failed", &[]).await;
        }
        ann.wait_for(".msg.own .text", &["hello from Ann", "good night"]).await;
        ben.wait_for(".msg.own .text", &["hello from Ben"]).await;
    });
}

#[test]
fn a_room_that_is_not_shown_counts_what_is_unread() {
    check(["Ann", "Ben"], async |_, [ann, ben]| {
        ann.join("garden").await;
        ben.join("garden").await;
        for page in [&ann, &ben] {
            page.wait_for("#people-list bdi", &["Ann", "Ben"]).await;
        }
        ann.click("#joined li:first-child button").await;
        ann.wait_for("#title bdi", &["lobby"]).await;
        ben.say("the roses are out").await;
        ann.wait_for("#joined .badge:not([hidden])", &["1"]).await;
        ann.click("#joined li:last-child button").await;
        ann.wait_for("#joined .badge:not([hidden])", &[]).await;
        ann.wait_for(".log:not([hidden]) .msg .text", &["the roses are out"]).await;

        ben.click("#leave").await;
        ann.wait_for("#people-list bdi", &["Ann"]).await;
        ben.wait_for("#title bdi", &["lobby"]).await;
        ben.wait_for("#people-list bdi", &["Ann", "Ben"]).await;
    });
}

#[test]
fn a_connection_that_breaks_leaves_its_rooms() {
    check(["Ann", "Ben"], async |server, [ann, ben]| {
        // Closing with unread bytes is a reset, closing without any is an end of file: neither is a close frame.
        for reset in [true, false] {
            let mut ghost = server.socket("Ghost");
            ghost.join("lobby");
            for page in [&ann, &ben] {
                page.wait_for("#people-list bdi", &["Ann", "Ben", "Ghost"]).await;
            }
            assert_eq!(server.http("GET", "/rooms", "", ""), (200, json!([{ "room": "lobby", "people": 3 }])));
            if reset {
                ann.say("are you there?").await;
                ben.wait_for(".msg .text", &["are you there?"]).await;
                ghost.wait_until_readable();
            }
            drop(ghost);
            for page in [&ann, &ben] {
                page.wait_for("#people-list bdi", &["Ann", "Ben"]).await;
                page.wait_for(".notice.left", if reset { &["Ghost left"] } else { &["Ghost left", "Ghost left"] }).await;
            }
            assert_eq!(server.http("GET", "/rooms", "", ""), (200, json!([{ "room": "lobby", "people": 2 }])));
        }
    });
}

#[test]
fn a_refusal_and_markup_are_shown_as_text() {
    check(["<b>Ann</b>", "Ben"], async |_, [ann, ben]| {
        ann.say(&"x".repeat(2_001)).await;
        let told = "text is 2001 bytes, the limit is 2000";
        ann.wait_for("#alert-text", &[told]).await;
        ann.wait_for(".msg.failed .state", &[&format!("Not sent: {told} Edit")]).await;

        let markup = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
        ann.say(markup).await;
        for page in [&ann, &ben] {
            page.wait_for(".msg:not(.failed) .text", &[markup]).await;
            page.wait_for(".msg:not(.failed) .meta bdi", &["<b>Ann</b>"]).await;
            page.wait_for(".log img, .log script, .log b, #people b", &[]).await;
        }
        assert_eq!(ann.client.title().await.unwrap(), "#lobby · chat");
    });
}

#[test]
fn a_page_that_is_loaded_again_shows_what_was_said_before() {
    check(["Ann", "Ben"], async |server, [ann, ben]| {
        ann.say("first").await;
        ben.wait_for(".msg .text", &["first"]).await;
        ben.say("second").await;
        ann.wait_for(".msg .text", &["first", "second"]).await;
        assert_eq!(server.post("lobby?user=Job", "third").0, 201);

        ann.client.refresh().await.unwrap();
        ann.wait_for(".msg .text", &["first", "second", "third"]).await;
        // One's own are known again, nothing is unread, and what comes goes on below.
        ann.wait_for(".msg.own .text", &["first"]).await;
        ann.wait_for("#joined .badge:not([hidden])", &[]).await;
        ben.say("fourth").await;
        ann.wait_for(".msg .text", &["first", "second", "third", "fourth"]).await;
        ann.wait_for("#people-list bdi", &["Ann", "Ben"]).await;
    });
}

#[test]
fn another_name_is_another_connection_that_goes_on_where_the_first_stood() {
    check(["Ann", "Ben"], async |_, [ann, ben]| {
        ann.say("I am Ann").await;
        ann.click("#rename").await;
        let field = ann.client.find(Locator::Css("#hello-name")).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys("Zoe").await.unwrap();
        ann.click("#hello button").await;
        for page in [&ann, &ben] {
            page.wait_for("#people-list bdi", &["Ben", "Zoe"]).await;
        }
        ann.say("now I am Zoe").await;
        for page in [&ann, &ben] {
            page.wait_for(".msg .text", &["I am Ann", "now I am Zoe"]).await;
            page.wait_for(".msg .meta bdi", &["Ann", "Zoe"]).await;
        }
    });
}

/// The story: a chat that kept nothing lost what was said while its server was down, and what was under way when it went.
#[test]
fn a_killed_server_that_starts_again_has_lost_nothing_and_the_pages_fill_the_gap_once() {
    check(["Ann", "Ben"], async |server, [ann, ben]| {
        ann.say("before").await;
        ben.wait_for(".msg .text", &["before"]).await;
        let typed: Vec<String> = (0..8).map(|number| format!("typed {number}")).collect();
        // Some of them are under way when the server goes: in the log or not, answered or not.
        ann.say_at_once(&typed).await;
        let server = server.kill();
        for page in [&ann, &ben] {
            page.wait_for("#status[data-state=online]", &[]).await;
        }
        ben.say("into the dark").await;
        ben.wait_for(".msg.sending .text", &["into the dark"]).await;

        let server = server.start();
        let posted: Vec<String> = (0..5).map(|number| format!("by curl {number}")).collect();
        for text in &posted {
            assert_eq!(server.post("lobby?user=Job", text).0, 201);
        }
        for page in [&ann, &ben] {
            page.wait_for("#status", &["online"]).await;
            page.wait_for("#people-list bdi", &["Ann", "Ben"]).await;
            page.wait_for(".msg.sending, .msg.failed", &[]).await;
        }
        ann.say("after").await;
        ann.wait_for(".msg:last-child:not(.sending) .text", &["after"]).await;
        let said = ann.texts(".msg .text").await;
        let dark = ["into the dark".to_owned()];
        for (wanted, of) in [(&typed[..], "typed"), (&posted, "by curl"), (&dark, "into")] {
            let found: Vec<&String> = said.iter().filter(|text| text.starts_with(of)).collect();
            assert_eq!(found, wanted.iter().collect::<Vec<_>>(), "{said:?}");
        }
        assert_eq!((said.len(), &*said[0], &*said[said.len() - 1]), (16, "before", "after"), "{said:?}");
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        ben.wait_for(".msg .text", &said).await;

        // Killed once more, with the pages open, and then loaded anew: it is in the log as it was shown.
        let _server = server.kill().start();
        ben.client.refresh().await.unwrap();
        for page in [&ann, &ben] {
            page.wait_for("#people-list bdi", &["Ann", "Ben"]).await;
            page.wait_for(".msg .text", &said).await;
        }
    });
}

// ---- strangers -------------------------------------------------------------------------------------------------------

#[test]
fn a_bad_request_is_answered_and_the_connection_stays() {
    let server = Server::fresh();
    for name in ["", "%20", "a%00b", "a*", &"x".repeat(33)] {
        let status = server.upgrade(&format!("/ws?name={name}"), None).1;
        assert!([400, 413].contains(&status), "{name:?}: {status}");
    }
    let mut socket = server.socket("Eve");
    let long = "x".repeat(65);
    let said = |data: &str| format!(r#"{{"type":"publish","topic":"room:lobby","event":"chat.said","data":{data}}}"#);
    let bad = [
        ("{", "bad_json"),
        ("", "bad_json"),
        (r#"{"type":"dance"}"#, "bad_request"),
        (r#"{"type":"subscribe"}"#, "bad_request"),
        (r#"{"type":"subscribe","topic":"room:"}"#, "room"),
        (r#"{"type":"subscribe","topic":"room: "}"#, "room"),
        (r#"{"type":"subscribe","topic":"room:a*"}"#, "topic"),
        (r#"{"type":"subscribe","topic":"room:a\u0000b"}"#, "topic"),
        (&format!(r#"{{"type":"subscribe","topic":"room:{long}"}}"#), "room"),
        (r#"{"type":"subscribe","topic":"lobby"}"#, "denied"),
        (r#"{"type":"subscribe","topic":"$sessions"}"#, "denied"),
        (r#"{"type":"unsubscribe","topic":"room:lobby"}"#, "not_subscribed"),
        (r#"{"type":"publish","topic":"room:lobby","event":"chat.presence","data":{}}"#, "event"),
        (r#"{"type":"publish","topic":"orders","event":"chat.said","data":{"user":"Eve","text":"hi"}}"#, "denied"),
        (&said("{}"), "data"),
        (&said(r#"{"user":"Eve","text":" "}"#), "data"),
        (&said(r#"{"user":"","text":"hi"}"#), "data"),
        (&said(&format!(r#"{{"user":"{}","text":"hi"}}"#, &long[..33])), "data"),
    ];
    for (request, code) in bad {
        socket.text(request);
        assert_eq!(socket.read_error()["code"], code, "{request}");
    }
    socket.frame(BINARY, b"\0\0");
    assert_eq!(socket.read_error()["code"], "binary");

    // A message in three frames, with a ping between them, is one message.
    socket.raw_frame(TEXT, br#"{"type":"subscribe","ref":7,"to"#);
    socket.frame(PING, b"in between");
    socket.raw_frame(CONTINUATION, br#"pic":"room"#);
    socket.frame(CONTINUATION, br#":lobby"}"#);
    assert_eq!(socket.read_until(|event| event["ref"] == 7)["topic"], "room:lobby");
    assert_eq!(socket.read_until(|event| event["event"] == "chat.presence")["data"]["user"], "Eve");

    socket.say("lobby", &"x".repeat(2_001));
    assert_eq!(socket.read_error()["message"], "data is no chat.said: text is 2001 bytes, the limit is 2000");
    for _ in 0..2 {
        socket.say("lobby", &"x".repeat(2_000));
        socket.read_until(|event| event["event"] == "chat.said");
    }
}

#[test]
fn rates_and_rooms_are_limited_and_a_flood_ends_the_connection() {
    let server = Server::fresh();
    let mut socket = server.socket("Eve");
    for room in 0..16 {
        socket.join(&format!("room {room}"));
    }
    socket.text(r#"{"type":"subscribe","topic":"room:one more"}"#);
    let error = socket.read_error();
    assert_eq!((&error["code"], &error["limit"], &error["value"]), (&json!("topics"), &json!(16), &json!(17)));
    assert_eq!((server.rooms(), server.people()), (16, 16));

    for _ in 0..12 {
        socket.say("room 0", "hurry");
    }
    let error = socket.read_error();
    assert_eq!((&error["code"], &error["limit"]), (&json!("rate"), &json!(5)));

    for number in 0..1_000 {
        socket.try_text(&format!(r#"{{"type":"subscribe","topic":"room:quick {number}"}}"#));
    }
    assert_eq!(socket.read_close(), Some(4_501));
    eventually("only the room with messages is left, and nobody is in it", || (server.rooms(), server.people()) == (1, 0));
}

#[test]
fn a_thousand_sockets_that_come_and_go_leave_nobody_behind() {
    let server = Server::fresh();
    let mut watcher = server.socket("Watcher");
    watcher.join("lobby");
    for batch in 0..10 {
        let sockets: Vec<Socket> = (0..100).map(|_| server.socket(&format!("guest{batch}"))).collect();
        for mut socket in sockets {
            socket.text(r#"{"type":"subscribe","topic":"room:lobby"}"#);
        }
    }
    eventually("one is left", || server.http("GET", "/rooms", "", "").1 == json!([{ "room": "lobby", "people": 1 }]));
    let people = server.http("GET", "/rooms/lobby", "", "").1;
    assert_eq!((&people["total"], &people["people"][0]["user"]), (&json!(1), &json!("Watcher")));
}

#[test]
fn garbage_on_the_wire_ends_that_connection_only() {
    let server = Server::fresh();
    let mut witness = server.socket("Witness");
    witness.join("lobby");
    let stranger = || server.socket("Stranger");

    let mut garbage = stranger();
    garbage.bytes(&[0xf3; 64]);
    assert_eq!(garbage.read_error()["code"], "bad_request");
    assert_eq!(garbage.read_close(), Some(1_002));

    // Refused by what it declares: actix-http alone would wait for it, and buffer it.
    let mut huge = stranger();
    huge.bytes(&[LAST | TEXT, MASKED | LENGTH_U64, 0, 0, 1, 0, 0, 0, 0, 0]);
    let error = huge.read_error();
    assert_eq!((&error["code"], &error["value"]), (&json!("too_large"), &json!(1_u64 << 40)));
    assert_eq!(huge.read_close(), Some(1_009));

    let mut endless = stranger();
    endless.try_text(&"x".repeat(10_000_000));
    endless.read_close();

    let mut text = stranger();
    text.frame(TEXT, b"\xff");
    assert_eq!(text.read_close(), Some(1_007));

    let mut unmasked = stranger();
    unmasked.bytes(b"\x81\x02hi");
    assert_eq!(unmasked.read_close(), Some(1_002));

    let mut pieces = stranger();
    pieces.raw_frame(TEXT, &[b'x'; 10_000]);
    pieces.raw_frame(CONTINUATION, &[b'x'; 10_000]);
    let error = pieces.read_error();
    assert_eq!((&error["code"], &error["value"]), (&json!("too_large"), &json!(20_000)));
    assert_eq!(pieces.read_close(), Some(1_009));

    let mut stray = stranger();
    stray.frame(CONTINUATION, b"of what?");
    assert_eq!(stray.read_close(), Some(1_002));

    let mut utf8 = stranger();
    utf8.raw_frame(TEXT, b"\xff");
    utf8.frame(CONTINUATION, b"\xfe");
    assert_eq!(utf8.read_close(), Some(1_007));

    witness.say("lobby", "still here");
    assert_eq!(witness.read_until(|event| event["event"] == "chat.said")["data"]["text"], "still here");
}

#[test]
fn a_page_of_another_origin_may_neither_connect_nor_post() {
    let server = Server::fresh();
    for origin in ["http://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:1", "ftp://127.0.0.1"] {
        assert_eq!(server.upgrade("/ws?name=Eve", Some(origin)).1, 403, "{origin:?}");
        let headers = format!("Origin: {origin}\r\n");
        assert_eq!(server.request("POST", "/rooms/lobby", &headers, "hello").0, 403, "{origin:?}");
    }
    assert_eq!(server.upgrade("/ws?name=Eve", Some(&format!("http://127.0.0.1:{}", server.port))).1, 101);
    assert_eq!(server.upgrade("/ws?name=Eve", None).1, 101);
}

#[test]
fn http_has_the_limits_of_the_socket() {
    let server = Server::fresh();
    let checks = [
        ("/rooms/lobby", FORM, "x".repeat(2_001), 413, json!("text")),
        ("/rooms/lobby", FORM, "x".repeat(16_385), 413, Value::Null),
        ("/rooms/lobby", FORM, String::new(), 400, json!("text")),
        (&format!("/rooms/{}", "r".repeat(65)), FORM, "hello".into(), 413, json!("room")),
        ("/rooms/a%2a", FORM, "hello".into(), 400, json!("topic")),
        (&format!("/rooms/lobby?user={}", "u".repeat(33)), FORM, "hello".into(), 413, json!("name")),
        ("/rooms/lobby", JSON, "hello".into(), 400, json!("data")),
        ("/nowhere", FORM, "hello".into(), 404, Value::Null),
    ];
    for (path, content_type, body, status, code) in checks {
        let (answered, answer) = server.http("POST", path, content_type, &body);
        assert_eq!((answered, &answer["code"]), (status, &code), "{path}: {answer}");
    }
    let refused = (0..12).map(|_| server.post("lobby", "hurry")).find(|(status, _)| *status == 429);
    assert_eq!(refused.expect("one of 12 in a row is refused").1["code"], "rate");
    assert_eq!(server.http("GET", "/stats", "", "").1["topics"], 0);
}

#[cfg(unix)]
#[test]
fn sigterm_says_goodbye_and_ends_the_server() {
    let mut server = Server::fresh();
    let mut socket = server.socket("Eve");
    socket.join("lobby");
    signal("-TERM", server.child.0.id());
    assert_eq!(socket.read_close(), Some(1_001));
    drop(socket);
    eventually("the server has ended", || server.child.0.try_wait().unwrap().is_some());
    assert!(server.child.0.wait().unwrap().success());
}

// ---- the stage -------------------------------------------------------------------------------------------------------

/// Starts a server and one page per name in the room `lobby`, waits until they see each other, and runs a test on them.
fn check<const N: usize>(names: [&str; N], test: impl AsyncFnOnce(Server, [Page; N])) {
    let _alone = alone();
    let server = Server::fresh();
    let driver = Driver::start();
    System::new().block_on(async {
        let pages = join_all(names.iter().map(|name| Page::open(&driver, server.port, name))).await;
        for page in &pages {
            page.wait_for("#people-list bdi", &names).await;
            page.wait_for("#status", &["online"]).await;
        }
        let clients: Vec<Client> = pages.iter().map(|page| page.client.clone()).collect();
        let pages: [Page; N] = pages.try_into().unwrap();
        test(server, pages).await;
        for client in clients {
            client.close().await.unwrap();
        }
    });
}

impl Page {
    async fn say_at_once(&self, texts: &[String]) {
        let script = "for (const text of arguments[0]) { document.querySelector('#text').value = text; document.querySelector('#say').requestSubmit(); }";
        self.client.execute(script, vec![json!(texts)]).await.unwrap();
    }

    async fn join(&self, room: &str) {
        self.client.find(Locator::Css("#join-room")).await.unwrap().send_keys(room).await.unwrap();
        self.click("#join button").await;
        self.wait_for("#title bdi", &[room]).await;
    }
}

/// The chat example as its own process, with a log in a file of its own.
struct Server {
    child: Process,
    port: u16,
    store: Store,
    _stdout: BufReader<ChildStdout>,
}

/// A file that is gone after the test.
struct Store(PathBuf);

impl Drop for Store {
    fn drop(&mut self) {
        // It was never made, if the server did not start.
        let _ = fs::remove_file(&self.0);
    }
}

/// What is left of a server that was killed: its port, and its log.
struct Killed {
    port: u16,
    store: Store,
}

impl Killed {
    fn start(self) -> Server {
        Server::start(self.port, self.store)
    }
}

impl Server {
    /// With an empty log, on any port.
    fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("chat-{}-{}.redb", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let store = Store(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        // One that a killed test of the same number left.
        let _ = fs::remove_file(&store.0);
        Self::start(0, store)
    }

    fn start(port: u16, store: Store) -> Self {
        let path = example("chat");
        let mut command = Command::new(&path);
        command.args(["--port", &port.to_string(), "--store"]).arg(&store.0).stdout(Stdio::piped());
        let mut child = Process(command.spawn().unwrap_or_else(|error| {
            panic!("{} does not start: {error}. Build it first: cargo build --example chat", path.display())
        }));
        let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
        let address = read_line_with(&mut stdout, "chat: http://127.0.0.1:").expect("the server says its address");
        let port = address.trim_end_matches('/').parse().expect("an address ends with a port");
        Self { child, port, store, _stdout: stdout }
    }

    /// As `kill -9` does: nothing is said, nothing is closed.
    fn kill(self) -> Killed {
        Killed { port: self.port, store: self.store }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn http(&self, method: &str, path: &str, content_type: &str, body: &str) -> (u16, Value) {
        self.request(method, path, &format!("Content-Type: {content_type}\r\n"), body)
    }

    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let (mut stream, port, length) = (self.connect(), self.port, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
        // A refused body need not be taken to its end.
        let _ = stream.write_all(format!("{head}Content-Length: {length}\r\n{headers}\r\n{body}").as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP response");
        (status(head), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn post(&self, room: &str, text: &str) -> (u16, Value) {
        self.http("POST", &format!("/rooms/{room}"), FORM, text)
    }

    fn rooms(&self) -> usize {
        self.http("GET", "/rooms", "", "").1.as_array().expect("a list").len()
    }

    fn people(&self) -> u64 {
        let rooms = self.http("GET", "/rooms", "", "").1;
        rooms.as_array().expect("a list").iter().map(|room| room["people"].as_u64().expect("a number")).sum()
    }

    /// A WebSocket handshake; the stream and the status.
    fn upgrade(&self, path: &str, origin: Option<&str>) -> (BufReader<TcpStream>, u16) {
        let (mut stream, port) = (self.connect(), self.port);
        let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{origin}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let (mut stream, mut head) = (BufReader::new(stream), String::new());
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).unwrap() > 0, "the server hung up after {head:?}");
        }
        let status = status(&head);
        (stream, status)
    }

    fn socket(&self, name: &str) -> Socket {
        let (stream, status) = self.upgrade(&format!("/ws?name={name}"), None);
        assert_eq!(status, 101);
        Socket { stream }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
/// Set in the first byte of a frame: it is the last of its message.
const LAST: u8 = 0x80;
/// Set in the second byte of a frame, with these lengths or with one of up to 125.
const MASKED: u8 = 0x80;
const LENGTH_U16: u8 = 126;
const LENGTH_U64: u8 = 127;

/// A WebSocket without manners: it writes any frame, and its end is the end of the TCP connection.
struct Socket {
    stream: BufReader<TcpStream>,
}

impl Socket {
    /// Subscribes to a room, and waits until everyone was told.
    fn join(&mut self, room: &str) {
        let topic = format!("room:{room}");
        self.text(&json!({ "type": "subscribe", "ref": 1, "topic": topic }).to_string());
        self.read_until(|event| event["event"] == "chat.presence" && event["topic"] == topic);
    }

    fn say(&mut self, room: &str, text: &str) {
        let data = json!({ "user": "Eve", "text": text });
        self.text(&json!({ "type": "publish", "topic": format!("room:{room}"), "event": "chat.said", "data": data }).to_string());
    }

    fn text(&mut self, text: &str) {
        self.frame(TEXT, text.as_bytes());
    }

    /// For a connection that may end in between.
    fn try_text(&mut self, text: &str) {
        let _ = self.stream.get_mut().write_all(&frame(LAST | TEXT, text.as_bytes()));
    }

    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        self.bytes(&frame(LAST | opcode, payload));
    }

    /// A frame that is not the last of its message.
    fn raw_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.bytes(&frame(opcode, payload));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Waits until bytes have come that nobody has read.
    fn wait_until_readable(&mut self) {
        assert!(self.stream.get_mut().peek(&mut [0]).unwrap() > 0);
    }

    fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let mut extended = [0; 8];
        let length = match head[1] {
            LENGTH_U16 => {
                self.stream.read_exact(&mut extended[6..])?;
                u64::from_be_bytes(extended)
            }
            LENGTH_U64 => {
                self.stream.read_exact(&mut extended)?;
                u64::from_be_bytes(extended)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload)?;
        Ok((head[0] & 0x0f, payload))
    }

    #[track_caller]
    fn read_until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let (opcode, payload) = self.read_frame().expect("the connection holds");
            assert_ne!(opcode, CLOSE, "closed: {}", String::from_utf8_lossy(&payload));
            if opcode == TEXT {
                let event = serde_json::from_slice(&payload).unwrap();
                if wanted(&event) {
                    return event;
                }
            }
        }
    }

    #[track_caller]
    fn read_error(&mut self) -> Value {
        self.read_until(|event| event["type"] == "error")
    }

    /// Reads to the end of the connection; the code of the close frame, if there was one.
    fn read_close(&mut self) -> Option<u16> {
        let mut code = None;
        loop {
            match self.read_frame() {
                Ok((CLOSE, payload)) => code = payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the connection is still open after {DEADLINE:?}")
                }
                Err(_) => return code,
            }
        }
    }
}

/// A frame as a client writes it; RFC 6455, section 5.2. Its mask is zero, which leaves the payload as it is.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![head];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(MASKED | short.to_be_bytes()[1]),
        Ok(medium) => {
            frame.push(MASKED | LENGTH_U16);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        Err(_) => {
            frame.push(MASKED | LENGTH_U64);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
}
