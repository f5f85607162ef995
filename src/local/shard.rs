//! Shard: one arbiter's table and port under one roof, and every operation that needs both. Knows no actor and no runtime.
//!
//! Lock order: table, then interest or seats or port or the list of shards; never the other way round, and no user code under any of them: wakers
//! are woken, payloads dropped and notices sent after unlocking. A broadcaster takes the port's lock, and the table's only by trying.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::task::Poll;
use std::task::Waker;

use dashmap::DashMap;
use smallvec::SmallVec;

use crate::event::Erased;
use crate::ids::NodeId;
use crate::ids::SubscriberId;
use crate::local::ahead;
use crate::local::budget::Budget;
use crate::local::clock::Tick;
use crate::local::hash::BuildPrehashed;
use crate::local::incident::IncidentKind;
use crate::local::incident::Incidents;
use crate::local::interest::Interest;
use crate::local::interest::Message;
use crate::local::interest::TopicPort;
use crate::local::meter::Meter;
use crate::local::options::CloseReason;
use crate::local::options::SubscribeOptions;
use crate::local::port::Port;
use crate::local::port::Pushed;
use crate::local::remote::Remote;
use crate::local::slab::Key;
use crate::local::table::Counts;
use crate::local::table::Outs;
use crate::local::table::Seat;
use crate::local::table::Table;
use crate::local::table::Taken;
use crate::local::table::Took;
use crate::observe;
use crate::sync::Arc;
use crate::sync::AtomicBool;
use crate::sync::AtomicU64;
use crate::sync::AtomicUsize;
use crate::sync::Mutex;
use crate::sync::Ordering;
use crate::sync::lock;
use crate::sync::thread_key;
use crate::sync::try_lock;
use crate::topic::Topic;

/// What all shards of one `PubSub` share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) interest: Interest,
    /// Where each subscriber's seat is: all of its subscriptions are there, so that they have one order.
    seats: DashMap<SubscriberId, Home, BuildPrehashed>,
    shards: Mutex<Shards>,
    closed: AtomicBool,
    port_events: usize,
    drained: Mutex<Vec<Waker>>,
    pub(crate) incidents: Incidents,
    /// Of `tracing`.
    pub(crate) spans: Budget,
    /// The cluster, if this is of one. Set before anything else happens.
    pub(crate) remote: std::sync::OnceLock<Box<dyn Remote>>,
}

#[derive(Default)]
struct Shards {
    live: Vec<Arc<Shard>>,
    next: u32,
    /// The counts of shards that are gone.
    retired: Counts,
}

#[derive(Clone, Copy)]
struct Home {
    shard: u32,
    /// Its index; whether it is still this subscriber's is asked of the table.
    seat: u32,
}

pub(crate) struct Shard {
    id: u32,
    thread: AtomicU64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) port: Port,
    table: Mutex<Table>,
    /// The registry ended; nobody will deliver here any more.
    retired: AtomicBool,
    pub(crate) restarts: AtomicU64,
    pub(crate) foreign_panics: AtomicU64,
    pub(crate) background: bool,
    departures: AtomicU64,
    pub(crate) meter: Meter,
    /// Couriers that have not ended.
    pub(crate) couriers: AtomicUsize,
    /// A bug of ours, on demand.
    #[cfg(test)]
    pub(crate) fault: AtomicBool,
}

/// What a turn of the registry left to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing; the waker is stored.
    Sleep,
    /// More, after others had their turn.
    Again,
    /// Nothing, for good.
    Ended,
}

