//! Following the durable log: history, then live, nothing twice, nothing left out. On the store in memory; every store keeps one contract.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::AppendError;
use actix_pubsub::AppendOptions;
use actix_pubsub::BuildError;
use actix_pubsub::EntryId;
use actix_pubsub::Event;
use actix_pubsub::FollowError;
use actix_pubsub::Followed;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::Retention;
use actix_pubsub::SubscribeError;
use actix_pubsub::log::Append;
use actix_pubsub::log::Gap;
use actix_pubsub::log::GapCause;
use actix_pubsub::log::Limits;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::log::NewEntry;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;
use actix_pubsub::log::StoreError;
use actix_pubsub::log::Trim;
use actix_pubsub::testing::faults::FaultyStore;
use futures::StreamExt;

use crate::support::Note;
use crate::support::Probe;
use crate::support::Word;
use crate::support::quiet_panics;
use crate::support::subscribe;
use crate::support::system;
use crate::support::until;

/// What a reader was handed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Note(u64, EntryId),
    Gap(EntryId, Option<EntryId>, GapCause),
}

type OnNote = Box<dyn FnMut(u64, &mut Context<Reader>)>;
type Sight = Arc<Mutex<Vec<Seen>>>;

/// An actor that follows notes on `t` from where it is told.
struct Reader {
    pubsub: PubSub,
    from: Position,
    seen: Sight,
    on_note: OnNote,
    subscription: Arc<Mutex<Option<actix_pubsub::LogSubscription>>>,
}

fn is_live(subscription: &Mutex<Option<actix_pubsub::LogSubscription>>) -> bool {
    subscription.lock().unwrap().as_ref().is_some_and(actix_pubsub::LogSubscription::is_live)
}

impl Reader {
    fn new(pubsub: &PubSub, from: impl Into<Position>) -> Self {
        let (seen, subscription) = (Sight::default(), Arc::default());
        Self { pubsub: pubsub.clone(), from: from.into(), seen, on_note: Box::new(|_, _| {}), subscription }
    }
}

impl Actor for Reader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let subscription = self.pubsub.subscribe_from::<Note, _>(ctx, "t", self.from).unwrap();
        *self.subscription.lock().unwrap() = Some(subscription);
    }
}

impl Supervised for Reader {}

impl Handler<Event<Note>> for Reader {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, ctx: &mut Self::Context) {
        self.from = Position::After(event.id().expect("it is in the log"));
        self.seen.lock().unwrap().push(Seen::Note(event.0, event.id().unwrap()));
        (self.on_note)(event.0, ctx);
    }
}

impl Handler<Gap> for Reader {
    type Result = ();

    fn handle(&mut self, gap: Gap, _: &mut Self::Context) {
        self.seen.lock().unwrap().push(Seen::Gap(gap.asked_after, gap.resumes_at, gap.cause));
    }
}

fn pubsub_on(store: &MemoryStore) -> PubSub {
    PubSub::builder().log(store.clone()).message::<Note>().build().unwrap()
}

fn notes(seen: &Sight) -> Vec<u64> {
    let note = |seen: &Seen| if let Seen::Note(value, _) = seen { Some(*value) } else { None };
    seen.lock().unwrap().iter().filter_map(note).collect()
}

async fn append(pubsub: &PubSub, values: std::ops::Range<u64>) -> Vec<EntryId> {
    let mut ids = Vec::new();
    for value in values {
        ids.push(pubsub.append("t", &Note(value)).await.unwrap());
    }
    ids
}

