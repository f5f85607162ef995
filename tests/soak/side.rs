//! Side: one pub/sub with everything: its store, its cluster, its server, those who use it, and what harms it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use actix::prelude::*;
use actix_pubsub::PubSub;
use actix_pubsub::Retention;
use actix_pubsub::Subscription;
use actix_pubsub::log::Clock;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::JetStreamStore;
use actix_pubsub::log::Limits;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::RedisStore;

use crate::cluster_site::Kind;
use crate::cluster_site::Site;
use crate::disk::Disk;
use crate::edge::Clients;
use crate::edge::Server;
use crate::edge::metric;
use crate::gate::Gate;
use crate::gate::PATIENCE;
use crate::gate::settles;
use crate::locals::Census;
use crate::locals::Office;
use crate::locals::churn;
use crate::locals::publish;
use crate::logs::KEPT;
use crate::logs::LOG;
use crate::logs::Log;
use crate::nodes::Heard;
use crate::nodes::Nodes;
use crate::nodes::OTHERS;
use crate::nodes::PACE;
use crate::nodes::TOPIC;
use crate::nodes::all_here;
use crate::support::Note;
use crate::support::Word;
use crate::support::cluster_options;
use crate::web_support::Random;
use crate::web_support::http;

/// Where the log is; Redis and NATS are the engines of a cluster, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Memory,
    Embedded,
    Redis,
    Nats,
}

pub(crate) struct Side {
    office: Office,
    site: Option<Site>,
    nodes: Option<Nodes>,
    sent: Arc<AtomicU64>,
    subscription: Option<Subscription>,
    disk: Option<Disk>,
    /// The first two live as long as this.
    arbiters: Vec<Arbiter>,
    census: Census,
    log: Log,
    server: Server,
    clients: Clients,
    threads: Vec<JoinHandle<()>>,
    churn: Option<JoinHandle<()>>,
    random: Random,
    pub(crate) harm: Harm,
}

/// What was done to a side.
#[derive(Debug, Default)]
pub(crate) struct Harm {
    engine_kills: u32,
    engine_pauses: u32,
    node_kills: u32,
    node_pauses: u32,
    disk_fills: u32,
    arbiter_stops: u32,
    arbiter_blocks: u32,
    trims: u32,
    server_blocks: u32,
}

/// What chaos does.
#[derive(Debug, Clone, Copy)]
enum Act {
    KillEngine(Duration),
    PauseEngine(Duration),
    KillNode(usize),
    PauseNode(usize),
    ResumeNodes,
    FillDisk(Duration),
    StopArbiter,
    BlockArbiter(Duration),
    BlockServer,
    TrimLog,
}

impl Side {
    /// With nothing at work yet: its gate is closed.
    pub(crate) fn new(base: Base, random: &Random) -> Self {
        let builder = PubSub::builder();
        let (site, disk, builder) = match base {
            Base::Memory => {
                let store = MemoryStore::with(Limits::default(), DEDUP_WINDOW, Clock::system());
                (None, None, builder.log(store))
            }
            Base::Embedded => {
                let disk = Disk::of_this_process();
                let store = EmbeddedStore::builder(disk.file()).dedup_window(DEDUP_WINDOW).cache_bytes(1 << 20).open().unwrap();
                (None, Some(disk), builder.log(store))
            }
            Base::Redis => {
                let site = Site::new(Kind::Redis);
                let store = RedisStore::new(&site.server.as_ref().unwrap().url()).unwrap();
                let builder = site.builder(0, cluster_options()).log(store);
                (Some(site), None, builder)
            }
            Base::Nats => {
                let site = Site::new(Kind::Nats);
                let store = JetStreamStore::new(&site.server.as_ref().unwrap().url()).unwrap();
                let builder = site.builder(0, cluster_options()).log(store);
                (Some(site), None, builder)
            }
        };
        let builder = builder
            .port_capacity(PORT)
            .retain(LOG, Retention::entries(KEPT))
            .retain("dead:*", Retention::entries(10))
            .message::<Note>()
            .message::<Word>();
        let name = ["memory", "embedded", "redis", "nats"][base as usize];
        let office = Office { name, pubsub: builder.build().unwrap(), gate: Gate::new(), counts: Arc::default() };
        let arbiters: Vec<_> = (0..ARBITERS).map(|_| Arbiter::new()).collect();
        let handles: Vec<_> = arbiters.iter().map(Arbiter::handle).collect();
        let census = Census::new(&office, &handles[0]);
        let log = Log::new(&office, &handles);
        let server = Server::start(&office);
        let clients = Clients::start(&office, server.addr, random);
        let (sent, mut subscription, mut nodes) = (Arc::default(), None, None);
        say(&office, &handles[0]);
        if site.is_some() {
            let (tell, told) = std::sync::mpsc::channel();
            let pubsub = office.pubsub.clone();
            handles[1].spawn_fn(move || tell.send(Heard::listen(&pubsub)).unwrap());
            let (heard, subscribed) = told.recv().unwrap();
            nodes = Some(Nodes::new(office.pubsub.node(), heard));
            subscription = Some(subscribed);
            broadcast(&office, &handles[0], Arc::clone(&sent));
        }
        let threads = vec![
            publish(office.clone(), random.fork()),
            publish(office.clone(), random.fork()),
            log.hire(handles[..2].to_vec(), random.fork()),
        ];
        let (random, harm) = (random.fork(), Harm::default());
        Self {
            office,
            site,
            nodes,
            sent,
            subscription,
            disk,
            arbiters,
            census,
            log,
            server,
            clients,
            threads,
            churn: None,
            random,
            harm,
        }
    }

