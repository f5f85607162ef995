//! Nodes: a broadcast in clusters of two, three and more nodes, all with one subscriber: when it returns, and when the last node has handled it. All nodes
//! are in this process, each on an arbiter of its own, on each engine and on a network within the process, which leaves what is this crate's.

use std::time::Duration;
use std::time::Instant;

use actix::Arbiter;
use actix::System;
use actix_pubsub::PubSub;
use actix_pubsub::cluster::Memory;
use actix_pubsub::cluster::Zenoh;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::Bench;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::numbers::nanos;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::engine;
use crate::engine::Engine;
use crate::engine::Servers;
use crate::note;
use crate::note::Note;
use crate::ours;
use crate::report::Samples;
use crate::report::Table;

/// Some nodes of one cluster, on `None` within this process.
struct Cluster {
    engine: Option<Engine>,
    nodes: Vec<PubSub>,
    handled: UnboundedReceiver<Instant>,
    arbiters: Vec<Arbiter>,
    sent: u64,
    returns: Vec<f64>,
    last: Vec<f64>,
    cpu: Vec<f64>,
}

pub(crate) fn run(bench: &mut Bench) {
    let (sizes, broadcasts) = bench.size((vec![2], 20), (vec![2, 3, 5, 9], 500));
    let (servers, rounds) = (Servers::start(), bench.rounds(5));
    let mut rows = Vec::new();
    for nodes in sizes {
        let clusters = System::new().block_on(async {
            let mut clusters = Vec::new();
            for engine in [None].into_iter().chain(Engine::ALL.map(Some)) {
                clusters.push(Cluster::start(engine, &servers, nodes).await);
            }
            for round in 0..rounds {
                for turned in 0..clusters.len() {
                    let at = (turned + round) % clusters.len();
                    clusters[at].turn(broadcasts).await;
                }
            }
            for cluster in &mut clusters {
                cluster.stop().await;
            }
            clusters
        });
        for cluster in clusters {
            let name = cluster.engine.map_or("within the process", Engine::name);
            let row = |measure, samples: &[f64]| {
                let row = Row::new("nodes", measure, name, Unit::Nanos, samples).base("within the process");
                bench.args.record.row(&row.at("nodes", nodes as f64));
            };
            row("broadcast returns", &cluster.returns);
            row("the last node has handled it", &cluster.last);
            row("CPU of all nodes", &cluster.cpu);
            let time = |samples: &Vec<f64>| numbers::time(Samples(samples.clone()).median());
            rows.push(vec![nodes.to_string(), name.to_owned(), time(&cluster.returns), time(&cluster.last), time(&cluster.cpu)]);
        }
    }
    bench.report.tables.push(Table {
        title: format!("A broadcast of 100 B to nodes with one subscriber each, {broadcasts} a round, one at a time"),
        headings: vec!["nodes", "", "returns", "last node has handled it", "CPU of all nodes"],
        rows,
    });
}

/// Nothing takes this long but a note that never arrives.
const PATIENCE: Duration = Duration::from_secs(60);

impl Cluster {
    async fn start(engine: Option<Engine>, servers: &Servers, count: usize) -> Self {
        let (place, memory) = (servers.place(engine), Memory::new());
        let node = |number: usize| match engine {
            None => PubSub::builder().message::<Note>().cluster(memory.clone()).build().expect("a node"),
            // All find each other by the first.
            Some(Engine::Zenoh) if number > 0 => {
                let listens = format!("tcp/127.0.0.1:{}", engine::free_port());
                PubSub::builder().message::<Note>().cluster(Zenoh::new().listen(listens).peer(&*place)).build().expect("a node")
            }
            Some(engine) => ours::node(engine, &place, true),
        };
        let nodes: Vec<_> = (0..count).map(node).collect();
        for node in &nodes {
            while node.nodes().len() < count - 1 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        let ((tell, handled), mut arbiters) = (unbounded_channel(), Vec::new());
        // The first one broadcasts; the others are subscribed, each on a thread of its own.
        for node in &nodes[1..] {
            let (arbiter, (ready, is_ready)) = (Arbiter::new(), oneshot::channel());
            let (node, tell) = (node.clone(), tell.clone());
            arbiter.spawn(async move {
                let mut next = 0;
                let take = move |bytes: &[u8]| {
                    let (number, _) = note::read(bytes);
                    assert_eq!(number, next, "a note was lost, doubled or out of order");
                    next += 1;
                    // Nobody waits for it any more as the bench ends.
                    let _ = tell.send(Instant::now());
                };
                let subscriptions = ours::listen(&node, 1, take).await;
                ready.send(()).expect("it is waited for");
                std::future::pending::<()>().await;
                drop(subscriptions);
            });
            is_ready.await.expect("it subscribes");
            arbiters.push(arbiter);
        }
        let (returns, last, cpu) = Default::default();
        let mut cluster = Self { engine, nodes, handled, arbiters, sent: 0, returns, last, cpu };
        // The first ones pay for what is made lazily.
        cluster.broadcasts(10).await;
        cluster
    }

    async fn turn(&mut self, broadcasts: u64) {
        let (cpu, (returns, last)) = (crate::process::cpu(std::process::id()), self.broadcasts(broadcasts).await);
        let used = crate::process::cpu(std::process::id()).saturating_sub(cpu);
        self.returns.push(median(&returns));
        self.last.push(median(&last));
        self.cpu.push(used as f64 / broadcasts as f64);
    }

    /// One at a time.
    async fn broadcasts(&mut self, count: u64) -> (Vec<f64>, Vec<f64>) {
        let (mut returns, mut last, mut bytes) = (Vec::new(), Vec::new(), vec![7; 100]);
        let topic = engine::topic(0);
        for _ in 0..count {
            note::stamp(&mut bytes, self.sent, 0);
            self.sent += 1;
            let note = Note(bytes.clone());
            let start = Instant::now();
            self.nodes[0].broadcast(&topic, note).expect("it broadcasts");
            returns.push(nanos(start.elapsed()));
            let mut end = start;
            for _ in 1..self.nodes.len() {
                let handled = timeout(PATIENCE, self.handled.recv()).await.expect("a note was lost");
                end = end.max(handled.expect("each node has a subscriber"));
            }
            last.push(nanos(end - start));
        }
        (returns, last)
    }

    async fn stop(&mut self) {
        for node in &self.nodes {
            node.shutdown().await;
        }
        for arbiter in self.arbiters.drain(..) {
            arbiter.stop();
            arbiter.join().expect("no handler panics");
        }
    }
}
