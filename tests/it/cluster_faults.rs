//! Faults: what a cluster keeps while its engine, its links and its nodes fail. On Redis, NATS and zenoh, with real servers and real processes.

use std::time::Duration;
use std::time::Instant;

use actix_pubsub::NodeId;
use actix_pubsub::cluster::ClusterEvent;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::cluster::Crossing;
use actix_pubsub::cluster::DownReason;

use crate::cluster::options;
use crate::cluster_site::FAILURE;
use crate::cluster_site::Kind;
use crate::cluster_site::Other;
use crate::cluster_site::Publisher;
use crate::cluster_site::SLACK;
use crate::cluster_site::Sent;
use crate::cluster_site::Site;
use crate::cluster_site::Witness;
use crate::support::Note;
use crate::support::until;

/// Three nodes that listen, of which the first and the second, which is the one behind the proxy, broadcast all the time.
pub(crate) struct Scene {
    pub(crate) site: Site,
    pub(crate) witnesses: Vec<Witness>,
    pub(crate) publishers: Vec<Publisher>,
}

impl Scene {
    async fn new(kind: Kind) -> Self {
        Self::with(kind, 3, |_| options()).await
    }

    pub(crate) async fn with(kind: Kind, count: usize, options: impl Fn(usize) -> ClusterOptions) -> Self {
        let site = Site::new(kind);
        let nodes = site.nodes(count, options).await;
        let witnesses: Vec<_> = nodes.iter().map(|node| Witness::start(node, "t")).collect();
        for witness in &witnesses {
            witness.ready().await;
        }
        let publishers = nodes[..2].iter().map(|node| Publisher::start(node, "t", PACE)).collect();
        let scene = Self { site, witnesses, publishers };
        scene.flows("before anything is harmed").await;
        scene
    }

    pub(crate) fn id(&self, at: usize) -> NodeId {
        self.witnesses[at].node.node()
    }

    fn is_up(&self, at: usize) -> bool {
        self.witnesses[at].node.stats().cluster.unwrap().link_up
    }

    /// Until fifty more of each publisher have come to each node.
    pub(crate) async fn flows(&self, when: &str) {
        let marks: Vec<_> = self.publishers.iter().map(|publisher| publisher.sent().count + 50).collect();
        let start = Instant::now();
        let done = |witness: &Witness| {
            let mut with = self.publishers.iter().zip(&marks);
            with.all(|(publisher, mark)| witness.from(publisher.node.node()).last >= *mark)
        };
        while !self.witnesses.iter().all(done) {
            if start.elapsed() > FLOWS {
                self.witnesses.iter().for_each(|witness| witness.print(when));
                panic!("not everything flows {when}");
            }
            crate::support::one_turn().await;
            actix::clock::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
        }
    }

    /// Everybody is told that they are ready again, and gets what is broadcast.
    pub(crate) async fn recovers(&self) {
        let start = Instant::now();
        for witness in &self.witnesses {
            witness.ready().await;
        }
        self.flows("after it is healed").await;
        let took = start.elapsed();
        assert!(took < FAILURE + SLACK, "it flows again after {took:?}");
    }

    /// Stops the publishers; every broadcast has then come to every node or is told to it as lost, none twice, and those to the own node have all come.
    pub(crate) async fn settle(self) -> Vec<Sent> {
        let mut sents = Vec::new();
        for publisher in self.publishers {
            let origin = publisher.node.node();
            sents.push((origin, publisher.stop().await));
        }
        let start = Instant::now();
        let untold = |witness: &Witness| sents.iter().any(|(origin, sent)| witness.from(*origin).untold(sent.count) != 0);
        while self.witnesses.iter().any(untold) {
            if start.elapsed() > FLOWS {
                self.witnesses.iter().for_each(|witness| witness.print("untold"));
                panic!("something is neither received nor told as lost: {sents:?}");
            }
            actix::clock::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
        }
        for witness in &self.witnesses {
            for (origin, sent) in &sents {
                let tally = witness.from(*origin);
                assert_eq!(tally.disorder, 0, "{tally:?}");
                if *origin == witness.node.node() {
                    assert_eq!((tally.received, tally.lost), (sent.count, 0), "local delivery goes on");
                }
            }
            let stats = witness.node.stats().cluster.unwrap();
            assert_eq!((stats.dropped_inbound_full, stats.panics), (0, 0), "{stats:?}");
            assert!(stats.queue_peak <= stats.queue_capacity, "{stats:?}");
        }
        sents.into_iter().map(|(_, sent)| sent).collect()
    }

