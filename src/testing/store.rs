//! The contract of a [`Store`], as cases that every backend has to pass. Knows no backend: an exception is a named capability.
//!
//! ```
//! use std::sync::Arc;
//! use actix_pubsub::log::{MemoryStore, Store};
//!
//! # actix::System::new().block_on(async {
//! actix_pubsub::testing::store::check(|| async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }).await;
//! # });
//! ```

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio::time::timeout_at;

use crate::ids::EntryId;
use crate::log::Append;
use crate::log::Appended;
use crate::log::Batch;
use crate::log::DEAD_LETTER_ATTEMPTS;
use crate::log::DEAD_LETTER_GROUP;
use crate::log::DEAD_LETTER_ID;
use crate::log::DEAD_LETTER_REASON;
use crate::log::DEAD_LETTER_TOPIC;
use crate::log::Fetch;
use crate::log::Fetched;
use crate::log::GapCause;
use crate::log::Group;
use crate::log::GroupInfo;
use crate::log::Limit;
use crate::log::Name;
use crate::log::NewEntry;
use crate::log::PendingQuery;
use crate::log::Position;
use crate::log::Store;
use crate::log::StoreError;
use crate::log::Token;
use crate::log::Trim;
use crate::topic::Topic;

/// A store under test.
pub type Subject = Arc<dyn Store>;

/// One case: takes a store without topics, panics where the contract is broken.
pub type Case = fn(Subject) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs every case, each on a store of its own that `open` makes, empty. A case that is not done after a minute has failed: a store that never
/// wakes who waits does not hang the suite.
///
/// # Panics
/// If a case fails: with the names of all that did, after what each had to say.
pub async fn check<F, Fut>(open: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Subject>,
{
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let store = open().await;
        match tokio::spawn(timeout(CASE_MAX, case(store))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => failed.push(format!("{name} (not done after {CASE_MAX:?}: something waits for what never comes)")),
            Err(_) => failed.push((*name).to_owned()),
        }
    }
    assert!(failed.is_empty(), "the contract is broken by {} of {} cases: {failed:?}", failed.len(), CASES.len());
}

/// The case of a store that can be read save for one topic, `bad`: its tails leave that alone, and bring the others. `mend` makes it readable; what
/// it holds then does not matter. Which topic cannot be read, and why, only the backend's own test knows.
///
/// # Panics
/// If the contract is broken.
pub async fn check_unreadable<F: Future<Output = ()>>(store: Subject, bad: &Topic, mend: impl FnOnce() -> F) {
    assert!(store.read(bad, Position::After(EntryId::MIN), Limit::default()).await.is_err(), "it can be read");
    let good: Vec<_> = (0..50).map(|n| topic(&format!("good:{n:02}"))).collect();
    let mut tail = store.tail();
    for topic in std::iter::once(bad).chain(&good) {
        tail.watch(topic, EntryId::MIN);
    }
    let mut errors = 0;
    for round in 0..5 {
        for topic in &good {
            append(&store, topic, round..round + 1).await;
        }
        let (mut seen, deadline) = (BTreeSet::new(), Instant::now() + LONG);
        while seen.len() < good.len() {
            match timeout_at(deadline, tail.next(Limit::default())).await.expect("the others go on") {
                Ok(batches) => {
                    for (topic, batch) in batches {
                        assert_eq!(numbers(&batch), [round]);
                        assert!(seen.insert(topic));
                    }
                }
                Err(error) => {
                    errors += 1;
                    assert!(errors <= 1, "it is told again: {error}");
                }
            }
        }
        assert!(!seen.contains(bad));
    }
    mend().await;
    // Whether it was told before, or is now.
    append(&store, bad, 0..1).await;
    let deadline = Instant::now() + LONG;
    loop {
        match timeout_at(deadline, tail.next(Limit::default())).await.expect("nobody has to tell it to look again") {
            Ok(batches) => {
                assert!(batches.iter().all(|(topic, _)| topic == bad));
                if batches.iter().any(|(_, batch)| !batch.entries.is_empty()) {
                    break;
                }
            }
            Err(error) => {
                errors += 1;
                assert!(errors <= 1, "it is told again: {error}");
            }
        }
    }
}

macro_rules! cases {
    ($($name:ident)*) => {
        /// Every case, by its name.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($name), |store| Box::pin($name(store)))),*];
    };
}

cases! {
    what_is_appended_is_read_in_order_with_increasing_ids
    pages_join_without_gap_or_overlap
    every_byte_and_header_comes_back
    a_topic_that_does_not_exist_is_empty
    topics_do_not_mix
    a_batch_stands_together
    a_key_appends_once
    a_key_counts_within_one_batch_and_before_expect_last
    expect_last_appends_for_one_of_many
    an_oversized_entry_is_refused_and_nothing_of_its_batch_is_kept
    too_many_entries_are_refused
    positions_mean_what_they_say
    trim_by_length_id_and_age_keeps_the_newest
    a_trimmed_position_is_a_gap_and_an_untrimmed_one_is_not
    a_position_ahead_of_the_log_is_a_gap
    ids_at_the_extremes_are_defined
    append_trims_in_the_same_step
    topics_are_listed_in_pages
    a_deleted_topic_is_gone_with_its_groups
    a_topic_made_again_is_another_log
    a_tail_brings_what_is_appended_after_its_position
    a_tail_follows_many_topics_and_forgets_the_unwatched
    a_dropped_next_loses_nothing
    a_tail_reports_what_was_trimmed_under_it
    a_tail_whose_position_is_ahead_says_so_and_goes_on
    watching_a_watched_topic_sets_its_position
    two_tails_do_not_disturb_each_other
    a_tail_serves_busy_topics_in_turn
    whoever_reads_beside_appenders_sees_every_entry_once_and_in_order
    concurrent_appends_lose_and_repeat_nothing
    a_group_delivers_each_entry_to_one_consumer
    a_group_begins_where_it_was_told
    a_group_begins_at_a_time
    what_is_not_acked_comes_again_after_its_visibility
    what_is_due_comes_before_what_is_new_and_the_limit_holds_over_both
    an_acked_entry_never_comes_again
    a_token_that_nobody_was_given_counts_nothing
    a_late_ack_counts
    a_nack_comes_again_after_its_delay
    an_old_token_neither_nacks_nor_extends
    extend_keeps_an_entry
    two_groups_do_not_disturb_each_other
    a_waiting_fetch_wakes_for_an_append
    a_waiting_fetch_wakes_for_what_is_given_back
    a_dropped_fetch_loses_nothing
    pending_tells_who_has_what
    the_idle_are_claimed
    a_removed_consumers_entries_are_anyones
    an_entry_trimmed_while_pending_comes_without_content
    an_entry_trimmed_while_pending_can_be_kept
    a_group_at_a_trimmed_position_goes_on_with_what_is_kept
    lag_counts_what_nobody_has_had
    an_unknown_group_is_an_error
    a_group_is_made_once
    a_dead_letter_says_where_it_comes_from_and_is_written_once
    a_dead_letter_is_written_of_what_is_pending_under_its_token_only
    an_entry_is_acked_or_a_dead_letter_and_never_both
    ten_consumers_handle_every_entry
}

// ---- helpers ---------------------------------------------------------------------------------------------------------

/// So long that a test does not outwait it.
const LONG: Duration = Duration::from_secs(30);
/// So long may a case take.
const CASE_MAX: Duration = Duration::from_secs(60);
/// Who waits is woken by then, on a busy machine too; before [`LONG`], so that a time-out is told from a wake-up.
const PROMPT: Duration = Duration::from_secs(10);
/// So short that a test can wait for it.
const SHORT: Duration = Duration::from_millis(80);

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
    NewEntry::new("test.number", n.to_string().into_bytes())
}

fn number(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

async fn append(store: &Subject, topic: &Topic, numbers: std::ops::Range<u64>) -> Vec<EntryId> {
    let mut ids = Vec::new();
    for n in numbers {
        ids.push(ids_of(&store.append(topic, Append::one(entry(n))).await.unwrap())[0]);
    }
    ids
}

fn ids_of(appended: &[Appended]) -> Vec<EntryId> {
    appended.iter().map(|appended| appended.id).collect()
}

async fn read(store: &Subject, topic: &Topic, from: Position) -> Batch {
    store.read(topic, from, Limit::entries(10_000)).await.unwrap()
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.entries.iter().map(|entry| number(&entry.payload)).collect()
}

/// Numbers of the entries of `topic`, from its start.
async fn kept(store: &Subject, topic: &Topic) -> Vec<u64> {
    numbers(&read(store, topic, Position::Start).await)
}

fn fetched_numbers(fetched: &[Fetched]) -> Vec<u64> {
    fetched.iter().filter_map(|fetched| fetched.entry.as_ref()).map(|entry| number(&entry.payload)).collect()
}

fn tokens(fetched: &[Fetched]) -> Vec<Token> {
    fetched.iter().map(|fetched| fetched.token.clone()).collect()
}

async fn fetch(store: &Subject, group: &Group, consumer: &str, fetch: Fetch) -> Vec<Fetched> {
    store.fetch(group, &name(consumer), fetch).await.unwrap()
}

async fn info(store: &Subject, group: &Group) -> GroupInfo {
    let groups = store.groups(&group.topic).await.unwrap();
    groups.into_iter().find(|info| info.name == group.name).expect("the group is listed")
}

// ---- entries ---------------------------------------------------------------------------------------------------------

async fn what_is_appended_is_read_in_order_with_increasing_ids(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..100).await;
    assert!(ids.is_sorted_by(|one, other| one < other), "{ids:?}");
    assert!(ids[0] > EntryId::MIN);
    let batch = read(&store, &t, Position::Start).await;
    assert_eq!(numbers(&batch), (0..100).collect::<Vec<_>>());
    assert_eq!(batch.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids);
    assert_eq!((batch.next, batch.gap, batch.caught_up), (ids[99], None, true));
}