#[test]
fn what_is_appended_reaches_live_subscribers_on_every_node_that_shares_the_store() {
    system(async {
        let store = MemoryStore::new();
        let (here, there) = (pubsub_on(&store), pubsub_on(&store));
        let (one, log) = Probe::start_new();
        let (other, remote) = Probe::start_new();
        subscribe(&here, &one, "t").await;
        subscribe(&there, &other, "t").await;
        // On its own node at once; on another from the moment that its feed stands, which a follower waits for.
        let mut standing = there.stream_from::<Note>("t", Position::Start).unwrap();
        append(&here, 0..1).await;
        assert!(matches!(standing.next().await, Some(Followed::Event(event)) if event.0 == 0));
        until("the other node stands", || standing.is_live() || futures::FutureExt::now_or_never(standing.next()).is_some())
            .await;
        append(&here, 1..1_000).await;
        append(&there, 1_000..2_000).await;
        until("both have all", || log.len() == 2_000 && remote.len() >= 1_999).await;
        assert_eq!(log.values(), (0..2_000).collect::<Vec<_>>());
        assert_eq!(remote.values()[remote.len() - 1_999..], (1..2_000).collect::<Vec<_>>());
    });
}

#[test]
fn an_append_begun_after_subscribe_returned_arrives_each_time() {
    system(async {
        let pubsub = pubsub_on(&MemoryStore::new());
        for round in 0..200 {
            let (probe, log) = Probe::start_new();
            subscribe(&pubsub, &probe, "t").await;
            let id = pubsub.append("t", &Note(round)).await.unwrap();
            until("it has come", || log.len() == 1).await;
            assert_eq!(log.values(), [round]);
            assert!(id > EntryId::MIN);
        }
    });
}

#[test]
fn a_plain_subscriber_sees_broadcasts_and_appends_and_a_follower_sees_appends_only() {
    system(async {
        let pubsub = pubsub_on(&MemoryStore::new());
        let (probe, log) = Probe::start_new();
        subscribe(&pubsub, &probe, "t").await;
        let reader = Reader::new(&pubsub, EntryId::MIN);
        let seen = Arc::clone(&reader.seen);
        reader.start();
        append(&pubsub, 0..1).await;
        until("the first has come", || log.len() == 1 && notes(&seen) == [0]).await;
        pubsub.broadcast("t", Note(100)).unwrap();
        until("the broadcast has come", || log.len() == 2).await;
        append(&pubsub, 1..2).await;
        until("both have the rest", || log.len() == 3 && notes(&seen).len() == 2).await;
        assert_eq!(log.values(), [0, 100, 1]);
        assert_eq!(notes(&seen), [0, 1]);
    });
}

#[test]
fn followers_that_join_at_any_time_see_everything_after_their_position_once_in_order() {
    system(async {
        let store = MemoryStore::new();
        let pubsub = pubsub_on(&store);
        let ids = append(&pubsub, 0..500).await;
        let mut sights = Vec::new();
        for round in 0..40_u64 {
            let (from, first) = match round % 4 {
                0 => (Position::Start, 0),
                1 => (Position::After(EntryId::MIN), 0),
                2 => (Position::After(ids[usize::try_from(round).unwrap() * 10]), round * 10 + 1),
                _ => (Position::End, 500 + round * 50),
            };
            let reader = Reader::new(&pubsub, from);
            let (seen, subscription) = (Arc::clone(&reader.seen), Arc::clone(&reader.subscription));
            sights.push((first, seen));
            reader.start();
            if matches!(from, Position::End) {
                until("it is live", || is_live(&subscription)).await;
            }
            append(&pubsub, 500 + round * 50..500 + (round + 1) * 50).await;
        }
        for (first, seen) in sights {
            until("all is seen", || notes(&seen).last() == Some(&2_499)).await;
            let notes = notes(&seen);
            // From the end on, what was appended right before may come, too.
            assert!(notes[0] == first || first >= 600 && notes[0] < first, "{} for {first}", notes[0]);
            assert!(notes.is_sorted_by(|one, next| one + 1 == *next));
        }
    });
}

