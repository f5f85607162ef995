//! Report: what was measured, and whether it is what this crate promises. Prints it; measures nothing.

use crate::common::machine;
use crate::common::numbers;
use crate::rounds::Rates;

/// What a ratio is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// For information.
    Free,
}

#[derive(Debug)]
struct Row {
    what: String,
    ours: String,
    against: String,
    theirs: String,
    ratio: f64,
    goal: Goal,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    tables: Vec<Table>,
    skipped: Vec<&'static str>,
}

/// Numbers without a peer.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) headings: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Report {
    /// Rates of ours and of a peer.
    pub(crate) fn rates(&mut self, what: String, rates: &Rates, ours: &str, peer: &str, goal: Goal) {
        let (mine, theirs) = (numbers::rate(rates.median(ours)), numbers::rate(rates.median(peer)));
        let ratio = rates.share(ours, peer);
        // One of them was not asked for.
        if ratio.is_nan() {
            return;
        }
        self.rows.push(Row { what, ours: mine, against: peer.to_owned(), theirs, ratio, goal });
    }

    /// Times of ours and of a peer, in ns.
    pub(crate) fn times(&mut self, what: String, ours: f64, peer: &str, theirs: f64, goal: Goal) {
        let (mine, text) = (numbers::time(ours), numbers::time(theirs));
        self.rows.push(Row { what, ours: mine, against: peer.to_owned(), theirs: text, ratio: ours / theirs, goal });
    }

    /// A rate of ours against a rate that was promised.
    pub(crate) fn promise(&mut self, what: String, ours: f64, promised: f64) {
        let (mine, theirs) = (numbers::rate(ours), numbers::rate(promised));
        let (against, goal) = ("promised".to_owned(), Goal::AtLeast(1.0));
        self.rows.push(Row { what, ours: mine, against, theirs, ratio: ours / promised, goal });
    }

    /// Some number of ours against a bound that was promised.
    pub(crate) fn bound(&mut self, what: String, ours: String, against: &str, theirs: String, ratio: f64, goal: Goal) {
        self.rows.push(Row { what, ours, against: against.to_owned(), theirs, ratio, goal });
    }

    pub(crate) fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    pub(crate) fn skip(&mut self, why: &'static str) {
        println!("{why}");
        self.skipped.push(why);
    }

    pub(crate) fn print(&self, markdown: bool) {
        println!("{}", machine::line());
        for why in &self.skipped {
            println!("{why}");
        }
        let headings = vec!["what", "ours", "against", "theirs", "ratio", "goal", ""];
        let rows = self.rows.iter().map(Row::cells).collect();
        let compared = Table { title: "Medians; the ratio is the median of the rounds' ratios", headings, rows };
        for table in std::iter::once(&compared).chain(&self.tables).filter(|table| !table.rows.is_empty()) {
            table.print(markdown);
        }
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let (goal, kept) = match self.goal {
            Goal::AtLeast(least) => (format!(">= {least:.2}"), Some(self.ratio >= least)),
            Goal::AtMost(most) => (format!("<= {most:.2}"), Some(self.ratio <= most)),
            Goal::Free => (String::new(), None),
        };
        let mark = kept.map_or("", |kept| if kept { "pass" } else { "FAIL" });
        let texts = [&self.what, &self.ours, &self.against, &self.theirs, &format!("{:.2}", self.ratio), &goal, mark];
        texts.map(str::to_owned).to_vec()
    }
}

impl Table {
    fn print(&self, markdown: bool) {
        println!("\n{}:\n", self.title);
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|at| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).max(self.headings[at].len()))
            .collect();
        let line = |cells: Vec<&str>| {
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(at, (cell, width))| if at == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") })
                .collect();
            if markdown { println!("| {} |", padded.join(" | ")) } else { println!("  {}", padded.join("  ").trim_end()) }
        };
        line(self.headings.clone());
        if markdown {
            let rule: Vec<String> =
                (0..widths.len()).map(|at| if at == 0 { ":--".to_owned() } else { "--:".to_owned() }).collect();
            println!("|{}|", rule.join("|"));
        }
        for row in &self.rows {
            line(row.iter().map(String::as_str).collect());
        }
    }
}
