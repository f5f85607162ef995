//! JetStream: a store on a NATS server, shared by any number of nodes.
//!
//! ```text
//!   topic "room:1"  ──  stream   pubsub~room=3A1           subject   pubsub.log.room=3A1
//!                       told of on  pubsub.live.room=3A1   (republished, headers only: what tails wake for)
//!   group "mail"    ──  durable pull consumer group~mail of that stream
//!   entry           ──  message: payload as it is; name and headers quoted in Pubsub-Name and Pubsub-Headers; its key in Nats-Msg-Id
//! ```
//!
//! One stream for all topics would be lighter, but a stream counts, trims and numbers as a whole: with a stream a topic, `last`, gaps, trims,
//! keys and expected ids are the server's own and exact, and a page costs what is in it. See [`JetStreamStore`] for what that costs.
//!
//! `connection` (a thread, one connection at a time) < `api`, `codec` (pure) < `pull` < `topics`, `unreadable` < `append`, `read`, `groups`, `fetch` < `tail`.

mod api;
mod append;
mod builder;
mod codec;
mod connection;
#[cfg(feature = "testing")]
pub(crate) mod decoders;
mod fetch;
mod groups;
mod pull;
mod read;
mod tail;
mod topics;
mod unreadable;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::JetStreamBuilder;
pub use self::builder::JetStreamStorage;

use self::connection::Link;
use self::groups::Held;
use self::read::Cursors;
use self::tail::JetStreamTail;
use self::topics::Known;
use self::unreadable::Unreadable;
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
use crate::log::server;
use crate::log::store::Caps;
use crate::log::store::Durability;
use crate::log::store::Store;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
use crate::log::store::at_topic;
use crate::topic::Topic;

/// A [`Store`] on NATS JetStream, 2.9 or later. A clone is a handle to the same store; its thread ends with the last.
///
/// ```no_run
/// use actix_pubsub::Topic;
/// use actix_pubsub::log::{Append, JetStreamStore, NewEntry, Store};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = JetStreamStore::new("nats://127.0.0.1:4222")?;
/// store.append(&Topic::parse("room:1")?, Append::one(NewEntry::new("chat.line", "hello"))).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Guarantees
/// * Durability is the server's: an append that returned is stored by it, and by most of its replicas, but JetStream syncs its files every two minutes
///   (`sync_interval`). A killed server loses nothing; a machine that loses power may lose the last two minutes, of one replica.
/// * Ids are `0-n`, n counting a topic's entries from 1 without holes. After [`delete`](Store::delete) a topic counts from 1 anew: a position from before
///   it that is ahead of the new log is a gap, one that is not is taken for one of the new log.
/// * A request is answered, or fails, within the [time-out](JetStreamBuilder::timeout); a lost connection is made anew. What failed with
///   [`NotDone`](crate::log::Outcome::NotDone) is not sent later. What failed with `Unknown` may have reached the server, which may do it once it can.
/// * An append under a key is repeated until it is answered or the time is over, and stored once. Where the first try was stored and its
///   answer lost, the repetition says `duplicate`.
///
/// # What it has not
/// * [`atomic_batches`](Caps::atomic_batches): the entries of a batch are published one after the other, and others' may stand between. If one is refused
///   those before it are stored, and of those after it some may be: `Unknown`. Give the entries keys, and repeat the batch. With an expected last id each
///   entry expects the one before it, so that what is stored is always the batch's beginning, and nothing stands between.
/// * [`pending`](Caps::pending): the server keeps no list of what is pending with whom; an entry trimmed while it is pending is forgotten.
/// * [`deletes_known`](Caps::deletes_known): see above, of ids.
/// * [`visibility_per_fetch`](Caps::visibility_per_fetch): the group's first fetch decides for all.
/// * [`counts_of_others`](Caps::counts_of_others): `ack`, `nack` and `extend` count and refuse by what this process knows of its own deliveries. Of another's
///   delivery a token that was acked may count once more, and an old token may give back what a newer delivery has.
/// * Trimming with an append is a second request: if it fails, the append stands, and the next trims.
/// * A message that another program published with headers that are none (not UTF-8, without a colon) cannot be read by the client, which loses its
///   connection over it, once for each page, delivery and tail that meets it for the first time; an append without a key that was under way is `Unknown` then. It is
///   read by another way, without those headers. A group's [attempts](Fetched::attempt) at it are those of this process, and two nodes may have it at once.
/// * Two nodes that make one group at the same time may both be told that they made it.
///
/// # Cost
/// Entries of 100 bytes a second, on 2 cores that the server shares (`cargo bench --features jetstream --bench jetstream`): appended 8,700 one after the
/// other, 27,000 with 64 at once, 65,000 in batches of 1,000; read 185,000 to 245,000 in pages of 256 to 4,000; fetched and acked 68,000. An append
/// and its arrival at a tail take 0.4 ms together.
///
/// A stream a topic: on the server about 80 kB of memory and 32 kB of disk for each topic, 2 ms to make it, and 2 ms of a restart (measured with
/// 4,000 topics on nats-server 2.9.10, 2 cores). That suits thousands of topics, not hundreds of thousands. In exchange a page costs what is in it: of 1,000
/// topics in one stream of 300,000 entries, reading one topic's 300 took 49 to 220 ms; from a stream of its own 2.5 ms.
#[derive(Clone)]
pub struct JetStreamStore {
    shared: Arc<Shared>,
}

