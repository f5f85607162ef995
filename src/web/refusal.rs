//! Refusal: how a request is refused, over HTTP and over a WebSocket, and what each of this crate's errors is there. Knows no connection.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::ResponseError;
use actix_web::http::StatusCode;
use actix_web::http::header;
use serde::Serialize;

use crate::ids::EntryIdError;
use crate::local::error::BroadcastError;
use crate::local::error::SubscribeError;
use crate::log::Outcome;
use crate::log::StoreError;
use crate::observe;
use crate::stream::error::AppendError;
use crate::stream::error::ConsumeError;
use crate::stream::error::FollowError;
use crate::topic::Topic;
use crate::topic::TopicError;

/// Why a request was refused: a code for programs, a text for people, and the limit and the value where there are any.
///
/// As an actix-web error it answers with its status and itself as JSON:
/// `{"code":"topic","message":"topic is 300 bytes, the limit is 255","limit":255,"value":300}`. Each error of this crate is one, too, so handlers use `?`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refusal {
    /// What kind; the codes are those of the WebSocket protocol.
    pub code: Cow<'static, str>,
    /// A lower-case clause with the numbers.
    pub message: String,
    /// The limit that was passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What was given instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// When it may be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Whether what was asked was done, where that is a question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// The status over HTTP.
    #[serde(skip)]
    pub status: StatusCode,
}

impl Refusal {
    /// A refusal of your own: what an [`Authorize`](crate::web::Authorize) says no with, or a handler.
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), limit: None, value: None, retry_after_ms: None, outcome: None, status }
    }

    /// Nobody knows who asks: status 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// It is known who asks, and that they may not: status 403.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "denied", message)
    }

    /// The limit, and what was given instead.
    pub fn limit(mut self, limit: u64, value: u64) -> Self {
        (self.limit, self.value) = (Some(limit), Some(value));
        self
    }

    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn topics(topics: usize, max: usize) -> Self {
        let message = format!("{topics} topics on one connection, the limit is {max}");
        Self::bad("topics", message).limit(max as u64, topics as u64)
    }

    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        // A wait of less than a millisecond is told as one.
        self.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        self
    }

    pub(crate) fn closed() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "closed", "the server is shutting down").retry_after(Duration::from_secs(1))
    }

    /// For what is to be done again, because so many arbiters had no room for it.
    pub(crate) fn busy(arbiters: usize) -> Self {
        let message = format!("{arbiters} arbiters have no room for it now");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message).retry_after(Duration::from_millis(100))
    }

    /// For what only a mistake in the program can cause: told to its log, not to strangers.
    fn internal(error: &dyn Error) -> Self {
        observe::request_failed(error);
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server could not do this")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refusal {}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some(wait) = self.retry_after_ms {
            response.insert_header((header::RETRY_AFTER, wait.div_ceil(1_000)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 11.6.1: a 401 names a scheme.
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455, section 4.4: the version that is spoken here; RFC 9110, section 15.5.22: a 426 names the protocol.
            response
                .insert_header((header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION))
                .insert_header((header::UPGRADE, "websocket"));
        }
        response.insert_header((header::CACHE_CONTROL, "no-store")).json(self)
    }
}

impl From<&TopicError> for Refusal {
    fn from(error: &TopicError) -> Self {
        let refusal = Self::bad("topic", error.to_string());
        match error {
            TopicError::TooLong { bytes, max } => refusal.limit(*max as u64, *bytes as u64),
            TopicError::Empty => refusal.limit(Topic::BYTES_MAX as u64, 0),
            TopicError::Forbidden { .. } => refusal,
        }
    }
}

impl From<&EntryIdError> for Refusal {
    fn from(error: &EntryIdError) -> Self {
        let refusal = Self::bad("last_id", error.to_string());
        match error {
            EntryIdError::TooLong { bytes, max } => refusal.limit(*max as u64, *bytes as u64),
            _ => refusal,
        }
    }
}

impl From<&SubscribeError> for Refusal {
    fn from(error: &SubscribeError) -> Self {
        match error {
            SubscribeError::Topic(source) => source.into(),
            SubscribeError::Closed => Self::closed(),
            _ => Self::internal(error),
        }
    }
}

impl<M> From<&BroadcastError<M>> for Refusal {
    fn from(error: &BroadcastError<M>) -> Self {
        match error {
            BroadcastError::Topic { source, .. } => source.into(),
            BroadcastError::Closed { .. } => Self::closed(),
            BroadcastError::TooLarge { bytes, max, .. } => {
                let refusal = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error.to_string());
                refusal.limit(*max as u64, *bytes as u64)
            }
            BroadcastError::UnknownNode { .. } => Self::new(StatusCode::NOT_FOUND, "no_node", error.to_string()),
            BroadcastError::Encode { .. } | BroadcastError::NameTaken { .. } => Self::internal(error),
        }
    }
}

