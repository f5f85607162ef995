//! Redis: a cluster over the pub/sub of a Redis server, by two connections: one publishes, one is told. Knows no frame's content.
//!
//! ```text
//!  send ──> one pipeline a batch, 16 unanswered at most ──> PUBLISH actix-pubsub:shop:t:orders ...
//!  subscribe ──> SUBSCRIBE, 1,000 subjects a command, each confirmed ──┐
//!  Inbound::push <── pushes of RESP3 <──────────────────────────────────┴── the other connection
//! ```

use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use redis::AsyncConnectionConfig;
use redis::Client;
use redis::Cmd;
use redis::ConnectionAddr;
use redis::Pipeline;
use redis::PushInfo;
use redis::PushKind;
use redis::RedisError;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::task::unconstrained;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::cluster::batch::batches;
use crate::cluster::batch::frames;
use crate::cluster::fate::Fate;
use crate::cluster::subject::ClusterName;
use crate::cluster::subject::Subject;
use crate::cluster::transport::Identity;
use crate::cluster::transport::Inbound;
use crate::cluster::transport::Link;
use crate::cluster::transport::Outgoing;
use crate::cluster::transport::Transport;
use crate::cluster::transport::TransportCaps;
use crate::cluster::transport::TransportError;
use crate::cluster::transport::Work;
use crate::log::redis::address::client_at;

/// A cluster over the pub/sub of a Redis server, version 6 or later (feature `redis`).
///
/// A channel is called `actix-pubsub:{cluster}:t:{topic}`, see [`Subject::name`] with `:`; `redis-cli psubscribe 'actix-pubsub:shop:*'` shows a
/// whole cluster. Channels are the same in every database of the server. A user of an access list needs `publish`, `subscribe`, `unsubscribe`, `ping`,
/// `hello`, `client` and `quit`, and the channels `&actix-pubsub:{cluster}:*`.
///
/// # Guarantees
/// What Redis has answered to it has given to the connections that were subscribed; Ok does not mean that one of them read it. Redis keeps
/// nothing: who is away misses what is sent. A node that reads too slowly is cut by the server, by default when 32 MB wait for it
/// (`client-output-buffer-limit pubsub`), and connects again. Of several servers (replicas, Redis Cluster) one is used, and confirms for itself only:
/// what another node publishes at another of them may still pass by a subscription that was confirmed just now.
///
/// # Limits
/// TLS needs the feature `redis-tls` (rustls with ring): without it `rediss://` is refused. A frame is at most 512 MB, the default
/// of the server's `proto-max-bulk-len`.
///
/// ```
/// use actix_pubsub::cluster::Redis;
/// use actix_pubsub::cluster::Transport;
///
/// assert!(Redis::new("redis://user:password@127.0.0.1:6379").client_name("shop-1").check().is_ok());
/// assert_eq!(Redis::new("rediss://127.0.0.1:6379").check().is_ok(), cfg!(feature = "redis-tls"));
/// ```
#[derive(Clone)]
pub struct Redis {
    url: Box<str>,
    client_name: Box<str>,
    root_certificate: Option<Arc<[u8]>>,
    peer_interest: bool,
}

impl Redis {
    /// The server at `redis://[user:password@]host[:port]`, or `redis+unix:///path`. Looked at by [`check`](Transport::check) and at each connection.
    pub fn new(url: &str) -> Self {
        Self { url: url.into(), client_name: "actix-pubsub".into(), root_certificate: None, peer_interest: false }
    }

    /// What `CLIENT LIST` shows: 1 to 64 characters that are visible, of ASCII and no space. Default: `actix-pubsub`.
    pub fn client_name(mut self, name: &str) -> Self {
        self.client_name = name.into();
        self
    }

    /// For `rediss://` (feature `redis-tls`): a certificate as PEM that the server's is signed by, instead of those that the system trusts.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Arc<[u8]>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// The nodes tell each other what they listen to, and send to each that listens, instead of a channel for each topic. What waits for a node goes
    /// in one message: about half the work at full speed, and nothing is sent where nobody listens. It costs a copy for each node that
    /// listens, and each node knows what all others listen to. The same for all nodes of a cluster; see [two kinds of interest](crate::cluster#two-kinds-of-interest).
    pub fn peer_interest(mut self) -> Self {
        self.peer_interest = true;
        self
    }

