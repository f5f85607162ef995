//! Batch: several frames to one node as one message, because a message costs engine and client a microsecond on each side, whatever its size. Knows no engine.
//!
//! ```text
//!   0        2        3          4             8
//!  ┌────────┬────────┬──────────┬─────────────┬───────┬─────────────┬───────┐
//!  │ "ab"   │ version│ 0        │ length, u32 │ frame │ length, u32 │ frame │ ...     little-endian
//!  │        │ 1      │          │             │       │             │       │
//!  └────────┴────────┴──────────┴─────────────┴───────┴─────────────┴───────┘
//! ```
//! A frame that is alone goes as it is, and so does one that goes to several nodes: a frame never begins as a batch does.

use bytes::Bytes;

use crate::cluster::frame;
use crate::cluster::subject::Subject;
use crate::cluster::transport::Outgoing;

/// Frames as messages. What one node gets, it gets in the order of `frames`: one that goes to several ends every batch before it.
pub(crate) fn batches(frames: Vec<Outgoing>) -> Vec<Outgoing> {
    let (mut full, mut open): (Vec<Outgoing>, Vec<Open>) = (Vec::with_capacity(frames.len()), Vec::new());
    for Outgoing { subject, frame } in frames {
        if !matches!(subject, Subject::Node(_)) {
            full.extend(open.drain(..).map(Open::close));
            full.push(Outgoing { subject, frame });
            continue;
        }
        match open.iter_mut().find(|batch| batch.subject == subject) {
            Some(batch) if batch.bytes + LENGTH_BYTES + frame.len() <= BATCH_BYTES => batch.add(frame),
            Some(batch) => full.push(std::mem::replace(batch, Open::new(subject, frame)).close()),
            None => open.push(Open::new(subject, frame)),
        }
    }
    full.extend(open.into_iter().map(Open::close));
    full
}

/// A batch that may get more.
struct Open {
    subject: Subject,
    frames: Vec<Bytes>,
    bytes: usize,
}

impl Open {
    fn new(subject: Subject, frame: Bytes) -> Self {
        let mut batch = Self { subject, frames: Vec::new(), bytes: HEAD.len() };
        batch.add(frame);
        batch
    }

    fn add(&mut self, frame: Bytes) {
        self.bytes += LENGTH_BYTES + frame.len();
        self.frames.push(frame);
    }

    fn close(mut self) -> Outgoing {
        if self.frames.len() == 1
            && let Some(frame) = self.frames.pop()
        {
            return Outgoing { subject: self.subject, frame };
        }
        let mut bytes = Vec::with_capacity(self.bytes);
        bytes.extend_from_slice(&HEAD);
        for frame in &self.frames {
            // A batch of several is far shorter than 4 GiB.
            bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            bytes.extend_from_slice(frame);
        }
        Outgoing { subject: self.subject, frame: Bytes::from(bytes) }
    }
}

/// The frames of a message. What is no batch, or is cut off, is given as a frame: it is refused and counted where frames are read.
pub(crate) fn frames(mut message: Bytes) -> impl Iterator<Item = Bytes> {
    // A longer one is by nobody who keeps to this: it would be many frames, of which each takes a place in the queue.
    let is_batch = message.starts_with(&HEAD) && message.len() <= BATCH_BYTES;
    if is_batch {
        let _ = message.split_to(HEAD.len());
    }
    let mut rest = Some(message);
    std::iter::from_fn(move || {
        let mut message = rest.take()?;
        match message.first_chunk().map(|length| u32::from_le_bytes(*length) as usize) {
            Some(length) if is_batch && length <= message.len() - LENGTH_BYTES => {
                let _ = message.split_to(LENGTH_BYTES);
                let frame = message.split_to(length);
                rest = (!message.is_empty()).then_some(message);
                Some(frame)
            }
            _ => Some(message),
        }
    })
}

/// Any bytes as a message, for `testing::decoders`: every frame is a part of it, and the parts are all there is.
#[cfg(feature = "testing")]
pub(crate) fn decode(bytes: &[u8]) {
    let (mut count, mut total) = (0, 0);
    for frame in frames(Bytes::copy_from_slice(bytes)) {
        (count, total) = (count + 1, total + frame.len());
    }
    assert!(total <= bytes.len() && bytes.len() <= HEAD.len() + total + LENGTH_BYTES * count);
}

