//! Logs: what is appended to one pub/sub's log, followed and worked on, while its store fails; and what must be there when all is quiet.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::AppendOptions;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Delivery;
use actix_pubsub::EntryId;
use actix_pubsub::Event;
use actix_pubsub::Failure;
use actix_pubsub::Followed;
use actix_pubsub::log::Gap;
use actix_pubsub::log::GapCause;
use actix_pubsub::log::GroupInfo;
use actix_pubsub::log::Position;
use actix_pubsub::log::Trim;
use futures::StreamExt;

use crate::gate::PATIENCE;
use crate::gate::Watermark;
use crate::gate::settles;
use crate::gate::wrong;
use crate::locals::Office;
use crate::support::Note;
use crate::web_support::Random;

/// What a reader of 0, 1, 2, … has: nothing is missing that it was not told of.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) next: AtomicU64,
    gap: AtomicU64,
    pub(crate) gaps: AtomicU64,
}

impl Reading {
    pub(crate) fn entry(&self, who: &str, number: u64) {
        let (next, gap) = (self.next.swap(number + 1, Ordering::SeqCst), self.gap.swap(0, Ordering::SeqCst));
        if number < next || (number > next && gap == 0) {
            wrong(format!("{who}: {number} after {}", next.wrapping_sub(1).cast_signed()));
        }
    }

    /// Nothing that was confirmed is ever lost, so history is only ever trimmed.
    pub(crate) fn gap(&self, who: &str, cause: &str) {
        if cause != "trimmed" {
            wrong(format!("{who}: a gap, {cause}, after {}", self.next.load(Ordering::SeqCst)));
        }
        self.gaps.fetch_add(1, Ordering::SeqCst);
        self.gap.store(1, Ordering::SeqCst);
    }

    pub(crate) fn position(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }
}

// ---- appending -------------------------------------------------------------------------------------------------------

/// Appends 0, 1, 2, … to a topic, each until it is confirmed.
pub(crate) fn append(office: &Office, arbiter: &ArbiterHandle, topic: &'static str, pace: Duration) -> Arc<AtomicU64> {
    let (office, pass, confirmed) = (office.clone(), office.gate.pass(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&confirmed);
    arbiter.spawn(async move {
        while pass.come().await {
            let number = counted.load(Ordering::SeqCst);
            // Whether an append of an unknown outcome was done its key says.
            let options = AppendOptions::new().key(number.to_string());
            while let Err(error) = office.pubsub.append_with(topic, &Note(number), options.clone()).await {
                if !error.is_transient() {
                    return wrong(format!("{}: append of {number} to {topic}: {error:?}", office.name));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            counted.store(number + 1, Ordering::SeqCst);
            tokio::time::sleep(pace).await;
        }
    });
    confirmed
}

// ---- following -------------------------------------------------------------------------------------------------------

/// Follows from the start for as long as the pub/sub lives.
struct Reader {
    office: Office,
    reading: Arc<Reading>,
}

impl Actor for Reader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.office.pubsub.subscribe_from::<Note, _>(ctx, LOG, EntryId::MIN).unwrap();
    }
}

impl Handler<Event<Note>> for Reader {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, _: &mut Self::Context) {
        self.reading.entry(self.office.name, event.0);
    }
}

impl Handler<Gap> for Reader {
    type Result = ();

    fn handle(&mut self, gap: Gap, _: &mut Self::Context) {
        self.reading.gap(self.office.name, &gap.cause.to_string());
    }
}

// ---- working ---------------------------------------------------------------------------------------------------------

/// What became of the jobs, entry by entry.
#[derive(Default)]
pub(crate) struct Work {
    /// Handled or dead.
    done: Mutex<Watermark>,
    /// Dead letters of those that always fail.
    letters: Mutex<Watermark>,
    pub(crate) redelivered: AtomicU64,
    pub(crate) deaths: AtomicU64,
}

struct Worker {
    office: Office,
    work: Arc<Work>,
    random: Random,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let options = ConsumeOptions::new()
            .concurrency(8)
            .attempts(1_000_000)
            .visibility(VISIBILITY)
            .backoff(Duration::from_millis(1), Duration::from_millis(50));
        self.office.pubsub.consume::<Note, _>(ctx, JOBS, GROUP, &options).unwrap();
    }
}

