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

use std::any::Any;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::event::Erased;
use crate::ids::SubscriberId;
use crate::local::hash::BuildPrehashed;
use crate::local::interest::TopicPort;
use crate::local::member::Deadlines;
use crate::local::member::Effective;
use crate::local::member::Member;
use crate::local::member::Place;
use crate::local::options::CloseReason;
use crate::local::options::SubscribeOptions;
use crate::local::options::SubscriptionClosed;
use crate::local::port::Item;
use crate::local::ring::Ring;
use crate::local::slab::Key;
use crate::local::slab::NONE;
use crate::local::slab::Slab;

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
    /// To be woken without the lock, because something ended for them.
    pub(crate) wakers: Vec<Waker>,
}

impl Outs {
    pub(crate) fn is_empty(&self) -> bool {
        self.emptied.is_empty()
            && self.unseated.is_empty()
            && self.garbage.is_empty()
            && self.closed.is_empty()
            && self.wakers.is_empty()
    }
}

/// Totals over the life of an arbiter's table.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    pub(crate) missed: u64,
    pub(crate) discarded: u64,
    pub(crate) events: u64,
}

pub(crate) struct TopicState {
    pub(crate) shared: Arc<TopicPort>,
    ring: Ring,
    /// Members to wake at the next event. Those below `fan_left` still have to learn of the last one.
    armed: Vec<u32>,
    fan_left: usize,
    members: u32,
    capacities: smallvec::SmallVec<[(u32, u32); 1]>,
    /// When to look whether a `Disconnect` member is too far behind: head position, member.
    deadlines: Option<Box<Deadlines>>,
}

pub(crate) struct Seat {
    pub(crate) id: SubscriberId,
    waker: Option<Waker>,
    ready: Ready,
    subscriptions: Subscriptions,
    /// Members with `keep_alive`.
    keepers: u32,
    pub(crate) actor: fn() -> &'static str,
    /// The address of the handler with index 0, which whoever polls the seat knows by itself.
    first: usize,
    pub(crate) extra: Option<Box<SeatExtra>>,
}

/// What few seats have.
#[derive(Default)]
pub(crate) struct SeatExtra {
    /// `Vec<D>`: the handlers with index 1 and up; whoever polls the seat knows the type.
    handlers: Option<Box<dyn Any + Send>>,
    /// For a subscriber that can only be seen from outside: whether it still lives.
    pub(crate) alive: Option<Box<dyn Fn() -> bool + Send>>,
}

enum Ready {
    None,
    One(u32),
    Many(Box<Vec<u32>>),
}

