//! Mutations: breaks each promise of `src/docs/guarantees.md` on purpose, and looks whether its test fails. Knows no promise: they are in `lists/`.
//!
//! ```sh
//! cargo run -p mutations -- --check        # the lists fit the source; nothing is built
//! cargo run -p mutations                   # every mutation, for an hour or two
//! cargo run -p mutations -- --only sender  # those with this word in what they break, or in their row
//! cargo run -p mutations -- --new          # those that have not been tried since they were written, or that no test found
//! cargo run -p mutations -- --copy         # writes the mutated copy of the crate, and no more
//! cargo run -p mutations -- --report       # writes RESULTS.md anew, of what was tried before
//! ```
//! All mutations are compiled into one copy of the crate, below the target folder, each behind a switch that is read from the environment: one build serves all
//! of them, and with no switch on the copy is the crate. First every test runs with nothing broken; then each mutation runs the tests of its row. One of them
//! must fail. What came of it is written to `RESULTS.md`. What came of earlier runs is in a file below the target folder: in another folder they are "not tried".
//! While it runs, build nothing else of this crate into the same target folder, not of another clone either: it would take the place of what is run.

mod copy;
mod guarantees;
mod list;
mod outcomes;
mod programs;
mod report;
mod site;
mod trial;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::guarantees::Row;
use crate::list::Mutation;
use crate::outcomes::Outcomes;
use crate::programs::Programs;

/// Where things are.
pub struct Places {
    /// The crate.
    pub root: PathBuf,
    /// Its copy.
    pub copy: PathBuf,
    /// What cargo builds into.
    pub target: PathBuf,
    /// What is ours there.
    pub own: PathBuf,
}

impl Places {
    fn find() -> Result<Self, String> {
        // As it runs, not as it was compiled: clones may share a target folder.
        let package = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("run it by cargo")?;
        let root = Path::new(&package).join("../..").canonicalize().map_err(|error| error.to_string())?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
        let own = target.join("mutations");
        Ok(Self { copy: own.join("crate"), root, target, own })
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["--check"] => check(),
        ["--copy"] => write_copy(),
        ["--report"] => write_report(),
        [] => run(|_, _| true),
        ["--new"] => run(|mutation, outcomes| {
            let unexplained = mutation.survives.is_none() && !outcomes.found(mutation);
            unexplained || !outcomes.knows(mutation)
        }),
        ["--only", words] => run(|mutation, _| mutation.name.contains(words) || mutation.row.contains(words)),
        _ => Err("usage: mutations [--check | --copy | --report | --new | --only words]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The lists and the rows, which fit each other and the source.
fn read(places: &Places) -> Result<(Vec<Row>, list::Lists), String> {
    let rows = guarantees::read(&places.root)?;
    let lists = list::read(&places.root, &rows)?;
    site::check(&places.root, &lists.mutations)?;
    Ok((rows, lists))
}

fn check() -> Result<(), String> {
    let (rows, lists) = read(&Places::find()?)?;
    let known = |row: &Row| {
        let mutated = lists.mutations.iter().any(|mutation| mutation.row == row.promise);
        mutated || lists.exceptions.iter().any(|exception| exception.row == row.promise)
    };
    let without: Vec<_> = rows.iter().filter(|row| !known(row)).map(|row| format!("no mutation for: {}", row.promise)).collect();
    println!("{} mutations for {} of {} rows", lists.mutations.len(), rows.len() - without.len(), rows.len());
    if without.is_empty() { Ok(()) } else { Err(without.join("\n")) }
}

fn write_copy() -> Result<(), String> {
    let places = Places::find()?;
    let (_, lists) = read(&places)?;
    copy::write(&places, &lists.mutations)?;
    println!("{}", places.copy.display());
    Ok(())
}

fn write_report() -> Result<(), String> {
    let places = Places::find()?;
    let (rows, lists) = read(&places)?;
    report::write(&places, &rows, &lists, &Outcomes::read(&places)?)
}

fn run(wanted: impl Fn(&Mutation, &Outcomes) -> bool) -> Result<(), String> {
    let places = Places::find()?;
    let (rows, lists) = read(&places)?;
    let mut outcomes = Outcomes::read(&places)?;
    let chosen: Vec<_> = lists.mutations.iter().filter(|mutation| wanted(mutation, &outcomes)).collect();
    if chosen.is_empty() {
        return Err("no such mutation".into());
    }
    copy::write(&places, &lists.mutations)?;
    let programs = Programs::build(&places, chosen.iter().flat_map(|mutation| &mutation.tests))?;
    trial::all(&places, &programs, &chosen, &mut outcomes)?;
    report::write(&places, &rows, &lists, &outcomes)
}
