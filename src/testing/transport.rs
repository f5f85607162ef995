//! The contract of a [`Transport`], as cases that every engine has to pass. Knows no engine: an exception is a named capability, a fault a named fault.
//!
//! ```no_run
//! use std::sync::Arc;
//! use actix_pubsub::cluster::Transport;
//! use actix_pubsub::testing::transport::{Engine, check};
//!
//! struct Mine;
//!
//! impl Engine for Mine {
//!     fn transport(&self) -> Arc<dyn Transport> {
//!         my_transport("mine://127.0.0.1:7000")
//!     }
//! }
//!
//! actix::System::new().block_on(check(Arc::new(Mine)));
//! # fn my_transport(_: &str) -> Arc<dyn Transport> { unreachable!() }
//! ```

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::error::Error;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;

pub use crate::testing::arrivals::Arrivals;

use crate::cluster::ClusterName;
use crate::cluster::Identity;
use crate::cluster::Inbound;
use crate::cluster::Link;
use crate::cluster::Outgoing;
use crate::cluster::Subject;
use crate::cluster::Transport;
use crate::cluster::TransportError;
use crate::ids::NodeId;
use crate::testing::arrivals;
use crate::topic::Topic;

/// An engine under test.
pub trait Engine: Send + Sync + 'static {
    /// How a node reaches it. Called for each node; every node of a case may be on the same thread.
    fn transport(&self) -> Arc<dyn Transport>;

    /// How a node reaches an address where nothing is. `None`: there is no such thing.
    fn nowhere(&self) -> Option<Arc<dyn Transport>> {
        None
    }

    /// What can be done to it. Cases that need more are left out.
    fn faults(&self) -> &[Fault] {
        &[]
    }

    /// Does one of its [`faults`](Self::faults). May block for some seconds.
    fn inject(&self, fault: Fault) {
        unreachable!("{fault:?} is not among its faults");
    }

    /// Publishes bytes that no node made, by the engine's own means. `false`: there are none.
    fn stranger(&self, _cluster: &ClusterName, _subject: &Subject, _bytes: &[u8]) -> bool {
        false
    }
}

/// What may happen to an engine, or to the connections of the transports that [`Engine::transport`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The engine is killed.
    Kill,
    /// It is there again, at the same address.
    Restart,
    /// Connections are cut.
    Cut,
    /// From now on no byte passes, in either direction, and nothing tells.
    BlackHole,
    /// Bytes pass again, on new connections at least.
    Heal,
}

/// One case: panics where the contract is broken.
pub type Case = fn(Arc<dyn Engine>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs every case, each in clusters of its own. Call it inside a current-thread runtime, as the relay is one: that of actix, say.
///
/// # Panics
/// If a case fails: with the names of all that did, after what each had to say.
pub async fn check(engine: Arc<dyn Engine>) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        match tokio::spawn(timeout(CASE_MAX, case(Arc::clone(&engine)))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => failed.push(format!("{name} (not done after {CASE_MAX:?}: something waits for what never comes)")),
            Err(_) => failed.push((*name).to_owned()),
        }
        if engine.faults().contains(&Fault::Heal) {
            // Whatever a failed case has left.
            engine.inject(Fault::Heal);
        }
    }
    assert!(failed.is_empty(), "the contract is broken by {} of {} cases: {failed:?}", failed.len(), CASES.len());
}

macro_rules! cases {
    ($($name:ident)*) => {
        /// Every case, by its name.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($name), |engine| Box::pin($name(engine)))),*];
    };
}

cases! {
    settings_that_work_pass_the_check
    a_frame_reaches_each_subscribed_node_once_and_no_other
    all_and_one_node_and_a_topic_are_three_ways
    clusters_with_two_names_never_meet
    what_one_node_sends_arrives_in_its_order_across_subjects
    concurrent_senders_keep_their_orders
    a_confirmed_subscription_misses_nothing_from_then_on
    frames_flow_while_others_are_asked_for
    an_unsubscribed_subject_brings_nothing
    subscribing_twice_is_one_delivery
    unsubscribing_what_is_not_subscribed_is_no_error
    an_empty_list_asks_for_nothing_and_ends_nothing
    ten_thousand_subjects_at_once
    every_byte_and_every_length_comes_back
    odd_topics_do_not_collide
    what_arrives_while_nobody_looks_is_dropped_and_the_link_lives
    close_brings_out_what_was_sent
    a_dropped_link_gets_nothing_more_and_disturbs_nobody
    a_connect_that_is_given_up_disturbs_nobody
    what_strangers_publish_does_no_harm
    nothing_there_is_an_error_that_says_so
    a_link_ends_when_the_engine_is_killed_and_another_works_after_its_restart
    a_link_ends_when_it_is_cut
    a_link_ends_when_it_is_silent
    connecting_to_silence_is_given_up
}

