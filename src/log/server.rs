//! Server: what the settings of a store on a server hold, whichever server it is. Knows no protocol.

use std::fmt;
use std::time::Duration;

use crate::log::entry::Limits;

/// Settings that every such store has.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    pub(crate) url: Url,
    pub(crate) prefix: String,
    pub(crate) limits: Limits,
    pub(crate) dedup_window: Duration,
    timeout: Duration,
}

/// Not printed: it may hold a password.
#[derive(Clone)]
pub(crate) struct Url(pub(crate) String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl ServerSettings {
    pub(crate) fn new(url: &str, prefix: &str, limits: Limits) -> Self {
        let (dedup_window, timeout) = (DEDUP_WINDOW_DEFAULT, TIMEOUT_DEFAULT);
        Self { url: Url(url.to_owned()), prefix: prefix.to_owned(), limits, dedup_window, timeout }
    }

    /// Within its bounds.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout.clamp(TIMEOUT_MIN, TIMEOUT_MAX);
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// How long an idempotency key is known, unless told otherwise.
pub(crate) const DEDUP_WINDOW_DEFAULT: Duration = Duration::from_secs(600);
/// How long a request waits for the server, unless told otherwise.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// The least and the most that it may be told: none would never be answered, and a longer one is a hang.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_is_within_its_bounds_and_a_url_is_not_printed() {
        let mut settings = ServerSettings::new("redis://me:secret@localhost", "p", Limits::default());
        for (given, is) in [(Duration::ZERO, TIMEOUT_MIN), (TIMEOUT_MAX, TIMEOUT_MAX), (Duration::MAX, TIMEOUT_MAX)] {
            settings.set_timeout(given);
            assert_eq!(settings.timeout(), is);
        }
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
