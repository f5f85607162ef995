//! Sim: whole clusters of cores on an imagined network, in imagined time, by seeds. A broker or a mesh of peers; links that are cut, nodes that pause
//! and die, frames that vanish, splits. `SEEDS=n` runs more of them, `SEED=n` one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;

use crate::cluster::core::Action;
use crate::cluster::core::Ask;
use crate::cluster::core::Core;
use crate::cluster::core::Received;
use crate::cluster::core::Timing;
use crate::cluster::event::ClusterEvent;
use crate::cluster::frame;
use crate::cluster::frame::Fields;
use crate::cluster::frame::Frame;
use crate::cluster::frame::Kind;
use crate::cluster::subject::Subject;
use crate::cluster::transport::Outgoing;
use crate::cluster::transport::TransportCaps;
use crate::ids::NodeId;
use crate::topic::Topic;

const TIMING: Timing =
    Timing { heartbeat: Duration::from_millis(100), failure: Duration::from_secs(1), linger: Duration::from_millis(150) };

/// What may happen beside subscribing and broadcasting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each may be there or not")]
struct Faults {
    links: bool,
    pauses: bool,
    deaths: bool,
    losses: bool,
    splits: bool,
}

const NONE: Faults = Faults { links: false, pauses: false, deaths: false, losses: false, splits: false };

/// Numbers from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

struct Node {
    id: NodeId,
    core: Core,
    listens: BTreeSet<Topic>,
    /// Changed, and not told to the core yet.
    changed: BTreeSet<Topic>,
    ready: HashSet<Topic>,
    /// Who listens to what, as this node was told, and whether it gets it now.
    others: HashMap<Topic, BTreeMap<NodeId, bool>>,
    link: bool,
    linked_at: Instant,
    paused_until: Instant,
    ticked: Instant,
    /// The engine has not seen it, has seen it, for what is asked.
    asking: Option<(Ask, bool)>,
    up: BTreeSet<NodeId>,
    /// How often it was told that another is down, and up.
    told_of: HashMap<NodeId, (u32, u32)>,
    told_link: bool,
    /// What it broadcast, by topic.
    sent: HashMap<Topic, Vec<u64>>,
    /// What it got, by origin and topic: the event, and what was lost since the first.
    got: HashMap<(NodeId, Topic), (Vec<u64>, u64)>,
    /// The last event of each origin.
    last: HashMap<NodeId, u64>,
    all: HashSet<u64>,
    ever: HashSet<Topic>,
}

impl Node {
    /// Another node gets nothing now.
    fn deafen(&mut self, other: NodeId) {
        for nodes in self.others.values_mut() {
            nodes.entry(other).and_modify(|hears| *hears = false);
        }
    }

    /// It listens to nothing, or to nothing that it did not name again.
    fn forget(&mut self, other: NodeId, what: impl Fn(bool) -> bool) {
        for nodes in self.others.values_mut() {
            nodes.retain(|node, hears| *node != other || !what(*hears));
        }
    }
}

/// What carries the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Net {
    /// It knows topics, and all frames of a node come by one way.
    Broker,
    /// The nodes tell each other what they listen to; between two of them nothing is lost but by a split.
    Mesh,
    /// The same, and frames vanish one by one.
    LossyMesh,
}

impl Net {
    const ALL: [Self; 3] = [Self::Broker, Self::Mesh, Self::LossyMesh];

    fn caps(self) -> TransportCaps {
        let caps = TransportCaps::new("sim");
        match self {
            Self::Broker => caps,
            Self::Mesh => caps.peer_interest(),
            Self::LossyMesh => caps.peer_interest().silent_loss(),
        }
    }
}

struct World {
    now: Instant,
    random: Random,
    broker: bool,
    caps: TransportCaps,
    nodes: BTreeMap<NodeId, Node>,
    dead: HashSet<NodeId>,
    /// What the broker knows.
    asked: HashMap<NodeId, HashSet<Subject>>,
    /// Frames on their way, from one to another; by a broker all come from one.
    ways: BTreeMap<(NodeId, NodeId), VecDeque<Bytes>>,
    /// Frames on their way to the broker.
    to_broker: BTreeMap<NodeId, VecDeque<Outgoing>>,
    topics: Vec<Topic>,
    events: u64,
    next_node: u64,
    /// An event, who sent it, and who must get it.
    owed: Vec<(u64, NodeId, NodeId)>,
    split: Option<Split>,
    seed: u64,
}

/// A mesh in two halves, between which nothing passes. What is sent from one to the other waits, as in a socket's buffer.
struct Split {
    /// Those of one half.
    half: HashSet<NodeId>,
    since: Instant,
    until: Instant,
}

