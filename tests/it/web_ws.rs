//! WebSocket: what a client of an endpoint is promised, over a real socket and the client of actix.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use actix_codec::Framed;
use actix_http::ws::Item;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::cluster::Memory;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::web::Authorize;
use actix_pubsub::web::Decision;
use actix_pubsub::web::Edge;
use actix_pubsub::web::Identity;
use actix_pubsub::web::Limits;
use actix_pubsub::web::Refusal;
use actix_pubsub::web::SessionEvent;
use actix_pubsub::web::WebSocket;
use actix_pubsub::web::bearer_token;
use actix_web::App;
use actix_web::HttpRequest;
use awc::BoxedSocket;
use awc::ws::Codec;
use awc::ws::Frame;
use awc::ws::Message;
use bytes::Bytes;
use futures::SinkExt;
use futures::StreamExt;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

#[derive(Debug, Serialize, Deserialize)]
struct Said {
    text: String,
}

impl Payload for Said {
    const NAME: &'static str = "said";
}

#[derive(Debug, Serialize, Deserialize)]
struct Typing(String);

impl Payload for Typing {
    const NAME: &'static str = "typing";
}

fn said(text: &str) -> Said {
    Said { text: text.into() }
}

/// Serves `/ws` on a thread of its own, until the test ends.
fn serve(pubsub: &PubSub, socket: &WebSocket) -> SocketAddr {
    let (pubsub, socket) = (pubsub.clone(), socket.clone());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let edge = Edge::of(&pubsub);
            let server = actix_web::HttpServer::new(move || App::new().route("/ws", socket.route()));
            let server = server.workers(1).on_connect(edge.on_connect()).disable_signals().bind(("127.0.0.1", 0)).unwrap();
            tell.send(server.addrs()[0]).unwrap();
            server.run().await.unwrap();
        });
    });
    told.recv().unwrap()
}

struct Client {
    framed: Framed<BoxedSocket, Codec>,
}

impl Client {
    async fn connect(addr: SocketAddr, token: &str) -> Self {
        let (_, framed) = request(addr, token).connect().await.unwrap();
        let mut client = Self { framed };
        assert_eq!(client.json().await["type"], "welcome");
        client
    }

    async fn send(&mut self, message: Message) {
        self.framed.send(message).await.unwrap();
    }

    async fn say(&mut self, said: &Value) {
        self.send(Message::Text(said.to_string().into())).await;
    }

    async fn frame(&mut self) -> Frame {
        let next = actix_web::rt::time::timeout(Duration::from_secs(20), self.framed.next()).await;
        next.expect("a frame in time").expect("a frame before the end").unwrap()
    }

