//! Types: the message types that may come out of the log, by the names that they have there. Knows how to decode and to whom it goes.

use std::any::TypeId;
use std::any::type_name;
use std::collections::HashMap;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

use crate::codec::Codec;
use crate::codec::CodecError;
use crate::event::Body;
use crate::event::Head;
use crate::event::Payload;
use crate::event::Traced;
use crate::feed::logged;
use crate::feed::logged::Logged;
use crate::feed::place::Place;
use crate::ids::EntryId;
use crate::ids::NodeId;
use crate::local::shard::Shard;
use crate::local::shard::Shared;
use crate::log::Entry;
use crate::log::Limit;
use crate::topic::Topic;

#[derive(Default, Clone)]
pub(crate) struct Types {
    by_name: Arc<RwLock<HashMap<&'static str, Arc<dyn Kind>>>>,
    /// Types that are nothing to other nodes.
    local: Arc<RwLock<HashSet<TypeId>>>,
    /// Those that have a name.
    named: Arc<RwLock<HashSet<TypeId>>>,
}

/// Two types with one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameTaken {
    pub(crate) name: &'static str,
    pub(crate) by: &'static str,
}

/// One message type.
pub(crate) trait Kind: Send + Sync {
    fn message(&self) -> TypeId;
    fn type_name(&self) -> &'static str;
    /// What other nodes call it.
    fn name(&self) -> &'static str;
    /// Decodes an entry and gives it to whoever on this node listens to its topic for this type.
    fn publish(&self, shared: &Shared, topic: &Topic, entry: &Entry, place: Place) -> Published;
    /// Decodes what another node broadcast and gives it to whoever on this node listens to its topic for this type. Whose registry sleeps is
    /// added to `asleep`, to be woken.
    fn deliver(&self, shared: &Shared, topic: &Topic, from: Foreign<'_>, asleep: &mut Vec<Arc<Shard>>) -> Result<(), CodecError>;
    /// Tells the followers of a topic that there was an entry of this id, for those who have not got it. `false`: a port is full.
    fn remind(&self, shared: &Shared, topic: &Topic, id: EntryId, epoch: u32) -> bool;
}

/// A broadcast of another node.
pub(crate) struct Foreign<'a> {
    pub(crate) node: NodeId,
    pub(crate) codec: &'a Codec,
    /// The codec that wrote it.
    pub(crate) encoding: &'a str,
    pub(crate) payload: &'a [u8],
    /// Of its arrival here; what its deliveries are children of.
    pub(crate) span: &'a Traced,
}

/// What a follower of the log makes of an entry.
pub(crate) trait FromEntry: Sized + Send + Sync + 'static {
    /// Whether entries of this name are for it; the name is empty where another program gave none.
    fn takes(name: &str) -> bool;
    /// `Err`: the entry is none of it, whatever its name says.
    fn from_entry(entry: &Entry) -> Result<Self, String>;
    /// How much history is read at once.
    fn page() -> Limit {
        Limit::default()
    }
}

impl<M: Payload> FromEntry for M {
    fn takes(name: &str) -> bool {
        name.is_empty() || name == M::NAME
    }

    fn from_entry(entry: &Entry) -> Result<Self, String> {
        decode(&entry.payload)
    }
}

/// What became of an entry.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Why it is no message of its name.
    pub(crate) undecodable: Option<String>,
    /// A port with followers was full: they have to be reminded.
    pub(crate) full: bool,
}

struct KindOf<M>(std::marker::PhantomData<fn() -> M>);

impl Types {
    /// Makes a type known. Costs a read lock when it is already.
    pub(crate) fn add<M: Payload>(&self) -> Result<(), NameTaken> {
        if M::NAME.is_empty() {
            return Err(NameTaken { name: M::NAME, by: "entries that have no name" });
        }
        let check = |known: &dyn Kind| {
            let same = known.message() == TypeId::of::<M>();
            if same { Ok(()) } else { Err(NameTaken { name: M::NAME, by: known.type_name() }) }
        };
        if let Some(known) = self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(M::NAME) {
            return check(&**known);
        }
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        check(&**by_name.entry(M::NAME).or_insert_with(|| Arc::new(KindOf::<M>(std::marker::PhantomData))))?;
        drop(by_name);
        self.named.write().unwrap_or_else(PoisonError::into_inner).insert(TypeId::of::<M>());
        self.add_local::<Logged<M>>();
        Ok(())
    }

