//! Outcomes: what came of each mutation when it was tried last, in a file below the target folder. Knows no processes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::path::PathBuf;

use crate::Places;
use crate::guarantees::Test;
use crate::list::Mutation;

/// By mutation and test.
pub struct Outcomes {
    path: PathBuf,
    known: BTreeMap<(u64, String), Outcome>,
}

#[derive(Debug, Clone)]
pub struct Outcome {
    pub end: End,
    pub seconds: f64,
    /// Its panic, in one line.
    pub said: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Passed,
    Failed,
    /// Killed when its time was over.
    Hung,
}

impl Outcomes {
    pub fn read(places: &Places) -> Result<Self, String> {
        let path = places.own.join("outcomes.tsv");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut known = BTreeMap::new();
        for line in text.lines() {
            let fields: Vec<_> = line.splitn(5, '\t').collect();
            let [mutation, test, end, seconds, said] = fields[..] else { return Err(format!("{}: {line}", path.display())) };
            let end = match end {
                "failed" => End::Failed,
                "hung" => End::Hung,
                _ => End::Passed,
            };
            let outcome = Outcome { end, seconds: seconds.parse().unwrap_or_default(), said: said.into() };
            known.insert((mutation.parse().unwrap_or_default(), test.into()), outcome);
        }
        Ok(Self { path, known })
    }

    pub fn get(&self, mutation: &Mutation, test: &Test) -> Option<&Outcome> {
        self.known.get(&(id(mutation), test.name.clone()))
    }

    /// All of its tests have been run.
    pub fn knows(&self, mutation: &Mutation) -> bool {
        mutation.tests.iter().all(|test| self.get(mutation, test).is_some())
    }

    /// One of its tests failed.
    pub fn found(&self, mutation: &Mutation) -> bool {
        mutation.tests.iter().any(|test| self.get(mutation, test).is_some_and(|outcome| outcome.end != End::Passed))
    }

    /// Written at once: a run takes long.
    pub fn set(&mut self, mutation: &Mutation, test: &Test, outcome: Outcome) -> Result<(), String> {
        self.known.insert((id(mutation), test.name.clone()), outcome);
        let mut text = String::new();
        for ((mutation, test), Outcome { end, seconds, said }) in &self.known {
            let end = match end {
                End::Passed => "passed",
                End::Failed => "failed",
                End::Hung => "hung",
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{mutation}\t{test}\t{end}\t{seconds:.1}\t{said}");
        }
        fs::write(&self.path, text).map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// Another text is another mutation.
fn id(mutation: &Mutation) -> u64 {
    let mut hasher = DefaultHasher::new();
    mutation.text().hash(&mut hasher);
    hasher.finish()
}
