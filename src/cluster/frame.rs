//! Frame: what crosses between nodes, byte for byte. Knows no engine, no members and no message types.
//!
//! ```text
//!   0        2        3      4          12        16        24         26
//!  ┌────────┬────────┬──────┬──────────┬─────────┬─────────┬──────────┬────────────┬─────────┐
//!  │ "ap"   │ version│ kind │ origin   │ epoch   │ seq     │ length of│ fields     │ payload │
//!  │        │ 1      │      │ u64      │ u32     │ u64     │ fields   │            │ the rest│
//!  └────────┴────────┴──────┴──────────┴─────────┴─────────┴──────────┴────────────┴─────────┘
//!                                                  a field:  tag u8 │ length u16 │ value
//! ```
//! Numbers are little-endian. A field whose tag is not known is passed over; from 128 on a tag says that the frame means nothing without it, so the
//! frame is refused as of a newer version. `epoch` and `seq` number what an origin sends to one subject: see [`numbers`](super::numbers).

use std::fmt;

use bytes::Bytes;

use crate::ids::NodeId;
use crate::topic::Topic;

/// A frame as it is read: it borrows what is long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) origin: NodeId,
    pub(crate) epoch: u32,
    pub(crate) seq: u64,
    pub(crate) fields: Fields<'a>,
    pub(crate) payload: &'a [u8],
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A broadcast, on its topic's subject.
    Event,
    /// A broadcast to one node, on that node's subject.
    Direct,
    /// How far the numbers of a subject have come; without a payload.
    Mark,
    /// What the relays tell each other: a [`Note`](super::note::Note).
    Note,
}

/// The fields of a frame; what is not there is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) topic: &'a str,
    /// `Payload::NAME`.
    pub(crate) message: &'a str,
    /// How the payload is encoded.
    pub(crate) codec: &'a str,
    /// W3C Trace Context, as the header of that name.
    pub(crate) traceparent: &'a str,
    pub(crate) tracestate: &'a str,
}

/// Bytes before the fields.
pub(crate) const HEAD_BYTES: usize = 26;
const MAGIC: [u8; 2] = *b"ap";
/// What a [`batch`](super::batch) begins with, at the same place.
pub(crate) const BATCH_MAGIC: [u8; 2] = *b"ab";
pub(crate) const VERSION: u8 = 1;
const VERSION_AT: usize = 2;
const ORIGIN_AT: usize = 4;
const EPOCH_AT: usize = 12;
const SEQ_AT: usize = 16;
const FIELDS_AT: usize = 24;
const FIELD_HEAD_BYTES: usize = 3;
/// Tags from here on may not be passed over.
const ESSENTIAL: u8 = 128;

const TOPIC: u8 = 1;
const MESSAGE: u8 = 2;
const CODEC: u8 = 3;
const TRACEPARENT: u8 = 4;
const TRACESTATE: u8 = 5;

impl<'a> Fields<'a> {
    fn tagged(&self) -> [(u8, &'a str); 5] {
        [
            (TOPIC, self.topic),
            (MESSAGE, self.message),
            (CODEC, self.codec),
            (TRACEPARENT, self.traceparent),
            (TRACESTATE, self.tracestate),
        ]
    }

    fn bytes(&self) -> usize {
        self.tagged().iter().filter(|(_, value)| !value.is_empty()).map(|(_, value)| FIELD_HEAD_BYTES + value.len()).sum()
    }

    /// The bytes of a frame with these fields and a payload of so many bytes.
    pub(crate) fn frame_bytes(&self, payload: usize) -> usize {
        HEAD_BYTES + self.bytes() + payload
    }
}

/// Writes a frame with the numbers left open, so that it can be made before its place in the order is known; see [`number`].
pub(crate) fn encode(kind: Kind, origin: NodeId, fields: &Fields<'_>, payload: &[u8]) -> Vec<u8> {
    let mut frame = begin(kind, origin, fields, payload.len());
    frame.extend_from_slice(payload);
    frame
}

/// As [`encode`], up to where the payload begins; `payload` is what room is made for.
pub(crate) fn begin(kind: Kind, origin: NodeId, fields: &Fields<'_>, payload: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(fields.frame_bytes(payload));
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, kind.code()]);
    frame.extend_from_slice(&origin.to_bits().to_le_bytes());
    // The epoch and the number, later.
    frame.extend_from_slice(&[0; FIELDS_AT - EPOCH_AT]);
    // Topics are at most 255 bytes, and names are checked where they are given.
    frame.extend_from_slice(&(fields.bytes() as u16).to_le_bytes());
    for (tag, value) in fields.tagged() {
        if !value.is_empty() {
            frame.push(tag);
            frame.extend_from_slice(&(value.len() as u16).to_le_bytes());
            frame.extend_from_slice(value.as_bytes());
        }
    }
    frame
}

/// Sets the numbers of a frame that [`encode`] or [`begin`] made.
pub(crate) fn number(mut frame: Vec<u8>, epoch: u32, seq: u64) -> Bytes {
    frame[EPOCH_AT..EPOCH_AT + 4].copy_from_slice(&epoch.to_le_bytes());
    frame[SEQ_AT..SEQ_AT + 8].copy_from_slice(&seq.to_le_bytes());
    Bytes::from(frame)
}

