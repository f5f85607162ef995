//! Relay: the actor that carries broadcasts between this node and its engine. It owns the clock and the link; what is decided is decided in `core`.
//!
//! It runs in an arbiter of its own. Nothing waits for it: publishers and transports put what they have into bounded queues, and it takes from there.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use actix::Actor;
use actix::ActorContext;
use actix::ActorFuture;
use actix::AsyncContext;
use actix_rt::System;
use actix_rt::time::Interval;
use actix_rt::time::Sleep;
use bytes::Bytes;

use crate::cluster::core::Action;
use crate::cluster::core::Ask;
use crate::cluster::core::Core;
use crate::cluster::core::Received;
use crate::cluster::event::ClusterEvent;
use crate::cluster::frame::Frame;
use crate::cluster::frame::FrameError;
use crate::cluster::hub::Asked;
use crate::cluster::hub::Hub;
use crate::cluster::hub::Outbound;
use crate::cluster::hub::Queued;
use crate::cluster::queue::Queue;
use crate::cluster::subject::Subject;
use crate::cluster::trace;
use crate::cluster::transport::Arrived;
use crate::cluster::transport::Identity;
use crate::cluster::transport::Inbound;
use crate::cluster::transport::Link;
use crate::cluster::transport::Outgoing;
use crate::cluster::transport::Transport;
use crate::cluster::transport::TransportError;
use crate::cluster::transport::Work;
use crate::event::Body;
use crate::event::Head;
use crate::event::within;
use crate::feed::backoff::backoff;
use crate::feed::types::Foreign;
use crate::feed::types::Kind;
use crate::local::background::start_thread;
use crate::local::incident::IncidentKind;
use crate::local::shard::Shard;
use crate::observe;
use crate::sync::Arc;
use crate::sync::Ordering;
use crate::topic::Topic;

/// The actor. Its work is one future in its context, [`Turns`].
pub(crate) struct Relay {
    hub: Arc<Hub>,
    system: System,
    transport: Arc<dyn Transport>,
    identity: Identity,
    core: Core,
    inbound: Arc<Queue<Arrived>>,
    inbound_refused: u64,
    link: LinkState,
    /// Tries to make a link since the last one that held.
    tries: u32,
    /// Frames with their numbers, in the order in which they go out.
    numbered: VecDeque<Outgoing>,
    sending: Option<(Done, Instant)>,
    said_bye: bool,
    asking: Option<(Ask, Done, Instant)>,
    /// What was taken and not worked on yet.
    arrived: VecDeque<Arrived>,
    outbound: VecDeque<Queued>,
    asked: VecDeque<Asked>,
    counting: Vec<(Instant, u64)>,
    tick: Interval,
    /// Whom to wake for what was delivered in this turn.
    asleep: Vec<Arc<Shard>>,
    /// The type of the last frame: most frames are of the same one.
    last_kind: Option<Arc<dyn Kind>>,
    warned: HashMap<&'static str, Instant>,
    warned_names: HashMap<Box<str>, Instant>,
    events: Topic,
}

/// What a link was asked for.
type Done = Work<Result<(), TransportError>>;

enum LinkState {
    Connecting(Work<Result<Arc<dyn Link>, TransportError>>, Instant),
    /// It is there, and is asked for what is sent to all and to this node.
    Joining(Arc<dyn Link>, Done, Instant),
    Up(Arc<dyn Link>, Work<TransportError>),
    Resting(Pin<Box<Sleep>>),
    /// The last frames are on their way.
    Leaving(Arc<dyn Link>, Instant),
    /// The link is held until it is closed: dropped, it lets go of what is on its way.
    Closing(#[expect(dead_code, reason = "it is held")] Arc<dyn Link>, Work<()>, Instant),
    Closed,
}

impl Relay {
    /// Starts the relay of `hub` on a thread of its own.
    pub(crate) fn launch(hub: Arc<Hub>, transport: Arc<dyn Transport>, identity: Identity) -> std::io::Result<()> {
        let system = start_thread("actix-pubsub-relay")?;
        let spawner = system.arbiter().clone();
        spawner.spawn_fn(move || {
            let (core, events) = (
                Core::new(
                    identity.node,
                    Arc::clone(&identity.name),
                    transport.caps(),
                    hub.options.timing(),
                    hub.options.frame_bytes_max,
                ),
                Topic::parse(ClusterEvent::TOPIC),
            );
            // It is a topic.
            let Ok(events) = events else { return };
            let tick = actix_rt::time::interval(hub.options.timing().heartbeat / TICKS);
            let relay = Self {
                core,
                system,
                transport,
                identity,
                inbound: Arc::new(Queue::new(INBOUND_FRAMES, INBOUND_BYTES)),
                inbound_refused: 0,
                link: LinkState::Closed,
                tries: 0,
                numbered: VecDeque::new(),
                sending: None,
                said_bye: false,
                asking: None,
                arrived: VecDeque::new(),
                outbound: VecDeque::new(),
                asked: VecDeque::new(),
                counting: Vec::new(),
                tick,
                asleep: Vec::new(),
                last_kind: None,
                warned: HashMap::new(),
                warned_names: HashMap::new(),
                events,
                hub,
            };
            relay.start();
        });
        Ok(())
    }