    /// Makes a type known as one that is nothing to other nodes.
    pub(crate) fn add_local<M: 'static>(&self) {
        self.local.write().unwrap_or_else(PoisonError::into_inner).insert(TypeId::of::<M>());
    }

    pub(crate) fn is_local(&self, message: TypeId) -> bool {
        self.local.read().unwrap_or_else(PoisonError::into_inner).contains(&message)
    }

    pub(crate) fn is_named(&self, message: TypeId) -> bool {
        self.named.read().unwrap_or_else(PoisonError::into_inner).contains(&message)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn Kind>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<dyn Kind>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl<M: Payload> Kind for KindOf<M> {
    fn message(&self) -> TypeId {
        TypeId::of::<M>()
    }

    fn type_name(&self) -> &'static str {
        type_name::<M>()
    }

    fn name(&self) -> &'static str {
        M::NAME
    }

    fn publish(&self, shared: &Shared, topic: &Topic, entry: &Entry, place: Place) -> Published {
        let plain = shared.interest.ports(topic, TypeId::of::<M>());
        let logged = shared.interest.ports(topic, TypeId::of::<Logged<M>>());
        if plain.is_none() && logged.is_none() {
            return Published::default();
        }
        let (message, undecodable) = match decode::<M>(&entry.payload) {
            Ok(message) => (Some(Arc::new(Body::new(message))), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(body) = &message {
            for port in plain.iter().flat_map(|ports| ports.iter()) {
                let head = Head::logged(port.topic().clone(), shared.node, entry.id, body);
                // A full port is told by `missed()`.
                let _ = port.shard().publish(port, None, head);
            }
        }
        let full = logged.is_some_and(|ports| {
            let head = message.map(|body| Head::logged(topic.clone(), shared.node, entry.id, &body));
            logged::publish(shared, &ports, Logged { head, id: entry.id, prev: place.prev, epoch: place.epoch })
        });
        Published { undecodable, full }
    }

    fn deliver(&self, shared: &Shared, topic: &Topic, from: Foreign<'_>, asleep: &mut Vec<Arc<Shard>>) -> Result<(), CodecError> {
        let Some(ports) = shared.interest.ports(topic, TypeId::of::<M>()) else { return Ok(()) };
        let message = from.codec.decode::<M>(from.encoding, from.payload)?;
        let Some(first) = ports.first() else { return Ok(()) };
        // What a full port refuses is told by `missed()`, and dropped here, which may run the user's code.
        first.shard().guarded(|| match &*ports {
            [port] => {
                let head = Head::sole(port.topic().clone(), from.node, message, port.delivery(from.span));
                let _ = port.shard().publish_quietly(port, head, asleep);
            }
            ports => {
                let body = Arc::new(Body::new(message));
                for port in ports {
                    let head = Head::shared(port.topic().clone(), from.node, &body, port.delivery(from.span));
                    let _ = port.shard().publish_quietly(port, head, asleep);
                }
            }
        });
        Ok(())
    }

    fn remind(&self, shared: &Shared, topic: &Topic, id: EntryId, epoch: u32) -> bool {
        logged::remind::<M>(shared, topic, id, epoch)
    }
}

/// A message from its bytes. `Deserialize` is the user's code: a panic in it is an error like any other.
pub(crate) fn decode<M: Payload>(payload: &[u8]) -> Result<M, String> {
    match catch_unwind(AssertUnwindSafe(|| serde_json::from_slice(payload))) {
        Ok(decoded) => decoded.map_err(|error| error.to_string()),
        Err(_) => Err(String::from("decoding panicked")),
    }
}
