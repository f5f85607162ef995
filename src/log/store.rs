//! Store: the contract between the log and the engine that keeps it. Bytes, topics and ids; knows no message type and no actor.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytestring::ByteString;

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
use crate::log::entry::NewEntry;
use crate::log::entry::Pending;
use crate::log::entry::PendingQuery;
use crate::log::entry::Position;
use crate::log::entry::Token;
use crate::log::entry::TopicInfo;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::topic::Topic;

/// What every method of a [`Store`] returns. To be polled inside a tokio runtime; every actix arbiter is one.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// An engine that keeps topics of entries, and consumer groups on them, as Redis Streams do.
///
/// Implemented by this crate for memory, a file, Redis and NATS `JetStream`; an implementation of your own proves itself with
/// `testing::store` (feature `testing`).
///
/// # Rules
/// * A topic exists from its first append or its first group on. Reading, trimming or asking for one that does not exist is no error: it is empty.
/// * Ids increase strictly within a topic, whatever the clock does. All entries of one append stand one after the other where
///   [`Caps::atomic_batches`] says so.
/// * When `append` returns, the entries are as durable as [`Caps::durability`] says, and visible to every later `read`.
/// * `read` never waits for an append, nor an append for a `read`.
/// * Methods may be called from any number of threads at once. A future that is dropped before it is done has done all or nothing.
/// * An error leaves everything as it was, save [`Unavailable`](StoreError::Unavailable) with [`Unknown`](crate::log::Outcome::Unknown).
/// * A store that loses its engine finds it again by itself; until then its methods fail within its own time-out, they do not hang.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// What this store can do beyond the contract, and what of it it cannot.
    fn caps(&self) -> Caps;

    /// What it takes at once.
    fn limits(&self) -> Limits;

    // ---- entries -----------------------------------------------------------------------------------------------------

    /// Appends. One [`Appended`] per entry, in order. An empty batch appends nothing and is no error.
    ///
    /// Keys are looked at before `expect_last`: if every entry is a duplicate, that is the answer, whatever the last id is.
    fn append<'a>(&'a self, topic: &'a Topic, batch: Append) -> StoreFuture<'a, Vec<Appended>>;

    /// Reads a page. Never waits for entries to come.
    ///
    /// When entries after the asked position are gone, [`Batch::gap`] says so and the page goes on from the oldest kept entry. A
    /// position that is ahead of the topic's last id is such a case.
    fn read<'a>(&'a self, topic: &'a Topic, from: Position, limit: Limit) -> StoreFuture<'a, Batch>;

    /// A new tail, which follows no topic yet.
    fn tail(&self) -> Box<dyn Tail>;

    /// Removes old entries; what groups have pending of them stays pending, without content. Returns how many were removed.
    fn trim<'a>(&'a self, topic: &'a Topic, to: Trim) -> StoreFuture<'a, u64>;

    /// The topic's numbers.
    fn info<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, TopicInfo>;

    /// Topics that exist, by name, those after `after`, at most `limit`.
    fn topics<'a>(&'a self, after: Option<&'a Topic>, limit: usize) -> StoreFuture<'a, Vec<Topic>>;

    /// Removes a topic with its groups and its keys. `false`: there was none.
    ///
    /// A topic of the same name that is made afterwards is another log. Where [`Caps::deletes_known`] says so, a store gives it ids after all those of
    /// topics that were deleted, and a position from before, of this or any other deleted topic, is a gap there. Two positions are none:
    /// [`Start`](Position::Start), and [`After`](Position::After) the least id, which asks for everything of the topic that is there now.
    /// Without that capability the store says itself what becomes of such positions.
    fn delete<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, bool>;

    // ---- consumer groups ---------------------------------------------------------------------------------------------

    /// Makes a group that begins at `from`. `false`: it exists, and is left as it is.
    fn create_group<'a>(&'a self, group: &'a Group, from: Position) -> StoreFuture<'a, bool>;

    /// Removes a group with what it has pending. `false`: there was none.
    fn delete_group<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, bool>;

    /// The topic's groups, by name.
    fn groups<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, Vec<GroupInfo>>;

    /// Delivers entries to a consumer: first those that are anyone's again, the longest due first, then new ones, in id order.
    /// Empty after `wait`. The consumer exists from its first fetch on.
    fn fetch<'a>(&'a self, group: &'a Group, consumer: &'a Name, fetch: Fetch) -> StoreFuture<'a, Vec<Fetched>>;

    /// Acks. A late ack counts, whoever has the entry by now. Returns how many were pending.
    fn ack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>) -> StoreFuture<'a, u64>;

    /// Gives entries back, to be anyone's again after `delay`. A token of an earlier delivery than the last is ignored. Returns how many counted.
    fn nack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, delay: Duration) -> StoreFuture<'a, u64>;

    /// Keeps entries for `visibility` from now on. A token of an earlier delivery than the last is ignored. Returns how many counted.
    fn extend<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, visibility: Duration) -> StoreFuture<'a, u64>;

    /// Delivered and not acked entries, in id order. Needs [`Caps::pending`].
    fn pending<'a>(&'a self, group: &'a Group, query: PendingQuery) -> StoreFuture<'a, Vec<Pending>>;

    /// Takes pending entries that are idle for at least `idle_min` from whoever has them, in id order; counts as a delivery. Needs [`Caps::pending`].
    fn claim<'a>(
        &'a self,
        group: &'a Group,
        consumer: &'a Name,
        idle_min: Duration,
        fetch: Fetch,
    ) -> StoreFuture<'a, Vec<Fetched>>;

    /// The group's consumers, by name. Needs [`Caps::pending`].
    fn consumers<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, Vec<ConsumerInfo>>;

    /// Removes a consumer; what it has pending is anyone's again, at once. Returns how many entries that were. Needs [`Caps::pending`].
    fn remove_consumer<'a>(&'a self, group: &'a Group, consumer: &'a Name) -> StoreFuture<'a, u64>;

    /// Moves an entry to the topic `to`, with the reason and where it comes from in its headers, and acks it. `None`: it is not pending under this token any
    /// more (it was acked, or delivered again), and nothing was written.
    ///
    /// Under an idempotency key, so that a crash between the two steps, or two consumers at once, leaves one dead letter. Nor is there one beside an ack
    /// that counts, where the two are one step: the stores of this crate see to that, `JetStream` for acks of this process. `trim` is what is kept of
    /// `to`, as of [`Append::trim`].
    ///
    /// Never too large: what does not fit beside the reason and the origin is cut or left out, its own headers first, then the payload's end.
    fn dead_letter<'a>(
        &'a self,
        group: &'a Group,
        fetched: Fetched,
        to: &'a Topic,
        reason: &'a str,
        trim: Option<Trim>,
    ) -> StoreFuture<'a, Option<EntryId>> {
        Box::pin(async move {
            if self.extend(group, vec![fetched.token.clone()], BURIAL_TIME).await? == 0 {
                return Ok(None);
            }
            let letter = letter(group, &fetched, reason, self.limits());
            let appended = self.append(to, Append { trim, ..Append::one(letter) }).await?;
            self.ack(group, vec![fetched.token]).await?;
            Ok(appended.first().map(|appended| appended.id))
        })
    }

    /// Resolves when what is durable only by and by is durable now.
    fn sync(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A store's work on one topic, whose errors name it.
#[cfg(any(feature = "jetstream", feature = "redis"))]
pub(crate) fn at_topic<'a, T: 'a>(
    topic: &'a Topic,
    work: impl Future<Output = Result<T, StoreError>> + Send + 'a,
) -> StoreFuture<'a, T> {
    Box::pin(async move { work.await.map_err(|error| error.on(topic)) })
}

