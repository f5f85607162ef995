//! Errors of the log's verbs for actors: one enum per operation. Knows no cause beyond its own data. As those of the local core, they say what the errors in them say.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::local::error::SubscribeError;
use crate::log::NameError;
use crate::log::StoreError;
use crate::topic::Topic;
use crate::topic::TopicError;

/// Why a message was not appended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AppendError {
    /// The `PubSub` was built without a log.
    NoLog,
    /// The topic's name is refused.
    Topic(TopicError),
    /// The message has no serialized form.
    Encode {
        /// Its type.
        message: &'static str,
        /// What `serde_json` said.
        source: Arc<serde_json::Error>,
    },
    /// Another type of this program has the same `Payload::NAME`.
    NameTaken {
        /// The name.
        name: &'static str,
        /// The type that has it.
        by: &'static str,
    },
    /// The store did not take it. [`StoreError::Unavailable`] with an unknown outcome aside, nothing was appended.
    Store(StoreError),
    /// The `PubSub` was shut down.
    Closed,
}

impl AppendError {
    /// Trying again may help without anything else changing: the store is away, or has no room.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLog => f.write_str(NO_LOG),
            Self::Topic(source) => write!(f, "cannot append: {source}"),
            Self::Encode { message, .. } => write!(f, "message of type {message} has no JSON form"),
            Self::NameTaken { name, by } => name_taken(f, name, by),
            Self::Store(source) => write!(f, "the store did not append: {source}"),
            Self::Closed => f.write_str(CLOSED),
        }
    }
}

impl Error for AppendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Topic(source) => source.source(),
            Self::Encode { source, .. } => Some(&**source),
            Self::Store(source) => source.source(),
            Self::NoLog | Self::NameTaken { .. } | Self::Closed => None,
        }
    }
}

impl From<StoreError> for AppendError {
    fn from(source: StoreError) -> Self {
        Self::Store(source)
    }
}

impl From<TopicError> for AppendError {
    fn from(source: TopicError) -> Self {
        Self::Topic(source)
    }
}

/// Why a topic of the log is not followed. Nothing was changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FollowError {
    /// The `PubSub` was built without a log.
    NoLog,
    /// Another type of this program has the same `Payload::NAME`.
    NameTaken {
        /// The name.
        name: &'static str,
        /// The type that has it.
        by: &'static str,
    },
    /// The live part was not subscribed.
    Subscribe(SubscribeError),
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLog => f.write_str(NO_LOG),
            Self::NameTaken { name, by } => name_taken(f, name, by),
            Self::Subscribe(SubscribeError::Topic(source)) => write!(f, "cannot follow: {source}"),
            Self::Subscribe(source) => write!(f, "cannot follow: {source}"),
        }
    }
}

impl Error for FollowError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Subscribe(source) => source.source(),
            Self::NoLog | Self::NameTaken { .. } => None,
        }
    }
}

impl From<SubscribeError> for FollowError {
    fn from(source: SubscribeError) -> Self {
        Self::Subscribe(source)
    }
}

/// Why a consumer was not started. Nothing was changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConsumeError {
    /// The `PubSub` was built without a log.
    NoLog,
    /// The topic's name is refused, or that of its dead-letter topic.
    Topic(TopicError),
    /// The name of the group, or of the consumer, is refused.
    Name(NameError),
    /// Another type of this program has the same `Payload::NAME`.
    NameTaken {
        /// The name.
        name: &'static str,
        /// The type that has it.
        by: &'static str,
    },
    /// The dead letters are to go to the topic that they come from: they would come back without end.
    DeadLetterTopic(Topic),
    /// The group is consumed as another message type on this node already: the two would ack each other's entries unhandled.
    GroupType {
        /// The refused type's name.
        name: &'static str,
        /// The name of the type that it is consumed as.
        other: &'static str,
    },
    /// A setting is out of its range.
    Option {
        /// Which.
        option: &'static str,
        /// Its value.
        value: u64,
        /// The least that is accepted.
        min: u64,
        /// The most that is accepted.
        max: u64,
    },
    /// The `PubSub` was shut down.
    Closed,
}

impl fmt::Display for ConsumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLog => f.write_str(NO_LOG),
            Self::Topic(source) => write!(f, "cannot consume: {source}"),
            Self::Name(source) => write!(f, "cannot consume: {source}"),
            Self::NameTaken { name, by } => name_taken(f, name, by),
            Self::DeadLetterTopic(topic) => write!(f, "dead letters of topic {topic} cannot go to that topic"),
            Self::GroupType { name, other } => write!(f, "group is consumed as {other:?} on this node, not as {name:?}"),
            Self::Option { option, value, min, max } => write!(f, "{option} is {value}, it must be {min} to {max}"),
            Self::Closed => f.write_str(CLOSED),
        }
    }
}

impl Error for ConsumeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Topic(source) => source.source(),
            Self::Name(source) => source.source(),
            Self::NoLog
            | Self::NameTaken { .. }
            | Self::DeadLetterTopic(_)
            | Self::GroupType { .. }
            | Self::Option { .. }
            | Self::Closed => None,
        }
    }
}

impl From<TopicError> for ConsumeError {
    fn from(source: TopicError) -> Self {
        Self::Topic(source)
    }
}

impl From<NameError> for ConsumeError {
    fn from(source: NameError) -> Self {
        Self::Name(source)
    }
}

fn name_taken(f: &mut fmt::Formatter<'_>, name: &str, by: &str) -> fmt::Result {
    write!(f, "message name {name:?} belongs to type {by} already")
}

const NO_LOG: &str = "this pub/sub has no log, give its builder a store";
const CLOSED: &str = "the pub/sub was shut down";
