//! Locals: subscribers of every kind that come, stall, stop and panic on the arbiters of one pub/sub, threads that broadcast to them, and what must add up when all is quiet.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::EventStream;
use actix_pubsub::Overflow;
use actix_pubsub::PubSub;
use actix_pubsub::Stats;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::Subscription;
use actix_pubsub::SubscriptionStats;
use futures::FutureExt;
use futures::StreamExt;

use crate::gate::Gate;
use crate::gate::settles;
use crate::support::Note;
use crate::support::Word;
use crate::web_support::Random;

/// What everybody who works for one pub/sub needs.
#[derive(Clone)]
pub(crate) struct Office {
    pub(crate) name: &'static str,
    pub(crate) pubsub: PubSub,
    pub(crate) gate: Gate,
    pub(crate) counts: Arc<Counts>,
}

#[derive(Default)]
pub(crate) struct Counts {
    /// What was published to each of [`TOPICS`].
    pub(crate) published: [AtomicU64; TOPICS.len()],
    /// Panics of actors with subscriptions.
    pub(crate) panics: AtomicU64,
    pub(crate) started: AtomicU64,
}

// ---- those who come and go -------------------------------------------------------------------------------------------

/// What becomes of a listener.
#[derive(Debug, Clone, Copy)]
enum Temper {
    Steady,
    PanicsAt(u64),
    StopsAt(u64),
    /// From then on it takes nothing until all is to become quiet.
    StallsAt(u64),
    /// Its arbiter with it.
    Blocks(Duration),
    /// Answers each so many-th by a broadcast to all but itself.
    Speaks(u64),
}

struct Listener {
    office: Office,
    temper: Temper,
    options: SubscribeOptions,
    topics: Vec<&'static str>,
    handled: u64,
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for topic in &self.topics {
            self.office.pubsub.subscribe_with::<Note, _>(ctx, *topic, &self.options).unwrap();
        }
        self.office.pubsub.subscribe_with::<Word, _>(ctx, WORDS, &self.options).unwrap();
        self.office.pubsub.subscribe_with::<u32, _>(ctx, WORDS, &self.options).unwrap();
    }
}

impl Listener {
    fn live(&mut self, ctx: &mut Context<Self>) {
        self.handled += 1;
        if !self.office.gate.is_open() {
            return;
        }
        match self.temper {
            Temper::PanicsAt(at) if self.handled == at => {
                self.office.counts.panics.fetch_add(1, Ordering::SeqCst);
                panic!("on purpose");
            }
            Temper::StopsAt(at) if self.handled == at => ctx.stop(),
            Temper::StallsAt(at) if self.handled == at => {
                let gate = self.office.gate.clone();
                ctx.wait(actix::fut::wrap_future(async move {
                    while gate.is_open() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }));
            }
            Temper::Blocks(time) if self.handled.is_multiple_of(1_000) => std::thread::sleep(time),
            Temper::Speaks(each) if self.handled.is_multiple_of(each) => {
                self.office.pubsub.local_broadcast_from(&ctx.address(), SPEECH, Note(self.handled)).unwrap();
            }
            _ => {}
        }
    }
}

/// To leave. By the actor itself: one that is unsubscribed from outside while it is about to panic does so without a subscription, which is no incident.
#[derive(Message)]
#[rtype(result = "()")]
struct Leave;

impl Handler<Leave> for Listener {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        self.office.pubsub.unsubscribe_all(&ctx.address());
        ctx.stop();
    }
}

impl Handler<Event<Note>> for Listener {
    type Result = ();

    fn handle(&mut self, _: Event<Note>, ctx: &mut Self::Context) {
        self.live(ctx);
    }
}

impl Handler<Event<Word>> for Listener {
    type Result = ();

    fn handle(&mut self, _: Event<Word>, ctx: &mut Self::Context) {
        self.live(ctx);
    }
}

impl Handler<Event<u32>> for Listener {
    type Result = ();

    fn handle(&mut self, _: Event<u32>, ctx: &mut Self::Context) {
        self.live(ctx);
    }
}

