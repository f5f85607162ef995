//! Intake: the future inside a consumer's own context. Fetches as much as may run, hands it to the handler, and settles what that answers.
//!
//! ```text
//!   fetch ─> queue ─> handler ──Ok──> ack
//!                        ├──Err────> nack, after a back-off; or dead letter, after the last attempt
//!                        └─silence─> the store gives it to someone; a late Ok still acks
//! ```
//!
//! Nothing is fetched that cannot be started: what lies in a queue when its actor dies would have used up an attempt without having been tried.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use actix::Actor;
use actix::ActorFuture;
use actix::AsyncContext;
use actix::Handler;
use actix::dev::AsyncContextParts;
use actix::dev::MessageResponse;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::Sleep;

use crate::event::Payload;
use crate::feed::Feed;
use crate::feed::backoff::backoff;
use crate::feed::backoff::store_backoff;
use crate::feed::types::decode;
use crate::log::Fetch;
use crate::log::Fetched;
use crate::log::Group;
use crate::log::Name;
use crate::log::Position;
use crate::log::StoreError;
use crate::log::Token;
use crate::observe;
use crate::stream::consumer::ConsumeOptions;
use crate::stream::consumer::Shared;
use crate::stream::delivery::Delivery;
use crate::stream::delivery::Failure;
use crate::stream::delivery::Then;
use crate::topic::Topic;

pub(crate) struct Intake<M> {
    member: Arc<Member>,
    options: ConsumeOptions,
    shared: Arc<Shared>,
    /// The group is being made.
    joining: Option<Work>,
    fetching: Option<Fetching>,
    queue: VecDeque<(Fetched, Instant)>,
    running: Vec<Running>,
    /// Handlers that are silent for longer than the visibility: no longer counted, but a late answer of theirs counts.
    late: VecDeque<Running>,
    acks: Vec<Token>,
    acking: Option<Work>,
    /// Nacks and dead letters under way.
    settling: Vec<Work>,
    pause: Option<Pin<Box<Sleep>>>,
    /// When the first of the running is silent for too long.
    alarm: Option<Pin<Box<Sleep>>>,
    failures: u32,
    leaving: Option<Work>,
    closed: Work,
    message: std::marker::PhantomData<fn() -> M>,
}

/// A consumer's place in its group, for whatever has to be done even after its actor is gone.
struct Member {
    feed: Arc<Feed>,
    group: Arc<Group>,
    name: Name,
    dead_letter: Topic,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Fetching = Pin<Box<dyn Future<Output = (Instant, Result<Vec<Fetched>, StoreError>)> + Send>>;

/// An entry in the handler's hands.
struct Running {
    fetched: Fetched,
    answer: oneshot::Receiver<Result<(), Failure>>,
    until: Instant,
}

impl<M> Intake<M> {
    pub(crate) fn new(
        feed: Arc<Feed>,
        group: Arc<Group>,
        name: Name,
        dead_letter: Topic,
        options: ConsumeOptions,
        shared: Arc<Shared>,
    ) -> Self {
        let closed: Work = {
            let feed = Arc::clone(&feed);
            Box::pin(async move { feed.closed().await })
        };
        let member = Arc::new(Member { feed, group, name, dead_letter });
        let joining = Box::pin(Arc::clone(&member).join(options.start, options.visibility));
        Self {
            member,
            options,
            shared,
            joining: Some(joining),
            fetching: None,
            queue: VecDeque::new(),
            running: Vec::new(),
            late: VecDeque::new(),
            acks: Vec::new(),
            acking: None,
            settling: Vec::new(),
            pause: None,
            alarm: None,
            failures: 0,
            leaving: None,
            closed,
            message: std::marker::PhantomData,
        }
    }

    /// Takes the answers of the handlers.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut answers = Vec::new();
        let mut take = |running: &mut Running| match Pin::new(&mut running.answer).poll(cx) {
            Poll::Ready(answer) => {
                answers.push((running.fetched.clone(), answer));
                false
            }
            Poll::Pending => true,
        };
        self.running.retain_mut(&mut take);
        self.late.retain_mut(&mut take);
        let any = !answers.is_empty();
        for (fetched, answer) in answers {
            match answer {
                Ok(Ok(())) => self.acks.push(fetched.token),
                Ok(Err(failure)) => self.failed(fetched, &failure),
                // The response was dropped without an answer.
                Err(_) => self.failed(fetched, &Failure::new("the handler gave no answer")),
            }
        }
        any
    }

