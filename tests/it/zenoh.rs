//! Zenoh: peers without a server, some of them other processes that are killed and paused. A child is this test binary again, told by `ZENOH_CHILD` to be one.

use std::io::BufRead;
use std::io::BufReader;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use actix_pubsub::NodeId;
use actix_pubsub::Topic;
use actix_pubsub::cluster::Identity;
use actix_pubsub::cluster::Link;
use actix_pubsub::cluster::Outgoing;
use actix_pubsub::cluster::Subject;
use actix_pubsub::cluster::Transport;
use actix_pubsub::cluster::TransportError;
use actix_pubsub::cluster::Zenoh;
use actix_pubsub::testing::arrivals::Arrival;
use actix_pubsub::testing::arrivals::Arrivals;
use actix_pubsub::testing::arrivals::identity;
use bytes::Bytes;

use crate::support::system;

/// Long enough for a machine that does ten other things.
const DEADLINE: Duration = Duration::from_secs(60);
const FAILURE: Duration = Duration::from_secs(2);

/// One node: a link, and what arrived by it.
struct Peer {
    zenoh: Zenoh,
    identity: Identity,
    link: Arc<dyn Link>,
    arrivals: Arrivals,
}

impl Peer {
    async fn try_start(zenoh: Zenoh, cluster: &str) -> Result<Self, TransportError> {
        let identity = identity(cluster, FAILURE);
        let (arrivals, inbound) = Arrivals::new(1_000_000, 1 << 30);
        let link = zenoh.connect(&identity, inbound).await?;
        link.subscribe(vec![Subject::Node(identity.node), Subject::All]).await?;
        Ok(Self { zenoh, identity, link, arrivals })
    }

    async fn start(zenoh: Zenoh, cluster: &str) -> Self {
        Self::try_start(zenoh, cluster).await.unwrap()
    }

    fn endpoint(&self) -> String {
        self.zenoh.bound()[0].clone()
    }

    async fn send(&self, subject: &Subject, frame: &str) {
        let frame = Outgoing { subject: subject.clone(), frame: Bytes::copy_from_slice(frame.as_bytes()) };
        self.link.send(vec![frame]).await.unwrap();
    }

    /// What arrives next within that time.
    async fn within(&mut self, time: Duration) -> Option<Arrival> {
        tokio::time::timeout(time, self.arrivals.next()).await.ok()
    }

    /// The next that is no barrier of an earlier wait.
    async fn next(&mut self) -> Arrival {
        loop {
            let next = self.within(DEADLINE).await.expect("nothing arrives");
            if !matches!(&next, Arrival::Frame(frame) if frame.starts_with(b"barrier")) {
                return next;
            }
        }
    }

    /// The next frame, whoever has gone before it.
    async fn text(&mut self) -> String {
        loop {
            if let Arrival::Frame(frame) = self.next().await {
                return String::from_utf8(frame.to_vec()).unwrap();
            }
        }
    }
}

/// Sends barriers to `subject` until `to` hears one, and gives what came before it.
async fn reach(from: &Peer, subject: &Subject, to: &mut Peer) -> Vec<Arrival> {
    let barrier = format!("barrier {:?} {:?}", from.identity.node, Instant::now());
    let deadline = Instant::now() + DEADLINE;
    let mut before = Vec::new();
    while Instant::now() < deadline {
        from.send(subject, &barrier).await;
        while let Some(arrival) = to.within(Duration::from_millis(50)).await {
            match arrival {
                Arrival::Frame(frame) if frame == barrier => return before,
                Arrival::Frame(frame) if frame.starts_with(b"barrier") => {}
                other => before.push(other),
            }
        }
    }
    panic!("a frame to {subject:?} does not arrive")
}

/// As many connected nodes, on free ports: all know the first, and every one hears every other.
async fn cluster(name: &str, nodes: usize) -> Vec<Peer> {
    let mut peers = vec![Peer::start(Zenoh::new(), name).await];
    while peers.len() < nodes {
        let seed = peers[0].endpoint();
        peers.push(Peer::start(Zenoh::new().peer(seed), name).await);
    }
    meet(&mut peers).await;
    peers
}

