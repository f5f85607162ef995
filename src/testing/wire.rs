//! Wire: a frame of the cluster written and read, for who counts what that costs. Knows no node.

use bytes::Bytes;

use crate::cluster::frame;
use crate::cluster::frame::Fields;
use crate::cluster::frame::Frame;
use crate::cluster::frame::Kind;
use crate::ids::NodeId;
use crate::topic::Topic;

/// A broadcast of `payload` as a node sends it, with its number.
pub fn encode(topic: &Topic, message: &str, payload: &[u8]) -> Bytes {
    let fields = Fields { topic: topic.as_str(), message, codec: "msgpack", ..Fields::default() };
    frame::number(frame::encode(Kind::Event, NodeId::from_bits(1), &fields, payload), 1, 1)
}

/// The payload of a frame as a node reads it, and where it goes; `None`: it is no frame, or its topic is none.
pub fn decode(frame: &[u8]) -> Option<(Topic, &[u8])> {
    let frame = Frame::decode(frame, 1 << 20).ok()?;
    Some((frame.topic().ok()?, frame.payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let topic = Topic::parse("room:1").unwrap();
        assert_eq!(decode(&encode(&topic, "chat.say", b"hi")), Some((topic, b"hi".as_slice())));
        assert_eq!(decode(b"ap"), None);
    }
}
