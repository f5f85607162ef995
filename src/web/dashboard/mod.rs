//! Dashboard: one page and its JSON, which show what a pub/sub knows of itself. Reads only; changes nothing of what it shows.
//!
//! ```text
//!   request ──> Guard ──> page: HTML, CSS, JS                        browser: text/html
//!                    ├──> lists: q, sort, page ── Kept ──> stats()    one walk for all who ask at once
//!                    └──> /live ── Sse ── PubSub of its own <── sampler ── summary(), top_slow(), once a second, while someone watches
//! ```
//!
//! * Nothing that walks over subscriptions runs on an arbiter.
//! * Who watches is a subscriber of a pub/sub of the dashboard's own, so watching counts nowhere in what is watched.
//! * All text goes to the page as JSON, and into it as text.

mod board;
mod groups;
mod guard;
mod kept;
mod lists;
mod live;
mod page;
mod query;
mod record;
mod routes;

use std::fmt;
use std::sync::Arc;

use actix_web::Error;
use actix_web::HttpRequest;
use actix_web::body::BoxBody;
use actix_web::dev::AppService;
use actix_web::dev::HttpServiceFactory;
use actix_web::dev::ServiceRequest;
use actix_web::middleware::Next;
use actix_web::middleware::from_fn;
use actix_web::web;

use crate::pubsub::PubSub;
use crate::web::dashboard::board::Board;
use crate::web::dashboard::guard::Guard;
use crate::web::dashboard::routes::Site;

/// A live page of everything that a [`PubSub`] knows of itself: `App::new().service(web::dashboard(&pubsub))` serves it at `/_pubsub`.
///
/// ```no_run
/// use actix_pubsub::PubSub;
/// use actix_pubsub::web::dashboard;
/// use actix_web::{App, HttpServer};
///
/// #[actix_web::main]
/// async fn main() -> std::io::Result<()> {
///     let pubsub = PubSub::new();
///     HttpServer::new(move || App::new().service(dashboard(&pubsub))).bind(("127.0.0.1", 8080))?.run().await
/// }
/// ```
///
/// Browsers get a page that shows, once a second, who is slow, what is missed, and what arbiters, topics, consumer groups, nodes and links are at. The same
/// paths are JSON for `Accept: application/json`, for `?format=json` and for `curl`:
///
/// | path | what |
/// |---|---|
/// | `/_pubsub` | [`PubSub::summary`], rates and their last two minutes, the 20 slowest subscriptions, nodes, the newest incidents |
/// | `/_pubsub/subscribers`, `/_pubsub/topics` | the lists of [`PubSub::stats`]; unless told otherwise the slowest subscriptions, and the topics by name, come first |
/// | `/_pubsub/arbiters`, `/_pubsub/incidents` | `Stats::arbiters`, [`PubSub::incidents`] |
/// | `/_pubsub/groups` | [`PubSub::log_topics`] with what this node does for each group; pages by `after=` the `next` of the page before. By `sort`, `dir` or `page`: each group on its own in that order, of the 1,000 topics after `after` |
/// | `/_pubsub/nodes` | [`ClusterStats`](crate::cluster::ClusterStats) and [`PubSub::nodes`] |
/// | `/_pubsub/live` | server-sent events: the overview, once a second |
/// | `/_pubsub/metrics` | for Prometheus, with the feature `prometheus` |
///
/// Lists take `q` (a part of a topic, an actor's type, metadata or a group, in any case), `sort` and `dir` (`asc`, `desc`), `page` and `per` (200 at most), and tell how many
/// there are. Anything else is refused with status 400, with the limit and the value.
///
/// # Who may look
/// Without [`authorize`](Self::authorize), only who sits at the machine: the server has to listen on a loopback address, the `Host` has to be one
/// (so no name of a stranger's that points here), no proxy may have passed the request on, as far as it can be known (its headers, HTTP/1.0, a Unix socket),
/// and no page of another site may ask, except by a link that somebody follows. All else gets status 403, which says what to set.
/// A proxy on this machine that tells nothing of itself looks like you (nginx with `proxy_http_version 1.1` and no `proxy_set_header`): set a hook wherever one leads here.
/// With it, the hook alone decides. Requests other than GET and HEAD are refused with 405.
///
/// # Cost
/// Nothing while nobody looks. While someone watches: one thread that reads all subscriptions once a second, as [`PubSub::summary`] does, however many watch. The long
/// lists are read on a blocking thread, at most twice a second.
#[derive(Clone)]
#[must_use = "it is given to `App::service`"]
pub struct Dashboard {
    pubsub: PubSub,
    path: String,
    guard: Guard,
}

/// The dashboard of a pub/sub; see [`Dashboard`].
pub fn dashboard(pubsub: &PubSub) -> Dashboard {
    Dashboard { pubsub: pubsub.clone(), path: Dashboard::PATH_DEFAULT.to_owned(), guard: Guard::default() }
}

impl Dashboard {
    /// Where it is, unless told otherwise.
    pub const PATH_DEFAULT: &'static str = "/_pubsub";

    /// Serves it at another path.
    pub fn at(mut self, path: &str) -> Self {
        self.path = match path.trim_matches('/') {
            "" => String::new(),
            path => format!("/{path}"),
        };
        self
    }

    /// Who may look, from wherever the request comes: asked for each request, the stream's included. An error is the answer.
    ///
    /// A name and a password, which every browser asks for by itself:
    ///
    /// ```
    /// use actix_pubsub::PubSub;
    /// use actix_pubsub::web::dashboard;
    /// use actix_web::error::InternalError;
    /// use actix_web::http::header;
    /// use actix_web::{Error, HttpRequest, HttpResponse};
    ///
    /// # let (pubsub, secret) = (PubSub::new(), String::from("Basic b3BzOnMzY3JldA=="));
    /// let dashboard = dashboard(&pubsub).authorize(async move |request: &HttpRequest| {
    ///     let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    ///     if given == Some(secret.as_bytes()) {
    ///         return Ok(());
    ///     }
    ///     let ask = HttpResponse::Unauthorized().insert_header((header::WWW_AUTHENTICATE, "Basic")).finish();
    ///     Err(Error::from(InternalError::from_response("no password", ask)))
    /// });
    /// # let _ = dashboard;
    /// ```
    ///
    /// A [`Refusal`](crate::web::Refusal) is an error, too. With a session cookie, ask it for whoever is logged in.
    pub fn authorize<F, E>(mut self, hook: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> Result<(), E> + Send + Sync + 'static,
        E: Into<Error> + 'static,
    {
        self.guard = Guard::asking(hook);
        self
    }
}

impl HttpServiceFactory for Dashboard {
    fn register(self, config: &mut AppService) {
        #[cfg(feature = "prometheus")]
        let metrics = crate::web::metrics(&self.pubsub, &crate::metrics::MetricsOptions::new());
        let site = Site { board: Board::of(&self.pubsub), pubsub: self.pubsub };
        let guard = Arc::new(self.guard);
        let guarded = from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
            let guard = Arc::clone(&guard);
            async move { guard.pass(request, next).await }
        });
        let scope = web::scope(&self.path).app_data(web::Data::new(site));
        #[cfg(feature = "prometheus")]
        let scope = scope.route("/metrics", metrics);
        scope.configure(routes::configure).wrap(guarded).register(config);
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("pubsub", &self.pubsub).field("path", &self.path).field("guard", &self.guard).finish()
    }
}

/// Any text as the query of a request for groups, for `testing::decoders`.
#[cfg(feature = "testing")]
pub(crate) fn decode(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(groups::GroupsAsked::parse(text));
    }
}