async fn meet(peers: &mut [Peer]) {
    for from in 0..peers.len() {
        for to in (0..peers.len()).filter(|to| *to != from) {
            // One of two may borrow at a time: the later is split off.
            let (low, high) = peers.split_at_mut(from.max(to));
            let (sender, receiver) = if from < to { (&low[from], &mut high[0]) } else { (&high[0], &mut low[to]) };
            let subject = Subject::Node(receiver.identity.node);
            reach(sender, &subject, receiver).await;
        }
    }
}

fn topic(name: &str) -> Subject {
    Subject::Topic(Topic::parse(name).unwrap())
}

#[test]
fn nodes_that_know_one_seed_hear_each_other_and_only_what_they_asked_for() {
    system(async {
        let mut peers = cluster("interest", 3).await;
        let topics = ["@at", "a.b>c//$d#?", "room:1 é"].map(topic);
        peers[1].link.subscribe(topics.to_vec()).await.unwrap();
        // Asking again is no error, and nothing arrives twice.
        peers[1].link.subscribe(topics.to_vec()).await.unwrap();
        let [first, second, third] = &mut peers[..] else { unreachable!() };
        for subject in &topics {
            reach(third, subject, second).await;
            reach(first, subject, second).await;
            first.send(subject, "once").await;
            assert_eq!(second.text().await, "once");
        }
        // What the first sent to a topic came neither to the third nor back to itself.
        let to_third = Subject::Node(third.identity.node);
        assert_eq!(reach(first, &to_third, third).await, []);
        let to_first = Subject::Node(first.identity.node);
        assert_eq!(reach(second, &to_first, first).await, []);
        second.link.unsubscribe(topics.to_vec()).await.unwrap();
        let to_second = Subject::Node(second.identity.node);
        // The withdrawal travels as the barrier does, back and forth.
        reach(second, &to_first, first).await;
        reach(first, &to_second, second).await;
        for subject in &topics {
            first.send(subject, "late").await;
        }
        assert_eq!(reach(first, &to_second, second).await, []);
    });
}

#[test]
fn a_hundred_thousand_frames_over_fifty_keys_arrive_in_order() {
    system(async {
        let mut peers = cluster("order", 2).await;
        let [first, second] = &mut peers[..] else { unreachable!() };
        let topics: Vec<_> = (0..50).map(|at| topic(&format!("key:{at}"))).collect();
        second.link.subscribe(topics.clone()).await.unwrap();
        for subject in &topics {
            reach(first, subject, second).await;
        }
        for from in (0..100_000_u64).step_by(500) {
            let frame = |at: u64| Outgoing {
                subject: topics[usize::try_from(at * 7 % 50).unwrap()].clone(),
                // Some of them take several batches of zenoh.
                frame: Bytes::from(
                    // Not as a batch begins, which no frame of a relay does.
                    [at.to_be_bytes().to_vec(), vec![0; if at.is_multiple_of(5_000) { 200_000 } else { 92 }]].concat(),
                ),
            };
            first.link.send((from..from + 500).map(frame).collect()).await.unwrap();
        }
        let barrier = Subject::Node(second.identity.node);
        let arrived = reach(first, &barrier, second).await;
        let number = |arrival: &Arrival| match arrival {
            Arrival::Frame(frame) => u64::from_be_bytes(frame[..8].try_into().unwrap()),
            gone @ Arrival::Gone(_) => panic!("{gone:?}"),
        };
        let numbers: Vec<_> = arrived.iter().map(number).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "out of order");
        // An engine that may lose says so; most must arrive all the same.
        assert!(numbers.len() > 50_000, "{} of 100000", numbers.len());
    });
}

#[test]
fn close_brings_out_what_was_sent_and_tells_the_others() {
    system(async {
        let mut peers = cluster("close", 2).await;
        let left = peers.pop().unwrap();
        let stays = &mut peers[0];
        let to = Subject::Node(stays.identity.node);
        for number in 0..1_000 {
            left.send(&to, &number.to_string()).await;
        }
        left.link.close().await;
        let ended = tokio::time::timeout(DEADLINE, left.link.ended()).await.unwrap();
        assert_eq!(ended.to_string(), "the link was closed");
        assert!(left.link.send(Vec::new()).await.is_err());
        for number in 0..1_000 {
            assert_eq!(stays.text().await, number.to_string());
        }
        assert_eq!(stays.next().await, Arrival::Gone(left.identity.node));
    });
}

