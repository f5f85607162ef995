//! Follower: reads a topic's history, then goes on live. Does what [`Replay`] says, with a store and the feed; knows no actor.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;

use futures_core::Stream;
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::event::Event;
use crate::event::Head;
use crate::event::Payload;
use crate::feed::Feed;
use crate::feed::Stand;
use crate::feed::backoff::store_backoff;
use crate::feed::logged::Logged;
use crate::feed::types::FromEntry;
use crate::ids::EntryId;
use crate::local::stream::EventStream;
use crate::log::Batch;
use crate::log::Entry;
use crate::log::Gap;
use crate::log::GapCause;
use crate::log::Position;
use crate::log::StoreError;
use crate::stream::replay::Live;
use crate::stream::replay::Replay;
use crate::stream::replay::Want;
use crate::topic::Topic;

/// What a follower of the log gets.
#[derive(Debug)]
pub enum Followed<M> {
    /// An entry, as an event; [`Event::id`] says where it stands.
    Event(Event<M>),
    /// History is incomplete here.
    Gap(Gap),
}

/// A topic of the log from a position on, history and then live, as a `futures` [`Stream`]: what `PubSub::stream_from` returns.
///
/// History is read page by page, as fast as the stream is polled: a backlog of any length takes the memory of two pages. The stream ends when the pub/sub
/// is shut down; a store that is away makes it wait.
///
/// # Guarantees
/// Exactly the entries of type `M` after the position, once each, in the log's order, or a [`Gap`] first.
///
/// # Cancel safety
/// Dropping a `next()` loses nothing.
pub struct LogStream<M> {
    follower: Follower<M>,
}

impl<M: Payload> LogStream<M> {
    pub(crate) fn new(follower: Follower<M>) -> Self {
        Self { follower }
    }

    /// Everything up to this entry was returned: where to go on after a restart. `None`: nothing yet.
    pub fn position(&self) -> Option<EntryId> {
        self.follower.progress.position()
    }

    /// Whether history was read to its end: what comes now comes as it is appended.
    pub fn is_live(&self) -> bool {
        self.follower.progress.is_live()
    }
}

impl<M: Payload> Stream for LogStream<M> {
    type Item = Followed<M>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Followed<M>>> {
        self.get_mut().follower.poll_next(cx)
    }
}

impl<M> fmt::Debug for LogStream<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStream").field("topic", &self.follower.topic).finish_non_exhaustive()
    }
}

/// How far a follower is, for who does not hold it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    state: Mutex<(Option<EntryId>, bool)>,
    /// Notified when it is live for the first time, and when it ends.
    turned: Notify,
}

impl Progress {
    pub(crate) fn position(&self) -> Option<EntryId> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn reached(&self, id: EntryId, live: bool) {
        let before = std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), (Some(id), live));
        if live && !before.1 {
            self.turned.notify_waiters();
        }
    }

    pub(crate) fn ended(&self) {
        self.turned.notify_waiters();
    }

    /// Waits until it is live, or `ended`.
    pub(crate) async fn live(&self, ended: impl Fn() -> bool) -> bool {
        loop {
            let mut turned = std::pin::pin!(self.turned.notified());
            // Before the look: a turn after it is not missed.
            turned.as_mut().enable();
            if self.is_live() {
                return true;
            }
            if ended() {
                return false;
            }
            turned.await;
        }
    }
}

pub(crate) struct Follower<M> {
    feed: Arc<Feed>,
    topic: Topic,
    /// `None`: it has ended.
    live: Option<EventStream<Logged<M>>>,
    replay: Replay,
    page: std::vec::IntoIter<Entry>,
    gap: Option<Gap>,
    reading: Option<Reading>,
    /// The page after this one, if it was there at once.
    ahead: Option<Result<Batch, StoreError>>,
    standing: Option<Standing>,
    pause: Option<Pin<Box<Sleep>>>,
    failures: u32,
    pub(crate) progress: Arc<Progress>,
}

type Reading = Pin<Box<dyn Future<Output = Result<Batch, StoreError>> + Send>>;
type Standing = Pin<Box<dyn Future<Output = Option<Stand>> + Send>>;

impl<M: FromEntry> Follower<M> {
    /// `live` is subscribed before anything is read: that is what makes the hand-over whole.
    pub(crate) fn new(feed: Arc<Feed>, topic: Topic, live: EventStream<Logged<M>>, from: Position) -> Self {
        let standing: Standing = {
            let (feed, topic) = (Arc::clone(&feed), topic.clone());
            Box::pin(async move { feed.standing(&topic).await })
        };
        // What comes from now on is what comes after the place where the feed stands now, or will.
        let replay = match (from, feed.stands(&topic)) {
            (Position::End, Some(stand)) => Replay::new(Position::After(stand.at)),
            (Position::End, None) => Replay::from_now(),
            (from, _) => Replay::new(from),
        };
        Self {
            feed,
            topic,
            live: Some(live),
            replay,
            page: Vec::new().into_iter(),
            gap: None,
            reading: None,
            ahead: None,
            standing: Some(standing),
            pause: None,
            failures: 0,
            progress: Arc::default(),
        }
    }

