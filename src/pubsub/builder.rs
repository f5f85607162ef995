//! Builder: the settings of a pub/sub, and what is refused in them. Knows no subscribers.

use std::fmt;
use std::io;

use crate::cluster::ClusterError;
use crate::cluster::ClusterOptions;
use crate::cluster::Transport;
use crate::cluster::hub::Hub;
use crate::cluster::hub::HubError;
use crate::event::Payload;
use crate::feed::Feed;
use crate::feed::retention::Retention;
use crate::feed::retention::Retentions;
use crate::feed::types::NameTaken;
use crate::feed::types::Types;
use crate::local::shard::Shared;
use crate::log::Store;
use crate::pubsub::PubSub;
use crate::pubsub::sampling::Sampling;
use crate::sync::Arc;
use crate::topic::TopicError;

/// Settings of a [`PubSub`]; see [`PubSub::builder`].
#[derive(Clone)]
pub struct Builder {
    port_events: usize,
    trace_one_in: u32,
    trace_spans: u32,
    store: Option<Arc<dyn Store>>,
    cluster: Option<(Arc<dyn Transport>, ClusterOptions)>,
    types: Types,
    retention: Result<Retentions, BuildError>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            port_events: Self::PORT_CAPACITY_DEFAULT,
            trace_one_in: 1,
            trace_spans: Self::TRACE_LIMIT_DEFAULT,
            store: None,
            cluster: None,
            types: Types::default(),
            retention: Ok(Retentions::default()),
        }
    }

    /// Events that may wait in one arbiter's port, unless told otherwise: what a burst may be before it has to wait or lose.
    pub const PORT_CAPACITY_DEFAULT: usize = 16_384;
    /// Spans per second, unless told otherwise: a recorder takes about 1 µs for one, so they take a hundredth of a core.
    pub const TRACE_LIMIT_DEFAULT: u32 = 10_000;
    /// The largest port that is accepted: its queue takes about 50 MB.
    pub const PORT_CAPACITY_MAX: usize = 1_048_576;

    /// How many events may wait in one arbiter's port, 1 to [`PORT_CAPACITY_MAX`](Self::PORT_CAPACITY_MAX), checked by `build`.
    pub fn port_capacity(mut self, events: usize) -> Self {
        self.port_events = events;
        self
    }

    /// Of so many broadcasts one has a span, `pubsub.broadcast`. They are for `tracing`, at the level DEBUG; where nobody records that, a broadcast costs one comparison more, and a
    /// delivery one branch. 1, unless told otherwise; 0: none has. A broadcast that has one costs a span for each arbiter and for each handler,
    /// and a recorded span costs several deliveries: [`trace_limit`](Self::trace_limit) bounds that.
    ///
    /// ```text
    /// pubsub.broadcast                 topic
    /// ├─ pubsub.deliver                topic, arbiter, subscribers      one for each arbiter that has some
    /// │  └─ pubsub.handle              topic, actor, missed             around each handler of an actor's own context
    /// └─ pubsub.receive                topic, origin                    on another node, by the feature `opentelemetry`
    ///    └─ pubsub.deliver             topic, arbiter, subscribers
    ///       └─ pubsub.handle           topic, actor, missed
    /// ```
    ///
    /// A span ends when the last subscriber within it has taken the event or lost it. What a node receives has spans whenever its publisher's broadcast had one: `pubsub.receive` at the level INFO.
    pub fn trace_sampling(mut self, one_in: u32) -> Self {
        self.trace_one_in = one_in;
        self
    }

    /// How many spans may begin in a second, about: a broadcast that comes when those of the last ones are more than a second's worth has none. It has
    /// all of its own or none, so a broadcast to more handlers than that has them, and those after it have none until the time for them has passed.
    /// A second's worth may come at once. [`TRACE_LIMIT_DEFAULT`](Self::TRACE_LIMIT_DEFAULT), unless told otherwise; 0: none has; [`u32::MAX`] is as good as no limit.
    ///
    /// A node that is sent more traces than that leaves out its part of some. `cargo bench --bench insight -- --only traced` measures what they cost.
    pub fn trace_limit(mut self, spans_per_second: u32) -> Self {
        self.trace_spans = spans_per_second;
        self
    }

    /// Gives the pub/sub a durable log, kept by `store`: see [`PubSub::append`], [`PubSub::subscribe_from`], [`PubSub::consume`].
    pub fn log(self, store: impl Store) -> Self {
        self.log_shared(Arc::new(store))
    }

    /// As [`log`](Self::log), with a store that others hold, too.
    pub fn log_shared(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Makes this a node of the cluster whose nodes meet at `transport`, with the default options: what is broadcast on one reaches the subscribers of all.
    ///
    /// Name the types that come from other nodes by [`message`](Self::message).
    ///
    /// ```
    /// # use actix_pubsub::{Event, Payload, PubSub, cluster::Memory};
    /// # use futures::StreamExt;
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Price { cents: u32 }
    /// impl Payload for Price { const NAME: &'static str = "shop.price"; }
    ///
    /// # actix::System::new().block_on(async {
    /// let network = Memory::new(); // or `Redis::new("redis://…")`, `Nats::new("nats://…")`, `Zenoh::new()`
    /// let node = || PubSub::builder().cluster(network.clone()).message::<Price>().build();
    /// let (here, there) = (node()?, node()?);
    ///
    /// let mut prices = there.stream::<Price>("price:gold")?;
    /// prices.subscription().cluster_ready().await?;
    /// # while here.nodes().is_empty() { actix_rt::task::yield_now().await; }
    /// here.broadcast("price:gold", Price { cents: 197_000 }).unwrap();
    /// assert_eq!(prices.next().await.unwrap().node(), here.node());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn cluster(self, transport: impl Transport) -> Self {
        self.cluster_with(transport, ClusterOptions::new())
    }

    /// As [`cluster`](Self::cluster), with options.
    pub fn cluster_with(mut self, transport: impl Transport, options: ClusterOptions) -> Self {
        self.cluster = Some((Arc::new(transport), options));
        self
    }

    /// Makes a message type known that others append or broadcast and this program only `subscribe`s to. `append`, `subscribe_from`, `consume` and `broadcast` do that by
    /// themselves; a plain subscription, which takes types that have no name, cannot.
    pub fn message<M: Payload>(mut self) -> Self {
        if let (Err(NameTaken { name, by }), Ok(_)) = (self.types.add::<M>(), &self.retention) {
            self.retention = Err(BuildError::NameTaken { name, by });
        }
        self
    }

    /// How much of the topics that fit `pattern`, a name or the beginning of names and a `*`, the log keeps. Of several patterns that fit, the first given
    /// counts; what none fits is kept forever. It needs a log; and one that would keep nothing is refused by `build`.
    pub fn retain(mut self, pattern: &str, retention: Retention) -> Self {
        if let Ok(retentions) = &mut self.retention {
            let added = retentions.add(pattern, retention).map_err(BuildError::Pattern);
            let nothing = || BuildError::KeepsNothing { pattern: pattern.to_owned(), retention };
            if let Err(error) = added.and_then(|()| if retention.keeps_nothing() { Err(nothing()) } else { Ok(()) }) {
                self.retention = Err(error);
            }
        }
        self
    }

    /// Checks the settings and makes the pub/sub. Starts nothing yet, but for the threads of the log and of the relay where there are such.
    pub fn build(self) -> Result<PubSub, BuildError> {
        if self.port_events == 0 || self.port_events > Self::PORT_CAPACITY_MAX {
            return Err(BuildError::PortCapacity { capacity: self.port_events, max: Self::PORT_CAPACITY_MAX });
        }
        let (retention, shared) = (self.retention?, Arc::new(Shared::new(self.port_events, self.trace_spans)));
        if let (None, Some(pattern)) = (&self.store, retention.first()) {
            return Err(BuildError::RetainsNoLog { pattern });
        }
        let hub = match self.cluster {
            Some((transport, options)) => match Hub::start(&shared, &self.types, transport, &options) {
                Ok(hub) => Some(hub),
                Err(HubError::Refused(error)) => return Err(BuildError::Cluster(error)),
                Err(HubError::Thread(error)) => return Err(BuildError::Thread(error.kind())),
            },
            None => None,
        };
        let feed = match self.store {
            Some(store) => match Feed::start(store, Arc::clone(&shared), self.types.clone(), retention) {
                Ok(feed) => Some(feed),
                Err(error) => {
                    hub.inspect(|hub| hub.close());
                    return Err(BuildError::Thread(error.kind()));
                }
            },
            None => None,
        };
        Ok(PubSub::of(shared, Sampling::one_in(self.trace_one_in), self.types, feed, hub))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("port_events", &self.port_events).field("store", &self.store).finish_non_exhaustive()
    }
}

