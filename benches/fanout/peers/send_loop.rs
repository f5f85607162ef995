//! Send loop: what everybody writes, a `Vec` of recipients and `do_send` to each.

use std::sync::Arc;

use actix::Actor;
use actix::Context;
use actix::Handler;
use actix::Recipient;

use crate::common::gate::Tally;
use crate::common::payload::Payload;
use crate::peers::actix_home;
use crate::peers::actix_home::News;
use crate::peers::actix_home::Subscriber;
use crate::rig::Stage;

pub(crate) struct Listener(pub(crate) Tally);

pub(crate) fn run(stage: Stage) {
    actix_home::run(stage, Listener, |recipients| {
        move |payload: Payload| {
            let news = News(Arc::new(payload));
            for recipient in &recipients {
                recipient.do_send(news.clone());
            }
        }
    });
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.0.arrive();
    }
}

impl Handler<News> for Listener {
    type Result = ();

    fn handle(&mut self, news: News, _: &mut Context<Self>) {
        self.0.handle(&news.0);
    }
}

impl Subscriber for Listener {
    type Kept = Recipient<News>;

    fn keep(self) -> Self::Kept {
        self.start().recipient()
    }
}
