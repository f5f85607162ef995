//! Limits: what the server accepts, checked once at the edge, and how it says no. Knows no sockets and no members.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use actix_pubsub::Topic;
use actix_web::HttpResponse;
use actix_web::ResponseError;
use actix_web::http::StatusCode;
use actix_web::http::header;
use governor::DefaultDirectRateLimiter;
use governor::NotUntil;
use governor::Quota;
use governor::RateLimiter;
use governor::clock::Clock;
use governor::clock::DefaultClock;
use governor::clock::Reference;
use serde::Serialize;

/// The limits, as `welcome` tells them to the page.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Limits {
    pub(crate) message_bytes: usize,
    pub(crate) room_bytes: usize,
    pub(crate) name_chars: usize,
    pub(crate) rooms: usize,
    pub(crate) messages_per_second: u32,
    pub(crate) messages_burst: u32,
    pub(crate) frame_bytes: usize,
    pub(crate) members_listed: usize,
}

pub(crate) const LIMITS: Limits = Limits {
    message_bytes: 2_000,
    room_bytes: 64,
    name_chars: 32,
    rooms: 16,
    messages_per_second: MESSAGES.per_second.get(),
    messages_burst: MESSAGES.burst.get(),
    frame_bytes: 65_536,
    // Some 30 KB of JSON per joiner of a crowded room; who comes and goes is told one by one.
    members_listed: 500,
};

/// The longest `cid` that is carried back to its sender, in bytes.
const CID_BYTES_MAX: usize = 64;

/// A rate as governor takes it, and as the error message tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    what: &'static str,
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

/// What one session, or one address over HTTP, may say.
pub(crate) const MESSAGES: Rate = Rate::new("messages", 5, 10);
/// Joins, leaves and renames of one session: each is told to a whole room. The burst lets a reconnect join all rooms again.
pub(crate) const CHANGES: Rate = Rate::new("joins and leaves", 5, 32);
/// Frames of one session, refused ones included: who sends more is not answered any more but cut off.
pub(crate) const FRAMES: Rate = Rate::new("frames", 50, 200);

impl Rate {
    const fn new(what: &'static str, per_second: u32, burst: u32) -> Self {
        let (Some(per_second), Some(burst)) = (NonZeroU32::new(per_second), NonZeroU32::new(burst)) else {
            panic!("a rate of 0 lets nothing through")
        };
        Self { what, per_second, burst }
    }

    pub(crate) fn quota(self) -> Quota {
        Quota::per_second(self.per_second).allow_burst(self.burst)
    }

    /// The refusal for a rate limiter's answer.
    pub(crate) fn refusal<P: Reference>(self, not_until: &NotUntil<P>, now: P) -> Refusal {
        // A wait of less than a millisecond is told as one.
        let wait = not_until.wait_time_from(now).max(Duration::from_millis(1));
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let Self { what, per_second, burst } = self;
        let message = format!("too many {what}, the limit is {per_second} per second (burst {burst}), wait {wait_ms} ms");
        Refusal { retry_after_ms: Some(wait_ms), ..Refusal::new(Code::Rate, message).limit(per_second.get() as usize) }
    }
}

/// Counts what one session does against a [`Rate`].
#[derive(Debug)]
pub(crate) struct Meter {
    rate: Rate,
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Meter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, limiter: RateLimiter::direct(rate.quota()), clock: DefaultClock::default() }
    }

    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.limiter.check().map_err(|not_until| self.rate.refusal(&not_until, self.clock.now()))
    }
}

/// A checked room name and its topic, `room:{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Room(Topic);

impl Room {
    const PREFIX: &'static str = "room:";

    pub(crate) fn parse(name: &str) -> Result<Self, Refusal> {
        let (bytes, max) = (name.len(), LIMITS.room_bytes);
        let refuse = |message| Err(Refusal::new(Code::RoomName, message).limit(max).value(bytes));
        if bytes > max {
            return refuse(format!("room name is {bytes} bytes, the limit is {max}"));
        }
        if name.trim().is_empty() {
            return refuse(format!("room name is blank, it needs 1 to {max} bytes"));
        }
        match Topic::parse(&format!("{}{name}", Self::PREFIX)) {
            Ok(topic) => Ok(Self(topic)),
            Err(error) => refuse(format!("room name is refused: {error}")),
        }
    }

