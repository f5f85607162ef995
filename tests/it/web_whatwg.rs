//! WHATWG: an event stream read by two parsers that are not ours, one of them the standard's text word for word: what they give is what was sent.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::OnceLock;

use actix_pubsub::Event;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::web::Sse;
use actix_pubsub::web::SseMessage;
use actix_web::HttpRequest;
use actix_web::web;
use eventsource_stream::Eventsource;
use futures::StreamExt;
use futures::executor::block_on;
use proptest::prelude::*;
use serde::Deserialize;
use serde::Serialize;

use crate::web_support::DEADLINE;
use crate::web_support::http;
use crate::web_support::serve;

/// What an `EventSource` gives to its page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Got {
    event: String,
    data: String,
    id: String,
}

fn got(event: &str, data: &str, id: &str) -> Got {
    Got { event: event.into(), data: data.into(), id: id.into() }
}

/// HTML, section 9.2.6, "Interpreting an event stream": its steps in its words. With the events, the last event id and the reconnection time.
fn parse(bytes: &[u8]) -> (Vec<Got>, String, Option<u64>) {
    let text = String::from_utf8_lossy(bytes);
    // "One leading U+FEFF BYTE ORDER MARK character must be ignored if any are present."
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut events, mut retry, mut last) = (Vec::new(), None, String::new());
    let (mut data, mut kind, mut id) = (String::new(), String::new(), String::new());
    // "Lines must be separated by either a CRLF character pair, a single LF character, or a single CR character." What is not ended is no line.
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    let Some((lines, _)) = lines.rsplit_once('\n') else { return (events, last, retry) };
    for line in lines.split('\n') {
        if line.is_empty() {
            last.clone_from(&id);
            if data.is_empty() {
                kind.clear();
                continue;
            }
            data.pop();
            let event = if kind.is_empty() { "message".into() } else { std::mem::take(&mut kind) };
            events.push(Got { event, data: std::mem::take(&mut data), id: last.clone() });
            continue;
        }
        let (field, value) = match line.split_once(':') {
            Some(("", _)) => continue,
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match field {
            "event" => value.clone_into(&mut kind),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => retry = value.parse().ok().or(retry),
            _ => {}
        }
    }
    (events, last, retry)
}

/// The same by a library.
fn parse_by_library(bytes: &[u8]) -> Vec<Got> {
    // Cut anywhere; it looks at an event from its start with each chunk.
    let chunks =
        futures::stream::iter(bytes.chunks(7.max(bytes.len() / 50)).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())));
    block_on(chunks.eventsource().map(|event| event.unwrap()).map(|event| got(&event.event, &event.data, &event.id)).collect())
}

#[test]
fn the_parser_of_this_test_is_that_of_the_standard() {
    // The examples of section 9.2.5 and 9.2.6.
    let check = |text: &str| parse(text.as_bytes()).0;
    assert_eq!(check("data: YHOO\ndata: +2\ndata: 10\n\n"), [got("message", "YHOO\n+2\n10", "")]);
    let text = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    assert_eq!(
        check(text),
        [got("message", "first event", "1"), got("message", "second event", ""), got("message", " third event", "")]
    );
    assert_eq!(check("data\n\ndata\ndata\n\ndata:"), [got("message", "", ""), got("message", "\n", "")]);
    assert_eq!(check("data:test\n\ndata: test\n\n"), [got("message", "test", ""), got("message", "test", "")]);
    assert_eq!(
        check("\u{feff}data: x\r\rdata: y\r\n\r\nid: a\0b\ndata: z\n\n"),
        [got("message", "x", ""), got("message", "y", ""), got("message", "z", "")]
    );
}

#[derive(Debug, Serialize, Deserialize)]
struct Text(String);

impl Payload for Text {
    const NAME: &'static str = "text";
}

/// An event of its own name and data, as the program's own form makes it.
#[derive(Debug, Serialize, Deserialize)]
struct Formed {
    event: Option<String>,
    data: String,
}

impl Payload for Formed {
    const NAME: &'static str = "formed";
}

fn form(formed: &Event<Formed>) -> SseMessage {
    let message = SseMessage::new(formed.data.as_str());
    match &formed.event {
        Some(event) => message.event(event.as_str()),
        None => message,
    }
}

/// A name that would be lines of its own.
#[derive(Debug, Serialize, Deserialize)]
struct Evil(u64);

