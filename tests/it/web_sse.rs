//! SSE: what a client of an event stream is promised, read byte by byte over real sockets.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use actix_pubsub::Event;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::Retention;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::Position;
use actix_pubsub::web::Authorize;
use actix_pubsub::web::Decision;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Identity;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::Sse;
use actix_pubsub::web::SseMessage;
use actix_pubsub::web::bearer_token;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::web;
use serde::Deserialize;
use serde::Serialize;

#[derive(Debug, Serialize, Deserialize)]
struct Price {
    cents: u64,
}

impl Payload for Price {
    const NAME: &'static str = "price";
}

#[derive(Debug, Serialize, Deserialize)]
struct Note(String);

impl Payload for Note {
    const NAME: &'static str = "note";
}

/// What an endpoint of a test is made of.
type Make = fn(&PubSub, &HttpRequest) -> Sse;

fn price(cents: u64) -> Price {
    Price { cents }
}

/// Serves `/events` on a thread of its own, until the test ends.
fn serve(pubsub: &PubSub, make: Make) -> SocketAddr {
    let pubsub = pubsub.clone();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let answer = move |request: HttpRequest, pubsub: web::Data<PubSub>| async move {
                make(&pubsub, &request).respond(&request).await
            };
            let edge = Edge::of(&pubsub);
            let app = move || App::new().app_data(web::Data::new(pubsub.clone())).route("/events", web::get().to(answer));
            let server = actix_web::HttpServer::new(app)
                .workers(1)
                .on_connect(edge.on_connect())
                .h1_allow_half_closed(false)
                .disable_signals();
            let server = server.bind(("127.0.0.1", 0)).unwrap();
            tell.send(server.addrs()[0]).unwrap();
            server.run().await.unwrap();
        });
    });
    told.recv().unwrap()
}

/// One client: what it read so far, without the chunks' lengths.
struct Stream {
    socket: TcpStream,
    raw: Vec<u8>,
}

impl Stream {
    fn get(addr: SocketAddr, path: &str, headers: &str) -> Self {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {addr}\r\n{headers}\r\n").unwrap();
        Self { socket, raw: Vec::new() }
    }

    /// The head, and the body so far.
    fn parts(&self) -> Option<(String, String, bool)> {
        let end = self.raw.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(self.raw[..end].to_vec()).unwrap();
        let (mut rest, mut body, mut ended) = (&self.raw[end + 4..], Vec::new(), false);
        if !head.to_lowercase().contains("transfer-encoding: chunked") {
            return Some((head, String::from_utf8(rest.to_vec()).unwrap(), true));
        }
        while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
            let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            let Some(chunk) = rest.get(line + 2..line + 2 + length) else { break };
            ended = length == 0;
            body.extend_from_slice(chunk);
            rest = rest.get(line + 4 + length..).unwrap_or_default();
        }
        Some((head, String::from_utf8(body).unwrap(), ended))
    }

    /// Reads until the body satisfies `done`.
    fn until(&mut self, done: impl Fn(&str, bool) -> bool) -> (String, String) {
        let mut buffer = [0; 4_096];
        loop {
            if let Some((head, body, ended)) = self.parts() {
                if done(&body, ended) {
                    return (head, body);
                }
                assert!(!ended, "ended with {body:?}");
            }
            let read = self.socket.read(&mut buffer).unwrap_or_else(|error| panic!("{error} after {:?}", self.parts()));
            assert!(read > 0, "closed after {:?}", self.parts());
            self.raw.extend_from_slice(&buffer[..read]);
        }
    }

    fn until_has(&mut self, text: &str) -> String {
        self.until(|body, _| body.contains(text)).1
    }

    fn read_all(&mut self) -> (String, String) {
        self.until(|_, ended| ended)
    }
}

/// The status, and the JSON of a refusal.
fn refused(addr: SocketAddr, path: &str, headers: &str) -> (u16, serde_json::Value) {
    let mut stream = Stream::get(addr, path, &format!("{headers}Connection: close\r\n"));
    let mut all = Vec::new();
    stream.socket.read_to_end(&mut all).unwrap();
    stream.raw = all;
    let (head, body, _) = stream.parts().unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(&body).unwrap_or_default())
}

