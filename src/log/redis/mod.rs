//! Redis: a store in Redis Streams, shared by every program that reaches the server.
//!
//! ```text
//!   RedisStore ── entries, page, gap ──┐                      ┌── main: commands, pipelined, never blocking
//!              ── groups ──────────────┼── client (time-out,  │
//!              ── tail ────────────────┘   again or not) ─────┴── told: reads of who waits; the server pushes what changed
//!                      keys, fields, reply, script + lua/         (link: both on a thread of their own, there again after a loss)
//! ```
//!
//! # Keys
//! The stream of a topic is the prefix and the topic's name as they are, so that streams of other programs are topics here, and ours are streams there. What
//! is kept besides is in the stream's slot of a cluster, and holds a `*`, which no topic does:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `orders` | stream | the entries, the groups, and what is pending of them |
//! | `{orders}*due*orders*workers` | sorted set | group `workers`: pending ids by the time (ms) at which they are anyone's again |
//! | `{orders}*leaving*orders*workers` | set | consumers that were removed and still have something pending |
//! | `{orders}*wake*orders*workers` | string, a minute | written when something is due earlier than before: wakes waiting fetches |
//! | `{orders}*scan*orders*workers` | string, a minute | how far the search for entries taken by other programs has come |
//! | `{orders}*meta*orders` | hash | `trimmed`, `removed`: what our last trim removed; `epoch`: since when keys count; `counted*workers`: up to where the count of what `workers` has read is known to be right |
//! | `{orders}*key*orders*k17` | string, the dedup window | idempotency key `k17`: epoch, id, which call it was |
//!
//! # Fields
//! `name` (left out if empty), `payload`, then each header as `h:` and its name. An entry of another program is read by the same rules: `payload`
//! is the payload, `name` the name, any other field a header. One without `payload` is read as one JSON object of all its fields, as texts, and its name
//! is the field `name`.
//!
//! # Guarantees
//! * An append is answered when the server has it: on disk by then if it says `appendfsync always`, up to a second later with `everysec`. Not on a replica:
//!   a failover may lose answered entries.
//! * A user needs the rights `@stream`, `@scripting`, `@connection`, and on the helper keys reading and writing; `client|tracking` to be told of changes.
//! * One append without key, condition and trim is a plain `XADD`; each other method is one script, that is, one step. That of a dead letter is one over two
//!   topics: in a cluster, both names would need one hash tag.
//! * An append under keys is repeated until the time-out when its answer is lost, and its entry is there once. What else was sent and not answered is
//!   [`Unavailable`](StoreError::Unavailable) with [`Unknown`](crate::log::Outcome::Unknown).
//! * What `XTRIM` and `XDEL` of others removed is a gap, but not a certain one: a reader may be told of one where it misses nothing.
//! * Groups are groups of Redis: `XINFO`, `XPENDING` and consumers of other programs see them. What such a consumer took and did not ack is anyone's when it was idle for
//!   the visibility of who fetches. An entry that was trimmed while it was pending is delivered once more, without content, and is not pending from then on.
//!   The [lag](GroupInfo::lag) is `None` where another program's consumer was the last that took a new entry, until a fetch has caught up: a server that starts again
//!   from its append-only file has forgotten how many that were.
//! * Waiting costs the server nothing: no command blocks, and one connection is told (`CLIENT TRACKING`) of every change that a tail or a fetch waits for. Where a user
//!   may not have that, changes are looked for ten times a second.

mod builder;
mod client;
#[cfg(feature = "testing")]
pub(crate) mod decoders;
mod entries;
mod error;
mod fields;
mod gap;
mod groups;
mod keys;
mod link;
pub(crate) mod address;
mod page;
mod reply;
mod script;
mod tail;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::RedisBuilder;

use crate::ids::EntryId;
use crate::log::entry::Append;
use crate::log::entry::Appended;
use crate::log::entry::Batch;
use crate::log::entry::ConsumerInfo;
use crate::log::entry::Fetch;
use crate::log::entry::Fetched;
use crate::log::entry::Group;
use crate::log::entry::GroupInfo;
use crate::log::entry::Limit;
use crate::log::entry::Limits;
use crate::log::entry::Name;
use crate::log::entry::Pending;
use crate::log::entry::PendingQuery;
use crate::log::entry::Position;
use crate::log::entry::Token;
use crate::log::entry::TopicInfo;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::log::redis::client::Again;
use crate::log::redis::client::Shared;
use crate::log::redis::tail::RedisTail;
use crate::log::server;
use crate::log::store::Caps;
use crate::log::store::Durability;
use crate::log::store::Store;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
use crate::log::store::at_topic;
use crate::topic::Topic;

/// A [`Store`] in Redis Streams, of Redis 7.0 or later or a server like it. A clone is a handle to the same store.
///
/// Its two connections live on a thread of their own, which ends with the last handle; they are made when they are first needed, and made again when they
/// are lost. Every method may be called from any arbiter.
///
/// A read asks for the page and for the proof that nothing is missing before it: for pages of 256 entries that is as fast as the bare client, a page of one takes
/// several times as long. Two settings of the server matter: `appendfsync` is what an acked append is worth, and `maxmemory-policy` should be `noeviction`,
/// since any other lets the server remove whole topics.
///
/// A topic that was [deleted](Store::delete) and made anew does not know of the old one: of a position from before, what was deleted after it is not
/// reported as a gap ([`Caps::deletes_known`]).
///
/// Not for a cluster of several servers yet, though its keys are laid out for one: a topic that another server has is an error.
///
/// ```no_run
/// use actix_pubsub::Topic;
/// use actix_pubsub::log::{Append, NewEntry, RedisStore, Store};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://127.0.0.1").await?;
/// let orders = Topic::parse("orders")?;
/// let order = NewEntry::new("order.placed", r#"{"id":17}"#).dedup("order-17");
/// let appended = store.append(&orders, Append::one(order)).await?;
/// println!("{} new: {}", appended[0].id, !appended[0].duplicate);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

