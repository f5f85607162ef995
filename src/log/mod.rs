//! The durable log: topics of entries that are kept, numbered and read again, and consumer groups on them.
//!
//! ```text
//!   append ──> Store ──> read (a page)                memory · embedded · redis · jetstream
//!                 ├────> tail (many topics, waits)
//!                 └────> fetch / ack / nack           a group: pending entries, each in one consumer's hands
//! ```
//!
//! | store | an `append` that returned is | nodes | what it needs |
//! |---|---|---|---|
//! | [`MemoryStore`] | gone with the process | one | nothing |
//! | `EmbeddedStore` | on disk | one | a file; feature `embedded` |
//! | `RedisStore` | where its server keeps it: on disk with `appendfsync always` | any number | Redis 7.0 or later; feature `redis` |
//! | `JetStreamStore` | stored by the server, which syncs it every two minutes unless told otherwise | any | nats-server 2.9 with JetStream; feature `jetstream` |
//!
//! This folder knows bytes, topics and ids. What a message type is, and how entries reach actors, is above it.

pub(crate) mod clock;
#[cfg(feature = "embedded")]
pub(crate) mod embedded;
pub(crate) mod entry;
pub(crate) mod error;
pub(crate) mod failing;
#[cfg(feature = "jetstream")]
pub(crate) mod jetstream;
pub(crate) mod memory;
pub(crate) mod pending;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "jetstream", feature = "redis"))]
pub(crate) mod server;
pub(crate) mod store;
pub(crate) mod watch;

pub use self::clock::Clock;
#[cfg(feature = "embedded")]
pub use self::embedded::EmbeddedBuilder;
#[cfg(feature = "embedded")]
pub use self::embedded::EmbeddedStore;
pub use self::entry::Append;
pub use self::entry::Appended;
pub use self::entry::Batch;
pub use self::entry::ConsumerInfo;
pub use self::entry::Entry;
pub use self::entry::Fetch;
pub use self::entry::Fetched;
pub use self::entry::Gap;
pub use self::entry::GapCause;
pub use self::entry::Group;
pub use self::entry::GroupInfo;
pub use self::entry::Headers;
pub use self::entry::Limit;
pub use self::entry::Limits;
pub use self::entry::Name;
pub use self::entry::NewEntry;
pub use self::entry::Pending;
pub use self::entry::PendingQuery;
pub use self::entry::Position;
pub use self::entry::Token;
pub use self::entry::TopicInfo;
pub use self::entry::Trim;
pub use self::error::Cause;
pub use self::error::NameError;
pub use self::error::Outcome;
pub use self::error::StoreError;
#[cfg(feature = "jetstream")]
pub use self::jetstream::JetStreamBuilder;
#[cfg(feature = "jetstream")]
pub use self::jetstream::JetStreamStorage;
#[cfg(feature = "jetstream")]
pub use self::jetstream::JetStreamStore;
pub use self::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisBuilder;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
pub use self::store::Caps;
pub use self::store::DEAD_LETTER_ATTEMPTS;
pub use self::store::DEAD_LETTER_GROUP;
pub use self::store::DEAD_LETTER_ID;
pub use self::store::DEAD_LETTER_REASON;
pub use self::store::DEAD_LETTER_TOPIC;
pub use self::store::Durability;
pub use self::store::Store;
pub use self::store::StoreFuture;
pub use self::store::Tail;
