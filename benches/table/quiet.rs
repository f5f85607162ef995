//! Quiet: a topic on an arbiter of its own, to which a thread publishes all the time; says how late its events are handled.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::Arbiter;
use actix::Context;
use actix::Handler;
use actix_pubsub::Event;
use actix_pubsub::PubSub;

use crate::common::numbers::nanos;

pub(crate) struct Quiet {
    /// When each event was broadcast, and after how many ns it was handled.
    samples: Arc<Mutex<Vec<(Instant, f64)>>>,
    stop: Arc<AtomicBool>,
    publisher: Option<JoinHandle<()>>,
}

struct Tick(Instant);

struct Listener {
    samples: Arc<Mutex<Vec<(Instant, f64)>>>,
    pubsub: PubSub,
}

impl Quiet {
    pub(crate) fn start(pubsub: &PubSub, arbiter: &Arbiter) -> Self {
        let (samples, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let listener = Listener { samples: Arc::clone(&samples), pubsub: pubsub.clone() };
        arbiter.spawn_fn(move || drop(listener.start()));
        let (pubsub, stopped) = (pubsub.clone(), Arc::clone(&stop));
        let publisher = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                pubsub.local_broadcast("quiet", Tick(Instant::now())).expect("the pub/sub is open");
                thread::sleep(INTERVAL);
            }
        });
        Self { samples, stop, publisher: Some(publisher) }
    }

    /// The latencies of what was broadcast in this time, ns.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Vec<f64> {
        let samples = self.samples.lock().expect("no handler panics");
        samples.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, latency)| *latency).collect()
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(publisher) = self.publisher.take() {
            publisher.join().expect("the publisher does not panic");
        }
    }
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.pubsub.subscribe::<Tick, _>(ctx, "quiet").expect("on an arbiter");
    }
}

impl Handler<Event<Tick>> for Listener {
    type Result = ();

    fn handle(&mut self, tick: Event<Tick>, _: &mut Context<Self>) {
        let latency = nanos(tick.0.elapsed());
        self.samples.lock().expect("no handler panics").push((tick.0, latency));
    }
}

/// Between two events; some 10,000 events per second at most.
const INTERVAL: Duration = Duration::from_micros(100);