    fn failed(&mut self, fetched: Fetched, failure: &Failure) {
        let (group, attempt) = (&self.member.group, fetched.attempt);
        if failure.then == Then::Dead || attempt >= self.options.attempts_max {
            self.bury(fetched, failure.reason().to_owned());
            return;
        }
        observe::delivery_failed(&group.topic, group.name.as_str(), fetched.id, attempt, failure.reason());
        let delay = match failure.then {
            Then::AgainAfter(delay) => delay,
            Then::Again | Then::Dead => backoff(attempt, self.options.backoff_min, self.options.backoff_max),
        };
        self.settling.push(Box::pin(Arc::clone(&self.member).nack(vec![fetched.token], delay)));
    }

    fn bury(&mut self, fetched: Fetched, reason: String) {
        let group = &self.member.group;
        observe::delivery_dead(&group.topic, group.name.as_str(), fetched.id, fetched.attempt, &reason);
        self.settling.push(Box::pin(Arc::clone(&self.member).bury(fetched, reason)));
    }

    /// Who is silent for too long makes room for others: the store gives the entry to someone.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = Instant::now();
            let (silent, running) = self.running.drain(..).partition(|running| running.until <= now);
            self.running = running;
            self.late.extend::<Vec<_>>(silent);
            while self.late.len() > LATE_MAX {
                self.late.pop_front();
            }
            let Some(first) = self.running.iter().map(|running| running.until).min() else {
                self.alarm = None;
                return;
            };
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first)));
            if alarm.deadline() != first {
                alarm.as_mut().reset(first);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return;
            }
        }
    }

    fn poll_settling(&mut self, cx: &mut Context<'_>) {
        self.settling.retain_mut(|work| work.as_mut().poll(cx).is_pending());
        loop {
            if let Some(acking) = &mut self.acking {
                if acking.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.acking = None;
            }
            if self.acks.is_empty() {
                return;
            }
            let tokens = std::mem::take(&mut self.acks);
            self.acking = Some(Box::pin(Arc::clone(&self.member).ack(tokens)));
        }
    }

    /// Fetches what may be started. `true`: something came.
    fn poll_fetch(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.pause = None;
        }
        let room = self.options.concurrency.saturating_sub(self.running.len() + self.queue.len());
        // Failed entries under way are bounded, too: a store that is away stops the fetching.
        if self.fetching.is_none() && room > 0 && self.settling.len() < SETTLING_MAX {
            let member = Arc::clone(&self.member);
            let fetch = Fetch { entries: room, visibility: self.options.visibility, wait: FETCH_WAIT };
            self.fetching = Some(Box::pin(async move {
                let fetched = member.feed.store.fetch(&member.group, &member.name, fetch).await;
                (Instant::now(), fetched)
            }));
        }
        let Some(fetching) = &mut self.fetching else { return false };
        let Poll::Ready((at, fetched)) = fetching.as_mut().poll(cx) else { return false };
        self.fetching = None;
        match fetched {
            Ok(fetched) => {
                self.failures = 0;
                self.queue.extend(fetched.into_iter().map(|fetched| (fetched, at + self.options.visibility)));
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    observe::log_unavailable("fetch", &self.member.group.topic, &error);
                }
                if matches!(error, StoreError::NoGroup(_)) {
                    // Someone deleted it, or the store lost it.
                    let member = Arc::clone(&self.member);
                    self.joining = Some(Box::pin(member.join(self.options.start, self.options.visibility)));
                }
                self.pause = Some(Box::pin(tokio::time::sleep(store_backoff(self.failures))));
            }
        }
        true
    }

    /// Everything is done: leave the group.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.fetching = None;
        for (fetched, _) in self.queue.drain(..) {
            self.settling.push(Box::pin(Arc::clone(&self.member).nack(vec![fetched.token], Duration::ZERO)));
        }
        self.poll_settling(cx);
        if !self.running.is_empty() || !self.settling.is_empty() || self.acking.is_some() {
            return Poll::Pending;
        }
        let member = &self.member;
        self.leaving.get_or_insert_with(|| Box::pin(Arc::clone(member).leave())).as_mut().poll(cx)
    }
}

