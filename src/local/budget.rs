//! Budget: how many spans a second may be made. Pure but for its clock. Knows not what is spanned.

// Not of `crate::sync`: it orders nothing.
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tracing::Span;

use crate::event::Traced;
use crate::event::traced;
use crate::local::clock;

/// Spans on credit: whoever makes some says so, and no more are begun than a second can pay for.
///
/// It is the generic cell rate algorithm with a burst of one second.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What one takes; `None`: there are to be none.
    span: Option<u64>,
    /// When the spans so far are paid.
    paid: AtomicU64,
}

impl Budget {
    pub(crate) fn per_second(spans: u32) -> Self {
        Self { span: clock::SECOND.checked_div(spans.into()), paid: AtomicU64::new(0) }
    }

    /// Whether more may be begun.
    fn allows(&self) -> bool {
        self.allows_at(clock::fine())
    }

    fn allows_at(&self, now: u64) -> bool {
        self.span.is_some() && self.paid.load(Ordering::Relaxed) <= now.saturating_add(BURST)
    }

    /// Makes a span, if more may be begun and anybody records it.
    pub(crate) fn span(&self, make: impl FnOnce() -> Span) -> Traced {
        let span = if self.allows() { traced(make()) } else { None };
        self.charge(usize::from(span.is_some()));
        span
    }

    /// So many were made.
    pub(crate) fn charge(&self, spans: usize) {
        if spans > 0 {
            self.charge_at(clock::fine(), spans);
        }
    }

    fn charge_at(&self, now: u64, spans: usize) {
        let price = self.span.unwrap_or_default().saturating_mul(spans as u64);
        let pay = |paid: u64| Some(paid.max(now).saturating_add(price));
        // It never gives `None`.
        let _ = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }
}

/// What may be spent at once.
const BURST: u64 = clock::SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    /// Far from 0, as the clock of a system that has run for a while.
    const NOW: u64 = 1_000 * clock::SECOND;

    /// How many charges of `spans` are allowed at `now`.
    fn fit(budget: &Budget, now: u64, spans: usize) -> usize {
        (0..1_000)
            .take_while(|_| {
                budget.allows_at(now) && {
                    budget.charge_at(now, spans);
                    true
                }
            })
            .count()
    }

    #[test]
    fn a_second_of_spans_may_be_made_at_once_and_then_as_many_as_time_pays_for() {
        let budget = Budget::per_second(300);
        assert_eq!(fit(&budget, NOW, 3), 101, "300 spans, and who finds the budget not overdrawn");
        assert_eq!(fit(&budget, NOW, 3), 0);
        assert_eq!(fit(&budget, NOW + clock::SECOND / 2, 3), 50);
        assert_eq!(fit(&budget, NOW + 100 * clock::SECOND, 3), 101, "what was not used is not kept");
    }

    #[test]
    fn one_broadcast_to_many_is_spanned_whole_and_paid_before_the_next() {
        let budget = Budget::per_second(1_000);
        assert_eq!(fit(&budget, NOW, 10_000), 1);
        assert_eq!(fit(&budget, NOW + 8 * clock::SECOND, 10_000), 0);
        assert_eq!(fit(&budget, NOW + 10 * clock::SECOND, 10_000), 1);
    }

    #[test]
    fn a_limit_of_none_is_none_and_the_largest_is_as_good_as_no_limit() {
        assert_eq!(fit(&Budget::per_second(0), NOW, 0), 0);
        assert_eq!(fit(&Budget::per_second(u32::MAX), NOW, 1_000_000), 1_000);
    }
}