/// The feed stands already: who joins begins where that has come to, not where it began, and not behind what is appended next.
#[test]
fn who_joins_at_the_end_begins_with_what_comes_next_and_not_with_what_others_had_long_before() {
    system(async {
        let pubsub = pubsub_on(&MemoryStore::new());
        let reader = Reader::new(&pubsub, Position::Start);
        let (seen, subscription) = (Arc::clone(&reader.seen), Arc::clone(&reader.subscription));
        reader.start();
        until("the other is live", || is_live(&subscription)).await;
        append(&pubsub, 0..10).await;
        until("the other has them", || notes(&seen).len() == 10).await;
        // Alone: when it has come, the feed is past those before it.
        append(&pubsub, 10..11).await;
        until("the other has it", || notes(&seen).len() == 11).await;
        let mut joined = pubsub.stream_from::<Note>("t", Position::End).unwrap();
        append(&pubsub, 11..13).await;
        let mut had = Vec::new();
        while had.last() != Some(&12) {
            match joined.next().await {
                Some(Followed::Event(event)) => had.push(event.0),
                other => panic!("{other:?}"),
            }
        }
        // What was appended right before may come, too.
        assert!(had == [11, 12] || had == [10, 11, 12], "{had:?}");
    });
}

#[test]
fn a_follower_that_waits_while_thousands_come_overflows_its_ring_and_misses_nothing() {
    system(async {
        let pubsub = pubsub_on(&MemoryStore::new());
        let mut reader = Reader::new(&pubsub, EntryId::MIN);
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let mut released = Some(released);
        reader.on_note = Box::new(move |value, ctx| {
            if value == 10
                && let Some(released) = released.take()
            {
                ctx.wait(actix::fut::wrap_future::<_, Reader>(async move { released.await.unwrap() }));
            }
        });
        let (seen, subscription) = (Arc::clone(&reader.seen), Arc::clone(&reader.subscription));
        reader.start();
        // Else what comes while it waits is history to it.
        until("it is live", || is_live(&subscription)).await;
        append(&pubsub, 0..11).await;
        until("it waits", || notes(&seen).len() == 11).await;
        append(&pubsub, 11..6_000).await;
        until("its ring has overflowed", || pubsub.summary().missed > 1_000).await;
        assert_eq!(notes(&seen).len(), 11, "ctx.wait is respected");
        release.send(()).unwrap();
        until("all is seen", || notes(&seen).len() == 6_000).await;
        assert_eq!(notes(&seen), (0..6_000).collect::<Vec<_>>());
    });
}

#[test]
fn a_gap_is_told_before_anything_else() {
    system(async {
        let store = MemoryStore::new();
        let pubsub = pubsub_on(&store);
        let ids = append(&pubsub, 0..10).await;
        store.trim(&"t".parse().unwrap(), Trim::Before(ids[6])).await.unwrap();
        let reader = Reader::new(&pubsub, ids[2]);
        let seen = Arc::clone(&reader.seen);
        reader.start();
        until("all is seen", || notes(&seen).len() == 4).await;
        assert_eq!(seen.lock().unwrap()[0], Seen::Gap(ids[2], Some(ids[6]), GapCause::Trimmed));
        assert_eq!(notes(&seen), [6, 7, 8, 9]);
        let ahead = Reader::new(&pubsub, EntryId::MAX);
        let seen = Arc::clone(&ahead.seen);
        ahead.start();
        until("all is seen", || notes(&seen).len() == 4).await;
        assert_eq!(seen.lock().unwrap()[0], Seen::Gap(EntryId::MAX, Some(ids[6]), GapCause::Ahead));
    });
}

