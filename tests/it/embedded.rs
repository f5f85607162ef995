//! Embedded: what the store in a file promises beyond the contract: over a reopening, a kill, a second opener, a full disk.

use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix_pubsub::EntryId;
use actix_pubsub::Topic;
use actix_pubsub::log::Append;
use actix_pubsub::log::Clock;
use actix_pubsub::log::Durability;
use actix_pubsub::log::EmbeddedStore;
use actix_pubsub::log::Fetch;
use actix_pubsub::log::Fetched;
use actix_pubsub::log::GapCause;
use actix_pubsub::log::Group;
use actix_pubsub::log::Limit;
use actix_pubsub::log::Limits;
use actix_pubsub::log::Name;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::PendingQuery;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;
use actix_pubsub::log::StoreError;
use actix_pubsub::log::Trim;

use crate::support::Folder;

const LONG: Duration = Duration::from_secs(3_600);

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn name(name: &str) -> Name {
    Name::parse(name).unwrap()
}

fn group() -> Group {
    Group::new(topic("t"), name("workers"))
}

fn number(n: u64) -> NewEntry {
    NewEntry::new("n", n.to_string())
}

async fn append(store: &EmbeddedStore, topic: &Topic, n: u64) -> EntryId {
    store.append(topic, Append::one(number(n))).await.unwrap()[0].id
}

/// All numbers of a topic, in pages.
async fn numbers(store: &EmbeddedStore, topic: &Topic) -> Vec<u64> {
    let (mut all, mut at) = (Vec::new(), Position::Start);
    loop {
        let batch = store.read(topic, at, Limit::default()).await.unwrap();
        all.extend(batch.entries.iter().map(|entry| std::str::from_utf8(&entry.payload).unwrap().parse::<u64>().unwrap()));
        if batch.caught_up {
            return all;
        }
        at = Position::After(batch.next);
    }
}

async fn fetch(store: &EmbeddedStore, consumer: &str, entries: usize) -> Vec<Fetched> {
    store.fetch(&group(), &name(consumer), Fetch::entries(entries).visibility(LONG)).await.unwrap()
}

#[actix::test]
async fn embedded_keeps_everything_over_a_reopening() {
    let folder = Folder::new();
    let (file, t) = (folder.file(), topic("t"));
    let (ids, fetched, before) = {
        let store = EmbeddedStore::open(&file).unwrap();
        let mut ids = Vec::new();
        for n in 0..20 {
            ids.push(store.append(&t, Append::one(number(n).dedup(format!("key {n}")).header("h", "v"))).await.unwrap()[0].id);
        }
        store.create_group(&group(), Position::Start).await.unwrap();
        let fetched = fetch(&store, "one", 8).await;
        store.ack(&group(), vec![fetched[0].token.clone(), fetched[5].token.clone()]).await.unwrap();
        store.nack(&group(), vec![fetched[1].token.clone()], Duration::ZERO).await.unwrap();
        assert_eq!(fetch(&store, "two", 1).await[0].attempt, 2);
        store.trim(&t, Trim::Before(ids[3])).await.unwrap();
        append(&store, &topic("other"), 1).await;
        assert!(store.delete(&topic("other")).await.unwrap());
        let before = (store.info(&t).await.unwrap(), store.groups(&t).await.unwrap());
        (ids, fetched, before)
        // The last handle is dropped: what was not committed yet is now.
    };
    let store = EmbeddedStore::open(&file).unwrap();
    assert_eq!((store.info(&t).await.unwrap(), store.groups(&t).await.unwrap()), before);
    assert_eq!(store.topics(None, 10).await.unwrap(), std::slice::from_ref(&t));
    assert_eq!(numbers(&store, &t).await, (3..20).collect::<Vec<_>>());
    let batch = store.read(&t, Position::After(ids[0]), Limit::default()).await.unwrap();
    assert_eq!(batch.gap.map(|gap| (gap.cause, gap.resumes_at)), Some((GapCause::Trimmed, Some(ids[3]))));
    assert_eq!(batch.entries[0].header("h"), Some("v"));
    let again = store.append(&t, Append::one(number(99).dedup("key 7"))).await.unwrap()[0];
    assert_eq!((again.id, again.duplicate), (ids[7], true));
    let pending = store.pending(&group(), PendingQuery::first(100)).await.unwrap();
    let pending: Vec<_> = pending.iter().map(|of| (of.id, of.consumer.as_str(), of.attempt)).collect();
    let one = |at: usize| (ids[at], "one", 1);
    assert_eq!(pending, [(ids[1], "two", 2), one(2), one(3), one(4), one(6), one(7)]);
    assert_eq!(fetch(&store, "two", 1).await[0].id, ids[8], "it goes on after the last delivered");
    assert_eq!(store.ack(&group(), vec![fetched[2].token.clone()]).await.unwrap(), 1, "an old token still counts");
    assert!(append(&store, &t, 20).await > ids[19]);
}

