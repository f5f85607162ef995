//! Outflow: events out of the rings to the one who polls a seat, in the arbiter's order. Knows no handlers.

use std::cmp::Reverse;
use std::sync::Arc;
use std::task::Waker;

use crate::local::member::Member;
use crate::local::member::Place;
use crate::local::options::CloseReason;
use crate::local::ring::Entry;
use crate::local::slab::Key;
use crate::local::table::Table;
use crate::local::table::Taken;
use crate::local::table::Took;
use crate::local::table::parts::Ready;
use crate::local::table::parts::Subscriptions;

impl Table {
    /// Gives what waits for a seat, in the arbiter's order, up to `budget` events.
    pub(crate) fn take(&mut self, key: Key, budget: usize, waker: &Waker, batch: &mut Vec<Taken>) -> Took {
        if let Some((taken, took)) = self.take_only(key, waker) {
            batch.push(taken);
            return took;
        }
        self.take_more(key, budget, waker, batch)
    }

    /// The uncommon cases of [`take`](Self::take), where [`take_only`](Self::take_only) has found nothing.
    pub(crate) fn take_more(&mut self, key: Key, budget: usize, waker: &Waker, batch: &mut Vec<Taken>) -> Took {
        debug_assert!(batch.is_empty());
        if !self.seats.contains(key) {
            return Took::Ended;
        }
        self.collect(key.index, budget, batch);
        match batch.len() {
            0 => self.rest(key, waker),
            1 => {
                self.commit(batch);
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
        for run in batch[..handled].chunk_by(|one, next| one.member == next.member) {
            self.commit(run);
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
        seat.sleep(waker, &mut self.outs.wakers)
    }

    /// The common case by a short way: one event waits, in one topic. It is what `collect`, `commit` and `rest` would do.
    #[inline]
    pub(crate) fn take_only(&mut self, key: Key, waker: &Waker) -> Option<(Taken, Took)> {
        let seat = self.seats.get_key_mut(key)?;
        let Ready::One(index) = seat.ready else { return None };
        if self.ending {
            return None;
        }
        let member_key = self.members.key(index)?;
        let member = self.members.get_mut(index)?;
        let topic = self.topics.get_mut(member.topic)?;
        let (event, total) = topic.ring.take_last(member.cursor, member.seat)?;
        let missed = total - member.seen - 1;
        let taken =
            Taken { event: Some(event), missed, handler: member.handler, member: member_key, position: member.cursor, total };
        self.counts.delivered += 1;
        self.counts.missed += missed;
        member.delivered += 1;
        member.missed += missed;
        member.seen = total;
        member.cursor += 1;
        seat.ready = Ready::None;
        seat.taken_at = Some(self.now);
        topic.arm(index, member);
        let took = seat.sleep(waker, &mut self.outs.wakers);
        if missed > 0 {
            self.tell_overflow(index, missed);
        }
        Some((taken, took))
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

    /// Events of one member were handed to its handler: its cursor moves past them.
    fn commit(&mut self, run: &[Taken]) {
        let Some(last) = run.last() else { return };
        let missed: u64 = run.iter().map(|taken| taken.missed).sum();
        let Some(member) = self.members.get_key_mut(last.member) else {
            // Unsubscribed meanwhile: its cursor is gone, and what was on its way counted as discarded. Some of it was handled before.
            let handled = run.iter().filter(|taken| taken.event.is_none()).count() as u64;
            self.counts.delivered += handled;
            self.counts.discarded = self.counts.discarded.saturating_sub(handled);
            return;
        };
        self.counts.delivered += run.len() as u64;
        self.counts.missed += missed;
        let Some(topic) = self.topics.get_mut(member.topic) else { return };
        member.delivered += run.len() as u64;
        member.missed += missed;
        // Its own events that were evicted since the batch was taken are in `seen` already; those among the batch are in the totals, too. They went in order, so
        // what is more is of those behind it.
        member.seen = last.total.max(member.seen + missed + run.len() as u64);
        topic.ring.leave(member.cursor);
        member.cursor = last.position + 1;
        topic.ring.enter(member.cursor);
        topic.ring.trim(&mut self.outs.garbage);
        let read_all = member.cursor == topic.ring.head();
        if let Some(seat) = self.seats.get_mut(member.seat) {
            seat.taken_at = Some(self.now);
        }
        if read_all {
            self.catch_up(last.member.index);
        }
        if missed > 0 {
            self.tell_overflow(last.member.index, missed);
        }
    }
}

impl Member {
    fn taken(&self, key: Key, position: u64, seen: u64, entry: &Entry) -> Taken {
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
