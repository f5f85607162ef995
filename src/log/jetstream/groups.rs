//! Groups: a durable consumer for each; acks and what becomes of them. Knows no fetching.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::ids::EntryId;
use crate::log::entry::Append;
use crate::log::entry::Fetched;
use crate::log::entry::Group;
use crate::log::entry::GroupInfo;
use crate::log::entry::Name;
use crate::log::entry::Position;
use crate::log::entry::Token;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::log::jetstream::Shared;
use crate::log::jetstream::api;
use crate::log::jetstream::api::ConsumerConfig;
use crate::log::jetstream::api::ConsumerInfo;
use crate::log::jetstream::api::ConsumerPage;
use crate::log::jetstream::api::CreateConsumer;
use crate::log::jetstream::api::Done;
use crate::log::jetstream::codec;
use crate::log::jetstream::connection::Again;
use crate::log::jetstream::connection::NoAnswer;
use crate::log::pending::PENDING_MAX;
use crate::log::store::letter;
use crate::sync::lock;
use crate::topic::Topic;

/// What is written into a group's consumer: its name, which may not fit the consumer's, and whether its visibility is settled.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    group: String,
    visibility_settled: bool,
}

/// What this process knows of its deliveries. The server does not tell what is pending, nor whether an ack found something to ack.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<Group, HeldGroup>>);

#[derive(Default)]
struct HeldGroup {
    entries: BTreeMap<u64, State>,
    /// A fetch has lost its connection: it may have been over an entry that the client cannot read.
    suspect: bool,
    /// Entries that were looked at since, and can be read.
    looked_at: BTreeSet<u64>,
    /// Until when this process has those that cannot.
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    until: Instant,
    visibility: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The last delivery that this process had.
    Delivered(u32),
    Acked,
    /// An ack of that delivery is under way, or a dead letter: nothing else counts until it is known what became of it.
    Settling(u32),
}

/// An ack or a dead letter that is under way. If that fails, or is given up, the delivery is as it was.
struct Settling<'a> {
    held: &'a Held,
    group: &'a Group,
    seq: u64,
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        if let Some(State::Settling(attempt)) = self.held.get(self.group, self.seq) {
            self.held.set(self.group, self.seq, State::Delivered(attempt));
        }
    }
}

impl Held {
    pub(super) fn knows(&self, group: &Group) -> bool {
        lock(&self.0).contains_key(group)
    }

    pub(super) fn open(&self, group: &Group) {
        lock(&self.0).entry(group.clone()).or_default();
    }

    fn forget(&self, group: &Group) {
        lock(&self.0).remove(group);
    }

    pub(super) fn forget_topic(&self, topic: &Topic) {
        lock(&self.0).retain(|group, _| group.topic != *topic);
    }

    fn get(&self, group: &Group, seq: u64) -> Option<State> {
        lock(&self.0).get(group)?.entries.get(&seq).copied()
    }

    fn set(&self, group: &Group, seq: u64, state: State) {
        let mut groups = lock(&self.0);
        let entries = &mut groups.entry(group.clone()).or_default().entries;
        entries.insert(seq, state);
        while entries.len() > HELD_MAX {
            entries.pop_first();
        }
    }

    pub(super) fn delivered(&self, group: &Group, seq: u64, attempt: u32) {
        self.set(group, seq, State::Delivered(attempt));
    }

    pub(super) fn suspect(&self, group: &Group, suspect: bool) {
        if let Some(held) = lock(&self.0).get_mut(group) {
            held.suspect = suspect;
        }
    }

    pub(super) fn is_suspect(&self, group: &Group) -> bool {
        lock(&self.0).get(group).is_some_and(|held| held.suspect)
    }

    /// Those of `which` that may be unreadable for all that is known, the newest first, at most `max`.
    fn to_look_at(&self, group: &Group, which: &RangeInclusive<u64>, max: usize) -> Vec<u64> {
        let mut groups = lock(&self.0);
        let held = groups.entry(group.clone()).or_default();
        held.looked_at = held.looked_at.split_off(which.start());
        held.taken = held.taken.split_off(which.start());
        let known = |seq: &u64| held.taken.contains_key(seq) || held.looked_at.contains(seq) || held.entries.contains_key(seq);
        which.clone().rev().filter(|seq| !known(seq)).take(max).collect()
    }