#[test]
fn an_entry_that_is_no_message_of_its_name_is_a_gap_of_one_live_and_in_history() {
    system(async {
        let store = MemoryStore::new();
        let pubsub = pubsub_on(&store);
        let topic = "t".parse().unwrap();
        let broken = || Append::one(NewEntry::new(Note::NAME, "{not json"));
        let first = store.append(&topic, broken()).await.unwrap()[0].id;
        let reader = Reader::new(&pubsub, EntryId::MIN);
        let (seen, subscription) = (Arc::clone(&reader.seen), Arc::clone(&reader.subscription));
        reader.start();
        append(&pubsub, 1..2).await;
        until("it is live", || is_live(&subscription) && notes(&seen) == [1]).await;
        let second = store.append(&topic, broken()).await.unwrap()[0].id;
        append(&pubsub, 2..3).await;
        until("all is seen", || notes(&seen).len() == 2).await;
        let gaps: Vec<_> = seen.lock().unwrap().iter().filter(|seen| matches!(seen, Seen::Gap(..))).cloned().collect();
        let gap = |id: EntryId| Seen::Gap(id.prev().unwrap(), id.next(), GapCause::Undecodable);
        assert_eq!(gaps, [gap(first), gap(second)]);
        assert_eq!(seen.lock().unwrap()[0], gap(first));
    });
}

#[test]
fn a_topic_with_several_types_gives_each_follower_its_own_and_unnamed_entries_to_all() {
    system(async {
        let store = MemoryStore::new();
        let pubsub = pubsub_on(&store);
        let reader = Reader::new(&pubsub, EntryId::MIN);
        let seen = Arc::clone(&reader.seen);
        reader.start();
        let mut words = pubsub.stream_from::<Word>("t", EntryId::MIN).unwrap();
        for value in 0..300 {
            pubsub.append("t", &Word("x".repeat(value))).await.unwrap();
            pubsub.append("t", &Note(value as u64)).await.unwrap();
        }
        store.append(&"t".parse().unwrap(), Append::one(NewEntry::new("", "300"))).await.unwrap();
        for value in 0..300 {
            match words.next().await {
                Some(Followed::Event(word)) => assert_eq!(word.0.len(), value),
                other => panic!("{other:?}"),
            }
        }
        // `300` is no word.
        assert!(matches!(words.next().await, Some(Followed::Gap(gap)) if gap.cause == GapCause::Undecodable));
        until("all is seen", || notes(&seen).len() == 301).await;
        assert_eq!(notes(&seen), (0..=300).collect::<Vec<_>>());
    });
}

#[test]
fn the_end_of_an_actor_or_of_a_handle_is_the_end_of_its_following() {
    quiet_panics();
    system(async {
        let pubsub = pubsub_on(&MemoryStore::new());
        let (stopped, mut panicking, unsubscribed) =
            (Reader::new(&pubsub, EntryId::MIN), Reader::new(&pubsub, EntryId::MIN), Reader::new(&pubsub, EntryId::MIN));
        panicking.on_note = Box::new(|value, _| assert!(value < 5, "on purpose"));
        let mut stopped = stopped;
        stopped.on_note = Box::new(|value, ctx| {
            if value == 5 {
                ctx.stop();
            }
        });
        let (subscription, seen) = (Arc::clone(&unsubscribed.subscription), Arc::clone(&unsubscribed.seen));
        for reader in [stopped, panicking, unsubscribed] {
            reader.start();
        }
        until("all are there", || pubsub.subscribers("t") == 3).await;
        append(&pubsub, 0..10).await;
        until("two are gone", || pubsub.subscribers("t") == 1 && notes(&seen).len() == 10).await;
        let subscription = subscription.lock().unwrap().clone().unwrap();
        assert!(subscription.is_active() && subscription.is_live());
        assert_eq!(subscription.position(), Some(pubsub.head("t").await.unwrap()));
        assert!(subscription.unsubscribe());
        assert!(!subscription.unsubscribe());
        until("it is gone", || pubsub.subscribers("t") == 0).await;
        append(&pubsub, 10..11).await;
        assert_eq!(notes(&seen).len(), 10);
        // And who comes after everybody left sees what comes then.
        let (probe, log) = Probe::start_new();
        subscribe(&pubsub, &probe, "t").await;
        append(&pubsub, 11..12).await;
        // What was appended right before it came may come, too.
        until("it has come", || log.values().last() == Some(&11)).await;
    });
}

