//! Tests of the hand-over: random interleavings of appends, trims, a slow and failing store, a feed that stands when it likes, a ring that
//! overflows, followers that crash, and logs that are lost. `PROPTEST_CASES=1000000` looks longer; a failure prints its case and its seed, `SEED=n` repeats it.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::Live;
use super::Replay;
use super::Want;
use crate::feed::place::Place;
use crate::feed::place::Places;
use crate::ids::EntryId;
use crate::log::Append;
use crate::log::Batch;
use crate::log::Clock;
use crate::log::GapCause;
use crate::log::Limit;
use crate::log::Limits;
use crate::log::MemoryStore;
use crate::log::NewEntry;
use crate::log::Position;
use crate::log::Store;
use crate::log::StoreFuture;
use crate::log::Tail;
use crate::log::Trim;
use crate::topic::Topic;

/// What may happen next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// An entry of the follower's type.
    Append,
    /// An entry of another type.
    AppendOther,
    /// An entry without a type: everyone's.
    AppendUnnamed,
    /// Keep so many.
    Trim(u8),
    /// The log is lost, and begins anew with lower ids.
    Lose,
    /// The new log, which the feed has seen, grows past everything that the old one had.
    Outgrow,
    /// The feed comes to stand.
    Stand,
    /// The feed looks at its tail.
    Feed,
    /// The follower does what it wants next.
    Follow,
    /// The store looks the wanted page up; its answer takes until the next `Follow`.
    Lookup,
    /// The port is full from now on, or has room again.
    Port(bool),
    /// The reading fails.
    Fail,
    /// The follower crashes, and another goes on after what it had.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Append),
        2 => Just(Step::AppendOther),
        1 => Just(Step::AppendUnnamed),
        2 => (0..6_u8).prop_map(Step::Trim),
        1 => Just(Step::Lose),
        1 => Just(Step::Outgrow),
        2 => Just(Step::Stand),
        6 => Just(Step::Feed),
        10 => Just(Step::Follow),
        6 => Just(Step::Lookup),
        2 => any::<bool>().prop_map(Step::Port),
        1 => Just(Step::Fail),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..80)
}

/// Live events that wait for the follower; fewer than a burst, so that it overflows.
const RING: usize = 3;
/// Entries of a page.
const PAGE: Limit = Limit { entries: 2, bytes: usize::MAX };

struct Ours;
struct Theirs;

struct World {
    store: MemoryStore,
    topic: Topic,
    wall_ms: Arc<AtomicU64>,
    /// Every entry that the follower has to see, of the log that there is now.
    ours: Vec<EntryId>,
    /// How often the log was lost: which one it is now.
    lost: u32,
    /// The feed stood when it was lost last, and has told the two apart.
    noticed: bool,
    outgrown: bool,
    /// How often the follower was told so.
    told: u32,
    tail: Box<dyn Tail>,
    places: Option<Places>,
    /// Live events, and which log each is of.
    ring: VecDeque<(EntryId, Place, u32)>,
    /// A full port refuses the newest; a ring drops the oldest.
    port_full: bool,
    behind: Option<(EntryId, Place, u32)>,
    replay: Replay,
    /// The page that the store has looked up, and of which log.
    looked_up: Option<(u32, Batch)>,
    reading: Option<Position>,
    /// What the follower was given since the last gap of a lost log.
    given: Vec<EntryId>,
    /// Everything up to here was given, or told as a gap.
    at: EntryId,
}

fn now<T>(future: StoreFuture<'_, T>) -> T {
    future.now_or_never().expect("the store is in memory").unwrap()
}

impl World {
    fn new() -> Self {
        let wall_ms = Arc::new(AtomicU64::new(1_000_000));
        let clock = {
            let wall_ms = Arc::clone(&wall_ms);
            Clock::from_fns(move || wall_ms.load(Ordering::Relaxed), || 0)
        };
        let store = MemoryStore::with(Limits::default(), Duration::from_secs(1), clock);
        let tail = store.tail();
        Self {
            store,
            topic: Topic::parse("t").unwrap(),
            wall_ms,
            ours: Vec::new(),
            lost: 0,
            noticed: false,
            outgrown: false,
            told: 0,
            tail,
            places: None,
            ring: VecDeque::new(),
            port_full: false,
            behind: None,
            replay: Replay::new(Position::After(EntryId::MIN)),
            looked_up: None,
            reading: None,
            given: Vec::new(),
            at: EntryId::MIN,
        }
    }

