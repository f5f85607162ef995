//! Contexts: every actix context that can subscribe does, every kind of handler result works, and `ctx.wait` is respected.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use actix::fut;
use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web;
use actix_web_actors::HttpContext;
use actix_web_actors::ws;
use bytes::Bytes;
use futures::SinkExt;
use futures::StreamExt;
use futures::channel::oneshot;

use crate::support::Note;
use crate::support::Probe;
use crate::support::subscribe;
use crate::support::system;
use crate::support::until;
use crate::support::within;

struct Socket(PubSub);

impl Actor for Socket {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.subscribe::<Note, _>(ctx, "t").unwrap();
    }
}

impl Handler<Event<Note>> for Socket {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, ctx: &mut Self::Context) {
        ctx.text(event.json().unwrap());
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Socket {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        if let Ok(ws::Message::Close(reason)) = message {
            ctx.close(reason);
            ctx.stop();
        }
    }
}

struct Feed(PubSub);

impl Actor for Feed {
    type Context = HttpContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.subscribe::<Note, _>(ctx, "t").unwrap();
        ctx.write(Bytes::from_static(b"ready\n"));
    }
}

impl Handler<Event<Note>> for Feed {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, ctx: &mut Self::Context) {
        ctx.write(Bytes::from(format!("{}\n", event.0)));
    }
}

fn server(pubsub: &PubSub) -> actix_test::TestServer {
    let pubsub = pubsub.clone();
    actix_test::start(move || {
        App::new()
            .app_data(web::Data::new(pubsub.clone()))
            .route(
                "/ws",
                web::get().to(|request: HttpRequest, body: web::Payload, pubsub: web::Data<PubSub>| async move {
                    ws::start(Socket(PubSub::clone(&pubsub)), &request, body)
                }),
            )
            .route(
                "/feed",
                web::get().to(|pubsub: web::Data<PubSub>| async move {
                    HttpResponse::Ok().streaming(HttpContext::create(Feed(PubSub::clone(&pubsub))))
                }),
            )
            .route(
                "/say/{note}",
                web::post().to(|note: web::Path<u64>, pubsub: web::Data<PubSub>| async move {
                    pubsub.broadcast("t", Note(*note)).map(|_| HttpResponse::Accepted()).unwrap()
                }),
            )
    })
}

#[test]
fn websockets_on_web_workers_hear_an_http_handler_and_are_gone_when_the_socket_drops() {
    actix_web::rt::System::new().block_on(async {
        let pubsub = PubSub::new();
        let mut server = server(&pubsub);
        let mut sockets = Vec::new();
        for _ in 0..4 {
            sockets.push(server.ws_at("/ws").await.unwrap());
        }
        until("all are subscribed", || pubsub.subscribers("t") == 4).await;
        assert!(server.post("/say/7").send().await.unwrap().status().is_success());
        for socket in &mut sockets {
            let frame = socket.next().await.unwrap().unwrap();
            assert!(matches!(&frame, ws::Frame::Text(text) if &text[..] == b"7"), "{frame:?}");
        }
        // One says goodbye, one is cut off without a word.
        sockets[0].send(ws::Message::Close(None)).await.unwrap();
        until("it is gone", || pubsub.subscribers("t") == 3).await;
        drop(sockets.pop());
        until("it is gone too", || pubsub.subscribers("t") == 2).await;
        server.post("/say/8").send().await.unwrap();
        let frame = sockets[1].next().await.unwrap().unwrap();
        assert!(matches!(&frame, ws::Frame::Text(text) if &text[..] == b"8"), "{frame:?}");
        assert_eq!(pubsub.stats().discarded, 0);
    });
}

#[test]
fn an_http_context_streams_events_and_is_gone_when_the_client_is() {
    actix_web::rt::System::new().block_on(async {
        let pubsub = PubSub::new();
        let server = server(&pubsub);
        let mut response = server.get("/feed").send().await.unwrap();
        assert_eq!(response.next().await.unwrap().unwrap(), "ready\n");
        server.post("/say/9").send().await.unwrap();
        assert_eq!(response.next().await.unwrap().unwrap(), "9\n");
        drop(response);
        until("the client's going is seen", || {
            // The server notices a dead client when it writes.
            pubsub.broadcast("t", Note(10)).unwrap();
            pubsub.subscribers("t") == 0
        })
        .await;
    });
}

#[derive(Clone)]
struct Call(u64);

/// One type per kind of handler result.
struct Kinds {
    order: Arc<Mutex<Vec<String>>>,
    gate: Option<oneshot::Receiver<()>>,
}

impl Actor for Kinds {
    type Context = Context<Self>;
}

struct AsFuture(Call);
struct AsActFuture(Call);
struct Atomic(Call);

fn note(order: &Mutex<Vec<String>>, what: &str, call: &Call) {
    order.lock().unwrap().push(format!("{what} {}", call.0));
}

impl Handler<Event<AsFuture>> for Kinds {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, event: Event<AsFuture>, _: &mut Self::Context) -> Self::Result {
        let order = Arc::clone(&self.order);
        Box::pin(async move { note(&order, "future", &event.0) })
    }
}

