//! Metrics: what a pub/sub tells of itself, through the [`metrics`](https://docs.rs/metrics) facade (feature `metrics`) or as text for Prometheus (feature `prometheus`).
//!
#![doc = include_str!("../docs/metrics.md")]

pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod samples;

pub use self::names::METRICS;
pub use self::names::Metric;
pub use self::names::MetricKind;
pub use self::options::MetricsOptions;
pub use self::record::describe;
