//! Incident: what went wrong lately, kept for who comes to look. Bounded, and the same again is one more of it. Knows no one who looks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::ids::EntryId;
use crate::ids::NodeId;
use crate::sync::Mutex;
use crate::sync::lock;
use crate::topic::Topic;

/// Something that an operator wants to know of: what `PubSub::incidents` returns.
///
/// The same thing happening again within a minute is one incident, with `times` and its numbers added up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Incident {
    /// Its number: counts up from 1 in each `PubSub`.
    pub id: u64,
    /// When it happened last, in milliseconds since 1970.
    pub at_ms: u64,
    /// When it happened first.
    pub first_ms: u64,
    /// How often.
    pub times: u64,
    /// What.
    #[serde(flatten)]
    pub what: IncidentKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum IncidentKind {
    /// An actor's context was dropped by a panic.
    Panicked {
        /// Its type.
        actor: &'static str,
        /// Subscriptions that ended with it.
        subscriptions: u64,
        /// Events that waited for it.
        discarded: u64,
    },
    /// A subscriber learned that it missed events: its inbox overflowed. Told once a second per topic; of those that want the latest only, never.
    Overflowed {
        /// Its topic.
        topic: Topic,
        /// Its type.
        actor: &'static str,
        /// What was given to `SubscribeOptions::metadata`.
        metadata: Option<Arc<str>>,
        /// How many of those that were told.
        events: u64,
    },
    /// A subscriber has not taken anything while more events came than it has room for. Told once a second per arbiter.
    Stuck {
        /// Its topic.
        topic: Topic,
        /// Its type.
        actor: &'static str,
        /// What was given to `SubscribeOptions::metadata`.
        metadata: Option<Arc<str>>,
        /// How many it has missed by now.
        missed: u64,
    },
    /// A subscription with `Overflow::Disconnect` ended.
    Disconnected {
        /// Its topic.
        topic: Topic,
        /// Its type.
        actor: &'static str,
        /// Events that waited for it.
        discarded: u64,
    },
    /// An arbiter's port was full: its registry did not come to take the events out.
    PortFull {
        /// The arbiter's number.
        arbiter: u32,
        /// Events that were refused.
        refused: u64,
    },
    /// A registry panicked and was started again: a bug of this crate.
    RegistryRestarted {
        /// The arbiter's number.
        arbiter: u32,
    },
    /// A waker, a payload's drop or a mailbox panicked.
    ForeignPanic {
        /// The arbiter's number.
        arbiter: u32,
    },
    /// Entries of the log that someone asked for are gone.
    HistoryGap {
        /// The log.
        topic: Topic,
        /// The last entry that was had.
        asked_after: EntryId,
        /// How they went.
        cause: String,
    },
    /// The log could not be used, and was tried again.
    LogUnavailable {
        /// What for.
        doing: &'static str,
        /// The topic.
        topic: Topic,
        /// Why.
        error: String,
    },
    /// The thread of the log panicked: the log is closed.
    LogClosed,
    /// A consumer's handler failed; the entry comes again.
    DeliveryFailed {
        /// The topic.
        topic: Topic,
        /// The group.
        group: String,
        /// The last such entry.
        entry: EntryId,
        /// What its handler said.
        reason: String,
    },
    /// An entry was given up.
    DeadLetter {
        /// The topic.
        topic: Topic,
        /// The group.
        group: String,
        /// The last such entry.
        entry: EntryId,
        /// Why.
        reason: String,
    },
    /// An entry, or a message of another node, that is no message of its name.
    Undecodable {
        /// The topic.
        topic: Topic,
        /// The name.
        message: String,
        /// Why.
        error: String,
    },
    /// A message of another node whose name no type here has: `Builder::message` gives it one.
    UnknownMessage {
        /// Its topic, which has subscribers here.
        topic: Topic,
        /// The name.
        message: String,
    },
    /// A node of the cluster has gone.
    NodeDown {
        /// Which.
        node: NodeId,
        /// What people call it.
        name: Arc<str>,
        /// How that was noticed.
        reason: String,
    },
    /// A node of the cluster is here.
    NodeUp {
        /// Which.
        node: NodeId,
        /// What people call it.
        name: Arc<str>,
    },
    /// A node of the cluster has the other setting of `peer_interest`: the two do not meet.
    NodeRefused {
        /// Which.
        node: NodeId,
        /// What people call it.
        name: Arc<str>,
    },
    /// The connection to the cluster's engine is lost.
    LinkDown {
        /// Why.
        reason: Arc<str>,
    },
    /// The connection to the cluster's engine is there.
    LinkUp,
    /// Broadcasts of another node did not arrive.
    Lost {
        /// Whose.
        origin: NodeId,
        /// On which topic; `None`: sent to this node alone.
        topic: Option<Topic>,
        /// How many.
        events: u64,
    },
}

