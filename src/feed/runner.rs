//! Runner: the feed's thread. Owns the tail; takes note of interest, stands on topics, and publishes what the tail brings.

use std::collections::HashMap;
use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio::time::timeout_at;

use crate::feed::Control;
use crate::feed::Feed;
use crate::feed::backoff::store_backoff;
use crate::feed::place::Places;
use crate::feed::types::Published;
use crate::ids::EntryId;
use crate::log::Batch;
use crate::log::Entry;
use crate::log::Limit;
use crate::log::Position;
use crate::log::StoreError;
use crate::log::Tail;
use crate::observe;
use crate::topic::Topic;

pub(crate) fn launch(feed: Arc<Feed>, control: mpsc::UnboundedReceiver<Control>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(String::from("actix-pubsub-log")).spawn(move || {
        runtime.block_on(Runner::new(feed, control).run());
    })?;
    Ok(())
}

struct Runner {
    feed: Arc<Feed>,
    control: mpsc::UnboundedReceiver<Control>,
    tail: Box<dyn Tail>,
    follows: HashMap<Topic, Places>,
    /// Topics whose head is being asked for, and how often that failed.
    asking: HashMap<Topic, u32>,
    asks: Arc<Semaphore>,
    jobs: JoinSet<()>,
    /// Names that were met and that no type here has.
    unknown: HashSet<String>,
    failures: u32,
    /// The tail failed and is left alone until then.
    pause: Option<Pin<Box<Sleep>>>,
}

enum Turn {
    Control(Option<Control>),
    Batches(Result<Vec<(Topic, Batch)>, StoreError>),
}

impl Runner {
    fn new(feed: Arc<Feed>, control: mpsc::UnboundedReceiver<Control>) -> Self {
        let tail = feed.store.tail();
        Self {
            feed,
            control,
            tail,
            follows: HashMap::new(),
            asking: HashMap::new(),
            asks: Arc::new(Semaphore::new(ASKS_MAX)),
            jobs: JoinSet::new(),
            unknown: HashSet::new(),
            failures: 0,
            pause: None,
        }
    }

    async fn run(mut self) {
        if self.feed.retention.sweeps() {
            self.jobs.spawn(sweep(Arc::clone(&self.feed)));
        }
        loop {
            match self.turn().await {
                Turn::Control(None | Some(Control::Close)) => break,
                Turn::Control(Some(Control::Changed)) => {
                    for topic in self.feed.changes.take() {
                        self.look(topic);
                    }
                }
                Turn::Control(Some(Control::Head(topic, head))) => self.stand(topic, head),
                Turn::Control(Some(Control::Job(job))) => {
                    self.jobs.spawn(job);
                }
                Turn::Batches(Ok(batches)) => {
                    self.failures = 0;
                    for (topic, batch) in batches {
                        self.publish(&topic, &batch);
                    }
                    // Several batches may be ready: control and jobs have their turn between them.
                    tokio::task::yield_now().await;
                }
                Turn::Batches(Err(error)) => {
                    self.failures = self.failures.saturating_add(1);
                    if self.failures == 1
                        && let Some(topic) = self.follows.keys().next()
                    {
                        observe::log_unavailable("follow", topic, &error);
                    }
                    self.pause = Some(Box::pin(tokio::time::sleep(store_backoff(self.failures))));
                }
            }
        }
        self.end().await;
    }

    /// Whatever is there first. Dropping the tail's future loses nothing.
    async fn turn(&mut self) -> Turn {
        while self.jobs.try_join_next().is_some() {}
        let Self { control, tail, pause, .. } = self;
        let mut next = tail.next(PAGE);
        poll_fn(|cx| {
            if let Poll::Ready(told) = control.poll_recv(cx) {
                return Poll::Ready(Turn::Control(told));
            }
            if let Some(sleep) = pause {
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                *pause = None;
            }
            next.as_mut().poll(cx).map(Turn::Batches)
        })
        .await
    }

    /// Jobs that were given to the feed may be acks: they have some time left.
    async fn end(mut self) {
        while let Ok(told) = self.control.try_recv() {
            if let Control::Job(job) = told {
                self.jobs.spawn(job);
            }
        }
        let deadline = Instant::now() + END_MAX;
        self.jobs.spawn(std::future::ready(()));
        while let Ok(Some(_)) = timeout_at(deadline, self.jobs.join_next()).await {
            while let Ok(told) = self.control.try_recv() {
                if let Control::Job(job) = told {
                    self.jobs.spawn(job);
                }
            }
            // The sweep never ends by itself.
            if self.jobs.len() <= usize::from(self.feed.retention.sweeps()) {
                break;
            }
        }
    }

