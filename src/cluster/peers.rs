//! Peers: where the engine does not confirm interest, the relays tell it to each other, and confirm it. Pure: it is told the time. Knows no engine.
//!
//! Each node tells each other one what it listens to, as numbered notes, one at a time, each until it is heard: first everything, then what changed. Who
//! finds that it missed one says so and is told everything anew. A topic is *heard* when every node knows of it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use crate::cluster::note::Note;
use crate::ids::NodeId;
use crate::topic::Topic;

#[derive(Debug, Default)]
pub(crate) struct Peers {
    nodes: BTreeMap<NodeId, Peer>,
    /// How many nodes have yet to hear of a topic.
    unheard: HashMap<Topic, usize>,
    /// What each of them has not heard since this node listens to it: what it sends there until then is early. Over a lost link, too.
    begins: HashMap<NodeId, HashSet<Topic>>,
    /// Nodes that were added so far.
    added: u32,
}

/// A topic of which a peer knows now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) topic: Topic,
    /// What the peer sends there counts from now on. Else it counted before the link was lost, and what was missed meanwhile is.
    pub(crate) begins: bool,
    /// All peers know of it.
    pub(crate) all: bool,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts that hold or not, whatever the others are")]
struct Peer {
    /// The number of the last note to it.
    number: u64,
    /// What it has not heard, and when it was sent.
    under_way: Option<(Note, Instant)>,
    changes: Changes,
    /// It is to be told everything.
    anew: bool,
    /// It has heard everything once.
    heard: bool,
    /// Topics whose `unheard` counts this peer.
    counted: HashSet<Topic>,
    /// The last note from it.
    got: Option<u64>,
    /// Nothing is known of it since it was added, whatever comes late: it has not heard yet that it is to tell everything.
    fresh: bool,
    /// It has told everything.
    told: bool,
    /// It tells everything anew, and has not come to the end.
    renews: bool,
    /// Both know everything of each other, and that was said.
    acquainted: bool,
}

/// What is to be told, the last word on each topic: were it told that a topic was left in between, a topic of which it has heard would be unknown to it for a while.
#[derive(Debug, Default)]
struct Changes {
    order: VecDeque<Topic>,
    listens: HashMap<Topic, bool>,
}

impl Changes {
    fn set(&mut self, topic: Topic, listens: bool) {
        if self.listens.insert(topic.clone(), listens).is_none() {
            self.order.push_back(topic);
        }
    }

    fn pop(&mut self) -> Option<(Topic, bool)> {
        let topic = self.order.pop_front()?;
        let listens = self.listens.remove(&topic)?;
        Some((topic, listens))
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// What a note from a peer means for what is known of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) answer: Note,
    /// Everything that was known of it is out of date.
    pub(crate) anew: bool,
    pub(crate) more: Vec<Topic>,
    pub(crate) less: Vec<Topic>,
    /// With this it has told everything anew.
    pub(crate) settled: bool,
}

impl Peers {
    /// A node is here. It is told everything.
    pub(crate) fn add(&mut self, node: NodeId) {
        if self.nodes.contains_key(&node) {
            return;
        }
        self.added += 1;
        // It may remember numbers of before.
        let number = u64::from(self.added) << 32;
        self.nodes.insert(node, Peer { anew: true, fresh: true, number, ..Peer::default() });
    }

    /// A node has gone. Gives the topics that nobody else had yet to hear of.
    pub(crate) fn remove(&mut self, node: NodeId) -> Vec<Topic> {
        self.begins.remove(&node);
        let counted = self.nodes.remove(&node).map(|peer| peer.counted).unwrap_or_default();
        counted.into_iter().filter(|topic| uncount(&mut self.unheard, topic)).collect()
    }

    /// This node listens to a topic from now on; `first`: it did not before the link was lost. `true`: there is nobody to hear of it.
    pub(crate) fn listen(&mut self, topic: &Topic, first: bool) -> bool {
        for (node, peer) in &mut self.nodes {
            if first {
                self.begins.entry(*node).or_default().insert(topic.clone());
            }
            if peer.counted.insert(topic.clone()) {
                *self.unheard.entry(topic.clone()).or_default() += 1;
            }
            peer.changes.set(topic.clone(), true);
        }
        !self.unheard.contains_key(topic)
    }