    /// The room of a topic, if it is one.
    pub(crate) fn of(topic: &Topic) -> Option<Self> {
        topic.as_str().starts_with(Self::PREFIX).then(|| Self(topic.clone()))
    }

    pub(crate) fn topic(&self) -> &Topic {
        &self.0
    }

    pub(crate) fn name(&self) -> &str {
        self.0.as_str().strip_prefix(Self::PREFIX).unwrap_or_default()
    }
}

/// Checks a user name: 1 to 32 characters, none of them a control character, not blank.
pub(crate) fn user_name(name: &str) -> Result<Arc<str>, Refusal> {
    let (chars, max) = (name.chars().count(), LIMITS.name_chars);
    let refuse = |message| Err(Refusal::new(Code::UserName, message).limit(max).value(chars));
    if chars > max {
        return refuse(format!("name is {chars} characters, the limit is {max}"));
    }
    if name.trim().is_empty() {
        return refuse(format!("name is blank, it needs 1 to {max} characters"));
    }
    match name.chars().find(|c| c.is_control()) {
        Some(control) => refuse(format!("name holds the control character {control:?}")),
        None => Ok(Arc::from(name)),
    }
}

/// Checks what someone says: 1 to 2,000 bytes, not blank.
pub(crate) fn message_body(body: &str) -> Result<(), Refusal> {
    let (bytes, max) = (body.len(), LIMITS.message_bytes);
    let refuse = |message| Err(Refusal::new(Code::MessageSize, message).limit(max).value(bytes));
    if bytes > max {
        return refuse(format!("message is {bytes} bytes, the limit is {max}"));
    }
    if body.trim().is_empty() {
        return refuse(format!("message is blank, it needs 1 to {max} bytes"));
    }
    Ok(())
}

/// Checks a client id.
pub(crate) fn client_id(cid: Option<&str>) -> Result<(), Refusal> {
    match cid.map_or(0, str::len) {
        bytes if bytes > CID_BYTES_MAX => {
            let message = format!("cid is {bytes} bytes, the limit is {CID_BYTES_MAX}");
            Err(Refusal::new(Code::Cid, message).limit(CID_BYTES_MAX).value(bytes))
        }
        _ => Ok(()),
    }
}

/// Whether a browser may talk to us from the page that it names as `Origin`: the same host and port, or one that was allowed by name.
/// Programs that are no browser send no origin, and could send any.
pub(crate) fn origin(headers: &header::HeaderMap, allowed: &[String]) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = String::from_utf8_lossy(origin.as_bytes());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let same = authority.is_some_and(|authority| !host.is_empty() && authority.eq_ignore_ascii_case(host));
    if same || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(&origin)) {
        return Ok(());
    }
    let message = format!("origin {:?} is refused, this server is {host:?}", shorten(&origin));
    Err(Refusal::new(Code::Origin, message))
}

/// Why a request was refused: what the page shows, and what HTTP answers as its body.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// What kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    BadJson,
    BadRequest,
    Binary,
    Cid,
    FrameSize,
    MessageSize,
    NotFound,
    NotJoined,
    Origin,
    Protocol,
    Rate,
    RoomName,
    Rooms,
    ServerClosing,
    UserName,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), limit: None, value: None, retry_after_ms: None }
    }

    pub(crate) fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    pub(crate) fn value(mut self, value: usize) -> Self {
        self.value = Some(value);
        self
    }

    /// For text that is no request: what serde said of it.
    pub(crate) fn bad_json(error: &serde_json::Error) -> Self {
        Self::new(Code::BadJson, format!("not a request: {}", shorten(&error.to_string())))
    }

    /// For what only fails when the server goes down.
    pub(crate) fn closing() -> Self {
        Self::new(Code::ServerClosing, "the server is shutting down")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self.code {
            Code::FrameSize => StatusCode::PAYLOAD_TOO_LARGE,
            // Blank ones are not too large.
            Code::MessageSize if self.value > self.limit => StatusCode::PAYLOAD_TOO_LARGE,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Origin => StatusCode::FORBIDDEN,
            Code::Rate => StatusCode::TOO_MANY_REQUESTS,
            Code::ServerClosing => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(wait) = self.retry_after_ms {
            response.insert_header((header::RETRY_AFTER, wait.div_ceil(1_000)));
        }
        response.json(self)
    }
}

/// A stranger's text inside an error message: its first 120 characters.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
