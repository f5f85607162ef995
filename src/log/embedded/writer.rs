//! Writer: the one thread that writes. Takes what is queued, makes one commit of it, answers after it. Knows no futures.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::log::embedded::admin;
use crate::log::embedded::desk::Desk;
use crate::log::embedded::engine::Level;
use crate::log::embedded::round::Round;
use crate::log::embedded::shared::Shared;
use crate::log::entry::Append;
use crate::log::entry::Appended;
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
    pub(super) reply: Reply<Vec<Appended>>,
    /// Where many answers are handed out at once.
    pub(super) desk: Arc<Desk>,
    /// Its share of the bytes that may be queued.
    pub(super) _share: OwnedSemaphorePermit,
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
/// After a commit that failed, the next try for what nobody waits for.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A commit waits for the appenders of the last one while they keep coming, for half as long as that took, and so long at most.
const LINGER_MAX: Duration = Duration::from_millis(4);
/// Nobody came for an eighth as long as a commit takes, within these: nobody keeps coming.
const GAP_MIN: Duration = Duration::from_micros(50);
const GAP_MAX: Duration = Duration::from_millis(1);

/// The thread's work, until the store is closed or its last handle dropped.
pub(super) fn run(shared: &Arc<Shared>, mut queue: mpsc::Receiver<Request>) {
    let Ok(timer) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let mut requests = Vec::with_capacity(QUEUE_REQUESTS);
    let (mut wake_at, mut appenders, mut took, mut refusing) = (None, 0, Duration::ZERO, None);
    let closing = loop {
        let next = queue.recv_many(&mut requests, QUEUE_REQUESTS);
        let taken = match wake_at {
            Some(at) => timer.block_on(async { tokio::time::timeout_at(tokio::time::Instant::from_std(at), next).await.ok() }),
            None => Some(timer.block_on(next)),
        };
        if taken == Some(0) {
            break None;
        }
        linger(&mut queue, &mut requests, appenders, took);
        appenders = requests.iter().filter(|request| matches!(request, Request::Append(_))).count();
        let began = Instant::now();
        let mut work = Work { shared, committed: false, closing: None, refusing };
        work.requests(requests.drain(..));
        let mut failed = false;
        if taken.is_none() {
            // Its warning is all there is to say: nobody waits for it.
            failed = work.flush(if shared.is_unsettled() { shared.level() } else { Level::Quick }).is_err();
        }
        (took, refusing) = (began.elapsed(), work.refusing);
        if let Some(reply) = work.closing {
            break Some(reply);
        }
        let now = Instant::now();
        wake_at = match wake_at {
            _ if failed => Some(now + RETRY_AFTER),
            // Something waits already, and nothing was committed that it could have ridden on.
            Some(at) if at > now && shared.is_unsettled() && !work.committed => Some(at.min(now + FLUSH_AFTER)),
            _ if shared.is_unsettled() => Some(now + FLUSH_AFTER),
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

/// Waits a moment for those who appended in the last commit: they have their answers now, and come again together.
fn linger(queue: &mut mpsc::Receiver<Request>, requests: &mut Vec<Request>, appenders: usize, took: Duration) {
    let started = Instant::now();
    let (mut came, gap) = (started, (took / 8).clamp(GAP_MIN, GAP_MAX));
    while requests.len() < appenders.min(QUEUE_REQUESTS) {
        let now = Instant::now();
        if now - started > LINGER_MAX.min(took / 2) || now - came > gap {
            return;
        }
        match queue.try_recv() {
            Ok(request) => {
                requests.push(request);
                came = now;
            }
            Err(_) => std::thread::yield_now(),
        }
    }
}

struct Work<'a> {
    shared: &'a Arc<Shared>,
    committed: bool,
    closing: Option<Reply<()>>,
    /// The disk was full, and finding that out was slow: appends are refused until then without trying.
    refusing: Option<(Instant, StoreError)>,
}

impl Work<'_> {
    /// Neighbouring appends become one commit; everything else is one of its own.
    fn requests(&mut self, requests: impl Iterator<Item = Request>) {
        let mut appends = Vec::new();
        for request in requests {
            if let Request::Append(append) = request {
                appends.push(append);
                continue;
            }
            if matches!(request, Request::Nudge) {
                continue;
            }
            self.appends(std::mem::take(&mut appends));
            self.other(request);
        }
        self.appends(appends);
    }

    fn other(&mut self, request: Request) {
        let shared = self.shared;
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
        self.committed = true;
    }

    fn flush(&mut self, level: Level) -> Result<(), StoreError> {
        let known = self.shared.know();
        let flushed = known.and_then(|()| self.shared.commit(level, None, |_| Ok(())));
        self.committed |= flushed.is_ok();
        if let Err(error) = &flushed {
            tracing::warn!(%error, "deliveries and acks are not on disk yet");
        }
        flushed
    }

    fn appends(&mut self, mut appends: Vec<Appending>) {
        if appends.is_empty() {
            return;
        }
        let began = Instant::now();
        let error = match &self.refusing {
            Some((until, error)) if began < *until => error.clone(),
            _ => match self.round(&mut appends) {
                Ok(()) => return,
                Err(error) => error,
            },
        };
        // Opening the engine again may have meant to walk through the file. Reads wait for that, so it must not be all that is done.
        if matches!(error, StoreError::Full { .. }) && began.elapsed() > SLOW {
            self.refusing = Some((Instant::now() + 10 * began.elapsed(), error.clone()));
        }
        // Damage is one topic's: the others go on.
        if appends.len() > 1 && matches!(error, StoreError::Corrupt { .. }) {
            for append in appends {
                self.appends(vec![append]);
            }
            return;
        }
        for append in appends {
            let _ = append.reply.send(Err(error.clone()));
        }
    }

    /// One commit. Takes the appends and answers them, unless it fails.
    fn round(&mut self, appends: &mut Vec<Appending>) -> Result<(), StoreError> {
        let (shared, now) = (self.shared, self.shared.now());
        shared.know()?;
        let mut answers = Vec::with_capacity(appends.len());
        let mut round = {
            let topics = shared.lock();
            let mut round = Round::new(&topics.store);
            answers.extend(appends.iter().map(|of| round.append(&topics, &of.topic, &of.batch, now)));
            round
        };
        let mut moved = Vec::new();
        if round.is_changed() {
            let level = if shared.settings.relaxed { Level::Memory } else { shared.level() };
            let next = Some(round.next_topic());
            shared.commit(level, next, |rows| round.write(rows, now))?;
            moved = round.publish(&mut shared.lock(), now);
        }
        let mut desks: Vec<(Arc<Desk>, Vec<_>)> = Vec::new();
        for (append, answer) in appends.drain(..).zip(answers) {
            match desks.iter_mut().find(|(desk, _)| Arc::ptr_eq(desk, &append.desk)) {
                Some((_, answers)) => answers.push((append.reply, answer)),
                None => desks.push((append.desk, vec![(append.reply, answer)])),
            }
        }
        for (desk, answers) in desks {
            desk.answer(answers);
        }
        for topic in &moved {
            shared.watches.moved(topic);
        }
        self.committed |= !moved.is_empty();
        Ok(())
    }
}
