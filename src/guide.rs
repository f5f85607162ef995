//! Guides: how to begin, how to come from elsewhere, how to extend and how to operate this crate. Texts whose code is tested; holds no code of its own.

#[cfg(all(feature = "embedded", feature = "redis", feature = "web"))]
#[doc = include_str!("docs/guide/tutorial.md")]
pub mod tutorial {}

#[cfg(feature = "testing")]
#[doc = include_str!("docs/guide/transport.md")]
pub mod transport {}

#[cfg(feature = "testing")]
#[doc = include_str!("docs/guide/store.md")]
pub mod store {}
