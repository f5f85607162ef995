//! Core: everything that the relay decides. Pure: it is told what happened and when, and says what to do. Knows no engine, no actor and no clock.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::cluster::event::ClusterEvent;
use crate::cluster::event::DownReason;
use crate::cluster::event::NodeInfo;
use crate::cluster::frame;
use crate::cluster::frame::Fields;
use crate::cluster::frame::Frame;
use crate::cluster::frame::FrameError;
use crate::cluster::frame::Kind;
use crate::cluster::interest::Interest;
use crate::cluster::members::Member;
use crate::cluster::members::Members;
use crate::cluster::note::Note;
use crate::cluster::numbers::Seen;
use crate::cluster::numbers::Sent;
use crate::cluster::numbers::Verdict;
use crate::cluster::peers::Heard;
use crate::cluster::peers::Peers;
use crate::cluster::stats::Peer;
use crate::cluster::subject::Subject;
use crate::cluster::transport::Outgoing;
use crate::cluster::transport::TransportCaps;
use crate::ids::NodeId;
use crate::topic::Topic;

/// How fast things are noticed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) heartbeat: Duration,
    pub(crate) failure: Duration,
    pub(crate) linger: Duration,
}

pub(crate) struct Core {
    me: NodeId,
    name: Arc<str>,
    caps: TransportCaps,
    timing: Timing,
    frame_bytes_max: usize,
    link: bool,
    members: Members,
    /// Members of whom it was told that they are up.
    up: HashSet<NodeId>,
    /// Of whom it was told that they and this node do not meet.
    refused: HashSet<NodeId>,
    interest: Interest,
    /// The topics that are asked for, by their names.
    names: HashMap<Box<str>, Topic>,
    peers: Peers,
    sent: Sent,
    seen: Seen,
    /// Nodes that are no members, or not any more, of which is forgotten then what they sent.
    past: HashMap<NodeId, Instant>,
    heartbeat_at: Option<Instant>,
    /// Heartbeats so far.
    beats: u64,
    /// Nodes of which a heartbeat did not come: asked all at once, at the next tick.
    skipped: HashSet<NodeId>,
    /// Something is to be told to peers.
    telling: bool,
    actions: VecDeque<Action>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    Send(Outgoing),
    Tell(ClusterEvent),
    /// The nodes that are up have changed.
    Nodes,
    /// What anyone sends to this topic arrives from now on.
    Ready(Topic),
    /// Nothing arrives any more.
    Unready,
    /// A node listens to these, and no more to those. Only where interest is told from node to node.
    Listens {
        node: NodeId,
        anew: bool,
        more: Vec<Topic>,
        less: Vec<Topic>,
        /// That is everything.
        settled: bool,
    },
    /// It gets nothing now. What it listened to still counts as listened to, so that it is told what it missed.
    Deaf(NodeId),
    /// It does not listen to anything any more.
    Forget(NodeId),
    /// A node asks how many subscribers there are.
    Count {
        to: NodeId,
        id: u64,
        topic: Topic,
    },
    /// A node says how many it has.
    Counted {
        node: NodeId,
        id: u64,
        subscribers: u64,
    },
}

/// What became of bytes that came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// To be given to this node's subscribers.
    Deliver {
        topic: Topic,
        frame: Frame<'a>,
    },
    /// It was for the relay.
    Taken,
    /// This node sent it itself.
    Own,
    /// It came before.
    Old,
    /// This node does not listen there any more.
    Unasked,
    Refused(FrameError),
}

/// What to ask the engine for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Subscribe(Vec<Topic>),
    Unsubscribe(Vec<Topic>),
}

impl Core {
    pub(crate) fn new(me: NodeId, name: Arc<str>, caps: TransportCaps, timing: Timing, frame_bytes_max: usize) -> Self {
        Self {
            me,
            name,
            caps,
            timing,
            frame_bytes_max,
            link: false,
            members: Members::new(timing.failure),
            up: HashSet::new(),
            refused: HashSet::new(),
            interest: Interest::new(timing.linger),
            names: HashMap::new(),
            peers: Peers::default(),
            // Where the way is from node to node, one may lose it without any link that ends.
            sent: Sent::new(caps.silent_loss || !caps.confirms_interest, SUBJECTS_MAX),
            seen: Seen::default(),
            past: HashMap::new(),
            heartbeat_at: None,
            beats: 0,
            skipped: HashSet::new(),
            telling: false,
            actions: VecDeque::new(),
        }
    }

