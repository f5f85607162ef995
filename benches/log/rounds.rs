//! Rounds: peers that take turns, and what came of it. Knows no peer.

use std::future::Future;
use std::time::Duration;
use std::time::Instant;

use futures::future::LocalBoxFuture;

use crate::common::args::Args;
use crate::common::numbers::median;

/// One that is measured: does its work once, answers how many entries in what time.
pub(crate) struct Peer<'a> {
    pub(crate) name: &'static str,
    turn: Box<dyn FnMut() -> LocalBoxFuture<'a, (u64, Duration)> + 'a>,
}

impl<'a> Peer<'a> {
    pub(crate) fn new<F: Future<Output = (u64, Duration)> + 'a>(name: &'static str, mut turn: impl FnMut() -> F + 'a) -> Self {
        Self { name, turn: Box::new(move || Box::pin(turn())) }
    }
}

/// Entries per second of each peer in each round.
pub(crate) struct Rates(Vec<(&'static str, Vec<f64>)>);

/// Lets all that are asked for take their turns, each round another one first.
pub(crate) async fn run(args: &Args, rounds: usize, mut peers: Vec<Peer<'_>>) -> Rates {
    peers.retain(|peer| args.wants_measure(peer.name));
    let mut rates = Rates(peers.iter().map(|peer| (peer.name, Vec::new())).collect());
    let count = peers.len();
    for round in 0..rounds {
        for turned in 0..count {
            let at = (turned + round) % count;
            let (entries, took) = (peers[at].turn)().await;
            rates.0[at].1.push(entries as f64 / took.as_secs_f64());
        }
    }
    rates
}

impl Rates {
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&'static str, &[f64])> {
        self.0.iter().map(|(peer, rates)| (*peer, rates.as_slice()))
    }

    fn of(&self, peer: &str) -> &[f64] {
        self.0.iter().find(|(name, _)| *name == peer).map_or(&[], |(_, rates)| rates)
    }

    pub(crate) fn median(&self, peer: &str) -> f64 {
        median(self.of(peer))
    }

    /// How much of `base` a peer reaches, within the same round; `NaN` if one of them was not measured.
    pub(crate) fn share(&self, peer: &str, base: &str) -> f64 {
        if self.of(peer).is_empty() || self.of(base).is_empty() {
            return f64::NAN;
        }
        let shares: Vec<f64> = self.of(peer).iter().zip(self.of(base)).map(|(rate, base)| rate / base).collect();
        median(&shares)
    }
}

/// So many tasks of this thread do `one` with numbers of their own, one after the other, until `entries` are done.
pub(crate) async fn crowd<F, Fut>(tasks: u64, entries: u64, one: F) -> (u64, Duration)
where
    F: Fn(u64) -> Fut + Clone + 'static,
    Fut: Future<Output = ()>,
{
    let start = Instant::now();
    let handles: Vec<_> = (0..tasks)
        .map(|task| {
            let one = one.clone();
            actix::spawn(async move {
                let mut number = task;
                while number < entries {
                    one(number).await;
                    number += tasks;
                }
            })
        })
        .collect();
    for handle in handles {
        handle.await.expect("no task panics");
    }
    (entries, start.elapsed())
}
