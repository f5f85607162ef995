//! Delivery: one entry in a consumer's hands, and what its handler may answer. Knows no queue of them.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use actix::Message;
use tokio::time::Instant;

use crate::feed::Feed;
use crate::ids::EntryId;
use crate::log::Group;
use crate::log::Headers;
use crate::log::StoreError;
use crate::log::Token;
use crate::stream::consumer::ConsumeOptions;
use crate::stream::consumer::Shared;
use crate::topic::Topic;

/// One entry of the log as one consumer of a group receives it: `Handler<Delivery<M>>`.
///
/// The handler answers a `Result<(), Failure>`, or a future of one (`ResponseFuture`, `ResponseActFuture`, `AtomicResponse`). `Ok` acks. On `Err`, on a
/// panic, when the actor dies or does not answer within the visibility timeout, the entry is delivered again, to whichever consumer of the
/// group is free. So an entry is delivered at least once, and now and then twice: handlers must be idempotent. [`id`](Self::id) names the entry for that.
pub struct Delivery<M> {
    pub(crate) message: M,
    pub(crate) headers: Headers,
    pub(crate) attempt: u32,
    pub(crate) token: Token,
    pub(crate) group: Arc<Group>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) until: Arc<Until>,
}

/// Until when an entry is its consumer's, for the handler that may extend it and the intake that has to know.
pub(crate) struct Until {
    at: Mutex<Instant>,
    shared: Arc<Shared>,
}

impl Until {
    pub(crate) fn new(at: Instant, shared: Arc<Shared>) -> Self {
        Self { at: Mutex::new(at), shared }
    }

    pub(crate) fn at(&self) -> Instant {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Instant) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
        self.shared.poke();
    }
}

impl<M> Delivery<M> {
    /// The topic it comes from.
    pub fn topic(&self) -> &Topic {
        &self.group.topic
    }

    /// Where it stands in the topic; the same each time it is delivered.
    pub fn id(&self) -> EntryId {
        self.token.id
    }

    /// How often it was delivered, this time included.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| &**value)
    }

    /// The message itself.
    pub fn into_message(self) -> M {
        self.message
    }

    /// Keeps the entry for `visibility` from now on, 12 hours at most: for a handler that takes longer than it thought. `false`: it is someone else's by now.
    ///
    /// The future borrows nothing of the delivery.
    ///
    /// # Errors
    /// What the store says; the entry is kept as long as before then.
    pub fn extend(&self, visibility: Duration) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static {
        let (feed, group, token) = (Arc::clone(&self.feed), Arc::clone(&self.group), self.token.clone());
        let (until, visibility) = (Arc::clone(&self.until), visibility.min(ConsumeOptions::VISIBILITY_MAX));
        async move {
            let extended = feed.store.extend(&group, vec![token], visibility).await? > 0;
            if extended {
                until.set(Instant::now() + visibility);
            }
            Ok(extended)
        }
    }
}

impl<M> Deref for Delivery<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.message
    }
}

impl<M: fmt::Debug> fmt::Debug for Delivery<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("topic", self.topic())
            .field("id", &self.id())
            .field("attempt", &self.attempt)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl<M: 'static> Message for Delivery<M> {
    type Result = Result<(), Failure>;
}

/// Why a handler did not do its work, and what is to become of the entry.
///
/// Made from any error by `?`, and from text: then the entry is delivered again after the consumer's back-off.
///
/// ```
/// use actix_pubsub::Failure;
/// use std::time::Duration;
///
/// fn book(amount: &str) -> Result<(), Failure> {
///     let amount: u64 = amount.parse()?;                                            // again, after the back-off
///     match amount {
///         0 => Err(Failure::dead("an order of nothing")),                           // never again
///         1 => Err(Failure::new("the bank is closed").after(Duration::from_secs(3600))), // again in an hour
///         _ => Ok(()),
///     }
/// }
/// # assert!(book("x").is_err());
/// # assert_eq!(book("0").unwrap_err().reason(), "an order of nothing");
/// # assert_eq!(book("1").unwrap_err().reason(), "the bank is closed");
/// # assert!(book("2").is_ok());
/// ```
pub struct Failure {
    reason: String,
    pub(crate) then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Again,
    AgainAfter(Duration),
    Dead,
}

impl Failure {
    /// Deliver it again, after the consumer's back-off.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), then: Then::Again }
    }

    /// Never deliver it again: it becomes a dead letter.
    pub fn dead(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), then: Then::Dead }
    }

    /// Deliver it again after this time.
    pub fn after(mut self, delay: Duration) -> Self {
        self.then = Then::AgainAfter(delay);
        self
    }

    /// Why: the error with everything that it came from.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

// Not itself an `Error`: else this would be at odds with `From<T> for T`.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(crate::observe::chain(&*error.into()))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("reason", &self.reason).field("then", &self.then).finish()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