async fn pages_join_without_gap_or_overlap(store: Subject) {
    let t = topic("t");
    append(&store, &t, 0..50).await;
    for (entries, bytes) in [(7, usize::MAX), (1, usize::MAX), (0, 0), (1_000, 5)] {
        let (mut all, mut at) = (Vec::new(), EntryId::MIN);
        loop {
            let batch = store.read(&t, Position::After(at), Limit { entries, bytes }).await.unwrap();
            assert!(batch.entries.len() <= entries.max(1));
            assert!(!batch.entries.is_empty(), "a page has at least one entry while there are some");
            all.extend(numbers(&batch));
            at = batch.next;
            if batch.caught_up {
                break;
            }
        }
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        let end = store.read(&t, Position::After(at), Limit { entries, bytes }).await.unwrap();
        assert_eq!((end.entries.len(), end.next, end.caught_up), (0, at, true));
    }
}

async fn every_byte_and_header_comes_back(store: Subject) {
    let t = topic("every: {byte}.>?");
    let payload: Vec<u8> = (0..=255).cycle().take(4_000).collect();
    let new =
        NewEntry::new("name with ü", payload.clone()).header("traceparent", "00-ab").header("a", "").header("a", "2 \r\n\0");
    let empty = NewEntry::new("", Vec::new());
    store.append(&t, Append::many(vec![new, empty])).await.unwrap();
    let batch = read(&store, &t, Position::Start).await;
    assert_eq!(batch.entries[0].name, "name with ü");
    assert_eq!(batch.entries[0].payload, payload);
    let headers: Vec<_> = batch.entries[0].headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(headers, [("traceparent", "00-ab"), ("a", ""), ("a", "2 \r\n\0")]);
    assert!(batch.entries[1].payload.is_empty() && batch.entries[1].name.is_empty() && batch.entries[1].headers.is_empty());
}

async fn a_topic_that_does_not_exist_is_empty(store: Subject) {
    let t = topic("nowhere");
    for from in [Position::Start, Position::End, Position::After(EntryId::MIN), Position::Since(0)] {
        assert_eq!(read(&store, &t, from).await, Batch { caught_up: true, ..Batch::default() });
    }
    assert_eq!(store.trim(&t, Trim::Len(0)).await.unwrap(), 0);
    let info = store.info(&t).await.unwrap();
    assert_eq!((info.entries, info.first, info.last, info.groups), (0, None, EntryId::MIN, 0));
    assert!(!store.delete(&t).await.unwrap());
    assert_eq!(store.groups(&t).await.unwrap(), []);
    assert!(store.topics(None, 10).await.unwrap().is_empty());
    assert_eq!(store.append(&t, Append::default()).await.unwrap(), []);
}

async fn topics_do_not_mix(store: Subject) {
    let names = ["a", "A", "a ", "a.b", "a:b", "a/b", "{a}", "a}{", "ä", ">", "?", "a\\", &"x".repeat(Topic::BYTES_MAX)];
    for (n, topic_name) in names.iter().enumerate() {
        append(&store, &topic(topic_name), n as u64..n as u64 + 1).await;
    }
    for (n, topic_name) in names.iter().enumerate() {
        assert_eq!(kept(&store, &topic(topic_name)).await, [n as u64], "in {topic_name:?}");
    }
    let listed: BTreeSet<_> = store.topics(None, 100).await.unwrap().iter().map(|topic| topic.as_str().to_owned()).collect();
    assert_eq!(listed, names.iter().map(|name| (*name).to_owned()).collect());
}

