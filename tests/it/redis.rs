//! Redis: what the store in Redis promises beyond the contract, against the real server: other programs on the same streams, outages, refusals.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix_pubsub::EntryId;
use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::Batch;
use actix_pubsub::log::Fetch;
use actix_pubsub::log::Fetched;
use actix_pubsub::log::GapCause;
use actix_pubsub::log::Group;
use actix_pubsub::log::Limit;
use actix_pubsub::log::Name;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Outcome;
use actix_pubsub::log::PendingQuery;
use actix_pubsub::log::Position;
use actix_pubsub::log::RedisStore;
use actix_pubsub::log::Store;
use actix_pubsub::log::StoreError;
use actix_pubsub::log::Token;
use actix_pubsub::log::Trim;

use crate::servers::Server;

/// So long that a test does not outwait it.
const LONG: Duration = Duration::from_secs(30);
/// The time-out of stores that are to run into it.
const BRIEF: Duration = Duration::from_millis(400);

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn name(name: &str) -> Name {
    Name::parse(name).unwrap()
}

fn group(topic_name: &str) -> Group {
    Group::new(topic(topic_name), name("workers"))
}

fn entry(n: u64) -> NewEntry {
    NewEntry::new("test.number", n.to_string())
}

fn numbers<'a>(payloads: impl IntoIterator<Item = &'a bytes::Bytes>) -> Vec<u64> {
    payloads.into_iter().map(|payload| std::str::from_utf8(payload).unwrap().parse().unwrap()).collect()
}

fn tokens(fetched: &[Fetched]) -> Vec<Token> {
    fetched.iter().map(|fetched| fetched.token.clone()).collect()
}

/// What `redis-cli` says, in lines.
fn cli(server: &Server, args: &[&str]) -> Vec<String> {
    let output = Command::new("redis-cli").args(["-p", &server.port.to_string()]).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().lines().map(str::to_owned).collect()
}

async fn append(store: &RedisStore, topic: &Topic, numbers: std::ops::Range<u64>) -> Vec<EntryId> {
    let mut ids = Vec::new();
    for n in numbers {
        ids.push(store.append(topic, Append::one(entry(n))).await.unwrap()[0].id);
    }
    ids
}

async fn all(store: &RedisStore, topic: &Topic) -> Batch {
    store.read(topic, Position::Start, Limit { entries: 1 << 20, bytes: 1 << 30 }).await.unwrap()
}

fn outcome<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> Outcome {
    match answer {
        Err(StoreError::Unavailable { outcome, .. }) => outcome,
        other => panic!("{other:?}"),
    }
}

/// An error with everything that it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn is_engine<T: std::fmt::Debug>(answer: Result<T, StoreError>, says: &str) {
    let Err(error @ StoreError::Engine { .. }) = answer else { panic!("{answer:?}") };
    let cause = chain(&error);
    assert!(cause.contains(says), "{cause}");
}

async fn in_time<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(LONG, what).await.expect("in time")
}

// ---- other programs on the same streams ----------------------------------------------------------------------------------

#[actix::test]
async fn entries_of_another_program_are_read_by_the_documented_rules() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let mut tail = store.tail();
    tail.watch(&topic("orders"), EntryId::MIN);
    cli(&server, &["XADD", "orders", "7-1", "user", "ann", "payload", "raw", "name", "order.placed"]);
    cli(&server, &["XADD", "orders", "7-2", "temp", "19.8", "name", "weather"]);
    let batch = all(&store, &topic("orders")).await;
    assert_eq!(
        (batch.entries[0].id, &*batch.entries[0].name, &*batch.entries[0].payload),
        (EntryId::new(7, 1), "order.placed", b"raw".as_slice())
    );
    assert_eq!(batch.entries[0].header("user"), Some("ann"));
    assert_eq!(
        (&*batch.entries[1].name, &*batch.entries[1].payload),
        ("weather", br#"{"name":"weather","temp":"19.8"}"#.as_slice())
    );
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(in_time(tail.next(Limit::default())).await.unwrap().into_iter().flat_map(|(_, batch)| batch.entries));
    }
    assert_eq!(seen, batch.entries);
    let g = group("orders");
    store.create_group(&g, Position::Start).await.unwrap();
    let fetched = store.fetch(&g, &name("c"), Fetch::entries(9)).await.unwrap();
    assert_eq!(fetched.into_iter().filter_map(|fetched| fetched.entry).collect::<Vec<_>>(), batch.entries);
    assert_eq!(store.topics(None, 9).await.unwrap(), [topic("orders")], "and its stream is a topic");
}

