//! Pending: what one consumer group has delivered and not had acked. Pure bookkeeping: takes the time, owns no entries and no engine.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::EntryId;
use crate::log::entry::ConsumerInfo;
use crate::log::entry::Fetch;
use crate::log::entry::Name;
use crate::log::entry::Pending;
use crate::log::entry::PendingQuery;
use crate::log::entry::Token;

/// Entries that one group may have pending: a fetch of new ones stops there until some are acked. About 20 MB.
pub(crate) const PENDING_MAX: usize = 100_000;

/// One entry in a consumer's hands. Times are milliseconds of a steady clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) consumer: Name,
    pub(crate) delivered_ms: u64,
    pub(crate) due_ms: u64,
    pub(crate) attempt: u32,
}

/// A consumer group's state.
///
/// Invariants: `due` holds exactly the pairs (due, id) of `held`; `consumers` counts every consumer's share of `held`.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupState {
    /// The newest id delivered to anyone, or where the group began.
    pub(crate) last: EntryId,
    /// The number of entries that the topic has had up to and with `last`; `None` while that is not known.
    pub(crate) read: Option<u64>,
    /// Entries that were trimmed before anyone had them; `None`: not known.
    pub(crate) skipped: Option<u64>,
    held: BTreeMap<EntryId, Held>,
    due: BTreeSet<(u64, EntryId)>,
    consumers: BTreeMap<Name, Consumer>,
}

#[derive(Debug, Clone, Default)]
struct Consumer {
    /// When it was last heard of.
    seen_ms: u64,
    /// How many of `held` are its.
    pending: u64,
    /// Removed: it goes when it has nothing pending any more.
    leaving: bool,
}

impl GroupState {
    /// A new group that begins after `last`, the `read`th entry of its topic.
    pub(crate) fn at(last: EntryId, read: Option<u64>) -> Self {
        Self { last, read, skipped: read.map(|_| 0), ..Self::default() }
    }

    /// Puts back what was kept of a pending entry. A due time that a stepped clock has put out of reach is brought back to one visibility from now.
    pub(crate) fn restore(&mut self, id: EntryId, mut held: Held, now_ms: u64) {
        let visibility = held.due_ms.saturating_sub(held.delivered_ms);
        held.delivered_ms = held.delivered_ms.min(now_ms);
        held.due_ms = held.due_ms.min(now_ms.saturating_add(visibility));
        self.put(id, held);
    }

    fn put(&mut self, id: EntryId, held: Held) {
        self.take(id);
        self.due.insert((held.due_ms, id));
        let consumer = self.consumers.entry(held.consumer.clone()).or_default();
        consumer.seen_ms = consumer.seen_ms.max(held.delivered_ms);
        consumer.pending += 1;
        self.held.insert(id, held);
    }

