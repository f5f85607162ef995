//! Bare: what the embedded store is made of, without it: a file that is synced, and the engine with a row per entry.

use std::fs::File;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::thread;
use std::thread::JoinHandle;

use actix_pubsub::log::EmbeddedStore;
use redb::Database;
use redb::ReadableDatabase;
use redb::ReadableTableMetadata;
use redb::TableDefinition;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

/// An entry's length and the entry, appended; a sync for each batch.
pub(crate) struct RawFile {
    file: File,
    bytes: u64,
}

impl RawFile {
    pub(crate) fn create(path: &Path) -> Self {
        Self { file: File::create(path).expect("a file"), bytes: 0 }
    }

    /// Appends in batches, each on disk before the next.
    pub(crate) fn append(&mut self, entries: u64, batch: u64, payload: &[u8]) {
        let mut buffer = Vec::new();
        for _ in 0..entries / batch {
            buffer.clear();
            for _ in 0..batch {
                buffer.extend_from_slice(&(payload.len() as u32).to_be_bytes());
                buffer.extend_from_slice(payload);
            }
            self.file.write_all(&buffer).expect("room on the disk");
            self.file.sync_data().expect("a disk that works");
            self.bytes += buffer.len() as u64;
        }
    }

    pub(crate) fn check(&self) {
        assert_eq!(self.file.metadata().expect("it is there").len(), self.bytes, "the raw file lacks entries");
    }
}

/// The engine with the settings of the embedded store, and a row per entry: topic, time and number to payload.
pub(crate) struct BareEngine {
    database: Database,
    /// Two syncs a commit instead of one, and nothing to repair after a crash.
    quick_repair: bool,
    next: u64,
}

type Key = (u64, u64, u64);
const ROWS: TableDefinition<'static, Key, &'static [u8]> = TableDefinition::new("entries");

impl BareEngine {
    pub(crate) fn create(path: &Path) -> Self {
        let mut builder = Database::builder();
        builder.set_cache_size(EmbeddedStore::CACHE_BYTES_DEFAULT);
        let mut engine = Self { database: builder.create(path).expect("an engine"), quick_repair: false, next: 0 };
        // The table.
        engine.commit(std::iter::empty());
        engine
    }

    /// As a store with `instant_recovery`.
    pub(crate) fn quick_repair(mut self) -> Self {
        self.quick_repair = true;
        self
    }

    /// Appends in commits of this size, each on disk before the next.
    pub(crate) fn append(&mut self, entries: u64, batch: u64, payload: impl Fn(u64) -> Vec<u8>) {
        let end = self.next + entries;
        while self.next < end {
            let payloads: Vec<_> = (self.next..end.min(self.next + batch)).map(&payload).collect();
            self.commit(payloads.iter().map(Vec::as_slice));
        }
    }

    /// One commit of the same payload so many times.
    pub(crate) fn append_same(&mut self, entries: u64, batch: u64, payload: &[u8]) {
        for _ in 0..entries / batch {
            self.commit((0..batch).map(|_| payload));
        }
    }

    fn commit<'a>(&mut self, payloads: impl Iterator<Item = &'a [u8]>) {
        let mut transaction = self.database.begin_write().expect("a transaction");
        transaction.set_durability(redb::Durability::Immediate).expect("a durability");
        transaction.set_quick_repair(self.quick_repair);
        {
            let mut rows = transaction.open_table(ROWS).expect("the table");
            for payload in payloads {
                rows.insert((1, MS, self.next), payload).expect("an insert");
                self.next += 1;
            }
        }
        transaction.commit().expect("a commit");
    }

    /// Hands every entry to `visit`, in order. Returns how many there were.
    pub(crate) fn scan(&self, mut visit: impl FnMut(u64, &[u8])) -> u64 {
        let transaction = self.database.begin_read().expect("a transaction");
        let rows = transaction.open_table(ROWS).expect("the table");
        let all: RangeInclusive<Key> = (1, 0, 0)..=(1, u64::MAX, u64::MAX);
        let mut count = 0;
        for row in rows.range(all).expect("a range") {
            let (key, payload) = row.expect("a row");
            visit(key.value().2, payload.value());
            count += 1;
        }
        count
    }

    pub(crate) fn check(&self) {
        let transaction = self.database.begin_read().expect("a transaction");
        let rows = transaction.open_table(ROWS).expect("the table");
        assert_eq!(rows.len().expect("a length"), self.next, "the bare engine lacks entries");
    }
}

/// The engine on a thread behind a channel, one commit for what waits there: what it takes to have many appenders at all.
pub(crate) struct QueuedEngine {
    queue: mpsc::Sender<Asked>,
    thread: JoinHandle<BareEngine>,
}

type Asked = (Vec<u8>, oneshot::Sender<()>);

impl QueuedEngine {
    pub(crate) fn start(mut engine: BareEngine) -> Self {
        let (queue, mut asked) = mpsc::channel::<Asked>(BATCH_MAX);
        let thread = thread::spawn(move || {
            let mut batch = Vec::new();
            while futures::executor::block_on(asked.recv_many(&mut batch, BATCH_MAX)) > 0 {
                engine.commit(batch.iter().map(|(payload, _)| payload.as_slice()));
                for (_, answer) in batch.drain(..) {
                    answer.send(()).expect("every appender waits");
                }
            }
            engine
        });
        Self { queue, thread }
    }

    /// How to append one entry.
    pub(crate) fn appender(&self) -> impl AsyncFn(Vec<u8>) + Clone + 'static {
        let queue = self.queue.clone();
        async move |payload| {
            let (answer, answered) = oneshot::channel();
            queue.send((payload, answer)).await.expect("its thread runs");
            answered.await.expect("every entry is committed");
        }
    }

    /// Ends the thread.
    pub(crate) fn finish(self) {
        drop(self.queue);
        self.thread.join().expect("it does not panic").check();
    }
}

/// Entries of a commit at most, as in the embedded store.
const BATCH_MAX: usize = 1_024;
/// The time in all ids.
const MS: u64 = 1_780_000_000_000;