impl From<&StoreError> for Refusal {
    fn from(error: &StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::TooLarge { bytes, max, .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message).limit(*max as u64, *bytes as u64)
            }
            StoreError::Batch { entries, max } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message).limit(*max as u64, *entries as u64)
            }
            StoreError::Conflict { .. } => Self::new(StatusCode::CONFLICT, "conflict", message),
            StoreError::NoGroup(_) => Self::new(StatusCode::NOT_FOUND, "no_group", message),
            StoreError::Unavailable { outcome, .. } => {
                observe::request_unavailable(error);
                let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the log is unavailable");
                let outcome = if *outcome == Outcome::NotDone { "not_done" } else { "unknown" };
                Self { outcome: Some(outcome), ..refusal.retry_after(Duration::from_secs(1)) }
            }
            StoreError::Full { .. } => {
                observe::request_unavailable(error);
                let refusal = Self::new(StatusCode::INSUFFICIENT_STORAGE, "unavailable", "the log has no room");
                Self { outcome: Some("not_done"), ..refusal.retry_after(Duration::from_secs(10)) }
            }
            _ => Self::internal(error),
        }
    }
}

impl From<&AppendError> for Refusal {
    fn from(error: &AppendError) -> Self {
        match error {
            AppendError::Topic(source) => source.into(),
            AppendError::Store(source) => source.into(),
            AppendError::Closed => Self::closed(),
            _ => Self::internal(error),
        }
    }
}

impl From<&FollowError> for Refusal {
    fn from(error: &FollowError) -> Self {
        match error {
            FollowError::Subscribe(source) => source.into(),
            _ => Self::internal(error),
        }
    }
}

impl From<&ConsumeError> for Refusal {
    fn from(error: &ConsumeError) -> Self {
        Self::internal(error)
    }
}

/// Each error of ours is an actix-web error: the refusal that it becomes.
macro_rules! refuse {
    ($($error:ty $(, of $generic:ident)?);+) => {$(
        impl$(<$generic>)? From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self::from(&error)
            }
        }

        impl$(<$generic>)? ResponseError for $error {
            fn status_code(&self) -> StatusCode {
                Refusal::from(self).status
            }

            fn error_response(&self) -> HttpResponse {
                Refusal::from(self).error_response()
            }
        }
    )+};
}

refuse!(TopicError; EntryIdError; SubscribeError; BroadcastError<M>, of M; StoreError; AppendError; FollowError; ConsumeError);

/// That of RFC 6455.
pub(crate) const WEBSOCKET_VERSION: &str = "13";

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;
    use std::sync::Arc;

    fn check(error: &dyn ResponseError) -> (u16, serde_json::Value) {
        let response = error.error_response();
        let status = response.status().as_u16();
        let body = actix_web::rt::System::new().block_on(to_bytes(response.into_body()));
        let Ok(body) = body else { panic!("a body in memory") };
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn an_error_answers_with_its_status_and_the_limit_and_the_value() {
        let (status, body) = check(&Topic::parse(&"x".repeat(300)).unwrap_err());
        let message = "topic is 300 bytes, the limit is 255";
        assert_eq!((status, body), (400, serde_json::json!({"code":"topic","message":message,"limit":255,"value":300})));
        let (status, body) = check(&AppendError::Store(StoreError::TooLarge { index: 0, bytes: 2_000, max: 1_000 }));
        assert_eq!(
            (status, &body["code"], &body["limit"], &body["value"]),
            (413, &"too_large".into(), &1_000.into(), &2_000.into())
        );
        let (status, body) = check(&BroadcastError::TooLarge { bytes: 2_000, max: 1_000, message: () });
        assert_eq!(
            (status, &body["code"], &body["limit"], &body["value"]),
            (413, &"too_large".into(), &1_000.into(), &2_000.into())
        );
        let full = StoreError::Full { source: std::sync::Arc::new(std::io::Error::other("")) };
        let (status, body) = check(&AppendError::Store(full));
        assert_eq!((status, &body["code"], &body["outcome"]), (507, &"unavailable".into(), &"not_done".into()));
        let (status, body) = check(&SubscribeError::Topic(TopicError::Empty));
        assert_eq!((status, &body["code"]), (400, &"topic".into()));
        let (status, body) = check(&BroadcastError::Closed { message: () });
        assert_eq!((status, &body["code"], &body["retry_after_ms"]), (503, &"closed".into(), &1_000.into()));
    }

    #[test]
    fn what_a_stranger_is_told_of_the_store_names_nothing_of_it() {
        let source = Arc::new(std::io::Error::other("redis at 10.1.2.3 said no"));
        let (status, body) = check(&StoreError::Unavailable { outcome: Outcome::Unknown, source });
        assert_eq!((status, &body["code"], &body["outcome"]), (503, &"unavailable".into(), &"unknown".into()));
        let (status, body) = check(&AppendError::NameTaken { name: "a", by: "secret::Type" });
        assert_eq!((status, &body["code"]), (500, &"internal".into()));
        assert!(!body.to_string().contains("secret") && !body.to_string().contains("10.1"), "{body}");
    }
}