async fn a_batch_stands_together(store: Subject) {
    let t = topic("t");
    let writers = (0..4).map(|writer| {
        let (store, t) = (Arc::clone(&store), t.clone());
        tokio::spawn(async move {
            for batch in 0..20 {
                let first = (writer * 20 + batch) * 5;
                store.append(&t, Append::many((first..first + 5).map(entry).collect())).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let numbers = kept(&store, &t).await;
    assert_eq!(numbers.len(), 400);
    if store.caps().atomic_batches {
        for batch in numbers.chunks(5) {
            assert!(batch[0] % 5 == 0 && batch.is_sorted_by(|one, next| one + 1 == *next), "{batch:?}");
        }
    }
}

async fn a_key_appends_once(store: Subject) {
    let t = topic("t");
    let first = store.append(&t, Append::one(entry(1).dedup("k"))).await.unwrap()[0];
    let again = store.append(&t, Append::one(entry(2).dedup("k"))).await.unwrap()[0];
    let other = store.append(&t, Append::one(entry(3).dedup("K"))).await.unwrap()[0];
    let elsewhere = store.append(&topic("u"), Append::one(entry(4).dedup("k"))).await.unwrap()[0];
    assert_eq!((first.duplicate, again.duplicate, other.duplicate, elsewhere.duplicate), (false, true, false, false));
    assert_eq!(again.id, first.id);
    assert_eq!(kept(&store, &t).await, [1, 3]);
}

async fn a_key_counts_within_one_batch_and_before_expect_last(store: Subject) {
    let t = topic("t");
    let batch = vec![entry(1).dedup("a"), entry(2).dedup("a"), entry(3).dedup("b"), entry(4)];
    let appended = store.append(&t, Append::many(batch)).await.unwrap();
    assert_eq!(appended.iter().map(|appended| appended.duplicate).collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!(appended[1].id, appended[0].id);
    assert_eq!(kept(&store, &t).await, [1, 3, 4]);
    let retried = Append::one(entry(1).dedup("a")).expect_last(EntryId::MIN);
    assert_eq!(store.append(&t, retried).await.unwrap(), [Appended { id: appended[0].id, duplicate: true }]);
}

async fn expect_last_appends_for_one_of_many(store: Subject) {
    let t = topic("t");
    let first = store.append(&t, Append::one(entry(0)).expect_last(EntryId::MIN)).await.unwrap()[0].id;
    let racers = (1..9).map(|n| {
        let (store, t) = (Arc::clone(&store), t.clone());
        tokio::spawn(async move { store.append(&t, Append::one(entry(n)).expect_last(first)).await })
    });
    let mut won = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(StoreError::Conflict { expected, last }) => {
                assert_eq!(expected, first);
                assert_ne!(last, Some(first));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((won, kept(&store, &t).await.len()), (1, 2));
    let stale = store.append(&t, Append::one(entry(9)).expect_last(EntryId::MIN)).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
    let absent = store.append(&topic("u"), Append::one(entry(9)).expect_last(first)).await;
    assert!(matches!(absent, Err(StoreError::Conflict { .. })), "{absent:?}");
    assert!(kept(&store, &topic("u")).await.is_empty());
}

async fn an_oversized_entry_is_refused_and_nothing_of_its_batch_is_kept(store: Subject) {
    let (t, max) = (topic("t"), store.limits().entry_bytes_max);
    let fits = NewEntry::new("", vec![b'1'; max]);
    store.append(&t, Append::one(fits)).await.unwrap();
    let over = NewEntry::new("n", vec![b'1'; max - 2]).header("h", "v");
    match store.append(&t, Append::many(vec![entry(1), over])).await {
        Err(StoreError::TooLarge { index, bytes, max: limit }) => assert_eq!((index, bytes, limit), (1, max + 1, max)),
        other => panic!("{other:?}"),
    }
    let batch = read(&store, &t, Position::Start).await;
    assert_eq!(batch.entries.len(), 1);
    assert_eq!(batch.entries[0].payload.len(), max);
}

async fn too_many_entries_are_refused(store: Subject) {
    let (t, max) = (topic("t"), store.limits().batch_entries_max);
    match store.append(&t, Append::many(vec![entry(1); max + 1])).await {
        Err(StoreError::Batch { entries, max: limit }) => assert_eq!((entries, limit), (max + 1, max)),
        other => panic!("{other:?}"),
    }
    assert!(kept(&store, &t).await.is_empty());
    store.append(&t, Append::many(vec![entry(1); max])).await.unwrap();
    assert_eq!(store.info(&t).await.unwrap().entries, max as u64);
}

async fn positions_mean_what_they_say(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..10).await;
    assert_eq!(numbers(&read(&store, &t, Position::After(ids[3])).await), [4, 5, 6, 7, 8, 9]);
    let end = read(&store, &t, Position::End).await;
    assert_eq!((end.entries.len(), end.next, end.caught_up), (0, ids[9], true));
    assert_eq!(numbers(&read(&store, &t, Position::Since(0)).await).len(), 10);
    if store.caps().times_in_ids {
        let since = read(&store, &t, Position::Since(ids[5].ms())).await;
        assert_eq!(since.entries[0].id, *ids.iter().find(|id| id.ms() >= ids[5].ms()).unwrap());
        let later = read(&store, &t, Position::Since(ids[9].ms() + 1)).await;
        assert_eq!((later.entries.len(), later.gap), (0, None));
        // Reading on from there brings what comes, whatever its time is.
        append(&store, &t, 10..11).await;
        assert_eq!(numbers(&read(&store, &t, Position::After(later.next)).await), [10]);
    }
}

async fn trim_by_length_id_and_age_keeps_the_newest(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..10).await;
    assert_eq!(store.trim(&t, Trim::Len(100)).await.unwrap(), 0);
    assert_eq!(store.trim(&t, Trim::Len(8)).await.unwrap(), 2);
    assert_eq!(store.trim(&t, Trim::Before(ids[4])).await.unwrap(), 2);
    assert_eq!(store.trim(&t, Trim::Before(ids[1])).await.unwrap(), 0);
    assert_eq!(store.trim(&t, Trim::Age(Duration::from_secs(3_600))).await.unwrap(), 0);
    assert_eq!(store.trim(&t, Trim::Age(Duration::MAX)).await.unwrap(), 0);
    assert_eq!(kept(&store, &t).await, [4, 5, 6, 7, 8, 9]);
    let info = store.info(&t).await.unwrap();
    assert_eq!((info.entries, info.first, info.last), (6, Some(ids[4]), ids[9]));
    assert_eq!(store.trim(&t, Trim::Len(0)).await.unwrap(), 6);
    let info = store.info(&t).await.unwrap();
    assert_eq!((info.entries, info.first, info.last), (0, None, ids[9]));
    let next = append(&store, &t, 10..11).await;
    assert!(next[0] > ids[9], "ids go on after a trim of all");
    tokio::time::sleep(SHORT).await;
    assert_eq!(store.trim(&t, Trim::Age(Duration::from_millis(1))).await.unwrap(), 1);
}

async fn a_trimmed_position_is_a_gap_and_an_untrimmed_one_is_not(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..10).await;
    store.trim(&t, Trim::Before(ids[5])).await.unwrap();
    for after in [EntryId::MIN, ids[0], ids[3]] {
        let batch = read(&store, &t, Position::After(after)).await;
        let gap = batch.gap.as_ref().expect("entries after it are gone");
        assert_eq!((gap.asked_after, gap.resumes_at, gap.cause), (after, Some(ids[5]), GapCause::Trimmed));
        assert_eq!(gap.certain, store.caps().certain_gaps);
        assert_eq!(numbers(&batch), [5, 6, 7, 8, 9]);
        let on = read(&store, &t, Position::After(batch.next)).await;
        assert_eq!((on.gap, on.entries.len()), (None, 0), "a gap is told once");
    }
    // Everything after the newest trimmed entry is there.
    let exact = read(&store, &t, Position::After(ids[4])).await;
    assert_eq!(numbers(&exact), [5, 6, 7, 8, 9]);
    if store.caps().certain_gaps {
        assert_eq!(exact.gap, None);
    }
    for after in [ids[5], ids[9]] {
        assert_eq!(read(&store, &t, Position::After(after)).await.gap, None);
    }
    assert_eq!(read(&store, &t, Position::Start).await.gap, None, "the start is what is kept");
    store.trim(&t, Trim::Len(0)).await.unwrap();
    let all_gone = read(&store, &t, Position::After(ids[7])).await;
    let gap = all_gone.gap.as_ref().expect("8 and 9 are gone");
    assert_eq!((gap.asked_after, gap.resumes_at, gap.cause), (ids[7], None, GapCause::Trimmed));
    assert_eq!((all_gone.entries.len(), all_gone.caught_up), (0, true));
    let on = read(&store, &t, Position::After(all_gone.next)).await;
    assert_eq!((on.gap, on.caught_up), (None, true), "a gap is told once");
    assert_eq!(read(&store, &t, Position::After(ids[9])).await.gap, None);
}

async fn a_position_ahead_of_the_log_is_a_gap(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..3).await;
    for ahead in [ids[2].next().unwrap(), EntryId::MAX] {
        let batch = read(&store, &t, Position::After(ahead)).await;
        let gap = batch.gap.as_ref().expect("it is another log");
        assert_eq!((gap.asked_after, gap.resumes_at, gap.cause), (ahead, Some(ids[0]), GapCause::Ahead));
        assert_eq!(numbers(&batch), [0, 1, 2]);
        assert_eq!(read(&store, &t, Position::After(batch.next)).await.gap, None);
    }
    let lost = read(&store, &topic("lost"), Position::After(ids[2])).await;
    let gap = lost.gap.as_ref().expect("the whole log is gone");
    assert_eq!((gap.cause, gap.resumes_at), (GapCause::Ahead, None));
    append(&store, &topic("lost"), 7..8).await;
    let on = read(&store, &topic("lost"), Position::After(lost.next)).await;
    assert_eq!((numbers(&on), on.gap), (vec![7], None));
}

async fn ids_at_the_extremes_are_defined(store: Subject) {
    let t = topic("t");
    assert_eq!(store.trim(&t, Trim::Before(EntryId::MAX)).await.unwrap(), 0);
    append(&store, &t, 0..3).await;
    assert_eq!(store.trim(&t, Trim::Before(EntryId::MIN)).await.unwrap(), 0);
    assert_eq!(store.trim(&t, Trim::Len(u64::MAX)).await.unwrap(), 0);
    assert_eq!(numbers(&read(&store, &t, Position::After(EntryId::MIN)).await), [0, 1, 2]);
    assert_eq!(numbers(&read(&store, &t, Position::After(EntryId::new(0, u64::MAX).prev().unwrap())).await).len(), 3);
    assert_eq!(read(&store, &t, Position::Since(u64::MAX)).await.entries, []);
    let conflict = store.append(&t, Append::one(entry(9)).expect_last(EntryId::MAX)).await;
    assert!(matches!(conflict, Err(StoreError::Conflict { .. })), "{conflict:?}");
    let g = group("t");
    store.create_group(&g, Position::After(EntryId::MAX)).await.unwrap();
    assert_eq!(
        fetch(&store, &g, "c", Fetch::entries(10)).await,
        [],
        "a group cannot begin ahead of the log: it begins at its end"
    );
    append(&store, &t, 3..4).await;
    assert_eq!(fetched_numbers(&fetch(&store, &g, "c", Fetch::entries(10).wait(LONG)).await), [3]);
    assert_eq!(store.trim(&t, Trim::Before(EntryId::MAX)).await.unwrap(), 4);
}

async fn append_trims_in_the_same_step(store: Subject) {
    let t = topic("t");
    for n in 0..20 {
        store.append(&t, Append::one(entry(n)).trim(Trim::Len(5))).await.unwrap();
        assert!(store.info(&t).await.unwrap().entries <= 5);
    }
    assert_eq!(kept(&store, &t).await, [15, 16, 17, 18, 19]);
    store.append(&t, Append::many((20..30).map(entry).collect()).trim(Trim::Len(3))).await.unwrap();
    assert_eq!(kept(&store, &t).await, [27, 28, 29]);
}

async fn topics_are_listed_in_pages(store: Subject) {
    let names: Vec<_> = (0..25).map(|n| format!("topic:{n:02}")).collect();
    for name in names.iter().rev() {
        append(&store, &topic(name), 0..1).await;
    }
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.topics(after.as_ref(), 10).await.unwrap();
        assert!(page.len() <= 10);
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        all.extend(page.iter().map(|topic| topic.as_str().to_owned()));
    }
    assert_eq!(all, names);
}

async fn a_deleted_topic_is_gone_with_its_groups(store: Subject) {
    let (t, g) = (topic("t"), group("t"));
    store.append(&t, Append::one(entry(1).dedup("k"))).await.unwrap();
    store.create_group(&g, Position::Start).await.unwrap();
    assert!(store.delete(&t).await.unwrap());
    assert!(store.topics(None, 10).await.unwrap().is_empty());
    assert!(kept(&store, &t).await.is_empty());
    assert_eq!(store.groups(&t).await.unwrap(), []);
    assert!(matches!(store.fetch(&g, &name("c"), Fetch::entries(1)).await, Err(StoreError::NoGroup(of)) if of == g));
    let anew = store.append(&t, Append::one(entry(2).dedup("k"))).await.unwrap();
    assert!(!anew[0].duplicate, "its keys are gone, too");
    assert_eq!(kept(&store, &t).await, [2]);
}

async fn a_topic_made_again_is_another_log(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..5).await;
    assert!(store.delete(&t).await.unwrap());
    let gone = read(&store, &t, Position::After(ids[1])).await;
    assert_eq!(gone.gap.map(|gap| (gap.cause, gap.resumes_at)), Some((GapCause::Ahead, None)));
    // Made again by a group: it has had no entry.
    store.create_group(&group("t"), Position::Start).await.unwrap();
    assert_eq!(store.info(&t).await.unwrap().last, EntryId::MIN);
    let anew = store.append(&t, Append::one(entry(7)).expect_last(EntryId::MIN)).await.unwrap()[0].id;
    for all in [Position::Start, Position::After(EntryId::MIN)] {
        let batch = read(&store, &t, all).await;
        assert_eq!((numbers(&batch), batch.gap), (vec![7], None), "{all:?}");
    }
    assert_eq!(fetched_numbers(&fetch(&store, &group("t"), "c", Fetch::entries(9).wait(LONG)).await), [7]);
    assert_eq!(info(&store, &group("t")).await.lag, Some(0));
    if !store.caps().deletes_known {
        return;
    }
    assert!(anew > ids[4]);
    for old in [ids[0], ids[1], ids[3]] {
        let batch = read(&store, &t, Position::After(old)).await;
        let gap = batch.gap.as_ref().expect("what came after it was deleted");
        assert_eq!((gap.asked_after, gap.resumes_at, gap.cause), (old, Some(anew), GapCause::Trimmed));
        assert_eq!(numbers(&batch), [7]);
    }
    assert_eq!(read(&store, &t, Position::After(anew)).await.gap, None);
    let fresh = store.append(&topic("fresh"), Append::one(entry(1)).expect_last(EntryId::MIN)).await;
    assert!(fresh.is_ok(), "a topic that never was has no last id: {fresh:?}");
    assert_eq!(store.trim(&t, Trim::Len(0)).await.unwrap(), 1);
    assert!(read(&store, &t, Position::After(EntryId::MIN)).await.gap.is_some(), "it had an entry that is gone");
}

// ---- tail ------------------------------------------------------------------------------------------------------------

async fn a_tail_brings_what_is_appended_after_its_position(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..5).await;
    let mut tail = store.tail();
    tail.watch(&t, ids[2]);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        for (of, batch) in tail.next(Limit::default()).await.unwrap() {
            assert_eq!((&of, &batch.gap), (&t, &None));
            seen.extend(numbers(&batch));
        }
    }
    assert_eq!(seen, [3, 4]);
    let appender = {
        let (store, t) = (Arc::clone(&store), t.clone());
        tokio::spawn(async move { append(&store, &t, 5..200).await })
    };
    while seen.len() < 197 {
        for (_, batch) in tail.next(Limit::entries(10)).await.unwrap() {
            assert!(batch.entries.len() <= 10);
            seen.extend(numbers(&batch));
        }
    }
    assert_eq!(seen, (3..200).collect::<Vec<_>>());
    appender.await.unwrap();
}

