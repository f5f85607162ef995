//! Args: the command line, parsed into what is to be done. Opens nothing.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;
use std::time::SystemTime;

use actix_pubsub::EntryId;
use actix_pubsub::Topic;
use actix_pubsub::log::Group;
use actix_pubsub::log::Name;
use actix_pubsub::log::Position;
use actix_pubsub::log::Trim;
use lexopt::Arg;
use lexopt::ValueExt;

use crate::shared::address::Address;

pub(crate) const USAGE: &str = "usage: logctl STORE COMMAND [--json]

STORE is file:PATH, redis://HOST:PORT or nats://HOST:PORT. A file is open in one process at a time.

  info [TOPIC]              numbers of the store, or of one topic
  topics                    numbers of all topics
  groups TOPIC              consumer groups: where they are, their lag, what they have pending
  consumers TOPIC GROUP     a group's consumers
  pending TOPIC GROUP       entries delivered and not acked
      --consumer NAME       only this consumer's
      --idle-min 5s         only those that were delivered so long ago
      --limit N             at most so many; 100 unless told otherwise
  read TOPIC                entries
      --from FROM           start, end, the id before the first wanted, or -5m for the last five minutes; start unless told otherwise
      --limit N             at most so many; 100 unless told otherwise
      --full                whole payloads; the first 160 characters of each unless told otherwise
  tail TOPIC...             entries as they come, until Ctrl-C
      --from FROM           as for read; end unless told otherwise
      --full                as for read
  trim TOPIC                remove old entries
      --len N               all but the newest N
      --before ID           those before this id
      --age 7d              those older than this

  --json                    one JSON document; for tail, one on each line
  -h, --help                this

Durations are a number and ms, s, m, h or d. It exits with 0 when it did what it was asked, with 1 when it could not, with 2 when it was not understood.";

pub(crate) struct Args {
    pub(crate) store: Address,
    pub(crate) command: Command,
    pub(crate) json: bool,
}

pub(crate) enum Command {
    Info(Option<Topic>),
    Topics,
    Groups(Topic),
    Consumers(Group),
    Pending { group: Group, consumer: Option<Name>, idle_min: Duration, limit: usize },
    Read { topic: Topic, from: Position, limit: usize, full: bool },
    Tail { topics: Vec<Topic>, from: Position, full: bool },
    Trim { topic: Topic, to: Trim },
}

/// Options as they were given, before it is known whether the command takes them.
#[derive(Default)]
struct Given {
    consumer: Option<Name>,
    idle_min: Option<Duration>,
    limit: Option<usize>,
    from: Option<Position>,
    full: Option<()>,
    len: Option<u64>,
    before: Option<EntryId>,
    age: Option<Duration>,
}

impl Args {
    /// `None`: help was asked for.
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>, lexopt::Error> {
        let mut parser = lexopt::Parser::from_args(args);
        let (mut words, mut given, mut json) = (Vec::new(), Given::default(), false);
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Value(word) => words.push(word.string()?),
                Arg::Long("json") => json = true,
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                Arg::Long("consumer") => given.consumer = Some(parser.value()?.parse()?),
                Arg::Long("idle-min") => given.idle_min = Some(parser.value()?.parse_with(duration)?),
                Arg::Long("limit") => given.limit = Some(parser.value()?.parse_with(limit)?),
                Arg::Long("from") => given.from = Some(parser.value()?.parse_with(|text| position(text, SystemTime::now()))?),
                Arg::Long("full") => given.full = Some(()),
                Arg::Long("len") => given.len = Some(parser.value()?.parse()?),
                Arg::Long("before") => given.before = Some(parser.value()?.parse()?),
                Arg::Long("age") => given.age = Some(parser.value()?.parse_with(duration)?),
                arg => return Err(arg.unexpected()),
            }
        }
        let mut words = words.into_iter();
        let (Some(store), Some(verb)) = (words.next(), words.next()) else {
            return Err("a store and a command are needed".into());
        };
        let store = Address::from_str(&store)?;
        if !store.is_kept() {
            return Err("a store in memory is gone with its process: there is nothing to look at".into());
        }
        let words: Vec<String> = words.collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = command(&verb, &words, &mut given)?;
        given.refuse_the_rest(&verb)?;
        Ok(Some(Self { store, command, json }))
    }
}

