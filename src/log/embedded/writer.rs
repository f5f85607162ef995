//! Writer: the one thread that writes. Takes what is queued, makes one commit of it, answers after it. Knows no futures.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::log::embedded::admin;
use crate::log::embedded::desk::Answer;
use crate::log::embedded::desk::Desk;
use crate::log::embedded::desk::Settled;
use crate::log::embedded::engine::Level;
use crate::log::embedded::pace::Pace;
use crate::log::embedded::round::Now;
use crate::log::embedded::round::Round;
use crate::log::embedded::shared::Shared;
use crate::log::entry::Append;
use crate::log::entry::Group;
use crate::log::entry::Position;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::topic::Topic;

/// Where an answer goes. Whoever asked may be gone.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
pub(super) enum Request {
    Append(Appending),
    Trim(Topic, Trim, Reply<u64>),
    Delete(Topic, Reply<bool>),
    CreateGroup(Group, Position, Reply<bool>),
    DeleteGroup(Group, Reply<bool>),
    /// Everything so far is to be on disk.
    Sync(Reply<()>),
    /// A group changed: commit it soon.
    Nudge,
    Close(Reply<()>),
}

/// An append in the queue.
pub(super) struct Appending {
    pub(super) topic: Topic,
    pub(super) batch: Append,
    pub(super) reply: oneshot::Sender<Settled>,
    /// Where many answers are handed out at once.
    pub(super) desk: Arc<Desk>,
    /// Its share of the bytes that may be queued.
    pub(super) share: OwnedSemaphorePermit,
}

/// Requests in the queue. More than that wait outside of it.
pub(super) const QUEUE_REQUESTS: usize = 1_024;
/// Bytes of entries in the queue, in KiB: 64 MiB. More than that wait outside of it, a single larger batch takes all of it.
pub(super) const QUEUE_KIB: u32 = 64 << 10;
/// Deliveries and acks are on disk after this time at the latest, with or without an append to ride on.
const FLUSH_AFTER: Duration = Duration::from_millis(10);
/// After this time without a request the file is left so that opening it after a crash is quick.
const IDLE_AFTER: Duration = Duration::from_millis(500);
/// A try that took longer is not repeated at once.
const SLOW: Duration = Duration::from_millis(200);
/// After a commit that failed, the next try for what nobody waits for, and to find out what became of it.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The thread's work, until the store is closed or its last handle dropped.
pub(super) fn run(shared: &Arc<Shared>, mut queue: mpsc::Receiver<Request>) {
    let Ok(timer) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let mut requests = Vec::with_capacity(QUEUE_REQUESTS);
    let (mut wake_at, mut work) = (None, Work::new(shared));
    // Of flushes, after one that failed.
    let mut not_before = Instant::now();
    let closing = loop {
        let next = queue.recv_many(&mut requests, QUEUE_REQUESTS);
        let taken = match wake_at {
            Some(at) => timer.block_on(async { tokio::time::timeout_at(tokio::time::Instant::from_std(at), next).await.ok() }),
            None => Some(timer.block_on(next)),
        };
        if taken == Some(0) {
            break None;
        }
        work.committed = false;
        requests.drain(..).for_each(|request| work.take(request));
        work.linger(&mut queue);
        work.finish(&|| queue.len());
        let mut failed = false;
        // Requests that keep coming are no reason to leave what waits waiting.
        let now = Instant::now();
        let is_due = wake_at.is_some_and(|at| at <= now) && work.refusing(now).is_none();
        let overdue = is_due && shared.is_unsettled() && !work.committed;
        if taken.is_none() || overdue {
            // Its warning is all there is to say: nobody waits for it.
            failed = work.flush(if shared.is_unsettled() { shared.level() } else { Level::Quick }).is_err();
        }
        failed |= shared.is_unknown();
        if let Some(reply) = work.closing {
            break Some(reply);
        }
        let now = Instant::now();
        if failed {
            not_before = now + RETRY_AFTER;
        }
        wake_at = match wake_at {
            _ if failed => Some(not_before),
            // Something waits already, and nothing was committed that it could have ridden on.
            Some(at) if at > now && shared.is_unsettled() && !work.committed => Some(at.min(now + FLUSH_AFTER).max(not_before)),
            _ if shared.is_unsettled() => Some((now + FLUSH_AFTER).max(not_before)),
            _ if shared.walks() => Some(now + IDLE_AFTER),
            _ => None,
        };
    };
    queue.close();
    let closed = shared.close();
    if let Some(reply) = closing {
        let _ = reply.send(closed);
    }
}

struct Work<'a> {
    shared: &'a Arc<Shared>,
    open: Open,
    pace: Pace,
    committed: bool,
    closing: Option<Reply<()>>,
    /// The disk was full, and finding that out was slow: appends are refused until then without trying.
    refusing: Option<(Instant, StoreError)>,
}

/// Neighbouring appends, which become one commit. They are staged as they come, while the writer waits for more.
#[derive(Default)]
struct Open {
    round: Option<(Round, Now)>,
    /// Nothing can be staged.
    failed: Option<StoreError>,
    /// Each with the answer that it gets if the commit succeeds; by the desks they go to.
    staged: Vec<(Arc<Desk>, Vec<Answer>)>,
    count: usize,
}

