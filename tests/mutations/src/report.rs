//! Report: `RESULTS.md`, from the lists and what came of them. Knows no files but that one.

use std::fmt::Write;
use std::fs;

use crate::Places;
use crate::guarantees::Row;
use crate::guarantees::Test;
use crate::list::Lists;
use crate::list::Mutation;
use crate::outcomes::End;
use crate::outcomes::Outcome;
use crate::outcomes::Outcomes;

/// What a mutation came to.
#[derive(PartialEq, Eq)]
enum Verdict {
    Found,
    Survived,
    Untried,
}

pub fn write(places: &Places, rows: &[Row], lists: &Lists, outcomes: &Outcomes) -> Result<(), String> {
    let folder = places.root.join("tests/mutations");
    let promises = folder.join("promises.txt");
    let promises = fs::read_to_string(&promises).map_err(|error| format!("{}: {error}", promises.display()))?;
    let text = Report { rows, lists, outcomes, promises: &promises }.text()?;
    let path = folder.join("RESULTS.md");
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

struct Report<'a> {
    rows: &'a [Row],
    lists: &'a Lists,
    outcomes: &'a Outcomes,
    /// `promises.txt`.
    promises: &'a str,
}

impl Report<'_> {
    fn text(&self) -> Result<String, String> {
        // Writing to a string does not fail.
        let mut text = HEAD.to_owned();
        self.totals(&mut text);
        self.promises(&mut text)?;
        let mut section = "";
        for row in self.rows {
            if section != row.section {
                section = &row.section;
                let _ = writeln!(
                    text,
                    "\n## {section}\n\n| promise | broken on purpose | the test that failed, and what it said |\n|---|---|---|"
                );
            }
            self.row(row, &mut text);
        }
        self.unfailed(&mut text);
        Ok(text)
    }

    /// What was set out to be better, and how much of what keeps it was broken.
    fn promises(&self, text: &mut String) -> Result<(), String> {
        let _ = write!(
            text,
            "\n## What was set out\n\n| known leak of the model | promise | rows below: mutations found of those tried |\n|---|---|---|"
        );
        let mut rows = Vec::new();
        for line in self.promises.lines() {
            match line.split_once(": ") {
                Some(("leak", leak)) => {
                    let _ = write!(text, "{}\n| {leak} |", ended(&mut rows));
                }
                Some(("promise", promise)) => {
                    let _ = write!(text, " {promise} |");
                }
                Some(("row", begin)) => {
                    let row = self.rows.iter().find(|row| row.promise.starts_with(begin));
                    let row = row.ok_or_else(|| format!("promises.txt: no row begins with {begin:?}"))?;
                    let tried = self.of(row).filter(|mutation| self.verdict(mutation) != Verdict::Untried).count();
                    let found = self.of(row).filter(|mutation| self.verdict(mutation) == Verdict::Found).count();
                    rows.push(format!("{begin} …: {found} of {tried}"));
                }
                _ => {}
            }
        }
        let _ = writeln!(text, "{}", ended(&mut rows));
        Ok(())
    }

    fn totals(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "| section | rows | rows with a mutation | mutations | found | survived, with a reason | survived | not tried |\n|---|---|---|---|---|---|---|---|"
        );
        let mut sections: Vec<&str> = self.rows.iter().map(|row| row.section.as_str()).collect();
        sections.dedup();
        for section in sections {
            let rows: Vec<_> = self.rows.iter().filter(|row| row.section == section).collect();
            let mutations: Vec<_> = rows.iter().flat_map(|row| self.of(row)).collect();
            let count = |wanted: Verdict| mutations.iter().filter(|mutation| self.verdict(mutation) == wanted).count();
            let explained = mutations.iter().filter(|it| it.survives.is_some() && self.verdict(it) == Verdict::Survived).count();
            let with = rows.iter().filter(|row| self.of(row).next().is_some()).count();
            let _ = writeln!(
                text,
                "| {section} | {} | {with} | {} | {} | {explained} | {} | {} |",
                rows.len(),
                mutations.len(),
                count(Verdict::Found),
                count(Verdict::Survived) - explained,
                count(Verdict::Untried)
            );
        }
    }

    fn row(&self, row: &Row, text: &mut String) {
        let mut promise = row.promise.as_str();
        for mutation in self.of(row) {
            let what = match self.verdict(mutation) {
                Verdict::Found => self.failures(mutation),
                Verdict::Survived => match &mutation.survives {
                    Some(reason) => format!("none: {reason}"),
                    None => "**none**".into(),
                },
                Verdict::Untried => "not tried".into(),
            };
            let _ = writeln!(text, "| {promise} | {} | {what} |", mutation.name);
            promise = "";
        }
        for exception in self.lists.exceptions.iter().filter(|it| it.row == row.promise && !it.reason.is_empty()) {
            let _ = writeln!(text, "| {promise} | nothing | {} |", exception.reason);
            promise = "";
        }
        if !promise.is_empty() {
            let _ = writeln!(text, "| {promise} | nothing yet | |");
        }
    }

    fn failures(&self, mutation: &Mutation) -> String {
        let of = |test| self.outcomes.get(mutation, test).filter(|it| it.end != End::Passed).map(|it| shown(test, it));
        mutation.tests.iter().filter_map(of).collect::<Vec<_>>().join("; ")
    }

    /// The tests that are named and have not been seen to fail.
    fn unfailed(&self, text: &mut String) {
        let failed = |test: &Test| {
            let of = |mutation: &Mutation| self.outcomes.get(mutation, test).is_some_and(|it| it.end != End::Passed);
            self.lists.mutations.iter().any(|mutation| mutation.tests.contains(test) && of(mutation))
        };
        let mut tests: Vec<_> = self.rows.iter().flat_map(|row| &row.tests).collect();
        tests.sort();
        tests.dedup();
        let unfailed: Vec<_> = tests.iter().filter(|test| !failed(test)).map(|test| format!("* {}", test.shown())).collect();
        let _ = writeln!(
            text,
            "\n## Tests that no mutation made fail\n\n{} of the {} that the rows name did fail.",
            tests.len() - unfailed.len(),
            tests.len()
        );
        if !unfailed.is_empty() {
            let _ = writeln!(text, "Not seen to fail:\n\n{}", unfailed.join("\n"));
        }
    }

    fn of(&self, row: &Row) -> impl Iterator<Item = &Mutation> {
        self.lists.mutations.iter().filter(move |mutation| mutation.row == row.promise)
    }

    fn verdict(&self, mutation: &Mutation) -> Verdict {
        match (self.outcomes.found(mutation), self.outcomes.knows(mutation)) {
            (true, _) => Verdict::Found,
            (false, true) => Verdict::Survived,
            (false, false) => Verdict::Untried,
        }
    }
}

/// The last cell of a promise.
fn ended(rows: &mut Vec<String>) -> String {
    let shown = if rows.is_empty() { String::new() } else { format!(" {} |", rows.join("; ")) };
    rows.clear();
    shown
}

fn shown(test: &Test, outcome: &Outcome) -> String {
    let said = outcome.said.split("stack backtrace").next().unwrap_or_default();
    let said = said.trim_end().replace('|', "\\|").replace('`', "'");
    format!("{}, {:.1} s: `{said}`", test.shown(), outcome.seconds)
}

const HEAD: &str = "# Mutations

What was broken on purpose, and the test that failed for it. Written by `cargo run -p mutations`, from `lists/` and a run; not by hand.

";