fn options(random: &Random) -> SubscribeOptions {
    let overflow = [Overflow::DropOldest, Overflow::Latest, Overflow::Disconnect][random.below(3) as usize];
    SubscribeOptions::new().capacity(1 << random.below(11)).overflow(overflow)
}

fn listener(office: &Office, random: &Random) -> Listener {
    let at = 1 + random.below(1_000);
    let temper = match random.below(8) {
        0 => Temper::PanicsAt(at),
        1 => Temper::StopsAt(at),
        2 => Temper::StallsAt(at),
        3 => Temper::Blocks(Duration::from_millis(1 + random.below(60))),
        4 => Temper::Speaks(1 + random.below(200)),
        _ => Temper::Steady,
    };
    let mut topics: Vec<_> = TOPICS.into_iter().chain([SPEECH, crate::nodes::TOPIC]).filter(|_| random.below(2) == 0).collect();
    topics.push(TOPICS[0]);
    Listener { office: office.clone(), temper, options: options(random), topics, handled: 0 }
}

/// Hires, lets go and churns until the gate closes; then lets all go.
pub(crate) fn churn(office: Office, arbiters: Vec<ArbiterHandle>, random: Random) -> JoinHandle<()> {
    let pass = office.gate.pass();
    std::thread::spawn(move || {
        let mut hired: Vec<Addr<Listener>> = Vec::new();
        let (keep, kept) = mpsc::channel::<EventStream<Note>>();
        let mut unread = Vec::new();
        while office.gate.is_open() {
            let arbiter = &arbiters[random.below(arbiters.len() as u64) as usize];
            let one = listener(&office, &random);
            hired.push(Listener::start_in_arbiter(arbiter, move |_| one));
            office.counts.started.fetch_add(1, Ordering::Relaxed);
            if random.below(4) == 0 {
                let (pubsub, keep, options) = (office.pubsub.clone(), keep.clone(), options(&random));
                arbiter.spawn_fn(move || {
                    // Nobody may be there to keep it any more.
                    let _ = keep.send(pubsub.stream_with(TOPICS[0], &options).unwrap());
                });
            }
            unread.extend(kept.try_iter());
            hired.retain(Addr::connected);
            while hired.len() > LISTENERS_MAX {
                hired.swap_remove(random.below(hired.len() as u64) as usize).do_send(Leave);
            }
            if !hired.is_empty() {
                let one = &hired[random.below(hired.len() as u64) as usize];
                office.pubsub.unsubscribe::<Note>(one, TOPICS[0]);
            }
            if unread.len() > LISTENERS_MAX {
                unread.swap_remove(random.below(unread.len() as u64) as usize);
            }
            std::thread::sleep(Duration::from_millis(1 + random.below(50)));
        }
        for one in &hired {
            one.do_send(Leave);
        }
        while hired.iter().any(Addr::connected) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(pass);
    })
}

/// Broadcasts in bursts from a thread of its own.
pub(crate) fn publish(office: Office, random: Random) -> JoinHandle<()> {
    let pass = office.gate.pass();
    std::thread::spawn(move || {
        let mut number = 0;
        while pass.wait() {
            for _ in 0..random.below(40) {
                let at = random.below(TOPICS.len() as u64) as usize;
                office.pubsub.local_broadcast(TOPICS[at], Note(number)).unwrap();
                office.counts.published[at].fetch_add(1, Ordering::SeqCst);
                number += 1;
            }
            office.pubsub.local_broadcast(WORDS, Word(number.to_string())).unwrap();
            office.pubsub.local_broadcast(WORDS, number as u32).unwrap();
            std::thread::sleep(Duration::from_millis(1 + random.below(60)));
        }
    })
}

// ---- those who stay, and count ---------------------------------------------------------------------------------------

/// What one who stays got.
#[derive(Default)]
struct Got {
    events: AtomicU64,
    missed: AtomicU64,
}

type GotOfAll = Arc<[Got; TOPICS.len()]>;

