//! Drain: how connections end when the server does: told at once, gone one after the other. Knows a count and a clock.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::topic::Topic;

/// Told to every connection: end somewhere within this time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draining {
    pub(crate) window: Duration,
}

impl Draining {
    /// Where it is told.
    pub(crate) fn topic() -> Topic {
        static TOPIC: OnceLock<Topic> = OnceLock::new();
        TOPIC.get_or_init(|| Topic::parse("$sessions").unwrap_or_else(|_| unreachable!("it is a topic"))).clone()
    }
}

/// Counts the connections of one pub/sub.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    count: AtomicUsize,
    draining: OnceLock<Draining>,
    left: Notify,
}

impl Sessions {
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn draining(&self) -> Option<Draining> {
        self.draining.get().copied()
    }

    /// `false`: it has been said before.
    pub(crate) fn drain(&self, draining: Draining) -> bool {
        self.draining.set(draining).is_ok()
    }

    /// Resolves when there is none.
    pub(crate) async fn none(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // Before the look: who leaves after it is not missed.
            left.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            left.await;
        }
    }
}

/// One connection, as long as it lives.
#[derive(Debug)]
pub(crate) struct Present(Arc<Sessions>);

impl Present {
    pub(crate) fn new(sessions: Arc<Sessions>) -> Self {
        sessions.count.fetch_add(1, Ordering::AcqRel);
        Self(sessions)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.left.notify_waiters();
        }
    }
}

/// `now` and a while, which may be for ever.
pub(crate) fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or_else(|| now + FOREVER)
}

/// Longer than any process lives: 30 years.
const FOREVER: Duration = Duration::from_secs(946_080_000);

/// A time up to `max`, another one at each call: so that many do not do the same at once.
pub(crate) fn some_of(max: Duration) -> Duration {
    // `RandomState` draws its keys from the system once per thread and counts up from there; SipHash mixes.
    let random = RandomState::new().hash_one(0_u8);
    max.min(FOREVER).mul_f64(f64::from((random >> 32) as u32) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_part_is_spread_over_the_whole() {
        let drawn: Vec<_> = (0..1_000).map(|_| some_of(Duration::from_secs(10))).collect();
        assert!(drawn.iter().all(|part| *part <= Duration::from_secs(10)));
        let low = drawn.iter().filter(|part| **part < Duration::from_secs(5)).count();
        assert!((350..650).contains(&low), "{low} of 1000 are in the lower half");
    }
}