/// Who sent a frame, if it is one: looked at before all else, because an engine may bring back what one has sent.
pub(crate) fn origin(frame: &[u8]) -> Option<NodeId> {
    let origin = frame.get(ORIGIN_AT..ORIGIN_AT + 8)?;
    Some(NodeId::from_bits(u64::from_le_bytes(origin.try_into().ok()?)))
}

impl<'a> Frame<'a> {
    /// Reads a frame. Allocates nothing, whatever the bytes are.
    pub(crate) fn decode(bytes: &'a [u8], bytes_max: usize) -> Result<Self, FrameError> {
        if bytes.len() > bytes_max {
            return Err(FrameError::TooLarge { bytes: bytes.len(), max: bytes_max });
        }
        let mut head = bytes;
        let magic = take::<2>(&mut head);
        // A batch that was not opened is one of another version.
        if magic != Some(MAGIC) && magic != Some(BATCH_MAGIC) {
            return Err(FrameError::Foreign);
        }
        let short = FrameError::Short { bytes: bytes.len() };
        let version = *bytes.get(VERSION_AT).ok_or(short)?;
        if version != VERSION {
            return Err(FrameError::Version { version });
        }
        if magic != Some(MAGIC) {
            return Err(FrameError::Foreign);
        }
        let (Some(_), Some([code])) = (take::<1>(&mut head), take::<1>(&mut head)) else { return Err(short) };
        let (Some(origin), Some(epoch), Some(seq)) = (take::<8>(&mut head), take::<4>(&mut head), take::<8>(&mut head)) else {
            return Err(short);
        };
        let length = usize::from(u16::from_le_bytes(take::<2>(&mut head).ok_or(short)?));
        let (fields, payload) = head.split_at_checked(length).ok_or(short)?;
        let kind = Kind::of(code).ok_or(FrameError::Kind { kind: code })?;
        Ok(Self {
            kind,
            origin: NodeId::from_bits(u64::from_le_bytes(origin)),
            epoch: u32::from_le_bytes(epoch),
            seq: u64::from_le_bytes(seq),
            fields: Fields::decode(fields)?,
            payload,
        })
    }

    /// The topic it is for.
    pub(crate) fn topic(&self) -> Result<Topic, FrameError> {
        Topic::parse(self.fields.topic).map_err(|_| FrameError::Topic)
    }
}

impl<'a> Fields<'a> {
    fn decode(mut bytes: &'a [u8]) -> Result<Self, FrameError> {
        let mut fields = Self::default();
        while let Some([tag]) = take::<1>(&mut bytes) {
            let length = take::<2>(&mut bytes).map(u16::from_le_bytes).ok_or(FrameError::Fields)?;
            let (value, rest) = bytes.split_at_checked(usize::from(length)).ok_or(FrameError::Fields)?;
            bytes = rest;
            let field = match tag {
                TOPIC => &mut fields.topic,
                MESSAGE => &mut fields.message,
                CODEC => &mut fields.codec,
                TRACEPARENT => &mut fields.traceparent,
                TRACESTATE => &mut fields.tracestate,
                ESSENTIAL.. => return Err(FrameError::Essential { tag }),
                _ => continue,
            };
            *field = std::str::from_utf8(value).map_err(|_| FrameError::Fields)?;
        }
        Ok(fields)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Event => 1,
            Self::Direct => 2,
            Self::Mark => 3,
            Self::Note => 4,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Event, Self::Direct, Self::Mark, Self::Note].into_iter().find(|kind| kind.code() == code)
    }
}

/// Why bytes from an engine are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    TooLarge {
        bytes: usize,
        max: usize,
    },
    /// It does not begin as our frames do.
    Foreign,
    Version {
        version: u8,
    },
    Short {
        bytes: usize,
    },
    Kind {
        kind: u8,
    },
    /// A field ends behind the fields, or is no UTF-8.
    Fields,
    Essential {
        tag: u8,
    },
    Topic,
    /// What a relay says is not understood; `is_newer`: it may be by a newer version.
    Note {
        is_newer: bool,
    },
}

