//! Census: which nodes are up and who is where, kept equal on all of them. Knows no sockets; what it learns it tells the roster and the pages.
//!
//! ```text
//! Here ──> Census ──> Roster (of this node's pages) ──> chat.presence
//!            │  ^
//!    Moved ──┴──┴── Part, Tell ──── the Census of each other node        ClusterEvent ──> Census ──> chat.cluster ──> the pages
//! ```
//!
//! Each node owns the list of its own guests and counts the changes. Another node that sees a gap in the count, or comes up, asks for the whole list; a node that
//! goes down takes its guests along.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use actix::Addr;
use actix::AsyncContext;
use actix::Context;
use actix::Handler;
use actix::Message;
use actix::MessageResult;
use actix_pubsub::Event;
use actix_pubsub::NodeId;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::cluster::ClusterEvent;
use actix_pubsub::cluster::NodeInfo;
use serde::Deserialize;
use serde::Serialize;

use crate::messages::Guest;
use crate::messages::room_name;
use crate::roster::Moved;
use crate::roster::Roster;

/// What one census tells another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Count {
    /// A guest of the sender came or left: its change number `version`.
    Moved { version: u64, topic: Topic, guest: Guest, came: bool },
    /// Some of the sender's guests, as of `version`; `more` of them follow.
    Part { version: u64, guests: Vec<(Topic, Guest)>, more: bool },
    /// The sender wants all of the receiver's guests.
    Tell,
}

impl Payload for Count {
    const NAME: &'static str = "chat.count";
}

/// What the pages are told of the cluster, and `GET /nodes` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct News {
    /// Counts the changes on this node.
    version: u64,
    /// This node first, then those that are up, then those that were.
    nodes: Vec<Node>,
    /// Why there is no link to the others; none while there is one.
    link_down: Option<Arc<str>>,
    /// What has just been noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<Lost>,
}

impl Payload for News {
    const NAME: &'static str = "chat.cluster";
}

/// Where pages hear of it.
pub(crate) const NEWS: &str = "cluster";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Node {
    id: String,
    name: Arc<str>,
    /// Connections in rooms, one for each room.
    guests: usize,
    /// Why it is down; none while it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    down: Option<String>,
}

/// Messages of another node that did not arrive.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lost {
    node: Arc<str>,
    room: String,
    events: u64,
}

/// The actor.
pub(crate) struct Census {
    pubsub: PubSub,
    name: Arc<str>,
    roster: Addr<Roster>,
    /// Of this node.
    guests: Guests,
    /// Changes of this node's guests.
    version: u64,
    peers: HashMap<NodeId, Peer>,
    gone: VecDeque<Node>,
    link_down: Option<Arc<str>>,
    /// Changes of what the pages know.
    news: u64,
}

/// By room and connection.
type Guests = BTreeMap<(Topic, Arc<str>), Guest>;

/// Another node that is up.
struct Peer {
    name: Arc<str>,
    guests: Guests,
    /// As of which of its changes; `None`: it was asked for all.
    version: Option<u64>,
    /// The parts that came so far of what it was asked for.
    parts: Guests,
}

impl Census {
    pub(crate) fn new(pubsub: PubSub, name: Arc<str>, roster: Addr<Roster>) -> Self {
        let link_down = pubsub.stats().cluster.is_some_and(|cluster| !cluster.link_up).then(|| "connecting".into());
        Self {
            pubsub,
            name,
            roster,
            guests: Guests::new(),
            version: 0,
            peers: HashMap::new(),
            gone: VecDeque::new(),
            link_down,
            news: 0,
        }
    }

