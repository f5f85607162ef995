//! Consumers: entries that consumer groups handle per second, of a backlog, on a store in memory and on the embedded one.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::Arbiter;
use actix::Context;
use actix::Handler;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Delivery;
use actix_pubsub::Failure;
use actix_pubsub::PubSub;
use actix_pubsub::Topic;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::Store;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::Bench;
use crate::common::numbers;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::folder::Folder;
use crate::note::Note;
use crate::replay;
use crate::report::Table;
use crate::rounds;
use crate::rounds::Peer;

/// What the consumers of one group have done.
struct Ledger {
    handled: Vec<AtomicBool>,
    count: AtomicU64,
    done: Notify,
}

struct Worker {
    pubsub: PubSub,
    group: String,
    concurrency: usize,
    ledger: Arc<Ledger>,
    /// Where a consumer that is alone and handles one at a time is: it gets them in order.
    next: Option<u64>,
}

const MEMORY: &str = "memory";
const EMBEDDED: &str = "embedded";

pub(crate) async fn run(bench: &mut Bench) {
    let (few, many) = bench.size((20, 60), (10_000, 100_000));
    let folder = Folder::new();
    let embedded = EmbeddedStore::open(folder.file("store")).expect("a store");
    let stores: [(&'static str, Arc<dyn Store>); 2] =
        [(MEMORY, Arc::new(MemoryStore::new())), (EMBEDDED, Arc::new(embedded.clone()))];
    let topic = Topic::parse("notes").expect("a topic");
    let mut pubsubs = Vec::new();
    for (name, store) in &stores {
        // One topic for each number of entries, so that each group is done when it has handled all.
        for entries in [few, many] {
            replay::fill(&**store, &topic_of(&topic, entries), entries, 1_024).await;
        }
        pubsubs.push((*name, PubSub::builder().log_shared(Arc::clone(store)).build().expect("a pub/sub")));
    }
    let mut table = Table {
        title: "Entries handled by a group's consumers, of a backlog, on two arbiters",
        headings: vec!["consumers", "concurrency", MEMORY, EMBEDDED],
        rows: Vec::new(),
    };
    let turns = Rc::new(std::cell::Cell::new(0));
    for (consumers, concurrency, entries) in [(1, 1, few), (4, 1, few), (1, 64, many), (4, 64, many)] {
        let peers = pubsubs
            .iter()
            .map(|(name, pubsub)| {
                let (topic, turns) = (topic_of(&topic, entries), Rc::clone(&turns));
                Peer::new(name, move || {
                    let (pubsub, topic) = (pubsub.clone(), topic.clone());
                    let group = format!("group-{}", turns.replace(turns.get() + 1));
                    async move { (entries, consume(&pubsub, topic, group, consumers, concurrency, entries).await) }
                })
            })
            .collect();
        let rates = rounds::run(&bench.args, bench.rounds(5), peers).await;
        let setting = format!("concurrency {concurrency}");
        for (peer, samples) in rates.peers() {
            let row = Row::new("consumers", "entries handled", peer, Unit::PerSecond, samples).base(MEMORY);
            bench.args.record.row(&row.setting(&setting).at("consumers", consumers as f64));
        }
        let rate = |name| numbers::rate(rates.median(name));
        table.rows.push(vec![consumers.to_string(), concurrency.to_string(), rate(MEMORY), rate(EMBEDDED)]);
    }
    for (_, pubsub) in &pubsubs {
        pubsub.shutdown().await;
    }
    drop(stores);
    embedded.close().await.expect("a close");
    bench.report.table(table);
}

fn topic_of(topic: &Topic, entries: u64) -> Topic {
    Topic::parse(&format!("{}:{entries}", topic.as_str())).expect("a topic")
}

async fn consume(pubsub: &PubSub, topic: Topic, group: String, consumers: usize, concurrency: usize, entries: u64) -> Duration {
    let ledger = Arc::new(Ledger {
        handled: (0..entries).map(|_| AtomicBool::new(false)).collect(),
        count: AtomicU64::new(0),
        done: Notify::new(),
    });
    let arbiters = [Arbiter::new(), Arbiter::new()];
    let start = Instant::now();
    for consumer in 0..consumers {
        let (pubsub, group, ledger, topic) = (pubsub.clone(), group.clone(), Arc::clone(&ledger), topic.clone());
        let next = (consumers == 1 && concurrency == 1).then_some(0);
        Worker::start_in_arbiter(&arbiters[consumer % 2].handle(), move |ctx| {
            let worker = Worker { pubsub, group, concurrency, ledger, next };
            worker.join(ctx, &topic);
            worker
        });
    }
    ledger.done.notified().await;
    let took = start.elapsed();
    // The last acks are on their way.
    let store = pubsub.log().expect("a log");
    while store.groups(&topic).await.expect("its groups").iter().any(|known| known.name.as_str() == group && known.pending > 0) {
        sleep(Duration::from_millis(1)).await;
    }
    for arbiter in arbiters {
        arbiter.stop();
        arbiter.join().expect("no handler panics");
    }
    assert_eq!(ledger.count.load(Ordering::Acquire), entries, "entries were handled twice");
    took
}

impl Worker {
    fn join(&self, ctx: &mut Context<Self>, topic: &Topic) {
        let options = ConsumeOptions::new().concurrency(self.concurrency);
        self.pubsub.consume::<Note, _>(ctx, topic, &self.group, &options).expect("a pub/sub with a log");
    }
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<Delivery<Note>> for Worker {
    type Result = Result<(), Failure>;

    fn handle(&mut self, note: Delivery<Note>, _: &mut Context<Self>) -> Result<(), Failure> {
        if let Some(next) = &mut self.next {
            assert_eq!(note.number, *next, "a lone consumer gets entries in order");
            *next += 1;
        }
        let ledger = &*self.ledger;
        assert!(!ledger.handled[note.number as usize].swap(true, Ordering::Relaxed), "an entry came twice");
        if ledger.count.fetch_add(1, Ordering::AcqRel) + 1 == ledger.handled.len() as u64 {
            ledger.done.notify_one();
        }
        Ok(())
    }
}
