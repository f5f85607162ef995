//! Live: the overview once a second to all who watch, by a pub/sub of the dashboard's own, and encoded once. Runs while someone watches.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Deserialize;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::Payload;
use crate::pubsub::PubSub;
use crate::web::dashboard::board::Board;
use crate::web::drain::Draining;
use crate::web::edge::Edge;
use crate::web::edge::Policy;
use crate::web::limits::Limits;
use crate::web::refusal::Refusal;
use crate::web::sse::Sse;

/// An overview as its readers get it.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Live(Box<RawValue>);

impl Payload for Live {
    const NAME: &'static str = "overview";
}

/// Who watches: the subscribers of a pub/sub that nobody else knows of.
pub(crate) struct Watchers {
    pubsub: PubSub,
    /// Whether there is a thread that tells them.
    sampling: Mutex<bool>,
}

impl Default for Watchers {
    fn default() -> Self {
        let pubsub = PubSub::new();
        let limits = Limits { waiting_events: WAITING, ..Limits::default() };
        // It has none before: it is new.
        let _ = Edge::builder().limits(limits).attach(&pubsub);
        Self { pubsub, sampling: Mutex::new(false) }
    }
}

/// Answers one who wants to watch.
pub(crate) async fn watch(board: &Arc<Board>, watched: &PubSub, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    let watchers = &board.watchers;
    let streams = Edge::of(&watchers.pubsub).sessions();
    if streams >= WATCHERS_MAX {
        let message = format!("{streams} streams are open, the limit is {WATCHERS_MAX}");
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "watchers", message);
        return Err(refusal.limit(WATCHERS_MAX as u64, streams as u64 + 1).retry_after(INTERVAL));
    }
    let stream = Sse::subscribe(&watchers.pubsub).topic(TOPIC).message::<Live>().retry(INTERVAL).respond(request).await?;
    // After it has subscribed: else the thread would find nobody, and end.
    start(board, watched)?;
    Ok(stream)
}

fn start(board: &Arc<Board>, watched: &PubSub) -> Result<(), Refusal> {
    let mut sampling = board.watchers.sampling.lock().unwrap_or_else(PoisonError::into_inner);
    if *sampling || board.watchers.pubsub.subscribers(TOPIC) == 0 {
        return Ok(());
    }
    let (board, watched) = (Arc::clone(board), watched.clone());
    let started = thread::Builder::new().name(THREAD.to_owned()).spawn(move || run(&Sampler(board), &watched));
    if let Err(error) = started {
        let message = format!("no thread could be started: {error}");
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message).retry_after(INTERVAL));
    }
    *sampling = true;
    Ok(())
}

/// The thread's own: should it panic, the next one who comes starts another.
struct Sampler(Arc<Board>);

impl Drop for Sampler {
    fn drop(&mut self) {
        if thread::panicking() {
            *self.0.watchers.sampling.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
    }
}

fn run(Sampler(board): &Sampler, watched: &PubSub) {
    let watchers = &board.watchers;
    let mut due = Instant::now();
    loop {
        let overview = board.sample(watched);
        // Strings and numbers only: it has a JSON form.
        if let Ok(json) = serde_json::value::to_raw_value(&*overview) {
            // One who has no room for it gets the next one.
            let _ = watchers.pubsub.local_broadcast(TOPIC, Live(json));
        }
        if watched.edge().get().is_some() && Policy::of(watched).sessions.draining().is_some() {
            watchers.end();
        }
        due = (due + INTERVAL).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut sampling = watchers.sampling.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.pubsub.subscribers(TOPIC) == 0 {
            *sampling = false;
            return;
        }
    }
}

impl Watchers {
    /// The server drains: who watches is not to keep it.
    fn end(&self) {
        let at_once = Draining { window: Duration::ZERO };
        if Policy::of(&self.pubsub).sessions.drain(at_once) {
            // What it does not reach ends with the server's own time-out.
            let _ = self.pubsub.local_broadcast(Draining::topic(), at_once);
        }
    }
}

const TOPIC: &str = "overview";
/// Overviews that may wait for one who does not read: the newest two, the others are of the past.
const WAITING: usize = 2;
/// Streams of all dashboards of one pub/sub: what a team with many windows has, and no more than some 10 MB.
const WATCHERS_MAX: usize = 256;
const INTERVAL: Duration = Duration::from_secs(1);
/// At most 15 bytes, which is what Linux shows.
const THREAD: &str = "pubsub-watch";

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::BoxBody;
    use actix_web::body::MessageBody;
    use actix_web::test::TestRequest;
    use std::future::poll_fn;
    use std::pin::Pin;

    async fn next(body: &mut BoxBody) -> String {
        let Some(Ok(chunk)) = poll_fn(|cx| Pin::new(&mut *body).poll_next(cx)).await else { panic!("the stream ended") };
        String::from_utf8(chunk.to_vec()).unwrap()
    }

    #[test]
    fn the_sampler_ends_with_the_last_watcher_and_the_next_one_starts_another() {
        actix_web::rt::System::new().block_on(async {
            let watched = PubSub::new();
            let board = Board::of(&watched);
            let request = TestRequest::default().to_http_request();
            let sampling = || *board.watchers.sampling.lock().unwrap();
            assert!(!sampling());
            for _ in 0..2 {
                let Ok(one) = watch(&board, &watched, &request).await else { panic!("it is refused") };
                let mut one = one.into_body();
                let Ok(other) = watch(&board, &watched, &request).await else { panic!("it is refused") };
                assert_eq!(next(&mut one).await, "retry: 1000\n\n");
                assert!(next(&mut one).await.starts_with("event: overview\ndata: {\"at_ms\":"));
                drop(one);
                assert!(sampling(), "there is one who watches");
                drop(other);
                while sampling() {
                    actix_web::rt::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
}