    /// What is to be done next.
    pub(crate) fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    // ---- the link ----------------------------------------------------------------------------------------------------

    /// There is a link, and it takes what is sent to all and to this node.
    pub(crate) fn link_up(&mut self, now: Instant) {
        self.link = true;
        self.refused.clear();
        self.actions.push_back(Action::Tell(ClusterEvent::LinkUp));
        self.heartbeat(now);
        if !self.caps.confirms_interest {
            let members: Vec<_> = self.members.nodes().map(|(node, _)| node).collect();
            for node in members {
                self.peers.add(node);
            }
            self.telling = true;
        }
    }

    /// There is none any more, or none yet.
    pub(crate) fn link_down(&mut self, reason: Arc<str>, now: Instant) {
        self.link = false;
        self.interest.lost();
        self.peers.lost();
        self.sent.doubt(self.timing.failure * 2, now);
        // What others listen to is still the best that is known: were it forgotten, what is broadcast between the next link and the first note would have no
        // number, and nobody would learn that it was not sent.
        self.actions.push_back(Action::Unready);
        self.actions.push_back(Action::Tell(ClusterEvent::LinkDown { reason }));
    }

    /// The last that is sent.
    pub(crate) fn leave(&mut self) {
        self.send_note(Subject::All, &Note::Bye {});
    }

    // ---- time --------------------------------------------------------------------------------------------------------

    /// To be called several times a heartbeat.
    pub(crate) fn tick(&mut self, now: Instant) {
        for (node, member) in self.members.silent(now) {
            self.gone(node, &member, DownReason::Silent { silence: self.timing.failure }, now);
        }
        let over: Vec<_> = self.past.extract_if(|_, until| *until <= now).map(|(node, _)| node).collect();
        for node in over {
            if !self.members.contains(node) {
                self.seen.forget(node);
                self.actions.push_back(Action::Forget(node));
            }
        }
        if !self.link {
            return;
        }
        if self.heartbeat_at.is_none_or(|at| at <= now) {
            self.heartbeat(now);
        }
        for (subject, epoch, seq) in self.sent.due(self.timing.heartbeat, now) {
            self.send_mark(subject.clone(), &subject, epoch, seq);
        }
        if !self.skipped.is_empty() {
            let of = std::mem::take(&mut self.skipped);
            self.ask_all_marks(Some(&of));
        }
        self.telling = true;
        self.tell_peers(now);
    }

    fn heartbeat(&mut self, now: Instant) {
        self.heartbeat_at = Some(now + self.timing.heartbeat);
        self.beats += 1;
        self.send_hello(Subject::All);
    }

    /// A heartbeat of a member. Where one before it did not come, what was sent about then may not have come either, and a mark of it neither: that is asked.
    fn beat(&mut self, node: NodeId, epoch: u32, beat: u64) {
        // Without a number: of a version that gave none.
        if beat == 0 || !self.members.contains(node) {
            return;
        }
        if let Verdict::New { lost: 1.. } = self.seen.frame(node, &Subject::All, epoch, beat) {
            self.skipped.insert(node);
        }
    }

    /// With the number of the last heartbeat, also to one node: so that whoever is met sees if the next does not come.
    fn send_hello(&mut self, subject: Subject) {
        let hello = Note::Hello {
            name: self.name.to_string(),
            every_ms: self.timing.heartbeat.as_millis() as u64,
            tells: !self.caps.confirms_interest,
        };
        self.send_numbered(subject, &hello, BEATS_EPOCH, self.beats);
    }

    /// Says how far the numbers of a subject have come.
    fn send_mark(&mut self, to: Subject, of: &Subject, epoch: u32, seq: u64) {
        let topic = of.topic().map_or("", Topic::as_str);
        let mark = frame::encode(Kind::Mark, self.me, &Fields { topic, ..Fields::default() }, &[]);
        self.actions.push_back(Action::Send(Outgoing { frame: frame::number(mark, epoch, seq), subject: to }));
    }

