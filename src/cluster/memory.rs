//! Memory: an engine within one process, for tests and examples, with faults to order. Knows no messages.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;

use tokio::sync::Notify;

use crate::cluster::frame::Frame;
use crate::cluster::frame::Kind;
use crate::cluster::subject::ClusterName;
use crate::cluster::subject::Subject;
use crate::cluster::transport::Identity;
use crate::cluster::transport::Inbound;
use crate::cluster::transport::Link;
use crate::cluster::transport::Outgoing;
use crate::cluster::transport::Transport;
use crate::cluster::transport::TransportCaps;
use crate::cluster::transport::TransportError;
use crate::cluster::transport::Work;
use crate::ids::NodeId;
use crate::sync::Arc;
use crate::sync::AtomicBool;
use crate::sync::Mutex;
use crate::sync::Ordering;
use crate::sync::lock;

/// A network within this process: every pub/sub that is built with a clone of it is a node of it.
///
/// ```
/// use actix_pubsub::PubSub;
/// use actix_pubsub::cluster::Memory;
///
/// # actix::System::new().block_on(async {
/// let network = Memory::new();
/// let here = PubSub::builder().cluster(network.clone()).build().unwrap();
/// let there = PubSub::builder().cluster(network.clone()).build().unwrap();
/// network.cut(there.node()); // and all that crosses is lost, until
/// network.heal(there.node());
/// # let _ = here;
/// # });
/// ```
#[derive(Clone)]
pub struct Memory {
    net: Arc<Net>,
    caps: TransportCaps,
}

#[derive(Default)]
struct Net {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    links: HashMap<NodeId, Ends>,
    /// Nodes that cannot connect.
    cut: HashSet<NodeId>,
    /// Broadcasts that are to vanish, for each node that would get them.
    losing: HashMap<NodeId, u64>,
    carried: HashMap<NodeId, u64>,
}

/// A link, as the network sees it.
struct Ends {
    cluster: ClusterName,
    subjects: HashSet<Subject>,
    inbound: Inbound,
    ended: Arc<Ended>,
}

#[derive(Default)]
struct Ended {
    is: AtomicBool,
    notify: Notify,
}

impl Ended {
    fn set(&self) {
        self.is.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    fn get(&self) -> Result<(), TransportError> {
        if self.is.load(Ordering::Acquire) { Err(TransportError::because("the link was cut")) } else { Ok(()) }
    }
}

impl Memory {
    /// A network that confirms interest and loses nothing.
    pub fn new() -> Self {
        Self { net: Arc::default(), caps: TransportCaps::new("memory") }
    }

    /// One over which the nodes tell each other what they listen to, as over zenoh.
    pub fn peer_interest(mut self) -> Self {
        self.caps = self.caps.peer_interest().silent_loss();
        self
    }

    /// Ends a node's link; it gets no other until [`heal`](Self::heal).
    pub fn cut(&self, node: NodeId) {
        let mut state = lock(&self.net.state);
        state.cut.insert(node);
        if let Some(ends) = state.links.remove(&node) {
            ends.ended.set();
        }
    }

    /// A node can connect again.
    pub fn heal(&self, node: NodeId) {
        lock(&self.net.state).cut.remove(&node);
    }

    /// The next so many broadcasts to a node vanish on the way, and nobody is told.
    pub fn lose(&self, node: NodeId, frames: u64) {
        *lock(&self.net.state).losing.entry(node).or_default() += frames;
    }

    /// Broadcasts that the network has carried to a node so far.
    pub fn carried_to(&self, node: NodeId) -> u64 {
        lock(&self.net.state).carried.get(&node).copied().unwrap_or_default()
    }

