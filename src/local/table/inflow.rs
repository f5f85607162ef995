//! Inflow: events into the rings, and the fan-out that tells the members. Knows no wakers' owners.

use std::cmp::Reverse;
use std::task::Waker;

use crate::event::Erased;
use crate::ids::SubscriberId;
use crate::local::member::Place;
use crate::local::options::CloseReason;
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

    /// Keeps a topic's ring within the largest capacity of its members.
    pub(super) fn evict(&mut self, index: u32) {
        loop {
            let Some(topic) = self.topics.get_mut(index) else { return };
            let Some(evicted) = topic.ring.evict_over(topic.capacity()) else { return };
            let position = topic.ring.base() - 1;
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
        if topic.deadlines.is_some() {
            // More may have come in before the member was visited than it has room for: it ends before it reads a gap.
            self.disconnect_overdue(index);
        }
        visits
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