fn with_log() -> PubSub {
    PubSub::builder().log(MemoryStore::new()).build().unwrap()
}

fn append(pubsub: &PubSub, topic: &str, cents: u64) -> String {
    futures::executor::block_on(pubsub.append(topic, &price(cents))).unwrap().to_string()
}

/// Waits for the subscriptions of a stream.
fn wait_for(what: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn a_broadcast_is_an_event_with_the_name_of_its_type() {
    let pubsub = PubSub::new();
    let addr = serve(&pubsub, |pubsub, _| Sse::subscribe(pubsub).topic("a").topic("b").message::<Price>().message::<Note>());
    let mut stream = Stream::get(addr, "/events", "");
    let (head, body) = stream.until(|body, _| !body.is_empty());
    assert_eq!(body, "retry: 2000\n\n");
    let head = head.to_lowercase();
    for line in [
        "200 ok",
        "content-type: text/event-stream",
        "cache-control: no-cache, no-transform",
        "x-accel-buffering: no",
        "content-encoding: identity",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    pubsub.broadcast("a", price(1)).unwrap();
    pubsub.broadcast("b", Note("two\nlines\r\r\nid: 7".into())).unwrap();
    pubsub.broadcast("c", price(9)).unwrap();
    pubsub.broadcast("a", price(3)).unwrap();
    let body = stream.until_has("\"cents\":3}\n\n");
    let expected = "event: price\ndata: {\"cents\":1}\n\nevent: note\ndata: \"two\\nlines\\r\\r\\nid: 7\"\n\nevent: price\ndata: {\"cents\":3}\n\n";
    assert_eq!(body, format!("retry: 2000\n\n{expected}"));
}

#[test]
fn an_own_form_stands_for_the_default_and_cannot_break_out_of_its_event() {
    fn form(note: &Event<Note>) -> SseMessage {
        let name = if note.0.len() > 30 { "a\nb" } else { "n" };
        SseMessage::new(note.0.as_str()).event(name)
    }
    let pubsub = PubSub::new();
    let addr =
        serve(&pubsub, |pubsub, _| Sse::subscribe(pubsub).topic("a").message_as::<Note>(form).message::<Price>().unnamed());
    let mut stream = Stream::get(addr, "/events", "");
    stream.until_has("retry");
    pubsub.broadcast("a", Note("one\rid: 7\r\ntwo\n\nthree".into())).unwrap();
    // Its name has a line break: it is left out.
    pubsub.broadcast("a", Note("x".repeat(31))).unwrap();
    pubsub.broadcast("a", price(1)).unwrap();
    let body = stream.until_has("cents");
    let own = "event: n\ndata: one\ndata: id: 7\ndata: two\ndata: \ndata: three\n\n";
    assert_eq!(body.strip_prefix("retry: 2000\n\n").unwrap(), format!("{own}data: {{\"cents\":1}}\n\n"));
}

#[test]
fn a_durable_stream_goes_on_after_the_last_event_id() {
    let pubsub = with_log();
    let ids: Vec<_> = (1..=3).map(|cents| append(&pubsub, "a", cents)).collect();
    let addr = serve(&pubsub, |pubsub, _| Sse::subscribe(pubsub).topic("a").message::<Price>().durable());
    // The header wins over the query.
    let mut stream = Stream::get(addr, "/events?last_event_id=0-0", &format!("Last-Event-ID: {}\r\n", ids[0]));
    let body = stream.until_has("\"cents\":3}\n\n");
    let event = |cents: usize| format!("id: {}\nevent: price\ndata: {{\"cents\":{cents}}}\n\n", ids[cents - 1]);
    assert_eq!(body, format!("retry: 2000\nid: {}\n\n{}{}", ids[0], event(2), event(3)));
    let fourth = append(&pubsub, "a", 4);
    let body = stream.until_has("\"cents\":4}");
    assert!(body.contains(&format!("id: {fourth}\nevent: price")), "{body}");
    let mut whole = Stream::get(addr, "/events?last_event_id=0-0", "");
    assert_eq!(whole.until_has("\"cents\":4}").matches("event: price").count(), 4);
    // What is only broadcast is not of the log.
    pubsub.broadcast("a", price(5)).unwrap();
    append(&pubsub, "a", 6);
    assert!(!stream.until_has("\"cents\":6}").contains("\"cents\":5}"));
}

#[test]
fn the_position_is_told_at_the_open_so_that_a_cut_before_the_first_event_loses_nothing() {
    let pubsub = with_log();
    let last = append(&pubsub, "a", 1);
    let addr = serve(&pubsub, |pubsub, _| Sse::subscribe(pubsub).topic("a").message::<Price>().durable());
    let mut stream = Stream::get(addr, "/events", "");
    assert_eq!(stream.until_has("\n\n"), format!("retry: 2000\nid: {last}\n\n"));
    drop(stream);
    append(&pubsub, "a", 2);
    let mut again = Stream::get(addr, "/events", &format!("Last-Event-ID: {last}\r\n"));
    assert!(again.until_has("cents").contains("\"cents\":2}"));
}

#[test]
fn several_topics_have_one_cursor() {
    let pubsub = with_log();
    let addr = serve(&pubsub, |pubsub, _| Sse::subscribe(pubsub).topics(["a", "b"]).message::<Price>().durable());
    let mut stream = Stream::get(addr, "/events", "");
    stream.until_has("\n\n");
    append(&pubsub, "a", 1);
    append(&pubsub, "b", 2);
    let body = stream.until(|body, _| body.matches("cents").count() == 2).1;
    let cursor = body.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned();
    assert!(cursor.starts_with("m.") && cursor.len() < 60, "{cursor}");
    drop(stream);
    append(&pubsub, "b", 3);
    append(&pubsub, "a", 4);
    let mut again = Stream::get(addr, "/events", &format!("Last-Event-ID: {cursor}\r\n"));
    let body = again.until(|body, _| body.matches("cents").count() == 2).1;
    assert!(body.contains("\"cents\":3}") && body.contains("\"cents\":4}"), "{body}");
}

#[test]
fn types_of_one_topic_come_in_the_logs_order_and_others_are_left_out() {
    #[derive(Serialize, Deserialize)]
    struct Secret;
    impl Payload for Secret {
        const NAME: &'static str = "secret";
    }
    let pubsub = with_log();
    futures::executor::block_on(async {
        for cents in 0..50 {
            pubsub.append("a", &price(cents)).await.unwrap();
            pubsub.append("a", &Secret).await.unwrap();
            pubsub.append("a", &Note(cents.to_string())).await.unwrap();
        }
    });
    let make: Make =
        |pubsub, _| Sse::subscribe(pubsub).topic("a").message::<Price>().message::<Note>().durable().from(Position::Start);
    let addr = serve(&pubsub, make);
    let body = Stream::get(addr, "/events", "").until_has("\"49\"\n\n");
    let data: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect();
    let expected: Vec<_> = (0..50).flat_map(|n| [format!("{{\"cents\":{n}}}"), format!("\"{n}\"")]).collect();
    assert_eq!(data, expected);
}

#[test]
fn a_gap_is_an_event_before_anything_else() {
    let pubsub = PubSub::builder().log(MemoryStore::new()).retain("a", Retention::entries(2)).build().unwrap();
    let ids: Vec<_> = (1..=5).map(|cents| append(&pubsub, "a", cents)).collect();
    let addr = serve(&pubsub, |pubsub, _| Sse::subscribe(pubsub).topic("a").message::<Price>().durable());
    let mut stream = Stream::get(addr, "/events", &format!("Last-Event-ID: {}\r\n", ids[0]));
    let body = stream.until_has("\"cents\":5}");
    let gap = body.find("event: gap\n").unwrap_or_else(|| panic!("{body}"));
    assert!(gap < body.find("event: price").unwrap(), "{body}");
    let data = body[gap..].lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let told: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(told, serde_json::json!({"topic":"a","after":ids[0],"first":ids[3],"cause":"trimmed"}));
    // Who came back after the gap was told is not told again.
    let cursor = body[..gap].lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap();
    let mut again = Stream::get(addr, "/events", &format!("Last-Event-ID: {cursor}\r\n"));
    assert!(!again.until_has("\"cents\":5}").contains("event: gap"));
}

#[test]
fn garbage_as_a_position_is_refused_once_and_an_empty_one_is_none() {
    let pubsub = with_log();
    let addr = serve(&pubsub, |pubsub, _| Sse::subscribe(pubsub).topic("a").message::<Price>().durable());
    for text in ["x", "1-", "-1", "m.", "99999999999999999999-0", "1-1%0Adata:%20x", "%00"] {
        let (status, body) = refused(addr, &format!("/events?last_event_id={text}"), "");
        assert_eq!((status, &body["code"]), (400, &"last_id".into()), "{text}: {body}");
        if !text.contains('%') {
            let (status, _) = refused(addr, "/events", &format!("Last-Event-ID: {text}\r\n"));
            assert_eq!(status, 400, "{text}");
        }
    }
    let (status, body) = refused(addr, &format!("/events?last_event_id={}", "1".repeat(9_000)), "");
    assert_eq!((status, &body["limit"], &body["value"]), (400, &8_192.into(), &9_000.into()));
    // An EventSource whose id was reset.
    Stream::get(addr, "/events", "Last-Event-ID: \r\n").until_has("retry");
}

#[test]
fn a_topic_that_is_none_or_one_too_many_is_refused_with_the_limit() {
    let make: Make = |pubsub, request| {
        let topics: Vec<_> = request.query_string().split(',').map(str::to_owned).collect();
        Sse::subscribe(pubsub).topics(topics).message::<Price>()
    };
    let addr = serve(&PubSub::new(), make);
    let (status, body) = refused(addr, &format!("/events?{}", "x".repeat(256)), "");
    assert_eq!((status, &body["code"], &body["limit"], &body["value"]), (400, &"topic".into(), &255.into(), &256.into()));
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let (status, body) = refused(addr, &format!("/events?{}", many(129)), "");
    assert_eq!((status, &body["code"], &body["limit"], &body["value"]), (400, &"topics".into(), &128.into(), &129.into()));
    Stream::get(addr, &format!("/events?{}", many(128)), "").until_has("retry");
}

#[test]
fn an_idle_stream_has_comments_and_ends_after_its_lifetime() {
    let make: Make = |pubsub, _| {
        let short = Duration::from_millis(30);
        Sse::subscribe(pubsub).topic("a").message::<Price>().keep_alive(short).lifetime(short * 10).retry(short)
    };
    let pubsub = PubSub::new();
    let addr = serve(&pubsub, make);
    let (_, body) = Stream::get(addr, "/events", "").read_all();
    let comments = body.strip_prefix("retry: 30\n\n").unwrap();
    assert!(comments.matches(": keep-alive\n\n").count() >= 2 && comments.replace(": keep-alive\n\n", "").is_empty(), "{body}");
    wait_for(|| pubsub.subscribers("a") == 0);
}

#[test]
fn a_client_that_leaves_is_unsubscribed() {
    let pubsub = PubSub::new();
    let addr = serve(&pubsub, |pubsub, _| Sse::subscribe(pubsub).topic("a").message::<Price>());
    let mut stream = Stream::get(addr, "/events", "");
    stream.until_has("retry");
    assert_eq!((pubsub.subscribers("a"), Edge::of(&pubsub).sessions()), (1, 1));
    drop(stream);
    wait_for(|| pubsub.subscribers("a") == 0 && Edge::of(&pubsub).sessions() == 0);
}

/// Knows the token of each: its name. `late` comes with one second left.
struct Names;

impl Authorize for Names {
    fn connect<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a, Identity> {
        Box::pin(async move {
            let token = bearer_token(request).ok_or_else(|| Refusal::unauthorized("a token is needed"))?;
            let identity = Identity::parse(&token)?;
            let soon = std::time::SystemTime::now() + Duration::from_millis(200);
            Ok(if &*token == "late" { identity.expires_at(soon) } else { identity })
        })
    }

    fn subscribe<'a>(&'a self, who: &'a Identity, topic: &'a actix_pubsub::Topic) -> Decision<'a, ()> {
        let may = topic.as_str() == "a" && who.name() != Some("eve");
        Box::pin(async move { if may { Ok(()) } else { Err(Refusal::denied("not for you")) } })
    }
}

