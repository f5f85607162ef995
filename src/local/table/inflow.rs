//! Inflow: events into the rings, and the fan-out that tells the members. Knows no wakers' owners.

use std::cmp::Reverse;
use std::task::Waker;

use crate::event::Erased;
use crate::ids::SubscriberId;
use crate::local::clock::Tick;
use crate::local::incident::IncidentKind;
use crate::local::member::Place;
use crate::local::options::CloseReason;
use crate::local::options::Overflow;
use crate::local::port::Item;
use crate::local::slab::Key;
use crate::local::slab::NONE;
use crate::local::table::Table;

impl Table {
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
                    if self.topics.get(topic.index).is_some_and(|state| state.shared.key() == topic) {
                        self.lose(topic.index, events);
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
        self.counts.addressed += u64::from(topic.active) * (lost + 1);
        topic.ring.lose(lost);
        topic.ring.push(self.seq, from, event, self.now);
        if from != NONE && self.is_active(from, key.index) {
            self.counts.addressed -= 1;
        }
        self.evict(key.index);
        let Some(topic) = self.topics.get_mut(key.index) else { return };
        if !topic.armed.is_empty() {
            topic.fan_left = topic.armed.len();
            self.fanout = Some(key.index);
        }
        if topic.deadlines.is_some() {
            self.disconnect_overdue(key.index);
        }
    }

    /// Whether a seat reads a topic.
    fn is_active(&self, seat: u32, topic: u32) -> bool {
        let member = self.find(seat, topic).and_then(|key| self.members.get_key(key));
        member.is_some_and(|member| member.place() != Place::Joining)
    }

    /// Keeps a topic's ring within the largest capacity of its members.
    pub(super) fn evict(&mut self, index: u32) {
        loop {
            let Some(topic) = self.topics.get_mut(index) else { return };
            let Some(evicted) = topic.ring.evict_over(topic.capacity()) else { return };
            let position = topic.ring.base() - 1;
            if topic.ring.is_overrun() && self.overrun.is_none() && is_due(self.stuck_told_at, self.now) {
                self.overrun = Some(index);
            }
            self.outs.garbage.push(evicted.event);
            // A member that had not come to its own event yet does not miss it: it was never going to receive it.
            if evicted.from != NONE
                && let Some(key) = self.find(evicted.from, index)
                && let Some(member) = self.members.get_key_mut(key)
                && member.place() != Place::Joining
                && member.cursor <= position
            {
                member.seen += 1;
            }
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
                let (capacity, seat, before) = (member.capacity as usize, member.seat, self.counts.discarded);
                let (topic, actor) = (topic.shared.topic().clone(), self.seats.get(seat).map_or("", |seat| (seat.actor)()));
                self.leave(key, Some(CloseReason::Overflow { capacity }));
                let discarded = self.counts.discarded - before;
                self.outs.incidents.push(IncidentKind::Disconnected { topic, actor, discarded });
            } else if member.cursor < head {
                member.watch(key, deadlines);
            }
        }
    }

    /// Hands the members of the current fan-out to their seats, up to `visits`, and collects whom to wake.
    /// Returns how many it visited.
    pub(crate) fn wake(&mut self, visits: usize, mut wake: impl FnMut(SubscriberId, Waker)) -> usize {
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
            state.ready_at = self.now;
            if let Some(seat) = self.seats.get_mut(state.seat) {
                seat.ready.push(member, state);
                if let Some(waker) = seat.waker.take() {
                    wake(seat.id, waker);
                }
            }
        }
        if topic.fan_left == 0 {
            self.fanout = None;
        }
        if topic.deadlines.is_some() {
            // More may have come in before the member was visited than it has room for: it ends before it reads a gap.
            self.disconnect_overdue(index);
        }
        visits
    }

    // ---- telling -----------------------------------------------------------------------------------------------------

    /// Notes that a member learns that it missed events, at most once a second per topic.
    pub(super) fn tell_overflow(&mut self, member: u32, events: u64) {
        let Some(member) = self.members.get(member).filter(|member| member.overflow == Overflow::DropOldest) else { return };
        let Some(topic) = self.topics.get_mut(member.topic).filter(|topic| is_due(topic.told_at, self.now)) else { return };
        topic.told_at = Some(self.now);
        let (topic, metadata) = (topic.shared.topic().clone(), member.metadata());
        let actor = self.seats.get(member.seat).map_or("", |seat| (seat.actor)());
        self.outs.incidents.push(IncidentKind::Overflowed { topic, actor, metadata, events });
    }

    /// A topic in which somebody was overrun since it was last told who.
    pub(crate) fn overrun(&self) -> Option<u32> {
        self.overrun
    }

    /// Whoever was overrun has been looked for.
    pub(crate) fn found_overrun(&mut self) {
        self.overrun = None;
        self.stuck_told_at = Some(self.now);
    }

    /// Notes those of the members `from..to` that take nothing from a topic while it overflows, `max` of them at most. Returns how many.
    pub(crate) fn tell_stuck(&mut self, topic: u32, from: u32, to: u32, max: usize) -> usize {
        let Some(state) = self.topics.get(topic) else { return 0 };
        let mut told = 0;
        for index in from..to.min(self.members.end()) {
            let Some(member) = self.members.get(index).filter(|member| member.topic == topic) else { continue };
            if told == max || !matches!(member.place(), Place::Ready(_)) || member.overflow == Overflow::Latest {
                continue;
            }
            let Some(seat) = self.seats.get(member.seat) else { continue };
            let missed = member.missed + member.effective(&state.ring).missed;
            if missed > member.missed && member.stalled_ms(seat.taken_at, self.now) >= TOLD_EVERY_MS {
                let (topic, metadata) = (state.shared.topic().clone(), member.metadata());
                self.outs.incidents.push(IncidentKind::Stuck { topic, actor: (seat.actor)(), metadata, missed });
                told += 1;
            }
        }
        told
    }

    /// Members that the current fan-out has not visited yet.
    pub(crate) fn fan_left(&self) -> usize {
        self.fanout.and_then(|index| self.topics.get(index)).map_or(0, |topic| topic.fan_left)
    }

    /// A fan-out has members left to visit.
    pub(crate) fn is_fanning(&self) -> bool {
        self.fanout.is_some()
    }
}

fn is_due(told: Option<Tick>, now: Tick) -> bool {
    told.is_none_or(|told| told.age_ms(now) >= TOLD_EVERY_MS)
}

/// Overflows are told no more often than this, each topic's, and each arbiter's.
const TOLD_EVERY_MS: u64 = 1_000;
