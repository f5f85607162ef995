//! Read: pages of a topic. A few entries are got one by one, side by side; many by a consumer of the page's own, which goes on where it stands
//! when the next page is asked for.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;
use tokio::time::Instant;

use crate::ids::EntryId;
use crate::log::entry::Batch;
use crate::log::entry::Entry;
use crate::log::entry::Gap;
use crate::log::entry::GapCause;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::error::StoreError;
use crate::log::jetstream::Shared;
use crate::log::jetstream::api;
use crate::log::jetstream::api::ConsumerConfig;
use crate::log::jetstream::api::ConsumerInfo;
use crate::log::jetstream::api::CreateConsumer;
use crate::log::jetstream::api::StreamInfo;
use crate::log::jetstream::api::StreamState;
use crate::log::jetstream::codec;
use crate::log::jetstream::connection::Again;
use crate::log::jetstream::connection::NoAnswer;
use crate::log::jetstream::connection::is_lost;
use crate::log::jetstream::connection::status;
use crate::log::jetstream::connection::unknown;
use crate::log::jetstream::pull::End;
use crate::log::jetstream::pull::Pull;
use crate::sync::lock;
use crate::topic::Topic;

/// Consumers that stand where a page ended.
#[derive(Default)]
pub(super) struct Cursors(Mutex<VecDeque<Cursor>>);

struct Cursor {
    topic: Topic,
    consumer: String,
    /// What it delivers next.
    next: u64,
    /// Bytes of an entry, as the last page had them.
    entry_bytes: usize,
    used: Instant,
}

impl Cursors {
    fn take(&self, topic: &Topic, next: u64) -> Option<Cursor> {
        let mut cursors = lock(&self.0);
        cursors.retain(|cursor| cursor.used.elapsed() < CURSOR_AGE_MAX);
        let at = cursors.iter().position(|cursor| cursor.next == next && cursor.topic == *topic)?;
        cursors.remove(at)
    }

    fn put(&self, cursor: Cursor) {
        let mut cursors = lock(&self.0);
        if cursors.len() >= CURSORS_MAX {
            // The server drops it when it is idle.
            cursors.pop_front();
        }
        cursors.push_back(cursor);
    }
}

/// Entries of a page, and whether the server had no more after them.
struct Page {
    entries: Vec<Entry>,
    at_end: bool,
}

/// Where a consumer begins.
enum From {
    Seq(u64),
    Time(u64),
}

impl Shared {
    pub(super) async fn read(&self, topic: &Topic, from: Position, limit: Limit) -> Result<Batch, StoreError> {
        let deadline = self.deadline();
        if let Position::After(id) = from
            && self.unreadable.next(topic, codec::seq(id).saturating_add(1)) != codec::seq(id).checked_add(1)
            && let Some(cursor) = self.cursors.take(topic, codec::seq(id).saturating_add(1))
            && let Ok(page) = self.page_of(cursor, self.readable(topic, codec::seq(id) + 1, limit), Instant::now() + CURSOR_PATIENCE).await
            // It tells nothing of why there is nothing, or not the next.
            && page.entries.first().is_some_and(|entry| Some(entry.id) == id.next())
        {
            return Ok(batch(page, id, None));
        }
        loop {
            let Some(info) = self.stream_info(topic, deadline).await? else {
                let gap = match from {
                    Position::After(id) if id > EntryId::MIN => Some(gap(topic, id, None, GapCause::Ahead)),
                    _ => None,
                };
                return Ok(Batch { gap, caught_up: true, ..Batch::default() });
            };
            let state = &info.state;
            let (first, last) = (state.first_seq, state.last_seq);
            let (start, missing) = match from {
                Position::Start => (first, None),
                Position::End => (last + 1, None),
                Position::Since(ms) => (self.first_since(topic, ms, state, deadline).await?, None),
                Position::After(id) if codec::seq(id) > last => (first, Some((id, GapCause::Ahead))),
                Position::After(id) if codec::seq(id) + 1 < first => (first, Some((id, GapCause::Trimmed))),
                Position::After(id) => (codec::seq(id) + 1, None),
            };
            if start > last {
                let gap = missing.map(|(id, cause)| gap(topic, id, None, cause));
                return Ok(Batch { entries: Vec::new(), next: codec::id(start - 1), gap, caught_up: true });
            }
            let page = match self.page_from(topic, start, &info, limit, deadline).await {
                // It may be an entry of it that the client cannot read.
                Err(error) if is_lost(&error) && Instant::now() < deadline => {
                    self.page_stored(topic, start, last, limit, deadline).await?
                }
                page => page?,
            };
            let Some(resumes_at) = page.entries.first().map(|entry| entry.id) else {
                // Trimmed since it was looked at.
                if Instant::now() < deadline {
                    continue;
                }
                return Err(unknown(std::sync::Arc::new(Vanished)));
            };
            let missing = match from {
                // Trimmed since it was looked at, or deleted one by one by another program.
                Position::After(id) if missing.is_none() && resumes_at != codec::id(start) => Some((id, GapCause::Trimmed)),
                _ => missing,
            };
            let gap = missing.map(|(id, cause)| gap(topic, id, Some(resumes_at), cause));
            return Ok(batch(page, codec::id(start - 1), gap));
        }
    }

