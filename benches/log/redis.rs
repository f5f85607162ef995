//! Redis: `RedisStore` beside plain Redis Streams by its own client, pipelined over one connection, on one server for each way to sync its file.

use std::cell::Cell;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use actix_pubsub::EntryId;
use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::Fetch;
use actix_pubsub::log::Group;
use actix_pubsub::log::Limit;
use actix_pubsub::log::Name;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Position;
use actix_pubsub::log::RedisStore;
use actix_pubsub::log::Store;
use redis::AsyncConnectionConfig;
use redis::Client;
use redis::FromRedisValue;
use redis::IntoConnectionInfo;
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use crate::Bench;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::folder::Folder;
use crate::note::Note;
use crate::report::Goal;
use crate::rounds;
use crate::rounds::Peer;
use crate::rounds::Rates;
use crate::rounds::crowd;

const STORE: &str = "store";
const CLIENT: &str = "plain client";

/// Requests under way at once.
const IN_FLIGHT: u64 = 64;
/// Entries of a page, and of a fetch.
const PAGE: usize = 100;

pub(crate) async fn run(bench: &mut Bench) {
    for sync in ["always", "everysec"] {
        let folder = Folder::new();
        let Some(server) = Server::start(&folder, sync).await else {
            bench.report.skip("redis: skipped, there is no redis-server on PATH");
            return;
        };
        let sizes = bench.size((256, 500), (25_600, 200_000));
        let plain = Plain::connect(&server.url).await;
        let store = RedisStore::connect(&server.url).await.expect("it answers");
        let topic = Topic::parse("notes").expect("a topic");
        let rates = append(bench, &store, &plain, &topic, sizes.0).await;
        let what = |of: &str| format!("redis, fsync {sync}: {of}");
        let setting = format!("fsync {sync}");
        let record = |bench: &Bench, measure: &str, rates: &Rates| {
            for (peer, samples) in rates.peers() {
                let row = Row::new("redis", measure, peer, Unit::PerSecond, samples).base(CLIENT);
                bench.args.record.row(&row.setting(&setting));
            }
        };
        record(bench, "append, 64 in flight", &rates);
        bench.report.rates(what("append, 64 in flight"), &rates, STORE, CLIENT, Goal::AtLeast(0.8));
        if sync == "everysec" {
            let ids = fill(&store, sizes.1).await;
            let rates = read(bench, &store, &plain, Rc::clone(&ids)).await;
            record(bench, "read, pages of 100, 64 in flight", &rates);
            bench.report.rates(what("read, pages of 100, 64 in flight"), &rates, STORE, CLIENT, Goal::AtLeast(0.8));
            let rates = replay(bench, &store, &plain, sizes.1).await;
            record(bench, "read, page after page", &rates);
            bench.report.rates(what("read, page after page"), &rates, STORE, CLIENT, Goal::Free);
        }
        let entries = bench.size(300, 20_000);
        let rates = consume(bench, &store, &plain, entries).await;
        record(bench, "fetch and ack, 100 at a time", &rates);
        bench.report.rates(what("fetch and ack, 100 at a time"), &rates, STORE, CLIENT, Goal::Free);
    }
}

async fn append(bench: &Bench, store: &RedisStore, plain: &Plain, topic: &Topic, entries: u64) -> Rates {
    let payload = Note::json(1);
    let (rounds, warm) = (bench.rounds(9), bench.size(64, 2_560));
    let turn = |entries: u64| {
        let (ours, theirs) = ((store.clone(), topic.clone(), payload.clone()), (plain.clone(), payload.clone()));
        vec![
            Peer::new(STORE, move || {
                let ours = ours.clone();
                crowd(IN_FLIGHT, entries, move |_| {
                    let (store, topic, payload) = ours.clone();
                    async move {
                        let entry = NewEntry::new("bench.note", payload);
                        store.append(&topic, Append::one(entry)).await.expect("an append");
                    }
                })
            }),
            Peer::new(CLIENT, move || {
                let theirs = theirs.clone();
                crowd(IN_FLIGHT, entries, move |_| {
                    let (plain, payload) = theirs.clone();
                    async move { plain.append("plain", &payload).await }
                })
            }),
        ]
    };
    // The first of each pay for connecting.
    rounds::run(&bench.args, 1, turn(warm)).await;
    let rates = rounds::run(&bench.args, rounds, turn(entries)).await;
    let appended = warm + entries * rounds as u64;
    let appended = |peer| if bench.args.wants_measure(peer) { appended } else { 0 };
    assert_eq!(store.info(topic).await.expect("its numbers").entries, appended(STORE), "the store lacks entries");
    assert_eq!(plain.len("plain").await, appended(CLIENT), "the plain stream lacks entries");
    rates
}

