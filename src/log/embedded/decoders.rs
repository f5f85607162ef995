//! Decoders: the readers of the file, for `testing::decoders`. Checksums are set right before, so that what is behind them is reached.

use std::sync::Arc;

use bytestring::ByteString;
use redb::backends::InMemoryBackend;

use crate::ids::EntryId;
use crate::log::embedded::block::Block;
use crate::log::embedded::block::Page;
use crate::log::embedded::disk;
use crate::log::embedded::disk::Disk;
use crate::log::embedded::journal::Journal;
use crate::log::embedded::journal::Record;
use crate::log::embedded::journal::Tip;
use crate::log::embedded::row;
use crate::log::embedded::row::Fields;
use crate::log::embedded::row::GroupRow;
use crate::log::embedded::row::HeldRow;
use crate::log::embedded::row::KeysRow;
use crate::log::embedded::row::Meta;
use crate::log::embedded::row::StoreRow;
use crate::log::entry::Entry;

/// A row: the length of its key, the key, its value without the checksum.
pub(crate) fn row(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first() else { return };
    let Some((key, body)) = rest.split_at_checked(usize::from(*len)) else { return };
    let value = sealed(key, body);
    match key.first() {
        Some(&row::STORE) => {
            let value = sealed(&row::store_key(), body);
            if let Ok(read) = StoreRow::decode(&value) {
                assert_eq!(StoreRow::decode(&read.encode()).ok(), Some(read));
            }
        }
        Some(&row::TOPIC) => {
            if let Ok((meta, topic)) = Meta::decode(key, &value) {
                let (_, again) = meta.encode(&topic);
                assert_eq!(Meta::decode(&row::topic_key(meta.no), &again).ok(), Some((meta, topic)));
            }
        }
        Some(&row::GROUP) => {
            if let Ok(read) = GroupRow::decode(key, &value) {
                let (key, again) = GroupRow::encode(read.topic, read.no, &read.name, &read.state);
                assert_eq!(format!("{:?}", GroupRow::decode(&key, &again).ok()), format!("{:?}", Some(read)));
            }
        }
        Some(&row::HELD) => {
            if let Ok(read) = HeldRow::decode(key, &value) {
                let key = row::held_key(read.topic, read.group, read.id);
                let again = HeldRow::decode(&key, &HeldRow::encode(&key, &read.held)).map(|again| (again.id, again.held.attempt));
                assert_eq!(again.ok(), Some((read.id, read.held.attempt)));
            }
        }
        Some(&row::KEYS) => {
            if let Ok(read) = KeysRow::decode(key, &value) {
                let (key, again) = read.encode();
                assert_eq!(KeysRow::decode(&key, &again).ok().map(|again| again.keys), Some(read.keys));
            }
        }
        _ => drop(row::open(key, body)),
    }
}

/// A block of entries, without its checksum.
pub(crate) fn block(bytes: &[u8]) {
    let mut from = Fields::of(bytes);
    let Some(first) = from.id() else { return };
    let key = row::block_key(1, first);
    let value = sealed(&key, from.rest());
    let Ok(block) = Block::parse(1, &key, &value) else { return };
    assert_eq!(block.first, first);
    let mut page = Page::default();
    let (mut last, mut content) = (EntryId::MIN, 0);
    for span in block.spans().map_while(Result::ok) {
        assert!(span.id >= last && span.payload_len() as u64 <= span.content());
        (last, content) = (span.id, content + span.content());
        page.push(&span);
    }
    let spans = page.len();
    if let Ok(entries) = page.finish() {
        assert_eq!(entries.len(), spans);
        let texts = |(name, value): &(ByteString, ByteString)| name.len() + value.len();
        let bytes = |entry: &Entry| entry.name.len() + entry.payload.len() + entry.headers.iter().map(texts).sum::<usize>();
        let read: usize = entries.iter().map(|(_, entry)| bytes(entry)).sum();
        assert_eq!(read as u64, content);
    }
}

/// A file's journal: the record after a tip, written as it is written, and then whatever bytes.
pub(crate) fn journal(bytes: &[u8]) {
    let disk: Disk = Arc::new(InMemoryBackend::new());
    let Some((split, rest)) = bytes.split_first() else { return };
    let (ops, tail) = rest.split_at(usize::from(*split).min(rest.len()));
    let mut record = Record::default();
    record.follow(1, 0);
    for op in ops.chunks(8) {
        if op[0] & 1 == 0 { record.remove(op) } else { record.put(&op[..1], op) }
    }
    // What an in-memory disk refuses is nothing that is read.
    let room = disk.set_len(disk::PAGES_AT);
    let mut journal = Journal::new(Arc::clone(&disk), disk::JOURNAL_BYTES);
    journal.settled();
    if room.is_err() || ops.is_empty() || !journal.takes(&record) || journal.write(record).is_err() {
        return;
    }
    if !tail.is_empty() && disk.write(disk::HEAD_BYTES, tail).is_err() {
        return;
    }
    let mut again = Journal::new(disk, disk::JOURNAL_BYTES);
    if let Ok(records) = again.after(Tip::default()) {
        assert!(records.ops().all(|(key, _)| key.len() <= bytes.len()));
    }
}

/// The head of a file, and a file that is too short to have one.
pub(crate) fn head(bytes: &[u8]) {
    let disk: Disk = Arc::new(InMemoryBackend::new());
    if disk.set_len(bytes.len() as u64).and_then(|()| disk.write(0, bytes)).is_ok() {
        drop(disk::read_phase(&disk));
    }
}

fn sealed(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = row::value(body.len());
    value.extend_from_slice(body);
    row::seal(key, &mut value);
    value
}
