//! Link: one session, owned by a thread of its own that opens it, declares and closes; who sends makes the puts. Knows subjects and bytes.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::thread;

use ::zenoh::Session;
use ::zenoh::Wait;
use ::zenoh::key_expr::KeyExpr;
use ::zenoh::liveliness::LivelinessToken;
use ::zenoh::pubsub::Subscriber;
use ::zenoh::qos::CongestionControl;
use ::zenoh::qos::Priority;
use ::zenoh::sample::Locality;
use ::zenoh::sample::Sample;
use ::zenoh::sample::SampleKind;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::cluster::batch::batches;
use crate::cluster::batch::frames;
use crate::cluster::subject::ClusterName;
use crate::cluster::subject::Subject;
use crate::cluster::transport::Identity;
use crate::cluster::transport::Inbound;
use crate::cluster::transport::Link;
use crate::cluster::transport::Outgoing;
use crate::cluster::transport::TransportError;
use crate::cluster::transport::Work;
use crate::cluster::zenoh::Zenoh;
use crate::cluster::zenoh::config::config;
use crate::cluster::zenoh::endpoint::Endpoint;
use crate::ids::NodeId;
use crate::sync::Mutex;
use crate::sync::lock;

/// The thread ends when this is dropped.
pub(super) struct ZenohLink {
    puts: Arc<Puts>,
    commands: mpsc::Sender<Command>,
    ended: watch::Receiver<Option<TransportError>>,
}

/// The session, for as long as the thread has it. A put neither waits for zenoh's runtimes nor is a future, so any thread may make it; but
/// the last handle to a session closes it, which must not happen on a thread of actix: therefore the thread takes it out of here first.
struct Puts {
    cluster: ClusterName,
    session: Mutex<Option<Session>>,
}

enum Command {
    Subscribe(Vec<Subject>, Done),
    Unsubscribe(Vec<Subject>, Done),
    Close(oneshot::Sender<()>),
}

type Done = oneshot::Sender<Result<(), TransportError>>;

/// Starts the thread and waits until its session is open.
pub(super) async fn connect(settings: Zenoh, identity: Identity, inbound: Inbound) -> Result<ZenohLink, TransportError> {
    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    let (ended, has_ended) = watch::channel(None);
    let (opened, is_open) = oneshot::channel();
    let work = move || match Node::open(&settings, &identity, inbound) {
        // Whoever asked may have gone away: then the session closes by its drop.
        Err(error) => drop(opened.send(Err(error))),
        Ok(node) => {
            if opened.send(Ok(Arc::clone(&node.puts))).is_ok() {
                ended.send_replace(Some(node.serve(queue)));
            }
        }
    };
    let thread = thread::Builder::new().name("pubsub-zenoh".to_owned()).spawn(work);
    thread.map_err(|error| TransportError::new("starting the thread of zenoh", error))?;
    let puts = is_open.await.unwrap_or_else(|_| Err(gone()))?;
    Ok(ZenohLink { puts, commands, ended: has_ended })
}

impl Puts {
    fn send(&self, frames: Vec<Outgoing>) -> Result<(), TransportError> {
        let session = lock(&self.session);
        let session = session.as_ref().ok_or_else(gone)?;
        for Outgoing { subject, frame } in batches(frames) {
            let put = session.put(self.key(&subject)?, frame);
            // One priority and one channel for all, by which they stay in order. Never `Block`: it would stall everybody for a peer that hangs.
            let put =
                put.congestion_control(CongestionControl::Drop).priority(Priority::Data).allowed_destination(Locality::Remote);
            put.wait().map_err(|error| TransportError::new("sending by zenoh", error))?;
        }
        Ok(())
    }

    fn key(&self, subject: &Subject) -> Result<KeyExpr<'static>, TransportError> {
        KeyExpr::try_from(subject.name(&self.cluster, '/'))
            .map_err(|error| TransportError::new("naming a subject for zenoh", error))
    }
}

impl ZenohLink {
    fn declare(&self, command: impl FnOnce(Done) -> Command) -> Work<Result<(), TransportError>> {
        let commands = self.commands.clone();
        let (done, is_done) = oneshot::channel();
        let command = command(done);
        Box::pin(async move {
            commands.send(command).await.map_err(|_| gone())?;
            is_done.await.unwrap_or_else(|_| Err(gone()))
        })
    }
}

impl Link for ZenohLink {
    fn send(&self, frames: Vec<Outgoing>) -> Work<Result<(), TransportError>> {
        Box::pin(ready(self.puts.send(frames)))
    }

    fn subscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        self.declare(|done| Command::Subscribe(subjects, done))
    }

    fn unsubscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        self.declare(|done| Command::Unsubscribe(subjects, done))
    }

    fn ended(&self) -> Work<TransportError> {
        let mut ended = self.ended.clone();
        // An error: the thread panicked, and said nothing.
        Box::pin(async move { ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()).unwrap_or_else(gone) })
    }

    fn close(&self) -> Work<()> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (done, is_done) = oneshot::channel();
            if commands.send(Command::Close(done)).await.is_ok() {
                // An error: the thread has ended, which is as good.
                let _ = is_done.await;
            }
        })
    }
}

/// What the thread owns. Its drop closes the session.
struct Node {
    puts: Arc<Puts>,
    inbound: Inbound,
    subscribers: HashMap<Subject, Subscriber<()>>,
    /// By which the others see at once that this node is gone.
    _token: LivelinessToken,
    session: Session,
}