    /// Brings any bytes to all who are subscribed to a subject, as whoever has access to an engine can.
    pub fn inject(&self, subject: &Subject, bytes: &[u8]) {
        let state = lock(&self.net.state);
        for ends in state.links.values().filter(|ends| ends.subjects.contains(subject)) {
            ends.inbound.push(bytes::Bytes::copy_from_slice(bytes));
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("links", &lock(&self.net.state).links.len()).finish_non_exhaustive()
    }
}

impl Transport for Memory {
    fn caps(&self) -> TransportCaps {
        self.caps
    }

    fn connect(&self, identity: &Identity, inbound: Inbound) -> Work<Result<Arc<dyn Link>, TransportError>> {
        let (net, identity) = (Arc::clone(&self.net), identity.clone());
        Box::pin(async move {
            let mut state = lock(&net.state);
            if state.cut.contains(&identity.node) {
                return Err(TransportError::because("the network is cut"));
            }
            let ended = Arc::new(Ended::default());
            let (cluster, subjects) = (identity.cluster, HashSet::new());
            let before = state.links.insert(identity.node, Ends { cluster, subjects, inbound, ended: Arc::clone(&ended) });
            before.inspect(|before| before.ended.set());
            drop(state);
            Ok(Arc::new(MemoryLink { net, node: identity.node, ended }) as Arc<dyn Link>)
        })
    }
}

struct MemoryLink {
    net: Arc<Net>,
    node: NodeId,
    ended: Arc<Ended>,
}

impl MemoryLink {
    /// Works on this link's end, if it is still there.
    fn work(&self, work: impl FnOnce(&mut State, NodeId)) -> Work<Result<(), TransportError>> {
        let mut state = lock(&self.net.state);
        let done = self.ended.get();
        if done.is_ok() {
            work(&mut state, self.node);
        }
        Box::pin(std::future::ready(done))
    }
}

impl Link for MemoryLink {
    fn send(&self, frames: Vec<Outgoing>) -> Work<Result<(), TransportError>> {
        self.work(|state, me| {
            let State { links, losing, carried, .. } = state;
            let Some(cluster) = links.get(&me).map(|ends| ends.cluster.clone()) else { return };
            for Outgoing { subject, frame } in frames {
                let kind = Frame::decode(&frame, usize::MAX).map(|frame| frame.kind);
                let broadcast = matches!(kind, Ok(Kind::Event | Kind::Direct));
                let there = links.iter().filter(|(_, ends)| ends.cluster == cluster && ends.subjects.contains(&subject));
                for (node, ends) in there {
                    let counted = broadcast && *node != me;
                    if counted && let Some(left) = losing.get_mut(node).filter(|left| **left > 0) {
                        *left -= 1;
                        continue;
                    }
                    *carried.entry(*node).or_default() += u64::from(counted);
                    ends.inbound.push(frame.clone());
                }
            }
        })
    }

    fn subscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        self.work(|state, me| {
            if let Some(ends) = state.links.get_mut(&me) {
                ends.subjects.extend(subjects);
            }
        })
    }

    fn unsubscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        self.work(|state, me| {
            if let Some(ends) = state.links.get_mut(&me) {
                for subject in &subjects {
                    ends.subjects.remove(subject);
                }
            }
        })
    }

    fn ended(&self) -> Work<TransportError> {
        let ended = Arc::clone(&self.ended);
        Box::pin(async move {
            loop {
                let mut notified = std::pin::pin!(ended.notify.notified());
                // Before the look: what happens after it is not missed.
                notified.as_mut().enable();
                if let Err(error) = ended.get() {
                    return error;
                }
                notified.await;
            }
        })
    }

    fn close(&self) -> Work<()> {
        let closed = self.work(|state, me| {
            state.links.remove(&me);
        });
        Box::pin(async move {
            // It may have been cut before.
            let _ = closed.await;
        })
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        let mut state = lock(&self.net.state);
        // Not that of a link which this node has made since.
        if state.links.get(&self.node).is_some_and(|ends| Arc::ptr_eq(&ends.ended, &self.ended)) {
            state.links.remove(&self.node);
        }
    }
}