    fn looked_at(&self, group: &Group, seq: u64) {
        if let Some(held) = lock(&self.0).get_mut(group)
            && held.looked_at.len() < HELD_MAX
        {
            held.looked_at.insert(seq);
        }
    }

    /// Takes what nobody of this process has, for so long; which attempt it is.
    fn take(&self, group: &Group, seq: u64, visibility: Duration) -> Option<u32> {
        let mut groups = lock(&self.0);
        let held = groups.get_mut(group)?;
        let now = Instant::now();
        let attempt = match held.entries.get(&seq) {
            Some(State::Acked | State::Settling(_)) => return None,
            Some(State::Delivered(attempt)) => attempt.saturating_add(1),
            None => 1,
        };
        if held.taken.get(&seq).is_some_and(|taken| taken.until > now) {
            return None;
        }
        held.taken.insert(seq, Taken { until: now + visibility, visibility });
        held.entries.insert(seq, State::Delivered(attempt));
        Some(attempt)
    }

    /// Begins to settle a delivery, the last or with `any` an earlier one. `None`: nothing is known of it here.
    fn settle(&self, group: &Group, seq: u64, attempt: u32, any: bool) -> Option<bool> {
        let mut groups = lock(&self.0);
        let state = groups.get_mut(group)?.entries.get_mut(&seq)?;
        match *state {
            State::Delivered(last) if any || last == attempt => {
                *state = State::Settling(last);
                Some(true)
            }
            _ => Some(false),
        }
    }

    /// What was told to the server of an entry counts for one that is taken, too.
    fn told(&self, group: &Group, seq: u64, act: &Act) {
        let mut groups = lock(&self.0);
        let Some(taken) = groups.get_mut(group).and_then(|held| held.taken.get_mut(&seq)) else { return };
        let kept = match act {
            Act::Ack | Act::Extend => taken.visibility,
            Act::Nack(delay) => *delay,
        };
        taken.until = Instant::now() + kept;
    }
}

/// What is done with a delivery.
enum Act {
    Ack,
    Nack(Duration),
    Extend,
}

impl Act {
    fn body(&self) -> Bytes {
        match self {
            Self::Ack => Bytes::from_static(b"+ACK"),
            Self::Nack(delay) if delay.is_zero() => Bytes::from_static(b"-NAK"),
            Self::Nack(delay) => Bytes::from(format!("-NAK {{\"delay\":{}}}", api::nanos(*delay))),
            Self::Extend => Bytes::from_static(b"+WPI"),
        }
    }
}

/// The group's consumer.
pub(super) fn consumer(name: &Name) -> String {
    format!("{GROUP_PREFIX}{}", codec::encode_bounded(name.as_str()))
}

impl Shared {
    pub(super) async fn create_group(&self, group: &Group, from: Position) -> Result<bool, StoreError> {
        let deadline = self.deadline();
        self.open(&group.topic, deadline).await?;
        if self.group_consumer(group, deadline).await?.is_some() {
            return Ok(false);
        }
        let Some(info) = self.stream_info(&group.topic, deadline).await? else {
            self.known.forget(&group.topic);
            return Err(StoreError::NoGroup(group.clone()));
        };
        let end = info.state.last_seq + 1;
        let start = match from {
            Position::Start => info.state.first_seq,
            Position::End => end,
            // A group cannot begin ahead of the log.
            Position::After(id) => codec::seq(id).saturating_add(1).min(end),
            Position::Since(ms) => self.first_since(&group.topic, ms, &info.state, deadline).await?,
        };
        let config = ConsumerConfig {
            durable_name: Some(consumer(&group.name)),
            description: about(group, false),
            deliver_policy: "by_start_sequence".to_owned(),
            opt_start_seq: Some(start.max(1)),
            ack_policy: "explicit".to_owned(),
            ack_wait: api::nanos(ACK_WAIT_UNSETTLED),
            // The server would skip what was delivered more often, silently; dead letters are made above.
            max_deliver: -1,
            max_ack_pending: PENDING_MAX as u64,
            max_waiting: WAITING_MAX,
            replay_policy: "instant".to_owned(),
            ..ConsumerConfig::default()
        };
        self.write_group(group, &config, deadline).await?;
        Ok(true)
    }

    async fn write_group(&self, group: &Group, config: &ConsumerConfig, deadline: Instant) -> Result<(), StoreError> {
        let stream = self.stream(&group.topic);
        let what = format!("CONSUMER.DURABLE.CREATE.{stream}.{}", consumer(&group.name));
        let body = CreateConsumer { stream_name: &stream, config };
        self.api::<ConsumerInfo>(&what, &body, Again::Yes, deadline).await??;
        Ok(())
    }

