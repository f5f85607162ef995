//! Replay: the hand-over from history to live, as a pure state machine. Takes what was read and what came live, says what to do with it;
//! owns no store, no clock and no actor.
//!
//! ```text
//!            page, more to come                    live, joins on: deliver
//!              ┌──────┐                               ┌──────┐
//!              v      │   page, caught up, and begun  v      │
//!   begin ──> Read ───┴── while the feed stood ────> Live ───┘
//!              ^ ^                                     │
//!              │ └── page, caught up, begun before ──> │
//!              │     the feed stood: once more         │
//!              └───── live, does not join on ──────────┘
//! ```
//!
//! Why nothing is missed: the live events were being kept before the last page was begun, and that page was the end of the log. So an entry is
//! in the page, or comes live. Why nothing comes twice: whatever is not after `at` is skipped. What was dropped from the live
//! events, because their ring is bounded, shows as a `prev` that lies after `at`; then history is read from `at` again.

use crate::ids::EntryId;
use crate::log::Position;

/// Where one follower is.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    /// Everything up to here was taken, or told as a gap.
    at: Position,
    /// Which log the live events are of, as far as is known.
    epoch: u32,
    /// A page showed that the log is another one, so live events may still be of the old one, until one with this id was read from the new.
    doubt: Option<EntryId>,
    stands: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A page is to be read.
    Read,
    /// A page is being read; whether the feed stood when that was begun.
    Reading {
        stood: bool,
    },
    /// The log was read to its end, before the feed stood.
    Stand,
    Live,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Read a page from here and give it to `page`.
    Page(Position),
    /// The page that is being read.
    Reading,
    /// Wait until the feed stands.
    Standing,
    /// The next live event, for `live`.
    Live,
}

/// What to do with a live event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    Deliver,
    /// It was had before.
    Skip,
    /// It does not join on: history is read again, and brings it.
    Reread,
    /// It is of another log than what was had before: that is a gap, and the new log is read from its start.
    Replaced,
}

impl Replay {
    pub(crate) fn new(from: Position) -> Self {
        Self { at: from, epoch: 0, doubt: None, stands: false, phase: Phase::Read }
    }

    /// Of what comes from now on: where that begins the feed says, when it stands.
    pub(crate) fn from_now() -> Self {
        Self { at: Position::End, epoch: 0, doubt: None, stands: false, phase: Phase::Stand }
    }

    pub(crate) fn want(&self) -> Want {
        match self.phase {
            Phase::Read => Want::Page(self.at),
            Phase::Reading { .. } => Want::Reading,
            Phase::Stand => Want::Standing,
            Phase::Live => Want::Live,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// The page that was wanted is being read from now on.
    pub(crate) fn begin(&mut self) {
        self.phase = Phase::Reading { stood: self.stands };
    }

    /// The reading failed, and is to be begun again.
    pub(crate) fn failed(&mut self) {
        self.phase = Phase::Read;
    }

    /// The feed stands on the topic, after `at`. Live events were being kept before.
    pub(crate) fn stood(&mut self, epoch: u32, at: EntryId) {
        self.stands = true;
        self.epoch = epoch;
        if self.at == Position::End {
            self.at = Position::After(at);
        }
        if self.phase == Phase::Stand {
            self.phase = Phase::Read;
        }
    }

    /// A page was read up to `next`; its entries and its gap are to be delivered, all of them. `replaced`: the gap says that it is another log.
    pub(crate) fn page(&mut self, next: EntryId, caught_up: bool, replaced: bool) {
        self.at = Position::After(next);
        if replaced {
            self.doubt = Some(EntryId::MAX);
        } else if self.doubt.is_some_and(|id| id <= next) {
            self.doubt = None;
        }
        self.phase = match self.phase {
            Phase::Reading { stood: true } if caught_up => Phase::Live,
            // The feed may have come to stand meanwhile: then once more is enough.
            Phase::Reading { stood: false } if caught_up && !self.stands => Phase::Stand,
            _ => Phase::Read,
        };
    }

    /// A live event came.
    pub(crate) fn live(&mut self, id: EntryId, prev: EntryId, epoch: u32) -> Live {
        // Epochs count up and wrap.
        let newer = epoch.wrapping_sub(self.epoch);
        if newer > u32::MAX / 2 {
            return Live::Skip;
        }
        if newer > 0 {
            // A page may have said so already. But it may have been of yet another log; so this is told twice rather than never.
            (self.epoch, self.doubt, self.phase) = (epoch, None, Phase::Read);
            self.at = Position::After(EntryId::MIN);
            return Live::Replaced;
        }
        let Position::After(at) = self.at else {
            self.phase = Phase::Read;
            return Live::Reread;
        };
        if id <= at {
            return Live::Skip;
        }
        if self.doubt.is_some() {
            (self.doubt, self.phase) = (Some(id), Phase::Read);
            return Live::Reread;
        }
        if prev > at {
            self.phase = Phase::Read;
            return Live::Reread;
        }
        self.at = Position::After(id);
        Live::Deliver
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