    /// It listens no more.
    pub(crate) fn leave(&mut self, topic: &Topic) {
        self.unheard.remove(topic);
        self.begins.values_mut().for_each(|topics| _ = topics.remove(topic));
        for peer in self.nodes.values_mut() {
            peer.counted.remove(topic);
            peer.changes.set(topic.clone(), false);
        }
    }

    /// The next notes to send; `all` is what this node listens to.
    pub(crate) fn notes<'a, I: Iterator<Item = &'a Topic>>(&mut self, all: impl Fn() -> I, now: Instant) -> Vec<(NodeId, Note)> {
        let mut notes = Vec::new();
        for (node, peer) in &mut self.nodes {
            if let Some(note) = peer.note(&all, now) {
                notes.push((*node, note));
            }
        }
        notes
    }

    /// A peer has heard the note of that number. Gives the topics of which it hears for the first time since the link is up.
    pub(crate) fn heard(&mut self, node: NodeId, number: u64, lost: bool) -> Vec<Heard> {
        let Some(peer) = self.nodes.get_mut(&node) else { return Vec::new() };
        let Some((note, _)) = peer.under_way.take_if(|_| peer.number == number) else { return Vec::new() };
        if lost {
            peer.anew = true;
            return Vec::new();
        }
        let Note::Interest { more, last, .. } = note else { return Vec::new() };
        peer.heard |= last;
        peer.fresh = false;
        let counted = more.into_iter().filter(|topic| peer.counted.remove(topic)).collect::<Vec<_>>();
        let mut begins = self.begins.get_mut(&node);
        let heard = |topic: Topic| {
            let begins = begins.as_mut().is_some_and(|begins| begins.remove(&topic));
            let all = uncount(&mut self.unheard, &topic);
            Heard { topic, begins, all }
        };
        counted.into_iter().map(heard).collect()
    }

    /// Whether a peer has yet to hear of a topic for the first time since this node listens to it.
    pub(crate) fn awaits(&self, node: NodeId, topic: &Topic) -> bool {
        self.begins.get(&node).is_some_and(|topics| topics.contains(topic))
    }

    /// A peer tells what it listens to.
    pub(crate) fn told(&mut self, node: NodeId, note: Note) -> Option<Told> {
        let Note::Interest { number, anew, last, tell, more, less } = note else { return None };
        let peer = self.nodes.get_mut(&node)?;
        // What it is being told just now it hears to the end, or says that it missed the beginning.
        if tell && peer.heard {
            // It knows nothing any more: until it has heard everything again, what it sends does not come here.
            (peer.anew, peer.heard, peer.acquainted) = (true, false, false);
        }
        let next = peer.got.is_some_and(|got| got.checked_add(1) == Some(number));
        // Numbers only grow, so an earlier one is a late copy.
        let again = peer.got.is_some_and(|got| number <= got);
        if again || (!anew && !next) {
            let answer = Note::Heard { number, lost: !again };
            return Some(Told { answer, anew: false, more: Vec::new(), less: Vec::new(), settled: false });
        }
        peer.got = Some(number);
        peer.told = last || (peer.told && !anew);
        peer.renews |= anew;
        let settled = last && std::mem::take(&mut peer.renews);
        Some(Told { answer: Note::Heard { number, lost: false }, anew, more, less, settled })
    }

    /// The link is lost, and with it every peer.
    pub(crate) fn lost(&mut self) {
        *self = Self { added: self.added, begins: std::mem::take(&mut self.begins), ..Self::default() };
    }

    /// Both have told each other everything, by now: said once, and again after one of them had to begin anew.
    pub(crate) fn acquainted(&mut self, node: NodeId) -> bool {
        let Some(peer) = self.nodes.get_mut(&node) else { return false };
        peer.heard && peer.told && !std::mem::replace(&mut peer.acquainted, peer.heard && peer.told)
    }

    #[cfg(test)]
    fn knows(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|peer| peer.heard && peer.told)
    }
}

