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
        let names: BTreeSet<_> = tests.map(|test| test.program.as_str()).collect();
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

    /// The binary of a test, and its full name there.
    pub fn find(&self, test: &Test) -> Result<(&PathBuf, &str), String> {
        let program = self.0.get(&test.program).ok_or_else(|| format!("cargo built no {}", test.program))?;
        let ends = format!("::{}", test.name);
        let fits = |known: &&String| **known == test.name || (known.ends_with(&ends) && known.starts_with(&test.module));
        let of_file = program.tests.iter().find(fits);
        let anywhere = || program.tests.iter().find(|known| known.ends_with(&ends));
        let known = of_file.or_else(anywhere).ok_or_else(|| format!("{} has no test {}", test.program, test.name))?;
        Ok((&program.path, known))
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
