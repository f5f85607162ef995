//! Ahead: has the processor fetch what a subscriber's turn will touch, before its turn comes. A hint: nothing is read and nothing can go wrong.
//!
//! Among 100,000 subscribers none has its memory in a cache when its turn comes, and the waiting for it, one line after the other, would be most of what
//! a delivery costs. A turn of the registry wakes hundreds of subscribers before the first of them runs: time to fetch the lines of all of them side by side.

use std::task::Waker;

use crate::ids::SubscriberId;

/// The turn of `who`, which `waker` wakes: its task, in which its actor and its context lie, and the mailbox that the context looks into.
pub(crate) fn fetch(who: SubscriberId, waker: &Waker) {
    let task = waker.data().addr();
    for line in 0..TASK_LINES {
        fetch_line(task.wrapping_add(line * LINE));
    }
    if let Some(mailbox) = who.address() {
        // As a rule the node in which its queue ends lies in the line before, until its first message.
        for at in [mailbox.wrapping_sub(LINE), mailbox, mailbox.wrapping_add(LINE)] {
            fetch_line(at);
        }
    }
}

fn fetch_line(address: usize) {
    let nowhere: &[u8] = &[];
    prefetch_index::prefetch_index(nowhere, address.wrapping_sub(nowhere.as_ptr().addr()));
}

const LINE: usize = 64;
/// A task with an actor of some 200 bytes.
const TASK_LINES: usize = 10;