async fn a_tail_follows_many_topics_and_forgets_the_unwatched(store: Subject) {
    let topics: Vec<_> = (0..50).map(|n| topic(&format!("many:{n}"))).collect();
    let mut tail = store.tail();
    for topic in &topics {
        tail.watch(topic, EntryId::MIN);
    }
    tail.unwatch(&topics[7]);
    for (n, topic) in topics.iter().enumerate() {
        append(&store, topic, n as u64..n as u64 + 1).await;
    }
    let mut seen = BTreeMap::new();
    while seen.len() < 49 {
        for (topic, batch) in tail.next(Limit::default()).await.unwrap() {
            assert!(seen.insert(topic, numbers(&batch)).is_none());
        }
    }
    assert!(!seen.contains_key(&topics[7]));
    // Watched again at a position, it brings what is after it.
    tail.watch(&topics[7], EntryId::MIN);
    let again = tail.next(Limit::default()).await.unwrap();
    assert_eq!((&again[0].0, numbers(&again[0].1)), (&topics[7], vec![7]));
}

async fn a_dropped_next_loses_nothing(store: Subject) {
    let t = topic("t");
    let mut tail = store.tail();
    tail.watch(&t, EntryId::MIN);
    let appender = {
        let (store, t) = (Arc::clone(&store), t.clone());
        tokio::spawn(async move { append(&store, &t, 0..100).await })
    };
    let (mut seen, mut patience) = (Vec::new(), 0);
    while seen.len() < 100 {
        // Sometimes too short, sometimes not.
        patience = (patience + 1) % 5;
        let next = tokio::time::timeout(Duration::from_micros(200 * patience), tail.next(Limit::entries(3)));
        if let Ok(batches) = next.await {
            seen.extend(batches.unwrap().iter().flat_map(|(_, batch)| numbers(batch)));
        } else if appender.is_finished() {
            seen.extend(tail.next(Limit::entries(3)).await.unwrap().iter().flat_map(|(_, batch)| numbers(batch)));
        }
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

async fn a_tail_reports_what_was_trimmed_under_it(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..10).await;
    store.trim(&t, Trim::Before(ids[6])).await.unwrap();
    let mut tail = store.tail();
    tail.watch(&t, ids[2]);
    let batches = tail.next(Limit::default()).await.unwrap();
    let (_, batch) = &batches[0];
    assert_eq!(batch.gap.as_ref().map(|gap| gap.asked_after), Some(ids[2]));
    assert_eq!(numbers(batch), [6, 7, 8, 9]);
}

async fn a_tail_whose_position_is_ahead_says_so_and_goes_on(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..3).await;
    let mut tail = store.tail();
    for ahead in [ids[2].next().unwrap(), EntryId::MAX] {
        tail.watch(&t, ahead);
        let batches = tail.next(Limit::default()).await.unwrap();
        let gap = batches[0].1.gap.as_ref().expect("it is another log");
        assert_eq!((gap.asked_after, gap.cause, gap.resumes_at), (ahead, GapCause::Ahead, Some(ids[0])));
        assert_eq!(numbers(&batches[0].1), [0, 1, 2]);
    }
    append(&store, &t, 3..4).await;
    let on = tail.next(Limit::default()).await.unwrap();
    assert_eq!((numbers(&on[0].1), &on[0].1.gap), (vec![3], &None), "a gap is told once");
}

async fn watching_a_watched_topic_sets_its_position(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..5).await;
    let mut tail = store.tail();
    for (after, expected) in [(ids[3], vec![4]), (ids[0], vec![1, 2, 3, 4]), (ids[2], vec![3, 4])] {
        tail.watch(&t, after);
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let batches = timeout(PROMPT, tail.next(Limit::default())).await.expect("there is something after it").unwrap();
            seen.extend(batches.iter().flat_map(|(_, batch)| numbers(batch)));
        }
        assert_eq!(seen, expected);
    }
    // Ahead, over what it has not brought yet.
    append(&store, &t, 5..8).await;
    tail.watch(&t, store.info(&t).await.unwrap().last);
    append(&store, &t, 8..9).await;
    let on = tail.next(Limit::default()).await.unwrap();
    assert_eq!(numbers(&on[0].1), [8]);
}

