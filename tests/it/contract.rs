//! The meaning of Phoenix.PubSub's shared contract: who gets what, and the counts.

use actix::prelude::*;
use actix_pubsub::PubSub;
use actix_pubsub::Receipt;
use actix_pubsub::SubscriberId;
use futures::FutureExt;
use futures::StreamExt;

use crate::support::Note;
use crate::support::Probe;
use crate::support::Word;
use crate::support::subscribe;
use crate::support::system;
use crate::support::until;
use crate::support::within;

fn reached(receipt: Receipt) -> usize {
    assert_eq!(receipt.full, 0);
    receipt.ports
}

#[test]
fn subscribe_and_unsubscribe_are_counted_per_topic() {
    system(async {
        let pubsub = PubSub::new();
        let (one, _) = Probe::start_new();
        let (other, _) = Probe::start_new();
        assert_eq!(pubsub.subscribers("a"), 0);
        subscribe(&pubsub, &one, "a").await;
        subscribe(&pubsub, &other, "a").await;
        subscribe(&pubsub, &other, "b").await;
        assert_eq!((pubsub.subscribers("a"), pubsub.subscribers("b")), (2, 1));
        assert_eq!(pubsub.topics(), ["a", "b"]);
        assert!(pubsub.unsubscribe::<Note>(&other, "a"));
        assert_eq!((pubsub.subscribers("a"), pubsub.subscribers("b")), (1, 1));
        assert_eq!(pubsub.unsubscribe_all(&other), 1);
        assert_eq!(pubsub.topics(), ["a"]);
    });
}

#[test]
fn subscribing_twice_is_the_same_subscription() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        subscribe(&pubsub, &probe, "t").await;
        subscribe(&pubsub, &probe, "t").await;
        pubsub.subscribe_addr::<Note, _>(&probe, "t").unwrap();
        assert_eq!(pubsub.subscribers("t"), 1);
        pubsub.broadcast("t", Note(1)).unwrap();
        pubsub.broadcast("t", Note(2)).unwrap();
        until("both are there", || log.len() >= 2).await;
        assert_eq!(log.values(), [1, 2]);
    });
}

#[test]
fn unsubscribing_what_is_not_subscribed_is_a_no_op() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, _) = Probe::start_new();
        assert!(!pubsub.unsubscribe::<Note>(&probe, "t"));
        assert_eq!(pubsub.unsubscribe_all(&probe), 0);
        let subscription = subscribe(&pubsub, &probe, "t").await;
        assert!(!pubsub.unsubscribe::<Word>(&probe, "t"), "another message type");
        assert!(!pubsub.unsubscribe::<Note>(&probe, "other"));
        assert!(!pubsub.unsubscribe::<Note>(&probe, "not*valid"));
        assert!(subscription.unsubscribe() && !subscription.unsubscribe() && !subscription.is_active());
    });
}

#[test]
fn a_broadcast_reaches_each_subscriber_of_its_topic_once_and_nobody_else() {
    system(async {
        let pubsub = PubSub::new();
        let others = PubSub::new();
        let logs: Vec<_> = futures::future::join_all((0..5).map(|_| async {
            let (probe, log) = Probe::start_new();
            subscribe(&pubsub, &probe, "t").await;
            (probe, log)
        }))
        .await;
        let (stranger, nothing) = Probe::start_new();
        subscribe(&pubsub, &stranger, "t2").await;
        subscribe(&others, &stranger, "t").await;
        assert_eq!(reached(pubsub.broadcast("t", Note(7)).unwrap()), 1, "all on one arbiter");
        until("all have it", || logs.iter().all(|(_, log)| log.len() == 1)).await;
        within(&stranger, |_, _| ()).await;
        assert_eq!(nothing.len(), 0, "neither another topic nor another pub/sub hears of it");
        assert!(logs.iter().all(|(_, log)| log.values() == [7]));
    });
}

#[test]
fn a_broadcast_without_subscribers_is_ok() {
    let pubsub = PubSub::new();
    assert_eq!(pubsub.broadcast("t", Note(1)).unwrap(), Receipt::default());
    assert_eq!(pubsub.local_broadcast("t", Note(1)).unwrap(), Receipt::default());
    assert_eq!(pubsub.broadcast_from(PROBE_WITHOUT_ADDR(), "t", Note(1)).unwrap(), Receipt::default());
    assert_eq!(pubsub.broadcast_many(["a", "b"], Note(1)).unwrap(), Receipt::default());
    assert_eq!(pubsub.broadcast_async("t", Note(1)).now_or_never().unwrap().unwrap(), Receipt::default());
}