#[actix::test]
async fn our_entries_and_groups_read_well_in_redis_cli() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let placed = NewEntry::new("order.placed", r#"{"id":17}"#).header("trace", "00-ab").header("name", "x");
    let ids = store.append(&topic("orders"), Append::many(vec![placed, NewEntry::new("", "")])).await.unwrap();
    let (one, other) = (ids[0].id.to_string(), ids[1].id.to_string());
    let fields =
        [&*one, "name", "order.placed", "payload", r#"{"id":17}"#, "h:trace", "00-ab", "h:name", "x", &*other, "payload"];
    assert_eq!(cli(&server, &["XRANGE", "orders", "-", "+"]), fields);
    let g = group("orders");
    store.create_group(&g, Position::Start).await.unwrap();
    store.fetch(&g, &name("worker-1"), Fetch::entries(1)).await.unwrap();
    assert_eq!(cli(&server, &["XPENDING", "orders", "workers"]), ["1", &*one, &*one, "worker-1", "1"]);
    assert_eq!(cli(&server, &["ZRANGE", "{orders}*due*orders*workers", "0", "-1"]), [&*one]);
    assert_eq!(cli(&server, &["XLEN", "orders"]), ["2"]);
}

#[actix::test]
async fn what_a_foreign_consumer_took_and_lost_is_anyones_after_the_visibility() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let g = group("t");
    append(&store, &g.topic, 0..1_200).await;
    store.create_group(&g, Position::Start).await.unwrap();
    // Ours first, so that theirs are found behind more than one step of the search.
    let ours = store.fetch(&g, &name("ours"), Fetch::entries(1_195).visibility(LONG)).await.unwrap();
    cli(&server, &["XREADGROUP", "GROUP", "workers", "their consumer", "COUNT", "5", "STREAMS", "t", ">"]);
    let quick = Fetch::entries(9).visibility(Duration::from_millis(150));
    let mut taken = Vec::new();
    while taken.len() < 5 {
        let fetched = store.fetch(&g, &name("heir"), quick.wait(LONG)).await.unwrap();
        assert!(!fetched.is_empty() && fetched.iter().all(|fetched| fetched.attempt == 2), "{fetched:?}");
        assert_eq!(store.ack(&g, tokens(&fetched)).await.unwrap(), fetched.len() as u64);
        taken.extend(fetched);
    }
    assert_eq!(numbers(taken.iter().map(|of| &of.entry.as_ref().unwrap().payload)), [1_195, 1_196, 1_197, 1_198, 1_199]);
    let names: Vec<_> = store.consumers(&g).await.unwrap().iter().map(|info| info.name.to_string()).collect();
    assert_eq!(names, ["heir", "ours", "their_consumer"], "what is no name here is made one");
    assert_eq!(store.ack(&g, tokens(&ours)).await.unwrap(), 1_195);
    assert_eq!(cli(&server, &["ZCARD", "{t}*due*t*workers"]), ["0"]);
}

#[actix::test]
async fn a_foreign_ack_is_an_ack() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let g = group("t");
    let ids = append(&store, &g.topic, 0..2).await;
    store.create_group(&g, Position::Start).await.unwrap();
    store.fetch(&g, &name("c"), Fetch::entries(2).visibility(Duration::ZERO)).await.unwrap();
    cli(&server, &["XACK", "t", "workers", &ids[0].to_string()]);
    let again = store.fetch(&g, &name("c"), Fetch::entries(2)).await.unwrap();
    assert_eq!(again.iter().map(|of| of.id).collect::<Vec<_>>(), [ids[1]]);
}

/// How many entries a group has read is not in the append-only file: after a restart Redis told a lag of all that were ever appended. What our own
/// fetches have read is counted in it; what another program has is not known any more, and that is said.
#[actix::test]
async fn the_lag_is_right_or_unknown_after_the_server_was_started_again() {
    let mut server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (g, other) = (group("t"), Group::new(topic("t"), name("other")));
    let lag = async |group: &Group| {
        let groups = store.groups(&group.topic).await.unwrap();
        groups.into_iter().find(|info| info.name == group.name).unwrap().lag
    };
    append(&store, &g.topic, 0..100).await;
    for group in [&g, &other] {
        store.create_group(group, Position::Start).await.unwrap();
        for _ in 0..3 {
            store.fetch(group, &name("c"), Fetch::entries(20)).await.unwrap();
        }
    }
    cli(&server, &["XREADGROUP", "GROUP", "other", "theirs", "COUNT", "10", "STREAMS", "t", ">"]);
    for round in 0..2 {
        assert_eq!((lag(&g).await, lag(&other).await), (Some(40), None), "round {round}");
        server.restart();
    }
    store.fetch(&g, &name("c"), Fetch::entries(5)).await.unwrap();
    store.fetch(&other, &name("c"), Fetch::entries(5)).await.unwrap();
    assert_eq!((lag(&g).await, lag(&other).await), (Some(35), None));
    // Who has caught up has read them all.
    store.fetch(&other, &name("c"), Fetch::entries(100)).await.unwrap();
    append(&store, &g.topic, 100..110).await;
    store.fetch(&other, &name("c"), Fetch::entries(3)).await.unwrap();
    assert_eq!((lag(&g).await, lag(&other).await), (Some(45), Some(7)));
    server.restart();
    assert_eq!((lag(&g).await, lag(&other).await), (Some(45), Some(7)));
    // A group of its name that is made anew is another.
    store.delete_group(&other).await.unwrap();
    assert_eq!(cli(&server, &["HKEYS", "{t}*meta*t"]), ["counted*workers"]);
}

#[actix::test]
async fn what_an_operator_trims_or_deletes_is_a_gap_that_is_not_certain() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let t = topic("t");
    let ids = append(&store, &t, 0..10).await;
    let from = async |id| store.read(&t, Position::After(id), Limit::default()).await.unwrap();
    let mut tail = store.tail();
    tail.watch(&t, ids[0]);
    cli(&server, &["XDEL", "t", &ids[6].to_string()]);
    let gap = from(ids[2]).await.gap.expect("7 is gone");
    assert_eq!((gap.cause, gap.certain, gap.resumes_at), (GapCause::Trimmed, false, Some(ids[3])));
    assert_eq!(in_time(tail.next(Limit::default())).await.unwrap()[0].1.gap.as_ref().map(|gap| gap.asked_after), Some(ids[0]));
    assert_eq!(from(ids[6]).await.gap, None, "who has passed it misses nothing");
    assert_eq!(from(ids[9]).await.gap, None);
    cli(&server, &["XTRIM", "t", "MAXLEN", "2"]);
    assert_eq!(from(ids[6]).await.gap.map(|gap| gap.resumes_at), Some(Some(ids[8])));
    assert_eq!((from(ids[8]).await.gap, from(ids[9]).await.gap), (None, None));
    cli(&server, &["XTRIM", "t", "MAXLEN", "0"]);
    assert_eq!(from(ids[8]).await.gap.map(|gap| gap.resumes_at), Some(None));
    assert_eq!(from(ids[9]).await.gap, None);
    cli(&server, &["DEL", "t"]);
    assert_eq!(from(ids[9]).await.gap.map(|gap| gap.cause), Some(GapCause::Ahead));
    assert_eq!(store.read(&t, Position::Start, Limit::default()).await.unwrap().gap, None);
}