/// Follows many topics at once: what carries appended entries to live subscribers, on every node that shares the store.
///
/// # Rules
/// One task owns a tail. `watch` and `unwatch` neither wait nor fail; watching a watched topic sets its position.
pub trait Tail: Send {
    /// Follows `topic` from after `after`. A position ahead of the log is a gap in the next batch, as for `read`.
    fn watch(&mut self, topic: &Topic, after: EntryId);

    /// Follows `topic` no more.
    fn unwatch(&mut self, topic: &Topic);

    /// Waits until followed topics have entries after their positions, and returns those; each batch moves its topic's position to its `next`.
    ///
    /// A topic that cannot be read while others can is left alone for a while, longer each time; that it could not is told once at most, and only where
    /// there is nothing else to tell. What holds for the whole store (it is away) is told each time.
    ///
    /// # Cancel safety
    /// A future that is dropped loses nothing: positions move only with what is returned.
    fn next(&mut self, limit: Limit) -> StoreFuture<'_, Vec<(Topic, Batch)>>;
}

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is a named capability, and they are independent")]
pub struct Caps {
    /// What a returned `append` means.
    pub durability: Durability,
    /// Several nodes may use it at once.
    pub shared: bool,
    /// The entries of one append are all there or none, next to each other.
    pub atomic_batches: bool,
    /// Ids carry their time.
    pub times_in_ids: bool,
    /// Knows what was trimmed: its gaps are certain, and it never reports one where nothing is missing.
    pub certain_gaps: bool,
    /// Knows that a topic was deleted when another of its name is made: see [`Store::delete`].
    pub deletes_known: bool,
    /// Can list, claim and take back what is pending, consumer by consumer.
    pub pending: bool,
    /// The visibility of a fetch and the delay of a nack are kept as given; else the group's first fetch decides.
    pub visibility_per_fetch: bool,
    /// What `ack`, `nack` and `extend` count, and which old tokens they ignore, is so for deliveries to other processes, too; else for this store's own.
    pub counts_of_others: bool,
}

