//! Page: reading entries. Asks for a page and the stream's state, and makes a batch of the answers. Knows no connection.
//!
//! The state comes by `XINFO STREAM`, which is cheap and proves in nearly every case that nothing is missing. It brings the oldest and the newest entry
//! along, and says nothing of our trims: where entries are large, or that proof fails, both are asked for in one step by `page.lua`.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use redis::Pipeline;
use redis::Value;

use crate::ids::EntryId;
use crate::log::entry::Batch;
use crate::log::entry::Gap;
use crate::log::entry::GapCause;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::error::StoreError;
use crate::log::redis::client::error_in;
use crate::log::redis::error::refused;
use crate::log::redis::fields;
use crate::log::redis::gap::StreamState;
use crate::log::redis::keys::Keys;
use crate::log::redis::reply;
use crate::log::redis::script::SCRIPTS;
use crate::topic::Topic;

/// How many bytes an entry of a topic had when it was last read, so that a page of few bytes is not asked for as one of many entries.
/// Topics that fall on one place share it.
#[derive(Debug)]
pub(super) struct Sizes([AtomicUsize; 256]);

impl Default for Sizes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicUsize::new(SIZE_UNKNOWN)))
    }
}

impl Sizes {
    fn of(&self, topic: &Topic) -> &AtomicUsize {
        &self.0[(topic.hash_value() % self.0.len() as u64) as usize]
    }
}

/// A page that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    from: Position,
    limit: Limit,
    count: usize,
    exactly: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Page {
    Here(Batch),
    /// The position is ahead of the stream: to be read from its start.
    Ahead,
    /// Something may be missing: to be asked for exactly.
    Doubt,
}

/// How a page is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Cheap,
    Exact,
}

/// Adds what asks for a page to `commands`.
pub(super) fn ask(
    keys: &Keys,
    sizes: &Sizes,
    topic: &Topic,
    from: Position,
    limit: Limit,
    way: Way,
    commands: &mut Pipeline,
) -> Asked {
    let start = match from {
        Position::Start => "-".to_owned(),
        Position::End => "+".to_owned(),
        Position::After(id) => id.next().unwrap_or(EntryId::MAX).to_string(),
        Position::Since(ms) => EntryId::new(ms, 0).to_string(),
    };
    let size = sizes.of(topic).load(Ordering::Relaxed);
    let by_bytes = (limit.bytes / size.max(1)).saturating_add(1);
    let count = limit.entries.min(by_bytes).clamp(1, PAGE_ENTRIES_MAX);
    let stream = keys.stream(topic);
    let exactly = way == Way::Exact || size > SIZE_CHEAP;
    if exactly {
        let mut command = SCRIPTS.page.on(&[stream, keys.meta(topic)]);
        command.arg(start).arg(count);
        commands.add_command(command);
    } else {
        commands.cmd("XRANGE").arg(&stream).arg(start).arg("+").arg("COUNT").arg(count);
        // After the page: what was removed before the page was read shows.
        commands.cmd("XINFO").arg("STREAM").arg(&stream);
    }
    Asked { from, limit, count, exactly }
}

impl Asked {
    /// How many replies it has.
    pub(super) fn replies(&self) -> usize {
        if self.exactly { 1 } else { 2 }
    }

    /// The page, of its replies.
    pub(super) fn page(&self, sizes: &Sizes, topic: &Topic, replies: Vec<Value>) -> Result<Page, StoreError> {
        let (found, state) = if self.exactly {
            let [page] = reply::fixed(Value::Array(replies))?;
            if let Some(error) = error_in(&page) {
                return Err(refused(error, None));
            }
            let [found, state] = reply::fixed(page)?;
            (found, StreamState::parse(state)?.unwrap_or_default())
        } else {
            let [found, state] = reply::fixed(Value::Array(replies))?;
            if let Some(error) = error_in(&found) {
                return Err(refused(error, None));
            }
            match error_in(&state) {
                None => (found, StreamState::parse_info(state)?),
                Some(error) if error.detail().is_some_and(|detail| detail.contains("no such key")) => {
                    (found, StreamState::default())
                }
                Some(error) => return Err(refused(error, None)),
            }
        };
        let cause = match self.from {
            Position::After(after) => match state.gap(after) {
                Some(_) if !self.exactly => return Ok(Page::Doubt),
                Some(GapCause::Ahead) => return Ok(Page::Ahead),
                cause => cause.map(|cause| (after, cause)),
            },
            _ => None,
        };
        let mut found = reply::list(found)?;
        // "After the last id there is" and "after the newest" have nothing.
        if matches!(self.from, Position::End | Position::After(EntryId::MAX)) {
            found.clear();
        }
        let asked_all = found.len() < self.count;
        let (mut entries, mut bytes, mut cut) = (Vec::with_capacity(found.len()), 0, false);
        for value in found {
            if !entries.is_empty() && (entries.len() >= self.limit.entries || bytes >= self.limit.bytes) {
                cut = true;
                break;
            }
            let entry = fields::entry(value)?;
            bytes += entry.payload.len();
            entries.push(entry);
        }
        if !entries.is_empty() {
            sizes.of(topic).store((bytes / entries.len()).max(SIZE_MIN), Ordering::Relaxed);
        }
        let newest = entries.last().map(|entry| entry.id);
        let next = newest.unwrap_or_else(|| match self.from {
            Position::After(after) if cause.is_none() => after,
            Position::After(_) | Position::Start => state.before_kept(),
            Position::End => state.last,
            // A time to come: no reader can be put ahead of the log.
            Position::Since(_) if state.first.is_none() => state.last,
            Position::Since(ms) => EntryId::new(ms, 0).prev().unwrap_or_default().min(state.last),
        });
        let caught_up = !cut && (asked_all || state.newest.is_none_or(|newest| newest <= next));
        let resumes_at = entries.first().map(|entry| entry.id);
        let gap = cause.map(|(after, cause)| Gap::new(topic.clone(), after, resumes_at, cause, false));
        Ok(Page::Here(Batch { entries, next, gap, caught_up }))
    }
}

/// Of an entry that was never seen: a first page has at most 32.
const SIZE_UNKNOWN: usize = 32 << 10;
/// Above this two entries more cost more than a script.
const SIZE_CHEAP: usize = 4 << 10;
/// So that entries without payload do not ask for all there are.
const SIZE_MIN: usize = 64;
/// Entries in one answer, whatever the limits say.
const PAGE_ENTRIES_MAX: usize = 100_000;
