//! Roster: who is in which room, and the one place that announces who came and left. Knows no sockets and reads no messages.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use actix::Actor;
use actix::Context;
use actix::Handler;
use actix::Message;
use actix::MessageResult;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use serde::Serialize;

use crate::messages::Guest;
use crate::messages::Presence;

/// The actor. All changes of all rooms pass through its mailbox, so that everyone sees them in one order, numbered.
pub(crate) struct Roster {
    pubsub: PubSub,
    rooms: HashMap<Topic, Room>,
    /// Changes of all rooms so far: where a room that is made anew begins to count, so that none counts backwards.
    changes: u64,
}

struct Room {
    version: u64,
    guests: BTreeMap<Arc<str>, Guest>,
}

impl Roster {
    pub(crate) fn new(pubsub: PubSub) -> Self {
        Self { pubsub, rooms: HashMap::new(), changes: 0 }
    }
}

impl Actor for Roster {
    type Context = Context<Self>;
}

/// A connection came into a room, or left it: what `WebSocket::observe` tells, however a connection ends.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Moved {
    pub(crate) topic: Topic,
    pub(crate) guest: Guest,
    pub(crate) came: bool,
}

impl Handler<Moved> for Roster {
    type Result = ();

    fn handle(&mut self, Moved { topic, guest, came }: Moved, _: &mut Self::Context) {
        let room = self.rooms.entry(topic.clone()).or_insert_with(|| Room { version: self.changes, guests: BTreeMap::new() });
        let changed = if came {
            room.guests.insert(Arc::clone(&guest.session), guest.clone()).is_none()
        } else {
            room.guests.remove(&guest.session).is_some()
        };
        if changed {
            (self.changes, room.version) = (self.changes + 1, room.version + 1);
            let (version, total) = (room.version, room.guests.len());
            // Of this node's guests; those of another node have a roster there. Refused only when the server goes down: then there is nobody to tell.
            let _ = self.pubsub.local_broadcast(&topic, Presence { came, guest, version, total });
        }
        if room.guests.is_empty() {
            self.rooms.remove(&topic);
        }
    }
}

/// Asks who is in a room.
#[derive(Debug, Message)]
#[rtype(result = "Present")]
pub(crate) struct Who(pub(crate) Topic);

/// Who is in a room, as of `version`: up to [`LISTED_MAX`] of them, `total` in all.
#[derive(Debug, Serialize)]
pub(crate) struct Present {
    version: u64,
    total: usize,
    people: Vec<Guest>,
}

impl Handler<Who> for Roster {
    type Result = MessageResult<Who>;

    fn handle(&mut self, Who(topic): Who, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.rooms.get(&topic).map_or(Present { version: self.changes, total: 0, people: Vec::new() }, |room| {
            Present {
                version: room.version,
                total: room.guests.len(),
                people: room.guests.values().take(LISTED_MAX).cloned().collect(),
            }
        }))
    }
}

/// Asks how many are in each room.
#[derive(Debug, Message)]
#[rtype(result = "BTreeMap<Topic, usize>")]
pub(crate) struct Count;

impl Handler<Count> for Roster {
    type Result = MessageResult<Count>;

    fn handle(&mut self, _: Count, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.rooms.iter().map(|(topic, room)| (topic.clone(), room.guests.len())).collect())
    }
}

/// Some 40 KB of JSON for each who comes into a crowded room.
const LISTED_MAX: usize = 500;