impl World {
    fn new(seed: u64, net: Net, nodes: usize, topics: usize) -> Self {
        let broker = net == Net::Broker;
        let mut world = Self {
            now: Instant::now(),
            random: Random(seed),
            broker,
            caps: net.caps(),
            nodes: BTreeMap::new(),
            dead: HashSet::new(),
            asked: HashMap::new(),
            ways: BTreeMap::new(),
            to_broker: BTreeMap::new(),
            topics: (0..topics).map(|at| Topic::parse(&format!("t{at}")).unwrap()).collect(),
            events: 0,
            next_node: 1,
            owed: Vec::new(),
            split: None,
            seed,
        };
        for _ in 0..nodes {
            world.born();
        }
        world
    }

    fn born(&mut self) {
        let id = NodeId::from_bits(self.next_node);
        self.next_node += 1;
        let node = Node {
            id,
            core: Core::new(id, "n".into(), self.caps, TIMING, 1 << 20),
            listens: BTreeSet::new(),
            changed: BTreeSet::new(),
            ready: HashSet::new(),
            others: HashMap::new(),
            link: false,
            linked_at: self.now,
            paused_until: self.now,
            ticked: self.now,
            asking: None,
            up: BTreeSet::new(),
            told_of: HashMap::new(),
            told_link: false,
            sent: HashMap::new(),
            got: HashMap::new(),
            last: HashMap::new(),
            all: HashSet::new(),
            ever: HashSet::new(),
        };
        self.nodes.insert(id, node);
    }

    fn any(&mut self) -> NodeId {
        let at = self.random.below(self.nodes.len());
        *self.nodes.keys().nth(at).unwrap()
    }

    fn topic(&mut self) -> Topic {
        let at = self.random.below(self.topics.len());
        self.topics[at].clone()
    }

    // ---- what happens ------------------------------------------------------------------------------------------------

    fn step(&mut self, faults: Faults, quiet: bool) {
        self.now += Duration::from_millis(self.random.below(4) as u64);
        if self.split.as_ref().is_some_and(|split| split.until <= self.now) {
            self.heal();
        }
        let id = self.any();
        match self.random.below(if quiet { 60 } else { 100 }) {
            0..40 => self.turn(id),
            // From 40 to 60 as what is not to happen now.
            60..75 => self.broadcast(id),
            // Who stays for a while has something to lose.
            75..88 if faults == NONE || self.random.chance(10) => self.subscribe(id),
            // Rarer than what they disturb: mostly the links are up, and everybody is awake.
            88..91 if faults.links && self.random.chance(4) => self.cut(id),
            91..93 if faults.pauses && self.random.chance(4) => {
                let pause = self.random.below(3_000) as u64;
                self.nodes.get_mut(&id).unwrap().paused_until = self.now + Duration::from_millis(pause);
            }
            93 if faults.deaths && self.nodes.len() > 2 && self.random.chance(10) => {
                self.nodes.remove(&id);
                self.dead.insert(id);
                self.asked.remove(&id);
                self.to_broker.remove(&id);
                self.ways.retain(|(from, to), _| *from != id && *to != id);
                self.born();
            }
            94..97 if faults.losses => self.lose(),
            97 if faults.splits && self.split.is_none() && self.random.chance(10) => {
                let time = Duration::from_millis(self.random.below(2_500) as u64);
                let ids: Vec<_> = self.nodes.keys().copied().collect();
                let half = ids.into_iter().filter(|_| self.random.chance(50)).collect();
                self.split(half, time);
            }
            97 if faults.splits => self.part(id),
            _ => self.carry(),
        }
        // The network is faster than those who send, or ever more would be on its way.
        for _ in 0..self.random.below(3 * self.nodes.len()) {
            self.carry();
        }
    }

    fn subscribe(&mut self, id: NodeId) {
        let topic = self.topic();
        let node = self.nodes.get_mut(&id).unwrap();
        if !node.listens.remove(&topic) {
            node.listens.insert(topic.clone());
            node.ever.insert(topic.clone());
            // What it got before belonged to another subscription.
            node.got.retain(|(_, of), _| *of != topic);
        }
        node.changed.insert(topic);
    }

    fn broadcast(&mut self, id: NodeId) {
        let topic = self.topic();
        self.broadcast_to(id, &topic);
    }

