//! Clock: a cheap one, for how long something has waited. Knows no calendar.

use std::num::NonZeroU32;

use coarsetime::Instant;

/// A moment, to the 128th of a second. Wraps; an age is right up to 194 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick(NonZeroU32);

impl Tick {
    /// Now, as the system knew it at its last timer interrupt: some nanoseconds instead of the twenty of `std::time::Instant`.
    #[inline]
    pub(crate) fn now() -> Self {
        Self::new((Instant::now_without_cache_update().as_ticks() >> FRACTION_BITS) as u32)
    }

    pub(crate) fn new(ticks: u32) -> Self {
        // Not 0, so that an `Option` of it is no larger.
        Self(NonZeroU32::new(ticks).unwrap_or(NonZeroU32::MIN))
    }

    /// The number of its second.
    pub(crate) fn second(self) -> Second {
        Second(self.0.get() >> PER_SECOND.trailing_zeros())
    }

    /// Milliseconds from then to `now`; 0 for what is later.
    pub(crate) fn age_ms(self, now: Self) -> u64 {
        let ticks = now.0.get().wrapping_sub(self.0.get());
        if ticks > u32::MAX / 2 { 0 } else { u64::from(ticks) * 1_000 / PER_SECOND }
    }
}

/// One of the seconds of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Second(u32);

impl Second {
    pub(crate) fn next(self) -> Self {
        Self((self.0 + 1) & (u32::MAX >> PER_SECOND.trailing_zeros()))
    }
}

impl Default for Tick {
    fn default() -> Self {
        Self(NonZeroU32::MIN)
    }
}

/// Now, by the same clock, in parts of [`SECOND`]: since a moment before the program began.
pub(crate) fn fine() -> u64 {
    Instant::now_without_cache_update().as_ticks()
}

/// What [`fine`] has for a second.
pub(crate) const SECOND: u64 = 1 << 32;

const PER_SECOND: u64 = 128;
/// Of the 32 bits that the clock has for less than a second, those that are not kept.
const FRACTION_BITS: u32 = 32 - PER_SECOND.trailing_zeros();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_milliseconds_across_the_wrap() {
        assert_eq!(Tick::new(5).age_ms(Tick::new(5 + 128)), 1_000);
        assert_eq!(Tick::new(u32::MAX).age_ms(Tick::new(15)), 125);
        assert_eq!(Tick::new(7).age_ms(Tick::new(5)), 0, "read before it, by another thread");
    }

    #[test]
    fn seconds_follow_each_other_across_the_wrap() {
        for ticks in [0, 127, 128, 5_000, u32::MAX] {
            let (tick, later) = (Tick::new(ticks), Tick::new(ticks.wrapping_add(128)));
            assert_eq!(tick.second().next(), later.second(), "{ticks}");
        }
        assert_eq!(Tick::new(256).second(), Tick::new(383).second());
    }

    #[test]
    fn it_keeps_the_pace_of_the_clock_of_std() {
        let (exact, coarse) = (std::time::Instant::now(), Tick::now());
        while exact.elapsed().as_millis() < 100 {
            std::thread::yield_now();
        }
        let age = coarse.age_ms(Tick::now());
        assert!((80..=exact.elapsed().as_millis() as u64 + 20).contains(&age), "{age} ms");
    }
}
