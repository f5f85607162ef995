//! Site: a cluster on real engines with a proxy before the node that is harmed, nodes in other processes, and witnesses who count what each node gets.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use actix_pubsub::Builder;
use actix_pubsub::NodeId;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::Subscription;
use actix_pubsub::cluster::ClusterEvent;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::cluster::Crossing;
use actix_pubsub::cluster::Nats;
use actix_pubsub::cluster::Redis;
use actix_pubsub::cluster::Transport;
use actix_pubsub::cluster::Zenoh;
use actix_rt::task::JoinHandle;
use futures::StreamExt;
use tokio::time::MissedTickBehavior;

use crate::proxy::Proxy;
use crate::servers::Server;
use crate::support::Note;
use crate::support::Word;
use crate::support::cluster_options as options;
use crate::support::until;

/// The failure time-out of [`options`].
pub(crate) const FAILURE: Duration = Duration::from_secs(1);
/// What a machine that does ten other things may add to a time.
pub(crate) const SLACK: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Nats,
    /// On which the nodes tell each other what they listen to.
    RedisPeers,
    NatsPeers,
    Zenoh,
}

impl Kind {
    /// What its transport is called.
    pub(crate) fn engine(self) -> &'static str {
        match self {
            Self::Redis | Self::RedisPeers => "redis",
            Self::Nats | Self::NatsPeers => "nats",
            Self::Zenoh => "zenoh",
        }
    }

    /// Frames of a topic go to its listeners' subjects, not to its own.
    pub(crate) fn sends_to_nodes(self) -> bool {
        matches!(self, Self::RedisPeers | Self::NatsPeers | Self::Zenoh)
    }
}

/// An engine, and a proxy to it; with zenoh, to the node that is the seed.
pub(crate) struct Site {
    pub(crate) kind: Kind,
    pub(crate) server: Option<Server>,
    pub(crate) proxy: Proxy,
    pub(crate) name: String,
    port: u16,
}

impl Site {
    pub(crate) fn new(kind: Kind) -> Self {
        static SITES: AtomicU32 = AtomicU32::new(0);
        let server = match kind {
            Kind::Redis | Kind::RedisPeers => Some(Server::redis()),
            Kind::Nats | Kind::NatsPeers => Some(Server::nats()),
            Kind::Zenoh => None,
        };
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = server.as_ref().map_or_else(free, |server| server.port);
        let name = format!("site-{}-{}", std::process::id(), SITES.fetch_add(1, Ordering::Relaxed));
        Self { kind, server, proxy: Proxy::start(port), name, port }
    }

    /// The port of the engine, by the proxy or not.
    fn port(&self, is_harmed: bool) -> u16 {
        if is_harmed { self.proxy.addr.port() } else { self.port }
    }

    /// Node 0 is the seed where one is needed, node 1 goes through the proxy.
    pub(crate) fn builder(&self, at: usize, options: ClusterOptions) -> Builder {
        let options = options.name(&self.name).node_name(format!("node-{at}"));
        let first = self.kind == Kind::Zenoh && at == 0;
        join(self.kind, self.port(at == 1), first, options)
    }

    /// A way to the engine beside the nodes.
    pub(crate) fn transport(&self) -> Box<dyn Transport> {
        let port = self.port;
        match self.kind {
            Kind::Redis | Kind::RedisPeers => Box::new(Redis::new(&format!("redis://127.0.0.1:{port}"))),
            Kind::Nats | Kind::NatsPeers => Box::new(Nats::new(&format!("nats://127.0.0.1:{port}"))),
            Kind::Zenoh => Box::new(Zenoh::new().peer(format!("tcp/127.0.0.1:{port}"))),
        }
    }

    fn node(&self, at: usize, options: ClusterOptions) -> PubSub {
        self.builder(at, options).message::<Note>().message::<Word>().build().unwrap()
    }

    /// As many nodes that know each other.
    pub(crate) async fn nodes(&self, count: usize, options: impl Fn(usize) -> ClusterOptions) -> Vec<PubSub> {
        let nodes: Vec<_> = (0..count).map(|at| self.node(at, options(at))).collect();
        until("the nodes know each other", || nodes.iter().all(|node| node.nodes().len() == count - 1)).await;
        nodes
    }
}

