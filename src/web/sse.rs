//! SSE: server-sent events of topics, as an actix-web response. Knows the format by its encoder, and no WebSocket.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::body::BodySize;
use actix_web::body::MessageBody;
use actix_web::http::header;
use actix_web::http::header::ContentEncoding;
use actix_web::web;
use bytes::Bytes;
use bytes::BytesMut;
use bytestring::ByteString;
use futures_core::Stream;
use tokio::time::Instant;

use crate::encodings::Form;
use crate::event::Event;
use crate::event::Head;
use crate::event::Payload;
use crate::event::Wire;
use crate::ids::EntryId;
use crate::local::inbox::Inbox;
use crate::local::options::SubscribeOptions;
use crate::log::Gap;
use crate::log::GapCause;
use crate::log::Position;
use crate::observe;
use crate::pubsub::PubSub;
use crate::stream::error::FollowError;
use crate::stream::follower::undecodable;
use crate::topic::ToTopic;
use crate::topic::Topic;
use crate::topic::TopicError;
use crate::web::auth::Identity;
use crate::web::auth::Told;
use crate::web::cursor::Cursor;
use crate::web::cursor::CursorError;
use crate::web::drain::Present;
use crate::web::drain::later;
use crate::web::drain::some_of;
use crate::web::edge::Policy;
use crate::web::follow::Follows;
use crate::web::follow::Step;
use crate::web::messages;
use crate::web::messages::Item;
use crate::web::messages::Messages;
use crate::web::refusal::Refusal;
use crate::web::timer::Timer;
use crate::web::wire;
use crate::web::wire::GapShown;

/// Server-sent events of topics: what a handler answers an `EventSource` with
/// ([HTML, section 9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html)).
///
/// Each message is an event whose name is its [`Payload::NAME`] and whose data is its JSON, encoded once for all clients:
/// `source.addEventListener("market.price", …)`. A [durable](Self::durable) stream has an `id` on each event, and a browser that reconnects goes on after
/// the last it got, by itself: nothing is missing, nothing comes twice, or an event called `gap` says first that history is not there any more.
///
/// ```
/// use actix_pubsub::web::{Refusal, Sse};
/// use actix_pubsub::{Payload, PubSub};
/// use actix_web::{HttpRequest, HttpResponse, web};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Price { cents: u64 }
/// impl Payload for Price { const NAME: &'static str = "market.price"; }
///
/// async fn prices(request: HttpRequest, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
///     Sse::subscribe(&pubsub).topic("prices").message::<Price>().durable().respond(&request).await
/// }
/// ```
///
/// Events named by us: `gap` (`{"topic":…,"after":…,"first":…,"cause":…}`) and `missed` (`{"topic":…,"events":…}`: so many broadcasts found no room while the
/// client was slow). The stream ends after its [lifetime](Self::lifetime), at a [drain](crate::web::Edge::drain), when the
/// identity's time is over and when it is [disconnected](PubSub::disconnect).
///
/// # Behind proxies
/// The answer says `Cache-Control: no-cache, no-transform`, `X-Accel-Buffering: no` (nginx) and `Content-Encoding: identity`, so that nobody buffers or compresses it;
/// a comment every 15 s keeps idle connections open. For pages of other origins set up actix-cors.
#[must_use = "it is answered with by `respond`"]
pub struct Sse {
    pubsub: PubSub,
    topics: Vec<Topic>,
    refused: Option<TopicError>,
    messages: Messages,
    maps: Vec<Map>,
    named: bool,
    durable: bool,
    from: Position,
    keep_alive: Duration,
    retry: Duration,
    lifetime: Duration,
}

/// What one event is to the clients, where the default is not wanted; see [`Sse::message_as`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseMessage {
    event: Option<ByteString>,
    data: ByteString,
}

impl SseMessage {
    /// An event without a name, `onmessage` of an `EventSource`. Data of several lines stays so; a carriage return becomes a line feed.
    pub fn new(data: impl Into<ByteString>) -> Self {
        Self { event: None, data: data.into() }
    }

    /// Its name: one line, else the event is left out and told as a `gap`.
    pub fn event(mut self, name: impl Into<ByteString>) -> Self {
        self.event = Some(name.into());
        self
    }
}

/// Another form for the messages of a type.
#[derive(Clone)]
struct Map {
    name: &'static str,
    form: Form,
    apply: Arc<Apply>,
}

