//! Runner: the feed's thread. Owns the tail; takes note of interest, stands on topics, and publishes what the tail brings.

use std::any::TypeId;
use std::collections::HashMap;
use std::collections::HashSet;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio::time::timeout_at;

use crate::feed::Control;
use crate::feed::Feed;
use crate::feed::Stand;
use crate::feed::backoff::store_backoff;
use crate::feed::place::Places;
#[cfg(feature = "web")]
use crate::feed::raw::RawKind;
use crate::feed::types::Kind;
use crate::ids::EntryId;
use crate::local::incident::IncidentKind;
use crate::log::Batch;
use crate::log::Limit;
use crate::log::Position;
use crate::log::StoreError;
use crate::log::Tail;
use crate::observe;
use crate::topic::Topic;

pub(crate) fn launch(feed: Arc<Feed>, control: mpsc::UnboundedReceiver<Control>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(String::from("actix-pubsub-log")).spawn(move || {
        let (done, watched) = (feed.done(), Arc::clone(&feed));
        if catch_unwind(AssertUnwindSafe(|| runtime.block_on(Runner::new(feed, control).run()))).is_err() {
            // A store that panics: nobody must wait for what will not come.
            observe::feed_panicked();
            watched.shared.incidents.add(IncidentKind::LogClosed);
            watched.close();
        }
        // Everything is let go before it is said: the store may be opened again.
        drop((runtime, watched));
        done.set();
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
    /// Topics to which someone appends while the feed does not stand there.
    holds: HashMap<Topic, Held>,
    /// Followers of these topics and types may have missed the last entries, because a port was full: it is said again until it is taken.
    behind: HashMap<(Topic, TypeId), Behind>,
    reminder: Option<Pin<Box<Sleep>>>,
    asks: Arc<Semaphore>,
    jobs: JoinSet<()>,
    /// Beside the types: who follows a topic whatever its messages are.
    #[cfg(feature = "web")]
    raw: Arc<dyn Kind>,
    /// Names that were met and that no type here has.
    unknown: HashSet<String>,
    failures: u32,
    /// The tail failed and is left alone until then.
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Default)]
struct Held {
    appends: usize,
    /// The first entry that they appended.
    first: Option<EntryId>,
    /// The head that was found meanwhile.
    head: Option<EntryId>,
}

struct Behind {
    kind: Arc<dyn Kind>,
    id: EntryId,
    epoch: u32,
}

enum Turn {
    Remind,
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
            holds: HashMap::new(),
            behind: HashMap::new(),
            reminder: None,
            asks: Arc::new(Semaphore::new(ASKS_MAX)),
            jobs: JoinSet::new(),
            #[cfg(feature = "web")]
            raw: Arc::new(RawKind),
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
                Turn::Control(Some(Control::Head(topic, head))) => self.head(topic, head),
                Turn::Control(Some(Control::Hold(topic))) => self.holds.entry(topic).or_default().appends += 1,
                Turn::Control(Some(Control::Release(topic, id))) => self.release(topic, id),
                Turn::Remind => self.remind(),
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
                        self.feed.tell_unavailable("follow", topic, &error);
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
        let Self { control, tail, pause, reminder, .. } = self;
        let mut next = tail.next(PAGE);
        poll_fn(|cx| {
            if let Poll::Ready(told) = control.poll_recv(cx) {
                return Poll::Ready(Turn::Control(told));
            }
            if let Some(sleep) = reminder
                && sleep.as_mut().poll(cx).is_ready()
            {
                *reminder = None;
                return Poll::Ready(Turn::Remind);
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

    /// Consumers may finish what they have, and jobs that were given to the feed may be acks: they have some time left.
    async fn end(mut self) {
        let mut deadline = Instant::now() + END_MAX;
        loop {
            let told = if self.feed.intakes.load(Ordering::Acquire) > 0 {
                deadline = Instant::now() + END_MAX;
                self.control.recv().await
            } else {
                self.control.try_recv().ok()
            };
            match told {
                Some(Control::Job(job)) => drop(self.jobs.spawn(job)),
                Some(_) => {}
                // The sweep never ends by itself.
                None if self.jobs.len() <= usize::from(self.feed.retention.sweeps()) => return,
                None => match timeout_at(deadline, self.jobs.join_next()).await {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                },
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
        let asked = Asked { feed, topic, head: Some(Err(StoreError::Closed)) };
        self.jobs.spawn(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            // It is never closed.
            let _permit = asks.acquire().await;
            asked.feed.resting.remove(&asked.topic);
            let head = asked.feed.store.read(&asked.topic, Position::End, Limit::entries(1)).await.map(|batch| batch.next);
            asked.answer(head);
        });
    }

    fn head(&mut self, topic: Topic, head: Result<EntryId, StoreError>) {
        if !self.feed.shared.interest.contains(&topic) {
            self.asking.remove(&topic);
            self.holds.retain(|of, held| *of != topic || held.appends > 0);
            self.feed.resting.remove(&topic);
            self.feed.tried(&topic);
            // Whoever came since has noted a change, and found it in `asking`.
            if self.feed.shared.interest.contains(&topic) {
                self.look(topic);
            }
            return;
        }
        match head {
            Ok(head) => match self.holds.get_mut(&topic) {
                Some(held) if held.appends > 0 => held.head = Some(head),
                _ => self.stand(topic, head),
            },
            Err(error) => {
                let tries = self.asking.get_mut(&topic).map_or(1, |tries| {
                    *tries = tries.saturating_add(1);
                    *tries
                });
                if tries == 1 {
                    self.feed.tell_unavailable("stand on", &topic, &error);
                }
                self.feed.resting.insert(topic.clone(), ());
                self.feed.tried(&topic);
                self.ask(topic, store_backoff(tries));
            }
        }
    }

    fn stand(&mut self, topic: Topic, head: EntryId) {
        self.asking.remove(&topic);
        // What was appended while it did not stand is still to come.
        let first = self.holds.remove(&topic).and_then(|held| held.first);
        let head = first.and_then(EntryId::prev).map_or(head, |before| before.min(head));
        self.tail.watch(&topic, head);
        let places = Places::new(head);
        self.feed.stood(&topic, Stand { epoch: places.epoch(), base: head, at: head });
        self.follows.insert(topic.clone(), places);
        // It may have been left while the head was asked for; then nobody looks again.
        if !self.feed.shared.interest.contains(&topic) {
            self.look(topic);
        }
    }

    /// An append to a topic on which the feed did not stand has ended. Not to miss it, the feed stands before it.
    fn release(&mut self, topic: Topic, id: Option<EntryId>) {
        let Some(held) = self.holds.get_mut(&topic) else { return };
        held.appends -= 1;
        held.first = held.first.into_iter().chain(id).min();
        if held.appends > 0 {
            return;
        }
        if let Some(head) = held.head {
            self.stand(topic, head);
        } else if !self.asking.contains_key(&topic) {
            self.holds.remove(&topic);
        }
    }

    /// Says again what a full port did not take.
    fn remind(&mut self) {
        let shared = Arc::clone(&self.feed.shared);
        self.behind.retain(|(topic, _), behind| !behind.kind.remind(&shared, topic, behind.id, behind.epoch));
        self.set_reminder();
    }

    fn set_reminder(&mut self) {
        if !self.behind.is_empty() && self.reminder.is_none() {
            self.reminder = Some(Box::pin(tokio::time::sleep(REMIND_AFTER)));
        }
    }

    fn publish(&mut self, topic: &Topic, batch: &Batch) {
        let Some(places) = self.follows.get_mut(topic) else { return };
        places.begin(batch);
        if let Some(gap) = &batch.gap {
            self.feed.tell_gap(topic, gap.asked_after, &gap.cause);
        }
        for entry in &batch.entries {
            let kinds: SmallVec<[Arc<dyn Kind>; 2]> = if entry.name.is_empty() {
                // Another program's, which gave no name: it is for every type that someone listens for.
                self.feed.types.all().into()
            } else {
                self.feed.types.get(&entry.name).into_iter().collect()
            };
            if kinds.is_empty() && !entry.name.is_empty() {
                self.feed.count_unknown();
                if self.unknown.len() < UNKNOWN_MAX && !self.unknown.contains(&*entry.name) {
                    self.unknown.insert(entry.name.to_string());
                    observe::entry_unknown(topic, entry.id, &entry.name);
                }
            }
            #[cfg(feature = "web")]
            let kinds = kinds.into_iter().chain([Arc::clone(&self.raw)]);
            for kind in kinds {
                let place = places.pass(kind.message(), entry.id);
                // Decoding is guarded by itself; what is left is the drop of a message that nobody took.
                let publish = AssertUnwindSafe(|| kind.publish(&self.feed.shared, topic, entry, place));
                let published = catch_unwind(publish).unwrap_or_default();
                if let Some(error) = &published.undecodable {
                    self.feed.tell_undecodable(topic, entry.id, &entry.name, error);
                }
                if published.full {
                    let behind = Behind { kind: Arc::clone(&kind), id: entry.id, epoch: place.epoch };
                    self.behind.insert((topic.clone(), kind.message()), behind);
                }
            }
        }
        if let Some(mut stand) = self.feed.standing.get_mut(topic) {
            (stand.epoch, stand.at) = (places.epoch(), batch.next);
        }
        self.set_reminder();
    }
}

/// A head that is asked for: whatever becomes of the question, the runner gets an answer.
struct Asked {
    feed: Arc<Feed>,
    topic: Topic,
    head: Option<Result<EntryId, StoreError>>,
}

impl Asked {
    fn answer(mut self, head: Result<EntryId, StoreError>) {
        self.head = Some(head);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(head) = self.head.take() {
            // The runner may have ended.
            let _ = self.feed.control.send(Control::Head(self.topic.clone(), head));
        }
    }
}

/// Trims what is over its retention, now and then, whatever topic the store has.
async fn sweep(feed: Arc<Feed>) {
    loop {
        let mut after: Option<Topic> = None;
        // A store that is away is swept the next time.
        while let Ok(topics) = feed.store.topics(after.as_ref(), 1_000).await {
            let Some(last) = topics.last().cloned() else { break };
            for topic in &topics {
                for trim in feed.retention.of(topic).on_sweep() {
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
/// How soon a full port is tried again.
const REMIND_AFTER: Duration = Duration::from_millis(5);
/// Between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
