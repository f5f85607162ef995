//! Args: the command line of a bench. Knows no bench.

use std::env;
use std::path::Path;
use std::process;
use std::rc::Rc;

use crate::common::record::Record;

/// What was asked for. An empty filter lets everything through.
#[derive(Debug, Default, Clone)]
pub(crate) struct Args {
    /// Tiny sizes: asserts that everything is delivered, and says nothing of time.
    pub(crate) test: bool,
    /// Prints the tables as Markdown.
    pub(crate) markdown: bool,
    /// Sizes that take minutes, too.
    pub(crate) large: bool,
    /// Names of peers or parts, each matched as a part of the name.
    pub(crate) only: Vec<String>,
    /// Numbers of subscribers.
    pub(crate) n: Vec<usize>,
    /// Placements: `1t`, `2t`, `spread`.
    pub(crate) placement: Vec<String>,
    /// Measures: `single`, `burst`.
    pub(crate) measure: Vec<String>,
    /// Rounds instead of those that fit the number of subscribers.
    pub(crate) rounds: Option<usize>,
    /// Where the samples go; to the file that `--json` names.
    pub(crate) record: Rc<Record>,
}

impl Args {
    /// Reads the command line; explains itself and ends the process where it is wrong.
    pub(crate) fn read() -> Self {
        let mut args = Self::default();
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let mut list = || words.next().unwrap_or_default().split(',').map(str::to_owned).collect::<Vec<_>>();
            match word.as_str() {
                // Cargo says this to every bench.
                "--bench" => {}
                "--test" => args.test = true,
                "--markdown" => args.markdown = true,
                "--large" => args.large = true,
                "--only" => args.only = list(),
                "--placement" => args.placement = list(),
                "--measure" => args.measure = list(),
                "--n" => args.n = list().iter().map(|n| number(n)).collect(),
                "--json" => args.record = Rc::new(Record::begin(Path::new(&list()[0]))),
                "--rounds" => args.rounds = list().first().map(|rounds| number(rounds)),
                _ => usage(&format!("unknown argument {word:?}")),
            }
        }
        args
    }

    /// Whether a peer or part of this name is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    pub(crate) fn wants_measure(&self, name: &str) -> bool {
        self.measure.is_empty() || self.measure.iter().any(|known| known == name)
    }

    pub(crate) fn wants_placement(&self, name: &str) -> bool {
        self.placement.is_empty() || self.placement.iter().any(|known| known == name)
    }
}

fn number(text: &str) -> usize {
    let (digits, times) = text.strip_suffix('k').map_or((text, 1), |digits| (digits, 1_000));
    digits.parse::<usize>().unwrap_or_else(|_| usage(&format!("{text:?} is no number"))) * times
}

fn usage(why: &str) -> ! {
    eprintln!("{why}");
    eprintln!(
        "usage: [--test] [--markdown] [--large] [--only NAME,..] [--n 1,10k,..] [--placement 1t,2t,spread] [--measure single,burst] [--rounds R] [--json FILE]"
    );
    process::exit(2);
}
