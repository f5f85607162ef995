//! Batch: several frames to one subject as one put, because a put costs zenoh about a microsecond on each side, whatever its size. Knows no session.
//!
//! ```text
//!   0             4
//!  ┌─────────────┬───────┬─────────────┬───────┐
//!  │ length, u32 │ frame │ length, u32 │ frame │ ...     little-endian
//!  └─────────────┴───────┴─────────────┴───────┘
//! ```

use bytes::Bytes;

use crate::cluster::subject::Subject;
use crate::cluster::transport::Outgoing;

/// A put.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) subject: Subject,
    pub(super) bytes: Vec<u8>,
}

/// Frames as batches. What one node gets, it gets in the order of `frames`: one that goes to all ends every batch before it.
pub(super) fn batches(frames: Vec<Outgoing>) -> Vec<Batch> {
    let (mut full, mut open): (Vec<Batch>, Vec<Batch>) = (Vec::new(), Vec::new());
    for Outgoing { subject, frame } in frames {
        let several = !matches!(subject, Subject::Node(_));
        if several {
            full.append(&mut open);
        }
        let fits = |batch: &Batch| batch.bytes.len() + LENGTH_BYTES + frame.len() <= BATCH_BYTES;
        let at = match open.iter().position(|batch| batch.subject == subject) {
            Some(at) if fits(&open[at]) => at,
            found => {
                if let Some(at) = found {
                    full.push(open.swap_remove(at));
                }
                open.push(Batch { subject, bytes: Vec::new() });
                open.len() - 1
            }
        };
        let bytes = &mut open[at].bytes;
        // A frame is 64 MiB at most.
        bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&frame);
        if several {
            full.append(&mut open);
        }
    }
    full.append(&mut open);
    full
}

/// The frames of a batch. What is none, or is cut off, is given as a frame: it is refused and counted where frames are read.
pub(super) fn frames(mut batch: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        if batch.is_empty() {
            return None;
        }
        let length = batch.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
        match length {
            Some(length) if length <= batch.len() - LENGTH_BYTES => {
                let _ = batch.split_to(LENGTH_BYTES);
                Some(batch.split_to(length))
            }
            _ => Some(std::mem::take(&mut batch)),
        }
    })
}

const LENGTH_BYTES: usize = 4;
/// Less than zenoh's own batches of 64 KiB: a longer put is sent in fragments.
const BATCH_BYTES: usize = 48 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn to(node: u64, frame: &[u8]) -> Outgoing {
        Outgoing { subject: Subject::Node(NodeId::from_bits(node)), frame: Bytes::copy_from_slice(frame) }
    }

    fn all(frame: &[u8]) -> Outgoing {
        Outgoing { subject: Subject::All, frame: Bytes::copy_from_slice(frame) }
    }

    /// What each batch holds.
    fn check(frames_out: Vec<Outgoing>) -> Vec<(Subject, Vec<Vec<u8>>)> {
        let read = |batch: Batch| (batch.subject, frames(Bytes::from(batch.bytes)).map(|frame| frame.to_vec()).collect());
        batches(frames_out).into_iter().map(read).collect()
    }

    #[test]
    fn frames_to_one_node_go_together_and_stay_in_order() {
        let node = |node| Subject::Node(NodeId::from_bits(node));
        let batches = check(vec![to(1, b"a"), to(2, b"b"), to(1, b""), to(2, b"d")]);
        assert_eq!(batches, [(node(1), vec![b"a".to_vec(), vec![]]), (node(2), vec![b"b".to_vec(), b"d".to_vec()])]);
    }

    #[test]
    fn no_frame_overtakes_one_that_goes_to_all() {
        let batches = check(vec![to(1, b"a"), all(b"b"), to(1, b"c"), all(b"d")]);
        let order: Vec<_> = batches.into_iter().flat_map(|(_, frames)| frames).collect();
        assert_eq!(order, [b"a", b"b", b"c", b"d"]);
    }

    #[test]
    fn a_batch_is_bounded_and_takes_one_frame_of_any_size() {
        let long = vec![7; BATCH_BYTES];
        let batches = check(vec![to(1, b"a"), to(1, &long), to(1, b"c"), to(1, &vec![7; BATCH_BYTES - 2 * LENGTH_BYTES - 1])]);
        let lengths: Vec<Vec<usize>> = batches.iter().map(|(_, frames)| frames.iter().map(Vec::len).collect()).collect();
        assert_eq!(lengths, [vec![1], vec![BATCH_BYTES], vec![1, BATCH_BYTES - 2 * LENGTH_BYTES - 1]]);
    }

    #[test]
    fn what_is_no_batch_is_one_frame() {
        for bytes in [&b"x"[..], b"\x05\0\0\0four", b"\xff\xff\xff\xff"] {
            assert_eq!(frames(Bytes::copy_from_slice(bytes)).collect::<Vec<_>>(), [Bytes::copy_from_slice(bytes)]);
        }
        assert_eq!(frames(Bytes::from_static(b"\x01\0\0\0ab")).count(), 2);
    }
}
