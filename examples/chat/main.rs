//! Chat: rooms as topics, one actor per WebSocket, and plain HTTP beside it. `cargo run --example chat`, then open the printed address.
//!
//! ```text
//! browser ── GET /ws ──> Session (actor) ── subscribe "room:lobby" ──> PubSub ──> every Session in the room ──> its socket
//!                           └── entered, left, gone ──> Roster (actor) ── broadcast joined/left ──┘
//! curl ───── POST /rooms/lobby ──────────────────────── broadcast ──────┘
//! ```
//!
//! # WebSocket protocol: one JSON object per text message
//!
//! The client says:
//! ```json
//! {"type":"join","room":"lobby","name":"Ann"}
//! {"type":"say","room":"lobby","body":"hello","cid":"c1"}
//! {"type":"who","room":"lobby"}
//! {"type":"leave","room":"lobby"}
//! ```
//! Everyone in a room, the sender included, receives:
//! ```json
//! {"type":"message","room":"lobby","from":"9f…-7","user":"Ann","body":"hello","cid":"c1","at_ms":1700000000000}
//! {"type":"joined","room":"lobby","session":"9f…-8","user":"Ben","version":3,"total":2}
//! {"type":"left","room":"lobby","session":"9f…-8","user":"Ben","version":4,"total":1}
//! ```
//! One client is told:
//! ```json
//! {"type":"welcome","session":"9f…-7","limits":{"message_bytes":2000}}
//! {"type":"members","room":"lobby","version":3,"total":2,"members":[{"session":"9f…-7","user":"Ann"}]}
//! {"type":"missed","room":"lobby","events":12}
//! {"type":"parted","room":"lobby"}
//! {"type":"error","code":"message_size","message":"message is 2001 bytes, the limit is 2000","limit":2000,"value":2001,"room":"lobby","cid":"c1"}
//! ```
//! A message whose `from` is one's own session confirms the one that was sent with this `cid`. `joined`, `left` and `members` of a room
//! are numbered by one `version`: a gap means that something was missed, and `who` answers with the whole list.
//!
//! # HTTP
//!
//! ```text
//! curl -d 'hello' 'http://127.0.0.1:8080/rooms/lobby?user=Ann'
//! curl --json '{"user":"Ann","body":"hello"}' http://127.0.0.1:8080/rooms/lobby      # 202 {"delivered_to":2}
//! curl http://127.0.0.1:8080/rooms                                                   # [{"room":"lobby","subscribers":2}]
//! curl http://127.0.0.1:8080/stats
//! ```
//! Refusals have the form of the WebSocket's errors.

mod frames;
mod limits;
mod protocol;
mod roster;
mod routes;
mod session;

use std::io;
use std::io::Write;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use actix::Actor;
use actix_pubsub::PubSub;
use actix_web::App;
use actix_web::HttpServer;
use actix_web::middleware::DefaultHeaders;
use actix_web::rt;
use actix_web::web;
use futures::future::Either;
use futures::future::select;

use crate::protocol::GoingAway;
use crate::protocol::SERVER;
use crate::roster::Roster;

const USAGE: &str = "usage: chat [--port N] [--origin URL]...
  --port N      listen on 127.0.0.1:N, 0 for any free port; 8080 unless told otherwise
  --origin URL  let pages of this origin connect too, as in https://chat.example; the own host always may";

/// How long sessions may take to say goodbye.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, PartialEq, Eq)]
struct Options {
    port: u16,
    origins: Vec<String>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { port: 8080, origins: Vec::new() };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--port" => {
                    let port = value()?;
                    options.port = port.parse().map_err(|_| format!("port is {port:?}, it must be 0 to 65535"))?;
                }
                "--origin" => options.origins.push(value()?),
                _ => return Err(format!("unknown argument {arg:?}")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("chat: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let port = options.port;
    match rt::System::new().block_on(run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: cannot serve on 127.0.0.1:{port}: {error}; --port takes another one");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> io::Result<()> {
    let pubsub = PubSub::new();
    let roster = Roster::new(pubsub.clone()).start();
    let app = web::Data::new(routes::App::new(pubsub.clone(), roster, options.origins));
    let server = HttpServer::new(move || {
        let headers = DefaultHeaders::new().add(("X-Content-Type-Options", "nosniff")).add(("Referrer-Policy", "no-referrer"));
        App::new().wrap(headers).app_data(app.clone()).configure(routes::configure)
    })
    .disable_signals()
    .shutdown_timeout(FAREWELL_TIMEOUT.as_secs())
    .bind((Ipv4Addr::LOCALHOST, options.port))?;
    for address in server.addrs() {
        // Whoever closed our standard output does not want to know.
        let _ = writeln!(io::stdout(), "chat: http://{address}/");
    }
    let server = server.run();
    let handle = server.handle();
    match select(pin!(server), pin!(signal())).await {
        Either::Left((ended, _)) => ended,
        Either::Right((signal, server)) => {
            signal?;
            // Each session says goodbye with a close frame and ends, and with it its subscriptions.
            let _ = pubsub.local_broadcast(SERVER, GoingAway);
            // One that cannot write is cut off by the server in the end.
            let _ = rt::time::timeout(FAREWELL_TIMEOUT, pubsub.shutdown()).await;
            select(pin!(handle.stop(true)), server).await;
            Ok(())
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = rt::signal::unix::signal(rt::signal::unix::SignalKind::terminate())?;
        match select(pin!(rt::signal::ctrl_c()), pin!(terminate.recv())).await {
            Either::Left((interrupt, _)) => interrupt,
            Either::Right(_) => Ok(()),
        }
    }
    #[cfg(not(unix))]
    rt::signal::ctrl_c().await
}