impl Caps {
    /// Everything, with this durability, for one node.
    pub const fn full(durability: Durability) -> Self {
        Self {
            durability,
            shared: false,
            atomic_batches: true,
            times_in_ids: true,
            certain_gaps: true,
            deletes_known: true,
            pending: true,
            visibility_per_fetch: true,
            counts_of_others: true,
        }
    }
}

/// What a returned `append` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Gone with the process.
    Memory,
    /// On disk a moment later. A crash may lose the last of it.
    Relaxed,
    /// On disk.
    Synced,
    /// As the server at the other end is configured.
    Server,
}

/// The header of a dead letter that says why.
pub const DEAD_LETTER_REASON: &str = "dead-letter-reason";
/// The header of a dead letter with the topic that it comes from.
pub const DEAD_LETTER_TOPIC: &str = "dead-letter-topic";
/// The header of a dead letter with the id that it had there.
pub const DEAD_LETTER_ID: &str = "dead-letter-id";
/// The header of a dead letter with the group that gave it up.
pub const DEAD_LETTER_GROUP: &str = "dead-letter-group";
/// The header of a dead letter with how often it was delivered.
pub const DEAD_LETTER_ATTEMPTS: &str = "dead-letter-attempts";

/// Nobody else has an entry for so long while its dead letter is written.
const BURIAL_TIME: Duration = Duration::from_secs(30);
/// Bytes of a reason that a dead letter keeps; the rest is cut.
const REASON_BYTES_MAX: usize = 1_024;

