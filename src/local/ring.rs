//! Ring: the events of one topic that someone on this arbiter has not read yet, once for all of them. Knows no subscribers,
//! only how many of them wait at each event.
//!
//! ```text
//!   base                       head
//!    │ e7  e8  e9  e10  e11     │          a cursor is the position of the next event to read
//!    │ 1   0   0   2    0       │ 97       waiting: cursors that stand here
//! ```
//! An event is dropped as soon as no cursor stands at or before it; it is evicted when the ring is longer than the largest
//! capacity among its readers, and the cursors that stood there are overrun: they will find out how much they missed.

use std::collections::VecDeque;

use crate::event::Erased;
use crate::local::clock::Tick;
use crate::local::slab::NONE;

#[derive(Default)]
pub(crate) struct Ring {
    entries: VecDeque<Entry>,
    base: u64,
    /// Events published to this topic since the ring was made, those lost at a full port included.
    total: u64,
    at_head: u32,
    overrun: u32,
    /// Entries with a `from`.
    owned: u32,
}

pub(crate) struct Entry {
    /// The arbiter's order over all topics.
    pub(crate) seq: u64,
    /// [`Ring::total`] with this event. Two readings of it differ by what was published between them.
    pub(crate) total: u64,
    /// The seat that broadcast it and does not receive it, or `NONE`.
    pub(crate) from: u32,
    waiting: u32,
    /// When it came in.
    pub(crate) at: Tick,
    pub(crate) event: Erased,
}

impl Ring {
    pub(crate) fn head(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry at `position`, if it is still here.
    pub(crate) fn at(&self, position: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(position.checked_sub(self.base)?).ok()?)
    }

    /// Counts events that never came in.
    pub(crate) fn lose(&mut self, events: u64) {
        self.total += events;
    }

    pub(crate) fn push(&mut self, seq: u64, from: u32, event: Erased, at: Tick) {
        self.total += 1;
        let waiting = std::mem::take(&mut self.at_head);
        self.owned += u32::from(from != NONE);
        self.entries.push_back(Entry { seq, total: self.total, from, waiting, at, event });
    }

    /// Evicts the oldest event if there are more than `max`. What stood there is overrun.
    pub(crate) fn evict_over(&mut self, max: usize) -> Option<Entry> {
        if self.entries.len() <= max {
            return None;
        }
        let entry = self.pop()?;
        self.overrun += entry.waiting;
        Some(entry)
    }

    /// A cursor stands where there is nothing any more.
    pub(crate) fn is_overrun(&self) -> bool {
        self.overrun > 0
    }

    /// A cursor stands at `position` from now on.
    pub(crate) fn enter(&mut self, position: u64) {
        *self.waiting_at(position) += 1;
    }

    /// A cursor stands at `position` no more. Call [`trim`](Self::trim) after it has entered elsewhere, if it does.
    pub(crate) fn leave(&mut self, position: u64) {
        let waiting = self.waiting_at(position);
        debug_assert!(*waiting > 0, "a cursor leaves where none stands");
        *waiting = waiting.saturating_sub(1);
    }

    fn waiting_at(&mut self, position: u64) -> &mut u32 {
        let Some(offset) = position.checked_sub(self.base) else { return &mut self.overrun };
        match self.entries.get_mut(offset as usize) {
            Some(entry) => &mut entry.waiting,
            None => &mut self.at_head,
        }
    }

    /// Takes the newest event for a cursor that stands at it, unless `seat` broadcast it itself; the cursor then stands at the head.
    pub(crate) fn take_last(&mut self, position: u64, seat: u32) -> Option<(Erased, u64)> {
        if position + 1 != self.head() {
            return None;
        }
        let alone = self.entries.len() == 1 && self.overrun == 0;
        let entry = self.entries.back_mut().filter(|entry| entry.from != seat)?;
        entry.waiting -= 1;
        self.at_head += 1;
        if alone && entry.waiting == 0 {
            return self.pop().map(|entry| (entry.event, entry.total));
        }
        Some((Erased::clone(&entry.event), entry.total))
    }

    /// Drops what nobody needs any more into `garbage`, for the caller to drop outside of its lock.
    pub(crate) fn trim(&mut self, garbage: &mut Vec<Erased>) {
        if self.overrun > 0 {
            return;
        }
        while self.entries.front().is_some_and(|entry| entry.waiting == 0) {
            garbage.extend(self.pop().map(|entry| entry.event));
        }
        if self.entries.is_empty() && self.entries.capacity() > IDLE_ENTRIES {
            self.entries.shrink_to(IDLE_ENTRIES);
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.base += 1;
        self.owned -= u32::from(entry.from != NONE);
        Some(entry)
    }

    /// How many of the entries in `from..to` were broadcast by `seat` itself.
    pub(crate) fn own(&self, seat: u32, from: u64, to: u64) -> u64 {
        if self.owned == 0 {
            return 0;
        }
        (from.max(self.base)..to).filter(|position| self.at(*position).is_some_and(|entry| entry.from == seat)).count() as u64
    }

    /// Empties the ring when its last reader is gone.
    pub(crate) fn clear(&mut self, garbage: &mut Vec<Erased>) {
        garbage.extend(self.entries.drain(..).map(|entry| entry.event));
    }
}

/// Entries for which an idle ring keeps room, so that a trickle of events allocates nothing.
const IDLE_ENTRIES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn push(ring: &mut Ring, value: u64) {
        ring.push(value, NONE, Arc::new(value), Tick::default());
    }

    #[test]
    fn an_event_stays_until_the_last_cursor_before_it_has_passed() {
        let (mut ring, mut garbage) = (Ring::default(), Vec::new());
        ring.enter(0);
        ring.enter(0);
        push(&mut ring, 1);
        push(&mut ring, 2);
        ring.leave(0);
        ring.enter(2);
        ring.trim(&mut garbage);
        assert_eq!((ring.len(), garbage.len()), (2, 0), "the other one has read nothing");
        ring.leave(0);
        ring.enter(1);
        ring.trim(&mut garbage);
        assert_eq!((ring.len(), garbage.len()), (1, 1));
        ring.leave(1);
        ring.trim(&mut garbage);
        assert_eq!((ring.len(), ring.base(), ring.head()), (0, 2, 2), "one gone, the other at the head");
    }

    #[test]
    fn an_overrun_cursor_keeps_later_events_although_none_stands_at_them() {
        let (mut ring, mut garbage) = (Ring::default(), Vec::new());
        ring.enter(0);
        push(&mut ring, 1);
        push(&mut ring, 2);
        assert!(ring.evict_over(1).is_some());
        ring.trim(&mut garbage);
        assert_eq!((ring.len(), garbage.len()), (1, 0), "the overrun one will read event 2");
        ring.leave(0);
        ring.enter(1);
        assert_eq!(ring.at(1).map(|e| e.total), Some(2));
        ring.leave(1);
        ring.trim(&mut garbage);
        assert_eq!(ring.len(), 0);
    }
}