impl Peer {
    fn note<'a, I: Iterator<Item = &'a Topic>>(&mut self, all: &impl Fn() -> I, now: Instant) -> Option<Note> {
        if let Some((note, at)) = &mut self.under_way {
            let again = now.saturating_duration_since(*at) >= AGAIN;
            return again.then(|| {
                *at = now;
                note.clone()
            });
        }
        let anew = std::mem::take(&mut self.anew);
        if anew {
            // What changed is in it.
            self.changes = Changes::default();
            all().for_each(|topic| self.changes.set(topic.clone(), true));
        } else if self.changes.is_empty() {
            return None;
        }
        let (mut more, mut less, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < NOTE_BYTES
            && let Some((topic, listens)) = self.changes.pop()
        {
            bytes += topic.as_str().len() + TOPIC_HEAD_BYTES;
            if listens { more.push(topic) } else { less.push(topic) }
        }
        self.number += 1;
        let (last, tell) = (self.changes.is_empty(), self.fresh);
        let note = Note::Interest { number: self.number, anew, last, tell, more, less };
        self.under_way = Some((note.clone(), now));
        Some(note)
    }
}

/// One node less has to hear of a topic. `true`: it was the last.
fn uncount(unheard: &mut HashMap<Topic, usize>, topic: &Topic) -> bool {
    let Some(count) = unheard.get_mut(topic) else { return false };
    *count -= 1;
    if *count == 0 {
        unheard.remove(topic);
        return true;
    }
    false
}

/// How long a note may be unheard before it is sent again.
const AGAIN: Duration = Duration::from_millis(500);
/// Names of topics in one note, in bytes.
const NOTE_BYTES: usize = 32 * 1024;
/// What `MessagePack` takes for a text of a topic's length.
const TOPIC_HEAD_BYTES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    /// One node: what it listens to, what it knows of the other.
    #[derive(Default)]
    struct Side {
        peers: Peers,
        listens: Vec<Topic>,
        knows: BTreeSet<Topic>,
        heard: BTreeSet<Topic>,
        inbox: VecDeque<Note>,
    }

    impl Side {
        fn change(&mut self, name: &str) {
            let topic = topic(name);
            if let Some(at) = self.listens.iter().position(|known| *known == topic) {
                self.listens.remove(at);
                self.heard.remove(&topic);
                self.peers.leave(&topic);
            } else {
                self.listens.push(topic.clone());
                if self.peers.listen(&topic, true) {
                    self.heard.insert(topic);
                }
            }
        }

        fn read(&mut self, from: NodeId) -> Option<Note> {
            match self.inbox.pop_front()? {
                Note::Heard { number, lost } => {
                    let known = self.peers.heard(from, number, lost);
                    self.heard.extend(known.into_iter().filter_map(|heard| heard.all.then_some(heard.topic)));
                    None
                }
                note => {
                    let told = self.peers.told(from, note)?;
                    if told.anew {
                        self.knows.clear();
                    }
                    self.knows.extend(told.more);
                    told.less.iter().for_each(|topic| {
                        self.knows.remove(topic);
                    });
                    Some(told.answer)
                }
            }
        }
    }

    const NODES: [NodeId; 2] = [NodeId::from_bits(0), NodeId::from_bits(1)];

    /// What each of two nodes does: change a topic, speak, read, lose or repeat a note, forget the other.
    fn run(steps: &[(bool, u8, u8)]) -> [Side; 2] {
        let mut sides = [Side::default(), Side::default()];
        let mut now = Instant::now();
        for (at, side) in sides.iter_mut().enumerate() {
            side.peers.add(NODES[1 - at]);
        }
        let settle =
            (0..40).flat_map(|_| [(false, 1, 0), (true, 1, 0), (false, 2, 0), (true, 2, 0), (false, 2, 0), (true, 2, 0)]);
        for (step, (which, act, with)) in steps.iter().copied().chain(settle).enumerate() {
            now += AGAIN;
            let (me, other) = (usize::from(which), 1 - usize::from(which));
            match act {
                0 => sides[me].change(["a", "b", "c"][usize::from(with) % 3]),
                1 => {
                    let side = &mut sides[me];
                    let notes = side.peers.notes(|| side.listens.iter(), now);
                    sides[other].inbox.extend(notes.into_iter().map(|(_, note)| note));
                }
                2 => {
                    let answer = sides[me].read(NODES[other]);
                    sides[other].inbox.extend(answer);
                }
                3 => drop(sides[me].inbox.pop_front()),
                4 => {
                    let first = sides[me].inbox.front().cloned();
                    sides[me].inbox.extend(first);
                }
                _ => {
                    let side = &mut sides[me];
                    side.heard.extend(side.peers.remove(NODES[other]));
                    side.knows.clear();
                    side.peers.add(NODES[other]);
                }
            }
            // The promise: a topic of which all have heard is known to the other, unless that one forgot this node just now.
            if step > steps.len() || act != 5 {
                for at in [0, 1] {
                    let told = sides[1 - at].peers.knows(NODES[at]);
                    if told && steps.iter().all(|(_, act, _)| *act != 5) {
                        for topic in &sides[at].heard {
                            assert!(sides[1 - at].knows.contains(topic), "{topic} was heard and is not known");
                        }
                    }
                }
            }
        }
        sides
    }

