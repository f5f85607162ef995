//! Pace: how long a commit waits for more appends. Knows times and numbers, no queue and no engine.
//!
//! Who gets an answer mostly comes again at once. A commit has a price of its own, the sync: waiting for everybody saves it where coming takes less.
//! Where it takes more, one half comes while the other is committed, and nobody waits for anybody.

use std::time::Duration;
use std::time::Instant;

/// What was seen of the appenders.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Appends that were under way when the last commit ended: answered by it, or waiting already.
    under_way: usize,
    /// Of them, those that waited already.
    waiting: usize,
    /// What the last commit took, and when it ended.
    took: Duration,
    ended: Option<Instant>,
    /// The time from one append to the next, as they came last.
    between: Duration,
    /// Commits since that was measured.
    unmeasured: u32,
}

/// One wait.
#[derive(Debug)]
pub(super) struct Wait {
    until_count: usize,
    until: Instant,
    gap: Duration,
    came: Instant,
}

impl Pace {
    /// A commit of so many appends has ended, with so many waiting already.
    pub(super) fn committed(&mut self, count: usize, waiting: usize, began: Instant, now: Instant) {
        (self.under_way, self.waiting, self.took, self.ended) = (count + waiting, waiting, now - began, Some(now));
    }

    /// What to wait for.
    pub(super) fn wait(&self, now: Instant) -> Wait {
        let budget = WAIT_MAX.min(self.took / 2);
        let all = self.between.saturating_mul(u32::try_from(self.under_way).unwrap_or(u32::MAX));
        let until_count = if all <= budget || self.unmeasured >= UNMEASURED_MAX { self.under_way } else { self.under_way / 2 };
        let gap = (self.took / 8).clamp(GAP_MIN, GAP_MAX);
        Wait { until_count, until: now + budget, gap, came: now }
    }

    /// The wait has ended, with so many appends at hand.
    pub(super) fn waited(&mut self, count: usize, wait: &Wait) {
        self.unmeasured = self.unmeasured.saturating_add(1);
        let (Some(ended), came) = (self.ended.take(), count.saturating_sub(self.waiting)) else { return };
        let took = wait.came - ended;
        if came >= self.under_way / 4 && came > 0 && took < WAIT_MAX {
            let between = took / u32::try_from(came).unwrap_or(u32::MAX);
            // The scheduler makes some of them look slow.
            self.between = between.min((3 * self.between + between) / 4);
            self.unmeasured = 0;
        }
    }
}

impl Wait {
    /// Whether to wait on.
    pub(super) fn goes_on(&self, count: usize, now: Instant) -> bool {
        count < self.until_count && now < self.until && now.saturating_duration_since(self.came) <= self.gap
    }

    /// An append came.
    pub(super) fn came(&mut self, now: Instant) {
        self.came = now;
    }
}

/// No commit waits longer, and none longer than half the last one took.
const WAIT_MAX: Duration = Duration::from_millis(4);
/// Nobody came for an eighth as long as a commit takes, within these: nobody keeps coming.
const GAP_MIN: Duration = Duration::from_micros(50);
const GAP_MAX: Duration = Duration::from_millis(1);
/// After so many commits in halves it is tried again whether all come in time.
const UNMEASURED_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A commit of `count` that took `took` ends; `count` come again, one each `between`. How many are in the next commit?
    fn check(pace: &mut Pace, count: usize, waiting: usize, took: Duration, between: Duration) -> usize {
        let began = Instant::now();
        let ended = began + took;
        pace.committed(count, waiting, began, ended);
        let (mut now, mut at_hand) = (ended, waiting);
        let mut wait = pace.wait(now);
        while wait.goes_on(at_hand, now) {
            now += between;
            if at_hand < count + waiting && now <= wait.until {
                at_hand += 1;
                wait.came(now);
            }
        }
        pace.waited(at_hand, &wait);
        at_hand
    }

    #[test]
    fn a_commit_waits_for_all_who_come_again_in_time() {
        let mut pace = Pace::default();
        assert_eq!(check(&mut pace, 64, 0, MS, MS / 1_000), 64);
        assert_eq!(check(&mut pace, 40, 24, MS, MS / 1_000), 64, "halves come together again");
    }

    #[test]
    fn a_commit_waits_for_nobody_who_is_not_expected() {
        let mut pace = Pace::default();
        assert!(!pace.wait(Instant::now()).goes_on(1, Instant::now()), "there was no commit");
        assert_eq!(check(&mut pace, 1, 1, MS, MS), 1, "the other one takes too long");
        let wait = pace.wait(Instant::now());
        assert!(!wait.goes_on(2, wait.came), "all are there");
    }

    #[test]
    fn a_commit_waits_for_one_half_where_all_would_take_longer_than_half_a_commit() {
        let mut pace = Pace::default();
        let mut halves = 0;
        for _ in 0..10 {
            halves += u32::from(check(&mut pace, 600, 424, MS, MS / 1_000) == 512);
        }
        assert!(halves >= 5, "{halves} of 10");
        // They have become quicker: that is seen in the end.
        let all = (0..2 * UNMEASURED_MAX).filter(|_| check(&mut pace, 512, 512, MS, MS / 10_000) == 1_024).count();
        assert!(all > 0, "it was never tried again");
    }

    #[test]
    fn no_wait_is_longer_than_half_a_commit_or_the_longest() {
        for (took, longest) in [(MS, MS / 2), (100 * MS, WAIT_MAX)] {
            let mut pace = Pace::default();
            let began = Instant::now();
            pace.committed(1_000, 0, began, began + took);
            let wait = pace.wait(began + took);
            let mut still = wait;
            still.came(began + took + longest);
            assert!(!still.goes_on(1, began + took + longest));
            let before = longest.saturating_sub(MS / 100);
            still.came(began + took + before);
            assert!(still.goes_on(1, began + took + before));
        }
    }
}
