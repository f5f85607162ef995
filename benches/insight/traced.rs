//! Traced: deliveries per second while spans are recorded, and while they are not, in turns. Knows no exporter.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix::System;
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

/// Of so many broadcasts one has a span, and so have its deliveries. With 1,000 subscribers there are some thousand broadcasts in a measure.
const SAMPLINGS: [u32; 3] = [1_000, 100, 1];
/// The first of them is to leave nine tenths of the deliveries.
const GOAL: u32 = SAMPLINGS[0];

pub(crate) fn run(args: &Args) {
    let (sizes, rounds, time) =
        if args.test { (vec![100], 1, Duration::ZERO) } else { (vec![1_000], args.rounds.unwrap_or(9), TIME) };
    let sizes = if args.n.is_empty() { sizes } else { args.n.clone() };
    // Of the whole process, because the members are on a thread of their own.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Recorder)).expect("there is no other");
    println!("deliveries per second on one arbiter, medians of {rounds} rounds, while spans are recorded:");
    for members in sizes {
        for one_in in SAMPLINGS {
            let rates = System::new().block_on(measure(members, one_in, rounds, time));
            let shares: Vec<f64> = rates[1].iter().zip(&rates[0]).map(|(on, off)| on / off).collect();
            println!(
                "  {:>6} subscribers  of 1 broadcast in {one_in:<6} {:>12}, of none {:>12} {:>8}",
                numbers::count(members),
                numbers::rate(median(&rates[1])),
                numbers::rate(median(&rates[0])),
                numbers::times(median(&shares)),
            );
            if one_in == GOAL {
                goal(args, median(&shares) > 0.9, "less than a tenth of it");
            }
        }
    }
}

/// Rates of a crowd while nothing is recorded, and while something is.
async fn measure(members: usize, one_in: u32, rounds: usize, time: Duration) -> [Vec<f64>; 2] {
    let pubsub = PubSub::builder().trace_sampling(one_in).build().expect("valid options");
    let mut crowd = Crowd::gather_in(pubsub, members).await;
    crowd.rate(time).await;
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for turned in 0..2 {
            let at = (round + turned) % 2;
            record(at == 1);
            let before = ENDED.load(Ordering::Relaxed);
            rates[at].push(crowd.rate(time).await);
            let ended = ENDED.load(Ordering::Relaxed) - before;
            // The last of them may end in the next measure, in which none begins.
            assert!(at == 0 || ended > 0, "no span was recorded");
        }
    }
    record(false);
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
