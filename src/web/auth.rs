//! Auth: who a connection is, and the hook that says what it may do. Knows no protocol and no transport.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use actix_web::HttpRequest;
use actix_web::http::header;
use serde::Deserialize;
use serde::Serialize;

use crate::event::Payload;
use crate::topic::Topic;
use crate::topic::TopicError;
use crate::web::refusal::Refusal;

/// What a method of [`Authorize`] returns. It runs on the arbiter of its request, so it need not be `Send`.
pub type Decision<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + 'a>>;

/// Says who a connection is and what it may do: one hook for SSE and WebSocket alike, given to [`Edge::builder`](crate::web::Edge::builder).
///
/// Once there is one, everything is denied that it does not allow. It is asked at each connect, then for each topic at each subscribe, those with a
/// position to replay from included, and for each message that a client publishes. What it allowed holds until the connection ends, the
/// [identity's time](Identity::expires_at) is over, or somebody calls [`PubSub::disconnect`](crate::PubSub::disconnect).
///
/// With actix-session or actix-identity, `connect` asks the request for theirs: `request.get_session()`, `actix_identity::Identity::extract(request).await`. The example
/// `handlers` uses JSON web tokens.
///
/// ```
/// use actix_pubsub::Topic;
/// use actix_pubsub::web::{Authorize, Decision, Identity, Refusal, bearer_token};
/// use actix_web::HttpRequest;
///
/// /// Everyone who knows the word reads the news, and nobody publishes.
/// struct Readers { word: String }
///
/// impl Authorize for Readers {
///     fn connect<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a, Identity> {
///         Box::pin(async move {
///             match bearer_token(request) {
///                 Some(token) if *token == self.word => Ok(Identity::parse("reader")?),
///                 _ => Err(Refusal::unauthorized("a token is needed")),
///             }
///         })
///     }
///
///     fn subscribe<'a>(&'a self, _: &'a Identity, topic: &'a Topic) -> Decision<'a, ()> {
///         Box::pin(async move {
///             if topic.as_str().starts_with("news:") { Ok(()) } else { Err(Refusal::denied("only news")) }
///         })
///     }
/// }
/// ```
pub trait Authorize: Send + Sync + 'static {
    /// Who sends this request. Its refusal is the answer: 401 and 403 end an `EventSource` for good.
    fn connect<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a, Identity>;

    /// Whether `who` may receive what is sent to `topic`, now and from its history. Unless overridden, no.
    fn subscribe<'a>(&'a self, who: &'a Identity, topic: &'a Topic) -> Decision<'a, ()> {
        let refusal = Refusal::denied(format!("{who} may not subscribe to {topic}"));
        Box::pin(async move { Err(refusal) })
    }

    /// Whether `who` may publish a message of the type called `event` to `topic`. Unless overridden, no.
    fn publish<'a>(&'a self, who: &'a Identity, topic: &'a Topic, event: &'a str) -> Decision<'a, ()> {
        let refusal = Refusal::denied(format!("{who} may not publish {event} to {topic}"));
        Box::pin(async move { Err(refusal) })
    }
}

/// Who a connection is, as [`Authorize::connect`] found out. A clone is one reference count.
#[derive(Clone)]
pub struct Identity {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    /// Where what concerns it is sent: `$identity/` and its name.
    topic: Topic,
    expires_at: Option<SystemTime>,
    claims: Option<Arc<dyn Any + Send + Sync>>,
}

impl Identity {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = Topic::BYTES_MAX - PREFIX.len();

    /// An identity of this name: a user, an account, a device; whatever [`PubSub::disconnect`](crate::PubSub::disconnect) is to be called with.
    ///
    /// # Errors
    /// A name that is empty, longer than [`BYTES_MAX`](Self::BYTES_MAX), or has control characters or `*` in it.
    pub fn parse(name: &str) -> Result<Self, TopicError> {
        let topic = topic_of(name)?;
        Ok(Self { inner: Some(Arc::new(Inner { topic, expires_at: None, claims: None })) })
    }

    /// Nobody in particular: what a connection is without an [`Authorize`].
    pub fn anonymous() -> Self {
        Self { inner: None }
    }

    /// When its time is over: connections are closed then, and it has to connect anew. Nothing for an anonymous one.
    pub fn expires_at(self, at: SystemTime) -> Self {
        self.change(|inner| inner.expires_at = Some(at))
    }