    /// From a quiet point on. Who comes and goes knows the arbiters that are there now.
    pub(crate) fn begin(&mut self, system: &SystemRunner) {
        let handles: Vec<_> = self.arbiters.iter().map(Arbiter::handle).collect();
        self.census.count_from_here(&handles[0]);
        self.is_ready(system);
        if let (Some(nodes), Some(site)) = (&mut self.nodes, &self.site) {
            nodes.replenish(site);
        }
        self.office.gate.turn();
        // The second is for those who are to miss nothing.
        let handles = handles.into_iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, handle)| handle).collect();
        self.churn = Some(churn(self.office.clone(), handles, self.random.fork()));
        if let Some(nodes) = &mut self.nodes {
            nodes.others.iter_mut().for_each(|other| other.tell("go"));
        }
    }

    /// From now on the node here is told of what it misses.
    fn is_ready(&self, system: &SystemRunner) {
        if let Some(subscription) = &self.subscription {
            let ready = system.block_on(async { tokio::time::timeout(PATIENCE, subscription.cluster_ready()).await });
            assert!(matches!(ready, Ok(Ok(()))), "{}: {ready:?}", self.office.name);
        }
    }

    // ---- chaos -------------------------------------------------------------------------------------------------------

    /// What will be done, and when, in this order.
    fn plan(&self, length: Duration) -> Vec<(Duration, Act)> {
        let ms = |max: u64| Duration::from_millis(50 + self.random.below(max));
        let which = || self.random.below(OTHERS as u64) as usize;
        let act = || match self.random.below(12) {
            0 | 1 if self.site.is_some() => Act::KillEngine(ms(1_500)),
            2 if self.site.is_some() => Act::PauseEngine(ms(2_500)),
            3 if self.site.is_some() => Act::KillNode(which()),
            4 | 5 if self.site.is_some() => Act::PauseNode(which()),
            6 if self.site.is_some() => Act::ResumeNodes,
            0..=5 if self.disk.as_ref().is_some_and(|disk| disk.is_small) => Act::FillDisk(ms(1_000)),
            7 => Act::StopArbiter,
            8 | 9 => Act::TrimLog,
            10 => Act::BlockServer,
            _ => Act::BlockArbiter(ms(300)),
        };
        let at = || Duration::from_millis(self.random.below(length.as_millis() as u64));
        let mut plan: Vec<_> = (0..=length.as_secs()).map(|_| (at(), act())).collect();
        plan.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Until `length` is over, or a little longer; then nothing is harmed any more.
    pub(crate) fn suffer(&mut self, length: Duration) {
        let begun = Instant::now();
        for (at, act) in self.plan(length) {
            std::thread::sleep(at.saturating_sub(begun.elapsed()));
            self.act(act);
        }
        std::thread::sleep(length.saturating_sub(begun.elapsed()));
        self.resume();
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::KillEngine(down) => {
                let server = self.site.as_mut().unwrap().server.as_mut().unwrap();
                server.kill();
                std::thread::sleep(down);
                server.restart();
                self.harm.engine_kills += 1;
            }
            Act::PauseEngine(time) => {
                let server = self.site.as_mut().unwrap().server.as_mut().unwrap();
                server.pause();
                std::thread::sleep(time);
                server.resume();
                self.harm.engine_pauses += 1;
            }
            Act::KillNode(which) => {
                self.nodes.as_mut().unwrap().kill(which);
                self.harm.node_kills += 1;
            }
            Act::PauseNode(which) => {
                self.nodes.as_ref().unwrap().signal(which, "-STOP");
                self.harm.node_pauses += 1;
            }
            Act::ResumeNodes => self.resume(),
            Act::FillDisk(time) => {
                let disk = self.disk.as_ref().unwrap();
                disk.fill();
                std::thread::sleep(time);
                disk.free();
                self.harm.disk_fills += 1;
            }
            Act::BlockServer => {
                http(self.server.addr, "GET", "/block").unwrap();
                self.harm.server_blocks += 1;
            }
            Act::TrimLog => {
                self.log.trim(&self.arbiters[0].handle());
                self.harm.trims += 1;
            }
            Act::StopArbiter => {
                self.arbiters[2 + self.random.below(ARBITERS as u64 - 2) as usize].stop();
                self.harm.arbiter_stops += 1;
            }
            Act::BlockArbiter(time) => {
                let at = [0, 2, 3][self.random.below(3) as usize];
                self.arbiters[at].spawn_fn(move || std::thread::sleep(time));
                self.harm.arbiter_blocks += 1;
            }
        }
    }

    fn resume(&self) {
        if let Some(nodes) = &self.nodes {
            (0..OTHERS).for_each(|which| nodes.signal(which, "-CONT"));
        }
    }

    // ---- quiet -------------------------------------------------------------------------------------------------------

    /// All is mended, everything flows again, then nobody does anything new.
    pub(crate) fn calm(&mut self, system: &SystemRunner) {
        let name = self.office.name;
        for at in 2..ARBITERS {
            if !self.arbiters[at].spawn_fn(|| {}) {
                std::mem::replace(&mut self.arbiters[at], Arbiter::new()).join().unwrap();
            }
        }
        if let (Some(nodes), Some(site)) = (&mut self.nodes, &self.site) {
            nodes.replenish(site);
        }
        self.is_ready(system);
        if let Some(nodes) = &mut self.nodes {
            all_here(system, name, &self.office.pubsub);
            nodes.flow(name, || self.sent.load(Ordering::SeqCst));
        }
        self.office.gate.turn();
        self.churn.take().unwrap().join().unwrap();
        settles(system, &format!("{name}: nobody works"), || self.office.gate.all_wait(), String::new);
    }

    /// At a quiet point: everything adds up.
    pub(crate) fn assert_well(&mut self, system: &SystemRunner) {
        let name = self.office.name;
        let lost = match &mut self.nodes {
            Some(nodes) => nodes.settle(name, self.sent.load(Ordering::SeqCst)),
            None => 0,
        };
        self.log.assert_whole(system);
        self.clients.assert_whole(system, self.log.confirmed());
        let stats = self.census.assert_balanced(system);
        let planned = self.office.counts.panics.load(Ordering::SeqCst);
        let incidents = |kind| metric(self.server.addr, &format!("actix_pubsub_incidents_total{{kind=\"{kind}\"}}"));
        assert_eq!(incidents("panicked"), planned, "{name}: panics of subscribers that were not on purpose");
        assert_eq!(["registry_restarted", "foreign_panic", "log_closed"].map(incidents), [0; 3], "{name}");
        if let Some(cluster) = &stats.cluster {
            let bad = [cluster.panics, cluster.dropped_malformed, cluster.dropped_undecodable, cluster.dropped_inbound_full];
            assert_eq!(bad, [0; 4], "{name}: {cluster:?}");
        }
        let (worked, reading) = (&self.log.work, &self.log.reading);
        println!(
            "    {name}: addressed {} = delivered {} + missed {} + discarded {} + waiting {}; appended {}, gaps told {}; redelivered {}, \
             workers that died {}; panics {planned}; lost between nodes, told {lost}; another node {} KiB; {:?}",
            stats.addressed,
            stats.delivered,
            stats.missed,
            stats.discarded,
            stats.waiting,
            self.log.confirmed(),
            reading.gaps.load(Ordering::SeqCst) + self.clients.gaps(),
            worked.redelivered.load(Ordering::SeqCst),
            worked.deaths.load(Ordering::SeqCst),
            self.nodes.as_ref().map_or(0, |nodes| nodes.resident_kib),
            self.harm,
        );
    }

    /// Everything ends, in good order.
    pub(crate) fn end(self, system: &SystemRunner) {
        let Self { office, site, nodes, subscription, disk, arbiters, census, log, server, clients, threads, .. } = self;
        let name = office.name;
        office.gate.end();
        clients.join();
        for thread in threads {
            thread.join().unwrap();
        }
        server.stop(system);
        drop((nodes, census, log, subscription));
        let shutdown = office.pubsub.shutdown();
        drop(office);
        let ended = system.block_on(async { tokio::time::timeout(PATIENCE, shutdown).await });
        assert!(ended.is_ok(), "{name}: the pub/sub does not end");
        for arbiter in arbiters {
            arbiter.stop();
            arbiter.join().unwrap();
        }
        drop((site, disk));
    }
}

/// Broadcasts words for the clients of the edge, one after the other.
fn say(office: &Office, arbiter: &ArbiterHandle) {
    let (office, pass) = (office.clone(), office.gate.pass());
    arbiter.spawn(async move {
        for number in 0_u64.. {
            if !pass.come().await {
                return;
            }
            office.pubsub.broadcast_async(LOG, Word(number.to_string())).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

/// Broadcasts notes to the other nodes.
fn broadcast(office: &Office, arbiter: &ArbiterHandle, sent: Arc<AtomicU64>) {
    let (office, pass) = (office.clone(), office.gate.pass());
    arbiter.spawn(async move {
        while pass.come().await {
            office.pubsub.broadcast(TOPIC, Note(sent.load(Ordering::SeqCst))).unwrap();
            sent.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(PACE).await;
        }
    });
}

/// Less than comes in while an arbiter is blocked.
const PORT: usize = 1_024;
/// The first two are never stopped.
const ARBITERS: usize = 4;
/// Keys are forgotten soon: what is remembered of them is not to be more at one quiet point than at the next.
const DEDUP_WINDOW: Duration = Duration::from_secs(5);