fn command(verb: &str, words: &[&str], given: &mut Given) -> Result<Command, lexopt::Error> {
    Ok(match (verb, words) {
        ("info", []) => Command::Info(None),
        ("info", [topic]) => Command::Info(Some(parse(topic)?)),
        ("topics", []) => Command::Topics,
        ("groups", [topic]) => Command::Groups(parse(topic)?),
        ("consumers", [topic, group]) => Command::Consumers(Group::new(parse(topic)?, parse(group)?)),
        ("pending", [topic, group]) => Command::Pending {
            group: Group::new(parse(topic)?, parse(group)?),
            consumer: given.consumer.take(),
            idle_min: given.idle_min.take().unwrap_or_default(),
            limit: given.limit.take().unwrap_or(LIMIT_DEFAULT),
        },
        ("read", [topic]) => Command::Read {
            topic: parse(topic)?,
            from: given.from.take().unwrap_or(Position::Start),
            limit: given.limit.take().unwrap_or(LIMIT_DEFAULT),
            full: given.full.take().is_some(),
        },
        ("tail", [_, ..]) => Command::Tail {
            topics: words.iter().map(|topic| parse(topic)).collect::<Result<_, _>>()?,
            from: given.from.take().unwrap_or(Position::End),
            full: given.full.take().is_some(),
        },
        ("trim", [topic]) => Command::Trim { topic: parse(topic)?, to: given.trim()? },
        ("info" | "topics" | "groups" | "consumers" | "pending" | "read" | "tail" | "trim", _) => {
            return Err(format!("{verb} does not take {} arguments", words.len()).into());
        }
        _ => return Err(format!("there is no command {verb:?}").into()),
    })
}

impl Given {
    fn trim(&mut self) -> Result<Trim, lexopt::Error> {
        match (self.len.take(), self.before.take(), self.age.take()) {
            (Some(len), None, None) => Ok(Trim::Len(len)),
            (None, Some(id), None) => Ok(Trim::Before(id)),
            (None, None, Some(age)) => Ok(Trim::Age(age)),
            _ => Err("trim takes one of --len, --before and --age".into()),
        }
    }

    /// An option that does nothing is a mistake, and one about what is removed a bad one.
    fn refuse_the_rest(&self, verb: &str) -> Result<(), lexopt::Error> {
        let rest = [
            ("--consumer", self.consumer.is_some()),
            ("--idle-min", self.idle_min.is_some()),
            ("--limit", self.limit.is_some()),
            ("--from", self.from.is_some()),
            ("--full", self.full.is_some()),
            ("--len", self.len.is_some()),
            ("--before", self.before.is_some()),
            ("--age", self.age.is_some()),
        ];
        match rest.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(format!("{verb} takes no {option}").into()),
            None => Ok(()),
        }
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, lexopt::Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| lexopt::Error::Custom(Box::new(error)))
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if limit > 0 => Ok(limit),
        _ => Err(String::from("it must be a number of at least 1")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let refused = || String::from("it must be a number and ms, s, m, h or d, as in 5m");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    ms.map(Duration::from_millis).ok_or_else(refused)
}

fn position(text: &str, now: SystemTime) -> Result<Position, String> {
    Ok(match text {
        "start" => Position::Start,
        "end" => Position::End,
        _ => match text.strip_prefix('-') {
            Some(ago) => now.checked_sub(duration(ago)?).unwrap_or(SystemTime::UNIX_EPOCH).into(),
            None => text.parse::<EntryId>().map_err(|_| String::from("it must be start, end, an id or -5m"))?.into(),
        },
    })
}

/// Entries shown, unless told otherwise.
const LIMIT_DEFAULT: usize = 100;
