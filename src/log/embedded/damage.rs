//! Damage: tests that change single bytes of a file, or take rows out of it, and hold what is read of it against what was written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redb::ReadableTable;

use crate::ids::EntryId;
use crate::log::Append;
use crate::log::Entry;
use crate::log::Fetch;
use crate::log::Group;
use crate::log::GroupInfo;
use crate::log::Limit;
use crate::log::Name;
use crate::log::NewEntry;
use crate::log::PendingQuery;
use crate::log::Position;
use crate::log::Store;
use crate::log::StoreError;
use crate::log::Trim;
use crate::log::embedded::EmbeddedStore;
use crate::log::embedded::crash::Random;
use crate::log::embedded::crash::Tape;
use crate::log::embedded::crash::open;
use crate::log::embedded::disk;
use crate::log::embedded::engine::Level;
use crate::log::embedded::engine::counts;
use crate::log::embedded::row;
use crate::topic::Topic;

/// All that can be read of a store.
#[derive(Debug, PartialEq)]
struct Contents {
    topics: Vec<Topic>,
    entries: BTreeMap<Topic, (Vec<Entry>, u64, EntryId)>,
    groups: BTreeMap<Topic, Vec<GroupInfo>>,
    pending: Vec<(EntryId, Name, u32)>,
}

fn topic(n: u64) -> Topic {
    Topic::parse(&format!("topic:{n}")).unwrap()
}

fn group() -> Group {
    Group::new(topic(1), Name::parse("workers").unwrap())
}

/// A closed store with something of everything.
async fn image() -> Vec<u8> {
    let tape = Arc::new(Tape::default());
    let store = open(Arc::clone(&tape)).unwrap();
    for step in 0..120_u64 {
        let new = (0..=step % 30).map(|n| NewEntry::new("name", format!("{step}/{n} ").repeat(3)).header("h", step.to_string()));
        let new = new.map(|entry| if step % 5 == 0 { entry.dedup(format!("key {step}")) } else { entry });
        store.append(&topic(step % 8), Append::many(new.collect())).await.unwrap();
    }
    store.append(&topic(3), Append::one(NewEntry::new("big", vec![9; 50_000]))).await.unwrap();
    store.create_group(&group(), Position::Start).await.unwrap();
    let fetched = store
        .fetch(&group(), &Name::parse("c").unwrap(), Fetch::entries(40).visibility(Duration::from_secs(9_999)))
        .await
        .unwrap();
    store.ack(&group(), fetched.iter().step_by(3).map(|fetched| fetched.token.clone()).collect()).await.unwrap();
    store.trim(&topic(2), Trim::Len(33)).await.unwrap();
    store.delete(&topic(7)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    Arc::into_inner(tape).unwrap().image.into_inner().unwrap()
}

async fn contents(store: &EmbeddedStore) -> Result<Contents, StoreError> {
    let topics = store.topics(None, 100).await?;
    let (mut entries, mut groups) = (BTreeMap::new(), BTreeMap::new());
    for topic in &topics {
        let (mut all, mut at) = (Vec::new(), Position::Start);
        loop {
            let batch = store.read(topic, at, Limit::entries(50)).await?;
            at = Position::After(batch.next);
            all.extend(batch.entries);
            if batch.caught_up {
                break;
            }
        }
        let info = store.info(topic).await?;
        // Not only from the front: each lookup takes its own way through the pages.
        for entry in all.iter().step_by(17) {
            let found = store.read(topic, Position::After(entry.id.prev().unwrap()), Limit::entries(1)).await?;
            assert_eq!(found.entries.first(), Some(entry), "of {topic}, which has {} entries", all.len());
        }
        entries.insert(topic.clone(), (all, info.entries, info.last));
        groups.insert(topic.clone(), store.groups(topic).await?);
    }
    let pending = store.pending(&group(), PendingQuery::first(100)).await?;
    let pending = pending.into_iter().map(|of| (of.id, of.consumer, of.attempt)).collect();
    Ok(Contents { topics, entries, groups, pending })
}

/// Opens a file of which byte `at` was changed, and reads all of it: right, which is harmless, or told as damaged. `None`: the opening told it.
async fn open_and_read(damaged: Vec<u8>, expected: &Contents, at: usize) -> Option<(EmbeddedStore, bool)> {
    let store = match open(Tape::of(damaged)) {
        Ok(store) => store,
        Err(error) => {
            assert!(matches!(error, StoreError::Corrupt { .. } | StoreError::Version { .. }), "byte {at}: {error:?}");
            return None;
        }
    };
    match contents(&store).await {
        Ok(read) => {
            assert!(read == *expected, "byte {at} changes what is read, and nobody says so");
            Some((store, true))
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Corrupt { .. }), "byte {at}: {error:?}");
            Some((store, false))
        }
    }
}

