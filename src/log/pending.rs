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
/// Invariants: `due` holds exactly the pairs (due, id) of `held`; `consumers` counts every consumer's share of `held`; `burying` is a part of `held`.
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
    /// Their dead letters are being written: nobody can ack them, and nobody has them.
    burying: BTreeSet<EntryId>,
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
    #[cfg(any(test, feature = "embedded"))]
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
        self.burying.remove(&id);
        self.due.remove(&(held.due_ms, id));
        if let Some(consumer) = self.consumers.get_mut(&held.consumer) {
            consumer.pending -= 1;
            if consumer.leaving && consumer.pending == 0 {
                self.consumers.remove(&held.consumer);
            }
        }
        Some(held)
    }

    /// The token is that of the last delivery.
    pub(crate) fn is_last(&self, token: &Token) -> bool {
        self.held.get(&token.id).is_some_and(|held| held.attempt == token.attempt) && !self.burying.contains(&token.id)
    }

    /// Its dead letter is about to be written. `true`: the token is that of the last delivery, and it is the caller's to [end](Self::end_burial).
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn begin_burial(&mut self, token: &Token) -> bool {
        let begun = self.change(token, |held| held.due_ms = u64::MAX);
        if begun {
            self.burying.insert(token.id);
        }
        begun
    }

    /// It is written, and this an ack; or it is not, and the entry is anyone's at once. `true`: nobody has claimed it meanwhile.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn end_burial(&mut self, token: &Token, written: bool, now_ms: u64) -> bool {
        self.burying.remove(&token.id) && if written { self.ack(token, now_ms) } else { self.nack(token, Duration::ZERO, now_ms) }
    }

    #[cfg(any(test, feature = "embedded"))]
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
        if self.burying.contains(&token.id) {
            return false;
        }
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

    /// Takes a delivery back that nobody got: it does not count, and is tried again after `delay`. `true`: the token is that of the last delivery.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn undeliver(&mut self, token: &Token, delay: Duration, now_ms: u64) -> bool {
        self.change(token, |held| {
            held.attempt = held.attempt.saturating_sub(1).max(1);
            held.due_ms = after(now_ms, delay);
        })
    }

    /// Whether a fetch that waits has to look again since then, when it had no room if `full` and its next was due at `due_ms`: there is room for
    /// new entries now, or something is due before it could know.
    pub(crate) fn wakes_since(&self, full: bool, due_ms: Option<u64>) -> bool {
        let sooner = self.next_due_ms().is_some_and(|now_due_ms| due_ms.is_none_or(|due_ms| now_due_ms < due_ms));
        sooner || (full && self.room() > 0)
    }

    fn change(&mut self, token: &Token, change: impl FnOnce(&mut Held)) -> bool {
        match self.held.get_mut(&token.id) {
            Some(held) if held.attempt == token.attempt && !self.burying.contains(&token.id) => {
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
        for id in ids.iter().filter(|id| !self.burying.contains(id)) {
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

/// Fills a group of a store, and sees that an ack wakes who waits for room.
#[cfg(test)]
pub(crate) async fn tests_of_room(store: std::sync::Arc<dyn crate::log::Store>, max: usize) {
    use crate::log::entry::Append;
    use crate::log::entry::Group;
    use crate::log::entry::NewEntry;
    use crate::log::entry::Position;
    use crate::topic::Topic;

    let group = Group::new(Topic::parse("t").unwrap(), Name::parse("workers").unwrap());
    let (one, other) = (Name::parse("one").unwrap(), Name::parse("other").unwrap());
    for from in (0..=max).step_by(4_000) {
        let batch = (from..from + 4_000).map(|n| NewEntry::new("n", n.to_string())).collect();
        store.append(&group.topic, Append::many(batch)).await.unwrap();
    }
    store.create_group(&group, Position::Start).await.unwrap();
    let (mut held, long) = (Vec::new(), Duration::from_secs(600));
    while held.len() < max {
        held.extend(store.fetch(&group, &one, Fetch::entries(max).visibility(long)).await.unwrap());
    }
    let waiting = {
        let (store, group) = (std::sync::Arc::clone(&store), group.clone());
        tokio::spawn(async move { store.fetch(&group, &other, Fetch::entries(1).wait(long)).await.unwrap() })
    };
    while store.consumers(&group).await.unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    store.ack(&group, vec![held.swap_remove(7).token]).await.unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("an ack that makes room wakes it");
    assert_eq!(woken.unwrap().len(), 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn name(name: &str) -> Name {
        Name::parse(name).unwrap()
    }

    fn fetch(entries: usize, visibility_ms: u64) -> Fetch {
        Fetch::entries(entries).visibility(Duration::from_millis(visibility_ms))
    }

    /// Checks the invariants.
    fn check(state: &GroupState) {
        let due: BTreeSet<_> = state.held.iter().map(|(id, held)| (held.due_ms, *id)).collect();
        assert_eq!(due, state.due);
        let mut pending: BTreeMap<&Name, u64> = BTreeMap::new();
        for held in state.held.values() {
            *pending.entry(&held.consumer).or_default() += 1;
        }
        for (consumer, count) in &pending {
            assert_eq!(state.consumers[*consumer].pending, *count);
        }
        assert!(state.consumers.iter().all(|(name, of)| of.pending == pending.get(name).copied().unwrap_or(0)));
        assert!(state.consumers.values().all(|of| !of.leaving || of.pending > 0));
        assert!(state.held.keys().all(|id| *id <= state.last));
    }

    #[test]
    fn a_random_history_keeps_the_invariants_and_loses_and_doubles_nothing() {
        let seed = std::env::var("SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "seed"));
        println!("SEED={seed}");
        let mut draw: u64 = seed;
        let mut random = |below: u64| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (draw >> 33) % below
        };
        let names = [name("a"), name("b"), name("c")];
        for _ in 0..200 {
            let (mut state, mut now_ms, mut next, mut acked) = (GroupState::at(EntryId::MIN, Some(0)), 0, 1, BTreeSet::new());
            let mut tokens: Vec<Token> = Vec::new();
            for _ in 0..300 {
                now_ms += random(5);
                let consumer = &names[usize::try_from(random(3)).unwrap()];
                let token = (!tokens.is_empty()).then(|| tokens[usize::try_from(random(tokens.len() as u64)).unwrap()].clone());
                match (random(8), token) {
                    (0 | 1, _) => {
                        state.seen(consumer, now_ms);
                        tokens.push(state.take_new(EntryId::new(0, next), next, consumer, fetch(1, random(20)), now_ms));
                        next += 1;
                    }
                    (2, _) => {
                        for token in state.take_due(consumer, fetch(3, random(20)), now_ms) {
                            assert!(!acked.contains(&token.id), "{} was acked", token.id);
                            tokens.push(token);
                        }
                    }
                    (3, _) => tokens.extend(state.claim(consumer, Duration::from_millis(10), fetch(2, random(20)), now_ms)),
                    (4, Some(token)) => assert_eq!(state.ack(&token, now_ms), acked.insert(token.id)),
                    (5, Some(token)) => {
                        let last = state.held(token.id).is_some_and(|held| held.attempt == token.attempt);
                        assert_eq!(state.nack(&token, Duration::from_millis(random(30)), now_ms), last);
                    }
                    (6, Some(token)) => {
                        let last = state.held(token.id).is_some_and(|held| held.attempt == token.attempt);
                        assert_eq!(state.extend(&token, Duration::from_millis(random(30)), now_ms), last);
                    }
                    _ => {
                        for id in state.remove_consumer(consumer, now_ms) {
                            assert!(state.held(id).is_some_and(|held| held.due_ms <= now_ms));
                        }
                    }
                }
                check(&state);
                let all: BTreeSet<_> = (1..next).map(|seq| EntryId::new(0, seq)).collect();
                let held: BTreeSet<_> = state.held.keys().copied().collect();
                assert!(held.is_disjoint(&acked));
                assert_eq!(held.union(&acked).copied().collect::<BTreeSet<_>>(), all);
            }
            // After the longest visibility everything that was not acked is anyone's.
            let rest = state.take_due(&names[0], fetch(1_000, 10), now_ms + 30);
            assert_eq!(rest.len(), state.len());
        }
    }

    #[test]
    fn what_is_restored_after_the_clock_stepped_is_due_within_one_visibility() {
        let held = |delivered_ms, due_ms| Held { consumer: name("a"), delivered_ms, due_ms, attempt: 2 };
        let mut state = GroupState::at(EntryId::new(0, 9), Some(9));
        state.restore(EntryId::new(0, 1), held(1_000_000, 1_030_000), 500);
        state.restore(EntryId::new(0, 2), held(100, 200), 500);
        state.restore(EntryId::new(0, 3), held(400, 700), 500);
        check(&state);
        let due: Vec<_> = (1..=3).map(|seq| state.held(EntryId::new(0, seq)).unwrap().due_ms).collect();
        assert_eq!(due, [30_500, 200, 700]);
        assert_eq!(state.take_due(&name("b"), fetch(9, 10), 500).len(), 1);
        assert_eq!(state.held(EntryId::new(0, 2)).unwrap().attempt, 3);
    }

    #[test]
    fn a_group_with_too_much_pending_has_no_room_for_new_entries() {
        let (mut state, consumer) = (GroupState::at(EntryId::MIN, Some(0)), name("a"));
        assert_eq!(state.room(), PENDING_MAX);
        for seq in 1..=PENDING_MAX as u64 {
            state.take_new(EntryId::new(0, seq), seq, &consumer, fetch(1, 10), 0);
        }
        assert_eq!(state.room(), 0);
        state.ack(&Token { id: EntryId::new(0, 7), attempt: 1, handle: None }, 0);
        assert_eq!(state.room(), 1);
    }
}
