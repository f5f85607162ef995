//! NATS: a cluster over core NATS, each link on a thread of its own. Knows no frame's content.
//!
//! ```text
//!  send ──> 4 batches at most ──> PUB actix-pubsub.shop.t.orders ...   ┐
//!  subscribe ──> SUB for each, then one question that the server        │ one thread, one runtime,
//!                answers behind them all                                │ gone with the link
//!  Inbound::push <── taken out of its channel while it is put in there <┘
//! ```
//!
//! # Order across subjects
//! The client gives each subscription a channel of its own, and a task that polled many of them would see their frames in any order. So nobody
//! polls: what the client wakes when it puts a frame into a channel is a [`Slot`], which takes the frame out and pushes it there and then. Frames are
//! pushed as the server sent them, and no channel ever holds two.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;

use async_nats::Client;
use async_nats::ConnectOptions;
use async_nats::Event;
use async_nats::RequestErrorKind;
use async_nats::ServerAddr;
use async_nats::ServerError;
use async_nats::Subscriber;
use async_nats::client::Request;
use futures_core::Stream;
use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio::time::timeout;

use crate::cluster::batch::batches;
use crate::cluster::batch::frames;
use crate::cluster::fate::Fate;
use crate::cluster::subject::Subject;
use crate::cluster::transport::Identity;
use crate::cluster::transport::Inbound;
use crate::cluster::transport::Link;
use crate::cluster::transport::Outgoing;
use crate::cluster::transport::Transport;
use crate::cluster::transport::TransportCaps;
use crate::cluster::transport::TransportError;
use crate::cluster::transport::Work;
use crate::sync::AtomicBool;
use crate::sync::AtomicUsize;
use crate::sync::Mutex;
use crate::sync::Ordering;
use crate::sync::lock;

/// A cluster over core NATS, server 2.2 or later (feature `nats`). `JetStream` is not needed.
///
/// A subject is called `actix-pubsub.{cluster}.t.{topic}`, see [`Subject::name`] with `.`; `nats sub 'actix-pubsub.shop.>'` shows a whole cluster. A user
/// with permissions needs `actix-pubsub.{cluster}.>` to publish and to subscribe; a refusal ends the link with what the server said.
///
/// # Guarantees
/// What the server has read it has given to the connections that were subscribed; Ok does not mean that it has read it. It keeps nothing: who
/// is away misses what is sent. A node that reads too slowly is cut by the server (`write_deadline`, `max_pending`), and connects again. Of a
/// cluster of servers one is used, and confirms for itself only: what another node publishes at another of them may still pass by a
/// subscription that was confirmed just now.
///
/// # Limits
/// A frame is at most the server's `max_payload`, 1 MiB by default: connecting to a server that takes less than frames may have fails.
///
/// # Cost
/// A thread for each link. The client's channel takes some 5 KB for each subject that is subscribed to: 100,000 topics on one node are 0.5 GB
/// (`cargo bench --features redis,nats --bench transport`). With [`peer_interest`](Nats::peer_interest) there are two subjects.
///
/// ```
/// use actix_pubsub::cluster::Nats;
/// use actix_pubsub::cluster::Transport;
///
/// assert!(Nats::new("nats://127.0.0.1:4222, nats://127.0.0.2:4222").user_and_password("shop", "secret").check().is_ok());
/// assert!(Nats::new("http://127.0.0.1").check().is_err());
/// ```
#[derive(Clone)]
pub struct Nats {
    urls: Box<str>,
    auth: Auth,
    client_name: Box<str>,
    root_certificates: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
    peer_interest: bool,
}

#[derive(Clone)]
enum Auth {
    OfUrl,
    User(Box<str>, Box<str>),
    Token(Box<str>),
    Credentials(PathBuf),
}

impl Nats {
    /// The servers at `nats://[user:password@]host[:port]` (or `token@`), or `tls://` for TLS, which a server may ask for in any case. Several of one
    /// cluster are separated by commas and tried in any order; the first that says who connects says it for all.
    pub fn new(urls: &str) -> Self {
        Self {
            urls: urls.into(),
            auth: Auth::OfUrl,
            client_name: "actix-pubsub".into(),
            root_certificates: None,
            client_certificate: None,
            peer_interest: false,
        }
    }

