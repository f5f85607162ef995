//! Decoders: what is read of a server's messages, for `testing::decoders`. Knows no connection.

use bytes::Bytes;

use crate::log::jetstream::api;
use crate::log::jetstream::api::ConsumerPage;
use crate::log::jetstream::api::Done;
use crate::log::jetstream::api::PublishAck;
use crate::log::jetstream::api::StoredMessage;
use crate::log::jetstream::api::StreamInfo;
use crate::log::jetstream::api::StreamNames;
use crate::log::jetstream::codec;

/// The answer of the server's API, as each of those that are read.
pub(crate) fn answer(bytes: &[u8]) {
    drop(api::answer::<PublishAck>(bytes));
    drop(api::answer::<StreamInfo>(bytes));
    drop(api::answer::<StoredMessage>(bytes));
    drop(api::answer::<StreamNames>(bytes));
    drop(api::answer::<ConsumerPage>(bytes));
    drop(api::answer::<Done>(bytes));
}

/// The headers of a stored message.
pub(crate) fn headers(bytes: &[u8]) {
    let (headers, _) = codec::stored_headers(bytes);
    let entry = codec::entry(1, Some(&headers), Bytes::new());
    assert!(entry.name.len() <= bytes.len() && entry.headers.len() <= bytes.len());
}

/// Names of subjects and of streams, quoted values, and reply subjects.
pub(crate) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(decoded) = codec::decode(text) {
        assert_eq!(codec::encode(&decoded), text);
    }
    assert_eq!(codec::decode(&codec::encode(text)).as_deref(), Some(text));
    assert_eq!(codec::unquote(&codec::quote(text)), text);
    drop(codec::unquote(text));
    if let Some(delivered) = codec::delivered(text) {
        let again = codec::reply(delivered.stream, delivered.consumer, delivered.attempt, delivered.seq, 1);
        assert_eq!(codec::delivered(&again).map(|again| (again.attempt, again.seq)), Some((delivered.attempt, delivered.seq)));
    }
}
