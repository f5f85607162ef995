//! Sampling: which broadcasts have a span. Knows no topics.

use crate::event::Traced;
use crate::local::budget::Budget;
use crate::observe;
use crate::sync::AtomicU64;
use crate::sync::Ordering;
use crate::topic::Topic;

/// One broadcast in so many has a span, where anyone records them and the budget allows it.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// 0: none.
    one_in: u32,
    broadcasts: AtomicU64,
}

impl Sampling {
    pub(crate) fn one_in(one_in: u32) -> Self {
        Self { one_in, broadcasts: AtomicU64::new(0) }
    }

    /// The span of a broadcast, if it has one. One comparison where nobody records spans.
    #[inline]
    pub(crate) fn broadcast(&self, topic: &Topic, budget: &Budget) -> Traced {
        if observe::broadcast_spans_enabled() { self.sample(topic, budget) } else { None }
    }

    #[cold]
    fn sample(&self, topic: &Topic, budget: &Budget) -> Traced {
        if self.one_in == 0 || !self.broadcasts.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.one_in.into()) {
            return None;
        }
        if observe::is_recording() { None } else { budget.span(|| observe::broadcast_span(topic)) }
    }
}
