//! Fan-out: deliveries per second while nobody looks, and while somebody does, in turns. Knows no kind of look but by its name.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use actix::System;
use actix_pubsub::PubSub;

use crate::common::args::Args;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::parts::goal;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::crowd::Crowd;

type Look = fn(&PubSub);

/// The first is nobody's.
const LOOKERS: &[(&str, Option<Look>)] = &[
    ("nobody looks", None),
    ("summary() each second", Some(|pubsub| drop(pubsub.summary()))),
    ("top_slow(20) each second", Some(|pubsub| drop(pubsub.top_slow(20)))),
    ("stats() each second", Some(|pubsub| drop(pubsub.stats()))),
    #[cfg(feature = "prometheus")]
    ("Prometheus scrapes each second", Some(scrape)),
];

/// What `web::metrics` does for an answer.
#[cfg(feature = "prometheus")]
fn scrape(pubsub: &PubSub) {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        actix_pubsub::metrics::describe();
        pubsub.record_metrics(&actix_pubsub::metrics::MetricsOptions::new());
    });
    let text = recorder.handle().render();
    assert!(text.contains("actix_pubsub_delivered_total"), "{text}");
}

pub(crate) fn run(args: &Args) {
    let (sizes, rounds, time) =
        if args.test { (vec![100], 1, Duration::ZERO) } else { (vec![1_000, 100_000], args.rounds.unwrap_or(9), TIME) };
    let sizes = if args.n.is_empty() { sizes } else { args.n.clone() };
    println!("deliveries per second on one arbiter, medians of {rounds} rounds:");
    for members in sizes {
        let rates = System::new().block_on(measure(members, rounds, time));
        for ((what, look), of) in LOOKERS.iter().zip(&rates) {
            let shares: Vec<f64> = of.iter().zip(&rates[0]).map(|(rate, alone)| rate / alone).collect();
            let (rate, share) = (median(of), median(&shares));
            println!(
                "  {:>6} subscribers  {what:30} {:>12} {:>8}",
                numbers::count(members),
                numbers::rate(rate),
                numbers::times(share)
            );
            let row = Row::new("fanout", "deliveries", what, Unit::PerSecond, of).base(LOOKERS[0].0);
            args.record.row(&row.at("subscribers", members as f64));
            if look.is_some() {
                goal(args, share > 0.9, "less than a tenth of it");
            }
        }
    }
}

async fn measure(members: usize, rounds: usize, time: Duration) -> Vec<Vec<f64>> {
    let mut crowd = Crowd::gather(members).await;
    crowd.rate(time).await;
    let mut rates: Vec<Vec<f64>> = LOOKERS.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turned in 0..LOOKERS.len() {
            let at = (turned + round) % LOOKERS.len();
            let looker = LOOKERS[at].1.map(|look| Looker::start(&crowd.pubsub, look));
            rates[at].push(crowd.rate(time).await);
            drop(looker);
        }
    }
    crowd.disperse();
    rates
}

/// Somebody on a thread of his own.
struct Looker {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Looker {
    fn start(pubsub: &PubSub, look: Look) -> Self {
        let (stop, pubsub) = (Arc::new(AtomicBool::new(false)), pubsub.clone());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                look(&pubsub);
                thread::park_timeout(Duration::from_secs(1));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Its panic was printed; the rates say the rest.
            let _ = thread.join();
        }
    }
}

const TIME: Duration = Duration::from_secs(2);