fn join(kind: Kind, port: u16, first: bool, options: ClusterOptions) -> Builder {
    let builder = PubSub::builder();
    let (redis, nats) = (Redis::new(&format!("redis://127.0.0.1:{port}")), Nats::new(&format!("nats://127.0.0.1:{port}")));
    match kind {
        Kind::Redis => builder.cluster_with(redis, options),
        Kind::RedisPeers => builder.cluster_with(redis.peer_interest(), options),
        Kind::Nats => builder.cluster_with(nats, options),
        Kind::NatsPeers => builder.cluster_with(nats.peer_interest(), options),
        Kind::Zenoh if first => builder.cluster_with(Zenoh::new().listen(format!("tcp/127.0.0.1:{port}")), options),
        Kind::Zenoh => builder.cluster_with(Zenoh::new().peer(format!("tcp/127.0.0.1:{port}")), options),
    }
}

// ---- who counts ------------------------------------------------------------------------------------------------------

/// What came to one node from one origin.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) first: Option<u64>,
    pub(crate) last: u64,
    pub(crate) received: u64,
    /// Told as `ClusterEvent::Lost`.
    pub(crate) lost: u64,
    /// Twice, or before one that was sent earlier.
    pub(crate) disorder: u64,
    pub(crate) at: Option<Instant>,
    /// The longest time between two.
    pub(crate) gap: Duration,
}

impl Tally {
    pub(crate) fn take(&mut self, value: u64) {
        let now = Instant::now();
        self.disorder += u64::from(self.first.is_some() && value <= self.last);
        self.first.get_or_insert(value);
        self.gap = self.gap.max(self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)));
        (self.at, self.last, self.received) = (Some(now), value, self.received + 1);
    }

    /// Of so many that were broadcast, those from the first that came on which neither came nor were told as lost.
    pub(crate) fn untold(&self, broadcast: u64) -> i64 {
        let owed = self.first.map_or(0, |first| broadcast - first);
        owed.cast_signed() - (self.received + self.lost).cast_signed()
    }
}

#[derive(Default)]
struct Seen {
    tallies: HashMap<NodeId, Tally>,
    events: Vec<(Instant, ClusterEvent)>,
}

/// Listens to a topic on one node, and to what its cluster tells.
pub(crate) struct Witness {
    pub(crate) node: PubSub,
    pub(crate) subscription: Subscription,
    seen: Arc<Mutex<Seen>>,
}

