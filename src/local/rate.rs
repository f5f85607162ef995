//! Rate: how much a counter grew in the last whole second of the clock. Pure; it is told the time. Knows not what is counted.

use crate::local::clock::Second;
use crate::local::clock::Tick;

#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// The second that is going on, and where the counter stood when it began.
    second: Second,
    began: u64,
    last: u64,
}

impl Rate {
    /// The counter stands at `count`. To be called when the clock is looked at: where that was not for more than a second, nothing was counted meanwhile.
    pub(crate) fn tick(&mut self, now: Tick, count: u64) {
        let second = now.second();
        if second != self.second {
            self.last = if second == self.second.next() { count - self.began } else { 0 };
            (self.second, self.began) = (second, count);
        }
    }

    /// By how much it grew in the second before the present one.
    pub(crate) fn last_second(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_was_counted_in_the_last_whole_second_and_zero_after_a_quiet_one() {
        let (mut rate, mut now) = (Rate::default(), 1_280);
        let mut after = |ticks: u32, count| {
            now += ticks;
            rate.tick(Tick::new(now), count);
            rate.last_second()
        };
        assert_eq!(after(0, 0), 0, "the first look");
        assert_eq!(after(64, 500), 0, "in the same second");
        assert_eq!(after(64, 700), 700, "the second is over");
        assert_eq!(after(127, 900), 700, "until the next one is");
        assert_eq!(after(1, 900), 200);
        assert_eq!(after(128, 900), 0, "a quiet one");
        assert_eq!(after(1_000, 1_000), 0, "what was counted long ago is none of the last second");
        assert_eq!(after(128, 1_050), 50);
    }
}