    fn send_note(&mut self, subject: Subject, note: &Note) {
        self.send_numbered(subject, note, 0, 0);
    }

    fn send_numbered(&mut self, subject: Subject, note: &Note, epoch: u32, seq: u64) {
        let frame = frame::number(frame::encode(Kind::Note, self.me, &Fields::default(), &note.encode()), epoch, seq);
        self.actions.push_back(Action::Send(Outgoing { subject, frame }));
    }

    // ---- members -----------------------------------------------------------------------------------------------------

    fn hello_from(&mut self, node: NodeId, name: &str, tells: bool, now: Instant) {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        if tells == self.caps.confirms_interest {
            // Neither would hear what the other listens to, and each would believe that all is well.
            if self.refused.len() < REFUSED_MAX && self.refused.insert(node) {
                let node = NodeInfo { id: node, name: name.into() };
                self.actions.push_back(Action::Tell(ClusterEvent::NodeRefused { node }));
            }
            return;
        }
        // Anybody who has access to the engine can say that.
        if !self.members.contains(node) && self.members.nodes().len() >= NODES_MAX {
            return;
        }
        if !self.members.hello(node, &name, now) {
            return;
        }
        // So that it need not wait for the next heartbeat.
        self.send_hello(Subject::Node(node));
        if self.caps.confirms_interest {
            self.arrived(node);
        } else {
            self.peers.add(node);
            self.telling = true;
        }
    }

    /// From now on what it sends arrives; what did not until now is asked.
    fn arrived(&mut self, node: NodeId) {
        if let Some(name) = self.members.name(node)
            && self.up.insert(node)
        {
            let node = NodeInfo { id: node, name: Arc::clone(name) };
            self.actions.push_back(Action::Nodes);
            self.actions.push_back(Action::Tell(ClusterEvent::NodeUp { node }));
        }
        if self.seen.subjects(node).next().is_some() {
            self.ask_all_marks(Some(&HashSet::from([node])));
        }
    }

    fn gone(&mut self, node: NodeId, member: &Member, reason: DownReason, now: Instant) {
        for topic in self.peers.remove(node) {
            self.actions.push_back(Action::Ready(topic));
        }
        if !self.caps.confirms_interest {
            self.actions.push_back(if reason == DownReason::Left { Action::Forget(node) } else { Action::Deaf(node) });
        }
        // What was lost of it meanwhile is asked when it is back.
        self.seen.begin(node, &Subject::All);
        // It may only have slept, and goes on where it was.
        self.past.insert(node, now + self.timing.failure * PAST_FAILURES);
        if self.up.remove(&node) {
            let node = NodeInfo { id: node, name: Arc::clone(&member.name) };
            self.actions.push_back(Action::Nodes);
            self.actions.push_back(Action::Tell(ClusterEvent::NodeDown { node, reason }));
        }
    }

    /// The engine saw a node's connection end.
    pub(crate) fn disconnected(&mut self, node: NodeId, now: Instant) {
        if let Some(member) = self.members.bye(node) {
            self.gone(node, &member, DownReason::Disconnected, now);
        }
    }

    /// The other nodes that are up.
    pub(crate) fn nodes(&self) -> Vec<Peer> {
        let up = self.members.nodes().filter(|(node, _)| self.up.contains(node));
        let peer = |(id, member): (_, &Member)| {
            let info = NodeInfo { id, name: Arc::clone(&member.name) };
            Peer { info, counts: Arc::clone(&member.counts) }
        };
        up.map(peer).collect()
    }

    // ---- interest ----------------------------------------------------------------------------------------------------

    /// Whether a topic has subscribers on this node.
    pub(crate) fn listens(&mut self, topic: &Topic, listens: bool, now: Instant) {
        self.interest.set(topic, listens, now);
        if listens && !self.names.contains_key(topic.as_str()) {
            self.names.insert(topic.as_str().into(), topic.clone());
        }
    }