    /// A topic's interest may have changed.
    fn look(&mut self, topic: Topic) {
        let wanted = self.feed.shared.interest.contains(&topic);
        if wanted && !self.follows.contains_key(&topic) {
            if !self.asking.contains_key(&topic) {
                self.asking.insert(topic.clone(), 0);
                self.ask(topic, Duration::ZERO);
            }
        } else if !wanted && self.feed.leave(&topic) {
            self.follows.remove(&topic);
            self.tail.unwatch(&topic);
        }
    }

    /// Asks for the head of a topic, to stand there.
    fn ask(&mut self, topic: Topic, after: Duration) {
        let (feed, asks) = (Arc::clone(&self.feed), Arc::clone(&self.asks));
        self.jobs.spawn(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            // It is never closed.
            let _permit = asks.acquire().await;
            let head = feed.store.read(&topic, Position::End, Limit::entries(1)).await.map(|batch| batch.next);
            // The runner may have ended.
            let _ = feed.control.send(Control::Head(topic, head));
        });
    }

    fn stand(&mut self, topic: Topic, head: Result<EntryId, StoreError>) {
        if !self.feed.shared.interest.contains(&topic) {
            self.asking.remove(&topic);
            self.feed.tried(&topic);
            // Whoever came since has noted a change, and found it in `asking`.
            if self.feed.shared.interest.contains(&topic) {
                self.look(topic);
            }
            return;
        }
        match head {
            Ok(head) => {
                self.asking.remove(&topic);
                self.tail.watch(&topic, head);
                self.follows.insert(topic.clone(), Places::new(head));
                self.feed.stood(&topic, 0);
                // It may have been left while the head was asked for; then nobody looks again.
                if !self.feed.shared.interest.contains(&topic) {
                    self.look(topic);
                }
            }
            Err(error) => {
                let tries = self.asking.get_mut(&topic).map_or(1, |tries| {
                    *tries = tries.saturating_add(1);
                    *tries
                });
                if tries == 1 {
                    observe::log_unavailable("stand on", &topic, &error);
                }
                self.feed.tried(&topic);
                self.ask(topic, store_backoff(tries));
            }
        }
    }

    fn publish(&mut self, topic: &Topic, batch: &Batch) {
        let Some(places) = self.follows.get_mut(topic) else { return };
        if places.begin(batch) {
            self.feed.standing.insert(topic.clone(), places.epoch());
        }
        if let Some(gap) = &batch.gap {
            observe::history_gap(topic, gap.asked_after, &gap.cause);
        }
        for entry in &batch.entries {
            if entry.name.is_empty() {
                // Another program's, which gave no name: it is for every type that someone listens for.
                for kind in self.feed.types.all() {
                    let place = places.pass(kind.message(), entry.id);
                    let published = kind.publish(&self.feed.shared, topic, entry, place);
                    note(&self.feed, topic, entry, &published);
                }
            } else if let Some(kind) = self.feed.types.get(&entry.name) {
                let place = places.pass(kind.message(), entry.id);
                let published = kind.publish(&self.feed.shared, topic, entry, place);
                note(&self.feed, topic, entry, &published);
            } else {
                self.feed.unknown.fetch_add(1, Ordering::Relaxed);
                if self.unknown.len() < UNKNOWN_MAX && !self.unknown.contains(&*entry.name) {
                    self.unknown.insert(entry.name.to_string());
                    observe::entry_unknown(topic, entry.id, &entry.name);
                }
            }
        }
    }
}

fn note(feed: &Feed, topic: &Topic, entry: &Entry, published: &Published) {
    if let Published::Undecodable(error) = published {
        feed.undecodable.fetch_add(1, Ordering::Relaxed);
        observe::entry_undecodable(topic, entry.id, &entry.name, error);
    }
}

/// Trims by age, now and then, whatever topic the store has.
async fn sweep(feed: Arc<Feed>) {
    loop {
        let mut after: Option<Topic> = None;
        // A store that is away is swept the next time.
        while let Ok(topics) = feed.store.topics(after.as_ref(), 1_000).await {
            let Some(last) = topics.last().cloned() else { break };
            for topic in &topics {
                if let Some(trim) = feed.retention.of(topic).on_sweep() {
                    let _ = feed.store.trim(topic, trim).await;
                }
            }
            after = Some(last);
        }
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// What one look at the tail takes of a topic.
const PAGE: Limit = Limit { entries: 256, bytes: 1 << 20 };
/// Heads asked for at once.
const ASKS_MAX: usize = 64;
/// Names that are reported once each; more are only counted.
const UNKNOWN_MAX: usize = 1_000;
/// How long jobs may take after the end.
const END_MAX: Duration = Duration::from_secs(5);
/// Between two sweeps by age.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