    pub(crate) fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Followed<M>>> {
        let polled = self.poll_step(cx);
        if let Poll::Ready(None) = polled {
            self.live = None;
        }
        polled
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Followed<M>>> {
        for _ in 0..POLL_STEPS {
            if let Some(followed) = self.take_page() {
                return Poll::Ready(Some(followed));
            }
            if let Some(standing) = &mut self.standing
                && let Poll::Ready(stood) = standing.as_mut().poll(cx)
            {
                self.standing = None;
                // `None`: it was closed, or unsubscribed by whoever knows its id.
                let Some(stand) = stood else { return Poll::Ready(None) };
                // Not where it is by now: what came since it began is what was waited for.
                self.replay.stood(stand.epoch, stand.base);
            }
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            match self.replay.want() {
                Want::Page(_) | Want::Standing if self.feed.is_closed() => return Poll::Ready(None),
                Want::Page(from) => self.begin(from),
                Want::Reading => match self.poll_page(cx) {
                    Poll::Ready(()) => {}
                    Poll::Pending => return Poll::Pending,
                },
                Want::Standing => return Poll::Pending,
                Want::Live => match self.live.as_mut().map_or(Poll::Ready(None), |live| Pin::new(live).poll_next(cx)) {
                    Poll::Ready(Some(event)) => {
                        if let Some(followed) = self.take_live(&event) {
                            return Poll::Ready(Some(followed));
                        }
                    }
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
        // Nothing for this type so far; its arbiter has others to run.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn begin(&mut self, from: Position) {
        let (feed, topic) = (Arc::clone(&self.feed), self.topic.clone());
        self.replay.begin();
        self.reading = Some(Box::pin(async move { feed.store.read(&topic, from, M::page()).await }));
    }

    fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let read = match (self.ahead.take(), &mut self.reading) {
            (Some(read), _) => read,
            (None, Some(reading)) => match reading.as_mut().poll(cx) {
                Poll::Ready(read) => read,
                Poll::Pending => return Poll::Pending,
            },
            (None, None) => {
                self.replay.failed();
                return Poll::Ready(());
            }
        };
        self.reading = None;
        match read {
            Ok(batch) => {
                self.failures = 0;
                let replaced = batch.gap.as_ref().is_some_and(|gap| gap.cause == GapCause::Ahead);
                self.replay.page(batch.next, batch.caught_up, replaced);
                if let Some(gap) = &batch.gap {
                    self.feed.tell_gap(&self.topic, gap.asked_after, &gap.cause);
                }
                self.gap = batch.gap;
                self.page = batch.entries.into_iter();
                if self.page.len() == 0 {
                    self.progress.reached(batch.next, self.replay.is_live());
                }
                // The next page is on its way while this one is handled.
                if let Want::Page(from) = self.replay.want()
                    && !self.feed.is_closed()
                {
                    self.begin(from);
                    if let Some(reading) = &mut self.reading
                        && let Poll::Ready(read) = reading.as_mut().poll(cx)
                    {
                        self.ahead = Some(read);
                    }
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    self.feed.tell_unavailable("read", &self.topic, &error);
                }
                self.replay.failed();
                self.pause = Some(Box::pin(tokio::time::sleep(store_backoff(self.failures))));
            }
        }
        Poll::Ready(())
    }

    /// The next of the page, if there is one of this type.
    fn take_page(&mut self) -> Option<Followed<M>> {
        if let Some(gap) = self.gap.take() {
            return Some(Followed::Gap(gap));
        }
        while let Some(entry) = self.page.next() {
            if !M::takes(&entry.name) {
                if self.page.len() == 0 {
                    self.progress.reached(entry.id, self.replay.is_live());
                }
                continue;
            }
            let followed = match M::from_entry(&entry) {
                Ok(message) => {
                    let node = self.feed.shared.node;
                    Followed::Event(Event::new(Head::logged_sole(self.topic.clone(), node, entry.id, message), 0))
                }
                Err(error) => {
                    self.feed.tell_undecodable(&self.topic, entry.id, &entry.name, &error);
                    Followed::Gap(undecodable(&self.topic, entry.id))
                }
            };
            let last = self.page.len() == 0;
            self.progress.reached(entry.id, last && self.replay.is_live());
            return Some(followed);
        }
        None
    }

    fn take_live(&mut self, event: &Event<Logged<M>>) -> Option<Followed<M>> {
        match self.replay.live(event.id, event.prev, event.epoch) {
            Live::Deliver => {}
            Live::Skip | Live::Reread => return None,
            Live::Replaced => {
                let had = self.progress.position().unwrap_or_default();
                self.feed.tell_gap(&self.topic, had, &GapCause::Ahead);
                return Some(Followed::Gap(Gap::new(self.topic.clone(), had, None, GapCause::Ahead, true)));
            }
        }
        self.progress.reached(event.id, true);
        Some(match &event.head {
            Some(head) => Followed::Event(Event::new(Arc::clone(head), 0)),
            None => Followed::Gap(undecodable(&self.topic, event.id)),
        })
    }
}

/// What stands for an entry that is no message of its name.
pub(crate) fn undecodable(topic: &Topic, id: EntryId) -> Gap {
    Gap::new(topic.clone(), id.prev().unwrap_or_default(), id.next(), GapCause::Undecodable, true)
}

/// Pages and live events that one poll looks through for one that it may return: some thousands of entries, if all are of other types.
const POLL_STEPS: usize = 16;