impl FrameError {
    /// What a newer version of this crate may have sent.
    pub(crate) fn is_newer(self) -> bool {
        matches!(self, Self::Version { .. } | Self::Kind { .. } | Self::Essential { .. } | Self::Note { is_newer: true })
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, max } => write!(f, "frame is {bytes} bytes, the limit is {max}"),
            Self::Foreign => f.write_str("frame does not begin with \"ap\""),
            Self::Version { version } => write!(f, "frame is of version {version}, known is {VERSION}"),
            Self::Short { bytes } => write!(f, "frame ends early, it has {bytes} bytes"),
            Self::Kind { kind } => write!(f, "frame is of the unknown kind {kind}"),
            Self::Fields => f.write_str("fields of a frame are malformed"),
            Self::Essential { tag } => write!(f, "frame has the unknown field {tag}, which may not be passed over"),
            Self::Topic => f.write_str("topic of a frame is none"),
            Self::Note { .. } => f.write_str("note of a relay is not understood"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    fn sample() -> Bytes {
        let fields = Fields {
            topic: "room:1",
            message: "chat.say",
            codec: "msgpack",
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            tracestate: "",
        };
        number(encode(Kind::Event, NodeId::from_bits(0x0102_0304_0506_0708), &fields, b"payload"), 7, 42)
    }

    /// What version 1 wrote on its first day; a node of that day must still read what is written now, and the other way round.
    const GOLDEN: &str = "61700101080706050403020107000000\
        2a000000000000005800\
        0106 00726f6f6d3a31 0208 00636861742e736179 0307 006d73677061636b\
        0437 0030302d30616637363531393136636434336464383434386562323131633830333139632d623761643662373136393230333333312d3031\
        7061796c6f6164";

    fn golden() -> Vec<u8> {
        let digits: Vec<u8> = GOLDEN.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn a_frame_is_written_as_it_was_on_the_first_day() {
        assert_eq!(sample(), golden());
    }

    #[test]
    fn a_frame_of_the_first_day_is_read() {
        let golden = golden();
        let frame = Frame::decode(&golden, MAX).unwrap();
        assert_eq!(
            (frame.kind, frame.origin, frame.epoch, frame.seq),
            (Kind::Event, NodeId::from_bits(0x0102_0304_0506_0708), 7, 42)
        );
        assert_eq!((frame.fields.topic, frame.fields.message, frame.fields.codec), ("room:1", "chat.say", "msgpack"));
        assert_eq!((frame.payload, origin(&golden)), (b"payload".as_slice(), Some(frame.origin)));
    }

    /// With a field added before the payload.
    fn with_field(tag: u8, value: &[u8]) -> Vec<u8> {
        let mut frame = golden();
        let length = usize::from(u16::from_le_bytes([frame[FIELDS_AT], frame[FIELDS_AT + 1]]));
        let field: Vec<u8> = [tag, value.len() as u8, 0].into_iter().chain(value.iter().copied()).collect();
        frame[FIELDS_AT..FIELDS_AT + 2].copy_from_slice(&((length + field.len()) as u16).to_le_bytes());
        frame.splice(HEAD_BYTES + length..HEAD_BYTES + length, field);
        frame
    }

    #[test]
    fn a_field_of_a_newer_version_is_passed_over_unless_it_is_essential() {
        let (newer, golden) = (with_field(99, b"what is this"), golden());
        assert_eq!(Frame::decode(&newer, MAX), Frame::decode(&golden, MAX));
        let refused = Frame::decode(&with_field(200, b""), MAX).map(|_| ());
        assert_eq!(refused, Err(FrameError::Essential { tag: 200 }));
        assert!(refused.unwrap_err().is_newer());
    }

    #[test]
    fn newer_versions_and_kinds_are_told_from_garbage() {
        let mut frame = golden();
        frame[VERSION_AT] = 2;
        assert_eq!(Frame::decode(&frame, MAX).unwrap_err(), FrameError::Version { version: 2 });
        frame[VERSION_AT] = 1;
        frame[3] = 77;
        assert_eq!(Frame::decode(&frame, MAX).unwrap_err(), FrameError::Kind { kind: 77 });
        assert!(!Frame::decode(b"hello", MAX).unwrap_err().is_newer());
        assert_eq!(Frame::decode(&golden(), 100).unwrap_err(), FrameError::TooLarge { bytes: golden().len(), max: 100 });
    }

    #[test]
    fn a_frame_cut_anywhere_before_its_payload_is_refused() {
        let golden = golden();
        for end in 0..golden.len() - b"payload".len() {
            assert!(Frame::decode(&golden[..end], MAX).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), ours in any::<bool>()) {
            let mut bytes = bytes;
            if ours {
                bytes.splice(0..0, [b'a', b'p', 1, 1]);
            }
            let _ = Frame::decode(&bytes, 200);
            let _ = origin(&bytes);
        }

        #[test]
        fn a_changed_byte_is_read_or_refused(at in 0..121_usize, to in any::<u8>()) {
            let mut bytes = golden();
            bytes[at] = to;
            let _ = Frame::decode(&bytes, MAX).map(|frame| frame.topic());
        }

        #[test]
        fn what_is_written_is_read(
            topic in "[^\\pC*]{1,20}", message in ".{0,20}", state in ".{0,20}", payload in proptest::collection::vec(any::<u8>(), 0..100),
            bits in any::<u64>(), epoch in any::<u32>(), seq in any::<u64>(),
        ) {
            let fields = Fields { topic: &topic, message: &message, codec: "json", traceparent: "", tracestate: &state };
            let origin = NodeId::from_bits(bits);
            let bytes = number(encode(Kind::Direct, origin, &fields, &payload), epoch, seq);
            prop_assert_eq!(bytes.len(), fields.frame_bytes(payload.len()));
            prop_assert_eq!(Frame::decode(&bytes, MAX), Ok(Frame { kind: Kind::Direct, origin, epoch, seq, fields, payload: &payload }));
        }
    }
}
