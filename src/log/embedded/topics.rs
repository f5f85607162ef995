//! Topics: what the store keeps in memory, so that only entries are read from the disk. Owns no engine and takes the time.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::time::Duration;

use bytestring::ByteString;

use crate::ids::EntryId;
use crate::log::embedded::engine::Engine;
use crate::log::embedded::engine::counts;
use crate::log::embedded::row;
use crate::log::embedded::row::GroupRow;
use crate::log::embedded::row::HeldRow;
use crate::log::embedded::row::KeysRow;
use crate::log::embedded::row::Meta;
use crate::log::embedded::row::StoreRow;
use crate::log::embedded::row::TopicNo;
use crate::log::entry::Name;
use crate::log::error::StoreError;
use crate::log::pending::GroupState;
use crate::topic::Topic;

/// All topics, and the store's own numbers.
#[derive(Debug, Default)]
pub(super) struct Topics {
    pub(super) store: StoreRow,
    pub(super) by_name: HashMap<Topic, TopicState>,
    /// Groups with changes that no commit has taken yet.
    pub(super) dirty: HashSet<(Topic, Name)>,
}

/// A topic. Most have neither keys nor groups, and there may be 100,000 of them.
#[derive(Debug, Default)]
pub(super) struct TopicState {
    pub(super) meta: Meta,
    /// A commit that removes it is under way: its row may be gone already.
    pub(super) leaving: bool,
    pub(super) keys: Option<Box<Keys>>,
    pub(super) groups: Option<Box<BTreeMap<Name, GroupSlot>>>,
}

/// Idempotency keys within their window.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// What was appended under each, and until when that counts.
    pub(super) ids: HashMap<ByteString, (EntryId, u64)>,
    /// The rows that hold them, soonest forgotten first.
    pub(super) rows: VecDeque<KeyRow>,
}

/// The keys of one row.
#[derive(Debug)]
pub(super) struct KeyRow {
    /// When they are forgotten, by this process's clock.
    pub(super) until_ms: u64,
    /// The row's key.
    pub(super) key: Vec<u8>,
    pub(super) texts: Vec<ByteString>,
}

/// A group, and what of it no commit has taken yet.
#[derive(Debug)]
pub(super) struct GroupSlot {
    pub(super) no: u64,
    pub(super) state: GroupState,
    /// Entries whose pending row is not as the state is.
    pub(super) changed: BTreeSet<EntryId>,
}

impl GroupSlot {
    pub(super) fn new(no: u64, state: GroupState) -> Self {
        Self { no, state, changed: BTreeSet::new() }
    }
}

impl TopicState {
    pub(super) fn new(meta: Meta) -> Self {
        Self { meta, leaving: false, keys: None, groups: None }
    }

    pub(super) fn groups_len(&self) -> usize {
        self.groups.as_ref().map_or(0, |groups| groups.len())
    }

    pub(super) fn group_mut(&mut self, name: &Name) -> Option<&mut GroupSlot> {
        self.groups.as_mut()?.get_mut(name)
    }

    /// The id that was appended under this key, if its time is not over.
    pub(super) fn key(&self, key: &ByteString, now_ms: u64) -> Option<EntryId> {
        let (id, until_ms) = self.keys.as_ref()?.ids.get(key)?;
        (*until_ms > now_ms).then_some(*id)
    }

    /// The rows of keys whose time is over.
    pub(super) fn expired_keys(&self, now_ms: u64) -> Vec<Vec<u8>> {
        let Some(keys) = &self.keys else { return Vec::new() };
        keys.rows.iter().take_while(|row| row.until_ms <= now_ms).map(|row| row.key.clone()).collect()
    }

    /// Forgets the keys whose time is over.
    pub(super) fn expire_keys(&mut self, now_ms: u64) {
        let Some(keys) = &mut self.keys else { return };
        while keys.rows.front().is_some_and(|row| row.until_ms <= now_ms) {
            let Some(row) = keys.rows.pop_front() else { break };
            for text in &row.texts {
                keys.ids.remove(text);
            }
        }
        if keys.rows.is_empty() {
            self.keys = None;
        }
    }

