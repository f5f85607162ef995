//! Cursor: where a client stands in several topics, as one short ASCII text: what an SSE `id` carries. Pure; knows no stream.
//!
//! Of one topic it is the entry's id, `1700000000000-3`, so that people and other programs can read and write it. Of several it is, for each topic that has a
//! position, eight characters that stand for the topic and the id with both numbers in base 36, each after a dot:
//! `m.a1b2c3d4loyw3v28-3.0f9e8d7cloyw3v28-0`.

use std::fmt;

use crate::ids::EntryId;
use crate::ids::EntryIdError;
use crate::topic::Topic;

/// The longest text that is looked at, in bytes: 128 topics with ids of 30 characters.
pub(crate) const TEXT_BYTES_MAX: usize = 8_192;

/// Positions in the topics of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    topics: Vec<(Tag, Option<EntryId>)>,
}

/// What stands for a topic: the first 40 bits of FNV-1a over its name. It has to be the same in every process and release, and meets no enemy: who makes two of
/// their own topics collide gets a position of the one for the other, which the log then proves or refuses.
type Tag = u64;

impl Cursor {
    pub(crate) fn new(topics: &[Topic]) -> Self {
        Self { topics: topics.iter().map(|topic| (tag(topic.as_str()), None)).collect() }
    }

    /// The position in the topic with this index.
    pub(crate) fn get(&self, index: usize) -> Option<EntryId> {
        self.topics.get(index).and_then(|(_, id)| *id)
    }

    pub(crate) fn set(&mut self, index: usize, id: EntryId) {
        if let Some((_, known)) = self.topics.get_mut(index) {
            *known = Some(id);
        }
    }

    /// Takes the positions that `text` has for these topics. Those of other topics are skipped: what a connection follows may change between two of its requests.
    /// A plain id is of the first topic.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), CursorError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(CursorError::TooLong { bytes: text.len(), max: TEXT_BYTES_MAX });
        }
        let Some(parts) = text.strip_prefix(MANY) else {
            self.set(0, text.parse().map_err(CursorError::Id)?);
            return Ok(());
        };
        let malformed = |part: &str| CursorError::Malformed { part: part.chars().take(60).collect() };
        let read: Vec<_> =
            parts.split('.').map(|part| position(part).ok_or_else(|| malformed(part))).collect::<Result<_, _>>()?;
        for (of, id) in read {
            for (_, known) in self.topics.iter_mut().filter(|(tag, _)| *tag == of) {
                *known = Some(id);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(_, Some(id))] = &*self.topics {
            return write!(f, "{id}");
        }
        let known = self.topics.iter().filter_map(|(tag, id)| id.map(|id| (tag, id)));
        for (nth, (tag, id)) in known.enumerate() {
            f.write_str(if nth == 0 { MANY } else { "." })?;
            write!(f, "{}{}-{}", Base36(*tag, TAG_CHARS), Base36(id.ms(), 1), Base36(id.seq(), 1))?;
        }
        Ok(())
    }
}

/// Why a text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CursorError {
    TooLong { bytes: usize, max: usize },
    Malformed { part: String },
    Id(EntryIdError),
}

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, max } => write!(f, "last event id is {bytes} bytes, the limit is {max}"),
            Self::Malformed { part } => write!(f, "last event id has the part {part:?}, which is no position"),
            Self::Id(error) => write!(f, "last event id is no position: {error}"),
        }
    }
}

fn tag(name: &str) -> Tag {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The high bits depend on every byte.
    hash >> 24
}

fn position(part: &str) -> Option<(Tag, EntryId)> {
    let (ms, seq) = part.split_at_checked(TAG_CHARS).and_then(|(_, id)| id.split_once('-'))?;
    let tag = number(&part[..TAG_CHARS])?;
    Some((tag, EntryId::new(number(ms)?, number(seq)?)))
}

/// A number in base 36 as `Base36` writes it: no sign, no capitals.
fn number(digits: &str) -> Option<u64> {
    let proper = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    proper.then(|| u64::from_str_radix(digits, 36).ok()).flatten()
}

