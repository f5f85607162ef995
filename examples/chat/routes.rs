//! Routes: the page, and the plain HTTP that `curl` speaks. Knows rooms and limits, no connections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use actix::Addr;
use actix::MailboxError;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::cluster::Crossing;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::client;
use actix_web::HttpMessage;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::Route;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web;
use governor::DefaultKeyedRateLimiter;
use governor::Quota;
use governor::RateLimiter;
use serde_json::json;

use crate::limits;
use crate::messages::Draft;
use crate::messages::ROOM;
use crate::messages::Said;
use crate::messages::room_name;
use crate::messages::room_topic;
use crate::roster::Count;
use crate::roster::Roster;
use crate::roster::Who;

/// What all workers share.
pub(crate) struct Chat {
    pubsub: PubSub,
    roster: Addr<Roster>,
    /// What this server is called, where there are several.
    node: Option<String>,
    /// Messages by HTTP, per address.
    posts: DefaultKeyedRateLimiter<IpAddr>,
}

impl Chat {
    pub(crate) fn new(pubsub: PubSub, roster: Addr<Roster>, node: Option<String>) -> Self {
        let quota = Quota::per_second(limits::PUBLISH_PER_SECOND).allow_burst(limits::PUBLISH_BURST);
        Self { pubsub, roster, node, posts: RateLimiter::keyed(quota) }
    }
}

pub(crate) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/", file("text/html; charset=utf-8", include_str!("index.html")))
        .route("/chat.css", file("text/css; charset=utf-8", include_str!("chat.css")))
        .route("/chat.js", file("text/javascript; charset=utf-8", include_str!("chat.js")))
        .route("/pubsub.js", web::get().to(client))
        .route("/rooms", web::get().to(rooms))
        .route("/rooms/{room}", web::get().to(people))
        .route("/rooms/{room}", web::post().to(post))
        .route("/stats", web::get().to(async |chat: web::Data<Chat>| web::Json(chat.pubsub.stats())));
}

/// A file of the page. It runs no script and takes no style but these.
pub(crate) fn file(content_type: &'static str, text: impl Into<web::Bytes>) -> Route {
    let text = text.into();
    web::get().to(move || {
        let text = text.clone();
        async move {
            HttpResponse::Ok()
                .content_type(content_type)
                .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
                .insert_header((header::CACHE_CONTROL, "no-cache"))
                .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
                .insert_header((header::REFERRER_POLICY, "no-referrer"))
                .body(text)
        }
    })
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// `GET /rooms`: rooms in which someone is or something was said, the fullest first.
async fn rooms(chat: web::Data<Chat>) -> Result<HttpResponse, Refusal> {
    let mut counts = chat.roster.send(Count).await.map_err(closing)?;
    if let Some(log) = chat.pubsub.log() {
        for topic in log.topics(Some(&Topic::parse(ROOM)?), ROOMS_LISTED_MAX).await? {
            counts.entry(topic).or_default();
        }
    }
    let line = |(topic, count): (&Topic, &usize)| Some((*count, room_name(topic).ok()?.to_owned()));
    let mut lines: Vec<_> = counts.iter().filter_map(line).collect();
    lines.sort_by(|(here, name), (other, named)| other.cmp(here).then_with(|| name.cmp(named)));
    let lines = lines.into_iter().take(ROOMS_LISTED_MAX).map(|(people, room)| json!({ "room": room, "people": people }));
    Ok(HttpResponse::Ok().json(lines.collect::<Vec<_>>()))
}

/// `GET /rooms/{room}`: who is there.
async fn people(room: web::Path<String>, chat: web::Data<Chat>) -> Result<HttpResponse, Refusal> {
    let people = chat.roster.send(Who(room_topic(&room)?)).await.map_err(closing)?;
    Ok(HttpResponse::Ok().json(people))
}

pub(crate) fn closing(_: MailboxError) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "closed", "the server is shutting down")
}

/// `POST /rooms/{room}`: says something in a room without being in it. JSON, or the text itself with `?user=`. In the log when it answers, if there is one.
async fn post(
    request: HttpRequest,
    room: web::Path<String>,
    query: web::Query<BTreeMap<String, String>>,
    body: web::Bytes,
    chat: web::Data<Chat>,
) -> Result<HttpResponse, Refusal> {
    own_origin(&request)?;
    if chat.posts.len() >= POSTERS_MAX {
        chat.posts.retain_recent();
    }
    let who = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    if chat.posts.check_key(&who).is_err() {
        let limit = limits::PUBLISH_PER_SECOND;
        let message = format!("too many messages, the limit is {limit} per second (burst {})", limits::PUBLISH_BURST);
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate", message));
    }
    let topic = room_topic(&room)?;
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "data", message);
    let draft: Draft = if request.content_type() == "application/json" {
        serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?
    } else {
        // `curl -d` says that it sends a form; taken for what it is, the text itself.
        let text = String::from_utf8(body.into()).map_err(|error| bad(error.to_string()))?;
        Draft { user: query.get("user").map_or("curl", String::as_str).to_owned(), text, cid: None, node: None }
    };
    let said = Said::try_from(Draft { node: chat.node.clone(), ..draft })?;
    if chat.pubsub.log().is_none() {
        let crossing = chat.pubsub.broadcast(&topic, said)?.cluster;
        let to = match crossing {
            Crossing::Full | Crossing::LinkDown => "this node, the others cannot be reached now",
            // Not every engine knows that nobody listens.
            _ if chat.pubsub.nodes().is_empty() => "this node, there is no other now",
            Crossing::NobodyListens => "this node, on no other is anyone in the room",
            _ => "every node",
        };
        return Ok(HttpResponse::Accepted().json(json!({ "sent_to": to })));
    }
    let id = chat.pubsub.append(&topic, &said).await?;
    Ok(HttpResponse::Created().json(json!({ "id": id.to_string() })))
}

/// A browser may post a form from any page; only ours may speak here. Programs that are no browser send no origin.
fn own_origin(request: &HttpRequest) -> Result<(), Refusal> {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let host = request.headers().get(header::HOST).map(header::HeaderValue::as_bytes).unwrap_or_default();
    let authority = origin.as_bytes().strip_prefix(b"http://").or_else(|| origin.as_bytes().strip_prefix(b"https://"));
    if !host.is_empty() && authority == Some(host) {
        Ok(())
    } else {
        Err(Refusal::denied("a page of another origin may not post"))
    }
}

/// Rooms that are told at once.
const ROOMS_LISTED_MAX: usize = 200;
/// From this many remembered addresses on, each POST first forgets those that have been quiet.
const POSTERS_MAX: usize = 10_000;
