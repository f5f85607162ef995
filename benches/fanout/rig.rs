//! Rig: one peer with its subscribers on threads of their own, standing ready to be measured again and again. Knows no peer.

use std::hint;
use std::sync::Arc;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::mpsc::unbounded_channel;

use crate::common::gate::Gate;
use crate::common::numbers::nanos;
use crate::common::payload::Payload;

/// Where the subscribers run; the publisher has a thread of its own unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Placement {
    /// On the publisher's thread.
    OneThread,
    /// On another thread.
    TwoThreads,
    /// Half of them here, half of them there.
    Spread,
}

impl Placement {
    pub(crate) const ALL: [Self; 3] = [Self::OneThread, Self::TwoThreads, Self::Spread];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OneThread => "1t",
            Self::TwoThreads => "2t",
            Self::Spread => "spread",
        }
    }

    /// How many of `n` subscribers are on each thread.
    pub(crate) fn lanes(self, n: usize) -> [usize; 2] {
        if self == Self::Spread { [n.div_ceil(2), n / 2] } else { [n, 0] }
    }
}

/// What is measured in one turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Events sent one at a time.
    pub(crate) singles: usize,
    /// Events sent at once.
    pub(crate) burst: usize,
    /// How often.
    pub(crate) bursts: usize,
}

/// What a turn took.
#[derive(Debug, Default)]
pub(crate) struct Took {
    /// Until publish returned, ns, for each single event.
    pub(crate) publish: Vec<f64>,
    /// Until the last handler had run, ns, for each single event.
    pub(crate) last: Vec<f64>,
    /// All bursts together, s.
    pub(crate) burst_seconds: f64,
    /// Deliveries lost, doubled or out of order since the rig was built.
    pub(crate) faults: u64,
    /// Deliveries since the rig was built, and how many there should have been.
    pub(crate) handled: [u64; 2],
}

/// What a peer gets to build itself from.
pub(crate) struct Stage {
    pub(crate) n: usize,
    pub(crate) placement: Placement,
    pub(crate) gate: Arc<Gate>,
    turns: UnboundedReceiver<Turn>,
    took: mpsc::Sender<Took>,
    next: u64,
}

pub(crate) struct Rig {
    name: &'static str,
    turns: Option<UnboundedSender<Turn>>,
    took: mpsc::Receiver<Took>,
    thread: Option<JoinHandle<()>>,
}

impl Rig {
    /// Builds a peer on a new thread, which is its publisher's.
    pub(crate) fn build(name: &'static str, run: fn(Stage), n: usize, placement: Placement) -> Self {
        let (turns, orders) = unbounded_channel();
        let (results, took) = mpsc::channel();
        let stage = Stage { n, placement, gate: Gate::new(), turns: orders, took: results, next: 0 };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(stage)).expect("a thread can be started");
        let rig = Self { name, turns: Some(turns), took, thread: Some(thread) };
        // The first events pay for what is set up lazily; they also show that all are subscribed before the next rig is built.
        rig.turn(Turn { singles: 3, burst: 8, bursts: 1 });
        rig
    }

    /// Measures once.
    pub(crate) fn turn(&self, turn: Turn) -> Took {
        let sent = self.turns.as_ref().is_some_and(|turns| turns.send(turn).is_ok());
        assert!(sent, "{} ended early", self.name);
        match self.took.recv_timeout(TURN_MAX) {
            Ok(took) => {
                assert_eq!(took.faults, 0, "{} lost, doubled or reordered events", self.name);
                assert_eq!(took.handled[0], took.handled[1], "{} delivered a wrong number of events", self.name);
                took
            }
            Err(RecvTimeoutError::Timeout) => panic!("{} lost events: not all were handled within {TURN_MAX:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => panic!("{} ended early", self.name),
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.turns.take());
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking(), "{} panicked", self.name);
        }
    }
}

impl Stage {
    /// Publishes as ordered until the rig is dropped. Runs on the publisher's thread.
    pub(crate) async fn direct(mut self, mut publish: impl FnMut(Payload)) {
        while let Some(turn) = self.turns.recv().await {
            let mut took = Took::default();
            for _ in 0..turn.singles {
                if self.placement != Placement::OneThread {
                    let calm = Instant::now() + CALM;
                    while Instant::now() < calm {
                        hint::spin_loop();
                    }
                }
                self.gate.expect(self.placement.lanes(self.n));
                let payload = self.payload();
                let start = Instant::now();
                publish(payload);
                let returned = start.elapsed();
                let last = self.gate.done().await;
                took.publish.push(nanos(returned));
                took.last.push(nanos(last.saturating_duration_since(start)));
            }
            for _ in 0..turn.bursts {
                self.gate.expect(self.placement.lanes(self.n).map(|count| count * turn.burst));
                let start = Instant::now();
                for _ in 0..turn.burst {
                    publish(self.payload());
                }
                took.burst_seconds += self.gate.done().await.saturating_duration_since(start).as_secs_f64();
            }
            took.faults = self.gate.faults();
            took.handled = [self.gate.handled(), self.next * self.n as u64];
            if self.took.send(took).is_err() {
                return;
            }
        }
    }

    /// Has a peer that is another process measure itself, until the rig is dropped.
    pub(crate) fn delegate(mut self, mut take: impl FnMut(Turn) -> Took) {
        while let Some(turn) = self.turns.blocking_recv() {
            if self.took.send(take(turn)).is_err() {
                return;
            }
        }
    }

    fn payload(&mut self) -> Payload {
        let number = self.next;
        self.next += 1;
        Payload::new(number)
    }
}

/// Before a single event to another thread, so that every peer finds that thread asleep. Otherwise the fast ones find it still awake
/// from the event before, some of the time.
const CALM: Duration = Duration::from_micros(150);
/// Nothing takes this long but an event that never arrives.
const TURN_MAX: Duration = Duration::from_secs(120);
