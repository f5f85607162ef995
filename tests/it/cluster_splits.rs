//! Splits: links of real networks that go down, so that packets vanish and nobody is told. Each node is a process in a network namespace of its own.

use std::time::Duration;
use std::time::Instant;

use crate::cluster_site::FAILURE;
use crate::cluster_site::Kind;
use crate::cluster_site::MULTICAST;
use crate::cluster_site::Other;
use crate::cluster_site::Report;
use crate::cluster_site::SLACK;
use crate::namespaces::Network;

/// Nodes that listen and broadcast, all of them, all the time.
struct Scene {
    nodes: Vec<Other>,
    network: Network,
}

impl Scene {
    /// So many nodes at two bridges, the first half at the one where the engine is, too. A seed of zenoh is at each end.
    async fn new(kind: Kind, count: usize) -> Self {
        Self::with_seeds(kind, count, &format!("tcp/{}:7447,tcp/{}:7447", address(0), address(count - 1))).await
    }

    async fn with_seeds(kind: Kind, count: usize, seeds: &str) -> Self {
        let mut network = Network::new(&["left", "right"]);
        for at in 0..count {
            network.place(&format!("node-{at}"), if at < count.div_ceil(2) { "left" } else { "right" }, &address(at));
        }
        network.place("engine", "left", ENGINE);
        let engine = match kind {
            Kind::Redis | Kind::RedisPeers => {
                // Nothing is behind `--save`.
                network.run("engine", &format!("redis-server --bind {ENGINE} --protected-mode no --save  --appendonly no"));
                format!("redis://{ENGINE}:6379")
            }
            Kind::Nats | Kind::NatsPeers => {
                network.run("engine", &format!("nats-server -a {ENGINE} -p 4222"));
                format!("nats://{ENGINE}:4222")
            }
            Kind::Zenoh => seeds.to_owned(),
        };
        let this = std::env::current_exe().unwrap();
        let start = |at: usize| {
            let listen = if kind == Kind::Zenoh { format!("tcp/{}:7447", address(at)) } else { "-".to_owned() };
            let mut command = network.command(&format!("node-{at}"), this.to_str().unwrap());
            let told = format!("{kind:?} {listen} {engine} split node-{at}");
            // As `Zenoh` says it: one thread for each node that may vanish at once, and some to spare.
            command.env("ZENOH_RUNTIME", "(rx: (worker_threads: 8))");
            // Each waits until it is not alone.
            std::thread::spawn(move || Other::run(command, "cluster_site::other_process", &told))
        };
        let starting: Vec<_> = (0..count).map(start).collect();
        let nodes = starting.into_iter().map(|node| node.join().unwrap()).collect();
        let mut scene = Self { nodes, network };
        scene.wait("all know each other", |at, other, report| at == other || report.ups == 1).await;
        scene.tell("go");
        scene.flows("before anything is harmed").await;
        scene
    }

    fn tell(&mut self, what: &str) {
        self.nodes.iter_mut().for_each(|node| node.tell(what));
    }

    /// What one node has of another, or of itself.
    fn of(&mut self, at: usize, other: usize) -> Report {
        let origin = self.nodes[other].id;
        self.nodes[at].report(origin)
    }

