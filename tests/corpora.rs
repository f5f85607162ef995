//! Corpora: what the fuzzer keeps in `fuzz/corpus`, through the same decoders; see `fuzz/README.md`.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use actix_pubsub::testing::decoders;

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_decoder_takes_what_the_fuzzer_found() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut left = names(&corpus);
    for (name, decoder) in decoders::ALL {
        assert!(left.remove(*name), "fuzz/corpus has no folder {name}");
        let files = names(&corpus.join(name));
        assert!(!files.is_empty(), "fuzz/corpus/{name} is empty");
        for file in files {
            // A panic of the decoder is caught only to say where it was.
            let bytes = fs::read(corpus.join(name).join(&file)).unwrap();
            let taken = std::panic::catch_unwind(|| decoder(&bytes));
            assert!(taken.is_ok(), "{name} panics over fuzz/corpus/{name}/{file}");
        }
    }
    // Those of engines that are not compiled in.
    let engines = ["dashboard", "embedded", "jetstream", "redis", "web", "cursor", "zenoh"];
    left.retain(|name| !engines.iter().any(|engine| name.starts_with(engine)));
    assert!(left.is_empty(), "no decoder for {left:?}");
}