enum Subscriptions {
    None,
    One { topic: u32, member: u32 },
    Many(Box<HashMap<u32, u32, BuildPrehashed>>),
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
            outs: Outs::default(),
            counts: Counts::default(),
        }
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

    pub(crate) fn seat_mut(&mut self, key: Key) -> Option<&mut Seat> {
        self.seats.get_key_mut(key)
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
        self.seats.insert(Seat {
            id,
            waker: None,
            ready: Ready::None,
            subscriptions: Subscriptions::None,
            keepers: 0,
            actor,
            first: 0,
            extra: None,
        })
    }

    pub(crate) fn add_topic(&mut self, shared: impl FnOnce(Key) -> Arc<TopicPort>) -> u32 {
        // The key is part of what is shared, so it is drawn before the value is complete.
        self.topics
            .insert_with(|key| TopicState {
                shared: shared(key),
                ring: Ring::default(),
                armed: Vec::new(),
                fan_left: 0,
                members: 0,
                capacities: smallvec::SmallVec::new(),
                deadlines: None,
            })
            .index
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
        let member = match &self.seats.get(seat)?.subscriptions {
            Subscriptions::None => None,
            Subscriptions::One { topic: t, member } => (*t == topic).then_some(*member),
            Subscriptions::Many(map) => map.get(&topic).copied(),
        }?;
        self.members.key(member)
    }

    /// A subscription of `seat` to `topic`. With `joining` it starts when its `Join` is applied, otherwise now.
    pub(crate) fn join(&mut self, seat: u32, topic: u32, handler: u16, options: &SubscribeOptions, joining: bool) -> Option<Key> {
        let (place, state) = (self.seats.get_mut(seat)?, self.topics.get_mut(topic)?);
        let key = self.members.insert(Member::new(topic, seat, handler, options));
        state.members += 1;
        state.shared.count(1);
        place.keepers += u32::from(options.keep_alive);
        place.subscriptions = match std::mem::replace(&mut place.subscriptions, Subscriptions::None) {
            Subscriptions::None => Subscriptions::One { topic, member: key.index },
            Subscriptions::One { topic: t, member } => {
                Subscriptions::Many(Box::new(HashMap::from_iter([(t, member), (topic, key.index)])))
            }
            Subscriptions::Many(mut map) => {
                map.insert(topic, key.index);
                Subscriptions::Many(map)
            }
        };
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
                self.counts.discarded += waiting.depth;
                self.counts.missed += waiting.missed;
                topic.forget(&member, &mut self.outs.garbage);
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

    /// Ends a seat with all its subscriptions: its subscriber is gone. Costs the number of its subscriptions.
    pub(crate) fn remove_seat(&mut self, key: Key, closed: Option<CloseReason>) -> bool {
        if !self.seats.contains(key) {
            return false;
        }
        for member in self.seats.get(key.index).map(|seat| seat.subscriptions.members()).into_iter().flatten() {
            if let Some(member) = self.members.key(member) {
                self.leave(member, closed);
            }
        }
        if let Some(seat) = self.seats.remove(key.index) {
            self.outs.unseated.push(seat.id);
        }
        true
    }

    /// Ends the subscriptions of one seat, not the seat.
    pub(crate) fn leave_all(&mut self, seat: u32) -> usize {
        let members = self.seats.get(seat).map(|seat| seat.subscriptions.members()).unwrap_or_default();
        members.iter().filter(|member| self.members.key(**member).is_some_and(|key| self.leave(key, None))).count()
    }

    // ---- events in ---------------------------------------------------------------------------------------------------

    /// Whether an event for `topic` may go into its ring now, without overtaking what is still being fanned out.
    pub(crate) fn accepts(&self, topic: u32) -> bool {
        self.fanout.is_none_or(|busy| busy == topic)
    }

    /// Applies pending items in order, up to `max`, and stops where a fan-out must be finished first.
    /// `seat_of` finds the seat of a publisher that asked not to receive its own event. Returns how many were applied.
    pub(crate) fn apply(&mut self, max: usize, seat_of: impl Fn(SubscriberId) -> Option<u32>) -> usize {
        let mut applied = 0;
        while applied < max {
            match self.pending.front() {
                Some(Item::Event { topic, .. } | Item::Lost { topic, .. }) if !self.accepts(topic.index) => break,
                None => break,
                Some(_) => {}
            }
            match self.pending.pop_front() {
                Some(Item::Event { topic, from, event, lost }) => {
                    let from = from.and_then(&seat_of).unwrap_or(NONE);
                    self.push(topic, from, event, lost);
                }
                Some(Item::Lost { topic, events }) => {
                    if let Some(state) = self.topics.get_mut(topic.index).filter(|state| state.shared.key() == topic) {
                        state.ring.lose(events);
                    }
                }
                Some(Item::Join { member }) => {
                    if self.members.contains(member) {
                        self.activate(member);
                    }
                }
                None => break,
            }
            applied += 1;
        }
        applied
    }

    /// Writes one event into its topic's ring. The members that have read everything before it become the fan-out.
    pub(crate) fn push(&mut self, key: Key, from: u32, event: Erased, lost: u64) {
        debug_assert!(self.accepts(key.index), "an event overtakes a fan-out");
        let Some(topic) = self.topics.get_mut(key.index).filter(|topic| topic.shared.key() == key) else {
            // Its last subscriber left while it was queued.
            self.outs.garbage.push(event);
            return;
        };
        self.seq += 1;
        self.counts.events += 1;
        topic.ring.lose(lost);
        topic.ring.push(self.seq, from, event);
        let capacity = topic.capacities.iter().map(|(capacity, _)| *capacity).max().unwrap_or(0);
        if let Some(evicted) = topic.ring.evict_over(capacity as usize) {
            self.outs.garbage.push(evicted.event);
            if evicted.from != NONE {
                self.forgive_own(key.index, evicted.from, evicted.total);
            }
        }
        let Some(topic) = self.topics.get_mut(key.index) else { return };
        if !topic.armed.is_empty() {
            topic.fan_left = topic.armed.len();
            self.fanout = Some(key.index);
        }
        if topic.deadlines.is_some() {
            self.disconnect_overdue(key.index);
        }
    }

    /// The evicted event was the member's own: it was never going to receive it, so it did not miss it.
    fn forgive_own(&mut self, topic: u32, seat: u32, total: u64) {
        if let Some(key) = self.find(seat, topic)
            && let Some(member) = self.members.get_mut(key.index)
            && member.place() != Place::Joining
            && member.seen < total
        {
            member.seen += 1;
        }
    }

    fn disconnect_overdue(&mut self, index: u32) {
        loop {
            let Some(topic) = self.topics.get_mut(index) else { return };
            let head = topic.ring.head();
            let Some(deadlines) = &mut topic.deadlines else { return };
            match deadlines.peek() {
                Some(Reverse((limit, ..))) if *limit < head => {}
                _ => return,
            }
            let Some(Reverse((_, index, insertion))) = deadlines.pop() else { return };
            let key = Key { index, insertion };
            let Some(member) = self.members.get_key_mut(key) else { continue };
            member.watched = false;
            if head - member.cursor > u64::from(member.capacity) {
                let capacity = member.capacity as usize;
                self.leave(key, Some(CloseReason::Overflow { capacity }));
            } else if member.cursor < head {
                member.watch(key, deadlines);
            }
        }
    }

    /// Hands the members of the current fan-out to their seats, up to `visits`, and collects whom to wake.
    /// Returns how many it visited.
    pub(crate) fn wake(&mut self, visits: usize, mut wake: impl FnMut(Waker)) -> usize {
        let Some(index) = self.fanout else { return 0 };
        let Some(topic) = self.topics.get_mut(index) else {
            self.fanout = None;
            return 0;
        };
        let visits = visits.min(topic.fan_left);
        for _ in 0..visits {
            let member = topic.armed[topic.fan_left - 1];
            topic.disarm(topic.fan_left as u32 - 1, &mut self.members);
            let Some(key) = self.members.key(member) else { continue };
            let Some(state) = self.members.get_mut(member) else { continue };
            if state.is_watchful() {
                state.watch(key, topic.deadlines.get_or_insert_default());
            }
            if let Some(seat) = self.seats.get_mut(state.seat) {
                seat.ready.push(member, state);
                if let Some(waker) = seat.waker.take() {
                    wake(waker);
                }
            }
        }
        if topic.fan_left == 0 {
            self.fanout = None;
        }
        visits
    }

    /// A fan-out has members left to visit.
    pub(crate) fn is_fanning(&self) -> bool {
        self.fanout.is_some()
    }

    // ---- events out --------------------------------------------------------------------------------------------------

    /// Gives what waits for a seat, in the arbiter's order, up to `budget` events.
    pub(crate) fn take(&mut self, key: Key, budget: usize, waker: &Waker, batch: &mut Vec<Taken>) -> Took {
        debug_assert!(batch.is_empty());
        if !self.seats.contains(key) {
            return Took::Ended;
        }
        self.collect(key.index, budget, batch);
        match batch.len() {
            0 => self.rest(key, waker),
            1 => {
                self.commit(&batch[0]);
                match self.rest(key, waker) {
                    // The seat ends at the next poll: one event is still to be handled.
                    Took::Ended => Took::More,
                    took => took,
                }
            }
            _ => Took::Batch,
        }
    }

    /// Records that the first `handled` events of a batch reached their handler.
    pub(crate) fn settle(&mut self, key: Key, batch: &[Taken], handled: usize, waker: &Waker) -> Took {
        for taken in &batch[..handled] {
            self.commit(taken);
        }
        if !self.seats.contains(key) {
            return Took::Ended;
        }
        self.rest(key, waker)
    }

    /// Arms what has been read to the end, and says whether the seat may sleep.
    fn rest(&mut self, key: Key, waker: &Waker) -> Took {
        let Some(seat) = self.seats.get_mut(key.index) else { return Took::Ended };
        if !matches!(seat.ready, Ready::None) {
            return Took::More;
        }
        if matches!(seat.subscriptions, Subscriptions::None) || self.ending {
            self.remove_seat(key, Some(CloseReason::Shutdown));
            return Took::Ended;
        }
        seat.waker = Some(waker.clone());
        if seat.keepers > 0 { Took::Idle } else { Took::Loose }
    }

    fn collect(&mut self, seat: u32, budget: usize, batch: &mut Vec<Taken>) {
        loop {
            let Some(place) = self.seats.get(seat) else { return };
            match &place.ready {
                Ready::None => return,
                Ready::One(member) => {
                    let member = *member;
                    if self.catch_up(member) {
                        return self.collect_one(member, budget, batch);
                    }
                }
                Ready::Many(members) => {
                    let mut with_news = std::mem::take(&mut self.scratch);
                    with_news.clear();
                    with_news.extend_from_slice(members);
                    with_news.retain(|member| self.catch_up(*member));
                    let merged = with_news.len() > 1;
                    if merged {
                        self.collect_merged(&with_news, budget, batch);
                    }
                    self.scratch = with_news;
                    if merged {
                        return;
                    }
                }
            }
        }
    }

    /// Applies the overflow policy and skips the member's own events. `false`: nothing is left, it is armed or gone.
    fn catch_up(&mut self, index: u32) -> bool {
        let Some(member) = self.members.get_mut(index) else { return false };
        let Some(topic) = self.topics.get_mut(member.topic) else { return false };
        let (start, forgiven) = member.start(&topic.ring);
        if start != member.cursor {
            topic.ring.leave(member.cursor);
            topic.ring.enter(start);
            member.cursor = start;
            member.seen += forgiven;
            topic.ring.trim(&mut self.outs.garbage);
        }
        if start < topic.ring.head() {
            return true;
        }
        let Place::Ready(at) = member.place() else { return false };
        if let Some(seat) = self.seats.get_mut(member.seat) {
            seat.ready.remove(at, &mut self.members);
        }
        if let Some(member) = self.members.get_mut(index) {
            topic.arm(index, member);
        }
        false
    }

    fn collect_one(&mut self, index: u32, budget: usize, batch: &mut Vec<Taken>) {
        let (Some(member), Some(key)) = (self.members.get(index), self.members.key(index)) else { return };
        let Some(topic) = self.topics.get(member.topic) else { return };
        let (mut position, mut seen) = (member.cursor, member.seen);
        while batch.len() < member.batch_max(budget) {
            let Some(entry) = topic.ring.at(position) else { return };
            if entry.from == member.seat {
                seen += 1;
            } else {
                batch.push(member.taken(key, position, seen, entry));
                seen = entry.total;
            }
            position += 1;
        }
    }

    /// Merges the events of several topics by the arbiter's order.
    fn collect_merged(&mut self, members: &[u32], budget: usize, batch: &mut Vec<Taken>) {
        let mut heads = std::mem::take(&mut self.heads);
        heads.clear();
        for index in members {
            if let Some(member) = self.members.get(*index)
                && let Some(entry) = self.topics.get(member.topic).and_then(|topic| topic.ring.at(member.cursor))
            {
                heads.push(Reverse((entry.seq, *index, member.cursor, member.seen)));
            }
        }
        while batch.len() < budget
            && let Some(Reverse((_, index, position, mut seen))) = heads.pop()
        {
            let (Some(member), Some(key)) = (self.members.get(index), self.members.key(index)) else { continue };
            let Some(ring) = self.topics.get(member.topic).map(|topic| &topic.ring) else { continue };
            let Some(entry) = ring.at(position) else { continue };
            if entry.from == member.seat {
                seen += 1;
            } else if member.is_watchful() && !batch.is_empty() {
                break;
            } else {
                batch.push(member.taken(key, position, seen, entry));
                seen = entry.total;
                if member.is_watchful() {
                    break;
                }
            }
            if let Some(next) = ring.at(position + 1) {
                heads.push(Reverse((next.seq, index, position + 1, seen)));
            }
        }
        self.heads = heads;
    }

    /// One event was handed to its handler: the cursor moves past it.
    fn commit(&mut self, taken: &Taken) {
        self.counts.delivered += 1;
        self.counts.missed += taken.missed;
        // Unsubscribed meanwhile: its cursor is gone.
        if !self.members.contains(taken.member) {
            return;
        }
        let Some(member) = self.members.get_mut(taken.member.index) else { return };
        let Some(topic) = self.topics.get_mut(member.topic) else { return };
        member.delivered += 1;
        member.missed += taken.missed;
        member.seen = taken.total;
        topic.ring.leave(member.cursor);
        member.cursor = taken.position + 1;
        topic.ring.enter(member.cursor);
        topic.ring.trim(&mut self.outs.garbage);
        if member.cursor == topic.ring.head() {
            self.catch_up(taken.member.index);
        }
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
    pub(crate) fn monitor(&mut self, seat: Key, alive: Box<dyn Fn() -> bool + Send>) {
        if let Some(seat) = self.seats.get_key_mut(seat) {
            seat.extra.get_or_insert_default().alive = Some(alive);
        }
    }

    /// The seat at `index`, if its subscriber is known to be dead.
    pub(crate) fn dead_seat(&self, index: u32) -> Option<Key> {
        let alive = self.seats.get(index)?.extra.as_ref()?.alive.as_ref()?;
        if alive() { None } else { self.seats.key(index) }
    }

    /// Takes the wakers of the seats in `from..to`, to tell them of the end.
    pub(crate) fn wake_seats(&mut self, from: u32, to: u32, wakers: &mut Vec<Waker>) {
        wakers.extend((from..to).filter_map(|index| self.seats.get_mut(index)?.waker.take()));
    }

    // ---- looking in --------------------------------------------------------------------------------------------------

    /// What waits for a member, after its overflow policy.
    pub(crate) fn effective(&self, member: &Member) -> Effective {
        match self.topics.get(member.topic) {
            Some(topic) if member.place() != Place::Joining => member.effective(&topic.ring),
            _ => Effective::default(),
        }
    }

    pub(crate) fn member_at(&self, index: u32) -> Option<(Key, &Member)> {
        Some((self.members.key(index)?, self.members.get(index)?))
    }
}

impl Member {
    fn taken(&self, key: Key, position: u64, seen: u64, entry: &crate::local::ring::Entry) -> Taken {
        Taken {
            event: Some(Arc::clone(&entry.event)),
            missed: entry.total - seen - 1,
            handler: self.handler,
            member: key,
            position,
            total: entry.total,
        }
    }
}

impl TopicState {
    pub(crate) fn is_empty(&self) -> bool {
        self.members == 0
    }

    fn arm(&mut self, index: u32, member: &mut Member) {
        member.set_place(Place::Armed(self.armed.len() as u32));
        self.armed.push(index);
    }

    /// Takes the member at `at` out of the armed list, which keeps those of the current fan-out in front.
    fn disarm(&mut self, at: u32, members: &mut Slab<Member>) {
        let mut hole = at as usize;
        let mut moved = |armed: &mut Vec<u32>, to: usize| {
            if let Some(member) = armed.get(to).and_then(|index| members.get_mut(*index)) {
                member.set_place(Place::Armed(to as u32));
            }
        };
        if hole < self.fan_left {
            self.fan_left -= 1;
            if hole != self.fan_left {
                self.armed[hole] = self.armed[self.fan_left];
                moved(&mut self.armed, hole);
                hole = self.fan_left;
            }
        }
        self.armed.swap_remove(hole);
        moved(&mut self.armed, hole);
    }

    /// A member with a cursor is gone.
    fn forget(&mut self, member: &Member, garbage: &mut Vec<Erased>) {
        self.ring.leave(member.cursor);
        self.ring.trim(garbage);
        if let Some(at) = self.capacities.iter().position(|(capacity, _)| *capacity == member.capacity) {
            self.capacities[at].1 -= 1;
            if self.capacities[at].1 == 0 {
                self.capacities.swap_remove(at);
            }
        }
        let capacity = self.capacities.iter().map(|(capacity, _)| *capacity).max().unwrap_or(0);
        while let Some(evicted) = self.ring.evict_over(capacity as usize) {
            garbage.push(evicted.event);
        }
    }
}

impl Ready {
    fn push(&mut self, index: u32, member: &mut Member) {
        match self {
            Self::None => {
                member.set_place(Place::Ready(0));
                *self = Self::One(index);
            }
            Self::One(first) => {
                member.set_place(Place::Ready(1));
                *self = Self::Many(Box::new(vec![*first, index]));
            }
            Self::Many(members) => {
                member.set_place(Place::Ready(members.len() as u32));
                members.push(index);
            }
        }
    }

    fn remove(&mut self, at: u32, members: &mut Slab<Member>) {
        match self {
            Self::None | Self::One(_) => *self = Self::None,
            Self::Many(list) => {
                list.swap_remove(at as usize);
                if let Some(member) = list.get(at as usize).and_then(|index| members.get_mut(*index)) {
                    member.set_place(Place::Ready(at));
                }
                if let [last] = list[..] {
                    *self = Self::One(last);
                }
            }
        }
    }
}

impl Subscriptions {
    /// Returns whether none is left.
    fn remove(&mut self, topic: u32) -> bool {
        match self {
            Self::None => {}
            Self::One { topic: t, .. } if *t == topic => *self = Self::None,
            Self::One { .. } => {}
            Self::Many(map) => {
                map.remove(&topic);
                if map.is_empty() {
                    *self = Self::None;
                }
            }
        }
        matches!(self, Self::None)
    }

    fn members(&self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One { member, .. } => vec![*member],
            Self::Many(map) => map.values().copied().collect(),
        }
    }
}

impl Seat {
    /// The index of a handler function, which `address` identifies. `D` is one type per seat: how its poller calls a handler.
    pub(crate) fn handler<D: Copy + Send + 'static>(&mut self, handler: D, address: impl Fn(&D) -> usize) -> u16 {
        if self.first == 0 {
            self.first = address(&handler);
        }
        if self.first == address(&handler) {
            return 0;
        }
        let more = self.extra.get_or_insert_default().handlers.get_or_insert_with(|| Box::new(Vec::<D>::new()));
        let Some(more) = more.downcast_mut::<Vec<D>>() else { return 0 };
        let at = more.iter().position(|known| address(known) == address(&handler)).unwrap_or_else(|| {
            more.push(handler);
            more.len() - 1
        });
        at as u16 + 1
    }

    /// All handlers with index 1 and up.
    pub(crate) fn handlers<D: Copy + 'static>(&self) -> Vec<D> {
        let more = self.extra.as_ref().and_then(|extra| extra.handlers.as_ref()?.downcast_ref::<Vec<D>>());
        more.cloned().unwrap_or_default()
    }
}
