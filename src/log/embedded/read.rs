//! Read: pages of entries out of blocks, each proven complete. Knows rows and blocks, not who asks.

use std::ops::Bound;

use redb::Cursor;
use redb::ReadableTable;

use crate::ids::EntryId;
use crate::log::embedded::block::Block;
use crate::log::embedded::block::Page;
use crate::log::embedded::engine::Reading;
use crate::log::embedded::engine::Tried;
use crate::log::embedded::row;
use crate::log::embedded::row::Meta;
use crate::log::embedded::row::TopicNo;
use crate::log::entry::Entry;
use crate::log::entry::Limit;
use crate::log::error::StoreError;

/// A table of rows, for reading only or not.
pub(super) trait Rows: ReadableTable<&'static [u8], &'static [u8]> {}
impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows for T {}

/// The topic's numbers as of this moment; `None`: it is not there any more.
pub(super) fn meta(rows: &Reading, topic: TopicNo) -> Tried<Option<Meta>> {
    let key = row::topic_key(topic);
    match rows.table.get(&*key)? {
        Some(value) => Ok(Some(Meta::decode(&key, value.value())?.0)),
        None => Ok(None),
    }
}

/// Entries after `after`, which is none before [`Meta::trimmed`], with their ordinals.
///
/// Every block says how many entries came before it. So a page proves that it has them all: from the one after `after`, up to `meta.last` if
/// the blocks end there. Where that fails the answer is `Corrupt`, never a page with a hole.
pub(super) fn page(rows: &impl Rows, meta: &Meta, after: EntryId, limit: Limit) -> Tried<Vec<(u64, Entry)>> {
    let after = after.max(meta.trimmed);
    if after >= meta.last {
        return Ok(Vec::new());
    }
    let mut page = Page::default();
    let mut payload_bytes = 0;
    let mut walk = Walk::new(rows, meta, after)?;
    while walk.step(|block| {
        for span in block.spans() {
            let span = span?;
            if span.id <= after || span.ordinal <= meta.gone {
                continue;
            }
            if !page.is_empty() && (page.len() >= limit.entries || payload_bytes >= limit.bytes) {
                return Ok(false);
            }
            if page.is_empty() {
                let left = (block.last_ordinal - span.ordinal + 1).min(limit.entries as u64).max(1);
                page.reserve(left as usize, left as usize * (span.payload_len() + 32).min(BUFFER_GUESS_MAX));
            }
            payload_bytes += span.payload_len();
            page.push(&span);
        }
        Ok(true)
    })? {}
    Ok(page.finish()?)
}

/// How many entries the topic has had up to and with `id`.
pub(super) fn ordinal(rows: &impl Rows, meta: &Meta, id: EntryId) -> Tried<u64> {
    if id >= meta.last {
        return Ok(meta.appended);
    }
    if id <= meta.trimmed {
        return Ok(meta.gone);
    }
    let first = page(rows, meta, id, Limit { entries: 1, bytes: 0 })?;
    Ok(first.first().map_or(meta.appended, |(ordinal, _)| ordinal - 1))
}

/// The entry of this id; `None`: it is not kept.
pub(super) fn find(rows: &impl Rows, meta: &Meta, id: EntryId) -> Tried<Option<Entry>> {
    let Some(before) = id.prev().filter(|_| id > meta.trimmed) else { return Ok(None) };
    // Its own block alone: damage beside it is another's.
    let mut cursor = rows.upper_bound(Bound::Included(&row::block_key(meta.no, id)[..]))?;
    if let Some((key, value)) = cursor.peek_prev()?
        && row::parse_block_key(key.value()).is_some_and(|(topic, _)| topic == meta.no)
    {
        let block = Block::parse(meta.no, key.value(), value.value())?;
        let mut page = Page::default();
        for span in block.spans() {
            let span = span?;
            if span.id == id && span.ordinal > meta.gone {
                page.push(&span);
                return Ok(page.finish()?.pop().map(|(_, entry)| entry));
            }
        }
    }
    // Not there: that has to be proven.
    let found = page(rows, meta, before, Limit { entries: 1, bytes: 0 })?;
    Ok(found.into_iter().map(|(_, entry)| entry).find(|entry| entry.id == id))
}

/// A removal of a topic's oldest entries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// All up to this ordinal.
    pub(super) gone: u64,
    /// All with a smaller id.
    pub(super) before: EntryId,
}

