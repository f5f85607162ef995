//! Transports: every engine under the contract of a transport, on the real servers; directly, and through a proxy that harms.

use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use actix_pubsub::cluster::ClusterName;
use actix_pubsub::cluster::Subject;
use actix_pubsub::cluster::Transport;
use actix_pubsub::testing::transport::Engine;
use actix_pubsub::testing::transport::Fault;
use actix_pubsub::testing::transport::check;

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
async fn nats_keeps_the_contract_of_a_transport_over_a_network_that_fails() {
    check(Real::harmed(Server::nats(), NATS)).await;
}