    fn take(&mut self, id: EntryId) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.due.remove(&(held.due_ms, id));
        if let Some(consumer) = self.consumers.get_mut(&held.consumer) {
            consumer.pending -= 1;
            if consumer.leaving && consumer.pending == 0 {
                self.consumers.remove(&held.consumer);
            }
        }
        Some(held)
    }

    pub(crate) fn held(&self, id: EntryId) -> Option<&Held> {
        self.held.get(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn consumers_len(&self) -> usize {
        self.consumers.len()
    }

    /// How many new entries may be delivered.
    pub(crate) fn room(&self) -> usize {
        PENDING_MAX.saturating_sub(self.held.len())
    }

    /// When the next entry is anyone's again.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// The consumer was heard of.
    pub(crate) fn seen(&mut self, consumer: &Name, now_ms: u64) {
        match self.consumers.get_mut(consumer) {
            Some(known) => (known.seen_ms, known.leaving) = (now_ms, false),
            None => {
                self.consumers.insert(consumer.clone(), Consumer { seen_ms: now_ms, ..Consumer::default() });
            }
        }
    }

    /// Delivers what is anyone's again, the longest due first.
    pub(crate) fn take_due(&mut self, consumer: &Name, fetch: Fetch, now_ms: u64) -> Vec<Token> {
        let ready = self.due.iter().take_while(|(due_ms, _)| *due_ms <= now_ms);
        let ids: Vec<_> = ready.take(fetch.entries).map(|(_, id)| *id).collect();
        ids.into_iter().map(|id| self.deliver(id, consumer, fetch.visibility, now_ms)).collect()
    }

    /// Delivers a new entry, the `ordinal`th of its topic.
    pub(crate) fn take_new(&mut self, id: EntryId, ordinal: u64, consumer: &Name, fetch: Fetch, now_ms: u64) -> Token {
        self.skipped = self.skipped(ordinal.saturating_sub(1));
        self.last = id;
        self.read = Some(ordinal);
        self.deliver(id, consumer, fetch.visibility, now_ms)
    }

    /// Entries that were trimmed before anyone had them, when the first `gone` of the topic are trimmed.
    pub(crate) fn skipped(&self, gone: u64) -> Option<u64> {
        Some(self.skipped? + gone.saturating_sub(self.read?))
    }

    fn deliver(&mut self, id: EntryId, consumer: &Name, visibility: Duration, now_ms: u64) -> Token {
        let attempt = self.held.get(&id).map_or(0, |held| held.attempt).saturating_add(1);
        let held = Held { consumer: consumer.clone(), delivered_ms: now_ms, due_ms: after(now_ms, visibility), attempt };
        self.put(id, held);
        Token { id, attempt, handle: None }
    }

    /// `true`: it was pending.
    pub(crate) fn ack(&mut self, token: &Token, now_ms: u64) -> bool {
        let Some(held) = self.take(token.id) else { return false };
        if let Some(consumer) = self.consumers.get_mut(&held.consumer) {
            consumer.seen_ms = now_ms;
        }
        true
    }

    /// `true`: the token is that of the last delivery.
    pub(crate) fn nack(&mut self, token: &Token, delay: Duration, now_ms: u64) -> bool {
        self.change(token, |held| held.due_ms = after(now_ms, delay))
    }

    /// `true`: the token is that of the last delivery.
    pub(crate) fn extend(&mut self, token: &Token, visibility: Duration, now_ms: u64) -> bool {
        self.change(token, |held| {
            held.delivered_ms = now_ms;
            held.due_ms = after(now_ms, visibility);
        })
    }

    fn change(&mut self, token: &Token, change: impl FnOnce(&mut Held)) -> bool {
        match self.held.get_mut(&token.id) {
            Some(held) if held.attempt == token.attempt => {
                self.due.remove(&(held.due_ms, token.id));
                change(held);
                self.due.insert((held.due_ms, token.id));
                true
            }
            _ => false,
        }
    }

    /// Takes what is idle for at least `idle_min`, in id order.
    pub(crate) fn claim(&mut self, consumer: &Name, idle_min: Duration, fetch: Fetch, now_ms: u64) -> Vec<Token> {
        let query = PendingQuery { idle_min, ..PendingQuery::first(fetch.entries) };
        let ids: Vec<_> = self.pending(&query, now_ms).into_iter().map(|pending| pending.id).collect();
        ids.into_iter().map(|id| self.deliver(id, consumer, fetch.visibility, now_ms)).collect()
    }

    pub(crate) fn pending(&self, query: &PendingQuery, now_ms: u64) -> Vec<Pending> {
        let after = (std::ops::Bound::Excluded(query.after), std::ops::Bound::Unbounded);
        let of_consumer = |held: &Held| query.consumer.as_ref().is_none_or(|consumer| held.consumer == *consumer);
        self.held
            .range(after)
            .filter(|(_, held)| of_consumer(held) && idle(held.delivered_ms, now_ms) >= query.idle_min)
            .take(query.entries)
            .map(|(id, held)| Pending {
                id: *id,
                consumer: held.consumer.clone(),
                idle: idle(held.delivered_ms, now_ms),
                attempt: held.attempt,
                due_in: Some(Duration::from_millis(held.due_ms.saturating_sub(now_ms))),
            })
            .collect()
    }

    pub(crate) fn consumers(&self, now_ms: u64) -> Vec<ConsumerInfo> {
        let info = |(name, consumer): (&Name, &Consumer)| ConsumerInfo {
            name: name.clone(),
            pending: consumer.pending,
            idle: idle(consumer.seen_ms, now_ms),
        };
        self.consumers.iter().map(info).collect()
    }

    /// Forgets a consumer. What it had is anyone's again now, and its ids are returned; it stays listed until others have taken that.
    pub(crate) fn remove_consumer(&mut self, consumer: &Name, now_ms: u64) -> Vec<EntryId> {
        let ids: Vec<_> = self.held.iter().filter(|(_, held)| held.consumer == *consumer).map(|(id, _)| *id).collect();
        if let Some(known) = self.consumers.get_mut(consumer) {
            known.leaving = true;
            if ids.is_empty() {
                self.consumers.remove(consumer);
            }
        }
        for id in &ids {
            if let Some(held) = self.held.get_mut(id) {
                self.due.remove(&(held.due_ms, *id));
                held.due_ms = held.due_ms.min(now_ms);
                self.due.insert((held.due_ms, *id));
            }
        }
        ids
    }
}

fn after(now_ms: u64, delay: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

fn idle(since_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(now_ms.saturating_sub(since_ms))
}
