//! WebSocket: an endpoint for WebSocket clients, and the actor that drives a session on actix-web-actors. Knows frames; the protocol is the session's.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use actix::Actor;
use actix::ActorContext;
use actix::ActorFuture;
use actix::AsyncContext;
use actix::StreamHandler;
use actix_http::ws::Item;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::Route;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web;
use actix_web_actors::ws;
use actix_web_actors::ws::CloseCode;
use actix_web_actors::ws::CloseReason;
use actix_web_actors::ws::ProtocolError;
use actix_web_actors::ws::WebsocketContext;
use actix_web_actors::ws::WsResponseBuilder;
use futures_core::Stream;

use crate::event::Payload;
use crate::pubsub::PubSub;
use crate::stream::error::FollowError;
use crate::topic::Topic;
use crate::web::auth::SessionInfo;
use crate::web::blob::Blob;
use crate::web::edge::Policy;
use crate::web::frames::FrameGuard;
use crate::web::frames::HeadError;
use crate::web::frames::Refused;
use crate::web::messages::Publish;
use crate::web::origin::shorten;
use crate::web::refusal::Refusal;
use crate::web::refusal::WEBSOCKET_VERSION;
use crate::web::session::Endpoint;
use crate::web::session::Incoming;
use crate::web::session::Outgoing;
use crate::web::session::Session;
use crate::web::session::SessionEvent;

/// An endpoint for WebSocket clients that subscribe to topics and publish, over a small JSON protocol: `src/docs/websocket.md`. [`client`](crate::web::client) serves a client
/// for browsers. A clone is the same endpoint.
///
/// ```
/// use actix_pubsub::web::WebSocket;
/// use actix_pubsub::{Payload, PubSub};
/// use actix_web::{App, web};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Said { text: String }
/// impl Payload for Said { const NAME: &'static str = "chat.said"; }
///
/// let pubsub = PubSub::new();
/// let socket = WebSocket::new(&pubsub).message::<Said>().publish::<Said>();
/// let app = App::new()
///     .route("/ws", socket.route())
///     .route("/pubsub.js", web::get().to(actix_pubsub::web::client));
/// ```
#[derive(Clone)]
pub struct WebSocket {
    pubsub: PubSub,
    endpoint: Arc<Endpoint>,
}

impl WebSocket {
    /// The subprotocol (RFC 6455, section 1.9) that clients may ask for.
    pub const PROTOCOL: &'static str = "actix-pubsub.v1";

    /// An endpoint on which nothing is received and nothing published yet.
    pub fn new(pubsub: &PubSub) -> Self {
        Self { pubsub: pubsub.clone(), endpoint: Arc::default() }
    }

    fn change(mut self, change: impl FnOnce(&mut Endpoint)) -> Self {
        change(Arc::make_mut(&mut self.endpoint));
        self
    }

    /// Clients receive messages of this type, in the topics to which they subscribe. May be called for several types.
    ///
    /// # Panics
    /// If another type here has the same name.
    pub fn message<M: Payload>(self) -> Self {
        self.change(|endpoint| endpoint.messages.of::<M>().received = true)
    }

    /// As [`message`](Self::message), for a type that is broadcast even where the endpoint is [durable](Self::durable): who is typing, who is there.
    ///
    /// # Panics
    /// If another type here has the same name.
    pub fn ephemeral<M: Payload>(self) -> Self {
        self.change(|endpoint| {
            let of = endpoint.messages.of::<M>();
            (of.received, of.ephemeral) = (true, true);
        })
    }

    /// Clients may publish messages of this type, if there is no [`Authorize`](crate::web::Authorize) that refuses: to the log where the endpoint is durable and the type is
    /// not ephemeral, else as a broadcast.
    ///
    /// # Panics
    /// If another type here has the same name.
    pub fn publish<M: Payload>(self) -> Self {
        self.publish_with::<M>(|_, _, message| Ok(message))
    }

    /// As [`publish`](Self::publish), with a last look at each message: it may be refused, or changed, such as to say who it is from, which is not for a client
    /// to say. On the arbiter of the connection, so it is to be quick.
    ///
    /// ```
    /// # use actix_pubsub::web::WebSocket;
    /// # use actix_pubsub::{Payload, PubSub};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Said { #[serde(default)] by: String, text: String }
    /// impl Payload for Said { const NAME: &'static str = "chat.said"; }
    ///
    /// let socket = WebSocket::new(&PubSub::new()).publish_with::<Said>(|session, _, said| {
    ///     Ok(Said { by: session.identity.to_string(), ..said })
    /// });
    /// ```
    ///
    /// # Panics
    /// If another type here has the same name.
    pub fn publish_with<M: Payload>(
        self,
        look: impl Fn(&SessionInfo, &Topic, M) -> Result<M, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.change(|endpoint| endpoint.messages.of::<M>().publish = Some(Publish::json::<M>(look)))
    }

