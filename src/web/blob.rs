//! Blob: a message that is bytes. Knows nothing of what they mean.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;

use crate::event::Payload;

/// Bytes as a message: goes over a WebSocket as a binary message, and as base64 text (RFC 4648, section 4) wherever JSON is needed, in the log and over SSE.
///
/// ```
/// use actix_pubsub::web::Blob;
///
/// let picture = Blob::from(vec![0xff, 0xd8]);
/// assert_eq!(picture.len(), 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blob(Bytes);

impl Payload for Blob {
    const NAME: &'static str = "blob";
}

impl Blob {
    /// The bytes themselves; shares them.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl std::ops::Deref for Blob {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl<B: Into<Bytes>> From<B> for Blob {
    fn from(bytes: B) -> Self {
        Self(bytes.into())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(&*text).map(Self::from).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_json() {
        let blob = Blob::from(vec![0, 1, 0xff]);
        let json = serde_json::to_string(&blob).unwrap();
        assert_eq!(json, r#""AAH/""#);
        assert_eq!(serde_json::from_str::<Blob>(&json).unwrap(), blob);
        assert!(serde_json::from_str::<Blob>(r#""?""#).is_err());
    }
}
