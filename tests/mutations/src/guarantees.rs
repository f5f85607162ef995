//! Guarantees: the rows of `src/docs/guarantees.md` and the tests that they name. Knows no mutations.

use std::fs;
use std::path::Path;

/// One promise.
pub struct Row {
    /// The heading above it.
    pub section: String,
    pub promise: String,
    pub tests: Vec<Test>,
}

/// A test as a row names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    /// The binary: `lib`, or the name of an integration test.
    pub program: String,
    /// Where its source is, as a path of modules; empty where the name says all.
    pub module: String,
    pub name: String,
}

impl Test {
    pub fn shown(&self) -> String {
        match (self.program.as_str(), self.module.as_str()) {
            ("it", _) => format!("`{}`", self.name),
            ("lib", module) => format!("`{module}::{}`", self.name),
            (program, _) => format!("`{}` in `tests/{program}`", self.name),
        }
    }
}

pub fn read(root: &Path) -> Result<Vec<Row>, String> {
    let path = root.join("src/docs/guarantees.md");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (mut rows, mut section) = (Vec::new(), "The core".to_owned());
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        }
        if !line.starts_with('|') || line.starts_with("|-") || line.contains("| kept by |") {
            continue;
        }
        let cells: Vec<_> = line.rsplitn(3, '|').collect();
        let [_, keepers, promise] = cells[..] else { return Err(format!("not a row of two cells: {line}")) };
        let promise = promise.trim_matches(['|', ' ']).to_owned();
        rows.push(Row { section: section.clone(), promise, tests: tests(keepers) });
    }
    Ok(rows)
}

/// Names with `::` are in `tests/it`; others are in the next path that is named, and mean something else if none is.
fn tests(cell: &str) -> Vec<Test> {
    let (mut tests, mut names) = (Vec::new(), Vec::new());
    for word in cell.split('`').skip(1).step_by(2) {
        if let Some(path) = word.strip_suffix(".rs") {
            let (program, module) = match path.strip_prefix("src/") {
                Some(module) => ("lib", module.trim_end_matches("/mod").replace('/', "::")),
                None => (path.trim_start_matches("tests/").trim_end_matches("/main"), String::new()),
            };
            tests.extend(names.drain(..).map(|name| Test { program: program.into(), module: module.clone(), name }));
        } else if word.ends_with(".mjs") {
            // Of the browser's client; it is no part of this crate's code.
            names.clear();
        } else if word.contains("::") && !word.contains(['…', ' ']) {
            tests.push(Test { program: "it".into(), module: String::new(), name: word.into() });
        } else if word.contains('_') && !word.contains(['/', '.', '(']) {
            names.push(word.into());
        }
    }
    tests
}
