//! Said: the message that every server broadcasts, 100 bytes of JSON, and how a client finds it again in what it reads. Knows no protocol.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use actix_pubsub::Payload;
use serde::Deserialize;
use serde::Serialize;

/// Two strings and a number. The order of the fields is that in the JSON; `Mark::find` relies on it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Said {
    /// When it was broadcast, ns since 1970: 19 digits until 2286.
    at: u64,
    from: String,
    /// Begins with the number of the broadcast.
    text: String,
}

impl Payload for Said {
    const NAME: &'static str = "said";
}

impl Said {
    /// The broadcast of this number, now.
    pub(crate) fn new(number: u64) -> Self {
        Self { at: now(), from: "Ada Lovelace".to_owned(), text: format!("#{number:010} is what I said, and I stand by") }
    }
}

/// What is found of a broadcast in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) number: u64,
    pub(crate) at: u64,
}

impl Mark {
    /// In a frame or event of whatever envelope; `None` if it holds no broadcast.
    pub(crate) fn find(frame: &[u8]) -> Option<Self> {
        let hash = frame.iter().position(|byte| *byte == b'#')?;
        let at = frame.get(hash.checked_sub(AT_BEFORE)?..)?.get(..AT_DIGITS)?;
        Some(Self { number: digits(frame.get(hash + 1..hash + 11)?)?, at: digits(at)? })
    }
}

/// ns since 1970: what two processes of one machine agree on.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as u64
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |number: u64, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

/// How far before the `#` the digits of `at` begin.
const AT_BEFORE: usize = 50;
const AT_DIGITS: usize = 19;
