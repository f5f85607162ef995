//! Names: every metric with its kind, unit, labels and meaning, spelled once. Knows no recorder.

use metrics::Unit;

/// A metric of this crate, as it is named everywhere: one of [`METRICS`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, as [Prometheus](https://prometheus.io/docs/practices/naming/) has them: the unit is last, before `_total` of what only grows.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// What it counts or measures in.
    pub unit: Unit,
    /// Its labels. [`MetricsOptions::instance`](crate::metrics::MetricsOptions::instance) adds one to all.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// Whether a metric only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, until the program ends.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// The label of [`MetricsOptions::instance`](crate::metrics::MetricsOptions::instance).
pub(crate) const INSTANCE: &str = "pubsub";
/// The label's value of what has no series of its own.
pub(crate) const OTHER: &str = "other";

macro_rules! table {
    ($($metric:ident: $kind:ident $unit:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            pub(crate) static $metric: Metric = Metric {
                name: concat!("actix_pubsub_", $name),
                kind: MetricKind::$kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// Every metric of this crate.
        pub static METRICS: &[&Metric] = &[$(&$metric),*];
    };
}

table! {
    UPTIME: Gauge Seconds "uptime_seconds" [] "Age of the pub/sub";
    TOPICS: Gauge Count "topics" [] "Topics with a subscription on this node";
    SUBSCRIBERS: Gauge Count "subscribers" [] "Actors and streams that are subscribed";
    SUBSCRIPTIONS: Gauge Count "subscriptions" [] "Subscriptions on this node";
    ADDRESSED: Counter Count "addressed_total" [] "Events for subscriptions: one per broadcast and subscription";
    DELIVERED: Counter Count "delivered_total" [] "Events handed to handlers, streams and mailboxes";
    MISSED: Counter Count "missed_total" [] "Events that subscriptions missed, by overflow or at a full port";
    DISCARDED: Counter Count "discarded_total" [] "Events that waited for a subscription when it ended";
    WAITING: Gauge Count "waiting" [] "Events that wait for subscriptions";
    OLDEST_WAITING: Gauge Seconds "oldest_waiting_seconds" [] "How long the oldest event of the slowest subscriber has waited";
    SLOWEST_STALLED: Gauge Seconds "slowest_stalled_seconds" [] "How long the slowest subscriber has had events and has taken none";
    SLOWEST_WAITING: Gauge Count "slowest_waiting" [] "Events that wait for the slowest subscriber";
    INCIDENTS: Counter Count "incidents_total" ["kind"] "Incidents: what went wrong, and nodes and links that came and went";

    TOPIC_SUBSCRIBERS: Gauge Count "topic_subscribers" ["topic"] "Subscriptions to the topic, of those asked for";
    TOPIC_EVENTS: Counter Count "topic_events_total" ["topic"] "Events since the topic's first subscriber came";
    TOPIC_BACKLOG: Gauge Count "topic_backlog" ["topic"] "Events kept for the topic's slowest subscriber";

    ARBITER_SUBSCRIBERS: Gauge Count "arbiter_subscribers" ["arbiter"] "Actors and streams that the arbiter serves";
    ARBITER_EVENTS: Counter Count "arbiter_events_total" ["arbiter"] "Events that the arbiter accepted, one per broadcast and topic";
    ARBITER_DELIVERED: Counter Count "arbiter_delivered_total" ["arbiter"] "Events handed to the arbiter's subscribers";
    PORT_DEPTH: Gauge Count "port_depth" ["arbiter"] "Events in the arbiter's port";
    PORT_PEAK: Gauge Count "port_peak" ["arbiter"] "The most that were in the port at once";
    PORT_CAPACITY: Gauge Count "port_capacity" ["arbiter"] "Events that the port has room for";
    PORT_REFUSED: Counter Count "port_refused_total" ["arbiter"] "Events that found the port full";
    PORT_WAITS: Gauge Seconds "port_waits_seconds" ["arbiter"] "How long the port has not been emptied, because the arbiter is busy";
    REGISTRY_TURNS: Counter Count "registry_turns_total" ["arbiter"] "Turns that the arbiter's registry has had";
    REGISTRY_SLICE: Gauge Seconds "registry_slice_seconds" ["arbiter"] "What others took on the arbiter's thread between the last two turns of one fan-out";
    REGISTRY_SWEEP: Gauge Seconds "registry_sweep_seconds" ["arbiter"] "How long the last look for dead subscribers took";
    REGISTRY_RESTARTS: Counter Count "registry_restarts_total" ["arbiter"] "Panics of the registry, which was started again: a bug of this crate";
    FOREIGN_PANICS: Counter Count "foreign_panics_total" ["arbiter"] "Panics of wakers, of payloads being dropped and of mailboxes, survived";

    CLUSTER_LINK_UP: Gauge Count "cluster_link_up" ["engine"] "1 while there is a link to the engine, else 0";
    CLUSTER_LINKS: Counter Count "cluster_links_total" ["engine"] "Links made";
    CLUSTER_LINK_FAILURES: Counter Count "cluster_link_failures_total" ["engine"] "Links that ended, and tries to make one that failed";
    CLUSTER_NODES: Gauge Count "cluster_nodes" ["engine"] "Other nodes that are up";
    CLUSTER_TOPICS: Gauge Count "cluster_topics" ["engine"] "Topics that this node asks the engine for";
    CLUSTER_SENT: Counter Count "cluster_sent_total" ["engine"] "Broadcasts handed to the engine";
    CLUSTER_SENT_BYTES: Counter Bytes "cluster_sent_bytes_total" ["engine"] "Their bytes";
    CLUSTER_RECEIVED: Counter Count "cluster_received_total" ["engine"] "Frames that came in, of whatever kind";
    CLUSTER_RECEIVED_BYTES: Counter Bytes "cluster_received_bytes_total" ["engine"] "Their bytes";
    CLUSTER_DELIVERED: Counter Count "cluster_delivered_total" ["engine"] "Broadcasts of other nodes that were given to subscribers here";
    CLUSTER_QUEUE_DEPTH: Gauge Count "cluster_queue_depth" ["engine"] "Broadcasts that wait for the engine";
    CLUSTER_QUEUE_PEAK: Gauge Count "cluster_queue_peak" ["engine"] "The most that waited at once";
    CLUSTER_QUEUE_CAPACITY: Gauge Count "cluster_queue_capacity" ["engine"] "Broadcasts that may wait";
    CLUSTER_DROPPED: Counter Count "cluster_dropped_total" ["engine", "reason"] "Broadcasts not sent, and frames not delivered, by reason";
    CLUSTER_LOST: Counter Count "cluster_lost_total" ["engine"] "Broadcasts of other nodes that did not arrive";
    CLUSTER_PANICS: Counter Count "cluster_panics_total" ["engine"] "Panics of the transport, survived: a bug";

    LOG_FOLLOWED: Gauge Count "log_followed_topics" [] "Topics of the log that are followed for subscribers here";
    LOG_APPENDED: Counter Count "log_appended_total" [] "Entries appended by this node";
    LOG_UNDECODABLE: Counter Count "log_undecodable_total" [] "Entries that are no message of their name";
    LOG_UNKNOWN: Counter Count "log_unknown_total" [] "Entries whose name no message type here has";
    GROUP_CONSUMERS: Gauge Count "group_consumers" ["topic", "group"] "Consumers of the group on this node";
    GROUP_DELIVERED: Counter Count "group_delivered_total" ["topic", "group"] "Entries given to a handler here";
    GROUP_REDELIVERED: Counter Count "group_redelivered_total" ["topic", "group"] "Of them, those that had been given to one before, here or elsewhere";
    GROUP_HANDLED: Counter Count "group_handled_total" ["topic", "group"] "Entries whose handler answered Ok";
    GROUP_FAILED: Counter Count "group_failed_total" ["topic", "group"] "Entries whose handler answered Err, or nothing";
    GROUP_DEAD_LETTERS: Counter Count "group_dead_letters_total" ["topic", "group"] "Entries given up";

    LOG_STORE_UP: Gauge Count "log_store_up" [] "1 where the store answered the last look at it, else 0";
    LOG_TOPICS: Gauge Count "log_topics" [] "Topics of the log that the last look read, of all nodes";
    LOG_ENTRIES: Gauge Count "log_entries" [] "Entries that the store keeps in them";
    LOG_BYTES: Gauge Bytes "log_bytes" [] "Bytes that those take, where the engine says";
    GROUP_LAG: Gauge Count "group_lag" ["topic", "group"] "Entries kept that no consumer of the group has had, where the engine can tell";
    GROUP_PENDING: Gauge Count "group_pending" ["topic", "group"] "Entries delivered and not acked";
    GROUP_OLDEST_PENDING: Gauge Seconds "group_oldest_pending_seconds" ["topic", "group"] "Age of the oldest of those, where the engine can list them";
    GROUP_SKIPPED: Counter Count "group_skipped_total" ["topic", "group"] "Entries trimmed before any consumer of the group had them, where the engine can tell";
}

impl Metric {
    /// Its row in `src/docs/metrics.md`.
    #[cfg(test)]
    fn row(&self) -> String {
        let unit = match self.unit {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            _ => "",
        };
        let kind = match self.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let labels: Vec<_> = self.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {kind} | {unit} | {} | {} |", self.name, labels.join(", "), self.help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_as_prometheus_has_them_and_each_there_once() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for Metric { name, kind, unit, .. } in METRICS {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            let measured = name.trim_end_matches("_total");
            assert_eq!(measured.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
            assert_eq!(measured.ends_with("_bytes"), *unit == Unit::Bytes, "{name}");
        }
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let rows: Vec<_> = METRICS.iter().map(|metric| metric.row()).collect();
        let documented: Vec<_> =
            include_str!("../docs/metrics.md").lines().filter(|line| line.starts_with("| `actix_pubsub_")).collect();
        assert!(documented == rows, "src/docs/metrics.md is to have this table:\n{}", rows.join("\n"));
    }
}
