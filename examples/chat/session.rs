//! Session: one WebSocket as an actor, subscribed to its rooms. Knows the protocol and the limits, not who else is there.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use actix::Actor;
use actix::ActorContext;
use actix::AsyncContext;
use actix::Handler;
use actix::Message;
use actix::StreamHandler;
use actix_http::ws::Item;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Subscription;
use actix_web_actors::ws;
use actix_web_actors::ws::CloseCode;
use actix_web_actors::ws::CloseReason;
use actix_web_actors::ws::ProtocolError;
use actix_web_actors::ws::WebsocketContext;

use crate::frames::Declared;
use crate::limits::CHANGES;
use crate::limits::Code;
use crate::limits::FRAMES;
use crate::limits::LIMITS;
use crate::limits::MESSAGES;
use crate::limits::Meter;
use crate::limits::Refusal;
use crate::limits::Room;
use crate::limits::client_id;
use crate::limits::message_body;
use crate::limits::user_name;
use crate::protocol::GoingAway;
use crate::protocol::Reply;
use crate::protocol::Request;
use crate::protocol::RoomEvent;
use crate::protocol::SERVER;
use crate::roster::Presence;
use crate::roster::SILENCE_MAX;
use crate::roster::Tell;

pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// The actor of one connection.
pub(crate) struct Session {
    pubsub: PubSub,
    presence: Presence,
    rooms: Vec<Joined>,
    heard: Instant,
    messages: Meter,
    changes: Meter,
    frames: Meter,
    partial: Option<Partial>,
    refused: Declared,
}

struct Joined {
    room: Room,
    user: Arc<str>,
    subscription: Subscription,
}

/// A message that comes in several frames. Binary ones are counted and refused, as whole ones are.
struct Partial {
    text: bool,
    bytes: Vec<u8>,
}

type Ctx = WebsocketContext<Session>;

impl Session {
    pub(crate) fn new(pubsub: PubSub, presence: Presence, refused: Declared) -> Self {
        Self {
            pubsub,
            presence,
            rooms: Vec::new(),
            heard: Instant::now(),
            messages: Meter::new(MESSAGES),
            changes: Meter::new(CHANGES),
            frames: Meter::new(FRAMES),
            partial: None,
            refused,
        }
    }

    fn request(&mut self, text: &str, ctx: &mut Ctx) {
        let request = match serde_json::from_str(text) {
            Ok(request) => request,
            Err(error) => return reply(ctx, &error_reply(Refusal::bad_json(&error), None, None)),
        };
        let (result, room, cid) = match request {
            Request::Join { room, name } => (self.join(&room, &name, ctx), room, None),
            Request::Leave { room } => (self.leave(&room, ctx), room, None),
            Request::Who { room } => (self.who(&room), room, None),
            Request::Say { room, body, cid } => (self.say(&room, body, cid.as_deref()), room, cid),
        };
        if let Err(refusal) = result {
            // What was too long to be taken is too long to be sent back, too.
            let room = (refusal.code != Code::RoomName).then_some(room);
            let cid = cid.filter(|_| refusal.code != Code::Cid);
            reply(ctx, &error_reply(refusal, room, cid));
        }
    }

    fn join(&mut self, room: &str, name: &str, ctx: &mut Ctx) -> Result<(), Refusal> {
        let (room, user) = (Room::parse(room)?, user_name(name)?);
        self.changes.check()?;
        if let Some(joined) = self.rooms.iter_mut().find(|joined| joined.room == room) {
            joined.user = Arc::clone(&user);
        } else {
            let (value, max) = (self.rooms.len() + 1, LIMITS.rooms);
            if value > max {
                let message = format!("this would be room {value} at once, the limit is {max}");
                return Err(Refusal::new(Code::Rooms, message).limit(max).value(value));
            }
            // Subscribed first and announced second, so that one's own arrival is the first event seen.
            let subscription = self.pubsub.subscribe::<RoomEvent, _>(ctx, room.topic()).map_err(|_| Refusal::closing())?;
            self.rooms.push(Joined { room: room.clone(), user: Arc::clone(&user), subscription });
        }
        self.presence.tell(|id| Tell::Entered(id, room, user));
        Ok(())
    }

