//! Idle: a WebSocket actor that does nothing, the least that a connection costs with actix-web-actors.

use actix::Actor;
use actix::StreamHandler;
use actix_web::Error;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web;
use actix_web::web::Payload;
use actix_web_actors::ws;
use actix_web_actors::ws::ProtocolError;
use actix_web_actors::ws::WebsocketContext;

use crate::server::Stage;

pub(crate) fn run(stage: Stage) {
    stage.actix(
        |_, _| {},
        |config| {
            config.route("/ws", web::get().to(open));
        },
        |_| {},
    );
}

async fn open(request: HttpRequest, payload: Payload) -> Result<HttpResponse, Error> {
    ws::start(Idle, &request, payload)
}

struct Idle;

impl Actor for Idle {
    type Context = WebsocketContext<Self>;
}

impl StreamHandler<Result<ws::Message, ProtocolError>> for Idle {
    fn handle(&mut self, message: Result<ws::Message, ProtocolError>, ctx: &mut Self::Context) {
        super::answer(message, ctx);
    }
}
