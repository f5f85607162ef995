//! Routes: each path of a dashboard, as the page or as JSON. Hands what is asked to the board.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::error::BlockingError;
use actix_web::http::Method;
use actix_web::http::StatusCode;
use actix_web::web;
use serde::Serialize;

use crate::cluster::ClusterStats;
use crate::cluster::NodeInfo;
use crate::ids::NodeId;
use crate::pubsub::PubSub;
use crate::web::dashboard::board::Board;
use crate::web::dashboard::board::Snapshot;
use crate::web::dashboard::board::now_ms;
use crate::web::dashboard::groups::GroupsAsked;
use crate::web::dashboard::lists;
use crate::web::dashboard::lists::Ask;
use crate::web::dashboard::live;
use crate::web::dashboard::page;
use crate::web::dashboard::query::Params;
use crate::web::dashboard::record::Overview;
use crate::web::dashboard::record::Rates;
use crate::web::refusal::Refusal;

/// One dashboard.
pub(crate) struct Site {
    pub(crate) pubsub: PubSub,
    pub(crate) board: Arc<Board>,
}

type Answer = Result<HttpResponse, Refusal>;

/// The guard lets GET and HEAD through, and nothing else.
pub(crate) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("", web::to(overview))
        .route("/", web::to(overview))
        .route("/dashboard.css", web::to(page::style))
        .route("/dashboard.js", web::to(page::script))
        .route("/topics", web::to(topics))
        .route("/subscribers", web::to(subscribers))
        .route("/arbiters", web::to(arbiters))
        .route("/groups", web::to(groups))
        .route("/nodes", web::to(nodes))
        .route("/incidents", web::to(incidents))
        .route("/live", web::to(live))
        .default_service(web::to(nothing));
}

async fn overview(request: HttpRequest, site: web::Data<Site>) -> Answer {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        overview: &'a Overview,
        history: Vec<Rates>,
    }
    if page::is_wanted(&request)? {
        return Ok(page::index(&request, true));
    }
    Params::parse(request.query_string(), &[])?;
    let (overview, history) = site.board.overview(&site.pubsub).await?;
    Ok(HttpResponse::Ok().json(Shown { overview: &overview, history }))
}

async fn topics(request: HttpRequest, site: web::Data<Site>) -> Answer {
    if page::is_wanted(&request)? {
        return Ok(page::index(&request, false));
    }
    let ask = lists::TOPICS.ask(request.query_string())?;
    let pubsub = site.pubsub.clone();
    let list = site.board.topics.get((), move || Snapshot::now(pubsub.topic_stats())).await?;
    paged(ask, list).await
}

async fn subscribers(request: HttpRequest, site: web::Data<Site>) -> Answer {
    if page::is_wanted(&request)? {
        return Ok(page::index(&request, false));
    }
    let ask = lists::SUBSCRIPTIONS.ask(request.query_string())?;
    let pubsub = site.pubsub.clone();
    let list = site.board.subscriptions.get((), move || Snapshot::now(pubsub.subscription_stats())).await?;
    paged(ask, list).await
}

async fn arbiters(request: HttpRequest, site: web::Data<Site>) -> Answer {
    if page::is_wanted(&request)? {
        return Ok(page::index(&request, false));
    }
    let ask = lists::ARBITERS.ask(request.query_string())?;
    let (overview, _) = site.board.overview(&site.pubsub).await?;
    let list = Snapshot { at_ms: overview.at_ms, items: overview.stats.arbiters.clone() };
    paged(ask, Arc::new(list)).await
}

async fn incidents(request: HttpRequest, site: web::Data<Site>) -> Answer {
    if page::is_wanted(&request)? {
        return Ok(page::index(&request, false));
    }
    let ask = lists::INCIDENTS.ask(request.query_string())?;
    paged(ask, Arc::new(Snapshot::now(site.pubsub.incidents()))).await
}

/// A page of a list, found and written on a blocking thread: looking through 100,000 items takes longer than an arbiter may be held.
async fn paged<T: Serialize + Send + Sync + 'static>(ask: Ask<T>, list: Arc<Snapshot<T>>) -> Answer {
    written(move || serde_json::to_vec(&ask.page(&list))).await
}

async fn written(write: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static) -> Answer {
    let json = web::block(write).await?;
    // Strings and numbers only: it has a JSON form.
    Ok(HttpResponse::Ok().content_type("application/json").body(json.unwrap_or_default()))
}

async fn groups(request: HttpRequest, site: web::Data<Site>) -> Answer {
    if page::is_wanted(&request)? {
        return Ok(page::index(&request, false));
    }
    let asked = GroupsAsked::parse(request.query_string())?;
    let groups = site.board.groups(&site.pubsub, asked.reads).await?;
    let Some(order) = asked.order else { return Ok(HttpResponse::Ok().json(&*groups)) };
    written(move || serde_json::to_vec(&groups.ordered(&groups.each(), &order))).await
}

async fn nodes(request: HttpRequest, site: web::Data<Site>) -> Answer {
    #[derive(Serialize)]
    struct Shown<'a> {
        at_ms: u64,
        node: NodeId,
        name: Option<&'a str>,
        cluster: Option<&'a ClusterStats>,
        nodes: Vec<NodeInfo>,
    }
    if page::is_wanted(&request)? {
        return Ok(page::index(&request, false));
    }
    Params::parse(request.query_string(), &[])?;
    let (overview, _) = site.board.overview(&site.pubsub).await?;
    let (name, cluster) = (site.board.name.as_deref(), overview.stats.cluster.as_ref());
    let shown = Shown { at_ms: now_ms(), node: site.pubsub.node(), name, cluster, nodes: site.pubsub.nodes() };
    Ok(HttpResponse::Ok().json(shown))
}

async fn live(request: HttpRequest, site: web::Data<Site>) -> Answer {
    if request.method() == Method::HEAD {
        // A stream whose body nobody reads would never end.
        return Ok(HttpResponse::Ok().content_type("text/event-stream").finish());
    }
    live::watch(&site.board, &site.pubsub, &request).await
}

async fn nothing(request: HttpRequest) -> HttpResponse {
    page::refuse(&request, &Refusal::new(StatusCode::NOT_FOUND, "not_found", "the dashboard has no such path"))
}

impl From<BlockingError> for Refusal {
    /// The runtime is ending.
    fn from(_: BlockingError) -> Self {
        Self::closed()
    }
}
