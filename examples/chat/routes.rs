//! Routes: the page, the WebSocket upgrade, and the plain HTTP that `curl` speaks. Knows the limits, not the members.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::str;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use actix::Addr;
use actix_pubsub::PubSub;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::Responder;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::http::header::HeaderMap;
use actix_web::web;
use actix_web_actors::ws;
use governor::DefaultKeyedRateLimiter;
use governor::RateLimiter;
use governor::clock::Clock;
use governor::clock::DefaultClock;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::frames::Declared;
use crate::frames::FrameGuard;
use crate::limits;
use crate::limits::Code;
use crate::limits::LIMITS;
use crate::limits::MESSAGES;
use crate::limits::Refusal;
use crate::limits::Room;
use crate::protocol::RoomEvent;
use crate::roster::Presence;
use crate::roster::Roster;
use crate::roster::SessionId;
use crate::session::Session;
use crate::session::now_ms;

/// What all workers share.
pub(crate) struct App {
    pubsub: PubSub,
    roster: Addr<Roster>,
    origins: Vec<String>,
    sessions: AtomicU64,
    /// Messages by HTTP, per address.
    posts: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

/// From this many remembered addresses on, each POST first forgets those that have been quiet for two seconds.
const POSTERS_MAX: usize = 10_000;

const PAGE: &str = include_str!("index.html");

impl App {
    pub(crate) fn new(pubsub: PubSub, roster: Addr<Roster>, origins: Vec<String>) -> Self {
        let posts = RateLimiter::keyed(MESSAGES.quota());
        Self { pubsub, roster, origins, sessions: AtomicU64::new(0), posts, clock: DefaultClock::default() }
    }

    fn next_session(&self) -> SessionId {
        Arc::from(format!("{}-{}", self.pubsub.node(), self.sessions.fetch_add(1, Ordering::Relaxed)))
    }

    fn check_rate(&self, request: &HttpRequest) -> Result<(), Refusal> {
        if self.posts.len() >= POSTERS_MAX {
            self.posts.retain_recent();
        }
        let who = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        self.posts.check_key(&who).map_err(|not_until| MESSAGES.refusal(&not_until, self.clock.now()))
    }
}

pub(crate) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(page))
        .route("/ws", web::get().to(upgrade))
        .route("/rooms", web::get().to(rooms))
        .route("/rooms/{room}", web::post().to(post))
        .route("/stats", web::get().to(stats))
        .default_service(web::to(not_found));
}

/// `GET /`: the page. Its inline script and style run by a nonce, drawn for this one response.
async fn page() -> HttpResponse {
    let mut random = [0; 16];
    if let Err(error) = getrandom::fill(&mut random) {
        return HttpResponse::InternalServerError().body(format!("no random numbers from the system: {error}"));
    }
    let nonce = format!("{:032x}", u128::from_le_bytes(random));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(PAGE.replace("{nonce}", &nonce))
}

/// `GET /ws`: one session per socket.
async fn upgrade(request: HttpRequest, body: web::Payload, app: web::Data<App>) -> Result<HttpResponse, actix_web::Error> {
    limits::origin(request.headers(), &app.origins)?;
    let presence = Presence::new(app.next_session(), app.roster.clone());
    let refused = Declared::default();
    let guarded = FrameGuard::new(body, Declared::clone(&refused));
    let session = Session::new(app.pubsub.clone(), presence, refused);
    ws::WsResponseBuilder::new(session, &request, guarded).frame_size(LIMITS.frame_bytes).start()
}

#[derive(Serialize)]
struct RoomLine {
    room: String,
    subscribers: usize,
}

/// `GET /rooms`: the rooms that someone is in.
async fn rooms(app: web::Data<App>) -> impl Responder {
    let line = |room: Room| RoomLine { room: room.name().to_owned(), subscribers: app.pubsub.subscribers(room.topic()) };
    let lines: Vec<RoomLine> = app.pubsub.topics().iter().filter_map(Room::of).map(line).collect();
    web::Json(lines)
}

/// `GET /stats`: everything that the pub/sub knows of itself.
async fn stats(app: web::Data<App>) -> impl Responder {
    web::Json(app.pubsub.stats())
}

/// The body of a POST as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Post {
    user: String,
    body: String,
}

/// `POST /rooms/{room}`: says something in a room without being in it. JSON, or the text itself with `?user=`.
async fn post(
    request: HttpRequest,
    room: web::Path<String>,
    query: web::Query<BTreeMap<String, String>>,
    body: web::Payload,
    app: web::Data<App>,
) -> Result<HttpResponse, Refusal> {
    limits::origin(request.headers(), &app.origins)?;
    app.check_rate(&request)?;
    let room = Room::parse(&room)?;
    let post = read_post(request.headers(), body, &query).await?;
    let user = limits::user_name(&post.user)?.to_string();
    limits::message_body(&post.body)?;

    let subscribers = app.pubsub.subscribers(room.topic());
    let event =
        RoomEvent::Message { room: room.name().to_owned(), from: None, user, body: post.body, cid: None, at_ms: now_ms() };
    // Waits where a port is full: the request is the back-pressure.
    app.pubsub.broadcast_async(room.topic(), event).await.map_err(|_| Refusal::closing())?;
    Ok(HttpResponse::Accepted().json(json!({ "delivered_to": subscribers })))
}

async fn read_post(headers: &HeaderMap, body: web::Payload, query: &BTreeMap<String, String>) -> Result<Post, Refusal> {
    let max = LIMITS.frame_bytes;
    let too_large = |message: String| Refusal::new(Code::FrameSize, message).limit(max);
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if let Some(length) = length.filter(|length| *length > max) {
        return Err(too_large(format!("body is {length} bytes, the limit is {max}")).value(length));
    }
    let bytes = match body.to_bytes_limited(max).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(Refusal::new(Code::BadRequest, format!("the body did not arrive: {error}"))),
        Err(_) => return Err(too_large(format!("body is larger than {max} bytes"))),
    };
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|name| name.to_str().ok()).unwrap_or_default();
    if content_type.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("application/json")) {
        return serde_json::from_slice(&bytes).map_err(|error| Refusal::bad_json(&error));
    }
    // `curl -d` says that it sends a form; taken for what it is, the text itself.
    let text = str::from_utf8(&bytes).map_err(|error| {
        let message = format!("body is not UTF-8 from byte {} on", error.valid_up_to());
        Refusal::new(Code::BadRequest, message)
    })?;
    let user = query.get("user").map_or("curl", String::as_str);
    Ok(Post { user: user.to_owned(), body: text.to_owned() })
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    let known = matches!(request.path(), "/" | "/ws" | "/rooms" | "/stats") || request.path().starts_with("/rooms/");
    if known {
        let refusal = Refusal::new(Code::BadRequest, format!("{} is not for this path", request.method()));
        return HttpResponse::build(StatusCode::METHOD_NOT_ALLOWED).json(refusal);
    }
    HttpResponse::NotFound().json(Refusal::new(Code::NotFound, "no such path"))
}