/// Fills one stream, which both read. Returns the ids before its pages.
async fn fill(store: &RedisStore, entries: u64) -> Rc<Vec<EntryId>> {
    let topic = Topic::parse(HISTORY).expect("a topic");
    let mut ids = vec![EntryId::MIN];
    for page in 0..entries / PAGE as u64 {
        let first = page * PAGE as u64;
        let notes = (first..first + PAGE as u64).map(|number| NewEntry::new("bench.note", Note::json(number))).collect();
        let appended = store.append(&topic, Append::many(notes)).await.expect("an append");
        ids.push(appended.last().expect("one for each").id);
    }
    ids.pop();
    Rc::new(ids)
}

/// Pages all over the history, many at once.
async fn read(bench: &Bench, store: &RedisStore, plain: &Plain, ids: Rc<Vec<EntryId>>) -> Rates {
    let pages = ids.len() as u64;
    let topic = Topic::parse(HISTORY).expect("a topic");
    let ((store, ours), (plain, theirs)) = ((store.clone(), Rc::clone(&ids)), (plain.clone(), ids));
    let peers = vec![
        Peer::new(STORE, move || {
            let (store, ids, topic) = (store.clone(), Rc::clone(&ours), topic.clone());
            let read = crowd(IN_FLIGHT, pages, move |page| {
                let (store, after, topic) = (store.clone(), ids[page as usize], topic.clone());
                async move {
                    let batch = store.read(&topic, Position::After(after), Limit::entries(PAGE)).await.expect("a page");
                    let first: Note = serde_json::from_slice(&batch.entries[0].payload).expect("a note");
                    assert_eq!((batch.entries.len(), first.number), (PAGE, page * PAGE as u64), "a page lacks entries");
                }
            });
            async move { of_pages(read.await) }
        }),
        Peer::new(CLIENT, move || {
            let (plain, ids) = (plain.clone(), Rc::clone(&theirs));
            let read = crowd(IN_FLIGHT, pages, move |page| {
                let (plain, after) = (plain.clone(), ids[page as usize]);
                async move {
                    let entries = plain.read(&format!("({after}"), PAGE).await;
                    let first: Note = serde_json::from_slice(&entries[0].1[1].1).expect("a note");
                    assert_eq!((entries.len(), first.number), (PAGE, page * PAGE as u64), "a page lacks entries");
                }
            });
            async move { of_pages(read.await) }
        }),
    ];
    rounds::run(&bench.args, bench.rounds(7), peers).await
}

fn of_pages((pages, took): (u64, Duration)) -> (u64, Duration) {
    (pages * PAGE as u64, took)
}

/// One reader, from the first page to the last, as a replay does.
async fn replay(bench: &Bench, store: &RedisStore, plain: &Plain, entries: u64) -> Rates {
    let topic = Topic::parse(HISTORY).expect("a topic");
    let page = Limit::default().entries;
    let peers = vec![
        Peer::new(STORE, || {
            let (store, topic) = (store.clone(), topic.clone());
            async move { (entries, crate::replay::pages(&store, &topic, entries).await) }
        }),
        Peer::new(CLIENT, || async move {
            let (start, mut count, mut after) = (Instant::now(), 0, "-".to_owned());
            loop {
                let read = plain.read(&after, page).await;
                let Some((last, _)) = read.last() else { break };
                after = format!("({last}");
                count += read.len() as u64;
            }
            assert_eq!(count, entries, "the plain stream lacks entries");
            (entries, start.elapsed())
        }),
    ];
    rounds::run(&bench.args, bench.rounds(7), peers).await
}

