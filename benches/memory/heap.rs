//! Heap: readings of the counting allocator, and their differences.

use crate::HEAP;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Heap {
    /// Bytes and blocks in use.
    pub(crate) bytes: i64,
    pub(crate) blocks: i64,
    /// Calls of the allocator that may return a new block, so far.
    pub(crate) allocations: i64,
}

impl Heap {
    pub(crate) fn now() -> Self {
        let stats = HEAP.stats();
        Self {
            bytes: stats.bytes_allocated as i64 - stats.bytes_deallocated as i64,
            blocks: stats.allocations as i64 - stats.deallocations as i64,
            allocations: (stats.allocations + stats.reallocations) as i64,
        }
    }

    /// What has come since then.
    pub(crate) fn since(self, then: Self) -> Self {
        Self {
            bytes: self.bytes - then.bytes,
            blocks: self.blocks - then.blocks,
            allocations: self.allocations - then.allocations,
        }
    }

    /// Bytes and blocks in use for each of `n`.
    pub(crate) fn each(self, n: usize) -> (f64, f64) {
        (self.bytes as f64 / n as f64, self.blocks as f64 / n as f64)
    }
}