type Apply = dyn Fn(&Arc<dyn Wire>) -> Option<SseMessage>;

impl Sse {
    /// Between two comments on an idle stream, unless told otherwise: proxies close what is silent for 30 or 60 s.
    pub const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(15);
    /// What a client is told to wait before it reconnects, unless told otherwise.
    pub const RETRY_DEFAULT: Duration = Duration::from_secs(2);
    /// How long a stream lives, unless told otherwise.
    pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(3_600);

    /// A stream of nothing yet.
    pub fn subscribe(pubsub: &PubSub) -> Self {
        Self {
            pubsub: pubsub.clone(),
            topics: Vec::new(),
            refused: None,
            messages: Messages::default(),
            maps: Vec::new(),
            named: true,
            durable: false,
            from: Position::End,
            keep_alive: Self::KEEP_ALIVE_DEFAULT,
            retry: Self::RETRY_DEFAULT,
            lifetime: Self::LIFETIME_DEFAULT,
        }
    }

    /// Adds a topic. A name that is none is an error of [`respond`](Self::respond), so it may come from the request.
    pub fn topic(mut self, topic: impl ToTopic) -> Self {
        match topic.to_topic() {
            Ok(topic) if self.topics.contains(&topic) => {}
            Ok(topic) => self.topics.push(topic.into_owned()),
            Err(error) => self.refused = self.refused.or(Some(error)),
        }
        self
    }

    /// Adds topics.
    pub fn topics<T: ToTopic>(self, topics: impl IntoIterator<Item = T>) -> Self {
        topics.into_iter().fold(self, Self::topic)
    }

    /// Clients get messages of this type. May be called for several types.
    ///
    /// # Panics
    /// If another type here has the same name.
    pub fn message<M: Payload>(mut self) -> Self {
        self.messages.of::<M>().received = true;
        self
    }

    /// As [`message`](Self::message), in a form of your own. It is made once for all clients, so it is a function and no closure that captures.
    ///
    /// # Panics
    /// If another type here has the same name.
    pub fn message_as<M: Payload>(mut self, map: fn(&Event<M>) -> SseMessage) -> Self {
        self = self.message::<M>();
        let apply = move |event: &Arc<dyn Wire>| {
            let head = match Arc::clone(event).erase().downcast::<Head<M>>() {
                Ok(head) => head,
                // Out of the log it comes as it was written.
                Err(_) => {
                    let message = serde_json::from_str(&event.json()?).ok()?;
                    Head::logged_sole(event.topic().clone(), event.node(), event.id().unwrap_or_default(), message)
                }
            };
            Some(map(&Event::new(head, 0)))
        };
        self.maps.retain(|known| known.name != M::NAME);
        self.maps.push(Map { name: M::NAME, form: map as Form, apply: Arc::new(apply) });
        self
    }

    /// As [`message`](Self::message), for a type that is broadcast even where the stream is [durable](Self::durable): who is typing, who is there.
    ///
    /// # Panics
    /// If another type here has the same name.
    pub fn ephemeral<M: Payload>(mut self) -> Self {
        let of = self.messages.of::<M>();
        (of.received, of.ephemeral) = (true, true);
        self
    }

    /// Events have no name: they go to `onmessage` of an `EventSource`.
    pub fn unnamed(mut self) -> Self {
        self.named = false;
        self
    }

    /// The topics are those of the log: what is appended, with its history, and not what is broadcast. The pub/sub needs a log.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Where a client begins that has no position yet; [`Position::End`] unless told otherwise: with what comes. For durable streams.
    pub fn from(mut self, from: Position) -> Self {
        self.from = from;
        self
    }