/// A topic that keeps its newest entry only: a reader that has read each had been told of a gap before each.
#[actix::test]
async fn a_topic_that_keeps_one_entry_is_no_gap_for_who_keeps_up() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let t = topic("t");
    let keep_one = |n| Append::one(entry(n)).trim(Trim::Len(1));
    let mut at = store.append(&t, keep_one(0)).await.unwrap()[0].id;
    for n in 1..5 {
        store.append(&t, keep_one(n)).await.unwrap();
        let batch = store.read(&t, Position::After(at), Limit::default()).await.unwrap();
        assert_eq!((numbers(batch.entries.iter().map(|entry| &entry.payload)), batch.gap), (vec![n], None));
        at = batch.next;
    }
    store.append(&t, Append::many((5..400).map(entry).collect()).trim(Trim::Len(1))).await.unwrap();
    assert!(store.read(&t, Position::After(at), Limit::default()).await.unwrap().gap.is_some(), "more than one at once is");
}

#[actix::test]
async fn an_operator_who_removes_a_group_ends_the_wait_for_it() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let g = group("t");
    store.create_group(&g, Position::Start).await.unwrap();
    let waiting = {
        let (store, g) = (store.clone(), g.clone());
        tokio::spawn(async move { store.fetch(&g, &name("c"), Fetch::entries(1).wait(LONG)).await })
    };
    until(|| cli(&server, &["XINFO", "CONSUMERS", "t", "workers"]).len() > 1).await;
    cli(&server, &["XGROUP", "DESTROY", "t", "workers"]);
    assert!(matches!(in_time(waiting).await.unwrap(), Err(StoreError::NoGroup(of)) if of == g));
}

// ---- keys ----------------------------------------------------------------------------------------------------------------

/// By the cluster specification, and not by the code under test.
fn slot(key: &str) -> u16 {
    let hashed = match key.split_once('{').and_then(|(_, rest)| rest.split_once('}')) {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => key,
    };
    let mut crc = 0_u16;
    for byte in hashed.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 };
        }
    }
    crc % 16_384
}

#[actix::test]
async fn every_key_of_a_topic_is_in_the_slot_of_its_stream() {
    assert_eq!((slot("foo"), slot("foo{}{bar}"), slot("foo{{bar}}zap")), (12_182, 8_363, 4_015));
    for prefix in ["", "app:", "{app}:"] {
        let server = Server::redis();
        let store = RedisStore::builder(&server.url()).prefix(prefix).open().unwrap();
        for topic_name in ["a", "{a}b", "x{a}{b}", "a}b", "}{", "{}a", "ä{"] {
            let g = group(topic_name);
            store
                .append(&g.topic, Append::many(vec![entry(0).dedup("k}{"), entry(1), entry(2)]).trim(Trim::Len(2)))
                .await
                .unwrap();
            store.create_group(&g, Position::Start).await.unwrap();
            let fetched = store.fetch(&g, &name("c"), Fetch::entries(2)).await.unwrap();
            store.nack(&g, tokens(&fetched), Duration::ZERO).await.unwrap();
            store.remove_consumer(&g, &name("c")).await.unwrap();
            let stream = format!("{prefix}{topic_name}");
            let keys = cli(&server, &["--raw", "KEYS", "*"]);
            // Stream, meta, key, due, wake, leaving.
            assert_eq!(keys.len(), 6, "{keys:?}");
            assert!(keys.iter().all(|key| slot(key) == slot(&stream)), "{keys:?}");
            assert_eq!(store.topics(None, 9).await.unwrap(), std::slice::from_ref(&g.topic));
            assert!(store.delete(&g.topic).await.unwrap());
            // An idempotency key goes with its window.
            assert_eq!(cli(&server, &["DBSIZE"]), ["1"]);
            cli(&server, &["FLUSHALL"]);
        }
    }
}

#[actix::test]
async fn the_strangest_entry_that_is_allowed_comes_back() {
    let server = Server::redis();
    let store = RedisStore::builder(&server.url()).prefix("[p]?\\^").open().unwrap();
    let strange = format!("{{}} '\"{}\u{1F980}$(x);\\", "ü".repeat(100));
    let t = topic(&(strange.clone() + &"x".repeat(Topic::BYTES_MAX - strange.len())));
    let mut new = NewEntry::new("payload", (0..=255).collect::<Vec<u8>>());
    for n in 0..2_999 {
        new = new.header(format!("h:{n}\r\n"), "\0\u{7f}");
    }
    new = new.header("", "");
    store.append(&t, Append::one(new.clone())).await.unwrap();
    store.append(&t, Append::one(new.clone().dedup("\r\n * {} \0"))).await.unwrap();
    let batch = all(&store, &t).await;
    assert_eq!(batch.entries.len(), 2);
    for entry in batch.entries {
        assert!((&entry.name, &entry.payload, &entry.headers) == (&new.name, &new.payload, &new.headers));
    }
    assert_eq!(store.topics(None, 9).await.unwrap(), std::slice::from_ref(&t));
    is_engine(store.append(&t, Append::one(new.header("one", "more"))).await, "3001 headers");
    let g = Group::new(t, name("'\"{}$(x);\\\u{1F980}"));
    store.create_group(&g, Position::Start).await.unwrap();
    let fetched = store.fetch(&g, &name("{}"), Fetch::entries(9)).await.unwrap();
    assert_eq!(store.ack(&g, tokens(&fetched)).await.unwrap(), 2);
}

