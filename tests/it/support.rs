//! What the tests share: a probe actor that writes down what it gets, a worker that consumes, and ways to wait without sleeping.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use actix::prelude::*;
use actix_pubsub::ConsumeOptions;
use actix_pubsub::Consumer;
use actix_pubsub::Delivery;
use actix_pubsub::Event;
use actix_pubsub::Failure;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::Subscription;
use actix_pubsub::cluster::ClusterOptions;
use actix_pubsub::log::Group;
use actix_pubsub::log::MemoryStore;

/// The message of most tests.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Note(pub(crate) u64);

impl Payload for Note {
    const NAME: &'static str = "test.note";
}

/// A second type, to be told apart from the first.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Word(pub(crate) String);

impl Payload for Word {
    const NAME: &'static str = "test.word";
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Got {
    pub(crate) topic: String,
    pub(crate) value: u64,
    pub(crate) missed: u64,
}

/// What a probe got, readable from any thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Got>>>);

impl Log {
    pub(crate) fn push<M>(&self, event: &Event<M>, value: u64) {
        let got = Got { topic: event.topic().to_string(), value, missed: event.missed() };
        self.0.lock().unwrap().push(got);
    }

    pub(crate) fn all(&self) -> Vec<Got> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn values(&self) -> Vec<u64> {
        self.all().iter().map(|got| got.value).collect()
    }

    pub(crate) fn missed(&self) -> Vec<u64> {
        self.all().iter().map(|got| got.missed).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

type OnNote = Box<dyn FnMut(u64, &mut Context<Probe>)>;

/// An actor that does what it is told and writes down what it gets.
pub(crate) struct Probe {
    pub(crate) log: Log,
    /// Handled before its own writing down; may panic, stop or wait.
    pub(crate) on_note: OnNote,
}

impl Probe {
    pub(crate) fn start_new() -> (Addr<Self>, Log) {
        Self::start_with(|_, _| {})
    }

    pub(crate) fn start_with(on_note: impl FnMut(u64, &mut Context<Self>) + 'static) -> (Addr<Self>, Log) {
        let log = Log::default();
        (Self { log: log.clone(), on_note: Box::new(on_note) }.start(), log)
    }

    /// On an arbiter of its own choice.
    pub(crate) fn start_on(arbiter: &ArbiterHandle) -> (Addr<Self>, Log) {
        let log = Log::default();
        let theirs = log.clone();
        (Self::start_in_arbiter(arbiter, move |_| Self { log: theirs, on_note: Box::new(|_, _| {}) }), log)
    }
}

impl Actor for Probe {
    type Context = Context<Self>;
}

impl Supervised for Probe {}

impl Handler<Event<Note>> for Probe {
    type Result = ();

    fn handle(&mut self, event: Event<Note>, ctx: &mut Self::Context) {
        (self.on_note)(event.0, ctx);
        self.log.push(&event, event.0);
    }
}

impl Handler<Event<Word>> for Probe {
    type Result = ();

    fn handle(&mut self, event: Event<Word>, _: &mut Self::Context) {
        self.log.push(&event, event.0.len() as u64);
    }
}

/// Runs a closure in an actor, and gives its answer: also a barrier, for what was sent to its mailbox before.
pub(crate) struct Do<A: Actor, R>(pub(crate) Work<A, R>);

pub(crate) type Work<A, R> = Box<dyn FnOnce(&mut A, &mut <A as Actor>::Context) -> R + Send>;

impl<A: Actor, R: 'static> Message for Do<A, R> {
    type Result = R;
}

impl<R: 'static> Handler<Do<Self, R>> for Probe {
    type Result = MessageResult<Do<Self, R>>;

    fn handle(&mut self, Do(work): Do<Self, R>, ctx: &mut Self::Context) -> Self::Result {
        MessageResult(work(self, ctx))
    }
}

pub(crate) async fn within<R: Send + 'static>(
    probe: &Addr<Probe>,
    work: impl FnOnce(&mut Probe, &mut Context<Probe>) -> R + Send + 'static,
) -> R {
    probe.send(Do(Box::new(work))).await.expect("the probe lives")
}

/// Subscribes a probe to notes on `topic`, in its own context.
pub(crate) async fn subscribe(pubsub: &PubSub, probe: &Addr<Probe>, topic: &'static str) -> Subscription {
    subscribe_with(pubsub, probe, topic, SubscribeOptions::new()).await
}