/// An [`Inbound`] with room for so many frames, and what comes out of it.
pub fn inbound(frames_max: usize) -> (Inbound, Arrivals) {
    let (arrivals, inbound) = Arrivals::new(frames_max, usize::MAX / 2);
    (inbound, arrivals)
}

/// A node of this cluster that nobody else is: frames of up to 64 KiB, a failure time-out of two seconds.
pub fn identity(cluster: &ClusterName) -> Identity {
    Identity { frame_bytes_max: FRAME_BYTES_MAX, ..arrivals::identity(cluster.as_str(), FAILURE_TIMEOUT) }
}

// ---- helpers ---------------------------------------------------------------------------------------------------------

/// So long may a case take.
const CASE_MAX: Duration = Duration::from_secs(120);
/// What arrives has arrived by then, on a busy machine too.
const LONG: Duration = Duration::from_secs(20);
/// What the links are told.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(2);
/// What may come on top of it.
const SLACK: Duration = Duration::from_secs(3);
/// How long interest may spread from node to node, and how often it is looked.
const SPREAD: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);
const FRAME_BYTES_MAX: usize = 64 * 1_024;
/// Begins what is sent to see whether interest has spread.
const PROBE: &[u8] = b"\xffprobe:";
/// Begins what ends a collection.
const BARRIER: &[u8] = b"\xffbarrier:";

/// A node: a link, and what has come in.
struct Node {
    identity: Identity,
    link: Arc<dyn Link>,
    arrivals: Arrivals,
    transport: Arc<dyn Transport>,
    barriers: u64,
}

impl Node {
    async fn connect(engine: &Arc<dyn Engine>, cluster: &ClusterName, queue_frames: usize) -> Self {
        let (transport, identity) = (engine.transport(), identity(cluster));
        let (link, arrivals) = connect(&transport, &identity, queue_frames).await.expect("it connects");
        let node = Self { identity, link, arrivals, transport, barriers: 0 };
        node.subscribe(&[node.own()]).await;
        node
    }

    fn own(&self) -> Subject {
        Subject::Node(self.identity.node)
    }

    async fn subscribe(&self, subjects: &[Subject]) {
        within(self.link.subscribe(subjects.to_vec())).await.expect("the link works");
    }

    async fn unsubscribe(&self, subjects: &[Subject]) {
        within(self.link.unsubscribe(subjects.to_vec())).await.expect("the link works");
    }

    async fn send(&self, frames: impl IntoIterator<Item = (&Subject, Vec<u8>)>) {
        let outgoing = |(subject, frame): (&Subject, Vec<u8>)| Outgoing { subject: subject.clone(), frame: frame.into() };
        within(self.link.send(frames.into_iter().map(outgoing).collect())).await.expect("the link works");
    }

    /// What `from` sent until now, and everything else that came before it.
    async fn until(&mut self, from: &Node) -> Vec<Bytes> {
        self.barriers += 1;
        let barrier = [BARRIER, format!("{}:{}", from.identity.node, self.barriers).as_bytes()].concat();
        from.send([(&self.own(), barrier.clone())]).await;
        let mut frames = Vec::new();
        loop {
            let frame =
                timeout(LONG, self.arrivals.frame()).await.unwrap_or_else(|_| panic!("no end after {} frames", frames.len()));
            if *frame == *barrier {
                return frames;
            }
            if !frame.starts_with(PROBE) && !frame.starts_with(BARRIER) {
                frames.push(frame);
            }
        }
    }

    /// Subscribes, and looks that what `from` sends arrives where that is not confirmed.
    async fn listen(&mut self, from: &Node, subjects: &[Subject]) {
        self.subscribe(subjects).await;
        self.hears(from, subjects).await;
    }