/// One consumer works off a stream, by new groups of it.
async fn consume(bench: &Bench, store: &RedisStore, plain: &Plain, entries: u64) -> Rates {
    let topic = Topic::parse(WORK).expect("a topic");
    crate::replay::fill(store, &topic, entries, PAGE as u64).await;
    let groups = Rc::new(Cell::new(0));
    let name = |groups: &Rc<Cell<u32>>| format!("group-{}", groups.replace(groups.get() + 1));
    let (ours, theirs) = (Rc::clone(&groups), Rc::clone(&groups));
    let peers = vec![
        Peer::new(STORE, move || {
            let (store, group) = (store.clone(), Group::new(topic.clone(), Name::parse(&name(&ours)).expect("a name")));
            async move {
                assert!(store.create_group(&group, Position::Start).await.expect("a group"), "it is new");
                let (start, consumer, mut count) = (Instant::now(), Name::parse("one").expect("a name"), 0);
                while count < entries {
                    let fetched = store.fetch(&group, &consumer, Fetch::entries(PAGE)).await.expect("entries");
                    assert!(!fetched.is_empty(), "the group lacks entries");
                    let tokens: Vec<_> = fetched.into_iter().map(|fetched| fetched.token).collect();
                    count += tokens.len() as u64;
                    store.ack(&group, tokens).await.expect("an ack");
                }
                (entries, start.elapsed())
            }
        }),
        Peer::new(CLIENT, move || {
            let (plain, group) = (plain.clone(), name(&theirs));
            async move {
                plain.create_group(&group).await;
                let (start, mut count) = (Instant::now(), 0);
                while count < entries {
                    count += plain.work(&group).await;
                }
                (entries, start.elapsed())
            }
        }),
    ];
    rounds::run(&bench.args, bench.rounds(5), peers).await
}

/// The client as it comes, with one connection for all, and the delay of small packets off, as ours.
#[derive(Clone)]
struct Plain {
    connection: MultiplexedConnection,
}

/// An entry of a stream: its id and its fields.
type Entry = (String, Vec<(String, Vec<u8>)>);

impl Plain {
    async fn connect(url: &str) -> Self {
        let info = url.into_connection_info().expect("a URL");
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = Client::open(info.set_tcp_settings(tcp)).expect("a client");
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.expect("it answers");
        Self { connection }
    }

    async fn ask<T: FromRedisValue + Debug>(&self, command: &redis::Cmd) -> T {
        command.query_async(&mut self.connection.clone()).await.expect("an answer")
    }

    async fn append(&self, stream: &str, payload: &[u8]) {
        let mut command = redis::cmd("XADD");
        command.arg(stream).arg("*").arg("name").arg("bench.note").arg("payload").arg(payload);
        let _id: String = self.ask(&command).await;
    }

    async fn len(&self, stream: &str) -> u64 {
        self.ask(redis::cmd("XLEN").arg(stream)).await
    }

    async fn read(&self, from: &str, entries: usize) -> Vec<Entry> {
        self.ask(redis::cmd("XRANGE").arg(HISTORY).arg(from).arg("+").arg("COUNT").arg(entries)).await
    }

    async fn create_group(&self, group: &str) {
        let _ok: String = self.ask(redis::cmd("XGROUP").arg("CREATE").arg(WORK).arg(group).arg("0")).await;
    }

    /// Takes some entries and acks them; how many.
    async fn work(&self, group: &str) -> u64 {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(group).arg("one").arg("COUNT").arg(PAGE).arg("STREAMS").arg(WORK).arg(">");
        let streams: Vec<(String, Vec<Entry>)> = self.ask(&command).await;
        let rows = &streams.first().expect("the group lacks entries").1;
        let mut command = redis::cmd("XACK");
        command.arg(WORK).arg(group);
        for (id, _) in rows {
            command.arg(id);
        }
        let acked: u64 = self.ask(&command).await;
        assert_eq!(acked, rows.len() as u64, "an ack was lost");
        acked
    }
}

/// The stream that is read.
const HISTORY: &str = "history";
/// The stream that is worked off.
const WORK: &str = "work";

/// A server of its own, ended on drop.
struct Server {
    url: String,
    child: Child,
}

impl Server {
    /// `None`: there is no server program.
    async fn start(folder: &Folder, sync: &str) -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port().to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", sync])
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { url: format!("redis://127.0.0.1:{port}"), child };
        let client = Client::open(server.url.as_str()).expect("a URL");
        let patience = Instant::now() + START_MAX;
        while client.get_multiplexed_async_connection().await.is_err() {
            assert!(Instant::now() < patience, "the server does not start");
            sleep(Duration::from_millis(5)).await;
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing takes this long but a server that cannot start.
const START_MAX: Duration = Duration::from_secs(20);
