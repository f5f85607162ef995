//! Zenoh: a cluster of peers without a server. Holds the settings; knows no frames and no members.
//!
//! ```text
//!  Zenoh ── connect ──> thread "pubsub-zenoh" ── opens and owns ──> Session ──TCP──> every peer
//!             Link ──── commands, 8 at most ───> declares, closes      │ └─ callbacks ──> Inbound::push
//!               └────── send ────────────────────────────────────────> puts
//! ```
//!
//! # Guarantees
//! * Of zenoh nothing but puts is called on the caller's thread: the rest refuses to work inside a current-thread runtime, which every actix arbiter is.
//! * A peer that does not read costs the others 10 ms, once: what it does not take is dropped, and the relay sees the gap by its numbers. That is the relay's
//!   thread; what arrives meanwhile waits for it, and publishers do not.
//! * A seed is dialled for ever, so that peers find each other again after a restart and after a split.
//! * What stays when the link is dropped are zenoh's runtimes: six threads for each process, however many links there were.
//! * What it cannot: zenoh 1.10 closes the connection to a peer that has vanished with data on its way on a thread by which it reads, and that takes 10 s
//!   (its issue 2350: `SO_LINGER`). Of those threads there are two, so healthy peers are not heard meanwhile and may be lost, too. What helps is more threads.
//! * What it cannot: two nodes that found each other by gossip and lose only the connection between them do not dial again while both still hold a seed:
//!   zenoh 1.10 dials what gossip says when it is said, and a session takes no seed after it was opened. Nodes that are seeds of each other do, and those
//!   that look for each other by multicast, which zenoh goes on with every 8 s.
mod config;
mod endpoint;
mod link;

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cluster::transport::Identity;
use crate::cluster::transport::Inbound;
use crate::cluster::transport::Link;
use crate::cluster::transport::Transport;
use crate::cluster::transport::TransportCaps;
use crate::cluster::transport::TransportError;
use crate::cluster::transport::Work;
use crate::cluster::zenoh::endpoint::Endpoint;
use crate::cluster::zenoh::endpoint::EndpointError;
use crate::sync::Mutex;
use crate::sync::lock;

/// A cluster without a server: each node listens, dials the seeds that it was given and learns of all others from them (feature `zenoh`).
///
/// ```
/// use actix_pubsub::cluster::Transport;
/// use actix_pubsub::cluster::Zenoh;
///
/// let zenoh = Zenoh::new().listen("tcp/10.0.0.7:7447").peer("tcp/10.0.0.1:7447").peer("tcp/10.0.0.2:7447");
/// assert!(zenoh.check().is_ok());
///
/// // A seed on another machine could not be answered on the loopback, where a node listens that was not told where to.
/// assert!(Zenoh::new().peer("tcp/10.0.0.1:7447").check().is_err());
/// ```
///
/// # Who may join
/// Whoever reaches the port, unless [`credentials`](Self::credentials) or TLS say otherwise: therefore it listens on the loopback by default. A password
/// keeps strangers out but encrypts nothing.
///
/// # Who finds whom
/// Every node dials its seeds for ever, and gossip tells it of the nodes that those know. Give all nodes the same two or three seeds; a node's own
/// address among them does no harm. Two nodes talk only if one can reach the other: nobody passes frames on. Two nodes that are no seeds and lose only the
/// connection between them do not dial each other again while both hold a seed; seeds of each other do, and nodes with [`multicast`](Self::multicast).
///
/// # When a machine or a link vanishes
/// Zenoh 1.10 reads by two threads, and holds up one of them for 10 s for each connection to a peer that vanished without a word: a machine without power, a
/// cable that was pulled. Healthy nodes may lose each other meanwhile, and for longer. Give it as many threads as nodes may vanish at once, and some to spare, in the
/// environment of the process, where zenoh looks for it: `ZENOH_RUNTIME='(rx: (worker_threads: 8))'`. Processes that end, killed or not, do no such harm.
///
/// A clone shares what [`bound`](Self::bound) tells.
#[derive(Clone, Default)]
pub struct Zenoh {
    listen: Vec<String>,
    peers: Vec<String>,
    multicast: bool,
    credentials: Option<Credentials>,
    #[cfg(feature = "zenoh-tls")]
    tls: Option<TlsFiles>,
    bound: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Credentials {
    user: String,
    password: String,
    users: PathBuf,
}

#[cfg(feature = "zenoh-tls")]
#[derive(Debug, Clone)]
struct TlsFiles {
    root: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Zenoh {
    /// A node that listens on a free port of the loopback and knows no other.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens there instead: `tcp/10.0.0.7:7447`, `tcp/[::]:7447` for every address of the machine, port 0 for any that is free. May be called again
    /// for another one. What the others dial is this address, so it must be one that they reach.
    pub fn listen(mut self, endpoint: impl Into<String>) -> Self {
        self.listen.push(endpoint.into());
        self
    }

    /// A seed: dialled until it answers, and again when it was lost. May be called again for another one.
    pub fn peer(mut self, endpoint: impl Into<String>) -> Self {
        self.peers.push(endpoint.into());
        self
    }

    /// Whether to look for peers by UDP multicast to 224.0.0.224:7446, too. Off by default: it would join whatever runs zenoh in the same network.
    /// It goes on while the link is up, so nodes that lost only the connection between them meet again within some 10 s.
    pub fn multicast(mut self, multicast: bool) -> Self {
        self.multicast = multicast;
        self
    }

    /// The name and password of this node, and a file of those that it lets in: lines of `user:password`. Read at each connect.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>, users: impl AsRef<Path>) -> Self {
        self.credentials = Some(Credentials { user: user.into(), password: password.into(), users: users.as_ref().into() });
        self
    }

