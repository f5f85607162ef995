//! Bad input: a typed error that names the limit and the value, and nothing done.

use actix::prelude::*;
use actix_pubsub::BroadcastError;
use actix_pubsub::BuildError;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeError;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::TopicError;

use crate::support::Note;
use crate::support::Probe;
use crate::support::system;
use crate::support::within;

#[test]
fn a_bad_topic_is_refused_by_every_verb_and_the_message_comes_back() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, _) = Probe::start_new();
        let long = "x".repeat(256);
        for (name, why) in [
            ("", TopicError::Empty),
            ("a*", TopicError::Forbidden { character: '*', at_byte: 1 }),
            ("a\0", TopicError::Forbidden { character: '\0', at_byte: 1 }),
            (&*long, TopicError::TooLong { bytes: 256, max: 255 }),
        ] {
            let error = pubsub.stream::<Note>(name).unwrap_err();
            assert!(matches!(&error, SubscribeError::Topic(source) if *source == why));
            assert_eq!(error.to_string(), format!("cannot subscribe: {why}"));
            assert!(
                matches!(pubsub.subscribe_addr::<Note, _>(&probe, name), Err(SubscribeError::Topic(source)) if source == why)
            );
            let error = pubsub.broadcast(name, Note(5)).unwrap_err();
            assert!(matches!(&error, BroadcastError::Topic { source, .. } if *source == why));
            assert_eq!(error.to_string(), format!("cannot broadcast: {why}"));
            assert_eq!(error.into_message(), Note(5));
            assert_eq!(pubsub.local_broadcast_async(name, Note(6)).await.unwrap_err().into_message(), Note(6));
            assert_eq!((pubsub.subscribers(name), pubsub.unsubscribe::<Note>(&probe, name)), (0, false));
            let (theirs, name) = (pubsub.clone(), name.to_owned());
            let error = within(&probe, move |_, ctx| theirs.subscribe::<Note, _>(ctx, name).unwrap_err()).await;
            assert!(matches!(error, SubscribeError::Topic(source) if source == why));
        }
        assert_eq!((pubsub.topics().len(), pubsub.stats().subscriptions.len()), (0, 0));
    });
}

#[test]
fn a_capacity_of_0_or_beyond_the_limit_is_refused_with_both_numbers() {
    system(async {
        let pubsub = PubSub::new();
        for capacity in [0, SubscribeOptions::CAPACITY_MAX + 1, usize::MAX] {
            let error = pubsub.stream_with::<Note>("t", &SubscribeOptions::new().capacity(capacity)).unwrap_err();
            assert_eq!(error.to_string(), format!("capacity is {capacity} events, it must be 1 to 1048576"));
        }
        for capacity in [1, SubscribeOptions::CAPACITY_MAX] {
            assert!(pubsub.stream_with::<Note>("t", &SubscribeOptions::new().capacity(capacity)).is_ok());
        }
        for capacity in [0, 1_048_577] {
            let error = PubSub::builder().port_capacity(capacity).build().unwrap_err();
            assert_eq!(error, BuildError::PortCapacity { capacity, max: 1_048_576 });
            assert_eq!(error.to_string(), format!("port capacity is {capacity} events, it must be 1 to 1048576"));
        }
    });
}

#[test]
fn subscribing_a_context_on_a_thread_without_an_arbiter_is_a_typed_error() {
    let pubsub = PubSub::new();
    let mut ctx = Context::<Probe>::new();
    let error = pubsub.subscribe::<Note, _>(&mut ctx, "t").unwrap_err();
    assert!(matches!(error, SubscribeError::NoArbiter));
    assert_eq!(error.to_string(), "no arbiter runs on this thread, subscribe inside an actix system");
    assert_eq!(pubsub.subscribers("t"), 0);
}

#[test]
fn subscribing_where_the_arbiter_has_ended_is_the_same_error() {
    let pubsub = PubSub::new();
    System::new().block_on(async { System::current().stop() });
    let mut ctx = Context::<Probe>::new();
    assert!(matches!(pubsub.subscribe::<Note, _>(&mut ctx, "t"), Err(SubscribeError::NoArbiter)));
    assert_eq!((pubsub.subscribers("t"), pubsub.stats().arbiters.len()), (0, 0));
}

#[test]
fn after_shutdown_every_verb_says_closed_and_gives_the_message_back() {
    system(async {
        let pubsub = PubSub::new();
        let (probe, _) = Probe::start_new();
        pubsub.shutdown().await;
        assert!(matches!(pubsub.stream::<Note>("t"), Err(SubscribeError::Closed)));
        assert!(matches!(pubsub.subscribe_addr::<Note, _>(&probe, "t"), Err(SubscribeError::Closed)));
        let theirs = pubsub.clone();
        assert!(matches!(
            within(&probe, move |_, ctx| theirs.subscribe::<Note, _>(ctx, "t").map(drop)).await,
            Err(SubscribeError::Closed)
        ));
        assert_eq!(pubsub.broadcast("t", Note(1)).unwrap_err().into_message(), Note(1));
        assert_eq!(pubsub.broadcast_from(&probe, "t", Note(2)).unwrap_err().into_message(), Note(2));
        assert_eq!(pubsub.broadcast_many(["t"], Note(3)).unwrap_err().into_message(), Note(3));
        let error = pubsub.broadcast_async("t", Note(4)).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.into_message()), ("the pub/sub was shut down", Note(4)));
    });
}
