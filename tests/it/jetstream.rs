//! JetStream: what the contract cannot say of the store on a NATS server: kills, pauses, other programs' streams, limits of the server.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use actix::prelude::*;
use actix_pubsub::EntryId;
use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::Fetch;
use actix_pubsub::log::Group;
use actix_pubsub::log::JetStreamBuilder;
use actix_pubsub::log::JetStreamStorage;
use actix_pubsub::log::JetStreamStore;
use actix_pubsub::log::Limit;
use actix_pubsub::log::Limits;
use actix_pubsub::log::Name;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Outcome;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;
use actix_pubsub::log::StoreError;
use actix_pubsub::log::Trim;

use crate::servers::Server;
use crate::support::system;
use crate::support::until;

const LONG: Duration = Duration::from_secs(30);

fn open(server: &Server) -> JetStreamStore {
    with(server, |builder| builder)
}

fn with(server: &Server, set: impl FnOnce(JetStreamBuilder) -> JetStreamBuilder) -> JetStreamStore {
    set(JetStreamStore::builder(&server.url())).open().unwrap()
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn group(name: &str) -> Group {
    Group::new(topic(name), Name::parse("workers").unwrap())
}

fn me() -> Name {
    Name::parse("me").unwrap()
}

fn entry(n: u64) -> NewEntry {
    NewEntry::new("n", n.to_string().into_bytes())
}

fn number(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

async fn append(store: &JetStreamStore, name: &str, n: u64) -> EntryId {
    store.append(&topic(name), Append::one(entry(n))).await.unwrap()[0].id
}

async fn kept(store: &JetStreamStore, name: &str) -> Vec<u64> {
    let (mut all, mut from) = (Vec::new(), Position::Start);
    loop {
        let batch = store.read(&topic(name), from, Limit::entries(1_000)).await.unwrap();
        all.extend(batch.entries.iter().map(|entry| number(&entry.payload)));
        if batch.caught_up {
            return all;
        }
        from = Position::After(batch.next);
    }
}

/// A request of another program.
async fn ask(server: &Server, subject: &str, body: String) -> String {
    let client = async_nats::connect(server.url()).await.unwrap();
    let answer = client.request(subject.to_owned(), body.into()).await.unwrap();
    String::from_utf8(answer.payload.to_vec()).unwrap()
}

#[test]
fn jetstream_killed_and_restarted_under_appends_a_tail_and_a_group_loses_and_repeats_nothing() {
    system(async {
        const ENTRIES: u64 = 600;
        let mut server = Server::nats();
        let store = open(&server);
        let g = group("t");
        store.create_group(&g, Position::Start).await.unwrap();
        let appender = actix::spawn({
            let (store, t) = (store.clone(), topic("t"));
            async move {
                for n in 0..ENTRIES {
                    let keyed = || Append::one(entry(n).dedup(n.to_string()));
                    // The store itself repeats within its time-out; the key makes it safe to go on after that.
                    while let Err(error) = store.append(&t, keyed()).await {
                        assert!(error.is_transient(), "{error:?}");
                    }
                }
            }
        });
        let follower = actix::spawn({
            let (store, t) = (store.clone(), topic("t"));
            async move {
                let (mut tail, mut seen) = (store.tail(), Vec::new());
                tail.watch(&t, EntryId::MIN);
                while seen.len() < ENTRIES as usize {
                    match tail.next(Limit::default()).await {
                        Ok(batches) => {
                            for (_, batch) in batches {
                                assert_eq!(batch.gap, None);
                                seen.extend(batch.entries.iter().map(|entry| number(&entry.payload)));
                            }
                        }
                        Err(error) => assert!(error.is_transient(), "{error:?}"),
                    }
                }
                seen
            }
        });
        let worker = actix::spawn({
            let (store, g) = (store.clone(), g.clone());
            async move {
                let mut handled = BTreeSet::new();
                while handled.len() < ENTRIES as usize {
                    let fetch = Fetch::entries(10).visibility(Duration::from_secs(2)).wait(LONG);
                    let fetched = match store.fetch(&g, &me(), fetch).await {
                        Ok(fetched) => fetched,
                        Err(error) => {
                            assert!(error.is_transient(), "{error:?}");
                            continue;
                        }
                    };
                    for one in fetched {
                        if store.ack(&g, vec![one.token]).await.is_ok() {
                            handled.insert(number(&one.entry.unwrap().payload));
                        }
                    }
                }
                handled
            }
        });
        for share in 1..4 {
            let reached = store.clone();
            loop {
                let last = reached.info(&topic("t")).await.map_or(0, |info| info.last.seq());
                if last >= share * ENTRIES / 4 {
                    break;
                }
            }
            server.restart();
        }
        appender.await.unwrap();
        assert_eq!(follower.await.unwrap(), (0..ENTRIES).collect::<Vec<_>>());
        assert_eq!(worker.await.unwrap().len(), ENTRIES as usize);
        assert_eq!(kept(&store, "t").await, (0..ENTRIES).collect::<Vec<_>>());
    });
}

#[test]
fn jetstream_away_is_not_done_within_the_time_out_and_never_sent_later() {
    system(async {
        let mut server = Server::nats();
        let store = with(&server, |builder| builder.timeout(Duration::from_millis(700)));
        append(&store, "t", 0).await;
        server.kill();
        let started = Instant::now();
        let mut not_done = 0;
        for n in 1..4 {
            match store.append(&topic("t"), Append::one(entry(n))).await {
                Err(StoreError::Unavailable { outcome: Outcome::NotDone, .. }) => not_done += 1,
                // The first may be sent before the loss is noticed.
                Err(StoreError::Unavailable { outcome: Outcome::Unknown, .. }) => assert_eq!(n, 1),
                other => panic!("{other:?}"),
            }
        }
        assert!(not_done >= 2 && started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert!(matches!(
            store.read(&topic("t"), Position::Start, Limit::default()).await,
            Err(StoreError::Unavailable { outcome: Outcome::NotDone, .. })
        ));
        server.restart();
        // The barrier: what was queued would have been sent before it.
        let patient = open(&server);
        while store.append(&topic("t"), Append::one(entry(9).dedup("barrier"))).await.is_err() {}
        assert_eq!(kept(&patient, "t").await, [0, 9]);
    });
}

#[test]
fn jetstream_paused_is_a_time_out_and_not_a_hang() {
    system(async {
        let server = Server::nats();
        let store = with(&server, |builder| builder.timeout(Duration::from_millis(500)));
        let g = group("t");
        append(&store, "t", 0).await;
        store.create_group(&g, Position::Start).await.unwrap();
        let held = store.fetch(&g, &me(), Fetch::entries(1)).await.unwrap().remove(0);
        let other = open(&server);
        append(&other, "t", 1).await;
        server.pause();
        let started = Instant::now();
        let unknown = |answer: Result<(), StoreError>| {
            assert!(matches!(answer, Err(StoreError::Unavailable { outcome: Outcome::Unknown, .. })), "{answer:?}");
        };
        unknown(store.append(&topic("t"), Append::one(entry(2))).await.map(drop));
        unknown(store.append(&topic("t"), Append::many((3..9).map(entry).collect())).await.map(drop));
        unknown(store.read(&topic("t"), Position::Start, Limit::default()).await.map(drop));
        unknown(store.info(&topic("t")).await.map(drop));
        unknown(store.ack(&g, vec![held.token.clone()]).await.map(drop));
        unknown(store.fetch(&g, &me(), Fetch::entries(1)).await.map(drop));
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        server.resume();
        while store.append(&topic("t"), Append::one(entry(20).dedup("again"))).await.is_err() {}
        let all = kept(&other, "t").await;
        assert!(all.starts_with(&[0, 1]) && all.ends_with(&[20]), "{all:?}");
    });
}

#[test]
fn jetstream_append_under_a_key_outlives_a_lost_answer() {
    system(async {
        let mut server = Server::nats();
        let store = with(&server, |builder| builder.timeout(Duration::from_secs(20)));
        append(&store, "t", 0).await;
        server.pause();
        let waiting = actix::spawn({
            let store = store.clone();
            async move {
                let one = store.append(&topic("t"), Append::one(entry(1).dedup("one"))).await;
                let many = (2..6).map(|n| entry(n).dedup(n.to_string())).collect();
                (one, store.append(&topic("t"), Append::many(many)).await)
            }
        });
        // It is sent, and never answered.
        crate::support::one_turn().await;
        server.restart();
        let (one, many) = waiting.await.unwrap();
        assert_eq!((one.unwrap().len(), many.unwrap().len()), (1, 4));
        assert_eq!(kept(&store, "t").await, [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
fn jetstream_waits_for_a_server_that_comes_later() {
    system(async {
        let mut server = Server::nats();
        server.kill();
        let store = with(&server, |builder| builder.timeout(LONG));
        let early = actix::spawn({
            let store = store.clone();
            async move { append(&store, "t", 7).await }
        });
        crate::support::one_turn().await;
        server.restart();
        early.await.unwrap();
        assert_eq!(kept(&store, "t").await, [7]);
    });
}

#[test]
fn jetstream_keeps_long_and_strange_topics_and_names_apart() {
    system(async {
        let server = Server::nats();
        let store = open(&server);
        let names = ["x".repeat(255), format!("{}y", "x".repeat(254)), "ü".repeat(127), " .>$/\\=".to_owned(), "~".repeat(200)];
        for (n, name) in names.iter().enumerate() {
            append(&store, name, n as u64).await;
        }
        for (n, name) in names.iter().enumerate() {
            assert_eq!(kept(&store, name).await, [n as u64]);
        }
        let mut sorted: Vec<_> = names.iter().map(|name| topic(name)).collect();
        sorted.sort_unstable();
        assert_eq!(store.topics(None, 10).await.unwrap(), sorted);
        assert_eq!(store.topics(Some(&sorted[1]), 2).await.unwrap(), sorted[2..4]);
        let groups = ["ö".repeat(64), format!("{}a", "ö".repeat(63)), "a.b/c\\".to_owned()];
        for name in &groups {
            let g = Group::new(topic(&names[0]), Name::parse(name).unwrap());
            assert!(store.create_group(&g, Position::Start).await.unwrap());
            let fetched = store.fetch(&g, &me(), Fetch::entries(9)).await.unwrap();
            assert_eq!(store.ack(&g, vec![fetched[0].token.clone()]).await.unwrap(), 1);
        }
        let listed: BTreeSet<_> =
            store.groups(&topic(&names[0])).await.unwrap().iter().map(|info| info.name.as_str().to_owned()).collect();
        assert_eq!(listed, groups.into_iter().collect());
        // Another prefix is another store.
        let other = with(&server, |builder| builder.prefix("other"));
        assert!(other.topics(None, 10).await.unwrap().is_empty());
    });
}

#[test]
fn jetstream_uses_a_stream_with_other_limits_and_refuses_one_that_cannot_keep_the_contract() {
    system(async {
        let server = Server::nats();
        let theirs = |name: &str, rest: &str| {
            format!(
                r#"{{"name":"pubsub~{name}","subjects":["pubsub.log.{name}"],"retention":"limits","storage":"memory","num_replicas":1,{rest}}}"#
            )
        };
        let live = r#""discard":"new","max_bytes":100000,"republish":{"src":"pubsub.log.mine","dest":"pubsub.live.mine","headers_only":true}"#;
        let created = ask(&server, "$JS.API.STREAM.CREATE.pubsub~mine", theirs("mine", live)).await;
        assert!(created.contains("did_create"), "{created}");
        let created = ask(&server, "$JS.API.STREAM.CREATE.pubsub~old", theirs("old", r#""discard":"old","max_msgs":5"#)).await;
        assert!(created.contains("did_create"), "{created}");
        let store = open(&server);
        append(&store, "mine", 1).await;
        // It has no direct reading: read by consumers, as well.
        assert_eq!(kept(&store, "mine").await, [1]);
        match store.append(&topic("old"), Append::one(entry(1))).await {
            Err(StoreError::Engine { source }) => {
                assert_eq!(source.to_string(), "at topic old");
                let text = source.source().unwrap().to_string();
                assert!(text.contains("\"pubsub~old\" exists with another configuration: its republish differs"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        // A stream that takes our subjects.
        let wide = r#"{"name":"wide","subjects":["wide.log.>"],"retention":"limits","storage":"memory","num_replicas":1}"#;
        ask(&server, "$JS.API.STREAM.CREATE.wide", wide.to_owned()).await;
        let store = with(&server, |builder| builder.prefix("wide"));
        let refused = store.append(&topic("t"), Append::one(entry(1))).await;
        assert!(matches!(refused, Err(StoreError::Engine { .. })), "{refused:?}");
    });
}

#[test]
fn jetstream_reads_what_another_program_wrote() {
    system(async {
        let server = Server::nats();
        let store = open(&server);
        append(&store, "t", 1).await;
        let client = async_nats::connect(server.url()).await.unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Trace", "50%");
        headers.append("Trace", "b");
        headers.insert("Nats-Msg-Id", "theirs");
        client.publish_with_headers("pubsub.log.t", headers, "2".into()).await.unwrap();
        client.flush().await.unwrap();
        let mut tail = store.tail();
        tail.watch(&topic("t"), EntryId::new(0, 1));
        let batches = tail.next(Limit::default()).await.unwrap();
        let entry = &batches[0].1.entries[0];
        let headers: Vec<_> = entry.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!((&*entry.name, headers), ("", vec![("Trace", "50%"), ("Trace", "b")]));
        // Ours, seen by another program: the payload as it is.
        let seen = ask(&server, "$JS.API.STREAM.MSG.GET.pubsub~t", r#"{"seq":1}"#.to_owned()).await;
        assert!(seen.contains(r#""data":"MQ==""#), "{seen}");
    });
}

/// Publishes what no client would: the headers are the caller's bytes.
fn publish_raw(server: &Server, subject: &str, headers: &[u8], payload: &[u8]) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).unwrap();
    let (head, all) = (headers.len(), headers.len() + payload.len());
    stream.write_all(b"CONNECT {\"headers\":true,\"verbose\":false}\r\n").unwrap();
    stream.write_all(format!("HPUB {subject} {head} {all}\r\n").as_bytes()).unwrap();
    stream.write_all(&[headers, payload, b"\r\nPING\r\n"].concat()).unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(stream);
    while !said.ends_with("PONG\r\n") {
        assert!(!said.contains("-ERR") && lines.read_line(&mut said).unwrap() > 0, "{said}");
    }
}

/// The client gives up its connection over a message whose headers it cannot read, and is sent the same again on the next: a reader, a tail and a group
/// stood before it until it was trimmed. It is an entry as any other, without the headers that are none.
#[test]
fn jetstream_gets_past_what_its_client_cannot_read() {
    system(async {
        const BAD: [&[u8]; 4] = [
            b"NATS/1.0\r\nno colon\r\nTrace: a\r\n\r\n",
            b"NATS/1.0\r\nTrace: a\r\nnot utf-8: \xFF\r\n\r\n",
            b"NATS/1.0 404 No Messages\r\nTrace: a\r\n\r\n",
            b"NATS/1.0 not a status\r\nTrace: a\r\n\r\n",
        ];
        let server = Server::nats();
        let store = open(&server);
        let (t, g) = (topic("t"), group("t"));
        store.create_group(&g, Position::Start).await.unwrap();
        let mut tail = store.tail();
        tail.watch(&t, EntryId::MIN);
        let (mut n, mut live) = (0, Vec::new());
        for bad in BAD {
            for _ in 0..20 {
                n += 1;
                append(&store, "t", n).await;
            }
            n += 1;
            publish_raw(&server, "pubsub.log.t", bad, n.to_string().as_bytes());
            while live.len() < n as usize {
                let batches = tail.next(Limit::default()).await.unwrap();
                live.extend(batches.into_iter().flat_map(|(_, batch)| batch.entries));
            }
        }
        append(&store, "t", n + 1).await;
        let all: Vec<_> = (1..=n + 1).collect();
        assert_eq!(live.iter().map(|entry| number(&entry.payload)).collect::<Vec<_>>(), all[..n as usize]);
        for at in (20..live.len()).step_by(21) {
            assert_eq!((&*live[at].name, live[at].headers.as_slice()), ("", &[("Trace".into(), "a".into())][..]), "entry {at}");
        }

        // Others that know nothing of it yet, and this one.
        for pages in [1, 7, 16, 64, 1_000] {
            for store in [open(&server), store.clone()] {
                let (mut seen, mut from) = (Vec::new(), Position::Start);
                while seen.len() < all.len() {
                    let batch = store.read(&t, from, Limit::entries(pages)).await.unwrap();
                    assert!(batch.gap.is_none() && batch.entries.len() <= pages);
                    seen.extend(batch.entries.iter().map(|entry| number(&entry.payload)));
                    assert_eq!(batch.caught_up, seen.len() == all.len());
                    from = Position::After(batch.next);
                }
                assert_eq!(seen, all, "in pages of {pages}");
            }
        }
        let since = open(&server).read(&t, Position::Since(0), Limit::entries(1)).await.unwrap();
        assert_eq!(since.entries[0].id, live[0].id);

        // A consumer of them: two refuse the first time.
        let (mut handled, mut attempts, mut refused) = (BTreeSet::new(), Vec::new(), 0);
        while handled.len() < all.len() {
            let fetch = Fetch::entries(10).visibility(Duration::from_millis(300)).wait(LONG);
            let fetched = store.fetch(&g, &me(), fetch).await.unwrap();
            assert!(fetched.len() <= 10);
            for one in fetched {
                let n = number(&one.entry.unwrap().payload);
                if n.is_multiple_of(21) && one.attempt == 1 && refused < 2 {
                    refused += 1;
                    assert_eq!(store.nack(&g, vec![one.token], Duration::ZERO).await.unwrap(), 1);
                } else {
                    attempts.push(one.attempt);
                    assert_eq!(store.ack(&g, vec![one.token]).await.unwrap(), 1);
                    assert!(handled.insert(n), "{n} is acked once");
                }
            }
        }
        assert!(attempts.contains(&2), "what was given back came again: {attempts:?}");
        let info = &store.groups(&t).await.unwrap()[0];
        assert_eq!((info.pending, info.lag), (0, Some(0)));
    });
}

/// How many connections the server has had: it numbers them, and says so to each.
fn connections(server: &Server) -> u64 {
    let mut said = String::new();
    BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).unwrap()).read_line(&mut said).unwrap();
    let number =
        said.split_once("\"client_id\":").map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

/// What was met once is remembered: else each reading of it would take the connection from all that use it.
#[test]
fn jetstream_loses_its_connection_over_what_its_client_cannot_read_once() {
    system(async {
        let server = Server::nats();
        let store = open(&server);
        let before = append(&store, "t", 1).await;
        publish_raw(&server, "pubsub.log.t", b"NATS/1.0\r\nno colon\r\nTrace: a\r\n\r\n", b"2");
        append(&store, "t", 3).await;
        let met = connections(&server);
        let mut lost = Vec::new();
        for (from, limit, expected) in [
            (Position::After(before), 9, &[2][..]),
            (Position::After(before), 1, &[2]),
            (Position::After(before), 9, &[2]),
            (Position::Start, 9, &[1]),
            (Position::Start, 1, &[1]),
        ] {
            let batch = store.read(&topic("t"), from, Limit::entries(limit)).await.unwrap();
            assert_eq!(batch.entries.iter().map(|entry| number(&entry.payload)).collect::<Vec<_>>(), expected);
            // Beside those who ask for the number.
            lost.push(connections(&server) - met - lost.len() as u64 - 1);
        }
        assert_eq!(lost, [1; 5], "connections made anew by and by");
    });
}

#[test]
fn jetstream_says_which_entry_the_server_would_not_take() {
    system(async {
        let server = Server::nats();
        let store = with(&server, |builder| builder.limits(Limits::default().entry_bytes(4 << 20)));
        let over = NewEntry::new("", vec![0; 2 << 20]);
        match store.append(&topic("t"), Append::many(vec![entry(1), over])).await {
            Err(StoreError::TooLarge { index: 1, bytes, max }) => assert!(bytes > 2 << 20 && max == 1 << 20),
            other => panic!("{other:?}"),
        }
        assert!(kept(&store, "t").await.is_empty());
        // At the default limit, with headers that take three times their bytes on the wire.
        let store = open(&server);
        let headers = "\n".repeat(10_000);
        let full = NewEntry::new("n", vec![0; store.limits().entry_bytes_max - 10_002]).header("h", headers.clone());
        store.append(&topic("t"), Append::one(full)).await.unwrap();
        let read = store.read(&topic("t"), Position::Start, Limit::default()).await.unwrap();
        assert_eq!(read.entries[0].header("h"), Some(&*headers));
    });
}

#[test]
fn jetstream_full_is_an_error_and_nothing_is_dropped_to_make_room() {
    system(async {
        let server = Server::nats();
        let store = with(&server, |builder| builder.topic_bytes(3_000).storage(JetStreamStorage::Memory));
        let mut stored = 0;
        let full = loop {
            match store.append(&topic("t"), Append::one(NewEntry::new("", vec![b'1'; 500]))).await {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, StoreError::Full { .. }), "{full:?}");
        assert_eq!(store.info(&topic("t")).await.unwrap().entries, stored);
        assert_eq!(store.trim(&topic("t"), Trim::Len(1)).await.unwrap(), stored - 1);
        append(&store, "t", 1).await;
    });
}

#[test]
fn jetstream_batch_that_expects_is_a_beginning_or_nothing_and_can_be_repeated() {
    system(async {
        let server = Server::nats();
        let store = open(&server);
        let t = topic("t");
        let keyed = |range: std::ops::Range<u64>| Append::many(range.map(|n| entry(n).dedup(n.to_string())).collect());
        let first = store.append(&t, keyed(0..3).expect_last(EntryId::MIN)).await.unwrap();
        // As after a crash in the middle: the beginning is known, the rest follows on it.
        let again = store.append(&t, keyed(0..5).expect_last(EntryId::MIN)).await.unwrap();
        assert_eq!(again[..3].iter().map(|one| one.id).collect::<Vec<_>>(), first.iter().map(|one| one.id).collect::<Vec<_>>());
        assert_eq!(again.iter().map(|one| one.duplicate).collect::<Vec<_>>(), [true, true, true, false, false]);
        let plain = Append::many((5..9).map(entry).collect()).expect_last(again[4].id);
        let last = store.append(&t, plain.clone()).await.unwrap()[3].id;
        match store.append(&t, plain).await {
            Err(StoreError::Conflict { expected, last: Some(is) }) => assert_eq!((expected, is), (again[4].id, last)),
            other => panic!("{other:?}"),
        }
        assert_eq!(kept(&store, "t").await, (0..9).collect::<Vec<_>>());
        // After a trim of all the server has no last message, but we have a last id.
        store.trim(&t, Trim::Len(0)).await.unwrap();
        let stale = store.append(&t, Append::one(entry(9)).expect_last(EntryId::MIN)).await;
        assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
        store.append(&t, Append::one(entry(9)).expect_last(last)).await.unwrap();
    });
}

#[test]
fn jetstream_a_dropped_fetch_keeps_nothing_from_the_others() {
    system(async {
        let server = Server::nats();
        let store = open(&server);
        let g = group("t");
        store.create_group(&g, Position::Start).await.unwrap();
        let mut handled = BTreeSet::new();
        for n in 0..20 {
            let waiting = actix::spawn({
                let (store, g) = (store.clone(), g.clone());
                async move { store.fetch(&g, &me(), Fetch::entries(1).visibility(LONG).wait(LONG)).await }
            });
            crate::support::one_turn().await;
            let appending = store.append(&g.topic, Append::one(entry(n))).await;
            // Sometimes before the entry has come, sometimes after.
            waiting.abort();
            appending.unwrap();
            if let Ok(Ok(fetched)) = waiting.await {
                handled.extend(fetched.iter().map(|one| one.id));
            }
        }
        let started = Instant::now();
        while handled.len() < 20 {
            let fetched = store.fetch(&g, &me(), Fetch::entries(5).wait(Duration::from_secs(5))).await.unwrap();
            handled.extend(fetched.iter().map(|one| one.id));
            assert!(started.elapsed() < LONG / 2, "some wait for their visibility: {handled:?}");
        }
    });
}

#[test]
fn jetstream_serves_hundreds_of_waiting_fetches() {
    system(async {
        let server = Server::nats();
        let store = open(&server);
        let g = group("t");
        store.create_group(&g, Position::Start).await.unwrap();
        let waiting: Vec<_> = (0..600)
            .map(|_| {
                let (store, g) = (store.clone(), g.clone());
                actix::spawn(async move { store.fetch(&g, &me(), Fetch::entries(1).wait(LONG)).await })
            })
            .collect();
        store.append(&g.topic, Append::many((0..600).map(entry).collect())).await.unwrap();
        let mut got = BTreeSet::new();
        for one in waiting {
            got.extend(one.await.unwrap().unwrap().iter().map(|one| one.id));
        }
        assert_eq!(got.len(), 600);
    });
}

#[test]
fn jetstream_outlives_the_arbiter_that_used_it_first_and_ends_with_its_last_handle() {
    system(async {
        let server = Server::nats();
        let store = open(&server);
        let arbiter = Arbiter::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let theirs = store.clone();
        arbiter.spawn(async move {
            append(&theirs, "t", 1).await;
            tell.send(()).unwrap();
        });
        told.await.unwrap();
        arbiter.stop();
        arbiter.join().unwrap();
        append(&store, "t", 2).await;
        assert_eq!(kept(&store, "t").await, [1, 2]);
        if cfg!(target_os = "linux") {
            assert!(threads() >= 1);
            drop(store);
            until("its thread has ended", || threads() == 0).await;
        }
    });
}

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("pubsub-jets")))
        .count()
}

#[test]
fn jetstream_tail_finds_new_watches_and_a_topic_made_later() {
    system(async {
        let server = Server::nats();
        let (store, writer) = (open(&server), open(&server));
        let mut tail = store.tail();
        tail.watch(&topic("later"), EntryId::MIN);
        let waited = actix::clock::timeout(Duration::from_millis(300), tail.next(Limit::default())).await;
        assert!(waited.is_err(), "there is nothing yet");
        append(&writer, "later", 1).await;
        let batches = tail.next(Limit::default()).await.unwrap();
        assert_eq!((batches[0].0.as_str(), batches[0].1.entries.len()), ("later", 1));
        append(&writer, "second", 2).await;
        tail.watch(&topic("second"), EntryId::MIN);
        let started = Instant::now();
        assert_eq!(tail.next(Limit::default()).await.unwrap()[0].0.as_str(), "second");
        assert!(started.elapsed() < Duration::from_millis(900), "without waiting for the reading in turn");
        // A position of another log.
        tail.watch(&topic("second"), EntryId::new(7, 7));
        assert!(tail.next(Limit::default()).await.unwrap()[0].1.gap.is_some());
    });
}

#[test]
fn jetstream_pages_through_thousands_and_sees_a_trim_between_two_pages() {
    system(async {
        let server = Server::nats();
        let store = open(&server);
        let t = topic("t");
        for from in (0..8_000).step_by(4_000) {
            store.append(&t, Append::many((from..from + 4_000).map(entry).collect())).await.unwrap();
        }
        assert_eq!(kept(&store, "t").await, (0..8_000).collect::<Vec<_>>());
        let page = store.read(&t, Position::Start, Limit::entries(1_000)).await.unwrap();
        store.trim(&t, Trim::Before(EntryId::new(0, 3_001))).await.unwrap();
        let next = store.read(&t, Position::After(page.next), Limit::entries(1_000)).await.unwrap();
        let gap = next.gap.expect("2,000 entries are gone");
        assert_eq!((gap.asked_after, gap.resumes_at), (page.next, Some(EntryId::new(0, 3_001))));
        let next = store.read(&t, Position::After(next.next), Limit::entries(1_000)).await.unwrap();
        assert_eq!((next.gap, next.entries.len()), (None, 1_000));
        store.delete(&t).await.unwrap();
        let gone = store.read(&t, Position::After(next.next), Limit::entries(1_000)).await.unwrap();
        assert!(gone.gap.is_some() && gone.entries.is_empty());
    });
}

#[test]
fn jetstream_refuses_settings_that_are_none() {
    for prefix in ["", "a.b", "a b", "ü", &"x".repeat(33)] {
        assert!(matches!(JetStreamStore::builder("nats://localhost").prefix(prefix).open(), Err(StoreError::Engine { .. })));
    }
    assert!(matches!(JetStreamStore::new("no url at all ://"), Err(StoreError::Engine { .. })));
    let shown = format!("{:?}", JetStreamStore::builder("nats://me:secret@localhost"));
    assert!(!shown.contains("secret"), "{shown}");
}
