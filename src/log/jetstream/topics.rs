//! Topics: a stream for each, made at its first use; its numbers, its trimming, its end. Knows no entries and no groups' work.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::log::entry::TopicInfo;
use crate::log::entry::Trim;
use crate::log::error::Outcome;
use crate::log::error::StoreError;
use crate::log::jetstream::Shared;
use crate::log::jetstream::api;
use crate::log::jetstream::api::Done;
use crate::log::jetstream::api::Refused;
use crate::log::jetstream::api::Republish;
use crate::log::jetstream::api::StreamConfig;
use crate::log::jetstream::api::StreamInfo;
use crate::log::jetstream::api::StreamNames;
use crate::log::jetstream::builder::JetStreamStorage;
use crate::log::jetstream::codec;
use crate::log::jetstream::connection::Again;
use crate::log::jetstream::connection::NoAnswer;
use crate::sync::lock;
use crate::topic::Topic;

/// Topics whose streams were seen: what is appended to needs no look first.
#[derive(Default)]
pub(super) struct Known(Mutex<HashSet<Topic>>);

impl Known {
    fn has(&self, topic: &Topic) -> bool {
        lock(&self.0).contains(topic)
    }

    fn add(&self, topic: &Topic) {
        let mut known = lock(&self.0);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(topic.clone());
    }

    pub(super) fn forget(&self, topic: &Topic) {
        lock(&self.0).remove(topic);
    }
}

