//! Ours: nodes of a cluster, as a program of actix has them: an actor that subscribes, and `broadcast`. Knows no measurement.

use std::time::Duration;

use actix::Actor;
use actix::Context;
use actix::Handler;
use actix::System;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::Subscription;
use actix_pubsub::Topic;
use actix_pubsub::cluster::Crossing;
use actix_pubsub::cluster::Nats;
use actix_pubsub::cluster::Redis;
use actix_pubsub::cluster::Zenoh;
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::engine::topic;
use crate::note::Note;
use crate::tally::Tally;
use crate::window::Sends;

/// A node. On zenoh one of the two listens, the other one dials.
pub(crate) fn node(engine: Engine, place: &str, listens: bool) -> PubSub {
    let builder = PubSub::builder().message::<Note>();
    let builder = match engine {
        Engine::Redis => builder.cluster(Redis::new(place)),
        Engine::RedisPeers => builder.cluster(Redis::new(place).peer_interest()),
        Engine::Nats => builder.cluster(Nats::new(place)),
        Engine::NatsPeers => builder.cluster(Nats::new(place).peer_interest()),
        Engine::Zenoh if listens => builder.cluster(Zenoh::new().listen(place)),
        Engine::Zenoh => builder.cluster(Zenoh::new().peer(place)),
    };
    builder.build().expect("a node")
}

/// Waits until two nodes know each other.
pub(crate) async fn acquainted(node: &PubSub) {
    while node.nodes().is_empty() {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) struct Ours {
    pub(crate) pubsub: PubSub,
    topics: Vec<Topic>,
}

impl Ours {
    pub(crate) fn new(pubsub: PubSub, topics: usize) -> Self {
        Self { pubsub, topics: (0..topics).map(|number| Topic::parse(&topic(number)).expect("a topic")).collect() }
    }
}

impl Sends for Ours {
    async fn send(&mut self, topic: usize, note: &[u8]) {
        let receipt = self.pubsub.broadcast(&self.topics[topic], Note(note.to_vec())).expect("it broadcasts");
        assert_eq!(receipt.cluster, Crossing::Queued, "the window is shorter than the queue");
    }

    async fn flush(&mut self) {}
}

/// Subscribes as it starts, and gives its subscriptions to who started it.
struct Reader<F> {
    pubsub: PubSub,
    topics: usize,
    take: F,
    told: Option<oneshot::Sender<Vec<Subscription>>>,
}

impl<F: FnMut(&[u8]) + Unpin + 'static> Actor for Reader<F> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let subscribe = |number| {
            let options = SubscribeOptions::new().capacity(CAPACITY);
            self.pubsub.subscribe_with::<Note, _>(ctx, topic(number), &options).expect("it subscribes")
        };
        let subscriptions = (0..self.topics).map(subscribe).collect();
        if let Some(told) = self.told.take() {
            // Who asked may have gone.
            let _ = told.send(subscriptions);
        }
    }
}

impl<F: FnMut(&[u8]) + Unpin + 'static> Handler<Event<Note>> for Reader<F> {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, _: &mut Context<Self>) {
        (self.take)(&event.0);
    }
}

/// An actor that subscribes to so many topics; resolves when everything that other nodes send there arrives.
pub(crate) async fn listen(pubsub: &PubSub, topics: usize, take: impl FnMut(&[u8]) + Unpin + 'static) -> Vec<Subscription> {
    let (told, subscriptions) = oneshot::channel();
    Reader { pubsub: pubsub.clone(), topics, take, told: Some(told) }.start();
    let subscriptions = subscriptions.await.expect("it starts");
    ready(&subscriptions).await;
    subscriptions
}

pub(crate) async fn ready(subscriptions: &[Subscription]) {
    for subscription in subscriptions {
        subscription.cluster_ready().await.expect("it is ready");
    }
}

pub(crate) fn receive(engine: Engine, place: &str, topics: usize, tally: Tally) {
    System::new().block_on(async move {
        let pubsub = node(engine, place, true);
        acquainted(&pubsub).await;
        let taken = tally.clone();
        let _subscriptions = listen(&pubsub, topics, move |note| taken.take(note)).await;
        tally.ready();
        std::future::pending::<()>().await;
    });
}

/// Longer than any window.
const CAPACITY: usize = 16_384;
