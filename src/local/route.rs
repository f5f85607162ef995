//! Route: where a thread's last broadcasts went, so that the next one to the same topic need not ask the map. Knows no events.
//!
//! An entry is good for as long as no topic anywhere got its first subscriber on an arbiter or lost its last. A thread keeps a few; what
//! they hold of a pub/sub that is gone is an empty shell, until the thread broadcasts again or ends.

use std::any::TypeId;
use std::cell::Cell;
use std::ops::Deref;

use crate::local::interest::Interest;
use crate::local::interest::TopicPort;
use crate::local::interest::TopicPorts;
use crate::sync::Arc;
use crate::topic::Topic;

/// The ports of one topic and message type. Dropped, it goes back into its thread's cache.
pub(crate) struct Route {
    entry: Option<Entry>,
}

struct Entry {
    interest: u64,
    generation: u64,
    topic: Topic,
    message: TypeId,
    ports: Option<TopicPorts>,
}

impl Route {
    pub(crate) fn find(interest: &Interest, topic: &Topic, message: TypeId) -> Self {
        // Read before the map: if that changes in between, the entry is out of date from the start, not wrong.
        let generation = interest.generation();
        let known = CACHE.try_with(|cache| cache[slot(topic)].take()).ok().flatten().filter(|entry| {
            entry.generation == generation && entry.interest == interest.id() && entry.message == message && entry.topic == *topic
        });
        let entry = known.unwrap_or_else(|| Entry {
            interest: interest.id(),
            generation,
            topic: topic.clone(),
            message,
            ports: interest.ports(topic, message),
        });
        Self { entry: Some(entry) }
    }
}

impl Deref for Route {
    type Target = [Arc<TopicPort>];

    fn deref(&self) -> &Self::Target {
        self.entry.as_ref().and_then(|entry| entry.ports.as_deref()).unwrap_or_default()
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            // The thread may be ending; then there is nothing to keep it for.
            let _ = CACHE.try_with(|cache| cache[slot(&entry.topic)].set(Some(entry)));
        }
    }
}

fn slot(topic: &Topic) -> usize {
    topic.hash_value() as usize % SLOTS
}

thread_local!(static CACHE: [Cell<Option<Entry>>; SLOTS] = const { [const { Cell::new(None) }; SLOTS] });

/// Topics that one thread broadcasts to in turns.
const SLOTS: usize = 16;
