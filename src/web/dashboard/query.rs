//! Query: what a request asks of a list, parsed and bounded. Knows names and limits, no list.

use std::collections::BTreeMap;

use actix_web::web;

use crate::topic::Topic;
use crate::web::origin::shorten;
use crate::web::refusal::Refusal;

/// The parameters of a request, each given once and each known.
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// `format` is known everywhere; `page` has looked at it.
    pub(crate) fn parse(query: &str, known: &[&str]) -> Result<Self, Refusal> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(query);
        let pairs = pairs.map_err(|error| Refusal::bad("bad_request", error.to_string()))?.into_inner();
        let mut params = BTreeMap::new();
        for (name, value) in pairs {
            if name != "format" && !known.contains(&name.as_str()) {
                let message = format!("parameter {:?} is not one of {}", shorten(&name), with_format(known));
                return Err(Refusal::bad("parameter", message));
            }
            if params.insert(name.clone(), value).is_some() {
                return Err(Refusal::bad("parameter", format!("parameter {name:?} is given twice")));
            }
        }
        Ok(Self(params))
    }

    /// What is searched for, if anything.
    pub(crate) fn needle(&self) -> Result<Option<Needle>, Refusal> {
        let Some(text) = self.0.get("q").filter(|text| !text.is_empty()) else { return Ok(None) };
        if text.len() > NEEDLE_BYTES_MAX {
            let message = format!("q is {} bytes, the limit is {NEEDLE_BYTES_MAX}", text.len());
            return Err(Refusal::bad("parameter", message).limit(NEEDLE_BYTES_MAX as u64, text.len() as u64));
        }
        Ok(Some(Needle(text.clone())))
    }

    /// Whether one of these is given.
    pub(crate) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.0.contains_key(*name))
    }

    /// Items per page.
    pub(crate) fn per(&self) -> Result<usize, Refusal> {
        self.number("per", PER_DEFAULT, PER_MAX)
    }

    /// The page, from 1.
    pub(crate) fn page(&self) -> Result<usize, Refusal> {
        self.number("page", 1, PAGE_MAX)
    }

    /// Which of these names is asked for: its index.
    pub(crate) fn choice(&self, param: &str, names: &[&str]) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.0.get(param) else { return Ok(None) };
        let found = names.iter().position(|name| name == text);
        let unknown = || Refusal::bad("parameter", format!("{param} is {:?}, not one of {}", shorten(text), names.join(", ")));
        found.map(Some).ok_or_else(unknown)
    }

    /// The topic that the page before ended with.
    pub(crate) fn after(&self) -> Result<Option<Topic>, Refusal> {
        Ok(self.0.get("after").map(|name| Topic::parse(name)).transpose()?)
    }

    fn number(&self, param: &str, default: usize, max: usize) -> Result<usize, Refusal> {
        let Some(text) = self.0.get(param) else { return Ok(default) };
        let bad = |what: &str| Refusal::bad("parameter", format!("{param} is {what}, it has to be 1 to {max}"));
        match text.parse::<u64>() {
            Ok(number) if (1..=max as u64).contains(&number) => Ok(number as usize),
            Ok(number) => Err(bad(&number.to_string()).limit(if number == 0 { 1 } else { max as u64 }, number)),
            Err(_) => Err(bad(&format!("{:?}", shorten(text)))),
        }
    }
}

fn with_format(known: &[&str]) -> String {
    known.iter().chain(&["format"]).copied().collect::<Vec<_>>().join(", ")
}

/// A text that is searched for in others, ASCII letters in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needle(String);

impl Needle {
    pub(crate) fn is_in(&self, text: &str) -> bool {
        let needle = self.0.as_bytes();
        text.as_bytes().windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle))
    }
}

/// As long as a topic.
const NEEDLE_BYTES_MAX: usize = Topic::BYTES_MAX;
const PER_DEFAULT: usize = 50;
/// Items of one answer: some 100 KB.
pub(crate) const PER_MAX: usize = 200;
/// More than there are items.
const PAGE_MAX: usize = u32::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["q", "sort", "dir", "page", "per"];

    fn check<T>(query: &str, read: impl Fn(&Params) -> Result<T, Refusal>) -> Result<T, (String, Option<u64>, Option<u64>)> {
        let read = Params::parse(query, &KNOWN).and_then(|params| read(&params));
        read.map_err(|refusal| (refusal.message, refusal.limit, refusal.value))
    }

    #[test]
    fn numbers_are_taken_at_their_limits_and_refused_one_past_them() {
        assert_eq!(
            (check("", Params::per), check("per=1", Params::per), check("per=200", Params::per)),
            (Ok(50), Ok(1), Ok(200))
        );
        let refused = |message: &str, limit, value| Err((message.to_owned(), limit, value));
        assert_eq!(check("per=201", Params::per), refused("per is 201, it has to be 1 to 200", Some(200), Some(201)));
        assert_eq!(check("per=0", Params::per), refused("per is 0, it has to be 1 to 200", Some(1), Some(0)));
        assert_eq!(check("per=-1", Params::per), refused("per is \"-1\", it has to be 1 to 200", None, None));
        assert_eq!(check("page=4294967295", Params::page), Ok(4_294_967_295));
        assert!(check("page=4294967296", Params::page).is_err());
        assert!(check("page=99999999999999999999", Params::page).is_err());
    }

    #[test]
    fn what_is_not_known_or_given_twice_is_refused_by_name() {
        let any = |_: &Params| Ok(());
        assert_eq!(check("format=json&q=", any), Ok(()));
        let message = "parameter \"qq\" is not one of q, sort, dir, page, per, format";
        assert_eq!(check("qq=1", any), Err((message.to_owned(), None, None)));
        assert_eq!(check("q=1&q=2", any), Err(("parameter \"q\" is given twice".to_owned(), None, None)));
        let sort = |params: &Params| params.choice("sort", &["topic", "depth"]);
        assert_eq!((check("", sort), check("sort=depth", sort)), (Ok(None), Ok(Some(1))));
        assert_eq!(check("sort=x", sort), Err(("sort is \"x\", not one of topic, depth".to_owned(), None, None)));
    }

    #[test]
    fn a_needle_is_found_in_any_case_and_bounded() {
        let needle = |query: &str| check(query, Params::needle);
        assert_eq!(needle("q="), Ok(None));
        let found = needle("q=Room%3AL").unwrap().unwrap();
        assert!(found.is_in("room:lobby") && found.is_in("x ROOM:L") && !found.is_in("room:") && !found.is_in(""));
        assert!(needle(&format!("q={}", "x".repeat(255))).is_ok());
        let (_, limit, value) = needle(&format!("q={}", "x".repeat(256))).unwrap_err();
        assert_eq!((limit, value), (Some(255), Some(256)));
    }
}