impl<M: Payload> Intake<M> {
    /// Hands an entry to the handler, or says what is to become of it instead.
    fn start<A>(&mut self, fetched: Fetched, until: Instant, actor: &mut A, ctx: &mut A::Context)
    where
        A: Actor + Handler<Delivery<M>>,
    {
        let group = &self.member.group;
        let Some(entry) = &fetched.entry else {
            observe::delivery_trimmed(&group.topic, group.name.as_str(), fetched.id);
            self.acks.push(fetched.token);
            return;
        };
        if !entry.name.is_empty() && entry.name != M::NAME {
            self.acks.push(fetched.token);
            return;
        }
        if fetched.attempt > self.options.attempts_max {
            // This time it is not: it was handed out `attempt - 1` times, and that is what the letter says.
            let fetched = Fetched { attempt: fetched.attempt - 1, ..fetched };
            let reason = format!("delivered {} times, the limit is {}", fetched.attempt, self.options.attempts_max);
            self.bury(fetched, reason);
            return;
        }
        let message = match decode::<M>(&entry.payload) {
            Ok(message) => message,
            Err(error) => {
                let reason = format!("no message of type {}: {error}", M::NAME);
                self.bury(fetched, reason);
                return;
            }
        };
        let delivery = Delivery {
            message,
            headers: entry.headers.clone(),
            attempt: fetched.attempt,
            token: fetched.token.clone(),
            group: Arc::clone(group),
            feed: Arc::clone(&self.member.feed),
        };
        let (tell, answer) = oneshot::channel();
        // Before the handler: if that panics, this is what the end of the actor gives back.
        self.running.push(Running { fetched, answer, until });
        let response = Handler::<Delivery<M>>::handle(actor, delivery, ctx);
        MessageResponse::handle(response, ctx, Some(tell));
    }
}

impl<A, M> ActorFuture<A> for Intake<M>
where
    A: Actor + Handler<Delivery<M>>,
    A::Context: AsyncContextParts<A> + AsyncContext<A>,
    M: Payload,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, ctx: &mut A::Context, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut left = POLL_DELIVERIES;
        loop {
            let answered = this.poll_answers(cx);
            this.poll_alarm(cx);
            this.poll_settling(cx);
            if this.shared.draining(cx.waker(), this.running.len()) || this.closed.as_mut().poll(cx).is_ready() {
                // Polled once, it must not be polled again.
                this.closed = Box::pin(std::future::ready(()));
                return this.poll_leave(cx);
            }
            if let Some(joining) = &mut this.joining {
                if joining.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.joining = None;
            }
            let mut started = false;
            // The context polls this again as soon as it waits no more.
            while !ctx.waiting()
                && let Some((fetched, until)) = this.queue.pop_front()
            {
                // Its time was over before it was begun, because the context waited: it is someone else's by now.
                if until > Instant::now() {
                    this.start(fetched, until, actor, ctx);
                }
                left -= 1;
                started = true;
                if left == 0 {
                    // Its arbiter has others to run.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            let came = this.poll_fetch(cx);
            if !came && !started && !answered {
                return Poll::Pending;
            }
        }
    }
}

/// What the actor leaves behind is given to the others, at once.
impl<M> Drop for Intake<M> {
    fn drop(&mut self) {
        self.shared.end();
        if self.leaving.is_some() && self.running.is_empty() {
            return;
        }
        let member = Arc::clone(&self.member);
        let acks = std::mem::take(&mut self.acks);
        let works: Vec<Work> = self.settling.drain(..).chain(self.acking.take()).collect();
        // One that was answered and not yet looked at is not done again.
        let mut done = acks;
        let mut back: Vec<(Token, Duration)> = Vec::new();
        let mut buried = Vec::new();
        for running in self.running.iter_mut().chain(self.late.iter_mut()) {
            match running.answer.try_recv() {
                Ok(Ok(())) => done.push(running.fetched.token.clone()),
                _ if running.fetched.attempt >= self.options.attempts_max => buried.push(running.fetched.clone()),
                _ => {
                    let delay = backoff(running.fetched.attempt, self.options.backoff_min, self.options.backoff_max);
                    back.push((running.fetched.token.clone(), delay));
                }
            }
        }
        back.extend(self.queue.drain(..).map(|(fetched, _)| (fetched.token, Duration::ZERO)));
        let feed = Arc::clone(&self.member.feed);
        feed.spawn(async move {
            for work in works {
                work.await;
            }
            if !done.is_empty() {
                Arc::clone(&member).ack(done).await;
            }
            for fetched in buried {
                let group = &member.group;
                observe::delivery_dead(&group.topic, group.name.as_str(), fetched.id, fetched.attempt, DIED);
                Arc::clone(&member).bury(fetched, String::from(DIED)).await;
            }
            let rest = back.iter().map(|(_, delay)| *delay).max().unwrap_or_default();
            for (token, delay) in back {
                Arc::clone(&member).nack(vec![token], delay).await;
            }
            // To leave the group gives everything back at once, so not before the back-off is over.
            tokio::time::sleep(rest).await;
            member.leave().await;
        });
    }
}

