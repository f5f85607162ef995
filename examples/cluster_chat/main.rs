//! Cluster chat: the chat on several servers that are one. `cargo run --features nats,redis,zenoh --example cluster_chat`, then open the two addresses it prints.
//!
//! ```text
//! browser ── ws ──> node-8081 ── broadcast chat.said ──┬──> everyone in the room on node-8081
//!                   Census ── chat.counts ──┐          └──zenoh, Redis or NATS──> everyone in the room on node-8082 <── ws ── browser
//!                                           └──> Census of node-8082: who is where
//! ```
//!
//! What is said on one node appears on all. Each page shows which node a message came through, which nodes are up, and who is in the room on any of them. Kill
//! one: the others say so and its guests are gone; start it again, and it is back. What is said is kept nowhere: who is away misses it.
//!
//! Two nodes start from one command, as two processes. Any number more join from other terminals, in any order:
//!
//! ```text
//! cargo run --features nats,redis,zenoh --example cluster_chat                                                    # node-8081 and node-8082
//! cargo run --features nats,redis,zenoh --example cluster_chat -- --port 8083                                     # one more
//! cargo run --features nats,redis,zenoh --example cluster_chat -- --port 8081 --cluster redis://127.0.0.1:6379    # over Redis
//! cargo run --features nats,redis,zenoh --example cluster_chat -- --port 8081 --cluster nats://127.0.0.1:4222     # over NATS
//! ```
//!
//! Each node says in its terminal when another comes or goes, and when its link does. `curl` to one node reaches the browsers of the other:
//!
//! ```text
//! curl -d 'hello from curl' 'http://127.0.0.1:8081/rooms/lobby?user=Ann'              # 202 {"sent_to":"every node"}
//! curl http://127.0.0.1:8082/rooms/lobby                                              # who is there, on any node
//! curl http://127.0.0.1:8082/rooms/lobby/subscribers                                  # {"total":6,"here":3,"there":[…],"silent":[]}
//! curl http://127.0.0.1:8082/nodes                                                    # which nodes are up, as this one sees it
//! curl http://127.0.0.1:8082/stats                                                    # "cluster": what its relay counts
//! ```
//!
//! What goes on inside each node, its link and its queues among it, is on a page of its own: <http://127.0.0.1:8081/_pubsub>.
//!
//! The rooms, the guests and the page are those of the example `chat`.

mod census;
mod crew;
mod engine;
#[path = "../chat/guests.rs"]
mod guests;
#[path = "../chat/limits.rs"]
mod limits;
#[path = "../chat/messages.rs"]
mod messages;
mod pages;
#[path = "../chat/roster.rs"]
mod roster;
#[path = "../chat/routes.rs"]
mod routes;
#[expect(dead_code, reason = "the rest of it is for the other examples")]
#[path = "../shared/mod.rs"]
mod shared;
mod visitors;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use actix_pubsub::PubSub;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::web::Edge;
use actix_pubsub::web::SessionEvent;
use actix_pubsub::web::WebSocket;
use actix_pubsub::web::dashboard;
use actix_web::App;
use actix_web::HttpServer;
use actix_web::rt::System;
use actix_web::web;
use futures::future::select;

use crate::census::Census;
use crate::census::Count;
use crate::census::Here;
use crate::census::News;
use crate::engine::Engine;
use crate::guests::Tab;
use crate::messages::Guest;
use crate::messages::Presence;
use crate::messages::Said;
use crate::messages::room_name;
use crate::roster::Moved;
use crate::roster::Roster;
use crate::shared::chain;
use crate::visitors::Visitors;

const USAGE: &str = "usage: cluster_chat [--port N] [--nodes N] [--name NAME] [--cluster CLUSTER]
  --port N           listen on 127.0.0.1:N, 0 for any free port. With it this is one node, without it two: on 8081 and 8082
  --nodes N          start N nodes, 1 to 16, each a process of its own, on this port and those after it
  --name NAME        what the node is called; node-PORT unless told otherwise
  --cluster CLUSTER  where the nodes meet: zenoh, without a server, for nodes of one machine; redis://HOST:PORT; nats://HOST:PORT.
                     zenoh unless told otherwise, at ports 7451 to 7453; zenoh:PORT,… is at others";

/// How long connections may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(2);
const PORT: u16 = 8081;
const NODES_MAX: u16 = 16;

struct Options {
    port: u16,
    nodes: u16,
    name: Option<String>,
    engine: Engine,
    /// It ends with the process that started it.
    member: bool,
}

impl Options {
    /// `None`: help was asked for.
    fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>, lexopt::Error> {
        use lexopt::Arg::Long;
        use lexopt::Arg::Short;
        use lexopt::ValueExt;
        let (mut port, mut nodes, mut name, mut engine, mut member) = (None, None, None, Engine::default(), false);
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("port") => port = Some(parser.value()?.parse()?),
                Long("nodes") => nodes = Some(parser.value()?.parse_with(count)?),
                Long("name") => name = Some(parser.value()?.parse_with(node_name)?),
                Long("cluster") => engine = parser.value()?.parse()?,
                Long("member") => member = true,
                Long("help") | Short('h') => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        let nodes = nodes.unwrap_or(if port.is_some() { 1 } else { 2 });
        let port: u16 = port.unwrap_or(PORT);
        if port != 0 && port.checked_add(nodes - 1).is_none() {
            return Err(format!("{nodes} nodes from port {port} on need ports above {}", u16::MAX).into());
        }
        Ok(Some(Self { port, nodes, name, engine, member }))
    }

