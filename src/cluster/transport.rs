//! Transport: what the relay asks of an engine, and what it gives it. Knows subjects and bytes, no messages and no members.
//!
//! ```text
//!  Transport ── connect ──> Link ──┬─ subscribe, unsubscribe   resolve when the engine confirmed
//!   settings                 one   ├─ send                     resolves when there is room for more
//!                         connection├─ ended                    resolves when it is no use any more
//!                                  └─> Inbound::push           every frame that arrives, from any thread
//! ```
//!
//! # What a transport promises
//! * What one node sends reaches another in the order in which it was sent, across subjects. It may be lost; the relay sees by its numbers what was, and what came twice.
//! * A frame goes to every node that is subscribed to its subject, and to nobody else. It may come back to its sender: the relay drops it.
//! * A link that does not work any more ends, by itself and within some [`Identity::failure_timeout`]: an engine that was killed,
//!   a connection that was cut, and one that is silent.
//! * It never reconnects by itself: the relay calls [`Transport::connect`] again, with a back-off.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;

use crate::cluster::queue::Queue;
use crate::cluster::subject::ClusterName;
use crate::cluster::subject::Subject;
use crate::ids::NodeId;
use crate::topic::Topic;

/// A boxed future of a [`Transport`] or a [`Link`].
pub type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An engine and the settings to reach it.
///
/// The relay calls it on a thread of its own, which runs a current-thread tokio runtime inside an actix system: an engine that needs another runtime
/// brings a thread of its own.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Looks whether the settings can be right, without the engine: an address that is none, say. Called by `Builder::build`.
    ///
    /// # Errors
    /// What is wrong, with the value.
    fn check(&self) -> Result<(), TransportError> {
        Ok(())
    }

    /// What this engine does and does not.
    fn caps(&self) -> TransportCaps;

    /// Makes a link. Called when the last one has ended, never twice at once; the future may be dropped at any time.
    ///
    /// # Errors
    /// Why there is none now. The relay tries again, whatever it is.
    fn connect(&self, identity: &Identity, inbound: Inbound) -> Work<Result<Arc<dyn Link>, TransportError>>;
}

/// One connection to an engine. Dropped when it has ended or is not wanted any more; it lets go of everything then.
///
/// At most one `send` is under way at a time, and at most one of `subscribe` and `unsubscribe`; a `send` and one of those may be. None of
/// these futures may wait for ever: the relay gives up a link whose future takes longer than the failure time-out.
pub trait Link: Send + Sync + 'static {
    /// Takes frames, in this order. Resolves when there is room for more, which does not mean that any has arrived.
    ///
    /// # Errors
    /// The link is no use any more; which of the frames went out is unknown.
    fn send(&self, frames: Vec<Outgoing>) -> Work<Result<(), TransportError>>;

    /// Asks for the frames of these subjects. With [`TransportCaps::confirms_interest`] it resolves when every frame that any node sends from now on arrives.
    /// Asking for what is asked for is no error.
    ///
    /// # Errors
    /// The link is no use any more.
    fn subscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>>;

    /// Asks no more for these. Frames that are on their way still arrive. Some may not have been asked for on this link: that is no error.
    ///
    /// # Errors
    /// The link is no use any more.
    fn unsubscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>>;

    /// Resolves when this link is no use any more, at once if that is so already.
    fn ended(&self) -> Work<TransportError>;

    /// Brings out what `send` has taken, then leaves the engine. Called at most once, as the last; the link is held until it resolves, or takes too long.
    fn close(&self) -> Work<()>;
}

/// What an engine does and does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportCaps {
    /// What it is called in logs and statistics: `redis`, `nats`, `zenoh`.
    pub engine: &'static str,
    /// [`Link::subscribe`] resolves only when every frame sent from then on arrives, so the engine carries topics. Else it is asked for
    /// [`Subject::All`] and for the own [`Subject::Node`] only: the relays tell each other who listens to what, and send to those nodes.
    pub confirms_interest: bool,
    /// Frames may vanish although the link is up on both sides, and nobody is told. The relay sends the number of the last frame after a quiet heartbeat. It
    /// always does where `confirms_interest` is not set, because a way from node to node may be lost without either's link.
    pub silent_loss: bool,
}