impl Node {
    fn open(settings: &Zenoh, identity: &Identity, inbound: Inbound) -> Result<Self, TransportError> {
        let session = open(settings, identity)?;
        let failed = |error| TransportError::new("watching the peers of zenoh", error);
        let tokens = format!("actix-pubsub/{}/l", identity.cluster);
        let (own, gone) = (identity.node, inbound.clone());
        let watch = move |sample: Sample| {
            let node = sample.key_expr().as_str().rsplit('/').next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
            if let Some(node) = node.map(NodeId::from_bits)
                && node != own
                && sample.kind() == SampleKind::Delete
            {
                gone.gone(node);
            }
        };
        session.liveliness().declare_subscriber(format!("{tokens}/*")).callback(watch).background().wait().map_err(failed)?;
        let token = session.liveliness().declare_token(format!("{tokens}/{}", identity.node)).wait().map_err(failed)?;
        let subscribers = HashMap::new();
        let puts = Puts { cluster: identity.cluster.clone(), session: Mutex::new(Some(session.clone())) };
        Ok(Self { puts: Arc::new(puts), inbound, subscribers, _token: token, session })
    }

    /// Does what it is told until the link is dropped or closed.
    fn serve(mut self, mut commands: mpsc::Receiver<Command>) -> TransportError {
        while let Some(command) = commands.blocking_recv() {
            let result = match command {
                Command::Subscribe(subjects, done) => self.reply(done, |node| node.subscribe(subjects)),
                Command::Unsubscribe(subjects, done) => self.reply(done, |node| node.unsubscribe(&subjects)),
                Command::Close(done) => {
                    drop(self);
                    // Whoever asked may not wait for it.
                    let _ = done.send(());
                    return TransportError::because("the link was closed");
                }
            };
            if let Err(error) = result {
                return error;
            }
        }
        TransportError::because("the link was dropped")
    }

    fn reply(&mut self, done: Done, work: impl FnOnce(&mut Self) -> Result<(), TransportError>) -> Result<(), TransportError> {
        let result = work(self);
        // Whoever asked may not wait for it.
        let _ = done.send(result.clone());
        result
    }

    fn subscribe(&mut self, subjects: Vec<Subject>) -> Result<(), TransportError> {
        for subject in subjects {
            if self.subscribers.contains_key(&subject) {
                continue;
            }
            let inbound = self.inbound.clone();
            let take = move |sample: Sample| {
                // Copied out of what zenoh has read, which a slice would keep alive as a whole.
                inbound.push_all(frames(Bytes::copy_from_slice(&sample.payload().to_bytes())));
            };
            let builder =
                self.session.declare_subscriber(self.puts.key(&subject)?).callback(take).allowed_origin(Locality::Remote);
            let subscriber = builder.wait().map_err(|error| TransportError::new("subscribing at zenoh", error))?;
            self.subscribers.insert(subject, subscriber);
        }
        Ok(())
    }

    fn unsubscribe(&mut self, subjects: &[Subject]) -> Result<(), TransportError> {
        for subscriber in subjects.iter().filter_map(|subject| self.subscribers.remove(subject)) {
            subscriber.undeclare().wait().map_err(|error| TransportError::new("unsubscribing at zenoh", error))?;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(lock(&self.puts.session).take());
        if let Err(error) = self.session.close().wait() {
            tracing::debug!(%error, "closing the zenoh session failed");
        }
    }
}

/// The session, on free ports where 0 was asked for: those of the last link, if they are still free.
fn open(settings: &Zenoh, identity: &Identity) -> Result<Session, TransportError> {
    let (listen, peers) = settings.endpoints().map_err(|error| TransportError::new("reading the settings of zenoh", error))?;
    let mut failed = None;
    for attempt in 0..PORT_ATTEMPTS {
        let last = if attempt == 0 { settings.bound() } else { Vec::new() };
        let listen =
            listen.iter().enumerate().map(|(at, endpoint)| take_port(endpoint, last.get(at))).collect::<Result<Vec<_>, _>>()?;
        match ::zenoh::open(config(settings, identity, &listen, &peers)?).wait() {
            Ok(session) => {
                *lock(&settings.bound) = listen.into_iter().map(|endpoint| endpoint.text).collect();
                return Ok(session);
            }
            // Between the probe and the bind another may have taken the port: then the next one.
            Err(error) => {
                failed =
                    Some(TransportError::new("opening a zenoh session", format!("{error} (listening on {:?})", settings.listen)));
            }
        }
    }
    Err(failed.unwrap_or_else(gone))
}

fn take_port(endpoint: &Endpoint, last: Option<&String>) -> Result<Endpoint, TransportError> {
    if endpoint.port == 0
        && let Some(last) = last.and_then(|last| Endpoint::parse(last).ok())
        && let Ok(same) = endpoint.with_port(last.port).probe()
    {
        return Ok(same);
    }
    endpoint.probe().map_err(|source| TransportError::new("listening", ListenError { endpoint: endpoint.text.clone(), source }))
}

fn gone() -> TransportError {
    TransportError::because("the thread of zenoh has ended")
}

/// A port that cannot be taken.
#[derive(Debug)]
struct ListenError {
    endpoint: String,
    source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}", self.endpoint)
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Declarations that wait for the thread.
const COMMANDS_MAX: usize = 8;
/// How often another free port is tried.
const PORT_ATTEMPTS: usize = 8;