/// The same bytes in each run: about one in a thousand is in the engine's list of free pages, and there redb 4.5 panics in a destructor while it unwinds from a panic
/// as soon as it writes, which no caller can catch. Nothing wrong is read then, but the process ends, and this one with it.
#[test]
fn embedded_finds_every_changed_byte_or_is_not_touched_by_it() {
    let mut random = Random::from_env_or(1);
    // The engine panics on some damage. That is caught, and would fill the output.
    std::panic::set_hook(Box::new(|info| {
        if info.location().is_some_and(|at| at.file().contains("src/log/") || at.file().contains("library")) {
            eprintln!("{info}");
        }
    }));
    actix::System::new().block_on(async move {
        let image = image().await;
        let expected = contents(&open(Tape::of(image.clone())).unwrap()).await.unwrap();
        assert!(expected.pending.len() > 20 && expected.topics.len() == 7);
        let (mut refused, mut met, mut harmless) = (0, 0, 0);
        for round in 0..FLIPS {
            let mut damaged = image.clone();
            // Our head and the engine's byte by byte, then some anywhere.
            let at = match round {
                0..64 => round,
                64..464 => disk::PAGES_AT + round - 64,
                _ => disk::PAGES_AT + random.below(image.len() as u64 - disk::PAGES_AT),
            } as usize;
            let bit = 1 << random.below(8);
            damaged[at] ^= if random.below(2) == 0 { bit } else { 1 + random.below(255) as u8 };
            let Some((store, is_harmless)) = open_and_read(damaged, &expected, at).await else {
                refused += 1;
                continue;
            };
            *(if is_harmless { &mut harmless } else { &mut met }) += 1;
            if round % 16 == 0 {
                // Writing to it is defined, too, whatever the answer.
                let _ = store.append(&topic(round % 8), Append::one(NewEntry::new("n", "x")).trim(Trim::Len(5))).await;
                let _ = store.delete(&topic(round % 7)).await;
                let _ = store.close().await;
            }
        }
        eprintln!("{refused} refused, {met} met in reading, {harmless} harmless, of {} bytes", image.len());
        assert!(refused > 10 && met > 100);
    });
}

/// In a process of its own, which may end: of every page a byte is changed, then all is read, and something written; several times. Each is told on stdout before it is tried.
#[test]
fn embedded_page_by_page() {
    let Some(first) = std::env::var("PAGE_BY_PAGE").ok().map(|first| first.parse::<usize>().unwrap()) else { return };
    let mut random = Random::from_env();
    actix::System::new().block_on(async move {
        let image = image().await;
        let expected = contents(&open(Tape::of(image.clone())).unwrap()).await.unwrap();
        let pages = (disk::PAGES_AT as usize..image.len()).step_by(PAGE_BYTES);
        let tries = pages.flat_map(|page| std::iter::repeat_n(page, TRIES)).enumerate().skip(first);
        for (number, page) in tries {
            let used: Vec<_> = (page..image.len().min(page + PAGE_BYTES)).filter(|at| image[*at] != 0).collect();
            let Some(at) = used.get(random.below(used.len() as u64) as usize) else { continue };
            println!("page {number}");
            let mut damaged = image.clone();
            damaged[*at] ^= 1 + random.below(255) as u8;
            let Some((store, _)) = open_and_read(damaged, &expected, *at).await else { continue };
            for n in 0..7 {
                let _ = store.append(&topic(n), Append::one(NewEntry::new("n", vec![1; 9_000])).trim(Trim::Len(5))).await;
            }
            let _ = store.delete(&topic(3)).await;
            let _ = store.close().await;
        }
        println!("page all");
    });
}

