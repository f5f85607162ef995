//! Lists: what can be searched for in each list, what it is sorted by, and one page of it. Pure; knows no request's text.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::Serialize;

use crate::local::incident::Incident;
use crate::local::stats::ArbiterStats;
use crate::local::stats::SubscriptionStats;
use crate::local::stats::TopicStats;
use crate::web::dashboard::board::Snapshot;
use crate::web::dashboard::groups::TopicShown;
use crate::web::dashboard::query::Needle;
use crate::web::dashboard::query::Params;
use crate::web::refusal::Refusal;

/// What is asked of a list.
pub(crate) struct Ask<T: 'static> {
    list: &'static List<T>,
    needle: Option<Needle>,
    sort: &'static Sort<T>,
    dir: Dir,
    page: usize,
    per: usize,
}

/// What can be asked of one.
pub(crate) struct List<T: 'static> {
    finds: fn(&T, &Needle) -> bool,
    /// The first one is meant where none is named.
    sorts: &'static [Sort<T>],
}

struct Sort<T> {
    name: &'static str,
    /// Which end people want to see first.
    dir: Dir,
    by: fn(&T, &T) -> Ordering,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Dir {
    Asc,
    Desc,
}

/// One page of a list.
#[derive(Serialize)]
pub(crate) struct Shown<'a, T> {
    at_ms: u64,
    /// Items of the list.
    total: usize,
    /// Of them, those that have what is searched for.
    matched: usize,
    page: usize,
    per: usize,
    sort: &'static str,
    dir: Dir,
    items: Vec<&'a T>,
}

impl<T> List<T> {
    pub(crate) fn ask(&'static self, query: &str) -> Result<Ask<T>, Refusal> {
        self.ask_by(&Params::parse(query, &["q", "sort", "dir", "page", "per"])?)
    }

    pub(crate) fn ask_by(&'static self, params: &Params) -> Result<Ask<T>, Refusal> {
        let names: Vec<_> = self.sorts.iter().map(|sort| sort.name).collect();
        let sort = &self.sorts[params.choice("sort", &names)?.unwrap_or(0)];
        let dir = params.choice("dir", &["asc", "desc"])?.map_or(sort.dir, |index| [Dir::Asc, Dir::Desc][index]);
        Ok(Ask { list: self, needle: params.needle()?, sort, dir, page: params.page()?, per: params.per()? })
    }
}

impl<T> Ask<T> {
    /// # Cost
    /// A look at each item, and sorting the items up to the page's end: no more than it takes to find which those are.
    pub(crate) fn page<'a>(&self, of: &'a Snapshot<T>) -> Shown<'a, T> {
        let finds = |item: &T| self.needle.as_ref().is_none_or(|needle| (self.list.finds)(item, needle));
        let mut found: Vec<_> = of.items.iter().enumerate().filter(|(_, item)| finds(item)).collect();
        let matched = found.len();
        // Equal ones in the list's own order, so that pages join.
        let order = |(at, one): &(usize, &T), (to, other): &(usize, &T)| {
            let by = (self.sort.by)(one, other);
            if self.dir == Dir::Desc { by.reverse() } else { by }.then(at.cmp(to))
        };
        let begin = (self.page - 1).saturating_mul(self.per).min(matched);
        let end = begin.saturating_add(self.per).min(matched);
        if end < matched {
            found.select_nth_unstable_by(end, order);
            found.truncate(end);
        }
        if 0 < begin && begin < end {
            found.select_nth_unstable_by(begin, order);
        }
        found[begin..].sort_unstable_by(order);
        Shown {
            at_ms: of.at_ms,
            total: of.items.len(),
            matched,
            page: self.page,
            per: self.per,
            sort: self.sort.name,
            dir: self.dir,
            items: found[begin..].iter().map(|(_, item)| *item).collect(),
        }
    }
}

const fn up<T>(name: &'static str, by: fn(&T, &T) -> Ordering) -> Sort<T> {
    Sort { name, dir: Dir::Asc, by }
}

