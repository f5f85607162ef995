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
use tokio::time::timeout;

use crate::ids::EntryId;
use crate::log::entry::Batch;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::error::StoreError;
use crate::log::jetstream::Shared;
use crate::log::jetstream::connection::Connection;
use crate::log::jetstream::connection::unknown;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
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
        }
    }

    /// A new connection knows no subscription, and what was stored before it has not been told.
    fn begin(&mut self, connection: &Connection) {
        if self.generation != connection.generation {
            self.generation = connection.generation;
            self.told = SelectAll::new();
            self.silent = self.watched.keys().cloned().collect();
            self.moved = self.silent.clone();
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

    /// Those to be read, with their positions: in turn, so that none waits for others that never are done.
    fn to_read(&self) -> Vec<(Topic, EntryId)> {
        let is_later = |topic: &&Topic| self.looked.as_ref().is_none_or(|looked| *topic > looked);
        let (later, earlier) = (self.moved.iter().filter(is_later), self.moved.iter().filter(|topic| !is_later(topic)));
        let moved = later.chain(earlier).take(TOPICS_MAX);
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
        if self.told.is_empty() {
            // Nothing to hear: not the end of the stream, which would be there at once.
            let _ = timeout(SWEEP_INTERVAL, connection.lost()).await;
            return;
        }
        match timeout(SWEEP_INTERVAL, connection.while_up(self.told.next())).await {
            Ok(Some(Some(topic))) => {
                if self.watched.contains_key(&topic) {
                    self.moved.insert(topic);
                }
            }
            // The end of the last subscription, or of the connection: what is next is seen above.
            Ok(_) => {}
            Err(_) => self.sweep(),
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
        // There may be entries already.
        self.moved.insert(topic.clone());
    }

    fn unwatch(&mut self, topic: &Topic) {
        if let Some(telling) = self.watched.remove(topic).and_then(|watched| watched.telling) {
            telling.abort();
        }
        self.silent.remove(topic);
        self.moved.remove(topic);
    }

    fn next(&mut self, limit: Limit) -> StoreFuture<'_, Vec<(Topic, Batch)>> {
        Box::pin(async move {
            loop {
                let connection = self.shared.link.connection(self.shared.deadline()).await?;
                self.begin(&connection);
                self.listen(&connection).await?;
                self.hear();
                if self.moved.is_empty() {
                    self.wait(&connection).await;
                    continue;
                }
                let mut batches = look(Arc::clone(&self.shared), self.to_read(), limit).await?;
                // No wait from here to the return: a dropped future has moved nothing.
                self.looked = batches.last().map(|(topic, _)| topic.clone());
                for (topic, batch) in &batches {
                    if batch.caught_up {
                        self.moved.remove(topic);
                    }
                    if let Some(watched) = self.watched.get_mut(topic) {
                        watched.after = batch.next;
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
async fn look(shared: Arc<Shared>, topics: Vec<(Topic, EntryId)>, limit: Limit) -> Result<Vec<(Topic, Batch)>, StoreError> {
    let reads = topics.into_iter().map(|(topic, after)| {
        let shared = Arc::clone(&shared);
        async move { shared.read(&topic, Position::After(after), limit).await.map(|batch| (topic, batch)) }
    });
    let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
    let mut batches = Vec::new();
    while let Some(read) = reads.next().await {
        batches.push(read?);
    }
    Ok(batches)
}

/// Topics read for one answer, and how many of them side by side.
const TOPICS_MAX: usize = 256;
const READS_AT_ONCE: usize = 32;
/// Words taken before it is read.
const HEARD_MAX: usize = 10_000;
/// Without a word, so many topics are read in so much time.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const SWEEP_TOPICS: usize = 32;
