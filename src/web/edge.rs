//! Edge: what holds for all web connections of one pub/sub: limits, who may do what, which origins, and the end. Knows no protocol.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::SockRef;

use crate::local::error::BroadcastError;
use crate::observe;
use crate::pubsub::PubSub;
use crate::pubsub::broadcast::Receipt;
use crate::topic::Topic;
use crate::web::auth::Authorize;
use crate::web::auth::Identity;
use crate::web::auth::Told;
use crate::web::auth::topic_of;
use crate::web::drain::Draining;
use crate::web::drain::Present;
use crate::web::drain::Sessions;
use crate::web::limits::LimitError;
use crate::web::limits::Limits;
use crate::web::origin;
use crate::web::refusal::Refusal;

/// The web side of a [`PubSub`]: what holds for all its SSE streams and WebSockets. A clone is a handle to the same.
///
/// A pub/sub has one, whether it is asked for or not: without a builder, with the default [`Limits`] and no [`Authorize`].
///
/// ```no_run
/// use std::time::Duration;
/// use actix_pubsub::PubSub;
/// use actix_pubsub::web::Edge;
/// use actix_web::{App, HttpServer, web};
///
/// #[actix_web::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let pubsub = PubSub::new();
///     let edge = Edge::builder().allow_origin("https://shop.example").attach(&pubsub)?;
///     HttpServer::new(move || App::new().app_data(web::Data::new(pubsub.clone())))
///         .on_connect(edge.on_connect())
///         .h1_allow_half_closed(false) // an SSE client that leaves is noticed at once, not at the next comment
///         .shutdown_signal(edge.drain_on_signal(Duration::from_secs(10)))
///         .bind(("127.0.0.1", 8080))?
///         .run()
///         .await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Edge {
    pubsub: PubSub,
    policy: Arc<Policy>,
}

/// What a pub/sub keeps of its edge. Does not keep the pub/sub.
#[derive(Default)]
pub(crate) struct Policy {
    pub(crate) limits: Limits,
    authorize: Option<Box<dyn Authorize>>,
    origins: Vec<String>,
    pub(crate) sessions: Arc<Sessions>,
}

impl Policy {
    /// The policy of a pub/sub.
    pub(crate) fn of(pubsub: &PubSub) -> Arc<Self> {
        let kept = pubsub.edge().get_or_init(|| {
            name_types(pubsub);
            Arc::new(Self::default())
        });
        // Only this module puts something there.
        Arc::clone(kept).downcast().unwrap_or_default()
    }

    pub(crate) async fn connect(&self, request: &HttpRequest) -> Result<Identity, Refusal> {
        match &self.authorize {
            Some(authorize) => authorize.connect(request).await,
            None => Ok(Identity::anonymous()),
        }
    }

    pub(crate) async fn subscribe(&self, who: &Identity, topic: &Topic) -> Result<(), Refusal> {
        not_reserved(topic)?;
        match &self.authorize {
            Some(authorize) => authorize.subscribe(who, topic).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn publish(&self, who: &Identity, topic: &Topic, event: &str) -> Result<(), Refusal> {
        not_reserved(topic)?;
        match &self.authorize {
            Some(authorize) => authorize.publish(who, topic, event).await,
            None => Ok(()),
        }
    }

    pub(crate) fn origin(&self, request: &HttpRequest) -> Result<(), Refusal> {
        origin::check(request.headers(), &self.origins)
    }

    /// A connection that begins.
    pub(crate) fn enter(&self) -> Present {
        Present::new(Arc::clone(&self.sessions))
    }
}

/// Topics that begin with `$` are ours, and what is said there is not for clients.
fn not_reserved(topic: &Topic) -> Result<(), Refusal> {
    if topic.as_str().starts_with('$') { Err(Refusal::denied(format!("topic {topic} is reserved"))) } else { Ok(()) }
}

/// Settings of an [`Edge`].
#[derive(Default)]
pub struct EdgeBuilder {
    policy: Policy,
}

impl Edge {
    /// Settings first.
    pub fn builder() -> EdgeBuilder {
        EdgeBuilder::default()
    }

    /// The edge of a pub/sub, with the default settings if it had none.
    pub fn of(pubsub: &PubSub) -> Self {
        Self { pubsub: pubsub.clone(), policy: Policy::of(pubsub) }
    }

    /// SSE streams and WebSockets that are open on this node.
    pub fn sessions(&self) -> usize {
        self.policy.sessions.count()
    }

    /// For `HttpServer::on_connect`: bounds what a client that does not read can cost.
    ///
    /// When a client's socket takes nothing, actix-web polls neither its stream nor its actor any more, so no timer in them can end it; the system can. Sets
    /// `TCP_USER_TIMEOUT` to [`Limits::write_timeout`] and `TCP_NOTSENT_LOWAT` to [`Limits::unsent_bytes`] (tcp(7)) on plain TCP connections. Linux only; elsewhere
    /// such a client stays until the system gives it up. With TLS, call [`bound_socket`](Self::bound_socket) with the stream inside yours.
    pub fn on_connect(&self) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
        let edge = self.clone();
        move |connection, _| {
            if let Some(stream) = connection.downcast_ref::<TcpStream>()
                && let Err(error) = edge.bound_socket(stream)
            {
                observe::write_timeout_unset(&error);
            }
        }
    }

    /// What [`on_connect`](Self::on_connect) does to each connection.
    ///
    /// # Errors
    /// What the system said; on systems other than Linux, that it is not supported.
    pub fn bound_socket(&self, stream: &TcpStream) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(stream);
            socket.set_tcp_user_timeout(Some(self.policy.limits.write_timeout))?;
            socket.set_tcp_notsent_lowat(self.policy.limits.unsent_bytes)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = SockRef::from(stream);
            Err(io::Error::from(io::ErrorKind::Unsupported))
        }
    }

    /// Ends all connections, each somewhere within `window`, so that their clients do not come back all at once. From now on new ones are refused: a
    /// WebSocket by status 503, an SSE stream by one that ends at once, since a browser would never come back from an error.
    ///
    /// Resolves when the last one has ended, or a second after the window. May be called again, to wait; the first window counts.
    pub async fn drain(&self, window: Duration) {
        let draining = Draining { window };
        let begins = self.policy.sessions.drain(draining);
        let window = self.policy.sessions.draining().unwrap_or(draining).window;
        let ended = async {
            if begins {
                observe::drain_begun(self.sessions());
                // Waits for room where an arbiter has none: who does not hear of it does not end. Closed: then all streams end by themselves.
                let _ = self.pubsub.local_broadcast_async(Draining::topic(), draining).await;
            }
            self.policy.sessions.none().await;
        };
        // Some clients do not read, and their end waits for that.
        let _ = tokio::time::timeout(window.saturating_add(DRAIN_GRACE), ended).await;
    }

    /// For `HttpServer::shutdown_signal`: at SIGTERM or SIGINT, [`drain`](Self::drain)s; the server stops after that, and waits for what is left no longer than
    /// its own `shutdown_timeout`.
    pub fn drain_on_signal(&self, window: Duration) -> impl Future<Output = ()> + Send + 'static {
        let edge = self.clone();
        async move {
            signal().await;
            edge.drain(window).await;
        }
    }
}