const fn down<T>(name: &'static str, by: fn(&T, &T) -> Ordering) -> Sort<T> {
    Sort { name, dir: Dir::Desc, by }
}

pub(crate) static TOPICS: List<TopicStats> = List {
    finds: |of, needle| needle.is_in(of.topic.as_str()) || needle.is_in(of.message),
    sorts: &[
        up("topic", |one, other| one.topic.cmp(&other.topic)),
        up("message", |one, other| one.message.cmp(other.message)),
        down("subscribers", |one, other| one.subscribers.cmp(&other.subscribers)),
        down("arbiters", |one, other| one.arbiters.cmp(&other.arbiters)),
        down("events", |one, other| one.events.cmp(&other.events)),
        down("backlog", |one, other| one.backlog.cmp(&other.backlog)),
    ],
};

pub(crate) static SUBSCRIPTIONS: List<SubscriptionStats> = List {
    finds: |of, needle| {
        let metadata = of.metadata.as_deref().unwrap_or_default();
        [of.topic.as_str(), of.actor, of.message, metadata].into_iter().any(|text| needle.is_in(text))
    },
    sorts: &[
        // As `top_slow` has it.
        down("slow", |one, other| one.slowness().cmp(&other.slowness())),
        up("topic", |one, other| one.topic.cmp(&other.topic)),
        up("actor", |one, other| one.actor.cmp(other.actor)),
        up("message", |one, other| one.message.cmp(other.message)),
        up("metadata", |one, other| one.metadata.cmp(&other.metadata)),
        up("arbiter", |one, other| one.arbiter.cmp(&other.arbiter)),
        down("depth", |one, other| one.depth.cmp(&other.depth)),
        down("capacity", |one, other| one.capacity.cmp(&other.capacity)),
        down("delivered", |one, other| one.delivered.cmp(&other.delivered)),
        down("missed", |one, other| one.missed.cmp(&other.missed)),
        down("oldest", |one, other| one.oldest_ms.cmp(&other.oldest_ms)),
        down("stalled", |one, other| one.stalled_ms.cmp(&other.stalled_ms)),
    ],
};

pub(crate) static ARBITERS: List<ArbiterStats> = List {
    finds: |of, needle| needle.is_in(&of.arbiter.to_string()) || (of.background && needle.is_in("background")),
    sorts: &[
        up("arbiter", |one, other| one.arbiter.cmp(&other.arbiter)),
        down("subscribers", |one, other| one.subscribers.cmp(&other.subscribers)),
        down("events", |one, other| one.events.cmp(&other.events)),
        down("delivered", |one, other| one.delivered.cmp(&other.delivered)),
        down("per_second", |one, other| one.delivered_per_second.cmp(&other.delivered_per_second)),
        down("port_depth", |one, other| one.port_depth.cmp(&other.port_depth)),
        down("port_refused", |one, other| one.port_refused.cmp(&other.port_refused)),
        down("port_waits", |one, other| one.port_waits_ms.cmp(&other.port_waits_ms)),
        down("slice", |one, other| one.slice_us.cmp(&other.slice_us)),
    ],
};

