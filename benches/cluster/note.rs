//! Note: the bytes that every peer carries: a number, the time, and as many more as asked for. Knows no engine.

use std::fmt;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use actix_pubsub::Payload;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Visitor;

/// As a message of ours: bytes, not a list of numbers.
pub(crate) struct Note(pub(crate) Vec<u8>);

impl Payload for Note {
    const NAME: &'static str = "bench.note";
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Note;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Note, E> {
                Ok(Note(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Note, E> {
                Ok(Note(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// Writes number and time over the first bytes.
pub(crate) fn stamp(note: &mut [u8], number: u64, at: u64) {
    note[..8].copy_from_slice(&number.to_le_bytes());
    note[8..16].copy_from_slice(&at.to_le_bytes());
}

/// Number and time.
pub(crate) fn read(note: &[u8]) -> (u64, u64) {
    let word = |at: usize| note.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes);
    (word(0), word(8))
}

/// A clock that both processes share, in ns. `Instant` shows no number that means anything to another process.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}
