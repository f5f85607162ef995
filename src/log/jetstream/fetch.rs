//! Fetch: deliveries of a group. First what there is; then it waits for one, and takes what came with it.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::log::entry::Fetch;
use crate::log::entry::Fetched;
use crate::log::entry::Group;
use crate::log::error::StoreError;
use crate::log::jetstream::Shared;
use crate::log::jetstream::codec;
use crate::log::jetstream::connection::ConnectionLost;
use crate::log::jetstream::connection::unknown;
use crate::log::jetstream::groups::consumer;
use crate::log::jetstream::groups::token;
use crate::log::jetstream::pull::End;
use crate::log::jetstream::pull::Pull;

impl Shared {
    pub(super) async fn fetch(&self, group: &Group, fetch: Fetch) -> Result<Vec<Fetched>, StoreError> {
        let until = Instant::now() + fetch.wait.min(Fetch::WAIT_MAX);
        let batch = fetch.entries.clamp(1, FETCH_MAX);
        self.open_group(group, fetch.visibility, self.deadline()).await?;
        loop {
            if self.held.is_suspect(group) {
                let unreadable = self.unreadable(group, batch, self.deadline()).await?;
                if !unreadable.is_empty() {
                    return Ok(unreadable);
                }
                self.held.suspect(group, false);
            }
            let at_hand = self.pull(group, batch, None, Vec::new()).await?;
            if !at_hand.is_empty() {
                return Ok(self.hand_over(group, at_hand));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left < WAIT_MIN {
                return Ok(Vec::new());
            }
            // One: with more asked for, those that come after we have gone would be nobody's until their visibility is over.
            let first = self.pull(group, 1, Some(left.min(WAIT_AT_ONCE_MAX)), Vec::new()).await?;
            if !first.is_empty() {
                let all = if batch > 1 { self.pull(group, batch, None, first).await? } else { first };
                return Ok(self.hand_over(group, all));
            }
        }
    }

    /// What is at hand, or with `wait` what comes. With `carry` it cannot fail: that is handed over in any case.
    async fn pull(
        &self,
        group: &Group,
        batch: usize,
        wait: Option<Duration>,
        carry: Vec<Message>,
    ) -> Result<Vec<Message>, StoreError> {
        let (stream, consumer) = (self.stream(&group.topic), consumer(&group.name));
        let carried = carry.len();
        let deadline = self.deadline();
        let connection = match self.link.connection(deadline).await {
            Ok(connection) => connection,
            Err(_) if carried > 0 => return Ok(carry),
            Err(error) => return Err(error),
        };
        let mut pull = Pull::new(connection, carry);
        let asked = pull.ask(&stream, &consumer, batch - carried, wait).await;
        let mut end = match asked {
            Err(_) => End::Lost,
            Ok(()) => match wait {
                Some(wait) => pull.collect(batch, Instant::now() + wait + WAIT_GRACE).await,
                None => pull.collect(batch, Instant::now() + SILENCE).await,
            },
        };
        // The server says nothing to who asks for a consumer that is none.
        if end == End::Silent && carried == 0 {
            if self.group_consumer(group, deadline).await?.is_none() {
                end = End::NoConsumer;
            } else if wait.is_none() {
                end = pull.collect(batch, deadline).await;
            }
        }
        if end == End::Lost {
            self.held.suspect(group, true);
        }
        let none = pull.len() == 0;
        match end {
            End::NoConsumer if none => {
                self.group_consumer(group, deadline).await?;
                Err(StoreError::NoGroup(group.clone()))
            }
            End::Silent if none && wait.is_none() => Err(unknown(Arc::new(ConnectionLost))),
            End::Lost if none => {
                // The next try waits for the connection, or fails.
                sleep(RETRY_PAUSE).await;
                self.link.connection(deadline).await?;
                Ok(Vec::new())
            }
            End::Busy if none => {
                sleep(BUSY_PAUSE).await;
                Ok(Vec::new())
            }
            end => Ok(pull.finish(end)),
        }
    }

    fn hand_over(&self, group: &Group, messages: Vec<Message>) -> Vec<Fetched> {
        let stream = self.stream(&group.topic);
        let fetched = |message: Message| {
            let reply = message.reply?;
            let at = codec::delivered(&reply).filter(|at| at.stream == stream)?;
            self.held.delivered(group, at.seq, at.attempt);
            let entry = codec::entry(at.seq, message.headers.as_ref(), message.payload);
            let token = token(at.seq, at.attempt, &reply);
            Some(Fetched { id: token.id, entry: Some(entry), attempt: token.attempt, token })
        };
        messages.into_iter().filter_map(fetched).collect()
    }
}

/// The most of one fetch.
const FETCH_MAX: usize = 4_096;
/// Less is no wait.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// One request's part of a long wait.
const WAIT_AT_ONCE_MAX: Duration = Duration::from_secs(30);
/// The server's own end of a wait comes by then.
const WAIT_GRACE: Duration = Duration::from_millis(500);
/// Who has not heard anything by then asks whether there is such a group.
const SILENCE: Duration = Duration::from_millis(300);
/// Before it is tried again, while too many wait.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// A connection may fail before its loss is known here.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