impl RedisStore {
    /// How long an idempotency key is known, unless told otherwise.
    pub const DEDUP_WINDOW_DEFAULT: Duration = server::DEDUP_WINDOW_DEFAULT;
    /// How long a method waits for the server, unless told otherwise.
    pub const TIMEOUT_DEFAULT: Duration = server::TIMEOUT_DEFAULT;

    /// A store at this URL, `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS with the feature `redis-tls`, with the default settings. Connects when it is first used.
    ///
    /// # Errors
    /// [`StoreError::Engine`] if the URL is none.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).open()
    }

    /// A store with the default settings that has reached its server.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`StoreError::Unavailable`] if the server is not there within the time-out, [`StoreError::Engine`] if it refuses.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let store = Self::new(url)?;
        store.shared.ask(redis::cmd("PING"), Again::Read, None).await?;
        Ok(store)
    }

    /// Settings to begin with.
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder::new(url)
    }
}

impl Store for RedisStore {
    fn caps(&self) -> Caps {
        Caps { shared: true, certain_gaps: false, deletes_known: false, ..Caps::full(Durability::Server) }
    }

    fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn append<'a>(&'a self, topic: &'a Topic, batch: Append) -> StoreFuture<'a, Vec<Appended>> {
        at_topic(topic, self.shared.append(topic, batch))
    }

    fn read<'a>(&'a self, topic: &'a Topic, from: Position, limit: Limit) -> StoreFuture<'a, Batch> {
        // Where the reply was parsed: its thousands of values are freed where they were made, and only the entries go to another thread.
        let (shared, of) = (Arc::clone(&self.shared), topic.clone());
        at_topic(topic, self.shared.home.run(async move { shared.read(&of, from, limit).await }))
    }

    fn tail(&self) -> Box<dyn Tail> {
        Box::new(RedisTail::new(Arc::clone(&self.shared)))
    }

    fn trim<'a>(&'a self, topic: &'a Topic, to: Trim) -> StoreFuture<'a, u64> {
        at_topic(topic, self.shared.trim(topic, to))
    }

    fn info<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, TopicInfo> {
        at_topic(topic, self.shared.info(topic))
    }

    /// Looks at every key of the database: for listings, not for every request.
    fn topics<'a>(&'a self, after: Option<&'a Topic>, limit: usize) -> StoreFuture<'a, Vec<Topic>> {
        Box::pin(self.shared.topics(after, limit))
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, bool> {
        at_topic(topic, self.shared.delete(topic))
    }

    fn create_group<'a>(&'a self, group: &'a Group, from: Position) -> StoreFuture<'a, bool> {
        at_topic(&group.topic, self.shared.create_group(group, from))
    }

    fn delete_group<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, bool> {
        at_topic(&group.topic, self.shared.delete_group(group))
    }

    fn groups<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, Vec<GroupInfo>> {
        at_topic(topic, self.shared.groups(topic))
    }

    fn fetch<'a>(&'a self, group: &'a Group, consumer: &'a Name, fetch: Fetch) -> StoreFuture<'a, Vec<Fetched>> {
        at_topic(&group.topic, self.shared.fetch(group, consumer, fetch))
    }

    fn ack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>) -> StoreFuture<'a, u64> {
        at_topic(&group.topic, async move { self.shared.ack(group, &tokens).await })
    }

    fn nack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, delay: Duration) -> StoreFuture<'a, u64> {
        at_topic(&group.topic, async move { self.shared.give(group, "nack", &tokens, delay).await })
    }

    fn extend<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, visibility: Duration) -> StoreFuture<'a, u64> {
        at_topic(&group.topic, async move { self.shared.give(group, "extend", &tokens, visibility).await })
    }

    fn dead_letter<'a>(
        &'a self,
        group: &'a Group,
        fetched: Fetched,
        to: &'a Topic,
        reason: &'a str,
        trim: Option<Trim>,
    ) -> StoreFuture<'a, Option<EntryId>> {
        at_topic(&group.topic, self.shared.bury(group, fetched, to, reason, trim))
    }

    fn pending<'a>(&'a self, group: &'a Group, query: PendingQuery) -> StoreFuture<'a, Vec<Pending>> {
        at_topic(&group.topic, async move { self.shared.pending(group, &query).await })
    }

    fn claim<'a>(
        &'a self,
        group: &'a Group,
        consumer: &'a Name,
        idle_min: Duration,
        fetch: Fetch,
    ) -> StoreFuture<'a, Vec<Fetched>> {
        at_topic(&group.topic, self.shared.claim(group, consumer, idle_min, fetch))
    }

    fn consumers<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, Vec<ConsumerInfo>> {
        at_topic(&group.topic, self.shared.consumers(group))
    }

    fn remove_consumer<'a>(&'a self, group: &'a Group, consumer: &'a Name) -> StoreFuture<'a, u64> {
        at_topic(&group.topic, self.shared.remove_consumer(group, consumer))
    }
}

/// Without the URL: it may hold a password.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.shared.keys.prefix())
            .field("connected", &self.shared.main.is_ready())
            .finish_non_exhaustive()
    }
}
