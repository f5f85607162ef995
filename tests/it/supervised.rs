//! Supervised: an actor that its supervisor restarts has its subscriptions again.

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use actix_pubsub::Subscriptions;

use crate::support::Do;
use crate::support::Log;
use crate::support::Note;
use crate::support::Word;
use crate::support::system;
use crate::support::until;

struct Worker {
    pubsub: PubSub,
    subscriptions: Subscriptions<Self>,
    log: Log,
    starts: u32,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.starts += 1;
        self.pubsub.subscribe::<Note, _>(ctx, "from the start").unwrap();
    }
}

impl Supervised for Worker {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        assert_eq!(self.pubsub.topics().len(), 0, "the old context took its subscriptions with it");
        self.subscriptions.restore(ctx);
    }
}

impl Handler<Event<Note>> for Worker {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, ctx: &mut Self::Context) {
        self.log.push(&event, event.0);
        if event.0 == 13 {
            ctx.stop();
        }
    }
}

impl Handler<Event<Word>> for Worker {
    type Result = ();

    fn handle(&mut self, event: Event<Word>, _: &mut Self::Context) {
        self.log.push(&event, event.0.len() as u64);
    }
}

impl<R: 'static> Handler<Do<Self, R>> for Worker {
    type Result = MessageResult<Do<Self, R>>;

    fn handle(&mut self, Do(work): Do<Self, R>, ctx: &mut Self::Context) -> Self::Result {
        MessageResult(work(self, ctx))
    }
}

async fn ask<R: Send + 'static>(
    worker: &Addr<Worker>,
    work: impl FnOnce(&mut Worker, &mut Context<Worker>) -> R + Send + 'static,
) -> R {
    worker.send(Do(Box::new(work))).await.unwrap()
}

#[test]
fn a_restarted_actor_has_what_it_subscribed_to_in_started_and_what_it_recorded() {
    system(async {
        let (pubsub, log) = (PubSub::new(), Log::default());
        let worker = Supervisor::start({
            let (pubsub, log) = (pubsub.clone(), log.clone());
            move |_| Worker { subscriptions: Subscriptions::new(pubsub.clone()), pubsub, log, starts: 0 }
        });
        ask(&worker, |worker, ctx| {
            worker.subscriptions.subscribe::<Note>(ctx, "later").unwrap();
            worker.subscriptions.subscribe::<Word>(ctx, "later").unwrap();
            worker.subscriptions.subscribe::<Note>(ctx, "later").unwrap();
            worker.subscriptions.subscribe::<Note>(ctx, "given up").unwrap();
            assert!(worker.subscriptions.unsubscribe::<Note>("given up"));
            assert!(!worker.subscriptions.unsubscribe::<Note>("given up"));
        })
        .await;
        assert_eq!((pubsub.subscribers("from the start"), pubsub.subscribers("later")), (1, 2));
        for round in 1..=3 {
            pubsub.broadcast("later", Note(13)).unwrap();
            until("it has restarted", || log.values().iter().filter(|value| **value == 13).count() == round).await;
            let (starts, topics) = ask(&worker, |worker, _| {
                (worker.starts, worker.subscriptions.topics().map(ToString::to_string).collect::<Vec<_>>())
            })
            .await;
            assert_eq!((starts as usize, topics), (round + 1, vec!["later".to_owned(), "later".to_owned()]));
            assert_eq!((pubsub.subscribers("from the start"), pubsub.subscribers("later")), (1, 2));
            assert_eq!(pubsub.topics(), ["from the start", "later"]);
        }
        pubsub.broadcast("later", Word("four".into())).unwrap();
        until("it hears", || log.values().last() == Some(&4)).await;
    });
}
