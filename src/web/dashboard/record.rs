//! Record: what an overview was, second by second: rates out of counters, and their last two minutes. Pure: time is an argument.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::cluster::NodeInfo;
use crate::local::incident::Incident;
use crate::local::stats::SubscriptionStats;
use crate::pubsub::stats::Stats;

/// What the page shows first.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) version: &'static str,
    /// What people call this node.
    pub(crate) name: Option<Arc<str>>,
    /// Since the one before; `None` for the first.
    pub(crate) rates: Option<Rates>,
    pub(crate) stats: Stats,
    pub(crate) slow: Vec<SubscriptionStats>,
    pub(crate) nodes: Vec<NodeInfo>,
    pub(crate) incidents: Vec<Incident>,
}

/// How much happened per second, to a tenth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Rates {
    pub(crate) at_ms: u64,
    /// Events that arbiters accepted: one per broadcast, topic and arbiter with subscribers.
    accepted: f64,
    delivered: f64,
    missed: f64,
}

/// The counters that rates are made of.
#[derive(Debug, Clone, Copy)]
struct Counted {
    at: Instant,
    accepted: u64,
    delivered: u64,
    missed: u64,
}

/// The last overview and the rates before it.
#[derive(Debug, Default)]
pub(crate) struct Record {
    counted: Option<Counted>,
    last: Option<Arc<Overview>>,
    rates: VecDeque<Rates>,
}

impl Record {
    pub(crate) fn add(&mut self, now: Instant, mut overview: Overview) -> Arc<Overview> {
        let stats = &overview.stats;
        let accepted = stats.arbiters.iter().map(|arbiter| arbiter.events).sum();
        let counted = Counted { at: now, accepted, delivered: stats.delivered, missed: stats.missed };
        overview.rates = self.counted.and_then(|before| before.rates(&counted, overview.at_ms));
        self.counted = Some(counted);
        self.rates.extend(overview.rates);
        let from = overview.at_ms.saturating_sub(HISTORY_MS);
        while self.rates.len() > HISTORY_POINTS || self.rates.front().is_some_and(|first| first.at_ms < from) {
            self.rates.pop_front();
        }
        let overview = Arc::new(overview);
        self.last = Some(Arc::clone(&overview));
        overview
    }

    /// The last one, if it is not older than this.
    pub(crate) fn last(&self, now: Instant, max: Duration) -> Option<Arc<Overview>> {
        let at = self.counted?.at;
        self.last.clone().filter(|_| now.saturating_duration_since(at) < max)
    }

    /// The oldest first.
    pub(crate) fn history(&self) -> Vec<Rates> {
        self.rates.iter().copied().collect()
    }
}

impl Counted {
    /// `None`: it is too long ago, and nobody knows when in between it happened; or no time has passed.
    fn rates(&self, now: &Self, at_ms: u64) -> Option<Rates> {
        let passed = now.at.saturating_duration_since(self.at);
        if passed.is_zero() || passed > PAUSE_MAX {
            return None;
        }
        // An arbiter that stopped takes its numbers with it.
        let rate = |now: u64, before: u64| {
            let tenths = (u128::from(now.saturating_sub(before)) * 10_000_000_000 + passed.as_nanos() / 2) / passed.as_nanos();
            f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
        };
        Some(Rates {
            at_ms,
            accepted: rate(now.accepted, self.accepted),
            delivered: rate(now.delivered, self.delivered),
            missed: rate(now.missed, self.missed),
        })
    }
}

/// Two minutes, once a second; as many again for who asks in between.
const HISTORY_POINTS: usize = 240;
const HISTORY_MS: u64 = 121_000;
/// Between two looks that belong together.
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::PubSub;

    fn overview(at_ms: u64, delivered: u64) -> Overview {
        let mut stats = PubSub::new().summary();
        stats.delivered = delivered;
        let (slow, nodes, incidents) = (Vec::new(), Vec::new(), Vec::new());
        Overview { at_ms, version: "0", name: None, rates: None, stats, slow, nodes, incidents }
    }

    #[test]
    fn rates_are_per_second_whatever_the_interval_and_not_told_over_a_pause() {
        let (mut record, begin) = (Record::default(), Instant::now());
        let mut add = |ms: u64, delivered| {
            let overview = record.add(begin + Duration::from_millis(ms), overview(ms, delivered));
            overview.rates.map(|rates| rates.delivered)
        };
        assert_eq!(add(0, 1_000), None);
        assert_eq!(add(500, 1_100), Some(200.0));
        assert_eq!(add(2_500, 1_103), Some(1.5));
        assert_eq!(add(3_500, 900), Some(0.0), "a counter that went with its arbiter");
        assert_eq!(add(13_600, 2_000), None);
        assert_eq!(add(14_600, 2_001), Some(1.0));
        assert_eq!(record.history().len(), 4);
        assert!(record.last(begin + Duration::from_millis(14_700), Duration::from_millis(500)).is_some());
        assert!(record.last(begin + Duration::from_millis(15_100), Duration::from_millis(500)).is_none());
    }

    #[test]
    fn the_history_is_two_minutes_and_bounded() {
        let (mut record, begin) = (Record::default(), Instant::now());
        for second in 0..=300 {
            record.add(begin + Duration::from_secs(second), overview(second * 1_000, second));
        }
        let history = record.history();
        assert_eq!((history.len(), history[0].at_ms, history[121].at_ms), (122, 179_000, 300_000));
        for tenth in 1..=1_000 {
            record.add(begin + Duration::from_millis(300_000 + tenth * 100), overview(300_000 + tenth * 100, 0));
        }
        assert_eq!(record.history().len(), HISTORY_POINTS);
    }
}