    /// Interest has spread to `from`.
    async fn hears(&mut self, from: &Node, subjects: &[Subject]) {
        if self.transport.caps().confirms_interest {
            return;
        }
        let probe = |n: usize| [PROBE, n.to_string().as_bytes()].concat();
        let mut missing: BTreeSet<usize> = (0..subjects.len()).collect();
        let deadline = Instant::now() + SPREAD;
        while !missing.is_empty() {
            assert!(Instant::now() < deadline, "{} of {} subjects are not heard after {SPREAD:?}", missing.len(), subjects.len());
            from.send(missing.iter().map(|n| (&subjects[*n], probe(*n)))).await;
            let look = Instant::now() + LOOK;
            while let Ok(frame) = timeout_at(look, self.arrivals.frame()).await {
                if let Some(number) = frame.strip_prefix(PROBE) {
                    missing.remove(&std::str::from_utf8(number).unwrap().parse().unwrap());
                }
            }
        }
    }
}

/// Several nodes of one cluster that hear each other.
async fn nodes<const N: usize>(engine: &Arc<dyn Engine>) -> [Node; N] {
    let cluster = cluster();
    let mut all = Vec::new();
    for _ in 0..N {
        all.push(Node::connect(engine, &cluster, QUEUE_FRAMES).await);
    }
    let Ok(mut all) = <[Node; N]>::try_from(all) else { unreachable!("there are {N}") };
    for to in 0..N {
        for from in 0..N {
            if let Ok([to, from]) = all.get_disjoint_mut([to, from]) {
                let own = to.own();
                to.hears(from, &[own]).await;
            }
        }
    }
    all
}

const QUEUE_FRAMES: usize = 100_000;

/// A name that no other case has, of this or another process.
fn cluster() -> ClusterName {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("suite-{}-{}", NodeId::random(), NEXT.fetch_add(1, Ordering::Relaxed));
    name.parse().expect("a plain name")
}

type Connected = (Arc<dyn Link>, Arrivals);

async fn connect(transport: &Arc<dyn Transport>, identity: &Identity, frames: usize) -> Result<Connected, TransportError> {
    let (inbound, arrivals) = inbound(frames);
    within(transport.connect(identity, inbound)).await.map(|link| (link, arrivals))
}

/// Nothing of a transport takes longer than the failure time-out.
async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(FAILURE_TIMEOUT + SLACK, work).await.expect("it is done, or fails, within the failure time-out")
}

fn topic(name: &str) -> Subject {
    Subject::Topic(Topic::parse(name).unwrap())
}

fn topics(kind: &str, count: usize) -> Vec<Subject> {
    (0..count).map(|n| topic(&format!("{kind}:{n}"))).collect()
}

fn text(frame: &[u8]) -> &str {
    std::str::from_utf8(frame).expect("a text of ours")
}

fn texts(frames: &[Bytes]) -> Vec<&str> {
    frames.iter().map(|frame| text(frame)).collect()
}

fn has(engine: &Arc<dyn Engine>, faults: &[Fault]) -> bool {
    faults.iter().all(|fault| engine.faults().contains(fault))
}

async fn inject(engine: &Arc<dyn Engine>, fault: Fault) {
    let engine = Arc::clone(engine);
    tokio::task::spawn_blocking(move || engine.inject(fault)).await.expect("the fault is done");
}

/// It ends in time, says so again, and whatever it is asked for fails instead of waiting.
async fn has_ended(link: &Arc<dyn Link>, since: Instant) {
    let error = timeout_at(since + FAILURE_TIMEOUT + SLACK, link.ended()).await.expect("it ends within the failure time-out");
    assert!(!error.to_string().is_empty());
    timeout(SLACK, link.ended()).await.expect("an ended link says so at once");
    let asked = [link.subscribe(vec![topic("late")]), link.unsubscribe(vec![topic("late")])];
    for asked in asked {
        assert!(within(asked).await.is_err(), "an ended link takes no requests");
    }
    // It may take a few that go nowhere, but not wait.
    let frame = Outgoing { subject: Subject::All, frame: Bytes::from_static(b"late") };
    let _ = within(link.send(vec![frame])).await;
    within(link.close()).await;
}

// ---- who gets what ---------------------------------------------------------------------------------------------------

async fn settings_that_work_pass_the_check(engine: Arc<dyn Engine>) {
    let transport = engine.transport();
    transport.check().expect("they are right");
    assert!(!transport.caps().engine.is_empty());
}

