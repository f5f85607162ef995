//! Hostile: garbage that somebody puts on the engine, and a link slower than the publishers. On Redis, NATS and zenoh.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::cluster::Crossing;
use actix_pubsub::cluster::Identity;
use actix_pubsub::cluster::Inbound;
use actix_pubsub::cluster::Link;
use actix_pubsub::cluster::LinkOverflow;
use actix_pubsub::cluster::Memory;
use actix_pubsub::cluster::Outgoing;
use actix_pubsub::cluster::Subject;
use actix_pubsub::cluster::Transport;
use actix_pubsub::cluster::TransportCaps;
use actix_pubsub::cluster::TransportError;
use actix_pubsub::cluster::Work;
use actix_pubsub::testing::arrivals::Arrivals;
use actix_pubsub::testing::arrivals::identity;
use bytes::Bytes;

use crate::cluster::Engine;
use crate::cluster::listen;
use crate::cluster::options;
use crate::cluster::take;
use crate::cluster_faults::Scene;
use crate::cluster_site::FAILURE;
use crate::cluster_site::Kind;
use crate::cluster_site::Other;
use crate::cluster_site::Publisher;
use crate::cluster_site::Witness;
use crate::ear;
use crate::support::Note;
use crate::support::Word;
use crate::support::quiet_panics;
use crate::support::system;
use crate::support::until;

// ---- a slow link -----------------------------------------------------------------------------------------------------

async fn overflows_by_policy(kind: Kind, overflow: LinkOverflow) {
    let patient = |at| {
        let patient = options().heartbeat(Duration::from_millis(500)).failure_timeout(Duration::from_secs(5));
        if at == 1 { patient.queue(64).overflow(overflow) } else { patient }
    };
    let mut scene = Scene::with(kind, 3, patient).await;
    scene.site.proxy.throttle(1_000_000);
    let slow = scene.publishers.pop().unwrap().stop().await;
    let ids = [scene.id(0), scene.id(1)];
    // Ten times what passes.
    let fast = Publisher::from(&scene.witnesses[1].node, "t", Duration::from_millis(1), 10_000, slow.count);
    scene.publishers.push(fast);
    let dropped = || scene.witnesses[1].node.stats().cluster.unwrap().dropped_queue_full;
    if kind == Kind::Zenoh {
        // It drops itself what one peer does not take, and the queue before it stays short.
        until("zenoh drops", || scene.witnesses[0].from(ids[1]).lost > 300).await;
    } else {
        until("the queue overflows", || dropped() > 300).await;
    }
    scene.site.proxy.heal();
    scene.flows("after it is fast again").await;
    eprintln!("{kind:?} {overflow:?}: {} dropped, links {}", dropped(), scene.witnesses[1].links());
    let (full, sent) = (dropped(), scene.publishers[1].sent());
    match overflow {
        LinkOverflow::Refuse => assert_eq!(sent.crossed(Crossing::Full), full, "as the receipts say"),
        LinkOverflow::DropOldest => assert_eq!(sent.crossed(Crossing::Full), 0),
    }
    assert!(scene.witnesses[0].from(ids[1]).lost > 0);
    assert_eq!(scene.witnesses[2].from(ids[0]).lost, 0, "the healthy nodes are not harmed");
    assert_eq!((scene.witnesses[0].link_downs(), scene.witnesses[2].link_downs()), (0, 0));
    scene.settle().await;
}

async fn a_slow_link_refuses(kind: Kind) {
    overflows_by_policy(kind, LinkOverflow::Refuse).await;
}

async fn a_slow_link_drops_the_oldest(kind: Kind) {
    overflows_by_policy(kind, LinkOverflow::DropOldest).await;
}

/// Of what did not fit a receiver would learn by the next that does. Where there is none, it is told all the same.
async fn what_overflows_at_the_end_is_told_without_another_event(kind: Kind) {
    let patient = |_| options().heartbeat(Duration::from_millis(500)).failure_timeout(Duration::from_secs(5)).queue(8);
    let mut scene = Scene::with(kind, 2, patient).await;
    let mut sent = Vec::new();
    for publisher in scene.publishers.drain(..) {
        sent.push(publisher.stop().await.count);
    }
    scene.site.proxy.throttle(200_000);
    let (node, mut full) = (scene.witnesses[1].node.clone(), 0);
    let dropped = || node.stats().cluster.unwrap().dropped_queue_full;
    while full < 20 {
        // More than the engine, the system and the proxy hold.
        let receipt = node.broadcast("t", Word(format!("{} {}", sent[1], "x".repeat(50_000)))).unwrap();
        full += u64::from(receipt.cluster == Crossing::Full);
        sent[1] += 1;
        actix::clock::timeout(Duration::from_micros(200), std::future::pending::<()>()).await.unwrap_err();
        // Zenoh drops what one peer does not take, and does not tell.
        if kind == Kind::Zenoh && sent[1] > sent[0] + 1_000 {
            break;
        }
    }
    assert_eq!(full, dropped());
    scene.site.proxy.heal();
    until("it is told", || scene.witnesses[0].from(scene.id(1)).untold(sent[1]) == 0).await;
    let tally = scene.witnesses[0].from(scene.id(1));
    assert!(tally.lost >= full.max(1) && tally.disorder == 0, "{tally:?}");
}

