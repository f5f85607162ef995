//! Options of a cluster, and what is refused in them. Plain values; knows no engine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::core::Timing;
use crate::cluster::subject::ClusterName;
use crate::cluster::subject::ClusterNameError;
use crate::cluster::transport::TransportError;
use crate::codec;
use crate::codec::Codec;

/// How a node takes part in its cluster. The defaults are what most want.
///
/// ```
/// use std::time::Duration;
/// use actix_pubsub::cluster::ClusterOptions;
///
/// let options = ClusterOptions::new().name("shop").node_name("web-1").failure_timeout(Duration::from_secs(10));
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct ClusterOptions {
    name: Result<ClusterName, ClusterNameError>,
    node_name: Option<Arc<str>>,
    heartbeat: Duration,
    failure: Duration,
    linger: Duration,
    pub(crate) codec: Codec,
    pub(crate) overflow: LinkOverflow,
    pub(crate) queue_frames: usize,
    pub(crate) frame_bytes_max: usize,
}

/// What happens when more broadcasts wait for the engine than the queue takes.
///
/// Those that are not sent are counted, said in the [`Receipt`](crate::Receipt) where it is the broadcast's own, and told to the nodes that listen as
/// [`ClusterEvent::Lost`](crate::cluster::ClusterEvent::Lost).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkOverflow {
    /// The new one is not sent, and its receipt says so.
    #[default]
    Refuse,
    /// The oldest make room. Their receipts have said that they are queued.
    DropOldest,
}

impl ClusterOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            name: "default".parse(),
            node_name: None,
            heartbeat: Duration::from_secs(1),
            failure: Duration::from_secs(5),
            linger: Duration::from_secs(2),
            codec: Codec::default(),
            overflow: LinkOverflow::default(),
            queue_frames: Self::QUEUE_FRAMES_DEFAULT,
            frame_bytes_max: Self::FRAME_BYTES_DEFAULT,
        }
    }

    /// Broadcasts that may wait for the engine, unless told otherwise: what a burst may be.
    pub const QUEUE_FRAMES_DEFAULT: usize = 16_384;
    /// The longest queue that is accepted.
    pub const QUEUE_FRAMES_MAX: usize = 1_048_576;
    /// The longest frame, in bytes, unless told otherwise: what a NATS server takes unless told otherwise.
    pub const FRAME_BYTES_DEFAULT: usize = 1_048_576;
    /// The longest frame that is accepted, in bytes.
    pub const FRAME_BYTES_MAX: usize = 64 * 1_048_576;
    /// The shortest frame that must be possible, in bytes: what the relays tell each other.
    pub const FRAME_BYTES_MIN: usize = 65_536;

    /// Separates clusters on one engine: see [`ClusterName`]. `default` unless told otherwise. Checked by `build`.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.parse();
        self
    }

    /// What people call this node: in events, statistics and logs. The machine's name and the process id unless told otherwise.
    pub fn node_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.node_name = Some(name.into());
        self
    }

    /// How often this node says that it is here; 1 s unless told otherwise. 10 ms at least.
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// How long another node, or the engine, may be silent before it counts as gone; 5 s unless told otherwise. At least three heartbeats of the others.
    pub fn failure_timeout(mut self, silence: Duration) -> Self {
        self.failure = silence;
        self
    }

    /// How long a topic stays asked for after its last subscriber, so that one who comes back costs the engine nothing; 2 s unless told otherwise.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How messages are written.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// How many broadcasts may wait for the engine, 1 to [`QUEUE_FRAMES_MAX`](Self::QUEUE_FRAMES_MAX). They may take 64 MiB in any case.
    pub fn queue(mut self, frames: usize) -> Self {
        self.queue_frames = frames;
        self
    }

    /// What happens at one broadcast more.
    pub fn overflow(mut self, overflow: LinkOverflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// The longest frame in bytes, [`FRAME_BYTES_MIN`](Self::FRAME_BYTES_MIN) to [`FRAME_BYTES_MAX`](Self::FRAME_BYTES_MAX): a message as it is encoded, its topic,
    /// its name and some 40 bytes. The same on all nodes: what is longer is refused by who sends it and dropped by who gets it.
    pub fn frame_bytes_max(mut self, bytes: usize) -> Self {
        self.frame_bytes_max = bytes;
        self
    }

    pub(crate) fn check(&self) -> Result<ClusterName, ClusterError> {
        let name = self.name.clone().map_err(ClusterError::Name)?;
        if self.heartbeat < HEARTBEAT_MIN || self.failure < self.heartbeat * 3 {
            return Err(ClusterError::Timing { heartbeat: self.heartbeat, failure_timeout: self.failure });
        }
        if self.queue_frames == 0 || self.queue_frames > Self::QUEUE_FRAMES_MAX {
            return Err(ClusterError::Queue { frames: self.queue_frames, max: Self::QUEUE_FRAMES_MAX });
        }
        if !(Self::FRAME_BYTES_MIN..=Self::FRAME_BYTES_MAX).contains(&self.frame_bytes_max) {
            let (min, max) = (Self::FRAME_BYTES_MIN, Self::FRAME_BYTES_MAX);
            return Err(ClusterError::FrameBytes { bytes: self.frame_bytes_max, min, max });
        }
        let node_bytes = self.node_name.as_deref().unwrap_or_default().len();
        if node_bytes > NODE_NAME_BYTES_MAX {
            return Err(ClusterError::NodeName { bytes: node_bytes, max: NODE_NAME_BYTES_MAX });
        }
        let codec = self.codec.name();
        if codec.is_empty() || codec.len() > codec::NAME_BYTES_MAX || self.codec.hides_another() {
            return Err(ClusterError::CodecName { name: codec.chars().take(80).collect() });
        }
        Ok(name)
    }

    pub(crate) fn timing(&self) -> Timing {
        Timing { heartbeat: self.heartbeat, failure: self.failure, linger: self.linger }
    }

    pub(crate) fn node(&self) -> Arc<str> {
        self.node_name.clone().unwrap_or_else(|| {
            // What Linux calls this machine; elsewhere the process alone has to do.
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("{}-{}", host.trim(), std::process::id()).trim_start_matches('-').into()
        })
    }
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ClusterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterOptions")
            .field("name", &self.name)
            .field("node_name", &self.node_name)
            .field("heartbeat", &self.heartbeat)
            .field("failure_timeout", &self.failure)
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}