async fn two_tails_do_not_disturb_each_other(store: Subject) {
    let t = topic("t");
    let (mut one, mut other) = (store.tail(), store.tail());
    one.watch(&t, EntryId::MIN);
    other.watch(&t, EntryId::MIN);
    append(&store, &t, 0..20).await;
    for tail in [&mut one, &mut other] {
        let mut seen = Vec::new();
        while seen.len() < 20 {
            let batches = timeout(PROMPT, tail.next(Limit::entries(7))).await.expect("each has them all").unwrap();
            seen.extend(batches.iter().flat_map(|(_, batch)| numbers(batch)));
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
    drop(one);
    append(&store, &t, 20..21).await;
    assert_eq!(numbers(&timeout(PROMPT, other.next(Limit::default())).await.expect("it goes on").unwrap()[0].1), [20]);
}

async fn a_tail_serves_busy_topics_in_turn(store: Subject) {
    let topics: Vec<_> = (0..300).map(|n| topic(&format!("busy:{n:03}"))).collect();
    let mut tail = store.tail();
    for topic in &topics {
        store.append(topic, Append::many((0..40).map(entry).collect())).await.unwrap();
        tail.watch(topic, EntryId::MIN);
    }
    let mut served: BTreeMap<Topic, u64> = BTreeMap::new();
    while served.len() < topics.len() {
        for (topic, batch) in tail.next(Limit::entries(1)).await.unwrap() {
            let turns = served.entry(topic).or_default();
            assert_eq!(numbers(&batch), [*turns]);
            *turns += 1;
            assert!(*turns < 20, "one has its twentieth turn, and {} have had none", topics.len() - served.len());
        }
    }
}

async fn whoever_reads_beside_appenders_sees_every_entry_once_and_in_order(store: Subject) {
    let g = group("t");
    let t = g.topic.clone();
    store.create_group(&g, Position::Start).await.unwrap();
    let mut tail = store.tail();
    tail.watch(&t, EntryId::MIN);
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let (store, t) = (Arc::clone(&store), t.clone());
            tokio::spawn(async move {
                for n in 0..40 {
                    store.append(&t, Append::one(entry(writer * 40 + n))).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let pager = {
        let (store, t) = (Arc::clone(&store), t.clone());
        tokio::spawn(async move {
            let (mut seen, mut at, mut idle) = (Vec::new(), EntryId::MIN, 0);
            while seen.len() < 320 && idle < 200 {
                let batch = store.read(&t, Position::After(at), Limit::entries(16)).await.unwrap();
                assert_eq!(batch.gap, None);
                idle = if batch.entries.is_empty() { idle + 1 } else { 0 };
                at = batch.next;
                seen.extend(batch.entries.iter().map(|entry| entry.id));
                if idle > 0 {
                    sleep(Duration::from_millis(1 + idle / 4)).await;
                }
                tokio::task::yield_now().await;
            }
            seen
        })
    };
    let tailer = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 320 {
            let Ok(batches) = timeout(PROMPT / 2, tail.next(Limit::entries(16))).await else { break };
            seen.extend(batches.unwrap().iter().flat_map(|(_, batch)| batch.entries.iter().map(|entry| entry.id)));
        }
        seen
    });
    let consumer = {
        let (store, g) = (Arc::clone(&store), g.clone());
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 320 {
                let fetched = fetch(&store, &g, "c", Fetch::entries(16).visibility(LONG).wait(PROMPT / 2)).await;
                if fetched.is_empty() {
                    break;
                }
                assert_eq!(store.ack(&g, tokens(&fetched)).await.unwrap(), fetched.len() as u64);
                seen.extend(fetched.iter().map(|fetched| fetched.id));
            }
            seen
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    let all: Vec<_> = read(&store, &t, Position::Start).await.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(all.len(), 320);
    for (who, seen) in [("a reader", pager), ("a tail", tailer), ("a group", consumer)] {
        let seen = seen.await.unwrap();
        assert_eq!(seen.len(), all.len(), "{who} saw so many of all; an id that is visible after a later one is lost");
        assert!(seen == all, "{who} saw them in another order, or one twice");
    }
}

async fn concurrent_appends_lose_and_repeat_nothing(store: Subject) {
    let writers = (0..8).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..50 {
                let t = topic(if n % 2 == 0 { "even" } else { "odd" });
                store.append(&t, Append::one(entry(writer * 50 + n))).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    for (name, rest) in [("even", 0), ("odd", 1)] {
        let batch = read(&store, &topic(name), Position::Start).await;
        assert!(batch.entries.is_sorted_by(|one, other| one.id < other.id));
        let numbers = numbers(&batch);
        assert_eq!(numbers.len(), 200);
        for writer in 0..8 {
            let own: Vec<_> = numbers.iter().filter(|n| *n / 50 == writer).collect();
            assert!(own.is_sorted(), "a writer's own order is kept");
        }
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 200);
        assert!(numbers.iter().all(|n| n % 2 == rest));
    }
}

// ---- groups ----------------------------------------------------------------------------------------------------------

async fn a_group_delivers_each_entry_to_one_consumer(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..10).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let one = fetch(&store, &g, "one", Fetch::entries(4).wait(LONG)).await;
    let other = fetch(&store, &g, "other", Fetch::entries(100).wait(LONG)).await;
    assert_eq!(fetched_numbers(&one), [0, 1, 2, 3]);
    assert_eq!(fetched_numbers(&other), [4, 5, 6, 7, 8, 9]);
    assert!(one.iter().chain(&other).all(|fetched| fetched.attempt == 1 && fetched.entry.as_ref().unwrap().id == fetched.id));
    assert_eq!(fetch(&store, &g, "one", Fetch::entries(4)).await, []);
    assert_eq!(info(&store, &g).await.pending, 10);
    assert_eq!(store.ack(&g, tokens(&one)).await.unwrap(), 4);
    assert_eq!(info(&store, &g).await.pending, 6);
}

async fn a_group_begins_where_it_was_told(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..4).await;
    for (name_of, from, first) in [
        ("start", Position::Start, 0),
        ("after", Position::After(ids[1]), 2),
        ("min", Position::After(EntryId::MIN), 0),
        ("end", Position::End, 4),
    ] {
        let g = Group::new(t.clone(), name(name_of));
        store.create_group(&g, from).await.unwrap();
        if name_of == "end" {
            append(&store, &t, 4..5).await;
        }
        let fetched = fetch(&store, &g, "c", Fetch::entries(1).wait(LONG)).await;
        assert_eq!(fetched_numbers(&fetched), [first], "{name_of}");
    }
    let early = Group::new(topic("later"), name("early"));
    store.create_group(&early, Position::End).await.unwrap();
    append(&store, &early.topic, 0..1).await;
    assert_eq!(fetched_numbers(&fetch(&store, &early, "c", Fetch::entries(1).wait(LONG)).await), [0]);
}

async fn a_group_begins_at_a_time(store: Subject) {
    let t = topic("t");
    let ids = append(&store, &t, 0..3).await;
    // A millisecond of its own.
    sleep(Duration::from_millis(5)).await;
    let later = append(&store, &t, 3..6).await;
    let all = Group::new(t.clone(), name("all"));
    store.create_group(&all, Position::Since(0)).await.unwrap();
    assert_eq!(fetched_numbers(&fetch(&store, &all, "c", Fetch::entries(1).wait(LONG)).await), [0]);
    if !store.caps().times_in_ids {
        return;
    }
    assert!(later[0].ms() > ids[2].ms());
    let some = Group::new(t.clone(), name("some"));
    store.create_group(&some, Position::Since(later[0].ms())).await.unwrap();
    assert_eq!(fetched_numbers(&fetch(&store, &some, "c", Fetch::entries(9).wait(LONG)).await), [3, 4, 5]);
    // A time to come: the group begins at the end, and has what comes, whatever its time is.
    let none = Group::new(t.clone(), name("none"));
    store.create_group(&none, Position::Since(later[2].ms() + 3_600_000)).await.unwrap();
    assert_eq!(fetch(&store, &none, "c", Fetch::entries(9)).await, []);
    append(&store, &t, 6..7).await;
    assert_eq!(fetched_numbers(&fetch(&store, &none, "c", Fetch::entries(9).wait(LONG)).await), [6]);
}

async fn what_is_due_comes_before_what_is_new_and_the_limit_holds_over_both(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..6).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let brief = Duration::from_secs(1);
    let first = fetch(&store, &g, "one", Fetch::entries(3).visibility(brief).wait(LONG)).await;
    assert_eq!(fetched_numbers(&first), [0, 1, 2]);
    sleep(brief + SHORT * 2).await;
    // An engine may give less than is there at once, and never more than was asked for.
    let mut again = Vec::new();
    for upto in [2, 5] {
        while again.len() < upto {
            let fetched = fetch(&store, &g, "two", Fetch::entries(upto - again.len()).visibility(LONG).wait(LONG)).await;
            assert!(!fetched.is_empty() && again.len() + fetched.len() <= upto, "{} more than {upto}", fetched.len());
            again.extend(fetched);
        }
    }
    assert_eq!(fetched_numbers(&again), [0, 1, 2, 3, 4]);
    assert_eq!(again.iter().map(|fetched| fetched.attempt).collect::<Vec<_>>(), [2, 2, 2, 1, 1]);
}

async fn a_token_that_nobody_was_given_counts_nothing(store: Subject) {
    let g = group("t");
    let ids = append(&store, &g.topic, 0..3).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let first = fetch(&store, &g, "c", Fetch::entries(1).visibility(LONG).wait(LONG)).await;
    for id in [ids[2], ids[2].next().unwrap(), EntryId::MIN, EntryId::MAX] {
        let forged = || vec![Token { id, attempt: 1, handle: None }];
        assert_eq!(store.ack(&g, forged()).await.unwrap(), 0, "{id} is not pending");
        assert_eq!(store.nack(&g, forged(), Duration::ZERO).await.unwrap(), 0, "{id} is not pending");
        assert_eq!(store.extend(&g, forged(), LONG).await.unwrap(), 0, "{id} is not pending");
    }
    assert_eq!(info(&store, &g).await.pending, 1);
    let rest = fetch(&store, &g, "c", Fetch::entries(9).visibility(LONG).wait(LONG)).await;
    assert_eq!(fetched_numbers(&rest), [1, 2], "an entry that was acked before it was delivered is delivered");
    assert_eq!(store.ack(&g, tokens(&first)).await.unwrap(), 1);
}

async fn what_is_not_acked_comes_again_after_its_visibility(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..3).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let short = Fetch::entries(10).visibility(Duration::from_millis(500));
    let first = fetch(&store, &g, "one", short.wait(LONG)).await;
    assert_eq!(fetch(&store, &g, "other", short).await, [], "not before its time");
    let mut again = Vec::new();
    while again.len() < 3 {
        let fetched = fetch(&store, &g, "other", short.visibility(LONG).wait(LONG)).await;
        assert!(!fetched.is_empty(), "a waiting fetch wakes for what is due");
        again.extend(fetched);
    }
    assert_eq!(fetched_numbers(&again), [0, 1, 2]);
    assert!(again.iter().all(|fetched| fetched.attempt == 2));
    assert_eq!(store.ack(&g, tokens(&again)).await.unwrap(), 3);
    assert_eq!(store.ack(&g, tokens(&first)).await.unwrap(), 0);
    assert_eq!(info(&store, &g).await.pending, 0);
}