#[actix::test]
async fn ids_that_run_out_are_told_and_a_batch_is_not_kept_by_half() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    cli(&server, &["XADD", "t", "18446744073709551615-18446744073709551614", "payload", "0"]);
    let exhausted = |answer: Result<(), StoreError>| {
        assert!(matches!(answer, Err(StoreError::IdsExhausted { last: EntryId::MAX })), "{answer:?}");
    };
    exhausted(store.append(&topic("t"), Append::many(vec![entry(1), entry(2).dedup("k")])).await.map(drop));
    assert_eq!(all(&store, &topic("t")).await.entries.len(), 1);
    assert!(cli(&server, &["KEYS", "*key*"]).is_empty());
    cli(&server, &["XADD", "u", "18446744073709551615-18446744073709551615", "payload", "0"]);
    exhausted(store.append(&topic("u"), Append::one(entry(1))).await.map(drop));
    let end = store.read(&topic("u"), Position::End, Limit::default()).await.unwrap();
    assert_eq!((end.entries.len(), end.next, end.caught_up), (0, EntryId::MAX, true));
    let after = store.read(&topic("u"), Position::After(EntryId::MAX), Limit::default()).await.unwrap();
    assert_eq!((after.entries.len(), after.gap), (0, None));
    let g = group("u");
    store.create_group(&g, Position::Start).await.unwrap();
    store.fetch(&g, &name("c"), Fetch::entries(1)).await.unwrap();
    assert_eq!(store.pending(&g, PendingQuery { after: EntryId::MAX, ..PendingQuery::first(9) }).await.unwrap(), []);
    assert_eq!(store.pending(&g, PendingQuery::first(9)).await.unwrap()[0].id, EntryId::MAX);
}

// ---- refusals ------------------------------------------------------------------------------------------------------------

#[actix::test]
async fn a_key_of_another_type_is_an_error_and_keeps_no_tail_from_the_others() {
    const AT: &str = "at topic t: ";
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    cli(&server, &["SET", "t", "text"]);
    let (t, g) = (topic("t"), group("t"));
    is_engine(store.append(&t, Append::one(entry(1))).await, AT);
    is_engine(store.append(&t, Append::one(entry(1))).await, "wrong kind");
    is_engine(store.append(&t, Append::one(entry(1).dedup("k"))).await, AT);
    is_engine(store.read(&t, Position::Start, Limit::default()).await, AT);
    is_engine(store.read(&t, Position::After(EntryId::MIN), Limit::default()).await, AT);
    is_engine(store.info(&t).await, AT);
    is_engine(store.trim(&t, Trim::Len(1)).await, AT);
    is_engine(store.create_group(&g, Position::Start).await, AT);
    is_engine(store.fetch(&g, &name("c"), Fetch::entries(1).wait(LONG)).await, AT);
    is_engine(store.groups(&t).await, AT);
    assert!(store.topics(None, 9).await.unwrap().is_empty());
    let mut tail = store.tail();
    tail.watch(&t, EntryId::MIN);
    tail.watch(&topic("u"), EntryId::MIN);
    is_engine(in_time(tail.next(Limit::default())).await, AT);
    append(&store, &topic("u"), 0..1).await;
    assert_eq!(in_time(tail.next(Limit::default())).await.unwrap()[0].0, topic("u"));
    // Another type again: the tail goes on with it.
    cli(&server, &["DEL", "t"]);
    append(&store, &t, 0..1).await;
    assert_eq!(in_time(tail.next(Limit::default())).await.unwrap()[0].0, t);
}

