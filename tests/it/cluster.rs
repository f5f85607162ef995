//! The promises of a cluster, on every engine: several pub/subs of one process are its nodes.

#[cfg(feature = "zenoh")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::BroadcastError;
use actix_pubsub::Builder;
use actix_pubsub::EventStream;
use actix_pubsub::IncidentKind;
use actix_pubsub::PubSub;
use actix_pubsub::cluster::ClusterEvent;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::cluster::Crossing;
use actix_pubsub::cluster::DownReason;
use actix_pubsub::cluster::Memory;
#[cfg(feature = "nats")]
use actix_pubsub::cluster::Nats;
use actix_pubsub::cluster::NotReady;
#[cfg(feature = "redis")]
use actix_pubsub::cluster::Redis;
#[cfg(feature = "zenoh")]
use actix_pubsub::cluster::Zenoh;
use futures::StreamExt;

#[cfg(any(feature = "nats", feature = "redis"))]
use crate::servers::Server;
use crate::support::Note;
use crate::support::Probe;
use crate::support::Word;
pub(crate) use crate::support::cluster_options as options;
use crate::support::subscribe;
use crate::support::until;

/// An engine at which nodes meet.
pub(crate) trait Engine {
    /// A builder of a node, with these options.
    fn node(&self, options: ClusterOptions) -> Builder;
}

impl Engine for Memory {
    fn node(&self, options: ClusterOptions) -> Builder {
        PubSub::builder().cluster_with(self.clone(), options)
    }
}

/// A server, of which every clone of the settings is a node.
#[cfg(any(feature = "nats", feature = "redis"))]
pub(crate) struct Served {
    #[expect(dead_code, reason = "it runs as long as it is held")]
    server: Server,
    join: Box<dyn Fn(Builder, ClusterOptions) -> Builder>,
}

#[cfg(any(feature = "nats", feature = "redis"))]
impl Engine for Served {
    fn node(&self, options: ClusterOptions) -> Builder {
        (self.join)(PubSub::builder(), options)
    }
}

#[cfg(feature = "redis")]
fn redis_with(settings: fn(Redis) -> Redis) -> Served {
    let server = Server::redis();
    let url = format!("redis://127.0.0.1:{}", server.port);
    Served { server, join: Box::new(move |builder, options| builder.cluster_with(settings(Redis::new(&url)), options)) }
}

#[cfg(feature = "nats")]
fn nats_with(settings: fn(Nats) -> Nats) -> Served {
    let server = Server::nats();
    let url = format!("nats://127.0.0.1:{}", server.port);
    Served { server, join: Box::new(move |builder, options| builder.cluster_with(settings(Nats::new(&url)), options)) }
}

/// Peers that have the first one as their seed.
#[cfg(feature = "zenoh")]
struct Peers {
    seed: String,
    any: AtomicBool,
}

#[cfg(feature = "zenoh")]
impl Peers {
    fn new() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { seed: format!("tcp/{free}"), any: AtomicBool::new(false) }
    }
}

#[cfg(feature = "zenoh")]
impl Engine for Peers {
    fn node(&self, options: ClusterOptions) -> Builder {
        let first = !self.any.swap(true, Ordering::Relaxed);
        let zenoh = if first { Zenoh::new().listen(&self.seed) } else { Zenoh::new().peer(&self.seed) };
        PubSub::builder().cluster_with(zenoh, options)
    }
}