/// How the text of several topics begins; no id does.
const MANY: &str = "m.";
/// 40 bits in base 36.
const TAG_CHARS: usize = 8;

/// A number in base 36, with zeros in front up to a width.
struct Base36(u64, usize);

impl fmt::Display for Base36 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, mut digits, mut at) = (self.0, [b'0'; 13], 13);
        while rest > 0 || 13 - at < self.1 {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
        }
        f.write_str(std::str::from_utf8(&digits[at..]).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topics(names: &[&str]) -> Vec<Topic> {
        names.iter().map(|name| Topic::parse(name).unwrap()).collect()
    }

    fn check(names: &[&str], text: &str) -> Result<Vec<Option<EntryId>>, CursorError> {
        let mut cursor = Cursor::new(&topics(names));
        cursor.read(text)?;
        Ok((0..names.len()).map(|index| cursor.get(index)).collect())
    }

    #[test]
    fn one_topic_has_a_plain_id_and_several_have_a_short_text() {
        let mut cursor = Cursor::new(&topics(&["a"]));
        assert_eq!(cursor.to_string(), "");
        cursor.set(0, EntryId::new(1_700_000_000_000, 3));
        assert_eq!(cursor.to_string(), "1700000000000-3");
        let mut cursor = Cursor::new(&topics(&["a", "b", "c"]));
        cursor.set(0, EntryId::new(1_700_000_000_000, 3));
        cursor.set(2, EntryId::MAX);
        // Written down, because clients keep it over our releases.
        assert_eq!(cursor.to_string(), "m.9m246umeloyw3v28-3.9m249nra3w5e11264sgsf-3w5e11264sgsf");
    }

    #[test]
    fn positions_survive_a_change_of_the_topics() {
        let mut cursor = Cursor::new(&topics(&["a", "b"]));
        cursor.set(0, EntryId::new(1, 2));
        cursor.set(1, EntryId::new(3, 4));
        let text = cursor.to_string();
        assert_eq!(check(&["b", "x"], &text).unwrap(), [Some(EntryId::new(3, 4)), None]);
        assert_eq!(check(&["b"], &text).unwrap(), [Some(EntryId::new(3, 4))]);
        // Of one topic, then of two.
        assert_eq!(check(&["a", "b"], "1-2").unwrap(), [Some(EntryId::new(1, 2)), None]);
    }

    #[test]
    fn garbage_is_refused_and_says_what_it_is() {
        for text in [
            "",
            "x",
            "1-",
            "-",
            ".",
            "m.",
            "m.1-2",
            "1-2.",
            "m.7e8ulxv8",
            "m.7E8ULXV8loyw3v28-3",
            "m.ä234567ä1-2",
            "\0",
            "m.7e8ulxv8+1-2",
            "m.7e8ulxv81-2.",
        ] {
            assert!(check(&["a"], text).is_err(), "{text:?}");
        }
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        assert_eq!(check(&["a"], &long), Err(CursorError::TooLong { bytes: 8_193, max: 8_192 }));
        assert!(check(&["a"], "99999999999999999999-0").unwrap_err().to_string().contains("99999999999999999999-0"));
    }

    proptest! {
        #[test]
        fn any_positions_come_back(ids in proptest::collection::vec(proptest::option::of(any::<(u64, u64)>()), 2..40)) {
            let names: Vec<_> = (0..ids.len()).map(|index| format!("topic {index}")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let mut cursor = Cursor::new(&topics(&names));
            let ids: Vec<_> = ids.into_iter().map(|id| id.map(|(ms, seq)| EntryId::new(ms, seq))).collect();
            for (index, id) in ids.iter().enumerate() {
                if let Some(id) = id {
                    cursor.set(index, *id);
                }
            }
            let text = cursor.to_string();
            prop_assert!(text.is_ascii() && !text.contains(|c: char| c.is_ascii_control()));
            if !text.is_empty() {
                prop_assert_eq!(check(&names, &text).unwrap(), ids);
            }
        }

        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,200}|[0-9a-z.-]{0,200}|m\\.\\PC{0,12}-\\PC{0,12}") {
            let _ = check(&["a", "b"], &text);
        }
    }
}