impl TransportCaps {
    /// An engine that confirms interest and loses nothing while its link is up.
    pub const fn new(engine: &'static str) -> Self {
        Self { engine, confirms_interest: true, silent_loss: false }
    }

    /// The engine carries no topics: the relays tell each other who listens.
    pub const fn peer_interest(mut self) -> Self {
        self.confirms_interest = false;
        self
    }

    /// Frames may vanish untold.
    pub const fn silent_loss(mut self) -> Self {
        self.silent_loss = true;
        self
    }
}

/// Who connects.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Identity {
    /// The cluster: part of every subject's name.
    pub cluster: ClusterName,
    /// The node: drawn anew in each process.
    pub node: NodeId,
    /// What people call the node.
    pub name: Arc<str>,
    /// The longest frame that will be sent, in bytes. An engine that takes less refuses to connect, with both numbers.
    pub frame_bytes_max: usize,
    /// How long a link may be silent before it has ended.
    pub failure_timeout: Duration,
}

impl Identity {
    /// Whether what was begun then takes longer than a link may be silent.
    pub(crate) fn is_overdue(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) > self.failure_timeout
    }
}

/// A frame on its way out.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where it goes.
    pub subject: Subject,
    /// What goes there.
    pub frame: Bytes,
}

/// Where a transport puts what arrives. A clone is a handle to the same; any thread may push.
#[derive(Clone)]
pub struct Inbound {
    queue: Arc<Queue<Arrived>>,
}

/// What a transport tells the relay.
#[derive(Debug)]
pub(crate) enum Arrived {
    Frame(Bytes),
    Gone(NodeId),
    /// The engine has confirmed these topics, on the link of that number: what is before it in the queue came before.
    Confirmed(u64, Vec<Topic>),
}

impl Inbound {
    pub(crate) fn new(queue: Arc<Queue<Arrived>>) -> Self {
        Self { queue }
    }

    /// Queues a frame as it came from the engine, whatever it is: the relay checks it. Never waits. `false`: the queue was full and the frame is
    /// dropped; that is counted, and the gap that it leaves is told as [`ClusterEvent::Lost`](crate::cluster::ClusterEvent::Lost).
    ///
    /// Frames of one origin are pushed in the order in which they were sent, by one thread at a time.
    pub fn push(&self, frame: Bytes) -> bool {
        let bytes = frame.len();
        self.queue.push(Arrived::Frame(frame), bytes).is_ok()
    }

    /// As [`push`](Self::push), for frames that arrived together.
    #[cfg(any(feature = "nats", feature = "redis", feature = "zenoh"))]
    pub(crate) fn push_all(&self, frames: impl Iterator<Item = Bytes>) {
        let items = frames.map(|frame| {
            let bytes = frame.len();
            (Arrived::Frame(frame), bytes)
        });
        // Counted there.
        let _ = self.queue.push_all(items);
    }

    /// The engine saw that a node has gone. It counts as if that node had said so itself, after the frames that were pushed before.
    pub fn gone(&self, node: NodeId) {
        // A full queue forgets it: then it is noticed by its silence.
        let _ = self.queue.push(Arrived::Gone(node), 0);
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("frames", &self.queue.len()).finish_non_exhaustive()
    }
}

/// Why a transport cannot do what it was asked for.
#[derive(Debug, Clone)]
pub struct TransportError {
    doing: &'static str,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl TransportError {
    /// `doing` what, and what came of it. `doing` is a clause such as "connecting to the server".
    pub fn new(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { doing, source: Some(Arc::from(source.into())) }
    }

    /// Where there is no more to say than this.
    pub fn because(reason: &'static str) -> Self {
        Self { doing: reason, source: None }
    }
}

impl PartialEq for TransportError {
    /// Whether both say the same.
    fn eq(&self, other: &Self) -> bool {
        let text = |error: &Self| error.source.as_ref().map(ToString::to_string);
        self.doing == other.doing && text(self) == text(other)
    }
}

impl Eq for TransportError {}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_some() { write!(f, "{} failed", self.doing) } else { f.write_str(self.doing) }
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
