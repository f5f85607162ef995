//! `DashMap` loop: the send loop with topics, a map from a name to its recipients.

use std::sync::Arc;

use actix::Recipient;
use dashmap::DashMap;

use crate::common::payload::Payload;
use crate::peers::actix_home;
use crate::peers::actix_home::News;
use crate::peers::send_loop::Listener;
use crate::rig::Stage;

pub(crate) fn run(stage: Stage) {
    actix_home::run(stage, Listener, |recipients| {
        let topics: DashMap<String, Vec<Recipient<News>>> = DashMap::new();
        topics.insert("room:lobby".to_owned(), recipients);
        move |payload: Payload| {
            let news = News(Arc::new(payload));
            if let Some(recipients) = topics.get("room:lobby") {
                for recipient in recipients.iter() {
                    recipient.do_send(news.clone());
                }
            }
        }
    });
}
