//! The log for actors: append, follow from a position, consume as a group.
//!
//! ```text
//!   append ─> Store ─┬─ pages ──> follower ──> Event<M>, Gap       subscribe_from, stream_from
//!                    ├─ feed ───────^  live
//!                    └─ fetch ──> consumer ──> Delivery<M>         consume; the handler's result acks
//! ```
//!
//! Guarantees:
//! * A follower sees exactly the entries of its type after its position, once each, in the log's order, or a [`Gap`](crate::log::Gap) first.
//! * A consumer acks an entry after its handler returned `Ok`, and never before.

pub(crate) mod append;
pub(crate) mod consumer;
pub(crate) mod delivery;
pub(crate) mod error;
pub(crate) mod follow;
pub(crate) mod follower;
pub(crate) mod inspect;
pub(crate) mod intake;
pub(crate) mod member;
pub(crate) mod replay;