    fn leave(&mut self, room: &str, ctx: &mut Ctx) -> Result<(), Refusal> {
        let at = self.find(&Room::parse(room)?)?;
        let joined = self.rooms.swap_remove(at);
        joined.subscription.unsubscribe();
        reply(ctx, &Reply::Parted { room: joined.room.name().to_owned() });
        self.presence.tell(|id| Tell::Left(id, joined.room));
        Ok(())
    }

    fn who(&self, room: &str) -> Result<(), Refusal> {
        let room = Room::parse(room)?;
        self.find(&room)?;
        self.changes.check()?;
        self.presence.tell(|id| Tell::Who(id, room));
        Ok(())
    }

    fn say(&self, room: &str, body: String, cid: Option<&str>) -> Result<(), Refusal> {
        let room = Room::parse(room)?;
        let joined = &self.rooms[self.find(&room)?];
        client_id(cid)?;
        message_body(&body)?;
        self.messages.check()?;
        let event = RoomEvent::Message {
            room: room.name().to_owned(),
            from: Some(self.presence.id().to_string()),
            user: joined.user.to_string(),
            body,
            cid: cid.map(str::to_owned),
            at_ms: now_ms(),
        };
        // A full port loses it for some, and `missed` tells them; the sender sees it by the missing confirmation.
        self.pubsub.broadcast(room.topic(), event).map(drop).map_err(|_| Refusal::closing())
    }

    /// Where among `rooms` it is.
    fn find(&self, room: &Room) -> Result<usize, Refusal> {
        let at = self.rooms.iter().position(|joined| joined.room == *room);
        at.ok_or_else(|| Refusal::new(Code::NotJoined, format!("you are not in the room {:?}", room.name())))
    }

    /// Puts a fragmented message together; RFC 6455, section 5.4. The codec has checked the order of the frames.
    fn fragment(&mut self, item: Item, ctx: &mut Ctx) {
        let (mut partial, bytes, last) = match (item, self.partial.take()) {
            (Item::FirstText(bytes), _) => (Partial { text: true, bytes: Vec::new() }, bytes, false),
            (Item::FirstBinary(bytes), _) => (Partial { text: false, bytes: Vec::new() }, bytes, false),
            (Item::Continue(bytes), Some(partial)) => (partial, bytes, false),
            (Item::Last(bytes), Some(partial)) => (partial, bytes, true),
            (Item::Continue(bytes) | Item::Last(bytes), None) => {
                let message = format!("a continuation of {} bytes continues nothing", bytes.len());
                return close(ctx, Refusal::new(Code::Protocol, message), CloseCode::Protocol);
            }
        };
        let length = partial.bytes.len() + bytes.len();
        if length > LIMITS.frame_bytes {
            return close(ctx, too_large(length), CloseCode::Size);
        }
        partial.bytes.extend_from_slice(&bytes);
        match (last, partial.text) {
            (false, _) => self.partial = Some(partial),
            (true, false) => reply(ctx, &error_reply(binary(length), None, None)),
            (true, true) => match String::from_utf8(partial.bytes) {
                Ok(text) => self.request(&text, ctx),
                Err(_) => close(ctx, Refusal::new(Code::Protocol, "text is not UTF-8"), CloseCode::Invalid),
            },
        }
    }
}

impl Actor for Session {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        reply(ctx, &Reply::Welcome { session: Arc::clone(self.presence.id()), limits: LIMITS });
        let address = ctx.address();
        self.presence.tell(|id| Tell::Arrived(id, address));
        if self.pubsub.subscribe::<GoingAway, _>(ctx, SERVER).is_err() {
            return close(ctx, Refusal::closing(), CloseCode::Away);
        }
        ctx.run_interval(HEARTBEAT_INTERVAL, |session, ctx| {
            if session.heard.elapsed() > HEARTBEAT_TIMEOUT {
                // Nobody is left to read a close frame.
                return ctx.stop();
            }
            ctx.ping(b"");
            session.presence.tell(Tell::Alive);
        });
    }
}

impl Handler<Event<RoomEvent>> for Session {
    type Result = ();

