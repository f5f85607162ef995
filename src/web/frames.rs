//! Frames: refuses a WebSocket frame by the length that it declares, before it is buffered; puts fragments together. Knows frame heads and no message.

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
    refused: Declared,
}

/// The length in bytes that the refused frame declared: how the guard tells the session why the stream ended.
pub(crate) type Declared = Rc<Cell<Option<usize>>>;

impl FrameGuard {
    pub(crate) fn new(body: Payload, frame_bytes: usize, refused: Declared) -> Self {
        Self { body, heads: Heads { max: frame_bytes, head: Vec::new(), skip: 0 }, refused }
    }
}

impl Stream for FrameGuard {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.refused.get().is_some() {
            return Poll::Ready(None);
        }
        let next = ready!(Pin::new(&mut self.body).poll_next(cx));
        if let Some(Ok(chunk)) = &next
            && let Err(bytes) = self.heads.read(chunk)
        {
            self.refused.set(Some(bytes));
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
    /// Err: a frame declares this many bytes, more than the limit.
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), usize> {
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
                self.head.clear();
                if length > self.max {
                    return Err(length);
                }
                // A frame without a mask is refused by the codec, so it does not matter where the next head would be.
                self.skip = MASK_BYTES + length;
            }
        }
        Ok(())
    }
}

const MASK_BYTES: usize = 4;

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
            prop_assert_eq!(found.err(), first.copied());
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Heads { max: 1_000, head: Vec::new(), skip: 0 }.read(&bytes);
        }
    }

    #[test]
    fn a_declared_length_at_the_limit_passes_and_one_past_it_does_not() {
        let read = |length| Heads { max: 1_000, head: Vec::new(), skip: 0 }.read(&frame(length)[..10]);
        assert_eq!((read(1_000), read(1_001)), (Ok(()), Err(1_001)));
        let mut gigantic = vec![0x82, 0xff];
        gigantic.extend([0xff; 8]);
        assert_eq!(Heads { max: 1_000, head: Vec::new(), skip: 0 }.read(&gigantic), Err(usize::MAX));
    }
}
