//! Ours: this crate as a server, by its endpoints for WebSocket and SSE, and by an actor of the user's.

use actix::Actor;
use actix::Handler;
use actix::StreamHandler;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::Sse;
use actix_pubsub::web::WebSocket;
use actix_web::Error;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web;
use actix_web::web::Data;
use actix_web::web::Payload;
use actix_web::web::ServiceConfig;
use actix_web_actors::ws;
use actix_web_actors::ws::ProtocolError;
use actix_web_actors::ws::WebsocketContext;

use crate::load::dialect::Dialect;
use crate::load::said::Said;
use crate::load::wire::Wire;
use crate::peers;
use crate::server::Server;
use crate::server::Stage;

pub(crate) const ALL: &[Server] = &[
    Server {
        name: WEBSOCKET,
        dialect: Dialect {
            wire: Wire::WebSocket,
            path: "/",
            answers: &[(r#"{"type":"welcome""#, r#"{"type":"subscribe","ref":1,"topic":"t"}"#)],
            ready: r#"{"type":"ok","ref":1"#,
        },
        against: WEBSOCKET,
        idle: false,
        run: websocket,
    },
    Server {
        name: SSE,
        dialect: Dialect { wire: Wire::Sse, path: "/", answers: &[], ready: "" },
        against: SSE,
        idle: false,
        run: sse,
    },
    Server {
        name: "ours, an own actor",
        dialect: Dialect { wire: Wire::WebSocket, path: "/", answers: &[], ready: "welcome" },
        against: WEBSOCKET,
        idle: false,
        run: own_actor,
    },
];

/// What servers of WebSocket clients are measured against.
pub(crate) const WEBSOCKET: &str = "ours, WebSocket";
/// What servers of SSE clients are measured against.
pub(crate) const SSE: &str = "ours, SSE";

const TOPIC: &str = "t";

fn websocket(stage: Stage) {
    let pubsub = PubSub::new();
    let socket = WebSocket::new(&pubsub).message::<Said>();
    serve(stage, pubsub, move |config| {
        config.route("/", socket.route());
    });
}

fn sse(stage: Stage) {
    serve(stage, PubSub::new(), |config| {
        config.route("/", web::get().to(events));
    });
}

async fn events(request: HttpRequest, pubsub: Data<PubSub>) -> Result<HttpResponse, Refusal> {
    Sse::subscribe(&pubsub).topic(TOPIC).message::<Said>().respond(&request).await
}

fn own_actor(stage: Stage) {
    serve(stage, PubSub::new(), |config| {
        config.route("/", web::get().to(open));
    });
}

async fn open(request: HttpRequest, pubsub: Data<PubSub>, payload: Payload) -> Result<HttpResponse, Error> {
    ws::start(OwnActor((**pubsub).clone()), &request, payload)
}

/// As the documentation says: with bounds on what a client that does not read can cost.
fn serve(stage: Stage, pubsub: PubSub, configure: impl Fn(&mut ServiceConfig) + Clone + Send + 'static) {
    let (edge, shared) = (Edge::of(&pubsub), pubsub.clone());
    stage.actix(
        edge.on_connect(),
        move |config| configure(config.app_data(Data::new(shared.clone()))),
        move |said| {
            pubsub.broadcast(TOPIC, said).expect("it is taken");
        },
    );
}

struct OwnActor(PubSub);

impl Actor for OwnActor {
    type Context = WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.subscribe::<Said, _>(ctx, TOPIC).expect("it is taken");
        ctx.text("welcome");
    }
}

impl Handler<Event<Said>> for OwnActor {
    type Result = ();

    fn handle(&mut self, said: Event<Said>, ctx: &mut Self::Context) {
        ctx.text(said.json().expect("it has a JSON form"));
    }
}

impl StreamHandler<Result<ws::Message, ProtocolError>> for OwnActor {
    fn handle(&mut self, message: Result<ws::Message, ProtocolError>, ctx: &mut Self::Context) {
        peers::answer(message, ctx);
    }
}