    #[test]
    fn two_nodes_tell_each_other_everything_and_then_what_changes() {
        let sides = run(&[(false, 0, 0), (false, 1, 0), (true, 2, 0), (false, 2, 0), (false, 0, 1), (true, 0, 2)]);
        assert_eq!(sides[1].knows, [topic("a"), topic("b")].into());
        assert_eq!(sides[0].knows, [topic("c")].into());
        assert!(sides.iter().all(|side| side.peers.knows(NODES[0]) || side.peers.knows(NODES[1])));
    }

    #[test]
    fn a_hundred_thousand_topics_are_told_in_notes_that_fit_a_frame() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let topics: Vec<_> = (0..100_000).map(|at| topic(&format!("some/topic/of/that/name/{at}"))).collect();
        peers.add(NODES[1]);
        let (mut told, mut last_seen) = (0, false);
        while !last_seen {
            let notes = peers.notes(|| topics.iter(), now);
            let [(_, note)] = &notes[..] else { panic!("one note") };
            assert!(note.encode().len() < 40_000);
            let Note::Interest { number, more, last, .. } = note else { panic!("an interest") };
            (told, last_seen) = (told + more.len(), *last);
            peers.heard(NODES[1], *number, false);
        }
        assert_eq!(told, 100_000);
    }

    #[test]
    fn a_topic_is_heard_when_the_last_node_has_heard_or_gone() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        assert!(peers.listen(&topic("alone"), true));
        peers.add(NODES[0]);
        peers.add(NODES[1]);
        let first = peers.notes(std::iter::empty, now);
        for (node, note) in first {
            let Note::Interest { number, .. } = note else { panic!("an interest") };
            peers.heard(node, number, false);
        }
        assert!(!peers.listen(&topic("a"), true));
        let notes = peers.notes(std::iter::empty, now);
        let Note::Interest { number, .. } = notes[0].1 else { panic!("an interest") };
        assert_eq!(peers.heard(notes[0].0, number, false), [Heard { topic: topic("a"), begins: true, all: false }]);
        assert_eq!(peers.remove(notes[1].0), [topic("a")]);
    }

    /// What a node missed while its link was down was not told over an engine where the others did not see that.
    #[test]
    fn after_a_lost_link_only_what_no_peer_had_heard_of_begins_anew() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let tell = |peers: &mut Peers| -> Vec<(Topic, bool)> {
            let notes = peers.notes(std::iter::empty, now);
            let Note::Interest { number, .. } = notes[0].1 else { panic!("an interest") };
            peers.heard(NODES[0], number, false).into_iter().map(|heard| (heard.topic, heard.begins)).collect()
        };
        peers.add(NODES[0]);
        assert_eq!(tell(&mut peers), []);
        peers.listen(&topic("old"), true);
        assert_eq!(tell(&mut peers), [(topic("old"), true)]);
        peers.listen(&topic("new"), true);
        peers.lost();
        peers.add(NODES[0]);
        peers.listen(&topic("old"), false);
        peers.listen(&topic("new"), false);
        assert!(peers.awaits(NODES[0], &topic("new")) && !peers.awaits(NODES[0], &topic("old")));
        // The first note is everything that is listened to; here that is what was listened to last.
        peers.nodes.get_mut(&NODES[0]).unwrap().anew = false;
        assert_eq!(tell(&mut peers), [(topic("old"), false), (topic("new"), true)]);
    }

    proptest! {
        #[test]
        fn whatever_is_lost_or_repeated_both_know_everything_in_the_end(
            steps in proptest::collection::vec((any::<bool>(), 0..6_u8, any::<u8>()), 0..60),
        ) {
            let sides = run(&steps);
            for at in [0, 1] {
                let listens: BTreeSet<_> = sides[at].listens.iter().cloned().collect();
                prop_assert_eq!(&sides[1 - at].knows, &listens);
                prop_assert_eq!(&sides[at].heard, &listens);
            }
        }

        #[test]
        fn what_was_heard_is_known_whatever_is_lost_or_repeated(
            steps in proptest::collection::vec((any::<bool>(), 0..5_u8, any::<u8>()), 0..80),
        ) {
            run(&steps);
        }
    }
}
