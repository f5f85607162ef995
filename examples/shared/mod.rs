//! Shared: what `orders` and `logctl` have in common: where a log is, and how an error is told in one line.

pub(crate) mod address;

use std::error::Error;

/// An error with everything that it came from.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
