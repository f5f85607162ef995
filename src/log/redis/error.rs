//! Errors: what Redis and its client say, as errors of a store. Knows no command.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::ErrorKind;
use redis::RedisError;

use crate::ids::EntryId;
use crate::log::entry::Group;
use crate::log::error::Outcome;
use crate::log::error::StoreError;

/// What this store has to say where Redis says nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection within this time.
    NotConnected(Duration, Option<RedisError>),
    /// No answer within this time.
    NoAnswer(Duration),
    /// The answer is not what the command answers.
    Reply { what: &'static str, got: String },
    /// More than a script can pass on.
    Headers { headers: usize, max: usize },
    /// More than a connection can carry at once.
    BatchBytes { bytes: usize, max: usize },
    /// The prefix holds `*` or a control character.
    Prefix,
    /// The connection's thread did not start.
    Thread(std::io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected(time, _) => write!(f, "no connection to redis within {time:?}"),
            Self::NoAnswer(time) => write!(f, "no answer of redis within {time:?}"),
            Self::Reply { what, got } => write!(f, "redis answered {got} where {what} was expected"),
            Self::Headers { headers, max } => write!(f, "entry has {headers} headers, the limit is {max}"),
            Self::BatchBytes { bytes, max } => write!(f, "batch has {bytes} bytes, the limit is {max}"),
            Self::Prefix => f.write_str("prefix holds '*' or a control character"),
            Self::Thread(_) => f.write_str("thread for the connections does not start"),
        }
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotConnected(_, error) => error.as_ref().map(|error| error as &(dyn Error + 'static)),
            Self::Thread(error) => Some(error),
            _ => None,
        }
    }
}

impl Fault {
    pub(super) fn engine(self) -> StoreError {
        StoreError::Engine { source: Arc::new(self) }
    }

    pub(super) fn unavailable(self, outcome: Outcome) -> StoreError {
        StoreError::Unavailable { outcome, source: Arc::new(self) }
    }
}

/// Trying to connect again will not help.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    let by_kind =
        matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported);
    by_kind || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

/// The server is there and does not do this now.
pub(super) fn is_busy(error: &RedisError) -> bool {
    matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN" | "BUSY"))
}

/// What the server answered instead of doing what it was asked: nothing was done.
pub(super) fn refused(error: RedisError, group: Option<&Group>) -> StoreError {
    let detail = error.detail().unwrap_or_default();
    match (error.code(), group) {
        (Some("NOGROUP"), Some(group)) => StoreError::NoGroup(group.clone()),
        (Some("OOM" | "MISCONF"), _) => StoreError::Full { source: Arc::new(error) },
        (Some("READONLY" | "NOREPLICAS"), _) => unavailable(error, Outcome::NotDone),
        _ if is_busy(&error) => unavailable(error, Outcome::NotDone),
        _ if detail.contains("exhausted the last possible ID") => StoreError::IdsExhausted { last: EntryId::MAX },
        _ => StoreError::Engine { source: Arc::new(error) },
    }
}

pub(super) fn unavailable(error: RedisError, outcome: Outcome) -> StoreError {
    StoreError::Unavailable { outcome, source: Arc::new(error) }
}
