//! Copy: the crate below the target folder, with every mutation in it. Knows nothing of what is run there.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::Places;
use crate::list::Mutation;
use crate::site;

/// Writes what changed since it was written last, so that cargo builds only that.
pub fn write(places: &Places, mutations: &[Mutation]) -> Result<(), String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(&places.root)
        .output()
        .map_err(|error| format!("git ls-files: {error}"))?;
    let listed = String::from_utf8(listed.stdout).map_err(|error| error.to_string())?;
    let mut kept = HashSet::new();
    for name in listed.split_terminator('\0') {
        let Ok(mut content) = fs::read(places.root.join(name)) else { continue };
        // What is no source is broken only while its mutation is on: see `Swapped`.
        if name.ends_with(".rs") && site::files(mutations).contains(&name) {
            let source = String::from_utf8(content).map_err(|error| format!("{name}: {error}"))?;
            content = site::rewritten(&source, name, mutations)?.into_bytes();
        }
        // `model` compiles some of the modules a second time.
        if name == "src/lib.rs" || name == "tests/model.rs" {
            let path = if name == "src/lib.rs" { "" } else { "#[path = \"../src/mutated.rs\"]\n" };
            let module = format!("\n{path}mod mutated;\n");
            // What is broken leaves some things unused.
            content = [b"#![allow(warnings)]\n", &content[..], module.as_bytes()].concat();
        }
        put(&places.copy.join(name), &content)?;
        kept.insert(places.copy.join(name));
    }
    let switch = places.copy.join("src/mutated.rs");
    put(&switch, SWITCH.as_bytes())?;
    kept.insert(switch);
    remove_others(&places.copy, &kept)
}

/// Files of a mutation that tests read while they run: the broken ones are there as long as this is.
pub struct Swapped(Vec<(PathBuf, Vec<u8>)>);

impl Swapped {
    pub fn of(places: &Places, mutation: &Mutation) -> Result<Self, String> {
        let mut whole = Self(Vec::new());
        for site in mutation.sites.iter().filter(|site| site.is_data()) {
            let path = places.copy.join(&site.file);
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let broken = site::broken(&text, site).ok_or_else(|| format!("{} has not: {}", site.file, site.old))?;
            whole.0.push((path.clone(), text.into_bytes()));
            put(&path, broken.as_bytes())?;
        }
        Ok(whole)
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        for (path, text) in self.0.iter().rev() {
            // The next run writes it anew.
            let _ = put(path, text);
        }
    }
}

fn put(path: &Path, content: &[u8]) -> Result<(), String> {
    if fs::read(path).is_ok_and(|known| known == content) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).and_then(|()| fs::write(path, content)).map_err(|error| format!("{}: {error}", path.display()))
}

fn remove_others(folder: &Path, kept: &HashSet<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(())
}

/// Read once: a test may change the environment, and the switch must not cost what it is asked.
const SWITCH: &str = r#"//! Mutated: which mutation is on in this process, if any.

pub(crate) fn on(mutation: u32) -> bool {
    static ON: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *ON.get_or_init(|| std::env::var("ACTIX_PUBSUB_MUTATION").ok().and_then(|on| on.parse().ok()).unwrap_or(0)) == mutation
}
"#;