    async fn page_from(
        &self,
        topic: &Topic,
        start: u64,
        info: &StreamInfo,
        limit: Limit,
        deadline: Instant,
    ) -> Result<Page, StoreError> {
        let state = &info.state;
        if self.unreadable.next(topic, start) == Some(start) {
            return self.page_stored(topic, start, state.last_seq, limit, deadline).await;
        }
        let limit = self.readable(topic, start, limit);
        let there = state.last_seq - start + 1;
        let want = limit.entries.max(1).min(usize::try_from(there).unwrap_or(usize::MAX));
        let bytes = usize::try_from(state.bytes / state.messages.max(1)).unwrap_or(usize::MAX);
        let enough = limit.bytes / bytes.max(1) + 1;
        // A stream without direct reading would not even refuse.
        if info.config.allow_direct
            && want.min(enough) <= DIRECT_MAX
            && let Some(entries) = self.page_direct(topic, start, want, limit, deadline).await?
        {
            let at_end = entries.last().is_some_and(|entry| entry.id.seq() >= state.last_seq);
            return Ok(Page { entries, at_end });
        }
        let consumer = self.make_reader(topic, From::Seq(start), deadline).await?;
        let Some(consumer) = consumer else { return Ok(Page { entries: Vec::new(), at_end: true }) };
        let cursor = Cursor { topic: topic.clone(), consumer, next: start, entry_bytes: bytes, used: Instant::now() };
        self.page_of(cursor, limit, deadline).await
    }

    /// A page that ends before what the client cannot read.
    fn readable(&self, topic: &Topic, start: u64, limit: Limit) -> Limit {
        let before = self.unreadable.next(topic, start).and_then(|at| usize::try_from(at - start).ok());
        Limit { entries: limit.entries.min(before.unwrap_or(usize::MAX)), ..limit }
    }

    /// One entry after the other, as it is stored: slow, and whatever is in it. A page ends after what the client cannot read, and before a hole.
    async fn page_stored(
        &self,
        topic: &Topic,
        start: u64,
        last: u64,
        limit: Limit,
        deadline: Instant,
    ) -> Result<Page, StoreError> {
        let (mut page, mut bytes, mut next) = (Page { entries: Vec::new(), at_end: false }, 0, start);
        while page.entries.len() < limit.entries.clamp(1, STORED_MAX) && (page.entries.is_empty() || bytes < limit.bytes) {
            let Some(stored) = self.stored(topic, next, deadline).await? else {
                page.at_end = true;
                break;
            };
            if !page.entries.is_empty() && stored.entry.id != codec::id(next) {
                break;
            }
            bytes += stored.entry.payload.len();
            next = stored.entry.id.seq() + 1;
            page.at_end = next > last;
            page.entries.push(stored.entry);
            if page.at_end || !stored.readable {
                break;
            }
        }
        Ok(page)
    }

