//! Programs: the copy's test binaries, built by cargo, and the tests in them. Knows no mutations.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use crate::Places;
use crate::guarantees::Test;

/// By name, `lib` for that of the crate itself.
pub struct Programs(BTreeMap<String, Program>);

struct Program {
    path: PathBuf,
    tests: Vec<String>,
}

impl Programs {
    /// Builds those that have one of the tests.
    pub fn build<'a>(places: &Places, tests: impl Iterator<Item = &'a Test>) -> Result<Self, String> {
        let tests: Vec<_> = tests.collect();
        let names: BTreeSet<_> = tests.iter().map(|test| test.program.as_str()).collect();
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--quiet", "--no-run", "--all-features", "--message-format=json-render-diagnostics"]);
        for name in &names {
            let _ = if *name == "lib" { cargo.arg("--lib") } else { cargo.args(["--test", name]) };
        }
        println!("building {}", names.iter().copied().collect::<Vec<_>>().join(", "));
        let built = cargo
            .current_dir(&places.copy)
            .env("CARGO_TARGET_DIR", &places.target)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        if !built.status.success() {
            return Err("the mutated crate does not compile".into());
        }
        // They run the example that they are named after.
        for test in tests.iter().filter(|test| test.program == "examples") {
            let example = test.name.split('_').next().unwrap_or_default();
            let mut cargo = Command::new("cargo");
            cargo.args(["build", "--quiet", "--all-features", "--example", example]).current_dir(&places.copy);
            let built = cargo.env("CARGO_TARGET_DIR", &places.target).status().map_err(|error| format!("cargo: {error}"))?;
            if !built.success() {
                return Err(format!("the example {example} does not compile"));
            }
        }
        let mut programs = BTreeMap::new();
        for line in built.stdout.split(|byte| *byte == b'\n') {
            let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
            let (target, path) = (&message["target"], message["executable"].as_str());
            if let Some(path) = path.filter(|_| message["profile"]["test"] == true) {
                let is_lib = target["kind"][0] == "lib";
                let name = if is_lib { "lib" } else { target["name"].as_str().unwrap_or_default() };
                programs.insert(name.to_owned(), Program::read(path.into())?);
            }
        }
        Ok(Self(programs))
    }

    /// The binary of a test, and its full name there: several, where it is there once for each engine.
    pub fn find(&self, test: &Test) -> Result<(&PathBuf, Vec<&str>), String> {
        let program = self.0.get(&test.program).ok_or_else(|| format!("cargo built no {}", test.program))?;
        let (module, name) = test.name.rsplit_once("::").unwrap_or((&test.module, &test.name));
        let ends = format!("::{name}");
        let within = |begin: &str| {
            let fits = |known: &&String| **known == test.name || (known.starts_with(begin) && known.ends_with(&ends));
            program.tests.iter().filter(fits).map(String::as_str).collect::<Vec<_>>()
        };
        let mut known = within(module);
        if known.is_empty() {
            known = within("");
        }
        if known.is_empty() { Err(format!("{} has no test {}", test.program, test.name)) } else { Ok((&program.path, known)) }
    }
}

impl Program {
    fn read(path: PathBuf) -> Result<Self, String> {
        let listed = Command::new(&path).args(["--list", "--format=terse"]).output();
        let listed = listed.map_err(|error| format!("{}: {error}", path.display()))?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let tests = listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
        Ok(Self { path, tests })
    }
}
