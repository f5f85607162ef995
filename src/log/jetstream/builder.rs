//! Builder: a store's settings, checked. Knows no server.

use std::sync::Arc;
use std::time::Duration;

use crate::log::entry::Limits;
use crate::log::error::StoreError;
use crate::log::jetstream::JetStreamStore;
use crate::log::server::ServerSettings;

/// Settings of a [`JetStreamStore`]; [`open`](Self::open) makes it.
///
/// Several nodes that share a log give the same prefix. Settings of streams (replicas, storage, window, bytes) count for topics that are made with
/// them; a topic that exists is used as it is.
#[derive(Debug, Clone)]
pub struct JetStreamBuilder {
    pub(super) server: ServerSettings,
    pub(super) replicas: u8,
    pub(super) storage: JetStreamStorage,
    pub(super) topic_bytes: Option<u64>,
}

/// Where the server keeps entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum JetStreamStorage {
    /// In files, synced by the server every two minutes unless it is configured otherwise.
    #[default]
    File,
    /// In the server's memory: gone with it, unless replicas have it.
    Memory,
}

impl JetStreamBuilder {
    /// The longest prefix, in bytes.
    pub const PREFIX_BYTES_MAX: usize = 32;

    pub(super) fn new(url: &str) -> Self {
        Self {
            server: ServerSettings::new(url, "pubsub", Limits::default().entry_bytes(JetStreamStore::ENTRY_BYTES_DEFAULT)),
            replicas: 1,
            storage: JetStreamStorage::File,
            topic_bytes: None,
        }
    }

    /// What its streams and subjects begin with: 1 to 32 letters, digits, `-` and `_`. Default: `pubsub`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.server.prefix = prefix.into();
        self
    }

    /// What it takes at once. The server's `max_payload` counts, too, with what the headers take on the wire.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.server.limits = limits;
        self
    }

    /// How long an idempotency key is known. The server keeps those keys in memory. Default: 10 minutes.
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.server.dedup_window = window;
        self
    }

    /// After how long a request fails that is not answered: a millisecond to an hour. Default: 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.server.set_timeout(timeout);
        self
    }

    /// On how many servers of a cluster each topic is kept: 1, 3 or 5. Default: 1.
    pub fn replicas(mut self, replicas: u8) -> Self {
        self.replicas = replicas;
        self
    }

    /// Where the server keeps entries. Default: files.
    pub fn storage(mut self, storage: JetStreamStorage) -> Self {
        self.storage = storage;
        self
    }

    /// The most bytes of a topic, as the server counts them: an append beyond is [`StoreError::Full`], nothing is dropped to make room. Default: no limit.
    pub fn topic_bytes(mut self, max: u64) -> Self {
        self.topic_bytes = Some(max);
        self
    }

    /// Starts the store. Connects in the background: a server that is not there yet is waited for, by each request within its time-out.
    ///
    /// # Errors
    /// [`StoreError::Engine`] for a URL or a prefix that is none, and if the system gives no thread.
    pub fn open(self) -> Result<JetStreamStore, StoreError> {
        let prefix = &self.server.prefix;
        let fits = (1..=Self::PREFIX_BYTES_MAX).contains(&prefix.len());
        if !fits || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(StoreError::Engine { source: Arc::new(BadPrefix(self.server.prefix)) });
        }
        JetStreamStore::start(self)
    }
}

#[derive(Debug)]
struct BadPrefix(String);

impl std::fmt::Display for BadPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let max = JetStreamBuilder::PREFIX_BYTES_MAX;
        write!(f, "prefix {:?} is not 1 to {max} letters, digits, `-` and `_`", self.0)
    }
}

impl std::error::Error for BadPrefix {}
