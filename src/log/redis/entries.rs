//! Entries: append, read, trim and what a topic's numbers are. Knows commands; the steps are in the scripts.

use std::collections::BTreeSet;
use std::collections::HashMap;

use redis::Value;

use crate::ids::EntryId;
use crate::log::entry::Append;
use crate::log::entry::Appended;
use crate::log::entry::Batch;
use crate::log::entry::Gap;
use crate::log::entry::GapCause;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::entry::TopicInfo;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::log::redis::client::Again;
use crate::log::redis::client::Request;
use crate::log::redis::client::Shared;
use crate::log::redis::error::Fault;
use crate::log::redis::fields;
use crate::log::redis::gap::StreamState;
use crate::log::redis::groups::millis;
use crate::log::redis::page;
use crate::log::redis::page::Page;
use crate::log::redis::page::Way;
use crate::log::redis::reply;
use crate::log::redis::script::SCRIPTS;
use crate::topic::Topic;

impl Shared {
    pub(super) async fn append(&self, topic: &Topic, batch: Append) -> Result<Vec<Appended>, StoreError> {
        batch.check(&self.limits)?;
        check(&batch)?;
        match (&batch.entries[..], batch.expect_last, batch.trim) {
            ([], ..) => Ok(Vec::new()),
            ([entry], None, None) if entry.dedup.is_none() => {
                let mut command = redis::Cmd::with_capacity(3 + fields::args(entry), entry.bytes() + 128);
                command.arg("XADD").arg(self.keys.stream(topic)).arg("*");
                fields::write(entry, &mut command);
                let id = reply::id(&self.ask(command, Again::Never, None).await?)?;
                Ok(vec![Appended { id, duplicate: false }])
            }
            _ => self.append_by_script(topic, &batch).await,
        }
    }

    async fn append_by_script(&self, topic: &Topic, batch: &Append) -> Result<Vec<Appended>, StoreError> {
        let (keys, index_of) = self.append_keys(topic, batch);
        let mut command = SCRIPTS.append.on(&keys);
        self.append_args(&mut command, batch, &index_of);
        let again = if batch.entries.iter().all(|entry| entry.dedup.is_some()) { Again::Same } else { Again::Never };
        appended(self.ask(command, again, None).await?, batch)
    }

    /// The keys of `append.lua`, and which of them belongs to which idempotency key.
    pub(super) fn append_keys<'a>(&self, topic: &Topic, batch: &'a Append) -> (Vec<String>, HashMap<&'a str, usize>) {
        let mut keys = vec![self.keys.stream(topic), self.keys.meta(topic)];
        let mut index_of = HashMap::new();
        for key in batch.entries.iter().filter_map(|entry| entry.dedup.as_deref()) {
            index_of.entry(key).or_insert_with(|| {
                keys.push(self.keys.dedup(topic, key));
                keys.len() - 2
            });
        }
        (keys, index_of)
    }

    /// The arguments of `append.lua`.
    pub(super) fn append_args(&self, command: &mut redis::Cmd, batch: &Append, index_of: &HashMap<&str, usize>) {
        command.arg(batch.expect_last.map_or_else(String::new, |last| last.to_string()));
        command.arg(millis(self.dedup_window).max(1));
        let (kind, to) = batch.trim.and_then(trim_args).unwrap_or_default();
        command.arg(kind).arg(to).arg(self.nonce()).arg(batch.entries.len());
        for entry in &batch.entries {
            let key = entry.dedup.as_deref().and_then(|key| index_of.get(key)).copied().unwrap_or(0);
            command.arg(key).arg(fields::args(entry));
            fields::write(entry, command);
        }
    }

    pub(super) async fn read(&self, topic: &Topic, from: Position, limit: Limit) -> Result<Batch, StoreError> {
        let mut batch = match (self.page(topic, from, limit).await?, from) {
            (Page::Here(batch), _) => batch,
            (Page::Ahead, Position::After(after)) => return self.read_from_start(topic, after, limit).await,
            // Only a position can be ahead.
            (Page::Ahead | Page::Doubt, _) => Batch::default(),
        };
        self.fill(topic, &mut batch, limit).await?;
        Ok(batch)
    }

    /// Reads on where fewer entries were asked for than the limit allows, because they were thought to be larger.
    async fn fill(&self, topic: &Topic, batch: &mut Batch, limit: Limit) -> Result<(), StoreError> {
        let mut bytes: usize = batch.entries.iter().map(|entry| entry.payload.len()).sum();
        while !batch.caught_up && !batch.entries.is_empty() && batch.entries.len() < limit.entries && bytes < limit.bytes {
            let rest = Limit { entries: limit.entries - batch.entries.len(), bytes: limit.bytes - bytes };
            match self.page(topic, Position::After(batch.next), rest).await? {
                Page::Here(more) if more.gap.is_none() => {
                    bytes += more.entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
                    batch.entries.extend(more.entries);
                    (batch.next, batch.caught_up) = (more.next, more.caught_up);
                }
                // Trimmed or deleted meanwhile: the next page tells.
                Page::Here(_) | Page::Ahead | Page::Doubt => break,
            }
        }
        Ok(())
    }

    /// The first page, for a reader whose position is ahead of the log.
    async fn read_from_start(&self, topic: &Topic, after: EntryId, limit: Limit) -> Result<Batch, StoreError> {
        let Page::Here(mut batch) = self.page(topic, Position::Start, limit).await? else { return Ok(Batch::default()) };
        self.fill(topic, &mut batch, limit).await?;
        let resumes_at = batch.entries.first().map(|entry| entry.id);
        batch.gap = Some(Gap::new(topic.clone(), after, resumes_at, GapCause::Ahead, false));
        Ok(batch)
    }

    async fn page(&self, topic: &Topic, from: Position, limit: Limit) -> Result<Page, StoreError> {
        match self.page_by(Way::Cheap, topic, from, limit).await? {
            Page::Doubt => self.page_by(Way::Exact, topic, from, limit).await,
            page => Ok(page),
        }
    }

    async fn page_by(&self, way: Way, topic: &Topic, from: Position, limit: Limit) -> Result<Page, StoreError> {
        let mut commands = redis::pipe();
        let asked = page::ask(&self.keys, &self.sizes, topic, from, limit, way, &mut commands);
        let replies = self.send(&self.main, &Request::Many(commands), Again::Read, None).await?;
        asked.page(&self.sizes, topic, reply::list(replies)?)
    }

    pub(super) async fn trim(&self, topic: &Topic, to: Trim) -> Result<u64, StoreError> {
        let Some((kind, arg)) = trim_args(to) else { return Ok(0) };
        let mut command = SCRIPTS.trim.on(&[self.keys.stream(topic), self.keys.meta(topic)]);
        command.arg(kind).arg(arg);
        reply::count(&self.ask(command, Again::Never, None).await?)
    }

    pub(super) async fn info(&self, topic: &Topic) -> Result<TopicInfo, StoreError> {
        let command = SCRIPTS.state.on(&[self.keys.stream(topic), self.keys.meta(topic)]);
        let state = StreamState::parse(self.ask(command, Again::Read, None).await?)?.unwrap_or_default();
        Ok(TopicInfo {
            entries: state.len,
            appended: Some(state.added),
            first: state.first,
            last: state.last,
            groups: state.groups,
            // What a stream takes in memory is not what its payloads are.
            bytes: None,
        })
    }

    pub(super) async fn topics(&self, after: Option<&Topic>, limit: usize) -> Result<Vec<Topic>, StoreError> {
        let mut pattern: String =
            self.keys.prefix().chars().flat_map(|c| [GLOB.contains(c).then_some('\\'), Some(c)]).flatten().collect();
        pattern.push('*');
        let (mut topics, mut cursor) = (BTreeSet::new(), "0".to_owned());
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_KEYS).arg("TYPE").arg("stream");
            let [next, keys] = reply::fixed(self.ask(command, Again::Read, None).await?)?;
            for key in reply::list(keys)? {
                let key = reply::bytes(key)?;
                // Keys of ours beside the streams are none themselves, but another program may call a stream so.
                let Some(topic) = self.keys.topic(&key).filter(|topic| self.keys.stream(topic).as_bytes() == key) else {
                    continue;
                };
                if after.is_none_or(|after| topic > *after) {
                    topics.insert(topic);
                    if topics.len() > limit {
                        topics.pop_last();
                    }
                }
            }
            cursor = reply::text(next)?.to_string();
            if cursor == "0" {
                return Ok(topics.into_iter().collect());
            }
        }
    }

    pub(super) async fn delete(&self, topic: &Topic) -> Result<bool, StoreError> {
        let mut keys = vec![self.keys.stream(topic), self.keys.meta(topic)];
        for group in self.groups(topic).await? {
            let of = self.keys.group(&crate::log::entry::Group::new(topic.clone(), group.name));
            keys.extend([of.due, of.leaving, of.scan, of.wake]);
        }
        let answer = self.ask(SCRIPTS.delete.on(&keys), Again::Never, None).await?;
        Ok(reply::int(&answer)? == 1)
    }
}

