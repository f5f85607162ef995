//! Report: what was measured, as tables. Prints; measures nothing.

use crate::common::machine;
use crate::common::numbers::median;

/// One number of each round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.0)
    }

    /// Round by round.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one / other).collect())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) tables: Vec<Table>,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) headings: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Report {
    pub(crate) fn print(&self, markdown: bool) {
        println!("{}", machine::line());
        println!("Medians of the rounds; a ratio is the median of the rounds' ratios.");
        for table in &self.tables {
            table.print(markdown);
        }
    }
}

impl Table {
    fn print(&self, markdown: bool) {
        println!("\n{}:\n", self.title);
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.chain([self.headings[at].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let pad = |(at, (cell, width)): (usize, (&&str, &usize))| {
                if at == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
            };
            let padded: Vec<String> = cells.iter().zip(&widths).enumerate().map(pad).collect();
            if markdown { println!("| {} |", padded.join(" | ")) } else { println!("  {}", padded.join("  ").trim_end()) }
        };
        line(self.headings.clone());
        if markdown {
            let rule: Vec<&str> = (0..widths.len()).map(|at| if at == 0 { ":--" } else { "--:" }).collect();
            println!("|{}|", rule.join("|"));
        }
        for row in &self.rows {
            line(row.iter().map(String::as_str).collect());
        }
    }
}
