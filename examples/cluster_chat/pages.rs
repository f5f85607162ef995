//! Pages: the page of the chat with the nodes on it, and what `curl` asks a cluster. The other routes are those of the chat.

use actix::Addr;
use actix_pubsub::PubSub;
use actix_pubsub::web::Refusal;
use actix_web::HttpResponse;
use actix_web::web;
use serde_json::json;

use crate::census::Census;
use crate::census::State;
use crate::messages::room_topic;
use crate::routes;

/// What all workers share.
pub(crate) struct Cluster {
    pub(crate) pubsub: PubSub,
    pub(crate) census: Addr<Census>,
}

/// To be configured before the chat's own, whose page this one replaces.
pub(crate) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/", routes::file("text/html; charset=utf-8", page()))
        .route("/nodes.css", routes::file("text/css; charset=utf-8", include_str!("nodes.css")))
        .route("/nodes.js", routes::file("text/javascript; charset=utf-8", include_str!("nodes.js")))
        .route("/nodes", web::get().to(nodes))
        .route("/rooms/{room}/subscribers", web::get().to(subscribers));
}

/// The page of the chat, told that there is no log, with a style and a script more.
fn page() -> String {
    let more = "<link rel=\"stylesheet\" href=\"/nodes.css\">\n<script type=\"module\" src=\"/nodes.js\"></script>\n</head>";
    include_str!("../chat/index.html").replace("<html ", "<html data-log=\"none\" ").replace("</head>", more)
}

/// `GET /nodes`: which nodes are up, as this one sees it, and what became of the others.
async fn nodes(cluster: web::Data<Cluster>) -> Result<HttpResponse, Refusal> {
    Ok(HttpResponse::Ok().json(cluster.census.send(State).await.map_err(routes::closing)?))
}

/// `GET /rooms/{room}/subscribers`: asks every node. A connection counts three times: it subscribes once for each type of message that it may receive.
async fn subscribers(room: web::Path<String>, cluster: web::Data<Cluster>) -> Result<HttpResponse, Refusal> {
    let counted = cluster.pubsub.subscribers_cluster_wide(room_topic(&room)?).await?;
    let there = counted.there.iter().map(|(node, subscribers)| json!({ "node": node, "subscribers": subscribers }));
    let there: Vec<_> = there.collect();
    let total = counted.total();
    Ok(HttpResponse::Ok().json(json!({ "total": total, "here": counted.here, "there": there, "silent": counted.silent })))
}