    /// Clients receive [`Blob`]s, and with `publish` may publish them, as binary messages.
    pub fn binary(self, publish: bool) -> Self {
        self.change(|endpoint| {
            let of = endpoint.messages.of::<Blob>();
            (of.received, of.publish) = (true, publish.then(Publish::bytes));
            endpoint.binary = true;
        })
    }

    /// The topics are those of the log: clients receive what is appended, with the history they ask for, and what they publish is appended. The pub/sub needs a log.
    pub fn durable(self) -> Self {
        self.change(|endpoint| endpoint.durable = true)
    }

    /// Calls `observe` when a client subscribes and unsubscribes, to keep a list of who is there. On the arbiter of the connection, so it is to be quick.
    pub fn observe(self, observe: impl Fn(&SessionInfo, SessionEvent<'_>) + Send + Sync + 'static) -> Self {
        self.change(|endpoint| endpoint.observe = Some(Arc::new(observe)))
    }

    /// Answers a handshake, with an actor that drives the session. For a handler of your own; [`route`](Self::route) is one.
    ///
    /// # Errors
    /// As [`session`](Self::session), 426 for another version than 13, and 400 for what else is no handshake (RFC 6455, section 4.2.1).
    pub async fn respond(&self, request: &HttpRequest, body: web::Payload) -> Result<HttpResponse, Refusal> {
        // actix-http takes drafts of it, too.
        if let Some(version) = request.headers().get(header::SEC_WEBSOCKET_VERSION)
            && version != WEBSOCKET_VERSION
        {
            let told = format!(
                "WebSocket version is {:?}, it must be {WEBSOCKET_VERSION}",
                shorten(&String::from_utf8_lossy(version.as_bytes()))
            );
            return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "handshake", told));
        }
        let session = self.session(request).await?;
        let limits = Policy::of(&self.pubsub).limits;
        let refused = Refused::default();
        let guarded = FrameGuard::new(body, limits.frame_bytes, Rc::clone(&refused));
        let socket = Socket { session, partial: None, message_bytes: limits.message_bytes, refused };
        let handshake =
            WsResponseBuilder::new(socket, request, guarded).protocols(&[Self::PROTOCOL]).frame_size(limits.frame_bytes).start();
        handshake.map_err(|error| {
            // Its `status_code` is that of an error that nobody expected; its answer has the right one.
            let status = error.as_response_error().error_response().status();
            Refusal::new(status, "handshake", error.to_string())
        })
    }

    /// Checks the origin, asks who it is, and makes a session that something else than this crate's actor drives. The handshake is the caller's.
    ///
    /// # Errors
    /// 403 for a page of another origin, 401 and 403 as [`Authorize`](crate::web::Authorize) says, 503 while the server drains.
    pub async fn session(&self, request: &HttpRequest) -> Result<Session, Refusal> {
        let policy = Policy::of(&self.pubsub);
        policy.origin(request)?;
        if policy.sessions.draining().is_some() {
            return Err(Refusal::closed());
        }
        if self.endpoint.durable && self.pubsub.log().is_none() {
            return Err(FollowError::NoLog.into());
        }
        let identity = policy.connect(request).await?;
        Session::new(self.pubsub.clone(), policy, Arc::clone(&self.endpoint), identity)
    }

    /// A route for `GET` that answers handshakes.
    pub fn route(&self) -> Route {
        let endpoint = self.clone();
        web::get().to(move |request: HttpRequest, body: web::Payload| {
            let endpoint = endpoint.clone();
            async move { endpoint.respond(&request, body).await }
        })
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("durable", &self.endpoint.durable).finish_non_exhaustive()
    }
}

type Ctx = WebsocketContext<Socket>;

/// One connection.
struct Socket {
    session: Session,
    /// Fragments of a message that is not whole yet.
    partial: Option<Partial>,
    message_bytes: usize,
    refused: Refused,
}

struct Partial {
    text: bool,
    bytes: Vec<u8>,
}

impl Actor for Socket {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        ctx.spawn(Drive);
    }
}

/// Sends what the session yields, as fast as the connection takes it: the context is only polled when there is room.
struct Drive;

impl ActorFuture<Socket> for Drive {
    type Output = ();

