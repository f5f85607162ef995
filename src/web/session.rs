//! Session: one WebSocket client, as what it says in and what it is told out. Knows the protocol; knows no socket and no actor, so anything can drive it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use bytestring::ByteString;
use futures_core::Stream;
use futures_core::future::LocalBoxFuture;
use futures_util::stream::AbortHandle;
use governor::DefaultDirectRateLimiter;
use governor::Quota;
use governor::RateLimiter;
use governor::clock::Clock;
use governor::clock::DefaultClock;
use tokio::time::Instant;

use crate::event::Wire;
use crate::ids::EntryId;
use crate::local::inbox::Inbox;
use crate::local::options::SubscribeOptions;
use crate::local::subscription::Subscription;
use crate::log::Gap;
use crate::log::Position;
use crate::observe;
use crate::pubsub::PubSub;
use crate::stream::follower::undecodable;
use crate::topic::Topic;
use crate::web::auth::Identity;
use crate::web::auth::SessionInfo;
use crate::web::auth::Told;
use crate::web::drain::Draining;
use crate::web::drain::Present;
use crate::web::drain::later;
use crate::web::drain::some_of;
use crate::web::edge::Policy;
use crate::web::follow::Follows;
use crate::web::follow::Step;
use crate::web::messages;
use crate::web::messages::Item;
use crate::web::messages::Messages;
use crate::web::messages::Publish;
use crate::web::origin::shorten;
use crate::web::protocol;
use crate::web::protocol::Closing;
use crate::web::protocol::Content;
use crate::web::protocol::Ref;
use crate::web::protocol::Reply;
use crate::web::protocol::Request;
use crate::web::refusal::Refusal;
use crate::web::timer::Timer;
use crate::web::wire;
use crate::web::wire::Frame;
use crate::web::wire::GapShown;

/// What a client said: what a driver gives to [`Session::receive`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message, all its frames together.
    Text(ByteString),
    /// A binary message, all its frames together.
    Binary(Bytes),
    /// A ping, which is answered.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// A close frame with its code, which is answered; then the session ends.
    Close(Option<u16>),
    /// A frame or message of this many bytes, more than [`Limits`](crate::web::Limits) says: ends the session.
    TooLarge(usize),
    /// A text message that is not UTF-8: ends the session.
    NotText,
    /// What is not the WebSocket protocol: ends the session.
    Malformed(String),
}

/// What the client is to be told: the items of a [`Session`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A text message.
    Text(ByteString),
    /// A binary message.
    Binary(Bytes),
    /// A ping.
    Ping(Bytes),
    /// A pong with the bytes of the ping.
    Pong(Bytes),
    /// A close frame, the last item: its code, unless the client gave none, and why.
    Close(Option<u16>, &'static str),
}

