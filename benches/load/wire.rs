//! Wire: WebSocket frames and chunked server-sent events as a client reads them, and the frames it writes. Knows no sockets.

/// How broadcasts come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    WebSocket,
    Sse,
}

/// The next whole piece of what was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A text frame, or the events of one chunk.
    Text(&'a [u8]),
    Ping(&'a [u8]),
    /// The server closes, and why if it says so.
    Closed(&'a [u8]),
}

impl Wire {
    /// The request that opens it.
    pub(crate) fn request(self, path: &str, port: u16) -> String {
        let more = match self {
            Self::WebSocket => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            Self::Sse => "Accept: text/event-stream\r\n",
        };
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{more}\r\n")
    }

    /// How the answer to it begins.
    pub(crate) fn accepted(self) -> &'static [u8] {
        match self {
            Self::WebSocket => b"HTTP/1.1 101 ",
            Self::Sse => b"HTTP/1.1 200 ",
        }
    }

    /// The first piece and its length on the wire; `None` while it is not all there.
    pub(crate) fn next(self, read: &[u8]) -> Option<(Piece<'_>, usize)> {
        match self {
            Self::WebSocket => frame(read),
            Self::Sse => chunk(read),
        }
    }

    /// The broadcasts of a text: one in a frame, several where a server writes several events in one chunk.
    pub(crate) fn messages(self, text: &[u8]) -> impl Iterator<Item = &[u8]> {
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = match self {
                Self::WebSocket => rest.len(),
                Self::Sse => rest.windows(2).position(|pair| pair == b"\n\n").map_or(rest.len(), |at| at + 2),
            };
            let (message, more) = rest.split_at(end);
            rest = more;
            Some(message)
        })
    }
}

/// RFC 6455 section 5.2, of a server: unmasked and, here, unfragmented.
fn frame(read: &[u8]) -> Option<(Piece<'_>, usize)> {
    let (&first, &second) = (read.first()?, read.get(1)?);
    let (start, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes(read.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(read.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    let payload = read.get(start..start + length)?;
    let piece = match first {
        0x81 => Piece::Text(payload),
        0x89 => Piece::Ping(payload),
        0x88 => Piece::Closed(payload),
        _ => Piece::Closed(b"a frame that is no whole text, ping or close"),
    };
    Some((piece, start + length))
}

/// RFC 9112 section 7.1. A chunk holds whole events; one that does not is taken for the end.
fn chunk(read: &[u8]) -> Option<(Piece<'_>, usize)> {
    let line = read.windows(2).position(|pair| pair == b"\r\n")?;
    let length = std::str::from_utf8(&read[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
    let Some(length) = length.filter(|length| *length > 0) else { return Some((Piece::Closed(b"the last chunk"), read.len())) };
    let events = read.get(line + 2..line + 2 + length)?;
    read.get(line + 2 + length..line + 4 + length)?;
    let piece = if events.ends_with(b"\n\n") { Piece::Text(events) } else { Piece::Closed(b"a chunk that splits an event") };
    Some((piece, line + 4 + length))
}

/// A frame of a client, masked with zeros: RFC 6455 asks for a mask, not for a random one of its tests.
pub(crate) fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "what the load says is short");
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const PONG: u8 = 10;
