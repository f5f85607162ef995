//! The web edge: topics to browsers and to programs, over SSE and WebSocket, in actix-web.
//!
//! ```text
//!   broadcast ──> PubSub ── inbox ───┐                          ┌── Sse: EventSource, curl -N
//!                   │                ├──> one connection ──────>│
//!   append ──────> log ─── follow ───┘        │                 └── WebSocket: pubsub.js
//!                                             └── Edge: limits, Authorize, origins, drain
//! ```
//!
//! `web::Data<PubSub>` in a handler is all that is needed to `broadcast` and `append`; every error of this crate is an actix-web error, with a status
//! and a JSON body ([`Refusal`]).

pub(crate) mod auth;
pub(crate) mod blob;
pub(crate) mod client;
pub(crate) mod cursor;
pub(crate) mod dashboard;
pub(crate) mod drain;
pub(crate) mod edge;
pub(crate) mod follow;
pub(crate) mod frames;
pub(crate) mod limits;
pub(crate) mod messages;
pub(crate) mod origin;
#[cfg(feature = "prometheus")]
pub(crate) mod prometheus;
pub(crate) mod protocol;
pub(crate) mod refusal;
pub(crate) mod session;
pub(crate) mod sse;
pub(crate) mod timer;
pub(crate) mod wire;
pub(crate) mod ws;

pub use self::auth::Authorize;
pub use self::auth::Decision;
pub use self::auth::Identity;
pub use self::auth::SessionInfo;
pub use self::auth::bearer_token;
pub use self::blob::Blob;
pub use self::client::client;
pub use self::dashboard::Dashboard;
pub use self::dashboard::dashboard;
pub use self::edge::Edge;
pub use self::edge::EdgeBuilder;
pub use self::edge::EdgeError;
pub use self::limits::LimitError;
pub use self::limits::Limits;
#[cfg(feature = "prometheus")]
pub use self::prometheus::metrics;
#[cfg(feature = "prometheus")]
pub use self::prometheus::metrics_response;
pub use self::refusal::Refusal;
pub use self::session::Incoming;
pub use self::session::Outgoing;
pub use self::session::Session;
pub use self::session::SessionEvent;
pub use self::sse::Sse;
pub use self::sse::SseMessage;
pub use self::ws::WebSocket;
