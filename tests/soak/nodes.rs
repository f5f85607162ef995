//! Nodes: what one node of a cluster heard of the others, and nodes in processes of their own, which are killed and paused.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix::SystemRunner;
use actix_pubsub::NodeId;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::Subscription;
use actix_pubsub::cluster::ClusterEvent;
use futures::StreamExt;

use crate::cluster_site::Other;
use crate::cluster_site::Report;
use crate::cluster_site::Site;
use crate::cluster_site::Tally;
use crate::cluster_site::obey;
use crate::cluster_site::resident_kib;
use crate::cluster_site::told_to_be;
use crate::gate::PATIENCE;
use crate::gate::settles;
use crate::support::Note;
use crate::support::system;
use crate::support::until;

/// What came from each node on [`TOPIC`].
#[derive(Clone, Default)]
pub(crate) struct Heard {
    tallies: Arc<Mutex<HashMap<NodeId, Tally>>>,
    /// Found the arbiter's port full, whosesoever they were.
    missed: Arc<AtomicU64>,
}

impl Heard {
    /// On the calling arbiter, until the pub/sub ends.
    pub(crate) fn listen(node: &PubSub) -> (Self, Subscription) {
        let heard = Self::default();
        let options = SubscribeOptions::new().capacity(100_000).metadata("heard");
        let mut events = node.stream_with::<ClusterEvent>(ClusterEvent::TOPIC, &options).unwrap();
        let mut notes = node.stream_with::<Note>(TOPIC, &options).unwrap();
        let (subscription, theirs) = (notes.subscription().clone(), heard.clone());
        actix_rt::spawn(async move {
            while let Some(event) = events.next().await {
                if let ClusterEvent::Lost { origin, topic: Some(_), events } = &*event {
                    theirs.tallies.lock().unwrap().entry(*origin).or_default().lost += events;
                }
            }
        });
        let theirs = heard.clone();
        actix_rt::spawn(async move {
            while let Some(event) = notes.next().await {
                theirs.missed.fetch_add(event.missed(), Ordering::SeqCst);
                theirs.tallies.lock().unwrap().entry(event.node()).or_default().take(event.0);
            }
        });
        (heard, subscription)
    }

    pub(crate) fn of(&self, origin: NodeId) -> Tally {
        self.tallies.lock().unwrap().get(&origin).copied().unwrap_or_default()
    }

    /// Of all others it is not asked again.
    fn keep(&self, origins: &[NodeId]) {
        self.tallies.lock().unwrap().retain(|origin, _| origins.contains(origin));
    }
}

/// Of a listener, an origin, what came.
type Of = (NodeId, NodeId, Tally);

/// A node here and some in other processes, of which each broadcasts to all.
pub(crate) struct Nodes {
    pub(crate) here: NodeId,
    pub(crate) heard: Heard,
    pub(crate) others: Vec<Other>,
    pub(crate) resident_kib: u64,
    started: u32,
    /// The last so many have come since everything flowed.
    fresh: usize,
}

impl Nodes {
    pub(crate) fn new(here: NodeId, heard: Heard) -> Self {
        Self { here, heard, others: Vec::new(), resident_kib: 0, started: 0, fresh: 0 }
    }

