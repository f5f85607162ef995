//! Reader: the actor that a log is replayed into. Checks that every entry comes once and in order.

use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::ActorContext;
use actix::Arbiter;
use actix::Context;
use actix::Handler;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::log::Gap;
use actix_pubsub::log::Position;
use tokio::sync::oneshot;

use crate::note::Note;

struct Reader {
    pubsub: PubSub,
    topic: Topic,
    next: u64,
    entries: u64,
    start: Instant,
    done: Option<oneshot::Sender<Duration>>,
}

/// Replays `entries` of a topic, numbered from zero, into an actor on an arbiter of its own.
pub(crate) async fn replay(pubsub: &PubSub, topic: &Topic, entries: u64) -> Duration {
    let (arbiter, (done, took)) = (Arbiter::new(), oneshot::channel());
    let (pubsub, topic) = (pubsub.clone(), topic.clone());
    Reader::start_in_arbiter(&arbiter.handle(), move |_| Reader {
        pubsub,
        topic,
        next: 0,
        entries,
        start: Instant::now(),
        done: Some(done),
    });
    let took = took.await.expect("every entry is handled, in order");
    arbiter.stop();
    arbiter.join().expect("no handler panics");
    took
}

impl Actor for Reader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.start = Instant::now();
        self.pubsub.subscribe_from::<Note, _>(ctx, &self.topic, Position::Start).expect("a topic of the log");
    }
}

impl Handler<Event<Note>> for Reader {
    type Result = ();

    fn handle(&mut self, note: Event<Note>, ctx: &mut Context<Self>) {
        assert_eq!(note.number, self.next, "entries are lost, doubled or out of order");
        self.next += 1;
        if self.next == self.entries
            && let Some(done) = self.done.take()
        {
            done.send(self.start.elapsed()).expect("it is waited for");
            ctx.stop();
        }
    }
}

impl Handler<Gap> for Reader {
    type Result = ();

    fn handle(&mut self, gap: Gap, _: &mut Context<Self>) {
        panic!("nothing was trimmed: {gap:?}");
    }
}
