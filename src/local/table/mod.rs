//! Table: one arbiter's subscriptions, what waits for each, and who must be woken. Pure: no clock, no thread, no waking, no
//! user code; it says what to do and its caller does it outside of the lock.
//!
//! ```text
//!   topic ── ring of events, `armed` members ◄─┐
//!                                              │ member: one subscription = (topic, seat), a cursor into the ring
//!   seat  ── waker, `ready` members         ◄──┘
//! ```
//! Invariants, checked by the model test `table_matches_a_naive_model`:
//! * a member is in exactly one place: joining (its `Join` is still queued), in its topic's `armed` list (it has read
//!   everything, or a fan-out is about to reach it), or in its seat's `ready` list;
//! * a seat has a waker only while nothing in it is ready, so it is woken once however much arrives;
//! * at most one topic is being fanned out; until that is done no other topic's ring gets an event. With the order of the port this
//!   gives every subscriber one order over all its topics.

mod inflow;
mod outflow;
mod parts;

use std::any::TypeId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::event::Erased;
use crate::ids::SubscriberId;
use crate::local::clock::Tick;
use crate::local::incident::IncidentKind;
use crate::local::interest::TopicPort;
use crate::local::member::Effective;
use crate::local::member::Member;
use crate::local::member::Place;
use crate::local::options::CloseReason;
use crate::local::options::SubscribeOptions;
use crate::local::options::SubscriptionClosed;
use crate::local::port::Item;
use crate::local::rate::Rate;
use crate::local::slab::Key;
use crate::local::slab::Slab;
pub(crate) use crate::local::table::parts::Alive;
pub(crate) use crate::local::table::parts::Seat;
pub(crate) use crate::local::table::parts::TopicState;

pub(crate) struct Table {
    topics: Slab<TopicState>,
    seats: Slab<Seat>,
    members: Slab<Member>,
    /// Drained from the port, not yet in a ring.
    pub(crate) pending: VecDeque<Item>,
    fanout: Option<u32>,
    seq: u64,
    ending: bool,
    /// Room for `collect`, so that it allocates nothing.
    scratch: Vec<u32>,
    heads: BinaryHeap<Reverse<(u64, u32, u64, u64)>>,
    /// A topic in which somebody was overrun, and when one was last told of.
    overrun: Option<u32>,
    stuck_told_at: Option<Tick>,
    /// The present; told by whoever lets events in or out.
    now: Tick,
    /// Of what was delivered.
    rate: Rate,
    /// What the caller must do after unlocking; see [`Outs`].
    outs: Outs,
    pub(crate) counts: Counts,
}

/// What a change of the table leaves to be done.
#[derive(Default)]
pub(crate) struct Outs {
    /// Topics without members: their interest is withdrawn before the lock is released.
    pub(crate) emptied: Vec<u32>,
    /// Seats that are gone: forgotten before the lock is released.
    pub(crate) unseated: Vec<SubscriberId>,
    /// To be dropped without the lock: dropping a payload is user code.
    pub(crate) garbage: Vec<Erased>,
    /// To be sent without the lock.
    pub(crate) closed: Vec<(Arc<SubscribeOptions>, SubscriptionClosed)>,
    /// To be noted without the lock.
    pub(crate) incidents: Vec<IncidentKind>,
    /// To be woken without the lock, because something ended for them.
    pub(crate) wakers: Vec<Waker>,
}

impl Outs {
    pub(crate) fn is_empty(&self) -> bool {
        self.emptied.is_empty()
            && self.unseated.is_empty()
            && self.garbage.is_empty()
            && self.closed.is_empty()
            && self.incidents.is_empty()
            && self.wakers.is_empty()
    }
}

/// Totals over the life of an arbiter's table.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// Events for subscriptions: one for each that was there. Always what was delivered, missed, discarded and waits.
    pub(crate) addressed: u64,
    pub(crate) delivered: u64,
    pub(crate) missed: u64,
    pub(crate) discarded: u64,
    pub(crate) events: u64,
}

/// One event on its way to a handler.
pub(crate) struct Taken {
    /// `None` once it is on its way.
    pub(crate) event: Option<Erased>,
    pub(crate) missed: u64,
    pub(crate) handler: u16,
    member: Key,
    position: u64,
    total: u64,
}

impl Taken {
    pub(crate) fn member(&self) -> Key {
        self.member
    }
}