    /// Who connects. Replaces what was said before, and what the URL says.
    pub fn user_and_password(mut self, user: &str, password: &str) -> Self {
        self.auth = Auth::User(user.into(), password.into());
        self
    }

    /// The token to connect with. Replaces what was said before.
    pub fn token(mut self, token: &str) -> Self {
        self.auth = Auth::Token(token.into());
        self
    }

    /// The file with the user's JWT and seed, read at each connection. Replaces what was said before.
    pub fn credentials_file(mut self, path: impl AsRef<Path>) -> Self {
        self.auth = Auth::Credentials(path.as_ref().to_owned());
        self
    }

    /// For TLS: a file of certificates as PEM that the server's may be signed by, beside those that the system trusts. Read at each connection.
    pub fn root_certificates_file(mut self, path: impl AsRef<Path>) -> Self {
        self.root_certificates = Some(path.as_ref().to_owned());
        self
    }

    /// For TLS: the files of this client's certificate and of its key, as PEM. Read at each connection.
    pub fn client_certificate_files(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.client_certificate = Some((certificate.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// The nodes tell each other what they listen to, and send to each that listens, instead of a subject for each topic. What waits for a node goes
    /// in one message: about half the work at full speed, and nothing is sent where nobody listens. It costs a copy for each node that
    /// listens, and each node knows what all others listen to. The same for all nodes of a cluster; see [two kinds of interest](crate::cluster#two-kinds-of-interest).
    pub fn peer_interest(mut self) -> Self {
        self.peer_interest = true;
        self
    }

    /// What the server's monitoring calls the connection. Default: `actix-pubsub`.
    pub fn client_name(mut self, name: &str) -> Self {
        self.client_name = name.into();
        self
    }

    fn addrs(&self) -> Result<Vec<ServerAddr>, TransportError> {
        let parse = |url: &str| {
            if url.trim().is_empty() {
                return Err(TransportError::because("the URL of NATS is empty"));
            }
            let addr: ServerAddr = url.trim().parse().map_err(|error| TransportError::new("reading the URL of NATS", error))?;
            match addr.scheme() {
                "nats" | "tls" => Ok(addr),
                other => Err(TransportError::new("reading the URL of NATS", format!("it is {other}://, not nats:// or tls://"))),
            }
        };
        self.urls.split(',').map(parse).collect()
    }

    async fn options(&self) -> Result<ConnectOptions, TransportError> {
        let mut options = ConnectOptions::new();
        if let Some(path) = &self.root_certificates {
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &self.client_certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(match &self.auth {
            Auth::OfUrl => match self.addrs()?.iter().find_map(|addr| Some((addr.username()?.to_owned(), addr.password()))) {
                Some((user, Some(password))) => options.user_and_password(decoded(&user), decoded(password)),
                Some((token, None)) => options.token(decoded(&token)),
                None => options,
            },
            Auth::User(user, password) => options.user_and_password(user.to_string(), password.to_string()),
            Auth::Token(token) => options.token(token.to_string()),
            Auth::Credentials(path) => options
                .credentials_file(path)
                .await
                .map_err(|error| TransportError::new("reading the credentials file", format!("{}: {error}", path.display())))?,
        })
    }
}

impl fmt::Debug for Nats {
    /// Without URLs and secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("client_name", &self.client_name).finish_non_exhaustive()
    }
}

impl Transport for Nats {
    fn check(&self) -> Result<(), TransportError> {
        self.addrs().map(drop)
    }

    fn caps(&self) -> TransportCaps {
        if self.peer_interest { TransportCaps::new("nats").peer_interest() } else { TransportCaps::new("nats") }
    }

    fn connect(&self, identity: &Identity, inbound: Inbound) -> Work<Result<Arc<dyn Link>, TransportError>> {
        let (settings, identity) = (self.clone(), identity.clone());
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            std::thread::Builder::new()
                .name("pubsub-nats".into())
                .spawn(move || live(&settings, identity, inbound, tell))
                .map_err(|error| TransportError::new("starting the thread of a link", error))?;
            let link = told.await.map_err(|_| TransportError::because("the thread of the link has ended"))??;
            Ok(Arc::new(link) as Arc<dyn Link>)
        })
    }
}

/// A link's thread: connects, tells of it, and stays until the link has ended. What is left on the runtime goes with the runtime.
fn live(settings: &Nats, identity: Identity, inbound: Inbound, mut tell: oneshot::Sender<Result<NatsLink, TransportError>>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // Who asked may have gone away.
            let _ = tell.send(Err(TransportError::new("starting the runtime of a link", error)));
            return;
        }
    };
    runtime.block_on(async {
        let fate = Arc::new(Fate::new());
        let connected = {
            let mut connecting = pin!(connect(settings, &identity, &fate));
            poll_fn(|cx| match tell.poll_closed(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => connecting.as_mut().poll(cx).map(Some),
            })
            .await
        };
        let client = match connected {
            Some(Ok(client)) => client,
            Some(Err(error)) => {
                // As above.
                let _ = tell.send(Err(error));
                return;
            }
            None => return,
        };
        let (batches, taken) = mpsc::channel(BATCHES_MAX);
        let shared = Arc::new(Shared { client, fate: Arc::clone(&fate), inbound, identity, slots: Mutex::default() });
        tokio::spawn(publish(Arc::clone(&shared), taken));
        let link = NatsLink { shared: Arc::clone(&shared), batches, runtime: Handle::current() };
        // A link that nobody takes ends itself by its drop.
        let _ = tell.send(Ok(link));
        fate.ended().await;
        // Each holds itself by its waker.
        let slots = std::mem::take(&mut *lock(&shared.slots));
        for slot in slots.into_values() {
            drop(slot.close());
        }
    });
    runtime.shutdown_background();
}

