//! Intake: the future inside a consumer's own context. Fetches as much as may run, hands it to the handler, and settles what that answers.
//!
//! ```text
//!   fetch ─> queue ─> handler ──Ok──> ack
//!                        ├──Err────> nack, after a back-off; or dead letter, after the last attempt
//!                        └─silence─> the store gives it to someone; a late Ok still acks
//! ```
//!
//! An entry becomes a dead letter for what its own handler did, and for nothing else. A handler that answers `Err` is plain. When the actor panics, several entries
//! may have been in its hands, and those that lay in the queue have used up an attempt untried. So an attempt more than allowed is no verdict: such an
//! entry is a *suspect* and handled alone. If the actor then dies of it, it is that entry's doing.

use std::collections::HashMap;
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
use crate::feed::backoff::backoff;
use crate::feed::backoff::store_backoff;
use crate::feed::types::decode;
use crate::ids::EntryId;
use crate::log::Fetch;
use crate::log::Fetched;
use crate::log::StoreError;
use crate::log::Token;
use crate::observe;
use crate::stream::consumer::ConsumeOptions;
use crate::stream::consumer::Shared;
use crate::stream::delivery::Delivery;
use crate::stream::delivery::Failure;
use crate::stream::delivery::Then;
use crate::stream::delivery::Until;
use crate::stream::member::Member;
use crate::stream::member::Settle;

pub(crate) struct Intake<M> {
    member: Arc<Member>,
    options: ConsumeOptions,
    shared: Arc<Shared>,
    /// The group is being made.
    joining: Option<Work>,
    fetching: Option<Fetching>,
    queue: VecDeque<(Fetched, Instant)>,
    /// Entries that were given up unstarted, and how often: that was no try.
    untried: HashMap<EntryId, u32>,
    /// The last handler made its actor wait: there is no use in fetching for more than one.
    serial: bool,
    /// Whose handler is being called.
    current: Option<EntryId>,
    running: Vec<Running>,
    /// Handlers that are silent for longer than the visibility: no longer counted, but a late answer of theirs counts.
    late: VecDeque<Running>,
    acks: Vec<Token>,
    acking: Option<(Vec<Token>, Work)>,
    /// Nacks and dead letters under way.
    settling: Vec<(Settle, Work)>,
    pause: Option<Pin<Box<Sleep>>>,
    /// When the first of the running is silent for too long.
    alarm: Option<Pin<Box<Sleep>>>,
    failures: u32,
    leaving: Option<Work>,
    closed: Work,
    message: std::marker::PhantomData<fn() -> M>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Fetching = Pin<Box<dyn Future<Output = (Instant, Instant, Result<Vec<Fetched>, StoreError>)> + Send>>;

/// An entry in the handler's hands.
struct Running {
    fetched: Fetched,
    answer: oneshot::Receiver<Result<(), Failure>>,
    until: Arc<Until>,
}

impl<M> Intake<M> {
    pub(crate) fn new(member: Member, options: ConsumeOptions, shared: Arc<Shared>) -> Self {
        let member = Arc::new(member);
        member.feed.intake_begins();
        member.counters.joined();
        let closed: Work = {
            let feed = Arc::clone(&member.feed);
            Box::pin(async move { feed.closed().await })
        };
        let joining = Box::pin(Arc::clone(&member).join(options.start, options.visibility));
        Self {
            member,
            options,
            shared,
            joining: Some(joining),
            fetching: None,
            queue: VecDeque::new(),
            untried: HashMap::new(),
            serial: false,
            current: None,
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
                Ok(Ok(())) => {
                    self.untried.remove(&fetched.id);
                    self.member.counters.count_handled();
                    self.acks.push(fetched.token);
                }
                Ok(Err(failure)) => self.failed(fetched, &failure),
                // The response was dropped without an answer.
                Err(_) => self.failed(fetched, &Failure::new("the handler gave no answer")),
            }
        }
        any
    }

    fn failed(&mut self, fetched: Fetched, failure: &Failure) {
        let (group, attempt) = (&self.member.group, fetched.attempt);
        if failure.then == Then::Dead || self.tries(&fetched) >= self.options.attempts_max {
            self.settle(Settle::Bury(fetched, failure.reason().to_owned()));
            return;
        }
        self.member.feed.tell_failed(group, &self.member.counters, fetched.id, attempt, failure.reason());
        let delay = match failure.then {
            Then::AgainAfter(delay) => delay,
            Then::Again | Then::Dead => backoff(attempt, self.options.backoff_min, self.options.backoff_max),
        };
        self.settle(Settle::Nack(vec![fetched.token], delay));
    }

    fn settle(&mut self, settle: Settle) {
        if let Settle::Bury(fetched, _) = &settle {
            self.untried.remove(&fetched.id);
        }
        let work = Arc::clone(&self.member).settle(settle.clone());
        self.settling.push((settle, Box::pin(work)));
    }

