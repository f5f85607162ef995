//! Board: what all dashboards of one pub/sub share: snapshots, the record of the last minutes, and who watches. Keeps no pub/sub but its own.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use actix_web::error::BlockingError;
use actix_web::web;
use tokio::sync::Mutex;

use crate::local::stats::SubscriptionStats;
use crate::local::stats::TopicStats;
use crate::pubsub::PubSub;
use crate::web::dashboard::groups::Groups;
use crate::web::dashboard::groups::Reads;
use crate::web::dashboard::kept::Kept;
use crate::web::dashboard::live::Watchers;
use crate::web::dashboard::record::Overview;
use crate::web::dashboard::record::Rates;
use crate::web::dashboard::record::Record;

pub(crate) struct Board {
    pub(crate) topics: Kept<(), Snapshot<TopicStats>>,
    pub(crate) subscriptions: Kept<(), Snapshot<SubscriptionStats>>,
    pub(crate) groups: Mutex<Option<(Instant, Reads, Arc<Groups>)>>,
    pub(crate) watchers: Watchers,
    record: Arc<Mutex<Record>>,
    /// What people call this node.
    pub(crate) name: Option<Arc<str>>,
}

/// A list, and when it was so.
pub(crate) struct Snapshot<T> {
    pub(crate) at_ms: u64,
    pub(crate) items: Vec<T>,
}

impl<T> Snapshot<T> {
    pub(crate) fn now(items: Vec<T>) -> Self {
        Self { at_ms: now_ms(), items }
    }
}

impl Board {
    /// That of a pub/sub: one, however many workers serve it.
    pub(crate) fn of(pubsub: &PubSub) -> Arc<Self> {
        let kept = pubsub.board().get_or_init(|| Arc::new(Self::new(pubsub.node_name())));
        // Only this function puts something there.
        Arc::clone(kept).downcast().unwrap_or_else(|_| Arc::new(Self::new(None)))
    }

    fn new(name: Option<Arc<str>>) -> Self {
        Self {
            topics: Kept::new(FRESH),
            subscriptions: Kept::new(FRESH),
            groups: Mutex::default(),
            watchers: Watchers::default(),
            record: Arc::default(),
            name,
        }
    }

    /// The overview of now, or of a moment ago if someone has just looked, and the rates that led to it.
    pub(crate) async fn overview(&self, pubsub: &PubSub) -> Result<(Arc<Overview>, Vec<Rates>), BlockingError> {
        let mut record = Arc::clone(&self.record).lock_owned().await;
        if let Some(last) = record.last(Instant::now(), FRESH) {
            return Ok((last, record.history()));
        }
        let (pubsub, name) = (pubsub.clone(), self.name.clone());
        web::block(move || (look(&mut record, &pubsub, name), record.history())).await
    }

    /// As `overview`, anew and on this thread, which is no arbiter's.
    pub(crate) fn sample(&self, pubsub: &PubSub) -> Arc<Overview> {
        look(&mut self.record.blocking_lock(), pubsub, self.name.clone())
    }
}

fn look(record: &mut Record, pubsub: &PubSub, name: Option<Arc<str>>) -> Arc<Overview> {
    let mut incidents = pubsub.incidents();
    incidents.truncate(INCIDENTS_SHOWN);
    let overview = Overview {
        at_ms: now_ms(),
        version: env!("CARGO_PKG_VERSION"),
        name,
        rates: None,
        stats: pubsub.summary(),
        slow: pubsub.top_slow(SLOW_SHOWN),
        nodes: pubsub.nodes(),
        incidents,
    };
    record.add(Instant::now(), overview)
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// How old what is shown may be: several who look at once cost one look.
pub(crate) const FRESH: Duration = Duration::from_millis(500);
/// Subscriptions of the overview, the slowest.
const SLOW_SHOWN: usize = 20;
/// Incidents of the overview, the newest.
const INCIDENTS_SHOWN: usize = 20;
