//! Errors of the local core: one enum per operation. Knows no cause beyond its own data.
//!
//! What another enum of this crate says is part of the text, with its limit and its value, so that who prints only the error sees them. It is said once: `source` goes on with
//! what that one comes from.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::codec::CodecError;
use crate::ids::NodeId;
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
            Self::Topic(source) => write!(f, "cannot subscribe: {source}"),
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
            Self::Topic(source) => source.source(),
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
    /// The message cannot be written for other nodes.
    Encode {
        /// What the codec said.
        source: CodecError,
        /// The message, untouched.
        message: M,
    },
    /// The message is too long for other nodes.
    TooLarge {
        /// The length of its frame in bytes.
        bytes: usize,
        /// The limit in bytes: `ClusterOptions::frame_bytes_max`.
        max: usize,
        /// The message, untouched.
        message: M,
    },
    /// Two message types with one `Payload::NAME`.
    NameTaken {
        /// The name.
        name: &'static str,
        /// The type that has it.
        by: &'static str,
        /// The message, untouched.
        message: M,
    },
    /// There is no node of this id in the cluster, as far as this one knows.
    UnknownNode {
        /// The id.
        node: NodeId,
        /// The message, untouched.
        message: M,
    },
}

impl<M> BroadcastError<M> {
    /// The message that was not broadcast.
    pub fn into_message(self) -> M {
        match self {
            Self::Topic { message, .. }
            | Self::Closed { message }
            | Self::Encode { message, .. }
            | Self::TooLarge { message, .. }
            | Self::NameTaken { message, .. }
            | Self::UnknownNode { message, .. } => message,
        }
    }
}

impl<M> fmt::Debug for BroadcastError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic { source, .. } => f.debug_struct("Topic").field("source", source).finish_non_exhaustive(),
            Self::Closed { .. } => f.debug_struct("Closed").finish_non_exhaustive(),
            Self::Encode { source, .. } => f.debug_struct("Encode").field("source", source).finish_non_exhaustive(),
            Self::TooLarge { bytes, max, .. } => {
                f.debug_struct("TooLarge").field("bytes", bytes).field("max", max).finish_non_exhaustive()
            }
            Self::NameTaken { name, by, .. } => {
                f.debug_struct("NameTaken").field("name", name).field("by", by).finish_non_exhaustive()
            }
            Self::UnknownNode { node, .. } => f.debug_struct("UnknownNode").field("node", node).finish_non_exhaustive(),
        }
    }
}

impl<M> fmt::Display for BroadcastError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic { source, .. } => write!(f, "cannot broadcast: {source}"),
            Self::Closed { .. } => f.write_str("the pub/sub was shut down"),
            Self::Encode { .. } => f.write_str("cannot write this message for other nodes"),
            Self::TooLarge { bytes, max, .. } => write!(f, "message is {bytes} bytes as a frame, the limit is {max}"),
            Self::NameTaken { name, by, .. } => write!(f, "message name {name:?} belongs to type {by} already"),
            Self::UnknownNode { node, .. } => write!(f, "node {node} is not known"),
        }
    }
}

impl<M> std::error::Error for BroadcastError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Topic { source, .. } => source.source(),
            Self::Encode { source, .. } => Some(source),
            Self::Closed { .. } | Self::TooLarge { .. } | Self::NameTaken { .. } | Self::UnknownNode { .. } => None,
        }
    }
}