    /// Between two comments on an idle stream.
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = interval.max(Duration::from_millis(10));
        self
    }

    /// What a client is told to wait before it reconnects.
    pub fn retry(mut self, wait: Duration) -> Self {
        self.retry = wait;
        self
    }

    /// How long a stream lives, or up to a tenth longer, so that not all end at once. Then it ends, and a browser reconnects by itself: so clients spread over new
    /// servers, and none is there whose right to be is of last week. What is broadcast meanwhile, they miss; what is in the log, they do not.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Answers a client that is to stop: status 204, after which an `EventSource` does not reconnect.
    pub fn stop() -> HttpResponse {
        HttpResponse::NoContent().insert_header((header::CACHE_CONTROL, "no-store")).finish()
    }

    /// Asks whether the client may, finds where it stands, and begins the stream.
    ///
    /// The position is the `Last-Event-ID` header, which browsers send when they reconnect, else the query's `last_event_id`, for a first request. While the server
    /// drains, the answer is a stream that ends at once, because a browser would not come back from an error.
    ///
    /// # Errors
    /// 400 for a topic or a position that is none, 401 and 403 as [`Authorize`](crate::web::Authorize) says, 503 if a client without a position comes while the log is
    /// away. One that has a position is never answered with 5xx because of the log: it waits.
    pub async fn respond(mut self, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
        let policy = Policy::of(&self.pubsub);
        if let Some(error) = self.refused.take() {
            return Err(error.into());
        }
        let max = policy.limits.topics;
        if self.topics.len() > max {
            return Err(Refusal::topics(self.topics.len(), max));
        }
        if self.durable && self.pubsub.log().is_none() {
            return Err(FollowError::NoLog.into());
        }
        let mut cursor = Cursor::new(&self.topics);
        let given = last_event_id(request)?;
        if let Some(text) = given.as_ref().filter(|_| self.durable) {
            cursor.read(text)?;
        }
        let identity = policy.connect(request).await?;
        // Before the questions, which may take long: who is disconnected meanwhile, and a server that ends, are heard of.
        let inbox = messages::inbox(&self.pubsub, &identity, &self.messages)?;
        for topic in &self.topics {
            policy.subscribe(&identity, topic).await?;
        }
        if policy.sessions.draining().is_some() {
            return Ok(answer(Bytes::from(retry(self.retry))));
        }
        let body = self.open(&policy, &identity, inbox, cursor, given.is_some()).await?;
        Ok(answer(body))
    }

    async fn open(
        self,
        policy: &Policy,
        identity: &Identity,
        mut inbox: Inbox<Item>,
        mut cursor: Cursor,
        again: bool,
    ) -> Result<Body, Refusal> {
        let options = SubscribeOptions::new().capacity(policy.limits.waiting_events);
        for topic in &self.topics {
            for message in self.messages.broadcast(self.durable) {
                (message.subscribe)(&mut inbox, topic, &options)?;
            }
        }
        let mut follows = Follows::default();
        if self.durable {
            for (index, topic) in self.topics.iter().enumerate() {
                let from = match (cursor.get(index), self.from) {
                    (Some(id), _) => Position::After(id),
                    // Made a position that the client can come back with, even if it is cut before the first event.
                    (None, Position::End) => match self.pubsub.head(topic).await {
                        Ok(head) => {
                            cursor.set(index, head);
                            Position::After(head)
                        }
                        Err(error) if again => {
                            observe::request_unavailable(&error);
                            Position::End
                        }
                        Err(error) => return Err(error.into()),
                    },
                    (None, from) => from,
                };
                follows.add(&self.pubsub, index, topic, from)?;
            }
        }
        let now = Instant::now();
        let mut opening = retry(self.retry);
        if self.durable && (0..self.topics.len()).any(|index| cursor.get(index).is_some()) {
            // An id alone sets the client's last event id and fires nothing.
            opening.truncate(opening.len() - 1);
            opening.push_str(&id_line(&cursor));
            opening.push('\n');
        }
        let mut ends = later(now, self.lifetime.saturating_add(some_of(self.lifetime / 10)));
        if let Some(expiry) = identity.expiry() {
            ends = ends.min(later(now, expiry.duration_since(SystemTime::now()).unwrap_or_default()));
        }
        Ok(Body {
            ready: VecDeque::from([Bytes::from(opening)]),
            inbox,
            follows,
            cursor,
            untold: false,
            topics: self.topics,
            messages: self.messages,
            maps: self.maps,
            named: self.named,
            keep_alive: self.keep_alive,
            idle: Timer::new(later(now, self.keep_alive)),
            sent: now,
            ends: Timer::new(ends),
            ended: false,
            _present: policy.enter(),
        })
    }
}

impl fmt::Debug for Sse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sse").field("topics", &self.topics).field("durable", &self.durable).finish_non_exhaustive()
    }
}