/// Why a `PubSub` was not built.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The port's capacity is not between 1 and the limit.
    PortCapacity {
        /// The refused capacity, in events.
        capacity: usize,
        /// The limit, in events.
        max: usize,
    },
    /// A pattern of `retain` that no topic can fit.
    Pattern(TopicError),
    /// A retention that keeps no entry: of 0 entries, or of less than a millisecond.
    KeepsNothing {
        /// The topics that it was for.
        pattern: String,
        /// The refused one.
        retention: Retention,
    },
    /// There is a retention and no log.
    RetainsNoLog {
        /// The topics that the first one was for.
        pattern: String,
    },
    /// Two message types with one `Payload::NAME`.
    NameTaken {
        /// The name.
        name: &'static str,
        /// The type that has it.
        by: &'static str,
    },
    /// The settings of the cluster.
    Cluster(ClusterError),
    /// The log's or the relay's thread could not be started.
    Thread(io::ErrorKind),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortCapacity { capacity, max } => write!(f, "port capacity is {capacity} events, it must be 1 to {max}"),
            Self::Pattern(source) => write!(f, "no topic can fit the pattern of a retention: {source}"),
            Self::KeepsNothing { pattern, retention } => {
                write!(f, "the retention of {pattern:?} keeps {retention}, it must be at least 1 entry and 1 ms")
            }
            Self::RetainsNoLog { pattern } => {
                write!(f, "there is a retention of {pattern:?} and no log, give the builder a store by `log`")
            }
            Self::NameTaken { name, by } => write!(f, "message name {name:?} belongs to type {by} already"),
            Self::Cluster(source) => write!(f, "the pub/sub cannot be of this cluster: {source}"),
            Self::Thread(kind) => write!(f, "a thread did not start: {kind}"),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pattern(source) => source.source(),
            Self::Cluster(source) => source.source(),
            Self::PortCapacity { .. }
            | Self::KeepsNothing { .. }
            | Self::RetainsNoLog { .. }
            | Self::NameTaken { .. }
            | Self::Thread(_) => None,
        }
    }
}
