//! Round: appends that become one commit. Decides ids, keys and conditions for each in turn; knows no thread and no queue.

use std::collections::HashMap;
use std::time::Duration;

use bytestring::ByteString;

use crate::ids::EntryId;
use crate::local::hash::BuildPrehashed;
use crate::log::embedded::block::Packer;
use crate::log::embedded::block::content;
use crate::log::embedded::engine::Tried;
use crate::log::embedded::engine::Writing;
use crate::log::embedded::read;
use crate::log::embedded::read::Cut;
use crate::log::embedded::row;
use crate::log::embedded::row::KeysRow;
use crate::log::embedded::row::Meta;
use crate::log::embedded::row::StoreRow;
use crate::log::embedded::topics::KeyRow;
use crate::log::embedded::topics::TopicState;
use crate::log::embedded::topics::Topics;
use crate::log::embedded::topics::after;
use crate::log::entry::Append;
use crate::log::entry::Appended;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::topic::Topic;

/// The times of a round, and what it needs to know besides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall_ms: u64,
    pub(super) steady_ms: u64,
    pub(super) window: Duration,
}

/// Appends on their way into one commit.
#[derive(Debug, Default)]
pub(super) struct Round {
    topics: HashMap<Topic, Staged, BuildPrehashed>,
    next_topic: u64,
}

/// What a round does to one topic.
#[derive(Debug)]
struct Staged {
    meta: Meta,
    blocks: Vec<Packer>,
    keys: Vec<(ByteString, EntryId)>,
    key_ids: HashMap<ByteString, EntryId>,
    expired: Vec<Vec<u8>>,
    cut: Cut,
    changed: bool,
}

impl Round {
    pub(super) fn new(store: &StoreRow) -> Self {
        Self { topics: HashMap::default(), next_topic: store.next_topic }
    }

    /// Stages one append. Its answer counts once the round is committed.
    pub(super) fn append(
        &mut self,
        topics: &Topics,
        topic: &Topic,
        batch: &Append,
        now: Now,
    ) -> Result<Vec<Appended>, StoreError> {
        if batch.entries.is_empty() {
            return Ok(Vec::new());
        }
        let known = || topics.by_name.get(topic);
        if let Some(staged) = self.topics.get_mut(topic) {
            return staged.append(known, batch, now);
        }
        let (meta, expired) = match known() {
            Some(state) => (state.meta, state.expired_keys(now.steady_ms)),
            None => {
                self.next_topic += 1;
                (Meta::new(self.next_topic - 1, topics.store.floor), Vec::new())
            }
        };
        self.topics.entry(topic.clone()).or_insert(Staged::new(meta, expired)).append(known, batch, now)
    }

    /// Whether there is anything to write.
    pub(super) fn is_changed(&self) -> bool {
        self.topics.values().any(|staged| staged.changed)
    }

    /// Writes what was staged.
    pub(super) fn write(&mut self, rows: &mut Writing<'_>, now: Now) -> Tried<()> {
        for (topic, staged) in &mut self.topics {
            if staged.changed {
                staged.write(topic, rows, now)?;
            }
        }
        Ok(())
    }

    /// The next topic's number after this round.
    pub(super) fn next_topic(&self) -> u64 {
        self.next_topic
    }

    /// Makes the committed round visible. Returns the topics that moved.
    pub(super) fn publish(self, topics: &mut Topics, now: Now) -> Vec<Topic> {
        let mut moved = Vec::with_capacity(self.topics.len());
        for (topic, staged) in self.topics {
            if !staged.changed {
                continue;
            }
            let state = topics.by_name.entry(topic.clone()).or_insert_with(|| TopicState::new(staged.meta));
            state.meta = staged.meta;
            state.expire_keys(now.steady_ms);
            if let Some(row) = staged.keys_row(now) {
                let (ids, texts) = (row.keys.iter().map(|(_, id)| *id), staged.keys.iter().map(|(text, _)| text.clone()));
                state.add_keys(KeyRow { until_ms: row.until_ms, key: row.key(), texts: texts.collect() }, ids);
            }
            moved.push(topic);
        }
        moved
    }
}

impl Staged {
    fn new(meta: Meta, expired: Vec<Vec<u8>>) -> Self {
        Self { meta, blocks: Vec::new(), keys: Vec::new(), key_ids: HashMap::new(), expired, cut: Cut::default(), changed: false }
    }

