//! Cleanup: all subscribers of a topic die at once. The cost of each death must not depend on how many die, and nobody else may
//! feel it. The same actors without a subscription die beside them: what actix itself takes for a death.

use std::collections::BTreeSet;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::ActorContext;
use actix::Addr;
use actix::Arbiter;
use actix::Context;
use actix::Handler;
use actix::Message;
use actix::System;
use actix_pubsub::Event;
use actix_pubsub::PubSub;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::common::args::Args;
use crate::common::beam;
use crate::common::beam::Beam;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::numbers::nanos;
use crate::common::numbers::quantile;
use crate::common::parts::goal;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::quiet::Quiet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Stop,
    Panic,
    /// The arbiter stops, with all actors on it.
    Arbiter,
}

struct Mortal {
    pubsub: Option<PubSub>,
    living: Arc<AtomicUsize>,
}

struct News;

#[derive(Message)]
#[rtype(result = "()")]
struct Die(Death);

pub(crate) fn run(args: &Args) {
    let silent = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    System::new().block_on(measure(args));
    panic::set_hook(silent);
}

async fn measure(args: &Args) {
    let (sizes, few): (&[usize], &[usize]) =
        if args.test { (&[100, 200], &[100]) } else { (&[10_000, 20_000, 40_000, 80_000], &[1_000, 2_000, 4_000]) };
    let rounds = if args.test { 1 } else { args.rounds.unwrap_or(5) };
    let pubsub = PubSub::new();
    let quiet_arbiter = Arbiter::new();
    let quiet = Quiet::start(&pubsub, &quiet_arbiter);
    let before = Instant::now();
    sleep(Duration::from_millis(if args.test { 20 } else { 1_000 })).await;
    let before = quiet.between(before, Instant::now());

    let elixir_sizes: &[usize] = if args.test { &[100] } else { ELIXIR_SIZES };
    let mut elixir = beam::is_there().then(Elixir::start);
    println!("all n subscribers of a topic die at once, per death:");
    let (mut during, mut plain) = (Vec::new(), Vec::new());
    for (death, sizes) in [(Death::Stop, sizes), (Death::Panic, few), (Death::Arbiter, sizes)] {
        let mut each = Vec::new();
        let theirs = if death == Death::Stop && elixir.is_some() { elixir_sizes } else { &[] };
        let all: BTreeSet<usize> = sizes.iter().chain(theirs).copied().collect();
        for n in all {
            let (mut with, mut without, mut registered, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for _ in 0..rounds {
                if theirs.contains(&n)
                    && let Some(elixir) = &mut elixir
                {
                    registered.push(elixir.kill(n, true));
                    bare.push(elixir.kill(n, false));
                }
                if !sizes.contains(&n) {
                    continue;
                }
                for (subscribed, took, late) in [(true, &mut with, &mut during), (false, &mut without, &mut plain)] {
                    let (from, to) = kill(&pubsub, n, death, subscribed).await;
                    took.push(nanos(to - from) / n as f64);
                    late.extend(quiet.between(from, to));
                }
            }
            record(args, death, n, [(OURS, &with, &without), (ELIXIR, &registered, &bare)]);
            if !registered.is_empty() {
                let (with, without) = (median(&registered), median(&bare));
                println!("  {ELIXIR} n = {n:6}: {with:6.0} ns, not registered {without:6.0} ns");
            }
            if with.is_empty() {
                continue;
            }
            let (with, without) = (median(&with), median(&without));
            println!(
                "  {death:8} n = {n:6}: {with:6.0} ns, without a subscription {without:6.0} ns, difference {:6.0} ns",
                with - without,
                death = format!("{death:?}"),
            );
            each.push(with);
        }
        if death != Death::Panic
            && let [first, .., last] = each[..]
        {
            let ratio = last / first;
            goal(args, ratio <= 1.5, &format!("a death among 80k costs {ratio:.2} times one among 10k (at most 1.5)"));
        }
    }
    for (what, late) in
        [("before", &before), ("while subscribers die", &during), ("while actors die without any subscription", &plain)]
    {
        for (quantile_of, q) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let row =
                Row::new("cleanup", "an event on another topic and arbiter meanwhile", what, Unit::Nanos, &[quantile(late, q)]);
            args.record.row(&row.setting(quantile_of).base("while actors die without any subscription"));
        }
    }
    println!("an event on another topic and arbiter meanwhile (2 cores busy with the dying):");
    for (what, late) in
        [("before", &before), ("while subscribers die", &during), ("while actors die without any subscription", &plain)]
    {
        let at = |q| numbers::time(quantile(late, q));
        println!("  {what:45} p50 {:>8}, p99 {:>8}, max {:>8} of {}", at(0.5), at(0.99), at(1.0), late.len());
    }
    let ratio = quantile(&during, 0.99) / quantile(&plain, 0.99);
    goal(args, ratio <= 1.5, &format!("p99 while subscribers die is {ratio:.2} times that while others die (at most 1.5)"));
    drop(quiet);
    quiet_arbiter.stop();
    quiet_arbiter.join().expect("no subscriber panicked");
}

