//! Axum SSE: server-sent events of axum over a broadcast channel of tokio, whose every receiver makes its JSON.

use std::convert::Infallible;

use axum::Router;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::Event;
use axum::response::sse::KeepAlive;
use axum::routing::get;
use futures::Stream;
use futures::stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::load::said::Said;
use crate::server::Stage;

pub(crate) fn run(stage: Stage) {
    let (sender, _) = broadcast::channel(CAPACITY);
    let app = Router::new().route("/sse", get(events)).with_state(sender.clone());
    stage.axum(app, async move |said| {
        sender.send(said).expect("someone listens");
    });
}

async fn events(State(sender): State<broadcast::Sender<Said>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold(sender.subscribe(), async |mut receiver| {
        loop {
            match receiver.recv().await {
                Ok(said) => {
                    let event = Event::default().data(serde_json::to_string(&said).expect("it has a JSON form"));
                    return Some((Ok(event), receiver));
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

const CAPACITY: usize = 1_024;
