//! Disk: the file under the engine. Its first 4 KiB say what the file is, then comes the journal; the rest is the engine's. Knows no topics.

use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::log::error::Outcome;
use crate::log::error::StoreError;

/// What a store lies on: a file, or what stands in for one in tests.
pub(super) type Disk = Arc<dyn StorageBackend>;

/// The format that this version reads and writes.
pub(super) const FORMAT: u64 = 1;

/// The first bytes of every store.
const MAGIC: &[u8; 16] = b"actix-pubsub log";
/// Ours; the journal begins here.
pub(super) const HEAD_BYTES: u64 = 4_096;
/// Ours, too.
pub(super) const JOURNAL_BYTES: u64 = 1 << 20;
/// The engine's pages begin here.
pub(super) const PAGES_AT: u64 = HEAD_BYTES + JOURNAL_BYTES;
/// What of it is used: magic, format, phase, commits, checksum.
const HEAD_USED: usize = 16 + 8 + 8 + 8 + 4;

/// The state of the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is being made: nothing in it counts yet.
    New,
    /// It is open, or its process died.
    Open,
    /// It was closed after so many commits.
    Closed(u64),
}

/// Opens the file, makes it if there is none, and locks it against every other process and handle.
pub(super) fn open_file(path: &Path) -> Result<Disk, StoreError> {
    let engine = |error: io::Error| StoreError::Engine { source: Arc::new(error) };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(engine)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(engine(error)),
    }
    if let Some(folder) = path.parent()
        && let Ok(folder) = File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    {
        // The name of a new file is durable with its folder. Not every system can do this, and those that cannot need not.
        let _ = folder.sync_all();
    }
    let disk = FileBackend::new(file).map_err(|error| StoreError::Engine { source: Arc::new(error) })?;
    Ok(Arc::new(disk))
}

/// Reads the phase. `New` for an empty disk, and for one whose making was cut off.
pub(super) fn read_phase(disk: &Disk) -> Result<Phase, StoreError> {
    let len = disk.len().map_err(failed)?;
    if len < HEAD_BYTES {
        let mut start = vec![0; (len as usize).min(HEAD_USED)];
        disk.read(0, &mut start).map_err(failed)?;
        // The head is written in one piece before anything else, so what is cut off holds a part of it, or nothing yet.
        let new = start.iter().zip(head(Phase::New)).all(|(is, expected)| *is == expected || *is == 0);
        return if new { Ok(Phase::New) } else { Err(corrupt("the file is no store and too short for one")) };
    }
    let mut head = [0; HEAD_USED];
    disk.read(0, &mut head).map_err(failed)?;
    if head == [0; HEAD_USED] && len <= PAGES_AT {
        return Ok(Phase::New);
    }
    if head[..16] != *MAGIC {
        return Err(corrupt("the file does not begin as a store does"));
    }
    let sum = crc32fast::hash(&head[..HEAD_USED - 4]).to_le_bytes();
    let number = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    if head[HEAD_USED - 4..] != sum {
        return Err(corrupt("the checksum of the head is wrong"));
    }
    if number(16) != FORMAT {
        return Err(StoreError::Version { path: None, found: number(16), supported: FORMAT });
    }
    match number(24) {
        0 => Ok(Phase::New),
        1 => Ok(Phase::Open),
        2 => Ok(Phase::Closed(number(32))),
        other => Err(corrupt(&format!("phase {other} does not exist"))),
    }
}

/// Writes the phase, durably.
pub(super) fn write_phase(disk: &Disk, phase: Phase) -> Result<(), StoreError> {
    let write = || -> io::Result<()> {
        if disk.len()? < PAGES_AT {
            disk.set_len(PAGES_AT)?;
        }
        disk.write(0, &head(phase))?;
        disk.sync_data()
    };
    write().map_err(failed)
}

/// Drops the engine's pages: the making of the store was cut off.
pub(super) fn start_anew(disk: &Disk) -> Result<(), StoreError> {
    disk.set_len(PAGES_AT).map_err(failed)?;
    write_phase(disk, Phase::New)
}

fn head(phase: Phase) -> [u8; HEAD_USED] {
    let (phase, commits) = match phase {
        Phase::New => (0, 0),
        Phase::Open => (1, 0),
        Phase::Closed(commits) => (2, commits),
    };
    let mut head = [0; HEAD_USED];
    head[..16].copy_from_slice(MAGIC);
    for (at, number) in [(16, FORMAT), (24, phase), (32, commits)] {
        head[at..at + 8].copy_from_slice(&u64::to_be_bytes(number));
    }
    let sum = crc32fast::hash(&head[..HEAD_USED - 4]);
    head[HEAD_USED - 4..].copy_from_slice(&sum.to_le_bytes());
    head
}

fn corrupt(detail: &str) -> StoreError {
    StoreError::Corrupt { at: "the head of the file, bytes 0 to 44".to_owned(), detail: detail.to_owned() }
}

/// What the system said, as an error of ours.
pub(super) fn failed(error: io::Error) -> StoreError {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    if full.contains(&error.kind()) {
        StoreError::Full { source: Arc::new(error) }
    } else {
        StoreError::Unavailable { outcome: Outcome::NotDone, source: Arc::new(error) }
    }
}

/// The disk as one generation of the engine sees it: without our head and journal, and only until it is fenced off.
///
/// After an error the engine wants to be opened again. The file, and its lock, stay ours meanwhile.
#[derive(Debug)]
pub(super) struct Pages {
    disk: Disk,
    fenced: Arc<AtomicBool>,
}

impl Pages {
    /// The pages, and the flag that ends their use.
    pub(super) fn new(disk: Disk) -> (Self, Arc<AtomicBool>) {
        let fenced = Arc::new(AtomicBool::new(false));
        (Self { disk, fenced: Arc::clone(&fenced) }, fenced)
    }

    /// A generation that was given up may have work left for its end: none of it may reach the file.
    fn check(&self) -> io::Result<()> {
        if self.fenced.load(Ordering::Acquire) {
            return Err(io::Error::other("the engine was opened anew"));
        }
        Ok(())
    }
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.len()?.saturating_sub(PAGES_AT))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset.checked_add(PAGES_AT).ok_or(io::ErrorKind::InvalidInput)?;
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.disk.set_len(len.checked_add(PAGES_AT).ok_or(io::ErrorKind::InvalidInput)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.disk.write(offset.checked_add(PAGES_AT).ok_or(io::ErrorKind::InvalidInput)?, data)
    }
}
