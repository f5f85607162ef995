//! Chat: rooms that are topics of the log, on the crate's own WebSocket, and plain HTTP beside it. `cargo run --example chat`, then open the printed address.
//!
//! ```text
//! browser ── pubsub.js ── GET /ws ──> WebSocket ── publish chat.said ──> append to "room:lobby" ──> everyone in the room, now and later
//!                                        └── observe ──> Roster (actor) ── broadcast chat.presence ──> everyone in the room, now
//! curl ───── POST /rooms/lobby ────────────────────────── append ──────────┘
//! ```
//!
//! What was said is in a file before it is confirmed: reload the page, kill the server with `kill -9` and start it again, and all of it is there, once. The last
//! 10,000 messages of each room are kept.
//!
//! The WebSocket speaks the protocol of `src/docs/websocket.md`, with these messages:
//! ```json
//! {"type":"publish","topic":"room:lobby","event":"chat.said","data":{"user":"Ann","text":"hello","cid":"9f-1"},"key":"9f-1","ref":1}
//! {"type":"event","topic":"room:lobby","event":"chat.said","id":"1700000000000-0","data":{"user":"Ann","text":"hello","cid":"9f-1"}}
//! {"type":"event","topic":"room:lobby","event":"chat.presence","data":{"came":true,"session":"…","tab":"9f","user":"Ben","version":4,"total":2}}
//! ```
//! The name of a connection is in its query, `/ws?name=Ann`, and nobody proves theirs: the example `handlers` shows tokens.
//!
//! ```text
//! curl -d 'hello' 'http://127.0.0.1:8080/rooms/lobby?user=Ann'                       # 201 {"id":"1700000000000-1"}
//! curl --json '{"user":"Ann","text":"hello"}' http://127.0.0.1:8080/rooms/lobby
//! curl http://127.0.0.1:8080/rooms                                                   # [{"room":"lobby","people":2}]
//! curl http://127.0.0.1:8080/rooms/lobby                                             # who is there
//! curl http://127.0.0.1:8080/stats
//! ```
//!
//! Who is slow, what is missed and what the log keeps is on a page of its own: <http://127.0.0.1:8080/_pubsub>.

mod guests;
mod limits;
mod messages;
mod roster;
mod routes;
#[expect(dead_code, reason = "the rest of it is for the other examples")]
#[path = "../shared/mod.rs"]
mod shared;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use actix_pubsub::PubSub;
use actix_pubsub::Retention;
use actix_pubsub::web::Edge;
use actix_pubsub::web::EdgeBuilder;
use actix_pubsub::web::SessionEvent;
use actix_pubsub::web::WebSocket;
use actix_pubsub::web::dashboard;
use actix_web::App;
use actix_web::HttpServer;
use actix_web::rt::System;
use actix_web::web;

use crate::guests::Guests;
use crate::guests::Tab;
use crate::messages::Guest;
use crate::messages::Presence;
use crate::messages::Said;
use crate::roster::Moved;
use crate::roster::Roster;
use crate::shared::address::Address;
use crate::shared::chain;

const USAGE: &str = "usage: chat [--port N] [--store STORE] [--origin URL]...
  --port N       listen on 127.0.0.1:N, 0 for any free port; 8080 unless told otherwise
  --store STORE  where messages are kept: PATH or file:PATH, memory, redis://HOST:PORT, nats://HOST:PORT;
                 actix-pubsub-chat.redb in the temp dir unless told otherwise
  --origin URL   let pages of this origin connect too, as in https://chat.example; the own host always may";

/// What is kept of each room.
const MESSAGES_KEPT: u64 = 10_000;
/// How long connections may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

struct Options {
    port: u16,
    store: Address,
    origins: Vec<String>,
}

impl Options {
    /// `None`: help was asked for.
    fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>, lexopt::Error> {
        use lexopt::Arg::Long;
        use lexopt::Arg::Short;
        use lexopt::ValueExt;
        let store = Address::File(std::env::temp_dir().join("actix-pubsub-chat.redb"));
        let mut options = Self { port: 8080, store, origins: Vec::new() };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("port") => options.port = parser.value()?.parse()?,
                Long("store") => options.store = parser.value()?.parse_with(address)?,
                Long("origin") => options.origins.push(parser.value()?.string()?),
                Long("help") | Short('h') => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

/// A path may stand alone here.
fn address(text: &str) -> Result<Address, String> {
    if text == "memory" || text.contains(':') { text.parse() } else { Ok(Address::File(PathBuf::from(text))) }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("chat: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match System::new().block_on(run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let store = options.store.open("chat")?;
    let pubsub = PubSub::builder().log_shared(store).retain("room:*", Retention::entries(MESSAGES_KEPT)).build()?;
    let edge = Edge::builder().authorize(Guests).limits(limits::limits());
    let edge = options.origins.into_iter().fold(edge, EdgeBuilder::allow_origin).attach(&pubsub)?;
    let roster = Roster::new(pubsub.clone()).start();
    let chat = web::Data::new(routes::Chat::new(pubsub.clone(), roster.clone(), None));

    let socket = WebSocket::new(&pubsub).message::<Said>().ephemeral::<Presence>().durable();
    // Under the name that the connection came with, whatever the message says.
    let socket = socket.publish_with::<Said>(|info, _, said| Ok(said.by(info.identity.name().unwrap_or_default(), None)));
    let socket = socket.observe(move |info, event| {
        let (topic, came) = match event {
            SessionEvent::Subscribed(topic) => (topic.clone(), true),
            SessionEvent::Unsubscribed(topic) => (topic.clone(), false),
            _ => return,
        };
        let tab = info.identity.claims().map_or_else(|| Arc::from(""), |Tab(tab)| Arc::clone(tab));
        let user = info.identity.name().unwrap_or_default().into();
        roster.do_send(Moved { topic, guest: Guest { session: Arc::clone(&info.id), tab, user, node: None }, came });
    });

    let dashboard = dashboard(&pubsub);
    let server = HttpServer::new(move || {
        let body = web::PayloadConfig::new(limits::MESSAGE_BYTES);
        let app = App::new().app_data(body).app_data(chat.clone()).service(dashboard.clone());
        app.route("/ws", socket.route()).configure(routes::configure)
    })
    .on_connect(edge.on_connect())
    .h1_allow_half_closed(false)
    .shutdown_signal(edge.drain_on_signal(FAREWELL))
    .shutdown_timeout(FAREWELL.as_secs());
    let refused = |error| format!("cannot serve on 127.0.0.1:{}: {error}; --port takes another one", options.port);
    let server = server.bind((Ipv4Addr::LOCALHOST, options.port)).map_err(refused)?;
    // Whoever closed our standard output does not want to know.
    let _ = writeln!(io::stdout(), "chat: what is said is kept in {}", options.store);
    for address in server.addrs() {
        let _ = writeln!(io::stdout(), "chat: http://{address}/");
        let _ = writeln!(io::stdout(), "chat: what goes on inside is at http://{address}/_pubsub");
    }
    server.run().await?;
    // One that cannot write has been cut off by the server.
    let _ = actix_web::rt::time::timeout(FAREWELL, pubsub.shutdown()).await;
    Ok(())
}
