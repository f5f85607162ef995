//! Row: the keys and values of the one table, as bytes, each value under a checksum. Knows no engine; see `docs/log-format.md`.

use bytes::Bytes;

use crate::ids::EntryId;
use crate::log::entry::Name;
use crate::log::error::StoreError;
use crate::log::pending::GroupState;
use crate::log::pending::Held;
use crate::topic::Topic;

/// What a row is: the first byte of its key. Everything but blocks is read when the store is opened.
pub(super) const STORE: u8 = 0;
pub(super) const TOPIC: u8 = 1;
pub(super) const GROUP: u8 = 2;
pub(super) const HELD: u8 = 3;
pub(super) const KEYS: u8 = 4;
pub(super) const BLOCK: u8 = 5;

/// Bytes of a checksum, the first of every value.
pub(super) const CRC: usize = 4;

/// The number that a topic has in keys. Never used again after the topic is deleted.
pub(super) type TopicNo = u64;

// ---- keys ------------------------------------------------------------------------------------------------------------

pub(super) fn store_key() -> Vec<u8> {
    vec![STORE]
}

pub(super) fn topic_key(topic: TopicNo) -> Vec<u8> {
    key(TOPIC, topic, &[])
}

pub(super) fn group_key(topic: TopicNo, group: u64) -> Vec<u8> {
    key(GROUP, topic, &group.to_be_bytes())
}

pub(super) fn held_key(topic: TopicNo, group: u64, id: EntryId) -> Vec<u8> {
    let mut key = group_key(topic, group);
    key[0] = HELD;
    key.extend_from_slice(&id_bytes(id));
    key
}

pub(super) fn keys_key(topic: TopicNo, until_ms: u64, first: EntryId) -> Vec<u8> {
    let mut key = key(KEYS, topic, &until_ms.to_be_bytes());
    key.extend_from_slice(&id_bytes(first));
    key
}

pub(super) fn block_key(topic: TopicNo, first: EntryId) -> [u8; 25] {
    let mut key = [BLOCK; 25];
    key[1..9].copy_from_slice(&topic.to_be_bytes());
    key[9..].copy_from_slice(&id_bytes(first));
    key
}

/// The topic and the first id of a block's key; `None`: it is no block's.
pub(super) fn parse_block_key(key: &[u8]) -> Option<(TopicNo, EntryId)> {
    let mut from = Fields::of(key);
    (from.byte()? == BLOCK).then_some(())?;
    let parsed = (from.number()?, from.id()?);
    from.is_done().then_some(parsed)
}

fn key(kind: u8, topic: TopicNo, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.push(kind);
    key.extend_from_slice(&topic.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

/// Big-endian, so that the order of the bytes is that of the ids.
fn id_bytes(id: EntryId) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.ms().to_be_bytes());
    bytes[8..].copy_from_slice(&id.seq().to_be_bytes());
    bytes
}

// ---- values ----------------------------------------------------------------------------------------------------------

/// Begins a value: room for its checksum.
pub(super) fn value(capacity: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(CRC + capacity);
    value.extend_from_slice(&[0; CRC]);
    value
}

/// Puts the checksum of key and value before the value.
pub(super) fn seal(key: &[u8], value: &mut [u8]) {
    let crc = crc(key, &value[CRC..]);
    value[..CRC].copy_from_slice(&crc.to_le_bytes());
}

/// The value without its checksum; `Corrupt` if that is not the one of key and value.
pub(super) fn open<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    match value.split_at_checked(CRC) {
        Some((sum, body)) if sum == crc(key, body).to_le_bytes() => Ok(body),
        Some(_) => Err(corrupt(key, "its checksum is wrong")),
        None => Err(corrupt(key, "it is shorter than its checksum")),
    }
}

/// The checksum that a value carries, 0 for one too short.
pub(super) fn sum_of(value: &[u8]) -> u64 {
    value.first_chunk::<CRC>().map_or(0, |sum| u64::from(u32::from_le_bytes(*sum)))
}

