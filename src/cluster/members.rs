//! Members: which nodes there are, by what they say and how long they have been silent. Pure: it is told the time. Knows no engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::cluster::stats::PeerCounts;
use crate::ids::NodeId;

#[derive(Debug)]
pub(crate) struct Members {
    silence_max: Duration,
    known: BTreeMap<NodeId, Member>,
    /// When the silences were looked at last.
    looked: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: Arc<str>,
    heard: Instant,
    pub(crate) counts: Arc<PeerCounts>,
}

impl Members {
    pub(crate) fn new(silence_max: Duration) -> Self {
        Self { silence_max, known: BTreeMap::new(), looked: None }
    }

    /// A node says that it is here. `true`: it was not known.
    pub(crate) fn hello(&mut self, node: NodeId, name: &str, now: Instant) -> bool {
        if let Some(member) = self.known.get_mut(&node) {
            member.hear(now);
            return false;
        }
        self.known.insert(node, Member { name: name.into(), heard: now, counts: Arc::new(PeerCounts::new(now)) });
        true
    }

    /// Anything came from a node: of a broadcast, so many bytes.
    pub(crate) fn heard(&mut self, node: NodeId, broadcast_bytes: Option<usize>, now: Instant) {
        if let Some(member) = self.known.get_mut(&node) {
            member.hear(now);
            if let Some(bytes) = broadcast_bytes {
                member.counts.received(bytes);
            }
        }
    }

    /// What is counted of a node, if it is a member.
    pub(crate) fn counts(&self, node: NodeId) -> Option<&PeerCounts> {
        self.known.get(&node).map(|member| &*member.counts)
    }

    /// A node says that it leaves, or the engine saw it go.
    pub(crate) fn bye(&mut self, node: NodeId) -> Option<Member> {
        self.known.remove(&node)
    }

    /// Those that have been silent for too long are gone. To be called several times within that time: where it was not, it is this node that slept,
    /// and it accuses nobody of what it did not hear.
    pub(crate) fn silent(&mut self, now: Instant) -> Vec<(NodeId, Member)> {
        let asleep = self.looked.is_some_and(|looked| now.saturating_duration_since(looked) > self.silence_max / 2);
        self.looked = Some(now);
        if asleep {
            self.known.values_mut().for_each(|member| member.heard = now);
        }
        let silence_max = self.silence_max;
        let mut silent = Vec::new();
        self.known.retain(|node, member| {
            let keep = now.saturating_duration_since(member.heard) < silence_max;
            if !keep {
                silent.push((*node, member.clone()));
            }
            keep
        });
        silent
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.known.contains_key(&node)
    }

    pub(crate) fn name(&self, node: NodeId) -> Option<&Arc<str>> {
        self.known.get(&node).map(|member| &member.name)
    }

    pub(crate) fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Member)> {
        self.known.iter().map(|(node, member)| (*node, member))
    }
}

impl Member {
    fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.counts.heard(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::from_bits(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn members() -> (Members, Instant) {
        (Members::new(SECOND * 5), Instant::now())
    }

    fn gone(members: &mut Members, now: Instant) -> usize {
        members.silent(now).len()
    }

    #[test]
    fn a_node_is_up_once_and_down_once_after_its_silence() {
        let (mut members, start) = members();
        assert!(members.hello(A, "a", start));
        assert!(!members.hello(A, "a", start + SECOND));
        let downs: Vec<_> = (1..20).map(|second| gone(&mut members, start + SECOND * second)).collect();
        assert_eq!((downs.iter().sum::<usize>(), downs[5]), (1, 1), "silent since second 1, down at second 6");
        assert!(members.hello(A, "a", start + SECOND * 30));
    }

    #[test]
    fn anything_heard_keeps_a_member_and_makes_none() {
        let (mut members, start) = members();
        members.heard(A, None, start);
        assert!(!members.contains(A));
        members.hello(A, "a", start);
        for second in 1..20 {
            members.heard(A, Some(1), start + SECOND * second);
            assert_eq!(gone(&mut members, start + SECOND * second), 0);
        }
    }

    #[test]
    fn a_node_that_slept_itself_accuses_nobody() {
        let (mut members, start) = members();
        members.hello(A, "a", start);
        assert_eq!(gone(&mut members, start), 0);
        assert_eq!(gone(&mut members, start + SECOND * 30), 0);
        assert_eq!((gone(&mut members, start + SECOND * 32), gone(&mut members, start + SECOND * 34)), (0, 0));
        assert_eq!(gone(&mut members, start + SECOND * 35), 1, "but it is not granted more than that");
    }

    #[test]
    fn who_leaves_is_gone_at_once_and_once() {
        let (mut members, start) = members();
        members.hello(A, "a", start);
        assert_eq!(members.bye(A).map(|member| member.name), Some("a".into()));
        assert_eq!((members.bye(A).is_none(), gone(&mut members, start + SECOND * 9)), (true, 0));
    }
}
