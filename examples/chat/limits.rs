//! Limits: what one connection may cost here, where that is less than the crate allows. Knows numbers.

use std::num::NonZeroU32;

use actix_pubsub::web::Limits;

/// What one connection, or one address over HTTP, may say in a second, in the long run.
pub(crate) const PUBLISH_PER_SECOND: NonZeroU32 = NonZeroU32::new(5).unwrap();
/// What it may say at once.
pub(crate) const PUBLISH_BURST: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// What a text of 2,000 bytes is as JSON at worst, and its envelope.
pub(crate) const MESSAGE_BYTES: usize = 16_384;

pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.publish_per_second, limits.publish_burst) = (PUBLISH_PER_SECOND.get(), PUBLISH_BURST.get());
    (limits.frame_bytes, limits.message_bytes) = (MESSAGE_BYTES, MESSAGE_BYTES);
    limits.topics = 16;
    limits
}