fn crc(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

/// A row that is not what was written there.
pub(super) fn corrupt(key: &[u8], detail: impl Into<String>) -> StoreError {
    let kind = match key.first() {
        Some(&STORE) => "store",
        Some(&TOPIC) => "topic",
        Some(&GROUP) => "group",
        Some(&HELD) => "pending entry",
        Some(&KEYS) => "keys",
        Some(&BLOCK) => "block",
        _ => "unknown",
    };
    let mut from = Fields::of(key.get(1..).unwrap_or_default());
    let at = match (from.number(), key.first()) {
        (Some(topic), Some(&BLOCK)) => match from.id() {
            Some(first) => format!("{kind} row, topic number {topic}, first entry {first}"),
            None => format!("{kind} row, topic number {topic}"),
        },
        (Some(topic), _) => format!("{kind} row, topic number {topic}"),
        (None, _) => format!("{kind} row"),
    };
    StoreError::Corrupt { at, detail: detail.into() }
}

pub(super) fn put_id(into: &mut Vec<u8>, id: EntryId) {
    into.extend_from_slice(&id_bytes(id));
}

pub(super) fn put_number(into: &mut Vec<u8>, number: u64) {
    into.extend_from_slice(&number.to_be_bytes());
}

/// LEB128.
pub(super) fn put_varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

pub(super) fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

/// Takes fields off the front of bytes; `None` where they are too short or no such field.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(*self.take(8)?.first_chunk()?))
    }

    pub(super) fn id(&mut self) -> Option<EntryId> {
        Some(EntryId::new(self.number()?, self.number()?))
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut number = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn len(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let len = self.len()?;
        self.take(len)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized()?).ok()
    }

    fn name(&mut self) -> Option<Name> {
        Name::parse(self.text()?).ok()
    }
}

/// The store's own row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StoreRow {
    /// Commits so far.
    pub(super) commits: u64,
    /// The next topic's number.
    pub(super) next_topic: TopicNo,
    /// The next group's number.
    pub(super) next_group: u64,
    /// The checksums of all rows but this one and blocks, added up: what finds a row that is missing, or an old one.
    pub(super) sum: u64,
    /// The newest id that any deleted topic had: where topics that are made from now on begin. A store of a version that did not note it has the least.
    pub(super) floor: EntryId,
}

impl StoreRow {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut value = value(48);
        for number in [self.commits, self.next_topic, self.next_group, self.sum] {
            put_number(&mut value, number);
        }
        put_id(&mut value, self.floor);
        seal(&store_key(), &mut value);
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let mut from = Fields::of(open(&store_key(), value)?);
        let mut next = || from.number().ok_or_else(|| corrupt(&store_key(), "it is too short"));
        let (commits, next_topic, next_group, sum) = (next()?, next()?, next()?, next()?);
        let floor =
            if from.is_done() { EntryId::MIN } else { from.id().ok_or_else(|| corrupt(&store_key(), "it is too short"))? };
        Ok(Self { commits, next_topic, next_group, sum, floor })
    }
}

/// A topic's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) no: TopicNo,
    /// The newest ever appended, or where the topic began.
    pub(super) last: EntryId,
    /// The newest that was trimmed, or where the topic began.
    pub(super) trimmed: EntryId,
    /// Entries ever appended: the ordinal of `last`.
    pub(super) appended: u64,
    /// Entries ever trimmed: the ordinal of `trimmed`.
    pub(super) gone: u64,
    /// Content of the entries kept.
    pub(super) bytes: u64,
}

impl Meta {
    /// A topic that is made now.
    pub(super) fn new(no: TopicNo, floor: EntryId) -> Self {
        Self { no, last: floor, trimmed: floor, ..Self::default() }
    }

    /// The newest id ever appended.
    pub(super) fn newest(&self) -> EntryId {
        if self.appended == 0 { EntryId::MIN } else { self.last }
    }

    pub(super) fn kept(&self) -> u64 {
        self.appended.saturating_sub(self.gone)
    }

