//! Connection: a thread with a connection to the server on it, made anew when it is lost. Knows requests, not what they ask for.
//!
//! async-nats, left alone, keeps what is published while it is disconnected and sends it once it is back: minutes after we said that it was not
//! done. So a connection lives once. When it is lost its runtime goes, with all that was waiting to be sent, and the next one starts empty.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Client;
use async_nats::ConnectOptions;
use async_nats::Event;
use async_nats::HeaderMap;
use async_nats::Message;
use async_nats::Request;
use async_nats::RequestErrorKind;
use async_nats::ServerAddr;
use bytes::Bytes;
use futures_util::future::Either;
use futures_util::future::select;
use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio::time::timeout_at;

use crate::log::error::Cause;
use crate::log::error::Outcome;
use crate::log::error::StoreError;

/// One connection, from its making to its loss.
pub(super) struct Connection {
    pub(super) client: Client,
    /// Grows from one connection to the next.
    pub(super) generation: u64,
    runtime: Handle,
    dead: watch::Receiver<bool>,
    /// Kept by every task that must end before the runtime does.
    busy: mpsc::Sender<()>,
}

impl Connection {
    /// Resolves when it is lost.
    pub(super) async fn lost(&self) {
        // An error is the end of the runtime that had the sender: lost as well.
        let _ = self.dead.clone().wait_for(|dead| *dead).await;
    }

    /// The answer of `asked`; `None`: the connection was lost first.
    pub(super) async fn while_up<F: Future>(&self, asked: F) -> Option<F::Output> {
        match select(pin!(asked), pin!(self.lost())).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    fn is_lost(&self) -> bool {
        *self.dead.borrow() || self.dead.has_changed().is_err()
    }

    /// Runs `task` on the connection's thread, whatever becomes of the caller; it ends with the connection.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let busy = self.busy.clone();
        self.runtime.spawn(async move {
            task.await;
            drop(busy);
        });
    }
}

#[derive(Clone)]
enum State {
    Up(Arc<Connection>),
    Down(Cause),
}

/// The way to the server, over any number of connections. Its drop ends the thread, after what was under way.
pub(super) struct Link {
    state: watch::Receiver<State>,
    _stop: oneshot::Sender<()>,
}

/// A request may be repeated if its answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Doing it twice is doing it once.
    Yes,
    /// Once sent, it is sent.
    No,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The server says that nobody listens to that subject: it was not done.
    NoResponders,
    Failed(StoreError),
}

impl Link {
    /// Starts the thread; connects in the background, and for as long as it takes.
    pub(super) fn start(urls: &str, timeout: Duration) -> Result<Self, StoreError> {
        let refused = |error: io::Error| StoreError::Engine { source: Arc::new(error) };
        let addrs: Vec<ServerAddr> =
            urls.split(',').map(|url| ServerAddr::from_str(url.trim())).collect::<Result<_, _>>().map_err(refused)?;
        let (tell, state) = watch::channel(State::Down(Arc::new(NotConnected)));
        let (stop, stopped) = oneshot::channel();
        let thread = Thread { addrs, timeout, tell, stopped, generation: 0, failures: 0 };
        std::thread::Builder::new().name("pubsub-jetstream".to_owned()).spawn(|| thread.run()).map_err(refused)?;
        Ok(Self { state, _stop: stop })
    }

    /// The connection, once there is one.
    pub(super) async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, StoreError> {
        let mut state = self.state.clone();
        let up = |state: &State| matches!(state, State::Up(connection) if !connection.is_lost());
        let found = timeout_at(deadline, state.wait_for(up)).await;
        if let Ok(Ok(found)) = &found
            && let State::Up(connection) = &**found
        {
            return Ok(Arc::clone(connection));
        }
        drop(found);
        let source: Cause = match &*self.state.borrow() {
            State::Down(cause) => Arc::clone(cause),
            State::Up(_) => Arc::new(NotConnected),
        };
        Err(StoreError::Unavailable { outcome: Outcome::NotDone, source })
    }

    /// What the connected server takes in one message; `None`: not connected.
    pub(super) fn max_payload(&self) -> Option<usize> {
        match &*self.state.borrow() {
            State::Up(connection) => Some(connection.client.max_payload()),
            State::Down(_) => None,
        }
    }

    /// The connected server is of this version, or later.
    pub(super) fn has_server(&self, at_least: (u32, u32, u32)) -> bool {
        match &*self.state.borrow() {
            State::Up(connection) => version(&connection.client.server_info().version).is_some_and(|is| is >= at_least),
            State::Down(_) => false,
        }
    }

