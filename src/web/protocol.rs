//! Protocol: the WebSocket's JSON, parsed once and written once; `src/docs/websocket.md` is its text. Pure; knows no connection.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ids::EntryId;
use crate::log::Position;
use crate::topic::Topic;
use crate::web::limits::Told;
use crate::web::origin::shorten;
use crate::web::refusal::Refusal;

/// What a client chose to recognize an answer by.
pub(crate) type Ref = Option<u64>;

/// A request, checked as far as it can be without the endpoint.
#[derive(Debug, PartialEq)]
pub(crate) enum Request {
    Subscribe { topic: Topic, from: Option<Position> },
    Unsubscribe { topic: Topic },
    Publish { topic: Topic, event: String, content: Content, key: Option<ByteString>, echo: bool },
    Ping,
}

/// What is published.
#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    Json(String),
    Bytes(Bytes),
}

/// The object as it came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Said<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    r#ref: Option<u64>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow)]
    last_id: Option<Cow<'a, str>>,
    since_ms: Option<u64>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    echo: Option<bool>,
}

#[derive(Deserialize)]
struct Referred {
    r#ref: Option<u64>,
}

/// A request out of a text message, with its `ref` wherever there is one.
pub(crate) fn parse(text: &str) -> (Ref, Result<Request, Refusal>) {
    let (of, said) = said(text);
    (of, said.and_then(|said| request(&said, None)))
}

/// A request out of a binary message: an object, a line feed, and the bytes.
pub(crate) fn parse_binary(message: &Bytes) -> (Ref, Result<Request, Refusal>) {
    let Some(end) = message.iter().position(|byte| *byte == b'\n') else {
        return (
            None,
            Err(Refusal::bad("bad_request", "a binary message is an object, a line feed and bytes; it has no line feed")),
        );
    };
    let Ok(text) = std::str::from_utf8(&message[..end]) else {
        return (None, Err(Refusal::bad("bad_json", "the object of a binary message is no text")));
    };
    let (of, said) = said(text);
    (of, said.and_then(|said| request(&said, Some(message.slice(end + 1..)))))
}

fn said(text: &str) -> (Ref, Result<Said<'_>, Refusal>) {
    let proper = |of: &u64| *of <= REF_MAX;
    if text.trim_ascii_start().starts_with('[') {
        // A list of the fields would be read, too.
        return (None, Err(Refusal::bad("bad_request", "not a request: a list, where an object was expected")));
    }
    match serde_json::from_str::<Said<'_>>(text) {
        Ok(said) => (said.r#ref.filter(proper), Ok(said)),
        Err(error) => {
            let of = serde_json::from_str::<Referred>(text).ok().and_then(|referred| referred.r#ref).filter(proper);
            // A syntax error is of the text, anything else of what it says.
            let code = if error.is_data() { "bad_request" } else { "bad_json" };
            (of, Err(Refusal::bad(code, format!("not a request: {}", shorten(&error.to_string())))))
        }
    }
}

fn request(said: &Said<'_>, bytes: Option<Bytes>) -> Result<Request, Refusal> {
    if let Some(of) = said.r#ref.filter(|of| *of > REF_MAX) {
        return Err(Refusal::bad("bad_request", format!("ref is {of}, the limit is {REF_MAX}")).limit(REF_MAX, of));
    }
    let kind = &*said.r#type;
    let missing = |field: &str| Refusal::bad("bad_request", format!("{kind} needs {field}"));
    let topic = || Ok::<_, Refusal>(Topic::parse(said.topic.as_deref().ok_or_else(|| missing("topic"))?)?);
    if bytes.is_some() && kind != "publish" {
        return Err(Refusal::bad("bad_request", format!("a binary message publishes, it cannot {:?}", shorten(kind))));
    }
    match kind {
        "subscribe" => {
            let from = match (&said.last_id, said.since_ms) {
                (Some(_), Some(_)) => return Err(Refusal::bad("bad_request", "last_id and since_ms exclude each other")),
                (Some(id), None) => Some(Position::After(id.parse::<EntryId>()?)),
                (None, since) => since.map(Position::Since),
            };
            Ok(Request::Subscribe { topic: topic()?, from })
        }
        "unsubscribe" => Ok(Request::Unsubscribe { topic: topic()? }),
        "ping" => Ok(Request::Ping),
        "publish" => {
            let event = said.event.as_deref().ok_or_else(|| missing("event"))?;
            let content = match (bytes, said.data) {
                (Some(_), Some(_)) => return Err(Refusal::bad("bad_request", "a binary message has its bytes, and no data")),
                (Some(bytes), None) => Content::Bytes(bytes),
                (None, data) => Content::Json(data.ok_or_else(|| missing("data"))?.get().to_owned()),
            };
            let key = match said.key.as_deref() {
                Some(key) if key.is_empty() || key.len() > KEY_BYTES_MAX => {
                    let message = format!("key is {} bytes, it must be 1 to {KEY_BYTES_MAX}", key.len());
                    return Err(Refusal::bad("key", message).limit(KEY_BYTES_MAX as u64, key.len() as u64));
                }
                key => key.map(ByteString::from),
            };
            Ok(Request::Publish { topic: topic()?, event: event.to_owned(), content, key, echo: said.echo.unwrap_or(true) })
        }
        other => Err(Refusal::bad("bad_request", format!("there is no request of the type {:?}", shorten(other)))),
    }
}