impl Outgoing {
    /// The bytes of its payload.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Ping(bytes) | Self::Pong(bytes) => bytes.len(),
            Self::Close(_, reason) => 2 + reason.len(),
        }
    }

    /// Whether it has no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What became of a session, for who keeps a list of who is there; see [`WebSocket::observe`](crate::web::WebSocket::observe).
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionEvent<'a> {
    /// It subscribed to this topic, for the first time or again.
    Subscribed(&'a Topic),
    /// It is subscribed to this topic no more; at its end, each that is left.
    Unsubscribed(&'a Topic),
}

pub(crate) type Observe = Arc<dyn Fn(&SessionInfo, SessionEvent<'_>) + Send + Sync>;

/// What all sessions of one endpoint share.
#[derive(Clone, Default)]
pub(crate) struct Endpoint {
    pub(crate) messages: Messages,
    pub(crate) durable: bool,
    pub(crate) binary: bool,
    pub(crate) observe: Option<Observe>,
}

/// One WebSocket client of a [`WebSocket`](crate::web::WebSocket) endpoint, without its socket: give it what the client says, and send what it yields. `WebSocket::respond`
/// drives it on actix-web-actors; the example `ws_loop` drives it on actix-ws.
///
/// A `futures` [`Stream`] of [`Outgoing`]; after [`Outgoing::Close`] it ends. It takes no more from its topics than it is polled for, so a driver that waits for its
/// socket bounds what a slow client costs. To be polled on the arbiter that made it.
///
/// # Cancel safety
/// Dropping a `next()` loses nothing. Dropping the session unsubscribes.
pub struct Session {
    pubsub: PubSub,
    policy: Arc<Policy>,
    endpoint: Arc<Endpoint>,
    info: SessionInfo,
    inbox: Inbox<Item>,
    follows: Follows,
    topics: HashMap<Topic, Subscribed>,
    /// Numbers of what is followed.
    next: usize,
    out: VecDeque<Outgoing>,
    requests: VecDeque<(Ref, Result<Request, Refusal>)>,
    working: Option<LocalBoxFuture<'static, Done>>,
    /// It is to be asked again for each topic.
    rechecks: bool,
    frames: Meter,
    publishes: Meter,
    /// For the next ping, or for its answer.
    beat: Timer,
    /// Whether the client said anything since the last ping; `None`: there was none yet.
    heard: Option<bool>,
    ends: Option<(Timer, Closing)>,
    phase: Phase,
    /// Polls until the timers are looked at.
    until_timers: u8,
    /// Which of inbox and log comes first.
    log_first: bool,
    waker: Option<Waker>,
    _present: Present,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What is in `out` is the last.
    Closing,
    Closed,
}

struct Subscribed {
    live: Vec<Subscription>,
    log: Option<Followed>,
}

struct Followed {
    number: usize,
    handle: AbortHandle,
    at: Option<EntryId>,
}

/// What a request's asynchronous part came to.
enum Done {
    Subscribe { of: Ref, topic: Topic, asked: Result<Option<Position>, Refusal> },
    Publish { of: Ref, published: Result<Option<EntryId>, Refusal> },
    Checked { refused: Vec<(Topic, Refusal)> },
}

impl Session {
    pub(crate) fn new(pubsub: PubSub, policy: Arc<Policy>, endpoint: Arc<Endpoint>, identity: Identity) -> Result<Self, Refusal> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let inbox = messages::inbox(&pubsub, &identity, &endpoint.messages)?;
        // What began while it was asked who this is was not told to this inbox.
        if policy.sessions.draining().is_some() {
            return Err(Refusal::closed());
        }
        let limits = &policy.limits;
        let id: Arc<str> = format!("{}-{}", pubsub.node(), NEXT.fetch_add(1, Ordering::Relaxed)).into();
        let ping_ms = u64::try_from(limits.ping_interval.as_millis()).unwrap_or(u64::MAX);
        let welcome = Reply::Welcome { session: &id, ping_ms, limits: limits.into() }.text();
        let ends = identity.expiry().map(|expiry| {
            let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
            (Timer::new(later(Instant::now(), left)), Closing::Expired)
        });
        Ok(Self {
            inbox,
            follows: Follows::default(),
            topics: HashMap::new(),
            next: 0,
            out: VecDeque::from([Outgoing::Text(welcome)]),
            requests: VecDeque::new(),
            working: None,
            rechecks: false,
            frames: Meter::new(limits.frames_per_second, limits.frames_burst),
            publishes: Meter::new(limits.publish_per_second, limits.publish_burst),
            beat: Timer::new(later(Instant::now(), limits.ping_interval)),
            heard: None,
            ends,
            phase: Phase::Open,
            until_timers: 0,
            log_first: false,
            waker: None,
            _present: policy.enter(),
            info: SessionInfo { id, identity },
            pubsub,
            policy,
            endpoint,
        })
    }

    /// Who it is.
    pub fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// Whether its last words are still to be sent: then its driver goes on, even where the client says nothing more.
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// What the client said. What follows from it comes out of the stream.
    pub fn receive(&mut self, said: Incoming) {
        if self.phase != Phase::Open {
            return;
        }
        if let Some(heard) = &mut self.heard {
            *heard = true;
        }
        if self.frames.check().is_err() {
            self.close(Closing::Flood);
        } else {
            match said {
                Incoming::Text(text) => self.enqueue(protocol::parse(&text)),
                Incoming::Binary(bytes) if self.endpoint.binary => self.enqueue(protocol::parse_binary(&bytes)),
                Incoming::Binary(bytes) => {
                    let message = format!("a binary message of {} bytes, this endpoint takes text", bytes.len());
                    self.enqueue((None, Err(Refusal::bad("binary", message))));
                }
                Incoming::Ping(bytes) => self.out.push_back(Outgoing::Pong(bytes)),
                Incoming::Pong => {}
                Incoming::Close(code) => {
                    self.out.push_back(Outgoing::Close(code, ""));
                    self.phase = Phase::Closing;
                }
                Incoming::TooLarge(bytes) => {
                    let max = self.policy.limits.frame_bytes.min(self.policy.limits.message_bytes);
                    let refusal = Refusal::bad("too_large", format!("frame or message is {bytes} bytes, the limit is {max}"));
                    self.say(&Reply::Error { r#ref: None, refusal: &refusal.limit(max as u64, bytes as u64) });
                    self.close(Closing::TooLarge);
                }
                Incoming::NotText => self.close(Closing::NotText),
                Incoming::Malformed(what) => {
                    let refusal = Refusal::bad("bad_request", shorten(&what));
                    self.say(&Reply::Error { r#ref: None, refusal: &refusal });
                    self.close(Closing::Protocol);
                }
            }
        }
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn enqueue(&mut self, (of, mut request): (Ref, Result<Request, Refusal>)) {
        // Counted as it comes: what is too much does not wait with all its bytes for the one before it.
        if let Ok(Request::Publish { .. }) = &request
            && let Err(refusal) = self.count_publish()
        {
            request = Err(refusal);
        }
        if self.requests.len() >= self.policy.limits.requests_waiting {
            return self.close(Closing::Flood);
        }
        self.requests.push_back((of, request));
    }

    fn say(&mut self, reply: &Reply<'_>) {
        self.out.push_back(Outgoing::Text(reply.text()));
    }

    fn refuse(&mut self, of: Ref, refusal: &Refusal) {
        self.say(&Reply::Error { r#ref: of, refusal });
    }

    fn close(&mut self, closing: Closing) {
        if self.phase != Phase::Open {
            return;
        }
        let (code, reason, reconnect) = (closing.code(), closing.reason(), closing.reconnect());
        observe::web_closed(&self.info.id, code, reason);
        // Those of one server do not all come back at once.
        let after =
            (closing == Closing::GoingAway).then(|| u64::try_from(some_of(COME_BACK_AFTER).as_millis()).unwrap_or_default());
        self.say(&Reply::Closing { code, reason, reconnect, after_ms: after });
        self.out.push_back(Outgoing::Close(Some(code), reason));
        self.phase = Phase::Closing;
    }

    fn tell(&self, event: SessionEvent<'_>) {
        if let Some(observe) = &self.endpoint.observe {
            observe(&self.info, event);
        }
    }

    // ---- requests ----------------------------------------------------------------------------------------------------

    /// Goes on with the requests, in their order. `Ready`: there is something to say.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(working) = &mut self.working {
                let Poll::Ready(done) = working.as_mut().poll(cx) else { return Poll::Pending };
                self.working = None;
                self.done(done);
            } else if self.rechecks {
                // After the request that was under way, so that what that joined is asked for, too.
                self.recheck();
            } else if let Some((of, request)) = self.requests.pop_front() {
                match request {
                    Ok(request) => self.begin(of, request),
                    Err(refusal) => self.refuse(of, &refusal),
                }
            } else {
                return Poll::Pending;
            }
            if !self.out.is_empty() {
                return Poll::Ready(());
            }
        }
    }

    fn begin(&mut self, of: Ref, request: Request) {
        match request {
            Request::Ping => self.say(&Reply::Pong { r#ref: of }),
            Request::Unsubscribe { topic } => {
                if self.end(&topic) {
                    self.answer(of, Some(&topic), None, None);
                } else {
                    self.refuse(of, &Refusal::bad("not_subscribed", format!("not subscribed to {topic}")));
                }
            }
            Request::Subscribe { topic, from } => {
                let max = self.policy.limits.topics;
                if from.is_some() && !self.endpoint.durable {
                    return self.refuse(of, &Refusal::bad("not_durable", "this endpoint keeps no history"));
                }
                if !self.topics.contains_key(&topic) && self.topics.len() >= max {
                    return self.refuse(of, &Refusal::topics(self.topics.len() + 1, max));
                }
                let known = self.topics.contains_key(&topic);
                let (policy, pubsub, who) = (Arc::clone(&self.policy), self.pubsub.clone(), self.info.identity.clone());
                let durable = self.endpoint.durable;
                self.working = Some(Box::pin(async move {
                    let asked = async {
                        policy.subscribe(&who, &topic).await?;
                        match from {
                            None if durable && !known => Ok(Some(Position::After(pubsub.head(&topic).await?))),
                            from => Ok(from),
                        }
                    };
                    let asked = asked.await;
                    Done::Subscribe { of, topic, asked }
                }));
            }
            Request::Publish { topic, event, content, key, echo } => {
                if let Err(refusal) = self.publish(of, topic, event, content, key, echo) {
                    self.refuse(of, &refusal);
                }
            }
        }
    }

    fn publish(
        &mut self,
        of: Ref,
        topic: Topic,
        event: String,
        content: Content,
        key: Option<ByteString>,
        echo: bool,
    ) -> Result<(), Refusal> {
        let known = self.endpoint.messages.get(&event);
        let Some((Publish { broadcast, append }, ephemeral)) =
            known.and_then(|known| Some((known.publish.clone()?, known.ephemeral)))
        else {
            let shown = shorten(&event);
            return Err(Refusal::bad("event", format!("clients publish no {shown:?} here")));
        };
        let durable = self.endpoint.durable && !ephemeral;
        if key.is_some() && !durable {
            return Err(Refusal::bad("not_durable", format!("{event} is broadcast, it has no key")));
        }
        if !echo && durable {
            return Err(Refusal::bad("bad_request", format!("{event} goes into the log, everyone who follows it gets it")));
        }
        let (policy, pubsub, info) = (Arc::clone(&self.policy), self.pubsub.clone(), self.info.clone());
        let from = (!echo).then(|| self.inbox.subscriber_id());
        self.working = Some(Box::pin(async move {
            let published = async {
                policy.publish(&info.identity, &topic, &event).await?;
                let content = match &content {
                    Content::Json(json) => messages::Content::Json(json),
                    Content::Bytes(bytes) => messages::Content::Bytes(bytes),
                };
                if durable {
                    return append(pubsub, &info, topic, content, key)?.await.map(Some);
                }
                broadcast(&pubsub, &info, from, &topic, content)?;
                Ok(None)
            };
            let published = published.await;
            Done::Publish { of, published }
        }));
        Ok(())
    }

    fn count_publish(&self) -> Result<(), Refusal> {
        self.publishes.check().map_err(|wait| {
            let (rate, burst) = (self.policy.limits.publish_per_second, self.policy.limits.publish_burst);
            let message = format!("too many messages, the limit is {rate} per second (burst {burst})");
            Refusal::bad("rate", message).limit(rate.into(), u64::from(rate) + 1).retry_after(wait)
        })
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Subscribe { of, topic, asked } => match asked.and_then(|from| self.join(&topic, from)) {
                Ok(cursor) => {
                    self.answer(of, Some(&topic), cursor, None);
                    self.tell(SessionEvent::Subscribed(&topic));
                }
                Err(refusal) => self.refuse(of, &refusal),
            },
            Done::Publish { of, published: Ok(id) } => self.answer(of, None, None, id),
            Done::Publish { of, published: Err(refusal) } => self.refuse(of, &refusal),
            Done::Checked { refused } => {
                for (topic, refusal) in refused {
                    if self.end(&topic) {
                        self.say(&Reply::Unsubscribed { topic: topic.as_str(), refusal: &refusal });
                    }
                }
            }
        }
    }

    fn answer(&mut self, of: Ref, topic: Option<&Topic>, cursor: Option<EntryId>, id: Option<EntryId>) {
        if of.is_some() {
            let (cursor, id) = (cursor.map(|id| id.to_string()), id.map(|id| id.to_string()));
            self.say(&Reply::Ok { r#ref: of, topic: topic.map(Topic::as_str), cursor, id });
        }
    }

    /// Subscribes, as it was allowed. `from`: where to begin in the log; `None`: where it is, or not at all.
    fn join(&mut self, topic: &Topic, from: Option<Position>) -> Result<Option<EntryId>, Refusal> {
        if !self.topics.contains_key(topic) {
            let options = SubscribeOptions::new().capacity(self.policy.limits.waiting_events).metadata(Arc::clone(&self.info.id));
            let types = self.endpoint.messages.broadcast(self.endpoint.durable);
            let live = types.map(|known| (known.subscribe)(&mut self.inbox, topic, &options)).collect::<Result<_, _>>()?;
            self.topics.insert(topic.clone(), Subscribed { live, log: None });
        }
        let Some(subscribed) = self.topics.get_mut(topic) else { return Ok(None) };
        if let Some(from) = from {
            let at = if let Position::After(id) = from { Some(id) } else { None };
            let number = self.next;
            self.next += 1;
            let handle = self.follows.add(&self.pubsub, number, topic, from)?;
            if let Some(before) = subscribed.log.replace(Followed { number, handle, at }) {
                before.handle.abort();
            }
        }
        Ok(subscribed.log.as_ref().and_then(|log| log.at))
    }

    /// Ends the subscription to a topic. `false`: there is none.
    fn end(&mut self, topic: &Topic) -> bool {
        let Some(subscribed) = self.topics.remove(topic) else { return false };
        subscribed.end();
        self.tell(SessionEvent::Unsubscribed(topic));
        true
    }

    // ---- events ------------------------------------------------------------------------------------------------------

    /// Takes what is next of the topics; `true`: there was something.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> bool {
        self.log_first = !self.log_first;
        for log in [self.log_first, !self.log_first] {
            if log {
                if let Poll::Ready(step) = self.follows.poll(cx) {
                    self.step(step);
                    return true;
                }
            } else {
                match Pin::new(&mut self.inbox).poll_next(cx) {
                    Poll::Ready(Some(item)) => {
                        self.item(item);
                        return true;
                    }
                    // The pub/sub was shut down.
                    Poll::Ready(None) => {
                        self.close(Closing::GoingAway);
                        return true;
                    }
                    Poll::Pending => {}
                }
            }
        }
        false
    }

    fn item(&mut self, item: Item) {
        match item {
            Item::Message(event, missed) => {
                if missed > 0 {
                    self.say(&Reply::Missed { topic: event.topic().as_str(), events: missed });
                }
                let name = self.endpoint.messages.get(event.name()).map_or("", |known| known.name);
                if let Some(frame) = wire::frame(&event, name) {
                    self.out.push_back(frame.into());
                }
            }
            Item::Told(Told::Disconnect) => self.close(Closing::Revoked),
            Item::Told(Told::Recheck) => self.rechecks = true,
            Item::Draining(Draining { window }) => {
                let at = later(Instant::now(), some_of(window));
                if self.ends.as_ref().is_none_or(|(ends, _)| at < ends.due()) {
                    self.ends = Some((Timer::new(at), Closing::GoingAway));
                    // Not polled yet.
                    self.until_timers = 0;
                }
            }
        }
    }

    /// Asks again for each topic.
    fn recheck(&mut self) {
        self.rechecks = false;
        let (policy, who) = (Arc::clone(&self.policy), self.info.identity.clone());
        let topics: Vec<_> = self.topics.keys().cloned().collect();
        self.working = Some(Box::pin(async move {
            let mut refused = Vec::new();
            for topic in topics {
                if let Err(refusal) = policy.subscribe(&who, &topic).await {
                    refused.push((topic, refusal));
                }
            }
            Done::Checked { refused }
        }));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Entry(_, event, id) => self.entry(&event, id),
            Step::Gap(_, gap) => {
                let resumes = gap.resumes_at.and_then(EntryId::prev);
                if let Some(log) = self.topics.get_mut(&gap.topic).and_then(|subscribed| subscribed.log.as_mut()) {
                    log.at = resumes.or(log.at);
                }
                self.gap(&gap);
            }
            Step::Live(number) => {
                let topic = self.topics.iter().find(|(_, of)| of.log.as_ref().is_some_and(|log| log.number == number));
                if let Some(text) = topic.map(|(topic, _)| Reply::Live { topic: topic.as_str() }.text()) {
                    self.out.push_back(Outgoing::Text(text));
                }
            }
        }
    }

    fn gap(&mut self, gap: &Gap) {
        self.out.push_back(Outgoing::Text(GapShown::new(gap, true).json().into()));
    }

    fn entry(&mut self, event: &Arc<dyn Wire>, id: EntryId) {
        if let Some(log) = self.topics.get_mut(event.topic()).and_then(|subscribed| subscribed.log.as_mut()) {
            log.at = Some(id);
        }
        let Some(name) = self.endpoint.messages.logged(event.name()) else { return };
        match wire::frame(event, name) {
            Some(frame) => self.out.push_back(frame.into()),
            None => self.gap(&undecodable(event.topic(), id)),
        }
    }

    // ---- time --------------------------------------------------------------------------------------------------------

    fn poll_timers(&mut self, cx: &mut Context<'_>) {
        self.until_timers = TIMERS_EVERY;
        let now = Instant::now();
        while self.beat.poll(now, cx) {
            let (ping, pong) = (self.policy.limits.ping_interval, self.policy.limits.pong_timeout);
            let wait = match self.heard.take() {
                None => {
                    self.heard = Some(false);
                    self.out.push_back(Outgoing::Ping(Bytes::new()));
                    pong
                }
                Some(true) => ping.saturating_sub(pong).max(Duration::from_millis(1)),
                Some(false) => return self.close(Closing::NoPong),
            };
            self.beat.reset(now + wait);
        }
        if let Some((ends, closing)) = &mut self.ends
            && ends.poll(now, cx)
        {
            let closing = *closing;
            self.ends = None;
            self.close(closing);
        }
    }
}

impl Subscribed {
    fn end(&self) {
        for subscription in &self.live {
            subscription.unsubscribe();
        }
        if let Some(log) = &self.log {
            log.handle.abort();
        }
    }
}

impl From<Frame> for Outgoing {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Text(text) => Self::Text(text),
            Frame::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl Stream for Session {
    type Item = Outgoing;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let this = self.get_mut();
        let mut silent = 0;
        loop {
            if let Some(out) = this.out.pop_front() {
                if matches!(out, Outgoing::Close(..)) {
                    this.phase = Phase::Closed;
                    this.out.clear();
                }
                return Poll::Ready(Some(out));
            }
            if this.phase == Phase::Closed {
                return Poll::Ready(None);
            }
            if this.until_timers == 0 {
                this.poll_timers(cx);
                continue;
            }
            if this.poll_requests(cx).is_ready() || this.poll_events(cx) {
                // A drain may have asked for a look at them.
                this.until_timers = this.until_timers.saturating_sub(1);
                silent += 1;
                if this.out.is_empty() && silent >= SILENT_STEPS {
                    // A history of which nothing is for this endpoint: its arbiter has others to run.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            this.until_timers = 0;
            this.poll_timers(cx);
            if this.out.is_empty() {
                if !this.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    this.waker = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (topic, subscribed) in self.topics.drain().collect::<Vec<_>>() {
            subscribed.end();
            // The program's code, and this may be an unwinding.
            let _ = catch_unwind(AssertUnwindSafe(|| self.tell(SessionEvent::Unsubscribed(&topic))));
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("info", &self.info).field("topics", &self.topics.len()).finish_non_exhaustive()
    }
}

/// Counts what a client does against a rate.
struct Meter {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Meter {
    fn new(per_second: u32, burst: u32) -> Self {
        // Both were checked to be more than 0 when the edge was attached.
        let [per_second, burst] =
            [per_second, burst].map(|of| std::num::NonZeroU32::new(of).unwrap_or(std::num::NonZeroU32::MIN));
        Self { limiter: RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)), clock: DefaultClock::default() }
    }

    /// `Err`: how long to wait.
    fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// Frames between two looks at the timers, while there is no pause.
const TIMERS_EVERY: u8 = 64;
/// Entries that one poll looks at without anything to send.
const SILENT_STEPS: u32 = 256;
/// Clients of a server that goes away come back within this time.
const COME_BACK_AFTER: Duration = Duration::from_secs(3);
