//! Tail: follows topics. The server says what it has stored (a stream's republishing, headers only), and the topic is read from there.
//!
//! Such a word may be lost: it is not kept, and there is none while the connection is away. So after a new connection every topic is read, and
//! while nothing happens, a few topics a second are read in turn.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::stream;
use futures_util::stream::AbortHandle;
use futures_util::stream::SelectAll;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::ids::EntryId;
use crate::log::entry::Batch;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::error::StoreError;
use crate::log::failing::Failing;
use crate::log::jetstream::Shared;
use crate::log::jetstream::connection::Connection;
use crate::log::jetstream::connection::unknown;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
use crate::observe;
use crate::topic::Topic;

pub(super) struct JetStreamTail {
    shared: Arc<Shared>,
    watched: HashMap<Topic, Watched>,
    /// Those that may have entries after their positions.
    moved: BTreeSet<Topic>,
    /// Those that the server is not yet asked to tell of.
    silent: BTreeSet<Topic>,
    told: SelectAll<Pin<Box<dyn Stream<Item = Topic> + Send>>>,
    generation: u64,
    /// Where the reading in turn stands.
    swept: Option<Topic>,
    /// The last one that was read: those after it are next.
    looked: Option<Topic>,
    /// Those that could not be read while others could.
    failing: Failing,
}

struct Watched {
    after: EntryId,
    /// Ends the server's telling.
    telling: Option<AbortHandle>,
}

impl JetStreamTail {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            watched: HashMap::new(),
            moved: BTreeSet::new(),
            silent: BTreeSet::new(),
            told: SelectAll::new(),
            generation: 0,
            swept: None,
            looked: None,
            failing: Failing::default(),
        }
    }

    /// A new connection knows no subscription, and what was stored before it has not been told.
    fn begin(&mut self, connection: &Connection) {
        if self.generation != connection.generation {
            self.generation = connection.generation;
            self.told = SelectAll::new();
            self.silent = self.watched.keys().cloned().collect();
            self.moved = self.silent.clone();
            // What a lost connection failed is none of the topics' doing.
            self.failing = Failing::default();
        }
    }

    /// The reading comes after the subscription, on one connection: what is stored between the two is told.
    async fn listen(&mut self, connection: &Connection) -> Result<(), StoreError> {
        while let Some(topic) = self.silent.first() {
            let subject = self.shared.live_subject(topic);
            let subscribed = connection.client.subscribe(subject).await;
            let subscriber = subscribed.map_err(|error| unknown(Arc::new(error)))?;
            // No wait from here on.
            let Some(topic) = self.silent.pop_first() else { continue };
            let Some(watched) = self.watched.get_mut(&topic) else { continue };
            let (told, telling) = stream::abortable(subscriber.map(move |_| topic.clone()));
            watched.telling = Some(telling);
            self.told.push(Box::pin(told));
        }
        Ok(())
    }

    /// Takes what was told without waiting. A topic that is told of often is read once.
    fn hear(&mut self) {
        let mut turns = 0;
        while let Some(Some(topic)) = self.told.next().now_or_never() {
            if self.watched.contains_key(&topic) {
                self.moved.insert(topic);
            }
            turns += 1;
            if turns >= HEARD_MAX {
                break;
            }
        }
    }

    /// Those to be read, with their positions: in turn, so that none waits for others that never are done. One that could not be read is tried again at
    /// its time, whether it moves or not.
    fn next_reads(&mut self) -> Vec<(Topic, EntryId)> {
        let now = Instant::now();
        self.moved.extend(self.failing.due(now).cloned());
        let is_later = |topic: &&Topic| self.looked.as_ref().is_none_or(|looked| *topic > looked);
        let (later, earlier) = (self.moved.iter().filter(is_later), self.moved.iter().filter(|topic| !is_later(topic)));
        let moved = later.chain(earlier).filter(|topic| self.failing.is_due(topic, now)).take(TOPICS_MAX);
        moved.filter_map(|topic| Some((topic.clone(), self.watched.get(topic)?.after))).collect()
    }

    fn sweep(&mut self) {
        // The map has no order to go on in; the set of all names would be made for nothing if it were empty.
        let names: BTreeSet<&Topic> = self.watched.keys().collect();
        let after = |topic: &&&Topic| self.swept.as_ref().is_none_or(|swept| **topic > swept);
        let next: Vec<Topic> = names.iter().filter(after).take(SWEEP_TOPICS).map(|topic| (*topic).clone()).collect();
        self.swept = if next.len() < SWEEP_TOPICS { None } else { next.last().cloned() };
        self.moved.extend(next);
    }

    async fn wait(&mut self, connection: &Connection) {
        let until = Instant::now() + SWEEP_INTERVAL;
        let retry_at = self.failing.next_due().filter(|retry_at| *retry_at < until);
        let until = retry_at.unwrap_or(until);
        if self.told.is_empty() {
            // Nothing to hear: not the end of the stream, which would be there at once.
            let _ = timeout_at(until, connection.lost()).await;
            return;
        }
        match timeout_at(until, connection.while_up(self.told.next())).await {
            Ok(Some(Some(topic))) => {
                if self.watched.contains_key(&topic) {
                    self.moved.insert(topic);
                }
            }
            Err(_) if retry_at.is_none() => self.sweep(),
            // The end of the last subscription, or of the connection, or one is to be tried again: what is next is seen above.
            Ok(_) | Err(_) => {}
        }
    }
}