    /// What else is known of it, for `subscribe` and `publish` to decide by. Nothing for an anonymous one.
    pub fn with_claims<T: Send + Sync + 'static>(self, claims: T) -> Self {
        self.change(|inner| inner.claims = Some(Arc::new(claims)))
    }

    /// What `with_claims` was given, if it is of this type.
    pub fn claims<T: 'static>(&self) -> Option<&T> {
        self.inner.as_ref()?.claims.as_ref()?.downcast_ref()
    }

    /// Its name; `None` for an anonymous one.
    pub fn name(&self) -> Option<&str> {
        self.inner.as_ref().map(|inner| inner.topic.as_str().strip_prefix(PREFIX).unwrap_or_default())
    }

    pub(crate) fn topic(&self) -> Option<&Topic> {
        self.inner.as_ref().map(|inner| &inner.topic)
    }

    pub(crate) fn expiry(&self) -> Option<SystemTime> {
        self.inner.as_ref()?.expires_at
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = &mut self.inner {
            let mut changed = Inner { topic: inner.topic.clone(), expires_at: inner.expires_at, claims: inner.claims.clone() };
            change(&mut changed);
            *inner = Arc::new(changed);
        }
        self
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("anonymous"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name()).field("expires_at", &self.expiry()).finish_non_exhaustive()
    }
}

/// Who a session is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its id, another one for each connection.
    pub id: Arc<str>,
    /// Who it belongs to.
    pub identity: Identity,
}

/// Where what concerns an identity is sent.
pub(crate) fn topic_of(name: &str) -> Result<Topic, TopicError> {
    match name.len() {
        0 => Err(TopicError::Empty),
        bytes if bytes > Identity::BYTES_MAX => Err(TopicError::TooLong { bytes, max: Identity::BYTES_MAX }),
        _ => Topic::parse(&format!("{PREFIX}{name}")),
    }
}

const PREFIX: &str = "$identity/";

/// Told to all connections of one identity, on every node.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Told {
    /// They end.
    Disconnect,
    /// They ask again for each of their topics.
    Recheck,
}

impl Payload for Told {
    const NAME: &'static str = "actix_pubsub.identity";
}

/// The token of a request, as `Authorization: Bearer …` (RFC 6750, section 2.1), or, because browsers can set no header on a WebSocket, as the
/// subprotocol `bearer.…` that it offers beside `actix-pubsub.v1`.
pub fn bearer_token(request: &HttpRequest) -> Option<Cow<'_, str>> {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, token)) = authorization.and_then(|value| value.split_once(' '))
        && scheme.eq_ignore_ascii_case("bearer")
    {
        return Some(Cow::Borrowed(token.trim()));
    }
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).find_map(|offer| offer.trim().strip_prefix("bearer.").map(Cow::Borrowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn a_token_is_found_in_the_header_and_in_the_subprotocols() {
        let check = |name: &str, value: &str| {
            let request = TestRequest::default().insert_header((name, value)).to_http_request();
            bearer_token(&request).map(Cow::into_owned)
        };
        assert_eq!(check("authorization", "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(check("authorization", "bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(check("authorization", "Basic abc"), None);
        assert_eq!(check("sec-websocket-protocol", "actix-pubsub.v1, bearer.a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(check("sec-websocket-protocol", "actix-pubsub.v1"), None);
    }

    #[test]
    fn a_name_is_checked_at_the_limit_and_one_past_it() {
        let longest = "x".repeat(Identity::BYTES_MAX);
        assert_eq!(Identity::parse(&longest).unwrap().name(), Some(&*longest));
        let error = Identity::parse(&format!("{longest}x")).unwrap_err();
        assert_eq!(error, TopicError::TooLong { bytes: 246, max: 245 });
        assert!(Identity::parse("").is_err() && Identity::parse("a\nb").is_err() && Identity::parse("*").is_err());
    }

    #[test]
    fn claims_and_expiry_stay_with_the_identity() {
        let at = SystemTime::now();
        let identity = Identity::parse("ann").unwrap().with_claims(7_u32).expires_at(at);
        assert_eq!((identity.claims::<u32>(), identity.claims::<u64>(), identity.expiry()), (Some(&7), None, Some(at)));
        assert_eq!(Identity::anonymous().with_claims(7_u32).claims::<u32>(), None);
    }
}
