//! Handlers: a POST reaches everyone who listens, over SSE and WebSocket, and a token (RFC 7519) says who may. `cargo run --example handlers`
//!
//! ```text
//! TOKEN=$(curl -s -d Ann http://127.0.0.1:8080/login)
//! curl -N -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/events &
//! curl -H "Authorization: Bearer $TOKEN" -d 'the build is green' http://127.0.0.1:8080/news
//! curl -H "Authorization: Bearer $TOKEN" -X POST http://127.0.0.1:8080/logout                  # ends the stream, and the token
//! ```
//!
//! A page connects with `new PubSubClient("/ws", { token: async () => token })`. Arguments: `[PORT [SECONDS]]`, where a token lives for `SECONDS`, 3,600 unless
//! told otherwise; a connection ends with the token that it came with. The key is a new one for each run.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::web::Authorize;
use actix_pubsub::web::Decision;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Identity;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::Sse;
use actix_pubsub::web::WebSocket;
use actix_pubsub::web::bearer_token;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::HttpServer;
use actix_web::http::StatusCode;
use actix_web::web;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use jsonwebtoken::Validation;
use serde::Deserialize;
use serde::Serialize;

#[derive(Debug, Serialize, Deserialize)]
struct News {
    by: String,
    text: String,
}

impl Payload for News {
    const NAME: &'static str = "news";
}

/// Issues tokens and checks them.
struct Tokens {
    key: [u8; 32],
    lifetime: Duration,
    /// Tokens that were logged out, by their number, until they would have expired anyway.
    ended: Mutex<HashMap<u64, u64>>,
}

/// What is in a token; RFC 7519, section 4.1.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    jti: u64,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Tokens {
    fn issue(&self, name: &str) -> Result<String, Refusal> {
        let failed = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "no token could be made");
        // A name that `disconnect` could not be called with is none.
        Identity::parse(name)?;
        let jti = getrandom::u64().map_err(|_| failed())?;
        let claims = Claims { sub: name.to_owned(), exp: now() + self.lifetime.as_secs(), jti };
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(&self.key)).map_err(|_| failed())
    }

    /// Whose token comes with a request.
    fn check(&self, request: &HttpRequest) -> Result<Claims, Refusal> {
        let token = bearer_token(request).ok_or_else(|| Refusal::unauthorized("a token is needed; POST /login has one"))?;
        // From the second of `exp` on it is refused (RFC 7519, section 4.1.4): that is when the connections end that it opened.
        let validation = Validation { leeway: 0, reject_tokens_expiring_in_less_than: 1, ..Validation::default() };
        let checked = jsonwebtoken::decode::<Claims>(&*token, &DecodingKey::from_secret(&self.key), &validation);
        let claims = checked.map_err(|error| Refusal::unauthorized(format!("the token is refused: {error}")))?.claims;
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.contains_key(&claims.jti) { Err(Refusal::unauthorized("the token was logged out")) } else { Ok(claims) }
    }

    fn end(&self, claims: &Claims) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|_, exp| *exp >= now());
        ended.insert(claims.jti, claims.exp);
    }
}

/// Who has a token listens to the news. Nobody publishes but by `POST /news`.
struct Listeners(Arc<Tokens>);

impl Authorize for Listeners {
    fn connect<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a, Identity> {
        Box::pin(async move {
            let claims = self.0.check(request)?;
            Ok(Identity::parse(&claims.sub)?.expires_at(UNIX_EPOCH + Duration::from_secs(claims.exp)))
        })
    }

    fn subscribe<'a>(&'a self, who: &'a Identity, topic: &'a Topic) -> Decision<'a, ()> {
        Box::pin(async move {
            if topic.as_str() == NEWS { Ok(()) } else { Err(Refusal::denied(format!("{who} may listen to {NEWS}"))) }
        })
    }
}

const NEWS: &str = "news";

/// `POST /login`: a token for the name that is the body. Yours would ask for a password.
async fn login(name: String, tokens: web::Data<Tokens>) -> Result<String, Refusal> {
    tokens.issue(&name)
}

/// `POST /news`: tells everyone.
async fn post(
    request: HttpRequest,
    text: String,
    tokens: web::Data<Tokens>,
    pubsub: web::Data<PubSub>,
) -> Result<HttpResponse, Refusal> {
    let by = tokens.check(&request)?.sub;
    // Waits where a queue is full: the request is the back-pressure.
    pubsub.broadcast_async(NEWS, News { by, text }).await?;
    Ok(HttpResponse::Accepted().finish())
}

/// `GET /events`: listens, over SSE.
async fn events(request: HttpRequest, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    Sse::subscribe(&pubsub).topic(NEWS).message::<News>().respond(&request).await
}

/// `POST /logout`: ends the token, and every connection of its name.
async fn logout(request: HttpRequest, tokens: web::Data<Tokens>, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    let claims = tokens.check(&request)?;
    // In this order: none that is ended comes again with it.
    tokens.end(&claims);
    pubsub.disconnect(&claims.sub)?;
    Ok(HttpResponse::NoContent().finish())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let seconds: u64 = std::env::args().nth(2).map_or(Ok(3_600), |seconds| seconds.parse())?;
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let tokens = web::Data::new(Tokens { key, lifetime: Duration::from_secs(seconds), ended: Mutex::default() });

    let pubsub = PubSub::new();
    let edge = Edge::builder().authorize(Listeners(tokens.clone().into_inner())).attach(&pubsub)?;
    let socket = WebSocket::new(&pubsub).message::<News>();
    let server = HttpServer::new(move || {
        let app = App::new().app_data(tokens.clone()).app_data(web::Data::new(pubsub.clone()));
        let app = app.route("/login", web::post().to(login)).route("/logout", web::post().to(logout));
        app.route("/news", web::post().to(post)).route("/events", web::get().to(events)).route("/ws", socket.route())
    })
    .on_connect(edge.on_connect())
    .h1_allow_half_closed(false)
    .shutdown_signal(edge.drain_on_signal(Duration::from_secs(2)))
    .bind(("127.0.0.1", port))?;
    println!("handlers: http://{}/", server.addrs()[0]);
    Ok(server.run().await?)
}