fn guarded() -> (PubSub, SocketAddr) {
    let pubsub = with_log();
    Edge::builder().authorize(Names).attach(&pubsub).unwrap();
    let make: Make = |pubsub, request| {
        let topic = if request.query_string().is_empty() { "a" } else { "b" };
        Sse::subscribe(pubsub).topic(topic).message::<Price>().durable()
    };
    let addr = serve(&pubsub, make);
    (pubsub, addr)
}

#[test]
fn who_may_not_is_refused_with_and_without_a_position() {
    let (pubsub, addr) = guarded();
    append(&pubsub, "a", 1);
    assert_eq!(refused(addr, "/events", "").0, 401);
    for position in ["", "Last-Event-ID: 0-0\r\n"] {
        assert_eq!(refused(addr, "/events", &format!("Authorization: Bearer eve\r\n{position}")).0, 403);
        assert_eq!(refused(addr, "/events?b", &format!("Authorization: Bearer ann\r\n{position}")).0, 403);
    }
    Stream::get(addr, "/events", "Authorization: Bearer ann\r\nLast-Event-ID: 0-0\r\n").until_has("cents");
}

#[test]
fn a_stream_ends_when_its_identity_is_disconnected_or_its_time_is_over() {
    let (pubsub, addr) = guarded();
    let mut ann = Stream::get(addr, "/events", "Authorization: Bearer ann\r\n");
    let mut ben = Stream::get(addr, "/events", "Authorization: Bearer ben\r\n");
    ann.until_has("retry");
    ben.until_has("retry");
    assert_eq!(pubsub.disconnect("ann").unwrap().ports, 1);
    assert_eq!(pubsub.disconnect("nobody").unwrap().ports, 0);
    ann.read_all();
    append(&pubsub, "a", 7);
    ben.until_has("\"cents\":7}");
    Stream::get(addr, "/events", "Authorization: Bearer late\r\n").read_all();
}