#[test]
fn a_link_that_is_dropped_lets_go_of_its_port() {
    system(async {
        let mut peers = cluster("drop", 2).await;
        let Peer { zenoh, identity, link, .. } = peers.pop().unwrap();
        let ended = link.ended();
        drop(link);
        tokio::time::timeout(DEADLINE, ended).await.unwrap();
        assert_eq!(peers[0].next().await, Arrival::Gone(identity.node));
        // The same settings take the same port again.
        let before = zenoh.bound();
        let again = Peer::start(zenoh, "drop").await;
        assert_eq!(again.zenoh.bound(), before);
        peers.push(again);
        meet(&mut peers).await;
    });
}

#[test]
fn a_node_whose_seed_is_away_finds_it_when_it_comes_and_when_it_comes_back() {
    system(async {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let endpoint = format!("tcp/127.0.0.1:{port}");
        let early = Peer::start(Zenoh::new().peer(&endpoint), "seed").await;
        let other = Peer::start(Zenoh::new().peer(&endpoint), "seed").await;
        // A node's own address among its seeds does no harm.
        let seed = || Zenoh::new().listen(&endpoint).peer(&endpoint);
        let mut peers = vec![early, other, Peer::start(seed(), "seed").await];
        meet(&mut peers).await;
        peers.pop().unwrap().link.close().await;
        peers.push(Peer::start(seed(), "seed").await);
        meet(&mut peers).await;
    });
}

#[test]
fn a_port_in_use_and_what_is_no_endpoint_are_refused_with_the_value() {
    fn chain(error: &TransportError) -> String {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        text
    }
    let refused = |zenoh: Zenoh| chain(&zenoh.check().unwrap_err());
    assert!(refused(Zenoh::new().listen("udp/1.2.3.4:5")).contains("\"udp/1.2.3.4:5\""));
    assert!(refused(Zenoh::new().peer("tcp/127.0.0.1")).contains("\"tcp/127.0.0.1\" has no port"));
    assert!(refused(Zenoh::new().peer("tcp/127.0.0.1:0")).contains("port 0"));
    assert!(refused(Zenoh::new().peer("tcp/10.0.0.1:7447")).contains("say where to listen"));
    assert!(refused(Zenoh::new().multicast(true)).contains("say where to listen"));
    let settings = Zenoh::new().listen("tcp/0.0.0.0:7447").multicast(true).credentials("me", "secret", "users");
    assert!(settings.check().is_ok() && !format!("{settings:?}").contains("secret"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp/{}", taken.local_addr().unwrap());
    let error = system(Peer::try_start(Zenoh::new().listen(&endpoint), "taken")).err().unwrap();
    assert!(chain(&error).contains(&endpoint) && chain(&error).to_lowercase().contains("in use"), "{}", chain(&error));
}

#[test]
fn a_node_with_a_wrong_password_hears_nothing() {
    system(async {
        let users: PathBuf = std::env::temp_dir().join(format!("pubsub-zenoh-users-{}", std::process::id()));
        std::fs::write(&users, "one:first\ntwo:second\n").unwrap();
        let seed = Peer::start(Zenoh::new().credentials("one", "first", &users), "secret").await;
        let known = Peer::start(Zenoh::new().peer(seed.endpoint()).credentials("two", "second", &users), "secret").await;
        let mut stranger = Peer::start(Zenoh::new().peer(seed.endpoint()).credentials("two", "guess", &users), "secret").await;
        let mut nobody = Peer::start(Zenoh::new().peer(seed.endpoint()), "secret").await;
        let mut peers = vec![seed, known];
        meet(&mut peers).await;
        peers[0].send(&Subject::All, "for members").await;
        assert_eq!(peers[1].text().await, "for members");
        for outside in [&mut stranger, &mut nobody] {
            assert_eq!(outside.within(FAILURE).await, None);
        }
        std::fs::remove_file(users).unwrap();
    });
}

/// Another process: it prints its id, and sends to `echo` what it hears on `work`.
struct Other {
    child: Child,
    node: NodeId,
}

impl Other {
    fn start(cluster: &str, seed: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "zenoh::other_process", "--nocapture"]).env("ZENOH_CHILD", format!("{cluster} {seed}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (tell, told) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // Whoever started it may have its answer.
                let _ = line.split_once("node ").map(|(_, bits)| tell.send(bits.parse::<u64>().unwrap()));
            }
        });
        let node = NodeId::from_bits(told.recv_timeout(DEADLINE).expect("the other process does not start"));
        Self { child, node }
    }

    #[cfg(unix)]
    fn signal(&self, signal: &str) {
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

#[test]
fn other_process() {
    let Ok(told) = std::env::var("ZENOH_CHILD") else { return };
    let (cluster, seed) = told.split_once(' ').unwrap();
    // It ends with the test that started it, however that ended.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(0);
    });
    system(async {
        let mut peer = Peer::start(Zenoh::new().peer(seed), cluster).await;
        peer.link.subscribe(vec![topic("work")]).await.unwrap();
        println!("node {}", peer.identity.node.to_bits());
        loop {
            if let Arrival::Frame(frame) = peer.arrivals.next().await {
                peer.link.send(vec![Outgoing { subject: topic("echo"), frame }]).await.unwrap();
            }
        }
    });
}

