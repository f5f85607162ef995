//! Tail: follows topics by reading those again that the server says have changed. Knows pages, not their content.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::ids::EntryId;
use crate::log::entry::Batch;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::error::StoreError;
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
use crate::topic::Topic;

/// The tail of a `RedisStore`. Any number of them, with any number of topics, share one connection; none blocks on the server.
pub(super) struct RedisTail {
    shared: Arc<Shared>,
    dirty: Arc<Dirty>,
    positions: HashMap<Topic, EntryId>,
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
        Self { shared, dirty: Arc::default(), positions: HashMap::new() }
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
            batches.push(match asked.page(sizes, topic, of) {
                Ok(Page::Here(batch)) => Ok(batch),
                Ok(Page::Ahead | Page::Doubt) => self.shared.read(topic, Position::After(*after), limit).await,
                Err(error) => Err(error),
            });
        }
        Ok(batches)
    }
}

impl Tail for RedisTail {
    fn watch(&mut self, topic: &Topic, after: EntryId) {
        if self.positions.insert(topic.clone(), after).is_none() {
            self.shared.watches.watch(topic, &self.dirty);
        }
        // There may be entries already, and the first reading is what makes the server tell.
        self.dirty.add(topic);
    }

    fn unwatch(&mut self, topic: &Topic) {
        if self.positions.remove(topic).is_some() {
            self.shared.watches.unwatch(topic, &self.dirty);
        }
    }

    fn next(&mut self, limit: Limit) -> StoreFuture<'_, Vec<(Topic, Batch)>> {
        Box::pin(async move {
            loop {
                let topics: Vec<_> = self.dirty.take(TOPICS_AT_ONCE);
                if topics.is_empty() {
                    self.dirty.added().await;
                    continue;
                }
                let mut reading = Reading { dirty: &self.dirty, topics };
                let of: Vec<_> =
                    reading.topics.iter().filter_map(|topic| Some((topic.clone(), *self.positions.get(topic)?))).collect();
                let read = self.read(&of, limit).await?;
                let (mut batches, mut failed) = (Vec::new(), None);
                // No wait from here to the return: a dropped future has moved nothing.
                reading.topics.clear();
                for ((topic, _), batch) in of.into_iter().zip(read) {
                    match batch {
                        Ok(batch) => {
                            if !batch.caught_up {
                                reading.topics.push(topic.clone());
                            }
                            if !batch.entries.is_empty() || batch.gap.is_some() {
                                batches.push((topic, batch));
                            }
                        }
                        // Told once; the others go on, and this one when its key changes.
                        Err(error) => failed = Some(error),
                    }
                }
                if let Some(error) = failed {
                    reading.topics.extend(batches.into_iter().map(|(topic, _)| topic));
                    return Err(error);
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