impl From<CursorError> for Refusal {
    fn from(error: CursorError) -> Self {
        let refusal = Self::bad("last_id", error.to_string());
        match error {
            CursorError::TooLong { bytes, max } => refusal.limit(max as u64, bytes as u64),
            CursorError::Malformed { .. } | CursorError::Id(_) => refusal,
        }
    }
}

/// What the client says it got last. `None`: nothing; an empty id is what one that was reset says.
fn last_event_id(request: &HttpRequest) -> Result<Option<String>, Refusal> {
    let garbled = |_| Refusal::bad("last_id", "last event id is no text");
    let header = request.headers().get("last-event-id").map(|value| String::from_utf8(value.as_bytes().to_vec()));
    let given = match header {
        Some(value) => Some(value.map_err(garbled)?),
        None => {
            let query = web::Query::<Asked>::from_query(request.query_string());
            query.map_err(|error| Refusal::bad("bad_request", error.to_string()))?.into_inner().last_event_id
        }
    };
    Ok(given.filter(|text| !text.is_empty()))
}

#[derive(serde::Deserialize)]
struct Asked {
    last_event_id: Option<String>,
}

fn answer<B: MessageBody + 'static>(body: B) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(ContentEncoding::Identity)
        .insert_header((header::CACHE_CONTROL, "no-cache, no-transform"))
        .insert_header(("x-accel-buffering", "no"))
        .body(body)
}

fn retry(wait: Duration) -> String {
    encode(russe::Event::Retry(wait)).unwrap_or_default()
}

fn id_line(cursor: &Cursor) -> String {
    // A cursor is ASCII without line breaks.
    format!("id: {cursor}\n")
}

fn encode(event: russe::Event) -> Option<String> {
    event.into_bytestring().ok().map(|text| text.to_string())
}

/// One event in its default form, without an id. `None`: it has none.
fn named(event: &Arc<dyn Wire>, name: &str) -> Option<Bytes> {
    block(Some(ByteString::from(name)), event.json()?)
}

fn unnamed(event: &Arc<dyn Wire>, _: &str) -> Option<Bytes> {
    block(None, event.json()?)
}

fn block(event: Option<ByteString>, data: ByteString) -> Option<Bytes> {
    let message = russe::Message { data, event, retry: None, id: None };
    russe::Event::Message(message).into_bytestring().ok().map(ByteString::into_bytes)
}

/// The stream of one client. Polled when its connection has room, so a slow client costs its subscriptions' capacity and one chunk.
struct Body {
    ready: VecDeque<Bytes>,
    inbox: Inbox<Item>,
    follows: Follows,
    cursor: Cursor,
    /// The position moved over entries that are not for this stream, and the client does not know.
    untold: bool,
    topics: Vec<Topic>,
    messages: Messages,
    maps: Vec<Map>,
    named: bool,
    keep_alive: Duration,
    idle: Timer,
    sent: Instant,
    ends: Timer,
    ended: bool,
    _present: Present,
}