impl Payload for Evil {
    const NAME: &'static str = "evil\ndata: x\n\n";
}

/// One server for all of them, with its pub/sub.
fn server() -> (&'static PubSub, SocketAddr) {
    static SERVER: OnceLock<(PubSub, SocketAddr)> = OnceLock::new();
    let (pubsub, addr) = SERVER.get_or_init(|| {
        let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
        let events = async |request: HttpRequest, pubsub: web::Data<PubSub>| {
            let topics: Vec<_> = serde_urlencoded(request.query_string());
            let stream = Sse::subscribe(&pubsub).topics(topics).message::<Text>().message_as::<Formed>(form).message::<Evil>();
            stream.durable().respond(&request).await
        };
        let addr = serve(&pubsub, move |config| {
            config.route("/events", web::get().to(events));
        });
        (pubsub, addr)
    });
    (pubsub, *addr)
}

/// The topics of a query.
fn serde_urlencoded(query: &str) -> Vec<String> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query).unwrap().into_inner();
    pairs.into_iter().filter(|(name, _)| name == "topic").map(|(_, topic)| topic).collect()
}

fn encode(text: &str) -> String {
    text.bytes()
        .flat_map(|byte| [Some('%'), char::from_digit(u32::from(byte >> 4), 16), char::from_digit(u32::from(byte & 15), 16)])
        .flatten()
        .collect()
}

/// The body of a stream until it has an event with this data.
fn read(topics: &[&str], last_id: &str, until: &str) -> Vec<u8> {
    let (_, addr) = server();
    let query: String = topics.iter().flat_map(|topic| ["topic=".into(), encode(topic), "&".into()]).collect();
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(socket, "GET /events?{query}last_event_id={last_id} HTTP/1.1\r\nHost: {addr}\r\n\r\n").unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 8_192]);
    loop {
        if let Some(at) = all.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = unchunked(&all[at + 4..]);
            if body.ends_with(b"\n\n") && String::from_utf8_lossy(&body).contains(until) {
                return body;
            }
        }
        let read = socket.read(&mut buffer).unwrap();
        assert!(read > 0, "it ended after {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..read]);
    }
}

/// RFC 9112, section 7.1: the whole chunks of a body.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(line + 2..line + 2 + length) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(line + 4 + length..).unwrap_or_default();
    }
    body
}

/// Appends, reads all of it again by both parsers, and gives their events.
fn check(topic: &str, append: impl FnOnce(&PubSub)) -> Vec<Got> {
    let (pubsub, _) = server();
    let before = block_on(pubsub.head(topic)).unwrap();
    append(pubsub);
    let end = format!("end {before} {}", topic.len());
    block_on(pubsub.append(topic, &Text(end.clone()))).unwrap();
    let body = read(&[topic], &before.to_string(), &end);
    let (mut events, last, retry) = parse(&body);
    assert_eq!((parse_by_library(&body), retry), (events.clone(), Some(2_000)), "{:?}", String::from_utf8_lossy(&body));
    assert_eq!(events.pop().unwrap(), got("text", &format!("{end:?}"), &last));
    events
}

/// What a page gets of text: each line break is a line feed, as in section 9.2.6.
fn lines(data: &str) -> String {
    data.replace("\r\n", "\n").replace('\r', "\n")
}

fn formed(topic: &str, event: Option<&str>, data: &str) -> Vec<Got> {
    let message = Formed { event: event.map(Into::into), data: data.into() };
    let mut id = String::new();
    let mut events = check(topic, |pubsub| id = block_on(pubsub.append(topic, &message)).unwrap().to_string());
    for event in &mut events {
        assert_eq!(event.id, id);
        event.id.clear();
    }
    events
}

#[test]
fn data_of_any_lines_comes_as_these_lines() {
    for data in [
        "a",
        " a",
        "a\nb",
        "a\n",
        "\na",
        "\n",
        "\n\n",
        "a\rb",
        "a\r\nb",
        "a\r\n\r\nb\r",
        "\u{feff}",
        "\0",
        ":",
        "a\0b",
        "\u{2028}\u{85}\u{b}\u{c}",
    ] {
        assert_eq!(formed("lines", None, data), [got("message", &lines(data), "")], "{data:?}");
    }
    let huge = "x".repeat(300_000) + "\n: no comment\nid: 7\nretry: 1\n\n" + &"y\n".repeat(10_000);
    assert_eq!(formed("lines", Some("huge"), &huge), [got("huge", &huge, "")]);
}

