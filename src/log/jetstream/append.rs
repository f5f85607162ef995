//! Append: entries published to their topic's stream, and what became of each. Knows no reading.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_nats::StatusCode;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::ids::EntryId;
use crate::log::entry::Append;
use crate::log::entry::Appended;
use crate::log::error::Outcome;
use crate::log::error::StoreError;
use crate::log::jetstream::Shared;
use crate::log::jetstream::api;
use crate::log::jetstream::api::PublishAck;
use crate::log::jetstream::api::Refused;
use crate::log::jetstream::codec;
use crate::log::jetstream::codec::Outgoing;
use crate::log::jetstream::connection::Again;
use crate::log::jetstream::connection::Connection;
use crate::log::jetstream::connection::ConnectionLost;
use crate::log::jetstream::connection::NoAnswer;
use crate::log::jetstream::connection::unknown;
use crate::topic::Topic;

/// What became of one published entry.
enum Fate {
    Stored(Appended),
    Refused(Refused),
    /// Nobody listens to the subject: the stream is gone.
    NoStream,
    /// No answer.
    Unknown,
}

impl Shared {
    pub(super) async fn append(&self, topic: &Topic, batch: Append) -> Result<Vec<Appended>, StoreError> {
        batch.check(&self.settings.server.limits)?;
        if batch.entries.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = self.deadline();
        let Append { entries, expect_last, trim } = batch;
        let messages: Vec<_> = entries.into_iter().map(Outgoing::of).collect();
        if self.link.max_payload().is_none() {
            // What the server takes is known once there is one.
            self.link.connection(deadline).await?;
        }
        if let Some(max) = self.link.max_payload()
            && let Some((index, bytes)) = messages.iter().map(Outgoing::wire_bytes).enumerate().find(|(_, bytes)| *bytes > max)
        {
            return Err(StoreError::TooLarge { index, bytes, max });
        }
        self.open(topic, deadline).await?;
        let mut appended = self.publish(topic, &messages, expect_last, deadline).await;
        if matches!(appended, Err(NoAnswer::NoResponders)) {
            // Another node has deleted the topic: made anew, once.
            self.known.forget(topic);
            self.open(topic, deadline).await?;
            appended = self.publish(topic, &messages, expect_last, deadline).await;
        }
        let appended = appended.map_err(|error| match error {
            NoAnswer::Failed(error) => error,
            NoAnswer::NoResponders => StoreError::Unavailable { outcome: Outcome::NotDone, source: Arc::new(NoStream) },
        })?;
        if let Some(to) = trim
            && let Err(error) = self.trim(topic, to).await
        {
            // The entries are in. To say that they are not would be wrong; the next append trims what this one did not.
            tracing::debug!(%topic, %error, "append has not trimmed");
        }
        Ok(appended)
    }

    async fn publish(
        &self,
        topic: &Topic,
        messages: &[Outgoing],
        expect_last: Option<EntryId>,
        deadline: Instant,
    ) -> Result<Vec<Appended>, NoAnswer> {
        let keyed = messages.iter().any(|message| message.key.is_some());
        match (messages, expect_last) {
            ([message], expected) => Ok(vec![self.publish_one(topic, message, expected, expected, deadline).await?]),
            (_, Some(expected)) if keyed => self.publish_in_turn(topic, messages, expected, deadline).await,
            _ => self.publish_many(topic, messages, expect_last, deadline).await,
        }
    }

    /// `asked` is what the caller expects, `expected` what this message has to.
    async fn publish_one(
        &self,
        topic: &Topic,
        message: &Outgoing,
        asked: Option<EntryId>,
        expected: Option<EntryId>,
        deadline: Instant,
    ) -> Result<Appended, NoAnswer> {
        let headers = message.header_map(expected.map(sequence));
        // Under a key the server knows a repetition.
        let again = if message.key.is_some() { Again::Yes } else { Again::No };
        let subject = self.subject(topic);
        let answer = self.link.request(&subject, headers.as_ref(), &message.payload, again, deadline).await?;
        match api::answer::<PublishAck>(&answer.payload).map_err(NoAnswer::Failed)? {
            Ok(ack) => Ok(Appended { id: codec::id(ack.seq), duplicate: ack.duplicate }),
            Err(refused) => Err(NoAnswer::Failed(refusal(refused, asked))),
        }
    }

