//! Store: the handle. Sends what writes to the writer, reads by itself. Knows no file format.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::ids::EntryId;
use crate::log::clock::Clock;
use crate::log::embedded::admin;
use crate::log::embedded::desk::Desks;
use crate::log::embedded::disk;
use crate::log::embedded::disk::Disk;
use crate::log::embedded::read;
use crate::log::embedded::row::Meta;
use crate::log::embedded::shared::Settings;
use crate::log::embedded::shared::Shared;
use crate::log::embedded::writer;
use crate::log::embedded::writer::Appending;
use crate::log::embedded::writer::Reply;
use crate::log::embedded::writer::Request;
use crate::log::entry::Append;
use crate::log::entry::Appended;
use crate::log::entry::Batch;
use crate::log::entry::Entry;
use crate::log::entry::Gap;
use crate::log::entry::GapCause;
use crate::log::entry::Limit;
use crate::log::entry::Limits;
use crate::log::entry::Position;
use crate::log::entry::TopicInfo;
use crate::log::error::StoreError;
use crate::topic::Topic;

/// A [`Store`](crate::log::Store) in one file, for one process. A clone is a handle to the same store.
///
/// # Guarantees
/// * An append that returned is on disk: killing the process or cutting the power loses none, and leaves no half of one.
/// * An entry that is read is the one that was written. Damage to the file is found, by checksums and by counting, and is
///   [`StoreError::Corrupt`]: never a wrong entry, and never a page that silently lacks one.
/// * When the disk is full appends fail with [`StoreError::Full`], everything else goes on; with room again, they work again.
/// * Deliveries and acks are on disk within about 10 ms, or with the next append. What a crash loses of them is delivered again.
///
/// A consumer that has nothing pending is not kept: after the store was opened again it is listed from its next fetch on.
///
/// # Cost
/// Appends of all topics that are under way at once share one commit, which costs one sync of the disk. Names and payloads of one page
/// share one buffer: keep a copy of a small payload, not the payload, where it is to outlive its page.
///
/// The last handle to be dropped waits until what is queued is on disk; [`close`](Self::close) does so without blocking the thread, and says whether it worked.
#[derive(Clone)]
pub struct EmbeddedStore {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Request>>,
    room: Arc<Semaphore>,
    desks: Desks,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How to open an [`EmbeddedStore`].
#[derive(Debug, Clone)]
#[must_use]
pub struct EmbeddedBuilder {
    path: PathBuf,
    settings: Settings,
}

impl EmbeddedBuilder {
    /// The largest entry and batch to take.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How long an idempotency key is known: [`EmbeddedStore::DEDUP_WINDOW_DEFAULT`] unless told otherwise.
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.settings.dedup_window = window;
        self
    }

    /// Memory for pages of the file: [`EmbeddedStore::CACHE_BYTES_DEFAULT`] unless told otherwise. Up to half of it may be a commit on its way to the disk.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.settings.cache_bytes = bytes;
        self
    }

    /// Lets `append` return before its entries are on disk: they are some 10 ms later, or after [`sync`](crate::log::Store::sync).
    ///
    /// A crash loses what was not, of this process just as of the machine; never the middle, only the end. [`Caps::durability`](crate::log::Caps::durability) says so.
    pub fn relaxed(mut self) -> Self {
        self.settings.relaxed = true;
        self
    }

    /// Makes opening after a crash a matter of milliseconds, however large the file is, and a commit of more than 32 KiB two syncs of the disk instead of one.
    /// The others are a record of the file's journal, which is one sync either way.
    ///
    /// Without this, opening after a crash under load reads the whole file and verifies every page: 0.13 s for 1,000,000 entries of 100 bytes that the
    /// system has in memory, and as long as the disk takes where it has not. A store that was closed, or idle for half a second, opens at once either way.
    pub fn instant_recovery(mut self) -> Self {
        self.settings.instant_recovery = true;
        self
    }

    /// Verifies every page of the file before it is used. Costs reading all of it; without this, damage to an entry is found when that is read.
    pub fn verify(mut self) -> Self {
        self.settings.verify = true;
        self
    }

    /// Where the time comes from; for tests and simulations.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Opens the store, makes it if there is none. Blocks: some milliseconds, and about 1 µs for each topic, group, key and pending entry.
    ///
    /// # Errors
    /// [`Locked`](StoreError::Locked) while another process or handle has it open, [`Version`](StoreError::Version) if a later version wrote it,
    /// [`Corrupt`](StoreError::Corrupt) if it is damaged or no store, [`File`](StoreError::File) if the system does not let it be opened. Each names the file.
    pub fn open(self) -> Result<EmbeddedStore, StoreError> {
        let disk = disk::open_file(&self.path);
        disk.and_then(|disk| EmbeddedStore::open_on(disk, self.settings)).map_err(|error| error.of_file(&self.path))
    }
}

