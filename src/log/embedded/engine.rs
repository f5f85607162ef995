//! Engine: redb under a guard. Its errors become ours, its panics errors, and after one it is opened again. Knows rows, no topics.

use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redb::Database;
use redb::ReadOnlyTable;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::StorageError;
use redb::Table;
use redb::TableDefinition;

use crate::log::embedded::disk;
use crate::log::embedded::disk::Disk;
use crate::log::embedded::disk::Pages;
use crate::log::embedded::disk::Phase;
use crate::log::embedded::journal::Journal;
use crate::log::embedded::journal::NoteError;
use crate::log::embedded::journal::Record;
use crate::log::embedded::journal::Tip;
use crate::log::embedded::row;
use crate::log::embedded::row::StoreRow;
use crate::log::error::Outcome;
use crate::log::error::StoreError;
use crate::sync::lock;

/// The one table.
const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");

/// How long a close waits for reads that have begun.
const READERS_MS_MAX: u32 = 5_000;

/// How often an operation is tried on an engine that was opened again.
const TRIES: usize = 3;

/// The engine, in its current generation.
pub(super) struct Engine {
    disk: Disk,
    cache_bytes: usize,
    /// Held while a transaction is committed. Taken after `current` where both are.
    journal: Mutex<Journal>,
    current: RwLock<Current>,
}

struct Current {
    number: u64,
    database: Option<Arc<Generation>>,
    closed: bool,
}

/// One opening of the engine.
struct Generation {
    database: Database,
    fenced: Arc<AtomicBool>,
}

/// What a commit that returned has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// It is in memory; it is on disk with the next.
    Memory,
    /// It is on disk, with one sync: in the journal if that takes it, else in the table. After a crash the opening walks through the file and
    /// verifies every page, unless it is to be `quick`: then what the journal does not take costs two syncs.
    Noted { quick: bool },
    /// It is on disk, in the table, with two syncs. After a crash the opening has nothing to walk through.
    Quick,
}

impl Level {
    /// Whether an opening after a crash has to walk through the file.
    pub(super) fn walks(self) -> bool {
        !matches!(self, Self::Quick | Self::Noted { quick: true })
    }
}

/// What went wrong inside a transaction.
pub(super) enum Failure {
    /// Ours: the engine is well.
    Store(StoreError),
    /// The engine's: it has to be opened again.
    Engine(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl<E: Into<redb::Error>> From<E> for Failure
where
    E: EngineError,
{
    fn from(error: E) -> Self {
        Self::Engine(convert(error.into()))
    }
}

/// The errors of redb.
pub(super) trait EngineError {}
impl EngineError for StorageError {}
impl EngineError for redb::TableError {}
impl EngineError for redb::TransactionError {}
impl EngineError for redb::CommitError {}
impl EngineError for redb::DatabaseError {}
impl EngineError for redb::SetDurabilityError {}

pub(super) type Tried<T> = Result<T, Failure>;

/// An error of redb as one of ours.
fn convert(error: redb::Error) -> StoreError {
    match error {
        // What redb makes of pages that are not its own, or that point out of the file.
        redb::Error::Io(error) if NONSENSE.contains(&error.kind()) => damaged(error.to_string()),
        redb::Error::Io(error) => disk::failed(error),
        redb::Error::Corrupted(detail) => damaged(detail),
        error @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted) => damaged(error.to_string()),
        error => StoreError::Unavailable { outcome: Outcome::NotDone, source: Arc::new(error) },
    }
}

const NONSENSE: [io::ErrorKind; 3] = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidInput];

fn damaged(detail: String) -> StoreError {
    StoreError::Corrupt { at: "the engine's pages".to_owned(), detail }
}

/// Runs what may panic on damaged pages.
fn guarded<T>(run: impl FnOnce() -> Tried<T>) -> Tried<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Failure::Engine(damaged(format!("the engine panicked: {}", text.unwrap_or("without a word")))))
    })
}

impl Engine {
    /// Opens a store, makes it on an empty disk. Returns what its file said of itself, too.
    pub(super) fn open(disk: Disk, cache_bytes: usize, journal_bytes: u64, verify: bool) -> Result<(Self, Phase), StoreError> {
        let phase = disk::read_phase(&disk)?;
        if phase == Phase::New {
            disk::start_anew(&disk)?;
        }
        let mut journal = Journal::new(Arc::clone(&disk), journal_bytes);
        let generation = Generation::open(&disk, cache_bytes, verify)?;
        if phase != Phase::New {
            generation.replay(&mut journal)?;
        }
        let current = RwLock::new(Current { number: 0, database: Some(Arc::new(generation)), closed: false });
        let engine = Self { disk, cache_bytes, journal: Mutex::new(journal), current };
        if phase == Phase::New {
            engine.write(Level::Quick, |rows| {
                rows.put(&row::store_key(), &StoreRow::default().encode())?;
                Ok(())
            })?;
        }
        Ok((engine, phase))
    }