/// Times for each death, of those that were subscribed and of those that were not.
fn record(args: &Args, death: Death, n: usize, peers: [(&str, &Vec<f64>, &Vec<f64>); 2]) {
    let setting = format!("{death:?}").to_lowercase();
    for (peer, with, without) in peers.into_iter().filter(|(_, with, _)| !with.is_empty()) {
        let alone = format!("{peer}, not subscribed");
        let row = |measure, peer, samples: &[f64]| {
            let row = Row::new("cleanup", measure, peer, Unit::Nanos, samples).setting(&setting).at("deaths", n as f64);
            args.record.row(&row.base(if measure == GONE { &alone } else { "" }));
        };
        let all = |each: &[f64]| each.iter().map(|each| each * n as f64).collect::<Vec<_>>();
        row(GONE, peer, &all(with));
        row(GONE, &alone, &all(without));
        let over: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
        row("a death, over one without a subscription", peer, &over);
    }
}

/// The virtual machine of Elixir, whose processes die in their turns.
struct Elixir(Beam);

impl Elixir {
    fn start() -> Self {
        let beam = Beam::start("deaths.exs", &[], &[], &[]);
        beam.answer("ready");
        Self(beam)
    }

    /// For each death, ns.
    fn kill(&mut self, n: usize, registered: bool) -> f64 {
        self.0.tell(&format!("{n} {}", u8::from(registered)));
        self.0.answer("took").parse::<f64>().expect("a time") / n as f64
    }
}

/// Starts `n` actors on an arbiter of their own and ends them; says from when to when they died.
async fn kill(pubsub: &PubSub, n: usize, death: Death, subscribed: bool) -> (Instant, Instant) {
    let (arbiter, living) = (Arbiter::new(), Arc::new(AtomicUsize::new(0)));
    let (done, started) = oneshot::channel();
    let (born, heard) = (Arc::clone(&living), subscribed.then(|| pubsub.clone()));
    arbiter.spawn_fn(move || {
        let actors: Vec<Addr<Mortal>> =
            (0..n).map(|_| Mortal { pubsub: heard.clone(), living: Arc::clone(&born) }.start()).collect();
        // The receiver waits for exactly this.
        let _ = done.send(actors);
    });
    let actors = started.await.expect("the arbiter runs");
    while living.load(Ordering::Acquire) < n {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(pubsub.subscribers("mortals"), if subscribed { n } else { 0 });
    let (tell, from) = oneshot::channel();
    if death == Death::Arbiter {
        tell.send(Instant::now()).expect("it is waited for");
        arbiter.stop();
    } else {
        arbiter.spawn_fn(move || {
            // The receiver waits for exactly this.
            let _ = tell.send(Instant::now());
            for actor in &actors {
                actor.do_send(Die(death));
            }
        });
    }
    while living.load(Ordering::Acquire) > 0 || pubsub.subscribers("mortals") > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let to = Instant::now();
    arbiter.stop();
    arbiter.join().expect("the arbiter itself does not panic");
    (from.await.expect("it was sent"), to)
}

const OURS: &str = "actix-pubsub";
const ELIXIR: &str = "Elixir Registry";
/// The last of these takes it seconds.
const ELIXIR_SIZES: &[usize] = &[2_500, 5_000, 10_000, 20_000];
const GONE: &str = "until all are gone";

impl Actor for Mortal {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(pubsub) = &self.pubsub {
            pubsub.subscribe::<News, _>(ctx, "mortals").expect("on an arbiter");
        }
        self.living.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Ordering::Release);
    }
}

impl Handler<Die> for Mortal {
    type Result = ();

    fn handle(&mut self, die: Die, ctx: &mut Context<Self>) {
        assert!(die.0 != Death::Panic, "this is what is measured");
        ctx.stop();
    }
}

impl Handler<Event<News>> for Mortal {
    type Result = ();

    fn handle(&mut self, _: Event<News>, _: &mut Context<Self>) {}
}