    // ---- one turn ----------------------------------------------------------------------------------------------------

    /// Does what there is to do, and no more than a bounded amount of it. `Ready`: it has ended.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        self.turn_link(cx, now);
        if matches!(self.link, LinkState::Closed) {
            return Poll::Ready(());
        }
        while self.tick.poll_tick(cx).is_ready() {
            self.turn_time(now);
        }
        self.turn_asked(cx.waker(), now);
        self.turn_changes(now);
        let mut more = self.turn_inbound(cx.waker(), now);
        // Once for all that came, not once for each.
        self.wake();
        self.act();
        more |= self.turn_outbound(cx, now);
        self.turn_ask(cx, now);
        self.core.tell_peers(now);
        self.act();
        let idle = self.sending.is_none() && self.can_send();
        if more || idle && (self.said_bye || !self.numbered.is_empty()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn turn_time(&mut self, now: Instant) {
        self.core.tick(now);
        self.counting.retain(|(until, id)| {
            let over = *until <= now;
            if over {
                self.hub.stop_counting(*id);
            }
            !over
        });
        let refused = self.inbound.refused();
        if refused > self.inbound_refused {
            self.hub.counters.inbound_full.add(refused - self.inbound_refused);
            self.inbound_refused = refused;
            self.core.overflowed();
            self.warn("inbound", |engine| observe::inbound_full(engine, INBOUND_FRAMES));
        }
        let sending = self.sending.as_ref().map(|(_, since)| *since);
        let asking = self.asking.as_ref().map(|(_, _, since)| *since);
        if [sending, asking].into_iter().flatten().any(|since| self.identity.is_overdue(since, now)) {
            self.lose_link(&no_answer(), now);
        }
    }

    fn turn_changes(&mut self, now: Instant) {
        for topic in self.hub.changes.take() {
            let listens = self.hub.listens(&topic);
            self.core.listens(&topic, listens, now);
        }
    }

    fn turn_asked(&mut self, waker: &Waker, now: Instant) {
        self.hub.asked.drain(&mut self.asked, waker);
        while let Some(asked) = self.asked.pop_front() {
            match asked {
                Asked::Count { id, topic } => {
                    self.core.count(id, topic);
                    self.counting.push((now + self.identity.failure_timeout, id));
                }
                Asked::Changed => {}
            }
        }
    }

    // ---- the link ----------------------------------------------------------------------------------------------------

    fn turn_link(&mut self, cx: &mut Context<'_>, now: Instant) {
        // Each step leads to one that waits, or to the end.
        for _ in 0..LINK_STEPS_MAX {
            if self.hub.is_closed() && self.leave(now) {
                continue;
            }
            let step = match &mut self.link {
                LinkState::Closed => return,
                LinkState::Connecting(work, since) => match work.as_mut().poll(cx) {
                    Poll::Ready(Ok(link)) => {
                        let joined = link.subscribe(vec![Subject::All, Subject::Node(self.identity.node)]);
                        LinkState::Joining(link, joined, now)
                    }
                    Poll::Ready(Err(error)) => self.rest(&error, now),
                    Poll::Pending if self.identity.is_overdue(*since, now) => self.rest(&no_answer(), now),
                    Poll::Pending => return,
                },
                LinkState::Joining(link, work, since) => match work.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => {
                        let (link, ended) = (Arc::clone(link), link.ended());
                        self.hub.counters.links.add(1);
                        self.hub.link.store(true, Ordering::Release);
                        self.core.link_up(now);
                        observe::link_up(self.hub.engine, &self.identity.name);
                        LinkState::Up(link, ended)
                    }
                    Poll::Ready(Err(error)) => self.rest(&error, now),
                    Poll::Pending if self.identity.is_overdue(*since, now) => self.rest(&no_answer(), now),
                    Poll::Pending => return,
                },
                LinkState::Up(_, ended) => match ended.as_mut().poll(cx) {
                    Poll::Ready(error) => {
                        self.lose_link(&error, now);
                        continue;
                    }
                    Poll::Pending => {
                        return;
                    }
                },
                LinkState::Resting(sleep) => match sleep.as_mut().poll(cx) {
                    Poll::Ready(()) => {
                        let inbound = Inbound::new(Arc::clone(&self.inbound));
                        LinkState::Connecting(self.transport.connect(&self.identity, inbound), now)
                    }
                    Poll::Pending => return,
                },
                LinkState::Leaving(link, until) => {
                    let sent = self.said_bye && self.sending.is_none() && self.numbered.is_empty();
                    if !sent && now < *until {
                        return;
                    }
                    LinkState::Closing(Arc::clone(link), link.close(), *until)
                }
                LinkState::Closing(_, work, until) => {
                    if work.as_mut().poll(cx).is_pending() && now < *until {
                        return;
                    }
                    LinkState::Closed
                }
            };
            self.link = step;
        }
        cx.waker().wake_by_ref();
    }