#[actix::test]
async fn a_server_without_room_refuses_appends_and_goes_on_with_the_rest() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let g = group("t");
    append(&store, &g.topic, 0..2).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let fetched = store.fetch(&g, &name("c"), Fetch::entries(1)).await.unwrap();
    cli(&server, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    cli(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    let full = |answer: Result<_, StoreError>| assert!(matches!(answer, Err(StoreError::Full { .. })), "{answer:?}");
    full(store.append(&g.topic, Append::one(entry(2))).await.map(drop));
    full(store.append(&g.topic, Append::many(vec![entry(2).dedup("k"), entry(3)])).await.map(drop));
    assert_eq!(all(&store, &g.topic).await.entries.len(), 2);
    assert_eq!(store.ack(&g, tokens(&fetched)).await.unwrap(), 1);
    cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    append(&store, &g.topic, 2..3).await;
}

#[actix::test]
async fn a_wrong_password_and_a_missing_right_are_told_at_once() {
    let server = Server::redis();
    let url = |user: &str| server.url().replace("redis://", &format!("redis://{user}@"));
    cli(&server, &["ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection", "+@scripting"]);
    let started = Instant::now();
    is_engine(RedisStore::connect(&url("reader:wrong")).await, "WRONGPASS");
    assert!(started.elapsed() < RedisStore::TIMEOUT_DEFAULT);
    let reader = RedisStore::connect(&url("reader:pw")).await.unwrap();
    is_engine(reader.append(&topic("t"), Append::one(entry(1))).await, "xadd");
    assert_eq!(all(&reader, &topic("t")).await, Batch { caught_up: true, ..Batch::default() });
    assert!(!format!("{reader:?} {:?}", RedisStore::builder(&url("reader:secret"))).contains("secret"));
    cli(&server, &["CONFIG", "SET", "requirepass", "pw"]);
    is_engine(RedisStore::connect(&server.url()).await, "HELLO");
    RedisStore::connect(&url(":pw")).await.unwrap();
}

#[actix::test]
async fn who_may_not_be_told_of_changes_looks_for_them() {
    let server = Server::redis();
    cli(&server, &["ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-client|tracking"]);
    let store = RedisStore::connect(&server.url().replace("redis://", "redis://limited:pw@")).await.unwrap();
    let g = group("t");
    store.create_group(&g, Position::Start).await.unwrap();
    let mut tail = store.tail();
    tail.watch(&g.topic, EntryId::MIN);
    let waiting = {
        let (store, g) = (store.clone(), g.clone());
        tokio::spawn(async move { store.fetch(&g, &name("c"), Fetch::entries(1).wait(LONG)).await })
    };
    assert!(tokio::time::timeout(BRIEF, tail.next(Limit::default())).await.is_err(), "nothing is there yet");
    append(&store, &g.topic, 0..1).await;
    assert_eq!(in_time(tail.next(Limit::default())).await.unwrap()[0].1.entries.len(), 1);
    assert_eq!(in_time(waiting).await.unwrap().unwrap().len(), 1);
}

#[test]
fn a_url_or_prefix_that_is_none_is_refused() {
    is_engine(RedisStore::new("http://127.0.0.1"), "URL");
    is_engine(RedisStore::builder("redis://127.0.0.1").prefix("a*").open(), "prefix");
}

// ---- waiting -------------------------------------------------------------------------------------------------------------

/// Waits for a condition.
async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How often a command was called.
fn calls(server: &Server, command: &str) -> u64 {
    let prefix = format!("cmdstat_{command}:calls=");
    let stats = cli(server, &["INFO", "commandstats"]);
    let calls = stats.iter().find_map(|line| line.strip_prefix(&prefix)).and_then(|rest| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[actix::test]
async fn a_hundred_waiting_fetches_get_one_entry_each_and_cost_an_append_no_more_than_one() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let g = group("t");
    store.create_group(&g, Position::Start).await.unwrap();
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let (store, g) = (store.clone(), g.clone());
            tokio::spawn(async move { store.fetch(&g, &name(&format!("c{n}")), Fetch::entries(1).wait(LONG)).await.unwrap() })
        })
        .collect();
    // One look each, and one of the first in the queue.
    until(|| calls(&server, "evalsha") >= 102).await;
    let (started, before) = (Instant::now(), calls(&server, "evalsha"));
    append(&store, &g.topic, 0..1).await;
    until(|| waiting.iter().filter(|task| task.is_finished()).count() == 1).await;
    // A look for the one, one for the next in the queue, and one a second.
    let asked = calls(&server, "evalsha") - before;
    assert!(asked <= 4 + 2 * started.elapsed().as_secs(), "{asked} looks for one entry");
    append(&store, &g.topic, 1..100).await;
    let mut seen = Vec::new();
    for task in waiting {
        seen.extend(numbers(in_time(task).await.unwrap().iter().map(|of| &of.entry.as_ref().unwrap().payload)));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

/// They waited, and each asked again every second, or the first of them all the time: nobody saw it, because an append came soon.
#[actix::test]
async fn a_hundred_fetches_that_wait_for_nothing_ask_once_a_second_between_them() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (g, other) = (group("t"), group("other"));
    for group in [&g, &other] {
        store.create_group(group, Position::Start).await.unwrap();
    }
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let (store, g) = (store.clone(), g.clone());
            tokio::spawn(async move { store.fetch(&g, &name(&format!("c{n}")), Fetch::entries(1).wait(LONG)).await })
        })
        .collect();
    // One look each, one of the first in the queue, and the making of both groups.
    until(|| calls(&server, "evalsha") >= 103).await;
    let asked = |server: &Server| ["evalsha", "xlen", "get"].map(|command| calls(server, command));
    let (started, before) = (Instant::now(), asked(&server));
    // One more, alone in its group: its wait is the time in which they are counted.
    let alone = store.fetch(&other, &name("c"), Fetch::entries(1).wait(Duration::from_millis(2_500))).await.unwrap();
    assert!(alone.is_empty());
    let (after, seconds) = (asked(&server), started.elapsed().as_secs());
    for (command, (before, after)) in ["evalsha", "xlen", "get"].into_iter().zip(before.into_iter().zip(after)) {
        // Once a second for each of the two groups, and when the one comes and goes.
        let (asked, most) = (after - before, 2 * seconds + 4);
        assert!(asked <= most, "{asked} {command} in {seconds} s of waiting, at most {most} are due");
    }
    for task in waiting {
        task.abort();
    }
}

