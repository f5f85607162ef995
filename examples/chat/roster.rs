//! Roster: who is in which room, and the one place that announces who came and left. Knows no sockets and reads no messages.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::Addr;
use actix::AsyncContext;
use actix::Context;
use actix::Handler;
use actix::Message;
use actix_pubsub::PubSub;

use crate::limits::LIMITS;
use crate::limits::Room;
use crate::protocol::Member;
use crate::protocol::Reply;
use crate::protocol::RoomEvent;
use crate::session::Expelled;
use crate::session::HEARTBEAT_INTERVAL;
use crate::session::Session;

/// A session's number, as the page sees it: unique among all nodes.
pub(crate) type SessionId = Arc<str>;

/// The actor. All changes of all rooms pass through its mailbox, so that everyone sees them in one order, numbered.
pub(crate) struct Roster {
    pubsub: PubSub,
    sessions: HashMap<SessionId, Guest>,
    rooms: HashMap<Room, Members>,
}

struct Guest {
    addr: Addr<Session>,
    alive: Instant,
    rooms: Vec<Room>,
}

#[derive(Default)]
struct Members {
    version: u64,
    names: BTreeMap<SessionId, Arc<str>>,
}

/// How long a session may be silent towards the roster. A session whose socket takes no more bytes is not polled, and cannot
/// notice by itself that nobody reads.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(15);

impl Roster {
    pub(crate) fn new(pubsub: PubSub) -> Self {
        Self { pubsub, sessions: HashMap::new(), rooms: HashMap::new() }
    }

    fn enter(&mut self, id: &SessionId, room: &Room, user: &Arc<str>) {
        // One that was expelled knows it by its next message.
        let Some(guest) = self.sessions.get_mut(id) else { return };
        if !guest.rooms.contains(room) {
            guest.rooms.push(room.clone());
        }
        let members = self.rooms.entry(room.clone()).or_default();
        match members.names.insert(Arc::clone(id), Arc::clone(user)) {
            Some(before) if before == *user => {}
            Some(before) => {
                members.announce(&self.pubsub, room, false, id, &before);
                members.announce(&self.pubsub, room, true, id, user);
            }
            None => members.announce(&self.pubsub, room, true, id, user),
        }
    }

    fn leave(&mut self, id: &SessionId, room: &Room) {
        if let Some(guest) = self.sessions.get_mut(id) {
            guest.rooms.retain(|joined| joined != room);
        }
        self.remove(id, room);
    }

    fn remove(&mut self, id: &SessionId, room: &Room) {
        let Some(members) = self.rooms.get_mut(room) else { return };
        if let Some(user) = members.names.remove(id) {
            members.announce(&self.pubsub, room, false, id, &user);
        }
        if members.names.is_empty() {
            self.rooms.remove(room);
        }
    }

    fn forget(&mut self, id: &SessionId) -> Option<Guest> {
        let guest = self.sessions.remove(id)?;
        for room in &guest.rooms {
            self.remove(id, room);
        }
        Some(guest)
    }

    fn tell(&self, id: &SessionId, room: &Room) {
        let (Some(guest), Some(members)) = (self.sessions.get(id), self.rooms.get(room)) else { return };
        let listed = members.names.iter().take(LIMITS.members_listed);
        guest.addr.do_send(Reply::Members {
            room: room.name().to_owned(),
            version: members.version,
            total: members.names.len(),
            members: listed.map(|(id, user)| Member { session: Arc::clone(id), user: Arc::clone(user) }).collect(),
        });
    }

    /// Ends the subscriptions of sessions that say nothing, so that nobody lingers in a room, and no event waits for them.
    fn expel_silent(&mut self, now: Instant) {
        let silent = self.sessions.iter().filter(|(_, guest)| now.duration_since(guest.alive) > SILENCE_MAX);
        for id in silent.map(|(id, _)| Arc::clone(id)).collect::<Vec<_>>() {
            if let Some(guest) = self.forget(&id) {
                self.pubsub.unsubscribe_all(&guest.addr);
                guest.addr.do_send(Expelled);
            }
        }
    }
}

impl Members {
    fn announce(&mut self, pubsub: &PubSub, room: &Room, joined: bool, session: &SessionId, user: &Arc<str>) {
        self.version += 1;
        let (room_name, session, user) = (room.name().to_owned(), session.to_string(), user.to_string());
        let (version, total) = (self.version, self.names.len());
        let event = if joined {
            RoomEvent::Joined { room: room_name, session, user, version, total }
        } else {
            RoomEvent::Left { room: room_name, session, user, version, total }
        };
        // This node's members, numbered by this node: other nodes' sockets have rosters of their own.
        // Refused only when the server goes down; then there is nobody to tell.
        let _ = pubsub.local_broadcast(room.topic(), event);
    }
}

impl Actor for Roster {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(HEARTBEAT_INTERVAL, |roster, _| roster.expel_silent(Instant::now()));
    }
}

/// What a session says to the roster.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Tell {
    /// It started.
    Arrived(SessionId, Addr<Session>),
    /// It still runs.
    Alive(SessionId),
    /// It subscribed to a room. Answered with `Reply::Members`.
    Entered(SessionId, Room, Arc<str>),
    /// It wants `Reply::Members`.
    Who(SessionId, Room),
    /// It unsubscribed from a room.
    Left(SessionId, Room),
    /// It is gone, however that came.
    Gone(SessionId),
}

impl Handler<Tell> for Roster {
    type Result = ();

    fn handle(&mut self, tell: Tell, _: &mut Self::Context) {
        match tell {
            Tell::Arrived(id, addr) => {
                self.sessions.insert(id, Guest { addr, alive: Instant::now(), rooms: Vec::new() });
            }
            Tell::Alive(id) => {
                if let Some(guest) = self.sessions.get_mut(&id) {
                    guest.alive = Instant::now();
                }
            }
            Tell::Entered(id, room, user) => {
                self.enter(&id, &room, &user);
                self.tell(&id, &room);
            }
            Tell::Who(id, room) => self.tell(&id, &room),
            Tell::Left(id, room) => self.leave(&id, &room),
            Tell::Gone(id) => {
                self.forget(&id);
            }
        }
    }
}

/// A session's line to the roster. Dropped with the session, and that is the news of its end: a close frame, a reset, a panic alike.
#[derive(Debug)]
pub(crate) struct Presence {
    id: SessionId,
    roster: Addr<Roster>,
}

impl Presence {
    pub(crate) fn new(id: SessionId, roster: Addr<Roster>) -> Self {
        Self { id, roster }
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    /// In order, and never refused: what a session may send is bounded by its own rate limits.
    pub(crate) fn tell(&self, make: impl FnOnce(SessionId) -> Tell) {
        self.roster.do_send(make(Arc::clone(&self.id)));
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.tell(Tell::Gone);
    }
}
