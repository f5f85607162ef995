//! Frames: refuses a WebSocket frame by its head, before it is buffered: for the length that it declares, and how. Knows frame heads and no message.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use actix_web::web::Payload;
use futures_core::Stream;

/// The bytes of a connection, up to the first frame that declares too much.
///
/// actix-http compares a frame with its `frame_size` only when the whole frame has arrived: until then it buffers whatever was declared,
/// which may be gigabytes. So the heads are read here, before it.
pub(crate) struct FrameGuard {
    body: Payload,
    heads: Heads,
    refused: Refused,
}

/// How the guard tells the session why the stream ended.
pub(crate) type Refused = Rc<Cell<Option<HeadError>>>;

/// Why a frame is refused by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// It declares this many bytes, more than the limit.
    TooLarge(usize),
    /// Its length is written longer than it has to be.
    LongForm(usize),
    /// A control frame of this many bytes, or one that is a fragment.
    Control(usize),
}

impl FrameGuard {
    pub(crate) fn new(body: Payload, frame_bytes: usize, refused: Refused) -> Self {
        Self { body, heads: Heads { max: frame_bytes, head: Vec::new(), skip: 0 }, refused }
    }
}

impl Stream for FrameGuard {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.refused.get().is_some() {
            return Poll::Ready(None);
        }
        let next = match ready!(Pin::new(&mut self.body).poll_next(cx)) {
            // The connection broke. What came before is still read: actix-web-actors would answer the error first, and drop it.
            Some(Err(_)) => None,
            next => next,
        };
        if let Some(Ok(chunk)) = &next
            && let Err(error) = self.heads.read(chunk)
        {
            self.refused.set(Some(error));
            return Poll::Ready(Some(Err(PayloadError::Overflow)));
        }
        Poll::Ready(next)
    }
}

/// Finds the frame heads in a stream of bytes; RFC 6455, section 5.2.
struct Heads {
    max: usize,
    /// The head so far, without the mask: at most 10 bytes.
    head: Vec<u8>,
    /// Bytes until the next head.
    skip: usize,
}

impl Heads {
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), HeadError> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            self.head.push(*first);
            if let Some(length) = declared(&self.head) {
                check(&self.head, length, self.max)?;
                self.head.clear();
                // A frame without a mask is refused by the codec, so it does not matter where the next head would be.
                self.skip = MASK_BYTES + length;
            }
        }
        Ok(())
    }
}

/// Reserved bits, opcodes, the mask and the order of fragments are the codec's, which says no by the same bytes.
fn check(head: &[u8], length: usize, max: usize) -> Result<(), HeadError> {
    let control = head[0] & OPCODE_CONTROL != 0;
    if control && (length > CONTROL_BYTES_MAX || head[0] & FIN == 0) {
        return Err(HeadError::Control(length));
    }
    if length > max {
        return Err(HeadError::TooLarge(length));
    }
    // RFC 6455, section 5.2: "the minimal number of bytes MUST be used to encode the length".
    let shortest = match length {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    };
    if head.len() == shortest { Ok(()) } else { Err(HeadError::LongForm(length)) }
}

const MASK_BYTES: usize = 4;
const FIN: u8 = 0x80;
/// All opcodes with this bit are of control frames.
const OPCODE_CONTROL: u8 = 0x08;
/// RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: usize = 125;

/// The payload's length, once the head is long enough to tell.
fn declared(head: &[u8]) -> Option<usize> {
    let [_, length, extended @ ..] = head else { return None };
    match length & 0x7f {
        126 => Some(usize::from(u16::from_be_bytes(*extended.first_chunk()?))),
        // What does not fit into a `usize` is too much in any case.
        127 => Some(usize::try_from(u64::from_be_bytes(*extended.first_chunk()?)).unwrap_or(usize::MAX)),
        short => Some(usize::from(short)),
    }
}

/// Any bytes as a stream of frames, for `testing::decoders`: it is refused, or not, wherever it is cut.
#[cfg(feature = "testing")]
pub(crate) fn decode(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let heads = || Heads { max: 1_000, head: Vec::new(), skip: 0 };
    let (mut whole, mut cut_up) = (heads(), heads());
    let (first, second) = stream.split_at(usize::from(*cut).min(stream.len()));
    assert_eq!(whole.read(stream), cut_up.read(first).and_then(|()| cut_up.read(second)));
    assert!(whole.head.len() <= 10);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A masked frame as a client sends it.
    fn frame(length: usize) -> Vec<u8> {
        let mut bytes = vec![0x82];
        match length {
            0..=125 => bytes.push(0x80 | length as u8),
            126..=65_535 => {
                bytes.push(0xfe);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0xff);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([0; MASK_BYTES]);
        bytes.extend(vec![0xff; length]);
        bytes
    }

    proptest! {
        #[test]
        fn a_frame_is_refused_by_its_head_wherever_the_stream_is_cut(
            lengths in proptest::collection::vec(0_usize..70_000, 1..6),
            cuts in proptest::collection::vec(1_usize..9_000, 1..20),
            max in 125_usize..66_000,
        ) {
            let stream: Vec<u8> = lengths.iter().flat_map(|length| frame(*length)).collect();
            let mut heads = Heads { max, head: Vec::new(), skip: 0 };
            let (mut rest, mut found) = (&stream[..], Ok(()));
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                found = heads.read(now);
                rest = later;
                if rest.is_empty() || found.is_err() {
                    break;
                }
            }
            let first = lengths.iter().find(|length| **length > max);
            prop_assert_eq!(found.err(), first.map(|length| HeadError::TooLarge(*length)));
            for (length, fits) in [(max, true), (max + 1, false)] {
                let mut heads = Heads { max, head: Vec::new(), skip: 0 };
                prop_assert_eq!(heads.read(&frame(length)).is_ok(), fits);
            }
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Heads { max: 1_000, head: Vec::new(), skip: 0 }.read(&bytes);
        }
    }

    #[test]
    fn a_declared_length_at_the_limit_passes_and_one_past_it_does_not() {
        let read = |length| Heads { max: 1_000, head: Vec::new(), skip: 0 }.read(&frame(length)[..10]);
        assert_eq!((read(1_000), read(1_001)), (Ok(()), Err(HeadError::TooLarge(1_001))));
        let mut gigantic = vec![0x82, 0xff];
        gigantic.extend([0xff; 8]);
        assert_eq!(Heads { max: 1_000, head: Vec::new(), skip: 0 }.read(&gigantic), Err(HeadError::TooLarge(usize::MAX)));
    }

    #[test]
    fn a_length_in_a_longer_form_and_a_control_frame_that_is_none_are_refused_by_their_heads() {
        let read = |bytes: &[u8]| Heads { max: 1_000, head: Vec::new(), skip: 0 }.read(bytes);
        assert_eq!((read(&[0x82, 0xfe, 0, 125]), read(&[0x82, 0xfe, 0, 126])), (Err(HeadError::LongForm(125)), Ok(())));
        assert_eq!(read(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 126]), Err(HeadError::LongForm(126)));
        assert_eq!((read(&[0x89, 0xfd]), read(&[0x89, 0xfe, 0, 126])), (Ok(()), Err(HeadError::Control(126))));
        assert_eq!((read(&[0x09, 0x80]), read(&[0x01, 0x80])), (Err(HeadError::Control(0)), Ok(())));
    }
}
