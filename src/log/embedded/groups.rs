//! Groups: the consumer side of the handle. State is in memory; what changes is left for the next commit to take.

use std::time::Duration;

use crate::ids::EntryId;
use crate::log::embedded::engine::Tried;
use crate::log::embedded::read;
use crate::log::embedded::row::Meta;
use crate::log::embedded::store::EmbeddedStore;
use crate::log::embedded::topics::GroupSlot;
use crate::log::entry::Append;
use crate::log::entry::Entry;
use crate::log::entry::Fetch;
use crate::log::entry::Fetched;
use crate::log::entry::Group;
use crate::log::entry::GroupInfo;
use crate::log::entry::Limit;
use crate::log::entry::Name;
use crate::log::entry::Token;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::log::store::letter;
use crate::observe;
use crate::topic::Topic;

/// Payload of one fetch; what is more comes with the next.
const FETCH_BYTES_MAX: usize = 8 << 20;
/// A pending entry that is damaged is tried again after this time: somebody may have put the file right, and nobody waits for it.
const UNREADABLE_RETRY: Duration = Duration::from_secs(30);

impl EmbeddedStore {
    /// Runs `with` on a group.
    pub(super) fn group<T>(&self, group: &Group, with: impl FnOnce(&Meta, &mut GroupSlot) -> T) -> Result<T, StoreError> {
        self.inner.shared.engine.check_open()?;
        let mut topics = self.inner.shared.lock();
        let no_group = || StoreError::NoGroup(group.clone());
        let state = topics.by_name.get_mut(&group.topic).ok_or_else(no_group)?;
        let meta = state.meta;
        Ok(with(&meta, state.group_mut(&group.name).ok_or_else(no_group)?))
    }

    /// Runs `change` on a group; the entries that it returns have changed, and are left for the next commit.
    pub(super) fn change<T>(
        &self,
        group: &Group,
        change: impl FnOnce(&Meta, &mut GroupSlot) -> (T, Vec<EntryId>),
    ) -> Result<T, StoreError> {
        let (answer, changed) = self.group(group, |meta, slot| {
            let (answer, ids) = change(meta, slot);
            let changed = !ids.is_empty();
            slot.changed.extend(ids);
            (answer, changed)
        })?;
        if changed {
            let mut topics = self.inner.shared.lock();
            let first = topics.dirty.is_empty();
            topics.dirty.insert((group.topic.clone(), group.name.clone()));
            drop(topics);
            if first {
                self.nudge();
            }
        }
        Ok(answer)
    }

    /// As [`change`](Self::change), for what may make a waiting fetch look again.
    pub(super) fn change_waking<T>(
        &self,
        group: &Group,
        change: impl FnOnce(&Meta, &mut GroupSlot) -> (T, Vec<EntryId>),
    ) -> Result<T, StoreError> {
        let (answer, wakes) = self.change(group, |meta, slot| {
            let (full, due_ms) = (slot.state.room() == 0, slot.state.next_due_ms());
            let (answer, ids) = change(meta, slot);
            ((answer, slot.state.wakes_since(full, due_ms)), ids)
        })?;
        if wakes {
            self.inner.shared.watches.moved(&group.topic);
        }
        Ok(answer)
    }

    /// Counts the tokens that `with` says count.
    pub(super) fn change_each(
        &self,
        group: &Group,
        tokens: &[Token],
        with: impl Fn(&mut GroupSlot, &Token) -> bool,
    ) -> Result<u64, StoreError> {
        self.change_waking(group, |_, slot| {
            let counted: Vec<_> = tokens.iter().filter(|token| with(slot, token)).map(|token| token.id).collect();
            (counted.len() as u64, counted)
        })
    }

