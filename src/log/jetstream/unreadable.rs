//! Unreadable: messages of other programs whose headers the client cannot read. It loses its connection over each, so they are remembered, and got as
//! JSON. Knows no pages and no deliveries.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::time::Instant;

use crate::log::entry::Entry;
use crate::log::error::StoreError;
use crate::log::jetstream::Shared;
use crate::log::jetstream::api;
use crate::log::jetstream::api::StoredMessage;
use crate::log::jetstream::codec;
use crate::log::jetstream::connection::Again;
use crate::sync::lock;
use crate::topic::Topic;

/// Where such messages stand, as far as they were met: a memory only, what is not in it is met again.
#[derive(Default)]
pub(super) struct Unreadable(Mutex<HashMap<Topic, BTreeSet<u64>>>);

impl Unreadable {
    /// The first of them from `start` on.
    pub(super) fn next(&self, topic: &Topic, start: u64) -> Option<u64> {
        lock(&self.0).get(topic)?.range(start..).next().copied()
    }

    pub(super) fn within(&self, topic: &Topic, which: Range<u64>) -> Vec<u64> {
        lock(&self.0).get(topic).map(|seqs| seqs.range(which).copied().collect()).unwrap_or_default()
    }

    pub(super) fn forget(&self, topic: &Topic) {
        lock(&self.0).remove(topic);
    }

    fn note(&self, topic: &Topic, seq: u64, readable: bool) {
        let mut topics = lock(&self.0);
        if readable {
            if let Some(seqs) = topics.get_mut(topic) {
                seqs.remove(&seq);
            }
            return;
        }
        if topics.len() >= TOPICS_MAX && !topics.contains_key(topic) {
            topics.clear();
        }
        let seqs = topics.entry(topic.clone()).or_default();
        seqs.insert(seq);
        if seqs.len() > SEQS_MAX {
            seqs.pop_first();
        }
    }
}

/// A message as it is stored.
pub(super) struct Stored {
    pub(super) entry: Entry,
    /// The client can read it, too.
    pub(super) readable: bool,
    /// As the server writes it.
    pub(super) time: String,
}

impl Shared {
    /// The first message of this number or a later one; `None`: there is none.
    pub(super) async fn stored(&self, topic: &Topic, from: u64, deadline: Instant) -> Result<Option<Stored>, StoreError> {
        let what = format!("STREAM.MSG.GET.{}", self.stream(topic));
        let body = json!({"seq": from, "next_by_subj": self.subject(topic)});
        let message = match self.api::<StoredMessage>(&what, &body, Again::Yes, deadline).await? {
            Ok(found) => found.message,
            Err(refused) if refused.is_not_found() || refused.err_code == api::MESSAGE_NOT_FOUND => return Ok(None),
            Err(refused) => return Err(refused.into()),
        };
        let decode = |text: &str| STANDARD.decode(text).map_err(|error| StoreError::Engine { source: Arc::new(error) });
        let headers = message.hdrs.as_deref().map(decode).transpose()?.map(|stored| codec::stored_headers(&stored));
        let payload = decode(&message.data)?.into();
        let readable = headers.as_ref().is_none_or(|(_, readable)| *readable);
        self.unreadable.note(topic, message.seq, readable);
        let entry = codec::entry(message.seq, headers.as_ref().map(|(headers, _)| headers), payload);
        Ok(Some(Stored { entry, readable, time: message.time }))
    }
}

/// Topics with such messages that are remembered, and messages of each: some MB at most.
const TOPICS_MAX: usize = 1_000;
const SEQS_MAX: usize = 1_000;
