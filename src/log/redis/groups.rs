//! Groups: consumer groups of Redis, with a time of their own for each pending entry. Knows commands; the steps are in the scripts.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::ids::EntryId;
use crate::log::entry::Append;
use crate::log::entry::ConsumerInfo;
use crate::log::entry::Fetch;
use crate::log::entry::Fetched;
use crate::log::entry::Group;
use crate::log::entry::GroupInfo;
use crate::log::entry::Name;
use crate::log::entry::Pending;
use crate::log::entry::PendingQuery;
use crate::log::entry::Position;
use crate::log::entry::Token;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::log::redis::client::Again;
use crate::log::redis::client::Request;
use crate::log::redis::client::Shared;
use crate::log::redis::entries::appended;
use crate::log::redis::entries::check;
use crate::log::redis::fields;
use crate::log::redis::reply;
use crate::log::redis::script::SCRIPTS;
use crate::log::store::letter;
use crate::topic::Topic;

/// One waiting fetch of each group looks for all of them; the others queue behind it. A hundred that wait cost an append as much as one.
#[derive(Debug, Default)]
pub(super) struct Gates {
    groups: Mutex<HashMap<Group, Weak<Gate>>>,
}

type Gate = tokio::sync::Mutex<()>;

/// A place in the queue; the last one takes the queue with it.
struct Queue<'a> {
    gates: &'a Gates,
    group: &'a Group,
    gate: Option<Arc<Gate>>,
}

impl Gates {
    fn queue<'a>(&'a self, group: &'a Group) -> (Queue<'a>, Arc<Gate>) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let of = groups.entry(group.clone()).or_default();
        let gate = of.upgrade().unwrap_or_else(|| {
            let gate = Arc::new(Gate::default());
            *of = Arc::downgrade(&gate);
            gate
        });
        (Queue { gates: self, group, gate: Some(Arc::clone(&gate)) }, gate)
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        let mut groups = self.gates.groups.lock().unwrap_or_else(PoisonError::into_inner);
        self.gate = None;
        if groups.get(self.group).is_some_and(|gate| gate.strong_count() == 0) {
            groups.remove(self.group);
        }
    }
}

impl Shared {
    pub(super) async fn create_group(&self, group: &Group, from: Position) -> Result<bool, StoreError> {
        let keys = self.keys.group(group);
        let from = match from {
            Position::Start => EntryId::MIN.to_string(),
            Position::End => "$".to_owned(),
            Position::After(id) => id.to_string(),
            Position::Since(ms) => EntryId::new(ms, 0).prev().unwrap_or_default().to_string(),
        };
        let mut command = SCRIPTS.create.on(&[&keys.stream, &keys.due, &keys.leaving, &keys.scan]);
        command.arg(group.name.as_str()).arg(from);
        Ok(reply::int(&self.ask(command, Again::Never, None).await?)? == 1)
    }

    pub(super) async fn delete_group(&self, group: &Group) -> Result<bool, StoreError> {
        let keys = self.keys.group(group);
        let mut command =
            SCRIPTS.destroy.on(&[&keys.stream, &keys.wake, &self.keys.meta(&group.topic), &keys.due, &keys.leaving, &keys.scan]);
        command.arg(group.name.as_str());
        Ok(reply::int(&self.ask(command, Again::Never, None).await?)? == 1)
    }

    pub(super) async fn groups(&self, topic: &Topic) -> Result<Vec<GroupInfo>, StoreError> {
        let command = SCRIPTS.groups.on(&[self.keys.stream(topic), self.keys.meta(topic)]);
        let mut fields = reply::list(self.ask(command, Again::Read, None).await?)?;
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let rest = fields.split_off(fields.len().min(3));
        let [len, newest, first] = reply::fixed(Value::Array(fields))?;
        let (len, newest, first) = (reply::count(&len)?, reply::id_or_none(&newest)?, reply::id_or_none(&first)?);
        let mut groups = Vec::with_capacity(rest.len());
        for group in rest {
            let [name, last, pending, consumers, lag] = reply::fixed(group)?;
            // A name that another program gave and that is none here.
            let Ok(name) = Name::parse(&reply::text(name)?) else { continue };
            let mut info = GroupInfo::new(name);
            info.last_delivered = reply::id(&last)?;
            info.pending = reply::count(&pending)?;
            info.consumers = reply::count(&consumers)?;
            info.lag = if newest.is_none_or(|newest| newest <= info.last_delivered) {
                Some(0)
            } else if first.is_some_and(|first| info.last_delivered < first) {
                Some(len)
            } else {
                reply::count_or_none(&lag)?.map(|lag| lag.min(len))
            };
            groups.push(info);
        }
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(groups)
    }

