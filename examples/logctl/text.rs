//! Text: tables for people, and text from strangers made harmless for a terminal. Knows no log.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::shared::thousands;

/// Rows under a head, aligned. Cells that begin with a digit, or are `-`, stand right.
pub(crate) struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &'static [&'static str]) -> Self {
        Self { head, rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: &[String; N]) {
        debug_assert_eq!(N, self.head.len());
        self.rows.push(cells.iter().map(|cell| harmless(cell)).collect());
    }

    pub(crate) fn render(&self) -> String {
        let columns = 0..self.head.len();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.head[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = columns.clone().map(width).collect();
        let right = |column: usize| {
            let mut cells = self.rows.iter().map(|row| row[column].as_str());
            !self.rows.is_empty() && cells.all(|cell| cell == "-" || cell.chars().all(|c| c.is_ascii_digit() || c == ','))
        };
        let right: Vec<bool> = columns.map(right).collect();
        let mut text = String::new();
        let head: Vec<String> = self.head.iter().map(|&name| name.to_owned()).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                if right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text without anything that a terminal obeys or that hides what is there: control characters, those of the C1 set among them, and those that change
/// the direction of writing or have no width.
pub(crate) fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

fn is_harmful(c: char) -> bool {
    let unseen = ['\u{ad}', '\u{61c}', '\u{180e}', '\u{feff}'];
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e0fff}')
        || unseen.contains(&c)
}

/// JSON on one line, as harmless: such characters stand in strings only, and there an escape means the same.
pub(crate) fn json(value: &Value) -> String {
    let mut safe = String::new();
    for c in value.to_string().chars() {
        if is_harmful(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Two digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The first `chars` of the text, and how much there is.
pub(crate) fn cut(text: &str, chars: usize, bytes: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], thousands(bytes as u64)),
        None => text.to_owned(),
    }
}

/// A number that an engine may not know.
pub(crate) fn number(number: impl Into<Option<u64>>) -> String {
    number.into().map_or_else(|| String::from("-"), thousands)
}

/// As a person says it: `340 ms`, `12.5 s`, `3 m 20 s`, `2 h 5 m`, `7 d 3 h`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}
