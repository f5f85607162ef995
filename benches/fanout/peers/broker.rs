//! Broker: actix-broker 0.4, the arbiter's broker on one thread and the system's broker across two. It runs where the publisher does.

use std::sync::Arc;

use actix::Actor;
use actix::Context;
use actix::Handler;
use actix_broker::ArbiterBroker;
use actix_broker::Broker;
use actix_broker::BrokerSubscribe;
use actix_broker::SystemBroker;

use crate::common::gate::Tally;
use crate::common::payload::Payload;
use crate::peers::actix_home;
use crate::peers::actix_home::News;
use crate::peers::actix_home::Subscriber;
use crate::rig::Placement;
use crate::rig::Stage;

struct Listener {
    tally: Tally,
    same_arbiter: bool,
}

pub(crate) fn run(stage: Stage) {
    if stage.placement == Placement::OneThread {
        actix_home::run(
            stage,
            |tally| Listener { tally, same_arbiter: true },
            |_: Vec<()>| |payload: Payload| Broker::<ArbiterBroker>::issue_async(News(Arc::new(payload))),
        );
    } else {
        actix_home::run(
            stage,
            |tally| Listener { tally, same_arbiter: false },
            |_: Vec<()>| |payload: Payload| Broker::<SystemBroker>::issue_async(News(Arc::new(payload))),
        );
    }
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.same_arbiter {
            self.subscribe_async::<ArbiterBroker, News>(ctx);
        } else {
            self.subscribe_async::<SystemBroker, News>(ctx);
        }
        self.tally.arrive();
    }
}

impl Handler<News> for Listener {
    type Result = ();

    fn handle(&mut self, news: News, _: &mut Context<Self>) {
        self.tally.handle(&news.0);
    }
}

impl Subscriber for Listener {
    type Kept = ();

    fn keep(self) {
        self.start();
    }
}