    /// What cannot be sent now is asked for again by who misses it.
    fn ask(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.version, peer.parts) = (None, Guests::new());
            let _ = self.pubsub.direct_broadcast(node, COUNTS, Count::Tell);
        }
    }

    /// One line in the terminal, for who looks there and not at the page.
    fn say(&self, what: &str) {
        // Whoever closed our standard output does not want to know.
        let _ = writeln!(io::stdout(), "cluster_chat: {}: {what}", self.name);
    }

    fn arrived(&mut self, NodeInfo { id, name, .. }: &NodeInfo) {
        if !self.peers.contains_key(id) {
            self.say(&format!("{name} is up"));
            self.gone.retain(|gone| gone.name != *name);
            let name = Arc::clone(name);
            self.peers.insert(*id, Peer { name, guests: Guests::new(), version: None, parts: Guests::new() });
            self.ask(*id);
        }
    }

    fn left(&mut self, node: NodeId, why: &str) {
        let Some(peer) = self.peers.remove(&node) else { return };
        self.say(&format!("{} is down: {why}", peer.name));
        for ((topic, _), guest) in peer.guests {
            self.roster.do_send(Moved { topic, guest, came: false });
        }
        if !self.peers.values().any(|other| other.name == peer.name) && peer.name != self.name {
            self.gone.retain(|gone| gone.name != peer.name);
            self.gone.push_front(Node { id: node.to_string(), name: peer.name, guests: 0, down: Some(why.to_owned()) });
            self.gone.truncate(GONE_MAX);
        }
    }

    /// After something was missed: what is true now.
    fn look_anew(&mut self) {
        let nodes = self.pubsub.nodes();
        let gone: Vec<_> = self.peers.keys().filter(|id| !nodes.iter().any(|node| node.id == **id)).copied().collect();
        for node in gone {
            self.left(node, "it went unseen");
        }
        for node in &nodes {
            self.arrived(node);
            self.ask(node.id);
        }
    }

    fn news(&self, lost: Option<Lost>) -> News {
        let node = |id: NodeId, name: &Arc<str>, guests: &Guests| {
            let (id, name) = (id.to_string(), Arc::clone(name));
            Node { id, name, guests: guests.len(), down: None }
        };
        let mut up: Vec<_> = self.peers.iter().map(|(id, peer)| node(*id, &peer.name, &peer.guests)).collect();
        up.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        up.insert(0, node(self.pubsub.node(), &self.name, &self.guests));
        up.extend(self.gone.iter().cloned());
        News { version: self.news, nodes: up, link_down: self.link_down.clone(), lost }
    }

    fn tell(&mut self, lost: Option<Lost>) {
        self.news += 1;
        // Refused only when the server goes down: then there is nobody to tell.
        let _ = self.pubsub.local_broadcast(NEWS, self.news(lost));
    }
}

impl Actor for Census {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // A pub/sub that is shut down already has nothing to count.
        let _ = self.pubsub.subscribe::<ClusterEvent, _>(ctx, ClusterEvent::TOPIC);
        let _ = self.pubsub.subscribe::<Count, _>(ctx, COUNTS);
        // Those that came before.
        self.look_anew();
        let link_up = self.pubsub.stats().cluster.is_some_and(|cluster| cluster.link_up);
        self.link_down = self.link_down.take().filter(|_| !link_up);
        ctx.run_interval(ASK_INTERVAL, |census, _| {
            let unknown: Vec<_> = census.peers.iter().filter(|(_, peer)| peer.version.is_none()).map(|(id, _)| *id).collect();
            for node in unknown {
                census.ask(node);
            }
        });
    }
}

/// A guest of this node came or left.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Here(pub(crate) Moved);

impl Handler<Here> for Census {
    type Result = ();

    fn handle(&mut self, Here(Moved { topic, guest, came }): Here, ctx: &mut Self::Context) {
        let key = (topic.clone(), Arc::clone(&guest.session));
        if came {
            self.guests.insert(key, guest.clone());
        } else {
            self.guests.remove(&key);
        }
        self.version += 1;
        let moved = Count::Moved { version: self.version, topic: topic.clone(), guest: guest.clone(), came };
        // Who does not get it will see the gap.
        let _ = self.pubsub.broadcast_from(&ctx.address(), COUNTS, moved);
        self.roster.do_send(Moved { topic, guest, came });
        self.tell(None);
    }
}

impl Handler<Event<Count>> for Census {
    type Result = ();