/// What the server says, events and gaps aside.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Reply<'a> {
    Welcome {
        session: &'a str,
        ping_ms: u64,
        limits: Told,
    },
    Ok {
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Ref,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Ref,
    },
    Live {
        topic: &'a str,
    },
    Missed {
        topic: &'a str,
        events: u64,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Ref,
        #[serde(flatten)]
        refusal: &'a Refusal,
    },
    Unsubscribed {
        topic: &'a str,
        #[serde(flatten)]
        refusal: &'a Refusal,
    },
    Closing {
        code: u16,
        reason: &'a str,
        reconnect: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        after_ms: Option<u64>,
    },
}

impl Reply<'_> {
    pub(crate) fn text(&self) -> ByteString {
        // Strings and numbers only: it has a JSON form.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

/// Why a connection is closed, as close codes of RFC 6455, section 7.4: those below 4500 mean "come again".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    GoingAway,
    Protocol,
    NotText,
    TooLarge,
    NoPong,
    Expired,
    Revoked,
    Flood,
}

impl Closing {
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::NotText => 1007,
            Self::TooLarge => 1009,
            Self::NoPong => 4000,
            Self::Expired => 4003,
            Self::Revoked => 4500,
            Self::Flood => 4501,
        }
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::GoingAway => "going away",
            Self::Protocol => "protocol error",
            Self::NotText => "text is not UTF-8",
            Self::TooLarge => "too large",
            Self::NoPong => "no pong",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Flood => "too many requests",
        }
    }

    pub(crate) fn reconnect(self) -> bool {
        !matches!(self.code(), 1002 | 1003 | 1007..=1009 | 4500..)
    }
}