#[actix::test]
async fn embedded_forgets_a_key_after_its_window_over_a_reopening_too() {
    let folder = Folder::new();
    let (file, t, now) = (folder.file(), topic("t"), Arc::new(AtomicU64::new(1_000_000)));
    let open = || {
        let (wall, steady) = (Arc::clone(&now), Arc::clone(&now));
        let clock = Clock::from_fns(move || wall.load(Ordering::Relaxed), move || steady.load(Ordering::Relaxed));
        EmbeddedStore::builder(&file).dedup_window(Duration::from_secs(10)).clock(clock).open().unwrap()
    };
    let keyed = || Append::one(number(1).dedup("k"));
    for (elapsed_ms, duplicate) in [(0, false), (9_999, true), (1, false), (9_999, true), (1, false)] {
        now.fetch_add(elapsed_ms, Ordering::Relaxed);
        let store = open();
        assert_eq!(store.append(&t, keyed()).await.unwrap()[0].duplicate, duplicate, "after {elapsed_ms} ms");
    }
    // A clock that stepped back does not make a key last longer than its window.
    now.store(1_000, Ordering::Relaxed);
    let store = open();
    assert!(store.append(&t, keyed()).await.unwrap()[0].duplicate);
    now.fetch_add(10_000, Ordering::Relaxed);
    assert!(!store.append(&t, keyed()).await.unwrap()[0].duplicate);
}

/// What the guide of operations says of backups.
#[actix::test]
async fn a_copy_of_a_closed_store_is_a_backup_and_positions_from_after_it_are_ahead() {
    let folder = Folder::new();
    let (file, backup, t) = (folder.file(), folder.file().with_extension("backup"), topic("t"));
    let store = EmbeddedStore::open(&file).unwrap();
    let kept = append(&store, &t, 1).await;
    store.close().await.unwrap();
    drop(store);
    std::fs::copy(&file, &backup).unwrap();
    let store = EmbeddedStore::open(&file).unwrap();
    let later = append(&store, &t, 2).await;
    store.close().await.unwrap();

    let restored = EmbeddedStore::builder(&backup).verify().open().unwrap();
    assert_eq!(numbers(&restored, &t).await, [1]);
    let ahead = restored.read(&t, Position::After(later), Limit::default()).await.unwrap();
    assert_eq!(ahead.gap.map(|gap| (gap.cause, gap.resumes_at)), Some((GapCause::Ahead, Some(kept))));
    assert!(append(&restored, &t, 3).await > kept);
}

#[actix::test]
async fn embedded_is_opened_once_at_a_time() {
    let folder = Folder::new();
    let file = folder.file();
    let store = EmbeddedStore::open(&file).unwrap();
    match EmbeddedStore::open(&file) {
        Err(StoreError::Locked { path }) => assert_eq!(path, file),
        other => panic!("{other:?}"),
    }
    append(&store, &topic("t"), 1).await;
    let other = store.clone();
    store.close().await.unwrap();
    assert!(matches!(other.append(&topic("t"), Append::one(number(2))).await, Err(StoreError::Closed)));
    assert!(matches!(other.read(&topic("t"), Position::Start, Limit::default()).await, Err(StoreError::Closed)));
    assert!(matches!(other.info(&topic("t")).await, Err(StoreError::Closed)));
    other.close().await.unwrap();
    drop((store, other));
    assert_eq!(numbers(&EmbeddedStore::open(&file).unwrap(), &topic("t")).await, [1]);
}