#[test]
fn a_supervised_reader_goes_on_where_it_was() {
    quiet_panics();
    system(async {
        let pubsub = pubsub_on(&MemoryStore::new());
        let seen = Sight::default();
        let reader = Supervisor::start({
            let (pubsub, seen) = (pubsub.clone(), Arc::clone(&seen));
            move |_| {
                let mut reader = Reader::new(&pubsub, EntryId::MIN);
                reader.seen = seen;
                reader.on_note = Box::new(|value, ctx| {
                    if value % 100 == 99 {
                        ctx.stop();
                    }
                });
                reader
            }
        });
        append(&pubsub, 0..1_000).await;
        until("all is seen", || notes(&seen).len() >= 1_000).await;
        assert_eq!(notes(&seen), (0..1_000).collect::<Vec<_>>());
        drop(reader);
    });
}

#[test]
fn a_store_that_fails_now_and_then_costs_time_and_nothing_else() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(getrandom_u64);
    println!("SEED={seed}");
    system(async {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), seed);
        let pubsub = PubSub::builder().log(store.clone()).build().unwrap();
        store.fail_per_thousand(100);
        store.set_slow(true);
        let mut sights = Vec::new();
        for value in 0..600_u64 {
            if value % 100 == 0 {
                let reader = Reader::new(&pubsub, EntryId::MIN);
                sights.push(Arc::clone(&reader.seen));
                reader.start();
            }
            // Whether an append of an unknown outcome was done its key says.
            let options = || AppendOptions::new().key(value.to_string());
            while pubsub.append_with("t", &Note(value), options()).await.is_err() {}
        }
        assert!(store.failed() > 20, "{}", store.failed());
        // One that begins while nothing can be read.
        store.set_unreadable(true);
        let (failed, reader) = (store.failed(), Reader::new(&pubsub, EntryId::MIN));
        sights.push(Arc::clone(&reader.seen));
        reader.start();
        until("it has tried", || store.failed() > failed + 2).await;
        store.set_unreadable(false);
        store.set_down(true);
        assert!(matches!(pubsub.append("t", &Note(0)).await, Err(AppendError::Store(StoreError::Unavailable { .. }))));
        store.set_down(false);
        for seen in sights {
            until("all is seen", || notes(&seen).len() == 600).await;
            assert_eq!(notes(&seen), (0..600).collect::<Vec<_>>());
        }
    });
}

fn getrandom_u64() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "seed")
}

#[test]
fn a_state_loaded_at_the_head_and_followed_from_there_misses_nothing() {
    system(async {
        let pubsub = pubsub_on(&MemoryStore::new());
        append(&pubsub, 0..100).await;
        let appender = {
            let pubsub = pubsub.clone();
            actix::spawn(async move { append(&pubsub, 100..2_000).await })
        };
        let head = pubsub.head("t").await.unwrap();
        let mut state = Vec::new();
        let mut history = pubsub.stream_from::<Note>("t", Position::Start).unwrap();
        while history.position().is_none_or(|at| at < head) {
            if let Some(Followed::Event(event)) = history.next().await {
                state.push(event.0);
            }
        }
        let mut rest = pubsub.stream_from::<Note>("t", head).unwrap();
        while state.last() != Some(&1_999) {
            if let Some(Followed::Event(event)) = rest.next().await {
                state.push(event.0);
            }
        }
        assert_eq!(state, (0..2_000).collect::<Vec<_>>());
        appender.await.unwrap();
    });
}

