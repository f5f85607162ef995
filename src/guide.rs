//! Guides: how to begin, how to come from elsewhere, how to extend and how to operate this crate. Texts whose code is tested; holds no code of its own.
//!
//! | | |
//! |---|---|
//! | `tutorial` | from `cargo new` to a chat on two nodes with its history |
//! | [`phoenix`], [`redis_streams`], [`actix_broker`] | coming from Phoenix.PubSub, Redis Streams, actix-broker: calls and differences |
//! | `transport`, `store` | writing an engine of your own for a cluster, or for the log |
//! | `operations` | sizing, limits, alerts, upgrades, backups, the end |

#[cfg(all(feature = "embedded", feature = "redis", feature = "web"))]
#[doc = include_str!("docs/guide/tutorial.md")]
pub mod tutorial {}

#[doc = include_str!("docs/guide/phoenix.md")]
pub mod phoenix {}

#[doc = include_str!("docs/guide/redis_streams.md")]
pub mod redis_streams {}

#[doc = include_str!("docs/guide/actix_broker.md")]
pub mod actix_broker {}

#[cfg(feature = "testing")]
#[doc = include_str!("docs/guide/transport.md")]
pub mod transport {}

#[cfg(feature = "testing")]
#[doc = include_str!("docs/guide/store.md")]
pub mod store {}

#[cfg(feature = "embedded")]
#[doc = include_str!("docs/guide/operations.md")]
pub mod operations {}
