//! Arrivals: what a transport brings, for who tests one without a relay. Knows no engine.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::ClusterName;
use crate::cluster::Identity;
use crate::cluster::Inbound;
use crate::cluster::queue::Queue;
use crate::cluster::transport::Arrived;
use crate::ids::NodeId;

/// The receiving end of an [`Inbound`].
pub struct Arrivals {
    pub(super) queue: Arc<Queue<Arrived>>,
    taken: VecDeque<Arrived>,
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A frame.
    Frame(Bytes),
    /// The engine says that this node has gone.
    Gone(NodeId),
}

impl Arrivals {
    /// A pair of both ends, for so many frames and bytes.
    pub fn new(frames_max: usize, bytes_max: usize) -> (Self, Inbound) {
        let queue = Arc::new(Queue::new(frames_max, bytes_max));
        let inbound = Inbound::new(Arc::clone(&queue));
        (Self { queue, taken: VecDeque::new() }, inbound)
    }

    /// The next one. Waits for ever: bring a deadline. Cancel safe.
    pub async fn next(&mut self) -> Arrival {
        poll_fn(|cx| {
            if self.taken.is_empty() {
                self.queue.drain(&mut self.taken, cx.waker());
            }
            match self.taken.pop_front() {
                None => Poll::Pending,
                Some(Arrived::Frame(frame)) => Poll::Ready(Arrival::Frame(frame)),
                Some(Arrived::Gone(node)) => Poll::Ready(Arrival::Gone(node)),
                Some(Arrived::Confirmed(..)) => unreachable!("only a relay says that"),
            }
        })
        .await
    }

    /// The next frame. What the engine says of nodes that have gone is left out. Cancel safe.
    pub async fn frame(&mut self) -> Bytes {
        loop {
            if let Arrival::Frame(frame) = self.next().await {
                return frame;
            }
        }
    }

    /// Frames that found no room.
    pub fn refused(&self) -> u64 {
        self.queue.refused()
    }
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").field("queued", &(self.taken.len() + self.queue.len())).finish_non_exhaustive()
    }
}

/// A node with a new id.
///
/// # Panics
/// If `cluster` is no name of a cluster.
pub fn identity(cluster: &str, failure_timeout: Duration) -> Identity {
    let cluster = ClusterName::parse(cluster).expect("a name of a cluster");
    Identity { cluster, node: NodeId::random(), name: Arc::from("test"), frame_bytes_max: 1 << 20, failure_timeout }
}
