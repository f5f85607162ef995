//! Gate: knows when the last subscriber has handled the last event, and whether each got each in order. Knows no peer.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::common::payload::Payload;

/// One per rig.
pub(crate) struct Gate {
    lanes: [Lane; 2],
    start: Instant,
    /// Lanes that still have something to handle.
    open: AtomicUsize,
    done_nanos: AtomicU64,
    done: Notify,
    ready: AtomicUsize,
    faults: AtomicU64,
}

/// The count of all subscribers of one thread. Written by that thread alone, so it needs no locked instruction.
#[repr(align(128))]
#[derive(Default)]
struct Lane {
    handled: AtomicU64,
    target: AtomicU64,
}

/// What each subscriber does, with every peer the same: it checks the number of the event and counts it.
pub(crate) struct Tally {
    gate: Arc<Gate>,
    lane: usize,
    next: u64,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            lanes: Default::default(),
            start: Instant::now(),
            open: AtomicUsize::new(0),
            done_nanos: AtomicU64::new(0),
            done: Notify::new(),
            ready: AtomicUsize::new(0),
            faults: AtomicU64::new(0),
        })
    }

    /// A subscriber on the thread that this lane is for.
    pub(crate) fn tally(self: &Arc<Self>, lane: usize) -> Tally {
        Tally { gate: Arc::clone(self), lane, next: 0 }
    }

    /// Expects so many more deliveries in each lane.
    pub(crate) fn expect(&self, deliveries: [usize; 2]) {
        self.done_nanos.store(0, Ordering::Relaxed);
        self.open.store(deliveries.iter().filter(|count| **count > 0).count(), Ordering::Relaxed);
        for (lane, more) in self.lanes.iter().zip(deliveries) {
            lane.target.fetch_add(more as u64, Ordering::Release);
        }
    }

    /// Waits for the last of them; says when it was.
    pub(crate) async fn done(&self) -> Instant {
        self.done.notified().await;
        self.start + Duration::from_nanos(self.done_nanos.load(Ordering::Acquire))
    }

    /// A subscriber is subscribed.
    pub(crate) fn arrive(&self) {
        self.ready.fetch_add(1, Ordering::Release);
    }

    /// Waits until so many are subscribed.
    pub(crate) async fn arrived(&self, subscribers: usize) {
        while self.ready.load(Ordering::Acquire) < subscribers {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Deliveries that were lost, doubled or out of order.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Deliveries so far, over all lanes.
    pub(crate) fn handled(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.handled.load(Ordering::Acquire)).sum()
    }

    fn finish(&self) {
        let at = self.start.elapsed().as_nanos() as u64;
        self.done_nanos.fetch_max(at, Ordering::Release);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

impl Tally {
    pub(crate) fn arrive(&self) {
        self.gate.arrive();
    }

    /// The handler of every peer.
    pub(crate) fn handle(&mut self, payload: &Payload) {
        if payload.number() != self.next {
            self.fault();
        }
        self.next += 1;
        let lane = &self.gate.lanes[self.lane];
        let handled = lane.handled.load(Ordering::Relaxed) + 1;
        lane.handled.store(handled, Ordering::Release);
        if handled == lane.target.load(Ordering::Relaxed) {
            self.gate.finish();
        }
    }

    /// The peer itself says that it lost something.
    pub(crate) fn fault(&self) {
        self.gate.faults.fetch_add(1, Ordering::Relaxed);
    }
}
