//! Send loop: what everybody writes, a `Vec` of addresses, `do_send` of the message to each, and each makes its JSON.

use std::sync::Mutex;

use actix::Actor;
use actix::Addr;
use actix::AsyncContext;
use actix::Handler;
use actix::Message;
use actix::StreamHandler;
use actix_web::Error;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web;
use actix_web::web::Data;
use actix_web::web::Payload;
use actix_web_actors::ws;
use actix_web_actors::ws::ProtocolError;
use actix_web_actors::ws::WebsocketContext;

use crate::load::said::Said;
use crate::server::Stage;

type Clients = Data<Mutex<Vec<Addr<Client>>>>;

pub(crate) fn run(stage: Stage) {
    let clients: Clients = Data::new(Mutex::default());
    let shared = clients.clone();
    stage.actix(
        |_, _| {},
        move |config| {
            config.app_data(shared.clone()).route("/ws", web::get().to(open));
        },
        move |said| {
            for client in clients.lock().expect("no one panics with it").iter() {
                client.do_send(Say(said.clone()));
            }
        },
    );
}

async fn open(request: HttpRequest, clients: Clients, payload: Payload) -> Result<HttpResponse, Error> {
    ws::start(Client { clients }, &request, payload)
}

struct Client {
    clients: Clients,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Say(Said);

impl Actor for Client {
    type Context = WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.clients.lock().expect("no one panics with it").push(ctx.address());
        ctx.text("welcome");
    }

    fn stopped(&mut self, ctx: &mut Self::Context) {
        let this = ctx.address();
        self.clients.lock().expect("no one panics with it").retain(|client| *client != this);
    }
}

impl Handler<Say> for Client {
    type Result = ();

    fn handle(&mut self, say: Say, ctx: &mut Self::Context) {
        ctx.text(serde_json::to_string(&say.0).expect("it has a JSON form"));
    }
}

impl StreamHandler<Result<ws::Message, ProtocolError>> for Client {
    fn handle(&mut self, message: Result<ws::Message, ProtocolError>, ctx: &mut Self::Context) {
        super::answer(message, ctx);
    }
}