impl IncidentKind {
    /// What it is called: `port_full`, as in its JSON.
    pub fn name(&self) -> &'static str {
        NAMES[self.at()]
    }

    /// Where its name is.
    fn at(&self) -> usize {
        match self {
            Self::Panicked { .. } => 0,
            Self::Overflowed { .. } => 1,
            Self::Stuck { .. } => 2,
            Self::Disconnected { .. } => 3,
            Self::PortFull { .. } => 4,
            Self::RegistryRestarted { .. } => 5,
            Self::ForeignPanic { .. } => 6,
            Self::HistoryGap { .. } => 7,
            Self::LogUnavailable { .. } => 8,
            Self::LogClosed => 9,
            Self::DeliveryFailed { .. } => 10,
            Self::DeadLetter { .. } => 11,
            Self::Undecodable { .. } => 12,
            Self::NodeDown { .. } => 13,
            Self::NodeUp { .. } => 14,
            Self::LinkDown { .. } => 15,
            Self::LinkUp => 16,
            Self::Lost { .. } => 17,
            Self::UnknownMessage { .. } => 18,
            Self::NodeRefused { .. } => 19,
        }
    }

    /// Whether it is the same thing again; then its numbers are added.
    fn absorb(&mut self, again: &Self) -> bool {
        match (self, again) {
            (Self::Panicked { actor, subscriptions, discarded }, Self::Panicked { actor: a, subscriptions: s, discarded: d }) => {
                add_if(*actor == *a, [(subscriptions, *s), (discarded, *d)])
            }
            (
                Self::Overflowed { topic, actor, metadata, events },
                Self::Overflowed { topic: t, actor: a, metadata: m, events: e },
            ) => add_if((&*topic, &*actor, &*metadata) == (t, a, m), [(events, *e)]),
            (Self::Stuck { topic, actor, metadata, missed }, Self::Stuck { topic: t, actor: a, metadata: m, missed: now }) => {
                let same = (&*topic, &*actor, &*metadata) == (t, a, m);
                *missed = if same { *now } else { *missed };
                same
            }
            (Self::Disconnected { topic, actor, discarded }, Self::Disconnected { topic: t, actor: a, discarded: d }) => {
                add_if((&*topic, &*actor) == (t, a), [(discarded, *d)])
            }
            (Self::PortFull { arbiter, refused }, Self::PortFull { arbiter: a, refused: r }) => {
                add_if(arbiter == a, [(refused, *r)])
            }
            (
                Self::DeliveryFailed { topic, group, entry, reason },
                Self::DeliveryFailed { topic: t, group: g, entry: e, reason: r },
            )
            | (Self::DeadLetter { topic, group, entry, reason }, Self::DeadLetter { topic: t, group: g, entry: e, reason: r }) => {
                let same = (&*topic, &*group, &*reason) == (t, g, r);
                *entry = if same { *e } else { *entry };
                same
            }
            (Self::Undecodable { topic, message, .. }, Self::Undecodable { topic: t, message: m, .. }) => {
                (&*topic, &*message) == (t, m)
            }
            (Self::LogUnavailable { doing, topic, .. }, Self::LogUnavailable { doing: d, topic: t, .. }) => {
                (&*doing, &*topic) == (d, t)
            }
            (Self::Lost { origin, topic, events }, Self::Lost { origin: o, topic: t, events: e }) => {
                add_if((&*origin, &*topic) == (o, t), [(events, *e)])
            }
            // Going and coming are told each time: their order is what matters.
            (Self::NodeDown { .. } | Self::NodeUp { .. } | Self::LinkDown { .. } | Self::LinkUp, _) => false,
            (known, again) => known == again,
        }
    }
}

fn add_if<const N: usize>(same: bool, numbers: [(&mut u64, u64); N]) -> bool {
    if same {
        for (sum, more) in numbers {
            *sum = sum.saturating_add(more);
        }
    }
    same
}

/// The last incidents of one `PubSub`. Any thread adds.
#[derive(Default)]
pub(crate) struct Incidents {
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    kept: VecDeque<Incident>,
    next: u64,
    /// As in [`NAMES`].
    totals: [u64; NAMES.len()],
}

impl Incidents {
    pub(crate) fn add(&self, what: IncidentKind) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        lock(&self.log).add(now.as_millis() as u64, what);
    }

    /// Newest first.
    pub(crate) fn list(&self) -> Vec<Incident> {
        lock(&self.log).kept.iter().rev().cloned().collect()
    }

    /// How many there have been, those that were the same again included.
    pub(crate) fn total(&self) -> u64 {
        lock(&self.log).totals.iter().sum()
    }

    /// The same, kind by kind.
    #[cfg(feature = "metrics")]
    pub(crate) fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        NAMES.into_iter().zip(lock(&self.log).totals)
    }
}