    /// A node is told of as down once, in time, and as up again once.
    fn came_back(&self, witness: usize, node: usize, harmed: Instant) {
        let (downs, ups) = (self.witnesses[witness].downs(self.id(node)), self.witnesses[witness].ups(self.id(node)));
        assert_eq!((downs.len(), ups.len()), (1, 1), "node {node} as node {witness} sees it");
        assert!(downs[0] - harmed < FAILURE + SLACK, "down after {:?}", downs[0] - harmed);
        assert!(downs[0] < ups[0]);
    }
}

fn silent(event: &ClusterEvent) -> bool {
    matches!(event, ClusterEvent::NodeDown { reason: DownReason::Silent { .. }, .. })
}

async fn killed_engine_comes_back(kind: Kind) {
    let mut scene = Scene::new(kind).await;
    let before: Vec<_> = scene.publishers.iter().map(Publisher::sent).collect();
    scene.site.server.as_mut().unwrap().kill();
    until("every link is down", || (0..3).all(|at| !scene.is_up(at))).await;
    until("the nodes do not see each other", || scene.witnesses.iter().all(|witness| witness.told(silent).len() == 2)).await;
    scene.site.server.as_mut().unwrap().restart();
    scene.recovers().await;
    for witness in &scene.witnesses {
        assert_eq!(witness.links(), "du");
    }
    let sents = scene.settle().await;
    for (sent, before) in sents.iter().zip(before) {
        assert_eq!(before.crossed(Crossing::Queued), before.count);
        assert!(sent.crossed(Crossing::LinkDown) > 100, "{sent:?}");
    }
}

async fn cut_link_is_made_again(kind: Kind) {
    let scene = Scene::new(kind).await;
    for round in 1..=3 {
        scene.site.proxy.cut();
        if kind == Kind::Zenoh {
            until("it comes back", || scene.witnesses[0].ups(scene.id(1)).len() == round).await;
        } else {
            until("it comes back", || scene.witnesses[1].link_ups() == round).await;
        }
        scene.recovers().await;
    }
    if kind != Kind::Zenoh {
        assert_eq!(scene.witnesses[1].links(), "dududu");
        // It was away for less than the failure time-out.
        assert_eq!((scene.witnesses[0].downs(scene.id(1)).len(), scene.witnesses[2].link_downs()), (0, 0));
    }
    scene.settle().await;
}

async fn black_hole_is_noticed_and_harms_nobody_else(kind: Kind) {
    let scene = Scene::new(kind).await;
    let harmed = Instant::now();
    scene.site.proxy.black_hole();
    until("it is noticed", || !scene.witnesses[0].downs(scene.id(1)).is_empty()).await;
    if kind != Kind::Zenoh {
        // Each notices it at its own time.
        until("by the other, too", || !scene.witnesses[2].downs(scene.id(1)).is_empty()).await;
        until("by both sides", || !scene.is_up(1) && scene.witnesses[1].told(silent).len() == 2).await;
        assert_eq!(scene.witnesses[2].downs(scene.id(0)).len() + scene.witnesses[0].downs(scene.id(2)).len(), 0);
    }
    scene.site.proxy.heal();
    until("it comes back", || !scene.witnesses[0].ups(scene.id(1)).is_empty()).await;
    scene.recovers().await;
    scene.came_back(0, 1, harmed);
    if kind == Kind::Zenoh {
        assert_eq!(scene.witnesses[2].downs(scene.id(1)).len(), 0, "those two have a link of their own");
    } else {
        scene.came_back(2, 1, harmed);
        assert_eq!(scene.witnesses[1].links(), "du");
    }
    scene.settle().await;
}

async fn delay_loses_nothing(kind: Kind) {
    let scene = Scene::new(kind).await;
    scene.site.proxy.delay(Duration::from_millis(200));
    for _ in 0..3 {
        scene.flows("late").await;
    }
    scene.site.proxy.heal();
    scene.flows("again").await;
    for witness in &scene.witnesses {
        assert_eq!((witness.link_downs(), witness.told(silent).len()), (0, 0));
        assert_eq!(witness.node.stats().cluster.unwrap().lost, 0);
    }
    scene.settle().await;
}