    fn append(&mut self, name: &'static str) {
        let appended = now(self.store.append(&self.topic, Append::one(NewEntry::new(name, "x"))));
        if name != "theirs" {
            self.ours.push(appended[0].id);
        }
    }

    /// `true`: it brought something.
    fn feed(&mut self) -> bool {
        let Some(places) = &mut self.places else { return false };
        let Some(batches) = self.tail.next(PAGE).now_or_never() else { return false };
        for (_, batch) in batches.unwrap() {
            places.begin(&batch);
            for entry in &batch.entries {
                if entry.name != "ours" {
                    places.pass(TypeId::of::<Theirs>(), entry.id);
                }
                if entry.name != "theirs" {
                    let place = places.pass(TypeId::of::<Ours>(), entry.id);
                    if self.port_full {
                        // Refused, and said again later: that there was one.
                        self.behind = Some((entry.id, Place { prev: entry.id, epoch: place.epoch }, self.lost));
                        continue;
                    }
                    self.ring.push_back((entry.id, place, self.lost));
                    if self.ring.len() > RING {
                        self.ring.pop_front();
                    }
                }
            }
        }
        true
    }

    fn stand(&mut self) {
        if self.places.is_none() {
            let head = now(self.store.read(&self.topic, Position::End, PAGE)).next;
            self.tail.watch(&self.topic, head);
            self.places = Some(Places::new(head));
            self.replay.stood(0, head);
        }
    }

    fn lookup(&mut self) {
        if let (Some(from), None) = (self.reading, &self.looked_up) {
            self.looked_up = Some((self.lost, now(self.store.read(&self.topic, from, PAGE))));
        }
    }

    fn follow(&mut self) {
        match self.replay.want() {
            Want::Page(from) => {
                self.replay.begin();
                self.reading = Some(from);
            }
            Want::Reading => {
                let Some((log, batch)) = self.looked_up.take() else { return };
                self.reading = None;
                let replaced = batch.gap.as_ref().is_some_and(|gap| gap.cause == GapCause::Ahead);
                self.replay.page(batch.next, batch.caught_up, replaced);
                if replaced {
                    self.lost_log(log);
                }
                if log != self.lost {
                    // It speaks of a log that was lost since. That there is another one is found out by the next page.
                    return self.give_all(&batch);
                }
                if let Some(gap) = batch.gap.clone() {
                    if !replaced {
                        assert_eq!(gap.cause, GapCause::Trimmed);
                        let left_out = self.between(self.at, gap.asked_after);
                        assert!(
                            left_out.is_empty() || self.outgrown,
                            "{left_out:?} were left out before a gap after {}",
                            gap.asked_after
                        );
                    }
                    let last_gone = gap.resumes_at.map_or(batch.next, |first| first.prev().unwrap());
                    let kept = self.kept();
                    let gone = self.between(self.at, last_gone);
                    assert!(
                        gone.iter().all(|id| !kept.contains(id)) || self.outgrown,
                        "a gap says that {gone:?} are gone, kept are {kept:?}"
                    );
                    self.at = self.at.max(last_gone);
                }
                self.give_all(&batch);
            }
            Want::Standing => {}
            Want::Live => {
                let Some((id, place, log)) = self.ring.pop_front() else { return };
                match self.replay.live(id, place.prev, place.epoch) {
                    Live::Deliver => self.give(id),
                    Live::Skip | Live::Reread => {}
                    Live::Replaced => self.lost_log(log),
                }
            }
        }
    }

    /// The follower is told that the log is another one.
    fn lost_log(&mut self, log: u32) {
        self.told += 1;
        // Once by a page and once by the feed, at most.
        assert!(self.told <= 2 * self.lost && log > 0, "it is told {} times of {} lost logs", self.told, self.lost);
        self.given.clear();
        self.at = EntryId::MIN;
    }

