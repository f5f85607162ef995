//! Entry: the plain values that go into a store and come out of it. Bytes, names and ids; knows no message type and no engine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use bytestring::ByteString;

use crate::ids::EntryId;
use crate::log::error::NameError;
use crate::log::error::StoreError;
use crate::topic::Topic;

/// One kept entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in its topic.
    pub id: EntryId,
    /// What the message is called: [`Payload::NAME`](crate::Payload::NAME) of its type. Empty where another program wrote it without.
    pub name: ByteString,
    /// The message; JSON where this crate's `append` wrote it.
    pub payload: Bytes,
    /// Whatever its writer wanted to say beside it, in the writer's order.
    pub headers: Headers,
}

impl Entry {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| &**value)
    }
}

/// Names and values; a name may stand more than once.
pub type Headers = Vec<(ByteString, ByteString)>;

/// An entry to be: what [`Store::append`](crate::log::Store::append) takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewEntry {
    /// See [`Entry::name`].
    pub name: ByteString,
    /// See [`Entry::payload`].
    pub payload: Bytes,
    /// See [`Entry::headers`].
    pub headers: Headers,
    /// An idempotency key: a second append to the topic under the same key, within the store's window, appends nothing and answers the first one's id.
    pub dedup: Option<ByteString>,
}

impl NewEntry {
    /// An entry without headers.
    pub fn new(name: impl Into<ByteString>, payload: impl Into<Bytes>) -> Self {
        Self { name: name.into(), payload: payload.into(), headers: Vec::new(), dedup: None }
    }

    /// Sets the idempotency key.
    pub fn dedup(mut self, key: impl Into<ByteString>) -> Self {
        self.dedup = Some(key.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// What the limit on an entry counts: payload, name, headers and key, in bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.payload.len() + self.name.len() + headers + self.dedup.as_ref().map_or(0, |key| key.len())
    }
}

/// Entries to append in one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Append {
    /// In this order, each after the other.
    pub entries: Vec<NewEntry>,
    /// Append only if this is the topic's last id, [`EntryId::MIN`] for a topic that never had an entry; else [`StoreError::Conflict`].
    pub expect_last: Option<EntryId>,
    /// Trim the topic in the same step, after the append.
    pub trim: Option<Trim>,
}

impl Append {
    /// One entry, no conditions.
    pub fn one(entry: NewEntry) -> Self {
        Self::many(vec![entry])
    }

    /// Several entries, no conditions.
    pub fn many(entries: Vec<NewEntry>) -> Self {
        Self { entries, expect_last: None, trim: None }
    }

    /// Appends only if `last` is the topic's last id.
    pub fn expect_last(mut self, last: EntryId) -> Self {
        self.expect_last = Some(last);
        self
    }

    /// Trims in the same step.
    pub fn trim(mut self, to: Trim) -> Self {
        self.trim = Some(to);
        self
    }

    /// Refuses what is over `limits`, before anything is done. Every store calls it first.
    pub fn check(&self, limits: &Limits) -> Result<(), StoreError> {
        if self.entries.len() > limits.batch_entries_max {
            return Err(StoreError::Batch { entries: self.entries.len(), max: limits.batch_entries_max });
        }
        for (index, entry) in self.entries.iter().enumerate() {
            let bytes = entry.bytes();
            if bytes > limits.entry_bytes_max {
                return Err(StoreError::TooLarge { index, bytes, max: limits.entry_bytes_max });
            }
        }
        Ok(())
    }
}

/// What a store takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest entry: payload, name, headers and key, in bytes.
    pub entry_bytes_max: usize,
    /// The most entries in one append.
    pub batch_entries_max: usize,
}

impl Limits {
    /// The largest entry, in bytes.
    pub fn entry_bytes(mut self, max: usize) -> Self {
        self.entry_bytes_max = max;
        self
    }

    /// The most entries in one append.
    pub fn batch_entries(mut self, max: usize) -> Self {
        self.batch_entries_max = max;
        self
    }
}