    /// Until there are as many as there should be, each broadcasting.
    pub(crate) fn replenish(&mut self, site: &Site) {
        while self.others.len() < OTHERS {
            self.started += 1;
            self.fresh += 1;
            let mut other = Other::spawn(site, &format!("other-{}", self.started), "nodes::other_node");
            other.tell("go");
            self.others.push(other);
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, which: usize) {
        if which < self.others.len() {
            drop(self.others.remove(which));
        }
    }

    pub(crate) fn signal(&self, which: usize, signal: &str) {
        if let Some(other) = self.others.get(which) {
            other.signal(signal);
        }
    }

    fn ids(&self) -> Vec<NodeId> {
        self.others.iter().map(|other| other.id).collect()
    }

    /// What each has of each, and how many each has sent by then, or a little later.
    fn look(&mut self, sent_here: u64) -> (Vec<Of>, HashMap<NodeId, u64>) {
        let (here, ids) = (self.here, self.ids());
        let mut tallies: Vec<_> = ids.iter().map(|origin| (here, *origin, self.heard.of(*origin))).collect();
        let mut sent = HashMap::from([(here, sent_here)]);
        for other in &mut self.others {
            for origin in ids.iter().chain([&here]) {
                let Report { tally, sent: own, resident_kib, .. } = other.report(*origin);
                self.resident_kib = self.resident_kib.max(resident_kib);
                sent.insert(other.id, own);
                tallies.push((other.id, *origin, tally));
            }
        }
        (tallies, sent)
    }

    /// Everything flows again: what is broadcast from now on comes to everybody.
    pub(crate) fn flow(&mut self, name: &str, sent_here: impl Fn() -> u64) {
        let (_, marks) = self.look(sent_here());
        let mut last = Vec::new();
        let mut flows = || {
            (last, _) = self.look(sent_here());
            last.iter().all(|(_, origin, tally)| tally.first.is_some() && tally.last > marks[origin])
        };
        let start = Instant::now();
        while !flows() {
            assert!(start.elapsed() < PATIENCE, "{name} does not flow again after {marks:?}: {last:?}");
        }
        let fresh = std::mem::take(&mut self.fresh);
        self.others.iter_mut().rev().take(fresh).for_each(|other| other.tell("anew"));
    }

    /// Nobody broadcasts any more, and everything has come or was told as lost, nothing twice.
    pub(crate) fn settle(&mut self, name: &str, sent_here: u64) -> u64 {
        self.others.iter_mut().for_each(|other| other.tell("stop"));
        let start = Instant::now();
        loop {
            let (tallies, sent) = self.look(sent_here);
            let twice = tallies.iter().find(|(_, _, tally)| tally.disorder > 0);
            assert!(twice.is_none(), "{name}: twice, or out of order (listener, origin, tally): {twice:?}");
            let untold = |(listener, origin, tally): &Of| (*listener, tally.untold(sent[origin]));
            let (here, there): (Vec<_>, Vec<_>) = tallies.iter().map(untold).partition(|(listener, _)| *listener == self.here);
            let missed = self.heard.missed.load(Ordering::SeqCst).cast_signed();
            let here_told =
                here.iter().all(|(_, events)| *events >= 0) && here.iter().map(|(_, events)| events).sum::<i64>() <= missed;
            if here_told && there.iter().all(|(_, events)| *events == 0) {
                break;
            }
            let found = || format!("sent {sent:?}, (listener, origin, tally) {tallies:?}, missed here {missed}");
            assert!(start.elapsed() < PATIENCE, "{name}: neither received nor told as lost: {}", found());
        }
        let ids = self.ids();
        self.heard.keep(&ids);
        let (tallies, _) = self.look(sent_here);
        tallies.iter().map(|(_, _, tally)| tally.lost).sum()
    }
}

/// No test: a node in another process, told what to do by who started it.
#[test]
fn other_node() {
    let Some((builder, _)) = told_to_be() else { return };
    system(async {
        let node = builder.message::<Note>().build().unwrap();
        let (heard, subscription) = Heard::listen(&node);
        until("it is not alone", || !node.nodes().is_empty()).await;
        let ready = actix::clock::timeout(PATIENCE, subscription.cluster_ready()).await;
        ready.expect("ready in time").unwrap();
        // Of what it missed before it was ready it is told nothing: it counts from the first that came after.
        let read = || subscription.stats().is_some_and(|of| of.depth == 0);
        until("what came before is read", || read() && node.summary().arbiters.iter().all(|arbiter| arbiter.port_depth == 0))
            .await;
        heard.keep(&[]);
        println!("told {}", node.node().to_bits());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        obey(move |line| drop(tell.send(line.to_owned())));
        let (goes, sent) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (going, counted) = (Rc::clone(&goes), Rc::clone(&sent));
        actix_rt::spawn(async move {
            let mut pace = actix_rt::time::interval(PACE);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
                if going.get() {
                    node.broadcast(TOPIC, Note(counted.get())).unwrap();
                    counted.set(counted.get() + 1);
                }
            }
        });
        while let Some(line) = told.recv().await {
            match line.parse() {
                // What was refused while a link was down is numbered before what waited there meanwhile: who hears that first is not told of it.
                Err(_) if line == "anew" => heard.keep(&[]),
                Err(_) => goes.set(line == "go"),
                Ok(origin) => {
                    let Tally { first, last, received, lost, disorder, .. } = heard.of(NodeId::from_bits(origin));
                    let (first, sent) = (first.unwrap_or(u64::MAX), sent.get());
                    println!("told {first} {last} {received} {lost} {disorder} {} {sent} 0 0 0 0 0 0 0", resident_kib());
                }
            }
        }
    });
}

/// Until the node here knows so many.
pub(crate) fn all_here(system: &SystemRunner, name: &str, node: &PubSub) {
    let what = format!("{name}: the nodes know each other");
    settles(system, &what, || node.nodes().len() == OTHERS, || format!("{:?}", node.nodes()));
}

/// What nodes tell each other on.
pub(crate) const TOPIC: &str = "t";
/// In processes of their own.
pub(crate) const OTHERS: usize = 2;
/// Between two broadcasts.
pub(crate) const PACE: Duration = Duration::from_millis(5);