fn got(of: &GotOfAll, event: &Event<Note>) {
    let got = &of[TOPICS.iter().position(|topic| *topic == event.topic().as_str()).unwrap()];
    got.events.fetch_add(1, Ordering::SeqCst);
    got.missed.fetch_add(event.missed(), Ordering::SeqCst);
}

/// Listens to all topics for as long as the pub/sub lives.
struct Pillar(GotOfAll);

impl Actor for Pillar {
    type Context = Context<Self>;
}

impl Handler<Event<Note>> for Pillar {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, _: &mut Self::Context) {
        got(&self.0, &event);
    }
}

/// The same on a thread of its own.
struct Outsider(GotOfAll);

impl Actor for Outsider {
    type Context = SyncContext<Self>;
}

impl Handler<Event<Note>> for Outsider {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, _: &mut Self::Context) {
        got(&self.0, &event);
    }
}

/// A pillar and its subscriptions, one per topic.
struct Standing {
    what: &'static str,
    got: GotOfAll,
    subscriptions: Vec<Subscription>,
}

/// A subscription since a quiet moment, and what was published before it.
struct Unread {
    stream: EventStream<Note>,
    at: usize,
    before: u64,
}

pub(crate) struct Census {
    office: Office,
    pillars: Vec<Standing>,
    unread: Vec<Unread>,
    #[expect(dead_code, reason = "it lives as long as its subscription only")]
    outsider: Addr<Outsider>,
}

impl Census {
    /// One pillar in its own context on `arbiter`, one on a thread of its own, before anything is published.
    pub(crate) fn new(office: &Office, arbiter: &ArbiterHandle) -> Self {
        let pubsub = &office.pubsub;
        let (of_pillar, of_outsider) = (GotOfAll::default(), GotOfAll::default());
        let (pillar, theirs, (tell, told)) = (Pillar(Arc::clone(&of_pillar)), pubsub.clone(), mpsc::channel());
        Pillar::start_in_arbiter(arbiter, move |ctx| {
            let subscribed = TOPICS.map(|topic| theirs.subscribe::<Note, _>(ctx, topic).unwrap());
            tell.send(subscribed.to_vec()).unwrap();
            pillar
        });
        let own = Standing { what: "its own context", got: of_pillar, subscriptions: told.recv().unwrap() };
        let theirs = Arc::clone(&of_outsider);
        let outsider = SyncArbiter::start(1, move || Outsider(Arc::clone(&theirs)));
        let subscribed = TOPICS.map(|topic| pubsub.subscribe_addr::<Note, _>(&outsider, topic).unwrap());
        let outside = Standing { what: "a SyncArbiter", got: of_outsider, subscriptions: subscribed.to_vec() };
        Self { office: office.clone(), pillars: vec![own, outside], unread: Vec::new(), outsider }
    }

    fn published(&self, at: usize) -> u64 {
        self.office.counts.published[at].load(Ordering::SeqCst)
    }

    /// Streams that nobody reads until the next quiet point. Called while it is quiet.
    pub(crate) fn count_from_here(&mut self, arbiter: &ArbiterHandle) {
        for (at, topic) in TOPICS.into_iter().enumerate() {
            for (capacity, overflow) in [(1, Overflow::Latest), (100, Overflow::DropOldest), (100_000, Overflow::DropOldest)] {
                let options = SubscribeOptions::new().capacity(capacity).overflow(overflow).metadata(UNREAD);
                let (tell, told) = mpsc::channel();
                let pubsub = self.office.pubsub.clone();
                arbiter.spawn_fn(move || tell.send(pubsub.stream_with(topic, &options).unwrap()).unwrap());
                self.unread.push(Unread { stream: told.recv().unwrap(), at, before: self.published(at) });
            }
        }
    }