impl<'a> Work<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared, open: Open::default(), pace: Pace::default(), committed: false, closing: None, refusing: None }
    }

    /// What to answer without trying: the disk was full a moment ago, and finding that out was slow.
    fn refusing(&self, now: Instant) -> Option<&StoreError> {
        self.refusing.as_ref().filter(|(until, _)| now < *until).map(|(_, error)| error)
    }

    /// Stages an append; everything else is a commit of its own, after those before it.
    fn take(&mut self, request: Request) {
        match request {
            Request::Append(append) => self.stage(append),
            Request::Nudge => {}
            request => {
                self.finish(&|| 0);
                self.other(request);
            }
        }
    }

    fn stage(&mut self, append: Appending) {
        let (shared, open) = (self.shared, &mut self.open);
        if open.count == 0 {
            open.failed = shared.know().err();
        }
        let answer = match &open.failed {
            Some(error) => Err(error.clone()),
            None => {
                let topics = shared.lock();
                let (round, now) = open.round.get_or_insert_with(|| (Round::new(&topics.store), shared.now()));
                round.append(&topics, &append.topic, &append.batch, *now)
            }
        };
        open.count += 1;
        let at = open.staged.iter().position(|(desk, _)| Arc::ptr_eq(desk, &append.desk));
        let at = at.unwrap_or_else(|| {
            open.staged.push((Arc::clone(&append.desk), append.desk.spare()));
            open.staged.len() - 1
        });
        open.staged[at].1.push(Answer { append, answer });
    }

    /// Waits a moment for those who appended in the last commit: they have their answers now, and come again together.
    fn linger(&mut self, queue: &mut mpsc::Receiver<Request>) {
        let began = Instant::now();
        let mut wait = self.pace.wait(began);
        while wait.goes_on(self.open.count, Instant::now()) {
            match queue.try_recv() {
                Ok(request) => {
                    self.take(request);
                    wait.came(Instant::now());
                }
                Err(_) => std::thread::yield_now(),
            }
        }
        self.pace.waited(self.open.count, &wait);
    }

    fn other(&mut self, request: Request) {
        let shared = self.shared;
        let before = shared.lock().store.commits;
        let known = shared.know();
        // Whoever asked may be gone: nothing is owed to it.
        match request {
            Request::Trim(topic, to, reply) => drop(reply.send(known.and_then(|()| admin::trim(shared, &topic, to)))),
            Request::Delete(topic, reply) => drop(reply.send(known.and_then(|()| admin::delete(shared, &topic)))),
            Request::CreateGroup(group, from, reply) => {
                drop(reply.send(known.and_then(|()| admin::create_group(shared, &group, from))));
            }
            Request::DeleteGroup(group, reply) => drop(reply.send(known.and_then(|()| admin::delete_group(shared, &group)))),
            Request::Sync(reply) => {
                let synced = known.and_then(|()| if shared.is_unsettled() { self.flush(shared.level()) } else { Ok(()) });
                let _ = reply.send(synced);
            }
            Request::Close(reply) => self.closing = Some(reply),
            Request::Append(_) | Request::Nudge => {}
        }
        self.committed |= shared.lock().store.commits != before;
    }

    fn flush(&mut self, level: Level) -> Result<(), StoreError> {
        let known = self.shared.know();
        let flushed = known.and_then(|()| self.shared.commit(level, None, |_| Ok(())));
        self.committed |= flushed.is_ok();
        if let Err(error) = &flushed {
            tracing::warn!(%error, "what is in memory is not on disk yet, it is tried again");
        }
        flushed
    }

    /// Commits what is staged, and answers it. `waiting` says how many requests came meanwhile.
    fn finish(&mut self, waiting: &dyn Fn() -> usize) {
        let Open { round, failed, staged, count } = std::mem::take(&mut self.open);
        if count == 0 {
            return;
        }
        let began = Instant::now();
        let error = match failed.or_else(|| self.refusing(began).cloned()) {
            Some(error) => error,
            None => match self.commit(round) {
                Ok(moved) => {
                    self.pace.committed(count, waiting(), began, Instant::now());
                    for (desk, answers) in staged {
                        desk.answer(answers);
                    }
                    for topic in &moved {
                        self.shared.watches.moved(topic);
                    }
                    // In memory it settles nothing.
                    self.committed |= !moved.is_empty() && !self.shared.settings.relaxed;
                    return;
                }
                Err(error) => error,
            },
        };
        // Opening the engine again may have meant to walk through the file. Reads wait for that, so it must not be all that is done.
        if matches!(error, StoreError::Full { .. }) && began.elapsed() > SLOW {
            self.refusing = Some((Instant::now() + 10 * began.elapsed(), error.clone()));
        }
        let appends = staged.into_iter().flat_map(|(_, answers)| answers).map(|answer| answer.append);
        // Damage is one topic's: the others go on.
        if count > 1 && matches!(error, StoreError::Corrupt { .. }) {
            for append in appends {
                self.stage(append);
                self.finish(&|| 0);
            }
            return;
        }
        for append in appends {
            Answer { append, answer: Err(error.clone()) }.send();
        }
    }

    /// One commit. Returns the topics that moved.
    fn commit(&self, round: Option<(Round, Now)>) -> Result<Vec<Topic>, StoreError> {
        let shared = self.shared;
        let Some((mut round, now)) = round.filter(|(round, _)| round.is_changed()) else { return Ok(Vec::new()) };
        let level = if shared.settings.relaxed { Level::Memory } else { shared.level() };
        let next = Some(round.next_topic());
        shared.commit(level, next, |rows| round.write(rows, now))?;
        Ok(round.publish(&mut shared.lock(), now))
    }
}
