//! Event: what a subscriber's handler receives, one payload shared by all. Knows no topics' subscribers and no queues.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::OnceLock;

use actix::Message;
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Span;

use crate::encodings::Encodings;
use crate::ids::EntryId;
use crate::ids::NodeId;
use crate::topic::Topic;

/// A message that may leave this process: it has a name that other nodes know, and a serialized form.
///
/// `local_broadcast` takes any `Send + Sync` type; `broadcast` asks for a `Payload`, because it addresses every node.
///
/// ```
/// use actix_pubsub::Payload;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct NewMessage { user: String, body: String }
/// impl Payload for NewMessage { const NAME: &'static str = "chat.new_message"; }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no name that other nodes know",
    note = "give it one: `impl Payload for {Self} {{ const NAME: &'static str = \"app.name\"; }}`, and derive serde's `Serialize` and `Deserialize`",
    note = "`local_broadcast` takes any type, for this process only"
)]
pub trait Payload: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What other nodes call this message. Two types of one program must not share a name.
    const NAME: &'static str;
}

/// One broadcast as one subscriber receives it: `Handler<Event<M>>`.
///
/// Dereferences to the payload. A clone is one reference count; the payload itself is never copied, and what is computed from
/// it for the wire ([`json`](Self::json)) is computed once for all subscribers.
pub struct Event<M> {
    head: Arc<Head<M>>,
    missed: u64,
}

impl<M> Event<M> {
    pub(crate) fn new(head: Arc<Head<M>>, missed: u64) -> Self {
        Self { head, missed }
    }

    #[cfg(feature = "web")]
    pub(crate) fn into_head(self) -> Arc<Head<M>> {
        self.head
    }

    /// The topic it was broadcast to.
    pub fn topic(&self) -> &Topic {
        &self.head.topic
    }

    /// The node whose publisher broadcast it; of what comes from the durable log, the node that read it there.
    pub fn node(&self) -> NodeId {
        self.head.node
    }

    /// Where it stands in the durable log; `None` for what was broadcast, not appended.
    pub fn id(&self) -> Option<EntryId> {
        (self.head.id != EntryId::MIN).then_some(self.head.id)
    }

    /// How many events of this topic this subscriber lost just before this one: its inbox overflowed, or a port was full.
    ///
    /// Exact, and reported once: the next event starts from zero again. A publisher that is itself a subscriber counts its own
    /// `broadcast_from` as missed where a full port refused it.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The span of its delivery by this arbiter, to be the parent of your own; disabled where nobody records it. A handler in an actor's own
    /// context runs within a child of it; a stream, and an actor behind its mailbox, can do the same by this.
    pub fn span(&self) -> Span {
        self.head.span().cloned().unwrap_or_else(Span::none)
    }

    /// The payload as JSON text, encoded at the first call by anyone and shared from then on.
    ///
    /// A `ByteString` is what `WebsocketContext::text` sends without a copy: 10,000 sockets cost one serialization.
    ///
    /// # Errors
    /// What `serde_json` said of this payload; that, too, is computed once.
    pub fn json(&self) -> Result<ByteString, JsonError>
    where
        M: Serialize,
    {
        self.head.body().json()
    }
}

impl<M> Deref for Event<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.head.body().payload
    }
}

impl<M> Clone for Event<M> {
    fn clone(&self) -> Self {
        Self { head: Arc::clone(&self.head), missed: self.missed }
    }
}

impl<M: fmt::Debug> fmt::Debug for Event<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("topic", self.topic())
            .field("missed", &self.missed)
            .field("payload", &**self)
            .finish_non_exhaustive()
    }
}

impl<M: 'static> Message for Event<M> {
    type Result = ();
}

/// A payload that `serde_json` could not write.
#[derive(Debug, Clone)]
pub struct JsonError {
    message: &'static str,
    source: Arc<serde_json::Error>,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "payload of type {} has no JSON form", self.message)
    }
}

impl std::error::Error for JsonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// An event whose message type is forgotten: what ports and rings hold.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;

/// An event as one arbiter shares it among its subscribers.
///
/// Each arbiter gets a head of its own, because its reference count is touched once per delivery: one count for all arbiters would
/// bounce between their cores. With a single interested arbiter the payload sits inside the head, one allocation in all.
pub(crate) struct Head<M> {
    topic: Topic,
    node: NodeId,
    /// Of the log's entry; [`EntryId::MIN`] where there is none.
    id: EntryId,
    body: BodyRef<M>,
    /// Of its delivery by this arbiter: what its handlers are children of.
    span: Traced,
    #[cfg_attr(not(feature = "web"), expect(dead_code, reason = "nothing is kept in it"))]
    encodings: Encodings,
}

/// A span that travels with an event: almost always none, so it takes one word.
pub(crate) type Traced = Option<Box<Span>>;

/// None, where nobody records it.
pub(crate) fn traced(span: Span) -> Traced {
    (!span.is_disabled()).then(|| Box::new(span))
}

/// Within a span, where there is one.
pub(crate) fn within<R>(span: &Traced, work: impl FnOnce() -> R) -> R {
    match span {
        None => work(),
        Some(span) => span.in_scope(work),
    }
}

impl<M: Send + Sync + 'static> Head<M> {
    pub(crate) fn sole(topic: Topic, node: NodeId, payload: M, span: Traced) -> Erased {
        let body = BodyRef::Own(Body::new(payload));
        Arc::new(Self { topic, node, id: EntryId::MIN, body, span, encodings: Encodings::default() })
    }

    pub(crate) fn shared(topic: Topic, node: NodeId, body: &Arc<Body<M>>, span: Traced) -> Erased {
        let body = BodyRef::Shared(Arc::clone(body));
        Arc::new(Self { topic, node, id: EntryId::MIN, body, span, encodings: Encodings::default() })
    }
}