impl Default for Limits {
    /// 1 MiB an entry, 4,096 entries a batch.
    fn default() -> Self {
        Self { entry_bytes_max: 1 << 20, batch_entries_max: 4_096 }
    }
}

/// What became of one entry of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its id; that of the first append under its key if it is a duplicate.
    pub id: EntryId,
    /// Its key was used before: nothing was appended for it.
    pub duplicate: bool,
}

/// Where to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The oldest entry that is kept. What was trimmed before is no [`Gap`].
    Start,
    /// After the newest entry: only what comes. To follow from here may bring what was appended right before, too; it leaves out nothing that is appended
    /// after the call on the same node.
    End,
    /// The entry after this id. What of it was trimmed is a [`Gap`]; `After(EntryId::MIN)` asks for everything there ever was
    /// since the topic was made: what a deleted topic of its name had is no gap then, and is one after any other id.
    After(EntryId),
    /// The first entry whose time is this many milliseconds since 1970, or later.
    Since(u64),
}

impl From<EntryId> for Position {
    fn from(id: EntryId) -> Self {
        Self::After(id)
    }
}

impl From<SystemTime> for Position {
    /// [`Since`](Self::Since) that time; a time before 1970 is 1970.
    fn from(time: SystemTime) -> Self {
        Self::Since(time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// How much to read at once: whichever is reached first, but at least one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The most entries.
    pub entries: usize,
    /// Stop when the payloads read have this many bytes together.
    pub bytes: usize,
}

impl Limit {
    /// This many entries, and 1 MiB of payload.
    pub fn entries(entries: usize) -> Self {
        Self { entries, bytes: 1 << 20 }
    }
}

impl Default for Limit {
    /// 256 entries, 1 MiB.
    fn default() -> Self {
        Self::entries(256)
    }
}

/// A page of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// In id order.
    pub entries: Vec<Entry>,
    /// The position to read on from: `After(next)`. The last entry's id, or where the reading stands if there is none.
    pub next: EntryId,
    /// Entries that were asked for and are not there; they belong before `entries`.
    pub gap: Option<Gap>,
    /// When this was read there was nothing after `next`.
    pub caught_up: bool,
}

/// A proof that history is incomplete: entries that were asked for are gone, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Whose history.
    pub topic: Topic,
    /// The reader had everything up to here.
    pub asked_after: EntryId,
    /// The first entry that it gets now; `None`: there is none yet.
    pub resumes_at: Option<EntryId>,
    /// Why.
    pub cause: GapCause,
    /// `false`: the engine cannot tell whether an entry is missing, only that it cannot prove the opposite.
    pub certain: bool,
}

impl Gap {
    /// A gap as a store reports it.
    pub fn new(topic: Topic, asked_after: EntryId, resumes_at: Option<EntryId>, cause: GapCause, certain: bool) -> Self {
        Self { topic, asked_after, resumes_at, cause, certain }
    }
}

/// Why history is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapCause {
    /// Entries after the asked position were trimmed.
    Trimmed,
    /// The asked position is ahead of the log: it is another log than the one the position came from, or one that lost its end.
    Ahead,
    /// One entry is there, but is no message of the asked type.
    Undecodable,
}

impl fmt::Display for GapCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trimmed => "trimmed",
            Self::Ahead => "ahead",
            Self::Undecodable => "undecodable",
        })
    }
}

/// What to remove from a topic's old end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trim {
    /// All but the newest n (`MAXLEN`).
    Len(u64),
    /// All entries with a smaller id (`MINID`).
    Before(EntryId),
    /// All entries older than this, by the store's clock.
    Age(Duration),
}

/// A topic's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Entries kept.
    pub entries: u64,
    /// Entries ever appended; `None` where the engine does not count them.
    pub appended: Option<u64>,
    /// Bytes they take, payloads and headers; `None` where the engine does not say.
    pub bytes: Option<u64>,
    /// The oldest kept.
    pub first: Option<EntryId>,
    /// The newest ever appended; [`EntryId::MIN`] for none.
    pub last: EntryId,
    /// Its consumer groups.
    pub groups: u64,
}