/// What a cut comes to: the topic's numbers after it, and the blocks that nothing is left of.
pub(super) fn cut(rows: &impl Rows, meta: &Meta, cut: Cut) -> Tried<(Meta, Vec<EntryId>)> {
    let (mut after, mut empty) = (*meta, Vec::new());
    if meta.kept() == 0 || (cut.gone <= meta.gone && cut.before <= meta.trimmed) {
        return Ok((after, empty));
    }
    let mut walk = Walk::new(rows, meta, meta.trimmed)?;
    while walk.step(|block| {
        let whole = block.last_ordinal <= cut.gone || block.last < cut.before;
        if whole && block.first_ordinal > meta.gone {
            after.bytes = after.bytes.saturating_sub(block.content);
            (after.gone, after.trimmed) = (block.last_ordinal, block.last);
        } else {
            for span in block.spans() {
                let span = span?;
                if span.ordinal <= meta.gone {
                    continue;
                }
                if span.ordinal > cut.gone && span.id >= cut.before {
                    return Ok(false);
                }
                after.bytes = after.bytes.saturating_sub(span.content());
                (after.gone, after.trimmed) = (span.ordinal, span.id);
            }
        }
        empty.push(block.first);
        Ok(true)
    })? {}
    Ok((after, empty))
}

/// No more than so many bytes of buffer are set aside for an entry before it is seen.
const BUFFER_GUESS_MAX: usize = 4_096;

/// Walks over a topic's blocks, and checks that none is missing.
struct Walk<'a> {
    cursor: Cursor<'a, &'static [u8], &'static [u8]>,
    meta: Meta,
    /// The first block begins at or before this, or with the topic's first kept entry where `from_first`: there is none before it.
    after: EntryId,
    from_first: bool,
    /// The ordinal that the next block begins with; `None` for the first.
    expected: Option<u64>,
}

impl<'a> Walk<'a> {
    /// From the block that holds the entry after `after`, or one before it.
    fn new(rows: &'a impl Rows, meta: &Meta, after: EntryId) -> Tried<Self> {
        let mut cursor = rows.upper_bound(Bound::Included(&row::block_key(meta.no, after)[..]))?;
        let before = cursor.peek_prev()?.and_then(|(key, _)| row::parse_block_key(key.value()));
        // A damaged inner page leads too far: the engine's order is not taken on trust.
        if let Some((topic, first)) = before
            && (topic, first) > (meta.no, after)
        {
            return Err(row::corrupt(&row::block_key(topic, first), format!("it comes before the place of {after}")).into());
        }
        let inside = before.is_some_and(|(topic, _)| topic == meta.no);
        if inside {
            cursor.prev()?;
        }
        Ok(Self { cursor, meta: *meta, after, from_first: !inside, expected: None })
    }

    /// Gives the next block to `visit`, which says whether to go on. `false`: it did not, or there is none.
    fn step(&mut self, visit: impl FnOnce(&Block<'_>) -> Tried<bool>) -> Tried<bool> {
        let meta = self.meta;
        let next = self.cursor.next()?;
        let block = match &next {
            Some((key, value)) if row::parse_block_key(key.value()).is_some_and(|(topic, _)| topic == meta.no) => {
                Some((key.value(), value.value()))
            }
            _ => None,
        };
        let Some((key, value)) = block else {
            return match self.expected {
                Some(expected) if expected == meta.appended + 1 => Ok(false),
                None if meta.kept() == 0 => Ok(false),
                expected => Err(missing(&meta, expected.unwrap_or(meta.gone + 1), meta.appended).into()),
            };
        };
        let block = Block::parse(meta.no, key, value)?;
        match self.expected {
            None if self.from_first && block.first_ordinal != meta.gone + 1 => {
                return Err(missing(&meta, meta.gone + 1, block.first_ordinal.saturating_sub(1)).into());
            }
            // The search was led astray: what it should have found lies further back.
            None if !self.from_first && block.first > self.after => {
                return Err(row::corrupt(key, format!("it was found for what is after {}", self.after)).into());
            }
            Some(expected) if expected != block.first_ordinal => {
                return Err(missing(&meta, expected, block.first_ordinal.saturating_sub(1)).into());
            }
            _ => {}
        }
        if block.last_ordinal > meta.appended || block.last > meta.last {
            return Err(row::corrupt(key, format!("it goes beyond its topic's last entry {}", meta.last)).into());
        }
        self.expected = Some(block.last_ordinal + 1);
        visit(&block)
    }
}

fn missing(meta: &Meta, from: u64, to: u64) -> StoreError {
    StoreError::Corrupt {
        at: format!("blocks of topic number {}", meta.no),
        detail: format!("entries {from} to {to} of {} are missing", meta.appended),
    }
}