#[actix::test]
async fn embedded_refuses_what_is_no_store_or_of_another_version_and_leaves_it_alone() {
    let folder = Folder::new();
    let file = folder.file();
    for content in [&b"short"[..], &[b'x'; 10_000], b"SQLite format 3\0"] {
        std::fs::write(&file, content).unwrap();
        let refused = EmbeddedStore::open(&file);
        assert!(matches!(&refused, Err(StoreError::Corrupt { at, .. }) if at.contains("head")), "{refused:?}");
        names(&refused.unwrap_err(), &file);
        assert_eq!(std::fs::read(&file).unwrap(), content);
    }
    std::fs::remove_file(&file).unwrap();
    EmbeddedStore::open(&file).unwrap().close().await.unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[23] = 7;
    // CRC-32 of the head as a later version would write it.
    let sum = crc(&bytes[..40]);
    bytes[40..44].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&file, &bytes).unwrap();
    let later = EmbeddedStore::open(&file);
    assert!(matches!(later, Err(StoreError::Version { found: 7, supported: 1, .. })), "{later:?}");
    names(&later.unwrap_err(), &file);
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    let nowhere = folder.file().join("nowhere");
    let refused = EmbeddedStore::open(&nowhere).unwrap_err();
    assert!(matches!(&refused, StoreError::File { path, .. } if *path == nowhere), "{refused:?}");
    names(&refused, &nowhere);
}