    /// What is still under way, in words; nothing when all is quiet.
    fn noise(&self) -> Vec<String> {
        let stats = self.office.pubsub.stats();
        let ports = stats.arbiters.iter().filter(|arbiter| arbiter.port_depth > 0).map(|arbiter| format!("{arbiter:?}"));
        let waits = |one: &&SubscriptionStats| one.depth > 0 && one.metadata.as_deref() != Some(UNREAD);
        let unread = stats.subscriptions.iter().filter(waits).map(|one| format!("{one:?}"));
        // What was given to a mailbox may not have been handled.
        let unhandled = self.pillars.iter().filter_map(|pillar| {
            let delivered: u64 = pillar.subscriptions.iter().filter_map(Subscription::stats).map(|of| of.delivered).sum();
            let handled: u64 = pillar.got.iter().map(|got| got.events.load(Ordering::SeqCst)).sum();
            (handled != delivered).then(|| format!("{} handled {handled} of {delivered}", pillar.what))
        });
        ports.chain(unread).chain(unhandled).collect()
    }

    /// Nobody publishes any more, and all have handled what came to them.
    fn quiet(&self, system: &SystemRunner) -> Stats {
        let what = format!("{}: all is handled", self.office.name);
        settles(system, &what, || self.noise().is_empty(), || self.noise().join("\n"));
        self.office.pubsub.stats()
    }

    /// Every event is somewhere, once: in total, and for each subscription whose beginning is known.
    pub(crate) fn assert_balanced(&mut self, system: &SystemRunner) -> Stats {
        let name = self.office.name;
        self.quiet(system);
        // Those that missed something at the end are told with this one.
        for (at, topic) in TOPICS.into_iter().enumerate() {
            self.office.pubsub.local_broadcast(topic, Note(u64::MAX)).unwrap();
            self.office.counts.published[at].fetch_add(1, Ordering::SeqCst);
        }
        let stats = self.quiet(system);
        let Stats { addressed, delivered, missed, discarded, waiting, .. } = stats;
        assert_eq!(
            addressed,
            delivered + missed + discarded + waiting,
            "{name}: addressed = {delivered} delivered + {missed} missed + {discarded} discarded + {waiting} waiting"
        );
        assert_eq!(stats.subscriptions.iter().map(|one| one.depth).sum::<u64>(), waiting, "{name}: waiting");
        assert_eq!(stats.subscriptions.len(), stats.subscriptions_total, "{name}: subscriptions");
        for arbiter in &stats.arbiters {
            assert_eq!((arbiter.registry_restarts, arbiter.foreign_panics), (0, 0), "{name}: {arbiter:?}");
        }
        for pillar in &self.pillars {
            for (at, subscription) in pillar.subscriptions.iter().enumerate() {
                let of = subscription.stats().unwrap_or_else(|| panic!("{name}: the subscription of {} has ended", pillar.what));
                let (what, published) = (format!("{name}: {} on {}: {of:?}", pillar.what, TOPICS[at]), self.published(at));
                assert_eq!(of.delivered + of.missed + of.depth, published, "{what}");
                assert_eq!(pillar.got[at].events.load(Ordering::SeqCst), of.delivered, "{what}");
                assert_eq!(pillar.got[at].missed.load(Ordering::SeqCst), of.missed, "{what}");
            }
        }
        for unread in std::mem::take(&mut self.unread) {
            let (of, mut stream) = (unread.stream.subscription().stats().unwrap(), unread.stream);
            let (what, published) = (format!("{name}: unread: {of:?}"), self.published(unread.at) - unread.before);
            assert_eq!(of.delivered, 0, "{what}");
            assert_eq!(of.missed + of.depth, published, "{what}");
            let (mut got, mut missed) = (0, 0);
            while let Some(Some(event)) = stream.next().now_or_never() {
                got += 1;
                missed += event.missed();
            }
            assert_eq!((got, missed), (of.depth, of.missed), "{what}: what it then reads");
        }
        stats
    }
}

/// Of this process alone: what is published to them is known exactly.
pub(crate) const TOPICS: [&str; 4] = ["l0", "l1", "l2", "l3"];
/// What listeners broadcast themselves.
const SPEECH: &str = "speech";
/// Of two more types.
const WORDS: &str = "words";
const UNREAD: &str = "unread";
const LISTENERS_MAX: usize = 16;
