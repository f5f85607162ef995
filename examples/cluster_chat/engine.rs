//! Engine: over what the nodes meet, `zenoh`, `redis://…` or `nats://…`. Knows no rooms.

use std::fmt;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::str::FromStr;
use std::sync::Arc;

use actix_pubsub::Builder;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::cluster::Identity;
use actix_pubsub::cluster::Inbound;
use actix_pubsub::cluster::Link;
use actix_pubsub::cluster::Nats;
use actix_pubsub::cluster::Redis;
use actix_pubsub::cluster::Transport;
use actix_pubsub::cluster::TransportCaps;
use actix_pubsub::cluster::TransportError;
use actix_pubsub::cluster::Work;
use actix_pubsub::cluster::Zenoh;

/// What `--cluster` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    Zenoh(Meeting),
    Redis(String),
    Nats(String),
}

impl Engine {
    /// Makes a node of the builder's pub/sub. Whether the server is there is not asked yet.
    pub(crate) fn join(self, builder: Builder, options: ClusterOptions) -> Builder {
        match self {
            Self::Zenoh(meeting) => builder.cluster_with(meeting, options),
            Self::Redis(url) => builder.cluster_with(Redis::new(&url), options),
            Self::Nats(url) => builder.cluster_with(Nats::new(&url), options),
        }
    }

    /// What a second process is given as its `--cluster`.
    pub(crate) fn argument(&self) -> String {
        match self {
            Self::Zenoh(Meeting { ports }) => {
                format!("zenoh:{}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","))
            }
            Self::Redis(url) | Self::Nats(url) => url.clone(),
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::Zenoh(Meeting { ports: MEETING_PORTS.into() })
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        match scheme {
            "zenoh" if text == scheme => Ok(Self::default()),
            "zenoh" => {
                let port = |port: &str| port.parse().ok().filter(|port| *port != 0);
                let ports: Option<Vec<u16>> = rest.split(',').map(port).collect();
                let ports = ports.ok_or_else(|| format!("{rest:?} is no list of ports, as in zenoh:7451,7452,7453"))?;
                Ok(Self::Zenoh(Meeting { ports }))
            }
            "redis" if rest.starts_with("//") => Ok(Self::Redis(text.to_owned())),
            "nats" | "tls" if rest.starts_with("//") => Ok(Self::Nats(text.to_owned())),
            _ => Err(format!("{text:?} is no cluster: zenoh, zenoh:PORT,…, redis://HOST:PORT or nats://HOST:PORT")),
        }
    }
}

/// Without the URL: it may hold a password.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zenoh(_) => "zenoh, without a server",
            Self::Redis(_) => "Redis",
            Self::Nats(_) => "NATS",
        })
    }
}

/// Peers of one machine that find each other in any order: each takes the first of these ports that is free, and dials all of them for ever. Where none is free
/// it listens somewhere else, and those that it dialled tell the others of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meeting {
    ports: Vec<u16>,
}

impl Meeting {
    fn zenoh(&self) -> Zenoh {
        let address = |port: &u16| format!("tcp/{}:{port}", Ipv4Addr::LOCALHOST);
        let free = self.ports.iter().find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, **port)).is_ok());
        self.ports.iter().map(address).fold(Zenoh::new().listen(address(free.unwrap_or(&0))), Zenoh::peer)
    }
}

impl Transport for Meeting {
    fn check(&self) -> Result<(), TransportError> {
        self.zenoh().check()
    }

    fn caps(&self) -> TransportCaps {
        Zenoh::new().caps()
    }

    fn connect(&self, identity: &Identity, inbound: Inbound) -> Work<Result<Arc<dyn Link>, TransportError>> {
        let (meeting, identity) = (self.clone(), identity.clone());
        Box::pin(async move {
            // Another process may take the port between our look and zenoh's listening: then there is another one to take.
            for _ in &meeting.ports {
                if let Ok(link) = meeting.zenoh().connect(&identity, inbound.clone()).await {
                    return Ok(link);
                }
            }
            meeting.zenoh().connect(&identity, inbound).await
        })
    }
}

/// Where nodes meet unless told otherwise: three, so that two nodes find each other although the first has gone.
const MEETING_PORTS: [u16; 3] = [7451, 7452, 7453];