    /// Marks the file as open: from here on its last commits are not known beforehand.
    pub(super) fn mark_open(&self) -> Result<(), StoreError> {
        disk::write_phase(&self.disk, Phase::Open)
    }

    /// `Closed` after [`close`](Self::close).
    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        let closed = self.current.read().unwrap_or_else(PoisonError::into_inner).closed;
        if closed { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn current(&self) -> Result<(u64, Arc<Generation>), StoreError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let number = current.number;
        if current.closed {
            return Err(StoreError::Closed);
        }
        match &current.database {
            Some(database) => Ok((number, Arc::clone(database))),
            None => {
                drop(current);
                self.reopen(number)
            }
        }
    }

    /// Opens the engine again, unless that was done since generation `number`.
    fn reopen(&self, number: u64) -> Result<(u64, Arc<Generation>), StoreError> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.closed {
            return Err(StoreError::Closed);
        }
        if current.number == number {
            if let Some(old) = current.database.take() {
                old.fenced.store(true, Ordering::Release);
                // What a reader still holds ends with the reader.
                drop_guarded(old);
            }
            current.number += 1;
            let generation = Generation::open(&self.disk, self.cache_bytes, false)?;
            generation.replay(&mut lock(&self.journal))?;
            current.database = Some(Arc::new(generation));
        }
        match &current.database {
            Some(database) => Ok((current.number, Arc::clone(database))),
            None => Err(StoreError::Closed),
        }
    }

    /// Runs `read` on the newest state, again if the engine had to be opened again.
    pub(super) fn read<T>(&self, read: impl Fn(&Reading) -> Tried<T>) -> Result<T, StoreError> {
        let mut tries = 1;
        loop {
            let (number, generation) = self.current()?;
            let answer = guarded(|| {
                let transaction = generation.database.begin_read()?;
                read(&Reading { table: transaction.open_table(ROWS)? })
            });
            drop_guarded(generation);
            match answer {
                Ok(answer) => return Ok(answer),
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Engine(error)) => {
                    self.reopen(number)?;
                    if tries == TRIES || matches!(error, StoreError::Corrupt { .. }) {
                        return Err(error);
                    }
                    tries += 1;
                }
            }
        }
    }

    /// Runs `write` in one transaction and commits it. After an error of the engine it is open again, and what became of the commit is to be read.
    pub(super) fn write<T>(&self, level: Level, write: impl FnOnce(&mut Writing<'_>) -> Tried<T>) -> Result<T, WriteError> {
        let (number, generation) = self.current().map_err(WriteError::NotDone)?;
        let mut there = false;
        let answer = guarded(|| {
            let mut transaction = generation.database.begin_write()?;
            let noted = matches!(level, Level::Noted { .. });
            let (done, record) = {
                let record = noted.then(Record::default);
                let mut rows = Writing { table: transaction.open_table(ROWS)?, sum: 0, record };
                let done = write(&mut rows);
                (done, rows.record)
            };
            let done = match done {
                Ok(done) => done,
                Err(error) => {
                    transaction.abort()?;
                    return Err(error);
                }
            };
            let mut journal = lock(&self.journal);
            let record = record.filter(|record| journal.takes(record));
            if level == Level::Memory || record.is_some() {
                transaction.set_durability(redb::Durability::None)?;
            } else {
                transaction.set_durability(redb::Durability::Immediate)?;
                transaction.set_quick_repair(!level.walks());
            }
            match record {
                Some(record) => {
                    // Whoever opened the engine again meanwhile has not seen this record.
                    generation.check_current()?;
                    journal.write(record).map_err(|NoteError { error, is_there }| {
                        there = is_there;
                        Failure::Engine(error)
                    })?;
                    // Only now: nobody reads what is not on disk.
                    transaction.commit()?;
                }
                None => {
                    transaction.commit()?;
                    if level == Level::Memory { journal.cut() } else { journal.settled() }
                }
            }
            Ok(done)
        });
        drop_guarded(generation);
        match answer {
            Ok(answer) => Ok(answer),
            Err(Failure::Store(error)) => Err(WriteError::NotDone(error)),
            Err(Failure::Engine(error)) => {
                // If this fails the next use tries again.
                let _ = self.reopen(number);
                Err(WriteError::Unknown(if there { unknown(error) } else { error }))
            }
        }
    }

    /// Whether the table on disk has not everything that was committed.
    pub(super) fn is_noted(&self) -> bool {
        lock(&self.journal).is_used()
    }

    /// Closes the engine and marks the file as closed after so many commits.
    pub(super) fn close(&self, commits: u64) -> Result<(), StoreError> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut current.closed, true) {
            return Ok(());
        }
        let Some(mut shared) = current.database.take() else { return Ok(()) };
        drop(current);
        // Readers that have begun end soon. The file is not marked as closed before the engine is.
        let mut patience = READERS_MS_MAX;
        let generation = loop {
            match Arc::try_unwrap(shared) {
                Ok(generation) => break generation,
                Err(_) if patience == 0 => return Ok(()),
                Err(held) => shared = held,
            }
            patience -= 1;
            std::thread::sleep(Duration::from_millis(1));
        };
        let closed = guarded(|| Ok(generation.database.close()?));
        match closed {
            Ok(()) => disk::write_phase(&self.disk, Phase::Closed(commits)),
            Err(Failure::Store(error) | Failure::Engine(error)) => Err(error),
        }
    }
}

