//! Read: the records of the benches, and what can be asked of them: a row by its key, a median, a ratio. Knows no format of a report.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::common::numbers;
use crate::common::numbers::median;

/// What one bench recorded in its last run.
#[derive(Debug)]
pub(crate) struct Section {
    /// That of its file.
    pub(crate) name: String,
    pub(crate) begin: Begin,
    pub(crate) rows: Vec<Row>,
    /// None if it ended before its end.
    pub(crate) end: Option<End>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Begin {
    pub(crate) command: String,
    pub(crate) machine: String,
    pub(crate) date: String,
    pub(crate) versions: Vec<String>,
    pub(crate) load: f64,
    pub(crate) busy: f64,
    pub(crate) steal: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct End {
    pub(crate) seconds: f64,
    pub(crate) load: f64,
    pub(crate) busy: f64,
    pub(crate) steal: f64,
    pub(crate) steal_meanwhile: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Row {
    pub(crate) part: String,
    pub(crate) measure: String,
    pub(crate) peer: String,
    pub(crate) base: String,
    pub(crate) setting: String,
    pub(crate) parameter: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// A round that does not count is none.
    samples: Vec<Option<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Begin(Begin),
    Row(Row),
    End(End),
}

/// All records of a folder, in the order in which they are told.
pub(crate) fn all(folder: &Path) -> Vec<Section> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sections: Vec<Section> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .filter_map(|path| section(&path))
        .collect();
    let place = |section: &Section| ORDER.iter().position(|name| *name == section.name).unwrap_or(ORDER.len());
    sections.sort_by_key(|section| (place(section), section.name.clone()));
    sections
}

/// None where a file holds not even a beginning.
fn section(path: &Path) -> Option<Section> {
    let (mut begin, mut rows, mut end) = (None, Vec::new(), None);
    let text = fs::read_to_string(path).expect("a record is text");
    // A bench that was killed leaves half a line.
    for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        match line {
            Line::Begin(it) => begin = Some(it),
            Line::Row(it) => rows.push(it),
            Line::End(it) => end = Some(it),
        }
    }
    Some(Section { name: path.file_stem()?.to_str()?.to_owned(), begin: begin?, rows, end })
}

/// The row of this key: `SECTION/PART; MEASURE; PEER; SETTING; VALUE`, where what is left out at the end is empty.
pub(crate) fn row<'a>(sections: &'a [Section], key: &[&str]) -> Option<(&'a Section, &'a Row)> {
    let field = |at: usize| key.get(at).copied().unwrap_or_default();
    let (name, part) = field(0).split_once('/')?;
    let section = sections.iter().find(|section| section.name == name)?;
    let row = section.rows.iter().find(|row| {
        let value = if row.parameter.is_empty() { String::new() } else { value(row.value) };
        row.part == part && row.measure == field(1) && row.peer == field(2) && row.setting == field(3) && value == field(4)
    })?;
    Some((section, row))
}

impl Section {
    /// The same of another peer.
    pub(crate) fn beside(&self, row: &Row, peer: &str) -> Option<&Row> {
        let same = |other: &&Row| {
            (&other.part, &other.measure, &other.setting) == (&row.part, &row.measure, &row.setting)
                && other.value.to_bits() == row.value.to_bits()
                && other.peer == peer
        };
        self.rows.iter().find(same)
    }

    /// What a row of another run was here.
    pub(crate) fn same(&self, row: &Row) -> Option<&Row> {
        self.beside(row, &row.peer)
    }

    /// How many times as much as another peer: the median of the rounds' ratios.
    pub(crate) fn ratio(&self, row: &Row, peer: &str) -> Option<f64> {
        let base = self.beside(row, peer)?;
        let pairs = row.samples.iter().zip(&base.samples).filter_map(|(one, base)| Some((*one)? / (*base)?));
        let ratios: Vec<f64> = pairs.filter(|ratio| ratio.is_finite()).collect();
        if row.samples.len() == base.samples.len() && !ratios.is_empty() {
            return Some(median(&ratios));
        }
        let ratio = row.median() / base.median();
        ratio.is_finite().then_some(ratio)
    }
}

impl Row {
    pub(crate) fn counted(&self) -> Vec<f64> {
        self.samples.iter().copied().flatten().collect()
    }

    pub(crate) fn rounds(&self) -> usize {
        self.samples.len()
    }

    /// `NaN` if no round counts.
    pub(crate) fn median(&self) -> f64 {
        let counted = self.counted();
        if counted.is_empty() { f64::NAN } else { median(&counted) }
    }

    pub(crate) fn min(&self) -> f64 {
        self.counted().into_iter().fold(f64::NAN, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.counted().into_iter().fold(f64::NAN, f64::max)
    }

    /// A number of this row, with its unit.
    pub(crate) fn print(&self, number: f64) -> String {
        print(&self.unit, number)
    }
}

/// A number with its unit.
pub(crate) fn print(unit: &str, number: f64) -> String {
    if number.is_nan() {
        return "-".to_owned();
    }
    let sign = if number < 0.0 { "-" } else { "" };
    let size = number.abs();
    let text = match unit {
        "ns" => numbers::time(size),
        "/s" => numbers::rate(size),
        "B" => bytes(size),
        _ if size == 0.0 || size >= 10.0 => format!("{size:.0}"),
        _ if size >= 0.01 => format!("{size:.2}"),
        _ => format!("{size:.5}"),
    };
    format!("{sign}{text}")
}

/// How many times as much; of what is far less, which part.
pub(crate) fn times(ratio: f64) -> String {
    if ratio > 0.0 && ratio < 0.1 { format!("1/{:.0}", 1.0 / ratio) } else { numbers::times(ratio) }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        b if b < 4_096.0 => format!("{b:.0} B"),
        b if b < 4_096.0 * 1_024.0 => format!("{:.1} KiB", b / 1_024.0),
        b => format!("{:.1} MiB", b / 1_024.0 / 1_024.0),
    }
}

/// What a parameter was set to.
pub(crate) fn value(value: f64) -> String {
    if value.fract() == 0.0 { numbers::count(value as usize) } else { value.to_string() }
}

/// In which the sections are told; others follow by name.
const ORDER: [&str; 11] =
    ["fanout", "table", "memory", "log", "jetstream", "cluster", "transport", "web", "web-stalled", "insight", "instructions"];