    pub(super) fn encode(&self, topic: &Topic) -> (Vec<u8>, Vec<u8>) {
        let (key, mut value) = (topic_key(self.no), value(60 + topic.as_str().len()));
        put_id(&mut value, self.last);
        put_id(&mut value, self.trimmed);
        for number in [self.appended, self.gone, self.bytes] {
            put_number(&mut value, number);
        }
        put_bytes(&mut value, topic.as_str().as_bytes());
        seal(&key, &mut value);
        (key, value)
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<(Self, Topic), StoreError> {
        let (mut of, mut from) = (Fields::of(key), Fields::of(open(key, value)?));
        let parse = || -> Option<(Self, Topic)> {
            of.byte()?;
            let meta = Self {
                no: of.number()?,
                last: from.id()?,
                trimmed: from.id()?,
                appended: from.number()?,
                gone: from.number()?,
                bytes: from.number()?,
            };
            let topic = Topic::parse(from.text()?).ok()?;
            (meta.gone <= meta.appended && meta.trimmed <= meta.last && from.is_done()).then_some((meta, topic))
        };
        let mut parse = parse;
        parse().ok_or_else(|| corrupt(key, "it is no topic row"))
    }
}

/// A group, without what it has pending.
#[derive(Debug)]
pub(super) struct GroupRow {
    pub(super) topic: TopicNo,
    pub(super) no: u64,
    pub(super) name: Name,
    pub(super) state: GroupState,
}

impl GroupRow {
    pub(super) fn encode(topic: TopicNo, no: u64, name: &Name, state: &GroupState) -> (Vec<u8>, Vec<u8>) {
        let (key, mut value) = (group_key(topic, no), value(64 + name.as_str().len()));
        put_id(&mut value, state.last);
        for number in [state.read, state.skipped] {
            value.push(u8::from(number.is_some()));
            put_number(&mut value, number.unwrap_or_default());
        }
        put_bytes(&mut value, name.as_str().as_bytes());
        seal(&key, &mut value);
        (key, value)
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let (mut of, mut from) = (Fields::of(key), Fields::of(open(key, value)?));
        let mut parse = || -> Option<Self> {
            of.byte()?;
            let (topic, no, last) = (of.number()?, of.number()?, from.id()?);
            let mut optional = || -> Option<Option<u64>> {
                let known = from.byte()? == 1;
                let number = from.number()?;
                Some(known.then_some(number))
            };
            let (read, skipped) = (optional()?, optional()?);
            let name = from.name()?;
            let mut state = GroupState::at(last, read);
            state.skipped = skipped;
            from.is_done().then_some(Self { topic, no, name, state })
        };
        parse().ok_or_else(|| corrupt(key, "it is no group row"))
    }
}

/// An entry that a group has pending.
pub(super) struct HeldRow {
    pub(super) topic: TopicNo,
    pub(super) group: u64,
    pub(super) id: EntryId,
    pub(super) held: Held,
}

impl HeldRow {
    pub(super) fn encode(key: &[u8], held: &Held) -> Vec<u8> {
        let mut value = value(32 + held.consumer.as_str().len());
        put_number(&mut value, held.delivered_ms);
        put_number(&mut value, held.due_ms);
        put_varint(&mut value, u64::from(held.attempt));
        put_bytes(&mut value, held.consumer.as_str().as_bytes());
        seal(key, &mut value);
        value
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let (mut of, mut from) = (Fields::of(key), Fields::of(open(key, value)?));
        let mut parse = || -> Option<Self> {
            of.byte()?;
            let (topic, group, id) = (of.number()?, of.number()?, of.id()?);
            let (delivered_ms, due_ms) = (from.number()?, from.number()?);
            let attempt = u32::try_from(from.varint()?).ok()?;
            let held = Held { consumer: from.name()?, delivered_ms, due_ms, attempt };
            from.is_done().then_some(Self { topic, group, id, held })
        };
        parse().ok_or_else(|| corrupt(key, "it is no pending entry"))
    }
}

/// The idempotency keys that one topic got in one commit.
pub(super) struct KeysRow {
    pub(super) topic: TopicNo,
    /// When they are forgotten.
    pub(super) until_ms: u64,
    /// The first id: what tells two such rows apart.
    pub(super) first: EntryId,
    pub(super) keys: Vec<(Bytes, EntryId)>,
}

impl KeysRow {
    pub(super) fn key(&self) -> Vec<u8> {
        keys_key(self.topic, self.until_ms, self.first)
    }

    pub(super) fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let (key, mut value) = (self.key(), value(self.keys.len() * 32));
        for (text, id) in &self.keys {
            put_id(&mut value, *id);
            put_bytes(&mut value, text);
        }
        seal(&key, &mut value);
        (key, value)
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let (mut of, mut from) = (Fields::of(key), Fields::of(open(key, value)?));
        let mut parse = || -> Option<Self> {
            of.byte()?;
            let (topic, until_ms, first) = (of.number()?, of.number()?, of.id()?);
            let mut keys = Vec::new();
            while !from.is_done() {
                let id = from.id()?;
                keys.push((Bytes::copy_from_slice(from.text()?.as_bytes()), id));
            }
            Some(Self { topic, until_ms, first, keys })
        };
        parse().ok_or_else(|| corrupt(key, "they are no keys"))
    }
}
