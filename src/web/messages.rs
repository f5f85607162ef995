//! Messages: the message types of an endpoint, and what can be done with them by name. Knows no connection.

use std::any::TypeId;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use crate::event::Event;
use crate::event::Payload;
use crate::event::Wire;
use crate::feed::types::Types;
use crate::ids::EntryId;
use crate::ids::SubscriberId;
use crate::local::error::SubscribeError;
use crate::local::inbox::Inbox;
use crate::local::options::SubscribeOptions;
use crate::local::subscription::Subscription;
use crate::pubsub::PubSub;
use crate::stream::append::AppendOptions;
use crate::topic::Topic;
use crate::web::auth::Identity;
use crate::web::auth::SessionInfo;
use crate::web::auth::Told;
use crate::web::blob::Blob;
use crate::web::drain::Draining;
use crate::web::origin::shorten;
use crate::web::refusal::Refusal;

/// What comes out of a connection's inbox.
pub(crate) enum Item {
    /// A message for the client, and how many it missed before it.
    Message(Arc<dyn Wire>, u64),
    /// For its identity.
    Told(Told),
    /// The server is going away.
    Draining(Draining),
}

impl<M: Payload> From<Event<M>> for Item {
    fn from(event: Event<M>) -> Self {
        let missed = event.missed();
        let head = event.into_head();
        if TypeId::of::<M>() == TypeId::of::<Told>()
            && let Some(told) = head.payload_as::<Told>()
        {
            return Self::Told(*told);
        }
        Self::Message(head, missed)
    }
}

impl From<Event<Draining>> for Item {
    fn from(event: Event<Draining>) -> Self {
        Self::Draining(*event)
    }
}

/// The inbox of a connection: subscribed to nothing but what every one is told.
pub(crate) fn inbox(pubsub: &PubSub, identity: &Identity, messages: &Messages) -> Result<Inbox<Item>, SubscribeError> {
    messages.types.iter().for_each(|message| (message.name_it)(pubsub.types()));
    let mut inbox = pubsub.inbox()?;
    inbox.subscribe::<Draining>(&Draining::topic(), &SubscribeOptions::new())?;
    if let Some(topic) = identity.topic() {
        inbox.subscribe::<Told>(topic, &SubscribeOptions::new())?;
    }
    Ok(inbox)
}

