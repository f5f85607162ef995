//! Journal: the newest commits, one after the other in a place of their own, until the table has them. Knows records of rows, no engine.
//!
//! A commit of the engine writes some ten pages all over the file, each a write of its own for the disk. A record is one, in a place that is there
//! already. So a small commit is a record, and in the table in memory only; the table is written when the journal is full, or the store idle.
//!
//! Each record begins a block of 4 KiB, so that no write touches one that is on disk, and names the state that it follows: the number of the commit
//! and the checksum of the store row before it. A record that does not follow the state at hand is not there.

use std::ops::Range;

use crate::log::embedded::disk;
use crate::log::embedded::disk::Disk;
use crate::log::embedded::row;
use crate::log::embedded::row::Fields;
use crate::log::embedded::row::StoreRow;
use crate::log::error::StoreError;

/// Where the next record goes, and whether it may.
#[derive(Debug)]
pub(super) struct Journal {
    disk: Disk,
    /// Bytes of it that are used.
    room: u64,
    /// Bytes of the records that the table on disk has not. `None`: they were not looked at yet.
    end: Option<u64>,
    /// There were commits that are neither here nor on disk in the table: no record can follow them.
    is_cut: bool,
}

/// What a commit does to rows, as bytes.
#[derive(Debug, Default)]
pub(super) struct Record {
    bytes: Vec<u8>,
    /// The number of the commit and the checksum of the store row before it.
    follows: Option<(u64, u32)>,
    is_too_large: bool,
}

/// A state that a record may follow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) commits: u64,
    pub(super) sum: u32,
}

impl Journal {
    pub(super) fn new(disk: Disk, room: u64) -> Self {
        Self { disk, room: room.min(disk::JOURNAL_BYTES), end: None, is_cut: false }
    }

    /// Whether it has records that the table on disk has not.
    pub(super) fn is_used(&self) -> bool {
        self.end != Some(0)
    }

    /// Whether the record can be written.
    pub(super) fn takes(&self, record: &Record) -> bool {
        let end = self.end.unwrap_or(u64::MAX);
        !self.is_cut && !record.is_too_large && record.follows.is_some() && end.saturating_add(record.blocks()) <= self.room
    }

    /// Writes a record behind the others, durably. After an error it is not there, unless the answer is `Unknown`.
    pub(super) fn write(&mut self, record: Record) -> Result<(), NoteError> {
        let (at, blocks) = (self.end.unwrap_or_default(), record.blocks());
        let bytes = record.finish();
        debug_assert!(!bytes.is_empty() && at + blocks <= self.room);
        let whole = self.disk.write(disk::HEAD_BYTES + at, &bytes);
        // The disk may have any of it, whatever the system shows from here on.
        let was_whole = whole.is_ok();
        match whole.and_then(|()| self.disk.sync_data()) {
            Ok(()) => {
                self.end = Some(at + blocks);
                Ok(())
            }
            Err(error) => {
                // Nobody can say what of it is on disk: so that it is not taken for one later, it must not be.
                let erased = self.disk.write(disk::HEAD_BYTES + at, &[0; BLOCK]).and_then(|()| self.disk.sync_data());
                let is_there = erased.is_err() && (was_whole || self.may_hold(at, bytes.len()));
                Err(NoteError { error: disk::failed(error), is_there })
            }
        }
    }

    /// Whether a record that was not written whole, for want of room, is at `at` all the same, as the system has it: the disk cannot have more.
    fn may_hold(&self, at: u64, len: usize) -> bool {
        let mut found = vec![0; len];
        self.disk.read(disk::HEAD_BYTES + at, &mut found).is_err() || open(&found).is_some()
    }

    /// The table on disk has everything.
    pub(super) fn settled(&mut self) {
        (self.end, self.is_cut) = (Some(0), false);
    }

    /// A commit was made of which neither this nor the disk knows.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// The records that follow `tip`.
    pub(super) fn after(&mut self, mut tip: Tip) -> Result<Records, StoreError> {
        let end = self.end.unwrap_or(disk::JOURNAL_BYTES);
        let len = self.disk.len().map_err(disk::failed)?.saturating_sub(disk::HEAD_BYTES).min(end);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        self.disk.read(disk::HEAD_BYTES, &mut bytes).map_err(disk::failed)?;
        let (mut at, mut bodies) = (0, Vec::new());
        while let Some((follows, body)) = open(&bytes[at..])
            && follows == (tip.commits + 1, tip.sum)
        {
            tip = tip_of(body).ok_or_else(|| corrupt(at, "its checksum is right, and it is no record"))?;
            bodies.push(at + HEAD..at + HEAD + body.len());
            at = (at + HEAD + body.len()).next_multiple_of(BLOCK).min(bytes.len());
        }
        // A record is on disk before the next one is begun: one that is newer than where they end was one of them.
        let newer = |at: &usize| open(&bytes[*at..]).is_some_and(|((commits, _), _)| commits > tip.commits);
        if let Some(newer) = (at..bytes.len()).step_by(BLOCK).find(newer) {
            return Err(corrupt(at, &format!("commit {} is missing, a later one is at byte {newer}", tip.commits + 1)));
        }
        (self.end, self.is_cut) = (Some(at as u64), false);
        Ok(Records { bytes, bodies })
    }
}

