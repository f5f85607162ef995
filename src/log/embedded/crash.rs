//! Crash: tests that cut the power at every write and every sync, and look at what a store makes of what is left.

use std::collections::BTreeSet;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::Either;
use futures::future::select;
use redb::StorageBackend;

use crate::ids::EntryId;
use crate::log::Append;
use crate::log::Batch;
use crate::log::Entry;
use crate::log::Fetch;
use crate::log::Group;
use crate::log::Limit;
use crate::log::Name;
use crate::log::NewEntry;
use crate::log::Outcome;
use crate::log::PendingQuery;
use crate::log::Position;
use crate::log::Store;
use crate::log::StoreError;
use crate::log::Trim;
use crate::log::embedded::EmbeddedStore;
use crate::log::embedded::journal::Journal;
use crate::log::embedded::journal::Record;
use crate::log::embedded::row::StoreRow;
use crate::topic::Topic;

/// What was done to a disk.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

impl Op {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let (at, end) = (*at as usize, *at as usize + data.len());
                image.resize(image.len().max(end), 0);
                image[at..end].copy_from_slice(data);
            }
            Self::SetLen(len) => image.resize(*len as usize, 0),
            Self::Sync => {}
        }
    }
}

/// A disk in memory that writes down what is done to it, and fails where it is told to.
#[derive(Debug, Default)]
pub(super) struct Tape {
    pub(super) image: Mutex<Vec<u8>>,
    pub(super) ops: Mutex<Vec<Op>>,
    /// The disk has no room beyond this.
    pub(super) room: Mutex<Option<u64>>,
    /// So many writes from now on work, then one fails.
    pub(super) fail_in: Mutex<Option<u64>>,
    /// Only that one fails, not all after it.
    pub(super) fails_once: AtomicBool,
    /// Writes work, syncs fail.
    pub(super) syncs_fail: AtomicBool,
    pub(super) records: bool,
}

impl Tape {
    pub(super) fn recording() -> Arc<Self> {
        Arc::new(Self { records: true, ..Self::default() })
    }

    pub(super) fn of(image: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { image: Mutex::new(image), ..Self::default() })
    }

    fn apply(&self, op: Op) -> io::Result<()> {
        let mut fail_in = self.fail_in.lock().unwrap();
        if let Some(left) = &mut *fail_in {
            if *left == 0 {
                if self.fails_once.load(Ordering::Relaxed) {
                    *fail_in = None;
                }
                return Err(io::Error::other("made to fail"));
            }
            *left -= 1;
        }
        drop(fail_in);
        if matches!(op, Op::Sync) && self.syncs_fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("made to fail"));
        }
        if let (Some(room), Op::Write(at, data)) = (*self.room.lock().unwrap(), &op)
            && at + data.len() as u64 > room
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        op.apply(&mut self.image.lock().unwrap());
        if self.records {
            self.ops.lock().unwrap().push(op);
        }
        Ok(())
    }

    fn at(&self) -> usize {
        self.ops.lock().unwrap().len()
    }
}

impl StorageBackend for Tape {
    fn len(&self) -> io::Result<u64> {
        Ok(self.image.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (image, at) = (self.image.lock().unwrap(), usize::try_from(offset).unwrap_or(usize::MAX));
        let from = at.checked_add(out.len()).and_then(|end| image.get(at..end)).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.apply(Op::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.apply(Op::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.apply(Op::Write(offset, data.to_vec()))
    }
}

/// Numbers as random as a test needs them.
pub(super) struct Random(u64);

impl Random {
    /// Seeded by `SEED`, else by the time; prints it.
    pub(super) fn from_env() -> Self {
        let by_time = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(by_time);
        eprintln!("SEED={seed}");
        Self(seed | 1)
    }

    /// Seeded by `SEED`, else by `seed`; prints it.
    pub(super) fn from_env_or(seed: u64) -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed);
        eprintln!("SEED={seed}");
        Self(seed | 1)
    }

    /// Below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % end.max(1)
    }
}

pub(super) fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

pub(super) fn group() -> Group {
    Group::new(topic("one"), Name::parse("workers").unwrap())
}

fn open_instant(disk: Arc<Tape>) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open_on(disk, super::shared::Settings { instant_recovery: true, ..small_journal() })
}