/// The name of a consumer group or of a consumer: 1 to 128 bytes without control characters, `*`, `>` and blanks.
///
/// What every engine under a store can take as part of a key and of a command line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// Checks `name`.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > Self::BYTES_MAX {
            return Err(NameError::TooLong { bytes: name.len(), max: Self::BYTES_MAX });
        }
        let forbidden = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '>');
        match name.char_indices().find(|(_, c)| forbidden(*c)) {
            Some((at_byte, character)) => Err(NameError::Forbidden { character, at_byte }),
            None => Ok(Self(Arc::from(name))),
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A consumer group: its topic and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// What it reads.
    pub topic: Topic,
    /// Its name, unique within the topic.
    pub name: Name,
}

impl Group {
    /// The group of this name on this topic.
    pub fn new(topic: Topic, name: Name) -> Self {
        Self { topic, name }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.topic)
    }
}

/// How a consumer fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// The most entries, at least 1.
    pub entries: usize,
    /// How long each is this consumer's: not acked by then, it is anyone's again.
    pub visibility: Duration,
    /// How long to wait when there is nothing; more than [`WAIT_MAX`](Self::WAIT_MAX) is that.
    pub wait: Duration,
}

impl Fetch {
    /// The longest wait: an hour.
    pub const WAIT_MAX: Duration = Duration::from_secs(3_600);

    /// Visible again after 30 s, and no wait.
    pub fn entries(entries: usize) -> Self {
        Self { entries, visibility: Duration::from_secs(30), wait: Duration::ZERO }
    }

    /// How long each is this consumer's.
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.visibility = visibility;
        self
    }

    /// How long to wait when there is nothing.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// One entry in a consumer's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its id.
    pub id: EntryId,
    /// The entry; `None` if it was trimmed while it was pending.
    pub entry: Option<Entry>,
    /// How often it was delivered, this time included.
    pub attempt: u32,
    /// What to ack it with.
    pub token: Token,
}

/// The receipt for one delivery of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    /// Which entry.
    pub id: EntryId,
    /// Which delivery of it.
    pub attempt: u32,
    /// What the engine needs besides, if anything.
    pub handle: Option<Arc<str>>,
}

/// A consumer group's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// Its name.
    pub name: Name,
    /// The newest entry that was delivered to any consumer, or where the group began.
    pub last_delivered: EntryId,
    /// Entries kept that no consumer has had; `None` where the engine cannot tell.
    pub lag: Option<u64>,
    /// Entries delivered and not acked.
    pub pending: u64,
    /// Entries trimmed before any consumer had them; `None` where the engine cannot tell.
    pub skipped: Option<u64>,
    /// Its consumers.
    pub consumers: u64,
}

impl GroupInfo {
    /// A group of which nothing is known but its name.
    pub fn new(name: Name) -> Self {
        Self { name, last_delivered: EntryId::MIN, lag: None, pending: 0, skipped: None, consumers: 0 }
    }
}

/// A consumer's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: Name,
    /// Entries delivered to it and not acked.
    pub pending: u64,
    /// Since it last fetched, claimed, acked or extended.
    pub idle: Duration,
}

/// One delivered and not acked entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub id: EntryId,
    /// Who has it.
    pub consumer: Name,
    /// Since it was delivered or extended.
    pub idle: Duration,
    /// How often it was delivered.
    pub attempt: u32,
    /// Until it is anyone's again; zero: it is. `None` where the engine does not say.
    pub due_in: Option<Duration>,
}

/// Which pending entries to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingQuery {
    /// Only this consumer's.
    pub consumer: Option<Name>,
    /// Only those idle for this long.
    pub idle_min: Duration,
    /// Only those after this id.
    pub after: EntryId,
    /// The most entries.
    pub entries: usize,
}

impl PendingQuery {
    /// The first so many, of whomever.
    pub fn first(entries: usize) -> Self {
        Self { consumer: None, idle_min: Duration::ZERO, after: EntryId::MIN, entries }
    }
}