/// The id of an actor that never was in this pub/sub.
#[allow(non_snake_case)]
fn PROBE_WITHOUT_ADDR() -> SubscriberId {
    system(async { SubscriberId::of(&Probe::start_new().0) })
}

#[test]
fn from_skips_exactly_the_sender_in_every_variant() {
    system(async {
        let pubsub = PubSub::new();
        let (sender, own) = Probe::start_new();
        let (other, log) = Probe::start_new();
        let subscription = subscribe(&pubsub, &sender, "t").await;
        subscribe(&pubsub, &other, "t").await;
        pubsub.broadcast_from(&sender, "t", Note(1)).unwrap();
        // Alone it is taken another way than among others.
        until("the first one is there", || log.len() == 1).await;
        pubsub.broadcast_from(&subscription, "t", Note(2)).unwrap();
        pubsub.local_broadcast_from(&sender, "t", Note(3)).unwrap();
        pubsub.local_broadcast_from(SubscriberId::of(&sender), "t", Note(4)).unwrap();
        pubsub.broadcast_from(&other, "t", Note(5)).unwrap();
        pubsub.broadcast("t", Note(6)).unwrap();
        until("the last one is there", || own.values().last() == Some(&6) && log.values().last() == Some(&6)).await;
        assert_eq!((own.values(), log.values()), (vec![5, 6], vec![1, 2, 3, 4, 6]));
        assert!(own.missed().iter().chain(&log.missed()).all(|missed| *missed == 0), "its own is not missed");
    });
}

#[test]
fn one_type_does_not_reach_the_handler_of_another_on_the_same_topic() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        subscribe(&pubsub, &probe, "t").await;
        assert_eq!(reached(pubsub.broadcast("t", Word("four".into())).unwrap()), 0, "nobody listens for words");
        pubsub.broadcast("t", Note(9)).unwrap();
        until("the note is there", || log.len() == 1).await;
        assert_eq!(log.values(), [9]);
        let theirs = pubsub.clone();
        within(&probe, move |_, ctx| theirs.subscribe::<Word, _>(ctx, "t").unwrap()).await;
        assert_eq!(pubsub.subscribers("t"), 2, "one for each type");
        pubsub.broadcast("t", Word("four".into())).unwrap();
        until("the word is there", || log.len() == 2).await;
        assert_eq!(log.values(), [9, 4]);
    });
}

#[test]
fn many_topics_share_one_payload_and_one_bad_name_sends_nothing() {
    system(async {
        let pubsub = PubSub::new();
        let mut a = pubsub.stream::<Note>("a").unwrap();
        let mut b = pubsub.stream::<Note>("b").unwrap();
        let refused = pubsub.broadcast_many(["a", "b*"], Note(1)).unwrap_err();
        assert_eq!(refused.into_message(), Note(1));
        assert_eq!(reached(pubsub.broadcast_many(["a", "b", "nobody"], Note(2)).unwrap()), 2);
        let (one, other) = (a.next().await.unwrap(), b.next().await.unwrap());
        assert_eq!((one.topic().as_str(), other.topic().as_str()), ("a", "b"));
        assert!(std::ptr::eq::<Note>(&*one, &*other), "one payload");
        assert_eq!(one.json().unwrap().as_ptr(), other.json().unwrap().as_ptr(), "one encoding");
    });
}

#[test]
fn an_event_knows_its_topic_its_node_and_shares_its_payload_between_arbiters() {
    system(async {
        let pubsub = PubSub::new();
        let here = pubsub.stream::<Note>("t").unwrap();
        let arbiter = Arbiter::new();
        let (tell, told) = std::sync::mpsc::channel();
        let theirs = pubsub.clone();
        arbiter.spawn_fn(move || tell.send(theirs.stream::<Note>("t").unwrap()).unwrap());
        let there = told.recv().unwrap();
        assert_eq!(reached(pubsub.broadcast("t", Note(3)).unwrap()), 2);
        let events: Vec<_> = futures::stream::select(here, there).take(2).collect().await;
        assert!(events.iter().all(|event| event.node() == pubsub.node() && *event.topic() == "t" && event.missed() == 0));
        assert!(std::ptr::eq::<Note>(&*events[0], &*events[1]));
        arbiter.stop();
        arbiter.join().unwrap();
    });
}
