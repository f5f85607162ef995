//! Pull: one request for messages of a consumer, and what comes of it. What it has taken and not handed over it gives back when it is dropped.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;

use crate::log::error::StoreError;
use crate::log::jetstream::api;
use crate::log::jetstream::api::Next;
use crate::log::jetstream::connection::Connection;
use crate::log::jetstream::connection::status;
use crate::log::jetstream::connection::unknown;

pub(super) struct Pull {
    connection: Arc<Connection>,
    answers: Option<Subscriber>,
    got: Vec<Message>,
}

/// Why no more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As many as were asked for.
    Full,
    /// There are no more, or not in time.
    Empty,
    /// The consumer was deleted.
    NoConsumer,
    /// Too many pulls wait already.
    Busy,
    /// The server has not said a word in time.
    Silent,
    /// The connection was lost.
    Lost,
}

impl Pull {
    /// `carry` is what an earlier pull has brought; it is given back, too.
    pub(super) fn new(connection: Arc<Connection>, carry: Vec<Message>) -> Self {
        Self { connection, answers: None, got: carry }
    }

    /// Asks for `batch` messages: for those there are, or with `wait` for those to come, too.
    pub(super) async fn ask(
        &mut self,
        stream: &str,
        consumer: &str,
        batch: usize,
        wait: Option<Duration>,
    ) -> Result<(), StoreError> {
        let next = Next { batch, no_wait: wait.is_none(), expires: wait.map_or(0, api::nanos) };
        let body = serde_json::to_vec(&next).map_err(|error| StoreError::Engine { source: Arc::new(error) })?;
        let client = &self.connection.client;
        let inbox = client.new_inbox();
        self.answers = Some(client.subscribe(inbox.clone()).await.map_err(|error| unknown(Arc::new(error)))?);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let asked = client.publish_with_reply(subject, inbox, Bytes::from(body)).await;
        asked.map_err(|error| unknown(Arc::new(error)))
    }

    /// Takes what comes until `batch` are there, the server says that there is no more, or the time is over.
    pub(super) async fn collect(&mut self, batch: usize, until: Instant) -> End {
        let mut heard = false;
        while self.got.len() < batch {
            let Some(answers) = &mut self.answers else { return End::Lost };
            let message = match timeout_at(until, self.connection.while_up(answers.next())).await {
                Ok(Some(Some(message))) => message,
                Ok(_) => return End::Lost,
                Err(_) => return if heard { End::Empty } else { End::Silent },
            };
            heard = true;
            let text = message.description.as_deref().unwrap_or_default();
            match status(&message) {
                None => self.got.push(message),
                // A heartbeat.
                Some(100) => {}
                Some(409) if text.contains("Deleted") => return End::NoConsumer,
                Some(409) if text.contains("MaxWaiting") => return End::Busy,
                // No messages, time-out, a limit.
                Some(_) => return End::Empty,
            }
        }
        End::Full
    }

    pub(super) fn len(&self) -> usize {
        self.got.len()
    }

    /// Hands over what came. The request must be over: its end was heard.
    pub(super) fn finish(mut self, end: End) -> Vec<Message> {
        if matches!(end, End::Full | End::Empty | End::NoConsumer | End::Busy) {
            // Nothing can come any more.
            self.answers = None;
        }
        std::mem::take(&mut self.got)
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        let (answers, got) = (self.answers.take(), std::mem::take(&mut self.got));
        if answers.is_none() && got.is_empty() {
            return;
        }
        let connection = Arc::clone(&self.connection);
        self.connection.spawn(async move {
            for message in got {
                give_back(&connection, message).await;
            }
            let Some(mut answers) = answers else { return };
            // What is on its way here comes before the server's confirmation.
            if answers.drain().await.is_ok() {
                while let Ok(Some(message)) = timeout(DRAIN_TIME, answers.next()).await {
                    if status(&message).is_none() {
                        give_back(&connection, message).await;
                    }
                }
            }
        });
    }
}

async fn give_back(connection: &Connection, message: Message) {
    if let Some(reply) = message.reply {
        // If it is lost, too, the entry comes again after its visibility.
        let _ = connection.client.publish(reply, Bytes::from_static(b"-NAK")).await;
    }
}

/// The most that an answer to an unsubscription is waited for.
const DRAIN_TIME: Duration = Duration::from_secs(2);
