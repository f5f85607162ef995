//! Traced: deliveries per second while spans are recorded, and while they are not, in turns. Knows no exporter.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix::System;
use actix_pubsub::Builder;
use actix_pubsub::PubSub;
use tracing::Metadata;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::span::Attributes;
use tracing::span::Id;
use tracing::subscriber::Interest;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::common::args::Args;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::parts::goal;
use crate::crowd::Crowd;

/// Which broadcasts have a span, and so have their deliveries: of so many one, while there are no more spans per second than that. With 1,000
/// subscribers there are some ten thousand broadcasts per second. The first is what a pub/sub does that was told nothing, and is to leave nine tenths
/// of the deliveries.
const SAMPLINGS: [Sampling; 4] = [
    Sampling { name: "as it is by default", one_in: 1, limit: Builder::TRACE_LIMIT_DEFAULT },
    Sampling { name: "1 broadcast in 1,000", one_in: 1_000, limit: u32::MAX },
    Sampling { name: "1 broadcast in 100", one_in: 100, limit: u32::MAX },
    Sampling { name: "every broadcast", one_in: 1, limit: u32::MAX },
];

struct Sampling {
    name: &'static str,
    one_in: u32,
    limit: u32,
}

pub(crate) fn run(args: &Args) {
    let (sizes, rounds, time) =
        if args.test { (vec![100], 1, Duration::ZERO) } else { (vec![1_000], args.rounds.unwrap_or(9), TIME) };
    let sizes = if args.n.is_empty() { sizes } else { args.n.clone() };
    // Of the whole process, because the members are on a thread of their own.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Recorder)).expect("there is no other");
    println!("deliveries per second on one arbiter, medians of {rounds} rounds, while spans are recorded:");
    for members in sizes {
        for (at, sampling) in SAMPLINGS.iter().enumerate() {
            let rates = System::new().block_on(measure(members, sampling, rounds, time));
            let shares: Vec<f64> = rates[1].iter().zip(&rates[0]).map(|(on, off)| on / off).collect();
            println!(
                "  {:>6} subscribers  {:<20} {:>12}, of none {:>12} {:>8}",
                numbers::count(members),
                sampling.name,
                numbers::rate(median(&rates[1])),
                numbers::rate(median(&rates[0])),
                numbers::times(median(&shares)),
            );
            if at == 0 {
                goal(args, median(&shares) > 0.9, "less than a tenth of it");
            }
        }
    }
}

/// Rates of a crowd while nothing is recorded, and while something is.
async fn measure(members: usize, sampling: &Sampling, rounds: usize, time: Duration) -> [Vec<f64>; 2] {
    let pubsub = PubSub::builder().trace_sampling(sampling.one_in).trace_limit(sampling.limit).build().expect("valid options");
    let mut crowd = Crowd::gather_in(pubsub, members).await;
    crowd.rate(time).await;
    let (mut rates, mut spans) = ([Vec::new(), Vec::new()], 0);
    for round in 0..rounds {
        for turned in 0..2 {
            let at = (round + turned) % 2;
            record(at == 1);
            let before = ENDED.load(Ordering::Relaxed);
            rates[at].push(crowd.rate(time).await);
            spans += ENDED.load(Ordering::Relaxed) - before;
        }
    }
    record(false);
    assert!(spans > 0, "no span was recorded");
    crowd.disperse();
    rates
}

/// What a collector does at least: it keeps when a span began, and looks how long it took when it ends.
struct Recorder;

struct Begun(Instant);

static ON: AtomicBool = AtomicBool::new(false);
static ENDED: AtomicU64 = AtomicU64::new(0);
static NANOS: AtomicU64 = AtomicU64::new(0);

/// Off, it is for this crate as if there were none: `tracing` is told that nothing is of interest, and asks nobody.
fn record(on: bool) {
    ON.store(on, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
    assert_eq!(LevelFilter::current(), if on { LevelFilter::DEBUG } else { LevelFilter::OFF });
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        if ON.load(Ordering::Relaxed) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, _: &Metadata<'_>, _: Context<'_, S>) -> bool {
        ON.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if ON.load(Ordering::Relaxed) { LevelFilter::DEBUG } else { LevelFilter::OFF })
    }

    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Begun(Instant::now()));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(span) = context.span(&id)
            && let Some(Begun(begun)) = span.extensions().get()
        {
            NANOS.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const TIME: Duration = Duration::from_secs(2);
