//! Slab: values under small keys, in chunks that never move. Knows nothing of what it holds.
//!
//! Chunks, because one big vector would copy all its values when it grows, and with 100,000 subscribers that copy would hold
//! the arbiter for milliseconds. A key carries the number of its insertion, so a stale key never reads a later value.

/// Where a value stands, and which insertion put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) insertion: u32,
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Slot<T>>>,
    free: u32,
    len: usize,
    insertions: u32,
}

#[derive(Debug)]
struct Slot<T> {
    /// The insertion of the value, or the next free index where there is none.
    link: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), free: NONE, len: 0, insertions: 0 }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.insert_with(|_| value)
    }

    /// For a value that knows its own key.
    pub(crate) fn insert_with(&mut self, value: impl FnOnce(Key) -> T) -> Key {
        let insertion = self.insertions;
        self.insertions = self.insertions.wrapping_add(1);
        let reused = self.free != NONE;
        let key = Key { index: if reused { self.free } else { self.end() }, insertion };
        let slot = Slot { link: insertion, value: Some(value(key)) };
        if reused {
            let place = &mut self.chunks[key.index as usize / CHUNK][key.index as usize % CHUNK];
            self.free = place.link;
            *place = slot;
        } else {
            if key.index as usize / CHUNK == self.chunks.len() {
                self.chunks.push(Vec::new());
            }
            self.chunks[key.index as usize / CHUNK].push(slot);
        }
        self.len += 1;
        key
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)?;
        let value = slot.value.take()?;
        slot.link = self.free;
        self.free = index;
        self.len -= 1;
        if self.len == 0 {
            // The peak is over: its memory goes back. Insertions keep counting, so old keys stay stale.
            self.chunks = Vec::new();
            self.free = NONE;
        }
        Some(value)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)?.value.as_mut()
    }

    /// The value of exactly this insertion.
    pub(crate) fn get_key(&self, key: Key) -> Option<&T> {
        let slot = self.chunks.get(key.index as usize / CHUNK)?.get(key.index as usize % CHUNK)?;
        slot.value.as_ref().filter(|_| slot.link == key.insertion)
    }

    pub(crate) fn get_key_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.chunks.get_mut(key.index as usize / CHUNK)?.get_mut(key.index as usize % CHUNK)?;
        slot.value.as_mut().filter(|_| slot.link == key.insertion)
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.get_key(key).is_some()
    }

    pub(crate) fn key(&self, index: u32) -> Option<Key> {
        let slot = self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)?;
        slot.value.is_some().then_some(Key { index, insertion: slot.link })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One past the highest index in use; what a walk in slices runs to.
    pub(crate) fn end(&self) -> u32 {
        self.chunks.last().map_or(0, |last| ((self.chunks.len() - 1) * CHUNK + last.len()) as u32)
    }
}

/// No index: lists end with it.
pub(crate) const NONE: u32 = u32::MAX;

/// Values per chunk: about 20 KB of subscriptions, so that the largest copy at growth takes a microsecond.
const CHUNK: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_reads_nothing_even_after_its_place_is_taken_again() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        let keep = slab.insert("keep");
        assert_eq!(slab.remove(first.index), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.index, first.index, "the place is used again");
        assert_eq!((slab.get_key(first), slab.get_key(second), slab.get_key(keep)), (None, Some(&"second"), Some(&"keep")));
        assert_eq!(slab.remove(7), None);
    }

    #[test]
    fn it_gives_its_memory_back_when_empty_and_old_keys_stay_stale() {
        let mut slab = Slab::new();
        let keys: Vec<_> = (0..1_000).map(|n| slab.insert(n)).collect();
        assert_eq!((slab.len(), slab.end()), (1_000, 1_000));
        for key in &keys {
            assert_eq!(slab.remove(key.index), Some(key.index));
        }
        assert_eq!((slab.len(), slab.end(), slab.chunks.capacity()), (0, 0, 0));
        let again = slab.insert(5);
        assert_eq!(again.index, 0);
        assert!(!slab.contains(keys[0]) && slab.contains(again));
    }

    #[test]
    fn keys_of_a_thousand_values_in_random_order_stay_their_own() {
        let mut slab = Slab::new();
        let mut live = std::collections::HashMap::new();
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        for step in 0..20_000_u64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state.is_multiple_of(3) && !live.is_empty() {
                let index = *live.keys().nth((state % live.len() as u64) as usize).unwrap();
                assert_eq!(slab.remove(index), live.remove(&index));
            } else {
                assert!(live.insert(slab.insert(step).index, step).is_none());
            }
            assert_eq!(slab.len(), live.len());
        }
        for (index, value) in live {
            assert_eq!(slab.get(index), Some(&value));
        }
    }
}