async fn connect(settings: &Nats, identity: &Identity, fate: &Arc<Fate>) -> Result<Client, TransportError> {
    let failed = |error: String| TransportError::new("connecting to NATS", error);
    let addrs = settings.addrs()?;
    let tried: Vec<_> = addrs.iter().map(|addr| format!("{}:{}", addr.host(), addr.port())).collect();
    let tried = tried.join(", ");
    let connected = Arc::new(AtomicBool::new(false));
    let (again, events) = (Arc::clone(&connected), Arc::clone(fate));
    let options = settings
        .options()
        .await?
        .name(&settings.client_name)
        .no_echo()
        .skip_subject_validation(true)
        // A server that does not answer three pings in a row is given up.
        .ping_interval(identity.failure_timeout / 4)
        .connection_timeout(identity.failure_timeout)
        .request_timeout(None)
        .custom_inbox_prefix(own_name(identity, "i"))
        // It must not come back by itself: a subject would be missed, and nobody would know.
        .reconnect_delay_callback(move |_| if again.load(Ordering::Relaxed) { NEVER } else { Duration::ZERO })
        .event_callback(move |event| {
            match event {
                Event::Disconnected | Event::Closed => events.end(TransportError::because("the connection to NATS was lost")),
                Event::ServerError(ServerError::SlowConsumer(_)) => {}
                // What it does not allow it drops: better no link than one that loses.
                Event::ServerError(error) => events.end(TransportError::new("using NATS", error)),
                _ => {}
            }
            std::future::ready(())
        });
    let time = identity.failure_timeout;
    let client = match timeout(time, options.connect(addrs)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(failed(format!("{tried}: {error}"))),
        Err(_) => return Err(failed(format!("{tried}: no answer after {time:?}"))),
    };
    connected.store(true, Ordering::Relaxed);
    let takes = client.max_payload();
    if takes < identity.frame_bytes_max {
        return Err(failed(format!("{tried}: frames are up to {} bytes, its max_payload is {takes}", identity.frame_bytes_max)));
    }
    if !client.server_info().headers {
        return Err(failed(format!("{tried}: its version is {}, it must be 2.2 or later", client.server_info().version)));
    }
    Ok(client)
}