#[test]
fn embedded_with_any_changed_byte_is_right_or_says_so_or_ends_its_process_in_the_engine() {
    let seed = std::env::var("SEED").unwrap_or_else(|_| Random::from_env().below(u64::MAX).to_string());
    eprintln!("SEED={seed}");
    let (mut first, mut ended) = (0, 0);
    loop {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::embedded::damage::embedded_page_by_page", "--nocapture"])
            .env("PAGE_BY_PAGE", first.to_string())
            .env("SEED", &seed)
            .output()
            .unwrap();
        let (told, said) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        let last = told.lines().filter_map(|line| line.strip_prefix("page ")).next_back().expect("it begins");
        if last == "all" {
            assert!(child.status.success(), "{said}");
            break;
        }
        // Not by a test that failed: by the engine, which says so, and where.
        let last_said = said.lines().rev().take(40).collect::<Vec<_>>().join("\n");
        assert!(said.contains("panic in a destructor") && said.contains("/redb-"), "page {last}: {last_said}");
        (first, ended) = (last.parse::<usize>().unwrap() + 1, ended + 1);
    }
    eprintln!("{ended} changes of a byte end the process");
    assert!(ended <= ENDED_MAX, "{ended} changes of a byte end the process");
}

#[test]
fn embedded_finds_every_changed_byte_of_its_journal_but_in_the_last_record() {
    const APPENDS: u64 = 60;
    let mut random = Random::from_env();
    actix::System::new().block_on(async move {
        let tape = Arc::new(Tape::default());
        let store = open(Arc::clone(&tape)).unwrap();
        for n in 0..APPENDS {
            store.append(&topic(n % 3), Append::one(NewEntry::new("n", format!("{n}").repeat(40)))).await.unwrap();
        }
        // Its process is killed now: the table has none of it.
        let image = tape.image.lock().unwrap().clone();
        let entries = async |store: &EmbeddedStore| {
            let mut entries = 0;
            for n in 0..3 {
                entries += store.info(&topic(n)).await.unwrap().entries;
            }
            entries
        };
        assert_eq!(entries(&open(Tape::of(image.clone())).unwrap()).await, APPENDS);
        let (mut found, mut lost) = (0, 0);
        for _ in 0..300 {
            let (record, byte) = (random.below(APPENDS), random.below(150));
            let mut damaged = image.clone();
            damaged[(disk::HEAD_BYTES + record * 4_096 + byte) as usize] ^= 1 + random.below(255) as u8;
            match open(Tape::of(damaged)) {
                Err(StoreError::Corrupt { at, .. }) => {
                    assert!(record + 1 < APPENDS && at.contains("journal"), "{at}");
                    found += 1;
                }
                Err(error) => panic!("record {record}, byte {byte}: {error:?}"),
                // It looks as if the power had been cut while it was written.
                Ok(store) => {
                    assert_eq!((record + 1, entries(&store).await), (APPENDS, APPENDS - 1), "byte {byte}");
                    lost += 1;
                }
            }
        }
        assert!(found > 250 && lost < 50, "{found} found, {lost} lost");
    });
}

/// Bytes changed, one at a time.
/// Of the engine.
const PAGE_BYTES: usize = 4_096;
/// Bytes that are changed in each.
const TRIES: usize = 8;
/// Those of the engine's list of free pages: some pages of hundreds.
const ENDED_MAX: u32 = 4 * TRIES as u32;
const FLIPS: u64 = 2_000;

// ---- rows that are not there ---------------------------------------------------------------------------------------------

/// The keys of these rows, in order.
fn keys(store: &EmbeddedStore, which: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let all = store.inner.shared.engine.read(|rows| {
        let mut keys = Vec::new();
        for row in rows.table.iter()? {
            keys.push(row?.0.value().to_vec());
        }
        Ok(keys)
    });
    all.unwrap().into_iter().filter(|key| which(key)).collect()
}

/// Makes a row what it is not, or none, behind the store's back: what a page that was written and never reached the disk comes to.
fn replace(store: &EmbeddedStore, key: &[u8], value: Option<&[u8]>) -> Option<Vec<u8>> {
    let replaced = store.inner.shared.engine.write(Level::Quick, |rows| {
        let old = match value {
            Some(value) => rows.table.insert(key, value)?,
            None => rows.table.remove(key)?,
        };
        Ok(old.map(|old| old.value().to_vec()))
    });
    replaced.map_err(StoreError::from).unwrap()
}

