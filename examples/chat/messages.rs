//! Messages: what is said in a room and who comes and goes, as types that check themselves. Knows no connection.

use std::sync::Arc;

use actix_pubsub::Payload;
use actix_pubsub::Topic;
use actix_pubsub::web::Refusal;
use actix_web::http::StatusCode;
use serde::Deserialize;
use serde::Serialize;

/// What someone says. In the log of its room; an entry's id says when.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "Draft")]
pub(crate) struct Said {
    user: String,
    text: String,
    /// How the page that said it knows it again. What came by HTTP has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    cid: Option<String>,
    /// The server that it was said to, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Payload for Said {
    const NAME: &'static str = "chat.said";
}

impl Said {
    /// The same, said by this user to this server: neither is for a stranger to say.
    pub(crate) fn by(self, user: &str, node: Option<&str>) -> Self {
        Self { user: user.to_owned(), node: node.map(str::to_owned), ..self }
    }
}

/// A [`Said`] that was not checked: what the endpoint and the routes take from strangers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    pub(crate) user: String,
    pub(crate) text: String,
    pub(crate) cid: Option<String>,
    pub(crate) node: Option<String>,
}

impl TryFrom<Draft> for Said {
    type Error = Refusal;

    fn try_from(Draft { user, text, cid, node }: Draft) -> Result<Self, Refusal> {
        check_name(&user)?;
        check("text", "bytes", text.len(), TEXT_BYTES_MAX, text.trim().is_empty())?;
        check("cid", "bytes", cid.as_ref().map_or(1, String::len), CID_BYTES_MAX, false)?;
        check("node", "bytes", node.as_ref().map_or(1, String::len), NODE_BYTES_MAX, false)?;
        Ok(Self { user, text, cid, node })
    }
}

/// Someone came into a room, or left it. Broadcast to those who are there, and kept nowhere.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Presence {
    pub(crate) came: bool,
    #[serde(flatten)]
    pub(crate) guest: Guest,
    /// Counts the changes of the room: a page that sees a gap asks for the whole list.
    pub(crate) version: u64,
    /// How many are in the room now.
    pub(crate) total: usize,
}

impl Payload for Presence {
    const NAME: &'static str = "chat.presence";
}

/// One connection in a room: its id, the tab that opened it, and its user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Guest {
    pub(crate) session: Arc<str>,
    pub(crate) tab: Arc<str>,
    pub(crate) user: Arc<str>,
    /// The server that has the connection, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Arc<str>>,
}

/// The topic of a room: `room:` and its name.
pub(crate) fn room_topic(name: &str) -> Result<Topic, Refusal> {
    check("room", "bytes", name.len(), ROOM_BYTES_MAX, name.trim().is_empty())?;
    Ok(Topic::parse(&format!("{ROOM}{name}"))?)
}

/// The name of the room that a topic is; checked, since a topic may come from anyone.
pub(crate) fn room_name(topic: &Topic) -> Result<&str, Refusal> {
    let name = topic.as_str().strip_prefix(ROOM).ok_or_else(|| Refusal::denied(format!("{topic} is no room")))?;
    check("room", "bytes", name.len(), ROOM_BYTES_MAX, name.trim().is_empty())?;
    Ok(name)
}

/// What the topics of rooms begin with.
pub(crate) const ROOM: &str = "room:";

pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    check("name", "characters", name.chars().count(), NAME_CHARS_MAX, name.trim().is_empty())?;
    match name.chars().find(|&c| c.is_control() || c == '*') {
        Some(c) => Err(refuse("name", format!("name holds {c:?}"))),
        None => Ok(()),
    }
}

fn check(what: &'static str, unit: &str, value: usize, max: usize, blank: bool) -> Result<(), Refusal> {
    if value > max {
        let message = format!("{what} is {value} {unit}, the limit is {max}");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, what, message).limit(max as u64, value as u64));
    }
    if blank { Err(refuse(what, format!("{what} is blank, it needs 1 to {max} {unit}"))) } else { Ok(()) }
}

fn refuse(what: &'static str, message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, what, message)
}

/// Bytes of what is said at once.
const TEXT_BYTES_MAX: usize = 2_000;
/// Characters of a name: what a list of people has room for.
const NAME_CHARS_MAX: usize = 32;
/// Bytes of a room's name.
const ROOM_BYTES_MAX: usize = 64;
const CID_BYTES_MAX: usize = 64;
const NODE_BYTES_MAX: usize = 255;