    fn broadcast_to(&mut self, id: NodeId, topic: &Topic) {
        self.events += 1;
        let event = self.events;
        let owed: Vec<_> = self
            .nodes
            .values()
            .filter(|other| other.id != id && other.listens.contains(topic) && other.ready.contains(topic))
            .filter(|other| self.broker || (other.up.contains(&id) && self.nodes[&id].up.contains(&other.id)))
            .filter(|other| !self.parted(id, other.id))
            .map(|other| other.id)
            .collect();
        let node = self.nodes.get_mut(&id).unwrap();
        let subject = Subject::Topic(topic.clone());
        if !self.broker && node.others.get(topic).is_none_or(BTreeMap::is_empty) {
            // Nobody listens, as far as it knows: it has no number.
            assert!(owed.is_empty(), "seed {}: {owed:?} listen to {topic}, and {id} does not know", self.seed);
            let forgotten = self.nodes.values().find(|other| {
                other.listens.contains(topic)
                    && other.got.contains_key(&(id, topic.clone()))
                    && self.nodes[&id].up.contains(&other.id)
            });
            // It was never told as down, so it must be told of what it misses.
            assert!(forgotten.is_none(), "seed {}: {id} forgot {:?}, which is up", self.seed, forgotten.map(|other| other.id));
            return;
        }
        node.sent.entry(topic.clone()).or_default().push(event);
        if !node.link {
            node.core.refused(&subject, 1, self.now);
            return;
        }
        let fields = Fields { topic: topic.as_str(), message: "m", codec: "c", ..Fields::default() };
        let frame = frame::encode(Kind::Event, id, &fields, &event.to_le_bytes());
        let outgoing = node.core.number(subject, frame, self.now);
        self.owed.extend(owed.into_iter().map(|to| (event, id, to)));
        self.send(id, outgoing);
    }

    fn send(&mut self, id: NodeId, outgoing: Outgoing) {
        if !self.nodes[&id].link {
            return;
        }
        if self.broker {
            self.to_broker.entry(id).or_default().push_back(outgoing);
            return;
        }
        let to: Vec<NodeId> = match &outgoing.subject {
            Subject::All => self.nodes.keys().copied().filter(|other| *other != id).collect(),
            Subject::Node(node) => vec![*node],
            Subject::Topic(topic) => {
                let nodes = self.nodes[&id].others.get(topic).into_iter().flatten();
                nodes.filter(|(_, hears)| **hears).map(|(node, _)| *node).collect()
            }
        };
        for other in to {
            if self.nodes.get(&other).is_some_and(|other| other.link) {
                self.ways.entry((id, other)).or_default().push_back(outgoing.frame.clone());
            }
        }
    }

    /// The network brings something on.
    fn carry(&mut self) {
        if self.broker {
            let senders: Vec<_> = self.to_broker.iter().filter(|(_, way)| !way.is_empty()).map(|(id, _)| *id).collect();
            if !senders.is_empty() && self.random.chance(60) {
                let from = senders[self.random.below(senders.len())];
                let outgoing = self.to_broker.get_mut(&from).unwrap().pop_front().unwrap();
                for (to, subjects) in &self.asked {
                    if subjects.contains(&outgoing.subject) {
                        self.ways.entry((NodeId::from_bits(0), *to)).or_default().push_back(outgoing.frame.clone());
                    }
                }
            }
            let id = self.any();
            let node = self.nodes.get_mut(&id).unwrap();
            if let Some((ask, seen)) = &mut node.asking
                && node.link
            {
                *seen = true;
                let subjects = self.asked.entry(id).or_default();
                match ask {
                    Ask::Subscribe(topics) => subjects.extend(topics.iter().cloned().map(Subject::Topic)),
                    Ask::Unsubscribe(topics) => topics.iter().for_each(|topic| {
                        subjects.remove(&Subject::Topic(topic.clone()));
                    }),
                }
            }
        }
        let passes = |(from, to): &(NodeId, NodeId)| !self.parted(*from, *to);
        let ways = self.ways.iter().filter(|(_, way)| !way.is_empty()).map(|(ends, _)| *ends);
        let ways: Vec<_> = ways.filter(passes).collect();
        if ways.is_empty() {
            return;
        }
        let (from, to) = ways[self.random.below(ways.len())];
        if self.nodes[&to].paused_until > self.now {
            return;
        }
        for _ in 0..=self.random.below(8) {
            let Some(frame) = self.ways.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { break };
            self.receive(to, &frame);
        }
    }

    /// Two halves from now on. Where there is a broker, it is in the other one.
    fn split(&mut self, half: HashSet<NodeId>, time: Duration) {
        let until = self.now + time;
        if self.broker {
            for id in half {
                self.cut(id);
                self.nodes.get_mut(&id).unwrap().linked_at = until;
            }
            return;
        }
        // What is on its way across may not arrive any more.
        self.owed.retain(|(_, from, to)| half.contains(from) == half.contains(to));
        self.split = Some(Split { half, since: self.now, until });
    }

    fn parted(&self, one: NodeId, other: NodeId) -> bool {
        self.split.as_ref().is_some_and(|split| split.half.contains(&one) != split.half.contains(&other))
    }