impl Handler<Delivery<Note>> for Worker {
    type Result = ResponseFuture<Result<(), Failure>>;

    fn handle(&mut self, job: Delivery<Note>, ctx: &mut Self::Context) -> Self::Result {
        if job.attempt() > 1 {
            self.work.redelivered.fetch_add(1, Ordering::Relaxed);
        }
        let trouble = if self.office.gate.is_open() { self.random.below(400) } else { u64::MAX };
        if trouble < 2 {
            self.work.deaths.fetch_add(1, Ordering::Relaxed);
            assert!(trouble > 0, "on purpose");
            ctx.stop();
        }
        let (number, work) = (job.0, Arc::clone(&self.work));
        Box::pin(async move {
            match trouble {
                2 => tokio::time::sleep(VISIBILITY * 3 / 2).await,
                3..20 => return Err(Failure::new("now and then")),
                _ => tokio::task::yield_now().await,
            }
            if number % POISON == 0 {
                return Err(Failure::dead("always"));
            }
            work.done.lock().unwrap().see(number);
            Ok(())
        })
    }
}

// ---- all of it -------------------------------------------------------------------------------------------------------

pub(crate) struct Log {
    office: Office,
    /// Of how many entries the first may have been trimmed by hand.
    trimmed: Arc<AtomicU64>,
    confirmed: Arc<AtomicU64>,
    jobs: Arc<AtomicU64>,
    pub(crate) reading: Arc<Reading>,
    pub(crate) work: Arc<Work>,
}

impl Log {
    pub(crate) fn new(office: &Office, arbiters: &[ArbiterHandle]) -> Self {
        let (reading, work) = (Arc::new(Reading::default()), Arc::new(Work::default()));
        let reader = Reader { office: office.clone(), reading: Arc::clone(&reading) };
        Reader::start_in_arbiter(&arbiters[1], move |_| reader);
        let (confirmed, jobs) = (append(office, &arbiters[0], LOG, PACE), append(office, &arbiters[0], JOBS, PACE));
        let (letters, name, theirs) = (office.pubsub.clone(), office.name, Arc::clone(&work));
        arbiters[1].spawn_fn(move || {
            let mut letters = letters.stream_from::<Note>(format!("dead:{JOBS}"), Position::Start).unwrap();
            actix_rt::spawn(async move {
                while let Some(letter) = letters.next().await {
                    let Followed::Event(letter) = letter else { return wrong(format!("{name}: {letter:?} among the dead")) };
                    theirs.done.lock().unwrap().see(letter.0);
                    let seen_first = theirs.letters.lock().unwrap().see(letter.0 / POISON);
                    if letter.0 % POISON != 0 || !seen_first {
                        wrong(format!("{name}: a dead letter of {}, first: {seen_first}", letter.0));
                    }
                }
            });
        });
        Self { office: office.clone(), trimmed: Arc::default(), confirmed, jobs, reading, work }
    }