    /// Asks, and asks again while `again` allows it and there is time.
    pub(super) async fn request(
        &self,
        subject: &str,
        headers: Option<&HeaderMap>,
        payload: &Bytes,
        again: Again,
        deadline: Instant,
    ) -> Result<Message, NoAnswer> {
        let mut outcome = Outcome::NotDone;
        loop {
            let connection = match self.connection(deadline).await {
                Err(StoreError::Unavailable { source, .. }) => {
                    return Err(NoAnswer::Failed(StoreError::Unavailable { outcome, source }));
                }
                other => other.map_err(NoAnswer::Failed)?,
            };
            let mut request = Request::new().payload(payload.clone()).timeout(None);
            if let Some(headers) = headers {
                request = request.headers(headers.clone());
            }
            let answer = connection.client.send_request(subject.to_owned(), request);
            let source: Cause = match timeout_at(deadline, connection.while_up(answer)).await {
                Ok(Some(Ok(message))) => return Ok(message),
                Ok(Some(Err(error))) => match error.kind() {
                    // Nothing of an earlier try, either: who repeats asks for the same.
                    RequestErrorKind::NoResponders => return Err(NoAnswer::NoResponders),
                    RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                        return Err(NoAnswer::Failed(StoreError::Engine { source: Arc::new(error) }));
                    }
                    _ => Arc::new(error),
                },
                Ok(None) => Arc::new(ConnectionLost),
                Err(elapsed) => return Err(NoAnswer::Failed(unknown(Arc::new(elapsed)))),
            };
            if again == Again::No {
                return Err(NoAnswer::Failed(unknown(source)));
            }
            outcome = Outcome::Unknown;
            // The connection may fail before its loss is known here.
            let _ = timeout_at(deadline, sleep(RETRY_PAUSE)).await;
        }
    }
}

/// `2.9.10`, `2.10.0-beta.1`.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split(['.', '-', '+']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

pub(super) fn unknown(source: Cause) -> StoreError {
    StoreError::Unavailable { outcome: Outcome::Unknown, source }
}

/// What a message of the server's own says, instead of an entry.
///
/// One that has to be acked is an entry, whatever another program wrote before its headers.
pub(super) fn status(message: &Message) -> Option<u16> {
    let is_entry = message.reply.as_ref().is_some_and(|reply| reply.starts_with("$JS.ACK."));
    message.status.filter(|_| !is_entry).map(|status| status.as_u16())
}

/// Why a request has failed was a lost connection, as far as one can tell.
pub(super) fn is_lost(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { outcome: Outcome::Unknown, .. })
}

struct Thread {
    addrs: Vec<ServerAddr>,
    timeout: Duration,
    tell: watch::Sender<State>,
    stopped: oneshot::Receiver<()>,
    generation: u64,
    failures: u32,
}

enum End {
    Lost(Cause),
    Stopped,
}

impl Thread {
    fn run(mut self) {
        loop {
            let end = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => self.live(&runtime),
                Err(error) => {
                    std::thread::sleep(PAUSE_MAX);
                    let stopped = !matches!(self.stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty));
                    if stopped { End::Stopped } else { End::Lost(Arc::new(error)) }
                }
            };
            match end {
                End::Lost(cause) => {
                    tracing::debug!(error = %cause, "jetstream connection lost");
                    self.tell.send_replace(State::Down(cause));
                }
                End::Stopped => return,
            }
        }
    }

    /// One connection's life. What it left on the runtime goes with the runtime.
    fn live(&mut self, runtime: &Runtime) -> End {
        runtime.block_on(async {
            let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(self.failures.min(10))).min(PAUSE_MAX);
            if self.failures > 0 && timeout(pause, &mut self.stopped).await.is_ok() {
                return End::Stopped;
            }
            self.failures += 1;
            let (kill, dead) = watch::channel(false);
            let connected = Arc::new(AtomicBool::new(false));
            let again = Arc::clone(&connected);
            let options = ConnectOptions::new()
                .name("actix-pubsub")
                .ping_interval(PING_INTERVAL)
                .connection_timeout(self.timeout.min(CONNECT_TIMEOUT_MAX))
                .request_timeout(None)
                // It must not come back by itself: see the top of this file.
                .reconnect_delay_callback(move |_| if again.load(Ordering::Relaxed) { NEVER } else { Duration::ZERO })
                .event_callback(move |event| {
                    if matches!(event, Event::Disconnected | Event::Closed) {
                        kill.send_replace(true);
                    }
                    std::future::ready(())
                });
            let client = match select(pin!(options.connect(self.addrs.clone())), &mut self.stopped).await {
                Either::Left((Ok(client), _)) => client,
                Either::Left((Err(error), _)) => return End::Lost(Arc::new(error)),
                Either::Right(_) => return End::Stopped,
            };
            connected.store(true, Ordering::Relaxed);
            self.failures = 0;
            self.generation += 1;
            let (busy, mut idle) = mpsc::channel(1);
            let connection =
                Connection { client: client.clone(), generation: self.generation, runtime: Handle::current(), dead, busy };
            let connection = Arc::new(connection);
            self.tell.send_replace(State::Up(Arc::clone(&connection)));
            let stopped = matches!(select(pin!(connection.lost()), &mut self.stopped).await, Either::Right(_));
            if !stopped {
                return End::Lost(Arc::new(ConnectionLost));
            }
            // Nobody is left to start anything; what was started may end.
            self.tell.send_replace(State::Down(Arc::new(NotConnected)));
            drop(connection);
            let _ = timeout(self.timeout, idle.recv()).await;
            let _ = timeout(self.timeout, client.flush()).await;
            End::Stopped
        })
    }
}

#[derive(Debug)]
struct NotConnected;

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not connected to a server")
    }
}

impl Error for NotConnected {}

#[derive(Debug)]
pub(super) struct ConnectionLost;

impl fmt::Display for ConnectionLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection to the server was lost")
    }
}

impl Error for ConnectionLost {}

/// A silent server is given up after three of these.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// Between two tries to connect: from, to.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Before a request is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// One server's time to answer a connection.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Longer than any process.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(version("2.9.10"), Some((2, 9, 10)));
        assert!(version("2.10.0-beta.1") > version("2.9.15"));
        assert_eq!(version("dev"), None);
    }
}
