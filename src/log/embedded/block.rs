//! Block: entries of one topic that were committed together, as one value. Knows how they are packed, not where they are kept.

use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;

use crate::ids::EntryId;
use crate::log::embedded::row;
use crate::log::embedded::row::Fields;
use crate::log::embedded::row::TopicNo;
use crate::log::entry::Entry;
use crate::log::entry::NewEntry;
use crate::log::error::StoreError;

/// A block takes no further entry above this. redb gives a value its own page of a power of two, so a full block stays below one.
pub(super) const BLOCK_BYTES_MAX: usize = (32 << 10) - 512;

/// Bytes of the head: ordinal, count, content, last id.
const HEAD: usize = 8 + 4 + 8 + 16;

/// Packs entries, in the order of their ids.
#[derive(Debug)]
pub(super) struct Packer {
    first: EntryId,
    last: EntryId,
    first_ordinal: u64,
    count: u32,
    content: u64,
    value: Vec<u8>,
}

impl Packer {
    /// A block whose first entry will be `first`, the `first_ordinal`th of its topic.
    pub(super) fn new(first: EntryId, first_ordinal: u64) -> Self {
        let mut value = row::value(HEAD + 512);
        value.extend_from_slice(&[0; HEAD]);
        Self { first, last: first, first_ordinal, count: 0, content: 0, value }
    }

    /// Whether `entry` would make it too big. The first always fits.
    pub(super) fn is_full_for(&self, entry: &NewEntry) -> bool {
        self.count > 0 && self.value.len() + entry.bytes() > BLOCK_BYTES_MAX
    }

    pub(super) fn push(&mut self, id: EntryId, entry: &NewEntry) {
        let into = &mut self.value;
        if id.ms() == self.last.ms() {
            row::put_varint(into, 0);
            row::put_varint(into, id.seq().wrapping_sub(self.last.seq()));
        } else {
            row::put_varint(into, id.ms().wrapping_sub(self.last.ms()));
            row::put_varint(into, id.seq());
        }
        row::put_varint(into, entry.headers.len() as u64);
        row::put_varint(into, entry.payload.len() as u64);
        row::put_bytes(into, entry.name.as_bytes());
        for (name, value) in &entry.headers {
            row::put_bytes(into, name.as_bytes());
            row::put_bytes(into, value.as_bytes());
        }
        into.extend_from_slice(&entry.payload);
        self.last = id;
        self.count += 1;
        self.content += content(entry);
    }

    /// Key and value.
    pub(super) fn finish(mut self, topic: TopicNo) -> ([u8; 25], Vec<u8>) {
        let mut head = Vec::with_capacity(HEAD);
        row::put_number(&mut head, self.first_ordinal);
        head.extend_from_slice(&self.count.to_be_bytes());
        row::put_number(&mut head, self.content);
        row::put_id(&mut head, self.last);
        self.value[row::CRC..row::CRC + HEAD].copy_from_slice(&head);
        let key = row::block_key(topic, self.first);
        row::seal(&key, &mut self.value);
        (key, self.value)
    }
}

/// What [`TopicInfo::bytes`](crate::log::TopicInfo::bytes) counts of an entry.
pub(super) fn content(entry: &NewEntry) -> u64 {
    let headers: usize = entry.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    (entry.payload.len() + entry.name.len() + headers) as u64
}

/// A block whose checksum was right.
pub(super) struct Block<'a> {
    key: &'a [u8],
    pub(super) first: EntryId,
    pub(super) last: EntryId,
    pub(super) first_ordinal: u64,
    pub(super) last_ordinal: u64,
    /// Content of all its entries.
    pub(super) content: u64,
    entries: &'a [u8],
}

impl<'a> Block<'a> {
    /// Parses a block, which has to be of this topic.
    pub(super) fn parse(topic: TopicNo, key: &'a [u8], value: &'a [u8]) -> Result<Self, StoreError> {
        let (of, first) = row::parse_block_key(key).ok_or_else(|| row::corrupt(key, "it is no block"))?;
        let body = row::open(key, value)?;
        let mut from = Fields::of(body);
        let mut parse = || -> Option<Self> {
            let first_ordinal = from.number()?;
            let count = u32::from_be_bytes(*from.take(4)?.first_chunk()?);
            let (content, last) = (from.number()?, from.id()?);
            let last_ordinal = first_ordinal.checked_add(u64::from(count).checked_sub(1)?)?;
            let entries = &body[from.at()..];
            (of == topic && first <= last).then_some(Self { key, first, last, first_ordinal, last_ordinal, content, entries })
        };
        parse().ok_or_else(|| row::corrupt(key, "it is no block of this topic"))
    }

