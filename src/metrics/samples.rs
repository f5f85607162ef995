//! Samples: numbers under their names and labels, each series once. Knows no source and no recorder.

use std::collections::BTreeMap;

use metrics::Unit;

use crate::metrics::names::Metric;
use crate::metrics::names::MetricKind;

/// Numbers to be recorded.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    series: BTreeMap<(&'static str, Vec<String>), Sample>,
}

/// The number of one series.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) metric: &'static Metric,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    /// Of a counter.
    Total(u64),
    /// Of a gauge.
    Level(f64),
}

impl Samples {
    /// Adds to a series: of ages the greatest counts, all else is summed up.
    pub(crate) fn count(&mut self, metric: &'static Metric, labels: &[&str], number: u64) {
        let value = match metric.kind {
            MetricKind::Counter => Value::Total(number),
            MetricKind::Gauge => Value::Level(float(number)),
        };
        self.add(metric, labels, value);
    }

    /// The same of an age, in milliseconds.
    pub(crate) fn age_ms(&mut self, metric: &'static Metric, labels: &[&str], ms: u64) {
        debug_assert_eq!(metric.unit, Unit::Seconds);
        self.add(metric, labels, Value::Level(float(ms) / 1_000.0));
    }

    /// The same of a time in microseconds.
    pub(crate) fn time_us(&mut self, metric: &'static Metric, labels: &[&str], us: u64) {
        debug_assert_eq!(metric.unit, Unit::Seconds);
        self.add(metric, labels, Value::Level(float(us) / 1_000_000.0));
    }

    fn add(&mut self, metric: &'static Metric, labels: &[&str], value: Value) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let known = self.series.entry((metric.name, labels));
        known
            .and_modify(|sample| {
                sample.value = match (sample.value, value) {
                    (Value::Total(sum), Value::Total(more)) => Value::Total(sum.saturating_add(more)),
                    (Value::Level(age), Value::Level(other)) if metric.unit == Unit::Seconds => Value::Level(age.max(other)),
                    (Value::Level(sum), Value::Level(more)) => Value::Level(sum + more),
                    // A metric is of one kind.
                    (_, value) => value,
                };
            })
            .or_insert(Sample { metric, value });
    }

    /// Each series, with the values of its labels.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Sample, &[String])> {
        self.series.iter().map(|((_, labels), sample)| (sample, labels.as_slice()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn float(number: u64) -> f64 {
    number as f64
}
