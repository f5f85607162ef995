//! Transports: every engine under the contract of a transport, on the real servers; directly, and through a proxy that harms.

use std::error::Error;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use actix_pubsub::Topic;
use actix_pubsub::cluster::ClusterName;
use actix_pubsub::cluster::Identity;
use actix_pubsub::cluster::Link;
use actix_pubsub::cluster::Outgoing;
use actix_pubsub::cluster::Subject;
use actix_pubsub::cluster::Transport;
use actix_pubsub::testing::transport::Arrivals;
use actix_pubsub::testing::transport::Engine;
use actix_pubsub::testing::transport::Fault;
use actix_pubsub::testing::transport::check;
use actix_pubsub::testing::transport::identity;
use actix_pubsub::testing::transport::inbound;

use crate::proxy::Proxy;
use crate::servers::Server;

/// A server, and how to reach it.
struct Real {
    server: Mutex<Server>,
    proxy: Option<Proxy>,
    speaks: Speaks,
}

/// What differs between the servers.
struct Speaks {
    scheme: &'static str,
    transport: fn(&str) -> Arc<dyn Transport>,
    separator: char,
    /// Publishes by hand, then asks something whose answer ends with `\r\n`.
    publish: fn(&str, &[u8]) -> Vec<u8>,
    /// The end of what the server says when it has done it.
    done: &'static [u8],
}

#[cfg(feature = "redis")]
const REDIS: Speaks = Speaks {
    scheme: "redis",
    transport: |url| Arc::new(actix_pubsub::cluster::Redis::new(url)),
    separator: ':',
    publish: |channel, bytes| {
        let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), bytes.len());
        [head.as_bytes(), bytes, b"\r\nPING\r\n"].concat()
    },
    done: b"+PONG\r\n",
};

#[cfg(feature = "nats")]
const NATS: Speaks = Speaks {
    scheme: "nats",
    transport: |url| Arc::new(actix_pubsub::cluster::Nats::new(url)),
    separator: '.',
    publish: |subject, bytes| {
        let head = format!("CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n", bytes.len());
        [head.as_bytes(), bytes, b"\r\nPING\r\n"].concat()
    },
    done: b"PONG\r\n",
};

impl Real {
    fn direct(server: Server, speaks: Speaks) -> Arc<Self> {
        Arc::new(Self { server: Mutex::new(server), proxy: None, speaks })
    }

    fn harmed(server: Server, speaks: Speaks) -> Arc<Self> {
        let proxy = Some(Proxy::start(server.port));
        Arc::new(Self { server: Mutex::new(server), proxy, speaks })
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Server> {
        self.server.lock().unwrap()
    }

    fn at(&self, port: u16) -> Arc<dyn Transport> {
        (self.speaks.transport)(&format!("{}://127.0.0.1:{port}", self.speaks.scheme))
    }
}

impl Engine for Real {
    fn transport(&self) -> Arc<dyn Transport> {
        self.at(self.proxy.as_ref().map_or_else(|| self.server().port, |proxy| proxy.addr.port()))
    }

    fn nowhere(&self) -> Option<Arc<dyn Transport>> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        Some(self.at(free))
    }

    fn faults(&self) -> &[Fault] {
        match self.proxy {
            Some(_) => &[Fault::Kill, Fault::Restart, Fault::Cut, Fault::BlackHole, Fault::Heal],
            None => &[Fault::Kill, Fault::Restart, Fault::BlackHole, Fault::Heal],
        }
    }

    fn inject(&self, fault: Fault) {
        match (fault, &self.proxy) {
            (Fault::Kill, _) => self.server().kill(),
            (Fault::Restart, _) => self.server().restart(),
            (Fault::Cut, Some(proxy)) => proxy.cut(),
            (Fault::BlackHole, Some(proxy)) => proxy.black_hole(),
            (Fault::Heal, Some(proxy)) => proxy.heal(),
            (Fault::BlackHole, None) => self.server().pause(),
            (Fault::Heal, None) => self.server().resume(),
            (other, _) => unreachable!("{other:?}"),
        }
    }

    fn stranger(&self, cluster: &ClusterName, subject: &Subject, bytes: &[u8]) -> bool {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server().port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&(self.speaks.publish)(&subject.name(cluster, self.speaks.separator), bytes)).unwrap();
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !said.ends_with(self.speaks.done) {
            stream.read_exact(&mut byte).unwrap();
            said.extend(byte);
        }
        true
    }
}

