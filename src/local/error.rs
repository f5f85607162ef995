//! Errors of the local core: one enum per operation. Knows no cause beyond its own data.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::topic::TopicError;

/// Why a subscription was not made. Nothing was changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The topic's name is refused.
    Topic(TopicError),
    /// The capacity is not between 1 and the limit.
    Capacity {
        /// The refused capacity, in events.
        capacity: usize,
        /// The limit, in events.
        max: usize,
    },
    /// The calling thread runs no arbiter, so no registry can serve the subscription there.
    NoArbiter,
    /// The `PubSub` was shut down.
    Closed,
    /// The thread that serves subscribers from outside could not be started.
    Background(Arc<io::Error>),
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(_) => f.write_str("cannot subscribe to this topic"),
            Self::Capacity { capacity, max } => write!(f, "capacity is {capacity} events, it must be 1 to {max}"),
            Self::NoArbiter => f.write_str("no arbiter runs on this thread, subscribe inside an actix system"),
            Self::Closed => f.write_str("the pub/sub was shut down"),
            Self::Background(_) => f.write_str("the thread for subscribers from outside did not start"),
        }
    }
}

impl std::error::Error for SubscribeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Topic(source) => Some(source),
            Self::Background(source) => Some(&**source),
            Self::Capacity { .. } | Self::NoArbiter | Self::Closed => None,
        }
    }
}

impl From<TopicError> for SubscribeError {
    fn from(source: TopicError) -> Self {
        Self::Topic(source)
    }
}

/// Why a broadcast was not taken at all. The message comes back.
///
/// A full port is no error: the other arbiters got the event, and the [`Receipt`](crate::Receipt) says how many did not.
#[non_exhaustive]
pub enum BroadcastError<M> {
    /// The topic's name is refused.
    Topic {
        /// What is wrong with it.
        source: TopicError,
        /// The message, untouched.
        message: M,
    },
    /// The `PubSub` was shut down.
    Closed {
        /// The message, untouched.
        message: M,
    },
}

impl<M> BroadcastError<M> {
    /// The message that was not broadcast.
    pub fn into_message(self) -> M {
        match self {
            Self::Topic { message, .. } | Self::Closed { message } => message,
        }
    }
}

impl<M> fmt::Debug for BroadcastError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic { source, .. } => f.debug_struct("Topic").field("source", source).finish_non_exhaustive(),
            Self::Closed { .. } => f.debug_struct("Closed").finish_non_exhaustive(),
        }
    }
}

impl<M> fmt::Display for BroadcastError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic { .. } => f.write_str("cannot broadcast to this topic"),
            Self::Closed { .. } => f.write_str("the pub/sub was shut down"),
        }
    }
}

impl<M> std::error::Error for BroadcastError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Topic { source, .. } => Some(source),
            Self::Closed { .. } => None,
        }
    }
}

/// Why a `PubSub` was not built.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The port's capacity is not between 1 and the limit.
    PortCapacity {
        /// The refused capacity, in events.
        capacity: usize,
        /// The limit, in events.
        max: usize,
    },
    /// A pattern of `retain` that no topic can fit.
    Pattern(TopicError),
    /// Two message types with one `Payload::NAME`.
    NameTaken {
        /// The name.
        name: &'static str,
        /// The type that has it.
        by: &'static str,
    },
    /// The log's thread could not be started.
    Thread(io::ErrorKind),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortCapacity { capacity, max } => write!(f, "port capacity is {capacity} events, it must be 1 to {max}"),
            Self::Pattern(_) => f.write_str("no topic can fit the pattern of a retention"),
            Self::NameTaken { name, by } => write!(f, "message name {name:?} belongs to type {by} already"),
            Self::Thread(kind) => write!(f, "the log's thread did not start: {kind}"),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pattern(source) => Some(source),
            Self::PortCapacity { .. } | Self::NameTaken { .. } | Self::Thread(_) => None,
        }
    }
}
