//! Local: topics and subscribers of one process. Knows nothing of other nodes, logs or the web.
//!
//! ```text
//!  broadcast ──► interest ──► port ──► registry ──► ring ──► pump ──► Handler<Event<M>>
//!               which arbiters  bounded   the actor    one per   in the actor's
//!               listen?         queue                  topic     own context
//! ```
//! One [`shard`] per arbiter holds a [`port`] and a [`table`]; the [`registry`] actor gives it its turns. A subscriber has one seat in
//! one shard, with all its subscriptions. Actors poll their seat by a [`pump`] in their context, actors elsewhere are served
//! by a [`courier`], code that is no actor by a [`stream`].
//!
//! # Guarantees
//! * One publisher's events reach one subscriber in the publisher's order, across topics and message types; all subscribers on one arbiter see one order.
//! * A broadcast begun after `subscribe` returned arrives, one that returned before `subscribe` began does not.
//! * At most once per subscriber, topic and message type.
//! * Nothing is lost silently: `Event::missed` counts exactly.
//! * A broadcast costs the number of interested arbiters, whatever the number of subscribers, and never waits.
//! * A subscription ends with its subscriber, at once, at a cost that does not depend on the others.

pub(crate) mod ahead;
pub(crate) mod background;
pub(crate) mod budget;
pub(crate) mod clock;
pub(crate) mod context;
pub(crate) mod courier;
pub(crate) mod error;
pub(crate) mod hash;
pub(crate) mod incident;
#[cfg(feature = "web")]
pub(crate) mod inbox;
pub(crate) mod interest;
pub(crate) mod member;
pub(crate) mod meter;
#[cfg(test)]
mod model;
pub(crate) mod options;
pub(crate) mod port;
pub(crate) mod pump;
pub(crate) mod rate;
pub(crate) mod registry;
pub(crate) mod remote;
pub(crate) mod ring;
pub(crate) mod route;
pub(crate) mod shard;
pub(crate) mod slab;
pub(crate) mod stats;
pub(crate) mod stream;
pub(crate) mod subscription;
pub(crate) mod table;