/// Part of a URL with its `%40` as `@`. What is no such thing stays.
fn decoded(part: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(part.len()), part.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|digits| !digits.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A subject of this link alone, that no [`Subject`] has.
fn own_name(identity: &Identity, kind: &str) -> String {
    let all = Subject::All.name(&identity.cluster, '.');
    // `actix-pubsub.shop.a` to `actix-pubsub.shop.i.00000000000000ab`.
    format!("{}{kind}.{}", all.strip_suffix('a').unwrap_or(&all), identity.node)
}

/// What is given to the thread.
enum Batch {
    Frames(Vec<Outgoing>),
    /// Told when the server has read what was given before.
    Read(oneshot::Sender<()>),
}

async fn publish(shared: Arc<Shared>, mut batches: mpsc::Receiver<Batch>) {
    while let Some(batch) = batches.recv().await {
        let done = match batch {
            Batch::Frames(frames) => shared.publish_all(frames).await,
            Batch::Read(tell) => shared.round_trip().await.map(|()| {
                // Who asked may have given up.
                let _ = tell.send(());
            }),
        };
        if let Err(error) = done {
            shared.fate.end(error);
            return;
        }
    }
}

/// What the thread and the link share.
struct Shared {
    client: Client,
    fate: Arc<Fate>,
    inbound: Inbound,
    identity: Identity,
    slots: Mutex<HashMap<Subject, Arc<Slot>>>,
}

impl Shared {
    fn name(&self, subject: &Subject) -> String {
        subject.name(&self.identity.cluster, '.')
    }

    async fn publish_all(&self, frames: Vec<Outgoing>) -> Result<(), TransportError> {
        for Outgoing { subject, frame } in batches(frames) {
            let published = self.client.publish(self.name(&subject), frame).await;
            published.map_err(|error| TransportError::new("publishing at NATS", error))?;
        }
        Ok(())
    }

    /// Resolves when the server has done all that was asked before: it says that nobody listens where nobody can.
    async fn round_trip(&self) -> Result<(), TransportError> {
        let nobody = own_name(&self.identity, "s");
        match self.client.send_request(nobody, Request::new().timeout(None)).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Err(error) => Err(TransportError::new("asking NATS", error)),
        }
    }

    async fn subscribe(&self, subjects: Vec<Subject>) -> Result<(), TransportError> {
        for subject in subjects {
            if lock(&self.slots).contains_key(&subject) {
                continue;
            }
            let subscriber = self.client.subscribe(self.name(&subject)).await;
            let subscriber = subscriber.map_err(|error| TransportError::new("subscribing at NATS", error))?;
            let slot = Slot::open(subscriber, self.inbound.clone());
            lock(&self.slots).insert(subject, slot);
        }
        self.round_trip().await
    }

    async fn unsubscribe(&self, subjects: Vec<Subject>) -> Result<(), TransportError> {
        for subject in subjects {
            let slot = lock(&self.slots).remove(&subject);
            if let Some(mut subscriber) = slot.and_then(|slot| slot.close()) {
                // What is on its way is still asked for by nobody; what has arrived has been pushed.
                subscriber.unsubscribe().await.map_err(|error| TransportError::new("unsubscribing at NATS", error))?;
            }
        }
        self.round_trip().await
    }
}

/// A subscription, and what its channel wakes.
struct Slot {
    inbound: Inbound,
    subscriber: Mutex<Option<Subscriber>>,
    /// Wakes not looked after; above 0 somebody is at it.
    wakes: AtomicUsize,
}

impl Slot {
    fn open(subscriber: Subscriber, inbound: Inbound) -> Arc<Self> {
        let slot = Arc::new(Self { inbound, subscriber: Mutex::new(Some(subscriber)), wakes: AtomicUsize::new(0) });
        slot.wake_by_ref();
        slot
    }

