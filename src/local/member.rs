//! Member: one subscription's cursor, and the arithmetic of its overflow policy. Knows its ring, no queue and no waker.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::local::clock::Tick;
use crate::local::options::Overflow;
use crate::local::options::SubscribeOptions;
use crate::local::ring::Ring;
use crate::local::slab::Key;

pub(crate) struct Member {
    pub(crate) topic: u32,
    pub(crate) seat: u32,
    /// The next position to read.
    pub(crate) cursor: u64,
    /// [`Ring::total`] at the last event it read, and its own events since.
    pub(crate) seen: u64,
    pub(crate) delivered: u64,
    pub(crate) missed: u64,
    /// Only where something in them is not the default.
    pub(crate) extra: Option<Arc<SubscribeOptions>>,
    place: Place,
    pub(crate) capacity: u32,
    /// Since when something waits that it has been told of.
    pub(crate) ready_at: Tick,
    pub(crate) handler: u16,
    pub(crate) overflow: Overflow,
    pub(crate) keep_alive: bool,
    /// Stands in its topic's list of deadlines.
    pub(crate) watched: bool,
}

/// Where the table keeps a member, with its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Joining,
    Armed(u32),
    Ready(u32),
}

/// What waits for a member once its overflow policy has been applied.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effective {
    pub(crate) depth: u64,
    pub(crate) missed: u64,
    /// When the oldest of it came in.
    pub(crate) oldest: Option<Tick>,
}

/// Head positions at which a `Disconnect` member is too far behind: limit, index, insertion.
pub(crate) type Deadlines = BinaryHeap<Reverse<(u64, u32, u32)>>;

impl Member {
    pub(crate) fn new(topic: u32, seat: u32, handler: u16, options: &SubscribeOptions) -> Self {
        let plain = options.metadata.is_none() && options.on_close.is_none();
        Self {
            topic,
            seat,
            cursor: 0,
            seen: 0,
            delivered: 0,
            missed: 0,
            extra: (!plain).then(|| Arc::new(options.clone())),
            place: Place::Joining,
            capacity: options.capacity as u32,
            ready_at: Tick::default(),
            handler,
            overflow: options.overflow,
            keep_alive: options.keep_alive,
            watched: false,
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn set_place(&mut self, place: Place) {
        self.place = place;
    }

    /// Where this member reads on, and how many of its own events lie before that: those it does not miss.
    pub(crate) fn start(&self, ring: &Ring) -> (u64, u64) {
        let (head, capacity) = (ring.head(), u64::from(self.capacity));
        let kept = match self.overflow {
            _ if head - self.cursor <= capacity => self.cursor,
            Overflow::DropOldest | Overflow::Disconnect => head - capacity,
            Overflow::Latest => head - 1,
        };
        let mut start = kept.max(ring.base());
        let mut own = if start == self.cursor { 0 } else { ring.own(self.seat, self.cursor, start) };
        while ring.at(start).is_some_and(|entry| entry.from == self.seat) {
            (start, own) = (start + 1, own + 1);
        }
        (start, own)
    }

    pub(crate) fn effective(&self, ring: &Ring) -> Effective {
        let (start, own) = self.start(ring);
        let own_waiting = ring.own(self.seat, start, ring.head());
        let depth = ring.head() - start - own_waiting;
        // Lost before, among and after what waits: it learns of the latter with later events.
        let missed = ring.total() - self.seen - own - own_waiting - depth;
        Effective { depth, missed, oldest: ring.at(start).map(|entry| entry.at) }
    }

    /// How long it has had something to read and its seat has taken nothing.
    pub(crate) fn stalled_ms(&self, taken_at: Option<Tick>, now: Tick) -> u64 {
        let since_ready = self.ready_at.age_ms(now);
        taken_at.map_or(since_ready, |taken| since_ready.min(taken.age_ms(now)))
    }

    pub(crate) fn metadata(&self) -> Option<Arc<str>> {
        self.extra.as_ref().and_then(|options| options.metadata.clone())
    }

    /// How many events may be handed out before the cursor moves. A `Disconnect` member gets one at a time, so that an event in
    /// its handler never counts as one that waits.
    pub(crate) fn batch_max(&self, budget: usize) -> usize {
        if self.is_watchful() { 1 } else { budget }
    }

    pub(crate) fn is_watchful(&self) -> bool {
        self.overflow == Overflow::Disconnect
    }

    /// Asks to be looked at when one event more than its capacity waits.
    pub(crate) fn watch(&mut self, key: Key, deadlines: &mut Deadlines) {
        if !self.watched {
            self.watched = true;
            deadlines.push(Reverse((self.cursor + u64::from(self.capacity), key.index, key.insertion)));
        }
    }
}
