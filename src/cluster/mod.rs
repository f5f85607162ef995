//! Cluster: one pub/sub over many processes. Knows frames, members and engines, no subscribers.
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
pub use crate::local::stats::ClusterStats;
