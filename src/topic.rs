//! Topic: a checked name, hashed once. Knows no subscribers, messages or nodes.

use std::borrow::Cow;
use std::fmt;
use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::hash::RandomState;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::LazyLock;

/// A checked topic name: 1 to 255 bytes of UTF-8 without control characters and without `*`.
///
/// A clone is one reference count. The name is hashed once, with a key drawn at random per process, so that names chosen by
/// strangers cannot be made to collide. `*` is kept free for pattern subscriptions; 255 bytes is what every engine that
/// a topic may cross can carry in one subject.
///
/// ```
/// use actix_pubsub::{Topic, TopicError};
///
/// let room = Topic::parse("room:lobby")?;
/// assert_eq!(room.as_str(), "room:lobby");
/// assert_eq!(Topic::parse("a*").unwrap_err(), TopicError::Forbidden { character: '*', at_byte: 1 });
/// # Ok::<(), TopicError>(())
/// ```
#[derive(Clone)]
pub struct Topic {
    name: Arc<str>,
    hash: u64,
}

impl Topic {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Checks `name` and makes a topic of it. Allocates once.
    pub fn parse(name: &str) -> Result<Self, TopicError> {
        check(name)?;
        Ok(Self { hash: HASH_KEY.hash_one(name), name: Arc::from(name) })
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    pub(crate) fn hash_value(&self) -> u64 {
        self.hash
    }
}

/// What may stand where a topic is expected: a [`Topic`], or a name that is checked at the call.
///
/// Hold a [`Topic`] where a name is used more than once: a `&str` is parsed, hashed and allocated at each call.
pub trait ToTopic {
    /// Borrows the topic, or parses the name.
    fn to_topic(&self) -> Result<Cow<'_, Topic>, TopicError>;
}

impl ToTopic for Topic {
    fn to_topic(&self) -> Result<Cow<'_, Topic>, TopicError> {
        Ok(Cow::Borrowed(self))
    }
}

impl ToTopic for str {
    fn to_topic(&self) -> Result<Cow<'_, Topic>, TopicError> {
        Topic::parse(self).map(Cow::Owned)
    }
}

impl ToTopic for String {
    fn to_topic(&self) -> Result<Cow<'_, Topic>, TopicError> {
        self.as_str().to_topic()
    }
}

impl<T: ToTopic + ?Sized> ToTopic for &T {
    fn to_topic(&self) -> Result<Cow<'_, Topic>, TopicError> {
        (**self).to_topic()
    }
}

/// Why a name is no topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// The name has no bytes.
    Empty,
    /// The name has more than [`Topic::BYTES_MAX`] bytes.
    TooLong {
        /// Length of the refused name in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The name holds a control character (Unicode category Cc) or `*`.
    Forbidden {
        /// The first such character.
        character: char,
        /// Where it starts, in bytes.
        at_byte: usize,
    },
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "topic is empty, it needs 1 to {} bytes", Topic::BYTES_MAX),
            Self::TooLong { bytes, max } => write!(f, "topic is {bytes} bytes, the limit is {max}"),
            Self::Forbidden { character, at_byte } => {
                write!(f, "topic holds the forbidden character {character:?} at byte {at_byte}")
            }
        }
    }
}

impl std::error::Error for TopicError {}

fn check(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    if name.len() > Topic::BYTES_MAX {
        return Err(TopicError::TooLong { bytes: name.len(), max: Topic::BYTES_MAX });
    }
    match name.char_indices().find(|(_, c)| c.is_control() || *c == '*') {
        Some((at_byte, character)) => Err(TopicError::Forbidden { character, at_byte }),
        None => Ok(()),
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.name, &other.name) || self.name == other.name)
    }
}

impl Eq for Topic {}

impl PartialEq<str> for Topic {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Topic {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for Topic {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Topic {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Topic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Not the bytes again: this is what makes a look-up cheap, and why a topic is no `Borrow<str>`.
        state.write_u64(self.hash);
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", self.as_str())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(name: &str) -> Result<Self, TopicError> {
        Self::parse(name)
    }
}

impl TryFrom<&str> for Topic {
    type Error = TopicError;

    fn try_from(name: &str) -> Result<Self, TopicError> {
        Self::parse(name)
    }
}

impl serde::Serialize for Topic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Topic {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&name).map_err(serde::de::Error::custom)
    }
}

static HASH_KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_at_the_limit_is_taken_and_one_past_it_is_refused_with_both_numbers() {
        assert_eq!(Topic::parse(&"x".repeat(255)).unwrap().as_str().len(), 255);
        let refused = Topic::parse(&"x".repeat(256)).unwrap_err();
        assert_eq!(refused, TopicError::TooLong { bytes: 256, max: 255 });
        assert_eq!(refused.to_string(), "topic is 256 bytes, the limit is 255");
    }

    #[test]
    fn the_limit_counts_bytes_not_characters() {
        assert!(Topic::parse(&"é".repeat(127)).is_ok());
        assert_eq!(Topic::parse(&"é".repeat(128)).unwrap_err(), TopicError::TooLong { bytes: 256, max: 255 });
    }

    #[test]
    fn empty_control_and_star_are_refused_with_their_place() {
        assert_eq!(Topic::parse("").unwrap_err(), TopicError::Empty);
        for (name, character, at_byte) in [("a\nb", '\n', 1), ("é\u{0}", '\0', 2), ("room:*", '*', 5), ("\u{85}", '\u{85}', 0)] {
            assert_eq!(Topic::parse(name).unwrap_err(), TopicError::Forbidden { character, at_byte });
        }
        assert_eq!(Topic::parse("a\nb").unwrap_err().to_string(), r"topic holds the forbidden character '\n' at byte 1");
    }

    #[test]
    fn two_parses_of_one_name_are_equal_and_hash_alike() {
        let (a, b) = (Topic::parse("room:1").unwrap(), Topic::parse("room:1").unwrap());
        assert_eq!((&a, a.hash), (&b, b.hash));
        assert_ne!(a, Topic::parse("room:2").unwrap());
    }

    #[test]
    fn a_topic_survives_json_and_a_bad_one_does_not_enter_by_it() {
        let topic: Topic = serde_json::from_str(r#""room:1""#).unwrap();
        assert_eq!(serde_json::to_string(&topic).unwrap(), r#""room:1""#);
        assert!(serde_json::from_str::<Topic>(r#""a*""#).unwrap_err().to_string().contains("'*' at byte 1"));
    }

    #[test]
    fn a_topic_is_its_name_in_every_form() {
        let topic = Topic::parse("a:b").unwrap();
        let forms = [topic.as_str(), topic.as_ref(), &*topic.to_string()].map(str::to_owned);
        assert!(forms.iter().all(|form| form == "a:b" && topic == **form), "{forms:?}");
        assert!(topic != *"a:c" && topic != *"");
    }
}
