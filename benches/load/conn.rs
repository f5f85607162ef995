//! Conn: one client. It opens its connection, answers what its dialect answers, and checks the number of each broadcast. Knows no clocks.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;

use mio::net::TcpStream;

use crate::load::dialect::Dialect;
use crate::load::said::Mark;
use crate::load::wire;
use crate::load::wire::Piece;

pub(crate) struct Conn {
    socket: TcpStream,
    step: Step,
    /// The number of the next broadcast.
    next: u64,
    /// What was read of a piece that is not all there; empty nearly always.
    rest: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connecting,
    /// The request is out.
    Asked,
    /// The answer's head was read.
    Open,
    Ready,
}

impl Conn {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, step: Step::Connecting, next: 0, rest: Vec::new() }
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.step == Step::Ready
    }

    /// Sends the request as soon as there is a connection.
    pub(crate) fn writable(&mut self, request: &[u8]) -> io::Result<()> {
        if self.step != Step::Connecting {
            return Ok(());
        }
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
            Err(error) => return Err(error),
        }
        self.step = Step::Asked;
        // The first bytes of a connection fit into its buffer.
        self.socket.write_all(request)
    }

    /// Reads what is there, by way of `buffer`, and hands each broadcast to `got`.
    pub(crate) fn readable(&mut self, dialect: Dialect, buffer: &mut [u8], got: &mut impl FnMut(Mark)) -> io::Result<()> {
        if self.step == Step::Connecting {
            return Ok(());
        }
        loop {
            let length = match self.socket.read(buffer) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed a connection")),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if self.rest.is_empty() {
                let used = self.take(dialect, &buffer[..length], got)?;
                self.rest.extend_from_slice(&buffer[used..length]);
            } else {
                let mut read = std::mem::take(&mut self.rest);
                read.extend_from_slice(&buffer[..length]);
                let used = self.take(dialect, &read, got)?;
                if used < read.len() {
                    read.drain(..used);
                    self.rest = read;
                }
            }
            // There was no more than this: epoll(7) lets a short read stand for the empty one after it.
            if length < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Whether something waits here that nobody reads, and the server has not closed it.
    pub(crate) fn is_stalled(&self) -> bool {
        self.socket.peek(&mut [0]).is_ok_and(|bytes| bytes > 0)
    }

    /// Handles all whole pieces; says how many bytes they were.
    fn take(&mut self, dialect: Dialect, read: &[u8], got: &mut impl FnMut(Mark)) -> io::Result<usize> {
        let mut used = 0;
        if self.step == Step::Asked {
            let Some(head) = read.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(0) };
            if !read.starts_with(dialect.wire.accepted()) {
                return Err(io::Error::other(String::from_utf8_lossy(read).into_owned()));
            }
            used = head + 4;
            self.step = if dialect.ready.is_empty() { Step::Ready } else { Step::Open };
        }
        while let Some((piece, length)) = dialect.wire.next(&read[used..]) {
            used += length;
            match piece {
                Piece::Text(text) => {
                    for message in dialect.wire.messages(text) {
                        self.message(dialect, message, got)?;
                    }
                }
                Piece::Ping(payload) => self.socket.write_all(&wire::client_frame(wire::PONG, payload))?,
                Piece::Closed(why) => return Err(io::Error::other(format!("closed: {}", String::from_utf8_lossy(why)))),
            }
        }
        Ok(used)
    }

    fn message(&mut self, dialect: Dialect, message: &[u8], got: &mut impl FnMut(Mark)) -> io::Result<()> {
        if let Some(mark) = Mark::find(message) {
            if mark.number != self.next || self.step != Step::Ready {
                return Err(io::Error::other(format!("broadcast {} came where {} was to come", mark.number, self.next)));
            }
            self.next += 1;
            got(mark);
            return Ok(());
        }
        if self.step == Step::Open && message.starts_with(dialect.ready.as_bytes()) {
            self.step = Step::Ready;
        }
        match dialect.answers.iter().find(|(said, _)| message.starts_with(said.as_bytes())) {
            Some((_, answer)) => self.socket.write_all(&wire::client_frame(wire::TEXT, answer.as_bytes())),
            None => Ok(()),
        }
    }
}
