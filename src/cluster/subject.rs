//! Subject: where a frame goes, and what an engine calls it. Knows no frames and no engine.

use std::fmt;
use std::fmt::Write;

use crate::ids::NodeId;
use crate::topic::Topic;

/// Where a frame goes. An engine hands it to every node that is subscribed to this subject, and to nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// Every node of the cluster: what the relays tell each other.
    All,
    /// One node.
    Node(NodeId),
    /// The nodes that have a subscriber to this topic.
    Topic(Topic),
}

/// The name of a cluster: nodes with different names share an engine and never meet.
///
/// 1 to 64 characters of `A-Z a-z 0-9 - _`, so that it stands in every engine's subjects as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterName(Box<str>);

impl ClusterName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 64;

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let fits = (1..=Self::BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
        fits.then(|| Self(name.into()))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Subject {
    /// The topic, if it is one.
    pub fn topic(&self) -> Option<&Topic> {
        match self {
            Self::Topic(topic) => Some(topic),
            Self::All | Self::Node(_) => None,
        }
    }

    /// What an engine calls this subject: `actix-pubsub`, the cluster, the kind and the name, with the engine's `separator` between them.
    ///
    /// Everything in it but the separator is of `A-Z a-z 0-9 - _ : = @ + ~` and `%`, so that no topic means anything to an engine: what a topic
    /// has beside the first ones is written as `%` and two hexadecimal digits for each byte. Two subjects never have one name. At most 3 × 255 + 100 bytes.
    ///
    /// ```
    /// use actix_pubsub::Topic;
    /// use actix_pubsub::cluster::ClusterName;
    /// use actix_pubsub::cluster::Subject;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let shop = "shop".parse::<ClusterName>()?;
    /// assert_eq!(Subject::Topic(Topic::parse("room:1.>")?).name(&shop, '.'), "actix-pubsub.shop.t.room:1%2E%3E");
    /// # Ok(()) }
    /// ```
    pub fn name(&self, cluster: &ClusterName, separator: char) -> String {
        let topic_bytes = if let Self::Topic(topic) = self { topic.as_str().len() } else { 16 };
        // Exact where nothing is escaped: then nothing has to grow or shrink.
        let mut name = String::with_capacity(PREFIX.len() + cluster.0.len() + 4 + topic_bytes);
        name.push_str(PREFIX);
        name.push(separator);
        name.push_str(&cluster.0);
        name.push(separator);
        match self {
            Self::All => name.push('a'),
            Self::Node(node) => {
                name.push('n');
                name.push(separator);
                // Writing into a string cannot fail.
                let _ = write!(name, "{node}");
            }
            Self::Topic(topic) => {
                name.push('t');
                name.push(separator);
                escape(topic.as_str(), &mut name);
            }
        }
        name
    }
}

fn escape(text: &str, into: &mut String) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:=@+~".contains(&byte);
    if text.bytes().all(plain) {
        return into.push_str(text);
    }
    for byte in text.bytes() {
        if plain(byte) {
            into.push(char::from(byte));
        } else {
            let digit = |four: u8| char::from(b"0123456789ABCDEF"[usize::from(four)]);
            into.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

impl std::str::FromStr for ClusterName {
    type Err = ClusterNameError;

    fn from_str(name: &str) -> Result<Self, ClusterNameError> {
        Self::parse(name).ok_or_else(|| ClusterNameError { name: name.chars().take(80).collect(), bytes: name.len() })
    }
}

/// A text that is no [`ClusterName`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterNameError {
    /// Its beginning.
    pub name: String,
    /// Its length in bytes.
    pub bytes: usize,
}

impl fmt::Display for ClusterNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = ClusterName::BYTES_MAX;
        write!(f, "cluster name {:?} is {} bytes, it must be 1 to {max} of A-Z a-z 0-9 - _", self.name, self.bytes)
    }
}

impl std::error::Error for ClusterNameError {}

const PREFIX: &str = "actix-pubsub";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(topic: &str) -> String {
        Subject::Topic(Topic::parse(topic).unwrap()).name(&ClusterName::parse("c").unwrap(), '/')
    }

    #[test]
    fn what_an_engine_could_take_for_syntax_is_escaped() {
        assert_eq!(name("room:lobby"), "actix-pubsub/c/t/room:lobby");
        assert_eq!(name("a.b>c/d$e?f#g h%i"), "actix-pubsub/c/t/a%2Eb%3Ec%2Fd%24e%3Ff%23g%20h%25i");
        assert_eq!(name("é"), "actix-pubsub/c/t/%C3%A9");
    }

    #[test]
    fn the_three_kinds_never_share_a_name() {
        let cluster = ClusterName::parse("c").unwrap();
        let node = NodeId::from_bits(0xab);
        assert_eq!(Subject::All.name(&cluster, '.'), "actix-pubsub.c.a");
        assert_eq!(Subject::Node(node).name(&cluster, '.'), "actix-pubsub.c.n.00000000000000ab");
        assert_ne!(Subject::Node(node).name(&cluster, '.'), name("00000000000000ab").replace('/', "."));
    }

    #[test]
    fn a_cluster_name_at_the_limit_is_taken_and_others_are_refused_with_the_limit() {
        assert!(ClusterName::parse(&"x".repeat(64)).is_some());
        let refused = "x".repeat(65).parse::<ClusterName>().unwrap_err();
        assert!(refused.to_string().ends_with("is 65 bytes, it must be 1 to 64 of A-Z a-z 0-9 - _"), "{refused}");
        for bad in ["", "a.b", "a/b", "a b", "é", "a*", "a>"] {
            assert!(ClusterName::parse(bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn two_topics_never_share_a_subject(one in "[^\\pC*]{1,40}", other in "[^\\pC*]{1,40}") {
            prop_assert_eq!(name(&one) == name(&other), one == other);
            let tail = name(&one)["actix-pubsub/c/t/".len()..].to_owned();
            prop_assert!(tail.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:=@+~%".contains(&byte)));
            // What looks like it is not it.
            let alike = [tail, one.replace(|c: char| !c.is_ascii_alphanumeric(), "_")];
            for alike in alike.into_iter().filter(|alike| alike.len() <= Topic::BYTES_MAX) {
                prop_assert_eq!(name(&alike) == name(&one), alike == one);
            }
        }
    }
}
