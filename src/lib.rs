#![doc = include_str!("../README.md")]
// docs.rs builds with a nightly compiler, which then says which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

// In layer order: each module uses those above it only.
mod sync;
mod topic;
mod ids;
mod encodings;
mod codec;
mod event;
mod observe;
mod local;
pub mod log;
mod feed;
pub mod cluster;
mod pubsub;
mod supervised;
mod stream;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "web")]
pub mod web;
#[cfg(feature = "testing")]
pub mod testing;
pub mod guide;

pub use crate::event::Event;
pub use crate::event::JsonError;
pub use crate::event::Payload;
pub use crate::feed::retention::Retention;
pub use crate::feed::stats::GroupStats;
pub use crate::feed::stats::LogStats;
pub use crate::ids::EntryId;
pub use crate::ids::EntryIdError;
pub use crate::ids::NodeId;
pub use crate::ids::SubscriberId;
pub use crate::local::context::SubscriberContext;
pub use crate::local::error::BroadcastError;
pub use crate::local::error::SubscribeError;
pub use crate::local::incident::Incident;
pub use crate::local::incident::IncidentKind;
pub use crate::local::options::CloseReason;
pub use crate::local::options::Overflow;
pub use crate::local::options::SubscribeOptions;
pub use crate::local::options::SubscriptionClosed;
pub use crate::local::stats::ArbiterStats;
pub use crate::local::stats::SubscriptionStats;
pub use crate::local::stats::TopicStats;
pub use crate::local::stream::EventStream;
pub use crate::local::subscription::Subscription;
pub use crate::pubsub::ClusterSubscribers;
pub use crate::pubsub::PubSub;
pub use crate::pubsub::Shutdown;
pub use crate::pubsub::broadcast::Receipt;
pub use crate::pubsub::builder::BuildError;
pub use crate::pubsub::builder::Builder;
pub use crate::pubsub::stats::Stats;
pub use crate::stream::append::AppendOptions;
pub use crate::stream::consumer::ConsumeOptions;
pub use crate::stream::consumer::Consumer;
pub use crate::stream::delivery::Delivery;
pub use crate::stream::delivery::Failure;
pub use crate::stream::error::AppendError;
pub use crate::stream::error::ConsumeError;
pub use crate::stream::error::FollowError;
pub use crate::stream::follow::LogSubscription;
pub use crate::stream::follower::Followed;
pub use crate::stream::follower::LogStream;
pub use crate::stream::inspect::LogGroupStats;
pub use crate::stream::inspect::LogTopicStats;
pub use crate::supervised::Subscriptions;
pub use crate::topic::ToTopic;
pub use crate::topic::Topic;
pub use crate::topic::TopicError;
