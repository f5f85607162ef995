//! Observe: every name that `tracing` sees, spelled once. Knows what happened, not why it matters.
//!
//! All events have the target [`TARGET`]. None is emitted under a lock: a `tracing` subscriber may itself broadcast.

use std::cell::Cell;

use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::ids::EntryId;
use crate::ids::NodeId;
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

pub(crate) fn feed_panicked() {
    error!(target: TARGET, "the log's store panicked in the feed, the log is closed");
}

pub(crate) fn log_unavailable(doing: &'static str, topic: &Topic, error: &dyn std::error::Error) {
    warn!(target: TARGET, doing, %topic, error = %chain(error), "log is unavailable, it is tried again");
}

#[cfg(feature = "web")]
pub(crate) fn request_failed(error: &dyn std::error::Error) {
    error!(target: TARGET, error = %chain(error), "request failed");
}

#[cfg(feature = "web")]
pub(crate) fn request_unavailable(error: &dyn std::error::Error) {
    warn!(target: TARGET, error = %chain(error), "request failed, the log is unavailable");
}

#[cfg(feature = "web")]
pub(crate) fn write_timeout_unset(error: &dyn std::fmt::Display) {
    warn!(target: TARGET, %error, "a connection has no write time-out");
}

#[cfg(feature = "web")]
pub(crate) fn web_closed(session: &str, code: u16, reason: &str) {
    debug!(target: TARGET, session, code, reason, "web session closed by the server");
}

#[cfg(feature = "web")]
pub(crate) fn drain_begun(sessions: usize) {
    info!(target: TARGET, sessions, "web sessions are drained");
}

pub(crate) fn entry_undecodable(topic: &Topic, id: EntryId, name: &str, error: &str) {
    warn!(target: TARGET, %topic, %id, name, error, "entry is no message of its name");
}

pub(crate) fn entry_unknown(topic: &Topic, id: EntryId, name: &str) {
    warn!(target: TARGET, %topic, %id, name, "entry has a name that no message type here has");
}

pub(crate) fn history_gap(topic: &Topic, asked_after: EntryId, cause: &dyn std::fmt::Display) {
    debug!(target: TARGET, %topic, %asked_after, %cause, "history is incomplete");
}

pub(crate) fn delivery_failed(topic: &Topic, group: &str, id: EntryId, attempt: u32, reason: &str) {
    debug!(target: TARGET, %topic, group, %id, attempt, reason, "delivery failed, it is tried again");
}

pub(crate) fn delivery_dead(topic: &Topic, group: &str, id: EntryId, attempt: u32, reason: &str) {
    warn!(target: TARGET, %topic, group, %id, attempt, reason, "delivery is given up, the entry is a dead letter");
}

pub(crate) fn dead_letter_loop(topic: &Topic, group: &str, id: EntryId, to: &Topic) {
    warn!(target: TARGET, %topic, group, %id, %to, "dead letter would come back to where it comes from, it rests");
}

pub(crate) fn delivery_foreign(topic: &Topic, group: &str, id: EntryId, name: &str) {
    debug!(target: TARGET, %topic, group, %id, name, "entry is of another type than the group's, it is acked");
}

pub(crate) fn delivery_trimmed(topic: &Topic, group: &str, id: EntryId) {
    warn!(target: TARGET, %topic, group, %id, "entry was trimmed while it was pending");
}

#[cfg(feature = "embedded")]
pub(crate) fn pending_unreadable(topic: &Topic, group: &str, id: EntryId, entries: usize, error: &dyn std::error::Error) {
    warn!(target: TARGET, %topic, group, %id, entries, error = %chain(error), "pending entries cannot be read, they are tried again later");
}

pub(crate) fn link_up(engine: &'static str, node: &str) {
    info!(target: TARGET, engine, node, "cluster link is up");
}

pub(crate) fn link_down(engine: &'static str, node: &str, error: &dyn std::error::Error) {
    warn!(target: TARGET, engine, node, error = %chain(error), "cluster link is down, it is tried again");
}

pub(crate) fn node_refused(other: NodeId, name: &str) {
    error!(target: TARGET, %other, name, "a node of this cluster has the other setting of peer_interest: the two do not meet");
}

pub(crate) fn transport_panicked(engine: &'static str) {
    error!(target: TARGET, engine, "the transport panicked, its link is given up");
}

pub(crate) fn inbound_full(engine: &'static str, capacity: usize) {
    warn!(target: TARGET, engine, capacity, "too much comes in from the cluster, frames are dropped");
}

pub(crate) fn frame_refused(engine: &'static str, error: &dyn std::fmt::Display) {
    warn!(target: TARGET, engine, %error, "frame is dropped");
}

pub(crate) fn message_unknown(topic: &Topic, name: &str) {
    warn!(target: TARGET, %topic, name, "message of another node has a name that no type here has; Builder::message gives it one");
}

pub(crate) fn message_undecodable(topic: &Topic, name: &str, error: &dyn std::error::Error) {
    warn!(target: TARGET, %topic, name, error = %chain(error), "message of another node cannot be read");
}

pub(crate) fn cluster_event(event: &dyn std::fmt::Debug) {
    debug!(target: TARGET, ?event, "cluster event");
}

/// Around what another node broadcast within a trace, from its arrival here until the last subscriber here has taken it or lost it.
pub(crate) fn receive_span(topic: &Topic, origin: NodeId) -> tracing::Span {
    recording(|| tracing::info_span!(target: TARGET, "pubsub.receive", %topic, %origin))
}

/// Around a broadcast, until the last subscriber has taken its event or lost it.
pub(crate) fn broadcast_span(topic: &Topic) -> tracing::Span {
    recording(|| tracing::debug_span!(target: TARGET, "pubsub.broadcast", %topic))
}

/// Around what one arbiter does with an event, from its port until the last subscriber there has taken it or lost it.
pub(crate) fn deliver_span(parent: &tracing::Span, topic: &Topic, arbiter: u32, subscribers: usize) -> tracing::Span {
    recording(|| tracing::debug_span!(target: TARGET, parent: parent, "pubsub.deliver", %topic, arbiter, subscribers))
}

/// Whether anyone records such spans: one comparison where nobody does.
#[inline]
pub(crate) fn broadcast_spans_enabled() -> bool {
    tracing::span_enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// Around the call of a handler; what the future does that it returns is not within.
pub(crate) fn handle_span(parent: &tracing::Span, topic: &Topic, actor: &'static str, missed: u64) -> tracing::Span {
    recording(|| tracing::debug_span!(target: TARGET, parent: parent, "pubsub.handle", %topic, actor, missed))
}

/// Makes a span. Who records it may broadcast that it does; that has no span, or it would go on without an end.
fn recording(make: impl FnOnce() -> tracing::Span) -> tracing::Span {
    struct Done(bool);
    impl Drop for Done {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _done = Done(RECORDING.replace(true));
    make()
}

/// Whether this thread is just telling of one of our spans.
pub(crate) fn is_recording() -> bool {
    RECORDING.get()
}

thread_local!(static RECORDING: Cell<bool> = const { Cell::new(false) });

/// An error with everything that it came from.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        // Some errors repeat their source's text in their own.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = source.source();
    }
    text
}