async fn an_acked_entry_never_comes_again(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..3).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let fetched = fetch(&store, &g, "one", Fetch::entries(10).visibility(SHORT).wait(LONG)).await;
    assert_eq!(store.ack(&g, tokens(&fetched[..2])).await.unwrap(), 2);
    assert_eq!(store.ack(&g, tokens(&fetched[..2])).await.unwrap(), 0, "once");
    let again = fetch(&store, &g, "one", Fetch::entries(10).visibility(LONG).wait(LONG)).await;
    assert_eq!(fetched_numbers(&again), [2]);
    assert_eq!(store.ack(&g, tokens(&again)).await.unwrap(), 1);
    assert_eq!(fetch(&store, &g, "one", Fetch::entries(10).wait(SHORT)).await, []);
}

async fn a_late_ack_counts(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..1).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let slow = fetch(&store, &g, "slow", Fetch::entries(1).visibility(SHORT).wait(LONG)).await;
    let quick = fetch(&store, &g, "quick", Fetch::entries(1).visibility(SHORT).wait(LONG)).await;
    assert_eq!(fetched_numbers(&quick), [0]);
    assert_eq!(store.ack(&g, tokens(&slow)).await.unwrap(), 1, "the entry was handled, whoever has it by now");
    assert_eq!(info(&store, &g).await.pending, 0);
    assert_eq!(fetch(&store, &g, "quick", Fetch::entries(1).wait(SHORT * 2)).await, []);
}

async fn a_nack_comes_again_after_its_delay(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..2).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let fetched = fetch(&store, &g, "one", Fetch::entries(2).visibility(LONG).wait(LONG)).await;
    assert_eq!(store.nack(&g, tokens(&fetched[..1]), Duration::ZERO).await.unwrap(), 1);
    assert_eq!(store.nack(&g, tokens(&fetched[1..]), Duration::from_millis(400)).await.unwrap(), 1);
    let at_once = fetch(&store, &g, "other", Fetch::entries(2).visibility(LONG).wait(LONG)).await;
    assert_eq!((fetched_numbers(&at_once), at_once[0].attempt), (vec![0], 2));
    assert_eq!(fetch(&store, &g, "other", Fetch::entries(2)).await, [], "not before its time");
    let delayed = fetch(&store, &g, "other", Fetch::entries(2).visibility(LONG).wait(LONG)).await;
    assert_eq!((fetched_numbers(&delayed), delayed[0].attempt), (vec![1], 2));
    // Longer than the visibility, too.
    if store.caps().visibility_per_fetch {
        assert_eq!(store.nack(&g, tokens(&delayed), LONG).await.unwrap(), 1);
        assert_eq!(fetch(&store, &g, "other", Fetch::entries(2).visibility(SHORT).wait(SHORT * 3)).await, []);
    }
}

async fn an_old_token_neither_nacks_nor_extends(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..1).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let old = fetch(&store, &g, "slow", Fetch::entries(1).visibility(SHORT).wait(LONG)).await;
    let new = fetch(&store, &g, "quick", Fetch::entries(1).visibility(LONG).wait(LONG)).await;
    assert_eq!(new[0].attempt, 2);
    if store.caps().visibility_per_fetch {
        assert_eq!(store.nack(&g, tokens(&old), Duration::ZERO).await.unwrap(), 0);
        assert_eq!(store.extend(&g, tokens(&old), Duration::ZERO).await.unwrap(), 0);
        assert_eq!(fetch(&store, &g, "third", Fetch::entries(1).wait(SHORT)).await, []);
    }
    assert_eq!(store.ack(&g, tokens(&new)).await.unwrap(), 1);
    assert_eq!(store.nack(&g, tokens(&new), Duration::ZERO).await.unwrap_or(0), 0, "an acked one is not given back");
    assert_eq!(fetch(&store, &g, "third", Fetch::entries(1).wait(SHORT)).await, []);
}

async fn extend_keeps_an_entry(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..1).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let brief = Duration::from_millis(400);
    let mine = fetch(&store, &g, "one", Fetch::entries(1).visibility(brief).wait(LONG)).await;
    for _ in 0..4 {
        assert_eq!(store.extend(&g, tokens(&mine), brief).await.unwrap(), 1);
        assert_eq!(fetch(&store, &g, "other", Fetch::entries(1).wait(brief / 2)).await, []);
    }
    assert_eq!(store.ack(&g, tokens(&mine)).await.unwrap(), 1);
}

async fn two_groups_do_not_disturb_each_other(store: Subject) {
    let t = topic("t");
    append(&store, &t, 0..3).await;
    let (one, other) = (Group::new(t.clone(), name("one")), Group::new(t.clone(), name("other")));
    for group in [&one, &other] {
        store.create_group(group, Position::Start).await.unwrap();
    }
    let of_one = fetch(&store, &one, "c", Fetch::entries(3).wait(LONG)).await;
    store.ack(&one, tokens(&of_one)).await.unwrap();
    let of_other = fetch(&store, &other, "c", Fetch::entries(3).wait(LONG)).await;
    assert_eq!(fetched_numbers(&of_other), [0, 1, 2]);
    assert_eq!((info(&store, &one).await.pending, info(&store, &other).await.pending), (0, 3));
    let names: Vec<_> = store.groups(&t).await.unwrap().iter().map(|info| info.name.as_str().to_owned()).collect();
    assert_eq!(names, ["one", "other"]);
    assert!(store.delete_group(&one).await.unwrap());
    assert!(!store.delete_group(&one).await.unwrap());
    assert_eq!(store.ack(&other, tokens(&of_other)).await.unwrap(), 3);
    assert_eq!(store.info(&t).await.unwrap().groups, 1);
}

async fn a_waiting_fetch_wakes_for_an_append(store: Subject) {
    let g = group("t");
    store.create_group(&g, Position::Start).await.unwrap();
    let began = Instant::now();
    assert_eq!(fetch(&store, &g, "one", Fetch::entries(1).wait(SHORT * 3)).await, [], "empty after its wait");
    assert!(began.elapsed() >= SHORT * 2, "it waited for {:?} instead of {:?}", began.elapsed(), SHORT * 3);
    let waiting = {
        let (store, g) = (Arc::clone(&store), g.clone());
        tokio::spawn(async move { fetch(&store, &g, "one", Fetch::entries(5).wait(LONG)).await })
    };
    // In its wait by now, most of the time.
    sleep(SHORT).await;
    append(&store, &g.topic, 0..1).await;
    let woken = timeout(PROMPT, waiting).await.expect("an append wakes a waiting fetch").unwrap();
    assert_eq!(fetched_numbers(&woken), [0]);
}

async fn a_waiting_fetch_wakes_for_what_is_given_back(store: Subject) {
    let caps = store.caps();
    let ways = [("nack", true), ("remove", caps.pending), ("shorten", caps.visibility_per_fetch)];
    for (way, _) in ways.into_iter().filter(|(_, can)| *can) {
        let g = group(way);
        append(&store, &g.topic, 0..1).await;
        store.create_group(&g, Position::Start).await.unwrap();
        let held = fetch(&store, &g, "one", Fetch::entries(1).visibility(LONG).wait(LONG)).await;
        let waiting = {
            let (store, g) = (Arc::clone(&store), g.clone());
            tokio::spawn(async move { fetch(&store, &g, "other", Fetch::entries(1).visibility(LONG).wait(LONG)).await })
        };
        sleep(SHORT).await;
        match way {
            "nack" => assert_eq!(store.nack(&g, tokens(&held), Duration::ZERO).await.unwrap(), 1),
            "remove" => assert_eq!(store.remove_consumer(&g, &name("one")).await.unwrap(), 1),
            _ => assert_eq!(store.extend(&g, tokens(&held), Duration::ZERO).await.unwrap(), 1),
        }
        let woken = timeout(PROMPT, waiting).await;
        let woken = woken.unwrap_or_else(|_| panic!("{way}: a waiting fetch is woken")).unwrap();
        assert_eq!((fetched_numbers(&woken), woken[0].attempt), (vec![0], 2), "{way}");
    }
}