    /// Entries that the follower has to see, after `after`, up to and with `to`.
    fn between(&self, after: EntryId, to: EntryId) -> Vec<EntryId> {
        self.ours.iter().copied().filter(|id| after < *id && *id <= to).collect()
    }

    fn kept(&self) -> BTreeSet<EntryId> {
        let batch = now(self.store.read(&self.topic, Position::Start, Limit { entries: 10_000, bytes: usize::MAX }));
        batch.entries.iter().filter(|entry| entry.name != "theirs").map(|entry| entry.id).collect()
    }

    fn give_all(&mut self, batch: &Batch) {
        for entry in batch.entries.iter().filter(|entry| entry.name != "theirs") {
            self.give(entry.id);
        }
    }

    fn give(&mut self, id: EntryId) {
        assert!(self.given.last().is_none_or(|last| *last < id), "{id} comes after {:?}", self.given.last());
        let left_out = self.between(self.at, id.prev().unwrap());
        // What a lost log is asked for may come after the loss, and says nothing of the new one.
        // A new log that has grown past the old one is not told from it by a page; the feed does, by and by.
        assert!(left_out.is_empty() || !self.ours.contains(&id) || self.outgrown, "{left_out:?} were left out before {id}");
        self.at = id;
        self.given.push(id);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append => self.append("ours"),
            Step::AppendOther => self.append("theirs"),
            Step::AppendUnnamed => self.append(""),
            Step::Trim(keep) => {
                now(self.store.trim(&self.topic, Trim::Len(u64::from(keep))));
            }
            Step::Lose => {
                // Lower ids for good, and the feed has seen the old log's end: a new log that has grown past a reader's position looks like the old one.
                while self.feed() {}
                self.wall_ms.store(1_000_000 - 1_000 * u64::from(self.lost + 1), Ordering::Relaxed);
                now(self.store.delete(&self.topic));
                self.ours.clear();
                self.lost += 1;
                (self.noticed, self.outgrown) = (self.places.is_some(), false);
                self.append("ours");
            }
            Step::Outgrow => {
                if self.noticed {
                    while self.feed() {}
                    self.outgrown = true;
                    self.wall_ms.store(2_000_000, Ordering::Relaxed);
                    self.append("ours");
                }
            }
            Step::Stand => self.stand(),
            Step::Feed => {
                self.feed();
            }
            Step::Follow => self.follow(),
            Step::Lookup => self.lookup(),
            Step::Port(full) => {
                self.port_full = full;
                if !full {
                    self.ring.extend(self.behind.take());
                }
            }
            Step::Fail => {
                if self.reading.take().is_some() {
                    self.looked_up = None;
                    self.replay.failed();
                }
            }
            // Where it was in the old log looks like a place in the new one: that is for nobody to tell.
            Step::Crash if self.outgrown => {}
            Step::Crash => {
                self.noticed = false;
                self.replay = Replay::new(Position::After(self.given.last().copied().unwrap_or(EntryId::MIN)));
                (self.reading, self.looked_up, self.told) = (None, None, 0);
                self.ring.clear();
                self.behind = None;
                if let Some(places) = &self.places {
                    self.replay.stood(places.epoch(), EntryId::MIN);
                }
            }
        }
    }

    /// Everyone does what there is to do, until nothing is left.
    fn settle(&mut self) {
        self.stand();
        self.step(Step::Port(false));
        let mut rounds = 0;
        while self.feed() || !self.replay.is_live() || !self.ring.is_empty() {
            self.lookup();
            self.follow();
            rounds += 1;
            assert!(rounds < 10_000, "it does not settle");
        }
        let kept = self.kept();
        let given: BTreeSet<_> = self.given.iter().copied().collect();
        assert!(kept.is_subset(&given), "{:?} were never given", kept.difference(&given));
    }
}

/// A thousand cases, or as many as `PROPTEST_CASES` says, from the seed in `SEED` or a new one.
fn config() -> ProptestConfig {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let seed = number("SEED").unwrap_or_else(|| RandomState::new().hash_one("seed"));
    println!("SEED={seed}");
    let cases = number("PROPTEST_CASES").map_or(1_000, |cases| cases as u32);
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_follower_sees_everything_once_in_order_or_a_gap_first(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
