//! Protocol: what the page and the server say to each other, as types. Knows no sockets; main.rs documents it with examples.

use std::sync::Arc;

use actix::Message;
use actix_pubsub::Payload;
use serde::Deserialize;
use serde::Serialize;

use crate::limits::Limits;
use crate::limits::Refusal;

/// What a client may send.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Enter a room under a name; in a room that one is in already: take another name.
    Join { room: String, name: String },
    /// Leave a room.
    Leave { room: String },
    /// Say something in a room that one has joined. `cid` comes back in the broadcast and in the error.
    Say { room: String, body: String, cid: Option<String> },
    /// Ask for the member list again: after a gap in the versions.
    Who { room: String },
}

/// What everyone in a room receives: one broadcast, one serialization, whatever the number of sockets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum RoomEvent {
    /// Someone said something. `from` is the session; `None`: it came by `POST /rooms/{room}`.
    Message { room: String, from: Option<String>, user: String, body: String, cid: Option<String>, at_ms: u64 },
    /// Someone came. `version` counts the changes of the room's member list, `total` is its length after this one.
    Joined { room: String, session: String, user: String, version: u64, total: usize },
    /// Someone left, or their connection ended in whatever way.
    Left { room: String, session: String, user: String, version: u64, total: usize },
}

impl Payload for RoomEvent {
    const NAME: &'static str = "chat.room_event";
}

/// What the server says to one client.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The first message on every connection.
    Welcome { session: Arc<str>, limits: Limits },
    /// Who is in a room, as of `version`: up to `members_listed` of them, `total` in all.
    Members { room: String, version: u64, total: usize, members: Vec<Member> },
    /// `leave` is done: nothing of this room will follow.
    Parted { room: String },
    /// This client was too slow: so many events of the room were dropped just before the next one.
    Missed { room: String, events: u64 },
    /// A request was refused; the connection stays unless the socket closes with a reason.
    Error {
        #[serde(flatten)]
        refusal: Refusal,
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cid: Option<String>,
    },
}

/// One line of a member list.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Member {
    pub(crate) session: Arc<str>,
    pub(crate) user: Arc<str>,
}

/// Broadcast to all sessions, on the topic [`SERVER`], when the server goes down.
#[derive(Debug)]
pub(crate) struct GoingAway;

/// The topic of [`GoingAway`]. Every session is subscribed; no room has this name, because rooms start with `room:`.
pub(crate) const SERVER: &str = "server";