impl Body {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(ready) = self.ready.pop_front() {
            return Poll::Ready(Some(ready));
        }
        let now = Instant::now();
        if self.ended || self.ends.poll(now, cx) {
            self.ended = true;
            return Poll::Ready(None);
        }
        let (mut chunk, mut steps) = (Chunk::default(), 0);
        while chunk.len() < CHUNK_BYTES {
            if steps == STEPS_MAX {
                // A history of which nothing is for this stream: its arbiter has others to run.
                cx.waker().wake_by_ref();
                break;
            }
            steps += 1;
            let mut idle = true;
            match Pin::new(&mut self.inbox).poll_next(cx) {
                Poll::Ready(Some(item)) => {
                    self.item(item, &mut chunk, cx);
                    idle = false;
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => {}
            }
            // Who was disconnected gets no more of the history.
            if self.ended {
                break;
            }
            if let Poll::Ready(step) = self.follows.poll(cx) {
                self.step(step, &mut chunk);
                idle = false;
            }
            if idle {
                break;
            }
        }
        if let Some(bytes) = chunk.finish() {
            self.sent = now;
            return Poll::Ready(Some(bytes));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        while self.idle.poll(now, cx) {
            let due = later(self.sent, self.keep_alive);
            if due <= now {
                self.sent = now;
                self.idle.reset(later(now, self.keep_alive));
                let mut text = encode(russe::Event::Comment(ByteString::from_static("keep-alive"))).unwrap_or_default();
                if std::mem::take(&mut self.untold) {
                    // Else it would come back to where history is trimmed one day, and be told of a gap in what is not for it.
                    text.push_str(&id_line(&self.cursor));
                    text.push('\n');
                }
                return Poll::Ready(Some(Bytes::from(text)));
            }
            self.idle.reset(due);
        }
        Poll::Pending
    }

    fn item(&mut self, item: Item, chunk: &mut Chunk, cx: &mut Context<'_>) {
        match item {
            Item::Message(event, missed) => {
                if missed > 0 {
                    let data = serde_json::json!({ "topic": event.topic().as_str(), "events": missed });
                    chunk.push(block(Some("missed".into()), data.to_string().into()).unwrap_or_default());
                }
                let name = self.messages.get(event.name()).map_or("", |message| message.name);
                if let Some(bytes) = self.encoded(&event, name) {
                    chunk.push(bytes);
                }
            }
            // Where it may be there, it reconnects, and is asked for everything then.
            Item::Told(Told::Disconnect | Told::Recheck) => self.ended = true,
            Item::Draining(draining) => {
                let at = later(Instant::now(), some_of(draining.window));
                if at < self.ends.due() {
                    self.ends.reset(at);
                }
                self.ended |= self.ends.poll(Instant::now(), cx);
            }
        }
    }

    fn step(&mut self, step: Step, chunk: &mut Chunk) {
        match step {
            Step::Entry(index, event, id) => {
                self.cursor.set(index, id);
                let Some(name) = self.messages.logged(event.name()) else {
                    self.untold = true;
                    return;
                };
                match self.encoded(&event, name) {
                    Some(bytes) => {
                        self.untold = false;
                        chunk.push_text(&id_line(&self.cursor));
                        chunk.push(bytes);
                    }
                    None => self.gap(&undecodable(event.topic(), id), chunk),
                }
            }
            Step::Gap(index, gap) => {
                match (gap.resumes_at, gap.cause) {
                    (Some(first), _) => self.cursor.set(index, first.prev().unwrap_or_default()),
                    // Another log, of which there is nothing yet.
                    (None, GapCause::Ahead) => self.cursor.set(index, EntryId::MIN),
                    (None, _) => {}
                }
                self.gap(&gap, chunk);
            }
            Step::Live(_) => {}
        }
    }

    fn gap(&mut self, gap: &Gap, chunk: &mut Chunk) {
        self.untold = false;
        chunk.push_text(&id_line(&self.cursor));
        chunk.push(block(Some("gap".into()), GapShown::new(gap, false).json().into()).unwrap_or_default());
    }

    fn encoded(&self, event: &Arc<dyn Wire>, name: &str) -> Option<Bytes> {
        if let Some(map) = self.maps.iter().find(|map| map.name == name) {
            return wire::cached(event, name, map.form, || {
                let SseMessage { event, data } = (map.apply)(event)?;
                block(event, data)
            });
        }
        wire::formed(event, name, if self.named { named } else { unnamed })
    }
}

impl MessageBody for Body {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.get_mut().poll_chunk(cx).map(|chunk| chunk.map(Ok))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("topics", &self.topics).finish_non_exhaustive()
    }
}

/// What goes out at once: a single part as it is, several in one piece.
#[derive(Default)]
struct Chunk {
    first: Option<Bytes>,
    more: BytesMut,
}

impl Chunk {
    fn len(&self) -> usize {
        self.first.as_ref().map_or(0, Bytes::len) + self.more.len()
    }

    fn push(&mut self, bytes: Bytes) {
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some(bytes);
        } else {
            self.join();
            self.more.extend_from_slice(&bytes);
        }
    }

    fn push_text(&mut self, text: &str) {
        self.join();
        self.more.extend_from_slice(text.as_bytes());
    }

    fn join(&mut self) {
        if let Some(first) = self.first.take() {
            self.more.extend_from_slice(&first);
        }
    }

    fn finish(self) -> Option<Bytes> {
        self.first.or_else(|| (!self.more.is_empty()).then(|| self.more.freeze()))
    }
}

/// Entries and events that one poll looks at, if there is little to send of them.
const STEPS_MAX: u32 = 512;
/// What one poll gathers: some hundred events, and the arbiter is not held for longer than it takes to copy this.
const CHUNK_BYTES: usize = 32_768;