    pub(super) async fn fetch(&self, group: &Group, consumer: &Name, fetch: Fetch) -> Result<Vec<Fetched>, StoreError> {
        let wait_until = Instant::now() + fetch.wait.min(Fetch::WAIT_MAX);
        let (fetched, _) = self.deliver(group, consumer, fetch).await?;
        if !fetched.is_empty() || fetch.wait.is_zero() {
            return Ok(fetched);
        }
        let (queue, gate) = self.gates.queue(group);
        let mut turn = std::pin::pin!(gate.lock_owned());
        let turn = loop {
            match timeout_at(wait_until.min(Instant::now() + RECHECK), turn.as_mut()).await {
                Ok(turn) => break turn,
                Err(_) if Instant::now() >= wait_until => return Ok(Vec::new()),
                // Each of those who wait is to learn that the server is away, not one after the other.
                Err(_) if !self.main.is_ready() => {
                    let (fetched, _) = self.deliver(group, consumer, fetch).await?;
                    if !fetched.is_empty() {
                        return Ok(fetched);
                    }
                }
                Err(_) => {}
            }
        };
        let waiting = self.watches.wait(&group.topic);
        loop {
            let moved = waiting.notify();
            let mut moved = std::pin::pin!(moved.notified());
            moved.as_mut().enable();
            // From here on nothing is missed: what changes after this is told.
            self.arm(group).await?;
            let (fetched, due_in) = self.deliver(group, consumer, fetch).await?;
            let now = Instant::now();
            if !fetched.is_empty() || now >= wait_until {
                // The turn ends before the place in the queue does.
                drop(turn);
                drop(queue);
                return Ok(fetched);
            }
            let recheck = if self.told.tells() { RECHECK } else { RECHECK_UNTOLD };
            let until = wait_until.min(now + due_in.map_or(recheck, |due_in| due_in.min(recheck)));
            // Either is a reason to look again.
            let _ = timeout_at(until, moved).await;
        }
    }

    /// Reads what tells of new entries and of entries that are due earlier, where the server tells of changes.
    async fn arm(&self, group: &Group) -> Result<(), StoreError> {
        let keys = self.keys.group(group);
        let mut commands = redis::pipe();
        commands.cmd("XLEN").arg(&keys.stream);
        commands.cmd("GET").arg(&keys.wake);
        // What is wrong with the keys the fetch will say.
        self.send(&self.told, &Request::Many(commands), Again::Read, Some(group)).await.map(drop)
    }

    /// One look: what there is, and in how long the next pending entry is due.
    async fn deliver(
        &self,
        group: &Group,
        consumer: &Name,
        fetch: Fetch,
    ) -> Result<(Vec<Fetched>, Option<Duration>), StoreError> {
        let keys = self.keys.group(group);
        let mut command = SCRIPTS.fetch.on(&[&keys.stream, &keys.due, &keys.scan, &keys.leaving, &self.keys.meta(&group.topic)]);
        command.arg(group.name.as_str()).arg(consumer.as_str()).arg(entries(fetch.entries)).arg(millis(fetch.visibility));
        fetched(self.ask(command, Again::Never, Some(group)).await?)
    }

    pub(super) async fn claim(
        &self,
        group: &Group,
        consumer: &Name,
        idle_min: Duration,
        fetch: Fetch,
    ) -> Result<Vec<Fetched>, StoreError> {
        let keys = self.keys.group(group);
        let mut command = SCRIPTS.claim.on(&[&keys.stream, &keys.due, &keys.leaving, &keys.wake]);
        command.arg(group.name.as_str()).arg(consumer.as_str()).arg(entries(fetch.entries));
        command.arg(millis(fetch.visibility)).arg(millis(idle_min));
        Ok(fetched(self.ask(command, Again::Never, Some(group)).await?)?.0)
    }

