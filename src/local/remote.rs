//! Remote: what a subscription asks of the cluster, if there is one. Knows no cluster.

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use crate::topic::Topic;

/// The cluster, as a subscription sees it.
pub(crate) trait Remote: Send + Sync {
    fn ready(&self, topic: Topic, message: (TypeId, &'static str)) -> Waiting;
}

pub(crate) type Waiting = Pin<Box<dyn Future<Output = Result<(), NotReady>> + Send>>;

/// Resolves when what other nodes broadcast arrives: what [`Subscription::cluster_ready`](crate::Subscription::cluster_ready) returns.
///
/// It borrows nothing and may be awaited anywhere, or not at all.
#[must_use = "it does nothing but wait"]
pub struct ClusterReady {
    waiting: Option<Waiting>,
}

impl ClusterReady {
    pub(crate) fn new(waiting: Option<Waiting>) -> Self {
        Self { waiting }
    }
}

impl Future for ClusterReady {
    type Output = Result<(), NotReady>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().waiting {
            Some(waiting) => waiting.as_mut().poll(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl fmt::Debug for ClusterReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterReady").field("clustered", &self.waiting.is_some()).finish()
    }
}

/// Why what other nodes broadcast will not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReady {
    /// The subscription has ended.
    NotSubscribed,
    /// The pub/sub was shut down.
    Closed,
    /// No other node can name this type: it is not given to [`Builder::message`](crate::Builder::message), and nothing of it was broadcast here yet.
    Unnamed {
        /// The type, as `std::any::type_name` writes it.
        message: &'static str,
    },
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSubscribed => f.write_str("the subscription has ended"),
            Self::Closed => f.write_str("the pub/sub was shut down"),
            Self::Unnamed { message } => write!(f, "type {message} has no name in the cluster, give it by Builder::message"),
        }
    }
}

impl std::error::Error for NotReady {}