type Subscribe = fn(&mut Inbox<Item>, &Topic, &SubscribeOptions) -> Result<Subscription, SubscribeError>;
type Broadcast = dyn Fn(&PubSub, &SessionInfo, Option<SubscriberId>, &Topic, Content<'_>) -> Result<(), Refusal> + Send + Sync;
type Append = dyn Fn(PubSub, &SessionInfo, Topic, Content<'_>, Option<ByteString>) -> Result<Appending, Refusal> + Send + Sync;
type Appending = std::pin::Pin<Box<dyn Future<Output = Result<EntryId, Refusal>> + Send>>;

/// What a client published.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    Json(&'a str),
    Bytes(&'a Bytes),
}

/// One message type of an endpoint.
#[derive(Clone)]
pub(crate) struct MessageType {
    pub(crate) name: &'static str,
    of: TypeId,
    /// So that it arrives from other nodes, too.
    name_it: fn(&Types),
    pub(crate) subscribe: Subscribe,
    /// Clients receive it.
    pub(crate) received: bool,
    /// It is broadcast, also where the endpoint is durable.
    pub(crate) ephemeral: bool,
    /// Clients may publish it.
    pub(crate) publish: Option<Publish>,
}

#[derive(Clone)]
pub(crate) struct Publish {
    pub(crate) broadcast: Arc<Broadcast>,
    pub(crate) append: Arc<Append>,
}

/// The message types of one endpoint.
#[derive(Clone, Default)]
pub(crate) struct Messages {
    types: Vec<MessageType>,
}

impl Messages {
    /// The entry of a type, made if there is none.
    ///
    /// # Panics
    /// If another type here has the same name: that is a mistake in the program, and found when it starts.
    pub(crate) fn of<M: Payload>(&mut self) -> &mut MessageType {
        let of = TypeId::of::<M>();
        let at = self.types.iter().position(|known| known.name == M::NAME).unwrap_or_else(|| {
            let subscribe: Subscribe = |inbox, topic, options| inbox.subscribe::<M>(topic, options);
            let name_it: fn(&Types) = |types| {
                // Where the name is taken, this node's own broadcasts of it say so.
                let _ = types.add::<M>();
            };
            self.types.push(MessageType {
                name: M::NAME,
                of,
                name_it,
                subscribe,
                received: false,
                ephemeral: false,
                publish: None,
            });
            self.types.len() - 1
        });
        let known = &mut self.types[at];
        assert!(known.of == of, "two message types of one endpoint are called {:?}", M::NAME);
        known
    }

    pub(crate) fn get(&self, name: &str) -> Option<&MessageType> {
        self.types.iter().find(|known| known.name == name)
    }

    /// Those that clients receive as broadcasts.
    pub(crate) fn broadcast(&self, durable: bool) -> impl Iterator<Item = &MessageType> {
        self.types.iter().filter(move |known| known.received && (known.ephemeral || !durable))
    }

    /// What an entry of the log is called here. `None`: it is not for the clients of this endpoint. What another program wrote without a name is
    /// of the first type.
    pub(crate) fn logged(&self, name: &str) -> Option<&'static str> {
        let mut logged = self.types.iter().filter(|known| known.received && !known.ephemeral);
        logged.find(|known| name.is_empty() || known.name == name).map(|known| known.name)
    }
}

impl Publish {
    /// Of messages that are JSON; `look` may refuse or change each.
    pub(crate) fn json<M: Payload>(look: impl Fn(&SessionInfo, &Topic, M) -> Result<M, Refusal> + Send + Sync + 'static) -> Self {
        let look = Arc::new(look);
        let looked = Arc::clone(&look);
        Self {
            broadcast: Arc::new(move |pubsub, info, from, topic, content| {
                send(pubsub, from, topic, look(info, topic, parse(content)?)?)
            }),
            append: Arc::new(move |pubsub, info, topic, content, key| {
                let message = looked(info, &topic, parse(content)?)?;
                Ok(append(pubsub, topic, message, key))
            }),
        }
    }

    /// Of bytes.
    pub(crate) fn bytes() -> Self {
        Self {
            broadcast: Arc::new(|pubsub, _, from, topic, content| send(pubsub, from, topic, blob(content)?)),
            append: Arc::new(|pubsub, _, topic, content, key| Ok(append(pubsub, topic, blob(content)?, key))),
        }
    }
}

fn parse<M: Payload>(content: Content<'_>) -> Result<M, Refusal> {
    match content {
        // The text of the error has the offending value in it, but no more of the message.
        Content::Json(text) => serde_json::from_str(text).map_err(|error| {
            let text = shorten(&error.to_string());
            Refusal::bad("data", format!("data is no {}: {text}", M::NAME))
        }),
        Content::Bytes(bytes) => Err(Refusal::bad("data", format!("{} bytes are no {}, which is JSON", bytes.len(), M::NAME))),
    }
}

fn blob(content: Content<'_>) -> Result<Blob, Refusal> {
    match content {
        Content::Bytes(bytes) => Ok(Blob::from(bytes.clone())),
        Content::Json(text) => serde_json::from_str(text).map_err(|_| Refusal::bad("data", "data is no base64 text")),
    }
}

fn send<M: Payload>(pubsub: &PubSub, from: Option<SubscriberId>, topic: &Topic, message: M) -> Result<(), Refusal> {
    match from {
        Some(from) => pubsub.broadcast_from(from, topic, message)?,
        None => pubsub.broadcast(topic, message)?,
    };
    Ok(())
}

fn append<M: Payload>(pubsub: PubSub, topic: Topic, message: M, key: Option<ByteString>) -> Appending {
    Box::pin(async move {
        let options = key.map_or_else(AppendOptions::new, |key| AppendOptions::new().key(key));
        Ok(pubsub.append_with(&topic, &message, options).await?.id)
    })
}
