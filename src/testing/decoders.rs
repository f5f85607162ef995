//! Decoders: every reader of bytes that others wrote, by name, for fuzzers and for the replay of what they found. Each panics where a promise of its reader is broken.

use serde::Deserialize;
use serde::Serialize;

use crate::cluster::frame;
use crate::cluster::frame::Frame;
use crate::cluster::note::Note;
use crate::cluster::subject::ClusterName;
use crate::cluster::subject::Subject;
use crate::codec::Codec;
use crate::feed::retention::Retention;
use crate::feed::retention::Retentions;
use crate::ids::EntryId;
use crate::ids::NodeId;
use crate::log::Name;
use crate::topic::Topic;

/// Takes any bytes, and returns.
pub type Decoder = fn(&[u8]);

/// All of them. Those of engines are there with the engine's feature.
pub const ALL: &[(&str, Decoder)] = &[
    ("codec", codec),
    ("entry_id", entry_id),
    ("frame", frame),
    #[cfg(any(feature = "nats", feature = "redis", feature = "zenoh"))]
    ("batch", crate::cluster::batch::decode),
    ("names", names),
    ("note", note),
    #[cfg(feature = "web")]
    ("cursor", web::cursor),
    #[cfg(feature = "web")]
    ("dashboard_query", crate::web::dashboard::decode),
    #[cfg(feature = "web")]
    ("web_frames", crate::web::frames::decode),
    #[cfg(feature = "web")]
    ("web_request", web::request),
    #[cfg(feature = "embedded")]
    ("embedded_block", crate::log::embedded::decoders::block),
    #[cfg(feature = "embedded")]
    ("embedded_head", crate::log::embedded::decoders::head),
    #[cfg(feature = "embedded")]
    ("embedded_journal", crate::log::embedded::decoders::journal),
    #[cfg(feature = "embedded")]
    ("embedded_row", crate::log::embedded::decoders::row),
    #[cfg(feature = "redis")]
    ("redis_key", crate::log::redis::decoders::key),
    #[cfg(feature = "redis")]
    ("redis_reply", crate::log::redis::decoders::reply),
    #[cfg(feature = "jetstream")]
    ("jetstream_answer", crate::log::jetstream::decoders::answer),
    #[cfg(feature = "jetstream")]
    ("jetstream_headers", crate::log::jetstream::decoders::headers),
    #[cfg(feature = "jetstream")]
    ("jetstream_names", crate::log::jetstream::decoders::names),
    #[cfg(feature = "zenoh")]
    ("zenoh_endpoint", crate::cluster::zenoh::decode),
];

/// Runs the decoder of this name on `bytes`. `false`: there is none, or its feature is off.
pub fn run(name: &str, bytes: &[u8]) -> bool {
    let found = ALL.iter().find(|(of, _)| *of == name);
    found.inspect(|(_, decoder)| decoder(bytes)).is_some()
}

/// A message with a field of each shape.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    user: String,
    #[serde(default)]
    numbers: Vec<i64>,
    #[serde(default)]
    more: Option<Box<Sample>>,
}

/// A payload, by either codec of this crate: what is read is written and read again as the same.
fn codec(bytes: &[u8]) {
    for codec in [Codec::MessagePack, Codec::Json] {
        if let Ok(read) = codec.decode::<Sample>(codec.name(), bytes) {
            let mut again = Vec::new();
            let written = codec.encode(&read, &mut again);
            assert!(written.is_ok_and(|()| codec.decode::<Sample>(codec.name(), &again).is_ok_and(|again| again == read)));
        }
    }
}

/// A frame of a cluster, and the note in it.
fn frame(bytes: &[u8]) {
    let Ok(read) = Frame::decode(bytes, FRAME_BYTES_MAX) else { return };
    assert_eq!(frame::origin(bytes), Some(read.origin));
    let again = frame::number(frame::encode(read.kind, read.origin, &read.fields, read.payload), read.epoch, read.seq);
    assert!(again.len() <= bytes.len());
    assert_eq!(Frame::decode(&again, FRAME_BYTES_MAX).as_ref(), Ok(&read));
    drop(read.topic());
    note(read.payload);
}

fn note(bytes: &[u8]) {
    if let Some(read) = Note::decode(bytes) {
        assert!(!Note::is_newer(bytes), "{read:?}");
        assert_eq!(Note::decode(&read.encode()), Some(read));
    }
}

/// Topics, patterns of them, names of groups and of clusters, and the subject of each topic.
fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    drop(Name::parse(text));
    // A pattern is a topic, the beginning of one and a `*`, or a `*`.
    let is_pattern = Retentions::default().add(text, Retention::forever()).is_ok();
    let cluster = ClusterName::parse(text);
    if let Ok(topic) = Topic::parse(text) {
        assert!(is_pattern && topic == text && text.len() <= Topic::BYTES_MAX);
        let Some(cluster) = cluster.or_else(|| ClusterName::parse("c")) else { return };
        let name = Subject::Topic(topic).name(&cluster, '.');
        assert!(name.len() <= 3 * Topic::BYTES_MAX + 100 && name.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(name.split('.').count(), 4);
        assert_ne!(name, Subject::Node(NodeId::from_bits(0)).name(&cluster, '.'));
    }
}

/// A position: a `Last-Event-ID` of one topic, and what people write.
fn entry_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<EntryId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.next().is_none_or(|next| next > id && next.prev() == Some(id)));
    }
}

#[cfg(feature = "web")]
mod web {
    use crate::topic::Topic;
    use crate::web::cursor::Cursor;
    use crate::web::protocol;

    /// What a client says over a WebSocket, as text and as a binary message.
    pub(super) fn request(bytes: &[u8]) {
        if let Ok(text) = std::str::from_utf8(bytes) {
            drop(protocol::parse(text));
        }
        drop(protocol::parse_binary(&bytes::Bytes::copy_from_slice(bytes)));
    }

    /// A `Last-Event-ID` of several topics: what is read is written and read again as the same.
    pub(super) fn cursor(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let topics: Vec<Topic> = ["a", "b"].iter().filter_map(|name| Topic::parse(name).ok()).collect();
        for topics in [&topics[..1], &topics] {
            let mut cursor = Cursor::new(topics);
            if cursor.read(text).is_ok() && cursor.get(0).is_some() {
                let mut again = Cursor::new(topics);
                assert!(again.read(&cursor.to_string()).is_ok_and(|()| again == cursor));
            }
        }
    }
}

const FRAME_BYTES_MAX: usize = 1 << 20;
