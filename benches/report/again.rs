//! Again: whether a second run has the same ratios as the first, within a fourth. Knows no bench.

use std::fmt::Write;

use crate::read;
use crate::read::Row;
use crate::read::Section;
use crate::texts;

/// What a reader's run may differ by.
const WITHIN: f64 = 1.25;

/// A ratio that both runs have.
struct Pair<'a> {
    section: &'a Section,
    row: &'a Row,
    base: &'a str,
    first: f64,
    second: f64,
}

impl Pair<'_> {
    fn differs(&self) -> bool {
        let change = self.second / self.first;
        !(1.0 / WITHIN..=WITHIN).contains(&change)
    }
}

/// The section of RESULTS.md; nothing where there was no second run.
pub(crate) fn write(sections: &[Section], again: &[Section]) -> String {
    let mut text = String::new();
    if again.is_empty() {
        return text;
    }
    let all = pairs(sections, again, |section| {
        section.rows.iter().filter(|row| row.base != row.peer).map(|row| (row, row.base.as_str())).collect()
    });
    let cited = texts::ratios(sections);
    let cited = pairs(sections, again, |section| {
        let here = cited.iter().filter(|(name, ..)| *name == section.name);
        here.map(|(_, row, base)| (*row, base.as_str())).collect()
    });
    let differing = |pairs: &[Pair<'_>]| pairs.iter().filter(|pair| pair.differs()).count();
    let names: Vec<&str> = again.iter().map(|section| section.name.as_str()).collect();
    writeln!(
        text,
        "\n## Once more\n\nA second run (`sh benches/run.sh again`, {}) of {}: {} of {} ratios are those of the first within 25 %, and of those that README and docs name, \
         {} of {}. These are not:\n",
        again[0].begin.date,
        names.join(", "),
        all.len() - differing(&all),
        all.len(),
        cited.len() - differing(&cited),
        cited.len(),
    )
    .expect("a string takes it");
    text.push_str("| bench: part, measure | peer | of | first | second | named in README or docs |\n|:--|:--|:--|--:|--:|:--|\n");
    for pair in all.iter().filter(|pair| pair.differs()) {
        let Row { part, measure, setting, parameter, value, peer, .. } = pair.row;
        let setting = if setting.is_empty() { String::new() } else { format!(", {setting}") };
        let value = if parameter.is_empty() { String::new() } else { format!(", {} {parameter}", read::value(*value)) };
        let named = cited.iter().any(|of| std::ptr::eq(of.row, pair.row));
        writeln!(
            text,
            "| {}: {part}, {measure}{setting}{value} | {} | {} | {} | {} | {} |",
            pair.section.name,
            peer.replace('|', "\\|"),
            pair.base,
            read::times(pair.first),
            read::times(pair.second),
            if named { "yes" } else { "" },
        )
        .expect("a string takes it");
    }
    text
}

/// The ratios that `of` picks from a section and that are in both runs.
fn pairs<'a>(sections: &'a [Section], again: &[Section], of: impl Fn(&'a Section) -> Vec<(&'a Row, &'a str)>) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    for section in sections {
        let Some(other) = again.iter().find(|other| other.name == section.name) else { continue };
        for (row, base) in of(section) {
            let there = other.same(row).and_then(|row| other.ratio(row, base));
            if let (Some(first), Some(second)) = (section.ratio(row, base), there) {
                pairs.push(Pair { section, row, base, first, second });
            }
        }
    }
    pairs
}
