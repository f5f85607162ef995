//! Gate: lets workers work, and holds all of them between two steps of theirs; and the list of everything that was seen to be wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix::SystemRunner;

/// Open in even generations, closed in odd ones. A clone is the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    generation: AtomicU64,
    workers: Mutex<Vec<Weak<AtomicU64>>>,
}

/// One worker's way through the gate.
pub(crate) struct Pass {
    gate: Gate,
    /// The generation in which it waits; 0: it works.
    waits: Arc<AtomicU64>,
}

impl Gate {
    /// Closed.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { generation: AtomicU64::new(1), workers: Mutex::default() }))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.generation.load(Ordering::SeqCst).is_multiple_of(2)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.generation.load(Ordering::SeqCst) == OVER
    }

    /// From open to closed, or back.
    pub(crate) fn turn(&self) {
        self.0.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Every worker ends at its next step.
    pub(crate) fn end(&self) {
        self.0.generation.store(OVER, Ordering::SeqCst);
    }

    /// Nobody is at work any more.
    pub(crate) fn all_wait(&self) -> bool {
        let generation = self.0.generation.load(Ordering::SeqCst);
        let mut workers = self.0.workers.lock().unwrap();
        workers.retain(|worker| worker.strong_count() > 0);
        let waits = |worker: &Weak<AtomicU64>| worker.upgrade().is_none_or(|at| at.load(Ordering::SeqCst) == generation);
        workers.iter().all(waits)
    }

    /// For a worker, from now on one that `all_wait` waits for.
    pub(crate) fn pass(&self) -> Pass {
        let waits = Arc::new(AtomicU64::new(0));
        self.0.workers.lock().unwrap().push(Arc::downgrade(&waits));
        Pass { gate: self.clone(), waits }
    }
}

impl Pass {
    /// Between two steps. `None`: not yet; `Some(false)`: it is over.
    fn step(&self) -> Option<bool> {
        let generation = self.gate.0.generation.load(Ordering::SeqCst);
        let open = generation.is_multiple_of(2);
        self.waits.store(if open { 0 } else { generation }, Ordering::SeqCst);
        if generation == OVER { Some(false) } else { open.then_some(true) }
    }

    /// `false`: it is over.
    pub(crate) fn wait(&self) -> bool {
        loop {
            match self.step() {
                Some(more) => return more,
                None => std::thread::sleep(STEP),
            }
        }
    }

    /// As `wait`, on an arbiter.
    pub(crate) async fn come(&self) -> bool {
        loop {
            match self.step() {
                Some(more) => return more,
                None => tokio::time::sleep(STEP).await,
            }
        }
    }
}

/// Numbers of which each is to be seen, in whatever order.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    /// All before it were seen.
    pub(crate) next: u64,
    beyond: BTreeSet<u64>,
}

impl Watermark {
    /// `false`: it was seen before.
    pub(crate) fn see(&mut self, number: u64) -> bool {
        if number < self.next || !self.beyond.insert(number) {
            return false;
        }
        while self.beyond.remove(&self.next) {
            self.next += 1;
        }
        true
    }
}

// ---- what is wrong ---------------------------------------------------------------------------------------------------

static WRONG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Said where it is seen, and a failure at the next quiet point.
pub(crate) fn wrong(what: String) {
    eprintln!("WRONG: {what}");
    let mut all = WRONG.lock().unwrap();
    if all.len() < 100 {
        all.push(what);
    }
}

pub(crate) fn assert_nothing_wrong() {
    let all = WRONG.lock().unwrap().clone();
    assert!(all.is_empty(), "{} things are wrong, first:\n{}", all.len(), all[..all.len().min(10)].join("\n"));
}

/// A panic that is not on purpose is wrong, whoever catches it.
pub(crate) fn hear_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&ON_PURPOSE) {
            // Not while the list is held: what it says may be the list.
            if let Ok(mut all) = WRONG.try_lock() {
                all.push(info.to_string());
            }
            hook(info);
        }
    }));
}

/// Waits for a condition, and says after the limit what `found` says.
pub(crate) fn settles(system: &SystemRunner, what: &str, mut holds: impl FnMut() -> bool, found: impl FnOnce() -> String) {
    let start = Instant::now();
    while !holds() {
        assert_nothing_wrong();
        if start.elapsed() > PATIENCE {
            // The words are made only now.
            let found = found();
            panic!("not after {PATIENCE:?}: {what}: {found}");
        }
        // What lives on this thread goes on meanwhile.
        system.block_on(async { tokio::time::sleep(STEP).await });
    }
    if start.elapsed() > PATIENCE / 4 {
        println!("    slow: {what} took {:?}", start.elapsed());
    }
}

/// What planned panics say.
pub(crate) const ON_PURPOSE: &str = "on purpose";
const OVER: u64 = u64::MAX;
/// Between two looks.
const STEP: Duration = Duration::from_millis(2);
/// How long anything may take to become quiet, with other programs on the same cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
