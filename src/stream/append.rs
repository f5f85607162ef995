//! Append: messages into the log. Encodes, names the type, and waits until the store has it.

use std::any::type_name;
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use crate::event::Payload;
use crate::feed::Feed;
use crate::feed::types::NameTaken;
use crate::ids::EntryId;
use crate::log::Append;
use crate::log::Appended;
use crate::log::Headers;
use crate::log::Limit;
use crate::log::NewEntry;
use crate::log::Position;
use crate::log::Store;
use crate::pubsub::PubSub;
use crate::stream::error::AppendError;
use crate::topic::ToTopic;

/// Conditions and additions of one append.
#[derive(Debug, Clone, Default)]
pub struct AppendOptions {
    key: Option<ByteString>,
    expect_last: Option<EntryId>,
    headers: Headers,
}

impl AppendOptions {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// An idempotency key: a second append to the topic under it, within the store's window, appends nothing and answers the first one's id. So an
    /// append whose outcome is unknown can be repeated. Not by itself enough for exactly once: after the window, ten minutes by default, the key is forgotten.
    pub fn key(mut self, key: impl Into<ByteString>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Appends only if this is the topic's last id, [`EntryId::MIN`] for none; else [`StoreError::Conflict`](crate::log::StoreError::Conflict).
    pub fn expect_last(mut self, last: EntryId) -> Self {
        self.expect_last = Some(last);
        self
    }

    /// Says something beside the message.
    pub fn header(mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// The durable log.
impl PubSub {
    /// Appends a message to a topic of the log. When it returns, the message is as durable as the store says
    /// ([`Durability`](crate::log::Durability)); then it goes to every subscriber of the topic, on every node that shares the store, in the
    /// log's order, with [`Event::id`](crate::Event::id). A plain subscription on this node gets it if it was made before this call; one that was made
    /// while it was on its way may, too. On another node it has to stand first, which [`subscribe_from`](Self::subscribe_from) waits for.
    ///
    /// ```
    /// use actix_pubsub::{Payload, PubSub};
    /// use actix_pubsub::log::MemoryStore;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct OrderPlaced { number: u64 }
    /// impl Payload for OrderPlaced { const NAME: &'static str = "shop.order_placed"; }
    ///
    /// # actix::System::new().block_on(async {
    /// let pubsub = PubSub::builder().log(MemoryStore::new()).build()?;
    /// let first = pubsub.append("orders", &OrderPlaced { number: 1 }).await?;
    /// let second = pubsub.append("orders", &OrderPlaced { number: 2 }).await?;
    /// assert!(first < second);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`AppendError`]; only [`Unavailable`](crate::log::StoreError::Unavailable) leaves open whether it was appended: repeat it under a
    /// [key](AppendOptions::key).
    ///
    /// # Cancel safety
    /// A dropped append has appended all or nothing.
    pub async fn append<M: Payload>(&self, topic: impl ToTopic, message: &M) -> Result<EntryId, AppendError> {
        self.append_with(topic, message, AppendOptions::default()).await.map(|appended| appended.id)
    }

    /// As [`append`](Self::append), with options; says whether the key was a duplicate.
    ///
    /// # Errors
    /// As `append`.
    pub async fn append_with<M: Payload>(
        &self,
        topic: impl ToTopic,
        message: &M,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        let mut entry = encode(message)?;
        (entry.dedup, entry.headers) = (options.key, options.headers);
        let appended = self.append_entries::<M>(topic, vec![entry], options.expect_last).await?;
        // One entry, one answer: that is the store's contract.
        Ok(appended.first().copied().unwrap_or(Appended { id: EntryId::MIN, duplicate: false }))
    }

    /// Appends several messages to one topic in one step; in their order, next to each other where the store's
    /// [`atomic_batches`](crate::log::Caps::atomic_batches) says so.
    ///
    /// # Errors
    /// As `append`; nothing was appended if one message is refused.
    pub async fn append_many<'a, M: Payload>(
        &self,
        topic: impl ToTopic,
        messages: impl IntoIterator<Item = &'a M>,
    ) -> Result<Vec<EntryId>, AppendError> {
        let entries = messages.into_iter().map(encode).collect::<Result<_, _>>()?;
        let appended = self.append_entries::<M>(topic, entries, None).await?;
        Ok(appended.into_iter().map(|appended| appended.id).collect())
    }

    async fn append_entries<M: Payload>(
        &self,
        topic: impl ToTopic,
        entries: Vec<NewEntry>,
        expect_last: Option<EntryId>,
    ) -> Result<Vec<Appended>, AppendError> {
        let feed = self.feed().ok_or(AppendError::NoLog)?;
        let topic = topic.to_topic()?;
        feed.types.add::<M>().map_err(|NameTaken { name, by }| AppendError::NameTaken { name, by })?;
        if feed.is_closed() {
            return Err(AppendError::Closed);
        }
        // Whoever has subscribed here before this call gets it: so the feed has to stand before the entry is there.
        let mut hold = None;
        // Mostly it does. What waits for it is boxed, so that an append under way is small.
        let listened = feed.shared.interest.contains(&topic) && feed.stands(&topic).is_none();
        if listened && Box::pin(feed.try_stand(&topic)).await.is_none() {
            hold = Some(feed.hold(&topic));
        }
        let trim = feed.retention.of(&topic).on_append();
        let appended = feed.store.append(&topic, Append { entries, expect_last, trim }).await?;
        feed.count_appended(appended.iter().filter(|appended| !appended.duplicate).count());
        if let Some(hold) = &mut hold {
            hold.id = appended.first().map(|appended| appended.id);
        }
        Ok(appended)
    }

    /// Where a topic's log ends now: load a state that includes everything up to here, then [`subscribe_from`](Self::subscribe_from) here, and nothing is
    /// missed or seen twice. [`EntryId::MIN`]: it never had an entry.
    ///
    /// # Errors
    /// As `append`.
    pub async fn head(&self, topic: impl ToTopic) -> Result<EntryId, AppendError> {
        let feed = self.feed().ok_or(AppendError::NoLog)?;
        let topic = topic.to_topic()?;
        Ok(feed.store.read(&topic, Position::End, Limit::entries(1)).await?.next)
    }

    /// The store under the log, for what has no verb here: information, trimming, groups. `None`: this pub/sub has no log.
    pub fn log(&self) -> Option<Arc<dyn Store>> {
        self.feed().map(|feed: &Arc<Feed>| Arc::clone(&feed.store))
    }
}

/// The message as JSON, in bytes of just its size: they live until the store has them, as many at once as there are appends under way.
fn encode<M: Payload>(message: &M) -> Result<NewEntry, AppendError> {
    let mut json = SCRATCH.try_with(Cell::take).unwrap_or_default();
    json.clear();
    if let Err(source) = serde_json::to_writer(&mut json, message) {
        return Err(AppendError::Encode { message: type_name::<M>(), source: Arc::new(source) });
    }
    let payload = if json.capacity() > SCRATCH_BYTES_MAX {
        Bytes::from(json)
    } else {
        let payload = Bytes::copy_from_slice(&json);
        // A thread that ends keeps none.
        let _ = SCRATCH.try_with(|scratch| scratch.set(json));
        payload
    };
    Ok(NewEntry::new(ByteString::from_static(M::NAME), payload))
}

/// Room for one message that a thread keeps; a larger one is not copied.
const SCRATCH_BYTES_MAX: usize = 16 << 10;

thread_local!(static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