    /// The engine of this node gives up a connection to the other half, if it has waited for long enough. That of the other end may not have noticed.
    fn part(&mut self, id: NodeId) {
        let others: Vec<_> = self.nodes.keys().copied().filter(|other| self.parted(id, *other)).collect();
        let waited = self.split.as_ref().is_some_and(|split| self.now - split.since >= TIMING.failure / 2);
        if others.is_empty() || !waited {
            return;
        }
        let other = others[self.random.below(others.len())];
        self.ways.retain(|ends, _| *ends != (id, other) && *ends != (other, id));
        let now = self.now;
        self.nodes.get_mut(&id).unwrap().core.disconnected(other, now);
        self.act(id);
    }

    /// One mesh again. What has waited for too long has gone with its connection.
    fn heal(&mut self) {
        let Some(split) = self.split.take() else { return };
        for ((from, to), way) in &mut self.ways {
            let crosses = split.half.contains(from) != split.half.contains(to);
            if crosses && (self.now - split.since >= TIMING.failure || self.random.chance(50)) {
                way.clear();
            }
        }
    }

    fn lose(&mut self) {
        let ways: Vec<_> = self.ways.iter().filter(|(_, way)| !way.is_empty()).map(|(ends, _)| *ends).collect();
        if let Some(ends) = (!ways.is_empty()).then(|| ways[self.random.below(ways.len())]) {
            let way = self.ways.get_mut(&ends).unwrap();
            let at = self.random.below(way.len());
            way.remove(at);
        }
    }

    fn receive(&mut self, to: NodeId, bytes: &Bytes) {
        let seed = self.seed;
        let node = self.nodes.get_mut(&to).unwrap();
        let before = Frame::decode(bytes, usize::MAX).unwrap();
        if before.kind == Kind::Event && before.origin != to {
            let topic = before.topic().unwrap();
            assert!(node.ever.contains(&topic), "seed {seed}: {to} never listened to {topic}");
        }
        let received = node.core.receive(bytes, self.now);
        let delivered = match received {
            Received::Deliver { topic, frame } => {
                let event = u64::from_le_bytes(frame.payload.try_into().unwrap());
                Some((frame.origin, topic, event))
            }
            Received::Refused(error) => panic!("seed {seed}: {error}"),
            Received::Taken | Received::Own | Received::Old | Received::Unasked => None,
        };
        self.act(to);
        let node = self.nodes.get_mut(&to).unwrap();
        if let Some((origin, topic, event)) = delivered {
            assert_ne!(origin, to, "seed {seed}: its own");
            assert!(node.all.insert(event), "seed {seed}: {to} got {event} twice");
            let last = node.last.insert(origin, event);
            assert!(last.is_none_or(|last| last < event), "seed {seed}: {to} got {event} of {origin} after {last:?}");
            // What comes before the topic is ready comes by chance: it is counted from the first after that.
            let counts = node.ready.contains(&topic) || node.got.contains_key(&(origin, topic.clone()));
            if node.listens.contains(&topic) && counts {
                node.got.entry((origin, topic)).or_default().0.push(event);
            }
        }
        self.act(to);
    }

    fn cut(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        if !node.link {
            return;
        }
        node.link = false;
        node.asking = None;
        // Half of them are back before anybody else has noticed.
        let longest = if self.random.chance(50) { 300 } else { 2_500 };
        let node = self.nodes.get_mut(&id).unwrap();
        node.linked_at = self.now + Duration::from_millis(self.random.below(longest) as u64);
        node.core.link_down("cut".into(), self.now);
        self.asked.remove(&id);
        self.to_broker.remove(&id);
        for ((from, to), way) in &mut self.ways {
            if *from == id || *to == id {
                way.clear();
            }
        }
        self.act(id);
    }

    /// A turn of a node's relay.
    fn turn(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        if node.paused_until > now {
            return;
        }
        if !node.link && node.linked_at <= now {
            node.link = true;
            self.asked.insert(id, [Subject::All, Subject::Node(id)].into());
            node.core.link_up(now);
        }
        if now.saturating_duration_since(node.ticked) >= TIMING.heartbeat / 4 {
            node.ticked = now;
            node.core.tick(now);
        }
        for topic in std::mem::take(&mut node.changed) {
            node.core.listens(&topic, node.listens.contains(&topic), now);
        }
        // As the relay does it: before a topic is left, so that it is not said to be ready after that.
        self.act(id);
        let node = self.nodes.get_mut(&id).unwrap();
        match node.asking.take() {
            Some((Ask::Subscribe(topics), true)) => node.core.confirmed(topics),
            Some(waits @ (_, false)) => node.asking = Some(waits),
            Some((Ask::Unsubscribe(_), true)) | None => {}
        }
        while node.asking.is_none() && node.link {
            let (listens, ready) = (&node.listens, &mut node.ready);
            let ask = node.core.ask(now, |topic| {
                let gone = !listens.contains(topic);
                if gone {
                    ready.remove(topic);
                }
                gone
            });
            let Some(ask) = ask else { break };
            // Where there is nobody to ask it is confirmed in the next turn, as the relay does it.
            node.asking = Some((ask, !node.core.engine_routes()));
        }
        node.core.tell_peers(now);
        self.act(id);
    }