    fn client(&self) -> Result<Client, TransportError> {
        let named = (1..=CLIENT_NAME_BYTES_MAX).contains(&self.client_name.len());
        if !named || !self.client_name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TransportError::because("the client name must be 1 to 64 visible characters of ASCII, no space"));
        }
        client_at(&self.url, self.root_certificate.as_deref())
            .map_err(|error| TransportError::new("reading the URL of Redis", error))
    }
}

impl fmt::Debug for Redis {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("client_name", &self.client_name).finish_non_exhaustive()
    }
}

impl Transport for Redis {
    fn check(&self) -> Result<(), TransportError> {
        self.client().map(drop)
    }

    fn caps(&self) -> TransportCaps {
        if self.peer_interest { TransportCaps::new("redis").peer_interest() } else { TransportCaps::new("redis") }
    }

    fn connect(&self, identity: &Identity, inbound: Inbound) -> Work<Result<Arc<dyn Link>, TransportError>> {
        let (settings, identity) = (self.clone(), identity.clone());
        Box::pin(async move {
            let client = settings.client()?;
            if identity.frame_bytes_max > FRAME_BYTES_MAX {
                let reason = format!("frames are up to {} bytes, it takes {FRAME_BYTES_MAX}", identity.frame_bytes_max);
                return Err(TransportError::new("connecting to Redis", reason));
            }
            let address = address(client.get_connection_info().addr());
            let failed = |error: &dyn fmt::Display| TransportError::new("connecting to Redis", format!("{address}: {error}"));
            match timeout(identity.failure_timeout, RedisLink::connect(&client, &settings, &identity, inbound)).await {
                Ok(Ok(link)) => Ok(Arc::new(link) as Arc<dyn Link>),
                Ok(Err(error)) => Err(failed(&error)),
                Err(_) => Err(failed(&format_args!("no answer after {:?}", identity.failure_timeout))),
            }
        })
    }
}

/// Without a password.
fn address(addr: &ConnectionAddr) -> String {
    match addr {
        ConnectionAddr::Tcp(host, port) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => format!("[{host}]:{port}"),
        addr => addr.to_string(),
    }
}

struct RedisLink {
    publishes: MultiplexedConnection,
    is_told: MultiplexedConnection,
    fate: Arc<Fate>,
    /// Set by whatever comes on the connection that publishes.
    heard: Arc<AtomicBool>,
    /// A permit for each pipeline that is not answered.
    room: Arc<Semaphore>,
    cluster: ClusterName,
    failure_timeout: Duration,
}

impl RedisLink {
    async fn connect(client: &Client, settings: &Redis, identity: &Identity, inbound: Inbound) -> Result<Self, RedisError> {
        let fate = Arc::new(Fate::new());
        let heard = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
        let publishes = open(client, settings, &fate, &heard[0], None).await?;
        let is_told = open(client, settings, &fate, &heard[1], Some(inbound)).await?;
        let tick = identity.failure_timeout / SILENCE_TICKS;
        for (connection, heard) in [&publishes, &is_told].into_iter().zip(&heard) {
            tokio::spawn(watch_over(connection.clone(), Arc::clone(heard), Arc::clone(&fate), tick));
        }
        let [heard, _] = heard;
        Ok(Self {
            publishes,
            is_told,
            fate,
            heard,
            room: Arc::new(Semaphore::new(PIPELINES_MAX as usize)),
            cluster: identity.cluster.clone(),
            failure_timeout: identity.failure_timeout,
        })
    }

    /// Asks in pieces, each confirmed.
    fn ask(&self, subjects: &[Subject], asked: Interest) -> Work<Result<(), TransportError>> {
        let pieces: Vec<Vec<String>> = subjects
            .chunks(SUBJECTS_A_COMMAND)
            .map(|piece| piece.iter().map(|subject| subject.name(&self.cluster, ':')).collect())
            .collect();
        let (mut connection, fate, time) = (self.is_told.clone(), Arc::clone(&self.fate), self.failure_timeout);
        Box::pin(async move {
            for names in pieces {
                let answer = match asked {
                    Interest::Wanted => fate.within(time, connection.subscribe(names)).await?,
                    Interest::Over => fate.within(time, connection.unsubscribe(names)).await?,
                };
                answer.map_err(|error| fate.fail(TransportError::new("subscribing at Redis", error)))?;
            }
            Ok(())
        })
    }
}

#[derive(Clone, Copy)]
enum Interest {
    Wanted,
    Over,
}

