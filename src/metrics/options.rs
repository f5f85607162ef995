//! Options: which series there may be, and what keeps them few. Knows no numbers.

use std::collections::BTreeSet;
use std::fmt;

use crate::feed::retention::Pattern;
use crate::sync::Arc;
use crate::sync::Mutex;
use crate::sync::lock;
use crate::topic::Topic;
use crate::topic::TopicError;

/// Which metrics are recorded: no topic has series of its own, unless asked for.
///
/// A clone shares what it has named so far: the first topics and consumer groups that were seen have series of their own, up to the limits, and keep them; what
/// comes later is summed up as `other`, and of ages the greatest counts. So give the same options to each call.
///
/// ```
/// use actix_pubsub::metrics::MetricsOptions;
///
/// let options = MetricsOptions::new().topics("orders.*")?.topics("price:gold")?.topics_max(50);
/// assert!(MetricsOptions::new().topics("a*b").is_err());
/// # Ok::<(), actix_pubsub::TopicError>(())
/// ```
#[derive(Clone)]
pub struct MetricsOptions {
    pub(crate) instance: Option<Arc<str>>,
    patterns: Vec<Pattern>,
    topics_max: usize,
    pub(crate) log_topics_max: usize,
    named: Arc<Mutex<Named>>,
}

/// What has series of its own.
#[derive(Default)]
struct Named {
    topics: BTreeSet<Topic>,
    groups: BTreeSet<(Topic, String)>,
    rest: Rest,
}

/// Events of the topics without series of their own: topics end, and a counter must not go back.
#[derive(Default)]
struct Rest {
    now: u64,
    total: u64,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl MetricsOptions {
    /// No topics by name, and up to 100 topics of the log looked at.
    pub fn new() -> Self {
        Self {
            instance: None,
            patterns: Vec::new(),
            topics_max: TOPICS_MAX_DEFAULT,
            log_topics_max: LOG_TOPICS_MAX_DEFAULT,
            named: Arc::default(),
        }
    }

    /// The most topics with series of their own that [`topics_max`](Self::topics_max) allows.
    pub const TOPICS_MAX: usize = 10_000;

    /// Adds a label `pubsub` with this value to every series: for programs with several pub/subs and one recorder.
    pub fn instance(mut self, name: &str) -> Self {
        self.instance = Some(Arc::from(name));
        self
    }

    /// The topics that fit `pattern`, a name or the beginning of names and a `*`, have series of their own. May be called several times.
    ///
    /// # Cost
    /// With any pattern, each recording walks over all topics.
    ///
    /// # Errors
    /// No topic can fit the pattern.
    pub fn topics(mut self, pattern: &str) -> Result<Self, TopicError> {
        self.patterns.push(Pattern::parse(pattern)?);
        Ok(self)
    }

    /// How many topics may have series of their own: 100, unless told otherwise; at most [`TOPICS_MAX`](Self::TOPICS_MAX).
    pub fn topics_max(mut self, topics: usize) -> Self {
        self.topics_max = topics.min(Self::TOPICS_MAX);
        self
    }

    /// How many topics of the log are looked at: 100, unless told otherwise; those that are consumed here first, then by name. 0: the store is not asked.
    ///
    /// # Cost
    /// A handful of reads of the store for each, and for each of its groups.
    pub fn log_topics_max(mut self, topics: usize) -> Self {
        self.log_topics_max = topics;
        self
    }

    pub(crate) fn wants_topics(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether this topic has series of its own: it was named before, or there is room.
    pub(crate) fn names_topic(&self, topic: &Topic) -> bool {
        if !self.patterns.iter().any(|pattern| pattern.fits(topic)) {
            return false;
        }
        admit(&mut lock(&self.named).topics, topic, self.topics_max)
    }

    /// The topics that have series of their own, whether they are there now or not.
    pub(crate) fn named_topics(&self) -> Vec<Topic> {
        lock(&self.named).topics.iter().cloned().collect()
    }

    /// Whether this consumer group has series of its own.
    pub(crate) fn names_group(&self, topic: &Topic, group: &str) -> bool {
        admit(&mut lock(&self.named).groups, &(topic.clone(), group.to_owned()), GROUPS_MAX)
    }

    /// The groups that have series of their own, whether they are there now or not.
    pub(crate) fn named_groups(&self) -> Vec<(Topic, String)> {
        lock(&self.named).groups.iter().cloned().collect()
    }

    /// What the rest of the topics comes to, if it is `now` this: it never goes back.
    pub(crate) fn rest_of_events(&self, now: u64) -> u64 {
        let rest = &mut lock(&self.named).rest;
        rest.total += now.saturating_sub(rest.now);
        rest.now = now;
        rest.total
    }
}

fn admit<T: Ord + Clone>(named: &mut BTreeSet<T>, new: &T, max: usize) -> bool {
    if named.contains(new) {
        return true;
    }
    named.len() < max && named.insert(new.clone())
}

impl fmt::Debug for MetricsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsOptions")
            .field("instance", &self.instance)
            .field("patterns", &self.patterns)
            .field("topics_max", &self.topics_max)
            .field("log_topics_max", &self.log_topics_max)
            .finish_non_exhaustive()
    }
}

/// Topics with series of their own, unless told otherwise.
const TOPICS_MAX_DEFAULT: usize = 100;
/// Topics of the log looked at, unless told otherwise: some hundred reads.
const LOG_TOPICS_MAX_DEFAULT: usize = 100;
/// Consumer groups with series of their own.
pub(crate) const GROUPS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_named_first_stays_named_up_to_the_limit() {
        let options = MetricsOptions::new().topics("a.*").unwrap().topics_max(2);
        let topic = |name| Topic::parse(name).unwrap();
        let named: Vec<_> = ["b", "a.2", "a.1", "a.3", "a.1"].map(|name| options.names_topic(&topic(name))).into();
        assert_eq!(named, [false, true, true, false, true]);
        assert!(!options.clone().names_topic(&topic("a.4")), "a clone shares them");
        for group in 0..GROUPS_MAX {
            assert!(options.names_group(&topic("t"), &group.to_string()));
        }
        assert!(!options.names_group(&topic("t"), "one more") && options.names_group(&topic("t"), "0"));
    }

    #[test]
    fn the_rest_of_the_events_never_goes_back() {
        let options = MetricsOptions::new();
        assert_eq!([10, 7, 9].map(|now| options.rest_of_events(now)), [10, 10, 12]);
    }
}