    fn act(&mut self, id: NodeId) {
        let seed = self.seed;
        while let Some(action) = self.nodes.get_mut(&id).unwrap().core.action() {
            let node = self.nodes.get_mut(&id).unwrap();
            match action {
                Action::Send(outgoing) => self.send(id, outgoing),
                Action::Ready(topic) => {
                    node.ready.insert(topic);
                }
                Action::Unready => node.ready.clear(),
                Action::Listens { node: other, anew, more, less, settled } => {
                    if anew {
                        node.deafen(other);
                    }
                    for topic in more {
                        node.others.entry(topic).or_default().insert(other, true);
                    }
                    for topic in less {
                        node.others.entry(topic).or_default().remove(&other);
                    }
                    if settled {
                        node.forget(other, |hears| !hears);
                    }
                }
                Action::Deaf(other) => node.deafen(other),
                Action::Forget(other) => node.forget(other, |_| true),
                Action::Tell(ClusterEvent::NodeRefused { node }) => panic!("seed {seed}: {node:?} has the same settings"),
                Action::Tell(ClusterEvent::NodeUp { node: other }) => {
                    assert!(node.up.insert(other.id), "seed {seed}: {} is up twice", other.id);
                    node.told_of.entry(other.id).or_default().1 += 1;
                }
                Action::Tell(ClusterEvent::NodeDown { node: other, .. }) => {
                    assert!(node.up.remove(&other.id), "seed {seed}: {} is down twice", other.id);
                    node.told_of.entry(other.id).or_default().0 += 1;
                }
                Action::Tell(ClusterEvent::LinkUp) => {
                    assert!(!std::mem::replace(&mut node.told_link, true), "seed {seed}: the link is up twice");
                }
                Action::Tell(ClusterEvent::LinkDown { .. }) => {
                    assert!(std::mem::replace(&mut node.told_link, false), "seed {seed}: the link is down twice");
                }
                Action::Tell(ClusterEvent::Lost { origin, topic, events }) => {
                    let topic = topic.expect("nothing is sent to one node here");
                    // Before the first that arrived it is nobody's.
                    if let Some((_, lost)) = node.got.get_mut(&(origin, topic)) {
                        *lost += events;
                    }
                }
                Action::Nodes | Action::Counted { .. } => {}
                Action::Count { to, id: ask, .. } => node.core.answer_count(to, ask, 0),
            }
        }
    }

    /// Each node broadcasts on each topic.
    fn broadcast_all(&mut self) {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for id in ids {
            for topic in self.topics.clone() {
                self.broadcast_to(id, &topic);
            }
        }
    }

    // ---- what must be true -------------------------------------------------------------------------------------------

    /// Nothing happens any more until everybody knows everything.
    fn settle(&mut self) {
        for node in self.nodes.values_mut() {
            node.paused_until = self.now;
            node.linked_at = node.linked_at.min(self.now);
        }
        self.heal();
        self.rest();
    }

    /// As long as everything takes.
    fn rest(&mut self) {
        // Simulated time enough for every time-out, and every frame on its way.
        let until = self.now + TIMING.failure * 4;
        while self.now < until {
            self.step(NONE, true);
            self.now += Duration::from_millis(8);
            let ids: Vec<_> = self.nodes.keys().copied().collect();
            for id in ids {
                self.turn(id);
            }
            for _ in 0..self.nodes.len() * 20 {
                self.carry();
            }
        }
        let passes = |world: &Self| {
            let mut ways = world.ways.iter().filter(|((from, to), _)| !world.parted(*from, *to));
            ways.any(|(_, way)| !way.is_empty()) || world.to_broker.values().any(|way| !way.is_empty())
        };
        while passes(self) {
            self.carry();
        }
    }

    fn check_settled(&self) {
        let seed = self.seed;
        for node in self.nodes.values() {
            let others: BTreeSet<_> = self.nodes.keys().copied().filter(|other| *other != node.id).collect();
            assert_eq!(node.up, others, "seed {seed}: what {} knows of the others", node.id);
            for topic in &node.listens {
                assert!(node.ready.contains(topic), "seed {seed}: {topic} is not ready on {}", node.id);
            }
            for (topic, nodes) in node.others.iter().filter(|_| !self.broker) {
                for other in nodes.keys().filter(|other| !self.dead.contains(other)) {
                    assert!(self.nodes[other].listens.contains(topic), "seed {seed}: {other} left {topic} long ago");
                }
            }
        }
    }