/// Records in their order.
pub(super) struct Records {
    bytes: Vec<u8>,
    bodies: Vec<Range<usize>>,
}

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// What they do: keys with their values, or none for those removed.
    pub(super) fn ops(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.bodies.iter().flat_map(|body| Ops { from: Fields::of(&self.bytes[body.clone()]) })
    }
}

/// Why a record was not written.
pub(super) struct NoteError {
    pub(super) error: StoreError,
    /// It may be there all the same.
    pub(super) is_there: bool,
}

impl Record {
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        if self.has_room(key.len() + value.len()) {
            self.bytes.push(PUT);
            row::put_bytes(&mut self.bytes, key);
            row::put_bytes(&mut self.bytes, value);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.has_room(key.len()) {
            self.bytes.push(REMOVE);
            row::put_bytes(&mut self.bytes, key);
        }
    }

    /// The state that it follows.
    pub(super) fn follow(&mut self, commits: u64, sum: u32) {
        self.follows = Some((commits, sum));
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; HEAD]);
        }
        self.is_too_large |= self.bytes.len() + bytes > RECORD_BYTES_MAX;
        !self.is_too_large
    }

    /// The bytes that it takes in the file.
    fn blocks(&self) -> u64 {
        self.bytes.len().next_multiple_of(BLOCK) as u64
    }

    fn finish(self) -> Vec<u8> {
        let (mut bytes, (commits, sum)) = (self.bytes, self.follows.unwrap_or_default());
        let len = (bytes.len() - HEAD) as u32;
        bytes[4..8].copy_from_slice(&len.to_be_bytes());
        bytes[8..16].copy_from_slice(&commits.to_be_bytes());
        bytes[16..HEAD].copy_from_slice(&sum.to_be_bytes());
        let crc = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        // Whole blocks: else the system reads the rest of the last one first.
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }
}

/// What `bytes` begin with: the state that it follows, and the operations. `None`: no record.
fn open(bytes: &[u8]) -> Option<((u64, u32), &[u8])> {
    let (len, commits, sum) = (bytes.get(4..8)?, bytes.get(8..16)?, bytes.get(16..HEAD)?);
    let len = u32::from_be_bytes(*len.first_chunk()?) as usize;
    let whole = bytes.get(4..HEAD.checked_add(len)?)?;
    let follows = (u64::from_be_bytes(*commits.first_chunk()?), u32::from_be_bytes(*sum.first_chunk()?));
    (len > 0 && bytes[..4] == crc32fast::hash(whole).to_le_bytes()).then_some((follows, &bytes[HEAD..HEAD + len]))
}

/// The state after a record: that of the store row that it writes. `None`: it writes none, or is not readable.
fn tip_of(body: &[u8]) -> Option<Tip> {
    let (mut ops, mut tip) = (Ops { from: Fields::of(body) }, None);
    for (key, value) in &mut ops {
        if let (&[row::STORE], Some(value)) = (key, value) {
            tip = Some(Tip::of(value).ok()?);
        }
    }
    tip.filter(|_| ops.from.is_done())
}

impl Tip {
    /// Of a store row.
    pub(super) fn of(value: &[u8]) -> Result<Self, StoreError> {
        Ok(Self { commits: StoreRow::decode(value)?.commits, sum: row::sum_of(value) as u32 })
    }
}

/// What a record does, in order.
struct Ops<'a> {
    from: Fields<'a>,
}

impl<'a> Iterator for Ops<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    /// `None`: that was all, or what comes is not readable.
    fn next(&mut self) -> Option<Self::Item> {
        let mut from = self.from.clone();
        let op = match from.byte()? {
            PUT => (from.sized()?, Some(from.sized()?)),
            REMOVE => (from.sized()?, None),
            _ => return None,
        };
        self.from = from;
        Some(op)
    }
}

fn corrupt(at: usize, detail: &str) -> StoreError {
    StoreError::Corrupt { at: format!("the journal, byte {at}"), detail: detail.to_owned() }
}

/// Checksum, length, commits, checksum of the store row.
const HEAD: usize = 4 + 4 + 8 + 4;
/// What a record begins at a multiple of.
const BLOCK: usize = 4_096;
/// A larger commit is written to the table at once: it would be written twice, which costs more than it saves.
const RECORD_BYTES_MAX: usize = 32 << 10;
const REMOVE: u8 = 0;
const PUT: u8 = 1;
