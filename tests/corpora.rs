//! Corpora: what the fuzzer keeps in `fuzz/corpus`, and changes of it, through the same decoders; see `fuzz/README.md`.
//!
//! `MUTATIONS=n` tries so many changes of each file, and `SEED=n` those that were printed.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;

use actix_pubsub::testing::decoders;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The files of a decoder's folder.
fn files(decoder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(decoder);
    names(&folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_decoder_takes_what_the_fuzzer_found() {
    let mut left = names(&corpus());
    for (name, decoder) in decoders::ALL {
        assert!(left.remove(*name), "fuzz/corpus has no folder {name}");
        let files = files(name);
        assert!(!files.is_empty(), "fuzz/corpus/{name} is empty");
        for (file, bytes) in files {
            // Caught only to say where it was.
            assert!(catch_unwind(|| decoder(&bytes)).is_ok(), "{name} panics over fuzz/corpus/{name}/{file}");
        }
    }
    // Those of engines that are not compiled in.
    let engines = ["batch", "dashboard", "embedded", "jetstream", "redis", "web", "cursor", "zenoh"];
    left.retain(|name| !engines.iter().any(|engine| name.starts_with(engine)));
    assert!(left.is_empty(), "no decoder for {left:?}");
}

/// What changes bytes, by a seed: splitmix64.
struct Changes(u64);

impl Changes {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    /// One to four changes: a bit, a byte that is often a limit, bytes put in, left out, or said again, or a part of another file.
    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = at + self.below((bytes.len() - at).min(16) + 1);
            let limits = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'-', b'*', b'"', b'%'];
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = limits[self.below(limits.len())],
                2 => bytes.insert(at, self.below(256) as u8),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                _ => {
                    let from = self.below(other.len() + 1);
                    bytes.splice(at..end, other[from..].iter().copied().take(32));
                }
            }
        }
    }
}

#[test]
fn no_decoder_breaks_over_what_is_like_its_corpus() {
    let mutations = number("MUTATIONS").unwrap_or(1_000);
    let seed = number("SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed} MUTATIONS={mutations}");
    let broken: Vec<_> = decoders::ALL.iter().filter_map(|(name, decoder)| breaks(name, *decoder, mutations, seed)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What of changes of its files a decoder panics over.
fn breaks(name: &str, decoder: decoders::Decoder, mutations: u64, seed: u64) -> Option<String> {
    let (files, mut changes) = (files(name), Changes(seed));
    for (file, bytes) in &files {
        // On from what was made before, so that changes add up; back to the file now and then.
        let mut changed = bytes.clone();
        for round in 0..mutations {
            if round % 16 == 0 || changed.len() > 4_096 {
                changed.clone_from(bytes);
            }
            let other = &files[changes.below(files.len())].1;
            changes.change(&mut changed, other);
            if catch_unwind(|| decoder(&changed)).is_err() {
                return Some(format!("{name} panics over a change of {file}: {}", changed.escape_ascii()));
            }
        }
    }
    None
}
