//! Guests: who a connection is and what it may do. Knows names and rooms, no members.

use std::sync::Arc;

use actix_pubsub::Payload;
use actix_pubsub::Topic;
use actix_pubsub::web::Authorize;
use actix_pubsub::web::Decision;
use actix_pubsub::web::Identity;
use actix_pubsub::web::Refusal;
use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::Query;
use serde::Deserialize;

use crate::messages::Said;
use crate::messages::check_name;
use crate::messages::room_name;

/// Anyone who says a name may come in, talk in rooms, and do nothing else.
pub(crate) struct Guests;

/// The query of the handshake.
#[derive(Deserialize)]
struct Greeting {
    name: String,
    #[serde(default)]
    tab: String,
}

/// The browser tab of a connection: what it calls itself, to find itself among the others.
pub(crate) struct Tab(pub(crate) Arc<str>);

impl Authorize for Guests {
    fn connect<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a, Identity> {
        Box::pin(async move {
            let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "name", message);
            let Greeting { name, tab } = Query::from_query(request.query_string()).map_err(|error| bad(error.to_string()))?.0;
            check_name(&name)?;
            if tab.len() > TAB_BYTES_MAX {
                return Err(bad(format!("tab is {} bytes, the limit is {TAB_BYTES_MAX}", tab.len())));
            }
            Ok(Identity::parse(&name)?.with_claims(Tab(tab.into())))
        })
    }

    fn subscribe<'a>(&'a self, _: &'a Identity, topic: &'a Topic) -> Decision<'a, ()> {
        Box::pin(async move { room_name(topic).map(drop) })
    }

    fn publish<'a>(&'a self, _: &'a Identity, topic: &'a Topic, event: &'a str) -> Decision<'a, ()> {
        Box::pin(async move {
            room_name(topic)?;
            if event == Said::NAME { Ok(()) } else { Err(Refusal::denied(format!("guests do not publish {event}"))) }
        })
    }
}

const TAB_BYTES_MAX: usize = 32;