    /// `None`: one of them is not there, or not yet on the replica that answered.
    async fn page_direct(
        &self,
        topic: &Topic,
        start: u64,
        want: usize,
        limit: Limit,
        deadline: Instant,
    ) -> Result<Option<Vec<Entry>>, StoreError> {
        let stream = self.stream(topic);
        let wanted = start..start.saturating_add(want.min(DIRECT_MAX) as u64);
        let mut answers = stream::iter(wanted.map(|seq| self.get(&stream, seq, deadline))).buffered(DIRECT_MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while let Some(answer) = answers.next().await {
            let Some(entry) = answer? else { return Ok(None) };
            bytes += entry.payload.len();
            entries.push(entry);
            if bytes >= limit.bytes {
                break;
            }
        }
        Ok(Some(entries))
    }

    async fn get(&self, stream: &str, seq: u64, deadline: Instant) -> Result<Option<Entry>, StoreError> {
        let body = Bytes::from(format!("{{\"seq\":{seq}}}"));
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        // Not again: what the client cannot read would cost it one connection after the other.
        match self.link.request(&subject, None, &body, Again::No, deadline).await {
            Ok(message) if status(&message).is_some() => Ok(None),
            Ok(message) => Ok(Some(codec::entry(seq, message.headers.as_ref(), message.payload))),
            Err(NoAnswer::NoResponders) => Ok(None),
            Err(NoAnswer::Failed(error)) => Err(error),
        }
    }

    /// `None`: the topic is gone.
    async fn make_reader(&self, topic: &Topic, from: From, deadline: Instant) -> Result<Option<String>, StoreError> {
        let stream = self.stream(topic);
        let (deliver_policy, opt_start_seq, opt_start_time) = match from {
            From::Seq(seq) => ("by_start_sequence", Some(seq), None),
            From::Time(ms) => ("by_start_time", None, Some(codec::rfc3339(ms))),
        };
        let config = ConsumerConfig {
            deliver_policy: deliver_policy.to_owned(),
            opt_start_seq,
            opt_start_time,
            ack_policy: "none".to_owned(),
            replay_policy: "instant".to_owned(),
            max_deliver: -1,
            inactive_threshold: api::nanos(CURSOR_AGE_MAX * 2),
            num_replicas: 1,
            mem_storage: true,
            ..ConsumerConfig::default()
        };
        let body = CreateConsumer { stream_name: &stream, config: &config };
        match self.api::<ConsumerInfo>(&format!("CONSUMER.CREATE.{stream}"), &body, Again::Yes, deadline).await? {
            Ok(info) => Ok(Some(info.name)),
            Err(refused) if refused.is_not_found() => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    async fn page_of(&self, mut cursor: Cursor, limit: Limit, until: Instant) -> Result<Page, StoreError> {
        let want = limit.entries.max(1);
        let stream = self.stream(&cursor.topic);
        let (mut page, mut bytes, mut over) = (Page { entries: Vec::new(), at_end: false }, 0, false);
        while !over && page.entries.len() < want && (page.entries.is_empty() || bytes < limit.bytes) {
            let enough = limit.bytes.saturating_sub(bytes) / cursor.entry_bytes.max(1) + 1;
            let ask = (want - page.entries.len()).min(enough).min(PULL_MAX);
            let connection = self.link.connection(until).await?;
            let mut pull = Pull::new(connection, Vec::new());
            pull.ask(&stream, &cursor.consumer, ask, None).await?;
            let end = pull.collect(ask, until).await;
            if matches!(end, End::Silent | End::Lost | End::Busy) {
                return Err(unknown(std::sync::Arc::new(Vanished)));
            }
            let messages = pull.finish(end);
            over = messages.len() < ask;
            for message in messages {
                if !page.entries.is_empty() && bytes >= limit.bytes {
                    // Asked for too many: what is left over is read again by the next page, so that nobody is shown what was trimmed since.
                    cursor.next = 0;
                    over = true;
                    break;
                }
                let Some((entry, pending)) = self.delivered(&cursor.topic, message) else { continue };
                // Where one is missing a page ends: the next one says so.
                if page.entries.last().is_some_and(|last: &Entry| last.id.next() != Some(entry.id)) {
                    (cursor.next, page.at_end, over) = (0, false, true);
                    break;
                }
                bytes += entry.payload.len();
                cursor.next = entry.id.seq() + 1;
                page.at_end = pending == 0;
                page.entries.push(entry);
            }
        }
        if cursor.next > 0 && !page.at_end && !page.entries.is_empty() {
            cursor.entry_bytes = bytes / page.entries.len();
            cursor.used = Instant::now();
            self.cursors.put(cursor);
        }
        Ok(page)
    }

    /// The entry in a consumer's message, and how many come after it.
    fn delivered(&self, topic: &Topic, message: Message) -> Option<(Entry, u64)> {
        let reply = message.reply.as_ref()?;
        let at = codec::delivered(reply)?;
        if at.stream != self.stream(topic) {
            return None;
        }
        Some((codec::entry(at.seq, message.headers.as_ref(), message.payload), at.pending))
    }

    /// The number of the first entry of this time or later; one past the last for none.
    pub(super) async fn first_since(
        &self,
        topic: &Topic,
        ms: u64,
        state: &StreamState,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        if state.messages == 0 {
            return Ok(state.last_seq + 1);
        }
        let Some(consumer) = self.make_reader(topic, From::Time(ms), deadline).await? else { return Ok(state.last_seq + 1) };
        let stream = self.stream(topic);
        let mut pull = Pull::new(self.link.connection(deadline).await?, Vec::new());
        pull.ask(&stream, &consumer, 1, None).await?;
        let end = pull.collect(1, deadline).await;
        if end == End::Lost && Instant::now() < deadline {
            return self.first_stored_since(topic, ms, state, deadline).await;
        }
        if matches!(end, End::Silent | End::Lost | End::Busy) {
            return Err(unknown(std::sync::Arc::new(Vanished)));
        }
        let first = pull.finish(end).pop().and_then(|message| self.delivered(topic, message));
        // The server drops it when it is idle; that it is not needed is told at once.
        let what = format!("CONSUMER.DELETE.{stream}.{consumer}");
        let _ = self.api::<api::Done>(&what, &json!({}), Again::No, deadline).await;
        Ok(first.map_or(state.last_seq + 1, |(entry, _)| entry.id.seq()))
    }

    /// The same, where it may be one that the client cannot read. Times do not decrease within a stream.
    async fn first_stored_since(
        &self,
        topic: &Topic,
        ms: u64,
        state: &StreamState,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        // The fraction as the server writes it: texts compare as their times do.
        let time = codec::rfc3339(ms);
        let since = time.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
        let (mut low, mut high) = (state.first_seq, state.last_seq + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.stored(topic, middle, deadline).await? {
                Some(stored) if stored.time.trim_end_matches('Z') < since => low = stored.entry.id.seq() + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

fn gap(topic: &Topic, asked_after: EntryId, resumes_at: Option<EntryId>, cause: GapCause) -> Gap {
    Gap::new(topic.clone(), asked_after, resumes_at, cause, true)
}

fn batch(page: Page, after: EntryId, gap: Option<Gap>) -> Batch {
    let next = page.entries.last().map_or(after, |entry| entry.id);
    Batch { entries: page.entries, next, gap, caught_up: page.at_end }
}

#[derive(Debug)]
struct Vanished;

impl std::fmt::Display for Vanished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the reading was not answered")
    }
}

impl std::error::Error for Vanished {}

/// Entries that are got one by one: up to here a consumer of their own costs more.
const DIRECT_MAX: usize = 16;
/// Entries of a page that was asked for again as they are stored.
const STORED_MAX: usize = 16;
/// The most that is pulled at once.
const PULL_MAX: usize = 1_000;
/// Consumers kept for the next page; each is a few kB on the server.
const CURSORS_MAX: usize = 64;
/// For how long. The server waits twice as long.
const CURSOR_AGE_MAX: Duration = Duration::from_secs(20);
/// A kept consumer that does not answer by then is gone, with a restart of the server: asked for anew.
const CURSOR_PATIENCE: Duration = Duration::from_millis(250);