impl Witness {
    pub(crate) fn start(node: &PubSub, topic: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut events = node.stream::<ClusterEvent>(ClusterEvent::TOPIC).unwrap();
        let mut notes = node.stream_with::<Note>(topic, &SubscribeOptions::new().capacity(100_000)).unwrap();
        let subscription = notes.subscription().clone();
        let theirs = Arc::clone(&seen);
        actix_rt::spawn(async move {
            while let Some(event) = events.next().await {
                assert_eq!(event.missed(), 0, "events of the cluster");
                let mut seen = theirs.lock().unwrap();
                if let ClusterEvent::Lost { origin, topic: Some(_), events } = &*event {
                    seen.tallies.entry(*origin).or_default().lost += events;
                }
                seen.events.push((Instant::now(), (*event).clone()));
            }
        });
        let mut words = node.stream_with::<Word>(topic, &SubscribeOptions::new().capacity(100_000)).unwrap();
        let theirs = Arc::clone(&seen);
        actix_rt::spawn(async move {
            while let Some(event) = words.next().await {
                assert_eq!(event.missed(), 0, "words");
                let number = event.0.split(' ').next().unwrap().parse().unwrap();
                theirs.lock().unwrap().tallies.entry(event.node()).or_default().take(number);
            }
        });
        let theirs = Arc::clone(&seen);
        actix_rt::spawn(async move {
            while let Some(event) = notes.next().await {
                assert_eq!(event.missed(), 0, "notes");
                theirs.lock().unwrap().tallies.entry(event.node()).or_default().take(event.0);
            }
        });
        Self { node: node.clone(), subscription, seen }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(crate) fn from(&self, origin: NodeId) -> Tally {
        self.seen().tallies.get(&origin).copied().unwrap_or_default()
    }

    /// From now on gaps are measured anew.
    pub(crate) fn forget_gaps(&self) {
        self.seen().tallies.values_mut().for_each(|tally| tally.gap = Duration::ZERO);
    }

    /// When the cluster told what `which` wants, each time.
    pub(crate) fn told(&self, which: impl Fn(&ClusterEvent) -> bool) -> Vec<Instant> {
        self.seen().events.iter().filter(|(_, event)| which(event)).map(|(at, _)| *at).collect()
    }

    pub(crate) fn downs(&self, id: NodeId) -> Vec<Instant> {
        self.told(|event| matches!(event, ClusterEvent::NodeDown { node, .. } if node.id == id))
    }

    pub(crate) fn ups(&self, id: NodeId) -> Vec<Instant> {
        self.told(|event| matches!(event, ClusterEvent::NodeUp { node } if node.id == id))
    }

    pub(crate) fn link_downs(&self) -> usize {
        self.told(|event| matches!(event, ClusterEvent::LinkDown { .. })).len()
    }

    pub(crate) fn link_ups(&self) -> usize {
        self.told(|event| matches!(event, ClusterEvent::LinkUp)).len()
    }

    pub(crate) fn links(&self) -> String {
        let seen = self.seen();
        let links = seen.events.iter().filter(|(_, event)| matches!(event, ClusterEvent::LinkUp | ClusterEvent::LinkDown { .. }));
        links.map(|(_, event)| if *event == ClusterEvent::LinkUp { 'u' } else { 'd' }).collect()
    }

    pub(crate) async fn ready(&self) {
        let ready = actix::clock::timeout(Duration::from_secs(30), self.subscription.cluster_ready());
        ready.await.expect("ready in time").unwrap();
    }

    pub(crate) fn print(&self, what: &str) {
        let seen = self.seen();
        eprintln!("{what} of {}: {:?}", self.node.node(), seen.tallies);
        seen.events.iter().for_each(|(_, event)| eprintln!("    {event:?}"));
    }
}

// ---- who broadcasts --------------------------------------------------------------------------------------------------

/// What came of broadcasts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    pub(crate) count: u64,
    pub(crate) crossings: HashMap<Crossing, u64>,
    /// The longest that `broadcast` took, and how often it took more than 50 ms.
    pub(crate) slowest: Duration,
    pub(crate) slow: u64,
    is_over: bool,
}

impl Sent {
    pub(crate) fn crossed(&self, crossing: Crossing) -> u64 {
        self.crossings.get(&crossing).copied().unwrap_or_default()
    }
}

/// Broadcasts numbers to a topic.
pub(crate) struct Publisher {
    pub(crate) node: PubSub,
    sent: Rc<RefCell<Sent>>,
    task: JoinHandle<()>,
}

impl Publisher {
    pub(crate) fn start(node: &PubSub, topic: &'static str, every: Duration) -> Self {
        Self::from(node, topic, every, 0, 0)
    }

