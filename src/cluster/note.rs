//! Note: what the relays tell each other. Knows no members and no engine.

use std::collections::HashMap;

use serde::Deserialize;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::topic::Topic;

/// What a relay tells others, as `MessagePack` by field names. Fields are only ever added, each with a default; a note of a name that is not known is
/// passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// I am here. To all, each heartbeat; and to one who is new.
    #[serde(rename = "hello")]
    Hello {
        /// What people call the node.
        name: String,
        /// How often it says so, in milliseconds.
        #[serde(default)]
        every_ms: u64,
        /// What I listen to I tell the others, not the engine.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tells: bool,
    },
    /// I leave. To all.
    #[serde(rename = "bye")]
    Bye {},
    /// How many subscribers of this topic have you? To all.
    #[serde(rename = "count")]
    Count { id: u64, topic: Topic },
    /// So many. To who asked.
    #[serde(rename = "counted")]
    Counted { id: u64, subscribers: u64 },
    /// How far have your numbers come in these topics, and in what you send to me alone? To one.
    #[serde(rename = "marks")]
    Marks { topics: Vec<Topic> },
    /// What changed in what I listen to. To one; again and again until it is heard. See [`interest`](super::interest).
    #[serde(rename = "interest")]
    Interest {
        /// Counts these up, for each receiver.
        number: u64,
        /// The first of all that I listen to: what you knew is out of date.
        #[serde(default)]
        anew: bool,
        /// The last for now: you know everything.
        #[serde(default)]
        last: bool,
        /// I know nothing of what you listen to.
        #[serde(default)]
        tell: bool,
        #[serde(default)]
        more: Vec<Topic>,
        #[serde(default)]
        less: Vec<Topic>,
    },
    /// I have heard the note of that number; `lost`: but not one before it.
    #[serde(rename = "heard")]
    Heard {
        number: u64,
        #[serde(default)]
        lost: bool,
    },
}

impl Note {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Of numbers, texts and lists only: it cannot fail.
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    /// `None`: it is none, or one of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(bytes).ok()
    }

    /// Whether what is no note to this version may be one to another: it has a name, which is not known here.
    pub(crate) fn is_newer(bytes: &[u8]) -> bool {
        #[expect(clippy::zero_sized_map_values, reason = "it is what the bytes are")]
        let named = rmp_serde::from_slice::<HashMap<&str, IgnoredAny>>(bytes);
        named.is_ok_and(|named| named.len() == 1 && named.keys().all(|name| !NAMES.contains(name)))
    }
}

const NAMES: [&str; 7] = ["hello", "bye", "count", "counted", "marks", "interest", "heard"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn notes_are_written_as_on_the_first_day_and_read_with_fields_that_came_later() {
        let hello = Note::Hello { name: "web-1".into(), every_ms: 1_000, tells: false };
        assert_eq!(hello.encode(), b"\x81\xa5hello\x82\xa4name\xa5web-1\xa8every_ms\xcd\x03\xe8");
        assert_eq!(Note::decode(b"\x81\xa5hello\x83\xa4name\xa5web-1\xa5color\x07\xa8every_ms\xcd\x03\xe8"), Some(hello));
        assert_eq!(
            Note::decode(b"\x81\xa5hello\x81\xa4name\xa1x"),
            Some(Note::Hello { name: "x".into(), every_ms: 0, tells: false })
        );
        assert_eq!((Note::decode(b"\x81\xa6future\x80"), Note::is_newer(b"\x81\xa6future\x80")), (None, true));
        for garbage in [&b"\x81\xa5hello\x80"[..], b"", b"x", b"\x81\xa6future", b"\x80", &vec![0x91; 60_000]] {
            assert_eq!((Note::decode(garbage), Note::is_newer(garbage)), (None, false));
        }
        assert_eq!(Note::decode(&Note::Bye {}.encode()), Some(Note::Bye {}));
        let count = Note::Count { id: 7, topic: Topic::parse("room:1").unwrap() };
        assert_eq!(Note::decode(&count.encode()), Some(count));
    }

    #[test]
    fn a_bad_topic_does_not_enter_by_a_note() {
        assert_eq!(Note::decode(b"\x81\xa5marks\x81\xa6topics\x91\xa1*"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_note_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // One is a map of one name.
            prop_assert!(bytes.first() == Some(&0x81) || Note::decode(&bytes).is_none());
        }
    }
}