#[test]
fn shutdown_ends_streams_and_followers_and_refuses_what_comes_after() {
    system(async {
        let pubsub = pubsub_on(&MemoryStore::new());
        append(&pubsub, 0..10).await;
        let mut stream = pubsub.stream_from::<Note>("t", Position::Start).unwrap();
        let reader = Reader::new(&pubsub, EntryId::MIN);
        let subscription = Arc::clone(&reader.subscription);
        reader.start();
        until("it is there", || subscription.lock().unwrap().is_some()).await;
        assert!(stream.next().await.is_some());
        let shutdown = pubsub.shutdown();
        let rest = tokio::time::timeout(Duration::from_secs(20), async { while stream.next().await.is_some() {} });
        rest.await.expect("the stream ends");
        tokio::time::timeout(Duration::from_secs(20), shutdown).await.expect("nothing holds it up");
        until("it ended", || subscription.lock().unwrap().as_ref().is_some_and(|subscription| !subscription.is_active())).await;
        assert!(matches!(pubsub.append("t", &Note(1)).await, Err(AppendError::Closed)));
        assert!(matches!(pubsub.stream_from::<Note>("t", Position::Start), Err(FollowError::Subscribe(SubscribeError::Closed))));
    });
}

#[test]
fn retention_keeps_what_it_says_of_the_topics_that_fit() {
    system(async {
        let store = MemoryStore::new();
        let pubsub = PubSub::builder()
            .log(store.clone())
            .retain("t", Retention::entries(3))
            .retain("short:*", Retention::age(Duration::from_millis(1)))
            .build()
            .unwrap();
        append(&pubsub, 0..10).await;
        assert_eq!(store.info(&"t".parse().unwrap()).await.unwrap().entries, 3);
        for _ in 0..10 {
            pubsub.append("other", &Note(0)).await.unwrap();
        }
        assert_eq!(store.info(&"other".parse().unwrap()).await.unwrap().entries, 10);
        pubsub.append("short:lived", &Note(0)).await.unwrap();
        // Another pub/sub on the store sweeps when it starts.
        let sweeper = PubSub::builder().log(store.clone()).retain("short:*", Retention::age(Duration::from_millis(1)));
        let sweeper = sweeper.build().unwrap();
        let topic = "short:lived".parse().unwrap();
        loop {
            if store.info(&topic).await.unwrap().entries == 0 {
                break;
            }
            // It may have looked within the same millisecond; then the next one sees it.
            let again = PubSub::builder().log(store.clone()).retain("short:*", Retention::age(Duration::from_millis(1)));
            drop(again.build().unwrap());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(sweeper);
    });
}

#[test]
fn what_cannot_be_appended_or_followed_is_refused_with_its_reason() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Impostor;
    impl Payload for Impostor {
        const NAME: &'static str = Note::NAME;
    }
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Keyed(std::collections::BTreeMap<(u8, u8), u8>);
    impl Payload for Keyed {
        const NAME: &'static str = "test.keyed";
    }
    system(async {
        let plain = PubSub::new();
        assert!(matches!(plain.append("t", &Note(1)).await, Err(AppendError::NoLog)));
        assert!(matches!(plain.head("t").await, Err(AppendError::NoLog)));
        assert!(matches!(plain.stream_from::<Note>("t", Position::Start), Err(FollowError::NoLog)));
        assert!(plain.log().is_none());
        let limits = Limits::default().entry_bytes(20);
        let store = MemoryStore::with(limits, Duration::from_secs(1), actix_pubsub::log::Clock::system());
        let pubsub = PubSub::builder().log(store).build().unwrap();
        let nameless = pubsub.append("", &Note(1)).await.unwrap_err();
        assert!(matches!(nameless, AppendError::Topic(_)));
        assert_eq!(nameless.to_string(), "cannot append: topic is empty, it needs 1 to 255 bytes");
        let nameless = pubsub.stream_from::<Note>("", Position::Start).unwrap_err();
        assert_eq!(nameless.to_string(), "cannot follow: topic is empty, it needs 1 to 255 bytes");
        let refused = pubsub.append("t", &Word("x".repeat(10))).await.unwrap_err();
        assert!(matches!(refused, AppendError::Store(StoreError::TooLarge { bytes: 21, max: 20, .. })), "{refused:?}");
        assert_eq!(refused.to_string(), "the store did not append: entry 0 is 21 bytes, the limit is 20");
        pubsub.append("t", &Note(1)).await.unwrap();
        let impostor = pubsub.append("t", &Impostor).await.unwrap_err();
        assert!(impostor.to_string().contains("support::Note"), "{impostor}");
        assert!(matches!(pubsub.stream_from::<Impostor>("t", Position::Start), Err(FollowError::NameTaken { .. })));
        let unencodable = pubsub.append("t", &Keyed([((1, 2), 3)].into())).await.unwrap_err();
        assert!(matches!(unencodable, AppendError::Encode { .. }), "{unencodable:?}");
        assert_eq!(pubsub.log().unwrap().info(&"t".parse().unwrap()).await.unwrap().entries, 1);
        let twice = PubSub::builder().message::<Note>().message::<Impostor>().build().unwrap_err();
        assert!(matches!(twice, BuildError::NameTaken { name: "test.note", .. }));
        let pattern = PubSub::builder().retain("a*b", Retention::forever()).build().unwrap_err();
        assert!(matches!(pattern, BuildError::Pattern(_)));
        assert!(pattern.to_string().ends_with("topic holds the forbidden character '*' at byte 1"), "{pattern}");
    });
}

