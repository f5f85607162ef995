//! Note: the message of every part: 100 bytes as JSON, with the number of its entry.

use actix_pubsub::Payload;
use serde::Deserialize;
use serde::Serialize;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) number: u64,
    pub(crate) body: String,
}

impl Payload for Note {
    const NAME: &'static str = "bench.note";
}

impl Note {
    pub(crate) fn new(number: u64) -> Self {
        let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
        Self { number, body: BODY[..BYTES - FRAME - digits].to_owned() }
    }

    pub(crate) fn json(number: u64) -> Vec<u8> {
        let json = serde_json::to_vec(&Self::new(number)).expect("it has a JSON form");
        debug_assert_eq!(json.len(), BYTES);
        json
    }
}

/// As much text as there is room for, beside a number of one digit.
const BODY: &str = "A note about nothing in particular, as long as it takes to make it a hundred bytes.";
/// Bytes of one as JSON.
pub(crate) const BYTES: usize = 100;
/// Bytes of that around number and body.
const FRAME: usize = r#"{"number":,"body":""}"#.len();
