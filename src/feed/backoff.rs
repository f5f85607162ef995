//! Backoff: how long to wait before the next try. Knows no reason.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::time::Duration;

/// Doubles from `min` to `max` with each try after the first, and takes a random half to whole of it, so that those who failed together do not
/// come back together.
pub(crate) fn backoff(tries: u32, min: Duration, max: Duration) -> Duration {
    let whole = min.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1).min(31))).min(max);
    let random = RandomState::new().hash_one(tries) as u32;
    let half = whole / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// For a store that is away.
pub(crate) fn store_backoff(tries: u32) -> Duration {
    backoff(tries, Duration::from_millis(50), Duration::from_secs(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_doubles_up_to_its_limit_and_is_never_less_than_half() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(2));
        for (tries, whole) in [(0, 100), (1, 100), (2, 200), (3, 400), (5, 1_600), (6, 2_000), (40, 2_000), (u32::MAX, 2_000)] {
            for _ in 0..100 {
                let delay = backoff(tries, min, max);
                let whole = Duration::from_millis(whole);
                assert!(whole / 2 <= delay && delay <= whole, "{delay:?} after {tries} tries");
            }
        }
        assert_eq!(backoff(9, Duration::ZERO, max), Duration::ZERO);
        assert!(backoff(9, Duration::MAX, Duration::MAX) > Duration::ZERO);
    }
}
