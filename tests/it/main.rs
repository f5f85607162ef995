//! The tests of the public API: one promise each, named by it. No test sleeps; a test that waits does so for a condition, with a deadline.
#![allow(missing_docs)]

mod backends;
mod churn;
mod cluster;
#[cfg(all(feature = "nats", feature = "redis", feature = "zenoh", target_os = "linux"))]
mod cluster_churn;
#[cfg(all(feature = "nats", feature = "redis", feature = "zenoh", target_os = "linux"))]
mod cluster_faults;
#[cfg(all(feature = "nats", feature = "redis", feature = "zenoh", target_os = "linux"))]
mod cluster_hostile;
#[cfg(all(feature = "nats", feature = "redis", feature = "zenoh", target_os = "linux"))]
#[allow(dead_code, reason = "not every test needs each of them")]
mod cluster_site;
#[cfg(all(feature = "nats", feature = "redis", feature = "zenoh", target_os = "linux"))]
mod cluster_splits;
mod consume;
mod contexts;
mod contract;
mod contracts;
mod death;
#[cfg(all(feature = "nats", feature = "redis", feature = "zenoh"))]
mod ear;
mod embedded;
mod fair;
mod follow;
mod input;
mod insight;
#[cfg(feature = "jetstream")]
mod jetstream;
mod log_regressions;
#[cfg(feature = "prometheus")]
mod metrics;
#[cfg(all(feature = "nats", feature = "redis", feature = "zenoh", target_os = "linux"))]
mod namespaces;
mod order;
mod overflow;
#[cfg(any(feature = "nats", feature = "redis"))]
#[allow(dead_code, unreachable_pub, reason = "not every feature needs each fault")]
mod proxy;
#[cfg(feature = "redis")]
mod redis;
mod regressions;
mod remote;
#[cfg(any(feature = "jetstream", feature = "nats", feature = "redis"))]
#[allow(dead_code, unreachable_pub, reason = "not every feature needs each server")]
mod servers;
mod shutdown;
mod spans;
mod stream_regressions;
mod supervised;
mod support;
mod tidy;
#[cfg(all(feature = "nats", feature = "redis-tls", feature = "zenoh-tls"))]
mod tls;
#[cfg(feature = "opentelemetry")]
mod trace;
#[cfg(any(feature = "nats", feature = "redis"))]
mod transports;
#[cfg(feature = "web")]
mod web_dashboard;
#[cfg(feature = "web")]
mod web_frames;
#[cfg(all(feature = "web", unix))]
mod web_handover;
#[cfg(all(feature = "web", target_os = "linux"))]
mod web_hostile;
#[cfg(feature = "web")]
mod web_sse;
#[cfg(feature = "web")]
#[allow(dead_code, reason = "not every test needs each of them")]
mod web_support;
#[cfg(feature = "web")]
mod web_whatwg;
#[cfg(feature = "web")]
mod web_ws;
#[cfg(feature = "zenoh")]
mod zenoh;