/// What `append.lua` answers.
pub(super) fn appended(answer: Value, batch: &Append) -> Result<Vec<Appended>, StoreError> {
    let mut answer = reply::list(answer)?.into_iter();
    let said = reply::text(answer.next().unwrap_or(Value::Nil))?;
    if said == "conflict" {
        let last = reply::id(&answer.next().unwrap_or(Value::Nil))?;
        return Err(StoreError::Conflict { expected: batch.expect_last.unwrap_or_default(), last: Some(last) });
    }
    let mut appended = Vec::with_capacity(batch.entries.len());
    while let (Some(id), Some(duplicate)) = (answer.next(), answer.next()) {
        appended.push(Appended { id: reply::id(&id)?, duplicate: reply::int(&duplicate)? == 1 });
    }
    Ok(appended)
}

/// What the limits of every store do not say.
pub(super) fn check(batch: &Append) -> Result<(), StoreError> {
    let mut bytes = 0_usize;
    for entry in &batch.entries {
        if entry.headers.len() > HEADERS_MAX {
            return Err(Fault::Headers { headers: entry.headers.len(), max: HEADERS_MAX }.engine());
        }
        bytes = bytes.saturating_add(entry.bytes());
    }
    if bytes > BATCH_BYTES_MAX {
        return Err(Fault::BatchBytes { bytes, max: BATCH_BYTES_MAX }.engine());
    }
    Ok(())
}

/// How the scripts take it; `None`: it removes nothing.
fn trim_args(to: Trim) -> Option<(&'static str, String)> {
    match to {
        Trim::Len(keep) => Some(("len", keep.min(1 << 50).to_string())),
        Trim::Before(EntryId::MIN) => None,
        Trim::Before(id) => Some(("before", id.to_string())),
        Trim::Age(age) => Some(("age", millis(age).to_string())),
    }
}

/// What a pattern of `SCAN` would not take as it is.
const GLOB: &str = "*?[]^-\\";
/// Keys looked at in one step of a listing.
const SCAN_KEYS: usize = 1_000;
/// Twice as many are fields of one `XADD` in a script; Lua passes on fewer than 8,000 values.
const HEADERS_MAX: usize = 3_000;
/// A quarter of what the server takes in before it closes the connection (`client-query-buffer-limit`).
const BATCH_BYTES_MAX: usize = 256 << 20;