/// The same, but it may have happened.
pub(super) fn unknown(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable { source, .. } | StoreError::Full { source } => {
            StoreError::Unavailable { outcome: Outcome::Unknown, source }
        }
        error => error,
    }
}

/// Why a transaction was not committed.
pub(super) enum WriteError {
    /// It was not.
    NotDone(StoreError),
    /// It may have been.
    Unknown(StoreError),
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotDone(error) | WriteError::Unknown(error) => error,
        }
    }
}

impl Generation {
    fn open(disk: &Disk, cache_bytes: usize, verify: bool) -> Result<Self, StoreError> {
        let (pages, fenced) = Pages::new(Arc::clone(disk));
        let opened = guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(cache_bytes);
            builder.set_check_integrity_on_open(verify);
            Ok(builder.create_with_backend(pages)?)
        });
        match opened {
            Ok(database) => Ok(Self { database, fenced }),
            Err(Failure::Store(error) | Failure::Engine(error)) => {
                fenced.store(true, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Fails once this generation was given up.
    fn check_current(&self) -> Tried<()> {
        if self.fenced.load(Ordering::Acquire) {
            return Err(Failure::Engine(disk::failed(io::Error::other("the engine was opened anew"))));
        }
        Ok(())
    }

    /// Brings what only the journal has into the table, in memory.
    fn replay(&self, journal: &mut Journal) -> Result<(), StoreError> {
        let replayed = guarded(|| {
            let tip = {
                let table = self.database.begin_read()?.open_table(ROWS)?;
                let value = table.get(&row::store_key()[..])?;
                value.map(|value| Tip::of(value.value())).transpose()?
            };
            let records = journal.after(tip.unwrap_or_default())?;
            if records.is_empty() {
                return Ok(());
            }
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(redb::Durability::None)?;
            {
                let mut table = transaction.open_table(ROWS)?;
                for (key, value) in records.ops() {
                    match value {
                        Some(value) => drop(table.insert(key, value)?),
                        None => drop(table.remove(key)?),
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        });
        replayed.map_err(|(Failure::Store(error) | Failure::Engine(error))| error)
    }
}

/// However an opening fails, the engine's own closing is guarded.
impl Drop for Engine {
    fn drop(&mut self) {
        let current = self.current.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(generation) = current.database.take() {
            drop_guarded(generation);
        }
    }
}

/// The last handle of a generation closes it, which on damaged pages may panic.
fn drop_guarded(generation: Arc<Generation>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(generation)));
}

/// The rows as of one moment.
pub(super) struct Reading {
    pub(super) table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

/// The rows inside a write transaction. Adds up what the store row has to know of all the others.
pub(super) struct Writing<'txn> {
    pub(super) table: Table<'txn, &'static [u8], &'static [u8]>,
    /// What the changes add to [`StoreRow::sum`].
    pub(super) sum: u64,
    /// The changes, for the journal.
    record: Option<Record>,
}

impl Writing<'_> {
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Tried<()> {
        let old = self.table.insert(key, value)?;
        if let Some(record) = &mut self.record {
            record.put(key, value);
            if key.first() == Some(&row::STORE) {
                let before = old.as_ref().map_or(0, |old| row::sum_of(old.value()));
                record.follow(StoreRow::decode(value)?.commits, before as u32);
            }
        }
        if counts(key) {
            let old = old.map_or(0, |old| row::sum_of(old.value()));
            self.sum = self.sum.wrapping_add(row::sum_of(value)).wrapping_sub(old);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Tried<()> {
        let old = self.table.remove(key)?;
        if let Some(record) = &mut self.record {
            record.remove(key);
        }
        if counts(key) {
            self.sum = self.sum.wrapping_sub(old.map_or(0, |old| row::sum_of(old.value())));
        }
        Ok(())
    }

    /// Removes all rows whose keys begin so.
    pub(super) fn remove_all(&mut self, prefix: &[u8]) -> Tried<()> {
        let mut keys = Vec::new();
        for row in self.table.range(prefix..)? {
            let (key, _) = row?;
            if !key.value().starts_with(prefix) {
                break;
            }
            keys.push(key.value().to_vec());
        }
        keys.iter().try_for_each(|key| self.remove(key))
    }
}

/// Whether [`StoreRow::sum`] counts the row. Blocks prove themselves by their ordinals.
pub(super) fn counts(key: &[u8]) -> bool {
    !matches!(key.first(), Some(&(row::STORE | row::BLOCK)))
}
