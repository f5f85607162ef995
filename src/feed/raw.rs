//! Raw: entries of the log as their writers wrote them, for who sends them on: one order of all message types, and nothing is decoded.

use std::any::TypeId;
use std::any::type_name;
use std::sync::Arc;

use bytestring::ByteString;
use serde::de::IgnoredAny;

use crate::codec::CodecError;
use crate::event::Body;
use crate::event::Head;
use crate::event::Sendable;
use crate::feed::logged;
use crate::feed::logged::Logged;
use crate::feed::place::Place;
use crate::feed::types::Foreign;
use crate::feed::types::FromEntry;
use crate::feed::types::Kind;
use crate::feed::types::Published;
use crate::ids::EntryId;
use crate::local::shard::Shard;
use crate::local::shard::Shared;
use crate::log::Entry;
use crate::log::Limit;
use crate::topic::Topic;

/// An entry of any name.
pub(crate) struct Raw {
    name: ByteString,
    /// `None`: it is no JSON.
    json: Option<ByteString>,
}

impl FromEntry for Raw {
    fn takes(_: &str) -> bool {
        true
    }

    /// A client that reads nothing keeps two of them, in each of its topics; and there may be many such clients.
    fn page() -> Limit {
        Limit { bytes: 32 << 10, ..Limit::default() }
    }

    fn from_entry(entry: &Entry) -> Result<Self, String> {
        let json =
            ByteString::try_from(entry.payload.clone()).ok().filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        Ok(Self { name: entry.name.clone(), json })
    }
}

impl Sendable for Raw {
    fn name(&self) -> &str {
        &self.name
    }

    fn json(body: &Body<Self>) -> Option<ByteString> {
        body.payload().json.clone()
    }
}

/// Publishes to those who follow a topic whatever its messages are.
pub(crate) struct RawKind;

impl Kind for RawKind {
    fn message(&self) -> TypeId {
        TypeId::of::<Raw>()
    }

    fn type_name(&self) -> &'static str {
        type_name::<Raw>()
    }

    fn name(&self) -> &'static str {
        // Nothing else has an empty one.
        ""
    }

    fn publish(&self, shared: &Shared, topic: &Topic, entry: &Entry, place: Place) -> Published {
        let Some(ports) = shared.interest.ports(topic, TypeId::of::<Logged<Raw>>()) else { return Published::default() };
        let head = Raw::from_entry(entry).ok().map(|raw| Head::logged_sole(topic.clone(), shared.node, entry.id, raw));
        let full = logged::publish(shared, &ports, Logged { head, id: entry.id, prev: place.prev, epoch: place.epoch });
        Published { undecodable: None, full }
    }

    fn deliver(&self, _: &Shared, _: &Topic, _: Foreign<'_>, _: &mut Vec<Arc<Shard>>) -> Result<(), CodecError> {
        // It is of the log only.
        Ok(())
    }

    fn remind(&self, shared: &Shared, topic: &Topic, id: EntryId, epoch: u32) -> bool {
        logged::remind::<Raw>(shared, topic, id, epoch)
    }
}
