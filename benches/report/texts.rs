//! Texts: README and docs, whose figures are filled in from the records. Knows no figure.
//!
//! A text of `texts/` replaces what stands in its target between `<!-- results: NAME -->` and `<!-- /results -->`. In it `{{KEY}}` is the median of a row, see
//! [`read::row`], `{{KEY -> min}}`, `max` and `range` what they say, `ratio` that to its base, `over PEER` that to another peer, as of RESULTS.md;
//! `{{@machine SECTION}}` and `{{@date SECTION}}` say where and when.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::read;
use crate::read::Row;
use crate::read::Section;

const TEXTS: [(&str, &str, &str); 2] = [
    ("readme", "README.md", include_str!("texts/readme.md")),
    ("scaling", "src/docs/scaling.md", include_str!("texts/scaling.md")),
];

/// The targets as they should be. One with a key that no row has stays as it is, so that a part of the benches does not take the figures of the others away.
pub(crate) fn fill(root: &Path, sections: &[Section]) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for (name, target, text) in TEXTS {
        let path = root.join(target);
        let written = fs::read_to_string(&path).unwrap_or_default();
        let (begin, end) = (format!("<!-- results: {name} -->\n"), "<!-- /results -->");
        let mut missing = Vec::new();
        let filled = filled(sections, text, &mut missing);
        if let Some(key) = missing.first() {
            eprintln!("{target} stays as it is: {} of its keys have no row, the first of them {key:?}", missing.len());
            continue;
        }
        let Some((before, (_, after))) =
            written.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?)))
        else {
            panic!("{target} has no {begin:?} and {end:?}");
        };
        files.push((path, format!("{before}{begin}{filled}{end}{after}")));
    }
    files
}

/// The ratios that the texts name: the section, the row, and what it is a multiple of.
pub(crate) fn ratios(sections: &[Section]) -> Vec<(&str, &Row, String)> {
    let mut ratios = Vec::new();
    for (_, _, text) in TEXTS {
        let text = unrolled(text);
        for key in text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(key, _)| key) {
            let (key, what) = parsed(key);
            let Some((section, row)) = read::row(sections, &key) else { continue };
            match what {
                "ratio" => ratios.push((section.name.as_str(), row, row.base.clone())),
                what => ratios.extend(what.strip_prefix("over ").map(|peer| (section.name.as_str(), row, peer.to_owned()))),
            }
        }
    }
    ratios
}

fn filled(sections: &[Section], text: &str, missing: &mut Vec<String>) -> String {
    let text = unrolled(text);
    let mut filled = String::new();
    let mut rest = text.as_str();
    while let Some((before, (key, after))) =
        rest.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
    {
        filled.push_str(before);
        filled.push_str(&figure(sections, key).unwrap_or_else(|| {
            missing.push(key.to_owned());
            "-".to_owned()
        }));
        rest = after;
    }
    filled + rest
}

/// Where a line says `@for 1 10 100`, the next one is said for each, with it instead of `$N`.
fn unrolled(text: &str) -> String {
    let mut unrolled = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(values) = line.strip_prefix("@for ") else {
            unrolled.push_str(line);
            unrolled.push('\n');
            continue;
        };
        let row = lines.next().expect("a line to repeat");
        for value in values.split(' ') {
            unrolled.push_str(&row.replace("$N", value));
            unrolled.push('\n');
        }
    }
    unrolled
}

/// The key of a row, and what of the row is to be told.
fn parsed(text: &str) -> (Vec<&str>, &str) {
    let (key, what) = text.split_once("->").unwrap_or((text, "median"));
    (key.split(';').map(str::trim).collect(), what.trim())
}

fn figure(sections: &[Section], text: &str) -> Option<String> {
    if let Some((what, name)) = text.strip_prefix('@').and_then(|text| text.split_once(' ')) {
        let begin = &sections.iter().find(|section| section.name == name)?.begin;
        return Some(if what == "date" { begin.date.clone() } else { begin.machine.clone() });
    }
    let (key, what) = parsed(text);
    let (section, row) = read::row(sections, &key)?;
    Some(match what {
        "median" => row.print(row.median()),
        "min" => row.print(row.min()),
        "max" => row.print(row.max()),
        "range" => format!("{} to {}", row.print(row.min()), row.print(row.max())),
        "ratio" => read::times(section.ratio(row, &row.base)?),
        _ => read::times(section.ratio(row, what.strip_prefix("over ")?)?),
    })
}
