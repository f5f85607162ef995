//! Commands: asks the store, and prints what it says as a table or as JSON. Only `trim` changes anything.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::io::Write as _;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use actix::clock::sleep;
use actix_pubsub::EntryId;
use actix_pubsub::Topic;
use actix_pubsub::log::Batch;
use actix_pubsub::log::Durability;
use actix_pubsub::log::Entry;
use actix_pubsub::log::Gap;
use actix_pubsub::log::Group;
use actix_pubsub::log::Limit;
use actix_pubsub::log::PendingQuery;
use actix_pubsub::log::Position;
use actix_pubsub::log::Store;
use actix_pubsub::log::StoreError;
use actix_pubsub::log::TopicInfo;
use serde_json::Value;
use serde_json::json;

use crate::args::Command;
use crate::shared::chain;
use crate::text::Table;
use crate::text::cut;
use crate::text::harmless;
use crate::text::hex;
use crate::text::json;
use crate::text::number;
use crate::text::span;

type Done = Result<(), Box<dyn Error>>;

/// A store, and how to print what it says.
pub(crate) struct Session<'a> {
    pub(crate) store: &'a dyn Store,
    /// What it is called on the command line.
    pub(crate) name: String,
    pub(crate) json: bool,
}

impl Session<'_> {
    pub(crate) async fn run(&self, command: Command) -> Done {
        match command {
            Command::Info(None) => self.info_store().await,
            Command::Info(Some(topic)) => self.info_topic(&topic).await,
            Command::Topics => self.topics().await,
            Command::Groups(topic) => self.groups(&topic).await,
            Command::Consumers(group) => self.consumers(&group).await,
            Command::Pending { group, consumer, idle_min, limit } => {
                let query = PendingQuery { consumer, idle_min, ..PendingQuery::first(limit) };
                self.pending(&group, query).await
            }
            Command::Read { topic, from, limit, full } => self.read(&topic, from, limit, full).await,
            Command::Tail { topics, from, full } => self.tail(topics, from, full).await,
            Command::Trim { topic, to } => {
                self.known(&topic).await?;
                let removed = self.store.trim(&topic, to).await?;
                let text = format!("{} entries of {} removed\n", number(removed), harmless(topic.as_str()));
                self.say(&json!({ "topic": topic, "removed": removed }), &text)
            }
        }
    }

    fn say(&self, document: &Value, text: &str) -> Done {
        print(&if self.json { json(document) + "\n" } else { text.to_owned() })
    }

    /// The numbers of a topic that exists: asked about another one, a store says that it is empty, and a person has mistyped.
    async fn known(&self, topic: &Topic) -> Result<TopicInfo, Box<dyn Error>> {
        let info = self.store.info(topic).await?;
        if info.last == EntryId::MIN && info.entries == 0 && info.groups == 0 {
            return Err(format!("there is no topic {} in {}", harmless(topic.as_str()), self.name).into());
        }
        Ok(info)
    }

    async fn all_topics(&self) -> Result<Vec<(Topic, TopicInfo)>, Box<dyn Error>> {
        let mut all: Vec<(Topic, TopicInfo)> = Vec::new();
        loop {
            let page = self.store.topics(all.last().map(|(topic, _)| topic), TOPICS_PAGE).await?;
            let is_last = page.len() < TOPICS_PAGE;
            for topic in page {
                let info = self.store.info(&topic).await?;
                all.push((topic, info));
            }
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn info_store(&self) -> Done {
        let (caps, limits, topics) = (self.store.caps(), self.store.limits(), self.all_topics().await?);
        let (mut entries, mut bytes, mut groups) = (0, Some(0), 0);
        for (_, info) in &topics {
            entries += info.entries;
            groups += info.groups;
            bytes = bytes.zip(info.bytes).map(|(sum, more)| sum + more);
        }
        let durability = match caps.durability {
            Durability::Memory => "memory",
            Durability::Relaxed => "relaxed",
            Durability::Synced => "synced",
            Durability::Server => "server",
            _ => "unknown",
        };
        let document = json!({
            "store": self.name, "durability": durability, "shared": caps.shared, "pending": caps.pending,
            "entry_bytes_max": limits.entry_bytes_max, "batch_entries_max": limits.batch_entries_max,
            "topics": topics.len(), "entries": entries, "bytes": bytes, "groups": groups,
        });
        let lines = [
            ("store", self.name.clone()),
            ("durability", durability.to_owned()),
            ("shared", caps.shared.to_string()),
            ("largest entry", format!("{} bytes", number(limits.entry_bytes_max as u64))),
            ("largest batch", format!("{} entries", number(limits.batch_entries_max as u64))),
            ("topics", number(topics.len() as u64)),
            ("entries", number(entries)),
            ("bytes", number(bytes)),
            ("groups", number(groups)),
        ];
        self.say(&document, &list(&lines))
    }

    async fn info_topic(&self, topic: &Topic) -> Done {
        let info = self.known(topic).await?;
        let age = |id: EntryId| if self.store.caps().times_in_ids { format!("{id}, {} ago", ago(id)) } else { id.to_string() };
        let lines = [
            ("topic", topic.to_string()),
            ("entries", number(info.entries)),
            ("appended", number(info.appended)),
            ("bytes", number(info.bytes)),
            ("first", info.first.map_or_else(|| String::from("-"), age)),
            ("last", if info.last == EntryId::MIN { String::from("-") } else { age(info.last) }),
            ("groups", number(info.groups)),
        ];
        self.say(&topic_json(topic, &info), &list(&lines))
    }

    async fn topics(&self) -> Done {
        let topics = self.all_topics().await?;
        let mut table = Table::new(&["topic", "entries", "bytes", "groups", "first", "last"]);
        for (topic, info) in &topics {
            let first = info.first.map_or_else(|| String::from("-"), |id| id.to_string());
            let (entries, bytes, groups) = (number(info.entries), number(info.bytes), number(info.groups));
            table.row(&[topic.to_string(), entries, bytes, groups, first, info.last.to_string()]);
        }
        self.say(&topics.iter().map(|(topic, info)| topic_json(topic, info)).collect(), &table.render())
    }

    async fn groups(&self, topic: &Topic) -> Done {
        self.known(topic).await?;
        let groups = self.store.groups(topic).await?;
        let mut table = Table::new(&["group", "lag", "pending", "skipped", "consumers", "last delivered"]);
        for group in &groups {
            let (lag, skipped, last) = (number(group.lag), number(group.skipped), group.last_delivered.to_string());
            table.row(&[group.name.to_string(), lag, number(group.pending), skipped, number(group.consumers), last]);
        }
        let document = groups.iter().map(|group| {
            json!({
                "topic": topic, "group": group.name, "lag": group.lag, "pending": group.pending, "skipped": group.skipped,
                "consumers": group.consumers, "last_delivered": group.last_delivered,
            })
        });
        self.say(&document.collect(), &table.render())
    }

    async fn consumers(&self, group: &Group) -> Done {
        let consumers = self.store.consumers(group).await?;
        let mut table = Table::new(&["consumer", "pending", "idle"]);
        for consumer in &consumers {
            table.row(&[consumer.name.to_string(), number(consumer.pending), span(consumer.idle)]);
        }
        let document = consumers
            .iter()
            .map(|consumer| json!({ "consumer": consumer.name, "pending": consumer.pending, "idle_ms": ms(consumer.idle) }));
        self.say(&document.collect(), &table.render())
    }

    async fn pending(&self, group: &Group, query: PendingQuery) -> Done {
        let pending = self.store.pending(group, query).await?;
        let mut table = Table::new(&["id", "consumer", "idle", "deliveries", "due in"]);
        for it in &pending {
            let due =
                it.due_in.map_or_else(|| String::from("-"), |due| if due.is_zero() { String::from("now") } else { span(due) });
            table.row(&[it.id.to_string(), it.consumer.to_string(), span(it.idle), number(u64::from(it.attempt)), due]);
        }
        let document = pending.iter().map(|it| {
            json!({
                "id": it.id, "consumer": it.consumer, "idle_ms": ms(it.idle), "deliveries": it.attempt,
                "due_in_ms": it.due_in.map(ms),
            })
        });
        self.say(&document.collect(), &table.render())
    }

    async fn read(&self, topic: &Topic, from: Position, limit: usize, full: bool) -> Done {
        self.known(topic).await?;
        let mut page = self.store.read(topic, from, Limit::entries(limit)).await?;
        // A page ends at its bytes, too.
        while page.entries.len() < limit && !page.caught_up {
            let rest = Limit::entries(limit - page.entries.len());
            let more = self.store.read(topic, Position::After(page.next), rest).await?;
            page.entries.extend(more.entries);
            (page.next, page.caught_up, page.gap) = (more.next, more.caught_up, page.gap.or(more.gap));
        }
        let document = json!({
            "topic": topic, "gap": page.gap.as_ref().map(gap_json), "next": page.next, "caught_up": page.caught_up,
            "entries": page.entries.iter().map(entry_json).collect::<Vec<_>>(),
        });
        let mut text = page.gap.as_ref().map_or_else(String::new, gap_text);
        text.extend(page.entries.iter().map(|entry| entry_text(entry, full)));
        if !page.caught_up {
            let _ = writeln!(text, "more follow: --from {}", page.next);
        }
        self.say(&document, &text)
    }

    async fn tail(&self, topics: Vec<Topic>, from: Position, full: bool) -> Done {
        let with_topic = topics.len() > 1;
        let mut tail = self.store.tail();
        for topic in &topics {
            let mut from = from;
            // What there is, page by page; from there on the store tells of what comes.
            let next = loop {
                let page = again("read", || self.store.read(topic, from, Limit::default())).await?;
                self.tell(topic, &page, with_topic, full)?;
                if page.caught_up {
                    break page.next;
                }
                from = Position::After(page.next);
            };
            tail.watch(topic, next);
        }
        loop {
            match tail.next(Limit::default()).await {
                Ok(batches) => batches.iter().try_for_each(|(topic, batch)| self.tell(topic, batch, with_topic, full))?,
                Err(error) => wait_for_it("tail", error).await?,
            }
        }
    }

    fn tell(&self, topic: &Topic, batch: &Batch, with_topic: bool, full: bool) -> Done {
        let mut text = String::new();
        if let Some(gap) = &batch.gap {
            text.push_str(&if self.json { json(&json!({ "topic": topic, "gap": gap_json(gap) })) + "\n" } else { gap_text(gap) });
        }
        for entry in &batch.entries {
            if self.json {
                let mut line = entry_json(entry);
                line["topic"] = json!(topic);
                text.push_str(&json(&line));
                text.push('\n');
            } else {
                if with_topic {
                    text += &harmless(topic.as_str());
                    text += "  ";
                }
                text.push_str(&entry_text(entry, full));
            }
        }
        print(&text)
    }
}

/// Asks until the store is there.
async fn again<T>(doing: &str, mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> Result<T, Box<dyn Error>> {
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => wait_for_it(doing, error).await?,
        }
    }
}