#[cfg(unix)]
async fn signal() {
    use std::pin::pin;

    use futures_util::future::select;
    use tokio::signal::unix::SignalKind;
    use tokio::signal::unix::signal;

    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(select(pin!(terminate.recv()), pin!(tokio::signal::ctrl_c())).await),
        // No handler for it: then only the other.
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

#[cfg(not(unix))]
async fn signal() {
    // No handler for it: then the server is only stopped by its handle.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl EdgeBuilder {
    /// Who may do what. Without it, anyone may subscribe to anything, and publish what an endpoint lets clients publish.
    pub fn authorize(mut self, authorize: impl Authorize) -> Self {
        self.policy.authorize = Some(Box::new(authorize));
        self
    }

    /// Pages of this origin (`https://shop.example`, no path, no slash) may open WebSockets, beside those of the server's own; `"*"`: all. For SSE, set up actix-cors.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.policy.origins.push(origin.into());
        self
    }

    /// What one connection may cost.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.policy.limits = limits;
        self
    }

    /// Makes this the edge of a pub/sub, before the first connection.
    ///
    /// # Errors
    /// A limit that makes no sense; a pub/sub that has an edge already.
    pub fn attach(self, pubsub: &PubSub) -> Result<Edge, EdgeError> {
        self.policy.limits.check().map_err(EdgeError::Limit)?;
        let policy = Arc::new(self.policy);
        pubsub.edge().set(Arc::clone(&policy) as Arc<dyn Any + Send + Sync>).map_err(|_| EdgeError::Attached)?;
        name_types(pubsub);
        Ok(Edge { pubsub: pubsub.clone(), policy })
    }
}

/// What the connections of one node are told, and those of all.
fn name_types(pubsub: &PubSub) {
    pubsub.types().add_local::<Draining>();
    // Nobody else has a name that begins with `$`, but for a mistake, which only keeps this from other nodes.
    let _ = pubsub.types().add::<Told>();
}

impl PubSub {
    /// Ends all SSE streams and WebSockets of an [`Identity`] of this name, on every node: for who may not be there any more. They are closed with code 4500, and a
    /// client that connects anew is asked anew who it is. Returns when that is queued; `Receipt::ports` is 0 where it has none on this node.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast); and 503 if an arbiter of this node had no room for it, so that some may have stayed: call it again.
    pub fn disconnect(&self, identity: &str) -> Result<Receipt, Refusal> {
        self.tell(identity, Told::Disconnect)
    }

    /// As [`disconnect`](Self::disconnect), but they stay: [`Authorize::subscribe`] is asked again for each of their topics, and those that it refuses now are ended.
    ///
    /// # Errors
    /// As `disconnect`.
    pub fn recheck(&self, identity: &str) -> Result<Receipt, Refusal> {
        self.tell(identity, Told::Recheck)
    }

    fn tell(&self, identity: &str, told: Told) -> Result<Receipt, Refusal> {
        let receipt = self.broadcast(topic_of(identity)?, told).map_err(|error: BroadcastError<Told>| Refusal::from(error))?;
        if receipt.full > 0 {
            // Of a price it would be a loss that is told; of this, a connection that stays.
            return Err(Refusal::busy(receipt.full));
        }
        Ok(receipt)
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("pubsub", &self.pubsub).field("policy", &self.policy).finish()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorized = self.authorize.is_some();
        f.debug_struct("Policy")
            .field("limits", &self.limits)
            .field("authorize", &authorized)
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EdgeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeBuilder").field("policy", &self.policy).finish()
    }
}

/// Why an [`Edge`] was not attached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EdgeError {
    /// A limit that makes no sense.
    Limit(LimitError),
    /// The pub/sub has an edge: it was attached before, or its first connection came before this.
    Attached,
}

impl fmt::Display for EdgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(source) => write!(f, "the edge's limits are refused: {source}"),
            Self::Attached => f.write_str("the pub/sub has an edge already"),
        }
    }
}

impl std::error::Error for EdgeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Limit(source) => source.source(),
            Self::Attached => None,
        }
    }
}

/// After the drain window: for clients that are slow to take the last words.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
