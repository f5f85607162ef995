//! Engine: the three engines, their servers where they have one, and who is measured on them. Knows no measurement.

use std::net::Ipv4Addr;
use std::net::TcpListener;

use crate::process;
use crate::servers::Server;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Redis,
    Nats,
    Zenoh,
    /// By which the nodes tell each other what they listen to.
    RedisPeers,
    NatsPeers,
}

impl Engine {
    pub(crate) const ALL: [Self; 3] = [Self::Redis, Self::Nats, Self::Zenoh];
    pub(crate) const PEERS: [Self; 2] = [Self::RedisPeers, Self::NatsPeers];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::Zenoh => "zenoh",
            Self::RedisPeers => "redis-peer_interest",
            Self::NatsPeers => "nats-peer_interest",
        }
    }

    pub(crate) fn of(name: &str) -> Self {
        Self::ALL.into_iter().chain(Self::PEERS).find(|engine| engine.name() == name).expect("an engine")
    }

    /// Whose client is used.
    pub(crate) fn client(self) -> Self {
        match self {
            Self::Redis | Self::RedisPeers => Self::Redis,
            Self::Nats | Self::NatsPeers => Self::Nats,
            Self::Zenoh => Self::Zenoh,
        }
    }
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Two nodes of a cluster.
    Ours(Engine),
    /// The engine's own client.
    Bare(Engine),
    /// Neither: length-prefixed messages on one TCP connection.
    Tcp,
    /// Two nodes of the Erlang distribution.
    Elixir,
}

impl Peer {
    pub(crate) const ALL: [Self; 10] = [
        Self::Tcp,
        Self::Bare(Engine::Redis),
        Self::Ours(Engine::Redis),
        Self::Ours(Engine::RedisPeers),
        Self::Bare(Engine::Nats),
        Self::Ours(Engine::Nats),
        Self::Ours(Engine::NatsPeers),
        Self::Bare(Engine::Zenoh),
        Self::Ours(Engine::Zenoh),
        Self::Elixir,
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Ours(engine) => format!("cluster on {}", engine.name()),
            Self::Bare(engine) => format!("bare {}", engine.name()),
            Self::Tcp => "bare TCP pair".to_owned(),
            Self::Elixir => "Elixir :pg + Registry".to_owned(),
        }
    }

    pub(crate) fn engine(self) -> Option<Engine> {
        match self {
            Self::Ours(engine) | Self::Bare(engine) => Some(engine),
            Self::Tcp | Self::Elixir => None,
        }
    }
}

/// The servers of those engines that have one.
pub(crate) struct Servers {
    redis: Server,
    nats: Server,
}

impl Servers {
    pub(crate) fn start() -> Self {
        Self { redis: Server::redis(), nats: Server::nats() }
    }

    /// Where the nodes meet; for zenoh a free port, on which the other process listens.
    pub(crate) fn place(&self, engine: Option<Engine>) -> String {
        match engine {
            Some(Engine::Redis | Engine::RedisPeers) => self.redis.url(),
            Some(Engine::Nats | Engine::NatsPeers) => self.nats.url(),
            Some(Engine::Zenoh) => format!("tcp/127.0.0.1:{}", free_port()),
            None => "-".to_owned(),
        }
    }

    pub(crate) fn of(&mut self, engine: Engine) -> Option<&mut Server> {
        match engine {
            Engine::Redis | Engine::RedisPeers => Some(&mut self.redis),
            Engine::Nats | Engine::NatsPeers => Some(&mut self.nats),
            Engine::Zenoh => None,
        }
    }

    /// The time that the server has computed, in ns.
    pub(crate) fn cpu(&self, engine: Option<Engine>) -> u64 {
        match engine {
            Some(Engine::Redis | Engine::RedisPeers) => process::server_cpu("redis-server", self.redis.port),
            Some(Engine::Nats | Engine::NatsPeers) => process::server_cpu("nats-server", self.nats.port),
            Some(Engine::Zenoh) | None => 0,
        }
    }
}

pub(crate) fn free_port() -> u16 {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    probe.local_addr().expect("an address").port()
}

/// The port in `redis://127.0.0.1:1` and `tcp/127.0.0.1:1`.
pub(crate) fn port(place: &str) -> u16 {
    place.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0)
}

/// What the topics are called.
pub(crate) fn topic(number: usize) -> String {
    format!("room:{number:06}")
}
