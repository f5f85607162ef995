//! Looking: how long each kind of look takes, with nothing else going on. Knows no fan-out.

use std::time::Duration;
use std::time::Instant;

use actix::System;
use actix_pubsub::PubSub;

use crate::common::args::Args;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::numbers::nanos;
use crate::common::parts::goal;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::crowd::Crowd;

type Look = fn(&PubSub);

const LOOKS: [(&str, Look); 3] = [
    ("summary()", |pubsub| drop(pubsub.summary())),
    ("top_slow(20)", |pubsub| drop(pubsub.top_slow(20))),
    ("stats(), every subscription", |pubsub| drop(pubsub.stats())),
];

pub(crate) fn run(args: &Args) {
    let (sizes, rounds) = if args.test { (vec![100], 1) } else { (vec![1_000, 10_000, 100_000], args.rounds.unwrap_or(9)) };
    let sizes = if args.n.is_empty() { sizes } else { args.n.clone() };
    println!("one look, median of {rounds}:");
    for members in sizes {
        let took = System::new().block_on(measure(members, rounds));
        for ((what, _), times) in LOOKS.iter().zip(&took) {
            println!("  {:>6} subscribers  {what:30} {:>10}", numbers::count(members), numbers::time(median(times)));
            args.record.row(&Row::new("looking", "one look", what, Unit::Nanos, times).at("subscribers", members as f64));
            if members == 100_000 {
                goal(args, median(times) < 50e6, "less than 50 ms");
            }
        }
    }
}

async fn measure(members: usize, rounds: usize) -> Vec<Vec<f64>> {
    let mut crowd = Crowd::gather(members).await;
    crowd.rate(Duration::ZERO).await;
    let mut took: Vec<Vec<f64>> = LOOKS.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (at, (_, look)) in LOOKS.iter().enumerate() {
            let start = Instant::now();
            look(&crowd.pubsub);
            took[at].push(nanos(start.elapsed()));
        }
    }
    crowd.disperse();
    took
}