/// An error at the opening said that the engine refused, or that the head was damaged, and not of which file: a program with two has to be told.
fn names(error: &StoreError, file: &Path) {
    let text = error.to_string();
    assert!(text.contains(&*file.to_string_lossy()), "{text}");
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[actix::test]
async fn embedded_takes_the_limits_it_is_given_and_packs_entries_of_every_size() {
    let folder = Folder::new();
    let limits = Limits::default().entry_bytes(3_000_000);
    let store = EmbeddedStore::builder(folder.file()).limits(limits).cache_bytes(1 << 20).open().unwrap();
    assert_eq!((store.limits(), store.caps().durability), (limits, Durability::Synced));
    let t = topic("t");
    let sizes = [0, 1, 127, 128, 32_000, 32_255, 32_256, 32_768, 65_536, 3_000_000];
    for sizes in [&sizes[..], &sizes[..7]] {
        let new = sizes.iter().map(|bytes| NewEntry::new("", vec![b'x'; *bytes]));
        store.append(&t, Append::many(new.collect())).await.unwrap();
    }
    let over = store.append(&t, Append::one(NewEntry::new("", vec![0; 3_000_001]))).await;
    assert!(matches!(over, Err(StoreError::TooLarge { bytes: 3_000_001, max: 3_000_000, .. })), "{over:?}");
    let (mut read, mut at) = (Vec::new(), EntryId::MIN);
    while read.len() < 17 {
        let batch = store.read(&t, Position::After(at), Limit { entries: 3, bytes: 40_000 }).await.unwrap();
        read.extend(batch.entries.iter().map(|entry| entry.payload.len()));
        at = batch.next;
    }
    assert_eq!(read, [&sizes[..], &sizes[..7]].concat());
    for keep in (0..17).rev() {
        assert_eq!(store.trim(&t, Trim::Len(keep)).await.unwrap(), 1, "a trim cuts anywhere in a block");
        let kept = store.info(&t).await.unwrap();
        let bytes: usize = read[17 - keep as usize..].iter().sum();
        assert_eq!((kept.entries, kept.bytes), (keep, Some(bytes as u64)));
    }
}

#[actix::test]
async fn embedded_in_relaxed_mode_says_so_and_is_on_disk_after_a_sync() {
    let folder = Folder::new();
    let (file, t) = (folder.file(), topic("t"));
    let store = EmbeddedStore::builder(&file).relaxed().open().unwrap();
    assert_eq!(store.caps().durability, Durability::Relaxed);
    for n in 0..100 {
        append(&store, &t, n).await;
    }
    store.sync().await.unwrap();
    // What a killed process would leave.
    let copy = folder.file();
    std::fs::copy(&file, &copy).unwrap();
    assert_eq!(numbers(&EmbeddedStore::open(&copy).unwrap(), &t).await, (0..100).collect::<Vec<_>>());
    store.close().await.unwrap();
}

#[actix::test]
async fn embedded_finishes_a_dropped_append_or_never_begins_it() {
    let folder = Folder::new();
    let (store, t) = (EmbeddedStore::open(folder.file()).unwrap(), topic("t"));
    for n in 0..200 {
        let append = store.append(&t, Append::many(vec![number(2 * n), number(2 * n + 1)]));
        let _ = tokio::time::timeout(Duration::from_micros(n * 10), append).await;
    }
    store.sync().await.unwrap();
    let numbers = numbers(&store, &t).await;
    assert!(numbers.chunks(2).all(|pair| pair.len() == 2 && pair[0] + 1 == pair[1]), "{numbers:?}");
    assert!(numbers.is_sorted());
}

#[actix::test]
async fn embedded_keeps_100_000_topics() {
    let folder = Folder::new();
    let file = folder.file();
    let topics: Vec<_> = (0..100_000).map(|n| topic(&format!("topic:{n}"))).collect();
    let store = EmbeddedStore::builder(&file).relaxed().open().unwrap();
    for (n, chunk) in topics.chunks(1_000).enumerate() {
        let appends = chunk.iter().map(|topic| store.append(topic, Append::one(number(n as u64))));
        assert!(futures::future::join_all(appends).await.iter().all(Result::is_ok));
    }
    store.close().await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(&file).unwrap();
    for n in [0, 7_777, 99_999] {
        assert_eq!(numbers(&store, &topics[n]).await, [n as u64 / 1_000]);
    }
    assert_eq!(store.topics(Some(&topics[99_998]), 10).await.unwrap(), [topics[99_999].clone()]);
}

// ---- kill -9 ---------------------------------------------------------------------------------------------------------

/// Not a test: what the next one kills. Appends and acks until then, and says what was promised.
#[actix::test]
async fn embedded_child() {
    let Ok(file) = std::env::var("ACTIX_PUBSUB_CHILD") else { return };
    let store = EmbeddedStore::open(file).unwrap();
    store.create_group(&group(), Position::Start).await.unwrap();
    let from: u64 = std::env::var("ACTIX_PUBSUB_FROM").unwrap().parse().unwrap();
    let writers = (0..4_u64).map(|writer| {
        let store = store.clone();
        tokio::task::spawn_local(async move {
            let t = topic(["t", "u"][writer as usize % 2]);
            for n in (from + writer..).step_by(4) {
                let id = append(&store, &t, n).await;
                std::io::stdout().write_all(format!("ACK {t} {id} {n}\n").as_bytes()).unwrap();
                if n % 5 == 0 {
                    let fetched = store.fetch(&group(), &name("c"), Fetch::entries(4)).await.unwrap();
                    store.ack(&group(), fetched.into_iter().map(|of| of.token).collect()).await.unwrap();
                }
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// Runs a child on `file` for a while and kills it. Returns what it was promised.
fn kill_one(file: &Path, from: u64, after: Duration) -> Vec<(Topic, EntryId, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::embedded_child", "--nocapture", "--test-threads=1"])
        .env("ACTIX_PUBSUB_CHILD", file)
        .env("ACTIX_PUBSUB_FROM", from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        text
    });
    let started = Instant::now();
    while started.elapsed() < after {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let text = reader.join().unwrap();
    let parse = |line: &str| {
        // The harness writes its own words before the first.
        let mut words = line[line.find("ACK ")?..].split(' ').skip(1);
        Some((topic(words.next()?), words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(parse).collect()
}

#[actix::test]
async fn embedded_loses_nothing_acked_when_its_process_is_killed_200_times() {
    let folder = Folder::new();
    let file = folder.file();
    let mut acked: BTreeMap<Topic, BTreeMap<EntryId, u64>> = BTreeMap::new();
    let (mut from, mut promised) = (0, 0);
    for round in 0..KILLS {
        let after = Duration::from_micros(5_000 + round * 7_919 % 50_000);
        for (topic, id, n) in kill_one(&file, from, after) {
            assert_eq!(acked.entry(topic).or_default().insert(id, n), None, "an id is given twice");
            promised += 1;
        }
        let store = EmbeddedStore::open(&file).unwrap();
        let mut kept = 0;
        for t in [topic("t"), topic("u")] {
            let all = store.read(&t, Position::Start, Limit { entries: usize::MAX, bytes: usize::MAX }).await.unwrap().entries;
            kept += all.len() as u64;
            let all: BTreeMap<_, u64> =
                all.iter().map(|entry| (entry.id, std::str::from_utf8(&entry.payload).unwrap().parse().unwrap())).collect();
            for (id, n) in acked.entry(t.clone()).or_default().iter() {
                assert_eq!(all.get(id), Some(n), "round {round}: {id} of {t} was acked");
            }
            let mut numbers: Vec<_> = all.values().collect();
            numbers.sort_unstable();
            assert!(numbers.is_sorted_by(|one, other| one < other), "round {round}: nothing is there twice");
            // The next child goes on behind all that this one may have begun.
            from = from.max(all.values().max().map_or(0, |n| n / 4 * 4 + 8));
        }
        // At most the four appends under way were done without having been acked.
        assert!(kept <= promised + 4 * (round + 1), "round {round}: {kept} kept, {promised} promised");
        if store.groups(&topic("t")).await.unwrap().is_empty() {
            continue;
        }
        let pending = store.pending(&group(), PendingQuery::first(usize::MAX)).await.unwrap();
        let last = store.groups(&topic("t")).await.unwrap()[0].last_delivered;
        assert!(pending.iter().all(|of| of.id <= last));
    }
    assert!(promised > KILLS, "{promised} promises in {KILLS} kills are too few to break");
}

/// How often the process is killed.
const KILLS: u64 = 200;

// ---- a full disk -----------------------------------------------------------------------------------------------------

/// Needs the right to mount, and does nothing without.
#[actix::test]
async fn embedded_on_a_full_disk_says_so_keeps_what_it_has_and_goes_on_with_room() {
    let folder = Folder::new();
    let place = folder.file();
    std::fs::create_dir(&place).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&place).stderr(Stdio::null()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    let mount = Mount(&place);
    let (ballast, t) = (place.join("ballast"), topic("t"));
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let store = EmbeddedStore::open(place.join("log")).unwrap();
    let mut acked = 0;
    let full = loop {
        match store.append(&t, Append::one(NewEntry::new("n", vec![7; 10_000]))).await {
            Ok(_) => acked += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full { .. }), "{full:?}");
    assert!(acked > 20, "{acked}");
    let check = async |entries: u64| {
        assert_eq!(store.info(&t).await.unwrap().entries, entries);
        let all = store.read(&t, Position::Start, Limit { entries: usize::MAX, bytes: usize::MAX }).await.unwrap();
        assert_eq!((all.entries.len() as u64, all.caught_up), (entries, true));
    };
    check(acked).await;
    assert!(store.append(&t, Append::one(NewEntry::new("n", vec![7; 500_000]))).await.is_err());
    check(acked).await;
    std::fs::remove_file(&ballast).unwrap();
    store.append(&t, Append::one(NewEntry::new("n", vec![7; 10_000]))).await.unwrap();
    check(acked + 1).await;
    store.close().await.unwrap();
    drop(mount);
}

struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