/// The waiting fetch knew of no due time: without being told it would look again after a second.
#[actix::test]
async fn a_nack_or_removal_by_another_process_wakes_a_waiting_fetch() {
    let server = Server::redis();
    let (one, other) = (RedisStore::connect(&server.url()).await.unwrap(), RedisStore::connect(&server.url()).await.unwrap());
    let g = group("t");
    append(&one, &g.topic, 0..1).await;
    one.create_group(&g, Position::Start).await.unwrap();
    let mut held = one.fetch(&g, &name("one"), Fetch::entries(1).visibility(LONG)).await.unwrap();
    let mut quickest = LONG;
    for round in 0..8 {
        let looks = calls(&server, "evalsha");
        let waiting = {
            let (other, g) = (other.clone(), g.clone());
            tokio::spawn(
                async move { other.fetch(&g, &name("other"), Fetch::entries(1).visibility(LONG).wait(LONG)).await.unwrap() },
            )
        };
        until(|| calls(&server, "evalsha") >= looks + 2).await;
        let started = Instant::now();
        if round % 2 == 0 {
            assert_eq!(one.nack(&g, tokens(&held), Duration::ZERO).await.unwrap(), 1);
        } else {
            assert_eq!(one.remove_consumer(&g, &name("other")).await.unwrap(), 1);
        }
        held = in_time(waiting).await.unwrap();
        quickest = quickest.min(started.elapsed());
        assert_eq!(held[0].attempt, round + 2);
    }
    assert!(quickest < Duration::from_millis(250), "{quickest:?}");
}

#[actix::test]
async fn a_tail_of_ten_thousand_topics_brings_what_a_few_of_them_get() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let topics: Vec<_> = (0..10_000).map(|n| topic(&format!("many:{n}"))).collect();
    let mut tail = store.tail();
    for topic in &topics {
        tail.watch(topic, EntryId::MIN);
    }
    // Dropped and begun anew on the way, until there is nothing left to read; what was dropped in the middle is read twice.
    let (mut rounds, mut before) = (0, 0);
    loop {
        let next = tokio::time::timeout(Duration::from_millis(100), tail.next(Limit::default())).await;
        let now = calls(&server, "xrange");
        if next.is_err() && now >= 10_000 && now == before {
            break;
        }
        (rounds, before) = (rounds + 1, now);
        assert!(rounds < 1_000);
    }
    let (reads, chosen) = (calls(&server, "xrange"), [0, 77, 5_000, 9_999]);
    for (n, index) in chosen.into_iter().enumerate() {
        append(&store, &topics[index], n as u64..n as u64 + 1).await;
    }
    let mut seen = BTreeMap::new();
    while seen.len() < chosen.len() {
        for (topic, batch) in in_time(tail.next(Limit::default())).await.unwrap() {
            assert!(seen.insert(topic, numbers(batch.entries.iter().map(|entry| &entry.payload))).is_none());
        }
    }
    assert_eq!(seen, chosen.iter().enumerate().map(|(n, index)| (topics[*index].clone(), vec![n as u64])).collect());
    assert!(calls(&server, "xrange") - reads < 50, "what did not change was not read");
    // A new one is followed at once, though the tail waits already.
    append(&store, &topic("new"), 9..10).await;
    tail.watch(&topic("new"), EntryId::MIN);
    assert_eq!(in_time(tail.next(Limit::default())).await.unwrap()[0].0, topic("new"));
}

// ---- outages -------------------------------------------------------------------------------------------------------------

#[actix::test]
async fn without_a_server_nothing_is_done_and_that_is_said_in_time() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let store = RedisStore::builder(&format!("redis://127.0.0.1:{free}")).timeout(BRIEF).open().unwrap();
    let (started, g) = (Instant::now(), group("t"));
    assert_eq!(outcome(store.append(&g.topic, Append::one(entry(1))).await), Outcome::NotDone);
    assert_eq!(outcome(store.append(&g.topic, Append::one(entry(1).dedup("k"))).await), Outcome::NotDone);
    assert_eq!(outcome(store.read(&g.topic, Position::Start, Limit::default()).await), Outcome::NotDone);
    assert_eq!(outcome(store.fetch(&g, &name("c"), Fetch::entries(1).wait(LONG)).await), Outcome::NotDone);
    let mut tail = store.tail();
    tail.watch(&g.topic, EntryId::MIN);
    assert_eq!(outcome(tail.next(Limit::default()).await), Outcome::NotDone);
    assert!(started.elapsed() < 5 * BRIEF + Duration::from_secs(5), "{:?}", started.elapsed());
}

#[actix::test]
async fn a_server_that_hangs_costs_its_time_out_and_works_afterwards() {
    let server = Server::redis();
    let store = RedisStore::builder(&server.url()).timeout(BRIEF).open().unwrap();
    let g = group("t");
    append(&store, &g.topic, 0..1).await;
    store.create_group(&g, Position::End).await.unwrap();
    let mut tail = store.tail();
    tail.watch(&g.topic, EntryId::MIN);
    in_time(tail.next(Limit::default())).await.unwrap();
    server.pause();
    let started = Instant::now();
    assert_eq!(
        outcome(store.append(&g.topic, Append::one(entry(1))).await),
        Outcome::Unknown,
        "the server has it, and may do it"
    );
    assert_eq!(outcome(store.append(&g.topic, Append::one(entry(2))).await), Outcome::NotDone, "by then there is no connection");
    assert_eq!(outcome(store.read(&g.topic, Position::Start, Limit::default()).await), Outcome::NotDone);
    assert!(started.elapsed() < 3 * BRIEF + Duration::from_secs(5), "{:?}", started.elapsed());
    server.resume();
    let mut seen = BTreeSet::new();
    // Errors are told, and the tail goes on by itself.
    let mut go_on = async |until: u64| {
        while !seen.contains(&until) {
            if let Ok(batches) = in_time(tail.next(Limit::default())).await {
                seen.extend(batches.iter().flat_map(|(_, batch)| numbers(batch.entries.iter().map(|entry| &entry.payload))));
            }
        }
    };
    let deadline = Instant::now() + LONG;
    while store.append(&g.topic, Append::one(entry(3))).await.is_err() {
        assert!(Instant::now() < deadline);
    }
    go_on(3).await;
    assert!(!seen.contains(&2), "what was not done is not there");
    assert!(!store.fetch(&g, &name("c"), Fetch::entries(9).wait(LONG)).await.unwrap().is_empty());
}