    /// The pub/sub is shut down. `true`: the state has changed.
    fn leave(&mut self, now: Instant) -> bool {
        match std::mem::replace(&mut self.link, LinkState::Closed) {
            LinkState::Up(link, _) => {
                // Behind everything that was queued before.
                self.link = LinkState::Leaving(link, now + LEAVE_TIME);
                true
            }
            other @ (LinkState::Leaving(..) | LinkState::Closing(..)) => {
                self.link = other;
                false
            }
            LinkState::Connecting(..) | LinkState::Joining(..) | LinkState::Resting(_) | LinkState::Closed => false,
        }
    }

    /// A link was not made, or was lost. Says so the first time.
    fn rest(&mut self, error: &TransportError, now: Instant) -> LinkState {
        self.hub.counters.link_failures.add(1);
        self.tries += 1;
        if self.tries == 1 {
            observe::link_down(self.hub.engine, &self.identity.name, error);
            self.core.link_down(observe::chain(error).into(), now);
            self.act();
        }
        let (min, max) = (self.identity.failure_timeout / 100, self.identity.failure_timeout / 2);
        LinkState::Resting(Box::pin(actix_rt::time::sleep(backoff(self.tries, min, max))))
    }

    fn lose_link(&mut self, error: &TransportError, now: Instant) {
        self.hub.link.store(false, Ordering::Release);
        // What was with the engine is gone with it; what waits here goes by the next link.
        self.sending = None;
        self.asking = None;
        self.tries = 0;
        let resting = self.rest(error, now);
        self.link = resting;
    }

    /// Whether there was a link or not: one that was never made is not lost, and the next try comes later than the last.
    fn give_up_link(&mut self, error: &TransportError, now: Instant) {
        match self.link {
            LinkState::Connecting(..) | LinkState::Joining(..) | LinkState::Resting(_) => self.link = self.rest(error, now),
            _ => self.lose_link(error, now),
        }
    }

    fn can_send(&self) -> bool {
        matches!(self.link, LinkState::Up(..) | LinkState::Leaving(..))
    }

    fn link(&self) -> Option<&Arc<dyn Link>> {
        match &self.link {
            LinkState::Up(link, _) | LinkState::Leaving(link, _) => Some(link),
            _ => None,
        }
    }

    // ---- out ---------------------------------------------------------------------------------------------------------