    /// With keys and an expected last id: what each has to expect is known when the one before it is answered.
    async fn publish_in_turn(
        &self,
        topic: &Topic,
        messages: &[Outgoing],
        asked: EntryId,
        deadline: Instant,
    ) -> Result<Vec<Appended>, NoAnswer> {
        let (mut appended, mut last): (Vec<Appended>, _) = (Vec::new(), asked);
        for message in messages {
            match self.publish_one(topic, message, Some(asked), Some(last), deadline).await {
                Ok(one) => {
                    // A duplicate right after what is expected is of an earlier try of this same batch.
                    if !one.duplicate || Some(one.id) == last.next() {
                        last = one.id;
                    }
                    appended.push(one);
                }
                Err(NoAnswer::Failed(error)) => {
                    let stored = appended.iter().filter(|one| !one.duplicate).count();
                    return Err(NoAnswer::Failed(partial(stored, messages.len(), error)));
                }
                Err(NoAnswer::NoResponders) if appended.is_empty() => return Err(NoAnswer::NoResponders),
                Err(NoAnswer::NoResponders) => return Err(NoAnswer::Failed(unknown(Arc::new(NoStream)))),
            }
        }
        Ok(appended)
    }

    /// All at once, in order. Runs on the connection's thread: dropped here, it still does all.
    async fn publish_many(
        &self,
        topic: &Topic,
        messages: &[Outgoing],
        asked: Option<EntryId>,
        deadline: Instant,
    ) -> Result<Vec<Appended>, NoAnswer> {
        let all_keyed = messages.iter().all(|message| message.key.is_some());
        let expected = |at: usize| asked.map(|last| sequence(last).saturating_add(at as u64));
        loop {
            let connection = self.link.connection(deadline).await.map_err(NoAnswer::Failed)?;
            let batch: Vec<_> = messages
                .iter()
                .enumerate()
                .map(|(at, message)| (message.header_map(expected(at)), message.payload.clone()))
                .collect();
            let (tell, told) = oneshot::channel();
            let (sender, subject) = (Arc::clone(&connection), self.subject(topic));
            connection.spawn(async move {
                let fates = publish_all(&sender, subject, batch, deadline).await;
                // The caller may have gone away; nothing is owed to it.
                let _ = tell.send(fates);
            });
            let fates = told.await.unwrap_or_else(|_| messages.iter().map(|_| Fate::Unknown).collect());
            let lost = fates.iter().any(|fate| matches!(fate, Fate::Unknown));
            if lost && all_keyed && Instant::now() < deadline {
                continue;
            }
            return outcome(fates, asked);
        }
    }
}

