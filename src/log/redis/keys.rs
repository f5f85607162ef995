//! Keys: what a topic's keys in Redis are called, and which slot of a cluster they are in. Knows no connection.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::log::entry::Group;
use crate::topic::Topic;

/// The character that no topic and no group name holds: what has it in its key is a helper, never a stream of ours.
const MARK: char = '*';
/// Slots of a cluster ([Redis: cluster specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/)).
const SLOTS: usize = 16_384;

/// The keys of one store.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    prefix: String,
}

/// The helper keys of a group.
#[derive(Debug)]
pub(super) struct GroupKeys {
    pub(super) stream: String,
    /// Sorted set: pending ids by when they are due.
    pub(super) due: String,
    /// Set: consumers that were removed and have something pending.
    pub(super) leaving: String,
    /// How far the search for entries that other programs took has come.
    pub(super) scan: String,
    /// Written when something may be due earlier than who waits knows.
    pub(super) wake: String,
}

impl Keys {
    /// `None`: the prefix holds a `*` or a control character.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let refused = prefix.chars().any(|c| c == MARK || c.is_control());
        (!refused).then(|| Self { prefix: prefix.to_owned() })
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The stream itself: prefix and topic, as they are.
    pub(super) fn stream(&self, topic: &Topic) -> String {
        let mut key = String::with_capacity(self.prefix.len() + topic.as_str().len());
        key.push_str(&self.prefix);
        key.push_str(topic.as_str());
        key
    }

    /// What is noted about a stream.
    pub(super) fn meta(&self, topic: &Topic) -> String {
        helper(&self.stream(topic), "meta", None)
    }

    /// An idempotency key.
    pub(super) fn dedup(&self, topic: &Topic, key: &str) -> String {
        helper(&self.stream(topic), "key", Some(key))
    }

    pub(super) fn group(&self, group: &Group) -> GroupKeys {
        let stream = self.stream(&group.topic);
        let of = |kind| helper(&stream, kind, Some(group.name.as_str()));
        GroupKeys { due: of("due"), leaving: of("leaving"), scan: of("scan"), wake: of("wake"), stream }
    }

    /// The topic that a key, of a stream or a helper, belongs to.
    pub(super) fn topic(&self, key: &[u8]) -> Option<Topic> {
        let key = std::str::from_utf8(key).ok()?;
        let stream = if key.contains(MARK) { key.split(MARK).nth(2)? } else { key };
        Topic::parse(stream.strip_prefix(self.prefix.as_str())?).ok()
    }
}

/// `{tag}*kind*stream` or `{tag}*kind*stream*rest`, in the stream's slot.
fn helper(stream: &str, kind: &str, rest: Option<&str>) -> String {
    let mut key = format!("{{{}}}{MARK}{kind}{MARK}{stream}", tag(stream));
    if let Some(rest) = rest {
        key.push(MARK);
        key.push_str(rest);
    }
    key
}

/// What to put between braces so that a key is in the slot of `stream`: the stream's own tag; the stream, which then has no tag, if it can stand
/// between braces; else a number of that slot.
fn tag(stream: &str) -> Cow<'_, str> {
    match hash_tag(stream.as_bytes()) {
        Some(range) => Cow::Borrowed(&stream[range]),
        None if !stream.contains('}') => Cow::Borrowed(stream),
        None => Cow::Owned(NUMBERS[usize::from(slot(stream.as_bytes()))].to_string()),
    }
}

/// Between the first `{` and the first `}` after it, if anything is there.
fn hash_tag(key: &[u8]) -> Option<std::ops::Range<usize>> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let len = key[open + 1..].iter().position(|byte| *byte == b'}')?;
    (len > 0).then_some(open + 1..open + 1 + len)
}

/// The slot of a key.
pub(super) fn slot(key: &[u8]) -> u16 {
    let hashed = hash_tag(key).map_or(key, |range| &key[range]);
    crc16(hashed) % SLOTS as u16
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    })
}

/// For each slot the smallest number that is in it.
static NUMBERS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut numbers = vec![u32::MAX; SLOTS];
    let mut missing = SLOTS;
    for number in 0..u32::MAX {
        if missing == 0 {
            break;
        }
        let of = &mut numbers[usize::from(crc16(number.to_string().as_bytes()) % SLOTS as u16)];
        if *of == u32::MAX {
            *of = number;
            missing -= 1;
        }
    }
    numbers
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::entry::Name;

    #[test]
    fn crc_and_slot_are_those_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16_384);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    #[test]
    fn all_keys_of_a_topic_are_in_its_slot_and_lead_back_to_it() {
        let topics =
            ["a", "a.b", "{a}", "{a}b", "x{a}b{c}", "a}{", "a}b", "{}", "{}a", "{", "}", "a{b", "{{a}", "ä{ö}ü", "{}{x}"];
        for prefix in ["", "app:", "{app}:", "}x", "{"] {
            let keys = Keys::new(prefix).unwrap();
            for topic in topics.map(|topic| Topic::parse(topic).unwrap()) {
                let group = Group::new(topic.clone(), Name::parse("g:{x}").unwrap());
                let of = keys.group(&group);
                assert_eq!(of.stream, format!("{prefix}{topic}"));
                let helpers = [of.due, of.leaving, of.scan, of.wake, keys.meta(&topic), keys.dedup(&topic, "k*{y}*")];
                for helper in &helpers {
                    assert_eq!(slot(helper.as_bytes()), slot(of.stream.as_bytes()), "{helper}");
                    assert_eq!(keys.topic(helper.as_bytes()), Some(topic.clone()), "{helper}");
                    assert!(Topic::parse(helper).is_err(), "no topic is called so");
                }
                assert_eq!(keys.topic(of.stream.as_bytes()), Some(topic));
            }
        }
    }

    #[test]
    fn a_prefix_that_would_mix_streams_and_helpers_is_refused() {
        assert!(Keys::new("a*").is_none() && Keys::new("a\n").is_none() && Keys::new("a b").is_some());
    }

    #[test]
    fn keys_of_different_topics_and_groups_differ() {
        let group = |topic, name| Group::new(Topic::parse(topic).unwrap(), Name::parse(name).unwrap());
        let keys = Keys::default();
        assert_ne!(keys.group(&group("{x}a:b", "c")).due, keys.group(&group("{x}a", "b:c")).due);
        assert_ne!(keys.group(&group("a}", "c")).due, keys.group(&group("a", "c")).due);
    }
}
