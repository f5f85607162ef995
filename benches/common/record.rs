//! Record: what a bench measured, one line of JSON for each row, in the file that `--json` names; `benches/report` reads it. Knows no bench.

use std::env;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::common::machine;
use crate::common::machine::Ticks;
use crate::common::numbers::quantile;

/// Samples of one peer, in the order of the rounds. A round that does not count is `NaN`, which JSON calls `null`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row<'a> {
    part: &'a str,
    measure: &'a str,
    peer: &'a str,
    /// The peer to which the ratio is taken, in the same part, measure, setting and at the same parameter; none if empty.
    base: &'a str,
    setting: &'a str,
    /// What is varied, and to what.
    parameter: &'a str,
    value: f64,
    unit: Unit,
    samples: Vec<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Unit {
    #[serde(rename = "ns")]
    Nanos,
    #[serde(rename = "/s")]
    PerSecond,
    #[serde(rename = "B")]
    Bytes,
    #[serde(rename = "")]
    Count,
}

impl<'a> Row<'a> {
    pub(crate) fn new(part: &'a str, measure: &'a str, peer: &'a str, unit: Unit, samples: &[f64]) -> Self {
        let samples = samples.iter().copied().map(shortened).collect();
        Self { part, measure, peer, base: "", setting: "", parameter: "", value: 0.0, unit, samples }
    }

    pub(crate) fn base(self, base: &'a str) -> Self {
        Self { base, ..self }
    }

    pub(crate) fn setting(self, setting: &'a str) -> Self {
        Self { setting, ..self }
    }

    pub(crate) fn at(self, parameter: &'a str, value: f64) -> Self {
        Self { parameter, value, ..self }
    }
}

/// Where and when, what else the machine did, and with which versions.
#[derive(Debug, Serialize)]
struct Begin {
    /// What it was called with, without the file.
    command: String,
    machine: String,
    date: String,
    versions: Vec<String>,
    load: f64,
    /// Of the second before, in percent of all cores.
    busy: f64,
    steal: f64,
}

#[derive(Debug, Serialize)]
struct End {
    seconds: f64,
    load: f64,
    /// Of the second after.
    busy: f64,
    steal: f64,
    /// Of the whole time between.
    steal_meanwhile: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Begin(Begin),
    Row(&'a Row<'a>),
    End(End),
}

/// Where rows go: nowhere, unless a file was named. It counts as whole when it was ended.
#[derive(Debug, Default)]
pub(crate) struct Record(Option<Begun>);

#[derive(Debug)]
struct Begun {
    file: File,
    start: Instant,
    ticks: Ticks,
}

impl Record {
    /// Writes where and when. Looks at the machine for a second first.
    pub(crate) fn begin(path: &Path) -> Self {
        let file = File::create(path).expect("a file");
        let (load, before) = (machine::load(), machine::watch());
        let (command, machine, date, versions) = (command(), machine::cores(), machine::date(), machine::versions());
        let begun = Begun { file, start: Instant::now(), ticks: Ticks::now() };
        begun.write(&Line::Begin(Begin { command, machine, date, versions, load, busy: before.busy, steal: before.steal }));
        Self(Some(begun))
    }

    pub(crate) fn row(&self, row: &Row<'_>) {
        if let Some(begun) = &self.0 {
            begun.write(&Line::Row(row));
        }
    }

    /// How samples are spread: for each percentile its value in each fifth of them, as if each were a round.
    pub(crate) fn percentiles(&self, row: &Row<'_>, samples: &[f64]) {
        for percentile in PERCENTILES {
            let fifths = samples.chunks(samples.len().div_ceil(5).max(1));
            let of = fifths.map(|fifth| shortened(quantile(fifth, percentile / 100.0))).collect();
            self.row(&Row { parameter: "percentile", value: percentile, samples: of, ..row.clone() });
        }
    }

    pub(crate) fn end(&self) {
        if let Some(begun) = &self.0 {
            let (seconds, meanwhile) = (shortened(begun.start.elapsed().as_secs_f64()), begun.ticks.until(Ticks::now()));
            let (load, after) = (machine::load(), machine::watch());
            let (busy, steal) = (after.busy, after.steal);
            begun.write(&Line::End(End { seconds, load, busy, steal, steal_meanwhile: meanwhile.steal }));
        }
    }
}

impl Begun {
    fn write(&self, line: &Line<'_>) {
        let line = serde_json::to_string(line).expect("plain values");
        writeln!(&self.file, "{line}").expect("room on the disk");
    }
}

/// Of latencies.
pub(crate) const PERCENTILES: [f64; 12] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// Of this process, as one types it.
fn command() -> String {
    let mut words: Vec<String> = env::args().collect();
    if let Some(at) = words.iter().position(|word| word == "--json") {
        words.drain(at..(at + 2).min(words.len()));
    }
    let bench = env!("CARGO_CRATE_NAME");
    let words: Vec<_> = words.into_iter().skip(1).filter(|word| word != "--bench").map(quoted).collect();
    let rest = if words.is_empty() { String::new() } else { format!(" -- {}", words.join(" ")) };
    format!("cargo bench --all-features --bench {bench}{rest}")
}

fn quoted(word: String) -> String {
    if word.contains(' ') { format!("{word:?}") } else { word }
}

/// Five digits that count, and no more.
fn shortened(sample: f64) -> f64 {
    if !sample.is_finite() || sample == 0.0 {
        return sample;
    }
    let scale = 10f64.powi(4 - sample.abs().log10().floor() as i32);
    (sample * scale).round() / scale
}