/// The largest `ref`: what every client's numbers can hold, JavaScript's included.
const REF_MAX: u64 = (1 << 53) - 1;
/// The longest idempotency key of a client.
const KEY_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str) -> Result<Request, (Ref, String, String)> {
        let (of, request) = parse(text);
        request.map_err(|refusal| (of, refusal.code.into_owned(), refusal.message))
    }

    fn topic() -> Topic {
        Topic::parse("room:lobby").unwrap()
    }

    #[test]
    fn requests_are_read() {
        let subscribe = |from| Request::Subscribe { topic: topic(), from };
        assert_eq!(check(r#"{"type":"subscribe","ref":1,"topic":"room:lobby"}"#), Ok(subscribe(None)));
        let after = Some(Position::After(EntryId::new(17, 3)));
        assert_eq!(check(r#"{"type":"subscribe","topic":"room:lobby","last_id":"17-3"}"#), Ok(subscribe(after)));
        let since = Some(Position::Since(17));
        assert_eq!(check(r#"{"type":"subscribe","topic":"room:\u006cobby","since_ms":17}"#), Ok(subscribe(since)));
        assert_eq!(check(r#"{"type":"unsubscribe","topic":"room:lobby"}"#), Ok(Request::Unsubscribe { topic: topic() }));
        assert_eq!(check(r#"{"type":"ping"}"#), Ok(Request::Ping));
        let content = Content::Json(r#"{"a": [1]}"#.into());
        let publish = Request::Publish { topic: topic(), event: "said".into(), content, key: Some("k".into()), echo: true };
        assert_eq!(check(r#"{"type":"publish","topic":"room:lobby","event":"said","data":{"a": [1]},"key":"k"}"#), Ok(publish));
        let (of, request) = parse_binary(&Bytes::from_static(
            b"{\"type\":\"publish\",\"ref\":9,\"topic\":\"room:lobby\",\"event\":\"blob\"}\n\0\n\xff",
        ));
        let content = Content::Bytes(Bytes::from_static(b"\0\n\xff"));
        let publish = Request::Publish { topic: topic(), event: "blob".into(), content, key: None, echo: true };
        assert_eq!((of, request), (Some(9), Ok(publish)));
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_keeps_the_ref() {
        let refused = |text: &str| check(text).unwrap_err();
        assert_eq!(refused("{").1, "bad_json");
        assert_eq!(refused("[1]").1, "bad_request");
        assert_eq!(
            refused(r#"{"type":"dance","ref":7}"#),
            (Some(7), "bad_request".into(), r#"there is no request of the type "dance""#.into())
        );
        assert_eq!(refused(r#"{"type":"subscribe","ref":7}"#), (Some(7), "bad_request".into(), "subscribe needs topic".into()));
        assert_eq!(refused(r#"{"type":"subscribe","ref":7,"topic":7}"#).0, Some(7));
        assert_eq!(refused(r#"{"type":"subscribe","topic":"a*"}"#).1, "topic");
        assert_eq!(refused(r#"{"type":"subscribe","topic":"a","last_id":"x"}"#).1, "last_id");
        assert_eq!(refused(r#"{"type":"subscribe","topic":"a","ids":1}"#).1, "bad_request");
        assert_eq!(refused(r#"{"type":"ping","ref":9007199254740992}"#).1, "bad_request");
        assert_eq!(refused(r#"{"type":"publish","topic":"a","event":"b"}"#).2, "publish needs data");
        let key =
            |bytes: usize| format!(r#"{{"type":"publish","topic":"a","event":"b","data":1,"key":"{}"}}"#, "k".repeat(bytes));
        assert_eq!(refused(&key(129)), (None, "key".into(), "key is 129 bytes, it must be 1 to 128".into()));
        assert_eq!(refused(&key(0)).1, "key");
        assert!(check(&key(128)).is_ok());
    }

    #[test]
    fn a_close_code_says_whether_to_come_again() {
        let come_again = [Closing::GoingAway, Closing::NoPong, Closing::Expired];
        let stay_away = [Closing::Protocol, Closing::NotText, Closing::TooLarge, Closing::Revoked, Closing::Flood];
        assert!(come_again.iter().all(|closing| closing.reconnect()));
        assert!(!stay_away.iter().any(|closing| closing.reconnect()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)))]
        #[test]
        fn no_text_breaks_the_parser(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_near_request_breaks_the_parser(
            kind in "subscribe|unsubscribe|publish|ping|\\PC{0,9}",
            fields in proptest::collection::vec(("topic|ref|last_id|since_ms|event|data|key|echo|type|x", "-?[0-9]{1,25}|\"\\PC{0,20}\"|true|null|\\[\\]|\\{\\}"), 0..6),
        ) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let text = format!("{{\"type\":\"{kind}\",{}}}", fields.join(","));
            if let (_, Ok(Request::Publish { content: Content::Json(json), .. })) = parse(&text) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
            }
        }

        #[test]
        fn no_bytes_break_the_binary_parser(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_binary(&Bytes::from(bytes));
        }
    }
}