/// Of the tail that a node misses it is told without another event: it asks who was silent how far it has come.
async fn what_a_node_missed_at_the_end_is_told_without_another_event(kind: Kind) {
    let mut scene = Scene::with(kind, 2, |_| options()).await;
    scene.site.proxy.black_hole();
    until("it is noticed", || scene.witnesses[0].downs(scene.id(1)).len() == 1).await;
    until("by both sides", || scene.witnesses[1].downs(scene.id(0)).len() == 1).await;
    let mut sents = Vec::new();
    for publisher in scene.publishers.drain(..) {
        sents.push(publisher.stop().await);
    }
    scene.site.proxy.heal();
    let told = |at: usize, from: usize| scene.witnesses[at].from(scene.id(from)).untold(sents[from].count) == 0;
    until("both are told", || told(0, 1) && told(1, 0)).await;
    assert!(scene.witnesses[1].from(scene.id(0)).lost > 0);
}

/// Of what a node could not send, and nothing after it, the others are told by itself: they have not noticed anything, and ask nobody.
async fn what_was_not_sent_at_the_end_is_told_without_another_event(kind: Kind) {
    let patient = |at| if at == 0 { options().failure_timeout(Duration::from_secs(60)) } else { options() };
    let mut scene = Scene::with(kind, 2, patient).await;
    let mut sent = 0;
    for publisher in scene.publishers.drain(..) {
        sent = publisher.stop().await.count;
    }
    scene.site.proxy.black_hole();
    until("the link is down", || !scene.is_up(1)).await;
    for number in sent..sent + 10 {
        let receipt = scene.witnesses[1].node.broadcast("t", Note(number)).unwrap();
        assert_eq!(receipt.cluster, Crossing::LinkDown);
    }
    scene.site.proxy.heal();
    until("it is told", || scene.witnesses[0].from(scene.id(1)).untold(sent + 10) == 0).await;
    assert_eq!(scene.witnesses[0].from(scene.id(1)).lost, 10);
    assert_eq!(scene.witnesses[0].downs(scene.id(1)).len(), 0);
}

async fn killed_process_is_down_once_and_its_name_comes_back_as_another(kind: Kind) {
    let scene = Scene::with(kind, 2, |_| options()).await;
    let other = Other::start(&scene.site, "same");
    until("it is seen", || scene.witnesses.iter().all(|witness| witness.ups(other.id).len() == 1)).await;
    let (harmed, first) = (Instant::now(), other.id);
    drop(other);
    until("it is down", || scene.witnesses.iter().all(|witness| witness.downs(first).len() == 1)).await;
    assert!(harmed.elapsed() < FAILURE + SLACK, "down after {:?}", harmed.elapsed());
    let mut again = Other::start(&scene.site, "same");
    assert_ne!(again.id, first);
    until("it is seen again", || scene.witnesses.iter().all(|witness| witness.ups(again.id).len() == 1)).await;
    let names: Vec<_> = scene.witnesses[0].node.nodes().iter().map(|node| node.name.to_string()).collect();
    assert_eq!(names.iter().filter(|name| *name == "same").count(), 1, "{names:?}");
    scene.flows("with the new one").await;
    let ids = [scene.id(0), scene.id(1)];
    until("it gets everything", || ids.iter().all(|id| again.report(*id).tally.received > 50)).await;
    for witness in &scene.witnesses {
        assert_eq!((witness.downs(first).len(), witness.ups(first).len(), witness.downs(again.id).len()), (1, 1, 0));
    }
    scene.settle().await;
}