async fn open(
    client: &Client,
    settings: &Redis,
    fate: &Arc<Fate>,
    heard: &Arc<AtomicBool>,
    inbound: Option<Inbound>,
) -> Result<MultiplexedConnection, RedisError> {
    let (fate, heard) = (Arc::clone(fate), Arc::clone(heard));
    let pushed = move |push: PushInfo| {
        heard.store(true, Ordering::Relaxed);
        match (push.kind, &inbound) {
            (PushKind::Disconnection, _) => fate.end(TransportError::because("the connection to Redis was lost")),
            (PushKind::Message, Some(inbound)) => {
                // The channel, then what was published there.
                if let Some(Value::BulkString(frame)) = push.data.into_iter().nth(1) {
                    // What does not fit is counted there.
                    inbound.push_all(frames(Bytes::from(frame)));
                }
            }
            _ => {}
        }
        Ok::<(), ()>(())
    };
    let config = AsyncConnectionConfig::new()
        // Time-outs are ours: half a second is less than a pipeline may take.
        .set_response_timeout(None)
        .set_connection_timeout(None)
        // So many that a pipeline never waits for its place: what waits could be overtaken.
        .set_pipeline_buffer_size(PIPELINES_MAX as usize + 8)
        .set_push_sender(pushed);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut name = redis::cmd("CLIENT");
    name.arg("SETNAME").arg(&*settings.client_name);
    // An answer, whichever: a user who may not have a name can do without.
    connection.send_packed_command(&name).await?;
    Ok(connection)
}

/// Asks whether the server is there, and ends the link when nothing was heard from it for most of the failure time-out.
///
/// Counts pauses, not time: a process that was stopped for a while has not heard anything either, and has to look first.
async fn watch_over(connection: MultiplexedConnection, heard: Arc<AtomicBool>, fate: Arc<Fate>, tick: Duration) {
    let pings = {
        let (mut connection, heard) = (connection, Arc::clone(&heard));
        async move {
            // Any answer will do; without one the other half ends this.
            while connection.send_packed_command(&redis::cmd("PING")).await.is_ok() {
                heard.store(true, Ordering::Relaxed);
                sleep(tick).await;
            }
            TransportError::because("the connection to Redis was lost")
        }
    };
    let silence = async {
        let mut silent = 0;
        while silent < SILENCE_TICKS - 1 {
            sleep(tick).await;
            silent = if heard.swap(false, Ordering::Relaxed) { 0 } else { silent + 1 };
        }
        TransportError::because("Redis has been silent for the failure time-out")
    };
    let mut both = (Box::pin(pings), Box::pin(silence));
    let first = poll_fn(|cx| match both.0.as_mut().poll(cx) {
        Poll::Pending => both.1.as_mut().poll(cx),
        lost @ Poll::Ready(_) => lost,
    });
    if let Ok(why) = fate.unless_ended(first).await {
        fate.end(why);
    }
}

impl Link for RedisLink {
    fn send(&self, frames: Vec<Outgoing>) -> Work<Result<(), TransportError>> {
        let (connection, fate, room) = (self.publishes.clone(), Arc::clone(&self.fate), Arc::clone(&self.room));
        let (cluster, heard) = (self.cluster.clone(), Arc::clone(&self.heard));
        Box::pin(async move {
            let mut frames = batches(frames).into_iter().peekable();
            while frames.peek().is_some() {
                let permit = fate.unless_ended(Arc::clone(&room).acquire_owned()).await?;
                let permit = permit.map_err(|_| TransportError::because("the link was closed"))?;
                let (mut pipeline, mut bytes) = (redis::pipe(), 0);
                while pipeline.len() < FRAMES_A_PIPELINE
                    && bytes < PIPELINE_BYTES
                    && let Some(Outgoing { subject, frame }) = frames.next()
                {
                    let name = subject.name(&cluster, ':');
                    let mut command = Cmd::with_capacity(3, PUBLISH.len() + name.len() + frame.len());
                    command.arg(PUBLISH).arg(name).arg(&*frame);
                    pipeline.add_command(command);
                    bytes += frame.len();
                }
                let answered = Answered { permit, heard: Arc::clone(&heard) };
                publish(connection.clone(), pipeline, answered, &fate).await;
            }
            Ok(())
        })
    }