impl<M> Head<M> {
    /// Of an entry of the durable log.
    pub(crate) fn logged(topic: Topic, node: NodeId, id: EntryId, body: &Arc<Body<M>>) -> Arc<Self> {
        Arc::new(Self { topic, node, id, body: BodyRef::Shared(Arc::clone(body)), span: None, encodings: Encodings::default() })
    }

    /// As [`logged`](Self::logged), of a payload that nobody else has.
    pub(crate) fn logged_sole(topic: Topic, node: NodeId, id: EntryId, payload: M) -> Arc<Self> {
        Arc::new(Self { topic, node, id, body: BodyRef::Own(Body::new(payload)), span: None, encodings: Encodings::default() })
    }
}

/// An event for who does not know its type: what goes out on a wire.
#[cfg(feature = "web")]
pub(crate) trait Wire: Send + Sync {
    fn topic(&self) -> &Topic;
    fn node(&self) -> NodeId;
    /// Where it stands in the log; `None` for what was broadcast.
    fn id(&self) -> Option<EntryId>;
    /// What its message type is called.
    fn name(&self) -> &str;
    /// The payload as JSON text. `None`: it has none.
    fn json(&self) -> Option<ByteString>;
    fn encodings(&self) -> &Encodings;
    /// For who knows the type.
    fn erase(self: Arc<Self>) -> Erased;
}

/// A payload that goes out on wires.
#[cfg(feature = "web")]
pub(crate) trait Sendable: Send + Sync + Sized + 'static {
    fn name(&self) -> &str;
    fn json(body: &Body<Self>) -> Option<ByteString>;
}

#[cfg(feature = "web")]
impl<M: Payload> Sendable for M {
    fn name(&self) -> &str {
        M::NAME
    }

    fn json(body: &Body<Self>) -> Option<ByteString> {
        body.json().ok()
    }
}

#[cfg(feature = "web")]
impl<M: Sendable> Wire for Head<M> {
    fn topic(&self) -> &Topic {
        &self.topic
    }

    fn node(&self) -> NodeId {
        self.node
    }

    fn id(&self) -> Option<EntryId> {
        (self.id != EntryId::MIN).then_some(self.id)
    }

    fn name(&self) -> &str {
        self.body().payload.name()
    }

    fn json(&self) -> Option<ByteString> {
        M::json(self.body())
    }

    fn encodings(&self) -> &Encodings {
        &self.encodings
    }

    fn erase(self: Arc<Self>) -> Erased {
        self
    }
}

#[cfg(feature = "web")]
impl<M: 'static> Head<M> {
    pub(crate) fn payload(&self) -> &M {
        &self.body().payload
    }

    pub(crate) fn payload_as<T: 'static>(&self) -> Option<&T> {
        let payload: &dyn Any = self.payload();
        payload.downcast_ref()
    }
}

impl<M> Head<M> {
    pub(crate) fn span(&self) -> Option<&Span> {
        self.span.as_deref()
    }

    pub(crate) fn topic(&self) -> &Topic {
        &self.topic
    }

    fn body(&self) -> &Body<M> {
        match &self.body {
            BodyRef::Own(body) => body,
            BodyRef::Shared(body) => body,
        }
    }
}

enum BodyRef<M> {
    Own(Body<M>),
    Shared(Arc<Body<M>>),
}

/// The payload and what was computed from it.
pub(crate) struct Body<M> {
    payload: M,
    json: OnceLock<Result<ByteString, JsonError>>,
}

impl<M> Body<M> {
    pub(crate) fn new(payload: M) -> Self {
        Self { payload, json: OnceLock::new() }
    }

    #[cfg(feature = "web")]
    pub(crate) fn payload(&self) -> &M {
        &self.payload
    }

    fn json(&self) -> Result<ByteString, JsonError>
    where
        M: Serialize,
    {
        self.json
            .get_or_init(|| match serde_json::to_string(&self.payload) {
                Ok(text) => Ok(ByteString::from(text)),
                Err(source) => Err(JsonError { message: std::any::type_name::<M>(), source: Arc::new(source) }),
            })
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    struct Counted(Arc<AtomicUsize>);

    impl Serialize for Counted {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            serializer.serialize_str("once")
        }
    }

    fn event<M: Send + Sync + 'static>(body: &Arc<Body<M>>) -> Event<M> {
        let erased = Head::shared(Topic::parse("t").unwrap(), NodeId::random(), body, None);
        Event::new(erased.downcast::<Head<M>>().unwrap_or_else(|_| panic!("a head of this type")), 0)
    }

    #[test]
    fn json_is_encoded_once_for_all_events_of_one_broadcast() {
        let encoded = Arc::new(AtomicUsize::new(0));
        let body = Arc::new(Body::new(Counted(Arc::clone(&encoded))));
        let (one, other) = (event(&body), event(&body));
        assert_eq!(one.json().unwrap(), r#""once""#);
        assert_eq!(one.json().unwrap().as_ptr(), other.clone().json().unwrap().as_ptr());
        assert_eq!(encoded.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_payload_without_json_gives_an_error_that_names_its_type() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = event(&Arc::new(Body::new(map))).json().unwrap_err();
        assert!(error.to_string().contains("BTreeMap"), "{error}");
        assert!(error.source().unwrap().to_string().contains("key must be a string"));
    }

    #[test]
    fn clones_share_one_payload() {
        let one = event(&Arc::new(Body::new(String::from("shared"))));
        assert!(std::ptr::eq::<String>(&*one, &*one.clone()));
    }
}