// ---- garbage ---------------------------------------------------------------------------------------------------------

/// Where a frame that is not taken is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Malformed,
    Newer,
    Unknown,
    Undecodable,
    Unasked,
    Old,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// A frame by hand, from an origin of its own.
fn frame(random: &mut Random, kind: u8, fields: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
    let mut frame = b"ap\x01".to_vec();
    frame.push(kind);
    frame.extend(random.bytes(8));
    frame.extend([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let bytes: usize = fields.iter().map(|(_, value)| 3 + value.len()).sum();
    frame.extend((bytes as u16).to_le_bytes());
    for (tag, value) in fields {
        frame.push(*tag);
        frame.extend((value.len() as u16).to_le_bytes());
        frame.extend(*value);
    }
    frame.extend(payload);
    frame
}

/// One of each kind.
fn garbage(random: &mut Random, topic: &str) -> Vec<(Counted, Vec<u8>)> {
    use Counted::Malformed;
    use Counted::Newer;
    let topic: (u8, &[u8]) = (1, topic.as_bytes());
    let note: (u8, &[u8]) = (2, b"test.note");
    let codec: (u8, &[u8]) = (3, b"msgpack");
    let good = frame(random, 1, &[topic, note, codec], &[7]);
    let length = random.next() as usize % 2_000;
    let mut noise = random.bytes(length);
    noise.insert(0, b'x');
    let cut = 4 + random.next() as usize % 20;
    let mut future = good.clone();
    future[2] = 2;
    let mut lies = good.clone();
    lies[24..26].copy_from_slice(&[0xff, 0xff]);
    let mut field_lies = good.clone();
    field_lies[27..29].copy_from_slice(&[0xff, 0xff]);
    let mut all = vec![
        (Malformed, noise),
        (Malformed, Vec::new()),
        (Malformed, good[..cut].to_vec()),
        (Malformed, [good.clone(), vec![0; ClusterOptions::FRAME_BYTES_MIN]].concat()),
        (Malformed, lies),
        (Malformed, field_lies),
        (Newer, future),
    ];
    let lists = vec![0x91; 60_000];
    let mut add =
        |counted, kind, fields: &[(u8, &[u8])], payload: &[u8]| all.push((counted, frame(random, kind, fields, payload)));
    add(Newer, 9, &[topic], b"");
    add(Newer, 1, &[topic, (200, b"x")], b"");
    add(Malformed, 1, &[], b"");
    add(Malformed, 1, &[(1, b"\xff")], b"");
    add(Malformed, 2, &[(1, b"*"), note, codec], &[7]);
    add(Counted::Unasked, 1, &[(1, b"nobody"), note, codec], &[7]);
    add(Counted::Unknown, 1, &[topic, (2, b"test.nobody"), codec], &[7]);
    // A text, a list of 4 G things, bytes of 4 GB, nothing, and lists in lists.
    for payload in [&b"\xa1x"[..], b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"", &lists] {
        add(Counted::Undecodable, 1, &[topic, note, codec], payload);
    }
    add(Counted::Undecodable, 1, &[topic, note, (3, b"nonesuch")], &[7]);
    for payload in [
        &b""[..],
        b"x",
        b"\x81\xa5hello\x80",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa5marks\x81\xa6topics\xdd\xff\xff\xff\xff",
        &lists,
    ] {
        add(Malformed, 4, &[], payload);
    }
    add(Newer, 4, &[], b"\x81\xa6future\x80");
    all
}

async fn garbage_is_dropped_counted_and_said_once(kind: Kind) {
    // Of this test alone, also where others run beside it.
    ear::listen();
    let topic = format!("hostile-{kind:?}");
    let scene = Scene::with(kind, 2, |_| options().frame_bytes_max(ClusterOptions::FRAME_BYTES_MIN)).await;
    let mut other = Other::start(&scene.site, "other");
    until("it is seen", || scene.witnesses.iter().all(|witness| witness.ups(other.id).len() == 1)).await;
    let mut streams = Vec::new();
    for witness in &scene.witnesses {
        streams.push(listen(&witness.node, &topic).await);
    }
    let (_arrivals, inbound) = Arrivals::new(1 << 20, 1 << 30);
    let stranger = identity(&scene.site.name, Duration::from_secs(5));
    let link = scene.site.transport().connect(&stranger, inbound).await.unwrap();
    link.subscribe(vec![Subject::All]).await.unwrap();
    let subject = |at: usize| {
        if kind.sends_to_nodes() { Subject::Node(scene.id(at)) } else { Subject::Topic(topic.parse::<Topic>().unwrap()) }
    };
    // Over zenoh a stranger, too, has to be connected first.
    let probe = Outgoing { subject: Subject::All, frame: Bytes::from_static(b"ap\x07") };
    let newer = |at: usize| scene.witnesses[at].node.stats().cluster.unwrap().dropped_newer;
    let start = std::time::Instant::now();
    while !(0..2).all(|at| newer(at) > 0) {
        assert!(start.elapsed() < Duration::from_secs(30), "the stranger is not heard");
        link.send(vec![probe.clone()]).await.unwrap();
        actix::clock::timeout(Duration::from_millis(5), std::future::pending::<()>()).await.unwrap_err();
    }
    actix::clock::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
    let counts = |at: usize| {
        let stats = scene.witnesses[at].node.stats().cluster.unwrap();
        [
            (Counted::Malformed, stats.dropped_malformed),
            (Counted::Newer, stats.dropped_newer),
            (Counted::Unknown, stats.dropped_unknown_message),
            (Counted::Undecodable, stats.dropped_undecodable),
            (Counted::Unasked, stats.dropped_unasked),
            (Counted::Old, stats.dropped_old),
        ]
    };
    let before = [counts(0), counts(1)];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut expected: HashMap<Counted, u64> = HashMap::new();
    expected.insert(Counted::Old, 0);
    let mut resident = 0;
    let is_counted = |at: usize, expected: &HashMap<Counted, u64>| {
        let now = counts(at);
        // A kind of which there was none yet is not there.
        now.iter().zip(&before[at]).all(|((counted, now), (_, before))| now - before == *expected.get(counted).unwrap_or(&0))
    };
    for round in 0..ROUNDS {
        for (counted, bytes) in garbage(&mut random, &topic) {
            let subjects =
                if kind.sends_to_nodes() { vec![Subject::All, subject(0), subject(1)] } else { vec![Subject::All, subject(0)] };
            if matches!(counted, Counted::Unknown | Counted::Undecodable) {
                // Its number is taken, and seen again on the other subject.
                *expected.entry(counted).or_default() += 1;
                *expected.entry(Counted::Old).or_default() += 1;
            } else {
                *expected.entry(counted).or_default() += 2;
            }
            let frame = Bytes::from(bytes);
            link.send(subjects.into_iter().map(|subject| Outgoing { subject, frame: frame.clone() }).collect()).await.unwrap();
        }
        // An engine that drops for a slow reader would, if it were given all at once.
        let start = std::time::Instant::now();
        while !(is_counted(0, &expected) && is_counted(1, &expected)) {
            assert!(start.elapsed() < Duration::from_secs(30), "{expected:?}, {before:?}, {:?}", [counts(0), counts(1)]);
            actix::clock::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
        }
        if round == ROUNDS / 2 {
            resident = other.report(scene.id(0)).resident_kib;
        }
    }
    let grown = other.report(scene.id(0)).resident_kib.saturating_sub(resident);
    assert!(grown < 8 * 1_024, "{grown} KiB more after the second half");
    let engine = kind.engine();
    let heard = |what: &str| ear::heard(&[what]).len();
    assert_eq!(heard(&format!("engine={engine} error=frame is of version")), 2, "newer, by each node");
    assert_eq!(
        heard(&format!("engine={engine} error=frame"))
            + heard(&format!("engine={engine} error=topic"))
            + heard(&format!("engine={engine} error=note"))
            + heard(&format!("engine={engine} error=fields")),
        4
    );
    assert_eq!((heard(&format!("topic={topic} name=test.nobody")), heard(&format!("topic={topic} name=test.note"))), (2, 2));
    scene.flows("after the garbage").await;
    scene.witnesses[0].node.broadcast(&topic, Note(3)).unwrap();
    assert_eq!(take(&mut streams[1], 1).await, [3]);
    assert_eq!(scene.witnesses[0].link_downs() + scene.witnesses[1].link_downs(), 0);
    link.close().await;
    scene.settle().await;
}

// ---- a quiet node ----------------------------------------------------------------------------------------------------

/// A relay that had taken what there was did not ask to be woken for more, and slept until it looked at the time: what came meanwhile was late by up
/// to a quarter of a heartbeat.
#[test]
fn a_node_that_only_listens_gets_each_event_at_once() {
    system(async {
        let slow = || options().heartbeat(Duration::from_secs(20)).failure_timeout(FAILURE * 60);
        let network = Memory::new();
        let nodes = [0, 1].map(|_| network.node(slow()).message::<Note>().build().unwrap());
        until("they know each other", || nodes.iter().all(|node| node.nodes().len() == 1)).await;
        let mut there = listen(&nodes[1], "t").await;
        let start = std::time::Instant::now();
        for value in 0..100 {
            nodes[0].broadcast("t", Note(value)).unwrap();
            assert_eq!(take(&mut there, 1).await, [value]);
        }
        assert!(start.elapsed() < Duration::from_secs(3), "a hundred took {:?}", start.elapsed());
    });
}

// ---- a transport that is none ----------------------------------------------------------------------------------------

/// What a transport of somebody's own does instead of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Works,
    /// What is sent waits until it does something else.
    Waits,
    Hangs,
    Panics,
}

/// A network in memory by links that hang or panic, in what they are asked for and in what they are asked to send.
#[derive(Debug)]
struct Bad {
    network: Memory,
    does: Arc<Mutex<Does>>,
}

impl Transport for Bad {
    fn caps(&self) -> TransportCaps {
        self.network.caps()
    }

    fn connect(&self, identity: &Identity, inbound: Inbound) -> Work<Result<Arc<dyn Link>, TransportError>> {
        let (link, does) = (self.network.connect(identity, inbound), Arc::clone(&self.does));
        let now = *does.lock().unwrap();
        now.instead(Box::pin(async move {
            let link: Arc<dyn Link> = Arc::new(BadLink { link: link.await?, does });
            Ok(link)
        }))
    }
}

struct BadLink {
    link: Arc<dyn Link>,
    does: Arc<Mutex<Does>>,
}

impl Does {
    fn instead<T: 'static>(self, work: Work<T>) -> Work<T> {
        match self {
            Self::Works | Self::Waits => work,
            Self::Hangs => Box::pin(std::future::pending()),
            Self::Panics => Box::pin(async { panic!("on purpose") }),
        }
    }
}

