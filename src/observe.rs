//! Observe: every name that `tracing` sees, spelled once. Knows what happened, not why it matters.
//!
//! All events have the target [`TARGET`]. None is emitted under a lock: a `tracing` subscriber may itself broadcast.

use tracing::debug;
use tracing::error;
use tracing::warn;

use crate::topic::Topic;

/// The `tracing` target of every event of this crate.
pub(crate) const TARGET: &str = "actix_pubsub";

pub(crate) fn subscription_closed(topic: &Topic, reason: &dyn std::fmt::Display, discarded: u64) {
    warn!(target: TARGET, %topic, %reason, discarded, "subscription closed");
}

pub(crate) fn subscriber_swept(arbiter: u32) {
    debug!(target: TARGET, arbiter, "subscriber found dead");
}

pub(crate) fn foreign_panic(arbiter: u32) {
    error!(target: TARGET, arbiter, "a waker, a payload's drop or a mailbox panicked");
}

pub(crate) fn registry_started(arbiter: u32) {
    debug!(target: TARGET, arbiter, "registry started");
}

pub(crate) fn registry_restarted(arbiter: u32, restarts: u64) {
    error!(target: TARGET, arbiter, restarts, "registry panicked and is started again");
}

pub(crate) fn registry_ended(arbiter: u32) {
    debug!(target: TARGET, arbiter, "registry ended");
}

pub(crate) fn port_full(arbiter: u32, capacity: usize) {
    warn!(target: TARGET, arbiter, capacity, "port full, events are refused");
}