async fn a_frame_reaches_each_subscribed_node_once_and_no_other(engine: Arc<dyn Engine>) {
    let [from, mut one, mut other, mut third] = nodes(&engine).await;
    let news = topic("news");
    one.listen(&from, std::slice::from_ref(&news)).await;
    other.listen(&from, std::slice::from_ref(&news)).await;
    third.listen(&from, &[topic("new"), topic("news:1"), topic("NEWS")]).await;
    let sent: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    from.send(sent.iter().map(|n| (&news, n.clone().into_bytes()))).await;
    assert_eq!(texts(&one.until(&from).await), sent);
    assert_eq!(texts(&other.until(&from).await), sent);
    assert!(third.until(&from).await.is_empty(), "who did not ask gets nothing");
}

async fn all_and_one_node_and_a_topic_are_three_ways(engine: Arc<dyn Engine>) {
    let [from, mut one, mut other] = nodes(&engine).await;
    let named = topic(&one.identity.node.to_string());
    one.listen(&from, &[Subject::All]).await;
    other.listen(&from, &[Subject::All, named.clone()]).await;
    let to_one = one.own();
    from.send([(&Subject::All, b"all".to_vec()), (&to_one, b"one".to_vec()), (&named, b"topic".to_vec())]).await;
    from.send([(&topic("a"), b"nobody".to_vec())]).await;
    assert_eq!(texts(&one.until(&from).await), ["all", "one"]);
    assert_eq!(texts(&other.until(&from).await), ["all", "topic"]);
}

async fn clusters_with_two_names_never_meet(engine: Arc<dyn Engine>) {
    let ([from, mut one], [theirs, mut their_one]) = (nodes(&engine).await, nodes(&engine).await);
    for (to, from) in [(&mut one, &from), (&mut their_one, &theirs)] {
        to.listen(from, &[Subject::All, topic("t")]).await;
    }
    from.send([(&Subject::All, b"ours".to_vec()), (&topic("t"), b"ours".to_vec())]).await;
    theirs.send([(&Subject::All, b"theirs".to_vec()), (&topic("t"), b"theirs".to_vec())]).await;
    assert_eq!(texts(&one.until(&from).await), ["ours", "ours"]);
    assert_eq!(texts(&their_one.until(&theirs).await), ["theirs", "theirs"]);
    assert!(one.until(&from).await.is_empty());
}

async fn what_one_node_sends_arrives_in_its_order_across_subjects(engine: Arc<dyn Engine>) {
    const FRAMES: usize = 10_000;
    let [from, mut one] = nodes(&engine).await;
    let mut subjects = topics("order", 48);
    subjects.push(Subject::All);
    one.listen(&from, &subjects).await;
    subjects.push(one.own());
    for batch in (0..FRAMES).collect::<Vec<_>>().chunks(333) {
        // 7 is prime to 50: neighbours go to different subjects.
        from.send(batch.iter().map(|n| (&subjects[n * 7 % 50], n.to_string().into_bytes()))).await;
    }
    let frames = one.until(&from).await;
    let numbers: Vec<usize> = frames.iter().map(|frame| text(frame).parse().unwrap()).collect();
    let wrong = numbers.iter().zip(0..).position(|(is, wanted)| *is != wanted);
    assert_eq!((wrong, numbers.len()), (None, FRAMES), "the first that is not in its place");
}

