//! Writer: the one thread that writes. Takes what is queued, makes one commit of it, answers after it. Knows no futures.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::log::embedded::admin;
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
    /// Its share of the bytes that may be queued.
    pub(super) _share: OwnedSemaphorePermit,
}

/// Requests in the queue. More than that wait outside of it.
pub(super) const QUEUE_REQUESTS: usize = 1_024;
/// Bytes of entries in the queue, in KiB: 64 MiB. More than that wait outside of it, a single larger batch takes all of it.
pub(super) const QUEUE_KIB: u32 = 64 << 10;
/// Deliveries and acks are on disk after this time at the latest, with or without an append to ride on.
const FLUSH_AFTER: Duration = Duration::from_millis(10);
/// After a commit that failed, the next try for what nobody waits for.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The longest that a commit waits for the appenders of the last one to come again.
const LINGER_MAX: Duration = Duration::from_micros(300);

/// The thread's work, until the store is closed or its last handle dropped.
pub(super) fn run(shared: &Arc<Shared>, mut queue: mpsc::Receiver<Request>) {
    let Ok(timer) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let (mut requests, mut flush_at, mut appenders) = (Vec::with_capacity(QUEUE_REQUESTS), None, 0);
    let closing = loop {
        let next = queue.recv_many(&mut requests, QUEUE_REQUESTS);
        let taken = match flush_at {
            Some(at) => timer.block_on(async { tokio::time::timeout_at(tokio::time::Instant::from_std(at), next).await.ok() }),
            None => Some(timer.block_on(next)),
        };
        if taken == Some(0) {
            break None;
        }
        linger(&mut queue, &mut requests, appenders);
        appenders = requests.iter().filter(|request| matches!(request, Request::Append(_))).count();
        let mut work = Work { shared, committed: false, closing: None };
        work.requests(requests.drain(..));
        if taken.is_none() {
            // Its warning is all there is to say: nobody waits for it.
            let _ = work.flush();
        }
        if let Some(reply) = work.closing {
            break Some(reply);
        }
        flush_at = match (shared.is_unsettled(), flush_at) {
            (false, _) => None,
            (true, Some(at)) if !work.committed && taken.is_some() => Some(at),
            (true, _) => Some(Instant::now() + if taken.is_none() && !work.committed { RETRY_AFTER } else { FLUSH_AFTER }),
        };
    };
    queue.close();
    let closed = shared.close();
    if let Some(reply) = closing {
        let _ = reply.send(closed);
    }
}

/// Waits a moment for those who appended in the last commit: they have their answers now, and come again together.
fn linger(queue: &mut mpsc::Receiver<Request>, requests: &mut Vec<Request>, appenders: usize) {
    let started = Instant::now();
    while requests.len() < appenders.min(QUEUE_REQUESTS) && started.elapsed() < LINGER_MAX {
        match queue.try_recv() {
            Ok(request) => requests.push(request),
            Err(_) => std::thread::yield_now(),
        }
    }
}

struct Work<'a> {
    shared: &'a Arc<Shared>,
    committed: bool,
    closing: Option<Reply<()>>,
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
                let synced = known.and_then(|()| if shared.is_unsettled() { self.flush() } else { Ok(()) });
                let _ = reply.send(synced);
            }
            Request::Close(reply) => self.closing = Some(reply),
            Request::Append(_) | Request::Nudge => {}
        }
        self.committed = true;
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let known = self.shared.know();
        let flushed = known.and_then(|()| self.shared.commit(redb::Durability::Immediate, None, |_| Ok(())));
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
        let error = match self.round(&mut appends) {
            Ok(()) => return,
            Err(error) => error,
        };
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
            let durability = if shared.settings.relaxed { redb::Durability::None } else { redb::Durability::Immediate };
            let next = Some(round.next_topic());
            shared.commit(durability, next, |rows| round.write(rows, now))?;
            moved = round.publish(&mut shared.lock(), now);
        }
        for (append, answer) in appends.drain(..).zip(answers) {
            // Whoever asked may be gone: the append is done all the same.
            let _ = append.reply.send(answer);
        }
        for topic in &moved {
            shared.watches.moved(topic);
        }
        self.committed |= !moved.is_empty();
        Ok(())
    }
}
