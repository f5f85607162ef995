//! Instructions: what the hot paths take, counted by callgrind, and whether that is what it was. Knows no time: counts are the same on a busy machine.
//!
//! ```sh
//! cargo run --release -p instructions              # compares with figures.toml, and fails where one is off
//! cargo run --release -p instructions -- --accept  # writes what is counted now as the new figures
//! ```
//! Each case is a process of its own under `valgrind --tool=callgrind`, which counts what runs inside [`cases::counted`] and nothing else.

mod cases;
mod count;
mod figures;

use std::process::ExitCode;

use crate::cases::CASES;
use crate::figures::Figures;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => check(),
        ["--accept"] => accept(),
        ["--case", name] => cases::run(name),
        _ => Err("usage: instructions [--accept]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn accept() -> Result<(), String> {
    let mut figures = Figures::read()?;
    figures.rustc = figures::rustc()?;
    figures.counts.clear();
    for case in &CASES {
        let count = count::of(case)?;
        println!("{:<24} {count:>8.1} instructions for each {}", case.name, case.unit);
        figures.counts.insert(case.name.into(), count);
    }
    figures.write()
}

fn check() -> Result<(), String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        println!("The figures are those of x86-64 Linux; here there is nothing to compare them with.");
        return Ok(());
    }
    let figures = Figures::read()?;
    let rustc = figures::rustc()?;
    let tolerance = figures.tolerance(&rustc);
    println!("Figures of {}, here is {rustc}: each may be off by {:.0} %.", figures.rustc, tolerance * 100.0);
    let mut wrong = Vec::new();
    for case in &CASES {
        let count = count::of(case)?;
        let expected = figures.counts.get(case.name).copied();
        let off = expected.map(|expected| count / expected - 1.0);
        let said = match (expected, off) {
            (Some(expected), Some(off)) => format!("{expected:>8.1} {:>+6.1} %", off * 100.0),
            _ => "    no figure".into(),
        };
        println!("{:<24} {count:>8.1} {said}  instructions for each {}", case.name, case.unit);
        if off.is_none_or(|off| off.abs() > tolerance) {
            wrong.push(case.name);
        }
    }
    let known = |name: &str| CASES.iter().any(|case| case.name == name);
    wrong.extend(figures.counts.keys().map(String::as_str).filter(|name| !known(name)));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "\n{} took more or fewer instructions than before, or has no figure.\nIf that is meant, say why in the commit, and accept it: cargo run --release -p instructions -- --accept",
        wrong.join(", ")
    ))
}
