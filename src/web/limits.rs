//! Limits: what one connection may cost, each with its unit and its reason. Knows no connection.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::local::options::SubscribeOptions;

/// Bounds on what one connection may do. The defaults are for pages that chat and watch; change single fields.
///
/// ```
/// use actix_pubsub::web::Limits;
///
/// let mut limits = Limits::default();
/// limits.topics = 16;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Payload bytes of one WebSocket frame. A frame that declares more ends the connection before it is received. 65,536.
    pub frame_bytes: usize,
    /// Payload bytes of one WebSocket message, all its frames together. 65,536.
    pub message_bytes: usize,
    /// Topics on one connection. 128.
    pub topics: usize,
    /// Messages that one WebSocket connection may publish in a second, in the long run. 10.
    pub publish_per_second: u32,
    /// Messages that it may publish at once. 20.
    pub publish_burst: u32,
    /// WebSocket frames of any kind in a second, in the long run: who sends more is cut off. 50.
    pub frames_per_second: u32,
    /// Frames at once. A page that reconnects subscribes to all its topics. 512.
    pub frames_burst: u32,
    /// Requests that may wait for the one before them. As many as `frames_burst`: 512.
    pub requests_waiting: usize,
    /// Events that may wait for a slow connection, per topic and message type, before it misses the oldest. 1,024.
    pub waiting_events: usize,
    /// A connection whose peer takes nothing for this long, while there is something to take, is cut. 10 s. Needs [`Edge::on_connect`](crate::web::Edge::on_connect).
    pub write_timeout: Duration,
    /// Bytes that the system keeps for a connection beyond what is on its way to the peer. 131,072. Needs [`Edge::on_connect`](crate::web::Edge::on_connect).
    pub unsent_bytes: u32,
    /// Between two pings to a WebSocket. 25 s: proxies close what is silent for 30 or 60 s.
    pub ping_interval: Duration,
    /// How soon a ping is to be answered. 8 s.
    pub pong_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 65_536,
            message_bytes: 65_536,
            topics: 128,
            publish_per_second: 10,
            publish_burst: 20,
            frames_per_second: 50,
            frames_burst: 512,
            requests_waiting: 512,
            waiting_events: 1_024,
            write_timeout: Duration::from_secs(10),
            unsent_bytes: 131_072,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
        }
    }
}

impl Limits {
    /// The first limit that lets nothing through, or more than the layers below can.
    pub(crate) fn check(&self) -> Result<(), LimitError> {
        let waiting_max = SubscribeOptions::CAPACITY_MAX as u64;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let of = [
            ("frame_bytes", self.frame_bytes as u64, 125, 1 << 30),
            ("message_bytes", self.message_bytes as u64, 125, 1 << 30),
            ("topics", self.topics as u64, 1, 100_000),
            ("publish_per_second", self.publish_per_second.into(), 1, u64::MAX),
            ("publish_burst", self.publish_burst.into(), 1, u64::MAX),
            ("frames_per_second", self.frames_per_second.into(), 1, u64::MAX),
            ("frames_burst", self.frames_burst.into(), 1, u64::MAX),
            ("requests_waiting", self.requests_waiting as u64, 1, 1 << 20),
            ("waiting_events", self.waiting_events as u64, 1, waiting_max),
            ("write_timeout in ms", millis(self.write_timeout), 100, 86_400_000),
            ("unsent_bytes", self.unsent_bytes.into(), 4_096, 1 << 30),
            ("ping_interval in ms", millis(self.ping_interval), 100, 86_400_000),
            ("pong_timeout in ms", millis(self.pong_timeout), 100, 86_400_000),
        ];
        match of.into_iter().find(|(_, value, min, max)| value < min || value > max) {
            Some((name, value, min, max)) => Err(LimitError { name, value, min, max }),
            None => Ok(()),
        }
    }
}

/// A limit that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitError {
    /// Which field.
    pub name: &'static str,
    /// What it was set to.
    pub value: u64,
    /// The least that is accepted.
    pub min: u64,
    /// The most.
    pub max: u64,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} is {}, it must be {} to {}", self.name, self.value, self.min, self.max)
    }
}

impl std::error::Error for LimitError {}

/// What a WebSocket client is told of the limits in its `welcome`.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Told {
    frame_bytes: usize,
    message_bytes: usize,
    topics: usize,
    publish_per_second: u32,
    publish_burst: u32,
}

impl From<&Limits> for Told {
    fn from(limits: &Limits) -> Self {
        Self {
            frame_bytes: limits.frame_bytes,
            message_bytes: limits.message_bytes,
            topics: limits.topics,
            publish_per_second: limits.publish_per_second,
            publish_burst: limits.publish_burst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_nothing_is_refused_with_its_name_and_value() {
        assert_eq!(Limits::default().check(), Ok(()));
        let check = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits.check().map_err(|error| error.to_string())
        };
        assert_eq!(check(|limits| limits.topics = 1), Ok(()));
        assert_eq!(check(|limits| limits.topics = 0).unwrap_err(), "limit topics is 0, it must be 1 to 100000");
        assert_eq!(
            check(|limits| limits.frame_bytes = 124).unwrap_err(),
            "limit frame_bytes is 124, it must be 125 to 1073741824"
        );
        assert!(check(|limits| limits.waiting_events = 2_000_000).is_err());
        assert!(check(|limits| limits.pong_timeout = Duration::ZERO).is_err());
    }
}