    /// `true`: there is more to do.
    fn turn_outbound(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        for _ in 0..SENDS_MAX {
            if let Some((sending, _)) = &mut self.sending {
                match sending.as_mut().poll(cx) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(())) => {
                        self.sending = None;
                        // It holds as well as it is made.
                        self.tries = 0;
                    }
                    Poll::Ready(Err(error)) => {
                        self.lose_link(&error, now);
                        return true;
                    }
                }
            }
            if !self.can_send() {
                return false;
            }
            self.take_outbound(cx.waker(), now);
            let Some(link) = self.link() else { return false };
            if self.numbered.is_empty() {
                return false;
            }
            let link = Arc::clone(link);
            let (mut bytes, mut count) = (0, 0);
            for outgoing in &self.numbered {
                if count == SEND_FRAMES || (count > 0 && bytes + outgoing.frame.len() > SEND_BYTES) {
                    break;
                }
                (count, bytes) = (count + 1, bytes + outgoing.frame.len());
            }
            let frames: Vec<_> = self.numbered.drain(..count).collect();
            self.sending = Some((link.send(frames), now));
        }
        true
    }

    /// Numbers what waits, as much as fits the next few sends: what is numbered is not in the bounded queue any more.
    fn take_outbound(&mut self, waker: &Waker, now: Instant) {
        let leaving = matches!(self.link, LinkState::Leaving(..));
        // It ends with enough, or after a look that found nothing: then the next that is queued wakes the relay.
        while self.numbered.len() < SEND_FRAMES {
            if self.outbound.is_empty() {
                self.hub.outbound.drain(&mut self.outbound, waker);
            }
            let Some(queued) = self.outbound.pop_front() else { break };
            let Outbound { subject, frame } = match queued {
                Queued::Frame(outbound) => outbound,
                Queued::Lost(lost) => {
                    for (subject, frames) in &lost {
                        self.core.refused(subject, *frames, now);
                    }
                    continue;
                }
            };
            self.hub.counters.sent.add(1);
            self.hub.counters.sent_bytes.add(frame.len() as u64);
            let outgoing = self.core.number(subject, frame, now);
            let before = self.numbered.len();
            self.route(outgoing);
            if !self.core.engine_routes() {
                for outgoing in self.numbered.range(before..) {
                    if let Subject::Node(node) = outgoing.subject {
                        self.core.sent_to(node, outgoing.frame.len());
                    }
                }
            }
        }
        let last = self.outbound.is_empty() && self.hub.outbound.len() == 0;
        if leaving && last && !self.said_bye {
            self.said_bye = true;
            self.core.leave();
            self.act();
        }
    }

    /// Where the engine does not know who listens to a topic, the relay does: each of those nodes gets the frame.
    fn route(&mut self, outgoing: Outgoing) {
        match outgoing.subject.topic().and_then(|topic| self.hub.listeners(topic)) {
            None => self.numbered.push_back(outgoing),
            Some(nodes) => {
                let to = |node| Outgoing { subject: Subject::Node(node), frame: outgoing.frame.clone() };
                self.numbered.extend(nodes.into_iter().map(to));
            }
        }
    }

    fn turn_ask(&mut self, cx: &mut Context<'_>, now: Instant) {
        for _ in 0..SENDS_MAX {
            if let Some((_, work, _)) = &mut self.asking {
                match work.as_mut().poll(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Err(error)) => return self.lose_link(&error, now),
                    Poll::Ready(Ok(())) => {}
                }
            }
            if let Some((Ask::Subscribe(topics), ..)) = self.asking.take() {
                // What has come in by now came before.
                self.inbound.push_always(Arrived::Confirmed(self.hub.counters.links.get(), topics));
            }
            let LinkState::Up(link, _) = &self.link else { return };
            let hub = &self.hub;
            let Some(ask) = self.core.ask(now, |topic| hub.leave(topic)) else { break };
            if !self.core.engine_routes() {
                self.asking = Some((ask, Box::pin(std::future::ready(Ok(()))), now));
                continue;
            }
            let subjects = |topics: &[Topic]| topics.iter().cloned().map(Subject::Topic).collect();
            let work = match &ask {
                Ask::Subscribe(topics) => link.subscribe(subjects(topics)),
                Ask::Unsubscribe(topics) => link.unsubscribe(subjects(topics)),
            };
            self.asking = Some((ask, work, now));
        }
        self.hub.counters.topics.store(self.core.topics() as u64, Ordering::Relaxed);
    }

    // ---- in ----------------------------------------------------------------------------------------------------------

    fn wake(&mut self) {
        for shard in self.asleep.drain(..) {
            // Who waits there may be the user's code.
            shard.guarded(|| shard.wake());
        }
    }

    /// `true`: there is more.
    fn turn_inbound(&mut self, waker: &Waker, now: Instant) -> bool {
        for taken in 0..INBOUND_BUDGET {
            if taken % WAKE_FRAMES == 0 {
                self.wake();
            }
            if self.arrived.is_empty() {
                // What came meanwhile belongs to the same turn.
                self.inbound.drain(&mut self.arrived, waker);
            }
            match self.arrived.pop_front() {
                None => return false,
                Some(Arrived::Gone(node)) => self.core.disconnected(node, now),
                Some(Arrived::Frame(bytes)) => self.receive(&bytes, now),
                Some(Arrived::Confirmed(link, topics)) if link == self.hub.counters.links.get() => self.core.confirmed(topics),
                // Of a link that is lost, and with it what it had confirmed.
                Some(Arrived::Confirmed(..)) => {}
            }
        }
        true
    }

    fn receive(&mut self, bytes: &Bytes, now: Instant) {
        let counters = &self.hub.counters;
        counters.received.add(1);
        counters.received_bytes.add(bytes.len() as u64);
        match self.core.receive(bytes, now) {
            Received::Deliver { topic, frame } => {
                // What was lost before it is told before it.
                self.act();
                self.deliver(&topic, &frame);
            }
            Received::Taken => {}
            Received::Own => counters.own.add(1),
            Received::Old => counters.old.add(1),
            Received::Unasked => counters.unasked.add(1),
            Received::Refused(error) => self.refuse(error),
        }
    }

    fn refuse(&mut self, error: FrameError) {
        let newer = error.is_newer();
        let counter = if newer { &self.hub.counters.newer } else { &self.hub.counters.malformed };
        counter.add(1);
        self.warn(if newer { "newer" } else { "malformed" }, |engine| observe::frame_refused(engine, &error));
    }

    fn deliver(&mut self, topic: &Topic, frame: &Frame<'_>) {
        let Some(kind) = self.kind(frame.fields.message) else {
            self.hub.counters.unknown.add(1);
            let shared = Arc::clone(&self.hub.shared);
            self.warn_name(frame.fields.message, |name| {
                observe::message_unknown(topic, name);
                let (topic, message) = (topic.clone(), name.to_owned());
                shared.incidents.add(IncidentKind::UnknownMessage { topic, message });
            });
            return;
        };
        let span = if frame.fields.traceparent.is_empty() {
            None
        } else {
            self.hub.shared.spans.span(|| {
                let span = observe::receive_span(topic, frame.origin);
                trace::continue_in(&span, frame.fields.traceparent, frame.fields.tracestate);
                span
            })
        };
        let foreign = Foreign {
            node: frame.origin,
            codec: &self.hub.options.codec,
            encoding: frame.fields.codec,
            payload: frame.payload,
            span: &span,
        };
        let delivered = within(&span, || kind.deliver(&self.hub.shared, topic, foreign, &mut self.asleep));
        match delivered {
            Ok(()) => self.hub.counters.delivered.add(1),
            Err(error) => {
                self.hub.counters.undecodable.add(1);
                let shared = Arc::clone(&self.hub.shared);
                self.warn_name(frame.fields.message, |name| {
                    observe::message_undecodable(topic, name, &error);
                    let (topic, message, error) = (topic.clone(), name.to_owned(), observe::chain(&error));
                    shared.incidents.add(IncidentKind::Undecodable { topic, message, error });
                });
            }
        }
    }

    /// The message type of that name. What a name means never changes.
    fn kind(&mut self, name: &str) -> Option<Arc<dyn Kind>> {
        if self.last_kind.as_ref().is_none_or(|last| last.name() != name) {
            self.last_kind = Some(self.hub.types.get(name)?);
        }
        self.last_kind.clone()
    }

    /// Says something of one kind once a minute.
    fn warn(&mut self, what: &'static str, say: impl FnOnce(&'static str)) {
        let now = Instant::now();
        if self.warned.get(what).is_none_or(|said| now.saturating_duration_since(*said) >= WARN_INTERVAL) {
            self.warned.insert(what, now);
            say(self.hub.engine);
        }
    }

    /// The same for each name of a message; strangers choose those, so there is a limit.
    fn warn_name(&mut self, name: &str, say: impl FnOnce(&str)) {
        let now = Instant::now();
        if self.warned_names.len() >= WARNED_NAMES_MAX {
            self.warned_names.retain(|_, said| now.saturating_duration_since(*said) < WARN_INTERVAL);
        }
        let known = self.warned_names.get(name);
        if known.is_none_or(|said| now.saturating_duration_since(*said) >= WARN_INTERVAL)
            && (known.is_some() || self.warned_names.len() < WARNED_NAMES_MAX)
        {
            self.warned_names.insert(name.into(), now);
            say(name);
        }
    }

    // ---- what the core says ------------------------------------------------------------------------------------------

    fn act(&mut self) {
        // Some lead to others.
        while let Some(action) = self.core.action() {
            match action {
                Action::Send(outgoing) => self.route(outgoing),
                Action::Tell(event) => self.tell(event),
                Action::Nodes => self.hub.set_nodes(self.core.nodes()),
                Action::Ready(topic) => self.hub.set_ready(&topic),
                Action::Unready => self.hub.unready(),
                Action::Listens { node, anew, more, less, settled } => {
                    self.hub.remote_listens(node, anew, more, &less);
                    if settled {
                        self.hub.remote_settled(node);
                    }
                }
                Action::Deaf(node) => self.hub.remote_deaf(node),
                Action::Forget(node) => self.hub.remote_forget(node),
                Action::Count { to, id, topic } => {
                    let subscribers = self.hub.shared.interest.subscribers(&topic) as u64;
                    self.core.answer_count(to, id, subscribers);
                }
                Action::Counted { node, id, subscribers } => self.hub.counted(node, id, subscribers),
            }
        }
    }

    fn tell(&mut self, event: ClusterEvent) {
        observe::cluster_event(&event);
        self.hub.shared.incidents.add(incident(&event));
        if let ClusterEvent::NodeRefused { node } = &event {
            observe::node_refused(node.id, &node.name);
        }
        if let ClusterEvent::Lost { events, .. } = &event {
            self.hub.counters.lost.add(*events);
        }
        let shared = &self.hub.shared;
        let Some(ports) = shared.interest.ports(&self.events, std::any::TypeId::of::<ClusterEvent>()) else { return };
        let body = Arc::new(Body::new(event));
        for port in ports.iter() {
            // A full port is told by `missed()`.
            let _ = port.shard().publish(port, None, Head::shared(self.events.clone(), shared.node, &body, None));
        }
    }
}

