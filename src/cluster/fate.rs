//! Fate: whether a link is still of use, as all its tasks see it. Knows no engine.

use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::transport::TransportError;

/// Ends once, for one reason. Whatever waits for the engine waits for this, too, so that nothing waits for ever.
#[derive(Debug)]
pub(super) struct Fate {
    why: watch::Sender<Option<TransportError>>,
}

impl Fate {
    pub(super) fn new() -> Self {
        Self { why: watch::Sender::new(None) }
    }

    /// The first reason stays.
    pub(super) fn end(&self, why: TransportError) {
        self.why.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(why);
            }
            first
        });
    }

    pub(super) async fn ended(&self) -> TransportError {
        let mut why = self.why.subscribe();
        let ended = match why.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            // The sender is `self`, which is borrowed here.
            Err(_) => None,
        };
        ended.unwrap_or_else(|| TransportError::because("the link has ended"))
    }

    /// What comes of `work`, or why the link ended before.
    pub(super) async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Result<T, TransportError> {
        let (mut work, mut ended) = (pin!(work), pin!(self.ended()));
        poll_fn(|cx| match ended.as_mut().poll(cx) {
            Poll::Ready(why) => Poll::Ready(Err(why)),
            Poll::Pending => work.as_mut().poll(cx).map(Ok),
        })
        .await
    }

    /// As [`unless_ended`](Self::unless_ended); the link ends if it takes longer than this.
    pub(super) async fn within<T>(&self, time: Duration, work: impl Future<Output = T>) -> Result<T, TransportError> {
        match self.unless_ended(timeout(time, work)).await? {
            Ok(done) => Ok(done),
            Err(_) => Err(self.fail(TransportError::because("the engine did not answer in time"))),
        }
    }

    /// Ends the link, and gives the reason back.
    pub(super) fn fail(&self, why: TransportError) -> TransportError {
        self.end(why.clone());
        why
    }
}
