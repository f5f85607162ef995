//! Damage: tests that change single bytes of a file, and hold what is read of it against what was written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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
            assert_eq!(&found.entries[0], entry);
        }
        entries.insert(topic.clone(), (all, info.entries, info.last));
        groups.insert(topic.clone(), store.groups(topic).await?);
    }
    let pending = store.pending(&group(), PendingQuery::first(100)).await?;
    let pending = pending.into_iter().map(|of| (of.id, of.consumer, of.attempt)).collect();
    Ok(Contents { topics, entries, groups, pending })
}

#[test]
fn embedded_finds_every_changed_byte_or_is_not_touched_by_it() {
    let mut random = Random::from_env();
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
                64..464 => 4_096 + round - 64,
                _ => random.below(image.len() as u64),
            } as usize;
            let bit = 1 << random.below(8);
            damaged[at] ^= if random.below(2) == 0 { bit } else { 1 + random.below(255) as u8 };
            let store = match open(Tape::of(damaged)) {
                Ok(store) => store,
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt { .. } | StoreError::Version { .. }), "byte {at}: {error:?}");
                    refused += 1;
                    continue;
                }
            };
            match contents(&store).await {
                Ok(read) => {
                    assert!(read == expected, "byte {at} changes what is read, and nobody says so");
                    harmless += 1;
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt { .. }), "byte {at}: {error:?}");
                    met += 1;
                }
            }
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

/// Bytes changed, one at a time.
const FLIPS: u64 = 2_000;