async fn a_dropped_fetch_loses_nothing(store: Subject) {
    let g = group("t");
    store.create_group(&g, Position::Start).await.unwrap();
    let appender = {
        let (store, g) = (Arc::clone(&store), g.clone());
        tokio::spawn(async move { append(&store, &g.topic, 0..50).await })
    };
    let (mut handled, mut patience) = (BTreeSet::new(), 0);
    let brief = Fetch::entries(3).visibility(Duration::from_millis(300)).wait(LONG);
    while handled.len() < 50 {
        // Sometimes too short, sometimes not. What was delivered to a dropped fetch comes again.
        patience = (patience + 1) % 6;
        let max = if patience == 0 { PROMPT } else { Duration::from_micros(100 * patience * patience) };
        if let Ok(fetched) = timeout(max, fetch(&store, &g, "c", brief)).await {
            handled.extend(fetched_numbers(&fetched));
            store.ack(&g, tokens(&fetched)).await.unwrap();
        }
    }
    appender.await.unwrap();
    assert_eq!(handled, (0..50).collect());
    let now = info(&store, &g).await;
    assert_eq!((now.pending, now.lag), (0, Some(0)));
}

async fn pending_tells_who_has_what(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..6).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let one = fetch(&store, &g, "one", Fetch::entries(2).wait(LONG)).await;
    let other = fetch(&store, &g, "other", Fetch::entries(3).wait(LONG)).await;
    assert_eq!(info(&store, &g).await.pending, 5);
    if !store.caps().pending {
        assert!(matches!(store.pending(&g, PendingQuery::first(1)).await, Err(StoreError::Unsupported { .. })));
        return;
    }
    let all = store.pending(&g, PendingQuery::first(100)).await.unwrap();
    assert_eq!(
        all.iter().map(|pending| pending.id).collect::<Vec<_>>(),
        one.iter().chain(&other).map(|of| of.id).collect::<Vec<_>>()
    );
    assert!(all.iter().all(|pending| pending.attempt == 1 && pending.idle < LONG));
    let owners: Vec<_> = all.iter().map(|pending| pending.consumer.as_str()).collect();
    assert_eq!(owners, ["one", "one", "other", "other", "other"]);
    let query = PendingQuery { consumer: Some(name("other")), after: other[0].id, ..PendingQuery::first(1) };
    let some = store.pending(&g, query).await.unwrap();
    assert_eq!(some.iter().map(|pending| pending.id).collect::<Vec<_>>(), [other[1].id]);
    let none = PendingQuery { idle_min: LONG, ..PendingQuery::first(100) };
    assert_eq!(store.pending(&g, none).await.unwrap(), []);
    fetch(&store, &g, "third", Fetch::entries(100)).await;
    let consumers = store.consumers(&g).await.unwrap();
    let listed: Vec<_> = consumers.iter().map(|info| (info.name.as_str(), info.pending)).collect();
    assert_eq!(listed, [("one", 2), ("other", 3), ("third", 1)]);
}

async fn the_idle_are_claimed(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..3).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let dead = fetch(&store, &g, "dead", Fetch::entries(3).visibility(LONG).wait(LONG)).await;
    if !store.caps().pending {
        return;
    }
    let now = Fetch::entries(2).visibility(LONG);
    assert_eq!(store.claim(&g, &name("alive"), LONG, now).await.unwrap(), [], "none is idle that long");
    let claimed = store.claim(&g, &name("alive"), Duration::ZERO, now).await.unwrap();
    assert_eq!(fetched_numbers(&claimed), [0, 1]);
    assert!(claimed.iter().all(|fetched| fetched.attempt == 2));
    let owners: Vec<_> =
        store.pending(&g, PendingQuery::first(9)).await.unwrap().iter().map(|of| of.consumer.as_str().to_owned()).collect();
    assert_eq!(owners, ["alive", "alive", "dead"]);
    assert_eq!(store.ack(&g, tokens(&claimed)).await.unwrap(), 2);
    assert_eq!(store.ack(&g, tokens(&dead)).await.unwrap(), 1);
}

async fn a_removed_consumers_entries_are_anyones(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..3).await;
    store.create_group(&g, Position::Start).await.unwrap();
    fetch(&store, &g, "leaver", Fetch::entries(3).visibility(LONG).wait(LONG)).await;
    if !store.caps().pending {
        return;
    }
    assert_eq!(store.remove_consumer(&g, &name("leaver")).await.unwrap(), 3);
    assert_eq!(info(&store, &g).await.pending, 3, "nothing is dropped");
    let taken = fetch(&store, &g, "heir", Fetch::entries(9).visibility(LONG).wait(LONG)).await;
    assert_eq!(fetched_numbers(&taken), [0, 1, 2]);
    assert_eq!(store.ack(&g, tokens(&taken)).await.unwrap(), 3);
    assert_eq!(store.remove_consumer(&g, &name("heir")).await.unwrap(), 0);
    assert_eq!(store.remove_consumer(&g, &name("nobody")).await.unwrap(), 0);
    let listed: Vec<_> =
        store.consumers(&g).await.unwrap().into_iter().filter(|info| info.pending > 0 || info.name == name("heir")).collect();
    assert_eq!(listed, []);
}

async fn an_entry_trimmed_while_pending_comes_without_content(store: Subject) {
    let g = group("t");
    let ids = append(&store, &g.topic, 0..4).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let first = fetch(&store, &g, "one", Fetch::entries(3).visibility(SHORT).wait(LONG)).await;
    assert_eq!(store.ack(&g, tokens(&first[..1])).await.unwrap(), 1);
    store.trim(&g.topic, Trim::Before(ids[2])).await.unwrap();
    let mut again = Vec::new();
    while again.len() < if store.caps().pending { 3 } else { 2 } {
        let fetched = fetch(&store, &g, "two", Fetch::entries(9).visibility(LONG).wait(LONG)).await;
        assert!(!fetched.is_empty());
        again.extend(fetched);
    }
    let seen: BTreeMap<_, _> = again.iter().map(|fetched| (fetched.id, fetched.entry.is_some())).collect();
    if store.caps().pending {
        assert_eq!(seen, BTreeMap::from([(ids[1], false), (ids[2], true), (ids[3], true)]));
    } else {
        // The engine forgets what it no longer has.
        assert_eq!(seen, BTreeMap::from([(ids[2], true), (ids[3], true)]));
    }
    store.ack(&g, tokens(&again)).await.unwrap();
    assert_eq!(info(&store, &g).await.pending, 0, "nothing is stuck");
}

async fn an_entry_trimmed_while_pending_can_be_kept(store: Subject) {
    if !store.caps().pending {
        return;
    }
    let g = group("t");
    append(&store, &g.topic, 0..1).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let fetched = fetch(&store, &g, "one", Fetch::entries(1).visibility(LONG).wait(LONG)).await;
    store.trim(&g.topic, Trim::Len(0)).await.unwrap();
    assert_eq!(store.extend(&g, tokens(&fetched), LONG).await.unwrap(), 1);
    let pending = store.pending(&g, PendingQuery::first(9)).await.unwrap();
    assert_eq!(
        pending.iter().map(|of| (of.id, of.attempt)).collect::<Vec<_>>(),
        [(fetched[0].id, 1)],
        "it is still its consumer's"
    );
    assert_eq!(store.nack(&g, tokens(&fetched), Duration::ZERO).await.unwrap(), 1);
    let again = fetch(&store, &g, "two", Fetch::entries(1).wait(LONG)).await.remove(0);
    assert_eq!((again.id, again.attempt, again.entry), (fetched[0].id, 2, None));
}

async fn a_group_at_a_trimmed_position_goes_on_with_what_is_kept(store: Subject) {
    let g = group("t");
    let ids = append(&store, &g.topic, 0..10).await;
    store.create_group(&g, Position::Start).await.unwrap();
    let two = fetch(&store, &g, "c", Fetch::entries(2).wait(LONG)).await;
    store.ack(&g, tokens(&two)).await.unwrap();
    store.trim(&g.topic, Trim::Before(ids[6])).await.unwrap();
    assert!(matches!(info(&store, &g).await.lag, Some(4) | None));
    assert!(matches!(info(&store, &g).await.skipped, Some(4) | None));
    let rest = fetch(&store, &g, "c", Fetch::entries(100).wait(LONG)).await;
    assert_eq!(fetched_numbers(&rest), [6, 7, 8, 9]);
    assert!(matches!(info(&store, &g).await.skipped, Some(4) | None));
    let late = Group::new(g.topic.clone(), name("late"));
    store.create_group(&late, Position::After(ids[1])).await.unwrap();
    assert_eq!(fetched_numbers(&fetch(&store, &late, "c", Fetch::entries(100).wait(LONG)).await), [6, 7, 8, 9]);
}