    pub(super) fn add_keys(&mut self, row: KeyRow, ids: impl Iterator<Item = EntryId>) {
        let keys = self.keys.get_or_insert_default();
        keys.ids.extend(row.texts.iter().cloned().zip(ids.map(|id| (id, row.until_ms))));
        keys.rows.push_back(row);
    }
}

impl Topics {
    /// Reads everything but the entries, and checks that nothing of it is missing.
    pub(super) fn load(engine: &Engine, now_ms: u64, window: Duration) -> Result<Self, StoreError> {
        engine.read(|rows| {
            let mut loading = Loading { now_ms, until_max_ms: after(now_ms, window), ..Loading::default() };
            for row in rows.table.range::<&[u8]>(..&[row::BLOCK][..])? {
                let (key, value) = row?;
                loading.take(key.value(), value.value())?;
            }
            Ok(loading.finish()?)
        })
    }
}

/// `now` and so much more.
pub(super) fn after(now_ms: u64, delay: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

#[derive(Default)]
struct Loading {
    now_ms: u64,
    until_max_ms: u64,
    store: Option<StoreRow>,
    sum: u64,
    names: HashMap<TopicNo, Topic>,
    groups: HashMap<(TopicNo, u64), Name>,
    topics: HashMap<Topic, TopicState>,
}

impl Loading {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if counts(key) {
            self.sum = self.sum.wrapping_add(row::sum_of(value));
        }
        let orphan = || row::corrupt(key, "its topic or group has no row");
        match key.first() {
            Some(&row::STORE) if key.len() == 1 => self.store = Some(StoreRow::decode(value)?),
            Some(&row::TOPIC) => {
                let (meta, topic) = Meta::decode(key, value)?;
                self.names.insert(meta.no, topic.clone());
                if self.topics.insert(topic, TopicState::new(meta)).is_some() {
                    return Err(row::corrupt(key, "another topic has its name"));
                }
            }
            Some(&row::GROUP) => {
                let group = GroupRow::decode(key, value)?;
                let state = self.topic(group.topic).ok_or_else(orphan)?;
                state.groups.get_or_insert_default().insert(group.name.clone(), GroupSlot::new(group.no, group.state));
                self.groups.insert((group.topic, group.no), group.name);
            }
            Some(&row::HELD) => {
                let held = HeldRow::decode(key, value)?;
                let now_ms = self.now_ms;
                let name = self.groups.get(&(held.topic, held.group)).cloned().ok_or_else(orphan)?;
                let slot = self.topic(held.topic).and_then(|state| state.group_mut(&name)).ok_or_else(orphan)?;
                slot.state.restore(held.id, held.held, now_ms);
            }
            Some(&row::KEYS) => {
                let keys = KeysRow::decode(key, value)?;
                // A clock that stepped back must not make a key last for ever.
                let until_ms = keys.until_ms.min(self.until_max_ms);
                let state = self.topic(keys.topic).ok_or_else(orphan)?;
                let texts = keys.keys.iter().map(|(text, _)| ByteString::try_from(text.clone()).unwrap_or_default());
                let row = KeyRow { until_ms, key: key.to_vec(), texts: texts.collect() };
                state.add_keys(row, keys.keys.iter().map(|(_, id)| *id));
            }
            _ => return Err(row::corrupt(key, "there is no such kind of row")),
        }
        Ok(())
    }

    fn topic(&mut self, no: TopicNo) -> Option<&mut TopicState> {
        self.topics.get_mut(self.names.get(&no)?)
    }

    fn finish(self) -> Result<Topics, StoreError> {
        let missing = |detail: &str| StoreError::Corrupt { at: "the store row".to_owned(), detail: detail.to_owned() };
        let store = self.store.ok_or_else(|| missing("it is missing"))?;
        if store.sum != self.sum {
            return Err(missing("rows are missing, or not the newest: their sum is wrong"));
        }
        Ok(Topics { store, by_name: self.topics, dirty: HashSet::new() })
    }
}