impl Shared {
    /// With so many events in a port at most, and so many spans per second.
    pub(crate) fn new(port_events: usize, spans: u32) -> Self {
        Self {
            node: NodeId::random(),
            interest: Interest::new(),
            seats: DashMap::default(),
            shards: Mutex::default(),
            closed: AtomicBool::new(false),
            port_events,
            drained: Mutex::default(),
            incidents: Incidents::default(),
            spans: Budget::per_second(spans),
            remote: std::sync::OnceLock::new(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A shard for the calling thread, or for the background. `None` once closed.
    pub(crate) fn add_shard(self: &Arc<Self>, background: bool) -> Option<Arc<Shard>> {
        let mut shards = lock(&self.shards);
        if self.is_closed() {
            return None;
        }
        let shard = Arc::new(Shard {
            id: shards.next,
            thread: AtomicU64::new(if background { 0 } else { thread_key() }),
            shared: Arc::clone(self),
            port: Port::new(self.port_events),
            table: Mutex::new(Table::new()),
            retired: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            foreign_panics: AtomicU64::new(0),
            background,
            departures: AtomicU64::new(0),
            meter: Meter::default(),
            couriers: AtomicUsize::new(0),
            #[cfg(test)]
            fault: AtomicBool::new(false),
        });
        shards.next += 1;
        shards.live.push(Arc::clone(&shard));
        Some(shard)
    }

    pub(crate) fn shards(&self) -> Vec<Arc<Shard>> {
        lock(&self.shards).live.clone()
    }

    fn shard(&self, id: u32) -> Option<Arc<Shard>> {
        lock(&self.shards).live.iter().find(|shard| shard.id == id).map(Arc::clone)
    }

    pub(crate) fn retired_counts(&self) -> Counts {
        lock(&self.shards).retired
    }

    /// The subscriber's seat, if it is in `shard`.
    pub(crate) fn seat_in(&self, shard: &Shard, id: SubscriberId) -> Option<Key> {
        let home = self.seats.get(&id).filter(|home| home.shard == shard.id).map(|home| *home)?;
        shard.with(|table| table.seat_of(home.seat, id))
    }

    /// Where the subscriber has its seat.
    pub(crate) fn home(&self, id: SubscriberId) -> Option<(Arc<Shard>, Key)> {
        let home = self.seats.get(&id).map(|home| *home)?;
        let shard = self.shard(home.shard)?;
        let seat = shard.with(|table| table.seat_of(home.seat, id))?;
        Some((shard, seat))
    }

    /// Refuses everything new; what is queued is still delivered.
    pub(crate) fn close(&self) {
        let shards = {
            let shards = lock(&self.shards);
            self.closed.store(true, Ordering::Release);
            shards.live.clone()
        };
        for shard in shards {
            shard.close_port();
        }
    }

    /// Stores the waker of someone who waits for the last seat to end; `true` if that is so already.
    pub(crate) fn poll_drained(&self, waker: &Waker) -> bool {
        let mut drained = lock(&self.drained);
        if lock(&self.shards).live.is_empty() {
            return true;
        }
        if !drained.iter().any(|known| known.will_wake(waker)) {
            drained.push(waker.clone());
        }
        false
    }
}

impl Shard {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The thread whose registry serves this shard is the calling one.
    fn is_here(&self) -> bool {
        self.thread.load(Ordering::Relaxed) == thread_key()
    }

    /// The registry runs on the calling thread from now on.
    pub(crate) fn settle_here(&self) {
        self.thread.store(thread_key(), Ordering::Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Works on the table, then does what that left to be done: the part that needs the lock before unlocking, the rest after.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = lock(&self.table);
        let result = work(&mut table);
        if table.outs().is_empty() {
            return result;
        }
        let outs = self.finish_locked(&mut table);
        drop(table);
        self.finish_unlocked(outs);
        result
    }

    fn finish_locked(&self, table: &mut Table) -> Outs {
        let mut outs = std::mem::take(table.outs());
        for index in outs.emptied.drain(..) {
            // It may have been emptied and joined again, or emptied twice.
            let Some(port) = table.topic(index).filter(|topic| topic.is_empty()).map(|topic| Arc::clone(&topic.shared)) else {
                continue;
            };
            self.shared.interest.withdraw(&port);
            table.remove_topic(index);
        }
        outs.garbage.append(&mut table.outs().garbage);
        let unseated = !outs.unseated.is_empty();
        for id in outs.unseated.drain(..) {
            self.shared.seats.remove_if(&id, |_, home| home.shard == self.id);
        }
        if unseated && self.is_retired() {
            self.forget(table);
        }
        outs
    }

    /// A retired shard without seats is nobody's any more; what it counted stays.
    fn forget(&self, table: &Table) {
        let mut shards = lock(&self.shared.shards);
        if table.seats() == 0
            && let Some(at) = shards.live.iter().position(|shard| shard.id == self.id)
        {
            shards.live.swap_remove(at);
            shards.retired.add(table.counts);
        }
    }

    fn finish_unlocked(&self, outs: Outs) {
        for event in outs.garbage {
            // Dropping a payload may run user code, and this may be a death that is unwinding already.
            self.guarded(|| drop(event));
        }
        for incident in outs.incidents {
            self.shared.incidents.add(incident);
        }
        for waker in outs.wakers {
            self.guarded(|| waker.wake());
        }
        for (options, closed) in outs.closed {
            observe::subscription_closed(&closed.topic, &closed.reason, closed.discarded);
            if let Some(recipient) = options.on_close.as_ref().and_then(actix::WeakRecipient::upgrade) {
                self.guarded(|| recipient.do_send(closed));
            }
        }
        self.tell_drained();
    }

    fn close_port(&self) {
        for waker in self.port.close() {
            self.guarded(|| waker.wake());
        }
    }

    /// Tells those that wait for the end to look again.
    fn tell_drained(&self) {
        if self.shared.is_closed() {
            let wakers = std::mem::take(&mut *lock(&self.shared.drained));
            for waker in wakers {
                self.guarded(|| waker.wake());
            }
        }
    }

    /// Runs what we do not own. Its panic is counted and ends nothing of ours.
    pub(crate) fn guarded(&self, foreign: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(foreign)).is_err() {
            self.foreign_panics.fetch_add(1, Ordering::Relaxed);
            observe::foreign_panic(self.id);
            self.shared.incidents.add(IncidentKind::ForeignPanic { arbiter: self.id });
        }
    }

    // ---- subscribing -------------------------------------------------------------------------------------------------

    /// A seat for a subscriber that has none yet. `Err`: it has one, there.
    pub(crate) fn sit(&self, id: SubscriberId, actor: fn() -> &'static str) -> Result<Key, (Arc<Self>, Key)> {
        loop {
            let taken = self.with(|table| match self.shared.seats.entry(id) {
                dashmap::Entry::Occupied(home) => Err(*home.get()),
                dashmap::Entry::Vacant(vacant) => {
                    let seat = table.add_seat(id, actor);
                    vacant.insert(Home { shard: self.id, seat: seat.index });
                    Ok(seat)
                }
            });
            let home = match taken {
                Ok(seat) => return Ok(seat),
                Err(home) => home,
            };
            if let Some(elsewhere) = self.shared.home(id) {
                return Err(elsewhere);
            }
            // Its arbiter is gone, or the seat ended just now: nobody else takes the entry away in the first case.
            if self.shared.shard(home.shard).is_none() {
                self.shared.seats.remove_if(&id, |_, known| known.shard == home.shard);
            }
        }
    }

    /// Subscribes a seat to a topic; a second time is the same subscription. `None`: the seat is gone.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        seat: Key,
        topic: &Topic,
        message: Message,
        options: &SubscribeOptions,
        handler: impl FnOnce(&mut Table) -> u16,
    ) -> Option<Key> {
        self.with(|table| {
            if !table.has_seat(seat) {
                return None;
            }
            let known = self.shared.interest.port(topic, message.0, self.id);
            if let Some(port) = &known
                && let Some(member) = table.find(seat.index, port.key().index)
            {
                return Some(member);
            }
            let handler = handler(table);
            // Events that are queued were broadcast before: they are not for this member.
            let joining = !table.is_settled() || !self.port.is_empty();
            let port = if let Some(port) = known {
                if !joining {
                    table.lose(port.key().index, port.take_lost());
                }
                let member = table.join(seat.index, port.key().index, handler, options, joining);
                if let Some(member) = member.filter(|_| joining) {
                    let sleeper = self.port.push_join(&port, member);
                    table.outs().wakers.extend(sleeper);
                }
                return member;
            } else {
                let index = table.add_topic(|key| Arc::new(TopicPort::new(topic.clone(), message, Arc::clone(self), key)));
                Arc::clone(&table.topic(index)?.shared)
            };
            let member = table.join(seat.index, port.key().index, handler, options, false);
            // Only now can a broadcast find this port, so nothing queued can be for this topic.
            self.shared.interest.announce(&port);
            member
        })
    }

    /// Ends one subscription. `false`: it had ended before.
    pub(crate) fn unsubscribe(&self, member: Key) -> bool {
        self.departures.fetch_add(1, Ordering::Release);
        self.with(|table| table.leave(member, None))
    }

    /// Grows with every unsubscription: who holds events that were taken before must look whether they are still wanted.
    pub(crate) fn departures(&self) -> u64 {
        self.departures.load(Ordering::Acquire)
    }

    pub(crate) fn is_member(&self, member: Key) -> bool {
        self.with(|table| table.member(member).is_some())
    }

    pub(crate) fn find(&self, seat: Key, topic: &Topic, message: std::any::TypeId) -> Option<Key> {
        let port = self.shared.interest.port(topic, message, self.id)?;
        self.with(|table| table.has_seat(seat).then(|| table.find(seat.index, port.key().index)).flatten())
    }

    pub(crate) fn unsubscribe_all(&self, seat: Key) -> usize {
        self.departures.fetch_add(1, Ordering::Release);
        self.with(|table| if table.has_seat(seat) { table.leave_all(seat.index) } else { 0 })
    }

    /// Checks the subscribers that can only be seen from outside, `from..` some further seat; returns where to go on, or `None` at the end.
    pub(crate) fn sweep(&self, from: u32) -> Option<u32> {
        let (monitored, next) = self.with(|table| {
            let to = table.seats_end().min(from + WAKES_PER_LOCK as u32);
            let monitored: Vec<_> = (from..to).filter_map(|index| table.monitored(index)).collect();
            (monitored, (to < table.seats_end()).then_some(to))
        });
        for (seat, alive) in monitored {
            if !alive() {
                observe::subscriber_swept(self.id);
                self.unseat(seat, None);
            }
        }
        next
    }

    /// The subscriber is gone. Does not panic, wait for another thread's work or run user code: it is called from `Drop` during unwinding.
    pub(crate) fn unseat(&self, seat: Key, closed: Option<CloseReason>) {
        self.with(|table| table.remove_seat(seat, closed));
    }

    /// As [`unseat`](Self::unseat); the subscriber may have panicked, which the calling thread then still does.
    pub(crate) fn unseat_actor(&self, seat: Key, actor: fn() -> &'static str) {
        self.with(|table| {
            let before = table.counts.discarded;
            let subscriptions = table.remove_seat(seat, None);
            if subscriptions > 0 && std::thread::panicking() {
                let discarded = table.counts.discarded - before;
                table.outs().incidents.push(IncidentKind::Panicked { actor: actor(), subscriptions, discarded });
            }
        });
    }

    // ---- events in ---------------------------------------------------------------------------------------------------

    /// Hands an event to this shard: straight into its ring if it is the calling thread's own and nothing is queued before it,
    /// else through the port. Costs the same for one subscriber and for a million.
    pub(crate) fn publish(&self, topic: &TopicPort, from: Option<SubscriberId>, event: Erased) -> Pushed {
        match self.publish_here(topic, from, event) {
            None => Pushed::Queued,
            Some(event) => self.port.push(topic, from, event),
        }
    }

    /// As [`publish`](Self::publish), but a registry that sleeps is noted in `asleep` and left asleep: the caller wakes it by [`wake`](Self::wake) when it has
    /// published all that it has.
    pub(crate) fn publish_quietly(self: &Arc<Self>, topic: &TopicPort, event: Erased, asleep: &mut Vec<Arc<Self>>) -> Pushed {
        let Some(event) = self.publish_here(topic, None, event) else { return Pushed::Queued };
        let (pushed, sleeps) = self.port.push_quietly(topic, None, event);
        if sleeps && !asleep.iter().any(|shard| Arc::ptr_eq(shard, self)) {
            asleep.push(Arc::clone(self));
        }
        pushed
    }

    /// Wakes the registry, if it sleeps.
    pub(crate) fn wake(&self) {
        self.port.wake();
    }

    /// As [`publish`](Self::publish), but waits for room in the port.
    pub(crate) fn poll_publish(
        &self,
        cx: &mut std::task::Context<'_>,
        topic: &TopicPort,
        from: Option<SubscriberId>,
        event: &Erased,
    ) -> Poll<Pushed> {
        match self.publish_here(topic, from, Erased::clone(event)) {
            None => Poll::Ready(Pushed::Queued),
            Some(event) => self.port.poll_push(cx, topic, from, event),
        }
    }

    /// Gives the event back if it must go through the port.
    fn publish_here(&self, topic: &TopicPort, from: Option<SubscriberId>, event: Erased) -> Option<Erased> {
        if !self.is_here() || !self.port.is_empty() {
            return Some(event);
        }
        let mut wakers: SmallVec<[Waker; INLINE_WAKES]> = SmallVec::new();
        let Some(mut table) = try_lock(&self.table) else { return Some(event) };
        let index = topic.key().index;
        if !table.is_settled() || table.is_ending() || !table.accepts(index) || table.backlog(index) >= INLINE_BACKLOG {
            return Some(event);
        }
        let from = from.and_then(|id| self.seat_of(id)).unwrap_or(crate::local::slab::NONE);
        table.look_at(Tick::now());
        table.push(topic.key(), from, event, topic.take_lost());
        if table.fan_left() <= INLINE_WAKES {
            table.wake(INLINE_WAKES, |_, waker| wakers.push(waker));
        }
        let more = table.is_fanning() || table.overrun().is_some();
        let outs = if table.outs().is_empty() { None } else { Some(self.finish_locked(&mut table)) };
        drop(table);
        for waker in wakers {
            self.guarded(|| waker.wake());
        }
        if let Some(outs) = outs {
            self.finish_unlocked(outs);
        }
        if more {
            self.port.wake();
        }
        None
    }

    fn seat_of(&self, id: SubscriberId) -> Option<u32> {
        self.shared.seats.get(&id).filter(|home| home.shard == self.id).map(|home| home.seat)
    }

    // ---- the registry's turn -------------------------------------------------------------------------------------------

    /// Moves queued events into their rings and wakes up to `slice` subscribers.
    pub(crate) fn turn(&self, slice: usize, wakers: &mut Vec<Waker>, waker: &Waker) -> Turn {
        #[cfg(test)]
        assert!(!self.fault.swap(false, Ordering::Relaxed), "on purpose");
        let mut visits = 0;
        let mut applied = 0;
        loop {
            let more = self.with(|table| {
                table.look_at(Tick::now());
                if table.pending.is_empty() {
                    let waiting = self.port.drain(&mut table.pending);
                    table.outs().wakers.extend(waiting);
                }
                let mut left = WAKES_PER_LOCK.min(slice - visits);
                // Those of the background are polled on threads of their own.
                let crowded = !self.background && table.seats() > SEATS_IN_CACHE;
                loop {
                    applied += table.apply(TURN_ITEMS - applied, |id| self.seat_of(id));
                    let woken = table.wake(left, |who, waker| {
                        if crowded {
                            ahead::fetch(who, &waker);
                        }
                        wakers.push(waker);
                    });
                    (left, visits) = (left - woken, visits + woken);
                    let more = table.is_fanning() || !table.is_settled();
                    if !more || left == 0 || applied == TURN_ITEMS {
                        return more;
                    }
                }
            });
            for waker in wakers.drain(..) {
                self.guarded(|| waker.wake());
            }
            if !more {
                break;
            }
            if visits == slice || applied == TURN_ITEMS {
                return Turn::Again;
            }
        }
        // What was woken and dropped above may have broadcast from this very thread, which finds nobody asleep to wake.
        let (more, overrun) = self.with(|table| (table.is_fanning() || !table.is_settled(), table.overrun()));
        if let Some(topic) = overrun {
            self.tell_stuck(topic);
        }
        if more {
            return Turn::Again;
        }
        if self.port.is_closed() && self.port.is_empty() {
            return self.wind_up();
        }
        if self.port.sleep(waker) { Turn::Sleep } else { Turn::Again }
    }

    /// Looks for who takes nothing while his topic overflows.
    fn tell_stuck(&self, topic: u32) {
        let end = self.with(|table| table.members_end());
        let mut left = STUCK_TOLD_MAX;
        for from in (0..end).step_by(STUCK_PER_LOCK as usize) {
            left -= self.with(|table| table.tell_stuck(topic, from, from + STUCK_PER_LOCK, left));
            if left == 0 {
                break;
            }
        }
        self.with(Table::found_overrun);
    }

    /// The port is closed and empty: every seat ends when it has read what it has.
    fn wind_up(&self) -> Turn {
        let seats = self.with(|table| {
            table.end();
            table.seats_end()
        });
        let mut wakers = Vec::new();
        for from in (0..seats).step_by(WAKES_PER_LOCK) {
            self.with(|table| table.wake_seats(from, seats.min(from + WAKES_PER_LOCK as u32), &mut wakers));
            for waker in wakers.drain(..) {
                self.guarded(|| waker.wake());
            }
        }
        Turn::Ended
    }

    /// The registry ended: its arbiter stopped, or all is delivered. What is still queued is counted as discarded.
    pub(crate) fn retire(&self) {
        self.close_port();
        let queued = self.with(|table| {
            let mut queued = std::mem::take(&mut table.pending);
            let waiting = self.port.drain(&mut queued);
            table.outs().wakers.extend(waiting);
            for item in &queued {
                table.discard(item);
            }
            queued
        });
        // Payloads are dropped without the lock.
        for item in queued {
            self.guarded(|| drop(item));
        }
        self.wind_up();
        self.with(|table| {
            self.retired.store(true, Ordering::Release);
            self.forget(table);
        });
        self.tell_drained();
    }

    // ---- a subscriber's turn -------------------------------------------------------------------------------------------

    /// For who was woken just now by a turn, which has looked at the clock: that is a twentieth of a delivery.
    ///
    /// Where one event is all that waits it is given as it is; else in a batch, in the room that `room` has for one.
    pub(crate) fn take(&self, seat: Key, budget: usize, waker: &Waker, room: impl FnOnce() -> Vec<Taken>) -> (Given, Took) {
        self.with(|table| {
            if let Some((taken, took)) = table.take_only(seat, waker) {
                return (Given::One(taken), took);
            }
            let mut batch = room();
            let took = table.take_more(seat, budget, waker, &mut batch);
            (Given::Batch(batch), took)
        })
    }

    /// As [`take`](Self::take), always in a batch: what the tests of the table do with one event they do with many.
    #[cfg(test)]
    pub(crate) fn take_batch(&self, seat: Key, budget: usize, waker: &Waker, batch: &mut Vec<Taken>) -> Took {
        let (given, took) = self.take(seat, budget, waker, Vec::new);
        match given {
            Given::One(taken) => batch.push(taken),
            Given::Batch(taken) => batch.extend(taken),
        }
        took
    }

    /// For who comes when it likes.
    pub(crate) fn take_one(&self, seat: Key, waker: &Waker, batch: &mut Vec<Taken>) -> Took {
        self.with(|table| {
            table.look_at(Tick::now());
            table.take(seat, 1, waker, batch)
        })
    }

    /// The handlers of a seat with index 1 and up.
    pub(crate) fn handlers<D: Copy + 'static>(&self, seat: Key) -> Vec<D> {
        self.with(|table| table.seat(seat).map(Seat::handlers).unwrap_or_default())
    }

    pub(crate) fn settle(&self, seat: Key, batch: &[Taken], handled: usize, waker: &Waker) -> Took {
        self.with(|table| {
            table.look_at(Tick::now());
            table.settle(seat, batch, handled, waker)
        })
    }
}

/// What [`Shard::take`] gives.
pub(crate) enum Given {
    One(Taken),
    Batch(Vec<Taken>),
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.addressed += other.addressed;
        self.delivered += other.delivered;
        self.missed += other.missed;
        self.discarded += other.discarded;
        self.events += other.events;
    }
}

/// Subscribers of a topic up to which a broadcast on their arbiter wakes them itself: saves small topics the way through the registry.
const INLINE_WAKES: usize = 8;
/// Events that may wait in a ring before a broadcast on the same arbiter goes through the port, which paces a burst.
const INLINE_BACKLOG: usize = 512;
/// Items that one turn applies: a quarter of the default capacity, so that a burst waits in the port, not in the rings, where it
/// would overflow subscribers that had no turn yet.
const TURN_ITEMS: usize = 256;
/// Subscribers whose memory stays in a core's own cache from one event to the next: about a kilobyte each.
const SEATS_IN_CACHE: usize = 1_024;
/// Stuck subscribers that are told of at once.
const STUCK_TOLD_MAX: usize = 4;
/// Members looked at per locking of the table, most of them in vain: some 10 µs.
const STUCK_PER_LOCK: u32 = 1_024;
/// Members visited per locking of the table: some 20 µs.
const WAKES_PER_LOCK: usize = 256;
