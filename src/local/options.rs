//! Options of one subscription, and what its subscriber is told when it ends. Plain values; knows no table.

use std::fmt;
use std::sync::Arc;

use actix::Message;
use actix::Recipient;
use actix::WeakRecipient;

use crate::topic::Topic;

/// What happens when more events wait for a subscriber than its capacity.
///
/// The events in between are counted in [`Event::missed`](crate::Event::missed) of the next one, never lost silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The newest `capacity` events stay, the older ones are missed. For subscribers that want as much as they can get.
    #[default]
    DropOldest,
    /// Only the newest event stays, all older ones are missed. For subscribers that show a state: a price, a position.
    Latest,
    /// The subscription ends, at the event that found no room. For subscribers to whom a gap is worse than the end:
    /// they load their state again and subscribe anew. See [`SubscribeOptions::on_close`].
    Disconnect,
}

/// How one subscription behaves. The default is what most want: 1,024 events, [`Overflow::DropOldest`].
///
/// ```
/// use actix_pubsub::{Overflow, SubscribeOptions};
///
/// let ticker = SubscribeOptions::new().capacity(1).overflow(Overflow::Latest).metadata("session 7");
/// # let _ = ticker;
/// ```
#[derive(Clone)]
pub struct SubscribeOptions {
    pub(crate) capacity: usize,
    pub(crate) overflow: Overflow,
    pub(crate) keep_alive: bool,
    pub(crate) metadata: Option<Arc<str>>,
    pub(crate) on_close: Option<WeakRecipient<SubscriptionClosed>>,
}

impl SubscribeOptions {
    /// Events that may wait for one subscription, unless told otherwise.
    pub const CAPACITY_DEFAULT: usize = 1_024;
    /// The largest capacity that is accepted: a ring of that many events takes about 50 MB per topic and arbiter.
    pub const CAPACITY_MAX: usize = 1_048_576;

    /// The defaults.
    pub fn new() -> Self {
        Self { capacity: Self::CAPACITY_DEFAULT, overflow: Overflow::default(), keep_alive: true, metadata: None, on_close: None }
    }

    /// How many events may wait before `overflow` decides: 1 to [`CAPACITY_MAX`](Self::CAPACITY_MAX), checked by `subscribe`.
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// What happens at one event more than `capacity`.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// `false`: this subscription does not keep its actor alive. When the last `Addr` is gone the actor ends as it would
    /// without it; the subscription ends then in any case, even where an interval or another future keeps the actor running. By default a subscription holds its actor, as any stream in a context does.
    pub fn keep_alive(mut self, keep: bool) -> Self {
        self.keep_alive = keep;
        self
    }

    /// A text that `stats` shows beside the subscription: a user, a session, a peer address.
    pub fn metadata(mut self, metadata: impl Into<Arc<str>>) -> Self {
        self.metadata = Some(metadata.into());
        self
    }

    /// Who is told when the subscription ends without having asked for it: by [`Overflow::Disconnect`] or by a shutdown.
    ///
    /// Held weakly, so an actor may name itself: `.on_close(ctx.address().recipient())`.
    // Taken by value as every builder argument here, so that a freshly made recipient needs no borrow.
    #[allow(clippy::needless_pass_by_value)]
    pub fn on_close(mut self, recipient: Recipient<SubscriptionClosed>) -> Self {
        self.on_close = Some(recipient.downgrade());
        self
    }
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SubscribeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscribeOptions")
            .field("capacity", &self.capacity)
            .field("overflow", &self.overflow)
            .field("keep_alive", &self.keep_alive)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// Why a subscription ended without `unsubscribe` and without its subscriber's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloseReason {
    /// [`Overflow::Disconnect`]: one event more than this capacity waited.
    Overflow {
        /// The capacity of the subscription, in events.
        capacity: usize,
    },
    /// The `PubSub` was shut down, its last handle was dropped, or the arbiter that served the subscription stopped.
    Shutdown,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overflow { capacity } => write!(f, "more than {capacity} events waited"),
            Self::Shutdown => f.write_str("the pub/sub was shut down"),
        }
    }
}

/// Sent to [`SubscribeOptions::on_close`] when a subscription ended by itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SubscriptionClosed {
    /// The topic that was subscribed to.
    pub topic: Topic,
    /// Why it ended.
    pub reason: CloseReason,
    /// Events that waited and are not delivered any more.
    pub discarded: u64,
}

impl Message for SubscriptionClosed {
    type Result = ();
}
