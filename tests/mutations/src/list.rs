//! List: the mutations, as `lists/*.txt` has them. Knows their form, and nothing of what they break.
//!
//! ```text
//! row: A broadcast reaches each            the first words of a row; it holds for all that follow
//!
//! mutation: nobody's filter is asked       what is broken, in words
//! file: src/local/ring.rs
//! fn: take_last                            where, if the text is there more than once
//! - entry.from != seat                     the text, in any layout; once in the file, or in the function
//! + true                                   what stands there once it is broken
//! tests: contract::some_test               which of the row's tests; all, if none are named
//! survives: why no test fails              only where that is so
//! ```
//! An expression or a statement is put behind the switch as a whole. Where that does not fit, what stands there instead has the word `BROKEN` for the switch.
//! A file that is no source is one that tests read while they run. A mutation of several places has several `file:`. `except: why` stands for the mutations of a row that has none.

use std::fs;
use std::path::Path;

use crate::guarantees::Row;
use crate::guarantees::Test;

/// All lists.
pub struct Lists {
    pub mutations: Vec<Mutation>,
    pub exceptions: Vec<Exception>,
}

pub struct Mutation {
    /// Tells it from the others where it is switched on.
    pub number: usize,
    pub name: String,
    /// The promise, as in the row.
    pub row: String,
    pub sites: Vec<Site>,
    pub tests: Vec<Test>,
    pub survives: Option<String>,
}

/// One place of the source.
#[derive(Default)]
pub struct Site {
    pub file: String,
    pub function: Option<String>,
    pub old: String,
    pub broken: String,
}

/// Why a row has no mutation.
pub struct Exception {
    pub row: String,
    pub reason: String,
}

impl Site {
    /// It is no source, but something that tests read while they run.
    pub fn is_data(&self) -> bool {
        !self.file.ends_with(".rs")
    }
}

impl Mutation {
    /// It is not in the build, but in a file while its tests run.
    pub fn is_data(&self) -> bool {
        self.sites.iter().any(Site::is_data)
    }

    /// What it does, to know it again.
    pub fn text(&self) -> String {
        let sites = self.sites.iter().map(|site| format!("{}\n{}\n{}", site.file, site.old, site.broken));
        sites.collect::<Vec<_>>().join("\n")
    }
}

pub fn read(root: &Path, rows: &[Row]) -> Result<Lists, String> {
    let folder = root.join("tests/mutations/lists");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    let mut lists = Lists { mutations: Vec::new(), exceptions: Vec::new() };
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        for (number, line) in (1..).zip(text.lines()) {
            lists.line(line, rows).map_err(|error| format!("{}:{number}: {error}", file.display()))?;
        }
        lists.rowless();
    }
    lists.finish(rows)?;
    Ok(lists)
}

impl Lists {
    /// The next list begins without a row.
    fn rowless(&mut self) {
        if let Some(last) = self.exceptions.last()
            && last.reason.is_empty()
        {
            self.exceptions.pop();
        }
    }

    fn line(&mut self, line: &str, rows: &[Row]) -> Result<(), String> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(old) = line.strip_prefix('-') {
            return self.site().map(|site| append(&mut site.old, old));
        }
        if let Some(broken) = line.strip_prefix('+') {
            return self.site().map(|site| append(&mut site.broken, broken));
        }
        let (what, value) = line.split_once(':').ok_or("neither `-`, `+` nor `name: value`")?;
        let value = value.trim().to_owned();
        match what {
            "row" => {
                self.rowless();
                let whole = rows.iter().any(|row| row.promise == value);
                let fits = |row: &&Row| if whole { row.promise == value } else { row.promise.starts_with(&value) };
                let fits: Vec<_> = rows.iter().filter(fits).collect();
                let [row] = fits[..] else { return Err(format!("{} rows begin so", fits.len())) };
                // The row that is spoken of, until something is said of it.
                self.exceptions.push(Exception { row: row.promise.clone(), reason: String::new() });
            }
            "except" => self.exceptions.last_mut().ok_or("an exception of no row")?.reason = value,
            "mutation" => {
                let row = self.exceptions.last().filter(|row| row.reason.is_empty()).ok_or("a mutation of no row")?.row.clone();
                let number = self.mutations.len() + 1;
                self.mutations.push(Mutation { number, name: value, row, sites: Vec::new(), tests: Vec::new(), survives: None });
            }
            "file" => self.last()?.sites.push(Site { file: value, ..Site::default() }),
            "fn" => self.site()?.function = Some(value),
            "tests" => {
                let row = self.last()?.row.clone();
                let known = &rows.iter().find(|known| known.promise == row).ok_or("no row")?.tests;
                for name in value.split(',').map(str::trim) {
                    let test =
                        known.iter().find(|test| test.name == name).ok_or_else(|| format!("{name} is no test of its row"))?;
                    self.last()?.tests.push(test.clone());
                }
            }
            "survives" => self.last()?.survives = Some(value),
            _ => return Err(format!("what is {what:?}?")),
        }
        Ok(())
    }

    fn last(&mut self) -> Result<&mut Mutation, String> {
        self.mutations.last_mut().ok_or_else(|| "of no mutation".into())
    }

    fn site(&mut self) -> Result<&mut Site, String> {
        self.last()?.sites.last_mut().ok_or_else(|| "of no file".into())
    }

    fn finish(&mut self, rows: &[Row]) -> Result<(), String> {
        for mutation in &mut self.mutations {
            if mutation.sites.is_empty() || mutation.sites.iter().any(|site| site.old.trim().is_empty()) {
                return Err(format!("{:?} breaks nothing", mutation.name));
            }
            if mutation.tests.is_empty() {
                let row = rows.iter().find(|row| row.promise == mutation.row).ok_or("no row")?;
                mutation.tests.clone_from(&row.tests);
            }
        }
        let mut names: Vec<_> = self.mutations.iter().map(|mutation| &mutation.name).collect();
        names.sort();
        match names.windows(2).find(|two| two[0] == two[1]) {
            Some(twice) => Err(format!("{:?} is there twice", twice[0])),
            None => Ok(()),
        }
    }
}

fn append(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line.strip_prefix(' ').unwrap_or(line));
}
