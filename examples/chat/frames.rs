//! Frames: refuses a WebSocket frame by the length that it declares, before it is buffered. Knows frame heads and nothing else.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use actix_web::error::PayloadError;
use actix_web::web;
use actix_web::web::Bytes;
use futures::Stream;

use crate::limits::LIMITS;

/// The bytes of a connection, up to the first frame that declares too much.
///
/// actix-http compares a frame with its `frame_size` only when the whole frame has arrived: until then it buffers whatever was declared,
/// which may be gigabytes. So the heads are read here, before it.
pub(crate) struct FrameGuard {
    body: web::Payload,
    heads: Heads,
    refused: Declared,
}

/// The length in bytes that the refused frame declared: how the guard tells the session why the stream ended.
pub(crate) type Declared = Rc<Cell<Option<usize>>>;

impl FrameGuard {
    pub(crate) fn new(body: web::Payload, refused: Declared) -> Self {
        Self { body, heads: Heads::default(), refused }
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
#[derive(Default)]
struct Heads {
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
                if length > LIMITS.frame_bytes {
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