    fn poll(self: Pin<&mut Self>, socket: &mut Socket, ctx: &mut Ctx, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = 0;
        while bytes < POLL_BYTES {
            let Poll::Ready(next) = Pin::new(&mut socket.session).poll_next(cx) else { return Poll::Pending };
            let Some(out) = next else {
                ctx.stop();
                return Poll::Ready(());
            };
            bytes += FRAME_BYTES + out.len();
            match out {
                Outgoing::Text(text) => ctx.text(text),
                Outgoing::Binary(bytes) => ctx.binary(bytes),
                Outgoing::Ping(bytes) => ctx.ping(&bytes),
                Outgoing::Pong(bytes) => ctx.pong(&bytes),
                Outgoing::Close(code, reason) => {
                    let description = (!reason.is_empty()).then(|| reason.to_owned());
                    ctx.close(code.map(|code| CloseReason { code: CloseCode::from(code), description }));
                }
            }
        }
        // Its arbiter has others to run, and its connection something to send.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Socket {
    /// Puts fragments together, up to the limit.
    fn fragment(&mut self, item: Item) -> Option<Incoming> {
        let (mut partial, bytes, last) = match (item, self.partial.take()) {
            (Item::FirstText(bytes), _) => (Partial { text: true, bytes: Vec::new() }, bytes, false),
            (Item::FirstBinary(bytes), _) => (Partial { text: false, bytes: Vec::new() }, bytes, false),
            (Item::Continue(bytes), Some(partial)) => (partial, bytes, false),
            (Item::Last(bytes), Some(partial)) => (partial, bytes, true),
            (Item::Continue(_) | Item::Last(_), None) => {
                return Some(Incoming::Malformed(String::from("a fragment continues nothing")));
            }
        };
        let length = partial.bytes.len() + bytes.len();
        if length > self.message_bytes {
            return Some(Incoming::TooLarge(length));
        }
        partial.bytes.extend_from_slice(&bytes);
        match (last, partial.text) {
            (false, _) => {
                self.partial = Some(partial);
                None
            }
            (true, false) => Some(Incoming::Binary(partial.bytes.into())),
            (true, true) => Some(String::from_utf8(partial.bytes).map_or(Incoming::NotText, |text| Incoming::Text(text.into()))),
        }
    }
}

impl StreamHandler<Result<ws::Message, ProtocolError>> for Socket {
    fn handle(&mut self, message: Result<ws::Message, ProtocolError>, _: &mut Ctx) {
        let whole = |bytes: usize| bytes <= self.message_bytes;
        let said = match message {
            Ok(ws::Message::Text(text)) if whole(text.len()) => Incoming::Text(text),
            Ok(ws::Message::Binary(bytes)) if whole(bytes.len()) => Incoming::Binary(bytes),
            Ok(ws::Message::Text(text)) => Incoming::TooLarge(text.len()),
            Ok(ws::Message::Binary(bytes)) => Incoming::TooLarge(bytes.len()),
            Ok(ws::Message::Ping(bytes)) => Incoming::Ping(bytes),
            Ok(ws::Message::Pong(_)) => Incoming::Pong,
            Ok(ws::Message::Nop) => return,
            Ok(ws::Message::Close(reason)) => Incoming::Close(reason.map(|reason| reason.code.into())),
            Ok(ws::Message::Continuation(item)) => match self.fragment(item) {
                Some(said) => said,
                // Alive, and nothing more.
                None => Incoming::Pong,
            },
            Err(error) => match self.refused.get() {
                Some(HeadError::TooLarge(bytes)) => Incoming::TooLarge(bytes),
                Some(HeadError::LongForm(bytes)) => {
                    Incoming::Malformed(format!("a length of {bytes} is not in its shortest form"))
                }
                Some(HeadError::Control(bytes)) => {
                    Incoming::Malformed(format!("a control frame of {bytes} bytes is too long or a fragment"))
                }
                // The stream of actix-web-actors has no better name for it.
                None if error.to_string().contains("utf-8") => Incoming::NotText,
                None => Incoming::Malformed(error.to_string()),
            },
        };
        self.session.receive(said);
    }

    fn finished(&mut self, ctx: &mut Ctx) {
        // What was refused ends the stream, too, and is still answered.
        if !self.session.is_closing() {
            ctx.stop();
        }
    }
}

/// Bytes that one poll hands to the connection: with what it has buffered, all that a client who stops reading costs here.
const POLL_BYTES: usize = 65_536;
/// What a frame costs beside its payload.
const FRAME_BYTES: usize = 16;
