//! Address: which store an example uses, `memory`, `file:PATH`, `redis://…` or `nats://…`. Opens it; knows nothing of what is in it.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::Store;

/// Where a log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Memory,
    File(PathBuf),
    Redis(String),
    Nats(String),
}

impl Address {
    /// Opens the store; makes the file if there is none. A server is not asked yet whether it is there. `example` is the name of the program, for the
    /// command that a message recommends.
    pub(crate) fn open(&self, example: &str) -> Result<Arc<dyn Store>, CannotOpen> {
        let opened: Result<Arc<dyn Store>, Box<dyn Error>> = match self {
            Self::Memory => Ok(Arc::new(MemoryStore::new())),
            #[cfg(feature = "embedded")]
            Self::File(path) => opened(actix_pubsub::log::EmbeddedStore::open(path)),
            #[cfg(feature = "redis")]
            Self::Redis(url) => opened(actix_pubsub::log::RedisStore::new(url)),
            #[cfg(feature = "jetstream")]
            Self::Nats(url) => opened(actix_pubsub::log::JetStreamStore::new(url)),
            #[cfg(not(all(feature = "embedded", feature = "redis", feature = "jetstream")))]
            _ => Err(self.missing(example)),
        };
        // With every store built in, no message recommends a command.
        let _ = example;
        opened.map_err(|source| CannotOpen { address: self.to_string(), source })
    }

    /// This program was built without the store.
    #[cfg(not(all(feature = "embedded", feature = "redis", feature = "jetstream")))]
    fn missing(&self, example: &str) -> Box<dyn Error> {
        let feature = match self {
            Self::Memory | Self::File(_) => "embedded",
            Self::Redis(_) => "redis",
            Self::Nats(_) => "jetstream",
        };
        let option = if example == "logctl" { "" } else { "--store " };
        let command = format!("cargo run --features {feature} --example {example} -- {option}{self}");
        format!("this {example} was built without the feature {feature}; type: {command}").into()
    }

    /// Whether what is in it is there for the next process, too.
    pub(crate) fn is_kept(&self) -> bool {
        *self != Self::Memory
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        match scheme {
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "file" if !rest.is_empty() => Ok(Self::File(PathBuf::from(rest))),
            "redis" | "rediss" if rest.starts_with("//") => Ok(Self::Redis(text.to_owned())),
            "nats" | "tls" if rest.starts_with("//") => Ok(Self::Nats(text.to_owned())),
            _ => Err(format!("{text:?} is no store: memory, file:PATH, redis://HOST:PORT or nats://HOST:PORT")),
        }
    }
}

/// Which store was not opened; the source says why.
#[derive(Debug)]
pub(crate) struct CannotOpen {
    address: String,
    source: Box<dyn Error>,
}

impl fmt::Display for CannotOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot open {}", self.address)
    }
}

impl Error for CannotOpen {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// Without the password: this is printed.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Redis(url) | Self::Nats(url) => match (url.split_once("://"), url.rsplit_once('@')) {
                (Some((scheme, _)), Some((_, host))) => write!(f, "{scheme}://{host}"),
                _ => f.write_str(url),
            },
        }
    }
}

#[cfg(any(feature = "embedded", feature = "redis", feature = "jetstream"))]
fn opened<S: Store, E: Error + 'static>(store: Result<S, E>) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    Ok(Arc::new(store?))
}