    /// The entries of deliveries. One that cannot be read is taken back, and is tried again after [`UNREADABLE_RETRY`]: the others are delivered.
    /// If the store itself cannot be read, all are given back.
    pub(super) fn fetched(&self, group: &Group, known: &Meta, tokens: Vec<Token>) -> Result<Vec<Fetched>, StoreError> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let entries = self.inner.shared.engine.read(|rows| {
            let Some(meta) = self.inner.shared.meta(rows, &group.topic, known)? else { return Ok(vec![None; tokens.len()]) };
            tokens.iter().map(|token| read::find(&rows.table, &meta, token.id)).collect::<Tried<Vec<Option<Entry>>>>()
        });
        let entries = match entries {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            // One of them at least: each for itself, then.
            Err(StoreError::Corrupt { .. }) => tokens.iter().map(|token| self.entry(group, known, token.id)).collect(),
            Err(error) => vec![Err(error)],
        };
        let now_ms = self.now_ms();
        let of_store =
            |entry: &Result<_, StoreError>| matches!(entry, Err(error) if !matches!(error, StoreError::Corrupt { .. }));
        if let Some(Err(error)) = entries.iter().find(|entry| of_store(entry)) {
            // The error is what the caller has to know.
            let _ = self.change_each(group, &tokens, |slot, token| slot.state.nack(token, Duration::ZERO, now_ms));
            return Err(error.clone());
        }
        let (mut fetched, mut unreadable, mut first) = (Vec::with_capacity(tokens.len()), Vec::new(), None);
        for (token, entry) in tokens.into_iter().zip(entries) {
            match entry {
                Ok(entry) => fetched.push(Fetched { id: token.id, entry, attempt: token.attempt, token }),
                Err(error) => {
                    first.get_or_insert((token.id, error));
                    unreadable.push(token);
                }
            }
        }
        if let Some((id, error)) = first {
            // A group that is gone by now has nothing to take back to.
            let _ = self.change_each(group, &unreadable, |slot, token| slot.state.undeliver(token, UNREADABLE_RETRY, now_ms));
            observe::pending_unreadable(&group.topic, group.name.as_str(), id, unreadable.len(), &error);
        }
        Ok(fetched)
    }

    /// One entry; `None`: it is not kept.
    fn entry(&self, group: &Group, known: &Meta, id: EntryId) -> Result<Option<Entry>, StoreError> {
        self.inner.shared.engine.read(|rows| {
            let Some(meta) = self.inner.shared.meta(rows, &group.topic, known)? else { return Ok(None) };
            read::find(&rows.table, &meta, id)
        })
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.inner.shared.settings.clock.steady_ms()
    }

    /// What there is for a consumer, and when there may be more.
    fn fetch_now(&self, group: &Group, consumer: &Name, fetch: Fetch) -> Result<(Vec<Fetched>, Option<u64>), StoreError> {
        let now_ms = self.now_ms();
        let (known, due) = self.change(group, |meta, slot| {
            slot.state.seen(consumer, now_ms);
            let tokens = slot.state.take_due(consumer, fetch, now_ms);
            let ids = tokens.iter().map(|token| token.id).collect();
            ((*meta, tokens), ids)
        })?;
        let mut fetched = self.fetched(group, &known, due)?;
        loop {
            let (meta, from, room, next_due_ms) =
                self.group(group, |meta, slot| (*meta, slot.state.last, slot.state.room(), slot.state.next_due_ms()))?;
            let room = fetch.entries.saturating_sub(fetched.len()).min(room);
            if room == 0 || from >= meta.last {
                return Ok((fetched, next_due_ms));
            }
            let limit = Limit { entries: room, bytes: FETCH_BYTES_MAX };
            let page = self.inner.shared.engine.read(|rows| {
                let Some(meta) = self.inner.shared.meta(rows, &group.topic, &meta)? else { return Ok(Vec::new()) };
                read::page(&rows.table, &meta, from, limit)
            });
            // What is in the caller's hands already is worth more than an error about what comes after it.
            let page = match page {
                Err(error) if fetched.is_empty() => return Err(error),
                page => page.unwrap_or_default(),
            };
            if page.is_empty() {
                return Ok((fetched, next_due_ms));
            }
            let taken = self.change(group, |meta_now, slot| {
                let same = meta_now.no == meta.no;
                // Another consumer may have taken some of them meanwhile.
                let new = page.into_iter().filter(|(_, entry)| same && entry.id > slot.state.last).collect::<Vec<_>>();
                let room = room.min(slot.state.room());
                let take = |(ordinal, entry): (u64, Entry)| {
                    let token = slot.state.take_new(entry.id, ordinal, consumer, fetch, now_ms);
                    Fetched { id: token.id, attempt: token.attempt, entry: Some(entry), token }
                };
                let taken: Vec<_> = new.into_iter().take(room).map(take).collect();
                let ids = taken.iter().map(|fetched| fetched.id).collect();
                (taken, ids)
            })?;
            fetched.extend(taken);
            if !fetched.is_empty() {
                return Ok((fetched, next_due_ms));
            }
        }
    }

    pub(super) async fn fetch_wait(&self, group: &Group, consumer: &Name, fetch: Fetch) -> Result<Vec<Fetched>, StoreError> {
        let fetch_now = || self.fetch_now(group, consumer, fetch);
        self.inner.shared.watches.fetch_within(&group.topic, fetch.wait, || self.now_ms(), fetch_now).await
    }

    pub(super) fn claim_now(
        &self,
        group: &Group,
        consumer: &Name,
        idle_min: Duration,
        fetch: Fetch,
    ) -> Result<Vec<Fetched>, StoreError> {
        let now_ms = self.now_ms();
        let (known, tokens) = self.change_waking(group, |meta, slot| {
            slot.state.seen(consumer, now_ms);
            let tokens = slot.state.claim(consumer, idle_min, fetch, now_ms);
            let ids = tokens.iter().map(|token| token.id).collect();
            ((*meta, tokens), ids)
        })?;
        self.fetched(group, &known, tokens)
    }

    /// While the letter is on its way to the disk nobody can ack the entry, nor has it.
    pub(super) async fn bury(
        &self,
        group: &Group,
        fetched: Fetched,
        to: &Topic,
        reason: &str,
        trim: Option<Trim>,
    ) -> Result<Option<EntryId>, StoreError> {
        let letter = letter(group, &fetched, reason, self.inner.shared.settings.limits);
        if !self.group(group, |_, slot| slot.state.begin_burial(&fetched.token))? {
            return Ok(None);
        }
        let mut burial = Burial { store: self, group, token: fetched.token, written: false };
        let appended = self.append_batch(to, Append { trim, ..Append::one(letter) }).await?;
        burial.written = true;
        Ok(appended.first().map(|appended| appended.id))
    }

    pub(super) fn groups_of(&self, topic: &Topic) -> Result<Vec<GroupInfo>, StoreError> {
        self.inner.shared.engine.check_open()?;
        let topics = self.inner.shared.lock();
        let Some(state) = topics.by_name.get(topic) else { return Ok(Vec::new()) };
        let meta = state.meta;
        let info = |(name, slot): (&Name, &GroupSlot)| {
            let read = slot.state.read.unwrap_or_default().max(meta.gone);
            let mut info = GroupInfo::new(name.clone());
            info.last_delivered = slot.state.last;
            info.lag = Some(meta.appended.saturating_sub(read));
            info.pending = slot.state.len() as u64;
            info.skipped = slot.state.skipped(meta.gone);
            info.consumers = slot.state.consumers_len() as u64;
            info
        };
        Ok(state.groups.iter().flat_map(|groups| groups.iter()).map(info).collect())
    }
}