    /// PEM files: the authority that signed every node, and this node's certificate and key, for endpoints `tls/host:port`. Both sides of a connection
    /// show their certificate (feature `zenoh-tls`). Why a seed cannot be reached zenoh says by `tracing`, with the target `zenoh::net::runtime::orchestrator` and the level debug.
    #[cfg(feature = "zenoh-tls")]
    pub fn tls(mut self, root: impl AsRef<Path>, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        let tls = TlsFiles { root: root.as_ref().into(), certificate: certificate.as_ref().into(), key: key.as_ref().into() };
        self.tls = Some(tls);
        self
    }

    /// Where the last link listens, with the port that was found where 0 was asked for. Empty before the first.
    pub fn bound(&self) -> Vec<String> {
        lock(&self.bound).clone()
    }

    fn endpoints(&self) -> Result<(Vec<Endpoint>, Vec<Endpoint>), EndpointError> {
        let listen = if self.listen.is_empty() {
            vec![Endpoint::parse(LISTEN)?]
        } else {
            self.listen.iter().map(|text| Endpoint::parse(text)).collect::<Result<_, _>>()?
        };
        let peers = self.peers.iter().map(|text| Endpoint::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if let Some(peer) = peers.iter().find(|peer| peer.port == 0) {
            return Err(EndpointError::new(&peer.text, "has port 0, which cannot be dialled"));
        }
        if self.listen.is_empty() {
            if let Some(far) = peers.iter().find(|peer| !peer.is_loopback()) {
                return Err(EndpointError::new(
                    &far.text,
                    "may be on another machine: say where to listen, the default is the loopback",
                ));
            }
            if self.multicast {
                return Err(EndpointError::new(
                    LISTEN,
                    "is not found by multicast: say where to listen, the default is the loopback",
                ));
            }
        }
        Ok((listen, peers))
    }
}

impl Transport for Zenoh {
    fn check(&self) -> Result<(), TransportError> {
        self.endpoints().map(drop).map_err(|error| TransportError::new("reading the settings of zenoh", error))
    }

    fn caps(&self) -> TransportCaps {
        TransportCaps::new("zenoh").peer_interest().silent_loss()
    }

    fn connect(&self, identity: &Identity, inbound: Inbound) -> Work<Result<Arc<dyn Link>, TransportError>> {
        let (settings, identity) = (self.clone(), identity.clone());
        Box::pin(async move {
            settings.check()?;
            let link: Arc<dyn Link> = Arc::new(link::connect(settings, identity, inbound).await?);
            Ok(link)
        })
    }
}

impl fmt::Debug for Zenoh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.credentials.as_ref().map(|credentials| &credentials.user);
        let mut debug = f.debug_struct("Zenoh");
        debug.field("listen", &self.listen).field("peers", &self.peers).field("multicast", &self.multicast).field("user", &user);
        debug.finish_non_exhaustive()
    }
}

/// Reached by nobody from outside, because nothing keeps strangers out by default.
const LISTEN: &str = "tcp/127.0.0.1:0";

/// Any bytes as an endpoint, for `testing::decoders`.
#[cfg(feature = "testing")]
pub(crate) fn decode(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(endpoint::Endpoint::parse(text));
    }
}