#[test]
fn a_name_is_one_line_or_a_gap_is_told_instead() {
    for name in ["a", "a b", " a", "a:b", "data", "a\0b", "\u{feff}", "ä"] {
        assert_eq!(formed("names", Some(name), "x"), [got(name, "x", "")], "{name:?}");
    }
    for name in ["a\nb", "a\rb", "a\r\ndata: y", "\n", "\r"] {
        let events = formed("names", Some(name), "x");
        assert!(events.len() == 1 && events[0].event == "gap" && events[0].data.contains("undecodable"), "{name:?}: {events:?}");
    }
    let events = check("names", |pubsub| _ = block_on(pubsub.append("names", &Evil(1))).unwrap());
    assert!(events.len() == 1 && events[0].event == "gap", "{events:?}");
}

#[test]
fn topics_with_strange_names_have_an_id_that_can_be_sent_back() {
    let topics = ["a:b", "a b", "id: 1", "ä", "a.b", "m.", "1-1", "\u{feff}x", "\u{2028}", "'\"\\", "%0A"];
    let (pubsub, _) = server();
    let send = |n: usize| {
        for topic in topics {
            block_on(pubsub.append(topic, &Text(format!("{topic} {n}")))).unwrap();
        }
    };
    let start: String = {
        let body = read(&topics, "", "id: ");
        parse(&body).1
    };
    send(1);
    let expected = |n: usize| topics.map(|topic| serde_json::to_string(&format!("{topic} {n}")).unwrap());
    for _ in 0..2 {
        let body = read(&topics, &start, "%0A 1");
        let (events, last, _) = parse(&body);
        assert_eq!(parse_by_library(&body), events);
        let mut data: Vec<_> = events.iter().map(|event| event.data.clone()).collect();
        data.sort();
        let mut all = expected(1).to_vec();
        all.sort();
        if data.len() < all.len() {
            // Not all of it came with the last.
            continue;
        }
        assert_eq!(data, all);
        assert!(last.is_ascii() && last.starts_with("m."), "{last}");
        // From where each event says it is, the rest comes, and nothing twice.
        let half = &events[events.len() / 2];
        let rest = parse(&read(&topics, &half.id, events.last().unwrap().data.trim_matches('"'))).0;
        assert!(rest.iter().all(|event| !events[..=events.len() / 2].iter().any(|had| had.data == event.data)), "{rest:?}");
    }
}

#[test]
fn a_position_that_is_none_is_refused_and_never_told_again() {
    let (_, addr) = server();
    for text in ["%0d%0aX: y", "%00", "1-1%0a", "%ff%fe", "m.........", "-", "0", "18446744073709551616-1", "1-1-1", " ", "%20"] {
        let (status, body) = http(addr, "GET", &format!("/events?topic=a&last_event_id={text}").replace(' ', "%20")).unwrap();
        assert!(status == 400 && body.contains("\"code\""), "{text}: {status} {body}");
    }
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() }
}

/// Text of what means something in a stream, and of anything.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "\\PC{0,10}",
        proptest::sample::select(vec![
            "\n", "\r", "\r\n", "\n\n", "data: ", "id: 1", "id", "event: x", "retry: 1", ":", " ", "\0", "\u{feff}"
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_a_page_gets_is_what_was_broadcast_and_nothing_else(data in text(), name in proptest::option::of(text())) {
        let events = formed("random", name.as_deref(), &data);
        let kind = name.as_deref().filter(|name| !name.is_empty()).unwrap_or("message");
        if kind.contains(['\n', '\r']) {
            prop_assert!(events.len() == 1 && events[0].event == "gap", "{:?}", events);
        } else {
            prop_assert_eq!(events, [got(kind, &lines(&data), "")]);
        }
    }

    #[test]
    fn json_comes_as_the_value_that_it_was(data in text()) {
        let events = check("json", |pubsub| _ = block_on(pubsub.append("json", &Text(data.clone()))).unwrap());
        prop_assert_eq!(events.len(), 1);
        prop_assert_eq!(serde_json::from_str::<String>(&events[0].data).unwrap(), data);
    }
}