impl Handler<Event<AsActFuture>> for Kinds {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, event: Event<AsActFuture>, _: &mut Self::Context) -> Self::Result {
        Box::pin(fut::ready(()).map(move |(), actor: &mut Self, _| note(&actor.order, "act future", &event.0)))
    }
}

impl Handler<Event<Atomic>> for Kinds {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, event: Event<Atomic>, _: &mut Self::Context) -> Self::Result {
        let gate = self.gate.take();
        note(&self.order, "atomic begins", &event.0);
        AtomicResponse::new(Box::pin(
            fut::wrap_future(async move {
                if let Some(gate) = gate {
                    gate.await.ok();
                }
            })
            .map(move |(), actor: &mut Self, _| note(&actor.order, "atomic ends", &event.0)),
        ))
    }
}

impl<R: 'static> Handler<crate::support::Do<Self, R>> for Kinds {
    type Result = MessageResult<crate::support::Do<Self, R>>;

    fn handle(&mut self, work: crate::support::Do<Self, R>, ctx: &mut Self::Context) -> Self::Result {
        MessageResult((work.0)(self, ctx))
    }
}

#[test]
fn handlers_that_return_futures_run_and_an_atomic_one_holds_back_what_follows() {
    system(async {
        let pubsub = PubSub::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (open, gate) = oneshot::channel();
        let addr = Kinds { order: Arc::clone(&order), gate: Some(gate) }.start();
        let theirs = pubsub.clone();
        addr.send(crate::support::Do(Box::new(move |_: &mut Kinds, ctx: &mut Context<Kinds>| {
            theirs.subscribe::<AsFuture, _>(ctx, "t").unwrap();
            theirs.subscribe::<AsActFuture, _>(ctx, "t").unwrap();
            theirs.subscribe::<Atomic, _>(ctx, "t").unwrap();
        })))
        .await
        .unwrap();
        pubsub.local_broadcast("t", AsFuture(Call(1))).unwrap();
        pubsub.local_broadcast("t", AsActFuture(Call(2))).unwrap();
        until("both ran", || order.lock().unwrap().len() == 2).await;
        for call in [3, 4] {
            pubsub.local_broadcast("t", Atomic(Call(call))).unwrap();
        }
        pubsub.local_broadcast("t", AsActFuture(Call(5))).unwrap();
        until("the atomic one has begun", || order.lock().unwrap().len() == 3).await;
        let waiting: u64 = pubsub.stats().subscriptions.iter().map(|subscription| subscription.depth).sum();
        assert_eq!(waiting, 2, "what follows waits in the inbox, visibly");
        open.send(()).unwrap();
        until("all ran", || order.lock().unwrap().len() == 7).await;
        let order = order.lock().unwrap();
        let mut first = order[..2].to_vec();
        first.sort();
        assert_eq!(first, ["act future 2", "future 1"]);
        assert_eq!(order[2..], ["atomic begins 3", "atomic ends 3", "atomic begins 4", "atomic ends 4", "act future 5"]);
    });
}

#[test]
fn an_actor_that_waits_gets_its_events_after_it_in_order() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        subscribe(&pubsub, &probe, "a").await;
        subscribe(&pubsub, &probe, "b").await;
        let (open, gate) = oneshot::channel::<()>();
        within(&probe, move |_, ctx| ctx.wait(fut::wrap_future(async move { drop(gate.await) }))).await;
        for value in 0..600 {
            pubsub.broadcast(if value % 3 == 0 { "a" } else { "b" }, Note(value)).unwrap();
        }
        until("all wait", || pubsub.stats().subscriptions.iter().map(|s| s.depth).sum::<u64>() == 600).await;
        assert_eq!(log.len(), 0, "nothing is handled meanwhile");
        open.send(()).unwrap();
        until("all are handled", || log.len() == 600).await;
        assert_eq!(log.values(), (0..600).collect::<Vec<_>>(), "in one order over both topics");
    });
}

#[test]
fn an_actor_with_a_thousand_topics_gets_each_of_them_in_publishing_order() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        let theirs = pubsub.clone();
        within(&probe, move |_, ctx| {
            for topic in 0..1_000 {
                theirs.subscribe::<Note, _>(ctx, format!("t{topic}")).unwrap();
            }
        })
        .await;
        assert_eq!(pubsub.topics().len(), 1_000);
        for value in 0..5_000 {
            pubsub.broadcast(format!("t{}", value * 7_919 % 1_000), Note(value)).unwrap();
        }
        until("all are handled", || log.len() == 5_000).await;
        assert_eq!(log.values(), (0..5_000).collect::<Vec<_>>());
        assert_eq!(pubsub.unsubscribe_all(&probe), 1_000);
        assert_eq!(pubsub.topics().len(), 0);
    });
}

#[test]
fn a_stream_serves_an_http_handler_that_is_no_actor() {
    actix_web::rt::System::new().block_on(async {
        let pubsub = PubSub::new();
        let mut next = pubsub.stream::<Note>("t").unwrap();
        let published = pubsub.clone();
        actix::spawn(async move { published.broadcast("t", Note(4)).map(drop).unwrap() });
        let event = actix::clock::timeout(Duration::from_secs(30), next.next()).await.unwrap().unwrap();
        assert_eq!(event.0, 4);
    });
}