    /// What to ask the engine for next; one at a time. `gone`: whether a topic has really no subscriber any more; then it is not ready any more.
    pub(crate) fn ask(&mut self, now: Instant, gone: impl FnMut(&Topic) -> bool) -> Option<Ask> {
        if !self.link {
            return None;
        }
        let left = self.interest.leave(ASK_TOPICS_MAX, now, gone);
        if !left.is_empty() {
            for topic in &left {
                self.names.remove(topic.as_str());
                self.seen.leave(&Subject::Topic(topic.clone()));
                self.peers.leave(topic);
            }
            self.telling = true;
            return Some(Ask::Unsubscribe(left));
        }
        let asked = self.interest.ask(ASK_TOPICS_MAX);
        (!asked.is_empty()).then_some(Ask::Subscribe(asked))
    }

    /// Whether the engine knows topics. Else what [`ask`](Self::ask) gives is confirmed at once: the other nodes are told, and send to this one.
    pub(crate) fn engine_routes(&self) -> bool {
        self.caps.confirms_interest
    }

    /// The engine has confirmed them.
    pub(crate) fn confirmed(&mut self, topics: Vec<Topic>) {
        let topics = self.interest.confirmed(topics);
        for (topic, _) in topics.iter().filter(|(_, first)| *first) {
            // What came until now came by an earlier asking, or before this one was confirmed.
            self.seen.leave(&Subject::Topic(topic.clone()));
        }
        let asked: Vec<_> = topics.iter().map(|(topic, _)| topic.clone()).collect();
        self.ask_marks(&asked, None);
        for (topic, first) in topics {
            if self.caps.confirms_interest || self.peers.listen(&topic, first) {
                self.actions.push_back(Action::Ready(topic));
            }
        }
        self.telling = true;
    }

    /// Tells the peers what changed. To be called when a turn ends.
    pub(crate) fn tell_peers(&mut self, now: Instant) {
        if self.caps.confirms_interest || !self.link || !std::mem::take(&mut self.telling) {
            return;
        }
        // Also what is not asked for again yet since the link was lost: were it left out, the others would forget this node, and number nothing for it.
        for (node, note) in self.peers.notes(|| self.interest.were_on(), now) {
            self.send_note(Subject::Node(node), &note);
        }
    }

    /// Topics that are asked for.
    pub(crate) fn topics(&self) -> usize {
        self.interest.len()
    }

    // ---- sending -----------------------------------------------------------------------------------------------------

    /// Gives a frame its number.
    pub(crate) fn number(&mut self, subject: Subject, frame: Vec<u8>, now: Instant) -> Outgoing {
        let (epoch, seq) = self.sent.next(&subject, now);
        Outgoing { frame: frame::number(frame, epoch, seq), subject }
    }

    /// A broadcast goes to one node.
    pub(crate) fn sent_to(&self, node: NodeId, bytes: usize) {
        if let Some(counts) = self.members.counts(node) {
            counts.sent(bytes);
        }
    }

    /// So many frames to a subject are not sent.
    pub(crate) fn refused(&mut self, subject: &Subject, frames: u64, now: Instant) {
        self.sent.lose(subject, frames, now);
    }

    // ---- receiving ---------------------------------------------------------------------------------------------------

