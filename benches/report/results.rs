//! Results: RESULTS.md: where and when, then for each bench its plots and all its rows. Knows no bench.

use std::fmt::Write;

use crate::again;
use crate::plots::Drawn;
use crate::read;
use crate::read::Row;
use crate::read::Section;

pub(crate) fn write(sections: &[Section], again: &[Section], plots: &[Drawn]) -> String {
    let mut text = HEAD.to_owned();
    runs(&mut text, sections);
    text.push_str(&again::write(sections, again));
    for section in sections {
        writeln!(text, "\n## {}\n\n```sh\n{}\n```", section.name, section.begin.command).expect("a string takes it");
        if section.end.is_none() {
            text.push_str("\n**It ended before its end: rows may be missing.**\n");
        }
        for plot in plots.iter().filter(|plot| plot.section == section.name) {
            writeln!(text, "\n![{}](plots/{}.svg)", plot.title, plot.name).expect("a string takes it");
        }
        for table in tables(section) {
            table_of(&mut text, section, &table);
        }
    }
    text
}

/// When each section was measured, and what else the machine did.
fn runs(text: &mut String, sections: &[Section]) {
    let line = |text: &mut String, line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line(text, "\n## The runs\n");
    line(
        text,
        "| bench | date | took | load before / after | busy just before / after | steal just before / meanwhile / after |",
    );
    line(text, "|:--|:--|--:|--:|--:|--:|");
    for Section { name, begin, end, .. } in sections {
        let told = match end {
            Some(end) => format!(
                "{:.0} s | {} / {} | {} % / {} % | {} % / {} % / {} % |",
                end.seconds, begin.load, end.load, begin.busy, end.busy, begin.steal, end.steal_meanwhile, end.steal
            ),
            None => format!("? | {} / ? | {} % / ? | {} % / ? / ? |", begin.load, begin.busy, begin.steal),
        };
        line(text, &format!("| [{name}](#{name}) | {} | {told}", begin.date));
    }
    let mut told: Vec<(&str, Vec<&str>)> = Vec::new();
    let with = sections.iter().map(|section| (section.begin.machine.as_str(), &section.begin.versions));
    let mut all: Vec<String> = with.map(|(machine, versions)| format!("{machine}. {}.", versions.join("; "))).collect();
    let names: Vec<&str> = sections.iter().map(|section| section.name.as_str()).collect();
    for (all, name) in all.iter_mut().zip(names) {
        match told.iter_mut().find(|(known, _)| known == all) {
            Some((_, names)) => names.push(name),
            None => told.push((all, vec![name])),
        }
    }
    let alone = told.len() == 1;
    for (versions, names) in told {
        let of = if alone { String::new() } else { format!(" ({})", names.join(", ")) };
        line(text, &format!("\nMachine and versions{of}: {versions}"));
    }
}

/// Rows of one measure in one setting, in order.
fn tables(section: &Section) -> Vec<Vec<&Row>> {
    let mut tables: Vec<Vec<&Row>> = Vec::new();
    for row in &section.rows {
        let same = |table: &&mut Vec<&Row>| {
            let first = table[0];
            (&first.part, &first.measure, &first.setting) == (&row.part, &row.measure, &row.setting)
        };
        match tables.iter_mut().find(same) {
            Some(table) => table.push(row),
            None => tables.push(vec![row]),
        }
    }
    for table in &mut tables {
        // Stable: peers stay in their order.
        table.sort_by(|one, other| one.value.total_cmp(&other.value));
    }
    tables
}

fn table_of(text: &mut String, section: &Section, rows: &[&Row]) {
    let Row { part, measure, setting, parameter, base, .. } = rows[0];
    let setting = if setting.is_empty() { String::new() } else { format!(", {setting}") };
    writeln!(text, "\n### {part}: {measure}{setting}\n").expect("a string takes it");
    let varied = !parameter.is_empty();
    let bases = rows.iter().any(|row| section.ratio(row, &row.base).is_some());
    let same_base = rows.iter().all(|row| row.base == *base);
    let mut headings = vec!["peer".to_owned(), "median".to_owned(), "min .. max".to_owned(), "rounds".to_owned()];
    let mut rules = vec![":--", "--:", "--:", "--:"];
    if varied {
        headings.insert(0, parameter.clone());
        rules.insert(0, "--:");
    }
    if bases {
        let heading = if same_base { format!("of `{base}`") } else { "of its base".to_owned() };
        headings.insert(headings.len() - 1, heading);
        rules.push("--:");
    }
    writeln!(text, "| {} |\n|{}|", headings.join(" | "), rules.join("|")).expect("a string takes it");
    for row in rows {
        let mut cells = Vec::new();
        if varied {
            cells.push(read::value(row.value));
        }
        cells.extend([
            escaped(&row.peer),
            row.print(row.median()),
            format!("{} .. {}", row.print(row.min()), row.print(row.max())),
        ]);
        if bases {
            let ratio = section.ratio(row, &row.base).map(read::times).unwrap_or_default();
            let base = if same_base || ratio.is_empty() || row.base == row.peer { "" } else { &format!(" `{}`", row.base) };
            cells.push(format!("{ratio}{base}"));
        }
        let (counted, rounds) = (row.counted().len(), row.rounds());
        cells.push(if counted == rounds { rounds.to_string() } else { format!("{counted} of {rounds}") });
        writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes it");
    }
}

/// `<` and `|` say something in Markdown.
fn escaped(name: &str) -> String {
    name.replace('<', "&lt;").replace('|', "\\|")
}

const HEAD: &str = "# Results

Written by `sh benches/run.sh` from the files in `benches/results`; no number in here is typed by hand. `sh benches/run.sh quick` takes some 10 minutes, \
`sh benches/run.sh --only fanout,cluster` measures these two again and leaves the rest.

The peers of a bench are measured in one run, in turns, each round another one first. The median is that of the rounds, as are `min .. max`; where a round has many \
samples of one event each, it counts with its own median. A ratio (`of`) is the median of the ratios within the rounds, so that what slows a round down slows both; below 1x \
is better for times and worse for rates. Rounds that a bench itself finds disturbed do not count. What each bench measures, and how, is in the first lines of its `main.rs`.

Load is the number of runnable processes over the last minute, *busy* what others computed in the second before and after, *steal* what the host gave to others: with much of \
either a section says little. Its own last load is a bench's own.
";
