//! Report: reads what the benches recorded and writes it down: `benches/RESULTS.md`, the plots beside it, and the figures of README and of `src/docs/scaling.md`.
//! Run it by `cargo bench --all-features --bench report`; `sh benches/run.sh` does, after the benches. It measures nothing.
//!
//! ```text
//! benches/results/*.jsonl ──► RESULTS.md, plots/*.svg; again/*.jsonl there, of a second run: which of its ratios differ
//!            │
//!            └─ benches/report/texts/*.md, with {{keys}} for figures ──► README.md and src/docs/scaling.md, between their marks
//! ```
//! `--test` writes nothing and fails where what is written differs from what would be.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "measured times and counts are far below 2^52, and plots a thousand points wide"
)]

mod again;
#[path = "../common/mod.rs"]
mod common;
mod plot;
mod plots;
mod read;
mod results;
mod texts;

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process;

fn main() {
    let test = env::args().any(|argument| argument == "--test");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sections = read::all(&root.join("benches/results"));
    if sections.is_empty() {
        println!("report: nothing is recorded in benches/results; `sh benches/run.sh` does that");
        return;
    }
    let again = read::all(&root.join("benches/results/again"));
    let plots = plots::draw(&sections);
    let mut files: Vec<(PathBuf, String)> =
        plots.iter().map(|plot| (root.join("benches/plots").join(format!("{}.svg", plot.name)), plot.svg.clone())).collect();
    files.push((root.join("benches/RESULTS.md"), results::write(&sections, &again, &plots)));
    files.extend(texts::fill(root, &sections));
    let mut stale = Vec::new();
    for (path, text) in &files {
        if fs::read_to_string(path).is_ok_and(|written| written == *text) {
            continue;
        }
        stale.push(path.strip_prefix(root).unwrap_or(path).display().to_string());
        if !test {
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
            fs::write(path, text).expect("room on the disk");
        }
    }
    if test && !stale.is_empty() {
        eprintln!("not what was measured: {}. Write them by `cargo bench --all-features --bench report`", stale.join(", "));
        process::exit(1);
    }
    println!("report: {} files of {} sections, {} of them new", files.len(), sections.len(), stale.len());
}
