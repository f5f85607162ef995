//! Bursts: as many as asked for, and nothing else, for whoever compares two builds or counts instructions. Knows no one who looks.

use std::time::Instant;

use actix::System;

use crate::common::args::Args;
use crate::crowd::Crowd;

/// Prints the number of subscribers, that of deliveries, and how many there were per second: figures that a script reads.
pub(crate) fn run(args: &Args) {
    let bursts = if args.test { 1 } else { args.rounds.unwrap_or(BURSTS) };
    let sizes = if args.n.is_empty() { vec![if args.test { 100 } else { 1_000 }] } else { args.n.clone() };
    for members in sizes {
        let (deliveries, per_second) = System::new().block_on(measure(members, bursts));
        println!("bursts {members} {deliveries} {per_second:.0}");
    }
}

async fn measure(members: usize, bursts: usize) -> (usize, f64) {
    let mut crowd = Crowd::gather(members).await;
    for _ in 0..WARM_BURSTS {
        crowd.burst().await;
    }
    let (start, mut end) = (Instant::now(), Instant::now());
    for _ in 0..bursts {
        end = crowd.burst().await;
    }
    let deliveries = bursts * crowd.burst_deliveries();
    crowd.disperse();
    (deliveries, deliveries as f64 / (end - start).as_secs_f64())
}

const BURSTS: usize = 2_000;
const WARM_BURSTS: usize = 10;
