//! Client: sends commands, over again where that is safe, within a time-out, and says what became of them. Knows no topic's content.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Cmd;
use redis::Pipeline;
use redis::RedisError;
use redis::ServerErrorKind;
use redis::Value;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::log::entry::Group;
use crate::log::entry::Limits;
use crate::log::error::Outcome;
use crate::log::error::StoreError;
use crate::log::redis::address::client_at;
use crate::log::redis::error::Fault;
use crate::log::redis::error::is_busy;
use crate::log::redis::error::refused;
use crate::log::redis::error::unavailable;
use crate::log::redis::groups::Gates;
use crate::log::redis::keys::Keys;
use crate::log::redis::link::Home;
use crate::log::redis::link::Link;
use crate::log::redis::link::Ready;
use crate::log::redis::link::Role;
use crate::log::redis::page::Sizes;
use crate::log::redis::script;
use crate::log::server::ServerSettings;
use crate::log::watch::Watches;

/// What the handles of one store share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) keys: Keys,
    pub(super) limits: Limits,
    pub(super) dedup_window: Duration,
    pub(super) timeout: Duration,
    /// For everything that is asked.
    pub(super) main: Arc<Link>,
    /// For what is waited for: the server tells when a key that was read here changes.
    pub(super) told: Arc<Link>,
    /// Who waits for which topic.
    pub(super) watches: Arc<Watches>,
    pub(super) gates: Gates,
    pub(super) sizes: Sizes,
    nonces: (u64, AtomicU64),
    /// The thread that both links live on.
    pub(super) home: Home,
}

/// What may be done when an answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It only reads: ask again.
    Read,
    /// Doing it twice is doing it once: ask again.
    Same,
    /// Nothing: the caller decides.
    Never,
}

/// One command, or several in one go.
#[derive(Debug)]
pub(super) enum Request {
    One(Cmd),
    Many(Pipeline),
}

impl Request {
    async fn send(&self, ready: &mut Ready) -> Result<Value, RedisError> {
        match self {
            Self::One(command) => ready.one(command).await,
            Self::Many(commands) => ready.many(commands).await,
        }
    }

    /// An error that concerns the whole request. What one of several commands failed with is in its place in the answer.
    fn fault(&self, answer: &Value) -> Option<RedisError> {
        match (self, answer) {
            (Self::One(_), answer) => error_in(answer),
            (Self::Many(_), Value::Array(answers)) => {
                answers.iter().filter_map(error_in).find(|error| is_busy(error) || is_no_script(error))
            }
            _ => None,
        }
    }
}

/// The error that an answer is.
pub(super) fn error_in(value: &Value) -> Option<RedisError> {
    match value {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}

impl Shared {
    pub(super) fn new(settings: &ServerSettings, root_certificate: Option<&[u8]>) -> Result<Arc<Self>, StoreError> {
        let keys = Keys::new(&settings.prefix).ok_or_else(|| Fault::Prefix.engine())?;
        let client = client_at(&settings.url.0, root_certificate).map_err(|error| refused(error, None))?;
        let home = Home::start().map_err(|error| Fault::Thread(error).engine())?;
        let watches = Arc::new(Watches::default());
        let changed = {
            let (watches, keys) = (Arc::clone(&watches), keys.clone());
            move |key: Option<&[u8]>| match key {
                Some(key) => {
                    if let Some(topic) = keys.topic(key) {
                        watches.moved(&topic);
                    }
                }
                None => watches.moved_all(),
            }
        };
        let main = Role { setup: script::load(), changed: None };
        let told = Role { setup: Vec::new(), changed: Some(Arc::new(changed)) };
        Ok(Arc::new(Self {
            keys,
            limits: settings.limits,
            dedup_window: settings.dedup_window,
            timeout: settings.timeout(),
            main: Link::new(&home, client.clone(), settings.timeout(), main),
            told: Link::new(&home, client, settings.timeout(), told),
            watches,
            gates: Gates::default(),
            sizes: Sizes::default(),
            nonces: (RandomState::new().hash_one(std::process::id()), AtomicU64::new(0)),
            home,
        }))
    }

    /// A text that no other call of any process has.
    pub(super) fn nonce(&self) -> String {
        format!("{:016x}-{:x}", self.nonces.0, self.nonces.1.fetch_add(1, Ordering::Relaxed))
    }

    /// One command on the main connection.
    pub(super) async fn ask(&self, command: Cmd, again: Again, group: Option<&Group>) -> Result<Value, StoreError> {
        self.send(&self.main, &Request::One(command), again, group).await
    }

    pub(super) async fn send(
        &self,
        link: &Link,
        request: &Request,
        again: Again,
        group: Option<&Group>,
    ) -> Result<Value, StoreError> {
        let deadline = Instant::now() + self.timeout;
        let (mut sent, mut loaded) = (false, false);
        let unknown = |sent: bool| if sent && again != Again::Read { Outcome::Unknown } else { Outcome::NotDone };
        loop {
            let mut ready = link.ready(deadline).await.map_err(|error| match error {
                StoreError::Unavailable { source, .. } => StoreError::Unavailable { outcome: unknown(sent), source },
                other => other,
            })?;
            let answer = timeout_at(deadline, request.send(&mut ready)).await;
            let error = match answer {
                Ok(Ok(value)) => match request.fault(&value) {
                    None => return Ok(value),
                    Some(error) => error,
                },
                // The connection ended under it.
                Ok(Err(error)) => {
                    link.lost(&ready);
                    if again == Again::Never {
                        return Err(unavailable(error, Outcome::Unknown));
                    }
                    sent = true;
                    continue;
                }
                Err(_) => {
                    link.lost(&ready);
                    return Err(Fault::NoAnswer(self.timeout).unavailable(unknown(true)));
                }
            };
            // From here on the server has answered that it did not do it; an earlier attempt may have been done all the same.
            if is_no_script(&error) && !loaded {
                loaded = true;
                for command in script::load() {
                    // Where that fails, so does what needs it.
                    let _ = timeout_at(deadline, ready.one(&command)).await;
                }
            } else if is_busy(&error) && Instant::now() + BUSY_PAUSE < deadline {
                tokio::time::sleep(BUSY_PAUSE).await;
            } else {
                return Err(match refused(error, group) {
                    StoreError::Unavailable { source, .. } => StoreError::Unavailable { outcome: unknown(sent), source },
                    other => other,
                });
            }
        }
    }
}

/// Before asking a server again that is starting or has a script to end.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
