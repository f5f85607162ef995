//! Tally: what the clients counted and measured between two orders, and whether the load kept up with the server. Knows no sockets.

use std::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::common::record::PERCENTILES;
use crate::load::said;
use crate::load::said::Mark;
use crate::process;
use crate::process::Cpu;

pub(crate) struct Tally {
    clients: u64,
    /// Broadcasts received by all clients together, ever.
    total: u64,
    frames: u64,
    /// From broadcast to client, ns.
    latency: Histogram<u64>,
    /// From when the load wanted to look around until it did, ns.
    lag: Histogram<u64>,
    next_tick: Instant,
    /// When the broadcast began that is on its way, ns since 1970.
    since: Option<u64>,
    /// Until when broadcasts were on their way, and for how long in all.
    until: u64,
    active: u64,
    cpu: Cpu,
}

impl Tally {
    pub(crate) fn new(clients: usize) -> Self {
        let histogram = || Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("bounds that fit");
        Self {
            clients: clients as u64,
            total: 0,
            frames: 0,
            latency: histogram(),
            lag: histogram(),
            next_tick: Instant::now(),
            since: None,
            until: 0,
            active: 0,
            cpu: Cpu::default(),
        }
    }

    /// A phase begins.
    pub(crate) fn begin(&mut self) {
        (self.frames, self.since, self.active) = (0, None, 0);
        self.latency.reset();
        self.lag.reset();
        self.next_tick = Instant::now() + TICK;
        self.cpu = process::cpu("self");
    }

    /// A client got a broadcast.
    pub(crate) fn got(&mut self, mark: Mark) {
        let now = said::now();
        self.latency.saturating_record(now.saturating_sub(mark.at));
        let since = *self.since.get_or_insert(mark.at.max(self.until));
        (self.frames, self.total) = (self.frames + 1, self.total + 1);
        if self.total.is_multiple_of(self.clients) {
            (self.since, self.until) = (None, now);
            self.active += now.saturating_sub(since);
        }
    }

    /// Whether every client got so many broadcasts: none gets one twice, so the sum says it.
    pub(crate) fn reached(&self, broadcasts: u64) -> bool {
        self.total == broadcasts * self.clients
    }

    /// How long the load may sleep.
    pub(crate) fn rest(&self) -> Duration {
        self.next_tick.saturating_duration_since(Instant::now())
    }

    /// Looks around: how late is it?
    pub(crate) fn tick(&mut self) {
        let late = Instant::now().checked_duration_since(self.next_tick);
        if let Some(late) = late {
            self.lag.saturating_record(late.as_nanos() as u64);
            self.next_tick = Instant::now() + TICK;
        }
    }

    /// The phase as `name=number` words.
    pub(crate) fn end(&self) -> String {
        let cpu = process::cpu("self") - self.cpu;
        let percentiles: Vec<_> =
            PERCENTILES.iter().map(|percentile| self.latency.value_at_percentile(*percentile).to_string()).collect();
        format!(
            "tally frames={} active={} p50={} p99={} max={} cpu={} waited={} lag={} percentiles={}",
            self.frames,
            self.active,
            self.latency.value_at_quantile(0.5),
            self.latency.value_at_quantile(0.99),
            self.latency.max(),
            cpu.ran,
            cpu.waited,
            self.lag.value_at_quantile(0.99),
            percentiles.join(","),
        )
    }
}

/// How often the load looks whether it is late.
const TICK: Duration = Duration::from_millis(5);