    /// It was handed out more often than allowed, but perhaps never tried: it is handled alone.
    fn is_suspect(&self, fetched: &Fetched) -> bool {
        self.tries(fetched) > self.options.attempts_max
    }

    /// How often it was tried, this time included, as far as is known here.
    fn tries(&self, fetched: &Fetched) -> u32 {
        fetched.attempt.saturating_sub(self.untried.get(&fetched.id).copied().unwrap_or(0))
    }

    fn leave_untried(&mut self, id: EntryId) {
        if self.untried.len() < UNTRIED_MAX {
            *self.untried.entry(id).or_default() += 1;
        }
    }

    /// Who is silent for too long makes room for others: the store gives the entry to someone.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = Instant::now();
            // One that was extended may come back.
            let all = self.running.drain(..).chain(self.late.drain(..));
            let (running, silent): (Vec<_>, Vec<_>) = all.partition(|running| running.until.at() > now);
            (self.running, self.late) = (running, silent.into());
            while self.late.len() > LATE_MAX {
                self.late.pop_front();
            }
            let Some(first) = self.running.iter().map(|running| running.until.at()).min() else {
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
        self.settling.retain_mut(|(_, work)| work.as_mut().poll(cx).is_pending());
        loop {
            if let Some((_, acking)) = &mut self.acking {
                if acking.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.acking = None;
            }
            if self.acks.is_empty() {
                return;
            }
            let tokens = std::mem::take(&mut self.acks);
            let work = Arc::clone(&self.member).settle(Settle::Ack(tokens.clone()));
            self.acking = Some((tokens, Box::pin(work)));
        }
    }