    /// Keeps workers at work, also when all is to become quiet, for who died is to be replaced.
    pub(crate) fn hire(&self, arbiters: Vec<ArbiterHandle>, random: Random) -> JoinHandle<()> {
        let (office, work) = (self.office.clone(), Arc::clone(&self.work));
        std::thread::spawn(move || {
            let mut workers: Vec<Addr<Worker>> = Vec::new();
            while !office.gate.is_over() {
                workers.retain(Addr::connected);
                while workers.len() < WORKERS {
                    let arbiter = &arbiters[random.below(arbiters.len() as u64) as usize];
                    let worker = Worker { office: office.clone(), work: Arc::clone(&work), random: random.fork() };
                    workers.push(Worker::start_in_arbiter(arbiter, move |_| worker));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        })
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::SeqCst)
    }

    /// Somebody removes what is older than the last few.
    pub(crate) fn trim(&self, arbiter: &ArbiterHandle) {
        let (office, pass) = (self.office.clone(), self.office.gate.pass());
        let (confirmed, trimmed) = (Arc::clone(&self.confirmed), Arc::clone(&self.trimmed));
        arbiter.spawn(async move {
            // It may be away; whether it did it is not known then.
            let _ = office.pubsub.log().unwrap().trim(&LOG.parse().unwrap(), Trim::Len(5)).await;
            trimmed.store(confirmed.load(Ordering::SeqCst), Ordering::SeqCst);
            drop(pass);
        });
    }

    /// Nobody needs the jobs any more: at each quiet point there are as many.
    fn forget_jobs(&self, system: &SystemRunner) {
        let store = self.office.pubsub.log().unwrap();
        let forgotten = || system.block_on(store.trim(&JOBS.parse().unwrap(), Trim::Len(1))).is_ok();
        settles(system, &format!("{}: jobs are forgotten", self.office.name), forgotten, String::new);
    }

    fn group(&self, system: &SystemRunner) -> Option<GroupInfo> {
        let store = self.office.pubsub.log().unwrap();
        let groups = system.block_on(async move { store.groups(&JOBS.parse().unwrap()).await });
        groups.ok()?.into_iter().find(|info| info.name.as_str() == GROUP)
    }

    /// Nobody appends any more. Everything confirmed is there for who reads it now and for who followed it; every job was handled and acked, or is dead.
    pub(crate) fn assert_whole(&self, system: &SystemRunner) {
        let (name, all, jobs) = (self.office.name, self.confirmed(), self.jobs.load(Ordering::SeqCst));
        settles(
            system,
            &format!("{name}: the follower has all {all}"),
            || self.reading.position() == all,
            || format!("{:?}", self.reading),
        );
        let done = || self.work.done.lock().unwrap().next;
        let letters = || self.work.letters.lock().unwrap().next;
        let dead = jobs.div_ceil(POISON);
        let worked = || {
            let rests = |group: GroupInfo| group.pending == 0 && group.lag.is_none_or(|lag| lag == 0);
            done() == jobs && letters() == dead && self.group(system).is_some_and(rests)
        };
        let found = || format!("{} of {jobs} done, {} of {dead} dead, {:?}", done(), letters(), self.group(system));
        settles(system, &format!("{name}: every job is done or dead"), worked, found);
        for from in [Position::Start, Position::After(EntryId::MIN)] {
            system.block_on(self.read(from, all));
        }
        self.forget_jobs(system);
    }

    async fn read(&self, from: Position, all: u64) {
        let name = self.office.name;
        let mut stream = self.office.pubsub.stream_from::<Note>(LOG, from).unwrap();
        let (mut first, mut next, mut gaps) = (None, 0, 0);
        while next < all {
            let Ok(Some(item)) = tokio::time::timeout(PATIENCE, stream.next()).await else {
                panic!("{name}: from {from:?} nothing comes after {next} of {all}");
            };
            match item {
                Followed::Event(event) => {
                    assert!(first.is_none() || event.0 == next, "{name}: from {from:?} {} comes where {next} should", event.0);
                    first.get_or_insert(event.0);
                    next = event.0 + 1;
                }
                // What is over the limit may be trimmed while it is read.
                Followed::Gap(gap) => {
                    let trimmed = gap.cause == GapCause::Trimmed && (first.is_some() || from != Position::Start);
                    assert!(trimmed, "{name}: from {from:?} after {next}: {gap:?}");
                    (first, gaps) = (None, gaps + 1);
                }
            }
        }
        let first = first.unwrap_or(0);
        let kept = KEPT.min(all - self.trimmed.load(Ordering::SeqCst));
        assert!(all - first >= kept, "{name}: from {from:?} there are only the last {} of {all}", all - first);
        assert!(gaps > 0 || first == 0 || from == Position::Start, "{name}: from {from:?} nothing tells that {first} are gone");
    }
}

/// Followed, and brought to clients.
pub(crate) const LOG: &str = "log";
/// Worked on.
const JOBS: &str = "jobs";
const GROUP: &str = "workers";
/// Entries of it that are kept.
pub(crate) const KEPT: u64 = 500;
/// Each so many-th job always fails.
const POISON: u64 = 50;
const WORKERS: usize = 3;
const VISIBILITY: Duration = Duration::from_secs(1);
/// Between two appends to a topic.
const PACE: Duration = Duration::from_millis(8);
