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
    /// Opens the store; makes the file if there is none. `example` is the name of the program, for the command that a message recommends.
    pub(crate) async fn open(&self, example: &str) -> Result<Arc<dyn Store>, Box<dyn Error>> {
        match self {
            Self::Memory => Ok(Arc::new(MemoryStore::new())),
            Self::File(path) => file(path, example).await,
            Self::Redis(url) => redis(url, example).await,
            Self::Nats(url) => nats(url, example).await,
        }
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

/// A store that this program was built without.
fn missing(feature: &str, address: &str, example: &str) -> Box<dyn Error> {
    format!(
        "this {example} was built without the feature {feature}; type: cargo run --features {feature} --example {example} -- {address}"
    )
    .into()
}

async fn file(path: &std::path::Path, example: &str) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    Err(missing("embedded", &format!("file:{}", path.display()), example))
}

async fn redis(url: &str, example: &str) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    Err(missing("redis", url, example))
}

async fn nats(url: &str, example: &str) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    Err(missing("jetstream", url, example))
}