    /// Fetches what may be started. `true`: something came.
    fn poll_fetch(&mut self, cx: &mut Context<'_>, waiting: bool) -> bool {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.pause = None;
        }
        let suspect = self.queue.iter().map(|(fetched, _)| fetched).chain(self.running.iter().map(|running| &running.fetched));
        let room = if waiting || suspect.into_iter().any(|fetched| self.is_suspect(fetched)) {
            // What is fetched now could not be started.
            0
        } else {
            let handlers = if self.serial { 1 } else { self.options.concurrency };
            handlers.saturating_sub(self.running.len() + self.queue.len())
        };
        // Failed entries under way are bounded, too: a store that is away stops the fetching.
        if self.fetching.is_none() && room > 0 && self.settling.len() < SETTLING_MAX {
            let member = Arc::clone(&self.member);
            let fetch = Fetch { entries: room, visibility: self.options.visibility, wait: FETCH_WAIT };
            self.fetching = Some(Box::pin(async move {
                let begun = Instant::now();
                let fetched = member.feed.store.fetch(&member.group, &member.name, fetch).await;
                (begun, Instant::now(), fetched)
            }));
        }
        let Some(fetching) = &mut self.fetching else { return false };
        let Poll::Ready((begun, at, fetched)) = fetching.as_mut().poll(cx) else { return false };
        self.fetching = None;
        match fetched {
            Ok(fetched) => {
                self.failures = 0;
                if fetched.is_empty() && at - begun < FETCH_WAIT / 2 {
                    self.pause = Some(Box::pin(tokio::time::sleep(FETCH_REST)));
                }
                self.queue.extend(fetched.into_iter().map(|fetched| (fetched, at + self.options.visibility)));
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    self.member.feed.tell_unavailable("fetch", &self.member.group.topic, &error);
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

    /// Whether the first of the queue may be started beside what runs.
    fn may_start(&self) -> bool {
        let alone = self.queue.front().is_some_and(|(fetched, _)| self.is_suspect(fetched));
        self.running.is_empty() || !alone && !self.running.iter().any(|running| self.is_suspect(&running.fetched))
    }

    /// What cannot be started soon is someone else's.
    fn give_back_queue(&mut self) {
        let queue: Vec<_> = self.queue.drain(..).map(|(fetched, _)| fetched).collect();
        for fetched in &queue {
            self.leave_untried(fetched.id);
        }
        if !queue.is_empty() {
            let tokens = queue.into_iter().map(|fetched| fetched.token).collect();
            self.settle(Settle::Nack(tokens, Duration::ZERO));
        }
    }

    /// Everything is done: leave the group.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.fetching = None;
        self.give_back_queue();
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
            observe::delivery_foreign(&group.topic, group.name.as_str(), fetched.id, &entry.name);
            self.acks.push(fetched.token);
            return;
        }
        // Tried alone as often as it may be tried at all, and it is still here: it kills whole processes.
        if self.tries(&fetched) > self.options.attempts_max.saturating_mul(2) {
            // This time it is not handed out.
            let fetched = Fetched { attempt: fetched.attempt - 1, ..fetched };
            let reason = format!("delivered {} times, the limit is {}", fetched.attempt, self.options.attempts_max);
            self.settle(Settle::Bury(fetched, reason));
            return;
        }
        let message = match decode::<M>(&entry.payload) {
            Ok(message) => message,
            Err(error) => {
                let reason = format!("no message of type {}: {error}", M::NAME);
                self.settle(Settle::Bury(fetched, reason));
                return;
            }
        };
        let until = Arc::new(Until::new(until, Arc::clone(&self.shared)));
        let delivery = Delivery {
            message,
            headers: entry.headers.clone(),
            attempt: fetched.attempt,
            token: fetched.token.clone(),
            group: Arc::clone(group),
            feed: Arc::clone(&self.member.feed),
            until: Arc::clone(&until),
        };
        let (tell, answer) = oneshot::channel();
        // Before the handler: if that panics, this is what the end of the actor gives back.
        self.current = Some(fetched.id);
        self.member.counters.count_delivered(fetched.attempt);
        self.running.push(Running { fetched, answer, until });
        let response = Handler::<Delivery<M>>::handle(actor, delivery, ctx);
        MessageResponse::handle(response, ctx, Some(tell));
        self.current = None;
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
                && this.may_start()
                && let Some((fetched, until)) = this.queue.pop_front()
            {
                if until > Instant::now() {
                    this.start(fetched, until, actor, ctx);
                    this.serial = ctx.waiting();
                    if this.serial {
                        this.give_back_queue();
                    }
                } else {
                    // Its time was over before it was begun: it is someone else's by now.
                    this.leave_untried(fetched.id);
                }
                left -= 1;
                started = true;
                if left == 0 {
                    // Its arbiter has others to run.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            let came = this.poll_fetch(cx, ctx.waiting());
            if !came && !started && !answered {
                return Poll::Pending;
            }
        }
    }
}

/// What the actor leaves behind is given to the others, at once: as data, since futures that this arbiter has polled may end with it.
impl<M> Drop for Intake<M> {
    fn drop(&mut self) {
        self.shared.end();
        let member = Arc::clone(&self.member);
        // One that was answered and not yet looked at is not done again.
        let mut acks = std::mem::take(&mut self.acks);
        acks.extend(self.acking.take().into_iter().flat_map(|(tokens, _)| tokens));
        let mut settles: Vec<Settle> = self.settling.drain(..).map(|(settle, _)| settle).collect();
        let mut rest = Duration::ZERO;
        let in_hand = self.running.len() + self.late.len();
        for mut running in self.running.drain(..).chain(self.late.drain(..)) {
            if matches!(running.answer.try_recv(), Ok(Ok(()))) {
                acks.push(running.fetched.token);
                continue;
            }
            // Whose doing a panic was: that of the handler being called; that of the only one there was.
            let guilty = std::thread::panicking() && (self.current == Some(running.fetched.id) || in_hand == 1);
            let untried = self.untried.get(&running.fetched.id).copied().unwrap_or(0);
            if guilty && running.fetched.attempt.saturating_sub(untried) >= self.options.attempts_max {
                settles.push(Settle::Bury(running.fetched, String::from(DIED)));
                continue;
            }
            let delay = backoff(running.fetched.attempt, self.options.backoff_min, self.options.backoff_max);
            rest = rest.max(delay);
            settles.push(Settle::Nack(vec![running.fetched.token], delay));
        }
        let queued: Vec<_> = self.queue.drain(..).map(|(fetched, _)| fetched.token).collect();
        let feed = Arc::clone(&self.member.feed);
        feed.spawn(async move {
            if !acks.is_empty() {
                Arc::clone(&member).settle(Settle::Ack(acks)).await;
            }
            if !queued.is_empty() {
                Arc::clone(&member).settle(Settle::Nack(queued, Duration::ZERO)).await;
            }
            for settle in settles {
                Arc::clone(&member).settle(settle).await;
            }
            // To leave the group gives everything back at once, so not before the back-off is over; and not under a name that another may have by then.
            if member.own_name && (rest.is_zero() || tokio::time::timeout(rest, member.feed.closed()).await.is_err()) {
                member.leave().await;
            }
        });
        self.member.counters.left();
        feed.intake_ends();
    }
}

/// Why an entry is given up whose consumer did not survive its last attempt.
const DIED: &str = "the consumer died of it";
/// Deliveries that one poll hands out before it yields.
const POLL_DELIVERIES: usize = 64;
/// How long one fetch waits; then there is another.
const FETCH_WAIT: Duration = Duration::from_secs(20);
/// The least rest between two fetches that bring nothing: a store that does not wait must not keep an arbiter busy.
const FETCH_REST: Duration = Duration::from_millis(1);
/// Silent handlers whose late answer is still listened for.
const LATE_MAX: usize = 1_024;
/// Entries whose untried deliveries are remembered.
const UNTRIED_MAX: usize = 10_000;
/// Failed entries that are being settled; above it nothing is fetched.
const SETTLING_MAX: usize = 1_024;
