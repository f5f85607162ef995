//! Decoders: any bytes into the decoder that `FUZZ_DECODER` names, or into one that the first byte chooses.
#![no_main]

use std::sync::LazyLock;

use actix_pubsub::testing::decoders;
use libfuzzer_sys::fuzz_target;

/// The one that was asked for.
static NAMED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("FUZZ_DECODER").ok());

fuzz_target!(|bytes: &[u8]| {
    if let Some(name) = &*NAMED {
        assert!(decoders::run(name, bytes), "there is no decoder {name}");
    } else if let Some((first, rest)) = bytes.split_first() {
        let (_, decoder) = decoders::ALL[usize::from(*first) % decoders::ALL.len()];
        decoder(rest);
    }
});
