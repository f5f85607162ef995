//! Clock: a cheap one, for how long something has waited. Knows no calendar.

use std::num::NonZeroU32;
use std::sync::LazyLock;

use coarsetime::Instant;

/// A moment, in hundredths of a second since this was first asked. Wraps; an age is right up to 248 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick(NonZeroU32);

impl Tick {
    /// Now, as the system knew it at its last timer interrupt: some nanoseconds instead of the twenty of `std::time::Instant`.
    pub(crate) fn now() -> Self {
        Self::new((Instant::now_without_cache_update().duration_since(*START).as_millis() / TICK_MS) as u32)
    }

    fn new(ticks: u32) -> Self {
        // Not 0, so that an `Option` of it is no larger.
        Self(NonZeroU32::new(ticks).unwrap_or(NonZeroU32::MIN))
    }

    /// Milliseconds from then to `now`; 0 for what is later.
    pub(crate) fn age_ms(self, now: Self) -> u64 {
        let ticks = now.0.get().wrapping_sub(self.0.get());
        if ticks > u32::MAX / 2 { 0 } else { u64::from(ticks) * TICK_MS }
    }
}

impl Default for Tick {
    fn default() -> Self {
        Self(NonZeroU32::MIN)
    }
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now_without_cache_update);

const TICK_MS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_that_of_ten_milliseconds_a_tick_across_the_wrap() {
        assert_eq!(Tick::new(5).age_ms(Tick::new(7)), 20);
        assert_eq!(Tick::new(u32::MAX).age_ms(Tick::new(1)), 20);
        assert_eq!(Tick::new(7).age_ms(Tick::new(5)), 0, "read before it, by another thread");
    }
}
