//! TCP: what no engine can beat: notes with their length before them on one connection, written in batches. Knows no topics.

use std::io::Read;
use std::net::Ipv4Addr;
use std::net::TcpStream;

use tokio::io::AsyncWriteExt;

use crate::tally::Tally;
use crate::window::Sends;

pub(crate) struct Tcp {
    stream: tokio::net::TcpStream,
    batch: Vec<u8>,
}

impl Tcp {
    /// Inside a runtime.
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option");
        stream.set_nonblocking(true).expect("an option");
        Self { stream: tokio::net::TcpStream::from_std(stream).expect("a stream"), batch: Vec::with_capacity(2 * BATCH_BYTES) }
    }
}

impl Sends for Tcp {
    async fn send(&mut self, topic: usize, note: &[u8]) {
        self.batch.extend_from_slice(&(note.len() as u32).to_le_bytes());
        self.batch.extend_from_slice(&(topic as u32).to_le_bytes());
        self.batch.extend_from_slice(note);
        if self.batch.len() >= BATCH_BYTES {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        self.stream.write_all(&self.batch).await.expect("it writes");
        self.batch.clear();
    }
}

pub(crate) fn receive(port: u16, tally: &Tally) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the first process");
    tally.ready();
    let (mut bytes, mut end) = (vec![0; 4 * BATCH_BYTES], 0);
    loop {
        let read = stream.read(&mut bytes[end..]).expect("it reads");
        if read == 0 {
            return;
        }
        end += read;
        let mut at = 0;
        while let Some(head) = bytes[at..end].first_chunk::<4>() {
            let length = u32::from_le_bytes(*head) as usize;
            let Some(note) = bytes[at..end].get(8..8 + length) else { break };
            tally.take(note);
            at += 8 + length;
        }
        bytes.copy_within(at..end, 0);
        end -= at;
    }
}

const BATCH_BYTES: usize = 64 * 1_024;
