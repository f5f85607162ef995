//! Window: how far who sends may be ahead of who receives, and the loops that send. Knows no engine.

use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;

use crate::note;

/// What the other process has got.
#[derive(Default)]
pub(crate) struct Window {
    got: AtomicU64,
    disordered: AtomicU64,
    changed: Notify,
}

/// Who sends.
pub(crate) trait Sends {
    /// Takes a note for the topic of that number.
    fn send(&mut self, topic: usize, note: &[u8]) -> impl Future<Output = ()>;
    /// Brings out what was taken.
    fn flush(&mut self) -> impl Future<Output = ()>;
}

impl Window {
    pub(crate) fn set(&self, got: u64, disordered: u64) {
        self.disordered.store(disordered, Ordering::Relaxed);
        self.got.store(got, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn got(&self) -> u64 {
        self.got.load(Ordering::Acquire)
    }

    pub(crate) fn disordered(&self) -> u64 {
        self.disordered.load(Ordering::Relaxed)
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Numbers of one run of a peer: they go on from one measure to the next.
#[derive(Default)]
pub(crate) struct Numbers {
    pub(crate) next: u64,
}

/// What a run of full speed came to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: f64,
    /// Notes that were received while it was looked at.
    pub(crate) notes: u64,
}

/// Sends as fast as the window of so many notes allows; counts what arrived after the first `warm` and until the end of `time`.
pub(crate) async fn full_speed(
    sends: &mut impl Sends,
    window: &Window,
    numbers: &mut Numbers,
    plan: &Plan,
    started: impl FnOnce(),
) -> Pace {
    let mut bytes = vec![7; plan.bytes];
    let (start, mut started) = (Instant::now(), Some(started));
    let (mut from, mut received, mut lost) = (start, window.got(), 0);
    loop {
        let number = numbers.next;
        let under_way = |lost: u64| number - (window.got() + lost).min(number);
        if under_way(lost) >= plan.ahead {
            sends.flush().await;
            let (mut seen, mut quiet) = (window.got(), 0);
            while under_way(lost) >= plan.ahead {
                window.changed().await;
                quiet = if window.got() == seen { quiet + 1 } else { 0 };
                seen = window.got();
                // Nothing came for a second: what is under way is lost, and others may follow.
                if quiet >= QUIET_MAX {
                    lost = number - seen.min(number);
                }
            }
        }
        if number.is_multiple_of(CLOCK_EVERY) {
            let now = Instant::now();
            if now - start >= plan.warm
                && let Some(started) = started.take()
            {
                (from, received) = (now, window.got());
                started();
            }
            if now - start >= plan.warm + plan.time {
                let (took, notes) = (now - from, window.got() - received);
                sends.flush().await;
                return Pace { per_second: notes as f64 / took.as_secs_f64(), notes };
            }
        }
        note::stamp(&mut bytes, number, 0);
        sends.send((number % plan.topics as u64) as usize, &bytes).await;
        numbers.next += 1;
    }
}

/// What to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) topics: usize,
    /// Of a note.
    pub(crate) bytes: usize,
    /// Notes that may be under way.
    pub(crate) ahead: u64,
    pub(crate) warm: Duration,
    pub(crate) time: Duration,
}

/// Sends so many notes, one each `every`, whatever becomes of them. A note that is late because the one before took too long bears the time at which it was due.
pub(crate) async fn fixed_rate(sends: &mut impl Sends, numbers: &mut Numbers, topics: usize, notes: u64, every: Duration) {
    let mut bytes = vec![7; 100];
    let start = Instant::now();
    for sent in 0..notes {
        let due = start + every * sent as u32;
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        if late.is_zero() {
            thread::sleep(due - now);
        }
        let at = note::now() - late.as_nanos() as u64;
        note::stamp(&mut bytes, numbers.next, at);
        sends.send((numbers.next % topics as u64) as usize, &bytes).await;
        sends.flush().await;
        numbers.next += 1;
    }
}

/// The clock is looked at after so many notes.
const CLOCK_EVERY: u64 = 64;
/// How often the other process says that nothing new has come, before that is believed; it is asked ten times a second.
const QUIET_MAX: usize = 10;