pub(crate) async fn subscribe_with(
    pubsub: &PubSub,
    probe: &Addr<Probe>,
    topic: &'static str,
    options: SubscribeOptions,
) -> Subscription {
    let pubsub = pubsub.clone();
    within(probe, move |_, ctx| pubsub.subscribe_with::<Note, _>(ctx, topic, &options)).await.expect("it can be subscribed")
}

/// What a worker handled: the value, and its attempt.
pub(crate) type Handled = Arc<Mutex<Vec<(u64, u32)>>>;
pub(crate) type Answer = ResponseFuture<Result<(), Failure>>;
type OnDelivery = Box<dyn FnMut(&Delivery<Note>, &mut Context<Worker>) -> Answer>;

/// A consumer of notes on `t` in the group `workers`.
pub(crate) struct Worker {
    pub(crate) pubsub: PubSub,
    pub(crate) options: ConsumeOptions,
    pub(crate) handled: Handled,
    pub(crate) work: OnDelivery,
    pub(crate) consumer: Arc<Mutex<Option<Consumer>>>,
}

impl Worker {
    /// It tries again at once.
    pub(crate) fn new(pubsub: &PubSub, work: impl FnMut(&Delivery<Note>, &mut Context<Self>) -> Answer + 'static) -> Self {
        Self::with(pubsub, ConsumeOptions::new().backoff(Duration::from_millis(1), Duration::from_millis(5)), work)
    }

    pub(crate) fn with(
        pubsub: &PubSub,
        options: ConsumeOptions,
        work: impl FnMut(&Delivery<Note>, &mut Context<Self>) -> Answer + 'static,
    ) -> Self {
        Self { pubsub: pubsub.clone(), options, handled: Handled::default(), work: Box::new(work), consumer: Arc::default() }
    }

    pub(crate) fn options(mut self, change: impl FnOnce(ConsumeOptions) -> ConsumeOptions) -> Self {
        self.options = change(self.options);
        self
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let consumer = self.pubsub.consume::<Note, _>(ctx, "t", "workers", &self.options).unwrap();
        *self.consumer.lock().unwrap() = Some(consumer);
    }
}

impl Supervised for Worker {}

impl Handler<Delivery<Note>> for Worker {
    type Result = Answer;

    fn handle(&mut self, delivery: Delivery<Note>, ctx: &mut Self::Context) -> Answer {
        self.handled.lock().unwrap().push((delivery.0, delivery.attempt()));
        (self.work)(&delivery, ctx)
    }
}

pub(crate) fn ok() -> Answer {
    Box::pin(std::future::ready(Ok(())))
}

pub(crate) fn failed(failure: impl Into<Failure>) -> Answer {
    Box::pin(std::future::ready(Err(failure.into())))
}

/// A store in memory, and a pub/sub over it.
pub(crate) fn memory() -> (MemoryStore, PubSub) {
    let store = MemoryStore::new();
    (store.clone(), PubSub::builder().log(store).build().unwrap())
}

/// That of the workers.
pub(crate) fn group() -> Group {
    Group::new("t".parse().unwrap(), "workers".parse().unwrap())
}

pub(crate) async fn append_notes(pubsub: &PubSub, values: std::ops::Range<u64>) {
    for value in values {
        pubsub.append("t", &Note(value)).await.unwrap();
    }
}

/// Waits for a condition by giving everybody else a turn, and fails after half a minute.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "still waiting until {what}");
        actix::clock::timeout(Duration::from_millis(1), one_turn()).await.ok();
    }
}

/// As [`until`], on a thread without a runtime.
pub(crate) fn spin_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "still waiting until {what}");
        std::thread::yield_now();
    }
}

/// One turn for everybody else on this arbiter.
pub(crate) async fn one_turn() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Runs a test in a system of its own.
pub(crate) fn system<R>(test: impl Future<Output = R>) -> R {
    System::new().block_on(test)
}

/// Short, so that tests do not wait for what is to be noticed.
pub(crate) fn cluster_options() -> ClusterOptions {
    ClusterOptions::new()
        .heartbeat(Duration::from_millis(100))
        .failure_timeout(Duration::from_secs(1))
        .linger(Duration::from_millis(100))
}

/// Keeps the output readable where a test panics on purpose.
pub(crate) fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<&str>().copied().unwrap_or_default();
            if !text.contains("on purpose") {
                hook(info);
            }
        }));
    });
}

/// A folder of this test's own, removed after it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("actix-pubsub-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A name for a file that nobody else gets.
    pub(crate) fn file(&self) -> PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        self.0.join(format!("{}.log", NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