#[test]
fn a_drain_ends_streams_cleanly_and_new_ones_at_once() {
    let pubsub = PubSub::new();
    let addr = serve(&pubsub, |pubsub, _| Sse::subscribe(pubsub).topic("a").message::<Price>());
    let mut streams: Vec<_> = (0..20).map(|_| Stream::get(addr, "/events", "")).collect();
    for stream in &mut streams {
        stream.until_has("retry");
    }
    let edge = Edge::of(&pubsub);
    actix_web::rt::System::new().block_on(edge.drain(Duration::from_millis(300)));
    assert_eq!(edge.sessions(), 0);
    for stream in &mut streams {
        stream.read_all();
    }
    // Not an error: a browser would not come back from one.
    let (head, body) = Stream::get(addr, "/events", "").read_all();
    assert!(head.contains("200 OK") && body == "retry: 2000\n\n", "{head} {body}");
}

#[test]
fn an_edge_is_attached_once_and_before_the_first_connection() {
    let pubsub = PubSub::new();
    Edge::of(&pubsub);
    assert_eq!(Edge::builder().attach(&pubsub).unwrap_err().to_string(), "the pub/sub has an edge already");
    let mut limits = actix_pubsub::web::Limits::default();
    limits.topics = 0;
    let error = Edge::builder().limits(limits).attach(&PubSub::new()).unwrap_err();
    assert_eq!(error.to_string(), "the edge's limits are refused: limit topics is 0, it must be 1 to 100000");
}

#[test]
fn a_client_that_is_to_stop_is_told_so_by_204() {
    // HTML, section 9.2.3: any status but 200 fails the connection for good; 204 is the one that is no error.
    assert_eq!(Sse::stop().status().as_u16(), 204);
}
