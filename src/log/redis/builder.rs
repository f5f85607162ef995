//! Builder: a store's settings, checked. Knows no server.

use std::time::Duration;

use crate::log::entry::Limits;
use crate::log::error::StoreError;
use crate::log::redis::RedisStore;
use crate::log::redis::client::Shared;
use crate::log::server::ServerSettings;

/// Settings of a [`RedisStore`]; [`open`](Self::open) makes it.
#[derive(Debug, Clone)]
pub struct RedisBuilder {
    pub(super) server: ServerSettings,
    root_certificate: Option<Box<[u8]>>,
}

impl RedisBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self { server: ServerSettings::new(url, "", Limits::default()), root_certificate: None }
    }

    /// Put before each topic to make the key of its stream. None by default, so that `orders` is the stream `orders`; without `*` and control characters.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.server.prefix = prefix.into();
        self
    }

    /// What the store takes at once.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.server.limits = limits;
        self
    }

    /// For `rediss://` (feature `redis-tls`): a certificate as PEM that the server's is signed by, instead of those that the system trusts.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Box<[u8]>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// How long an idempotency key is known; at least a millisecond.
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.server.dedup_window = window;
        self
    }

    /// How long a method waits for the server, to connect and to answer: a millisecond to an hour. A `fetch` besides waits for entries.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.server.set_timeout(timeout);
        self
    }

    /// The store. Connects when it is first used.
    ///
    /// # Errors
    /// [`StoreError::Engine`] if the URL is none, or the prefix may not be one.
    pub fn open(self) -> Result<RedisStore, StoreError> {
        Ok(RedisStore { shared: Shared::new(&self.server, self.root_certificate.as_deref())? })
    }
}