/// Until the other process answers on `echo`; gives what else came.
async fn answer(peer: &mut Peer) -> Vec<Arrival> {
    let deadline = Instant::now() + DEADLINE;
    let mut others = Vec::new();
    let call = format!("barrier {:?}", Instant::now());
    while Instant::now() < deadline {
        peer.send(&topic("work"), &call).await;
        while let Some(arrival) = peer.within(Duration::from_millis(50)).await {
            match arrival {
                Arrival::Frame(frame) if frame == call => return others,
                other => others.push(other),
            }
        }
    }
    panic!("the other process does not answer")
}

#[test]
fn a_killed_process_is_told_as_gone_at_once() {
    system(async {
        let mut peer = Peer::start(Zenoh::new(), "killed").await;
        peer.link.subscribe(vec![topic("echo")]).await.unwrap();
        let mut other = Other::start("killed", &peer.endpoint());
        answer(&mut peer).await;
        let start = Instant::now();
        other.child.kill().unwrap();
        assert_eq!(peer.next().await, Arrival::Gone(other.node));
        // Its lease would be 2 s.
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    });
}

#[cfg(unix)]
#[test]
fn a_paused_process_stalls_nobody_and_comes_back() {
    system(async {
        let mut peers = cluster("paused", 2).await;
        let seed = peers[0].endpoint();
        let other = Other::start("paused", &seed);
        let [first, second] = &mut peers[..] else { unreachable!() };
        first.link.subscribe(vec![topic("echo")]).await.unwrap();
        second.link.subscribe(vec![topic("work")]).await.unwrap();
        answer(first).await;
        reach(first, &topic("work"), second).await;
        other.signal("-STOP");
        // Far more than the socket and the queue to the paused one hold.
        let start = Instant::now();
        let (mut gone, mut slowest, mut number, mut lost) = (None, Duration::ZERO, 0_u32, 0_u32);
        let body = "x".repeat(60_000);
        while gone.is_none() || number < 2_000 {
            let (sent, frame) = (Instant::now(), format!("{number} {body}"));
            first.send(&topic("work"), &frame).await;
            let heard = loop {
                match second.within(Duration::from_secs(1)).await {
                    Some(Arrival::Frame(heard)) if heard == frame => break true,
                    Some(_) => {}
                    None => break false,
                }
            };
            // One that is dropped took as long as it was listened for.
            slowest = slowest.max(if heard { sent.elapsed() } else { Duration::ZERO });
            number += 1;
            // On a machine that does ten other things one or another is dropped.
            lost += u32::from(!heard);
            while let Some(arrival) = first.within(Duration::ZERO).await {
                if arrival == Arrival::Gone(other.node) {
                    gone.get_or_insert(start.elapsed());
                }
            }
            assert!(start.elapsed() < DEADLINE, "the pause is not seen");
        }
        eprintln!("gone after {gone:?}, {number} frames, {lost} lost, slowest {slowest:?}");
        assert!(lost * 100 < number, "{lost} of {number} lost");
        // It would be a second where a put waits for the paused one.
        assert!(slowest < Duration::from_millis(700), "{slowest:?}");
        other.signal("-CONT");
        let start = Instant::now();
        answer(first).await;
        eprintln!("back after {:?}", start.elapsed());
    });
}
