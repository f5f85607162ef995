//! Turn: one server with all its clients, from the first connection to the last burst. Knows no server and no round.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use crate::child::Child;
use crate::common::record::PERCENTILES;
use crate::process;
use crate::server::Server;

/// How much is done in a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    /// Broadcasts on a schedule that leaves every server time.
    pub(crate) paced: u32,
    /// Broadcasts that wait until each client has the one before.
    pub(crate) singles: u32,
    /// Bursts that wait until each client has all of the one before.
    pub(crate) bursts: u32,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Took {
    /// Bytes per connection that was opened and left alone, and after all broadcasts.
    pub(crate) idle: f64,
    pub(crate) after: f64,
    /// Not of a server that does nothing but hold connections.
    pub(crate) paced: Option<Phase>,
    pub(crate) singles: Option<Phase>,
    pub(crate) bursts: Option<Phase>,
}

/// Some broadcasts, from before the first to after the last. Times in ns.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Phase {
    frames: f64,
    /// While a broadcast was on its way.
    active: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) percentiles: [f64; PERCENTILES.len()],
    /// Processor time of the server.
    server: f64,
    server_waited: f64,
    load: f64,
    load_waited: f64,
    lag: f64,
    /// How late a scheduled broadcast was, at most.
    late: f64,
}

pub(crate) struct Pair {
    // In this order: a server whose clients leave has work to do, unless it ends, too.
    load: Child,
    server: Child,
    sent: u32,
}

pub(crate) fn take(server: &Server, plan: Plan) -> Took {
    let process = Child::server(server.name);
    let port = process.answer("port").parse().expect("a port");
    let before = process::resident(&process.id());
    let mut pair = Pair::of(process, Child::load(server.name, port, plan.clients));
    thread::sleep(SETTLE);
    let per_client = |pair: &Pair| process::resident(&pair.server.id()).saturating_sub(before) as f64 / plan.clients as f64;
    let mut took = Took { idle: per_client(&pair), ..Took::default() };
    if !server.idle {
        // The first ones pay for buffers.
        pair.phase(3, 1, Duration::ZERO);
        let gap = PER_CLIENT * plan.clients as u32;
        took.paced = Some(pair.calm_phase(1, plan.paced, gap));
        took.singles = Some(pair.calm_phase(plan.singles, 1, Duration::ZERO));
        took.bursts = Some(pair.calm_phase(plan.bursts, BURST, Duration::ZERO));
    }
    took.after = per_client(&pair);
    took
}

impl Pair {
    pub(crate) fn of(server: Child, load: Child) -> Self {
        load.answer("ready");
        Self { load, server, sent: 0 }
    }

    /// A phase, again if another process was in its way.
    fn calm_phase(&mut self, times: u32, broadcasts: u32, gap: Duration) -> Phase {
        let mut phase = self.phase(times, broadcasts, gap);
        for _ in 1..ATTEMPTS {
            if phase.delay().is_some() {
                phase = self.phase(times, broadcasts, gap);
            }
        }
        phase
    }

    /// So many times so many broadcasts; each time waits until every client has all of the time before.
    pub(crate) fn phase(&mut self, times: u32, broadcasts: u32, gap: Duration) -> Phase {
        self.load.tell("begin");
        self.load.answer("begun");
        let before = process::cpu(&self.server.id());
        let mut late: f64 = 0.0;
        for _ in 0..times {
            self.sent += broadcasts;
            self.load.tell(&format!("await {}", self.sent));
            self.server.tell(&format!("{broadcasts} {}", gap.as_micros()));
            late = late.max(self.server.answer("blasted").parse().expect("a time"));
            self.load.answer("reached");
        }
        let server = process::cpu(&self.server.id()) - before;
        self.load.tell("end");
        let line = self.load.answer("tally");
        let words: HashMap<&str, &str> = line.split(' ').filter_map(|word| word.split_once('=')).collect();
        let said = |name| words[name].parse::<f64>().expect("a number");
        let mut percentiles = [0.0; PERCENTILES.len()];
        for (at, told) in words["percentiles"].split(',').enumerate() {
            percentiles[at] = told.parse().expect("a number");
        }
        Phase {
            frames: said("frames"),
            active: said("active"),
            p50: said("p50"),
            p99: said("p99"),
            percentiles,
            server: server.ran as f64,
            server_waited: server.waited as f64,
            load: said("cpu"),
            load_waited: said("waited"),
            lag: said("lag"),
            late,
        }
    }
}

impl Phase {
    /// Why it says nothing at all: the load was the bottleneck.
    pub(crate) fn flaw(&self) -> Option<String> {
        let busy = self.load_percent();
        (busy > LOAD_BUSY_PERCENT).then(|| format!("the load used {busy:.0} % of its core"))
    }

    /// Why its times say nothing, where its processor times may: another process had one of the cores.
    pub(crate) fn delay(&self) -> Option<String> {
        let waited = self.percent(self.load_waited).max(self.percent(self.server_waited));
        if waited > WAITED_PERCENT {
            return Some(format!("another process had a core, for {waited:.0} % of the time"));
        }
        if self.lag > LOAD_LAG {
            return Some(format!("the load was {:.1} ms late", self.lag / 1e6));
        }
        (self.late > PUBLISHER_LATE).then(|| format!("the publisher was {:.1} ms late", self.late / 1e6))
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.frames / self.active * 1e9
    }

    /// Frames for each second that the server used its core.
    pub(crate) fn per_core(&self) -> f64 {
        self.frames / self.server * 1e9
    }

    /// How busy the load was.
    pub(crate) fn load_percent(&self) -> f64 {
        self.percent(self.load)
    }

    /// What share this time is of that in which broadcasts were on their way.
    fn percent(&self, time: f64) -> f64 {
        100.0 * time / self.active
    }
}

/// Broadcasts of a burst: fewer than the shortest queue of any server holds.
pub(crate) const BURST: u32 = 16;
/// Time for each client between two paced broadcasts: 2 broadcasts a second to 10,000 clients.
pub(crate) const PER_CLIENT: Duration = Duration::from_micros(50);
/// Between the last connection and the look at the memory.
const SETTLE: Duration = Duration::from_millis(500);
/// Of a phase, until it runs undisturbed; then it stays as it is, with its flaw.
const ATTEMPTS: u32 = 2;
const LOAD_BUSY_PERCENT: f64 = 85.0;
/// 5 ms at the 99th percentile.
const LOAD_LAG: f64 = 5e6;
/// 50 ms: a tenth of the pace at 10,000 clients.
const PUBLISHER_LATE: f64 = 50e6;
const WAITED_PERCENT: f64 = 10.0;