/// A limit of the log that nobody keeps was taken without a word, and a retention of nothing emptied its topics.
#[test]
fn a_retention_of_nothing_and_one_without_a_log_are_refused() {
    system(async {
        let said = |builder: actix_pubsub::Builder| builder.build().map(drop).map_err(|error| error.to_string());
        let on_log = || PubSub::builder().log(MemoryStore::new());
        for (retention, keeps) in [
            (Retention::entries(0), "0 entries"),
            (Retention::age(Duration::ZERO), "entries of 0 ms"),
            (Retention::age(Duration::from_micros(999)), "entries of 0 ms"),
            (Retention::entries(0).and_age(Duration::from_secs(1)), "0 entries of 1000 ms"),
        ] {
            let refused = said(on_log().retain("a:*", Retention::entries(1)).retain("b:*", retention));
            let why = format!("the retention of \"b:*\" keeps {keeps}, it must be at least 1 entry and 1 ms");
            assert_eq!(refused, Err(why));
        }
        assert_eq!(
            said(on_log().retain("a", Retention::entries(1)).retain("*", Retention::age(Duration::from_millis(1)))),
            Ok(())
        );
        let refused = PubSub::builder().retain("orders:*", Retention::forever()).build().unwrap_err();
        assert_eq!(refused, BuildError::RetainsNoLog { pattern: "orders:*".to_owned() });
        assert!(refused.to_string().contains("\"orders:*\" and no log"), "{refused}");
    });
}

#[test]
fn append_with_says_what_was_a_duplicate_and_append_many_keeps_its_order() {
    system(async {
        let pubsub = pubsub_on(&MemoryStore::new());
        let key = || AppendOptions::new().key("order-1").header("traceparent", "00-1");
        let first = pubsub.append_with("t", &Note(1), key()).await.unwrap();
        let again = pubsub.append_with("t", &Note(1), key()).await.unwrap();
        assert_eq!((first.duplicate, again.duplicate, first.id), (false, true, again.id));
        let conflict = pubsub.append_with("t", &Note(2), AppendOptions::new().expect_last(EntryId::MIN)).await;
        assert!(matches!(conflict, Err(AppendError::Store(StoreError::Conflict { .. }))), "{conflict:?}");
        let ids = pubsub.append_many("t", &[Note(2), Note(3)]).await.unwrap();
        assert!(first.id < ids[0] && ids[0] < ids[1]);
        let mut stream = pubsub.stream_from::<Note>("t", first.id).unwrap();
        for value in [2, 3] {
            assert!(matches!(stream.next().await, Some(Followed::Event(event)) if event.0 == value));
        }
    });
}
