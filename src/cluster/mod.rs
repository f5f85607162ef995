//! Cluster: one pub/sub over many processes. Knows frames, members and engines, no subscribers.
pub(crate) mod queue;
pub(crate) mod subject;
pub(crate) mod transport;
#[cfg(feature = "zenoh")]
pub(crate) mod zenoh;

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
