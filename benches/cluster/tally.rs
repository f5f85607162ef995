//! Tally: what the other process got, and how it tells the first one. Knows no engine.

use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpStream;
use std::process;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use hdrhistogram::Histogram;

use crate::common::record::PERCENTILES;
use crate::note;

/// What is said on the connection between the two: a kind and three numbers.
pub(crate) type Said = [u64; 4];

pub(crate) const READY: u64 = 0;
/// How many came, and how many of those behind one with a higher number.
pub(crate) const GOT: u64 = 1;
/// Median and 99th percentile in ns, and of how many.
pub(crate) const LATENCY: u64 = 2;
/// Anything of a part's own.
pub(crate) const FOUND: u64 = 3;

/// A percentile's place among those of the record, and its value in ns; all of them follow [`LATENCY`].
pub(crate) const PERCENTILE: u64 = 4;

pub(crate) const ASK_GOT: u8 = b'g';
pub(crate) const ASK_TIME: u8 = b't';
pub(crate) const ASK_LATENCY: u8 = b'l';

/// So many arrivals are told at once.
const TELL_EVERY: u64 = 256;
/// What is longer counts as that.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

#[derive(Clone)]
pub(crate) struct Tally(Arc<Mutex<Inner>>);

struct Inner {
    next: u64,
    got: u64,
    disordered: u64,
    told: u64,
    times: Option<Histogram<u64>>,
    first: TcpStream,
}

impl Tally {
    /// Connects to the process that started this one, and ends with it.
    pub(crate) fn connect(port: u16) -> Self {
        let first = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the first process");
        first.set_nodelay(true).expect("an option");
        let asked = first.try_clone().expect("a handle");
        let tally = Self(Arc::new(Mutex::new(Inner { next: 0, got: 0, disordered: 0, told: 0, times: None, first })));
        let answers = tally.clone();
        thread::spawn(move || answers.serve(asked));
        tally
    }

    fn serve(&self, mut asked: TcpStream) {
        let mut byte = [0];
        while asked.read_exact(&mut byte).is_ok() {
            let mut inner = self.0.lock().expect("nobody panics");
            match byte[0] {
                ASK_TIME => inner.times = Some(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("a histogram")),
                ASK_LATENCY => {
                    let times = inner.times.take().expect("it was asked for");
                    let quantile = |q| times.value_at_quantile(q);
                    inner.say([LATENCY, quantile(0.5), quantile(0.99), times.len()]);
                    for (at, percentile) in PERCENTILES.into_iter().enumerate() {
                        inner.say([PERCENTILE, at as u64, times.value_at_percentile(percentile), 0]);
                    }
                }
                _ => inner.tell(),
            }
        }
        process::exit(0);
    }

    /// A note has come.
    pub(crate) fn take(&self, note: &[u8]) {
        let (number, at) = note::read(note);
        let mut inner = self.0.lock().expect("nobody panics");
        inner.got += 1;
        if number >= inner.next {
            inner.next = number + 1;
        } else {
            inner.disordered += 1;
        }
        if let Some(times) = &mut inner.times {
            times.saturating_record(note::now().saturating_sub(at));
        }
        if inner.got - inner.told >= TELL_EVERY {
            inner.tell();
        }
    }

    pub(crate) fn ready(&self) {
        self.say([READY, 0, 0, 0]);
    }

    pub(crate) fn say(&self, said: Said) {
        self.0.lock().expect("nobody panics").say(said);
    }
}

impl Inner {
    fn tell(&mut self) {
        self.told = self.got;
        self.say([GOT, self.got, self.disordered, 0]);
    }

    fn say(&mut self, said: Said) {
        let mut bytes = [0; 32];
        for (at, number) in said.into_iter().enumerate() {
            bytes[at * 8..at * 8 + 8].copy_from_slice(&number.to_le_bytes());
        }
        if self.first.write_all(&bytes).is_err() {
            // The first process has ended.
            process::exit(0);
        }
    }
}