fn incident(event: &ClusterEvent) -> IncidentKind {
    match event.clone() {
        ClusterEvent::NodeUp { node } => IncidentKind::NodeUp { node: node.id, name: node.name },
        ClusterEvent::NodeDown { node, reason } => {
            IncidentKind::NodeDown { node: node.id, name: node.name, reason: reason.to_string() }
        }
        ClusterEvent::NodeRefused { node } => IncidentKind::NodeRefused { node: node.id, name: node.name },
        ClusterEvent::LinkUp => IncidentKind::LinkUp,
        ClusterEvent::LinkDown { reason } => IncidentKind::LinkDown { reason },
        ClusterEvent::Lost { origin, topic, events } => IncidentKind::Lost { origin, topic, events },
    }
}

impl Actor for Relay {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.link = LinkState::Resting(Box::pin(actix_rt::time::sleep(Duration::ZERO)));
        ctx.spawn(Turns);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.hub.link.store(false, Ordering::Release);
        // Whoever waits for it waits no more, whatever ended it.
        self.hub.close();
        self.hub.done.set();
        self.system.stop();
    }
}

struct Turns;

impl ActorFuture<Relay> for Turns {
    type Output = ();

    fn poll(self: Pin<&mut Self>, relay: &mut Relay, ctx: &mut actix::Context<Relay>, cx: &mut Context<'_>) -> Poll<()> {
        match catch_unwind(AssertUnwindSafe(|| relay.turn(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                ctx.stop();
                Poll::Ready(())
            }
            Err(_) => {
                // A transport is another's code. Its link is given up, and a new one is made.
                relay.hub.counters.panics.add(1);
                observe::transport_panicked(relay.hub.engine);
                relay.give_up_link(&TransportError::because("the transport panicked"), Instant::now());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

fn no_answer() -> TransportError {
    TransportError::because("the engine did not answer in time")
}

/// Looks at the time, a heartbeat.
const TICKS: u32 = 4;
/// Steps of the link in one turn, so that no transport that answers at once keeps the relay from all else.
const LINK_STEPS_MAX: usize = 8;
/// Frames in one send.
const SEND_FRAMES: usize = 512;
const SEND_BYTES: usize = 256 * 1024;
/// Sends in one turn.
const SENDS_MAX: usize = 4;
/// Frames that may wait for the relay; what it does in about a tenth of a second.
const INBOUND_FRAMES: usize = 65_536;
const INBOUND_BYTES: usize = 64 * 1_048_576;
/// Frames taken in one turn.
const INBOUND_BUDGET: usize = 256;
/// After so many whoever got some is woken: what they take together is a fraction of a millisecond.
const WAKE_FRAMES: usize = 32;
/// For what was broadcast before a shutdown.
const LEAVE_TIME: Duration = Duration::from_secs(1);
const WARN_INTERVAL: Duration = Duration::from_secs(60);
const WARNED_NAMES_MAX: usize = 64;