    pub(super) async fn ack(&self, group: &Group, tokens: &[Token]) -> Result<u64, StoreError> {
        let keys = self.keys.group(group);
        let mut command = SCRIPTS.ack.on(&[&keys.stream, &keys.due, &keys.leaving]);
        command.arg(group.name.as_str());
        for token in tokens {
            command.arg(token.id.to_string());
        }
        reply::count(&self.ask(command, Again::Never, Some(group)).await?)
    }

    /// One step: whoever acks it at the same time has done so before, and nothing is written, or finds it acked.
    pub(super) async fn bury(
        &self,
        group: &Group,
        fetched: Fetched,
        to: &Topic,
        reason: &str,
        trim: Option<Trim>,
    ) -> Result<Option<EntryId>, StoreError> {
        let batch = Append { trim, ..Append::one(letter(group, &fetched, reason, self.limits)) };
        batch.check(&self.limits)?;
        check(&batch)?;
        let of = self.keys.group(group);
        let (append, index_of) = self.append_keys(to, &batch);
        let keys: Vec<_> = [of.stream, of.due, of.leaving].into_iter().chain(append).collect();
        let mut command = SCRIPTS.bury.on(&keys);
        command.arg(group.name.as_str()).arg(fetched.token.id.to_string()).arg(fetched.token.attempt);
        self.append_args(&mut command, &batch, &index_of);
        let answer = self.ask(command, Again::Never, Some(group)).await?;
        if matches!(&answer, Value::Array(said) if said.is_empty()) {
            return Ok(None);
        }
        Ok(appended(answer, &batch)?.first().map(|appended| appended.id))
    }

    /// `nack` or `extend`: due again in `after`.
    pub(super) async fn give(&self, group: &Group, what: &str, tokens: &[Token], after: Duration) -> Result<u64, StoreError> {
        let keys = self.keys.group(group);
        let mut command = SCRIPTS.give.on(&[&keys.stream, &keys.due, &keys.wake]);
        command.arg(group.name.as_str()).arg(what).arg(millis(after));
        for token in tokens {
            command.arg(token.id.to_string()).arg(token.attempt);
        }
        reply::count(&self.ask(command, Again::Never, Some(group)).await?)
    }

    pub(super) async fn pending(&self, group: &Group, query: &PendingQuery) -> Result<Vec<Pending>, StoreError> {
        let keys = self.keys.group(group);
        let mut command = SCRIPTS.pending.on(&[&keys.stream, &keys.due]);
        // There is nothing after the last id, and Redis refuses to look for it: after the one before, which is filtered.
        let after = query.after.min(EntryId::MAX.prev().unwrap_or_default());
        command.arg(group.name.as_str()).arg(millis(query.idle_min)).arg(after.to_string()).arg(entries(query.entries));
        if let Some(consumer) = &query.consumer {
            command.arg(consumer.as_str());
        }
        let mut rows = reply::list(self.ask(command, Again::Read, Some(group)).await?)?.into_iter();
        let now_ms = rows.next().map_or(Ok(0), |now| reply::count(&now))?;
        let mut pending = Vec::with_capacity(rows.len());
        for row in rows {
            let [id, consumer, idle, attempt, due] = reply::fixed(row)?;
            let id = reply::id(&id)?;
            if id <= query.after {
                continue;
            }
            pending.push(Pending {
                id,
                consumer: name_of(&reply::text(consumer)?)?,
                idle: Duration::from_millis(reply::count(&idle)?),
                attempt: times(&attempt)?,
                due_in: time(&due)?.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms))),
            });
        }
        Ok(pending)
    }

    pub(super) async fn consumers(&self, group: &Group) -> Result<Vec<ConsumerInfo>, StoreError> {
        let mut command = SCRIPTS.consumers.on(&[self.keys.stream(&group.topic)]);
        command.arg(group.name.as_str());
        let rows = reply::list(self.ask(command, Again::Read, Some(group)).await?)?;
        let consumer = |row| {
            let [name, pending, idle] = reply::fixed(row)?;
            Ok(ConsumerInfo {
                name: name_of(&reply::text(name)?)?,
                pending: reply::count(&pending)?,
                idle: Duration::from_millis(reply::count(&idle)?),
            })
        };
        let mut consumers = rows.into_iter().map(consumer).collect::<Result<Vec<_>, StoreError>>()?;
        consumers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(consumers)
    }

    pub(super) async fn remove_consumer(&self, group: &Group, consumer: &Name) -> Result<u64, StoreError> {
        let keys = self.keys.group(group);
        let mut command = SCRIPTS.remove.on(&[&keys.stream, &keys.due, &keys.leaving, &keys.wake]);
        command.arg(group.name.as_str()).arg(consumer.as_str());
        reply::count(&self.ask(command, Again::Never, Some(group)).await?)
    }
}

