//! Tail: follows topics by reading those again that the server says have changed. Knows pages, not their content.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::ids::EntryId;
use crate::log::entry::Batch;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::error::StoreError;
use crate::log::failing::Failing;
use crate::log::redis::client::Again;
use crate::log::redis::client::Request;
use crate::log::redis::client::Shared;
use crate::log::redis::page;
use crate::log::redis::page::Page;
use crate::log::redis::page::Way;
use crate::log::redis::reply;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
use crate::log::watch::Dirty;
use crate::observe;
use crate::topic::Topic;

/// The tail of a `RedisStore`. Any number of them, with any number of topics, share one connection; none blocks on the server.
///
/// A topic that cannot be read while others can is left alone for a while, longer each time.
pub(super) struct RedisTail {
    shared: Arc<Shared>,
    dirty: Arc<Dirty>,
    positions: HashMap<Topic, EntryId>,
    failing: Failing,
}

/// Topics that are being read; put back if the reading is given up.
struct Reading<'a> {
    dirty: &'a Dirty,
    topics: Vec<Topic>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        for topic in &self.topics {
            self.dirty.add(topic);
        }
    }
}

impl RedisTail {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, dirty: Arc::default(), positions: HashMap::new(), failing: Failing::default() }
    }

    /// Reads all of `topics` after their positions, in one go. What is read there is what the server will tell changes of.
    async fn read(&self, topics: &[(Topic, EntryId)], limit: Limit) -> Result<Vec<Result<Batch, StoreError>>, StoreError> {
        let (keys, sizes) = (&self.shared.keys, &self.shared.sizes);
        let mut commands = redis::pipe();
        let asked: Vec<_> = topics
            .iter()
            .map(|(topic, after)| page::ask(keys, sizes, topic, Position::After(*after), limit, Way::Cheap, &mut commands))
            .collect();
        let request = Request::Many(commands);
        let mut replies = reply::list(self.shared.send(&self.shared.told, &request, Again::Read, None).await?)?.into_iter();
        let mut batches = Vec::with_capacity(topics.len());
        for ((topic, after), asked) in topics.iter().zip(asked) {
            let of = replies.by_ref().take(asked.replies()).collect();
            let read = match asked.page(sizes, topic, of) {
                Ok(Page::Here(batch)) => Ok(batch),
                Ok(Page::Ahead | Page::Doubt) => self.shared.read(topic, Position::After(*after), limit).await,
                Err(error) => Err(error),
            };
            batches.push(read.map_err(|error| error.on(topic)));
        }
        Ok(batches)
    }
}

impl Tail for RedisTail {
    fn watch(&mut self, topic: &Topic, after: EntryId) {
        if self.positions.insert(topic.clone(), after).is_none() {
            self.shared.watches.watch(topic, &self.dirty);
        }
        // A new position is worth a try.
        self.failing.remove(topic);
        // There may be entries already, and the first reading is what makes the server tell.
        self.dirty.add(topic);
    }

    fn unwatch(&mut self, topic: &Topic) {
        self.failing.remove(topic);
        if self.positions.remove(topic).is_some() {
            self.shared.watches.unwatch(topic, &self.dirty);
        }
    }

    fn next(&mut self, limit: Limit) -> StoreFuture<'_, Vec<(Topic, Batch)>> {
        Box::pin(async move {
            let mut untold = None;
            loop {
                let now = Instant::now();
                for topic in self.failing.due(now) {
                    self.dirty.add(topic);
                }
                let mut topics: Vec<_> = self.dirty.take(TOPICS_AT_ONCE);
                if topics.is_empty() {
                    // Of one topic alone an error is told when there is nothing else to tell.
                    if let Some(error) = untold {
                        return Err(error);
                    }
                    match self.failing.next_due() {
                        // Either is a reason to look again.
                        Some(due) => drop(timeout_at(due, self.dirty.added()).await),
                        None => self.dirty.added().await,
                    }
                    continue;
                }
                // One that could not be read is tried again at its time, whether it changes or not.
                topics.retain(|topic| self.failing.is_due(topic, now));
                let mut reading = Reading { dirty: &self.dirty, topics };
                let of: Vec<_> =
                    reading.topics.iter().filter_map(|topic| Some((topic.clone(), *self.positions.get(topic)?))).collect();
                if of.is_empty() {
                    reading.topics.clear();
                    continue;
                }
                let read = self.read(&of, limit).await?;
                if let Some(error) = read.iter().find_map(|read| read.as_ref().err().filter(|error| is_of_store(error))) {
                    return Err(error.clone());
                }
                let mut batches = Vec::new();
                // No wait from here to the return: a dropped future has moved nothing.
                reading.topics.clear();
                for ((topic, _), batch) in of.into_iter().zip(read) {
                    match batch {
                        Ok(batch) => {
                            self.failing.remove(&topic);
                            if !batch.caught_up {
                                reading.topics.push(topic.clone());
                            }
                            if !batch.entries.is_empty() || batch.gap.is_some() {
                                batches.push((topic, batch));
                            }
                        }
                        // Once: who stops at an error is not to be stopped by each try.
                        Err(error) if self.failing.failed(&topic, now) == 1 => {
                            observe::log_unavailable("follow", &topic, &error);
                            untold.get_or_insert(error);
                        }
                        Err(_) => {}
                    }
                }
                drop(reading);
                if !batches.is_empty() {
                    for (topic, batch) in &batches {
                        self.positions.insert(topic.clone(), batch.next);
                    }
                    return Ok(batches);
                }
            }
        })
    }
}

/// It is the same for all topics.
fn is_of_store(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { .. } | StoreError::Closed)
}

impl Drop for RedisTail {
    fn drop(&mut self) {
        for topic in self.positions.keys() {
            self.shared.watches.unwatch(topic, &self.dirty);
        }
    }
}

impl fmt::Debug for RedisTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTail").field("topics", &self.positions.len()).finish_non_exhaustive()
    }
}

/// Topics read in one go, at most 64 MiB of payload by the default limit.
const TOPICS_AT_ONCE: usize = 64;
