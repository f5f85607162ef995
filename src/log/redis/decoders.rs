//! Decoders: what is read of a server's replies, for `testing::decoders`. Knows no connection.

use redis::Value;
use redis::parse_redis_value;

use crate::ids::EntryId;
use crate::log::redis::fields;
use crate::log::redis::gap::StreamState;
use crate::log::redis::groups;
use crate::log::redis::keys::Keys;
use crate::log::redis::reply;

/// A reply in the protocol of Redis, as each of those that are read.
pub(crate) fn reply(bytes: &[u8]) {
    // What the client's own parser refuses is none of ours.
    let Ok(value) = parse_redis_value(bytes) else { return };
    if let Ok(entry) = fields::entry(value.clone()) {
        assert!(entry.id <= EntryId::MAX);
    }
    drop(StreamState::parse(value.clone()));
    drop(StreamState::parse_info(value.clone()));
    drop(groups::fetched(value.clone()));
    drop((reply::int(&value), reply::id_or_none(&value), reply::text(value)));
}

/// A key that the server names, under a prefix: the topic leads back to it.
pub(crate) fn key(bytes: &[u8]) {
    let Some((prefix, key)) = bytes.split_first() else { return };
    let keys = if prefix % 2 == 0 { Some(Keys::default()) } else { Keys::new("app:") };
    let Some(keys) = keys else { return };
    if let Some(topic) = keys.topic(key) {
        assert_eq!(keys.topic(keys.stream(&topic).as_bytes()), Some(topic.clone()));
        assert_eq!(keys.topic(keys.meta(&topic).as_bytes()), Some(topic));
    }
    drop(reply::text(Value::BulkString(key.to_vec())));
}