impl Shared {
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.settings.server.timeout()
    }

    /// The topic's stream.
    pub(super) fn stream(&self, topic: &Topic) -> String {
        format!("{}~{}", self.settings.server.prefix, codec::encode_bounded(topic.as_str()))
    }

    /// What its entries are published to.
    pub(super) fn subject(&self, topic: &Topic) -> String {
        format!("{}.log.{}", self.settings.server.prefix, codec::topic_part(topic))
    }

    /// Where the server says that an entry is stored.
    pub(super) fn live_subject(&self, topic: &Topic) -> String {
        format!("{}.live.{}", self.settings.server.prefix, codec::topic_part(topic))
    }

    /// A request to JetStream's API. All of ours may be repeated, save where `again` says otherwise.
    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        what: &str,
        body: &(impl Serialize + Sync),
        again: Again,
        deadline: Instant,
    ) -> Result<Result<T, Refused>, StoreError> {
        let body = serde_json::to_vec(body).map_err(|error| StoreError::Engine { source: Arc::new(error) })?;
        let body = Bytes::from(body);
        let subject = format!("$JS.API.{what}");
        loop {
            match self.link.request(&subject, None, &body, again, deadline).await {
                Ok(message) => return api::answer(&message.payload),
                Err(NoAnswer::Failed(error)) => return Err(error),
                // JetStream is off, or not up yet.
                Err(NoAnswer::NoResponders) if Instant::now() + NO_JETSTREAM_PAUSE < deadline => sleep(NO_JETSTREAM_PAUSE).await,
                Err(NoAnswer::NoResponders) => {
                    return Err(StoreError::Unavailable { outcome: Outcome::NotDone, source: Arc::new(NoJetStream) });
                }
            }
        }
    }

    fn config(&self, topic: &Topic) -> StreamConfig {
        let settings = &self.settings;
        StreamConfig {
            name: self.stream(topic),
            subjects: vec![self.subject(topic)],
            retention: "limits".to_owned(),
            storage: match settings.storage {
                JetStreamStorage::File => "file".to_owned(),
                JetStreamStorage::Memory => "memory".to_owned(),
            },
            // Full is an error; the other choice would drop the oldest.
            discard: "new".to_owned(),
            max_bytes: settings.topic_bytes.map_or(-1, |max| i64::try_from(max).unwrap_or(i64::MAX)),
            max_msgs: -1,
            max_msgs_per_subject: -1,
            max_msg_size: -1,
            max_consumers: -1,
            max_age: 0,
            num_replicas: u64::from(settings.replicas),
            // Zero would be the server's default.
            duplicate_window: api::nanos(settings.server.dedup_window).max(1),
            allow_direct: true,
            republish: Some(Republish { src: self.subject(topic), dest: self.live_subject(topic), headers_only: true }),
            no_ack: false,
            sealed: false,
            deny_purge: false,
        }
    }

    /// Sees to it that the topic has its stream.
    pub(super) async fn open(&self, topic: &Topic, deadline: Instant) -> Result<(), StoreError> {
        if self.known.has(topic) {
            return Ok(());
        }
        let ours = self.config(topic);
        let created = self.api::<StreamInfo>(&format!("STREAM.CREATE.{}", ours.name), &ours, Again::Yes, deadline).await?;
        match created {
            Ok(_) => {}
            Err(refused) if refused.err_code == api::STREAM_EXISTS => {
                // Other settings of what may differ; or another program's.
                let Some(found) = self.stream_info(topic, deadline).await? else { return Err(refused.into()) };
                differs(&ours, &found.config)?;
            }
            Err(refused) => return Err(refused.into()),
        }
        self.known.add(topic);
        Ok(())
    }

    /// The topic's stream as it is; `None`: it has none.
    pub(super) async fn stream_info(&self, topic: &Topic, deadline: Instant) -> Result<Option<StreamInfo>, StoreError> {
        let what = format!("STREAM.INFO.{}", self.stream(topic));
        match self.api::<StreamInfo>(&what, &json!({}), Again::Yes, deadline).await? {
            Ok(mut info) => {
                if info.config.subjects != [self.subject(topic)] {
                    differs(&self.config(topic), &info.config)?;
                }
                // A stream that never had a message begins at 0.
                info.state.first_seq = info.state.first_seq.max(1);
                Ok(Some(info))
            }
            Err(refused) if refused.is_not_found() => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    pub(super) async fn info(&self, topic: &Topic) -> Result<TopicInfo, StoreError> {
        let deadline = self.deadline();
        let Some(StreamInfo { state, .. }) = self.stream_info(topic, deadline).await? else {
            return Ok(TopicInfo { appended: Some(0), bytes: Some(0), ..TopicInfo::default() });
        };
        let groups = self.group_consumers(topic, deadline).await?.len() as u64;
        Ok(TopicInfo {
            entries: state.messages,
            appended: Some(state.last_seq),
            bytes: Some(state.bytes),
            first: (state.messages > 0).then(|| codec::id(state.first_seq)),
            last: codec::id(state.last_seq),
            groups,
        })
    }

    /// All topics are asked for, whatever the page: the server's order is not ours.
    pub(super) async fn topics(&self, after: Option<&Topic>, limit: usize) -> Result<Vec<Topic>, StoreError> {
        let deadline = self.deadline();
        let (mut topics, mut offset) = (Vec::new(), 0);
        loop {
            let body = json!({"subject": format!("{}.log.*", self.settings.server.prefix), "offset": offset});
            let page = self.api::<StreamNames>("STREAM.NAMES", &body, Again::Yes, deadline).await??;
            let names = page.streams.unwrap_or_default();
            offset += names.len() as u64;
            let last = names.is_empty() || offset >= page.total;
            for name in names {
                topics.extend(self.topic_of(&name, deadline).await?);
            }
            if last {
                break;
            }
        }
        topics.retain(|topic| after.is_none_or(|after| topic > after));
        topics.sort_unstable();
        // One that is made or goes while the pages are read may shift another into two of them.
        topics.dedup();
        topics.truncate(limit);
        Ok(topics)
    }

    async fn topic_of(&self, stream: &str, deadline: Instant) -> Result<Option<Topic>, StoreError> {
        let part = stream.strip_prefix(&self.settings.server.prefix).and_then(|rest| rest.strip_prefix('~'));
        let Some(part) = part else { return Ok(None) };
        let name = if part.contains('~') {
            // Too long for a stream's name: its subject has it all.
            let found = self.api::<StreamInfo>(&format!("STREAM.INFO.{stream}"), &json!({}), Again::Yes, deadline).await?;
            let subject = found.ok().and_then(|found| found.config.subjects.into_iter().next());
            subject.and_then(|subject| codec::decode(subject.rsplit('.').next()?))
        } else {
            codec::decode(part)
        };
        Ok(name.and_then(|name| Topic::parse(&name).ok()))
    }

    pub(super) async fn trim(&self, topic: &Topic, to: Trim) -> Result<u64, StoreError> {
        let deadline = self.deadline();
        let Some(info) = self.stream_info(topic, deadline).await? else { return Ok(0) };
        let state = info.state;
        let first_kept = match to {
            Trim::Len(keep) => state.last_seq.saturating_add(1).saturating_sub(keep),
            Trim::Before(id) => codec::seq(id),
            Trim::Age(age) => {
                let oldest_ms = unix_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                self.first_since(topic, oldest_ms, &state, deadline).await?
            }
        };
        // Beyond the end the server would go on counting from there.
        let first_kept = first_kept.min(state.last_seq.saturating_add(1));
        if first_kept <= state.first_seq || state.messages == 0 {
            return Ok(0);
        }
        if state.consumer_count > 0 && !self.link.has_server(PURGE_KEEPS_PENDING) {
            return self.remove(topic, state.first_seq..first_kept).await;
        }
        let what = format!("STREAM.PURGE.{}", self.stream(topic));
        match self.api::<Done>(&what, &json!({"seq": first_kept}), Again::Yes, deadline).await? {
            Ok(done) => Ok(done.purged),
            Err(refused) if refused.is_not_found() => Ok(0),
            Err(refused) => Err(refused.into()),
        }
    }

    /// One by one, the oldest first.
    async fn remove(&self, topic: &Topic, which: Range<u64>) -> Result<u64, StoreError> {
        let what = format!("STREAM.MSG.DELETE.{}", self.stream(topic));
        let removals = which.map(|seq| {
            let what = what.clone();
            async move { self.api::<Done>(&what, &json!({"seq": seq, "no_erase": true}), Again::Yes, self.deadline()).await }
        });
        let mut removals = stream::iter(removals).buffered(REMOVALS_AT_ONCE);
        let mut removed = 0;
        while let Some(removal) = removals.next().await {
            // Refused: it is gone already.
            removed += u64::from(removal?.is_ok());
        }
        Ok(removed)
    }

    pub(super) async fn delete(&self, topic: &Topic) -> Result<bool, StoreError> {
        let what = format!("STREAM.DELETE.{}", self.stream(topic));
        let deleted = self.api::<Done>(&what, &json!({}), Again::Yes, self.deadline()).await?;
        self.known.forget(topic);
        self.held.forget_topic(topic);
        self.unreadable.forget(topic);
        match deleted {
            Ok(_) => Ok(true),
            Err(refused) if refused.is_not_found() => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }
}

/// Refuses a stream that cannot keep the contract. What is no concern of it (limits, replicas, storage, window) may differ.
fn differs(ours: &StreamConfig, found: &StreamConfig) -> Result<(), StoreError> {
    let republished = match (&ours.republish, &found.republish) {
        (Some(ours), Some(found)) => ours.dest == found.dest,
        _ => false,
    };
    let what = [
        ("subjects", ours.subjects == found.subjects),
        ("retention", ours.retention == found.retention),
        ("republish", republished),
        ("discard", ours.discard == found.discard),
        ("max_age", found.max_age == 0),
        ("max_msgs_per_subject", found.max_msgs_per_subject <= 0),
        ("no_ack", !found.no_ack),
        ("sealed", !found.sealed),
        ("deny_purge", !found.deny_purge),
    ];
    match what.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(StoreError::Engine { source: Arc::new(Differs { stream: found.name.clone(), what }) }),
        None => Ok(()),
    }
}

#[derive(Debug)]
struct Differs {
    stream: String,
    what: &'static str,
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {:?} exists with another configuration: its {} differs", self.stream, self.what)
    }
}

impl Error for Differs {}

#[derive(Debug)]
struct NoJetStream;

impl fmt::Display for NoJetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("server has no JetStream, or not yet")
    }
}

impl Error for NoJetStream {}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// From this version on a purge leaves consumers what they have pending of the entries kept; before, those were never delivered again
/// ([nats-server 3892](https://github.com/nats-io/nats-server/pull/3892)).
const PURGE_KEEPS_PENDING: (u32, u32, u32) = (2, 9, 15);
/// Removals that are asked for before the first is answered.
const REMOVALS_AT_ONCE: usize = 256;
/// Topics remembered to have a stream; about 20 MB.
const KNOWN_MAX: usize = 100_000;
/// Between two tries while nobody answers for JetStream.
const NO_JETSTREAM_PAUSE: Duration = Duration::from_millis(100);