    /// With so many bytes behind each number, if any; the first is given.
    pub(crate) fn from(node: &PubSub, topic: &'static str, every: Duration, padding: usize, first: u64) -> Self {
        let sent = Rc::new(RefCell::new(Sent { count: first, ..Sent::default() }));
        let (theirs, from) = (Rc::clone(&sent), node.clone());
        let task = actix_rt::spawn(async move {
            let mut pace = actix_rt::time::interval(every);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
                let mut sent = theirs.borrow_mut();
                if sent.is_over {
                    return;
                }
                let word = (padding > 0).then(|| Word(format!("{} {}", sent.count, "x".repeat(padding))));
                let start = Instant::now();
                let receipt = match word {
                    Some(word) => from.broadcast(topic, word).unwrap(),
                    None => from.broadcast(topic, Note(sent.count)).unwrap(),
                };
                let took = start.elapsed();
                assert_eq!((receipt.ports, receipt.full), (1, 0), "local delivery goes on");
                *sent.crossings.entry(receipt.cluster).or_default() += 1;
                sent.count += 1;
                sent.slow += u64::from(took > Duration::from_millis(50));
                sent.slowest = sent.slowest.max(took);
            }
        });
        Self { node: node.clone(), sent, task }
    }

    pub(crate) fn sent(&self) -> Sent {
        self.sent.borrow().clone()
    }

    /// Ends it; gives what it did.
    pub(crate) async fn stop(self) -> Sent {
        self.sent.borrow_mut().is_over = true;
        self.task.await.unwrap();
        let sent = self.sent.borrow().clone();
        // Two that a busy machine did not let run are not what is looked for.
        assert!(sent.slow <= 2 && sent.slowest < Duration::from_millis(400), "broadcast blocked: {sent:?}");
        sent
    }
}

// ---- nodes in other processes ----------------------------------------------------------------------------------------

/// A node in a process of its own: a [`Witness`] of `t`, which broadcasts there when it is told to `go`. It is this test binary again, told by
/// `CLUSTER_CHILD` to be one.
pub(crate) struct Other {
    pub(crate) child: Child,
    pub(crate) id: NodeId,
    input: ChildStdin,
    told: mpsc::Receiver<String>,
}

/// What another process has of an origin, and of itself.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    pub(crate) resident_kib: u64,
    pub(crate) sent: u64,
    pub(crate) sent_slow: u64,
    pub(crate) sent_link_down: u64,
    pub(crate) link_downs: u64,
    pub(crate) link_ups: u64,
    pub(crate) downs: u64,
    pub(crate) ups: u64,
    /// The longest time between two from that origin since it was told to `forget` it.
    pub(crate) gap: Duration,
}

impl Other {
    pub(crate) fn start(site: &Site, name: &str) -> Self {
        Self::spawn(site, name, "cluster_site::other_process")
    }

    /// One that is this test.
    pub(crate) fn spawn(site: &Site, name: &str, test: &str) -> Self {
        let address = match site.kind {
            Kind::Redis | Kind::RedisPeers => format!("redis://127.0.0.1:{}", site.port),
            Kind::Nats | Kind::NatsPeers => format!("nats://127.0.0.1:{}", site.port),
            Kind::Zenoh => format!("tcp/127.0.0.1:{}", site.port),
        };
        let command = Command::new(std::env::current_exe().unwrap());
        Self::run(command, test, &format!("{:?} - {address} {} {name}", site.kind, site.name))
    }

    /// `told`: the kind of engine, where to listen or `-`, the address of the engine or of seeds with commas between, the cluster and the node's name.
    pub(crate) fn run(mut command: Command, test: &str, told: &str) -> Self {
        command.args(["--exact", test, "--nocapture"]).env("CLUSTER_CHILD", told);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, told) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // Whoever started it may have its answer.
                let _ = line.split_once("told ").map(|(_, rest)| tell.send(rest.to_owned()));
            }
        });
        let id = told.recv_timeout(Duration::from_secs(60)).expect("the other process does not start").parse::<u64>().unwrap();
        Self { input: child.stdin.take().unwrap(), child, id: NodeId::from_bits(id), told }
    }

    pub(crate) fn report(&mut self, origin: NodeId) -> Report {
        writeln!(self.input, "{}", origin.to_bits()).unwrap();
        let line = self.next();
        let n: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [
            first,
            last,
            received,
            lost,
            disorder,
            resident_kib,
            sent,
            sent_slow,
            sent_link_down,
            link_downs,
            link_ups,
            downs,
            ups,
            gap_ms,
        ] = n[..]
        else {
            panic!("{line}")
        };
        let first = (first != u64::MAX).then_some(first);
        let tally = Tally { first, last, received, lost, disorder, ..Tally::default() };
        let gap = Duration::from_millis(gap_ms);
        Report { tally, resident_kib, sent, sent_slow, sent_link_down, link_downs, link_ups, downs, ups, gap }
    }

    /// To `go`: it broadcasts from now on; to `flood`: it does, more than the network takes; to `stop`: not any more; to `forget` how long the longest gap was.
    pub(crate) fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
    }

    /// The next that it says.
    pub(crate) fn next(&self) -> String {
        self.told.recv_timeout(Duration::from_secs(60)).expect("the other process says something")
    }

    pub(crate) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What this process has in memory, in KiB.
pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Among the seeds of zenoh: it looks for others by multicast, too.
pub(crate) const MULTICAST: &str = "multicast";

/// A node as another process was told to be; with its name.
pub(crate) fn told_to_be() -> Option<(Builder, String)> {
    let told = std::env::var("CLUSTER_CHILD").ok()?;
    let [kind, listen, address, cluster, name] = told.split(' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let options = options().name(cluster).node_name(name);
    let zenoh = if listen == "-" { Zenoh::new() } else { Zenoh::new().listen(listen) };
    let builder = match kind {
        "Redis" => PubSub::builder().cluster_with(Redis::new(address), options),
        "RedisPeers" => PubSub::builder().cluster_with(Redis::new(address).peer_interest(), options),
        "Nats" => PubSub::builder().cluster_with(Nats::new(address), options),
        "NatsPeers" => PubSub::builder().cluster_with(Nats::new(address).peer_interest(), options),
        _ => {
            let seeds = |zenoh: Zenoh, seed| if seed == MULTICAST { zenoh.multicast(true) } else { zenoh.peer(seed) };
            PubSub::builder().cluster_with(address.split(',').fold(zenoh, seeds), options)
        }
    };
    Some((builder, name.to_owned()))
}

/// Reads what the test that started this process says, and ends with it, however that ended.
pub(crate) fn obey(mut each: impl FnMut(&str) + Send + 'static) {
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).for_each(|line| each(&line));
        std::process::exit(0);
    });
}

#[test]
fn other_process() {
    let Some((builder, name)) = told_to_be() else { return };
    crate::support::system(async {
        let node = builder.message::<Note>().message::<Word>().build().unwrap();
        let witness = Witness::start(&node, "t");
        if !name.starts_with("lone") {
            until("it is not alone", || !node.nodes().is_empty()).await;
        }
        witness.ready().await;
        println!("told {}", node.node().to_bits());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        obey(move |line| drop(tell.send(line.to_owned())));
        let mut publisher: Option<Publisher> = None;
        let mut sent = Sent::default();
        while let Some(line) = told.recv().await {
            match line.as_str() {
                "go" => publisher = Some(Publisher::from(&node, "t", Duration::from_millis(5), 0, sent.count)),
                // More than what is between the nodes holds.
                "flood" => publisher = Some(Publisher::from(&node, "t", Duration::from_millis(1), 50_000, sent.count)),
                "stop" => {
                    if let Some(publisher) = publisher.take() {
                        sent = publisher.stop().await;
                    }
                }
                "forget" => witness.forget_gaps(),
                _ => {}
            }
            if let Some(publisher) = &publisher {
                sent = publisher.sent();
            }
            let Ok(origin) = line.parse() else { continue };
            let origin = NodeId::from_bits(origin);
            let Tally { first, last, received, lost, disorder, gap, .. } = witness.from(origin);
            let first = first.unwrap_or(u64::MAX);
            let (down, up) = (witness.downs(origin).len(), witness.ups(origin).len());
            println!(
                "told {first} {last} {received} {lost} {disorder} {} {} {} {} {} {} {down} {up} {}",
                resident_kib(),
                sent.count,
                sent.slow,
                sent.crossed(Crossing::LinkDown),
                witness.link_downs(),
                witness.link_ups(),
                gap.as_millis(),
            );
        }
    });
}

/// Runs each promise on these engines.
macro_rules! promises {
    ($($engine:ident $kind:ident: $($promise:ident)+;)+) => {$(
        mod $engine {
            $(#[test]
            fn $promise() {
                crate::support::system(super::$promise(crate::cluster_site::Kind::$kind));
            })+
        }
    )+};
}

pub(crate) use promises;
