//! Cluster: one pub/sub over many processes. Knows frames, members and engines, no subscribers.
#[cfg(any(feature = "nats", feature = "redis"))]
mod fate;
#[cfg(feature = "nats")]
mod nats;
pub(crate) mod queue;
#[cfg(feature = "redis")]
mod redis;
pub(crate) mod subject;
pub(crate) mod transport;

#[cfg(feature = "nats")]
pub use crate::cluster::nats::Nats;
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
