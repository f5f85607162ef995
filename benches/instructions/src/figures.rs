//! Figures: what was counted before, in `figures.toml`. Knows no cases.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;

/// The file.
pub struct Figures {
    /// What compiled it then.
    pub rustc: String,
    /// How far a count may be off.
    tolerance: f64,
    /// The same where another rustc compiles.
    tolerance_other_rustc: f64,
    /// Instructions for each unit, by case.
    pub counts: BTreeMap<String, f64>,
}

impl Figures {
    /// Reads the file: lines of `name = value` in this order, `rustc` the only text.
    pub fn read() -> Result<Self, String> {
        let text = fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"))?;
        let mut figures = Self { rustc: String::new(), tolerance: 0.0, tolerance_other_rustc: 0.0, counts: BTreeMap::new() };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
        for line in lines {
            let (name, value) = line.split_once('=').ok_or_else(|| format!("{PATH}: {line:?} is not name = value"))?;
            let (name, value) = (name.trim(), value.trim());
            let number = || value.parse::<f64>().map_err(|error| format!("{PATH}: {line:?}: {error}"));
            match name {
                "rustc" => figures.rustc = value.trim_matches('"').into(),
                "tolerance" => figures.tolerance = number()?,
                "tolerance_other_rustc" => figures.tolerance_other_rustc = number()?,
                _ => drop(figures.counts.insert(name.into(), number()?)),
            }
        }
        Ok(figures)
    }

    /// Writes the file anew.
    pub fn write(&self) -> Result<(), String> {
        let mut text = format!(
            "{HEAD}rustc = \"{}\"\n# Of a count, in either direction: that of unsubscribe is one of two, 6 % apart, by how a hash map lies in memory; the others differ by 1 % between runs, and by 2 % when something else in the crate changed.\ntolerance = {}\n# With another compiler than the one above.\ntolerance_other_rustc = {}\n\n[instructions]\n",
            self.rustc, self.tolerance, self.tolerance_other_rustc
        );
        for (name, count) in &self.counts {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name} = {count:.1}");
        }
        fs::write(PATH, text).map_err(|error| format!("{PATH}: {error}"))
    }

    /// How far a count may be off with this compiler.
    pub fn tolerance(&self, rustc: &str) -> f64 {
        if self.rustc == rustc { self.tolerance } else { self.tolerance_other_rustc }
    }
}

/// The compiler of this directory, as it calls itself.
pub fn rustc() -> Result<String, String> {
    let said = Command::new("rustc").arg("--version").output().map_err(|error| format!("rustc cannot be run: {error}"))?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().into())
}

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.toml");
const HEAD: &str = "\
# Instructions of the hot paths, on x86-64 Linux, in a release build. Written by: cargo run --release -p instructions -- --accept
";