/// Why a pub/sub cannot be of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterError {
    /// The cluster's name.
    Name(ClusterNameError),
    /// The node's name is too long.
    NodeName {
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The heartbeat is shorter than 10 ms, or the failure time-out is shorter than three of them.
    Timing {
        /// The heartbeat asked for.
        heartbeat: Duration,
        /// The time-out asked for.
        failure_timeout: Duration,
    },
    /// The queue's length is not between 1 and the limit.
    Queue {
        /// The refused length, in frames.
        frames: usize,
        /// The limit, in frames.
        max: usize,
    },
    /// The longest frame is not between the limits.
    FrameBytes {
        /// The refused length in bytes.
        bytes: usize,
        /// The least, in bytes.
        min: usize,
        /// The most, in bytes.
        max: usize,
    },
    /// A codec of one's own has no name, one of more than 64 bytes, or that of another.
    CodecName {
        /// Its beginning.
        name: String,
    },
    /// The settings of the transport.
    Transport(TransportError),
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(source) => write!(f, "the cluster's name is refused: {source}"),
            Self::NodeName { bytes, max } => write!(f, "the node's name is {bytes} bytes, the limit is {max}"),
            Self::Timing { heartbeat, failure_timeout } => write!(
                f,
                "the heartbeat is {} ms and the failure time-out {} ms, it must be at least three heartbeats of at least 10 ms",
                heartbeat.as_millis(),
                failure_timeout.as_millis()
            ),
            Self::Queue { frames, max } => write!(f, "the cluster's queue is {frames} frames, it must be 1 to {max}"),
            Self::FrameBytes { bytes, min, max } => write!(f, "the longest frame is {bytes} bytes, it must be {min} to {max}"),
            Self::CodecName { name } => write!(f, "codec name {name:?} is empty, longer than 64 bytes, or that of another codec"),
            Self::Transport(source) => write!(f, "the transport's settings are refused: {source}"),
        }
    }
}

impl std::error::Error for ClusterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Name(source) => source.source(),
            Self::Transport(source) => source.source(),
            _ => None,
        }
    }
}

const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const NODE_NAME_BYTES_MAX: usize = 255;
