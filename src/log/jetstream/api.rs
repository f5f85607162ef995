//! Api: JetStream's JSON, and what its errors mean to us. Knows no connection.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::log::error::Cause;
use crate::log::error::Outcome;
use crate::log::error::StoreError;

/// What the server refused with. The numbers are those of nats-server's `errors.json`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refused {
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description, self.err_code)
    }
}

impl Error for Refused {}

pub(super) const CONSUMER_NOT_FOUND: u64 = 10_014;
pub(super) const MESSAGE_NOT_FOUND: u64 = 10_037;
pub(super) const STREAM_NOT_FOUND: u64 = 10_059;
pub(super) const STREAM_EXISTS: u64 = 10_058;
pub(super) const WRONG_LAST: u64 = 10_071;
/// JetStream "temporarily unavailable", no leader.
const AWAY: [u64; 2] = [10_008, 10_009];
/// Insufficient resources, memory or storage, of the account or the server; too many streams.
const FULL: [u64; 6] = [10_002, 10_023, 10_027, 10_028, 10_047, 10_003];
/// The stream's store failed: full by its limits, or by the disk, or for another reason that the text alone tells.
const STORE_FAILED: u64 = 10_077;

impl Refused {
    /// The last sequence number, in "wrong last sequence: 5".
    pub(super) fn last_seq(&self) -> Option<u64> {
        self.description.rsplit(' ').next()?.parse().ok()
    }

    pub(super) fn is_not_found(&self) -> bool {
        matches!(self.err_code, CONSUMER_NOT_FOUND | STREAM_NOT_FOUND)
    }
}

impl From<Refused> for StoreError {
    fn from(refused: Refused) -> Self {
        let full = FULL.contains(&refused.err_code)
            || (refused.err_code == STORE_FAILED
                && ["maximum", "space", "resource"].iter().any(|word| refused.description.contains(word)));
        let away = AWAY.contains(&refused.err_code);
        let source: Cause = Arc::new(refused);
        match (full, away) {
            (true, _) => Self::Full { source },
            (_, true) => Self::Unavailable { outcome: Outcome::NotDone, source },
            _ => Self::Engine { source },
        }
    }
}

#[derive(Deserialize)]
struct Failed {
    error: Refused,
}

/// Reads an answer: what was asked for, or the server's refusal.
pub(super) fn answer<T: DeserializeOwned>(payload: &[u8]) -> Result<Result<T, Refused>, StoreError> {
    if let Ok(failed) = serde_json::from_slice::<Failed>(payload) {
        return Ok(Err(failed.error));
    }
    let malformed = |error| StoreError::Engine { source: Arc::new(error) };
    serde_json::from_slice(payload).map(Ok).map_err(malformed)
}

/// What a publish is answered with.
#[derive(Debug, Deserialize)]
pub(super) struct PublishAck {
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) duplicate: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Republish {
    #[serde(default)]
    pub(super) src: String,
    pub(super) dest: String,
    #[serde(default)]
    pub(super) headers_only: bool,
}

#[allow(clippy::struct_excessive_bools)] // The server's own fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StreamConfig {
    pub(super) name: String,
    #[serde(default)]
    pub(super) subjects: Vec<String>,
    #[serde(default)]
    pub(super) retention: String,
    #[serde(default)]
    pub(super) storage: String,
    #[serde(default)]
    pub(super) discard: String,
    #[serde(default)]
    pub(super) max_bytes: i64,
    #[serde(default)]
    pub(super) max_msgs: i64,
    #[serde(default)]
    pub(super) max_msgs_per_subject: i64,
    #[serde(default)]
    pub(super) max_msg_size: i64,
    #[serde(default)]
    pub(super) max_consumers: i64,
    #[serde(default)]
    pub(super) max_age: u64,
    #[serde(default)]
    pub(super) num_replicas: u64,
    #[serde(default)]
    pub(super) duplicate_window: u64,
    #[serde(default)]
    pub(super) allow_direct: bool,
    #[serde(default)]
    pub(super) republish: Option<Republish>,
    #[serde(default)]
    pub(super) no_ack: bool,
    #[serde(default)]
    pub(super) sealed: bool,
    #[serde(default)]
    pub(super) deny_purge: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    #[serde(default)]
    pub(super) consumer_count: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    #[serde(default)]
    pub(super) state: StreamState,
}