impl BadLink {
    fn does(&self) -> Does {
        *self.does.lock().unwrap()
    }
}

impl Link for BadLink {
    fn send(&self, frames: Vec<Outgoing>) -> Work<Result<(), TransportError>> {
        if self.does() == Does::Waits {
            let (link, does) = (Arc::clone(&self.link), Arc::clone(&self.does));
            return Box::pin(async move {
                while *does.lock().unwrap() == Does::Waits {
                    actix::clock::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
                }
                link.send(frames).await
            });
        }
        self.does().instead(self.link.send(frames))
    }

    fn subscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        self.does().instead(self.link.subscribe(subjects))
    }

    fn unsubscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        self.does().instead(self.link.unsubscribe(subjects))
    }

    fn ended(&self) -> Work<TransportError> {
        self.link.ended()
    }

    fn close(&self) -> Work<()> {
        self.link.close()
    }
}

/// What found no room was numbered before what was queued before it: who heard of a node by one of those was never told of it.
#[test]
fn what_found_no_room_is_told_to_who_first_hears_of_the_node_by_what_was_queued_before() {
    for overflow in [LinkOverflow::Refuse, LinkOverflow::DropOldest] {
        system(async move {
            let (network, does) = (Memory::new(), Arc::new(Mutex::new(Does::Works)));
            let patient = options().failure_timeout(FAILURE * 60).queue(16).overflow(overflow);
            let slow = PubSub::builder().cluster_with(Bad { network: network.clone(), does: Arc::clone(&does) }, patient);
            let nodes = [slow, network.node(options().failure_timeout(FAILURE * 60))];
            let nodes = nodes.map(|builder| builder.message::<Note>().message::<Word>().build().unwrap());
            until("they know each other", || nodes.iter().all(|node| node.nodes().len() == 1)).await;
            let witness = Witness::start(&nodes[1], "t");
            witness.ready().await;
            *does.lock().unwrap() = Does::Waits;
            let stats = || nodes[0].stats().cluster.unwrap();
            while stats().queue_depth < 2 {
                nodes[0].broadcast("other", Note(0)).unwrap();
                actix::clock::timeout(Duration::from_millis(20), std::future::pending::<()>()).await.unwrap_err();
            }
            // In DropOldest those of the other topic go first, then those of this one.
            for number in 0..40 {
                nodes[0].broadcast("t", Note(number)).unwrap();
            }
            let dropped = stats().dropped_queue_full;
            assert!((10..40).contains(&dropped), "{:?}", stats());
            *does.lock().unwrap() = Does::Works;
            // Of those before the first that arrives it is not told: it hears of the node by that one.
            let tally = || witness.from(nodes[0].node());
            until("all of them arrived or are told as lost", || {
                tally().first.is_some_and(|first| tally().untold(40) == 0 && first < 40)
            })
            .await;
            assert_eq!((tally().disorder, tally().last >= 13), (0, true), "{:?}", tally());
            match overflow {
                LinkOverflow::Refuse => assert_eq!((tally().first, tally().lost), (Some(0), dropped), "{:?}", tally()),
                LinkOverflow::DropOldest => assert_eq!((tally().last, tally().lost), (39, 0), "{:?}", tally()),
            }
        });
    }
}

