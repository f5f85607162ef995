//! Event: what a cluster tells the actors that ask. Plain values; knows no engine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::ids::NodeId;
use crate::topic::Topic;

/// What happened in the cluster, as this node sees it: subscribe to [`ClusterEvent::TOPIC`] with this type.
///
/// Each is told once, to this node's subscribers only, in the order in which it happened.
///
/// ```
/// use actix_pubsub::PubSub;
/// use actix_pubsub::cluster::ClusterEvent;
/// use actix_pubsub::cluster::Memory;
/// use futures::StreamExt;
///
/// # actix::System::new().block_on(async {
/// let network = Memory::new();
/// let one = PubSub::builder().cluster(network.clone()).build().unwrap();
/// let mut events = one.stream::<ClusterEvent>(ClusterEvent::TOPIC).unwrap();
/// let other = PubSub::builder().cluster(network).build().unwrap();
/// while let Some(event) = events.next().await {
///     if let ClusterEvent::NodeUp { node } = &*event {
///         assert_eq!(node.id, other.node());
///         break;
///     }
/// }
/// # });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A node is here. From now on what this node broadcasts reaches it, and what it broadcasts reaches this one.
    NodeUp {
        /// Which.
        node: NodeInfo,
    },
    /// A node has gone.
    NodeDown {
        /// Which.
        node: NodeInfo,
        /// How that was noticed.
        reason: DownReason,
    },
    /// A node of this cluster has the other setting of `peer_interest`: the two do not meet, and nothing crosses between them. Told once for each of the
    /// first 256 after each [`LinkUp`](Self::LinkUp).
    NodeRefused {
        /// Which.
        node: NodeInfo,
    },
    /// This node is connected to the engine.
    LinkUp,
    /// This node is not connected to the engine any more: until [`LinkUp`](Self::LinkUp) nothing crosses. Told after each loss, and at the first try that failed.
    LinkDown {
        /// Why.
        reason: Arc<str>,
    },
    /// Broadcasts of another node did not arrive here, although this node listens. Exact, from the first on that arrived from
    /// that node on that topic after `cluster_ready`. Told when the next one arrives; of those at the end, about two heartbeats after there is a way between
    /// the nodes again.
    Lost {
        /// Whose.
        origin: NodeId,
        /// On which topic; `None`: sent to this node alone.
        topic: Option<Topic>,
        /// How many, right before the next one that arrives, or at the end for now.
        events: u64,
    },
}

impl ClusterEvent {
    /// The topic on which these are told.
    pub const TOPIC: &'static str = "$cluster";
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its id: another one each time that its process starts.
    pub id: NodeId,
    /// What people call it; two nodes may have one name.
    pub name: Arc<str>,
}

/// How the end of a node was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DownReason {
    /// It said so.
    Left,
    /// It was silent for this long.
    Silent {
        /// The failure time-out.
        silence: Duration,
    },
    /// The engine saw its connection end.
    Disconnected,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("it left"),
            Self::Silent { silence } => write!(f, "it was silent for {} ms", silence.as_millis()),
            Self::Disconnected => f.write_str("its connection ended"),
        }
    }
}
