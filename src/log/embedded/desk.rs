//! Desk: where one thread's appends get their answers, many for one wake-up. Knows answers, no engine.
//!
//! Waking a task of another thread costs a system call. A thousand appends of one arbiter that were one commit would be a thousand; here they are
//! one, to a task of that arbiter, which wakes the others from within.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::log::embedded::writer::Reply;
use crate::log::entry::Appended;
use crate::log::error::StoreError;
use crate::sync::lock;
use crate::sync::thread_key;

type Answer = (Reply<Vec<Appended>>, Result<Vec<Appended>, StoreError>);

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
    /// Answers in order. Few are sent from here, many are left to the thread that waits for them.
    pub(super) fn answer(&self, answers: Vec<Answer>) {
        if answers.len() >= MANY {
            let mut waiting = lock(&self.waiting);
            if !waiting.closed {
                waiting.answers.extend(answers);
                drop(waiting);
                self.notify.notify_one();
                return;
            }
        }
        send(answers);
    }

    fn close(&self) {
        let answers = {
            let mut waiting = lock(&self.waiting);
            waiting.closed = true;
            mem::take(&mut waiting.answers)
        };
        send(answers);
        self.notify.notify_one();
    }
}

/// Whoever asked may be gone: the append is done all the same.
fn send(answers: Vec<Answer>) {
    for (reply, answer) in answers {
        let _ = reply.send(answer);
    }
}

/// Hands out a thread's answers. Where its runtime ends, it closes the desk: no answer is left behind.
struct Courier(Arc<Desk>);

impl Courier {
    async fn run(self) {
        loop {
            let (answers, closed) = {
                let mut waiting = lock(&self.0.waiting);
                (mem::take(&mut waiting.answers), waiting.closed)
            };
            send(answers);
            if closed {
                return;
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