/// A relay whose transport panicked while it made a link told that it was lost, each time that it tried again, and tried again at once.
#[test]
fn a_transport_that_hangs_or_panics_costs_its_link_and_nothing_else() {
    system(async {
        quiet_panics();
        let (network, does) = (Memory::new(), Arc::new(Mutex::new(Does::Works)));
        let bad = PubSub::builder().cluster_with(Bad { network: network.clone(), does: Arc::clone(&does) }, options());
        let nodes = [bad, network.node(options())].map(|builder| builder.message::<Note>().message::<Word>().build().unwrap());
        until("they know each other", || nodes.iter().all(|node| node.nodes().len() == 1)).await;
        let witnesses = [Witness::start(&nodes[0], "t"), Witness::start(&nodes[1], "t")];
        for witness in &witnesses {
            witness.ready().await;
        }
        let publisher = Publisher::start(&nodes[0], "t", Duration::from_millis(2));
        let stats = || nodes[0].stats().cluster.unwrap();
        for (round, what) in [(1, Does::Hangs), (2, Does::Panics)] {
            *does.lock().unwrap() = what;
            until("its link is down", || witnesses[0].link_downs() == round).await;
            // It is tried again, in vain.
            let (tries, panics) = (stats().link_failures, stats().panics);
            until("it is tried again", || stats().link_failures >= tries + 2).await;
            assert_eq!(stats().panics > panics, what == Does::Panics, "{:?}", stats());
            *does.lock().unwrap() = Does::Works;
            until("it is up again", || witnesses[0].link_ups() == round).await;
            let mark = publisher.sent().count + 20;
            until("it crosses again", || witnesses[1].from(nodes[0].node()).last > mark).await;
        }
        let sent = publisher.stop().await.count;
        until("all is told", || witnesses[1].from(nodes[0].node()).untold(sent) == 0).await;
        let own = witnesses[0].from(nodes[0].node());
        assert_eq!((own.received, own.lost, own.disorder), (sent, 0, 0), "local delivery goes on");
        assert_eq!((witnesses[0].links().as_str(), witnesses[1].links().as_str()), ("dudu", ""));
    });
}

crate::cluster_site::promises! {
    on_redis Redis:
        a_slow_link_refuses
        a_slow_link_drops_the_oldest
        what_overflows_at_the_end_is_told_without_another_event
        garbage_is_dropped_counted_and_said_once;
    on_nats Nats:
        a_slow_link_refuses
        a_slow_link_drops_the_oldest
        what_overflows_at_the_end_is_told_without_another_event
        garbage_is_dropped_counted_and_said_once;
    on_redis_peers RedisPeers:
        a_slow_link_refuses
        a_slow_link_drops_the_oldest
        what_overflows_at_the_end_is_told_without_another_event
        garbage_is_dropped_counted_and_said_once;
    on_nats_peers NatsPeers:
        a_slow_link_refuses
        a_slow_link_drops_the_oldest
        what_overflows_at_the_end_is_told_without_another_event
        garbage_is_dropped_counted_and_said_once;
    on_zenoh Zenoh:
        a_slow_link_refuses
        a_slow_link_drops_the_oldest
        what_overflows_at_the_end_is_told_without_another_event
        garbage_is_dropped_counted_and_said_once;
}

/// Of garbage, some 60 frames each.
const ROUNDS: usize = 60;