    /// Something came from the engine.
    pub(crate) fn receive<'a>(&mut self, bytes: &'a [u8], now: Instant) -> Received<'a> {
        if frame::origin(bytes) == Some(self.me) {
            return Received::Own;
        }
        let frame = match Frame::decode(bytes, self.frame_bytes_max) {
            Ok(frame) => frame,
            Err(error) => return Received::Refused(error),
        };
        let broadcast = matches!(frame.kind, Kind::Event | Kind::Direct);
        self.members.heard(frame.origin, broadcast.then_some(bytes.len()), now);
        let topic = match frame.kind {
            Kind::Note => return self.note(&frame, now),
            Kind::Event | Kind::Mark if !frame.fields.topic.is_empty() => match self.names.get(frame.fields.topic) {
                Some(topic) => topic.clone(),
                None => return Received::Unasked,
            },
            Kind::Mark => {
                self.mark(&frame, &Subject::Node(self.me), None, now);
                return Received::Taken;
            }
            Kind::Event => return Received::Refused(FrameError::Topic),
            Kind::Direct => match frame.topic() {
                Ok(topic) => topic,
                Err(error) => return Received::Refused(error),
            },
        };
        let direct = frame.kind == Kind::Direct;
        let subject = if direct { Subject::Node(self.me) } else { Subject::Topic(topic.clone()) };
        if frame.kind == Kind::Mark {
            self.mark(&frame, &subject, Some(topic), now);
            return Received::Taken;
        }
        if !self.counts(frame.origin, now) {
            return Received::Deliver { topic, frame };
        }
        match self.seen.frame(frame.origin, &subject, frame.epoch, frame.seq) {
            Verdict::Old => Received::Old,
            Verdict::New { lost } => {
                // What comes by chance, from before it was asked for or soon after, may have gaps.
                if lost > 0 && (direct || !self.is_early(frame.origin, &topic)) {
                    self.lost(frame.origin, (!direct).then(|| topic.clone()), lost);
                }
                Received::Deliver { topic, frame }
            }
        }
    }

    /// Whether what comes is of an earlier asking, or of one that is not confirmed yet.
    fn is_early(&self, origin: NodeId, topic: &Topic) -> bool {
        if self.caps.confirms_interest { !self.interest.was_on(topic) } else { self.peers.awaits(origin, topic) }
    }

    /// Whether what comes from this origin is counted. What is not of a member is forgotten after a while, and there may not be too much of it: an
    /// origin is what a sender says that it is.
    fn counts(&mut self, origin: NodeId, now: Instant) -> bool {
        if self.members.contains(origin) || self.seen.knows(origin) {
            return true;
        }
        let has_room = self.past.len() < STRANGERS_MAX;
        if has_room {
            self.past.insert(origin, now + self.timing.failure * PAST_FAILURES);
        }
        has_room
    }

    fn mark(&mut self, frame: &Frame<'_>, subject: &Subject, topic: Option<Topic>, now: Instant) {
        if !self.counts(frame.origin, now) || topic.as_ref().is_some_and(|topic| self.is_early(frame.origin, topic)) {
            return;
        }
        let lost = self.seen.mark(frame.origin, subject, frame.epoch, frame.seq);
        self.lost(frame.origin, topic, lost);
    }

    fn lost(&mut self, origin: NodeId, topic: Option<Topic>, events: u64) {
        if events > 0 {
            if let Some(counts) = self.members.counts(origin) {
                counts.lost(events);
            }
            self.actions.push_back(Action::Tell(ClusterEvent::Lost { origin, topic, events }));
        }
    }

    /// Frames were dropped here: whose, and how many, is asked.
    pub(crate) fn overflowed(&mut self) {
        self.ask_all_marks(None);
    }

    fn ask_all_marks(&mut self, of: Option<&HashSet<NodeId>>) {
        let on: Vec<_> = self.interest.on().cloned().collect();
        self.ask_marks(&on, of);
    }

    /// Asks every node, or these, how far it has come in those of these topics on which it has been heard.
    fn ask_marks(&mut self, topics: &[Topic], of: Option<&HashSet<NodeId>>) {
        let topics: HashSet<&Topic> = topics.iter().collect();
        let mut notes = Vec::new();
        for (node, _) in self.members.nodes().filter(|(node, _)| of.is_none_or(|of| of.contains(node))) {
            let (mut heard, mut any) = (Vec::new(), false);
            for subject in self.seen.subjects(node) {
                match subject {
                    Subject::Topic(topic) if topics.contains(topic) => heard.push(topic.clone()),
                    Subject::Node(_) => any = true,
                    Subject::Topic(_) | Subject::All => {}
                }
            }
            if heard.is_empty() && any {
                notes.push((node, Note::Marks { topics: Vec::new() }));
            }
            notes.extend(heard.chunks(MARKS_TOPICS_MAX).map(|topics| (node, Note::Marks { topics: topics.to_vec() })));
        }
        for (node, note) in notes {
            self.send_note(Subject::Node(node), &note);
        }
    }

    fn note<'a>(&mut self, frame: &Frame<'a>, now: Instant) -> Received<'a> {
        let node = frame.origin;
        let Some(note) = Note::decode(frame.payload) else {
            return Received::Refused(FrameError::Note { is_newer: Note::is_newer(frame.payload) });
        };
        match note {
            Note::Hello { name, tells, .. } => {
                self.hello_from(node, &name, tells, now);
                self.beat(node, frame.epoch, frame.seq);
            }
            Note::Bye {} => {
                if let Some(member) = self.members.bye(node) {
                    self.gone(node, &member, DownReason::Left, now);
                }
            }
            Note::Count { id, topic } => self.actions.push_back(Action::Count { to: node, id, topic }),
            Note::Counted { id, subscribers } => self.actions.push_back(Action::Counted { node, id, subscribers }),
            Note::Marks { topics } => self.answer_marks(node, topics, now),
            Note::Heard { number, lost } => {
                for Heard { topic, begins, all } in self.peers.heard(node, number, lost) {
                    if begins {
                        self.seen.begin(node, &Subject::Topic(topic.clone()));
                    }
                    if all {
                        self.actions.push_back(Action::Ready(topic));
                    }
                }
                self.telling = true;
                self.acquainted(node);
            }
            note @ Note::Interest { .. } => {
                if let Some(told) = self.peers.told(node, note) {
                    self.actions.push_back(Action::Listens {
                        node,
                        anew: told.anew,
                        more: told.more,
                        less: told.less,
                        settled: told.settled,
                    });
                    // After it is noted, so that whoever learns of it is right.
                    self.send_note(Subject::Node(node), &told.answer);
                    self.telling = true;
                    self.acquainted(node);
                }
            }
        }
        Received::Taken
    }

    fn acquainted(&mut self, node: NodeId) {
        if self.peers.acquainted(node) {
            self.arrived(node);
        }
    }

    /// What was sent before anyone's memory reaches needs no mark: who still counts it has had it, or has been told.
    fn answer_marks(&mut self, to: NodeId, topics: Vec<Topic>, now: Instant) {
        let memory = self.timing.failure * (2 * PAST_FAILURES);
        // No relay asks for more at once.
        let subjects = topics.into_iter().take(MARKS_TOPICS_MAX).map(Subject::Topic).chain([Subject::Node(to)]);
        for subject in subjects {
            let Some((epoch, seq)) = self.sent.lately(&subject, memory, now) else { continue };
            self.send_mark(Subject::Node(to), &subject, epoch, seq);
        }
    }

    // ---- counting subscribers ----------------------------------------------------------------------------------------

    /// Asks all nodes for their subscribers; gives those that are asked.
    pub(crate) fn count(&mut self, id: u64, topic: Topic) -> Vec<NodeInfo> {
        let nodes: Vec<_> = self.nodes().into_iter().map(|peer| peer.info).collect();
        if self.link && !nodes.is_empty() {
            self.send_note(Subject::All, &Note::Count { id, topic });
        }
        nodes
    }

    pub(crate) fn answer_count(&mut self, to: NodeId, id: u64, subscribers: u64) {
        self.send_note(Subject::Node(to), &Note::Counted { id, subscribers });
    }
}

/// Subjects whose numbers are kept at once; about 100 MB.
const SUBJECTS_MAX: usize = 1_000_000;
/// Of the numbers of heartbeats, which begin with the process and are never forgotten.
const BEATS_EPOCH: u32 = 1;
/// Topics in one request to the engine.
const ASK_TOPICS_MAX: usize = 10_000;
/// Topics in one note: fits every engine's frames with names of any length.
const MARKS_TOPICS_MAX: usize = 200;
/// Of a node's name as another one gives it.
const NAME_CHARS_MAX: usize = 255;
/// Other nodes; ten times as many as an engine would like.
const NODES_MAX: usize = 10_000;
/// Nodes that are told to be refused, of one link.
const REFUSED_MAX: usize = 256;
/// Origins that are no members of which the numbers are kept; about 2 MB on one topic.
const STRANGERS_MAX: usize = 10_000;
/// How many failure time-outs after a node was lost from sight its numbers are forgotten.
const PAST_FAILURES: u32 = 20;