    fn handle(&mut self, event: Event<RoomEvent>, ctx: &mut Ctx) {
        if event.missed() > 0 {
            let room = Room::of(event.topic()).map(|room| room.name().to_owned()).unwrap_or_default();
            reply(ctx, &Reply::Missed { room, events: event.missed() });
        }
        match event.json() {
            Ok(json) => ctx.text(json),
            // A `RoomEvent` has no map and no foreign type: it always has a JSON form.
            Err(error) => reply(ctx, &error_reply(Refusal::new(Code::Protocol, error.to_string()), None, None)),
        }
    }
}

impl Handler<Event<GoingAway>> for Session {
    type Result = ();

    fn handle(&mut self, _: Event<GoingAway>, ctx: &mut Ctx) {
        close(ctx, Refusal::closing(), CloseCode::Away);
    }
}

impl Handler<Reply> for Session {
    type Result = ();

    fn handle(&mut self, answer: Reply, ctx: &mut Ctx) {
        if let Reply::Members { room, .. } = &answer
            && self.rooms.iter().all(|joined| joined.room.name() != room)
        {
            // Left in the meantime: nothing of a room follows its `parted`.
            return;
        }
        reply(ctx, &answer);
    }
}

/// The roster gave this session up, because nobody read what it wrote. The page will connect again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Expelled;

impl Handler<Expelled> for Session {
    type Result = ();

    fn handle(&mut self, _: Expelled, ctx: &mut Ctx) {
        let message = format!("nothing was read for {} seconds", SILENCE_MAX.as_secs());
        close(ctx, Refusal::new(Code::Protocol, message), CloseCode::Policy);
    }
}

impl StreamHandler<Result<ws::Message, ProtocolError>> for Session {
    fn handle(&mut self, message: Result<ws::Message, ProtocolError>, ctx: &mut Ctx) {
        self.heard = Instant::now();
        if let Err(refusal) = self.frames.check() {
            return close(ctx, refusal, CloseCode::Policy);
        }
        match message {
            Ok(ws::Message::Text(text)) => self.request(&text, ctx),
            Ok(ws::Message::Binary(bytes)) => reply(ctx, &error_reply(binary(bytes.len()), None, None)),
            Ok(ws::Message::Continuation(item)) => self.fragment(item, ctx),
            Ok(ws::Message::Ping(bytes)) => ctx.pong(&bytes),
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            // Also what is no valid text, and a connection that broke: the codec calls both an I/O error. In vain for the latter.
            Err(error) => match self.refused.get() {
                Some(bytes) => close(ctx, too_large(bytes), CloseCode::Size),
                None => close(ctx, Refusal::new(Code::Protocol, error.to_string()), CloseCode::Protocol),
            },
        }
    }
}

fn error_reply(refusal: Refusal, room: Option<String>, cid: Option<String>) -> Reply {
    Reply::Error { refusal, room, cid }
}

fn binary(bytes: usize) -> Refusal {
    Refusal::new(Code::Binary, format!("a binary message of {bytes} bytes is refused, requests are JSON text"))
}

fn too_large(bytes: usize) -> Refusal {
    let max = LIMITS.frame_bytes;
    Refusal::new(Code::FrameSize, format!("frame is {bytes} bytes, the limit is {max}")).limit(max).value(bytes)
}

fn reply(ctx: &mut Ctx, reply: &Reply) {
    // Strings and numbers only, so it always has a JSON form; were it otherwise, the client would be better off without us.
    match serde_json::to_string(reply) {
        Ok(json) => ctx.text(json),
        Err(_) => ctx.stop(),
    }
}

/// Says why, then ends the connection.
fn close(ctx: &mut Ctx, refusal: Refusal, code: CloseCode) {
    // A close frame holds at most 123 bytes of text; what may be longer is told in full before it.
    let description = if refusal.message.len() <= 123 { Some(refusal.message.clone()) } else { None };
    reply(ctx, &error_reply(refusal, None, None));
    ctx.close(Some(CloseReason { code, description }));
    ctx.stop();
}

/// Milliseconds since 1970, as JavaScript counts time.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