/// A dead letter that is being written. If that fails, or is given up, the entry is anyone's; the letter that is written all the same has a key.
struct Burial<'a> {
    store: &'a EmbeddedStore,
    group: &'a Group,
    token: Token,
    written: bool,
}

impl Drop for Burial<'_> {
    fn drop(&mut self) {
        let now_ms = self.store.now_ms();
        // A group that is gone by now has nothing to bury.
        let _ = self.store.change_each(self.group, std::slice::from_ref(&self.token), |slot, token| {
            slot.state.end_burial(token, self.written, now_ms)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::embedded::crash::Tape;
    use crate::log::embedded::crash::open;
    use crate::log::entry::NewEntry;
    use crate::log::entry::PendingQuery;
    use crate::log::entry::Position;
    use crate::log::pending::PENDING_MAX;
    use crate::log::store::Store;

    fn group() -> Group {
        Group::new(Topic::parse("t").unwrap(), Name::parse("workers").unwrap())
    }

    fn name(name: &str) -> Name {
        Name::parse(name).unwrap()
    }

    fn payload(n: u64) -> Vec<u8> {
        format!("payload of entry {n:04}").into_bytes()
    }

    /// A closed store with five entries, each in a block of its own, pending with a consumer that is gone.
    async fn image() -> Vec<u8> {
        let tape = Arc::new(Tape::default());
        let store = open(Arc::clone(&tape)).unwrap();
        for n in 0..5 {
            store.append(&group().topic, Append::one(NewEntry::new("n", payload(n)))).await.unwrap();
        }
        store.create_group(&group(), Position::Start).await.unwrap();
        let held = store.fetch(&group(), &name("gone"), Fetch::entries(5).visibility(Duration::ZERO)).await.unwrap();
        assert_eq!(held.len(), 5);
        store.append(&group().topic, Append::one(NewEntry::new("n", payload(5)))).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        Arc::into_inner(tape).unwrap().image.into_inner().unwrap()
    }

    /// One damaged entry that was pending ended its group: it was the longest due, so each fetch of any consumer took it first, failed to read it,
    /// gave all back and answered `Corrupt`, for ever, while everything else in the topic was well. It is left aside, and the others are delivered.
    #[actix::test]
    async fn embedded_delivers_what_is_pending_beside_a_damaged_entry() {
        let mut image = image().await;
        let needle = payload(2);
        let places: Vec<_> = (0..image.len() - needle.len()).filter(|at| image[*at..].starts_with(&needle)).collect();
        assert!(!places.is_empty());
        for at in places {
            image[at] ^= 1;
        }
        let store = open(Tape::of(image)).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let fetched = store.fetch(&group(), &name("heir"), Fetch::entries(3)).await.unwrap();
            assert!(!fetched.is_empty(), "after {seen:?}");
            seen.extend(fetched.iter().map(|fetched| fetched.entry.clone().expect("it was not trimmed").payload.to_vec()));
            store.ack(&group(), fetched.into_iter().map(|fetched| fetched.token).collect()).await.unwrap();
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 3, 4, 5].map(payload), "its neighbours too");
        assert_eq!(store.fetch(&group(), &name("heir"), Fetch::entries(3)).await.unwrap(), [], "it is no error either");
        let left = store.pending(&group(), PendingQuery::first(9)).await.unwrap();
        assert_eq!((left.len(), left[0].attempt), (1, 1), "it is still there, and a delivery that nobody got does not count");
        assert!(left[0].due_in > Some(Duration::from_secs(1)), "and is not tried at once: {:?}", left[0].due_in);
    }

    /// A group with as much pending as it may have gives nothing new. A fetch that waited in that state was not woken by the ack that made room,
    /// and slept on until the next append or its own end: with enough entries behind, a group stood still.
    #[actix::test]
    async fn embedded_wakes_a_waiting_fetch_when_an_ack_makes_room() {
        let store = open(Arc::new(Tape::default())).unwrap();
        crate::log::pending::tests_of_room(Arc::new(store), PENDING_MAX).await;
    }
}
