//! Codec: how a message becomes the payload of a frame. Knows no frames.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How messages are written for other nodes.
///
/// A node reads what any of the built-in ones wrote, whichever it writes itself, so a cluster can change from one to the other node by node.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Codec {
    /// [MessagePack](https://msgpack.org) with the names of fields: added, left out and reordered fields are no trouble between two versions, if those that
    /// are added have a `#[serde(default)]`.
    #[default]
    MessagePack,
    /// JSON.
    Json,
    /// One of your own. Every node needs it.
    Custom(Arc<dyn CustomCodec>),
}

/// A codec of your own.
pub trait CustomCodec: Send + Sync + 'static {
    /// What it is called in frames: 1 to 64 bytes, not `msgpack` and not `json`.
    fn name(&self) -> &str;

    /// Adds `message` to the end of `into`.
    ///
    /// # Errors
    /// Why it cannot be written; `into` may hold anything then.
    fn encode(&self, message: &dyn erased_serde::Serialize, into: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads what `encode` wrote: makes a deserializer and calls `read` with it, once.
    ///
    /// # Errors
    /// Why these bytes are none of it, that of `read` included.
    fn decode(
        &self,
        bytes: &[u8],
        read: &mut dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error>,
    ) -> Result<(), CodecError>;
}

/// Why a message could not be written or read.
#[derive(Debug, Clone)]
pub struct CodecError {
    text: Box<str>,
}

impl CodecError {
    /// An error with this text.
    pub fn new(text: impl fmt::Display) -> Self {
        Self { text: text.to_string().into() }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CodecError {}

const MESSAGE_PACK: &str = "msgpack";
const JSON: &str = "json";
/// The longest name of a codec, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;

impl Codec {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::MessagePack => MESSAGE_PACK,
            Self::Json => JSON,
            Self::Custom(custom) => custom.name(),
        }
    }

    /// A custom one that has the name of a built-in one.
    pub(crate) fn hides_another(&self) -> bool {
        matches!(self, Self::Custom(custom) if matches!(custom.name(), MESSAGE_PACK | JSON))
    }

    /// Adds a message to the end of `into`. `Serialize` and a custom codec are the user's code: where they panic, so does the caller, who is the user, too.
    pub(crate) fn encode<M: Serialize>(&self, message: &M, into: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Self::MessagePack => rmp_serde::encode::write_named(into, message).map_err(CodecError::new),
            Self::Json => serde_json::to_writer(into, message).map_err(CodecError::new),
            Self::Custom(custom) => custom.encode(message, into),
        }
    }

    /// Reads a message that a codec of this name wrote. A panic of the user's code is an error like any other: the bytes are a stranger's.
    pub(crate) fn decode<M: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<M, CodecError> {
        let decoded = catch_unwind(AssertUnwindSafe(|| match (name, self) {
            (MESSAGE_PACK, _) => rmp_serde::from_slice(bytes).map_err(CodecError::new),
            (JSON, _) => serde_json::from_slice(bytes).map_err(CodecError::new),
            (_, Self::Custom(custom)) if custom.name() == name => {
                let mut message = None;
                custom.decode(bytes, &mut |deserializer| {
                    message = Some(erased_serde::deserialize(deserializer)?);
                    Ok(())
                })?;
                message.ok_or_else(|| CodecError::new("the codec read nothing"))
            }
            _ => Err(CodecError::new(format_args!("codec {name:?} is not known here"))),
        }));
        decoded.unwrap_or_else(|_| Err(CodecError::new("decoding panicked")))
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        user: String,
        body: String,
    }

    /// A later version of it: a field more, another order.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        body: String,
        #[serde(default)]
        color: Option<u32>,
        user: String,
    }

    fn encode<M: Serialize>(codec: &Codec, message: &M) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec.encode(message, &mut bytes).unwrap();
        bytes
    }

    struct Upper;

    impl CustomCodec for Upper {
        fn name(&self) -> &'static str {
            "upper"
        }

        fn encode(&self, message: &dyn erased_serde::Serialize, into: &mut Vec<u8>) -> Result<(), CodecError> {
            into.extend(serde_json::to_string(message).map_err(CodecError::new)?.to_uppercase().bytes());
            Ok(())
        }

        fn decode(
            &self,
            bytes: &[u8],
            read: &mut dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error>,
        ) -> Result<(), CodecError> {
            let lower = bytes.to_ascii_lowercase();
            let mut json = serde_json::Deserializer::from_slice(&lower);
            read(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut json)).map_err(CodecError::new)
        }
    }

    #[test]
    fn two_versions_of_a_message_understand_each_other() {
        let old = Old { user: "ann".into(), body: "hi".into() };
        let new = New { user: "ann".into(), body: "hi".into(), color: None };
        for codec in [Codec::MessagePack, Codec::Json] {
            let (from_old, from_new) = (encode(&codec, &old), encode(&codec, &new));
            assert_eq!(Codec::default().decode::<New>(codec.name(), &from_old).unwrap(), new);
            assert_eq!(Codec::default().decode::<Old>(codec.name(), &from_new).unwrap(), old);
        }
    }

    #[test]
    fn a_message_is_written_as_it_was_on_the_first_day() {
        let bytes = encode(&Codec::MessagePack, &Old { user: "ann".into(), body: "hi".into() });
        assert_eq!(bytes, b"\x82\xa4user\xa3ann\xa4body\xa2hi");
    }

    #[test]
    fn a_codec_of_ones_own_reads_what_it_wrote_and_others_refuse_it_by_its_name() {
        let upper = Codec::Custom(Arc::new(Upper));
        let bytes = encode(&upper, &"hello");
        assert_eq!(
            (bytes.as_slice(), upper.decode::<String>("upper", &bytes).unwrap().as_str()),
            (b"\"HELLO\"".as_slice(), "hello")
        );
        let refused = Codec::Json.decode::<String>("upper", &bytes).unwrap_err();
        assert_eq!(refused.to_string(), "codec \"upper\" is not known here");
    }

    #[test]
    fn a_panic_while_decoding_is_an_error() {
        #[derive(Debug)]
        struct Explosive;
        impl<'de> Deserialize<'de> for Explosive {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                panic!("boom")
            }
        }
        assert_eq!(Codec::Json.decode::<Explosive>("json", b"1").unwrap_err().to_string(), "decoding panicked");
    }
}