/// Lets answers through, or cuts the connection at the first one.
struct Proxy {
    port: u16,
    cuts: Arc<AtomicBool>,
}

impl Proxy {
    fn before(server: &Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), server.port);
        let cuts = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cuts);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
                let (from, into, cuts) = (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&flag));
                std::thread::spawn(move || copy(from, into, |_| false));
                std::thread::spawn(move || copy(server, client, |_| cuts.swap(false, Ordering::SeqCst)));
            }
        });
        Self { port, cuts }
    }
}

fn copy(mut from: TcpStream, mut into: TcpStream, cuts: impl Fn(&[u8]) -> bool) {
    let mut buffer = [0; 16_384];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if cuts(&buffer[..len]) || into.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    // Either may be gone already.
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = into.shutdown(std::net::Shutdown::Both);
}

#[actix::test]
async fn an_append_whose_answer_was_lost_is_repeated_under_a_key_and_unknown_without() {
    let server = Server::redis();
    let proxy = Proxy::before(&server);
    let store = RedisStore::connect(&format!("redis://127.0.0.1:{}", proxy.port)).await.unwrap();
    let t = topic("t");
    append(&store, &t, 0..1).await;
    proxy.cuts.store(true, Ordering::SeqCst);
    let keyed = store.append(&t, Append::many(vec![entry(1).dedup("k"), entry(2).dedup("l")])).await.unwrap();
    assert!(!proxy.cuts.load(Ordering::SeqCst), "the answer was cut");
    assert_eq!(keyed.iter().map(|of| of.duplicate).collect::<Vec<_>>(), [false, false], "its own entries are no duplicates");
    assert!(store.append(&t, Append::one(entry(1).dedup("k"))).await.unwrap()[0].duplicate);
    proxy.cuts.store(true, Ordering::SeqCst);
    assert_eq!(outcome(store.append(&t, Append::one(entry(3))).await), Outcome::Unknown);
    proxy.cuts.store(true, Ordering::SeqCst);
    assert_eq!(numbers(all(&store, &t).await.entries.iter().map(|entry| &entry.payload)), [0, 1, 2, 3], "a read is repeated");
    proxy.cuts.store(true, Ordering::SeqCst);
    let half_keyed = Append::many(vec![entry(4).dedup("m"), entry(5)]);
    assert_eq!(outcome(store.append(&t, half_keyed).await), Outcome::Unknown, "not all of it is under keys");
}

#[actix::test]
async fn a_server_that_has_forgotten_the_scripts_is_told_them_again() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    store.append(&topic("t"), Append::one(entry(0).dedup("k"))).await.unwrap();
    cli(&server, &["SCRIPT", "FLUSH"]);
    assert!(store.append(&topic("t"), Append::one(entry(0).dedup("k"))).await.unwrap()[0].duplicate);
    cli(&server, &["SCRIPT", "FLUSH"]);
    store.trim(&topic("t"), Trim::Len(0)).await.unwrap();
    cli(&server, &["SCRIPT", "FLUSH"]);
    assert!(store.read(&topic("t"), Position::After(EntryId::MIN), Limit::default()).await.unwrap().gap.is_some());
}