    /// Its entries, in order.
    pub(super) fn spans(&self) -> Spans<'a> {
        let count = self.last_ordinal - self.first_ordinal + 1;
        Spans { key: self.key, from: Fields::of(self.entries), last: self.first, next: self.first_ordinal, count }
    }
}

/// Where an entry lies in its block.
#[derive(Debug, Clone)]
pub(super) struct Span<'a> {
    pub(super) id: EntryId,
    pub(super) ordinal: u64,
    headers: usize,
    payload: usize,
    /// Name, headers and payload, in that order.
    body: &'a [u8],
}

/// The entries of a block.
pub(super) struct Spans<'a> {
    key: &'a [u8],
    from: Fields<'a>,
    last: EntryId,
    next: u64,
    count: u64,
}

impl<'a> Spans<'a> {
    fn span(&mut self) -> Option<Span<'a>> {
        let (ms, seq) = (self.from.varint()?, self.from.varint()?);
        let id = match ms {
            0 => EntryId::new(self.last.ms(), self.last.seq().checked_add(seq)?),
            ms => EntryId::new(self.last.ms().checked_add(ms)?, seq),
        };
        let (headers, payload) = (self.from.len()?, self.from.len()?);
        let mut ahead = Fields::of(self.from.rest());
        ahead.sized()?;
        for _ in 0..headers {
            ahead.sized()?;
            ahead.sized()?;
        }
        ahead.take(payload)?;
        let body = self.from.take(ahead.at())?;
        Some(Span { id, ordinal: self.next, headers, payload, body })
    }
}

impl<'a> Iterator for Spans<'a> {
    type Item = Result<Span<'a>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.count == 0 {
            return None;
        }
        match self.span() {
            Some(span) => {
                self.last = span.id;
                self.next += 1;
                self.count -= 1;
                Some(Ok(span))
            }
            None => {
                self.count = 0;
                Some(Err(row::corrupt(self.key, format!("entry {} is not readable", self.next))))
            }
        }
    }
}

impl Span<'_> {
    /// What its entry counts.
    pub(super) fn content(&self) -> u64 {
        let mut from = Fields::of(self.body);
        let mut total = from.sized().map_or(0, <[u8]>::len);
        for _ in 0..2 * self.headers {
            total += from.sized().map_or(0, <[u8]>::len);
        }
        (total + self.payload) as u64
    }

    pub(super) fn payload_len(&self) -> usize {
        self.payload
    }
}

/// Entries of a page, collected into one buffer that all of them share in the end.
#[derive(Default)]
pub(super) struct Page {
    buffer: Vec<u8>,
    spans: Vec<(EntryId, u64, usize, usize, Range<usize>)>,
}

impl Page {
    pub(super) fn push(&mut self, span: &Span<'_>) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(span.body);
        self.spans.push((span.id, span.ordinal, span.headers, span.payload, start..self.buffer.len()));
    }

    pub(super) fn reserve(&mut self, entries: usize, bytes: usize) {
        self.spans.reserve(entries);
        self.buffer.reserve(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The entries, with their ordinals. No byte is copied here: each is a slice of the one buffer.
    pub(super) fn finish(self) -> Result<Vec<(u64, Entry)>, StoreError> {
        let buffer = Bytes::from(self.buffer);
        let mut entries = Vec::with_capacity(self.spans.len());
        let mut last_name = ByteString::new();
        for (id, ordinal, headers, payload, range) in self.spans {
            let body = &buffer[range.clone()];
            let mut from = Fields::of(body);
            let text = |from: &mut Fields<'_>| -> Option<ByteString> {
                let len = from.len()?;
                if len == 0 {
                    return Some(ByteString::new());
                }
                let at = range.start + from.at();
                let bytes = from.take(len)?;
                // Mostly the entries of a topic are of one name: it was checked once.
                if bytes == last_name.as_bytes() {
                    return Some(last_name.clone());
                }
                ByteString::try_from(buffer.slice(at..at + len)).ok()
            };
            let mut parse = || -> Option<Entry> {
                let name = text(&mut from)?;
                let mut list = Vec::with_capacity(headers);
                for _ in 0..headers {
                    list.push((text(&mut from)?, text(&mut from)?));
                }
                let at = range.start + from.at();
                from.take(payload)?;
                Some(Entry { id, name, payload: buffer.slice(at..at + payload), headers: list })
            };
            let entry = parse().ok_or_else(|| StoreError::Corrupt {
                at: format!("entry {id}"),
                detail: "a name or header is no text".to_owned(),
            })?;
            if last_name != entry.name {
                last_name = entry.name.clone();
            }
            entries.push((ordinal, entry));
        }
        Ok(entries)
    }
}
