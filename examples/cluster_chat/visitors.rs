//! Visitors: the guests of the chat, who may hear of the cluster, too. Knows no members.

use actix_pubsub::Topic;
use actix_pubsub::web::Authorize;
use actix_pubsub::web::Decision;
use actix_pubsub::web::Identity;
use actix_web::HttpRequest;

use crate::census::NEWS;
use crate::guests::Guests;

/// What [`Guests`] says, and yes to the news of the cluster.
pub(crate) struct Visitors;

impl Authorize for Visitors {
    fn connect<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a, Identity> {
        Guests.connect(request)
    }

    fn subscribe<'a>(&'a self, identity: &'a Identity, topic: &'a Topic) -> Decision<'a, ()> {
        if topic.as_str() == NEWS { Box::pin(async { Ok(()) }) } else { Guests.subscribe(identity, topic) }
    }

    fn publish<'a>(&'a self, identity: &'a Identity, topic: &'a Topic, event: &'a str) -> Decision<'a, ()> {
        Guests.publish(identity, topic, event)
    }
}