fn is_corrupt<T: std::fmt::Debug>(answer: &Result<T, StoreError>, what: &str) {
    assert!(matches!(answer, Err(StoreError::Corrupt { .. })), "{what}: {answer:?}");
}

/// Nothing but the sum in the store's row misses a pending entry, a key or a group: without it they were gone and nobody said so.
#[actix::test]
async fn embedded_refuses_a_file_that_lacks_a_row_or_has_an_older_one() {
    let image = image().await;
    let all = keys(&open(Tape::of(image.clone())).unwrap(), counts);
    for kind in [row::TOPIC, row::GROUP, row::HELD, row::KEYS] {
        let mut of_kind = all.iter().filter(|key| key[0] == kind);
        let key = of_kind.next().unwrap_or_else(|| panic!("there is none of kind {kind}"));
        let tape = Tape::of(image.clone());
        let store = open(Arc::clone(&tape)).unwrap();
        assert!(replace(&store, key, None).is_some());
        drop(store);
        is_corrupt(&open(tape), &format!("without the row {key:?}"));
    }
    let tape = Tape::of(image.clone());
    let store = open(Arc::clone(&tape)).unwrap();
    let (topic, key) = (topic(0), row::topic_key(store.inner.shared.lock().by_name[&topic(0)].meta.no));
    let older = replace(&store, &key, None).unwrap();
    replace(&store, &key, Some(&older));
    store.append(&topic, Append::one(NewEntry::new("n", "newer"))).await.unwrap();
    replace(&store, &key, Some(&older));
    is_corrupt(&store.read(&topic, Position::Start, Limit::default()).await, "an older row under an open store");
    drop(store);
    is_corrupt(&open(tape), "an older row");
}

/// Blocks are not in the sum: that each begins where the one before it ended is what proves that none is missing.
#[actix::test]
async fn embedded_finds_every_block_that_is_missing() {
    let image = image().await;
    let store = open(Tape::of(image.clone())).unwrap();
    let blocks = keys(&store, |key| key[0] == row::BLOCK);
    assert!(blocks.len() > 20);
    let numbers: BTreeMap<_, _> =
        store.inner.shared.lock().by_name.iter().map(|(topic, state)| (state.meta.no, topic.clone())).collect();
    for key in blocks {
        let (no, first) = row::parse_block_key(&key).unwrap();
        let topic = &numbers[&no];
        let whole = replace(&store, &key, None).unwrap();
        for entries in [1, 7, 10_000] {
            let (mut from, mut read) = (Position::Start, Ok(()));
            while read.is_ok() {
                match store.read(topic, from, Limit { entries, bytes: usize::MAX }).await {
                    Ok(batch) if batch.caught_up => break,
                    Ok(batch) => from = Position::After(batch.next),
                    Err(error) => read = Err(error),
                }
            }
            is_corrupt(&read, &format!("{topic} without the block of {first}, in pages of {entries}"));
        }
        let before = first.prev().unwrap();
        is_corrupt(&store.read(topic, Position::After(before), Limit::entries(1)).await, "right before it");
        replace(&store, &key, Some(&whole));
    }
    drop(store);
    let expected = contents(&open(Tape::of(image.clone())).unwrap()).await.unwrap();
    assert_eq!(expected.topics.len(), 7);
}

/// A topic whose row cannot be found any more looks like one that does not exist: empty, and its entries trimmed.
#[actix::test]
async fn embedded_does_not_take_a_topic_whose_row_is_missing_for_none() {
    let image = image().await;
    let store = open(Tape::of(image)).unwrap();
    let no = store.inner.shared.lock().by_name[&topic(1)].meta.no;
    assert!(replace(&store, &row::topic_key(no), None).is_some());
    is_corrupt(&store.read(&topic(1), Position::Start, Limit::default()).await, "reading");
    is_corrupt(&store.info(&topic(1)).await, "its numbers");
    let fetch = Fetch::entries(5).visibility(Duration::from_secs(1));
    is_corrupt(&store.fetch(&group(), &Name::parse("d").unwrap(), fetch).await, "fetching new entries");
    let claimed = store.claim(&group(), &Name::parse("d").unwrap(), Duration::ZERO, fetch).await;
    assert!(claimed.as_ref().map_or(true, Vec::is_empty), "what is pending does not come as trimmed: {claimed:?}");
    store.read(&topic(2), Position::Start, Limit::default()).await.unwrap();
}
