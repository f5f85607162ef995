//! Spans: broadcast, deliver and handle, parent and child, for `tracing`; and nothing where nobody records them.

use std::sync::Arc;
use std::sync::Mutex;

use actix::prelude::*;
use actix_pubsub::PubSub;
use futures::StreamExt;
use tracing::Level;
use tracing::Metadata;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing::level_filters::LevelFilter;
use tracing::span::Attributes;
use tracing::span::Id;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::support::Log;
use crate::support::Note;
use crate::support::Probe;
use crate::support::subscribe;
use crate::support::system;
use crate::support::until;

/// A span, and what it is within, from the inside out.
type Made = (&'static str, Vec<&'static str>);
/// A span, a field of it and the number there.
type Number = (&'static str, &'static str, u64);

/// The spans of a thread.
#[derive(Clone)]
struct Recorded {
    level: Level,
    /// Not recorded, whatever its level.
    hidden: &'static str,
    spans: Arc<Mutex<Vec<Made>>>,
    /// The numbers among their fields.
    numbers: Arc<Mutex<Vec<Number>>>,
    /// Told at each span.
    on_span: Arc<dyn Fn() + Send + Sync>,
}

impl Recorded {
    /// Of this thread, until the guard is dropped.
    fn new(level: Level) -> (Self, DefaultGuard) {
        Self::with(level, || {})
    }

    fn with(level: Level, on_span: impl Fn() + Send + Sync + 'static) -> (Self, DefaultGuard) {
        Self { level, hidden: "", spans: Arc::default(), numbers: Arc::default(), on_span: Arc::new(on_span) }.record()
    }

    fn without(hidden: &'static str) -> (Self, DefaultGuard) {
        Self { level: Level::DEBUG, hidden, spans: Arc::default(), numbers: Arc::default(), on_span: Arc::new(|| {}) }.record()
    }

    fn record(self) -> (Self, DefaultGuard) {
        let recorded = self;
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(recorded.clone()));
        (recorded, guard)
    }

    /// What the spans of this name are within, from the inside out.
    fn within(&self, name: &str) -> Vec<Vec<&'static str>> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|(known, _)| *known == name).map(|(_, parents)| parents.clone()).collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorded {
    fn enabled(&self, metadata: &Metadata<'_>, _: LayerContext<'_, S>) -> bool {
        *metadata.level() <= self.level && metadata.name() != self.hidden
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.into())
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let parents = context.span_scope(id).expect("it was just made").skip(1).map(|span| span.name()).collect();
        let name = attributes.metadata().name();
        self.spans.lock().unwrap().push((name, parents));
        attributes.record(&mut Numbers(name, &self.numbers));
        (self.on_span)();
    }
}

struct Numbers<'a>(&'static str, &'a Mutex<Vec<Number>>);

impl Visit for Numbers<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.1.lock().unwrap().push((self.0, field.name(), value));
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

fn spanned_probe() -> (Addr<Probe>, Log) {
    Probe::start_with(|_, _| tracing::info_span!("work").in_scope(|| {}))
}

#[test]
fn a_handler_runs_within_its_arbiters_delivery_and_that_within_the_broadcast() {
    let (recorded, _guard) = Recorded::new(Level::DEBUG);
    system(async {
        let pubsub = PubSub::new();
        let ((one, here), (two, there)) = (spanned_probe(), spanned_probe());
        subscribe(&pubsub, &one, "t").await;
        subscribe(&pubsub, &two, "t").await;
        tracing::info_span!("request").in_scope(|| pubsub.broadcast("t", Note(1)).unwrap());
        pubsub.broadcast_async("t", Note(2)).await.unwrap();
        pubsub.broadcast_many(["t", "u"], Note(3)).unwrap();
        until("they are handled", || here.len() + there.len() == 6).await;
        assert_eq!(recorded.within("pubsub.broadcast"), [vec!["request"], vec![], vec![]]);
        assert_eq!(recorded.within("pubsub.deliver").len(), 3, "one arbiter, whatever its subscribers; nobody listens to u");
        let (first, later) = (vec!["pubsub.deliver", "pubsub.broadcast", "request"], vec!["pubsub.deliver", "pubsub.broadcast"]);
        let count = |expected: &Vec<&str>| recorded.within("pubsub.handle").iter().filter(|within| *within == expected).count();
        assert_eq!((count(&first), count(&later)), (2, 4));
        let work = [&["pubsub.handle"][..], &first].concat();
        assert_eq!(recorded.within("work").iter().filter(|within| **within == work).count(), 2);
    });
}

#[test]
fn each_arbiter_that_delivers_has_a_span_that_names_it() {
    let (recorded, _guard) = Recorded::new(Level::DEBUG);
    system(async {
        let (pubsub, other) = (PubSub::new(), Arbiter::new());
        let (here, there) = ([Probe::start_new(), Probe::start_new()], Probe::start_on(&other.handle()));
        for (probe, _) in here.iter().chain([&there]) {
            subscribe(&pubsub, probe, "t").await;
        }
        let mut arbiters: Vec<_> = pubsub.summary().arbiters.iter().map(|of| u64::from(of.arbiter)).collect();
        arbiters.sort_unstable();
        for value in 0..2 {
            recorded.numbers.lock().unwrap().clear();
            let sent = if value == 0 { pubsub.broadcast("t", Note(0)) } else { pubsub.broadcast_async("t", Note(1)).await };
            assert_eq!(sent.unwrap().ports, 2);
            let numbers = recorded.numbers.lock().unwrap().clone();
            let of = |wanted| {
                let delivered = numbers.iter().filter(|(span, field, _)| *span == "pubsub.deliver" && *field == wanted);
                let mut values: Vec<_> = delivered.map(|(_, _, value)| *value).collect();
                values.sort_unstable();
                values
            };
            assert_eq!((of("arbiter"), of("subscribers")), (arbiters.clone(), vec![1, 2]));
        }
        until("they are handled", || here.iter().chain([&there]).all(|(_, log)| log.len() == 2)).await;
        other.stop();
        other.join().unwrap();
    });
}