    /// Pushes what is there, and asks to be woken for more.
    fn push_ready(&self, cx: &mut Context<'_>) {
        let mut guard = lock(&self.subscriber);
        while let Some(subscriber) = &mut *guard {
            // Without a budget: here is no task that could go on later.
            let next = pin!(unconstrained(poll_fn(|cx| Pin::new(&mut *subscriber).poll_next(cx)))).poll(cx);
            match next {
                // What does not fit is counted there.
                Poll::Ready(Some(message)) => self.inbound.push_all(frames(message.payload)),
                Poll::Ready(None) => {
                    let over = guard.take();
                    drop(guard);
                    drop(over);
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// Takes the subscription out, which holds this by its waker.
    fn close(&self) -> Option<Subscriber> {
        lock(&self.subscriber).take()
    }
}

impl Wake for Slot {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// Called by the client right after it has put a frame into the channel.
    fn wake_by_ref(self: &Arc<Self>) {
        if self.wakes.fetch_add(1, Ordering::AcqRel) > 0 {
            // Whoever is at it looks again.
            return;
        }
        let waker = Waker::from(Arc::clone(self));
        let (mut cx, mut seen) = (Context::from_waker(&waker), 1);
        loop {
            self.push_ready(&mut cx);
            match self.wakes.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(more) => seen = more,
            }
        }
    }
}

struct NatsLink {
    shared: Arc<Shared>,
    batches: mpsc::Sender<Batch>,
    runtime: Handle,
}

impl NatsLink {
    /// On the link's thread, where frames are put into channels: none is put there between two looks of `work`.
    fn on_thread<F>(&self, work: F) -> Work<Result<(), TransportError>>
    where
        F: Future<Output = Result<(), TransportError>> + Send + 'static,
    {
        let (fate, runtime, time) = (Arc::clone(&self.shared.fate), self.runtime.clone(), self.shared.identity.failure_timeout);
        Box::pin(async move {
            let done = fate.within(time, runtime.spawn(work)).await?;
            let done = done.unwrap_or_else(|_| Err(TransportError::because("the thread of the link has ended")));
            done.map_err(|error| fate.fail(error))
        })
    }
}

impl Link for NatsLink {
    fn send(&self, frames: Vec<Outgoing>) -> Work<Result<(), TransportError>> {
        let (batches, fate) = (self.batches.clone(), Arc::clone(&self.shared.fate));
        Box::pin(async move {
            let sent = fate.unless_ended(batches.send(Batch::Frames(frames))).await?;
            sent.map_err(|_| TransportError::because("the thread of the link has ended"))
        })
    }

    fn subscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        let shared = Arc::clone(&self.shared);
        self.on_thread(async move { shared.subscribe(subjects).await })
    }

    fn unsubscribe(&self, subjects: Vec<Subject>) -> Work<Result<(), TransportError>> {
        let shared = Arc::clone(&self.shared);
        self.on_thread(async move { shared.unsubscribe(subjects).await })
    }

    fn ended(&self) -> Work<TransportError> {
        let fate = Arc::clone(&self.shared.fate);
        Box::pin(async move { fate.ended().await })
    }

    fn close(&self) -> Work<()> {
        let (batches, fate, time) = (self.batches.clone(), Arc::clone(&self.shared.fate), self.shared.identity.failure_timeout);
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            let read = async {
                if batches.send(Batch::Read(tell)).await.is_ok() {
                    // An error is the end of the link, which is wanted.
                    let _ = told.await;
                }
            };
            // Closed in either case.
            let _ = fate.within(time, read).await;
            fate.end(TransportError::because("the link was closed"));
        })
    }
}

impl Drop for NatsLink {
    fn drop(&mut self) {
        self.shared.fate.end(TransportError::because("the link was dropped"));
    }
}

/// Batches that wait for the thread; behind it the client queues 2,048 frames.
const BATCHES_MAX: usize = 4;
/// Longer than any process.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_right_are_refused_and_a_secret_is_not_printed() {
        for good in ["nats://h", "h:1", "tls://h:4443", "nats://u:secret@h:1,nats://h:2", "nats://[::1]:4222"] {
            assert!(Nats::new(good).check().is_ok(), "{good}");
            let shown = format!("{:?}", Nats::new(good).token("secret"));
            assert!(!shown.contains("secret"), "{shown}");
        }
        assert_eq!([decoded("p%40ss%2f"), decoded("100%"), decoded("%+1%é")], ["p@ss/", "100%", "%+1%é"]);
        for bad in ["", "http://h", "nats://h,", "nats://h:port", "wss://h"] {
            assert!(Nats::new(bad).check().is_err(), "{bad:?}");
        }
    }
}
