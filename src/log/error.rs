//! Errors of the log, with the limit and the value in them. Knows no engine: an engine's own error is a `source`.

use std::error::Error;
use std::fmt;
#[cfg(feature = "embedded")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ids::EntryId;
use crate::log::entry::Group;
use crate::log::entry::Name;
#[cfg(any(feature = "jetstream", feature = "redis"))]
use crate::topic::Topic;

/// An engine's own error.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StoreError {
    /// An entry is over the limit. Nothing was appended.
    TooLarge {
        /// Which entry of the batch.
        index: usize,
        /// Its payload, name, headers and key, in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Too many entries in one append. Nothing was appended.
    Batch {
        /// Entries given.
        entries: usize,
        /// The limit.
        max: usize,
    },
    /// The topic's last id is not the expected one. Nothing was appended.
    Conflict {
        /// What the caller expected.
        expected: EntryId,
        /// What it is; `None` where the engine does not say.
        last: Option<EntryId>,
    },
    /// The topic's last id is the last id there is. Nothing was appended.
    IdsExhausted {
        /// The last id.
        last: EntryId,
    },
    /// There is no such group.
    NoGroup(Group),
    /// The store has no such capability; see [`Caps`](crate::log::Caps).
    Unsupported {
        /// What it cannot do.
        what: &'static str,
    },
    /// The engine is away or did not answer in time.
    Unavailable {
        /// Whether what was asked was done.
        outcome: Outcome,
        /// What the engine or its client said.
        source: Cause,
    },
    /// There is no room to write. What was asked is not done, what was done before is kept, reads go on.
    Full {
        /// What the system said.
        source: Cause,
    },
    /// What is stored is damaged.
    Corrupt {
        /// Where: a file and offset, a topic and id.
        at: String,
        /// What is wrong there.
        detail: String,
    },
    /// The store was written by a version that this one cannot read. Nothing was changed.
    Version {
        /// Its file, where it is one.
        path: Option<PathBuf>,
        /// What it says it is.
        found: u64,
        /// What this version can read.
        supported: u64,
    },
    /// Another process has the store open, or this one has it twice.
    Locked {
        /// Its file.
        path: PathBuf,
    },
    /// The store's file cannot be opened or made.
    File {
        /// Where it is, or was to be.
        path: PathBuf,
        /// What the system said.
        source: Cause,
    },
    /// The engine refused, for a reason that trying again does not mend: no permission, a key of another kind.
    Engine {
        /// What it said.
        source: Cause,
    },
    /// The store was closed.
    Closed,
}

impl StoreError {
    /// Trying again may help without anything else changing.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. })
    }

    /// Says which file it is about: for what comes up when that is opened.
    #[cfg(feature = "embedded")]
    pub(crate) fn of_file(self, file: &Path) -> Self {
        match self {
            Self::Corrupt { at, detail } => Self::Corrupt { at: format!("{at}, of {}", file.display()), detail },
            Self::Version { found, supported, .. } => Self::Version { path: Some(file.to_owned()), found, supported },
            Self::Engine { source } => Self::File { path: file.to_owned(), source },
            other => other,
        }
    }

    /// Says which topic it is about, where the engine's own words do not.
    #[cfg(any(feature = "jetstream", feature = "redis"))]
    pub(crate) fn on(self, topic: &Topic) -> Self {
        let on = |source| Arc::new(OnTopic { topic: topic.clone(), source });
        match self {
            Self::Engine { source } => Self::Engine { source: on(source) },
            Self::Full { source } => Self::Full { source: on(source) },
            other => other,
        }
    }
}

#[cfg(any(feature = "jetstream", feature = "redis"))]
#[derive(Debug)]
struct OnTopic {
    topic: Topic,
    source: Cause,
}

#[cfg(any(feature = "jetstream", feature = "redis"))]
impl fmt::Display for OnTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at topic {}", self.topic)
    }
}

#[cfg(any(feature = "jetstream", feature = "redis"))]
impl Error for OnTopic {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// What is known of a request whose answer did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not done.
    NotDone,
    /// It may have been done. An append under an idempotency key may be repeated safely.
    Unknown,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { index, bytes, max } => write!(f, "entry {index} is {bytes} bytes, the limit is {max}"),
            Self::Batch { entries, max } => write!(f, "batch has {entries} entries, the limit is {max}"),
            Self::Conflict { expected, last: Some(last) } => write!(f, "last id is {last}, expected was {expected}"),
            Self::Conflict { expected, last: None } => write!(f, "last id is not the expected {expected}"),
            Self::IdsExhausted { last } => write!(f, "last id is {last}, there is none after it"),
            Self::NoGroup(group) => write!(f, "there is no consumer group {group}"),
            Self::Unsupported { what } => write!(f, "this store cannot {what}"),
            Self::Unavailable { outcome: Outcome::NotDone, .. } => f.write_str("store is unavailable, nothing was done"),
            Self::Unavailable { outcome: Outcome::Unknown, .. } => f.write_str("store is unavailable, it may have been done"),
            Self::Full { .. } => f.write_str("store has no room to write"),
            Self::Corrupt { at, detail } => write!(f, "store is damaged at {at}: {detail}"),
            Self::Version { path: Some(path), found, supported } => {
                write!(f, "store {} has format version {found}, supported is {supported}", path.display())
            }
            Self::Version { path: None, found, supported } => {
                write!(f, "store has format version {found}, supported is {supported}")
            }
            Self::File { path, source } => write!(f, "cannot open store {}: {source}", path.display()),
            Self::Locked { path } => write!(f, "store {} is open elsewhere", path.display()),
            Self::Engine { .. } => f.write_str("store's engine refused"),
            Self::Closed => f.write_str("store is closed"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable { source, .. } | Self::Full { source } | Self::Engine { source } => Some(&**source),
            Self::File { source, .. } => source.source(),
            _ => None,
        }
    }
}

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no bytes.
    Empty,
    /// The name has more than [`Name::BYTES_MAX`] bytes.
    TooLong {
        /// Length of the refused name in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The name holds a control character, a blank, `*` or `>`.
    Forbidden {
        /// The first such character.
        character: char,
        /// Where it starts, in bytes.
        at_byte: usize,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "name is empty, it needs 1 to {} bytes", Name::BYTES_MAX),
            Self::TooLong { bytes, max } => write!(f, "name is {bytes} bytes, the limit is {max}"),
            Self::Forbidden { character, at_byte } => {
                write!(f, "name holds the forbidden character {character:?} at byte {at_byte}")
            }
        }
    }
}

impl Error for NameError {}