    fn handle(&mut self, event: Event<Count>, _: &mut Self::Context) {
        if event.missed() > 0 {
            self.look_anew();
        }
        let from = event.node();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        match &*event {
            Count::Moved { version, topic, guest, came } => match peer.version {
                Some(known) if *version == known + 1 => {
                    peer.version = Some(*version);
                    let key = (topic.clone(), Arc::clone(&guest.session));
                    let changed =
                        if *came { peer.guests.insert(key, guest.clone()).is_none() } else { peer.guests.remove(&key).is_some() };
                    if changed {
                        self.roster.do_send(Moved { topic: topic.clone(), guest: guest.clone(), came: *came });
                        self.tell(None);
                    }
                }
                Some(known) if *version > known => self.ask(from),
                // It is in the list that came, or will be in the one that comes.
                Some(_) | None => {}
            },
            Count::Part { version, guests, more } => {
                let keyed = guests.iter().map(|(topic, guest)| ((topic.clone(), Arc::clone(&guest.session)), guest.clone()));
                peer.parts.extend(keyed);
                if *more {
                    return;
                }
                let now = mem::take(&mut peer.parts);
                let before = mem::replace(&mut peer.guests, now.clone());
                peer.version = Some(*version);
                let left = before.iter().filter(|(key, _)| !now.contains_key(*key)).map(|entry| (entry, false));
                let came = now.iter().filter(|(key, _)| !before.contains_key(*key)).map(|entry| (entry, true));
                for (((topic, _), guest), came) in left.chain(came) {
                    self.roster.do_send(Moved { topic: topic.clone(), guest: guest.clone(), came });
                }
                self.tell(None);
            }
            Count::Tell => {
                let all: Vec<_> = self.guests.iter().map(|((topic, _), guest)| (topic.clone(), guest.clone())).collect();
                let parts = all.chunks(PART_GUESTS).len().max(1);
                for at in 0..parts {
                    let guests = all.chunks(PART_GUESTS).nth(at).unwrap_or_default().to_vec();
                    let part = Count::Part { version: self.version, guests, more: at + 1 < parts };
                    // Who does not get it asks again.
                    let _ = self.pubsub.direct_broadcast(from, COUNTS, part);
                }
            }
        }
    }
}

impl Handler<Event<ClusterEvent>> for Census {
    type Result = ();

    fn handle(&mut self, event: Event<ClusterEvent>, _: &mut Self::Context) {
        if event.missed() > 0 {
            self.look_anew();
        }
        let mut told = None;
        match &*event {
            ClusterEvent::NodeUp { node } => self.arrived(node),
            ClusterEvent::NodeDown { node, reason } => self.left(node.id, &reason.to_string()),
            ClusterEvent::LinkUp => {
                self.say("there is a link to the others");
                self.link_down = None;
            }
            ClusterEvent::LinkDown { reason } => {
                self.say(&format!("there is no link to the others: {reason}"));
                self.link_down = Some(Arc::clone(reason));
            }
            ClusterEvent::Lost { origin, topic, events } => {
                let room = topic.as_ref().and_then(|topic| room_name(topic).ok());
                match (room, self.peers.get(origin)) {
                    (Some(room), Some(peer)) => {
                        told = Some(Lost { node: Arc::clone(&peer.name), room: room.to_owned(), events: *events });
                    }
                    // Some of its changes, or of its list.
                    _ => self.ask(*origin),
                }
            }
            _ => return,
        }
        self.tell(told);
    }
}

/// Asks for the state of the cluster.
#[derive(Debug, Message)]
#[rtype(result = "News")]
pub(crate) struct State;

impl Handler<State> for Census {
    type Result = MessageResult<State>;

    fn handle(&mut self, _: State, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.news(None))
    }
}

/// Where the nodes tell each other.
const COUNTS: &str = "chat.counts";
/// Nodes that are shown as down.
const GONE_MAX: usize = 8;
/// Guests in one message: 300 KB at most, well below the longest frame.
const PART_GUESTS: usize = 500;
/// How often a node that has not answered is asked again.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