    fn subscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        self.ask(&subjects, Interest::Wanted)
    }

    fn unsubscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        self.ask(&subjects, Interest::Over)
    }

    fn ended(&self) -> Work<TransportError> {
        let fate = Arc::clone(&self.fate);
        Box::pin(async move { fate.ended().await })
    }

    fn close(&self) -> Work<()> {
        let (fate, room, time) = (Arc::clone(&self.fate), Arc::clone(&self.room), self.failure_timeout);
        let mut connections = [self.publishes.clone(), self.is_told.clone()];
        Box::pin(async move {
            let answered = room.acquire_many(PIPELINES_MAX);
            if fate.within(time, answered).await.is_ok() {
                for connection in &mut connections {
                    // The server ends the connection, whether it says so or not.
                    let _ = fate.within(time, connection.send_packed_command(&redis::cmd("QUIT"))).await;
                }
            }
            fate.end(TransportError::because("the link was closed"));
        })
    }
}

impl Drop for RedisLink {
    fn drop(&mut self) {
        // Its tasks hold connections until then.
        self.fate.end(TransportError::because("the link was dropped"));
    }
}

/// What an answer does: make room, and tell that the server is there.
struct Answered {
    permit: OwnedSemaphorePermit,
    heard: Arc<AtomicBool>,
}

/// Puts a pipeline into the connection's queue, behind those before it, and leaves the answer to a task.
async fn publish(mut connection: MultiplexedConnection, pipeline: Pipeline, then: Answered, fate: &Arc<Fate>) {
    let commands = pipeline.len();
    let mut work: Pin<Box<dyn Future<Output = Result<(), RedisError>> + Send>> = Box::pin(async move {
        let answers = connection.send_packed_commands(&pipeline, 0, commands).await?;
        answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop))
    });
    // The first look at it queues it; without a budget, or it might not.
    let answered = unconstrained(poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx)))).await;
    let failed = |error| TransportError::new("publishing at Redis", error);
    match answered {
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(error)) => fate.end(failed(error)),
        Poll::Pending => {
            let fate = Arc::clone(fate);
            tokio::spawn(async move {
                match fate.unless_ended(work).await {
                    Ok(Ok(())) => then.heard.store(true, Ordering::Relaxed),
                    Ok(Err(error)) => fate.end(failed(error)),
                    // Ended already.
                    Err(_) => {}
                }
                drop(then.permit);
            });
        }
    }
}

const PUBLISH: &str = "PUBLISH";
/// Pipelines that are not answered; with [`PIPELINE_BYTES`] they bound what is on its way to 4 MiB and one frame each.
const PIPELINES_MAX: u32 = 16;
/// So many bytes of frames end a pipeline: an answer then comes in time over a slow network, too.
const PIPELINE_BYTES: usize = 256 * 1_024;
/// So many frames end a pipeline: small ones are answered some hundred times a second at full speed.
const FRAMES_A_PIPELINE: usize = 1_024;
/// Subjects in one SUBSCRIBE: some 60 kB, during which the server does nothing else.
const SUBJECTS_A_COMMAND: usize = 1_000;
/// A ping is sent each quarter of the failure time-out; three of them in a row without a byte are the end.
const SILENCE_TICKS: u32 = 4;
const CLIENT_NAME_BYTES_MAX: usize = 64;
/// `proto-max-bulk-len`, by default.
const FRAME_BYTES_MAX: usize = 512 * 1_024 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_right_are_refused_and_a_password_is_not_printed() {
        for good in ["redis://h", "redis://u:secret@h:1/2", "redis+unix:///run/redis.sock", "redis://[::1]:6379"] {
            assert!(Redis::new(good).check().is_ok(), "{good}");
            assert!(!format!("{:?}", Redis::new(good)).contains("secret"));
        }
        #[cfg(not(feature = "redis-tls"))]
        assert!(Redis::new("rediss://h").check().is_err());
        for bad in ["", "h:6379", "http://h", "redis://h:port"] {
            assert!(Redis::new(bad).check().is_err(), "{bad:?}");
        }
        let named = |name: &str| Redis::new("redis://h").client_name(name).check().is_ok();
        assert!(named(&"x".repeat(64)));
        assert!(!named(&"x".repeat(65)) && !named("") && !named("a b") && !named("é"));
    }

    #[test]
    fn an_address_is_shown_without_who_connects() {
        let shown = |url: &str| address(Redis::new(url).client().unwrap().get_connection_info().addr());
        assert_eq!((&*shown("redis://u:secret@h:1"), &*shown("redis://[::1]:7")), ("h:1", "[::1]:7"));
    }
}