    /// What each has of each.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.nodes.len();
        (0..count).flat_map(move |at| (0..count).map(move |other| (at, other)))
    }

    /// Until it is so for each two nodes.
    async fn wait(&mut self, what: &str, is_so: impl Fn(usize, usize, &Report) -> bool) {
        let start = Instant::now();
        for (at, other) in self.pairs() {
            loop {
                let report = self.of(at, other);
                if is_so(at, other, &report) {
                    break;
                }
                assert!(start.elapsed() < FLOWS, "node {at} of node {other}, {what}: {report:?}");
                actix::clock::timeout(POLL, std::future::pending::<()>()).await.unwrap_err();
            }
        }
    }

    /// Until what is broadcast from now on has come from each to each.
    async fn flows(&mut self, when: &str) {
        let marks: Vec<_> = (0..self.nodes.len()).map(|at| self.of(at, at).sent + 20).collect();
        self.wait(when, |_, other, report| report.tally.last >= marks[other]).await;
    }

    /// Pulls a cable, by which the nodes fall into these groups, and plugs it in again. `alone`: whoever is alone is so because it has no engine.
    async fn goes_through(&mut self, cable: &str, groups: &[&[usize]], alone: bool) {
        let group = |at: usize| groups.iter().position(|group| group.contains(&at)).unwrap();
        let is_cut_off = |at: usize| alone && groups[group(at)].len() == 1;
        self.tell("forget");
        let before: Vec<_> = self.pairs().map(|(at, other)| self.of(at, other)).collect();
        let pulled = Instant::now();
        self.network.pull(cable);
        let noticed = |at, other, report: &Report| group(at) == group(other) || report.downs == 1;
        self.wait("the others are down", noticed).await;
        let noticed = pulled.elapsed();
        assert!(noticed < FAILURE + SLACK, "noticed after {noticed:?}");
        // It goes on for a while.
        let marks: Vec<_> = (0..self.nodes.len()).map(|at| self.of(at, at).sent + 100).collect();
        self.wait("within a group", |at, other, report| group(at) != group(other) || report.tally.last >= marks[other]).await;
        for (at, other) in self.pairs() {
            let report = self.of(at, other);
            // An engine that was not there yet at the start is a link that was down.
            let links = before[at * self.nodes.len() + other].link_downs + u64::from(is_cut_off(at));
            let has = (report.downs, report.tally.lost, report.link_downs);
            if group(at) == group(other) {
                assert_eq!(has, (0, 0, links), "node {at} of node {other}, which are together: {report:?}");
                assert!(report.gap < FAILURE, "node {at} of node {other}, which are together: {report:?}");
            } else {
                assert_eq!(has.0, 1, "node {at} of node {other}, which are apart: {report:?}");
                let crossed = report.tally.last - before[at * self.nodes.len() + other].tally.last;
                assert!(crossed < 100, "nothing crosses, and {crossed} did");
            }
        }
        let plugged = Instant::now();
        self.network.plug(cable);
        self.flows("after the cable is plugged in").await;
        let healed = plugged.elapsed();
        eprintln!("{cable}: down after {noticed:?}, flows after {healed:?}");
        assert!(healed < FAILURE + SLACK, "it flows again after {healed:?}");
        self.wait("all are up", |at, other, report| report.ups == u64::from(at != other) + u64::from(group(at) != group(other)))
            .await;
        for (at, other) in self.pairs() {
            let report = self.of(at, other);
            assert_eq!(report.downs, u64::from(group(at) != group(other)), "node {at} of node {other}, once: {report:?}");
            let before = &before[at * self.nodes.len() + other];
            let (downs, ups) = (report.link_downs - before.link_downs, report.link_ups - before.link_ups);
            assert_eq!((downs, ups), (u64::from(is_cut_off(at)), u64::from(is_cut_off(at))), "node {at}: {report:?}");
            assert!((report.sent_link_down > 0) == is_cut_off(at), "node {at}: {report:?}");
        }
    }

    /// Nobody broadcasts any more; every broadcast has then come to every node or is told to it as lost, none twice, and the own have all come.
    async fn settle(&mut self) {
        self.tell("stop");
        let sent: Vec<_> = (0..self.nodes.len()).map(|at| self.of(at, at).sent).collect();
        self.wait("received, or told as lost", |_, other, report| report.tally.untold(sent[other]) == 0).await;
        for (at, other) in self.pairs() {
            let report = self.of(at, other);
            assert_eq!(report.tally.disorder, 0, "node {at} of node {other}: {report:?}");
            if at == other {
                assert_eq!((report.tally.received, report.tally.lost), (sent[at], 0), "local delivery never stops");
            }
        }
    }
}

async fn cable_of_a_node_that_is_pulled_harms_nobody_else(kind: Kind) {
    let mut scene = Scene::new(kind, 3).await;
    scene.goes_through("node-1", &[&[0, 2], &[1]], kind != Kind::Zenoh).await;
    scene.settle().await;
}

async fn cable_of_the_engine_that_is_pulled_stops_no_local_delivery(kind: Kind) {
    let mut scene = Scene::new(kind, 3).await;
    scene.goes_through("engine", &[&[0], &[1], &[2]], true).await;
    scene.settle().await;
}

async fn halves_of_a_split_go_on_and_are_whole_again(kind: Kind) {
    let mut scene = Scene::new(kind, 4).await;
    match kind {
        Kind::Zenoh => scene.goes_through("to-right", &[&[0, 1], &[2, 3]], false).await,
        _ => scene.goes_through("to-right", &[&[0, 1], &[2], &[3]], true).await,
    }
    scene.settle().await;
}

