//! Site: finds the places that mutations break, and rewrites them. Knows text, and no Rust beyond a function's last brace.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::list::Mutation;
use crate::list::Site;

/// Whether every place is there once, and none overlaps another.
pub fn check(root: &Path, mutations: &[Mutation]) -> Result<(), String> {
    let mut wrong = Vec::new();
    for file in files(mutations) {
        match fs::read_to_string(root.join(file)) {
            Ok(source) => wrong.extend(rewritten(&source, file, mutations).err()),
            Err(error) => wrong.push(format!("{file}: {error}")),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// The files in which something is broken.
pub fn files(mutations: &[Mutation]) -> Vec<&str> {
    let mut files: Vec<_> = mutations.iter().flat_map(|mutation| &mutation.sites).map(|site| site.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// The source with every mutation in it, each behind its switch.
pub fn rewritten(source: &str, file: &str, mutations: &[Mutation]) -> Result<String, String> {
    let mut places: BTreeMap<(usize, usize), String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for mutation in mutations {
        for site in mutation.sites.iter().filter(|site| site.file == file) {
            let found = find(source, site);
            let [place] = &found[..] else {
                wrong.push(format!("{file} has {} times, for {:?}: {}", found.len(), mutation.name, site.old));
                continue;
            };
            // Several mutations of the same text: one switch around the other.
            let known = places.remove(&(place.start, place.end));
            if known.is_some() && site.broken.contains("BROKEN") {
                wrong.push(format!("{file}: {:?} has a switch of its own in the place of another: {}", mutation.name, site.old));
            }
            let rest = known.unwrap_or_else(|| source[place.clone()].to_owned());
            places.insert((place.start, place.end), switched(mutation.number, site, &rest));
        }
    }
    let ranges: Vec<_> = places.keys().collect();
    for two in ranges.windows(2).filter(|two| two[0].1 > two[1].0) {
        wrong.push(format!(
            "{file}: two mutations overlap: {:?} and {:?}",
            &source[two[0].0..two[0].1],
            &source[two[1].0..two[1].1]
        ));
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let (mut text, mut at) = (String::new(), 0);
    for ((start, end), replaced) in places {
        text.push_str(&source[at..start]);
        text.push_str(&replaced);
        at = end;
    }
    Ok(text + &source[at..])
}

/// The text of a file that is no source, broken.
pub fn broken(text: &str, site: &Site) -> Option<String> {
    let found = find(text, site);
    let place = found.first()?;
    Some(format!("{}{}{}", &text[..place.start], site.broken, &text[place.end..]))
}

fn switched(number: usize, site: &Site, rest: &str) -> String {
    let (on, broken) = (format!("crate::mutated::on({number})"), &site.broken);
    if broken.contains("BROKEN") {
        broken.replace("BROKEN", &on)
    } else if site.old.trim_end().ends_with([';', '}']) {
        format!("if {on} {{ {broken} }} else {{ {rest} }}")
    } else {
        format!("(if {on} {{ {broken} }} else {{ {rest} }})")
    }
}

/// Where a site's text is, in whatever layout.
fn find(source: &str, site: &Site) -> Vec<Range<usize>> {
    let words: Vec<_> = site.old.split_whitespace().collect();
    let scopes = match &site.function {
        Some(name) => functions(source, name),
        None => std::iter::once(0..source.len()).collect(),
    };
    let within = |scope: Range<usize>| {
        let text = &source[scope.clone()];
        let starts: Vec<_> = text.match_indices(words[0]).map(|(at, _)| at).collect();
        let ends = starts.into_iter().filter_map(|at| Some((at, end_of(&text[at..], &words)?)));
        ends.map(|(at, length)| scope.start + at..scope.start + at + length).collect::<Vec<_>>()
    };
    scopes.into_iter().flat_map(within).collect()
}

/// The length of the text that begins with those words, with any space between them.
fn end_of(text: &str, words: &[&str]) -> Option<usize> {
    let mut rest = text;
    for (index, word) in words.iter().enumerate() {
        let trimmed = rest.trim_start();
        if index > 0 && trimmed.len() == rest.len() {
            return None;
        }
        rest = trimmed.strip_prefix(word)?;
    }
    Some(text.len() - rest.len())
}

/// The functions of that name, each up to the brace that stands as far to the left as its first line.
fn functions(source: &str, name: &str) -> Vec<Range<usize>> {
    let begins = |open: char| source.match_indices(&format!("fn {name}{open}")).map(|(at, _)| at).collect::<Vec<_>>();
    let mut found = Vec::new();
    for at in begins('(').into_iter().chain(begins('<')) {
        let line = source[..at].rfind('\n').map_or(0, |end| end + 1);
        let indent = source[line..].chars().take_while(|c| *c == ' ').count();
        let last = format!("\n{}}}", " ".repeat(indent));
        let end = source[at..].find(&last).map_or(source.len(), |end| at + end + last.len());
        found.push(at..end);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutation(number: usize, function: Option<&str>, old: &str, broken: &str) -> Mutation {
        let site = Site { file: "a.rs".into(), function: function.map(str::to_owned), old: old.into(), broken: broken.into() };
        let (name, row) = (format!("number {number}"), String::new());
        Mutation { number, name, row, sites: vec![site], tests: Vec::new(), survives: None }
    }

    const SOURCE: &str = "fn one() {\n    a(1)\n        .b();\n    c\n}\n\nfn other() {\n    c\n}\n";

    #[test]
    fn expressions_and_statements_are_put_behind_their_switches_in_any_layout() {
        let of = |mutations: &[Mutation]| rewritten(SOURCE, "a.rs", mutations).unwrap();
        let statement = of(&[mutation(1, None, "a(1) .b();", "b();")]);
        assert!(statement.contains("    if crate::mutated::on(1) { b(); } else { a(1)\n        .b(); }\n"), "{statement}");
        let expression = of(&[mutation(2, Some("other"), "c", "d")]);
        assert!(
            expression.ends_with("    c\n}\n\nfn other() {\n    (if crate::mutated::on(2) { d } else { c })\n}\n"),
            "{expression}"
        );
        let own = of(&[mutation(3, Some("one"), "a(1)", "a(1 + usize::from(BROKEN))")]);
        assert!(own.contains("a(1 + usize::from(crate::mutated::on(3)))"), "{own}");
        let both = of(&[mutation(4, Some("one"), "c", "d"), mutation(5, Some("one"), "c", "e")]);
        assert!(both.contains("(if crate::mutated::on(5) { e } else { (if crate::mutated::on(4) { d } else { c }) })"), "{both}");
    }

    #[test]
    fn a_text_that_is_not_there_or_twice_or_within_another_is_refused() {
        let refused = |mutations: &[Mutation]| rewritten(SOURCE, "a.rs", mutations).unwrap_err();
        assert!(refused(&[mutation(1, None, "c", "d")]).contains("has 2 times"));
        assert!(refused(&[mutation(1, None, "c(", "d(")]).contains("has 0 times"));
        let within = [mutation(1, None, "a(1) .b();", ""), mutation(2, Some("one"), ".b()", "")];
        assert!(refused(&within).contains("overlap"));
    }
}
