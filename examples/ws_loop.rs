//! WebSocket loop: drives the crate's WebSocket session on actix-ws, in a plain task, instead of on actix-web-actors. `cargo run --example ws_loop`
//!
//! Open the printed address in two windows. `PORT` as the only argument takes another one.

use std::error::Error;

use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Incoming;
use actix_pubsub::web::Outgoing;
use actix_pubsub::web::Session;
use actix_pubsub::web::WebSocket;
use actix_pubsub::web::client;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::HttpServer;
use actix_web::rt;
use actix_web::web;
use actix_ws::AggregatedMessage;
use actix_ws::AggregatedMessageStream;
use actix_ws::CloseReason;
use futures::StreamExt;
use serde::Deserialize;
use serde::Serialize;

#[derive(Debug, Serialize, Deserialize)]
struct Said(String);

impl Payload for Said {
    const NAME: &'static str = "said";
}

/// What `Limits::default` says, for a socket that is not the crate's own.
const BYTES_MAX: usize = 65_536;

async fn upgrade(request: HttpRequest, body: web::Payload, socket: web::Data<WebSocket>) -> actix_web::Result<HttpResponse> {
    let session = socket.session(&request).await?;
    let (response, sender, receiver) = actix_ws::handle_with_protocols(&request, body, &[WebSocket::PROTOCOL])?;
    let receiver = receiver.max_frame_size(BYTES_MAX).aggregate_continuations().max_continuation_size(BYTES_MAX);
    rt::spawn(drive(session, sender, receiver));
    Ok(response)
}

/// The loop: what the client says goes in, what the session yields goes out. While a send waits for the socket, nothing is taken from the topics.
async fn drive(mut session: Session, mut sender: actix_ws::Session, mut receiver: AggregatedMessageStream) {
    loop {
        tokio::select! {
            // What was refused ends the stream, too, and is still answered.
            said = receiver.recv(), if !session.is_closing() => match said {
                Some(Ok(AggregatedMessage::Text(text))) => session.receive(Incoming::Text(text)),
                Some(Ok(AggregatedMessage::Binary(bytes))) => session.receive(Incoming::Binary(bytes)),
                Some(Ok(AggregatedMessage::Ping(bytes))) => session.receive(Incoming::Ping(bytes)),
                Some(Ok(AggregatedMessage::Pong(_))) => session.receive(Incoming::Pong),
                Some(Ok(AggregatedMessage::Close(reason))) => session.receive(Incoming::Close(reason.map(|reason| reason.code.into()))),
                Some(Err(error)) => session.receive(Incoming::Malformed(error.to_string())),
                None => return,
            },
            out = session.next() => {
                let sent = match out {
                    Some(Outgoing::Text(text)) => sender.text(text).await,
                    Some(Outgoing::Binary(bytes)) => sender.binary(bytes).await,
                    Some(Outgoing::Ping(bytes)) => sender.ping(&bytes).await,
                    Some(Outgoing::Pong(bytes)) => sender.pong(&bytes).await,
                    Some(Outgoing::Close(code, reason)) => {
                        let reason = code.map(|code| CloseReason { code: code.into(), description: Some(reason.to_owned()) });
                        // It has gone first: then there is nobody to tell.
                        return drop(sender.close(reason).await);
                    }
                    None => return,
                };
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let pubsub = PubSub::new();
    let socket = WebSocket::new(&pubsub).message::<Said>().publish::<Said>();
    let server = HttpServer::new(move || {
        let app = App::new().app_data(web::Data::new(socket.clone())).route("/ws", web::get().to(upgrade));
        app.route("/pubsub.js", web::get().to(client)).route("/", web::get().to(page))
    });
    let server = server.on_connect(Edge::of(&pubsub).on_connect()).bind(("127.0.0.1", port))?;
    println!("ws_loop: http://{}/", server.addrs()[0]);
    Ok(server.run().await?)
}

async fn page() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(PAGE)
}

const PAGE: &str = r#"<!doctype html>
<title>ws_loop</title>
<meta name="color-scheme" content="light dark">
<body style="font: 16px/1.5 system-ui; max-width: 40rem; margin: 3rem auto">
<form><input autofocus size="40" placeholder="Say something, here and in another window"> <button>Send</button></form>
<ul></ul>
<script type="module">
  import { PubSubClient } from "/pubsub.js";
  const client = new PubSubClient("/ws"), [input, list] = [document.querySelector("input"), document.querySelector("ul")];
  client.subscribe("all", { onEvent: ({ data }) => list.prepend(Object.assign(document.createElement("li"), { textContent: data })) });
  document.querySelector("form").onsubmit = (event) => { event.preventDefault(); client.publish("all", "said", input.value); input.value = ""; };
</script>
"#;
