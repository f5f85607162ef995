//! Hash: maps whose keys bring a good hash of their own. Knows no keys.

use std::hash::BuildHasherDefault;
use std::hash::Hasher;

/// Uses the one `u64` that a key feeds as it is: topics are hashed with a secret key when parsed, ids when fed.
#[derive(Default)]
pub(crate) struct Prehashed(u64);

pub(crate) type BuildPrehashed = BuildHasherDefault<Prehashed>;

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn write_u32(&mut self, index: u32) {
        // Slab indices are small and dense: spread them over all bits.
        self.0 = u64::from(index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