impl Log {
    fn add(&mut self, now_ms: u64, what: IncidentKind) {
        self.totals[what.at()] += 1;
        let recent = self.kept.iter_mut().rev().take(LOOKED_AT).take_while(|known| known.first_ms + SAME_MS > now_ms);
        for known in recent {
            if known.what.absorb(&what) {
                known.times += 1;
                known.at_ms = now_ms;
                return;
            }
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.next += 1;
        self.kept.push_back(Incident { id: self.next, at_ms: now_ms, first_ms: now_ms, times: 1, what });
    }
}

/// What the kinds are called, in the order of [`IncidentKind`].
const NAMES: [&str; 20] = [
    "panicked",
    "overflowed",
    "stuck",
    "disconnected",
    "port_full",
    "registry_restarted",
    "foreign_panic",
    "history_gap",
    "log_unavailable",
    "log_closed",
    "delivery_failed",
    "dead_letter",
    "undecodable",
    "node_down",
    "node_up",
    "link_down",
    "link_up",
    "lost",
    "unknown_message",
    "node_refused",
];
/// Incidents that are kept.
pub(crate) const KEPT_MAX: usize = 256;
/// How many of the newest are looked at for the same.
const LOOKED_AT: usize = 64;
/// For how long the same again is one incident.
const SAME_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn full(arbiter: u32, refused: u64) -> IncidentKind {
        IncidentKind::PortFull { arbiter, refused }
    }

    #[test]
    fn the_same_again_within_a_minute_is_one_incident_with_its_numbers_added() {
        let mut log = Log::default();
        log.add(1_000, full(1, 5));
        log.add(2_000, full(2, 7));
        log.add(60_999, full(1, 6));
        let seen: Vec<_> = log.kept.iter().map(|known| (known.id, known.times, known.at_ms, known.what.clone())).collect();
        assert_eq!(seen, [(1, 2, 60_999, full(1, 11)), (2, 1, 2_000, full(2, 7))]);
        log.add(61_000, full(1, 1));
        assert_eq!(
            (log.kept.len(), log.kept[2].id, log.totals.iter().sum()),
            (3, 3, 4_u64),
            "a minute after the first it is another one"
        );
    }

    #[test]
    fn a_kind_has_one_name_in_json_and_elsewhere() {
        let topic = Topic::parse("t").unwrap();
        let (node, entry, text) = (NodeId::random(), EntryId::MIN, String::new);
        let kinds = [
            IncidentKind::Panicked { actor: "", subscriptions: 0, discarded: 0 },
            IncidentKind::Overflowed { topic: topic.clone(), actor: "", metadata: None, events: 0 },
            IncidentKind::Stuck { topic: topic.clone(), actor: "", metadata: None, missed: 0 },
            IncidentKind::Disconnected { topic: topic.clone(), actor: "", discarded: 0 },
            full(0, 0),
            IncidentKind::RegistryRestarted { arbiter: 0 },
            IncidentKind::ForeignPanic { arbiter: 0 },
            IncidentKind::HistoryGap { topic: topic.clone(), asked_after: entry, cause: text() },
            IncidentKind::LogUnavailable { doing: "", topic: topic.clone(), error: text() },
            IncidentKind::LogClosed,
            IncidentKind::DeliveryFailed { topic: topic.clone(), group: text(), entry, reason: text() },
            IncidentKind::DeadLetter { topic: topic.clone(), group: text(), entry, reason: text() },
            IncidentKind::Undecodable { topic: topic.clone(), message: text(), error: text() },
            IncidentKind::NodeDown { node, name: Arc::from(""), reason: text() },
            IncidentKind::NodeUp { node, name: Arc::from("") },
            IncidentKind::LinkDown { reason: Arc::from("") },
            IncidentKind::LinkUp,
            IncidentKind::Lost { origin: node, topic: None, events: 0 },
            IncidentKind::UnknownMessage { topic, message: text() },
            IncidentKind::NodeRefused { node, name: Arc::from("") },
        ];
        assert_eq!(kinds.each_ref().map(IncidentKind::name), NAMES);
        for kind in kinds {
            assert_eq!(serde_json::to_value(&kind).unwrap()["kind"], kind.name());
        }
    }

    #[test]
    fn only_the_newest_are_kept() {
        let mut log = Log::default();
        for arbiter in 0..=KEPT_MAX as u32 {
            log.add(0, full(arbiter, 1));
        }
        assert_eq!((log.kept.len(), log.kept[0].what.clone()), (KEPT_MAX, full(1, 1)));
        log.add(0, full(1, 1));
        assert_eq!(log.kept.len(), KEPT_MAX, "the oldest is beyond what is looked at, so it is a new one");
        assert_eq!(log.kept.back().map(|last| last.what.clone()), Some(full(1, 1)));
    }

    #[test]
    fn links_and_nodes_are_told_each_time() {
        let mut log = Log::default();
        log.add(0, IncidentKind::LinkUp);
        log.add(0, IncidentKind::LinkUp);
        assert_eq!(log.kept.len(), 2);
    }
}
