//! Cluster: one pub/sub over many processes. Knows frames, members and engines, no subscribers.
//!
//! ```text
//!  broadcast ─► hub ─► outbound ─► relay ─► Link ═══ engine ═══ Link ─► inbound ─► relay ─► ports of who listens there
//!               encodes  bounded    the      of a    Redis,             bounded    checks
//!               once     queue      actor  Transport NATS, …            queue      numbers
//! ```
//! [`Builder::cluster`](crate::Builder::cluster) makes a pub/sub a node. Its relay, an actor in an arbiter of its own, meets those of the other nodes at an engine: [`Redis`] (feature `redis`),
//! [`Nats`] (`nats`), [`Zenoh`] (`zenoh`; no server at all), [`Memory`] in one process, or a [`Transport`] of your own.
//!
//! # Guarantees
//! * A broadcast crosses to each node that listens to its topic once, whatever the number of its subscribers there, and to no other.
//! * One publisher's events reach a subscriber on another node in the publisher's order, across topics.
//! * Once [`cluster_ready`](crate::Subscription::cluster_ready) has resolved, what another node broadcasts after that arrives, or is told as lost.
//! * Nothing is lost silently: [`ClusterEvent::Lost`] counts exactly what did not arrive, from the first on that arrived from a node on a topic after `cluster_ready`;
//!   [`Receipt::cluster`](crate::Receipt) says what was not sent.
//! * Neither another node nor the engine can make a broadcast wait or fail, or keep it from this node's subscribers. What waits for the engine is bounded.
//! * A node that dies, leaves or hangs is [`NodeDown`](ClusterEvent::NodeDown) once, within the failure time-out.
//! * Whatever bytes an engine brings are read, or counted and dropped.
//!
//! # Who may do what
//! Whoever may publish at the engine may say anything in any node's name: a cluster is as safe as its engine. Give it credentials, TLS and rights for the names that [`Subject`] gives.
//!
//! # Two kinds of interest
//! Redis and NATS carry topics: a relay asks for those that its node listens to, and the engine confirms it. A broadcast is one message to the engine, however many nodes listen, and
//! a node knows nothing of the others' topics: it suits many nodes with many topics.
//!
//! Over zenoh and other meshes the relays tell each other what they listen to and confirm it to each other ([`TransportCaps::confirms_interest`]). A broadcast is one frame to each node
//! that listens, and none where nobody does; frames that wait for one node go in one message. Each node knows the topics of all.
//! `Redis::peer_interest` and `Nats::peer_interest` choose this for those engines; it suits a few nodes, up to about ten, with much to say. Nodes that chose differently do not meet:
//! [`ClusterEvent::NodeRefused`] names each.
//!
#[cfg(any(feature = "nats", feature = "redis", feature = "zenoh"))]
pub(crate) mod batch;
pub(crate) mod core;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod hub;
pub(crate) mod interest;
pub(crate) mod members;
pub(crate) mod memory;
pub(crate) mod note;
pub(crate) mod numbers;
pub(crate) mod options;
pub(crate) mod peers;
pub(crate) mod queue;
#[cfg(test)]
mod queue_tests;
pub(crate) mod relay;
#[cfg(test)]
mod sim;
pub(crate) mod stats;
#[cfg(any(feature = "nats", feature = "redis"))]
mod fate;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;
pub(crate) mod subject;
pub(crate) mod trace;
pub(crate) mod transport;
#[cfg(feature = "zenoh")]
pub(crate) mod zenoh;

pub use crate::cluster::event::ClusterEvent;
pub use crate::cluster::event::DownReason;
pub use crate::cluster::event::NodeInfo;
pub use crate::cluster::hub::Crossing;
pub use crate::cluster::memory::Memory;
#[cfg(feature = "nats")]
pub use crate::cluster::nats::Nats;
pub use crate::cluster::options::ClusterError;
pub use crate::cluster::options::ClusterOptions;
pub use crate::cluster::options::LinkOverflow;
#[cfg(feature = "redis")]
pub use crate::cluster::redis::Redis;
pub use crate::cluster::stats::ClusterStats;
pub use crate::cluster::stats::PeerStats;
pub use crate::cluster::subject::ClusterName;
pub use crate::cluster::subject::ClusterNameError;
pub use crate::cluster::subject::Subject;
pub use crate::cluster::transport::Identity;
pub use crate::cluster::transport::Inbound;
pub use crate::cluster::transport::Link;
pub use crate::cluster::transport::Outgoing;
pub use crate::cluster::transport::Transport;
pub use crate::cluster::transport::TransportCaps;
pub use crate::cluster::transport::TransportError;
pub use crate::cluster::transport::Work;
#[cfg(feature = "zenoh")]
pub use crate::cluster::zenoh::Zenoh;
pub use crate::codec::Codec;
pub use crate::codec::CodecError;
pub use crate::codec::CustomCodec;
pub use crate::local::remote::ClusterReady;
pub use crate::local::remote::NotReady;
