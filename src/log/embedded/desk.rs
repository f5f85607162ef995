//! Desk: where one thread's appends get their answers, many for one wake-up. Knows answers, no engine.
//!
//! Waking a task of another thread costs a system call. A thousand appends of one arbiter that were one commit would be a thousand; here they are
//! one, to a task of that arbiter, which wakes the others from within.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;

use crate::log::embedded::writer::Appending;
use crate::log::embedded::writer::QUEUE_REQUESTS;
use crate::log::entry::Append;
use crate::log::entry::Appended;
use crate::log::error::StoreError;
use crate::sync::lock;
use crate::sync::thread_key;
use crate::topic::Topic;

/// An append and its answer.
pub(super) struct Answer {
    pub(super) append: Appending,
    pub(super) answer: Result<Vec<Appended>, StoreError>,
}

/// What an appender gets. What the append was goes back with it: memory is cheapest freed by the thread that asked for it.
pub(super) struct Settled {
    pub(super) answer: Result<Vec<Appended>, StoreError>,
    _spent: (Topic, Append, OwnedSemaphorePermit),
}

impl Answer {
    /// Whoever asked may be gone: the append is done all the same.
    pub(super) fn send(self) {
        let Appending { topic, batch, reply, share, .. } = self.append;
        let _ = reply.send(Settled { answer: self.answer, _spent: (topic, batch, share) });
    }
}

/// The desks of a store, one for each thread that appends.
#[derive(Default)]
pub(super) struct Desks {
    desks: Mutex<HashMap<u64, Arc<Desk>>>,
}

/// One thread's answers.
#[derive(Default)]
pub(super) struct Desk {
    waiting: Mutex<Waiting>,
    notify: Notify,
}

#[derive(Default)]
struct Waiting {
    answers: Vec<Answer>,
    /// Room for the next answers, which was used before.
    spare: Vec<Answer>,
    /// Nobody hands out answers any more: the runtime has ended, or the store.
    closed: bool,
}

impl Desks {
    /// The desk of this thread; opened with its first append, on its runtime.
    pub(super) fn here(&self) -> Arc<Desk> {
        let mut desks = lock(&self.desks);
        let key = thread_key();
        if let Some(desk) = desks.get(&key).filter(|desk| !lock(&desk.waiting).closed) {
            return Arc::clone(desk);
        }
        desks.retain(|_, desk| !lock(&desk.waiting).closed);
        let desk = Arc::new(Desk::default());
        let courier = Courier(Arc::clone(&desk));
        tokio::spawn(courier.run());
        desks.insert(key, Arc::clone(&desk));
        desk
    }
}

impl Drop for Desks {
    fn drop(&mut self) {
        for desk in lock(&self.desks).values() {
            desk.close();
        }
    }
}

impl Desk {
    /// An empty list for answers.
    pub(super) fn spare(&self) -> Vec<Answer> {
        mem::take(&mut lock(&self.waiting).spare)
    }

    /// Answers in order. Few are sent from here, many are left to the thread that waits for them.
    pub(super) fn answer(&self, mut answers: Vec<Answer>) {
        if answers.len() >= MANY {
            let mut waiting = lock(&self.waiting);
            if !waiting.closed {
                if waiting.answers.is_empty() {
                    waiting.answers = answers;
                } else {
                    waiting.answers.append(&mut answers);
                }
                drop(waiting);
                self.notify.notify_one();
                return;
            }
        }
        send(&mut answers);
    }

    fn close(&self) {
        let mut answers = {
            let mut waiting = lock(&self.waiting);
            waiting.closed = true;
            mem::take(&mut waiting.answers)
        };
        send(&mut answers);
        self.notify.notify_one();
    }
}

fn send(answers: &mut Vec<Answer>) {
    answers.drain(..).for_each(Answer::send);
}

/// Hands out a thread's answers. Where its runtime ends, it closes the desk: no answer is left behind.
struct Courier(Arc<Desk>);

impl Courier {
    async fn run(self) {
        loop {
            let (mut answers, closed) = {
                let mut waiting = lock(&self.0.waiting);
                (mem::take(&mut waiting.answers), waiting.closed)
            };
            send(&mut answers);
            if closed {
                return;
            }
            if answers.capacity() <= QUEUE_REQUESTS {
                lock(&self.0.waiting).spare = answers;
            }
            self.0.notify.notified().await;
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// From so many answers on a wake-up of the courier is cheaper than one for each.
const MANY: usize = 4;
