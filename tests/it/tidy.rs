//! Tidy: rules of the source that no compiler checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Layers from below to above: a module may use those before it, and its own.
const LAYERS: [&str; 18] = [
    "sync",
    "topic",
    "ids",
    "encodings",
    "codec",
    "event",
    "observe",
    "local",
    "log",
    "feed",
    "cluster",
    "pubsub",
    "supervised",
    "stream",
    "metrics",
    "web",
    "testing",
    "guide",
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    sources(&root.join(folder), &mut paths);
    assert!(!paths.is_empty());
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn layer_of(file: &str) -> Option<usize> {
    let module = file.strip_prefix("src/")?.split(['/', '.']).next()?;
    LAYERS.iter().position(|layer| *layer == module)
}

/// The layers that a source names by `crate::`, in a `use` or in a path.
fn used(source: &str) -> BTreeSet<&str> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
        .collect()
}

#[test]
fn imports_point_to_lower_layers_only() {
    for (file, source) in files("src") {
        if file == "src/lib.rs" {
            continue;
        }
        let own = layer_of(&file).unwrap_or_else(|| panic!("{file} is in no layer"));
        for module in used(&source) {
            let Some(layer) = LAYERS.iter().position(|layer| *layer == module) else { panic!("{file} uses crate::{module}") };
            assert!(layer <= own, "{file} is in layer {} and uses {module}, which is above", LAYERS[own]);
        }
    }
}

#[test]
fn lib_lists_its_modules_in_layer_order_and_holds_no_logic() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let modules: Vec<_> =
        lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')).collect();
    assert_eq!(modules, LAYERS);
    let logic = ["fn ", "struct ", "enum ", "impl ", "macro_rules!"];
    assert!(!lib.lines().any(|line| logic.iter().any(|word| line.trim_start().starts_with(word))));
}

#[test]
fn every_file_says_first_what_it_holds() {
    for (file, source) in ["src", "tests", "benches", "examples"].iter().flat_map(|folder| files(folder)) {
        let first = source.lines().next().unwrap_or_default();
        assert!(first.starts_with("//!") || file == "src/lib.rs", "{file} begins with {first:?}");
    }
}

#[test]
fn imports_are_one_per_line() {
    for (file, source) in ["src", "tests", "benches", "examples"].iter().flat_map(|folder| files(folder)) {
        let braced = source.lines().find(|line| line.trim_start().starts_with("use ") && line.contains('{'));
        assert_eq!(braced, None, "in {file}");
    }
}

#[test]
fn the_sources_hold_no_unfinished_code() {
    for (file, source) in files("src") {
        // Modules of tests print their seeds.
        let tests = source.contains("#[test]") && !source.contains("#[cfg(test)]");
        if tests {
            continue;
        }
        for word in ["todo!", "unimplemented!", "dbg!", "#[ignore", "println!("] {
            // A random test prints its seed.
            let code = source.lines().filter(|line| !line.trim_start().starts_with("//") && !line.contains("SEED="));
            assert!(!code.into_iter().any(|line| line.contains(word)), "{file} has {word}");
        }
    }
}

/// Each row of the guarantees names its tests; each of those exists.
#[test]
fn every_guarantee_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guarantees = fs::read_to_string(root.join("src/docs/guarantees.md")).unwrap();
    let tests: String = ["src", "tests", "benches"].iter().flat_map(|folder| files(folder)).map(|(_, source)| source).collect();
    let rows: Vec<_> = guarantees
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|-") && !line.contains("| kept by |"))
        .collect();
    assert!(rows.len() > 10, "{} rows", rows.len());
    for row in rows {
        let keepers = row.rsplit('|').nth(1).unwrap();
        let named: Vec<_> =
            keepers.split('`').skip(1).step_by(2).filter(|name| name.contains('_') && !name.contains(['(', ' ', '/'])).collect();
        assert!(!named.is_empty(), "names no test: {row}");
        for name in named {
            let name = name.rsplit("::").next().unwrap();
            assert!(tests.contains(&format!("fn {name}(")), "no test {name} for: {row}");
        }
    }
}

/// The runbook of the guide and the alerts are one list.
#[test]
fn the_guide_says_what_to_do_on_each_alert_and_knows_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let (alerts, guide) = (read("examples/grafana/alerts.yml"), read("src/docs/guide/operations.md"));
    let rules: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let rows: Vec<_> = guide.lines().filter_map(|line| line.strip_prefix("| `ActixPubsub")?.split_once('`')).collect();
    assert!(rules.len() > 10, "{} rules", rules.len());
    assert_eq!(rules, rows.iter().map(|(name, _)| format!("ActixPubsub{name}")).collect::<Vec<_>>());
}

/// Each guide is shown in the crate's documentation, where its code is compiled and run.
#[test]
fn every_guide_is_part_of_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (module, readme) =
        (fs::read_to_string(root.join("src/guide.rs")).unwrap(), fs::read_to_string(root.join("README.md")).unwrap());
    let guides: Vec<_> = fs::read_dir(root.join("src/docs/guide")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(guides.len() > 5, "{guides:?}");
    for guide in guides {
        let name = guide.to_str().unwrap();
        assert!(module.contains(&format!("include_str!(\"docs/guide/{name}\")")), "{name} is not in src/guide.rs");
        assert!(readme.contains(&format!("(src/docs/guide/{name})")), "README does not lead to {name}");
    }
}