const HEAD: [u8; 4] = [frame::BATCH_MAGIC[0], frame::BATCH_MAGIC[1], frame::VERSION, 0];
const LENGTH_BYTES: usize = 4;
/// Less than zenoh's own batches of 64 KiB: what is longer is sent in fragments.
const BATCH_BYTES: usize = 48 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::topic::Topic;

    fn node(node: u64) -> Subject {
        Subject::Node(NodeId::from_bits(node))
    }

    fn to(to: u64, frame: &[u8]) -> Outgoing {
        Outgoing { subject: node(to), frame: Bytes::copy_from_slice(frame) }
    }

    fn all(frame: &[u8]) -> Outgoing {
        Outgoing { subject: Subject::All, frame: Bytes::copy_from_slice(frame) }
    }

    /// What each message holds.
    fn check(frames_out: Vec<Outgoing>) -> Vec<(Subject, Vec<Vec<u8>>)> {
        let read = |message: Outgoing| (message.subject, frames(message.frame).map(|frame| frame.to_vec()).collect());
        batches(frames_out).into_iter().map(read).collect()
    }

    #[test]
    fn frames_to_one_node_go_together_and_stay_in_order() {
        let messages = check(vec![to(1, b"a"), to(2, b"b"), to(1, b""), to(2, b"d")]);
        assert_eq!(messages, [(node(1), vec![b"a".to_vec(), vec![]]), (node(2), vec![b"b".to_vec(), b"d".to_vec()])]);
        let large = vec![b'l'; BATCH_BYTES * 2 / 3];
        let messages = check(vec![to(1, b"a"), to(1, &large), to(1, b"b"), to(1, &large), to(1, b"c")]);
        let sizes: Vec<Vec<_>> = messages.iter().map(|(_, frames)| frames.iter().map(Vec::len).collect()).collect();
        assert_eq!(sizes, [vec![1, large.len(), 1], vec![large.len(), 1]], "what has no room begins another");
    }

    #[test]
    fn no_frame_overtakes_one_that_goes_to_several() {
        let topic = Outgoing { subject: Subject::Topic(Topic::parse("t").unwrap()), frame: Bytes::from_static(b"e") };
        let messages = check(vec![to(1, b"a"), all(b"b"), to(1, b"c"), all(b"d"), topic, to(1, b"f")]);
        let order: Vec<_> = messages.into_iter().flat_map(|(_, frames)| frames).collect();
        assert_eq!(order, [b"a", b"b", b"c", b"d", b"e", b"f"]);
    }

    #[test]
    fn a_batch_is_bounded_and_a_frame_alone_goes_as_it_is() {
        let long = vec![7; BATCH_BYTES];
        let rest = vec![7; BATCH_BYTES - HEAD.len() - 2 * LENGTH_BYTES - 1];
        let messages = batches(vec![to(1, b"a"), to(1, &long), to(1, b"c"), to(1, &rest), to(1, b"d")]);
        let lengths: Vec<usize> = messages.iter().map(|message| message.frame.len()).collect();
        assert_eq!(lengths, [1, BATCH_BYTES, BATCH_BYTES, 1]);
        let counts: Vec<usize> = messages.into_iter().map(|message| frames(message.frame).count()).collect();
        assert_eq!(counts, [1, 1, 2, 1]);
    }

    /// What a first version wrote: a node of that version must still read it.
    #[test]
    fn a_batch_is_written_as_on_the_first_day() {
        let messages = batches(vec![to(1, b"one"), to(1, b"")]);
        assert_eq!(&messages[0].frame[..], b"ab\x01\0\x03\0\0\0one\0\0\0\0");
    }

    #[test]
    fn what_is_no_batch_is_one_frame() {
        for bytes in [&b""[..], b"x", b"\x05\0\0\0four", b"ab\x02\0\x01\0\0\0x", b"ab\x01"] {
            assert_eq!(frames(Bytes::copy_from_slice(bytes)).collect::<Vec<_>>(), [Bytes::copy_from_slice(bytes)]);
        }
        let cut = frames(Bytes::from_static(b"ab\x01\0\x01\0\0\0ab")).collect::<Vec<_>>();
        assert_eq!(cut, [&b"a"[..], b"b"]);
        assert_eq!(frames(Bytes::from_static(b"ab\x01\0")).collect::<Vec<_>>(), [Bytes::new()], "refused, and counted");
    }
}