    fn append<'a>(
        &mut self,
        state: impl Fn() -> Option<&'a TopicState>,
        batch: &Append,
        now: Now,
    ) -> Result<Vec<Appended>, StoreError> {
        let known = |staged: &Self, key: &Option<ByteString>| {
            let key = key.as_ref()?;
            staged.key_ids.get(key).copied().or_else(|| state()?.key(key, now.steady_ms))
        };
        let all_known: Option<Vec<EntryId>> = batch.entries.iter().map(|entry| known(self, &entry.dedup)).collect();
        if let Some(ids) = all_known {
            return Ok(ids.into_iter().map(|id| Appended { id, duplicate: true }).collect());
        }
        let meta = &mut self.meta;
        if let Some(expected) = batch.expect_last
            && expected != meta.newest()
        {
            return Err(StoreError::Conflict { expected, last: Some(meta.newest()) });
        }
        // Ids first: nothing is done if they run out.
        let mut last = meta.last;
        for _ in &batch.entries {
            last = next_id(last, now.wall_ms).ok_or(StoreError::IdsExhausted { last: meta.last })?;
        }
        let mut appended = Vec::with_capacity(batch.entries.len());
        for entry in &batch.entries {
            if let Some(id) = known(self, &entry.dedup) {
                appended.push(Appended { id, duplicate: true });
                continue;
            }
            let meta = &mut self.meta;
            let Some(id) = next_id(meta.last, now.wall_ms) else { break };
            if let Some(key) = &entry.dedup {
                self.key_ids.insert(key.clone(), id);
                self.keys.push((key.clone(), id));
            }
            meta.last = id;
            meta.appended += 1;
            meta.bytes += content(entry);
            if self.blocks.last().is_none_or(|block| block.is_full_for(entry)) {
                self.blocks.push(Packer::new(id, meta.appended));
            }
            if let Some(block) = self.blocks.last_mut() {
                block.push(id, entry);
            }
            appended.push(Appended { id, duplicate: false });
        }
        self.changed = true;
        if let Some(to) = batch.trim {
            self.cut = cut_of(&self.meta, self.cut, to, now.wall_ms);
        }
        Ok(appended)
    }

    fn write(&mut self, topic: &Topic, rows: &mut Writing<'_>, now: Now) -> Tried<()> {
        for block in self.blocks.drain(..) {
            let (key, value) = block.finish(self.meta.no);
            rows.put(&key, &value)?;
        }
        self.meta = write_cut(rows, &self.meta, self.cut)?;
        let (key, value) = self.meta.encode(topic);
        rows.put(&key, &value)?;
        if let Some(row) = self.keys_row(now) {
            let (key, value) = row.encode();
            rows.put(&key, &value)?;
        }
        self.expired.iter().try_for_each(|key| rows.remove(key))
    }

    fn keys_row(&self, now: Now) -> Option<KeysRow> {
        let (_, first) = self.keys.first()?;
        let keys = self.keys.iter().map(|(text, id)| (text.as_bytes().clone(), *id)).collect();
        Some(KeysRow { topic: self.meta.no, until_ms: after(now.steady_ms, now.window), first: *first, keys })
    }
}

/// Ids increase, whatever the clock does.
fn next_id(last: EntryId, wall_ms: u64) -> Option<EntryId> {
    if wall_ms > last.ms() { Some(EntryId::new(wall_ms, 0)) } else { last.next() }
}

/// `cut`, and what `to` removes of a topic as it is now.
pub(super) fn cut_of(meta: &Meta, cut: Cut, to: Trim, wall_ms: u64) -> Cut {
    let before = match to {
        Trim::Len(keep) => return Cut { gone: cut.gone.max(meta.appended.saturating_sub(keep)), ..cut },
        Trim::Before(id) => id,
        Trim::Age(age) => EntryId::new(wall_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)), 0),
    };
    if before > meta.last {
        // All that is there now, but nothing of what comes.
        return Cut { gone: cut.gone.max(meta.appended), ..cut };
    }
    Cut { before: cut.before.max(before), ..cut }
}

/// Removes what `cut` leaves nothing of. Returns the topic's numbers after it; the caller writes them.
pub(super) fn write_cut(rows: &mut Writing<'_>, meta: &Meta, cut: Cut) -> Tried<Meta> {
    if cut == Cut::default() {
        return Ok(*meta);
    }
    let (after, empty) = read::cut(&rows.table, meta, cut)?;
    for first in empty {
        rows.remove(&row::block_key(meta.no, first))?;
    }
    Ok(after)
}