#[cfg(feature = "redis")]
#[actix::test]
async fn redis_keeps_the_contract_of_a_transport() {
    check(Real::direct(Server::redis(), REDIS)).await;
}

#[cfg(feature = "redis")]
#[actix::test]
async fn redis_keeps_the_contract_of_a_transport_where_nodes_tell_their_interest() {
    let transport = |url: &str| Arc::new(actix_pubsub::cluster::Redis::new(url).peer_interest()) as Arc<dyn Transport>;
    check(Real::direct(Server::redis(), Speaks { transport, ..REDIS })).await;
}

#[cfg(feature = "redis")]
#[actix::test]
async fn redis_keeps_the_contract_of_a_transport_over_a_network_that_fails() {
    check(Real::harmed(Server::redis(), REDIS)).await;
}

#[cfg(feature = "nats")]
#[actix::test]
async fn nats_keeps_the_contract_of_a_transport() {
    check(Real::direct(Server::nats(), NATS)).await;
}

#[cfg(feature = "nats")]
#[actix::test]
async fn nats_keeps_the_contract_of_a_transport_where_nodes_tell_their_interest() {
    let transport = |url: &str| Arc::new(actix_pubsub::cluster::Nats::new(url).peer_interest()) as Arc<dyn Transport>;
    check(Real::direct(Server::nats(), Speaks { transport, ..NATS })).await;
}

#[cfg(feature = "nats")]
#[actix::test]
async fn nats_keeps_the_contract_of_a_transport_over_a_network_that_fails() {
    check(Real::harmed(Server::nats(), NATS)).await;
}

// ---- what is an engine's own -----------------------------------------------------------------------------------------

fn shop() -> Identity {
    identity(&"shop".parse().unwrap())
}

/// Connects; else what was said, with its causes.
async fn connect(transport: impl Transport, identity: &Identity) -> Result<(Arc<dyn Link>, Arrivals), String> {
    transport.check().unwrap();
    let (inbound, arrivals) = inbound(100);
    let link = within(transport.connect(identity, inbound)).await.map_err(|error| told(&error))?;
    Ok((link, arrivals))
}

fn told(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    actix::clock::timeout(Duration::from_secs(20), work).await.expect("it does not wait for ever")
}

fn room() -> Subject {
    Subject::Topic(Topic::parse("room").unwrap())
}

/// A frame goes round.
async fn works(from: &Arc<dyn Link>, (link, arrivals): &mut (Arc<dyn Link>, Arrivals)) {
    within(link.subscribe(vec![room()])).await.unwrap();
    within(from.send(vec![Outgoing { subject: room(), frame: "hello".into() }])).await.unwrap();
    assert_eq!(within(arrivals.frame()).await, "hello");
    within(link.unsubscribe(vec![room()])).await.unwrap();
}

/// What a user is told to allow is enough, and what is not allowed is said.
#[cfg(feature = "redis")]
#[actix::test]
async fn redis_needs_no_more_rights_than_it_says() {
    use actix_pubsub::cluster::Redis;
    let server = Server::redis();
    let cli = |args: &[&str]| {
        let port = server.port.to_string();
        let answer = std::process::Command::new("redis-cli").args(["-p", &port]).args(args).output().unwrap();
        String::from_utf8(answer.stdout).unwrap()
    };
    let rights = ["+publish", "+subscribe", "+unsubscribe", "+ping", "+hello", "+client", "+quit", "&actix-pubsub:shop:*"];
    let made = cli(&[&["ACL", "SETUSER", "shop", "on", ">secret"], &rights[..]].concat());
    assert_eq!(made, "OK\n");
    let url = |password: &str| Redis::new(&format!("redis://shop:{password}@127.0.0.1:{}", server.port)).client_name("shop-1");
    let (from, _arrivals) = connect(url("secret"), &shop()).await.unwrap();
    let mut to = connect(url("secret"), &shop()).await.unwrap();
    works(&from, &mut to).await;
    assert_eq!(cli(&["CLIENT", "LIST"]).matches("name=shop-1 ").count(), 4);
    let Err(refused) = connect(url("wrong"), &shop()).await else { panic!("anybody may") };
    assert!(refused.contains("127.0.0.1") && refused.contains("WRONGPASS") && !refused.contains("wrong@"), "{refused}");
    // Another cluster's channels are not among its rights: neither to listen there nor to speak.
    let others = identity(&"others".parse().unwrap());
    let (link, _arrivals) = connect(url("secret"), &others).await.unwrap();
    assert!(within(link.subscribe(vec![room()])).await.is_err_and(|error| told(&error).contains("NoPerm")));
    let (link, _arrivals) = connect(url("secret"), &others).await.unwrap();
    // It takes the frame; the answer ends the link.
    let _ = within(link.send(vec![Outgoing { subject: room(), frame: "hello".into() }])).await;
    assert!(told(&within(link.ended()).await).contains("NoPerm"));
    within(from.close()).await;
}

