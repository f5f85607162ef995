//! Link: one connection that is always there again, and the thread that its tasks live on. Knows no command of the log.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::Client;
use redis::Cmd;
use redis::Pipeline;
use redis::PushInfo;
use redis::PushKind;
use redis::RedisError;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;

use crate::log::error::Outcome;
use crate::log::error::StoreError;
use crate::log::redis::error::Fault;
use crate::log::redis::error::is_refusal;
use crate::log::redis::error::refused;

/// A thread with a runtime of its own: connections made there do not die with the arbiter that first needed them. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Home {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Home {
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new().name("pubsub-redis".into()).spawn(move || {
            runtime.block_on(async {
                // Dropping the other half is the signal.
                let _ = stopped.await;
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _stop: stop })
    }

    /// Does `work` on that thread, until it is done or nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        struct Abort(AbortHandle);
        impl Drop for Abort {
            fn drop(&mut self) {
                self.0.abort();
            }
        }
        let task = self.handle.spawn(work);
        let _abort = Abort(task.abort_handle());
        match task.await {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The thread ended.
                Err(_) => Err(StoreError::Closed),
            },
        }
    }
}

/// One connection, made when it is first needed, and again whenever it is lost.
pub(super) struct Link {
    state: watch::Sender<State>,
    wanted: Notify,
    timeout: Duration,
    /// The server tells when a key changes that was read here.
    tracking: AtomicBool,
}

#[derive(Clone)]
enum State {
    Away(Option<RedisError>),
    Ready(Ready),
}

/// A connection as it is now.
#[derive(Clone)]
pub(super) struct Ready {
    connection: MultiplexedConnection,
    lost: Arc<Notify>,
}

impl Ready {
    pub(super) async fn one(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        self.connection.send_packed_command(command).await
    }

    pub(super) async fn many(&mut self, commands: &Pipeline) -> Result<Value, RedisError> {
        self.connection.send_packed_commands(commands, 0, commands.len()).await.map(Value::Array)
    }
}

/// What a link does besides connecting.
pub(super) struct Role {
    /// Sent on each new connection.
    pub(super) setup: Vec<Cmd>,
    /// Ask the server to tell of changes to what is read on this connection, and tell them here.
    pub(super) changed: Option<Changed>,
}

/// Told which key changed; `None`: any may have.
pub(super) type Changed = Arc<dyn Fn(Option<&[u8]>) + Send + Sync>;

impl Link {
    pub(super) fn new(home: &Home, client: Client, timeout: Duration, role: Role) -> Arc<Self> {
        let link = Arc::new(Self {
            state: watch::Sender::new(State::Away(None)),
            wanted: Notify::new(),
            timeout,
            tracking: AtomicBool::new(false),
        });
        home.handle.spawn(keep(Arc::clone(&link), client, role));
        link
    }

    /// The connection, waiting for it until `deadline`.
    pub(super) async fn ready(&self, deadline: Instant) -> Result<Ready, StoreError> {
        if let State::Ready(ready) = &*self.state.borrow() {
            return Ok(ready.clone());
        }
        self.wanted.notify_one();
        let mut state = self.state.subscribe();
        let settled = |state: &State| match state {
            State::Ready(_) => true,
            State::Away(error) => error.as_ref().is_some_and(is_refusal),
        };
        let answer = match timeout_at(deadline, state.wait_for(settled)).await {
            Ok(Ok(state)) => Some(state.clone()),
            // In time not, or the runtime is gone.
            Ok(Err(_)) | Err(_) => None,
        };
        match answer {
            Some(State::Ready(ready)) => Ok(ready),
            Some(State::Away(Some(error))) => Err(refused(error, None)),
            Some(State::Away(None)) | None => {
                let error = match &*self.state.borrow() {
                    State::Away(error) => error.clone(),
                    State::Ready(_) => None,
                };
                Err(Fault::NotConnected(self.timeout, error).unavailable(Outcome::NotDone))
            }
        }
    }

    /// This connection is of no use any more.
    pub(super) fn lost(&self, ready: &Ready) {
        self.state.send_if_modified(|state| {
            let same = matches!(state, State::Ready(now) if Arc::ptr_eq(&now.lost, &ready.lost));
            if same {
                *state = State::Away(None);
            }
            same
        });
        ready.lost.notify_one();
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(*self.state.borrow(), State::Ready(_))
    }

    /// Changes are told. `false`: who waits has to look by itself.
    pub(super) fn tells(&self) -> bool {
        self.tracking.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

/// Connects when somebody wants it, and again after each loss, until the runtime ends.
async fn keep(link: Arc<Link>, client: Client, role: Role) {
    link.wanted.notified().await;
    let mut pause = PAUSE_MIN;
    loop {
        match timeout(link.timeout, connect(&link, &client, &role)).await {
            Ok(Ok(ready)) => {
                pause = PAUSE_MIN;
                link.state.send_replace(State::Ready(ready.clone()));
                watch_over(&link, ready, &role).await;
                link.state.send_replace(State::Away(None));
                if let Some(changed) = &role.changed {
                    // What changed meanwhile nobody will tell.
                    changed(None);
                }
            }
            Ok(Err(error)) => {
                link.state.send_replace(State::Away(Some(error)));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            // That was a pause.
            Err(_) => {}
        }
    }
}

async fn connect(link: &Arc<Link>, client: &Client, role: &Role) -> Result<Ready, RedisError> {
    let lost = Arc::new(Notify::new());
    let (on_loss, changed) = (Arc::clone(&lost), role.changed.clone());
    let pushed = move |push: PushInfo| {
        match (push.kind, &changed) {
            (PushKind::Disconnection, _) => on_loss.notify_one(),
            (PushKind::Invalidate, Some(changed)) => match push.data.first() {
                Some(Value::Array(keys)) => keys.iter().for_each(|key| match key {
                    Value::BulkString(key) => changed(Some(key)),
                    _ => changed(None),
                }),
                // The whole database was emptied.
                _ => changed(None),
            },
            _ => {}
        }
        Ok::<(), ()>(())
    };
    // Time-outs are the caller's; a connection that is slow to come is given up by `keep`.
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(PIPELINE_COMMANDS)
        .set_push_sender(pushed);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut ready = Ready { connection, lost };
    for command in &role.setup {
        // What is not allowed here fails where it is needed.
        ready.one(command).await?;
    }
    if role.changed.is_some() {
        let told = ready.one(redis::cmd("CLIENT").arg("TRACKING").arg("ON")).await?;
        link.tracking.store(told.extract_error().is_ok(), Ordering::Relaxed);
    }
    Ok(ready)
}

/// Returns when the connection is lost, or does not answer.
async fn watch_over(link: &Link, mut ready: Ready, role: &Role) {
    let lost = Arc::clone(&ready.lost);
    let mut heard = Instant::now();
    loop {
        let polls = role.changed.as_ref().filter(|_| !link.tells());
        let pause = if polls.is_some() { POLL } else { link.timeout };
        if timeout(pause, lost.notified()).await.is_ok() {
            return;
        }
        if let Some(changed) = polls {
            changed(None);
        }
        if heard.elapsed() >= link.timeout {
            match timeout(link.timeout, ready.one(&redis::cmd("PING"))).await {
                Ok(Ok(_)) => heard = Instant::now(),
                _ => return,
            }
        }
    }
}

/// Between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How often changes are looked for where the server may not tell them.
const POLL: Duration = Duration::from_millis(100);
/// Commands on their way to the connection's task.
const PIPELINE_COMMANDS: usize = 1_024;