/// Nodes that know each other.
pub(crate) async fn nodes(engine: &dyn Engine, count: usize) -> Vec<PubSub> {
    // Engines outlive a test, so each test is a cluster of its own.
    static CLUSTERS: AtomicU32 = AtomicU32::new(0);
    let name = format!("test-{}-{}", std::process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
    let node = |at| {
        let options = options().name(&name).node_name(format!("node-{at}"));
        engine.node(options).message::<Note>().message::<Word>().build().unwrap()
    };
    let nodes: Vec<_> = (0..count).map(node).collect();
    until("the nodes know each other", || nodes.iter().all(|node| node.nodes().len() == count - 1)).await;
    nodes
}

/// Subscribes to notes, and waits until the cluster knows.
pub(crate) async fn listen(node: &PubSub, topic: &str) -> EventStream<Note> {
    let stream = node.stream::<Note>(topic).unwrap();
    stream.subscription().cluster_ready().await.unwrap();
    stream
}

pub(crate) async fn take(stream: &mut EventStream<Note>, count: usize) -> Vec<u64> {
    let mut values = Vec::new();
    while values.len() < count {
        let event = actix::clock::timeout(Duration::from_secs(20), stream.next()).await.expect("an event in time");
        let event = event.expect("the stream goes on");
        assert_eq!(event.missed(), 0);
        values.push(event.0);
    }
    values
}

/// What is broadcast after this has come after everything that was broadcast before on the same node.
async fn nothing_more(from: &PubSub, stream: &mut EventStream<Note>) {
    let topic = stream.subscription().topic().clone();
    from.broadcast(&topic, Note(u64::MAX)).unwrap();
    assert_eq!(take(stream, 1).await, [u64::MAX]);
}

async fn a_broadcast_reaches_every_interested_node_once(engine: &dyn Engine) {
    let nodes = nodes(engine, 3).await;
    let mut streams = Vec::new();
    for node in &nodes {
        streams.push(listen(node, "t").await);
    }
    let receipt = nodes[0].broadcast("t", Note(1)).unwrap();
    assert_eq!((receipt.ports, receipt.cluster), (1, Crossing::Queued));
    nodes[0].broadcast("t", Note(2)).unwrap();
    for stream in &mut streams {
        assert_eq!(take(stream, 2).await, [1, 2], "itself among them");
    }
}

async fn broadcast_from_skips_the_sender_and_reaches_the_other_nodes(engine: &dyn Engine) {
    let nodes = nodes(engine, 2).await;
    let (probe, log) = Probe::start_new();
    subscribe(&nodes[0], &probe, "t").await;
    let mut there = listen(&nodes[1], "t").await;
    nodes[0].broadcast_from(&probe, "t", Note(1)).unwrap();
    nodes[0].broadcast("t", Note(2)).unwrap();
    assert_eq!(take(&mut there, 2).await, [1, 2]);
    until("the probe got its one", || log.len() == 1).await;
    assert_eq!(log.values(), [2]);
}

async fn a_local_broadcast_stays_and_a_direct_one_goes_to_one_node(engine: &dyn Engine) {
    let nodes = nodes(engine, 3).await;
    let mut streams = Vec::new();
    for node in &nodes {
        streams.push(listen(node, "t").await);
    }
    assert_eq!(nodes[0].local_broadcast("t", Note(1)).unwrap().cluster, Crossing::Local);
    assert_eq!(nodes[0].direct_broadcast(nodes[1].node(), "t", Note(2)).unwrap().cluster, Crossing::Queued);
    assert_eq!(nodes[0].direct_broadcast(nodes[0].node(), "t", Note(3)).unwrap().cluster, Crossing::Local);
    nodes[0].broadcast("t", Note(4)).unwrap();
    assert_eq!(take(&mut streams[0], 3).await, [1, 3, 4]);
    assert_eq!(take(&mut streams[1], 2).await, [2, 4]);
    assert_eq!(take(&mut streams[2], 1).await, [4]);
    let stranger = PubSub::new().node();
    let refused = nodes[0].direct_broadcast(stranger, "t", Note(5)).unwrap_err();
    assert!(matches!(refused, BroadcastError::UnknownNode { node, message: Note(5) } if node == stranger));
}

async fn events_of_another_node_name_it_and_their_topic(engine: &dyn Engine) {
    let nodes = nodes(engine, 2).await;
    for topic in ["plain", "with space", "a.b.>", "$x/#?", "@at", "%41", "é".repeat(127).as_str(), "quote\"'`", "/slash//"] {
        let mut there = listen(&nodes[1], topic).await;
        nodes[0].broadcast(topic, Note(1)).unwrap();
        let event = actix::clock::timeout(Duration::from_secs(20), there.next()).await.expect(topic).unwrap();
        assert_eq!((event.topic().as_str(), event.node(), event.id()), (topic, nodes[0].node(), None));
    }
}

async fn one_publishers_events_arrive_in_its_order_across_topics(engine: &dyn Engine) {
    const EVENTS: u64 = 20_000;
    const AHEAD: u64 = 2_000;
    let nodes = nodes(engine, 2).await;
    let (probe, log) = Probe::start_new();
    let topics: Vec<String> = (0..20).map(|at| format!("t{at}")).collect();
    for topic in &topics {
        let name: &'static str = topic.clone().leak();
        let options = actix_pubsub::SubscribeOptions::new().capacity(EVENTS as usize);
        crate::support::subscribe_with(&nodes[1], &probe, name, options).await.cluster_ready().await.unwrap();
    }
    let (from, arrived) = (nodes[0].clone(), log.clone());
    let publishing = actix_rt::spawn(async move {
        for value in 0..EVENTS {
            let topic = &topics[value as usize * 7 % topics.len()];
            // Not so far ahead that an engine which drops for a slow reader would.
            until("there is room on the way", || arrived.len() as u64 + AHEAD > value).await;
            assert_eq!(from.broadcast_async(topic, Note(value)).await.unwrap().cluster, Crossing::Queued);
        }
    });
    until("all have come", || log.len() == EVENTS as usize).await;
    publishing.await.unwrap();
    assert_eq!(log.values(), (0..EVENTS).collect::<Vec<_>>());
    assert_eq!(nodes[1].stats().cluster.unwrap().lost, 0);
}

async fn many_topics_share_one_encoding_and_arrive_on_each(engine: &dyn Engine) {
    let nodes = nodes(engine, 2).await;
    let (mut a, mut b) = (listen(&nodes[1], "a").await, listen(&nodes[1], "b").await);
    nodes[0].broadcast_many(["a", "b"], Note(7)).unwrap();
    assert_eq!((take(&mut a, 1).await, take(&mut b, 1).await), (vec![7], vec![7]));
}

async fn a_node_without_subscribers_gets_nothing(engine: &dyn Engine) {
    let nodes = nodes(engine, 5).await;
    let (mut one, mut two) = (listen(&nodes[1], "t").await, listen(&nodes[2], "t").await);
    for value in 0..1_000 {
        nodes[0].broadcast_async("t", Note(value)).await.unwrap();
    }
    let all: Vec<_> = (0..1_000).collect();
    assert_eq!((take(&mut one, 1_000).await, take(&mut two, 1_000).await), (all.clone(), all));
    // Both have the last one, so whatever the engine brought to the others is there.
    for (at, node) in nodes.iter().enumerate() {
        let expected = if at == 1 || at == 2 { 1_000 } else { 0 };
        until("all are counted", || node.stats().cluster.unwrap().delivered >= expected).await;
        let stats = node.stats().cluster.unwrap();
        assert_eq!((stats.delivered, stats.dropped_unasked), (expected, 0), "node {at}");
        assert_eq!((stats.dropped_old, stats.lost), (0, 0), "node {at}");
    }
}

async fn what_came_from_each_node_and_went_to_it_is_counted_exactly(engine: &dyn Engine) {
    let nodes = nodes(engine, 3).await;
    let mut listening = listen(&nodes[0], "t").await;
    let mut other = listen(&nodes[2], "u").await;
    for value in 0..5 {
        nodes[1].broadcast("t", Note(value)).unwrap();
        nodes[2].broadcast("t", Note(value)).unwrap();
        nodes[2].direct_broadcast(nodes[0].node(), "t", Note(value)).unwrap();
    }
    nodes[1].broadcast("u", Note(0)).unwrap();
    assert_eq!((take(&mut listening, 15).await.len(), take(&mut other, 1).await), (15, vec![0]));
    let peer = |of: &PubSub, which: usize| {
        let peers = of.stats().cluster.unwrap().peers;
        assert_eq!(peers.len(), 2, "each other node that is up");
        let name = format!("node-{which}");
        peers.into_iter().find(|peer| peer.node == nodes[which].node() && *peer.name == *name).expect("it is up")
    };
    let came = |of: usize, from: usize| {
        let peer = peer(&nodes[of], from);
        assert_eq!((peer.received_bytes > 0, peer.lost), (peer.received > 0, 0));
        peer.received
    };
    assert_eq!([came(0, 1), came(0, 2), came(1, 0), came(1, 2), came(2, 0), came(2, 1)], [5, 10, 0, 0, 0, 1]);
    let went = |of: usize, to: usize| {
        let (peer, back) = (peer(&nodes[of], to), peer(&nodes[to], of));
        assert!(peer.sent_bytes.is_none_or(|bytes| bytes == back.received_bytes), "what is sent is what comes");
        peer.sent
    };
    let sent = [went(1, 0), went(2, 0), went(0, 1), went(2, 1), went(0, 2), went(1, 2)];
    // An engine that carries topics does not say to whom.
    assert!(sent == [5, 10, 0, 0, 0, 1].map(Some) || sent == [None; 6], "{sent:?}");
}

async fn after_the_last_subscriber_a_topic_is_left_and_comes_back(engine: &dyn Engine) {
    let nodes = nodes(engine, 2).await;
    for round in 0..3 {
        let mut there = listen(&nodes[1], "t").await;
        nodes[0].broadcast("t", Note(round)).unwrap();
        assert_eq!(take(&mut there, 1).await, [round]);
        drop(there);
        until("the topic is left", || nodes[1].stats().cluster.unwrap().topics == 0).await;
    }
    let before = nodes[1].stats().cluster.unwrap().delivered;
    nodes[0].broadcast("t", Note(9)).unwrap();
    let mut other = listen(&nodes[1], "other").await;
    nodes[0].broadcast("other", Note(10)).unwrap();
    assert_eq!(take(&mut other, 1).await, [10]);
    // It is counted after it is handed over.
    until("it is counted", || nodes[1].stats().cluster.unwrap().delivered > before).await;
    assert_eq!(nodes[1].stats().cluster.unwrap().delivered, before + 1);
}

async fn subscribers_are_counted_on_every_node(engine: &dyn Engine) {
    let nodes = nodes(engine, 3).await;
    let _here = listen(&nodes[0], "t").await;
    let _there = [listen(&nodes[1], "t").await, listen(&nodes[1], "t").await];
    let counted = nodes[0].subscribers_cluster_wide("t").await.unwrap();
    assert_eq!((counted.here, counted.total(), counted.silent.len()), (1, 3, 0));
    let mut there: Vec<_> = counted.there.iter().map(|(node, count)| (node.name.to_string(), *count)).collect();
    there.sort();
    assert_eq!(there, [("node-1".to_owned(), 2), ("node-2".to_owned(), 0)]);
    assert!(nodes[0].subscribers_cluster_wide("*").await.is_err());
}

async fn a_node_that_leaves_is_down_at_once_and_once(engine: &dyn Engine) {
    let mut nodes = nodes(engine, 3).await;
    let mut events = nodes[0].stream::<ClusterEvent>(ClusterEvent::TOPIC).unwrap();
    let left = nodes.pop().unwrap();
    let id = left.node();
    let mut there = listen(&nodes[1], "t").await;
    left.broadcast("t", Note(1)).unwrap();
    left.shutdown().await;
    assert_eq!(take(&mut there, 1).await, [1], "what was broadcast before is sent");
    let event = actix::clock::timeout(Duration::from_secs(5), events.next()).await.expect("in time").unwrap();
    match &*event {
        ClusterEvent::NodeDown { node, reason: DownReason::Left | DownReason::Disconnected } => assert_eq!(node.id, id),
        other => panic!("{other:?}"),
    }
    until("the others know", || nodes.iter().all(|node| node.nodes().len() == 1)).await;
    assert!(futures::poll!(events.next()).is_pending(), "once");
}

async fn nodes_with_another_cluster_name_never_meet(engine: &dyn Engine) {
    let (ours, theirs) = (nodes(engine, 2).await, nodes(engine, 2).await);
    let (mut here, mut there) = (listen(&ours[1], "t").await, listen(&theirs[1], "t").await);
    ours[0].broadcast("t", Note(1)).unwrap();
    theirs[0].broadcast("t", Note(2)).unwrap();
    assert_eq!((take(&mut here, 1).await, take(&mut there, 1).await), (vec![1], vec![2]));
    nothing_more(&ours[0], &mut here).await;
    nothing_more(&theirs[0], &mut there).await;
    assert_eq!((ours[0].nodes().len(), theirs[0].nodes().len()), (1, 1));
}

async fn a_subscription_of_a_type_without_a_name_says_so(engine: &dyn Engine) {
    let nodes = nodes(engine, 1).await;
    let stream = nodes[0].stream::<u8>("t").unwrap();
    let message = "u8";
    assert_eq!(stream.subscription().cluster_ready().await, Err(NotReady::Unnamed { message }));
    let ended = listen(&nodes[0], "t").await;
    let subscription = ended.subscription().clone();
    drop(ended);
    assert_eq!(subscription.cluster_ready().await, Err(NotReady::NotSubscribed));
}

async fn a_message_too_long_for_a_frame_is_given_back_and_goes_nowhere(engine: &dyn Engine) {
    let nodes = nodes(engine, 2).await;
    let here = nodes[0].stream::<Word>("t").unwrap();
    let there = nodes[1].stream::<Word>("t").unwrap();
    there.subscription().cluster_ready().await.unwrap();
    let max = ClusterOptions::FRAME_BYTES_DEFAULT;
    let refused = nodes[0].broadcast("t", Word("x".repeat(max))).unwrap_err();
    let BroadcastError::TooLarge { bytes, max: limit, message } = refused else { panic!("{refused}") };
    assert!(bytes > max && limit == max && message.0.len() == max);
    // The longest that fits: a name in MessagePack is 5 bytes longer than its text, and the newtype is nothing.
    let longest = max - (bytes - max);
    let refused = nodes[0].broadcast("t", Word("z".repeat(longest + 1))).unwrap_err();
    assert!(matches!(refused, BroadcastError::TooLarge { bytes, .. } if bytes == max + 1), "{refused}");
    nodes[0].broadcast("t", Word("y".repeat(longest))).unwrap();
    for mut stream in [here, there] {
        let event = actix::clock::timeout(Duration::from_secs(20), stream.next()).await.expect("in time").unwrap();
        assert_eq!((event.0.len(), event.missed()), (longest, 0), "the first to arrive");
    }
}

/// Runs each promise on one engine.
macro_rules! promises {
    ($engine:ident, $make:expr) => {
        mod $engine {
            use super::*;

            promises!(@each $make;
                a_broadcast_reaches_every_interested_node_once,
                broadcast_from_skips_the_sender_and_reaches_the_other_nodes,
                a_local_broadcast_stays_and_a_direct_one_goes_to_one_node,
                events_of_another_node_name_it_and_their_topic,
                one_publishers_events_arrive_in_its_order_across_topics,
                many_topics_share_one_encoding_and_arrive_on_each,
                a_node_without_subscribers_gets_nothing,
                what_came_from_each_node_and_went_to_it_is_counted_exactly,
                after_the_last_subscriber_a_topic_is_left_and_comes_back,
                subscribers_are_counted_on_every_node,
                a_node_that_leaves_is_down_at_once_and_once,
                nodes_with_another_cluster_name_never_meet,
                a_subscription_of_a_type_without_a_name_says_so,
                a_message_too_long_for_a_frame_is_given_back_and_goes_nowhere,
            );
        }
    };
    (@each $make:expr; $($promise:ident,)+) => {$(
        #[test]
        fn $promise() {
            System::new().block_on(async {
                let engine = $make;
                super::$promise(&engine).await;
            });
        }
    )+};
}

#[test]
fn a_node_with_the_other_setting_of_interest_is_an_event_and_an_incident_on_both_sides() {
    System::new().block_on(async {
        let network = Memory::new();
        let one = PubSub::builder().cluster(network.clone()).build().unwrap();
        let other = PubSub::builder().cluster(network.peer_interest()).build().unwrap();
        for (here, there) in [(&one, &other), (&other, &one)] {
            let refused = || here.incidents().into_iter().find(|of| of.what.name() == "node_refused");
            until("it is told", || refused().is_some()).await;
            let refused = refused().unwrap();
            let IncidentKind::NodeRefused { node, .. } = &refused.what else { panic!("{refused:?}") };
            assert_eq!(*node, there.node());
            assert!(here.nodes().is_empty());
        }
    });
}

#[test]
fn what_was_lost_is_counted_for_the_node_that_sent_it() {
    System::new().block_on(async {
        let network = Memory::new().peer_interest();
        let nodes = nodes(&network, 3).await;
        let mut notes = listen(&nodes[0], "t").await;
        for (from, lost) in [(1, 2), (2, 3)] {
            nodes[from].broadcast("t", Note(0)).unwrap();
            assert_eq!(take(&mut notes, 1).await, [0]);
            network.lose(nodes[0].node(), lost);
            for value in 0..=lost {
                nodes[from].broadcast("t", Note(value)).unwrap();
            }
            assert_eq!(take(&mut notes, 1).await, [lost], "what comes after them tells that they are lost");
            let stats = nodes[0].stats().cluster.unwrap();
            let peer = stats.peers.iter().find(|peer| peer.node == nodes[from].node()).unwrap();
            assert_eq!((peer.lost, peer.received), (lost, 2));
        }
        let stats = nodes[0].stats().cluster.unwrap();
        assert_eq!(stats.peers.iter().map(|peer| peer.lost).sum::<u64>(), stats.lost);
    });
}

promises!(memory, Memory::new());
promises!(memory_peers, Memory::new().peer_interest());
#[cfg(feature = "redis")]
promises!(on_redis, redis_with(|redis| redis));
#[cfg(feature = "nats")]
promises!(on_nats, nats_with(|nats| nats));
#[cfg(feature = "redis")]
promises!(on_redis_peers, redis_with(Redis::peer_interest));
#[cfg(feature = "nats")]
promises!(on_nats_peers, nats_with(Nats::peer_interest));
#[cfg(feature = "zenoh")]
promises!(on_zenoh, Peers::new());
