//! Backends under actors: followers and consumers on every store, and over a server that is killed in the middle of everything.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use actix::prelude::*;
use actix_pubsub::AppendOptions;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Delivery;
use actix_pubsub::EntryId;
use actix_pubsub::Event;
use actix_pubsub::Failure;
use actix_pubsub::PubSub;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::Gap;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::Store;

use crate::support::Folder;
use crate::support::Note;
use crate::support::quiet_panics;
use crate::support::system;

/// Follows notes on `t` from the start, on a node of its own.
struct Reader {
    pubsub: PubSub,
    seen: Arc<Mutex<Vec<u64>>>,
}

impl Actor for Reader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.pubsub.subscribe_from::<Note, _>(ctx, "t", EntryId::MIN).unwrap();
    }
}

impl Handler<Event<Note>> for Reader {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, _: &mut Self::Context) {
        self.seen.lock().unwrap().push(event.0);
    }
}

impl Handler<Gap> for Reader {
    type Result = ();

    fn handle(&mut self, gap: Gap, _: &mut Self::Context) {
        panic!("nothing is missing, but {gap:?}");
    }
}

/// Consumes notes on `t`; every so often it fails, or dies of one.
struct Worker {
    pubsub: PubSub,
    done: Arc<Mutex<Vec<u64>>>,
    /// Of all workers: one that dies is not the end of the count.
    calls: Rc<Cell<u64>>,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let options = ConsumeOptions::new()
            .concurrency(16)
            .attempts(1_000)
            .visibility(Duration::from_secs(3))
            .backoff(Duration::from_millis(1), Duration::from_millis(20));
        self.pubsub.consume::<Note, _>(ctx, "t", "workers", &options).unwrap();
    }
}

impl Handler<Delivery<Note>> for Worker {
    type Result = ResponseFuture<Result<(), Failure>>;

    fn handle(&mut self, note: Delivery<Note>, ctx: &mut Self::Context) -> Self::Result {
        let calls = self.calls.get() + 1;
        self.calls.set(calls);
        assert_ne!(calls % 61, 0, "on purpose");
        if calls.is_multiple_of(83) {
            ctx.stop();
        }
        let (done, value, fails) = (Arc::clone(&self.done), note.0, calls.is_multiple_of(37));
        Box::pin(async move {
            tokio::task::yield_now().await;
            if fails {
                return Err("now and then".into());
            }
            done.lock().unwrap().push(value);
            Ok(())
        })
    }
}

/// Appends notes on one node while another follows them and three consumers, who die and are replaced, work on them. `trouble` is called at a third
/// and at two thirds of the way.
async fn everything(store: Arc<dyn Store>, notes: u64, mut trouble: impl FnMut()) {
    quiet_panics();
    let here = PubSub::builder().log_shared(Arc::clone(&store)).build().unwrap();
    let there = PubSub::builder().log_shared(Arc::clone(&store)).build().unwrap();
    let (seen, done, calls) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())), Rc::new(Cell::new(0)));
    Reader { pubsub: there.clone(), seen: Arc::clone(&seen) }.start();
    let mut workers: Vec<Addr<Worker>> = Vec::new();
    let hire = |workers: &mut Vec<Addr<Worker>>| {
        workers.retain(Addr::connected);
        while workers.len() < 3 {
            workers.push(Worker { pubsub: there.clone(), done: Arc::clone(&done), calls: Rc::clone(&calls) }.start());
        }
    };
    for value in 0..notes {
        // They find a backlog: who dies then has more in its hands than one.
        if value >= notes / 5 {
            hire(&mut workers);
        }
        if value == notes / 3 || value == notes * 2 / 3 {
            trouble();
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        // Whether an append of an unknown outcome was done its key says.
        while let Err(error) = here.append_with("t", &Note(value), AppendOptions::new().key(value.to_string())).await {
            assert!(Instant::now() < deadline, "still {error:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        hire(&mut workers);
        let all_seen = seen.lock().unwrap().len() >= usize::try_from(notes).unwrap();
        let groups = store.groups(&"t".parse().unwrap()).await.unwrap_or_default();
        let settled = groups.first().is_some_and(|info| info.pending == 0 && info.lag.is_none_or(|lag| lag == 0));
        if all_seen && settled {
            break;
        }
        let lost = seen.lock().unwrap().len();
        assert!(Instant::now() < deadline, "{lost} of {notes} seen, {groups:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(*seen.lock().unwrap(), (0..notes).collect::<Vec<_>>(), "each once, in order");
    let mut done = done.lock().unwrap().clone();
    done.sort_unstable();
    done.dedup();
    assert_eq!(done, (0..notes).collect::<Vec<_>>(), "each handled at least once");
}

#[test]
fn followers_and_dying_consumers_get_everything_from_memory() {
    system(everything(Arc::new(MemoryStore::new()), 5_000, || {}));
}

#[test]
fn followers_and_dying_consumers_get_everything_from_the_embedded_store() {
    let folder = Folder::new();
    system(async {
        everything(Arc::new(EmbeddedStore::open(folder.file()).unwrap()), 1_500, || {}).await;
    });
}

#[cfg(feature = "redis")]
#[test]
fn followers_and_dying_consumers_get_everything_from_redis_killed_and_started_again() {
    let server = std::cell::RefCell::new(crate::servers::Server::redis());
    let store = actix_pubsub::log::RedisStore::new(&server.borrow().url()).unwrap();
    system(everything(Arc::new(store), 1_500, || server.borrow_mut().restart()));
}

#[cfg(feature = "jetstream")]
#[test]
fn followers_and_dying_consumers_get_everything_from_jetstream_killed_and_started_again() {
    let server = std::cell::RefCell::new(crate::servers::Server::nats());
    let store = actix_pubsub::log::JetStreamStore::new(&server.borrow().url()).unwrap();
    system(everything(Arc::new(store), 1_500, || server.borrow_mut().restart()));
}