/// The journal is full after some commits.
fn open_small_journal(disk: Arc<Tape>) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open_on(disk, small_journal())
}

fn open_no_journal(disk: Arc<Tape>) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open_on(disk, super::shared::Settings { journal_bytes: 0, ..EmbeddedStore::settings() })
}

fn small_journal() -> super::shared::Settings {
    super::shared::Settings { journal_bytes: 24 << 10, ..EmbeddedStore::settings() }
}

pub(super) fn open(disk: Arc<Tape>) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open_on(disk, EmbeddedStore::settings())
}

/// What a workload was told was done, and by which operation of the disk at the latest.
#[derive(Debug, Default)]
struct Promises {
    /// Topic, entry, when it was promised.
    entries: Vec<(&'static str, Entry, usize)>,
    /// Topic, the newest trimmed entry, when.
    trims: Vec<(&'static str, EntryId, usize)>,
    group: Option<usize>,
    /// Acked entries of the group, and when they were on disk.
    acks: Vec<(EntryId, usize)>,
    delivered: BTreeSet<EntryId>,
}

const TOPICS: [&str; 2] = ["one", "two"];

async fn workload(tape: &Tape, store: &EmbeddedStore, random: &mut Random) -> Promises {
    let mut promises = Promises::default();
    let consumer = Name::parse("c").unwrap();
    for step in 0..STEPS {
        let name = TOPICS[random.below(2) as usize];
        let t = topic(name);
        match random.below(12) {
            0 => {
                let keep = random.below(20);
                let removed = store.trim(&t, Trim::Len(keep)).await.unwrap();
                trimmed(&mut promises, tape, store, name, removed > 0).await;
            }
            1 if promises.group.is_none() => {
                store.create_group(&group(), Position::Start).await.unwrap();
                promises.group = Some(tape.at());
            }
            1..=3 if promises.group.is_some() => {
                let fetched = store.fetch(&group(), &consumer, Fetch::entries(5)).await.unwrap();
                promises.delivered.extend(fetched.iter().map(|fetched| fetched.id));
                let acked: Vec<_> = fetched.into_iter().map(|fetched| fetched.token).step_by(2).collect();
                let ids: Vec<_> = acked.iter().map(|token| token.id).collect();
                store.ack(&group(), acked).await.unwrap();
                store.sync().await.unwrap();
                promises.acks.extend(ids.into_iter().map(|id| (id, tape.at())));
            }
            4 => {
                // A large one, over several pages.
                let big = NewEntry::new("big", vec![step as u8; 20_000]);
                append(&mut promises, tape, store, name, vec![big], None).await;
            }
            kind => {
                let new = |n: u64| NewEntry::new("n", format!("{step}:{n}").repeat(1 + random.0 as usize % 40));
                let new = (0..=step % 7).map(new).map(|entry| if kind == 5 { entry.dedup(format!("{step}")) } else { entry });
                let trim = (kind == 6).then_some(Trim::Len(15));
                append(&mut promises, tape, store, name, new.collect(), trim).await;
            }
        }
    }
    promises
}

async fn trimmed(promises: &mut Promises, tape: &Tape, store: &EmbeddedStore, name: &'static str, any: bool) {
    let at = tape.at();
    let first = store.info(&topic(name)).await.unwrap().first;
    let of = promises.entries.iter().filter(|(of, entry, _)| *of == name && first.is_none_or(|first| entry.id < first));
    if let Some((_, entry, _)) = of.last().filter(|_| any) {
        promises.trims.push((name, entry.id, at));
    }
}

async fn append(
    promises: &mut Promises,
    tape: &Tape,
    store: &EmbeddedStore,
    name: &'static str,
    new: Vec<NewEntry>,
    trim: Option<Trim>,
) {
    let appended = store.append(&topic(name), Append { trim, ..Append::many(new.clone()) }).await.unwrap();
    let at = tape.at();
    for (new, appended) in new.into_iter().zip(appended) {
        if !appended.duplicate {
            let entry = Entry { id: appended.id, name: new.name, payload: new.payload, headers: new.headers };
            promises.entries.push((name, entry, at));
        }
    }
    if trim.is_some() {
        trimmed(promises, tape, store, name, true).await;
    }
}

/// Opens what is left after `done` operations, and holds it against what was promised until then.
async fn check(image: Vec<u8>, promises: &Promises, done: usize) {
    let store = open(Tape::of(image)).unwrap();
    for name in TOPICS {
        let t = topic(name);
        let all: Vec<_> = promises.entries.iter().filter(|(of, ..)| *of == name).collect();
        let last_promised = all.iter().filter(|(.., at)| *at <= done).map(|(_, entry, _)| entry.id).max().unwrap_or_default();
        let trim_promised = promises.trims.iter().filter(|(of, _, at)| *of == name && *at <= done).map(|(_, id, _)| *id).max();
        let trim_tried = promises.trims.iter().filter(|(of, ..)| *of == name).map(|(_, id, _)| *id).max();
        let info = store.info(&t).await.unwrap();
        let batch = store.read(&t, Position::Start, Limit { entries: usize::MAX, bytes: usize::MAX }).await.unwrap();
        assert!(info.last >= last_promised, "{name} ends at {}, {last_promised} was promised", info.last);
        let first = batch.entries.first().map_or(info.last, |entry| entry.id);
        assert!(trim_promised.is_none_or(|trimmed| first > trimmed || batch.entries.is_empty()), "a trim is undone");
        let expected: Vec<_> =
            all.iter().filter(|(_, of, _)| of.id >= first && of.id <= info.last).map(|(_, of, _)| of).collect();
        let expected = if batch.entries.is_empty() { Vec::new() } else { expected };
        assert_eq!(batch.entries.iter().collect::<Vec<_>>(), expected, "in {name}");
        // What is before the first kept entry was trimmed, not lost.
        let lost = all.iter().find(|(_, of, _)| of.id < first && trim_tried.is_none_or(|trimmed| of.id > trimmed));
        assert!(lost.is_none() || batch.entries.is_empty() && info.last == EntryId::MIN, "{lost:?} is lost from {name}");
        assert_eq!(info.entries, batch.entries.len() as u64);
        let next = store.append(&t, Append::one(NewEntry::new("next", "x"))).await.unwrap()[0].id;
        assert!(next > info.last, "ids go on");
    }
    if promises.group.is_some_and(|at| at <= done) {
        let pending = store.pending(&group(), PendingQuery::first(1_000)).await.unwrap();
        let pending: BTreeSet<_> = pending.iter().map(|pending| pending.id).collect();
        assert!(pending.is_subset(&promises.delivered), "none is pending that was not delivered");
        for (acked, at) in &promises.acks {
            assert!(*at > done || !pending.contains(acked), "an ack on disk is undone");
        }
        let rest = store.fetch(&group(), &Name::parse("d").unwrap(), Fetch::entries(1_000)).await.unwrap();
        let acked: BTreeSet<_> = promises.acks.iter().filter(|(_, at)| *at <= done).map(|(id, _)| *id).collect();
        assert!(rest.iter().all(|fetched| !acked.contains(&fetched.id)), "an acked entry is delivered again");
        let kept = store.read(&group().topic, Position::Start, Limit { entries: usize::MAX, bytes: usize::MAX }).await.unwrap();
        for Entry { id, .. } in &kept.entries {
            let had = promises.acks.iter().any(|(acked, _)| acked == id) || pending.contains(id);
            assert!(had || rest.iter().any(|fetched| fetched.id == *id), "{id} is lost to the group");
        }
    }
    store.close().await.unwrap();
}

/// Steps of the workload.
const STEPS: u64 = 60;

#[test]
fn embedded_keeps_every_promise_at_every_write_and_sync() {
    cut_everywhere(open);
}

#[test]
fn embedded_with_a_full_journal_keeps_every_promise_at_every_write_and_sync() {
    cut_everywhere(open_small_journal);
}

#[test]
fn embedded_without_its_journal_keeps_every_promise_at_every_write_and_sync() {
    cut_everywhere(open_no_journal);
}

#[test]
fn embedded_with_instant_recovery_keeps_every_promise_at_every_write_and_sync() {
    cut_everywhere(open_instant);
}

fn cut_everywhere(open: fn(Arc<Tape>) -> Result<EmbeddedStore, StoreError>) {
    let mut random = Random::from_env();
    actix::System::new().block_on(async move {
        let tape = Tape::recording();
        let store = open(Arc::clone(&tape)).unwrap();
        let promises = workload(&tape, &store, &mut random).await;
        store.close().await.unwrap();
        let ops = std::mem::take(&mut *tape.ops.lock().unwrap());
        assert!(promises.entries.len() > 50 && ops.len() > 100, "{} entries, {} ops", promises.entries.len(), ops.len());
        let (mut synced, mut killed, mut since): (Vec<u8>, Vec<u8>, Vec<&Op>) = Default::default();
        for (done, op) in ops.iter().enumerate() {
            op.apply(&mut killed);
            since.push(op);
            // The process was killed: the system has what was written.
            check(killed.clone(), &promises, done + 1).await;
            if matches!(op, Op::Sync) {
                // The power was cut: this is on disk, and of what comes until the next sync anything may be.
                synced.clone_from(&killed);
                since.clear();
                continue;
            }
            check(cut(&synced, &since, &mut random), &promises, promised_by(&ops, done)).await;
        }
    });
}

/// The last operation whose promises a power cut after `done` has to keep: the last sync.
fn promised_by(ops: &[Op], done: usize) -> usize {
    ops[..=done].iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1)
}

/// The image after a power cut: some of what was not synced is there, some is not, some is torn.
fn cut(synced: &[u8], since: &[&Op], random: &mut Random) -> Vec<u8> {
    let mut image = synced.to_vec();
    let mut kept = since.to_vec();
    if random.below(2) == 0 {
        let shift = random.below(kept.len() as u64) as usize;
        kept.rotate_left(shift);
    }
    for op in kept {
        match (random.below(3), op) {
            (0, _) => {}
            (1, Op::Write(at, data)) => {
                let len = (random.below(data.len() as u64 / 512 + 1) * 512).min(data.len() as u64) as usize;
                Op::Write(*at, data[..len].to_vec()).apply(&mut image);
            }
            (_, op) => op.apply(&mut image),
        }
    }
    image
}

#[test]
fn embedded_survives_a_write_that_fails_and_loses_nothing_acked() {
    fail_everywhere(open);
}

#[test]
fn embedded_with_a_full_journal_survives_a_write_that_fails_and_loses_nothing_acked() {
    fail_everywhere(open_small_journal);
}

#[test]
fn embedded_without_its_journal_survives_a_write_that_fails_and_loses_nothing_acked() {
    fail_everywhere(open_no_journal);
}

fn fail_everywhere(open: fn(Arc<Tape>) -> Result<EmbeddedStore, StoreError>) {
    let mut random = Random::from_env();
    actix::System::new().block_on(async move {
        let tape = Tape::recording();
        let store = open(Arc::clone(&tape)).unwrap();
        let t = topic("one");
        let mut kept = Vec::new();
        let mut failed = 0;
        // Nobody knows of these whether they are there: until a later commit has found out, each may show itself.
        let mut unsure = Vec::new();
        for n in 0..600_u64 {
            if n % 3 == 0 {
                // Somewhere in the commit, its last sync included; a record of the journal is two operations.
                tape.fails_once.store(random.below(2) == 0, Ordering::Relaxed);
                let operations = if random.below(2) == 0 { 3 } else { 20 };
                *tape.fail_in.lock().unwrap() = Some(random.below(operations));
            }
            let mut unknown = false;
            match store.append(&t, Append::one(NewEntry::new("n", n.to_string()))).await {
                Ok(appended) => kept.push((appended[0].id, n)),
                Err(error) => {
                    assert!(error.is_transient(), "{error}");
                    failed += 1;
                    unknown = matches!(error, StoreError::Unavailable { outcome: Outcome::Unknown, .. });
                    if unknown {
                        unsure.push(n);
                    }
                }
            }
            *tape.fail_in.lock().unwrap() = None;
            // What is read now is what is there after a crash, too, unless nobody could know.
            if n % 7 == 0 && !unknown {
                let image = tape.image.lock().unwrap().clone();
                let again = open(Tape::of(image)).unwrap();
                assert_eq!(again.info(&t).await.unwrap().entries, store.info(&t).await.unwrap().entries, "after {n}");
            }
            let read = store.read(&t, Position::Start, Limit::entries(1_000)).await.unwrap();
            let read: Vec<(_, u64)> = read
                .entries
                .iter()
                .map(|entry| (entry.id, std::str::from_utf8(&entry.payload).unwrap().parse().unwrap()))
                .collect();
            assert!(kept.iter().all(|of| read.contains(of)), "after {n}");
            let fresh = || read.iter().filter(|of| !kept.contains(of));
            assert!(fresh().all(|(_, of)| unsure.contains(of)), "what failed is not there, unless nobody could know: {n}");
            if !unknown {
                unsure.clear();
            }
            kept = read;
        }
        assert!(failed > 50 && kept.len() > 300, "{failed} failed, {} are kept", kept.len());
    });
}

/// Nothing takes this long to wake who waits.
const WAKE_MAX: Duration = Duration::from_secs(10);

#[test]
fn embedded_finds_out_by_itself_what_became_of_an_append_and_wakes_who_waits_for_it() {
    actix::System::new().block_on(async {
        // Without a journal: the sync that fails is the engine's, and what it had written is found by the next opening.
        let tape = Tape::recording();
        let store = open_no_journal(Arc::clone(&tape)).unwrap();
        let t = topic("one");
        let mut tail = store.tail();
        tail.watch(&t, EntryId::MIN);
        // It has looked, and waits.
        assert!(tokio::time::timeout(Duration::from_millis(50), tail.next(Limit::default())).await.is_err());
        let mut found = 0;
        for cut in 0..40 {
            let append = store.append(&t, Append::one(NewEntry::new("n", "x")));
            *tape.fail_in.lock().unwrap() = Some(cut);
            let append = async {
                let appended = append.await;
                *tape.fail_in.lock().unwrap() = None;
                let Err(error) = appended else { return false };
                assert!(matches!(error, StoreError::Unavailable { outcome: Outcome::Unknown, .. }), "{error}");
                let deadline = std::time::Instant::now() + Duration::from_secs(10);
                while store.inner.shared.is_unknown() {
                    assert!(std::time::Instant::now() < deadline, "nobody finds out");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                // What it does besides is over, too: the next failure is not its.
                store.sync().await.unwrap();
                let there = store.info(&t).await.unwrap().entries > found;
                // Who waits is told of nothing if nothing is there.
                tokio::time::sleep(if there { WAKE_MAX } else { Duration::from_millis(20) }).await;
                true
            };
            let next = pin!(tail.next(Limit::default()));
            let (was_unknown, next) = match select(pin!(append), next).await {
                Either::Left((was_unknown, _)) => (was_unknown, None),
                Either::Right((batches, append)) => (append.await, Some(batches)),
            };
            if !was_unknown {
                break;
            }
            let there = store.info(&t).await.unwrap().entries;
            let read = next.map_or(0, |batches: Result<Vec<(Topic, Batch)>, _>| {
                batches.unwrap().iter().map(|(_, batch)| batch.entries.len() as u64).sum()
            });
            assert_eq!(read, there - found, "who waits was not told of what is there, after {cut}");
            found = there;
        }
        assert!(found > 0, "no append of which nobody could know was there");
    });
}

#[test]
fn embedded_says_full_keeps_reading_and_goes_on_when_there_is_room() {
    actix::System::new().block_on(async {
        let tape = Tape::recording();
        let store = open(Arc::clone(&tape)).unwrap();
        let t = topic("one");
        *tape.room.lock().unwrap() = Some(4 << 20);
        let mut acked = 0;
        let full = loop {
            match store.append(&t, Append::one(NewEntry::new("n", vec![7; 10_000]))).await {
                Ok(_) => acked += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, StoreError::Full { .. }) && full.is_transient(), "{full}");
        for _ in 0..3 {
            let again = store.append(&t, Append::one(NewEntry::new("n", vec![7; 1_000_000]))).await.unwrap_err();
            assert!(matches!(again, StoreError::Full { .. }), "{again}");
            let info = store.info(&t).await.unwrap();
            assert_eq!(info.entries, acked);
            let (mut read, mut at) = (0, EntryId::MIN);
            while read < acked {
                let batch = store.read(&t, Position::After(at), Limit::default()).await.unwrap();
                (read, at) = (read + batch.entries.len() as u64, batch.next);
            }
        }
        *tape.room.lock().unwrap() = None;
        store.append(&t, Append::one(NewEntry::new("n", "x"))).await.unwrap();
        assert_eq!(store.info(&t).await.unwrap().entries, acked + 1);
        store.close().await.unwrap();
        let image = tape.image.lock().unwrap().clone();
        assert_eq!(open(Tape::of(image)).unwrap().info(&t).await.unwrap().entries, acked + 1);
    });
}

#[test]
fn embedded_knows_of_a_record_for_which_there_was_no_room_that_it_is_not_there_and_of_one_not_synced_that_it_may_be() {
    let record = |commit: u64| {
        let mut record = Record::default();
        record.put(b"key", &[7; 5_000]);
        record.put(&super::row::store_key(), &StoreRow { commits: commit, ..StoreRow::default() }.encode());
        record.follow(commit, 0);
        record
    };
    let tape = Tape::recording();
    // As in a file with a hole, where there is no room for what it already spans.
    tape.set_len(1 << 20).unwrap();
    let mut journal = Journal::new(Arc::clone(&tape) as _, super::disk::JOURNAL_BYTES);
    assert!(journal.write(record(1)).is_ok());
    let used =
        tape.ops.lock().unwrap().iter().map(|op| if let Op::Write(at, data) = op { at + data.len() as u64 } else { 0 }).max();
    let used = used.unwrap();
    // Neither what was begun nor what would erase it fits.
    for room in [used, used + 100] {
        *tape.room.lock().unwrap() = Some(room);
        let failed = journal.write(record(2)).unwrap_err();
        assert!(matches!(failed.error, StoreError::Full { .. }) && !failed.is_there, "{} with room for {room}", failed.error);
    }
    *tape.room.lock().unwrap() = None;
    // The disk may have what was written and not synced, and what erased it shows only until the power is cut.
    for (fails_from, is_there) in [(1, true), (3, false)] {
        tape.syncs_fail.store(fails_from == 1, Ordering::Relaxed);
        *tape.fail_in.lock().unwrap() = (fails_from == 3).then_some(1);
        tape.fails_once.store(true, Ordering::Relaxed);
        let failed = journal.write(record(2)).unwrap_err();
        assert_eq!(failed.is_there, is_there, "{}", failed.error);
    }
}

#[test]
fn embedded_ids_increase_when_the_clock_steps_back_and_over_a_reopening() {
    use crate::log::Clock;
    actix::System::new().block_on(async {
        let wall = Arc::new(AtomicU64::new(5_000_000));
        let clock = {
            let wall = Arc::clone(&wall);
            Clock::from_fns(move || wall.load(Ordering::Relaxed), || 1_000)
        };
        let (tape, t) = (Tape::recording(), topic("one"));
        let mut last = EntryId::MIN;
        for step in [5_000_000, 5_000_001, 4_000_000, 1, 0, 4_999_999, 6_000_000, 2] {
            wall.store(step, Ordering::Relaxed);
            let settings = super::shared::Settings { clock: clock.clone(), ..EmbeddedStore::settings() };
            let store = EmbeddedStore::open_on(Arc::clone(&tape) as _, settings).unwrap();
            for _ in 0..3 {
                let id = store.append(&t, Append::one(NewEntry::new("n", "x"))).await.unwrap()[0].id;
                assert!(id > last, "{id} after {last}");
                last = id;
            }
            store.close().await.unwrap();
        }
    });
}

/// A hundred times what is promised; without a flush of its own it is as long as the work goes on.
const WITHOUT_SYNC_MAX: Duration = Duration::from_secs(1);

#[test]
fn embedded_relaxed_appends_without_a_pause_are_on_disk_after_a_moment_each() {
    actix::System::new().block_on(async {
        let tape = Tape::recording();
        let settings = super::shared::Settings { relaxed: true, ..EmbeddedStore::settings() };
        let store = EmbeddedStore::open_on(Arc::clone(&tape) as _, settings).unwrap();
        let t = topic("one");
        let begin = std::time::Instant::now();
        let (mut synced, mut since, mut longest) = (tape.at(), begin, Duration::ZERO);
        while begin.elapsed() < Duration::from_secs(2) {
            store.append(&t, Append::one(NewEntry::new("n", "x"))).await.unwrap();
            let ops = tape.ops.lock().unwrap();
            if ops[synced..].iter().any(|op| matches!(op, Op::Sync)) {
                (synced, since) = (ops.len(), std::time::Instant::now());
            }
            longest = longest.max(since.elapsed());
        }
        assert!(longest < WITHOUT_SYNC_MAX, "{longest:?} without a sync");
    });
}

#[test]
fn embedded_deliveries_and_acks_of_a_commit_that_failed_ride_on_the_next() {
    fail_under_a_group(open);
}

#[test]
fn embedded_without_its_journal_deliveries_and_acks_of_a_commit_that_failed_ride_on_the_next() {
    fail_under_a_group(open_no_journal);
}

/// What was delivered and not acked is pending on disk, or not delivered there: in no case is it passed over.
fn fail_under_a_group(open: fn(Arc<Tape>) -> Result<EmbeddedStore, StoreError>) {
    actix::System::new().block_on(async move {
        let (mut failed, mut ridden) = (0, 0);
        for cut in 0.. {
            let tape = Arc::<Tape>::default();
            let store = open(Arc::clone(&tape)).unwrap();
            let ids = store.append(&topic("one"), Append::many(vec![NewEntry::new("n", "x"); 4])).await.unwrap();
            let ids: Vec<_> = ids.into_iter().map(|appended| appended.id).collect();
            store.create_group(&group(), Position::Start).await.unwrap();
            store.sync().await.unwrap();
            tape.fails_once.store(true, Ordering::Relaxed);
            *tape.fail_in.lock().unwrap() = Some(cut);
            let fetched = store.fetch(&group(), &Name::parse("c").unwrap(), Fetch::entries(3)).await.unwrap();
            store.ack(&group(), vec![fetched[0].token.clone()]).await.unwrap();
            // It may fail, or have failed before, when the writer tried by itself.
            let _ = store.sync().await;
            if tape.fail_in.lock().unwrap().take().is_some() {
                break;
            }
            failed += 1;
            store.sync().await.unwrap();
            // Killed now.
            let again = open(Tape::of(tape.image.lock().unwrap().clone())).unwrap();
            let pending: Vec<_> =
                again.pending(&group(), PendingQuery::first(9)).await.unwrap().into_iter().map(|pending| pending.id).collect();
            let rest = again.fetch(&group(), &Name::parse("d").unwrap(), Fetch::entries(9)).await.unwrap();
            let rest: Vec<_> = rest.into_iter().map(|fetched| fetched.id).collect();
            let lost: Vec<_> = ids[1..].iter().filter(|id| !pending.contains(id) && !rest.contains(id)).collect();
            assert!(lost.is_empty(), "nobody gets {lost:?} after a failure at operation {cut}");
            ridden += u32::from((&pending[..], &rest[..]) == (&ids[1..3], &ids[3..]));
        }
        assert!(ridden > 0, "of {failed} commits that failed none was known not to be done");
    });
}

#[test]
fn embedded_acks_ride_without_an_append_and_are_on_disk_after_a_moment() {
    actix::System::new().block_on(async {
        let tape = Tape::recording();
        let store = open(Arc::clone(&tape)).unwrap();
        store.append(&topic("one"), Append::many(vec![NewEntry::new("n", "x"); 4])).await.unwrap();
        store.create_group(&group(), Position::Start).await.unwrap();
        let before = tape.at();
        let fetched = store.fetch(&group(), &Name::parse("c").unwrap(), Fetch::entries(3)).await.unwrap();
        store.ack(&group(), vec![fetched[0].token.clone()]).await.unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while store.inner.shared.is_unsettled() {
            assert!(std::time::Instant::now() < deadline, "nobody wrote them");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(tape.at() > before);
        // Killed now.
        let image = tape.image.lock().unwrap().clone();
        let again = open(Tape::of(image)).unwrap();
        let pending = again.pending(&group(), PendingQuery::first(10)).await.unwrap();
        assert_eq!(pending.iter().map(|of| (of.id, of.attempt)).collect::<Vec<_>>(), [(fetched[1].id, 1), (fetched[2].id, 1)]);
        assert_eq!(again.groups(&topic("one")).await.unwrap()[0].lag, Some(1));
    });
}
