//! Queue: what waits between other threads and the relay, bounded in number and in bytes. Knows nothing of what it holds.

use std::collections::VecDeque;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use crate::sync::AtomicUsize;
use crate::sync::Mutex;
use crate::sync::MutexGuard;
use crate::sync::Ordering;
use crate::sync::lock;

/// Many push, one takes everything.
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    len: AtomicUsize,
    items_max: usize,
    bytes_max: usize,
}

struct Inner<T> {
    items: VecDeque<T>,
    bytes: usize,
    /// Of the items those that are [notes](Queue::note).
    notes: usize,
    refused: u64,
    peak: usize,
    /// Who takes, while it sleeps.
    sleeper: Option<Waker>,
    /// Who pushes and waits for room.
    waiting: Vec<Waker>,
    closed: bool,
}

impl<T> Inner<T> {
    fn len(&self) -> usize {
        self.items.len() - self.notes
    }
}

/// Why something was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

impl<T> Queue<T> {
    pub(crate) fn new(items_max: usize, bytes_max: usize) -> Self {
        let inner = Inner {
            items: VecDeque::new(),
            bytes: 0,
            notes: 0,
            refused: 0,
            peak: 0,
            sleeper: None,
            waiting: Vec::new(),
            closed: false,
        };
        Self { inner: Mutex::new(inner), len: AtomicUsize::new(0), items_max, bytes_max }
    }

    /// Queues an item of so many bytes and wakes who takes, or gives it back. Never waits.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), (Refused, T)> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err((Refused::Closed, item));
        }
        if !self.fits(&inner, bytes) {
            inner.refused += 1;
            return Err((Refused::Full, item));
        }
        self.add(inner, item, bytes);
        Ok(())
    }

    /// Queues items with their bytes as far as they fit, at once for whoever takes them. Gives how many did not.
    #[cfg(any(feature = "nats", feature = "redis", feature = "zenoh"))]
    pub(crate) fn push_all(&self, items: impl Iterator<Item = (T, usize)>) -> usize {
        let mut inner = lock(&self.inner);
        let mut refused = 0;
        for (item, bytes) in items {
            if inner.closed || !self.fits(&inner, bytes) {
                refused += 1;
                continue;
            }
            inner.items.push_back(item);
            inner.bytes += bytes;
        }
        inner.refused += refused as u64;
        self.added(inner);
        refused
    }

    /// As [`push`](Self::push), whether there is room or not: for what cannot be lost and is rare.
    pub(crate) fn push_always(&self, item: T) {
        self.add(lock(&self.inner), item, 0);
    }

    /// As [`push`](Self::push), but where it is full the oldest items make room. `over` makes of them the note that stands in their place;
    /// `size` gives no bytes for a note.
    pub(crate) fn push_over(
        &self,
        item: T,
        bytes: usize,
        size: impl Fn(&T) -> Option<usize>,
        over: impl FnOnce(Vec<T>) -> T,
    ) -> Result<(), (Refused, T)> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err((Refused::Closed, item));
        }
        let mut pushed_out = Vec::new();
        while !self.fits(&inner, bytes)
            && let Some(oldest) = inner.items.pop_front()
        {
            match size(&oldest) {
                Some(bytes) => {
                    inner.bytes -= bytes;
                    inner.refused += 1;
                }
                None => inner.notes -= 1,
            }
            pushed_out.push(oldest);
        }
        if !pushed_out.is_empty() {
            inner.items.push_front(over(pushed_out));
            inner.notes += 1;
        }
        self.add(inner, item, bytes);
        Ok(())
    }

    /// Leaves a note behind what is queued, which takes no room: `add` puts it into the last item, or gives one that is queued.
    pub(crate) fn note(&self, add: impl FnOnce(Option<&mut T>) -> Option<T>) {
        let mut inner = lock(&self.inner);
        if let Some(item) = add(inner.items.back_mut()) {
            inner.notes += 1;
            self.add(inner, item, 0);
        }
    }

    /// As [`push`](Self::push), but waits for room. Takes the item out of `item` when it is queued or refused for good.
    pub(crate) fn poll_push(&self, cx: &mut Context<'_>, item: &mut Option<T>, bytes: usize) -> Poll<Result<(), Refused>> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Poll::Ready(Err(Refused::Closed));
        }
        if !self.fits(&inner, bytes) {
            if !inner.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                inner.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        if let Some(item) = item.take() {
            self.add(inner, item, bytes);
        }
        Poll::Ready(Ok(()))
    }

    /// One item fits in any case, so that no size is too much for ever.
    fn fits(&self, inner: &Inner<T>, bytes: usize) -> bool {
        inner.len() == 0 || (inner.len() < self.items_max && inner.bytes + bytes <= self.bytes_max)
    }

    fn add(&self, mut inner: MutexGuard<'_, Inner<T>>, item: T, bytes: usize) {
        inner.items.push_back(item);
        inner.bytes += bytes;
        self.added(inner);
    }

    /// Lets go of the lock and wakes who takes.
    fn added(&self, mut inner: MutexGuard<'_, Inner<T>>) {
        inner.peak = inner.peak.max(inner.len());
        self.len.store(inner.len(), Ordering::Release);
        let sleeper = inner.sleeper.take();
        drop(inner);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Moves everything queued to the end of `into`; `waker` is woken at the next that is queued.
    pub(crate) fn drain(&self, into: &mut VecDeque<T>, waker: &Waker) {
        let mut inner = lock(&self.inner);
        // Also where there is something: who takes all of it once need not look again before it sleeps.
        if !inner.sleeper.as_ref().is_some_and(|sleeper| sleeper.will_wake(waker)) {
            inner.sleeper = Some(waker.clone());
        }
        if inner.items.is_empty() {
            return;
        }
        if into.is_empty() {
            std::mem::swap(&mut inner.items, into);
        } else {
            into.append(&mut inner.items);
        }
        (inner.bytes, inner.notes) = (0, 0);
        self.len.store(0, Ordering::Release);
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.items_max
    }

    /// Items that found no room so far, or were pushed out.
    pub(crate) fn refused(&self) -> u64 {
        lock(&self.inner).refused
    }

    /// The most that waited at once.
    pub(crate) fn peak(&self) -> usize {
        lock(&self.inner).peak
    }

    /// Takes nothing from now on. What is queued stays.
    pub(crate) fn close(&self) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        let mut wakers = std::mem::take(&mut inner.waiting);
        wakers.extend(inner.sleeper.take());
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }
}
