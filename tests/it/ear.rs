//! Ear: what this process says by `tracing`, as warnings, and as zenoh's own account of the seeds that it dials. One for the whole process.

use std::fmt;
use std::fmt::Write;
use std::sync::LazyLock;
use std::sync::Mutex;

use tracing::field::Field;
use tracing::field::Visit;

/// From now on, at the latest.
pub(crate) fn listen() {
    LazyLock::force(&HEARD);
}

/// The lines with all of these in them.
pub(crate) fn heard(words: &[&str]) -> Vec<String> {
    let lines = HEARD.lock().unwrap();
    lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).cloned().collect()
}

static HEARD: LazyLock<Mutex<Vec<String>>> = LazyLock::new(|| {
    tracing::subscriber::set_global_default(Ear).unwrap();
    Mutex::default()
});

struct Ear;

impl tracing::Subscriber for Ear {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN || metadata.target() == "zenoh::net::runtime::orchestrator"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        HEARD.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Into a text it cannot fail.
        let _ = write!(self.0, "{field}={value} ");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Into a text it cannot fail.
        let _ = write!(self.0, "{field}={value:?} ");
    }
}
