//! Port: the bounded queue by which other threads reach an arbiter's registry. Knows no table and no topics' names.
//!
//! Its order is the arbiter's order: what was pushed first is in its ring first, and a `Join` between two events separates those
//! that the joining subscription does not get from those that it does.

use std::collections::VecDeque;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use crate::event::Erased;
use crate::ids::SubscriberId;
use crate::local::clock::Tick;
use crate::local::interest::TopicPort;
use crate::local::slab::Key;
use crate::sync::AtomicUsize;
use crate::sync::Mutex;
use crate::sync::MutexGuard;
use crate::sync::Ordering;
use crate::sync::lock;

pub(crate) struct Port {
    queue: Mutex<Queue>,
    len: AtomicUsize,
    capacity: usize,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// The registry, while it sleeps.
    sleeper: Option<Waker>,
    /// Since when it has not been empty.
    filled_at: Option<Tick>,
    /// Publishers that wait for room.
    waiting: Vec<Waker>,
    closed: bool,
    refused: u64,
    peak: usize,
}

pub(crate) enum Item {
    Event {
        topic: Key,
        from: Option<SubscriberId>,
        event: Erased,
        /// Events of this topic that were refused since the last accepted one.
        lost: u64,
    },
    /// Refused events that no accepted one reports, because a new member must not count them.
    Lost { topic: Key, events: u64 },
    /// From here on the member receives.
    Join { member: Key },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    Queued,
    Full,
    Closed,
}

impl Port {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { queue: Mutex::new(Queue::default()), len: AtomicUsize::new(0), capacity }
    }

    /// Queues an event for the subscribers of `topic` behind this port, and wakes the registry if it sleeps. Never waits.
    pub(crate) fn push(&self, topic: &TopicPort, from: Option<SubscriberId>, event: Erased) -> Pushed {
        let (pushed, mut queue) = self.try_push(topic, from, event);
        let sleeper = if pushed == Pushed::Queued { queue.sleeper.take() } else { None };
        drop(queue);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        pushed
    }

    /// As [`push`](Self::push), but wakes nobody: whoever has no more to push calls [`wake`](Self::wake). Another that pushes meanwhile still wakes. Whether
    /// the registry sleeps.
    pub(crate) fn push_quietly(&self, topic: &TopicPort, from: Option<SubscriberId>, event: Erased) -> (Pushed, bool) {
        let (pushed, queue) = self.try_push(topic, from, event);
        (pushed, queue.sleeper.is_some())
    }

    fn try_push(&self, topic: &TopicPort, from: Option<SubscriberId>, event: Erased) -> (Pushed, MutexGuard<'_, Queue>) {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return (Pushed::Closed, queue);
        }
        if queue.items.len() >= self.capacity {
            topic.lose();
            queue.refused += 1;
            return (Pushed::Full, queue);
        }
        self.queue_event(&mut queue, topic, from, event);
        (Pushed::Queued, queue)
    }

    /// As [`push`](Self::push), but waits for room.
    pub(crate) fn poll_push(
        &self,
        cx: &mut Context<'_>,
        topic: &TopicPort,
        from: Option<SubscriberId>,
        event: Erased,
    ) -> Poll<Pushed> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Poll::Ready(Pushed::Closed);
        }
        if queue.items.len() >= self.capacity {
            if !queue.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                queue.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        self.queue_event(&mut queue, topic, from, event);
        let sleeper = queue.sleeper.take();
        drop(queue);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        Poll::Ready(Pushed::Queued)
    }

    fn queue_event(&self, queue: &mut Queue, topic: &TopicPort, from: Option<SubscriberId>, event: Erased) {
        let item = Item::Event { topic: topic.key(), from, event, lost: topic.take_lost() };
        queue.filled_at.get_or_insert_with(Tick::now);
        queue.items.push_back(item);
        queue.peak = queue.peak.max(queue.items.len());
        self.len.store(queue.items.len(), Ordering::Release);
    }

    /// Queues what must keep its place among the events: a member joins a topic. Not bounded: each member joins once.
    /// Gives the waker of the registry, if it sleeps: the caller holds a lock, so it is woken later.
    pub(crate) fn push_join(&self, topic: &TopicPort, member: Key) -> Option<Waker> {
        let mut queue = lock(&self.queue);
        let lost = topic.take_lost();
        if lost > 0 {
            queue.items.push_back(Item::Lost { topic: topic.key(), events: lost });
        }
        queue.items.push_back(Item::Join { member });
        self.len.store(queue.items.len(), Ordering::Release);
        queue.sleeper.take()
    }

    /// Moves everything queued to the end of `into`. Gives the wakers of those that wait for room; they are not ours, so they are woken
    /// without a lock.
    pub(crate) fn drain(&self, into: &mut VecDeque<Item>) -> Vec<Waker> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut queue = lock(&self.queue);
        if into.is_empty() {
            std::mem::swap(&mut queue.items, into);
        } else {
            into.append(&mut queue.items);
        }
        queue.filled_at = None;
        self.len.store(0, Ordering::Release);
        std::mem::take(&mut queue.waiting)
    }

    /// Nothing is queued. What this thread pushed itself is always seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Events refused so far.
    pub(crate) fn refused(&self) -> u64 {
        lock(&self.queue).refused
    }

    /// How long it has not been emptied; 0 while it is empty.
    pub(crate) fn waits_ms(&self, now: Tick) -> u64 {
        lock(&self.queue).filled_at.map_or(0, |filled| filled.age_ms(now))
    }

    /// The longest the queue has been.
    pub(crate) fn peak(&self) -> usize {
        lock(&self.queue).peak
    }

    /// The registry goes to sleep, unless there is something to do, the end included: then `false`.
    pub(crate) fn sleep(&self, waker: &Waker) -> bool {
        let mut queue = lock(&self.queue);
        if !queue.items.is_empty() || queue.closed {
            return false;
        }
        queue.sleeper = Some(waker.clone());
        true
    }

    /// Wakes the registry if it sleeps.
    pub(crate) fn wake(&self) {
        let sleeper = lock(&self.queue).sleeper.take();
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Accepts nothing from now on. What is queued stays to be drained.
    /// Gives the wakers of all that sleep or wait here.
    pub(crate) fn close(&self) -> Vec<Waker> {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let sleeper = queue.sleeper.take();
        let mut wakers = std::mem::take(&mut queue.waiting);
        wakers.extend(sleeper);
        wakers
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.queue).closed
    }
}