impl Tail for JetStreamTail {
    fn watch(&mut self, topic: &Topic, after: EntryId) {
        match self.watched.get_mut(topic) {
            Some(watched) => watched.after = after,
            None => {
                self.watched.insert(topic.clone(), Watched { after, telling: None });
                self.silent.insert(topic.clone());
            }
        }
        // A new position is worth a try.
        self.failing.remove(topic);
        // There may be entries already.
        self.moved.insert(topic.clone());
    }

    fn unwatch(&mut self, topic: &Topic) {
        if let Some(telling) = self.watched.remove(topic).and_then(|watched| watched.telling) {
            telling.abort();
        }
        self.failing.remove(topic);
        self.silent.remove(topic);
        self.moved.remove(topic);
    }

    fn next(&mut self, limit: Limit) -> StoreFuture<'_, Vec<(Topic, Batch)>> {
        Box::pin(async move {
            let mut untold = None;
            loop {
                let connection = self.shared.link.connection(self.shared.deadline()).await?;
                self.begin(&connection);
                self.listen(&connection).await?;
                self.hear();
                let to_read = self.next_reads();
                if to_read.is_empty() {
                    // Of one topic alone an error is told when there is nothing else to tell.
                    if let Some(error) = untold {
                        return Err(error);
                    }
                    self.wait(&connection).await;
                    continue;
                }
                let look = look(Arc::clone(&self.shared), to_read, limit).await;
                // No wait from here to the return: a dropped future has moved nothing.
                if let Some(error) = of_store(&look) {
                    return Err(error.clone());
                }
                self.looked = look.last().map(|(topic, _)| topic.clone());
                let now = Instant::now();
                let mut batches = Vec::with_capacity(look.len());
                for (topic, read) in look {
                    match read {
                        Ok(batch) => {
                            self.failing.remove(&topic);
                            if batch.caught_up {
                                self.moved.remove(&topic);
                            }
                            if let Some(watched) = self.watched.get_mut(&topic) {
                                watched.after = batch.next;
                            }
                            batches.push((topic, batch));
                        }
                        Err(error) => {
                            self.moved.remove(&topic);
                            // Once: who stops at an error is not to be stopped by each try.
                            if self.failing.failed(&topic, now) == 1 {
                                observe::log_unavailable("follow", &topic, &error);
                                untold.get_or_insert(error);
                            }
                        }
                    }
                }
                batches.retain(|(_, batch)| !batch.entries.is_empty() || batch.gap.is_some());
                if !batches.is_empty() {
                    return Ok(batches);
                }
            }
        })
    }
}

/// Reads; no position moves here.
async fn look(shared: Arc<Shared>, topics: Vec<(Topic, EntryId)>, limit: Limit) -> Vec<(Topic, Result<Batch, StoreError>)> {
    let reads = topics.into_iter().map(|(topic, after)| {
        let shared = Arc::clone(&shared);
        async move {
            let read = shared.read(&topic, Position::After(after), limit).await.map_err(|error| error.on(&topic));
            (topic, read)
        }
    });
    stream::iter(reads).buffered(READS_AT_ONCE).collect().await
}

/// Why none could be read. The server may be there and one topic's stream not: then it is that topic's.
fn of_store(look: &[(Topic, Result<Batch, StoreError>)]) -> Option<&StoreError> {
    let mut errors = look.iter().filter_map(|(_, read)| read.as_ref().err());
    errors.find(|error| matches!(error, StoreError::Unavailable { .. })).filter(|_| look.iter().all(|(_, read)| read.is_err()))
}

/// Topics read for one answer, and how many of them side by side.
const TOPICS_MAX: usize = 256;
const READS_AT_ONCE: usize = 32;
/// Words taken before it is read.
const HEARD_MAX: usize = 10_000;
/// Without a word, so many topics are read in so much time.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const SWEEP_TOPICS: usize = 32;