struct Shared {
    settings: JetStreamBuilder,
    link: Link,
    known: Known,
    held: Held,
    cursors: Cursors,
    unreadable: Unreadable,
}

impl JetStreamStore {
    /// The largest entry, unless told otherwise: 64 KiB less than the server's own default for a message, for names, headers and what they take on the wire.
    pub const ENTRY_BYTES_DEFAULT: usize = (1 << 20) - (1 << 16);
    /// How long an idempotency key is known, unless told otherwise.
    pub const DEDUP_WINDOW_DEFAULT: Duration = server::DEDUP_WINDOW_DEFAULT;
    /// After how long a request fails, unless told otherwise.
    pub const TIMEOUT_DEFAULT: Duration = server::TIMEOUT_DEFAULT;

    /// A store on the server at `url`, `nats://[user:password@]host[:port]` or `tls://..`, several of a cluster with commas between.
    ///
    /// Connects in the background: a server that is not there yet is waited for, by each request within its time-out.
    ///
    /// # Errors
    /// [`StoreError::Engine`] for a URL that is none, and if the system gives no thread.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).open()
    }

    /// A store with other settings.
    pub fn builder(url: &str) -> JetStreamBuilder {
        JetStreamBuilder::new(url)
    }

    fn start(settings: JetStreamBuilder) -> Result<Self, StoreError> {
        let link = Link::start(&settings.server.url.0, settings.server.timeout())?;
        let (known, held, cursors, unreadable) = (Known::default(), Held::default(), Cursors::default(), Unreadable::default());
        Ok(Self { shared: Arc::new(Shared { settings, link, known, held, cursors, unreadable }) })
    }
}

fn unsupported<'a, T: Send + 'a>(what: &'static str) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Err(StoreError::Unsupported { what })))
}

impl Store for JetStreamStore {
    fn caps(&self) -> Caps {
        Caps {
            shared: true,
            atomic_batches: false,
            times_in_ids: false,
            pending: false,
            deletes_known: false,
            visibility_per_fetch: false,
            counts_of_others: false,
            ..Caps::full(Durability::Server)
        }
    }

    fn limits(&self) -> Limits {
        self.shared.settings.server.limits
    }

    fn append<'a>(&'a self, topic: &'a Topic, batch: Append) -> StoreFuture<'a, Vec<Appended>> {
        at_topic(topic, self.shared.append(topic, batch))
    }

    fn read<'a>(&'a self, topic: &'a Topic, from: Position, limit: Limit) -> StoreFuture<'a, Batch> {
        at_topic(topic, self.shared.read(topic, from, limit))
    }

    fn tail(&self) -> Box<dyn Tail> {
        Box::new(JetStreamTail::new(Arc::clone(&self.shared)))
    }

    fn trim<'a>(&'a self, topic: &'a Topic, to: Trim) -> StoreFuture<'a, u64> {
        at_topic(topic, self.shared.trim(topic, to))
    }

    fn info<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, TopicInfo> {
        at_topic(topic, self.shared.info(topic))
    }

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

    fn fetch<'a>(&'a self, group: &'a Group, _: &'a Name, fetch: Fetch) -> StoreFuture<'a, Vec<Fetched>> {
        at_topic(&group.topic, self.shared.fetch(group, fetch))
    }

    fn ack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>) -> StoreFuture<'a, u64> {
        at_topic(&group.topic, async move { self.shared.ack(group, &tokens).await })
    }

    fn nack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, delay: Duration) -> StoreFuture<'a, u64> {
        at_topic(&group.topic, async move { self.shared.nack(group, &tokens, delay).await })
    }

    /// For the group's visibility, whatever is asked.
    fn extend<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, _: Duration) -> StoreFuture<'a, u64> {
        at_topic(&group.topic, async move { self.shared.extend(group, &tokens).await })
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

    fn pending<'a>(&'a self, _: &'a Group, _: PendingQuery) -> StoreFuture<'a, Vec<Pending>> {
        unsupported("list what is pending")
    }

    fn claim<'a>(&'a self, _: &'a Group, _: &'a Name, _: Duration, _: Fetch) -> StoreFuture<'a, Vec<Fetched>> {
        unsupported("claim what is pending")
    }

    fn consumers<'a>(&'a self, _: &'a Group) -> StoreFuture<'a, Vec<ConsumerInfo>> {
        unsupported("list consumers")
    }

    fn remove_consumer<'a>(&'a self, _: &'a Group, _: &'a Name) -> StoreFuture<'a, u64> {
        unsupported("remove a consumer")
    }
}

impl fmt::Debug for JetStreamStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStreamStore").field("prefix", &self.shared.settings.server.prefix).finish_non_exhaustive()
    }
}