/// What [`Store::dead_letter`] appends.
pub(crate) fn letter(group: &Group, fetched: &Fetched, reason: &str, limits: Limits) -> NewEntry {
    let mut letter = match &fetched.entry {
        Some(entry) => {
            NewEntry { name: entry.name.clone(), payload: entry.payload.clone(), headers: entry.headers.clone(), dedup: None }
        }
        None => NewEntry::default(),
    };
    // A letter that died before begins with what it died of last.
    letter.headers.retain(|(name, _)| !name.starts_with("dead-letter-"));
    letter = letter
        .header(DEAD_LETTER_REASON, cut(reason, REASON_BYTES_MAX))
        .header(DEAD_LETTER_TOPIC, group.topic.as_str())
        .header(DEAD_LETTER_ID, fetched.id.to_string())
        .header(DEAD_LETTER_GROUP, group.name.as_str())
        .header(DEAD_LETTER_ATTEMPTS, fetched.attempt.to_string())
        .dedup(format!("{}/{}/{}", group.topic.as_str(), group.name, fetched.id));
    fit(&mut letter, limits.entry_bytes_max);
    letter
}

/// Makes a letter fit. An entry at the limit has no room for the headers. What was wrong with it matters more than its own headers, and those more
/// than nothing; a reason without its end says more than a letter that was refused.
fn fit(letter: &mut NewEntry, max: usize) {
    let over = |letter: &NewEntry| letter.bytes().saturating_sub(max);
    if over(letter) == 0 {
        return;
    }
    letter.headers.retain(|(name, _)| name.starts_with("dead-letter-"));
    letter.payload.truncate(letter.payload.len().saturating_sub(over(letter)));
    let over_by = over(letter);
    if let Some((_, reason)) = letter.headers.first_mut() {
        *reason = cut(reason, reason.len().saturating_sub(over_by)).into();
    }
    if over(letter) > 0 {
        letter.name = ByteString::new();
    }
    // The last one says the least.
    while over(letter) > 0 && letter.headers.pop().is_some() {}
    // The key stands for one entry of one group, and that it has to.
    if over(letter) > 0
        && let Some(key) = &mut letter.dedup
    {
        *key = format!("{:016x}", digest(key)).into();
    }
}

/// The first `bytes_max` bytes of a text, or less where a character would be cut in two.
fn cut(text: &str, bytes_max: usize) -> &str {
    let at = (0..=text.len().min(bytes_max)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..at]
}

/// FNV-1a: the same in every process and version.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::entry::Entry;
    use crate::log::memory::MemoryStore;

    /// A dead letter whose reason and origin took more than the store's entry limit was refused as too large, and so was every later try: the
    /// entry stayed pending for ever, was delivered again for ever, and nothing of it was kept. A dead letter fits whatever the limit is.
    #[actix::test]
    async fn a_dead_letter_fits_whatever_the_limit_is() {
        let topic = Topic::parse(&"t".repeat(200)).unwrap();
        let (group, dead) = (Group::new(topic, Name::parse(&"g".repeat(100)).unwrap()), Topic::parse("dead").unwrap());
        let reason = "ü".repeat(2_000);
        for max in (16..2_500).step_by(7).chain([16, 4_096]) {
            let store =
                MemoryStore::with(Limits::default().entry_bytes(max), Duration::from_secs(60), crate::log::Clock::system());
            store.create_group(&group, Position::Start).await.unwrap();
            for seq in 1..=2 {
                let id = EntryId::new(7, seq);
                let entry = Entry {
                    id,
                    name: "name".into(),
                    payload: vec![b'x'; 300].into(),
                    headers: vec![("own".into(), "h".repeat(100).into())],
                };
                let token = Token { id, attempt: 3, handle: None };
                let fetched = Fetched { id, entry: Some(entry), attempt: 3, token };
                for _ in 0..2 {
                    store.append(&dead, Append::one(letter(&group, &fetched, &reason, store.limits()))).await.unwrap();
                }
            }
            let letters = store.read(&dead, Position::Start, Limit::default()).await.unwrap().entries;
            assert_eq!(letters.len(), 2, "one letter each, at a limit of {max}");
            if max >= 800 {
                let reason = letters[0].header(DEAD_LETTER_REASON).unwrap();
                assert!(!reason.is_empty() && reason.chars().all(|c| c == 'ü'), "{reason}");
                assert_eq!(letters[0].header(DEAD_LETTER_ATTEMPTS), Some("3"));
            }
        }
    }
}
