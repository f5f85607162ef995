//! Churn: topics gain and lose subscribers on every node while all broadcast. Who is ready misses nothing and gets nothing twice.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use std::time::SystemTime;

use actix_pubsub::NodeId;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use futures::StreamExt;

use crate::cluster::options;
use crate::cluster_site::Kind;
use crate::cluster_site::Other;
use crate::cluster_site::Site;
use crate::cluster_site::obey;
use crate::cluster_site::told_to_be;
use crate::support::system;
use crate::support::until;

/// A broadcast's number among those of its node on its topic, and when the one before it began.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Tick {
    number: u64,
    before: SystemTime,
}

impl Payload for Tick {
    const NAME: &'static str = "test.tick";
}

/// Broadcasts to each topic in turn until all else has ended.
fn tick(node: &PubSub) {
    let node = node.clone();
    actix_rt::spawn(async move {
        let mut pace = actix_rt::time::interval(Duration::from_millis(1));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = [SystemTime::UNIX_EPOCH; TOPICS.len()];
        for number in 0.. {
            for (topic, before) in TOPICS.iter().zip(&mut before) {
                pace.tick().await;
                let began = SystemTime::now();
                node.broadcast(*topic, Tick { number, before: std::mem::replace(before, began) }).unwrap();
            }
        }
    });
}

/// Subscribes again and again, for a short and for a long while, and looks at what comes. Gives how much that was.
async fn churn(node: PubSub, rounds: usize, mut random: u64) -> u64 {
    let mut total = 0;
    for round in 0..rounds {
        // xorshift
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let topic = TOPICS[random as usize % TOPICS.len()];
        let mut ticks = node.stream_with::<Tick>(topic, &SubscribeOptions::new().capacity(10_000)).unwrap();
        let ready = actix::clock::timeout(Duration::from_secs(30), ticks.subscription().cluster_ready()).await;
        ready.expect("ready in time").unwrap();
        let since = SystemTime::now();
        let mut last: HashMap<NodeId, u64> = HashMap::new();
        let mut origins: Vec<_> = node.nodes().iter().map(|node| node.id).collect();
        origins.push(node.node());
        let enough = 1 + (random >> 32) % 40;
        let mut counts: HashMap<NodeId, u64> = HashMap::new();
        while origins.iter().any(|origin| counts.get(origin).is_none_or(|count| *count < enough)) {
            let next = actix::clock::timeout(Duration::from_secs(20), ticks.next()).await;
            let next =
                next.unwrap_or_else(|_| panic!("round {round} on {topic}: of {enough} from each came {counts:?}")).unwrap();
            assert_eq!(next.missed(), 0);
            let Tick { number, before } = *next;
            let next_of = last.insert(next.node(), number + 1);
            assert!(next_of.is_none_or(|next| number >= next), "round {round} on {topic} from {}: twice", next.node());
            // What is missing before it began before this was ready.
            assert!(
                next_of == Some(number) || before <= since,
                "round {round} on {topic} from {}: {next_of:?} is missing before {number}",
                next.node()
            );
            *counts.entry(next.node()).or_default() += 1;
            total += 1;
        }
    }
    total
}

/// So many at once. Gives how much came to them.
async fn churns(nodes: &[PubSub], count: usize) -> u64 {
    let seed = seed();
    let churning = (0..count).map(|at| churn(nodes[at % nodes.len()].clone(), 12, seed.wrapping_mul(at as u64 * 2 + 1)));
    futures::future::join_all(churning).await.into_iter().sum()
}

fn seed() -> u64 {
    let drawn = u64::from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos()) + 1;
    let seed = std::env::var("SEED").map_or(drawn, |seed| seed.parse().unwrap());
    eprintln!("SEED={seed}");
    seed
}

async fn nodes(site: &Site, count: usize) -> Vec<PubSub> {
    let node = |at: usize| {
        let direct = if at == 0 { 0 } else { at + 1 };
        site.builder(direct, options()).message::<Tick>().build().unwrap()
    };
    let nodes: Vec<_> = (0..count).map(node).collect();
    until("the nodes know each other", || nodes.iter().all(|node| node.nodes().len() == count - 1)).await;
    nodes
}

async fn who_is_ready_misses_nothing_under_churn(kind: Kind) {
    let site = Site::new(kind);
    let nodes = nodes(&site, 3).await;
    nodes.iter().for_each(tick);
    let came = churns(&nodes, 9).await;
    assert!(came > 1_000, "{came}");
    for node in &nodes {
        let stats = node.stats().cluster.unwrap();
        assert_eq!((stats.lost, stats.dropped_old, stats.link_failures), (0, 0, 0), "{stats:?}");
    }
}

async fn who_is_ready_in_another_process_misses_nothing_under_churn(kind: Kind) {
    let site = Site::new(kind);
    let nodes = Rc::new(nodes(&site, 1).await);
    let others: Vec<_> = (0..2).map(|at| Other::spawn(&site, &format!("churn-{at}"), "cluster_churn::other_process")).collect();
    until("all are here", || nodes[0].nodes().len() == 2).await;
    nodes.iter().for_each(tick);
    churns(&nodes[..1], 4).await;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for other in others {
        let done = std::sync::Arc::clone(&done);
        // It panics, and ends, where something is missed.
        std::thread::spawn(move || {
            assert_eq!(other.next(), "done");
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // Until all are done.
            while done.load(std::sync::atomic::Ordering::Relaxed) < 2 {
                std::thread::yield_now();
            }
        });
    }
    until("the others are done", || done.load(std::sync::atomic::Ordering::Relaxed) == 2).await;
}

#[test]
fn other_process() {
    let Some((builder, _)) = told_to_be() else { return };
    obey(|_| {});
    system(async {
        let node = builder.message::<Tick>().build().unwrap();
        println!("told {}", node.node().to_bits());
        until("all are here", || node.nodes().len() == 2).await;
        tick(&node);
        churns(&[node], 4).await;
        println!("told done");
        std::future::pending::<()>().await;
    });
}

crate::cluster_site::promises! {
    on_redis Redis:
        who_is_ready_misses_nothing_under_churn
        who_is_ready_in_another_process_misses_nothing_under_churn;
    on_nats Nats:
        who_is_ready_misses_nothing_under_churn
        who_is_ready_in_another_process_misses_nothing_under_churn;
    on_redis_peers RedisPeers:
        who_is_ready_misses_nothing_under_churn
        who_is_ready_in_another_process_misses_nothing_under_churn;
    on_nats_peers NatsPeers:
        who_is_ready_misses_nothing_under_churn
        who_is_ready_in_another_process_misses_nothing_under_churn;
    on_zenoh Zenoh:
        who_is_ready_misses_nothing_under_churn
        who_is_ready_in_another_process_misses_nothing_under_churn;
}

const TOPICS: [&str; 5] = ["a", "b", "c", "d", "e"];