#[actix::test]
async fn what_was_acked_is_there_once_and_seen_by_all_whenever_the_server_is_killed() {
    let mut server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (t, g) = (topic("t"), group("t"));
    store.create_group(&g, Position::Start).await.unwrap();
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    // Two writers under keys, who are told of every entry in the end, and two without, to whom some are unknown.
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let (store, t, stop, written) = (store.clone(), t.clone(), Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(async move {
                let (mut acked, mut unknown, mut n) = (BTreeMap::new(), BTreeSet::new(), writer * 1_000_000);
                while !stop.load(Ordering::SeqCst) {
                    n += 1;
                    let new = if writer < 2 { entry(n).dedup(n.to_string()) } else { entry(n) };
                    loop {
                        match store.append(&t, Append::one(new.clone())).await {
                            Ok(appended) => {
                                acked.insert(n, appended[0].id);
                                written.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(StoreError::Unavailable { outcome: Outcome::NotDone, .. }) => continue,
                            Err(StoreError::Unavailable { outcome: Outcome::Unknown, .. }) if writer < 2 => continue,
                            Err(StoreError::Unavailable { .. }) => drop(unknown.insert(n)),
                            Err(error) => panic!("{error:?}"),
                        }
                        break;
                    }
                }
                (acked, unknown)
            })
        })
        .collect();
    let follower = {
        let (store, t) = (store.clone(), t.clone());
        let mut tail = store.tail();
        tail.watch(&t, EntryId::MIN);
        tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                match tail.next(Limit::default()).await {
                    Ok(batches) => {
                        for (_, batch) in batches {
                            assert_eq!(batch.gap, None);
                            seen.extend(batch.entries.into_iter().map(|entry| (entry.id, entry.payload)));
                        }
                    }
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
                if seen.last().is_some_and(|(_, payload)| payload == "0") {
                    return seen;
                }
            }
        })
    };
    let workers: Vec<_> = (0..3)
        .map(|n| {
            let (store, g, stop) = (store.clone(), g.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut handled = BTreeSet::new();
                let fetch = Fetch::entries(20).visibility(Duration::from_millis(700)).wait(Duration::from_millis(1_500));
                loop {
                    match store.fetch(&g, &name(&format!("w{n}")), fetch).await {
                        Ok(fetched) if fetched.is_empty() && stop.load(Ordering::SeqCst) => return handled,
                        Ok(fetched) => {
                            // Done before it is acked: a lost ack is a redelivery.
                            handled.extend(fetched.iter().map(|of| of.id));
                            match store.ack(&g, tokens(&fetched)).await {
                                Ok(_) => {}
                                Err(error) => assert!(error.is_transient(), "{error:?}"),
                            }
                        }
                        Err(error) => assert!(error.is_transient(), "{error:?}"),
                    }
                }
            })
        })
        .collect();
    for round in 1..=3 {
        let enough = written.load(Ordering::SeqCst) + 300;
        until(|| written.load(Ordering::SeqCst) >= enough).await;
        server.kill();
        if round == 2 {
            // Long enough that all are waiting for it.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        server.restart();
    }
    let enough = written.load(Ordering::SeqCst) + 300;
    until(|| written.load(Ordering::SeqCst) >= enough).await;
    stop.store(true, Ordering::SeqCst);
    let (mut acked, mut unknown) = (BTreeMap::new(), BTreeSet::new());
    for writer in writers {
        let (of, not) = in_time(writer).await.unwrap();
        acked.extend(of);
        unknown.extend(not);
    }
    append(&store, &t, 0..1).await;
    let kept: Vec<_> = all(&store, &t).await.entries.into_iter().map(|entry| (entry.id, entry.payload)).collect();
    let mut times = BTreeMap::new();
    for n in numbers(kept.iter().map(|(_, payload)| payload)) {
        *times.entry(n).or_insert(0) += 1;
    }
    assert!(times.values().all(|times| *times == 1), "nothing is there twice");
    let by_id: BTreeMap<_, _> = kept.iter().map(|(id, payload)| (*id, payload.clone())).collect();
    for (n, id) in &acked {
        assert_eq!(by_id.get(id).map(|payload| &payload[..]), Some(n.to_string().as_bytes()), "{n} was acked");
    }
    let others = times.keys().filter(|n| **n != 0 && !acked.contains_key(n) && !unknown.contains(n)).count();
    assert_eq!(others, 0, "what was not done is not there");
    assert!(in_time(follower).await.unwrap() == kept, "the tail saw each once, in order");
    let mut handled = BTreeSet::new();
    for worker in workers {
        handled.extend(in_time(worker).await.unwrap());
    }
    assert_eq!(handled, by_id.into_keys().collect(), "each was handled");
    let info = store.groups(&t).await.unwrap().remove(0);
    assert_eq!((info.pending, info.lag), (0, Some(0)));
}

/// The tail has read all there is, and nothing of it is under way: only that the connection was lost can make it look again. What the server was to tell
/// of changes it has forgotten with the connection.
#[actix::test]
async fn a_tail_that_waits_sees_what_was_appended_while_its_connection_was_away() {
    let server = Server::redis();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (t, u) = (topic("t"), topic("u"));
    append(&store, &t, 0..1).await;
    let (mut tail, mut other) = (store.tail(), store.tail());
    tail.watch(&t, EntryId::MIN);
    in_time(tail.next(Limit::default())).await.unwrap();
    assert!(tokio::time::timeout(BRIEF, tail.next(Limit::default())).await.is_err(), "it has read all there is");
    let connected = calls(&server, "hello");
    cli(&server, &["CLIENT", "KILL", "TYPE", "normal"]);
    cli(&server, &["XADD", "t", "*", "name", "test.number", "payload", "1"]);
    until(|| calls(&server, "hello") >= connected + 2).await;
    // By now the connections are there again: another tail, which reads for the first time, is served.
    other.watch(&u, EntryId::MIN);
    cli(&server, &["XADD", "u", "*", "name", "test.number", "payload", "2"]);
    while in_time(other.next(Limit::default())).await.is_err() {}
    let seen = tokio::time::timeout(LONG / 3, tail.next(Limit::default())).await.expect("it looks again");
    assert_eq!(numbers(seen.unwrap()[0].1.entries.iter().map(|entry| &entry.payload)), [1]);
}

// ---- threads -------------------------------------------------------------------------------------------------------------

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    // One may end while it is looked at.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "pubsub-redis").count()
}

#[actix::test]
async fn connections_outlive_the_arbiter_that_made_them_and_end_with_the_last_handle() {
    let server = Server::redis();
    let store = RedisStore::new(&server.url()).unwrap();
    let mut tail = store.tail();
    tail.watch(&topic("t"), EntryId::MIN);
    let arbiter = actix::Arbiter::new();
    let (done, is_done) = tokio::sync::oneshot::channel();
    let first = store.clone();
    arbiter.spawn(async move {
        append(&first, &topic("t"), 0..1).await;
        done.send(tail).ok();
    });
    let mut tail = in_time(is_done).await.unwrap();
    in_time(tail.next(Limit::default())).await.unwrap();
    arbiter.stop();
    arbiter.join().unwrap();
    let connected = calls(&server, "hello");
    append(&store, &topic("t"), 1..2).await;
    assert_eq!(in_time(tail.next(Limit::default())).await.unwrap()[0].1.entries.len(), 1);
    assert_eq!(calls(&server, "hello"), connected, "by the same connections");
    assert_eq!(threads(), 1);
    drop(store);
    // A tail is a handle, too.
    assert!(tokio::time::timeout(Duration::from_millis(50), tail.next(Limit::default())).await.is_err());
    assert_eq!(threads(), 1);
    drop(tail);
    until(|| threads() == 0).await;
}