    fn check_owed(&self) {
        for (event, _, to) in &self.owed {
            let node = &self.nodes[to];
            assert!(node.all.contains(event), "seed {}: {to} did not get {event}, which it was owed", self.seed);
        }
    }

    /// From the first that arrived on: what was sent arrived, or was told as lost. Returns how many were.
    fn check_exact(&self) -> u64 {
        let mut told = 0;
        for node in self.nodes.values() {
            for ((origin, topic), (got, lost)) in &node.got {
                let Some(sender) = self.nodes.get(origin) else { continue };
                if !node.listens.contains(topic) {
                    continue;
                }
                let after = sender.sent[topic].iter().filter(|event| **event >= got[0]).count() as u64;
                let (got, seed) = (got.len() as u64, self.seed);
                assert_eq!(
                    got + lost,
                    after,
                    "seed {seed}: {} got {got} of {after} of {origin} on {topic}, lost {lost}",
                    node.id
                );
                told += *lost;
            }
        }
        told
    }
}

/// Of a world with faults: some seconds, in which there are several of each kind.
const STEPS: usize = 3_000;

fn seeds(default: u64, run: impl Fn(u64)) {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed);
    }
    let count = std::env::var("SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(default);
    (1..=count).for_each(run);
}

fn world(seed: u64, net: Net) -> World {
    let mut random = Random(seed ^ 0x5eed);
    let mut world = World::new(seed, net, 2 + random.below(4), 1 + random.below(3));
    world.settle();
    world
}

#[test]
fn once_ready_nothing_is_missed_or_doubled_under_churn() {
    for net in Net::ALL {
        seeds(30, |seed| {
            let mut world = world(seed, net);
            for _ in 0..1_000 {
                // A subscription that ends is owed nothing any more.
                world.step(NONE, false);
                forget_owed(&mut world);
            }
            world.settle();
            world.check_settled();
            world.check_owed();
        });
    }
}

/// Who has unsubscribed in between is owed nothing.
fn forget_owed(world: &mut World) {
    let World { owed, nodes, .. } = world;
    owed.retain(|(event, _, to)| {
        if nodes[to].all.contains(event) {
            return false;
        }
        let topic = nodes.values().flat_map(|node| &node.sent).find(|(_, events)| events.binary_search(event).is_ok());
        topic.is_none_or(|(topic, _)| nodes[to].listens.contains(topic) && nodes[to].ready.contains(topic))
    });
}

/// As [`seeds`]; each says how many events were told as lost, and some were: else nothing is shown.
fn losing_seeds(default: u64, run: impl Fn(u64) -> u64) {
    let told = Cell::new(0);
    seeds(default, |seed| told.set(told.get() + run(seed)));
    assert!(told.get() > 0 || std::env::var("SEED").is_ok(), "nothing was lost");
}

#[test]
fn after_cuts_pauses_and_splits_what_did_not_arrive_was_told_exactly() {
    for net in [Net::Broker, Net::Mesh] {
        losing_seeds(30, |seed| {
            let mut world = world(seed, net);
            for _ in 0..STEPS {
                world.step(Faults { links: true, pauses: true, splits: true, ..NONE }, false);
            }
            world.settle();
            world.check_settled();
            world.check_exact()
        });
    }
}

#[test]
fn over_peers_that_lose_frames_what_did_not_arrive_is_told_with_the_next_that_does() {
    losing_seeds(30, |seed| {
        let mut world = world(seed, Net::LossyMesh);
        for _ in 0..STEPS {
            world.step(Faults { links: true, pauses: true, deaths: false, losses: true, splits: true }, false);
        }
        world.settle();
        world.check_settled();
        world.broadcast_all();
        world.settle();
        world.check_exact()
    });
}

#[test]
fn under_splits_each_half_misses_nothing_of_itself_and_is_told_exactly_of_the_other() {
    // Where there is a broker, whoever is cut off from it has no half.
    for net in [Net::Mesh, Net::LossyMesh] {
        losing_seeds(30, |seed| {
            let mut world = world(seed, net);
            for _ in 0..STEPS {
                world.step(Faults { splits: true, ..NONE }, false);
                forget_owed(&mut world);
            }
            world.settle();
            world.check_settled();
            world.check_owed();
            world.check_exact()
        });
    }
}