impl Member {
    /// Makes the group, if there is none, and clears away consumers that are long gone and have nothing.
    async fn join(self: Arc<Self>, start: Position, visibility: Duration) {
        let mut tries = Tries::new("make the group of");
        while tries.again(&self, self.feed.store.create_group(&self.group, start).await.err()).await {}
        let store = &self.feed.store;
        if !store.caps().pending {
            return;
        }
        let gone = GONE_AFTER.max(visibility.saturating_mul(10));
        // A failure here leaves them listed, no more.
        if let Ok(consumers) = store.consumers(&self.group).await {
            for consumer in consumers.into_iter().filter(|of| of.pending == 0 && of.idle > gone && of.name != self.name) {
                let _ = store.remove_consumer(&self.group, &consumer.name).await;
            }
        }
    }

    async fn leave(self: Arc<Self>) {
        if self.feed.store.caps().pending {
            // A failure here leaves it listed, no more.
            let _ = self.feed.store.remove_consumer(&self.group, &self.name).await;
        }
    }

    async fn ack(self: Arc<Self>, tokens: Vec<Token>) {
        let mut tries = Tries::new("ack in");
        while tries.again(&self, self.feed.store.ack(&self.group, tokens.clone()).await.err()).await {}
    }

    async fn nack(self: Arc<Self>, tokens: Vec<Token>, delay: Duration) {
        let mut tries = Tries::new("nack in");
        while tries.again(&self, self.feed.store.nack(&self.group, tokens.clone(), delay).await.err()).await {}
    }

    async fn bury(self: Arc<Self>, fetched: Fetched, reason: String) {
        let mut tries = Tries::new("write a dead letter of");
        let bury = || self.feed.store.dead_letter(&self.group, fetched.clone(), &self.dead_letter, &reason, None);
        while tries.again(&self, bury().await.err()).await {}
    }
}

/// Tries until the store has done it, or refuses for good. Left alone, an entry comes again after its visibility.
struct Tries {
    doing: &'static str,
    failures: u32,
}

impl Tries {
    fn new(doing: &'static str) -> Self {
        Self { doing, failures: 0 }
    }

    /// Whether to try again; waits before it says so.
    async fn again(&mut self, member: &Member, error: Option<StoreError>) -> bool {
        let Some(error) = error else { return false };
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            observe::log_unavailable(self.doing, &member.group.topic, &error);
        }
        if !error.is_transient() && self.failures >= TRIES_MAX {
            return false;
        }
        tokio::time::sleep(store_backoff(self.failures)).await;
        true
    }
}

/// Why an entry is given up whose consumer did not survive its last attempt.
const DIED: &str = "the consumer died while it had it";
/// Deliveries that one poll hands out before it yields.
const POLL_DELIVERIES: usize = 64;
/// How long one fetch waits; then there is another.
const FETCH_WAIT: Duration = Duration::from_secs(20);
/// Silent handlers whose late answer is still listened for.
const LATE_MAX: usize = 1_024;
/// Failed entries that are being settled; above it nothing is fetched.
const SETTLING_MAX: usize = 1_024;
/// How long a consumer without pending entries has to be silent to be cleared away.
const GONE_AFTER: Duration = Duration::from_secs(3_600);
/// Tries for what the store refuses for another reason than being away.
const TRIES_MAX: u32 = 3;