/// What `fetch.lua` and `claim.lua` answer.
pub(super) fn fetched(value: Value) -> Result<(Vec<Fetched>, Option<Duration>), StoreError> {
    let mut rows = reply::list(value)?.into_iter();
    let due_in = rows.next().map_or(Ok(-1), |due_in| reply::int(&due_in))?;
    let mut fetched = Vec::with_capacity(rows.len());
    for row in rows {
        let [id, attempt, entry, due] = reply::fixed(row)?;
        let (id, attempt) = (reply::id(&id)?, times(&attempt)?);
        let entry = match entry {
            Value::Nil => None,
            entry => Some(fields::read(id, entry)?),
        };
        fetched.push((time(&due)?, Fetched { id, entry, attempt, token: Token { id, attempt, handle: None } }));
    }
    // The longest due first; those due at once come by the text of their id, which is not its order. New ones are last.
    fetched.sort_by(|(one_due, one), (other_due, other)| match (one_due, other_due) {
        (Some(one_due), Some(other_due)) => one_due.cmp(other_due).then(one.id.cmp(&other.id)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.id.cmp(&other.id),
    });
    let due_in = u64::try_from(due_in).ok().map(Duration::from_millis);
    Ok((fetched.into_iter().map(|(_, fetched)| fetched).collect(), due_in))
}

/// A delivery count.
fn times(value: &Value) -> Result<u32, StoreError> {
    Ok(u32::try_from(reply::count(value)?).unwrap_or(u32::MAX))
}

/// A time as a sorted set gives it; `None` for an empty text.
fn time(value: &Value) -> Result<Option<u64>, StoreError> {
    let Value::BulkString(text) = value else { return Err(reply::unexpected("a time", value)) };
    if text.is_empty() {
        return Ok(None);
    }
    // Times before 1970 are long ago.
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    #[expect(clippy::cast_sign_loss, reason = "not below zero")]
    parsed.map(|ms| Some(ms.max(0.0) as u64)).ok_or_else(|| reply::unexpected("a time", value))
}

/// A consumer as another program may have called it: what no name may hold is replaced.
fn name_of(text: &str) -> Result<Name, StoreError> {
    let whole: String =
        text.chars().map(|c| if c.is_control() || c.is_whitespace() || matches!(c, '*' | '>') { '_' } else { c }).collect();
    let cut = (0..=whole.len().min(Name::BYTES_MAX)).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
    let name = if cut == 0 { "_" } else { &whole[..cut] };
    Name::parse(name).map_err(|error| StoreError::Engine { source: Arc::new(error) })
}

/// How many entries to ask for: at least one, and what Redis takes as a number.
fn entries(entries: usize) -> usize {
    entries.clamp(1, 1 << 31)
}

/// Milliseconds; a time that no sorted set could order exactly is the last that it can: 35,000 years.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(1 << 50)
}

/// How often who waits looks though nothing was told: for a group that somebody removed, and for entries that another program took and lost.
const RECHECK: Duration = Duration::from_secs(1);
/// The same where the server may not tell of changes.
const RECHECK_UNTOLD: Duration = Duration::from_millis(50);