async fn lag_counts_what_nobody_has_had(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..10).await;
    store.create_group(&g, Position::Start).await.unwrap();
    assert_eq!(info(&store, &g).await.lag, Some(10));
    fetch(&store, &g, "c", Fetch::entries(3).wait(LONG)).await;
    let now = info(&store, &g).await;
    assert_eq!((now.lag, now.pending), (Some(7), 3));
    append(&store, &g.topic, 10..15).await;
    assert_eq!(info(&store, &g).await.lag, Some(12));
    fetch(&store, &g, "c", Fetch::entries(100).wait(LONG)).await;
    let now = info(&store, &g).await;
    assert_eq!((now.lag, now.pending), (Some(0), 15));
    assert_eq!(now.last_delivered, store.info(&g.topic).await.unwrap().last);
}

async fn an_unknown_group_is_an_error(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..1).await;
    let token = Token { id: EntryId::MIN, attempt: 1, handle: None };
    let unknown =
        |answer: Result<(), StoreError>| assert!(matches!(&answer, Err(StoreError::NoGroup(of)) if *of == g), "{answer:?}");
    unknown(store.fetch(&g, &name("c"), Fetch::entries(1)).await.map(drop));
    unknown(store.fetch(&g, &name("c"), Fetch::entries(1).wait(LONG)).await.map(drop));
    unknown(store.ack(&g, vec![token.clone()]).await.map(drop));
    unknown(store.nack(&g, vec![token.clone()], SHORT).await.map(drop));
    unknown(store.extend(&g, vec![token], SHORT).await.map(drop));
    if store.caps().pending {
        unknown(store.pending(&g, PendingQuery::first(1)).await.map(drop));
        unknown(store.claim(&g, &name("c"), SHORT, Fetch::entries(1)).await.map(drop));
        unknown(store.consumers(&g).await.map(drop));
        unknown(store.remove_consumer(&g, &name("c")).await.map(drop));
    }
    assert!(!store.delete_group(&g).await.unwrap());
}

async fn a_group_is_made_once(store: Subject) {
    let g = group("t");
    append(&store, &g.topic, 0..2).await;
    assert!(store.create_group(&g, Position::Start).await.unwrap());
    fetch(&store, &g, "c", Fetch::entries(1).wait(LONG)).await;
    assert!(!store.create_group(&g, Position::Start).await.unwrap());
    assert_eq!(fetched_numbers(&fetch(&store, &g, "c", Fetch::entries(9).wait(LONG)).await), [1], "it was left as it is");
}

async fn a_dead_letter_says_where_it_comes_from_and_is_written_once(store: Subject) {
    let (g, dead) = (group("t"), topic("dead:t"));
    store.append(&g.topic, Append::one(entry(7).header("own", "kept"))).await.unwrap();
    store.create_group(&g, Position::Start).await.unwrap();
    let fetched = fetch(&store, &g, "c", Fetch::entries(1).wait(LONG)).await.remove(0);
    let first = store.dead_letter(&g, fetched.clone(), &dead, "no such user", None).await.unwrap();
    let again = store.dead_letter(&g, fetched.clone(), &dead, "no such user", None).await.unwrap();
    let letters = read(&store, &dead, Position::Start).await;
    assert_eq!((first, again), (Some(letters.entries[0].id), None));
    assert_eq!(numbers(&letters), [7]);
    let letter = &letters.entries[0];
    assert_eq!((letter.name.as_ref() as &str, letter.header("own")), ("test.number", Some("kept")));
    let id = fetched.id.to_string();
    for (header, value) in [
        (DEAD_LETTER_REASON, "no such user"),
        (DEAD_LETTER_TOPIC, "t"),
        (DEAD_LETTER_ID, &id),
        (DEAD_LETTER_GROUP, "workers"),
        (DEAD_LETTER_ATTEMPTS, "1"),
    ] {
        assert_eq!(letter.header(header), Some(value));
    }
    assert_eq!(info(&store, &g).await.pending, 0);
}

async fn a_dead_letter_is_written_of_what_is_pending_under_its_token_only(store: Subject) {
    let (g, dead) = (group("t"), topic("dead:t"));
    store.create_group(&g, Position::Start).await.unwrap();
    append(&store, &g.topic, 0..2).await;
    let fetched = fetch(&store, &g, "c", Fetch::entries(2).visibility(SHORT).wait(LONG)).await;
    assert_eq!(store.ack(&g, vec![fetched[0].token.clone()]).await.unwrap(), 1);
    assert_eq!(store.dead_letter(&g, fetched[0].clone(), &dead, "late", None).await.unwrap(), None, "it is acked");
    let again = fetch(&store, &g, "d", Fetch::entries(2).visibility(SHORT).wait(LONG)).await.remove(0);
    assert_eq!((again.id, again.attempt), (fetched[1].id, 2));
    assert_eq!(store.dead_letter(&g, fetched[1].clone(), &dead, "late", None).await.unwrap(), None, "someone else has it");
    assert_eq!(store.info(&dead).await.unwrap().entries, 0);
    assert!(store.dead_letter(&g, again.clone(), &dead, "in time", None).await.unwrap().is_some());
    assert_eq!(store.ack(&g, vec![again.token]).await.unwrap(), 0, "its letter is written");
    assert_eq!((kept(&store, &dead).await, info(&store, &g).await.pending), (vec![1], 0));
    let nobodys = Group::new(g.topic.clone(), name("nobodys"));
    let unknown = store.dead_letter(&nobodys, fetched[1].clone(), &dead, "no", None).await;
    assert!(matches!(unknown, Ok(None) | Err(StoreError::NoGroup(_))), "{unknown:?}");
}

/// A late failure and a late Ok of one entry at the same time: one of them counts.
async fn an_entry_is_acked_or_a_dead_letter_and_never_both(store: Subject) {
    let (g, dead) = (group("t"), topic("dead:t"));
    store.create_group(&g, Position::Start).await.unwrap();
    // There is a topic for them.
    append(&store, &dead, 1_000..1_001).await;
    store.append(&g.topic, Append::many((0..64).map(entry).collect())).await.unwrap();
    let fetched = fetch(&store, &g, "c", Fetch::entries(64).visibility(LONG).wait(LONG)).await;
    assert_eq!(fetched.len(), 64);
    let mut races = Vec::new();
    for (n, one) in fetched.into_iter().enumerate() {
        let (acks, buries, token) = (Arc::clone(&store), Arc::clone(&store), one.token.clone());
        let (of_ack, of_bury, to, id) = (g.clone(), g.clone(), dead.clone(), one.id);
        let acked = tokio::spawn(async move {
            for _ in 0..n % 4 {
                tokio::task::yield_now().await;
            }
            acks.ack(&of_ack, vec![token]).await.unwrap()
        });
        let buried = tokio::spawn(async move { buries.dead_letter(&of_bury, one, &to, "late", None).await.unwrap() });
        races.push((id, acked, buried));
    }
    let mut letters = BTreeSet::new();
    for (id, acked, buried) in races {
        let (acked, buried) = (acked.await.unwrap(), buried.await.unwrap());
        assert_eq!(acked + u64::from(buried.is_some()), 1, "{id} was acked {acked} times, its letter is {buried:?}");
        letters.extend(buried);
    }
    let written = read(&store, &dead, Position::Start).await;
    assert_eq!(written.entries.iter().skip(1).map(|entry| entry.id).collect::<BTreeSet<_>>(), letters);
    assert_eq!(info(&store, &g).await.pending, 0);
}

async fn ten_consumers_handle_every_entry(store: Subject) {
    let g = group("t");
    store.create_group(&g, Position::Start).await.unwrap();
    let consumers = (0..10).map(|n| {
        let (store, g) = (Arc::clone(&store), g.clone());
        tokio::spawn(async move {
            let (consumer, mut handled) = (format!("c{n}"), Vec::new());
            loop {
                let fetched =
                    fetch(&store, &g, &consumer, Fetch::entries(7).visibility(LONG).wait(Duration::from_millis(500))).await;
                if fetched.is_empty() {
                    return handled;
                }
                // Every third is dropped once, and given back.
                let (back, done): (Vec<_>, Vec<_>) = fetched
                    .into_iter()
                    .partition(|of| of.attempt == 1 && number(&of.entry.as_ref().unwrap().payload).is_multiple_of(3));
                handled.extend(fetched_numbers(&done));
                if !done.is_empty() {
                    assert_eq!(store.ack(&g, tokens(&done)).await.unwrap(), done.len() as u64);
                }
                if !back.is_empty() {
                    assert_eq!(store.nack(&g, tokens(&back), Duration::ZERO).await.unwrap(), back.len() as u64);
                }
            }
        })
    });
    let consumers: Vec<_> = consumers.collect();
    append(&store, &g.topic, 0..300).await;
    let mut handled = Vec::new();
    for consumer in consumers {
        handled.extend(consumer.await.unwrap());
    }
    handled.sort_unstable();
    assert_eq!(handled, (0..300).collect::<Vec<_>>());
    let now = info(&store, &g).await;
    assert_eq!((now.pending, now.lag), (0, Some(0)));
}