#[test]
fn a_split_is_told_once_on_each_side_and_so_is_its_end() {
    seeds(4, |seed| {
        let mut random = Random(seed ^ 0x05b1_1700);
        let mut world = World::new(seed, Net::LossyMesh, 4 + random.below(3), 2);
        world.settle();
        for _ in 0..500 {
            world.step(NONE, false);
            forget_owed(&mut world);
        }
        world.settle();
        world.check_settled();
        world.nodes.values_mut().for_each(|node| node.told_of.clear());
        let half: HashSet<_> = world.nodes.keys().copied().take(1 + random.below(world.nodes.len() - 1)).collect();
        world.split(half, Duration::from_secs(3_600));
        for _ in 0..500 {
            world.step(NONE, false);
            forget_owed(&mut world);
        }
        world.rest();
        world.broadcast_all();
        world.rest();
        world.check_owed();
        for node in world.nodes.values() {
            let near: BTreeSet<_> = world.nodes.keys().copied().filter(|other| !world.parted(node.id, *other)).collect();
            let up: BTreeSet<_> = node.up.iter().copied().chain([node.id]).collect();
            assert_eq!(up, near, "seed {seed}: what {} knows of its half", node.id);
            assert!(node.listens.is_subset(&node.ready.iter().cloned().collect()), "seed {seed}: {} is not ready", node.id);
        }
        let split = world.split.as_ref().unwrap().half.clone();
        world.settle();
        world.check_settled();
        world.broadcast_all();
        world.settle();
        // Nothing crossed while there were two halves, and each has told the other as gone: what was lost was nobody's.
        world.check_exact();
        for node in world.nodes.values() {
            for other in world.nodes.keys().filter(|other| **other != node.id) {
                let crosses = u32::from(split.contains(&node.id) != split.contains(other));
                let told = node.told_of.get(other).copied().unwrap_or_default();
                assert_eq!(told, (crosses, crosses), "seed {seed}: what {} was told of {other}", node.id);
            }
        }
    });
}

#[test]
fn nodes_that_die_are_gone_and_those_that_come_are_known() {
    for net in Net::ALL {
        seeds(30, |seed| {
            let mut world = world(seed, net);
            for _ in 0..1_000 {
                world
                    .step(Faults { links: true, pauses: true, deaths: true, losses: net == Net::LossyMesh, splits: true }, false);
            }
            world.settle();
            world.check_settled();
        });
    }
}

#[test]
fn twenty_nodes_send_only_to_those_that_listen() {
    for net in Net::ALL {
        let mut world = World::new(7, net, 20, 40);
        world.settle();
        for _ in 0..20_000 {
            world.step(NONE, false);
        }
        world.settle();
        world.check_settled();
        let World { nodes, .. } = &world;
        let delivered: usize = nodes.values().map(|node| node.all.len()).sum();
        assert!(delivered > 1_000, "{delivered} were delivered");
    }
}

/// Two nodes, of which the second listens to the first, and what it is told.
struct Pair {
    cores: [Core; 2],
    now: Instant,
    topic: Topic,
    told: Vec<ClusterEvent>,
    /// The one that broadcasts is of a version whose heartbeats have no numbers.
    is_old: bool,
}

impl Pair {
    fn new(net: Net, is_old: bool) -> Self {
        let now = Instant::now();
        let core = |id| Core::new(NodeId::from_bits(id), "n".into(), net.caps(), TIMING, 1 << 20);
        let topic = Topic::parse("t").unwrap();
        let mut pair = Self { cores: [core(1), core(2)], now, topic, told: Vec::new(), is_old };
        // The second comes after the first heartbeat of the first.
        pair.cores[0].link_up(now);
        pair.carry(false);
        pair.cores[1].link_up(now);
        let topic = pair.topic.clone();
        pair.cores[1].listens(&topic, true, now);
        let asked = pair.cores[1].ask(now, |_| false);
        assert_eq!(asked, Some(Ask::Subscribe(vec![topic.clone()])));
        pair.cores[1].confirmed(vec![topic]);
        pair.time(TIMING.heartbeat / 2, true);
        pair
    }

    fn broadcast(&mut self, events: u64, passes: bool) {
        for _ in 0..events {
            let fields = Fields { topic: self.topic.as_str(), message: "m", codec: "c", ..Fields::default() };
            let frame = frame::encode(Kind::Event, NodeId::from_bits(1), &fields, &[]);
            let outgoing = self.cores[0].number(Subject::Topic(self.topic.clone()), frame, self.now);
            if passes {
                let received = self.cores[1].receive(&outgoing.frame, self.now);
                assert!(matches!(received, Received::Deliver { .. }), "{received:?}");
            }
        }
        self.carry(passes);
    }

    fn lost(&self, events: u64) -> ClusterEvent {
        ClusterEvent::Lost { origin: NodeId::from_bits(1), topic: Some(self.topic.clone()), events }
    }

