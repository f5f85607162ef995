//! Ours: this crate as a server.

use actix::Actor;
use actix::Handler;
use actix::StreamHandler;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_web::Error;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web;
use actix_web::web::Data;
use actix_web::web::Payload;
use actix_web_actors::ws;
use actix_web_actors::ws::ProtocolError;
use actix_web_actors::ws::WebsocketContext;

use crate::load::dialect::Dialect;
use crate::load::said::Said;
use crate::load::wire::Wire;
use crate::server::Server;
use crate::server::Stage;

pub(crate) const ALL: &[Server] = &[Server {
    name: OWN_ACTOR,
    dialect: Dialect { wire: Wire::WebSocket, path: "/ws", answers: &[], ready: "welcome" },
    against: OWN_ACTOR,
    idle: false,
    run: own_actor,
}];

/// An actor of the user's, subscribed in its `WebsocketContext`.
pub(crate) const OWN_ACTOR: &str = "ours, an own actor";
/// What servers of WebSocket clients are measured against.
pub(crate) const WEBSOCKET: &str = OWN_ACTOR;
/// What servers of SSE clients are measured against.
pub(crate) const SSE: &str = OWN_ACTOR;

const TOPIC: &str = "t";

fn own_actor(stage: Stage) {
    let pubsub = PubSub::new();
    let shared = pubsub.clone();
    stage.actix(
        move |config| {
            config.app_data(Data::new(shared.clone())).route("/ws", web::get().to(open));
        },
        broadcast(pubsub),
    );
}

/// What the publisher does, for each of ours.
fn broadcast(pubsub: PubSub) -> impl Fn(Said) + Clone + Send + 'static {
    move |said| {
        pubsub.broadcast(TOPIC, said).expect("it is taken");
    }
}

async fn open(request: HttpRequest, pubsub: Data<PubSub>, payload: Payload) -> Result<HttpResponse, Error> {
    ws::start(OwnActor((**pubsub).clone()), &request, payload)
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
        crate::peers::answer(message, ctx);
    }
}