/// Publishes in order, a window at a time, and says of each what became of it.
async fn publish_all(
    connection: &Connection,
    subject: String,
    batch: Vec<(Option<async_nats::HeaderMap>, Bytes)>,
    deadline: Instant,
) -> Vec<Fate> {
    let total = batch.len();
    let mut fates: Vec<Fate> = (0..total).map(|_| Fate::Unknown).collect();
    let client = &connection.client;
    let inbox = client.new_inbox();
    let Ok(mut answers) = client.subscribe(format!("{inbox}.*")).await else { return fates };
    let (mut answered, mut under_way, mut stop) = (0, 0, false);
    let mut sizes = vec![0; total];
    let mut batch = batch.into_iter().enumerate().peekable();
    loop {
        while !stop && under_way < WINDOW_BYTES {
            let Some((at, (headers, payload))) = batch.next() else { break };
            sizes[at] = payload.len() + ENTRY_OVERHEAD_BYTES;
            under_way += sizes[at];
            let reply = format!("{inbox}.{at}");
            let sent = match headers {
                Some(headers) => client.publish_with_reply_and_headers(subject.clone(), reply, headers, payload).await,
                None => client.publish_with_reply(subject.clone(), reply, payload).await,
            };
            stop = sent.is_err();
        }
        let sent = total - batch.len();
        if answered == sent {
            break;
        }
        let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await else { break };
        let at = answer.subject.rsplit('.').next().and_then(|at| at.parse::<usize>().ok());
        let Some(at) = at.filter(|at| *at < total) else { continue };
        answered += 1;
        under_way = under_way.saturating_sub(sizes[at]);
        fates[at] = if answer.status == Some(StatusCode::NO_RESPONDERS) {
            Fate::NoStream
        } else {
            match api::answer::<PublishAck>(&answer.payload) {
                Ok(Ok(ack)) => Fate::Stored(Appended { id: codec::id(ack.seq), duplicate: ack.duplicate }),
                Ok(Err(refused)) => Fate::Refused(refused),
                Err(_) => Fate::Unknown,
            }
        };
        // What follows a refused one would stand in front of it.
        stop |= !matches!(fates[at], Fate::Stored(_));
        if stop && answered == total - batch.len() {
            break;
        }
    }
    fates
}

/// All stored, or why not. Nothing of it stored is the reason itself; a part of it is `Unknown`, whatever the reason.
fn outcome(fates: Vec<Fate>, asked: Option<EntryId>) -> Result<Vec<Appended>, NoAnswer> {
    let total = fates.len();
    let (mut appended, mut failed, mut unanswered) = (Vec::with_capacity(total), None, false);
    for fate in fates {
        match fate {
            Fate::Stored(one) => appended.push(one),
            Fate::Unknown => unanswered = true,
            other => failed = failed.or(Some(other)),
        }
    }
    let stored = appended.iter().filter(|one| !one.duplicate).count();
    let error = match failed {
        None if !unanswered => return Ok(appended),
        None => unknown(Arc::new(ConnectionLost)),
        Some(Fate::NoStream) if stored == 0 && !unanswered => return Err(NoAnswer::NoResponders),
        Some(Fate::Refused(refused)) => refusal(refused, asked),
        Some(_) => unknown(Arc::new(NoStream)),
    };
    Err(NoAnswer::Failed(partial(stored + usize::from(unanswered), total, error)))
}

fn partial(stored: usize, of: usize, error: StoreError) -> StoreError {
    if stored == 0 { error } else { unknown(Arc::new(Partial { stored, of, cause: error })) }
}

fn refusal(refused: Refused, asked: Option<EntryId>) -> StoreError {
    match asked {
        Some(expected) if refused.err_code == api::WRONG_LAST => {
            StoreError::Conflict { expected, last: refused.last_seq().map(codec::id) }
        }
        _ => refused.into(),
    }
}

/// As the server reads it: an `i64`, and one of another store is none of its.
fn sequence(id: EntryId) -> u64 {
    codec::seq(id).min(i64::MAX.unsigned_abs())
}

#[derive(Debug)]
struct NoStream;

impl fmt::Display for NoStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the topic's stream is gone")
    }
}

impl Error for NoStream {}

/// A batch of which some entries were stored.
#[derive(Debug)]
struct Partial {
    stored: usize,
    of: usize,
    cause: StoreError,
}

impl fmt::Display for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of {} entries at least {} may be stored", self.of, self.stored)
    }
}

impl Error for Partial {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// Bytes of one batch that are published and not yet answered.
const WINDOW_BYTES: usize = 1 << 20;
/// What an entry counts in the window besides its payload: 1,024 entries without any.
const ENTRY_OVERHEAD_BYTES: usize = 1 << 10;