async fn concurrent_senders_keep_their_orders(engine: Arc<dyn Engine>) {
    const EACH: usize = 2_000;
    let [mut one, a, b, c, d] = nodes(&engine).await;
    let subjects = topics("many", 7);
    one.subscribe(&subjects).await;
    for from in [&a, &b, &c, &d] {
        one.hears(from, &subjects).await;
    }
    let send = async |from: &Node, size: usize| {
        for batch in (0..EACH).collect::<Vec<_>>().chunks(size) {
            let frame = |n: &usize| format!("{}:{n}", from.identity.node).into_bytes();
            from.send(batch.iter().map(|n| (&subjects[n % 7], frame(n)))).await;
        }
    };
    let mut all: [Pin<Box<dyn Future<Output = ()> + Send>>; 4] =
        [Box::pin(send(&a, 1)), Box::pin(send(&b, 10)), Box::pin(send(&c, 50)), Box::pin(send(&d, 500))];
    let mut done = [false; 4];
    poll_fn(|cx| {
        for (work, done) in all.iter_mut().zip(&mut done) {
            *done = *done || work.as_mut().poll(cx).is_ready();
        }
        if done.iter().all(|done| *done) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    drop(all);
    let mut frames = Vec::new();
    for from in [&a, &b, &c, &d] {
        frames.extend(one.until(from).await);
    }
    let mut next = BTreeMap::<&str, usize>::new();
    for frame in &frames {
        let (from, number) = text(frame).split_once(':').unwrap();
        let wanted = next.entry(from).or_default();
        assert_eq!(number.parse::<usize>().unwrap(), *wanted, "of {from}");
        *wanted += 1;
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), [EACH; 4]);
}

async fn a_confirmed_subscription_misses_nothing_from_then_on(engine: Arc<dyn Engine>) {
    let [mut one, mut other, third] = nodes(&engine).await;
    for (n, subject) in topics("round", 300).iter().enumerate() {
        one.listen(&third, std::slice::from_ref(subject)).await;
        third.send([(subject, format!("{n}").into_bytes())]).await;
        other.listen(&third, std::slice::from_ref(subject)).await;
        third.send([(subject, format!("{n}'").into_bytes())]).await;
        assert_eq!(texts(&one.until(&third).await), [format!("{n}"), format!("{n}'")]);
        // What was sent before it asked may come, too: `send` had not said that it went out.
        assert_eq!(texts(&other.until(&third).await).last(), Some(&&*format!("{n}'")));
    }
}

async fn frames_flow_while_others_are_asked_for(engine: Arc<dyn Engine>) {
    let [from, mut one] = nodes(&engine).await;
    one.listen(&from, &[topic("flow")]).await;
    let flow = topic("flow");
    let work = async {
        for n in 0..1_000 {
            from.send([(&flow, n.to_string().into_bytes())]).await;
        }
    };
    let asks = async {
        for batch in topics("other", 2_000).chunks(100) {
            one.subscribe(batch).await;
            from.subscribe(batch).await;
            one.unsubscribe(batch).await;
        }
    };
    both(work, asks).await;
    let frames = one.until(&from).await;
    assert!(texts(&frames).into_iter().eq((0..1_000).map(|n| n.to_string())), "{} frames", frames.len());
}

async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other, mut done) = (Box::pin(one), Box::pin(other), (false, false));
    poll_fn(|cx| {
        done.0 = done.0 || one.as_mut().poll(cx).is_ready();
        done.1 = done.1 || other.as_mut().poll(cx).is_ready();
        if done == (true, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn an_unsubscribed_subject_brings_nothing(engine: Arc<dyn Engine>) {
    let [from, mut one] = nodes(&engine).await;
    let (kept, left) = (topic("kept"), topic("left"));
    for round in 0..20 {
        one.listen(&from, &[kept.clone(), left.clone()]).await;
        from.send([(&left, b"before".to_vec())]).await;
        assert_eq!(texts(&one.until(&from).await), ["before"], "in round {round}");
        one.unsubscribe(std::slice::from_ref(&left)).await;
        let deadline = Instant::now() + SPREAD;
        loop {
            from.send([(&left, b"after".to_vec()), (&kept, b"kept".to_vec())]).await;
            let frames = one.until(&from).await;
            if texts(&frames) == ["kept"] {
                break;
            }
            let spreads = !one.transport.caps().confirms_interest && Instant::now() < deadline;
            assert!(spreads, "{:?} came in round {round}", texts(&frames));
        }
    }
}

async fn subscribing_twice_is_one_delivery(engine: Arc<dyn Engine>) {
    let [from, mut one] = nodes(&engine).await;
    let twice = topic("twice");
    one.listen(&from, &[twice.clone(), twice.clone()]).await;
    one.listen(&from, &[twice.clone(), topic("else")]).await;
    from.send([(&twice, b"once".to_vec())]).await;
    assert_eq!(texts(&one.until(&from).await), ["once"]);
    one.unsubscribe(&[twice.clone(), twice.clone()]).await;
    one.listen(&from, std::slice::from_ref(&twice)).await;
    from.send([(&twice, b"again".to_vec())]).await;
    assert_eq!(texts(&one.until(&from).await), ["again"]);
}

async fn unsubscribing_what_is_not_subscribed_is_no_error(engine: Arc<dyn Engine>) {
    let [from, mut one] = nodes(&engine).await;
    one.listen(&from, &[topic("mine")]).await;
    one.unsubscribe(&topics("never", 3)).await;
    from.send([(&topic("mine"), b"here".to_vec())]).await;
    assert_eq!(texts(&one.until(&from).await), ["here"]);
}

async fn an_empty_list_asks_for_nothing_and_ends_nothing(engine: Arc<dyn Engine>) {
    let [from, mut one] = nodes(&engine).await;
    one.listen(&from, &[topic("mine")]).await;
    one.subscribe(&[]).await;
    one.unsubscribe(&[]).await;
    from.send([]).await;
    from.send([(&topic("mine"), b"here".to_vec())]).await;
    assert_eq!(texts(&one.until(&from).await), ["here"]);
}

async fn ten_thousand_subjects_at_once(engine: Arc<dyn Engine>) {
    const COUNT: usize = 10_000;
    let [from, mut one] = nodes(&engine).await;
    let subjects = topics("at-once", COUNT);
    one.listen(&from, &subjects).await;
    for batch in (0..COUNT).collect::<Vec<_>>().chunks(1_000) {
        from.send(batch.iter().map(|n| (&subjects[*n], n.to_string().into_bytes()))).await;
    }
    let frames = one.until(&from).await;
    assert!(texts(&frames).into_iter().eq((0..COUNT).map(|n| n.to_string())), "{} frames", frames.len());
    one.unsubscribe(&subjects).await;
    let deadline = Instant::now() + SPREAD;
    loop {
        from.send(subjects.iter().step_by(100).map(|subject| (subject, b"late".to_vec()))).await;
        let late = one.until(&from).await;
        if late.is_empty() {
            break;
        }
        let spreads = !one.transport.caps().confirms_interest && Instant::now() < deadline;
        assert!(spreads, "{} still come", late.len());
    }
}

// ---- what a frame and a topic may hold -------------------------------------------------------------------------------

async fn every_byte_and_every_length_comes_back(engine: Arc<dyn Engine>) {
    let [from, mut one] = nodes(&engine).await;
    let subject = topic("bytes");
    one.listen(&from, std::slice::from_ref(&subject)).await;
    let mut frames: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    frames.push((0..=255).collect());
    frames.extend([0, 2, 15, 16, 17, 1_000, 4_095, 4_096, 4_097, FRAME_BYTES_MAX - 1].map(|length| vec![0xAB; length]));
    frames.extend([b"\r\n".to_vec(), b"\r\nPING\r\n".to_vec(), b"*1\r\n$4\r\nQUIT\r\n".to_vec(), b"\0\0".to_vec()]);
    frames.push((0..FRAME_BYTES_MAX).map(|n| (n * 31 % 251) as u8).collect());
    frames.push(Vec::new());
    from.send(frames.iter().map(|frame| (&subject, frame.clone()))).await;
    let arrived = one.until(&from).await;
    let wrong = frames.iter().zip(&arrived).position(|(sent, arrived)| *sent != **arrived);
    assert_eq!((wrong, arrived.len()), (None, frames.len()), "the first that is another");
}

async fn odd_topics_do_not_collide(engine: Arc<dyn Engine>) {
    let [from, mut even, mut odd] = nodes(&engine).await;
    let long = "é".repeat(127);
    let names = [
        "a",
        "A",
        "a ",
        " a",
        " ",
        "a b",
        "a  b",
        ".",
        "..",
        "a.",
        ".a",
        "a.b",
        "a..b",
        ">",
        "a.>",
        "a>",
        "$",
        "$SYS",
        "$SYS.>",
        "_INBOX.a",
        "#",
        "/",
        "//",
        "a/",
        "/a",
        "a/b",
        "%",
        "%2E",
        "%2e",
        "a%2Eb",
        "%%",
        "?",
        "?a=b",
        "@",
        "@/a",
        "\"",
        "'",
        "`",
        "\\",
        "[a]",
        "[ab]",
        "a?",
        "{",
        "}",
        "|",
        "&",
        ";",
        ":",
        "a:",
        "a:b",
        "=",
        "+",
        "~",
        "-",
        "--",
        "_",
        "!",
        ",",
        "(",
        ")",
        "^",
        "é",
        "e\u{301}",
        "日本",
        "🦀",
        "\u{200d}",
        "\u{a0}",
        &long,
        &"x".repeat(255),
        "t",
        "n",
        "a:t:a",
    ];
    let subjects: Vec<_> = names.iter().map(|name| topic(name)).collect();
    let parity = |which: usize| subjects.iter().skip(which).step_by(2).cloned().collect::<Vec<_>>();
    even.listen(&from, &parity(0)).await;
    odd.listen(&from, &parity(1)).await;
    from.send(subjects.iter().zip(0_usize..).map(|(subject, n)| (subject, n.to_string().into_bytes()))).await;
    for (node, which) in [(&mut even, 0), (&mut odd, 1)] {
        let wanted: Vec<_> = (which..names.len()).step_by(2).map(|n| names[n]).collect();
        let frames = node.until(&from).await;
        let got: Vec<_> = frames.iter().map(|frame| names[text(frame).parse::<usize>().unwrap()]).collect();
        assert_eq!(got, wanted);
    }
}

// ---- how links live and end ------------------------------------------------------------------------------------------

async fn what_arrives_while_nobody_looks_is_dropped_and_the_link_lives(engine: Arc<dyn Engine>) {
    let cluster = cluster();
    let (from, mut slow) = (Node::connect(&engine, &cluster, QUEUE_FRAMES).await, Node::connect(&engine, &cluster, 100).await);
    let (own, flood) = (slow.own(), topic("flood"));
    slow.hears(&from, &[own]).await;
    slow.listen(&from, std::slice::from_ref(&flood)).await;
    for batch in (0..5_000).collect::<Vec<_>>().chunks(100) {
        from.send(batch.iter().map(|n: &u32| (&flood, n.to_string().into_bytes()))).await;
    }
    let deadline = Instant::now() + LONG;
    while slow.arrivals.refused() < 4_900 {
        assert!(Instant::now() < deadline, "{} were refused", slow.arrivals.refused());
        tokio::task::yield_now().await;
    }
    for n in 0..100 {
        assert_eq!(text(&slow.arrivals.frame().await), n.to_string(), "the first stay");
    }
    from.send([(&flood, b"after".to_vec())]).await;
    assert_eq!(texts(&slow.until(&from).await), ["after"]);
}

async fn close_brings_out_what_was_sent(engine: Arc<dyn Engine>) {
    for round in 0..5 {
        let [from, mut one] = nodes(&engine).await;
        let subject = topic("last");
        one.listen(&from, std::slice::from_ref(&subject)).await;
        for batch in (0..2_000).collect::<Vec<_>>().chunks(250) {
            from.send(batch.iter().map(|n: &u32| (&subject, n.to_string().into_bytes()))).await;
        }
        within(from.link.close()).await;
        drop(from);
        for n in 0..2_000 {
            let frame = timeout(LONG, async {
                loop {
                    let frame = one.arrivals.frame().await;
                    if !frame.starts_with(PROBE) {
                        return frame;
                    }
                }
            });
            let frame = frame.await.unwrap_or_else(|_| panic!("frame {n} of round {round} is lost"));
            assert_eq!(text(&frame), n.to_string());
        }
    }
}

async fn a_dropped_link_gets_nothing_more_and_disturbs_nobody(engine: Arc<dyn Engine>) {
    let [from, mut one, mut dropped] = nodes(&engine).await;
    let subject = topic("t");
    one.listen(&from, std::slice::from_ref(&subject)).await;
    dropped.listen(&from, std::slice::from_ref(&subject)).await;
    let Node { link, arrivals: Arrivals { queue, .. }, .. } = dropped;
    drop(link);
    // Its tasks end when they are next looked at.
    let deadline = Instant::now() + LONG;
    while Arc::strong_count(&queue) > 1 {
        assert!(Instant::now() < deadline, "something still holds its inbound");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    from.send([(&subject, b"still".to_vec())]).await;
    assert_eq!(texts(&one.until(&from).await), ["still"]);
}

async fn a_connect_that_is_given_up_disturbs_nobody(engine: Arc<dyn Engine>) {
    let (transport, identity) = (engine.transport(), identity(&cluster()));
    for round in 0..20 {
        let mut connecting = transport.connect(&identity, inbound(1).0);
        for _ in 0..round {
            let now = poll_fn(|cx: &mut Context<'_>| Poll::Ready(connecting.as_mut().poll(cx).is_ready())).await;
            if now {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    drop(connect(&transport, &identity, 1).await.expect("it connects"));
    let [from, mut one] = nodes(&engine).await;
    one.listen(&from, &[topic("t")]).await;
    from.send([(&topic("t"), b"here".to_vec())]).await;
    assert_eq!(texts(&one.until(&from).await), ["here"]);
}

async fn what_strangers_publish_does_no_harm(engine: Arc<dyn Engine>) {
    let [from, mut one] = nodes(&engine).await;
    let subject = topic("public");
    one.listen(&from, &[subject.clone(), Subject::All]).await;
    let garbage: [&[u8]; 5] = [b"", b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"{\"a\":1}", &[0x80; 10_000]];
    let (cluster, own) = (one.identity.cluster.clone(), one.own());
    for bytes in garbage {
        for subject in [&subject, &Subject::All, &own] {
            let (engine, cluster, subject, bytes) = (Arc::clone(&engine), cluster.clone(), subject.clone(), bytes.to_vec());
            let published = tokio::task::spawn_blocking(move || engine.stranger(&cluster, &subject, &bytes));
            if !published.await.expect("it can be published") {
                return;
            }
        }
    }
    from.send([(&subject, b"ours".to_vec())]).await;
    let frames = one.until(&from).await;
    assert_eq!(frames.last().map(|frame| text(frame)), Some("ours"));
    assert!(frames[..frames.len() - 1].iter().all(|frame| garbage.contains(&&**frame)), "as it was, or not at all");
}

async fn nothing_there_is_an_error_that_says_so(engine: Arc<dyn Engine>) {
    let Some(nowhere) = engine.nowhere() else { return };
    nowhere.check().expect("an address it is");
    let Err(error) = connect(&nowhere, &identity(&cluster()), 1).await else { panic!("it connects to nothing") };
    assert!(error.to_string().contains("connecting"), "{error}");
    assert!(error.source().is_some_and(|source| !source.to_string().is_empty()), "{error:?} does not say why");
}

async fn a_link_ends_when_the_engine_is_killed_and_another_works_after_its_restart(engine: Arc<dyn Engine>) {
    if !has(&engine, &[Fault::Kill, Fault::Restart]) {
        return;
    }
    for _ in 0..2 {
        let [from, one] = nodes(&engine).await;
        let waits = one.link.ended();
        let since = Instant::now();
        inject(&engine, Fault::Kill).await;
        timeout_at(since + FAILURE_TIMEOUT + SLACK, waits).await.expect("who waits is told");
        has_ended(&one.link, since).await;
        has_ended(&from.link, since).await;
        assert!(connect(&one.transport, &one.identity, 1).await.is_err(), "nothing is there");
        inject(&engine, Fault::Restart).await;
        let [from, mut one] = nodes(&engine).await;
        one.listen(&from, &[topic("t")]).await;
        from.send([(&topic("t"), b"here".to_vec())]).await;
        assert_eq!(texts(&one.until(&from).await), ["here"]);
    }
}

async fn a_link_ends_when_it_is_cut(engine: Arc<dyn Engine>) {
    if !has(&engine, &[Fault::Cut, Fault::Heal]) {
        return;
    }
    let [from, mut one] = nodes(&engine).await;
    one.listen(&from, &[topic("t")]).await;
    let since = Instant::now();
    inject(&engine, Fault::Cut).await;
    has_ended(&one.link, since).await;
    has_ended(&from.link, since).await;
    inject(&engine, Fault::Heal).await;
    nodes::<2>(&engine).await;
}

async fn a_link_ends_when_it_is_silent(engine: Arc<dyn Engine>) {
    if !has(&engine, &[Fault::BlackHole, Fault::Heal]) {
        return;
    }
    let [busy, asks, idle] = nodes(&engine).await;
    let since = Instant::now();
    inject(&engine, Fault::BlackHole).await;
    let deadline = since + FAILURE_TIMEOUT + SLACK;
    let floods = async {
        let frames = || vec![Outgoing { subject: topic("flood"), frame: Bytes::from(vec![0; 32 * 1_024]) }; 64];
        // More than any buffer takes: it waits, and then it fails.
        while timeout_at(deadline, busy.link.send(frames())).await.expect("send does not wait for ever").is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let subscribes = async {
        let asked = timeout_at(deadline, asks.link.subscribe(topics("silent", 10))).await.expect("it does not wait for ever");
        assert!(asked.is_err(), "nobody has confirmed it");
    };
    both(floods, subscribes).await;
    for node in [&busy, &asks, &idle] {
        has_ended(&node.link, since).await;
    }
    drop((busy, asks, idle));
    inject(&engine, Fault::Heal).await;
    nodes::<2>(&engine).await;
}

async fn connecting_to_silence_is_given_up(engine: Arc<dyn Engine>) {
    if !has(&engine, &[Fault::BlackHole, Fault::Heal]) {
        return;
    }
    let transport = engine.transport();
    inject(&engine, Fault::BlackHole).await;
    assert!(connect(&transport, &identity(&cluster()), 1).await.is_err(), "nobody has answered");
    inject(&engine, Fault::Heal).await;
    connect(&transport, &identity(&cluster()), 1).await.expect("it connects again");
}