    async fn json(&mut self) -> Value {
        loop {
            match self.frame().await {
                Frame::Text(text) => return serde_json::from_slice(&text).unwrap(),
                Frame::Ping(bytes) => self.send(Message::Pong(bytes)).await,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks and awaits the answer.
    async fn ask(&mut self, said: &Value) -> Value {
        self.say(said).await;
        self.json().await
    }

    async fn subscribe(&mut self, topic: &str) -> Value {
        let answer = self.ask(&json!({"type":"subscribe","ref":1,"topic":topic})).await;
        assert_eq!((&answer["type"], &answer["topic"]), (&json!("ok"), &json!(topic)), "{answer}");
        answer
    }

    /// The close code, after whatever else comes.
    async fn closed(&mut self) -> u16 {
        loop {
            if let Frame::Close(reason) = self.frame().await {
                return reason.map_or(0, |reason| reason.code.into());
            }
        }
    }
}

fn request(addr: SocketAddr, token: &str) -> awc::ws::WebsocketsRequest {
    let request = awc::Client::builder().disable_timeout().finish().ws(format!("http://{addr}/ws"));
    if token.is_empty() { request } else { request.header("authorization", format!("Bearer {token}")) }
}

fn is_status(error: &awc::error::WsClientError, status: u16) -> bool {
    matches!(error, awc::error::WsClientError::InvalidResponseStatus(found) if found.as_u16() == status)
}

fn check<F: Future<Output = ()>>(socket: impl FnOnce(&PubSub) -> WebSocket, test: impl FnOnce(PubSub, SocketAddr) -> F) {
    check_with(&PubSub::builder().log(MemoryStore::new()).build().unwrap(), socket, test);
}

fn check_with<F: Future<Output = ()>>(
    pubsub: &PubSub,
    socket: impl FnOnce(&PubSub) -> WebSocket,
    test: impl FnOnce(PubSub, SocketAddr) -> F,
) {
    let addr = serve(pubsub, &socket(pubsub));
    actix_web::rt::System::new().block_on(test(pubsub.clone(), addr));
}

fn plain(pubsub: &PubSub) -> WebSocket {
    WebSocket::new(pubsub).message::<Said>().publish::<Said>().message::<Typing>()
}

fn durable(pubsub: &PubSub) -> WebSocket {
    WebSocket::new(pubsub).message::<Said>().publish::<Said>().ephemeral::<Typing>().publish::<Typing>().durable()
}

#[test]
fn clients_hear_each_other_and_what_handlers_broadcast() {
    check(plain, async |pubsub, addr| {
        let (mut ann, mut ben) = (Client::connect(addr, "").await, Client::connect(addr, "").await);
        ann.subscribe("a").await;
        ben.subscribe("a").await;
        let publish = json!({"type":"publish","ref":7,"topic":"a","event":"said","data":{"text":"hello"}});
        ann.say(&publish).await;
        let event = json!({"type":"event","topic":"a","event":"said","data":{"text":"hello"}});
        assert_eq!(ben.json().await, event);
        let got = [ann.json().await, ann.json().await];
        assert!(got.contains(&event) && got.contains(&json!({"type":"ok","ref":7})), "{got:?}");
        // Not to myself.
        let mut quiet = publish.clone();
        quiet["echo"] = json!(false);
        assert_eq!(ann.ask(&quiet).await["type"], "ok");
        assert_eq!(ben.json().await, event);
        pubsub.broadcast("a", Typing("Cat".into())).unwrap();
        let typing = json!({"type":"event","topic":"a","event":"typing","data":"Cat"});
        assert_eq!((ann.json().await, ben.json().await), (typing.clone(), typing));
        assert_eq!(ann.ask(&json!({"type":"unsubscribe","ref":8,"topic":"a"})).await["type"], "ok");
        assert_eq!(pubsub.subscribers("a"), 2, "two types of one client");
        drop(ben);
        while pubsub.subscribers("a") > 0 {
            actix_web::rt::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_durable_topic_is_replayed_from_the_last_id_and_goes_on_live() {
    check(durable, async |pubsub, addr| {
        let mut ids = Vec::new();
        for n in 0..600 {
            ids.push(pubsub.append("a", &said(&n.to_string())).await.unwrap().to_string());
        }
        let mut client = Client::connect(addr, "").await;
        let answer = client.ask(&json!({"type":"subscribe","ref":1,"topic":"a","last_id":ids[9]})).await;
        assert_eq!(answer, json!({"type":"ok","ref":1,"topic":"a","cursor":ids[9]}));
        for (n, id) in ids.iter().enumerate().skip(10) {
            let event = client.json().await;
            assert_eq!((&event["id"], &event["data"]["text"]), (&json!(id), &json!(n.to_string())));
        }
        assert_eq!(client.json().await, json!({"type":"live","topic":"a"}));
        let key = json!({"type":"publish","ref":2,"topic":"a","event":"said","data":{"text":"new"},"key":"k1"});
        client.say(&key).await;
        let got = [client.json().await, client.json().await];
        let ok = got.iter().find(|got| got["type"] == "ok").unwrap();
        let event = got.iter().find(|got| got["type"] == "event").unwrap();
        assert_eq!((&ok["ref"], &ok["id"]), (&json!(2), &event["id"]));
        // Published again under its key, it is there once.
        assert_eq!(client.ask(&key).await["id"], ok["id"]);
        pubsub.broadcast("a", Typing("Cat".into())).unwrap();
        assert_eq!(client.json().await["event"], "typing");
        let answer = client.ask(&json!({"type":"publish","ref":3,"topic":"a","event":"typing","data":"Dog","key":"x"})).await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("not_durable")));
    });
}

#[test]
fn a_subscription_from_now_answers_the_position_to_come_back_with() {
    check(durable, async |pubsub, addr| {
        let last = pubsub.append("a", &said("old")).await.unwrap().to_string();
        let mut client = Client::connect(addr, "").await;
        assert_eq!(client.subscribe("a").await["cursor"], last);
        drop(client);
        pubsub.append("a", &said("missed")).await.unwrap();
        let mut client = Client::connect(addr, "").await;
        client.ask(&json!({"type":"subscribe","ref":1,"topic":"a","last_id":last})).await;
        assert_eq!(client.json().await["data"]["text"], "missed");
    });
}

#[test]
fn requests_that_are_none_are_refused_with_a_code_and_change_nothing() {
    check(plain, async |pubsub, addr| {
        let mut client = Client::connect(addr, "").await;
        let refusals = [
            (json!(1), "bad_request"),
            (json!(["ping", 1, null, null, null, null, null, null, null]), "bad_request"),
            (json!({"type":"dance","ref":1}), "bad_request"),
            (json!({"type":"subscribe","ref":1,"topic":"x".repeat(256)}), "topic"),
            (json!({"type":"subscribe","ref":1,"topic":"a","last_id":"0-0"}), "not_durable"),
            (json!({"type":"subscribe","ref":1,"topic":"a","last_id":"x"}), "last_id"),
            (json!({"type":"subscribe","ref":1,"topic":"$sessions"}), "denied"),
            (json!({"type":"unsubscribe","ref":1,"topic":"a"}), "not_subscribed"),
            (json!({"type":"publish","ref":1,"topic":"a","event":"typing","data":"x"}), "event"),
            (json!({"type":"publish","ref":1,"topic":"$identity/ann","event":"said","data":{"text":""}}), "denied"),
            (json!({"type":"publish","ref":1,"topic":"a","event":"said","data":{"no":1}}), "data"),
        ];
        for (said, code) in refusals {
            let answer = client.ask(&said).await;
            assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{said}: {answer}");
        }
        client.send(Message::Text("{".into())).await;
        assert_eq!(client.json().await["code"], "bad_json");
        client.send(Message::Binary(Bytes::from_static(b"x"))).await;
        assert_eq!(client.json().await["code"], "binary");
        assert_eq!(client.ask(&json!({"type":"ping","ref":9})).await, json!({"type":"pong","ref":9}));
        assert_eq!(pubsub.subscribers("a"), 0);
    });
}

#[test]
fn limits_are_kept_at_the_limit_and_one_past_it() {
    let pubsub = PubSub::new();
    let mut limits = Limits::default();
    (limits.topics, limits.publish_burst, limits.publish_per_second) = (3, 2, 1);
    Edge::builder().limits(limits).attach(&pubsub).unwrap();
    check_with(&pubsub, plain, async |_, addr| {
        let mut client = Client::connect(addr, "").await;
        for topic in ["a", "b", "c", "a"] {
            client.subscribe(topic).await;
        }
        let answer = client.ask(&json!({"type":"subscribe","ref":1,"topic":"d"})).await;
        assert_eq!((&answer["code"], &answer["limit"], &answer["value"]), (&json!("topics"), &json!(3), &json!(4)));
        let publish = json!({"type":"publish","ref":7,"topic":"x","event":"said","data":{"text":"hello"}});
        for _ in 0..2 {
            assert_eq!(client.ask(&publish).await["type"], "ok");
        }
        let answer = client.ask(&publish).await;
        assert_eq!((&answer["code"], &answer["limit"]), (&json!("rate"), &json!(1)));
        assert!(answer["retry_after_ms"].as_u64().unwrap() <= 1_000, "{answer}");
    });
}

#[test]
fn a_frame_or_message_over_the_limit_ends_the_connection() {
    check(plain, async |_, addr| {
        let mut client = Client::connect(addr, "").await;
        client.send(Message::Text("x".repeat(65_536).into())).await;
        assert_eq!(client.json().await["code"], "bad_json", "at the limit it is read");
        client.send(Message::Text("x".repeat(65_537).into())).await;
        let answer = client.json().await;
        assert_eq!((&answer["code"], &answer["limit"], &answer["value"]), (&json!("too_large"), &json!(65_536), &json!(65_537)));
        assert_eq!(client.json().await, json!({"type":"closing","code":1009,"reason":"too large","reconnect":false}));
        assert_eq!(client.closed().await, 1009);

        let mut client = Client::connect(addr, "").await;
        let part = || Bytes::from(vec![b'x'; 40_000]);
        client.send(Message::Continuation(Item::FirstText(part()))).await;
        client.send(Message::Continuation(Item::Last(part()))).await;
        assert_eq!(client.json().await["value"], 80_000);
        assert_eq!(client.closed().await, 1009);
    });
}

#[test]
fn a_flood_of_requests_ends_the_connection() {
    check(plain, async |_, addr| {
        let mut client = Client::connect(addr, "").await;
        for _ in 0..800 {
            if client.framed.send(Message::Text(r#"{"type":"ping"}"#.into())).await.is_err() {
                break;
            }
        }
        assert_eq!(client.closed().await, 4501);
    });
}

#[test]
fn text_that_is_none_ends_the_connection_with_its_own_code() {
    check(plain, async |_, addr| {
        let mut client = Client::connect(addr, "").await;
        client.send(Message::Continuation(Item::FirstText(Bytes::from_static(b"\xff")))).await;
        client.send(Message::Continuation(Item::Last(Bytes::new()))).await;
        assert_eq!(client.closed().await, 1007);
    });
}

#[test]
fn a_client_that_does_not_answer_pings_is_gone() {
    let pubsub = PubSub::new();
    let mut limits = Limits::default();
    (limits.ping_interval, limits.pong_timeout) = (Duration::from_millis(200), Duration::from_millis(100));
    Edge::builder().limits(limits).attach(&pubsub).unwrap();
    check_with(&pubsub, plain, async |_, addr| {
        let mut client = Client::connect(addr, "").await;
        for _ in 0..3 {
            let Frame::Ping(bytes) = client.frame().await else { panic!("no ping") };
            client.send(Message::Pong(bytes)).await;
        }
        assert_eq!(client.closed().await, 4000);
    });
}

#[test]
fn bytes_go_over_the_wire_as_bytes() {
    check(
        |pubsub| durable(pubsub).binary(true),
        async |pubsub, addr| {
            let mut client = Client::connect(addr, "").await;
            client.subscribe("a").await;
            assert_eq!(client.json().await["type"], "live");
            let message = [br#"{"type":"publish","ref":1,"topic":"a","event":"blob"}"#, &b"\n\0\xff\n"[..]].concat();
            client.send(Message::Binary(message.into())).await;
            let (mut ok, mut blob) = (None, None);
            while ok.is_none() || blob.is_none() {
                match client.frame().await {
                    Frame::Text(text) => ok = Some(serde_json::from_slice::<Value>(&text).unwrap()),
                    Frame::Binary(bytes) => blob = Some(bytes),
                    other => panic!("{other:?}"),
                }
            }
            let (ok, blob) = (ok.unwrap(), blob.unwrap());
            let end = blob.iter().position(|byte| *byte == b'\n').unwrap();
            let head: Value = serde_json::from_slice(&blob[..end]).unwrap();
            assert_eq!(head, json!({"type":"event","topic":"a","event":"blob","id":ok["id"]}));
            assert_eq!(&blob[end + 1..], b"\0\xff\n");
            assert_eq!(pubsub.head("a").await.unwrap().to_string(), ok["id"]);
        },
    );
}

/// Its identities are their tokens; rooms are named by those who may be there.
struct Rooms(Mutex<Vec<&'static str>>);

impl Authorize for Rooms {
    fn connect<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a, Identity> {
        Box::pin(async move {
            let token = bearer_token(request).ok_or_else(|| Refusal::unauthorized("a token is needed"))?;
            let identity = Identity::parse(&token)?;
            let soon = std::time::SystemTime::now() + Duration::from_millis(200);
            Ok(if &*token == "late" { identity.expires_at(soon) } else { identity })
        })
    }

    fn subscribe<'a>(&'a self, who: &'a Identity, topic: &'a Topic) -> Decision<'a, ()> {
        let banned = self.0.lock().unwrap().contains(&who.name().unwrap());
        let may = topic.as_str().contains(who.name().unwrap()) && !banned;
        Box::pin(async move { if may { Ok(()) } else { Err(Refusal::denied("not your room")) } })
    }
}

#[test]
fn what_is_not_allowed_is_denied_also_for_replays_and_publishing() {
    let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
    Edge::builder().authorize(Rooms(Mutex::default())).attach(&pubsub).unwrap();
    check_with(&pubsub, durable, async |pubsub, addr| {
        assert!(request(addr, "").connect().await.is_err_and(|error| is_status(&error, 401)));
        pubsub.append("ann", &said("secret")).await.unwrap();
        let mut eve = Client::connect(addr, "eve").await;
        for position in [json!(null), json!("0-0")] {
            let answer = eve.ask(&json!({"type":"subscribe","ref":1,"topic":"ann","last_id":position})).await;
            assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("denied")), "{answer}");
        }
        eve.subscribe("eve").await;
        assert_eq!(eve.json().await["type"], "live");
        // Publishing is not overridden: nobody may.
        let answer = eve.ask(&json!({"type":"publish","ref":1,"topic":"eve","event":"said","data":{"text":"x"}})).await;
        assert_eq!((&answer["code"], pubsub.head("eve").await.unwrap().ms()), (&json!("denied"), 0));
    });
}

/// Who is banned from all rooms.
static BANNED: Mutex<Vec<&str>> = Mutex::new(Vec::new());
/// As `Rooms`, with a list that a test can change.
struct Shared;

impl Authorize for Shared {
    fn connect<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a, Identity> {
        Box::pin(async move { Rooms(Mutex::default()).connect(request).await })
    }

    fn subscribe<'a>(&'a self, who: &'a Identity, topic: &'a Topic) -> Decision<'a, ()> {
        let rooms = Rooms(Mutex::new(BANNED.lock().unwrap().clone()));
        Box::pin(async move { rooms.subscribe(who, topic).await })
    }
}

#[test]
fn who_is_disconnected_expired_or_not_allowed_any_more_is_cut_off() {
    let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
    Edge::builder().authorize(Shared).attach(&pubsub).unwrap();
    check_with(&pubsub, durable, async |pubsub, addr| {
        let mut ann = Client::connect(addr, "ann").await;
        let mut ben = Client::connect(addr, "ben").await;
        for (client, topic) in [(&mut ann, "ann+ben"), (&mut ben, "ann+ben")] {
            client.subscribe(topic).await;
            assert_eq!(client.json().await["type"], "live");
        }
        assert_eq!(Client::connect(addr, "late").await.closed().await, 4003);
        // Kicked out of the room, and still connected.
        BANNED.lock().unwrap().push("ben");
        pubsub.recheck("ben").unwrap();
        let told = ben.json().await;
        assert_eq!((&told["type"], &told["topic"], &told["code"]), (&json!("unsubscribed"), &json!("ann+ben"), &json!("denied")));
        pubsub.append("ann+ben", &said("he is gone")).await.unwrap();
        assert_eq!(ann.json().await["data"]["text"], "he is gone");
        assert_eq!(ben.ask(&json!({"type":"ping","ref":1})).await["type"], "pong");
        pubsub.disconnect("ann").unwrap();
        assert_eq!(ann.closed().await, 4500);
        assert_eq!(ben.ask(&json!({"type":"ping","ref":1})).await["type"], "pong");
    });
}

#[test]
fn another_node_of_the_cluster_reaches_and_disconnects_the_clients_of_this_one() {
    let network = Memory::new();
    let node = || PubSub::builder().cluster(network.clone()).build().unwrap();
    let (pubsub, elsewhere) = (node(), node());
    Edge::builder().authorize(Shared).attach(&pubsub).unwrap();
    // Made as every program of this cluster makes it: the types of an endpoint are known from then on.
    Edge::builder().attach(&elsewhere).unwrap();
    check_with(&pubsub, plain, async |pubsub, addr| {
        let (mut ann, mut eve) = (Client::connect(addr, "ann").await, Client::connect(addr, "eve").await);
        ann.subscribe("ann+ben").await;
        // The topic and the identities of both: a socket does not wait for the cluster, so the test does.
        crate::support::until("the cluster knows of the clients", || {
            let stats = pubsub.stats().cluster.unwrap();
            stats.topics == 3 && elsewhere.nodes().len() == 1
        })
        .await;
        elsewhere.broadcast("ann+ben", said("from afar")).unwrap();
        assert_eq!(ann.json().await["data"]["text"], "from afar");
        elsewhere.disconnect("ann").unwrap();
        assert_eq!(ann.closed().await, 4500);
        assert_eq!(eve.ask(&json!({"type":"ping","ref":1})).await["type"], "pong");
    });
}

#[test]
fn a_page_of_another_origin_is_refused() {
    check(plain, async |_, addr| {
        let foreign = request(addr, "").header("origin", "https://evil.example").connect().await;
        assert!(foreign.is_err_and(|error| is_status(&error, 403)));
        let own = request(addr, "").header("origin", format!("http://{addr}")).connect().await;
        assert!(own.is_ok());
    });
}

#[test]
fn a_drain_closes_connections_spread_over_its_window() {
    check(plain, async |pubsub, addr| {
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(Client::connect(addr, "").await);
        }
        let edge = Edge::of(&pubsub);
        let begun = Instant::now();
        let drained = actix_web::rt::spawn(async move { edge.drain(Duration::from_millis(500)).await });
        for client in &mut clients {
            let closing = client.json().await;
            assert_eq!(
                (&closing["type"], &closing["code"], &closing["reconnect"]),
                (&json!("closing"), &json!(1001), &json!(true))
            );
            assert_eq!(client.closed().await, 1001);
        }
        // Of 20 times by chance in half a second one is in its last four fifths.
        assert!(begun.elapsed() > Duration::from_millis(100), "all at once, after {:?}", begun.elapsed());
        drained.await.unwrap();
        assert_eq!(Edge::of(&pubsub).sessions(), 0);
        assert!(request(addr, "").connect().await.is_err_and(|error| is_status(&error, 503)));
    });
}

#[test]
fn who_observes_sees_each_topic_joined_and_left() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let socket = |pubsub: &PubSub| {
        plain(pubsub).observe(move |info, event| {
            let text = match event {
                SessionEvent::Subscribed(topic) => format!("+{topic}"),
                SessionEvent::Unsubscribed(topic) => format!("-{topic}"),
                _ => String::new(),
            };
            assert!(!info.id.is_empty());
            noted.lock().unwrap().push(text);
        })
    };
    check(socket, async |_, addr| {
        let mut client = Client::connect(addr, "").await;
        client.subscribe("a").await;
        client.subscribe("b").await;
        client.ask(&json!({"type":"unsubscribe","ref":8,"topic":"a"})).await;
        client.send(Message::Close(None)).await;
        client.closed().await;
        while seen.lock().unwrap().len() < 4 {
            actix_web::rt::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(*seen.lock().unwrap(), ["+a", "+b", "-a", "-b"]);
    });
}

#[test]
fn what_is_published_is_looked_at_last_by_the_endpoint() {
    let socket = |pubsub: &PubSub| {
        plain(pubsub).publish_with::<Said>(|info, topic, said| {
            if said.text.is_empty() {
                return Err(Refusal::denied("say something"));
            }
            Ok(Said { text: format!("{} to {topic}: {}", info.identity, said.text) })
        })
    };
    check(socket, async |_, addr| {
        let mut client = Client::connect(addr, "").await;
        client.subscribe("a").await;
        let publish = |text: &str| json!({"type":"publish","topic":"a","event":"said","data":{"text":text}});
        assert_eq!(client.ask(&publish("")).await["message"], "say something");
        assert_eq!(client.ask(&publish("hello")).await["data"]["text"], "anonymous to a: hello");
    });
}