pub(crate) static GROUPS: List<TopicShown> = List {
    finds: |of, needle| needle.is_in(of.topic.as_str()) || of.groups.iter().any(|group| needle.is_in(&group.stored.group)),
    sorts: &[
        up("topic", |one, other| one.topic.cmp(&other.topic)),
        down("entries", |one, other| one.entries.cmp(&other.entries)),
        down("lag", |one, other| one.stored(|of| of.lag).cmp(&other.stored(|of| of.lag))),
        down("pending", |one, other| one.stored(|of| Some(of.pending)).cmp(&other.stored(|of| Some(of.pending)))),
        down("oldest", |one, other| one.stored(|of| of.oldest_pending_ms).cmp(&other.stored(|of| of.oldest_pending_ms))),
        down("attempt", |one, other| {
            one.stored(|of| of.oldest_pending_attempt).cmp(&other.stored(|of| of.oldest_pending_attempt))
        }),
        down("consumers", |one, other| one.stored(|of| Some(of.consumers)).cmp(&other.stored(|of| Some(of.consumers)))),
        down("handled", |one, other| one.here(|of| of.handled).cmp(&other.here(|of| of.handled))),
        down("redelivered", |one, other| one.here(|of| of.redelivered).cmp(&other.here(|of| of.redelivered))),
        down("failed", |one, other| one.here(|of| of.failed).cmp(&other.here(|of| of.failed))),
        down("dead_letters", |one, other| one.here(|of| of.dead_letters).cmp(&other.here(|of| of.dead_letters))),
    ],
};

pub(crate) static INCIDENTS: List<Incident> = List {
    finds: |of, needle| serde_json::to_value(of).is_ok_and(|value| texts(&value).iter().any(|text| needle.is_in(text))),
    sorts: &[
        down("at", |one, other| (one.at_ms, one.id).cmp(&(other.at_ms, other.id))),
        down("id", |one, other| one.id.cmp(&other.id)),
        down("times", |one, other| one.times.cmp(&other.times)),
    ],
};

/// What an incident says of itself: its kind, its topic, its actor.
fn texts(value: &serde_json::Value) -> Vec<Cow<'_, str>> {
    let fields = value.as_object().into_iter().flat_map(|fields| fields.values());
    fields.filter_map(|field| field.as_str().map(Cow::Borrowed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static NUMBERS: List<(u32, &'static str)> = List {
        finds: |of, needle| needle.is_in(of.1),
        sorts: &[up("number", |one, other| one.0.cmp(&other.0)), down("name", |one, other| one.1.cmp(other.1))],
    };

    fn check(query: &str) -> (usize, usize, Vec<u32>) {
        let items = [(3, "c"), (1, "b"), (2, "b"), (5, "B"), (4, "a")];
        let Ok(ask) = NUMBERS.ask(query) else { panic!("{query} is refused") };
        let snapshot = Snapshot::now(items.to_vec());
        let page = ask.page(&snapshot);
        (page.total, page.matched, page.items.iter().map(|item| item.0).collect())
    }

    #[test]
    fn a_page_is_found_sorted_and_cut_with_the_counts_of_the_whole() {
        assert_eq!(check(""), (5, 5, vec![1, 2, 3, 4, 5]));
        assert_eq!(check("dir=desc&per=2"), (5, 5, vec![5, 4]));
        assert_eq!(check("per=2&page=2"), (5, 5, vec![3, 4]));
        assert_eq!(check("per=2&page=3"), (5, 5, vec![5]));
        assert_eq!(check("per=2&page=4"), (5, 5, vec![]));
        assert_eq!(check("page=4294967295&per=200"), (5, 5, vec![]));
        assert_eq!(check("q=b"), (5, 3, vec![1, 2, 5]));
        assert_eq!(check("sort=name"), (5, 5, vec![3, 1, 2, 4, 5]), "equal ones stay in their order");
        assert_eq!(check("q=nothing"), (5, 0, vec![]));
    }

    #[test]
    fn pages_of_a_long_list_join() {
        let items: Vec<_> = (0..10_000_u32)
            .map(|number| (number.wrapping_mul(2_654_435_761) % 5_000, if number < 5_000 { "x" } else { "y" }))
            .collect();
        let snapshot = Snapshot::now(items.clone());
        let mut seen = Vec::new();
        for page in 1..=50 {
            let Ok(ask) = NUMBERS.ask(&format!("per=200&page={page}")) else { panic!("it is refused") };
            seen.extend(ask.page(&snapshot).items.iter().map(|item| **item));
        }
        let mut sorted = items;
        sorted.sort_by_key(|item| item.0);
        assert_eq!(seen, sorted);
    }
}