/// Nobody broadcasts after it who could reveal a gap.
async fn what_a_split_swallowed_at_the_end_is_told_without_another_event(kind: Kind) {
    let mut scene = Scene::new(kind, 2).await;
    // Too short to be noticed as a rule; with more on its way than the sockets and the engine hold. Then long enough.
    for is_short in [true, false] {
        scene.settle().await;
        let before: Vec<_> = (0..2).map(|at| scene.of(at, 1 - at)).collect();
        scene.tell(if is_short { "flood" } else { "go" });
        scene.flows("before it is split").await;
        scene.network.pull("to-right");
        let marks: Vec<_> = (0..2).map(|at| scene.of(at, at).sent + 50).collect();
        scene.wait("local delivery goes on", |at, other, report| at != other || report.tally.last >= marks[at]).await;
        if !is_short {
            scene.wait("the other is down", |at, other, report| at == other || report.downs > before[at].downs).await;
        }
        scene.tell("stop");
        // They have stopped when they answer.
        let sent: Vec<_> = (0..2).map(|at| scene.of(at, at).sent).collect();
        scene.network.plug("to-right");
        let plugged = Instant::now();
        scene.settle().await;
        for (at, before) in before.iter().enumerate() {
            let report = scene.of(at, 1 - at);
            let (lost, downs) = (report.tally.lost - before.tally.lost, report.downs - before.downs);
            eprintln!("{kind:?}: node {at} lost {lost} of {sent:?}, downs {downs}, told within {:?}", plugged.elapsed());
            assert!(is_short || lost > 0, "nothing was lost: {report:?}");
        }
    }
}

/// They were met by gossip of the seed, which both keep. Zenoh alone does not make them dial each other again.
async fn two_that_lose_only_each_other_meet_again_by_multicast(kind: Kind) {
    let mut scene = Scene::with_seeds(kind, 3, &format!("tcp/{}:7447,{MULTICAST}", address(0))).await;
    let pair = [("node-1", address(2)), ("node-2", address(1))];
    for (place, other) in &pair {
        scene.network.part(place, other);
    }
    scene.wait("the two are down", |at, other, report| at == other || at == 0 || other == 0 || report.downs == 1).await;
    for (place, other) in &pair {
        scene.network.join(place, other);
    }
    let healed = Instant::now();
    scene.wait("the two are up", |at, other, report| at == other || at == 0 || other == 0 || report.ups == 2).await;
    eprintln!("they meet again after {:?}", healed.elapsed());
    scene.flows("after they met").await;
    for other in [1, 2] {
        assert_eq!((scene.of(0, other).downs, scene.of(other, 0).downs), (0, 0), "the seed did not notice");
    }
    scene.settle().await;
}

fn address(at: usize) -> String {
    format!("10.77.0.{}", 10 + at)
}

crate::cluster_site::promises! {
    on_redis Redis:
        cable_of_a_node_that_is_pulled_harms_nobody_else
        cable_of_the_engine_that_is_pulled_stops_no_local_delivery
        halves_of_a_split_go_on_and_are_whole_again
        what_a_split_swallowed_at_the_end_is_told_without_another_event;
    on_nats Nats:
        cable_of_a_node_that_is_pulled_harms_nobody_else
        cable_of_the_engine_that_is_pulled_stops_no_local_delivery
        halves_of_a_split_go_on_and_are_whole_again
        what_a_split_swallowed_at_the_end_is_told_without_another_event;
    on_redis_peers RedisPeers:
        halves_of_a_split_go_on_and_are_whole_again
        what_a_split_swallowed_at_the_end_is_told_without_another_event;
    on_zenoh Zenoh:
        two_that_lose_only_each_other_meet_again_by_multicast
        cable_of_a_node_that_is_pulled_harms_nobody_else
        halves_of_a_split_go_on_and_are_whole_again
        what_a_split_swallowed_at_the_end_is_told_without_another_event;
}

const ENGINE: &str = "10.77.0.2";
/// Between two looks at another process.
const POLL: Duration = Duration::from_millis(10);
/// Until what must happen has happened, on a machine that does ten other things.
const FLOWS: Duration = Duration::from_secs(20);