#[cfg(feature = "nats")]
#[actix::test]
async fn nats_says_both_sizes_when_frames_do_not_fit() {
    let server = Server::nats();
    let mut large = shop();
    large.frame_bytes_max = 1_048_577;
    let Err(refused) = connect(actix_pubsub::cluster::Nats::new(&server.url()), &large).await else { panic!("it fits") };
    assert!(refused.contains("up to 1048577 bytes") && refused.contains("max_payload is 1048576"), "{refused}");
    large.frame_bytes_max = 1_048_576;
    let mut to = connect(actix_pubsub::cluster::Nats::new(&server.url()), &large).await.unwrap();
    let (from, _arrivals) = connect(actix_pubsub::cluster::Nats::new(&server.url()), &large).await.unwrap();
    works(&from, &mut to).await;
}

#[cfg(feature = "nats")]
#[actix::test]
async fn nats_needs_no_more_rights_than_it_says() {
    use actix_pubsub::cluster::Nats;
    let rights = r#"{ publish: "actix-pubsub.shop.>", subscribe: "actix-pubsub.shop.>" }"#;
    let server =
        Server::nats_with(&format!("authorization {{ users: [{{ user: shop, password: secret, permissions: {rights} }}] }}"));
    // One of two addresses is enough; the other is nobody's.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let nats = || Nats::new(&format!("nats://127.0.0.1:{free},{}", server.url()));
    let allowed = || nats().user_and_password("shop", "secret").client_name("shop-1");
    let (from, _arrivals) = connect(allowed(), &shop()).await.unwrap();
    let mut to = connect(allowed(), &shop()).await.unwrap();
    works(&from, &mut to).await;
    let in_url = Nats::new(&format!("nats://shop:secret@127.0.0.1:{}", server.port));
    works(&from, &mut connect(in_url, &shop()).await.unwrap()).await;
    let Err(refused) = connect(nats().user_and_password("shop", "wrong"), &shop()).await else { panic!("anybody may") };
    assert!(refused.contains("authorization violation") && !refused.contains("wrong"), "{refused}");
    let others = identity(&"others".parse().unwrap());
    let (link, _arrivals) = connect(allowed(), &others).await.unwrap();
    assert!(within(link.subscribe(vec![room()])).await.is_err());
    assert!(told(&within(link.ended()).await).to_lowercase().contains("permissions violation"));
    let (link, _arrivals) = connect(allowed(), &others).await.unwrap();
    let _ = within(link.send(vec![Outgoing { subject: room(), frame: "hello".into() }])).await;
    assert!(told(&within(link.ended()).await).to_lowercase().contains("permissions violation"));
}

#[cfg(feature = "nats")]
#[actix::test]
async fn nats_takes_a_token() {
    use actix_pubsub::cluster::Nats;
    let server = Server::nats_with("authorization { token: \"secret\" }");
    let (from, _arrivals) = connect(Nats::new(&server.url()).token("secret"), &shop()).await.unwrap();
    works(&from, &mut connect(Nats::new(&server.url()).token("secret"), &shop()).await.unwrap()).await;
    assert!(connect(Nats::new(&server.url()).token("wrong"), &shop()).await.is_err());
    let missing = connect(Nats::new(&server.url()).credentials_file("/nowhere/shop.creds"), &shop()).await;
    let Err(missing) = missing else { panic!("there is no such file") };
    assert!(missing.contains("/nowhere/shop.creds"), "{missing}");
}