    /// The arguments of each of several nodes.
    fn crew(&self) -> Vec<Vec<String>> {
        let node = |at: u16| {
            let port = if self.port == 0 { 0 } else { self.port + at };
            let mut args = vec!["--port".to_owned(), port.to_string()];
            if let Some(name) = &self.name {
                args.extend(["--name".to_owned(), format!("{name}-{}", at + 1)]);
            }
            if self.engine != Engine::default() {
                args.extend(["--cluster".to_owned(), self.engine.argument()]);
            }
            args
        };
        (0..self.nodes).map(node).collect()
    }
}

fn count(text: &str) -> Result<u16, String> {
    let refused = || format!("{text:?} is no number of nodes, 1 to {NODES_MAX}");
    text.parse().ok().filter(|count| (1..=NODES_MAX).contains(count)).ok_or_else(refused)
}

/// What a list of nodes has room for.
fn node_name(text: &str) -> Result<String, String> {
    messages::check_name(text).map(|()| text.to_owned()).map_err(|refusal| refusal.to_string())
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("cluster_chat: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let ended =
        System::new().block_on(async { if options.nodes > 1 { crew::run(options.crew()).await } else { serve(options).await } });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster_chat: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// One node.
async fn serve(Options { port, name, engine, member, .. }: Options) -> Result<(), Box<dyn Error>> {
    let refused = |error| format!("cannot serve on 127.0.0.1:{port}: {error}; --port takes another one");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(refused)?;
    let address = listener.local_addr()?;
    let name: Arc<str> = name.unwrap_or_else(|| format!("node-{}", address.port())).into();
    // Whoever closed our standard output does not want to know.
    let _ = writeln!(io::stdout(), "cluster_chat: {name} meets the others over {engine}; it is process {}", std::process::id());

    let options = ClusterOptions::new().name("cluster-chat").node_name(Arc::clone(&name));
    let pubsub = engine.join(PubSub::builder(), options).message::<Said>().message::<Count>().build()?;
    let edge = Edge::builder().authorize(Visitors).limits(limits::limits()).attach(&pubsub)?;
    let roster = Roster::new(pubsub.clone()).start();
    let census = Census::new(pubsub.clone(), Arc::clone(&name), roster.clone()).start();
    let cluster = web::Data::new(pages::Cluster { pubsub: pubsub.clone(), census: census.clone() });
    let chat = web::Data::new(routes::Chat::new(pubsub.clone(), roster, Some(name.to_string())));

    let socket = WebSocket::new(&pubsub).message::<Said>().message::<Presence>().message::<News>();
    let here = Arc::clone(&name);
    // Under the name that the connection came with and as of this node, whatever the message says.
    let socket =
        socket.publish_with::<Said>(move |info, _, said| Ok(said.by(info.identity.name().unwrap_or_default(), Some(&here))));
    let socket = socket.observe(move |info, event| {
        let (topic, came) = match event {
            SessionEvent::Subscribed(topic) => (topic.clone(), true),
            SessionEvent::Unsubscribed(topic) => (topic.clone(), false),
            _ => return,
        };
        if room_name(&topic).is_err() {
            return;
        }
        let tab = info.identity.claims().map_or_else(|| Arc::from(""), |Tab(tab)| Arc::clone(tab));
        let user = info.identity.name().unwrap_or_default().into();
        let guest = Guest { session: Arc::clone(&info.id), tab, user, node: Some(Arc::clone(&name)) };
        census.do_send(Here(Moved { topic, guest, came }));
    });

    let dashboard = dashboard(&pubsub);
    let server = HttpServer::new(move || {
        let body = web::PayloadConfig::new(limits::MESSAGE_BYTES);
        let app = App::new().app_data(body).app_data(chat.clone()).app_data(cluster.clone()).service(dashboard.clone());
        app.route("/ws", socket.route()).configure(pages::configure).configure(routes::configure)
    });
    let (drained, orphan) = (edge.drain_on_signal(FAREWELL), edge.clone());
    let stop = async move {
        let left_alone = async {
            if !member {
                futures::future::pending::<()>().await;
            }
            crew::parent_gone().await;
            orphan.drain(FAREWELL).await;
        };
        select(pin!(drained), pin!(left_alone)).await;
    };
    let server = server.on_connect(edge.on_connect()).h1_allow_half_closed(false);
    let server = server.shutdown_signal(stop).shutdown_timeout(FAREWELL.as_secs()).workers(WORKERS);
    let server = server.listen(listener)?;
    let _ = writeln!(io::stdout(), "cluster_chat: http://{address}/");
    let _ = writeln!(io::stdout(), "cluster_chat: what goes on inside is at http://{address}/_pubsub");
    server.run().await?;
    // It tells the others that it leaves. One that cannot write has been cut off by the server.
    let _ = actix_web::rt::time::timeout(FAREWELL, pubsub.shutdown()).await;
    Ok(())
}

/// Threads of one node: there are several on this machine.
const WORKERS: usize = 2;
