//! A chat on any number of nodes, with its history on Redis: `cargo run -- 8080` and `cargo run -- 8081`.

use std::error::Error;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::AppendOptions;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Delivery;
use actix_pubsub::Failure;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::Retention;
use actix_pubsub::cluster::Redis;
use actix_pubsub::log::Position;
use actix_pubsub::log::RedisStore;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::Sse;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::HttpServer;
use actix_web::web;
use serde::Deserialize;
use serde::Serialize;

#[derive(Serialize, Deserialize)]
struct Said {
    by: String,
    text: String,
}

impl Payload for Said {
    const NAME: &'static str = "chat.said";
}

#[derive(Serialize, Deserialize)]
struct Typing {
    by: String,
}

impl Payload for Typing {
    const NAME: &'static str = "chat.typing";
}

/// What is said is kept, and goes to everyone on every node.
async fn say(room: web::Path<String>, said: web::Json<Said>, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    let id = pubsub.append(format!("room:{room}"), &said.0).await?;
    Ok(HttpResponse::Created().json(id.to_string()))
}

/// Who types is of interest now, and never again.
async fn typing(room: web::Path<String>, typing: web::Json<Typing>, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    pubsub.broadcast(format!("room:{room}"), typing.0)?;
    Ok(HttpResponse::Accepted().finish())
}

async fn listen(room: web::Path<String>, request: HttpRequest, pubsub: web::Data<PubSub>) -> Result<HttpResponse, Refusal> {
    let room = Sse::subscribe(&pubsub).topic(format!("room:{room}")).message::<Said>().ephemeral::<Typing>();
    room.durable().from(Position::Start).respond(&request).await
}

/// Answers `/ping` in the lobby, once, however many nodes there are.
struct Bot {
    pubsub: PubSub,
}

impl Actor for Bot {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let options = ConsumeOptions::new().start(Position::End);
        self.pubsub.consume::<Said, _>(ctx, "room:lobby", "bot", &options).expect("a pub/sub with a log");
    }
}

impl Handler<Delivery<Said>> for Bot {
    type Result = ResponseFuture<Result<(), Failure>>;

    fn handle(&mut self, said: Delivery<Said>, _: &mut Self::Context) -> Self::Result {
        let pubsub = self.pubsub.clone();
        Box::pin(async move {
            if said.text == "/ping" {
                let pong = Said { by: "bot".to_owned(), text: format!("pong, {}", said.by) };
                // If this node dies before the ack, another one does it again: under the same key, so it is there once.
                let once = AppendOptions::new().key(format!("pong-{}", said.id()));
                pubsub.append_with(said.topic(), &pong, once).await?;
            }
            Ok(())
        })
    }
}

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>chat</title>
<ul id="said"></ul><p id="typing"></p>
<form><input name="by" value="Ann" size="8"> <input name="text" autofocus autocomplete="off"> <button>Say</button></form>
<script>
const form = document.forms[0], post = (path, data) =>
  fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(data) });
const events = new EventSource("/rooms/lobby"); // It comes back by itself, and says where it was.
events.addEventListener("chat.said", ({ data }) => {
  const { by, text } = JSON.parse(data), line = document.createElement("li");
  line.textContent = `${by}: ${text}`;
  document.getElementById("said").append(line);
  document.getElementById("typing").textContent = "";
});
events.addEventListener("chat.typing", ({ data }) => {
  document.getElementById("typing").textContent = `${JSON.parse(data).by} is typing`;
});
form.text.oninput = () => post("/rooms/lobby/typing", { by: form.by.value });
form.onsubmit = (event) => {
  event.preventDefault();
  post("/rooms/lobby", { by: form.by.value, text: form.text.value });
  form.text.value = "";
};
</script>"#;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().ok_or("which port? cargo run -- 8080")?.parse()?;
    let redis = args.next().unwrap_or("redis://127.0.0.1:6379".to_owned());

    let pubsub = PubSub::builder()
        .log(RedisStore::new(&redis)?)
        .cluster(Redis::new(&redis))
        .retain("room:*", Retention::entries(10_000))
        .build()?;
    Bot { pubsub: pubsub.clone() }.start();

    let edge = Edge::of(&pubsub);
    let data = web::Data::new(pubsub.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .route("/", web::get().to(async || HttpResponse::Ok().content_type("text/html; charset=utf-8").body(PAGE)))
            .route("/rooms/{room}", web::get().to(listen))
            .route("/rooms/{room}", web::post().to(say))
            .route("/rooms/{room}/typing", web::post().to(typing))
    });
    let farewell = Duration::from_secs(2);
    let server = server.on_connect(edge.on_connect()).shutdown_signal(edge.drain_on_signal(farewell));
    let server = server.bind(("127.0.0.1", port))?;
    println!("http://{}/", server.addrs()[0]);
    server.run().await?;
    // What is under way is finished, and the other nodes are told.
    let _ = actix_web::rt::time::timeout(farewell, pubsub.shutdown()).await;
    Ok(())
}