impl EmbeddedStore {
    /// How long an idempotency key is known, unless told otherwise.
    pub const DEDUP_WINDOW_DEFAULT: Duration = Duration::from_secs(600);
    /// Memory for pages of the file, unless told otherwise: 64 MiB.
    pub const CACHE_BYTES_DEFAULT: usize = 64 << 20;

    /// Opens the store at `path` as it is by default. Blocks, see [`EmbeddedBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder(path).open()
    }

    /// A store at `path`, to be opened in another way than by default.
    pub fn builder(path: impl AsRef<Path>) -> EmbeddedBuilder {
        EmbeddedBuilder { path: path.as_ref().to_owned(), settings: Self::settings() }
    }

    pub(super) fn settings() -> Settings {
        Settings {
            limits: Limits::default(),
            dedup_window: Self::DEDUP_WINDOW_DEFAULT,
            cache_bytes: Self::CACHE_BYTES_DEFAULT,
            journal_bytes: disk::JOURNAL_BYTES,
            relaxed: false,
            instant_recovery: false,
            verify: false,
            clock: Clock::system(),
        }
    }

    /// Opens a store on whatever stands in for the file.
    pub(super) fn open_on(disk: Disk, settings: Settings) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::open(disk, settings)?);
        let (queue, requests) = mpsc::channel(writer::QUEUE_REQUESTS);
        let writes = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("actix-pubsub-log".to_owned())
            .spawn(move || writer::run(&writes, requests))
            .map_err(|error| StoreError::Engine { source: Arc::new(error) })?;
        let room = Arc::new(Semaphore::new(writer::QUEUE_KIB as usize));
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                queue: Some(queue),
                room,
                desks: Desks::default(),
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// Waits until everything is on disk, and closes the file for all handles: from then on every method fails with [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        match self.ask(Request::Close).await {
            Err(StoreError::Closed) => Ok(()),
            closed => closed,
        }
    }

    /// Hands a request to the writer and waits for its answer. Dropped before it is in the queue, nothing is done; later, all of it.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.inner.queue.as_ref().ok_or(StoreError::Closed)?;
        let place = queue.reserve().await.map_err(|_| StoreError::Closed)?;
        place.send(request(reply));
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(super) async fn append_batch(&self, topic: &Topic, batch: Append) -> Result<Vec<Appended>, StoreError> {
        let shared = &self.inner.shared;
        batch.check(&shared.settings.limits)?;
        let inner = &*self.inner;
        let bytes: usize = batch.entries.iter().map(|entry| entry.bytes() + ENTRY_BYTES).sum();
        let share = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1).min(writer::QUEUE_KIB);
        // Mostly there is room at once. What waits for it is boxed, so that an append under way is small.
        let share = match Arc::clone(&inner.room).try_acquire_many_owned(share) {
            Ok(share) => share,
            Err(_) => Box::pin(Arc::clone(&inner.room).acquire_many_owned(share)).await.map_err(|_| StoreError::Closed)?,
        };
        let queue = inner.queue.as_ref().ok_or(StoreError::Closed)?;
        let place = match queue.try_reserve() {
            Ok(place) => place,
            Err(_) => Box::pin(queue.reserve()).await.map_err(|_| StoreError::Closed)?,
        };
        let (reply, answer) = oneshot::channel();
        let (topic, desk) = (topic.clone(), inner.desks.here());
        place.send(Request::Append(Appending { topic, batch, reply, desk, share }));
        answer.await.map_or(Err(StoreError::Closed), |settled| settled.answer)
    }

    /// The topic's numbers as they are in memory.
    pub(super) fn meta(&self, topic: &Topic) -> Option<Meta> {
        self.inner.shared.lock().by_name.get(topic).map(|state| state.meta)
    }

    pub(super) fn read_batch(&self, topic: &Topic, from: Position, limit: Limit) -> Result<Batch, StoreError> {
        let Some(known) = self.meta(topic) else { return self.absent(topic, from) };
        if from == Position::End || from == Position::After(known.last) {
            return Ok(Batch { next: known.last, caught_up: true, ..Batch::default() });
        }
        let found = self.inner.shared.engine.read(|rows| {
            let Some(meta) = self.inner.shared.meta(rows, topic, &known)? else { return Ok(None) };
            let (after, gap) = match from {
                Position::After(id) if id > meta.last => (meta.trimmed, Some((id, GapCause::Ahead))),
                // Nothing of this topic was trimmed yet, and the position is not from the one that was deleted under its name.
                Position::After(EntryId::MIN) if meta.gone == 0 => (meta.trimmed, None),
                Position::After(id) if id < meta.trimmed => (meta.trimmed, Some((id, GapCause::Trimmed))),
                from => (admin::start(&meta, from), None),
            };
            Ok(Some((meta, after, gap, read::page(&rows.table, &meta, after, limit)?)))
        })?;
        let Some((meta, after, gap, page)) = found else { return self.absent(topic, from) };
        let entries: Vec<Entry> = page.into_iter().map(|(_, entry)| entry).collect();
        let resumes_at = entries.first().map(|entry| entry.id);
        let gap = gap.map(|(asked_after, cause)| Gap::new(topic.clone(), asked_after, resumes_at, cause, true));
        let next = entries.last().map_or(after, |entry| entry.id);
        Ok(Batch { next, entries, gap, caught_up: next >= meta.last })
    }

    /// What is read of a topic that does not exist.
    fn absent(&self, topic: &Topic, from: Position) -> Result<Batch, StoreError> {
        self.inner.shared.engine.check_open()?;
        let gap = match from {
            Position::After(id) if id > EntryId::MIN => Some(Gap::new(topic.clone(), id, None, GapCause::Ahead, true)),
            _ => None,
        };
        Ok(Batch { gap, caught_up: true, ..Batch::default() })
    }

    pub(super) fn info_of(&self, topic: &Topic) -> Result<TopicInfo, StoreError> {
        self.inner.shared.engine.check_open()?;
        let known = self.inner.shared.lock().by_name.get(topic).map(|state| (state.meta, state.groups_len()));
        let Some((meta, groups)) = known else {
            return Ok(TopicInfo { appended: Some(0), bytes: Some(0), ..TopicInfo::default() });
        };
        let first = if meta.kept() == 0 {
            None
        } else {
            self.read_batch(topic, Position::Start, Limit { entries: 1, bytes: 0 })?.entries.pop()
        };
        Ok(TopicInfo {
            entries: meta.kept(),
            appended: Some(meta.appended),
            bytes: Some(meta.bytes),
            first: first.map(|entry| entry.id),
            last: meta.newest(),
            groups: groups as u64,
        })
    }

    pub(super) fn topics_after(&self, after: Option<&Topic>, limit: usize) -> Result<Vec<Topic>, StoreError> {
        self.inner.shared.engine.check_open()?;
        let topics = self.inner.shared.lock();
        // The smallest so many, without sorting all of them.
        let mut page: BTreeSet<&Topic> = BTreeSet::new();
        for topic in topics.by_name.keys().filter(|topic| after.is_none_or(|after| *topic > after)) {
            if page.len() < limit {
                page.insert(topic);
            } else if page.last().is_some_and(|last| topic < *last) {
                page.pop_last();
                page.insert(topic);
            }
        }
        Ok(page.into_iter().cloned().collect())
    }

    /// Tells the writer that a group changed. If the queue is full it is about to look anyway.
    pub(super) fn nudge(&self) {
        if let Some(queue) = &self.inner.queue {
            let _ = queue.try_send(Request::Nudge);
        }
    }
}

/// What an entry takes in the queue besides its bytes.
const ENTRY_BYTES: usize = 128;

impl Drop for Inner {
    fn drop(&mut self) {
        // Its end tells the writer to finish.
        self.queue = None;
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has said by itself what went wrong.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("topics", &self.inner.shared.lock().by_name.len()).finish_non_exhaustive()
    }
}