    /// The group's consumer as it is; `None`: it has none.
    pub(super) async fn group_consumer(&self, group: &Group, deadline: Instant) -> Result<Option<ConsumerInfo>, StoreError> {
        let what = format!("CONSUMER.INFO.{}.{}", self.stream(&group.topic), consumer(&group.name));
        match self.api::<ConsumerInfo>(&what, &json!({}), Again::Yes, deadline).await? {
            Ok(info) => Ok(Some(info)),
            Err(refused) if refused.is_not_found() => {
                self.held.forget(group);
                Ok(None)
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Sees to it that the group exists; its first fetch settles the visibility.
    pub(super) async fn open_group(&self, group: &Group, visibility: Duration, deadline: Instant) -> Result<(), StoreError> {
        if self.held.knows(group) {
            return Ok(());
        }
        let Some(info) = self.group_consumer(group, deadline).await? else { return Err(StoreError::NoGroup(group.clone())) };
        let settled = described(&info).is_none_or(|about| about.visibility_settled);
        if !settled {
            let mut config = info.config;
            config.description = about(group, true);
            // Zero would be the server's default.
            config.ack_wait = api::nanos(visibility).max(1);
            self.write_group(group, &config, deadline).await?;
        }
        self.held.open(group);
        Ok(())
    }

    pub(super) async fn delete_group(&self, group: &Group) -> Result<bool, StoreError> {
        let what = format!("CONSUMER.DELETE.{}.{}", self.stream(&group.topic), consumer(&group.name));
        let deleted = self.api::<Done>(&what, &json!({}), Again::Yes, self.deadline()).await?;
        self.held.forget(group);
        match deleted {
            Ok(_) => Ok(true),
            Err(refused) if refused.is_not_found() => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }

    /// The consumers that are groups of ours, with their names.
    pub(super) async fn group_consumers(
        &self,
        topic: &Topic,
        deadline: Instant,
    ) -> Result<BTreeMap<Name, ConsumerInfo>, StoreError> {
        let what = format!("CONSUMER.LIST.{}", self.stream(topic));
        let (mut groups, mut offset) = (BTreeMap::new(), 0);
        loop {
            let page = match self.api::<ConsumerPage>(&what, &json!({"offset": offset}), Again::Yes, deadline).await? {
                Ok(page) => page,
                Err(refused) if refused.is_not_found() => return Ok(groups),
                Err(refused) => return Err(refused.into()),
            };
            let consumers = page.consumers.unwrap_or_default();
            offset += consumers.len() as u64;
            let last = consumers.is_empty() || offset >= page.total;
            for info in consumers {
                let Some(part) = info.name.strip_prefix(GROUP_PREFIX) else { continue };
                let name = described(&info).map(|about| about.group).or_else(|| codec::decode(part));
                if let Some(name) = name.and_then(|name| Name::parse(&name).ok()) {
                    groups.insert(name, info);
                }
            }
            if last {
                return Ok(groups);
            }
        }
    }

    pub(super) async fn groups(&self, topic: &Topic) -> Result<Vec<GroupInfo>, StoreError> {
        let groups = self.group_consumers(topic, self.deadline()).await?;
        Ok(groups
            .into_iter()
            .map(|(name, consumer)| {
                let mut info = GroupInfo::new(name);
                let began_after = consumer.config.opt_start_seq.unwrap_or(1).saturating_sub(1);
                info.last_delivered = codec::id(consumer.delivered.stream_seq.max(began_after));
                info.lag = Some(consumer.num_pending);
                info.pending = consumer.num_ack_pending;
                info
            })
            .collect())
    }

    pub(super) async fn ack(&self, group: &Group, tokens: &[Token]) -> Result<u64, StoreError> {
        self.act(group, tokens, &Act::Ack).await
    }

    pub(super) async fn nack(&self, group: &Group, tokens: &[Token], delay: Duration) -> Result<u64, StoreError> {
        self.act(group, tokens, &Act::Nack(delay)).await
    }

    pub(super) async fn extend(&self, group: &Group, tokens: &[Token]) -> Result<u64, StoreError> {
        self.act(group, tokens, &Act::Extend).await
    }

    pub(super) async fn bury(
        &self,
        group: &Group,
        fetched: Fetched,
        to: &Topic,
        reason: &str,
        trim: Option<Trim>,
    ) -> Result<Option<EntryId>, StoreError> {
        let (stream, consumer, seq) = (self.stream(&group.topic), consumer(&group.name), codec::seq(fetched.token.id));
        let Some(reply) = reply_of(&fetched.token, &stream, &consumer) else { return Ok(None) };
        let Some(_settling) = self.settling(group, seq, fetched.token.attempt, false, &mut None).await? else { return Ok(None) };
        let letter = letter(group, &fetched, reason, self.settings.server.limits);
        let appended = self.append(to, Append { trim, ..Append::one(letter) }).await?;
        self.tell(group, reply, &Act::Ack.body(), self.deadline()).await?;
        self.held.set(group, seq, State::Acked);
        Ok(appended.first().map(|appended| appended.id))
    }

    async fn act(&self, group: &Group, tokens: &[Token], act: &Act) -> Result<u64, StoreError> {
        let deadline = self.deadline();
        let (stream, consumer) = (self.stream(&group.topic), consumer(&group.name));
        let mut floor = None;
        let (mut wanted, mut settling) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for token in tokens {
            let seq = codec::seq(token.id);
            let Some(reply) = reply_of(token, &stream, &consumer) else { continue };
            let counts = match (self.held.get(group, seq), act) {
                (_, Act::Ack) => {
                    let settled = self.settling(group, seq, token.attempt, true, &mut floor).await?;
                    let counts = settled.is_some();
                    settling.extend(settled);
                    counts
                }
                (Some(State::Acked | State::Settling(_)), _) => false,
                (Some(State::Delivered(attempt)), _) => attempt == token.attempt,
                (None, _) => self.is_above_floor(group, seq, &mut floor).await?,
            };
            if counts && seen.insert(seq) {
                wanted.push((seq, reply.to_owned()));
            }
        }
        if wanted.is_empty() {
            // Nothing to tell the server: but is there such a group?
            return if self.group_consumer(group, deadline).await?.is_some() {
                Ok(0)
            } else {
                Err(StoreError::NoGroup(group.clone()))
            };
        }
        let body = act.body();
        let told = wanted.into_iter().map(|(seq, reply)| {
            let body = body.clone();
            async move { (seq, self.tell(group, &reply, &body, deadline).await) }
        });
        let mut told = stream::iter(told).buffered(ACKS_AT_ONCE);
        let (mut count, mut failed) = (0, None);
        while let Some((seq, answer)) = told.next().await {
            match answer {
                Ok(()) => {
                    count += 1;
                    self.held.told(group, seq, act);
                    if matches!(act, Act::Ack) {
                        self.held.set(group, seq, State::Acked);
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(count), Err)
    }

    /// Tells the server, and waits until it says that it has done it.
    async fn tell(&self, group: &Group, reply: &str, body: &Bytes, deadline: Instant) -> Result<(), StoreError> {
        loop {
            match self.link.request(reply, None, body, Again::Yes, deadline).await {
                Ok(_) => return Ok(()),
                Err(NoAnswer::Failed(error)) => return Err(error),
                Err(NoAnswer::NoResponders) => {
                    if self.group_consumer(group, deadline).await?.is_none() {
                        return Err(StoreError::NoGroup(group.clone()));
                    }
                    // It has no leader just now. The next question finds the deadline.
                    sleep(NO_LEADER_PAUSE).await;
                }
            }
        }
    }

    /// What the group has pending that the client cannot read, and nobody of this process has: delivered as it is stored.
    ///
    /// The server has delivered it to somebody, who has lost the connection over it. That can have been another node: then both have it.
    pub(super) async fn unreadable(&self, group: &Group, max: usize, deadline: Instant) -> Result<Vec<Fetched>, StoreError> {
        let Some(info) = self.group_consumer(group, deadline).await? else { return Err(StoreError::NoGroup(group.clone())) };
        let topic = &group.topic;
        let began_at = info.config.opt_start_seq.unwrap_or(1);
        let pending = (info.ack_floor.stream_seq + 1).max(began_at)..=info.delivered.stream_seq;
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let looks = self.held.to_look_at(group, &pending, LOOK_MAX).into_iter();
        let mut looks =
            stream::iter(looks.map(|seq| async move { (seq, self.stored(topic, seq, deadline).await) })).buffered(LOOKS_AT_ONCE);
        while let Some((seq, stored)) = looks.next().await {
            let is_unreadable = stored?.is_some_and(|stored| stored.entry.id == codec::id(seq) && !stored.readable);
            if !is_unreadable {
                self.held.looked_at(group, seq);
            }
        }
        drop(looks);
        let (stream, consumer, visibility) =
            (self.stream(topic), consumer(&group.name), Duration::from_nanos(info.config.ack_wait));
        let mut fetched = Vec::new();
        for seq in self.unreadable.within(topic, *pending.start()..pending.end().saturating_add(1)) {
            if fetched.len() >= max {
                break;
            }
            let stored = self.stored(topic, seq, deadline).await?.filter(|stored| stored.entry.id == codec::id(seq));
            let Some(stored) = stored else { continue };
            let Some(attempt) = self.held.take(group, seq, visibility) else { continue };
            let reply = codec::reply(&stream, &consumer, attempt, seq, info.delivered.consumer_seq);
            let token = token(seq, attempt, &reply);
            fetched.push(Fetched { id: token.id, entry: Some(stored.entry), attempt, token });
        }
        Ok(fetched)
    }

    /// Begins to settle a delivery; `None`: it does not count.
    async fn settling<'a>(
        &'a self,
        group: &'a Group,
        seq: u64,
        attempt: u32,
        any: bool,
        floor: &mut Option<u64>,
    ) -> Result<Option<Settling<'a>>, StoreError> {
        let begun = match self.held.settle(group, seq, attempt, any) {
            Some(begun) => begun,
            None => {
                let is_above = self.is_above_floor(group, seq, floor).await?;
                if is_above {
                    self.held.set(group, seq, State::Settling(attempt));
                }
                is_above
            }
        };
        Ok(begun.then_some(Settling { held: &self.held, group, seq }))
    }

    /// Another process fetched it, or this one before it restarted: what is below the floor is acked for sure.
    async fn is_above_floor(&self, group: &Group, seq: u64, floor: &mut Option<u64>) -> Result<bool, StoreError> {
        let known = match *floor {
            Some(known) => known,
            None => self.ack_floor(group, self.deadline()).await?,
        };
        *floor = Some(known);
        Ok(seq > known)
    }

    async fn ack_floor(&self, group: &Group, deadline: Instant) -> Result<u64, StoreError> {
        match self.group_consumer(group, deadline).await? {
            Some(info) => Ok(info.ack_floor.stream_seq),
            None => Err(StoreError::NoGroup(group.clone())),
        }
    }
}

/// Where a token's delivery is answered; `None`: it is none of this group.
fn reply_of<'a>(token: &'a Token, stream: &str, consumer: &str) -> Option<&'a str> {
    let is_it = |reply: &&str| {
        codec::delivered(reply).is_some_and(|at| (at.stream, at.consumer, at.seq) == (stream, consumer, codec::seq(token.id)))
    };
    token.handle.as_deref().filter(is_it)
}

fn about(group: &Group, visibility_settled: bool) -> Option<String> {
    serde_json::to_string(&About { group: group.name.as_str().to_owned(), visibility_settled }).ok()
}

fn described(info: &ConsumerInfo) -> Option<About> {
    serde_json::from_str(info.config.description.as_deref()?).ok()
}

/// What an id of a delivery is in a token.
pub(super) fn token(seq: u64, attempt: u32, reply: &str) -> Token {
    Token { id: EntryId::new(0, seq), attempt, handle: Some(reply.into()) }
}

/// What the consumers of groups begin with; those of readers have names of the server's choice.
const GROUP_PREFIX: &str = "group~";
/// Deliveries of one group that this process remembers; a few MB. Of an older one it counts an ack that the server may have had before.
const HELD_MAX: usize = PENDING_MAX;
/// Entries that are looked at after one lost connection, and side by side: what is behind it has its turn after the next.
const LOOK_MAX: usize = 1_024;
const LOOKS_AT_ONCE: usize = 16;
/// Until the first fetch says otherwise.
const ACK_WAIT_UNSETTLED: Duration = Duration::from_secs(30);
/// Waiting fetches of one group, over all nodes. One more tries again until one is done.
const WAITING_MAX: u64 = 8_192;
/// Acks that are sent before the first is answered.
const ACKS_AT_ONCE: usize = 256;
/// Before an ack is tried again.
const NO_LEADER_PAUSE: Duration = Duration::from_millis(50);