async fn paused_process_is_not_noticed_by_the_others(kind: Kind) {
    let scene = Scene::with(kind, 2, |_| options()).await;
    let mut other = Other::start(&scene.site, "paused");
    let ids = [scene.id(0), scene.id(1)];
    until("it gets everything", || ids.iter().all(|id| other.report(*id).tally.received > 50)).await;
    let quiet = Duration::from_secs(1);
    let gaps = || [scene.witnesses[0].from(ids[1]).gap, scene.witnesses[1].from(ids[0]).gap];
    scene.witnesses.iter().for_each(Witness::forget_gaps);
    actix::clock::timeout(quiet, std::future::pending::<()>()).await.unwrap_err();
    let before = gaps();
    scene.witnesses.iter().for_each(Witness::forget_gaps);
    other.signal("-STOP");
    let paused = Instant::now();
    let pause = std::env::var("PAUSE_SECONDS").map_or(4, |seconds| seconds.parse().unwrap());
    actix::clock::timeout(Duration::from_secs(pause), std::future::pending::<()>()).await.unwrap_err();
    let during = gaps();
    eprintln!("{kind:?}: the longest gaps before {before:?} and while one is paused {during:?}");
    for witness in &scene.witnesses {
        let downs = witness.downs(other.id);
        assert_eq!((downs.len(), witness.link_downs()), (1, 0));
        assert!(downs[0] - paused < FAILURE + SLACK, "{:?}", downs[0] - paused);
    }
    assert!(during.iter().all(|gap| *gap < before[0].max(before[1]) + Duration::from_millis(250)), "{before:?}, {during:?}");
    other.signal("-CONT");
    until("it comes back", || scene.witnesses.iter().all(|witness| witness.ups(other.id).len() == 2)).await;
    scene.flows("again").await;
    if kind != Kind::Zenoh {
        // It was the one that slept. Over zenoh its connections have ended meanwhile, which is what it tells.
        assert_eq!(ids.map(|id| other.report(id).downs), [0, 0], "it accuses nobody");
    }
    let Scene { site, mut witnesses, publishers } = scene;
    let mut sents = Vec::new();
    for publisher in publishers {
        sents.push(publisher.stop().await);
    }
    let start = Instant::now();
    loop {
        let tallies: Vec<_> = ids.iter().map(|id| other.report(*id).tally).collect();
        if tallies.iter().zip(&sents).all(|(tally, sent)| tally.untold(sent.count) == 0) {
            assert!(tallies.iter().all(|tally| tally.disorder == 0), "{tallies:?}");
            break;
        }
        assert!(start.elapsed() < FLOWS, "the paused one misses what it is not told of: {tallies:?} of {sents:?}");
    }
    for (witness, id) in witnesses.iter().zip([ids[1], ids[0]]) {
        assert_eq!(witness.from(id).lost, 0, "the healthy ones lose nothing");
    }
    witnesses.clear();
    drop(site);
}

crate::cluster_site::promises! {
    on_redis Redis:
        killed_engine_comes_back
        cut_link_is_made_again
        black_hole_is_noticed_and_harms_nobody_else
        delay_loses_nothing
        what_a_node_missed_at_the_end_is_told_without_another_event
        what_was_not_sent_at_the_end_is_told_without_another_event
        killed_process_is_down_once_and_its_name_comes_back_as_another
        paused_process_is_not_noticed_by_the_others;
    on_nats Nats:
        killed_engine_comes_back
        cut_link_is_made_again
        black_hole_is_noticed_and_harms_nobody_else
        delay_loses_nothing
        what_a_node_missed_at_the_end_is_told_without_another_event
        what_was_not_sent_at_the_end_is_told_without_another_event
        killed_process_is_down_once_and_its_name_comes_back_as_another
        paused_process_is_not_noticed_by_the_others;
    on_redis_peers RedisPeers:
        killed_engine_comes_back
        cut_link_is_made_again
        black_hole_is_noticed_and_harms_nobody_else
        delay_loses_nothing
        what_a_node_missed_at_the_end_is_told_without_another_event
        what_was_not_sent_at_the_end_is_told_without_another_event
        killed_process_is_down_once_and_its_name_comes_back_as_another
        paused_process_is_not_noticed_by_the_others;
    on_nats_peers NatsPeers:
        killed_engine_comes_back
        cut_link_is_made_again
        black_hole_is_noticed_and_harms_nobody_else
        delay_loses_nothing
        what_a_node_missed_at_the_end_is_told_without_another_event
        what_was_not_sent_at_the_end_is_told_without_another_event
        killed_process_is_down_once_and_its_name_comes_back_as_another
        paused_process_is_not_noticed_by_the_others;
    on_zenoh Zenoh:
        cut_link_is_made_again
        black_hole_is_noticed_and_harms_nobody_else
        delay_loses_nothing
        what_a_node_missed_at_the_end_is_told_without_another_event
        killed_process_is_down_once_and_its_name_comes_back_as_another
        paused_process_is_not_noticed_by_the_others;
}

/// Between two broadcasts.
const PACE: Duration = Duration::from_millis(2);
/// Until everything flows again after it is healed.
const FLOWS: Duration = Duration::from_secs(10);