/// What a poll of a seat found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Took {
    /// Nothing waits beyond the one event given, if any; the waker is stored. No `settle` is owed.
    Idle,
    /// As `Idle`, and no subscription of the seat keeps its actor alive.
    Loose,
    /// One event is given and more wait. No `settle` is owed.
    More,
    /// Several events are given; `settle` must say how many were handled.
    Batch,
    /// The seat is gone.
    Ended,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            topics: Slab::new(),
            seats: Slab::new(),
            members: Slab::new(),
            pending: VecDeque::new(),
            fanout: None,
            seq: 0,
            ending: false,
            scratch: Vec::new(),
            heads: BinaryHeap::new(),
            overrun: None,
            stuck_told_at: None,
            now: Tick::default(),
            rate: Rate::default(),
            outs: Outs::default(),
            counts: Counts::default(),
        }
    }

    /// The time is `now`.
    pub(crate) fn look_at(&mut self, now: Tick) {
        if now != self.now {
            self.now = now;
            self.rate.tick(now, self.counts.delivered);
        }
    }

    /// Events delivered in the last whole second before the one in which the clock was looked at.
    pub(crate) fn delivered_last_second(&self) -> u64 {
        self.rate.last_second()
    }

    pub(crate) fn outs(&mut self) -> &mut Outs {
        &mut self.outs
    }

    pub(crate) fn topic(&self, index: u32) -> Option<&TopicState> {
        self.topics.get(index)
    }

    pub(crate) fn seat(&self, key: Key) -> Option<&Seat> {
        self.seats.get_key(key)
    }

    /// The key of the seat at `index`, if it is that of `id`.
    pub(crate) fn seat_of(&self, index: u32, id: SubscriberId) -> Option<Key> {
        self.seats.get(index).filter(|seat| seat.id == id)?;
        self.seats.key(index)
    }

    /// The index of a seat's handler for a message type. `D` is one type per seat: how its poller calls a handler.
    pub(crate) fn handler<D>(&mut self, seat: Key, message: TypeId, handler: D, address: impl Fn(&D) -> usize) -> u16
    where
        D: Copy + Send + 'static,
    {
        let Some(place) = self.seats.get_key_mut(seat) else { return 0 };
        let like = place.subscriptions.some().into_iter().find_map(|member| {
            let member = self.members.get(member)?;
            (self.topics.get(member.topic)?.shared.message().0 == message).then_some(member.handler)
        });
        like.unwrap_or_else(|| place.further_handler(handler, address))
    }

    pub(crate) fn seat_at(&self, index: u32) -> Option<&Seat> {
        self.seats.get(index)
    }

    pub(crate) fn has_seat(&self, key: Key) -> bool {
        self.seats.contains(key)
    }

    pub(crate) fn member(&self, key: Key) -> Option<&Member> {
        self.members.get_key(key)
    }

    pub(crate) fn seats(&self) -> usize {
        self.seats.len()
    }

    pub(crate) fn members_end(&self) -> u32 {
        self.members.end()
    }

    pub(crate) fn seats_end(&self) -> u32 {
        self.seats.end()
    }

    /// No event has been accepted that is not in its ring yet, as far as the table knows.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    // ---- who is here -------------------------------------------------------------------------------------------------

    pub(crate) fn add_seat(&mut self, id: SubscriberId, actor: fn() -> &'static str) -> Key {
        self.seats.insert(Seat::new(id, actor))
    }

    /// `shared` is given the key, which is part of what is shared.
    pub(crate) fn add_topic(&mut self, shared: impl FnOnce(Key) -> Arc<TopicPort>) -> u32 {
        self.topics.insert_with(|key| TopicState::new(shared(key))).index
    }

    pub(crate) fn remove_topic(&mut self, index: u32) {
        if let Some(mut state) = self.topics.remove(index) {
            debug_assert_eq!(state.members, 0);
            state.ring.clear(&mut self.outs.garbage);
            if self.fanout == Some(index) {
                self.fanout = None;
            }
        }
    }

    pub(crate) fn find(&self, seat: u32, topic: u32) -> Option<Key> {
        let member = self.seats.get(seat)?.subscriptions.find(topic)?;
        self.members.key(member)
    }

    /// A subscription of `seat` to `topic`. With `joining` it starts when its `Join` is applied, otherwise now.
    pub(crate) fn join(&mut self, seat: u32, topic: u32, handler: u16, options: &SubscribeOptions, joining: bool) -> Option<Key> {
        let (place, state) = (self.seats.get_mut(seat)?, self.topics.get_mut(topic)?);
        let key = self.members.insert(Member::new(topic, seat, handler, options));
        state.members += 1;
        state.shared.count(1);
        place.keepers += u32::from(options.keep_alive);
        place.subscriptions.add(topic, key.index);
        if !joining {
            self.activate(key);
        }
        Some(key)
    }

    /// The member reads from here on.
    fn activate(&mut self, key: Key) {
        let Some(member) = self.members.get_key_mut(key) else { return };
        let Some(topic) = self.topics.get_mut(member.topic) else { return };
        member.cursor = topic.ring.head();
        member.seen = topic.ring.total();
        topic.active += 1;
        topic.ring.enter(member.cursor);
        match topic.capacities.iter_mut().find(|(capacity, _)| *capacity == member.capacity) {
            Some((_, members)) => *members += 1,
            None => topic.capacities.push((member.capacity, 1)),
        }
        topic.arm(key.index, member);
    }

    /// Ends one subscription. `closed`: tell whoever asked to be told.
    pub(crate) fn leave(&mut self, key: Key, closed: Option<CloseReason>) -> bool {
        if !self.members.contains(key) {
            return false;
        }
        let Some(member) = self.members.remove(key.index) else { return false };
        let mut discarded = 0;
        if let Some(topic) = self.topics.get_mut(member.topic) {
            match member.place() {
                Place::Joining => {}
                Place::Armed(at) => topic.disarm(at, &mut self.members),
                Place::Ready(at) => {
                    if let Some(seat) = self.seats.get_mut(member.seat) {
                        seat.ready.remove(at, &mut self.members);
                    }
                }
            }
            if member.place() != Place::Joining {
                let waiting = member.effective(&topic.ring);
                discarded = waiting.depth;
                // What the full port refused is its loss, although nobody told it.
                let refused = topic.shared.lost();
                self.counts.addressed += refused;
                self.counts.discarded += waiting.depth;
                self.counts.missed += waiting.missed + refused;
                topic.forget(&member, &mut self.outs.garbage);
            }
            if member.watched {
                topic.unwatched += 1;
                if let Some(deadlines) = &mut topic.deadlines
                    && topic.unwatched > 64.max(deadlines.len() / 2)
                {
                    topic.unwatched = 0;
                    let members = &self.members;
                    deadlines
                        .retain(|Reverse((_, index, insertion))| members.contains(Key { index: *index, insertion: *insertion }));
                }
            }
            topic.members -= 1;
            topic.shared.uncount(1);
            if topic.members == 0 {
                self.outs.emptied.push(member.topic);
            }
            if let (Some(reason), Some(options)) = (closed, &member.extra)
                && options.on_close.is_some()
            {
                let notice = SubscriptionClosed { topic: topic.shared.topic().clone(), reason, discarded };
                self.outs.closed.push((Arc::clone(options), notice));
            }
        }
        self.evict(member.topic);
        if let Some(seat) = self.seats.get_mut(member.seat) {
            seat.keepers -= u32::from(member.keep_alive);
            let emptied = seat.subscriptions.remove(member.topic);
            // Whoever polls this seat has to learn that it ended, or that it keeps its actor alive no more.
            if (emptied || seat.keepers == 0)
                && let Some(waker) = seat.waker.take()
            {
                self.outs.wakers.push(waker);
            }
        }
        true
    }

    /// Ends a seat with all its subscriptions: its subscriber is gone. Costs the number of its subscriptions, which it returns.
    pub(crate) fn remove_seat(&mut self, key: Key, closed: Option<CloseReason>) -> u64 {
        if !self.seats.contains(key) {
            return 0;
        }
        let mut ended = 0;
        for member in self.seats.get(key.index).map(|seat| seat.subscriptions.members()).into_iter().flatten() {
            if let Some(member) = self.members.key(member) {
                ended += u64::from(self.leave(member, closed));
            }
        }
        if let Some(mut seat) = self.seats.remove(key.index) {
            self.outs.unseated.push(seat.id);
            self.outs.wakers.extend(seat.waker.take());
        }
        ended
    }

    /// Ends the subscriptions of one seat, not the seat.
    pub(crate) fn leave_all(&mut self, seat: u32) -> usize {
        let members = self.seats.get(seat).map(|seat| seat.subscriptions.members()).unwrap_or_default();
        members.iter().filter(|member| self.members.key(**member).is_some_and(|key| self.leave(key, None))).count()
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    /// From now on a seat ends as soon as it has read what it has.
    pub(crate) fn end(&mut self) {
        self.ending = true;
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Counts events for a topic that a full port refused.
    pub(crate) fn lose(&mut self, topic: u32, events: u64) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.ring.lose(events);
            self.counts.addressed += events * u64::from(topic.active);
        }
    }

    /// An event that was queued and will not come into a ring: lost to all who would have got it, as is what was refused before it.
    pub(crate) fn discard(&mut self, item: &Item) {
        let (topic, events, lost) = match item {
            Item::Event { topic, lost, .. } => (topic, 1, *lost),
            Item::Lost { topic, events } => (topic, 0, *events),
            Item::Join { .. } => return,
        };
        if let Some(topic) = self.topics.get(topic.index).filter(|state| state.shared.key() == *topic) {
            let active = u64::from(topic.active);
            self.counts.addressed += active * (events + lost);
            self.counts.discarded += active * events;
            self.counts.missed += active * lost;
        }
    }

    /// Events in a topic's ring.
    pub(crate) fn backlog(&self, topic: u32) -> usize {
        self.topics.get(topic).map_or(0, |topic| topic.ring.len())
    }

    /// Has the seat polled: something about it changed.
    pub(crate) fn nudge(&mut self, seat: u32) {
        if let Some(waker) = self.seats.get_mut(seat).and_then(|seat| seat.waker.take()) {
            self.outs.wakers.push(waker);
        }
    }

    /// Says how to see whether the subscriber of a seat still lives.
    pub(crate) fn monitor(&mut self, seat: Key, alive: Alive) {
        if let Some(seat) = self.seats.get_key_mut(seat) {
            seat.extra.get_or_insert_default().alive = Some(alive);
        }
    }

    /// The seat at `index`, if its subscriber can only be seen from outside.
    pub(crate) fn monitored(&self, index: u32) -> Option<(Key, Alive)> {
        let alive = self.seats.get(index)?.extra.as_ref()?.alive.as_ref()?;
        Some((self.seats.key(index)?, Arc::clone(alive)))
    }

    /// Takes the wakers of the seats in `from..to`, to tell them of the end.
    ///
    /// Those that have read everything end right here: nobody may ever poll them again.
    pub(crate) fn wake_seats(&mut self, from: u32, to: u32, wakers: &mut Vec<Waker>) {
        for index in from..to {
            let (Some(key), Some(seat)) = (self.seats.key(index), self.seats.get_mut(index)) else { continue };
            wakers.extend(seat.waker.take());
            if seat.has_read_all() {
                self.remove_seat(key, Some(CloseReason::Shutdown));
            }
        }
    }

    // ---- looking in --------------------------------------------------------------------------------------------------

    /// What waits for a member, after its overflow policy.
    pub(crate) fn effective(&self, member: &Member) -> Effective {
        match self.topics.get(member.topic) {
            Some(topic) if member.place() != Place::Joining => member.effective(&topic.ring),
            _ => Effective::default(),
        }
    }

    /// What a full port refused and nobody has been told of: it is a member's loss already.
    pub(crate) fn refused(&self, member: &Member) -> u64 {
        match self.topics.get(member.topic) {
            Some(topic) if member.place() != Place::Joining => topic.shared.lost(),
            _ => 0,
        }
    }

    /// What a member missed that has read all there is: it learns of it with the next event.
    pub(crate) fn untold(&self, member: &Member) -> u64 {
        match self.topics.get(member.topic) {
            Some(topic) if member.place() != Place::Joining => topic.ring.total() - member.seen,
            _ => 0,
        }
    }

    /// Events of a topic so far.
    pub(crate) fn total(&self, topic: u32) -> u64 {
        self.topics.get(topic).map_or(0, |topic| topic.ring.total())
    }

    pub(crate) fn topics_end(&self) -> u32 {
        self.topics.end()
    }

    /// Whether a member may have something to read: cheaper than [`effective`](Self::effective), for who looks at many.
    pub(crate) fn may_wait(&self, member: &Member) -> bool {
        match member.place() {
            Place::Joining => false,
            Place::Ready(_) => true,
            Place::Armed(at) => self.topics.get(member.topic).is_some_and(|topic| (at as usize) < topic.fan_left),
        }
    }

    pub(crate) fn member_at(&self, index: u32) -> Option<(Key, &Member)> {
        Some((self.members.key(index)?, self.members.get(index)?))
    }
}