    /// What each has to send passes, or vanishes.
    fn carry(&mut self, passes: bool) {
        let mut is_quiet = false;
        while !std::mem::replace(&mut is_quiet, true) {
            for at in 0..2 {
                while let Some(action) = self.cores[at].action() {
                    is_quiet = false;
                    match action {
                        Action::Send(Outgoing { frame, .. }) if passes => {
                            let strip = self.is_old && at == 0 && Frame::decode(&frame, usize::MAX).unwrap().kind == Kind::Note;
                            let frame = if strip { frame::number(frame.to_vec(), 0, 0) } else { frame };
                            assert_eq!(self.cores[1 - at].receive(&frame, self.now), Received::Taken);
                        }
                        Action::Tell(event) if at == 1 => self.told.push(event),
                        _ => {}
                    }
                }
            }
        }
    }

    fn time(&mut self, time: Duration, passes: bool) {
        let until = self.now + time;
        while self.now < until {
            self.now += TIMING.heartbeat / 4;
            for core in &mut self.cores {
                core.tick(self.now);
            }
            self.carry(passes);
        }
    }
}

/// Nobody was told of an event at the end that fell into a split shorter than the failure time-out, nor of the mark that says so: both had vanished.
#[test]
fn what_a_split_too_short_to_be_noticed_swallowed_is_told_two_heartbeats_after_it() {
    let cases = Net::ALL.into_iter().flat_map(|net| (1..=32).flat_map(move |quarters| [(net, quarters, 0), (net, quarters, 3)]));
    // What several brokers lose between two heartbeats the next event tells.
    for case @ (net, quarters, heartbeats) in cases.filter(|(net, quarters, _)| *net != Net::Broker || *quarters >= 4) {
        let mut pair = Pair::new(net, false);
        pair.broadcast(3, true);
        pair.time(TIMING.heartbeat * heartbeats, true);
        pair.told.clear();
        pair.broadcast(2, false);
        pair.time(TIMING.heartbeat / 4 * quarters, false);
        assert_eq!(pair.told, [], "{case:?}: nobody is down");
        pair.time(TIMING.heartbeat * 2, true);
        assert_eq!(pair.told, [pair.lost(2)], "{case:?}");
        pair.time(TIMING.failure * 3, true);
        pair.broadcast(1, true);
        assert_eq!(pair.told.len(), 1, "{case:?}: once");
    }
}

#[test]
fn a_heartbeat_has_a_number_and_one_of_a_version_that_gave_none_is_one_all_the_same() {
    let mut core = Core::new(NodeId::from_bits(1), "n".into(), Net::Broker.caps(), TIMING, 1 << 20);
    core.link_up(Instant::now());
    let heartbeats = std::iter::from_fn(|| core.action()).filter_map(|action| match action {
        Action::Send(Outgoing { subject: Subject::All, frame }) => Some(frame),
        _ => None,
    });
    let heartbeats: Vec<_> = heartbeats.collect();
    assert_eq!(
        heartbeats,
        [Bytes::from_static(
            b"ap\x01\x04\x01\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\x81\xa5hello\x82\xa4name\xa1n\xa8every_msd"
        )]
    );
    let mut pair = Pair::new(Net::Broker, true);
    pair.broadcast(3, true);
    pair.told.clear();
    pair.broadcast(2, false);
    pair.time(TIMING.failure / 2, false);
    pair.time(TIMING.failure * 3, true);
    assert_eq!(pair.told, [], "it is up");
    pair.broadcast(1, true);
    assert_eq!(pair.told, [pair.lost(2)]);
}

#[test]
fn nodes_of_two_settings_of_interest_do_not_meet_and_say_so() {
    let now = Instant::now();
    let node = |id, net: Net| Core::new(NodeId::from_bits(id), "n".into(), net.caps(), TIMING, 1 << 20);
    for (here, there) in [(Net::Broker, Net::Mesh), (Net::Mesh, Net::Broker)] {
        let (mut one, mut other) = (node(1, here), node(2, there));
        other.link_up(now);
        // Said again with every heartbeat, and told once.
        other.tick(now + TIMING.heartbeat);
        let mut refused = Vec::new();
        while let Some(action) = other.action() {
            if let Action::Send(Outgoing { frame, .. }) = action {
                assert_eq!(one.receive(&frame, now), Received::Taken);
            }
        }
        while let Some(action) = one.action() {
            match action {
                Action::Tell(ClusterEvent::NodeRefused { node }) => refused.push(node.id),
                Action::Tell(ClusterEvent::NodeUp { .. }) => panic!("they met"),
                _ => {}
            }
        }
        assert_eq!(refused, [NodeId::from_bits(2)], "{here:?} {there:?}");
        assert!(one.nodes().is_empty());
    }
}
