//! Place: where the feed is in one topic, and what lies before each entry. Pure; knows no store and no thread.

use std::any::TypeId;

use smallvec::SmallVec;

use crate::ids::EntryId;
use crate::log::Batch;
use crate::log::GapCause;

/// Where an entry stands among those of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// No entry of its type lies between this id and its own. It need not be that of an entry.
    pub(crate) prev: EntryId,
    /// Which log this is: ids of two epochs do not compare.
    pub(crate) epoch: u32,
}

/// The feed's place in one topic.
#[derive(Debug)]
pub(crate) struct Places {
    epoch: u32,
    /// Nothing of any type lies between this and the first entry that came.
    base: EntryId,
    /// The last entry of each type.
    last: SmallVec<[(TypeId, EntryId); 2]>,
}

impl Places {
    /// The feed follows the topic after `head`.
    pub(crate) fn new(head: EntryId) -> Self {
        Self { epoch: 0, base: head, last: SmallVec::new() }
    }

    /// A batch begins. If it is of another log than before, that is a new epoch.
    pub(crate) fn begin(&mut self, batch: &Batch) {
        let Some(gap) = &batch.gap else { return };
        // What came before does not join on to what comes now.
        self.base = batch.entries.first().and_then(|entry| entry.id.prev()).unwrap_or(batch.next);
        self.last.clear();
        self.epoch = self.epoch.wrapping_add(u32::from(gap.cause == GapCause::Ahead));
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The next entry of this type.
    pub(crate) fn pass(&mut self, message: TypeId, id: EntryId) -> Place {
        let prev = match self.last.iter_mut().find(|(of, _)| *of == message) {
            Some((_, last)) => std::mem::replace(last, id).max(self.base),
            None => {
                self.last.push((message, id));
                self.base
            }
        };
        Place { prev, epoch: self.epoch }
    }
}