async fn wait_for_it(doing: &str, error: StoreError) -> Done {
    if !error.is_transient() {
        return Err(error.into());
    }
    eprintln!("logctl: cannot {doing} now, it is tried again: {}", harmless(&chain(&error)));
    sleep(Duration::from_secs(1)).await;
    Ok(())
}

fn print(text: &str) -> Done {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn list(lines: &[(&str, String)]) -> String {
    let lines = lines.iter().map(|(name, value)| format!("{name:<14} {}\n", harmless(value)));
    lines.collect()
}

fn topic_json(topic: &Topic, info: &TopicInfo) -> Value {
    json!({
        "topic": topic, "entries": info.entries, "appended": info.appended, "bytes": info.bytes, "first": info.first,
        "last": (info.last != EntryId::MIN).then_some(info.last), "groups": info.groups,
    })
}

fn entry_json(entry: &Entry) -> Value {
    let headers: Vec<_> = entry.headers.iter().map(|(name, value)| [&**name, &**value]).collect();
    let mut line = json!({ "id": entry.id, "name": &*entry.name, "headers": headers });
    match std::str::from_utf8(&entry.payload) {
        Ok(text) => line["payload"] = json!(text),
        Err(_) => line["payload_hex"] = json!(hex(&entry.payload)),
    }
    line
}

fn entry_text(entry: &Entry, full: bool) -> String {
    let payload = match std::str::from_utf8(&entry.payload) {
        Ok(text) => harmless(text),
        Err(_) => format!("hex {}", hex(&entry.payload)),
    };
    let payload = if full { payload } else { cut(&payload, PAYLOAD_CHARS, entry.payload.len()) };
    let name = if entry.name.is_empty() { String::from("-") } else { harmless(&entry.name) };
    let mut text = format!("{:<17} {name}  {payload}\n", entry.id.to_string());
    for (name, value) in &entry.headers {
        let _ = writeln!(text, "    {}: {}", harmless(name), harmless(value));
    }
    text
}

fn gap_json(gap: &Gap) -> Value {
    json!({
        "asked_after": gap.asked_after, "resumes_at": gap.resumes_at, "cause": gap.cause.to_string(), "certain": gap.certain,
    })
}

fn gap_text(gap: &Gap) -> String {
    let certainly = if gap.certain { "are" } else { "may be" };
    let resumes = gap.resumes_at.map_or_else(String::new, |id| format!(", it goes on at {id}"));
    format!("entries after {} {certainly} gone ({}){resumes}\n", gap.asked_after, gap.cause)
}

fn ago(id: EntryId) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    span(now.saturating_sub(Duration::from_millis(id.ms())))
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Topics asked for at once.
const TOPICS_PAGE: usize = 500;
/// Characters of a payload, unless all of it is asked for.
const PAYLOAD_CHARS: usize = 160;