#[derive(Debug, Deserialize)]
pub(super) struct Done {
    #[serde(default)]
    pub(super) purged: u64,
}

/// A message as it is stored, whatever its headers.
#[derive(Debug, Deserialize)]
pub(super) struct StoredMessage {
    pub(super) message: StoredParts,
}

#[derive(Debug, Deserialize)]
pub(super) struct StoredParts {
    pub(super) seq: u64,
    /// In base64.
    #[serde(default)]
    pub(super) hdrs: Option<String>,
    /// In base64.
    #[serde(default)]
    pub(super) data: String,
    /// RFC 3339, without zeros at its end.
    #[serde(default)]
    pub(super) time: String,
}

/// A page of streams' names.
#[derive(Debug, Deserialize)]
pub(super) struct StreamNames {
    #[serde(default)]
    pub(super) total: u64,
    #[serde(default)]
    pub(super) streams: Option<Vec<String>>,
}

/// A page of consumers.
#[derive(Debug, Deserialize)]
pub(super) struct ConsumerPage {
    #[serde(default)]
    pub(super) total: u64,
    #[serde(default)]
    pub(super) consumers: Option<Vec<ConsumerInfo>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ConsumerConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) durable_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) deliver_policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) opt_start_seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) opt_start_time: Option<String>,
    #[serde(default)]
    pub(super) ack_policy: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) ack_wait: u64,
    #[serde(default)]
    pub(super) max_deliver: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) max_ack_pending: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) max_waiting: u64,
    #[serde(default)]
    pub(super) replay_policy: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) inactive_threshold: u64,
    #[serde(default)]
    pub(super) num_replicas: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) mem_storage: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // The signature that serde asks for.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Serialize)]
pub(super) struct CreateConsumer<'a> {
    pub(super) stream_name: &'a str,
    pub(super) config: &'a ConsumerConfig,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Sequences {
    #[serde(default)]
    pub(super) consumer_seq: u64,
    pub(super) stream_seq: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ConsumerInfo {
    pub(super) name: String,
    pub(super) config: ConsumerConfig,
    #[serde(default)]
    pub(super) delivered: Sequences,
    #[serde(default)]
    pub(super) ack_floor: Sequences,
    #[serde(default)]
    pub(super) num_ack_pending: u64,
    #[serde(default)]
    pub(super) num_pending: u64,
}

/// A pull.
#[derive(Serialize)]
pub(super) struct Next {
    pub(super) batch: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) no_wait: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) expires: u64,
}

pub(super) fn nanos(duration: Duration) -> u64 {
    // What the server keeps in an i64.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_errors_become_ours() {
        let of = |err_code, description: &str| StoreError::from(Refused { err_code, description: description.to_owned() });
        assert!(matches!(of(10_077, "maximum bytes exceeded"), StoreError::Full { .. }));
        assert!(matches!(of(10_077, "write x: no space left on device"), StoreError::Full { .. }));
        assert!(matches!(of(10_077, "error reading"), StoreError::Engine { .. }));
        assert!(matches!(of(10_047, "insufficient storage resources available"), StoreError::Full { .. }));
        assert!(matches!(of(10_008, "away"), StoreError::Unavailable { outcome: Outcome::NotDone, .. }));
        assert!(matches!(of(10_065, "subjects overlap"), StoreError::Engine { .. }));
        let wrong = Refused { err_code: WRONG_LAST, description: "wrong last sequence: 5".to_owned() };
        assert_eq!(wrong.last_seq(), Some(5));
    }

    #[test]
    fn an_answer_is_what_was_asked_for_or_a_refusal_or_an_error() {
        let acked = answer::<PublishAck>(br#"{"stream":"s", "seq":2,"duplicate": true}"#).unwrap().unwrap();
        assert_eq!((acked.seq, acked.duplicate), (2, true));
        let refused = answer::<PublishAck>(br#"{"error":{"code":404,"err_code":10059,"description":"no"},"seq":0}"#).unwrap();
        assert!(refused.unwrap_err().is_not_found());
        for bad in [&b""[..], b"{", b"[]", b"{\"x\":1}", b"\xFF"] {
            assert!(matches!(answer::<PublishAck>(bad), Err(StoreError::Engine { .. })));
        }
    }
}