#[test]
fn where_only_handlers_are_recorded_they_are_within_the_broadcast() {
    let (recorded, _guard) = Recorded::without("pubsub.deliver");
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        subscribe(&pubsub, &probe, "t").await;
        pubsub.local_broadcast("t", Note(1)).unwrap();
        until("it is handled", || log.len() == 1).await;
        assert_eq!(recorded.within("pubsub.handle"), [["pubsub.broadcast"]]);
    });
}

#[test]
fn a_reader_without_a_handler_has_the_span_of_its_delivery() {
    let (recorded, _guard) = Recorded::new(Level::DEBUG);
    system(async {
        let pubsub = PubSub::new();
        let mut notes = pubsub.stream::<Note>("t").unwrap();
        pubsub.local_broadcast("t", Note(1)).unwrap();
        let note = notes.next().await.unwrap();
        tracing::info_span!(parent: &note.span(), "work").in_scope(|| {});
        assert_eq!(recorded.within("work"), [["pubsub.deliver", "pubsub.broadcast"]]);
    });
}

#[test]
fn of_so_many_broadcasts_one_has_a_span_and_so_have_its_handlers() {
    let (recorded, _guard) = Recorded::new(Level::DEBUG);
    system(async {
        for (one_in, spans) in [(3, 3), (1, 9), (0, 0)] {
            recorded.spans.lock().unwrap().clear();
            let pubsub = PubSub::builder().trace_sampling(one_in).build().unwrap();
            let (probe, log) = Probe::start_new();
            subscribe(&pubsub, &probe, "t").await;
            for value in 0..9 {
                pubsub.local_broadcast("t", Note(value)).unwrap();
            }
            until("they are handled", || log.len() == 9).await;
            let made = ["pubsub.broadcast", "pubsub.deliver", "pubsub.handle"].map(|name| recorded.within(name).len());
            assert_eq!(made, [spans; 3], "one in {one_in}");
        }
    });
}

#[test]
fn broadcasts_beyond_the_limit_of_spans_have_none_and_those_within_it_have_all_of_theirs() {
    let (recorded, _guard) = Recorded::new(Level::DEBUG);
    system(async {
        // Each broadcast has one span, one of its delivery and three of handlers: 5.
        for (limit, spanned) in [(0, 0..=0), (25, 6..=8), (1, 1..=1), (u32::MAX, 50..=50)] {
            recorded.spans.lock().unwrap().clear();
            let pubsub = PubSub::builder().trace_limit(limit).build().unwrap();
            let probes: Vec<_> = (0..3).map(|_| Probe::start_new()).collect();
            for (probe, _) in &probes {
                subscribe(&pubsub, probe, "t").await;
            }
            for value in 0..50 {
                pubsub.local_broadcast("t", Note(value)).unwrap();
            }
            until("they are handled", || probes.iter().all(|(_, log)| log.len() == 50)).await;
            let [broadcasts, deliveries, handlers] =
                ["pubsub.broadcast", "pubsub.deliver", "pubsub.handle"].map(|name| recorded.within(name).len());
            assert!(spanned.contains(&broadcasts), "{broadcasts} of 50 have a span, with a limit of {limit} a second");
            assert_eq!([deliveries, handlers], [broadcasts, 3 * broadcasts]);
        }
    });
}

#[test]
fn where_nobody_records_them_no_span_is_made() {
    let (recorded, _guard) = Recorded::new(Level::INFO);
    system(async {
        let pubsub = PubSub::new();
        let (probe, log) = Probe::start_new();
        subscribe(&pubsub, &probe, "t").await;
        let mut notes = pubsub.stream::<Note>("t").unwrap();
        tracing::info_span!("request").in_scope(|| pubsub.local_broadcast("t", Note(1)).unwrap());
        until("it is handled", || log.len() == 1).await;
        assert!(notes.next().await.unwrap().span().is_disabled());
        assert_eq!(recorded.spans.lock().unwrap().as_slice(), [("request", vec![])]);
    });
}

#[test]
fn who_records_spans_may_broadcast_that_it_does() {
    system(async {
        let pubsub = PubSub::new();
        let theirs = pubsub.clone();
        let (recorded, _guard) = Recorded::with(Level::DEBUG, move || {
            theirs.local_broadcast("audit", Note(0)).unwrap();
        });
        let ((probe, log), (auditor, audit)) = (Probe::start_new(), Probe::start_new());
        subscribe(&pubsub, &probe, "t").await;
        subscribe(&pubsub, &auditor, "audit").await;
        pubsub.local_broadcast("t", Note(1)).unwrap();
        until("it is handled and told", || log.len() == 1 && audit.len() == 3).await;
        let made: Vec<_> = recorded.spans.lock().unwrap().iter().map(|(name, _)| *name).collect();
        assert_eq!(made, ["pubsub.broadcast", "pubsub.deliver", "pubsub.handle"], "of what it broadcast itself there is none");
    });
}
