//! Retention: how much of which topics is kept. Knows no store.

use std::fmt;
use std::time::Duration;

use crate::log::Trim;
use crate::topic::Topic;
use crate::topic::TopicError;

/// How much of a topic is kept. What is over it is trimmed: by number in the same step as an append of this crate, and what other programs append, and
/// by age, within a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    entries: Option<u64>,
    age: Option<Duration>,
}

impl Retention {
    /// Everything.
    pub fn forever() -> Self {
        Self::default()
    }

    /// The newest `max` entries, 1 at least: checked by `build`.
    pub fn entries(max: u64) -> Self {
        Self { entries: Some(max), age: None }
    }

    /// Entries of at most this age, 1 ms at least: checked by `build`.
    pub fn age(max: Duration) -> Self {
        Self { entries: None, age: Some(max) }
    }

    /// And at most this old.
    pub fn and_age(mut self, max: Duration) -> Self {
        self.age = Some(max);
        self
    }

    /// No entry ever stays.
    pub(crate) fn keeps_nothing(&self) -> bool {
        self.entries == Some(0) || self.age.is_some_and(|age| age.as_millis() == 0)
    }

    pub(crate) fn on_append(&self) -> Option<Trim> {
        self.entries.map(Trim::Len)
    }

    pub(crate) fn on_sweep(&self) -> impl Iterator<Item = Trim> {
        self.age.map(Trim::Age).into_iter().chain(self.entries.map(Trim::Len))
    }
}

/// A pattern of topics: a name, or the beginning of names and a `*`.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    name: String,
    prefix: bool,
}

impl Pattern {
    pub(crate) fn parse(pattern: &str) -> Result<Self, TopicError> {
        let (name, prefix) = pattern.strip_suffix('*').map_or((pattern, false), |name| (name, true));
        if !(prefix && name.is_empty()) {
            Topic::parse(name)?;
        }
        Ok(Self { name: name.to_owned(), prefix })
    }

    pub(crate) fn fits(&self, topic: &Topic) -> bool {
        if self.prefix { topic.as_str().starts_with(&self.name) } else { topic.as_str() == self.name }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.prefix { "*" } else { "" })
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.entries, self.age) {
            (None, None) => f.write_str("everything"),
            (Some(entries), None) => write!(f, "{entries} entries"),
            (None, Some(age)) => write!(f, "entries of {} ms", age.as_millis()),
            (Some(entries), Some(age)) => write!(f, "{entries} entries of {} ms", age.as_millis()),
        }
    }
}

/// Which topics keep how much: of the patterns that fit, the first given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Retentions(Vec<(Pattern, Retention)>);

impl Retentions {
    /// The first pattern.
    pub(crate) fn first(&self) -> Option<String> {
        self.0.first().map(|(pattern, _)| pattern.to_string())
    }

    pub(crate) fn add(&mut self, pattern: &str, retention: Retention) -> Result<(), TopicError> {
        self.0.push((Pattern::parse(pattern)?, retention));
        Ok(())
    }

    pub(crate) fn of(&self, topic: &Topic) -> Retention {
        self.0.iter().find(|(pattern, _)| pattern.fits(topic)).map_or(Retention::forever(), |(_, retention)| *retention)
    }

    /// Whether anything is to be trimmed.
    pub(crate) fn sweeps(&self) -> bool {
        self.0.iter().any(|(_, retention)| *retention != Retention::forever())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_fits_decides() {
        let mut retentions = Retentions::default();
        retentions.add("orders:eu", Retention::entries(1)).unwrap();
        retentions.add("orders:*", Retention::entries(2)).unwrap();
        retentions.add("*", Retention::age(Duration::from_secs(3))).unwrap();
        let of = |name| retentions.of(&Topic::parse(name).unwrap());
        assert_eq!(of("orders:eu"), Retention::entries(1));
        assert_eq!(of("orders:eu2"), Retention::entries(2));
        assert_eq!(of("orders:"), Retention::entries(2));
        assert_eq!(of("order"), Retention::age(Duration::from_secs(3)));
        assert_eq!(Retentions::default().of(&Topic::parse("any").unwrap()), Retention::forever());
    }

    #[test]
    fn a_pattern_that_no_topic_can_fit_is_refused() {
        let mut retentions = Retentions::default();
        assert_eq!(retentions.add("", Retention::forever()), Err(TopicError::Empty));
        assert_eq!(retentions.add("a*b", Retention::forever()), Err(TopicError::Forbidden { character: '*', at_byte: 1 }));
        assert_eq!(retentions.add("**", Retention::forever()), Err(TopicError::Forbidden { character: '*', at_byte: 0 }));
    }
}
