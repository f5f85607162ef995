//! Read: what a pub/sub tells of itself, as samples. Changes nothing; knows no recorder.

use std::time::Duration;

use crate::cluster::ClusterStats;
use crate::feed::stats::LogStats;
use crate::local::stats::ArbiterStats;
use crate::local::stats::SubscriptionStats;
use crate::local::stats::TopicStats;
use crate::log::StoreError;
use crate::metrics::names as is;
use crate::metrics::names::OTHER;
use crate::metrics::options::MetricsOptions;
use crate::metrics::samples::Samples;
use crate::pubsub::PubSub;
use crate::pubsub::stats::Stats;
use crate::stream::inspect::LogGroupStats;
use crate::stream::inspect::LogTopicStats;
use crate::topic::Topic;

impl Samples {
    /// Of this node: a walk over its subscriptions, and over its topics where topics are asked for.
    pub(crate) fn of(pubsub: &PubSub, options: &MetricsOptions) -> Self {
        let mut samples = Self::default();
        let (stats, slowest) = pubsub.summary_and_slowest();
        node(&mut samples, &stats, slowest.as_ref());
        for (kind, times) in pubsub.incidents_by_kind() {
            samples.count(&is::INCIDENTS, &[kind], times);
        }
        if options.wants_topics() {
            topics(&mut samples, &pubsub.by_topic(), options);
        }
        arbiters(&mut samples, &stats.arbiters);
        if let Some(stats) = &stats.cluster {
            cluster(&mut samples, stats);
        }
        if let Some(stats) = &stats.log {
            log(&mut samples, stats, options);
        }
        samples
    }

    /// Of the log's store, for all nodes that share it; none, where there is no log.
    pub(crate) async fn of_log(pubsub: &PubSub, options: &MetricsOptions) -> (Self, Result<(), StoreError>) {
        let mut samples = Self::default();
        if pubsub.feed().is_none() || options.log_topics_max == 0 {
            return (samples, Ok(()));
        }
        let asked = pubsub.log_topics_consumed_first(options.log_topics_max).await;
        samples.count(&is::LOG_STORE_UP, &[], asked.is_ok().into());
        let asked = asked.map(|topics| store(&mut samples, &topics, options));
        (samples, asked)
    }

    /// The same of a store that may hang.
    pub(crate) async fn of_log_in_time(pubsub: &PubSub, options: &MetricsOptions) -> Self {
        match tokio::time::timeout(LOG_TIMEOUT, Self::of_log(pubsub, options)).await {
            // That the store does not answer is told by a metric.
            Ok((samples, _)) => samples,
            Err(_) => {
                let mut samples = Self::default();
                samples.count(&is::LOG_STORE_UP, &[], 0);
                samples
            }
        }
    }
}

fn node(samples: &mut Samples, stats: &Stats, slowest: Option<&SubscriptionStats>) {
    samples.age_ms(&is::UPTIME, &[], stats.uptime_ms);
    samples.count(&is::TOPICS, &[], stats.topics as u64);
    samples.count(&is::SUBSCRIBERS, &[], stats.subscribers as u64);
    samples.count(&is::SUBSCRIPTIONS, &[], stats.subscriptions_total as u64);
    samples.count(&is::ADDRESSED, &[], stats.addressed);
    samples.count(&is::DELIVERED, &[], stats.delivered);
    samples.count(&is::MISSED, &[], stats.missed);
    samples.count(&is::DISCARDED, &[], stats.discarded);
    samples.count(&is::WAITING, &[], stats.waiting);
    samples.age_ms(&is::OLDEST_WAITING, &[], slowest.and_then(|slow| slow.oldest_ms).unwrap_or(0));
    samples.age_ms(&is::SLOWEST_STALLED, &[], slowest.map_or(0, |slow| slow.stalled_ms));
    samples.count(&is::SLOWEST_WAITING, &[], slowest.map_or(0, |slow| slow.depth));
}

fn topics(samples: &mut Samples, topics: &[TopicStats], options: &MetricsOptions) {
    let mut rest = 0;
    for stats in topics {
        let named = options.names_topic(&stats.topic);
        let label = [if named { stats.topic.as_str() } else { OTHER }];
        samples.count(&is::TOPIC_SUBSCRIBERS, &label, stats.subscribers as u64);
        samples.count(&is::TOPIC_BACKLOG, &label, stats.backlog as u64);
        if named {
            samples.count(&is::TOPIC_EVENTS, &label, stats.events);
        } else {
            rest += stats.events;
        }
    }
    samples.count(&is::TOPIC_EVENTS, &[OTHER], options.rest_of_events(rest));
    // What has ended is 0, where a recorder would keep what it was.
    let named = options.named_topics();
    for label in named.iter().map(Topic::as_str).chain([OTHER]) {
        samples.count(&is::TOPIC_SUBSCRIBERS, &[label], 0);
        samples.count(&is::TOPIC_BACKLOG, &[label], 0);
    }
}

fn arbiters(samples: &mut Samples, arbiters: &[ArbiterStats]) {
    for (at, stats) in arbiters.iter().enumerate() {
        let number = stats.arbiter.to_string();
        arbiter(samples, if at < ARBITERS_MAX { &number } else { OTHER }, stats);
    }
}

fn arbiter(samples: &mut Samples, label: &str, stats: &ArbiterStats) {
    let label = [label];
    samples.count(&is::ARBITER_SUBSCRIBERS, &label, stats.subscribers as u64);
    samples.count(&is::ARBITER_EVENTS, &label, stats.events);
    samples.count(&is::ARBITER_DELIVERED, &label, stats.delivered);
    samples.count(&is::PORT_DEPTH, &label, stats.port_depth as u64);
    samples.count(&is::PORT_PEAK, &label, stats.port_peak as u64);
    samples.count(&is::PORT_CAPACITY, &label, stats.port_capacity as u64);
    samples.count(&is::PORT_REFUSED, &label, stats.port_refused);
    samples.age_ms(&is::PORT_WAITS, &label, stats.port_waits_ms);
    samples.count(&is::REGISTRY_TURNS, &label, stats.turns);
    samples.time_us(&is::REGISTRY_SLICE, &label, stats.slice_us);
    samples.time_us(&is::REGISTRY_SWEEP, &label, stats.sweep_us);
    samples.count(&is::REGISTRY_RESTARTS, &label, stats.registry_restarts);
    samples.count(&is::FOREIGN_PANICS, &label, stats.foreign_panics);
}

fn cluster(samples: &mut Samples, stats: &ClusterStats) {
    let label = [stats.engine];
    samples.count(&is::CLUSTER_LINK_UP, &label, stats.link_up.into());
    samples.count(&is::CLUSTER_LINKS, &label, stats.links);
    samples.count(&is::CLUSTER_LINK_FAILURES, &label, stats.link_failures);
    samples.count(&is::CLUSTER_NODES, &label, stats.nodes as u64);
    samples.count(&is::CLUSTER_TOPICS, &label, stats.topics);
    samples.count(&is::CLUSTER_SENT, &label, stats.sent);
    samples.count(&is::CLUSTER_SENT_BYTES, &label, stats.sent_bytes);
    samples.count(&is::CLUSTER_RECEIVED, &label, stats.received);
    samples.count(&is::CLUSTER_RECEIVED_BYTES, &label, stats.received_bytes);
    samples.count(&is::CLUSTER_DELIVERED, &label, stats.delivered);
    samples.count(&is::CLUSTER_QUEUE_DEPTH, &label, stats.queue_depth as u64);
    samples.count(&is::CLUSTER_QUEUE_PEAK, &label, stats.queue_peak as u64);
    samples.count(&is::CLUSTER_QUEUE_CAPACITY, &label, stats.queue_capacity as u64);
    samples.count(&is::CLUSTER_LOST, &label, stats.lost);
    samples.count(&is::CLUSTER_PANICS, &label, stats.panics);
    let dropped = [
        ("nobody_listens", stats.dropped_nobody_listens),
        ("queue_full", stats.dropped_queue_full),
        ("link_down", stats.dropped_link_down),
        ("own", stats.dropped_own),
        ("old", stats.dropped_old),
        ("unasked", stats.dropped_unasked),
        ("malformed", stats.dropped_malformed),
        ("newer", stats.dropped_newer),
        ("unknown_message", stats.dropped_unknown_message),
        ("undecodable", stats.dropped_undecodable),
        ("inbound_full", stats.dropped_inbound_full),
    ];
    for (reason, frames) in dropped {
        samples.count(&is::CLUSTER_DROPPED, &[stats.engine, reason], frames);
    }
}

fn log(samples: &mut Samples, stats: &LogStats, options: &MetricsOptions) {
    samples.count(&is::LOG_FOLLOWED, &[], stats.topics as u64);
    samples.count(&is::LOG_APPENDED, &[], stats.appended);
    samples.count(&is::LOG_UNDECODABLE, &[], stats.undecodable);
    samples.count(&is::LOG_UNKNOWN, &[], stats.unknown);
    for group in &stats.groups {
        let label = group_label(options, &group.topic, &group.group);
        samples.count(&is::GROUP_CONSUMERS, &label, group.consumers as u64);
        samples.count(&is::GROUP_DELIVERED, &label, group.delivered);
        samples.count(&is::GROUP_REDELIVERED, &label, group.redelivered);
        samples.count(&is::GROUP_HANDLED, &label, group.handled);
        samples.count(&is::GROUP_FAILED, &label, group.failed);
        samples.count(&is::GROUP_DEAD_LETTERS, &label, group.dead_letters);
    }
}

fn store(samples: &mut Samples, topics: &[LogTopicStats], options: &MetricsOptions) {
    samples.count(&is::LOG_TOPICS, &[], topics.len() as u64);
    samples.count(&is::LOG_ENTRIES, &[], topics.iter().map(|stats| stats.entries).sum());
    samples.count(&is::LOG_BYTES, &[], topics.iter().filter_map(|stats| stats.bytes).sum());
    for stats in topics {
        for group in &stats.groups {
            group_in_store(samples, group_label(options, &stats.topic, &group.group), group);
        }
    }
    // What was deleted is 0, where a recorder would keep what it was.
    for (topic, group) in options.named_groups() {
        let looked_at = topics.iter().find(|stats| stats.topic == topic);
        if looked_at.is_some_and(|stats| !stats.groups.iter().any(|known| known.group == group)) {
            let label = [topic.as_str(), &group];
            samples.count(&is::GROUP_LAG, &label, 0);
            samples.count(&is::GROUP_PENDING, &label, 0);
            samples.age_ms(&is::GROUP_OLDEST_PENDING, &label, 0);
        }
    }
}

fn group_in_store(samples: &mut Samples, label: [&str; 2], group: &LogGroupStats) {
    samples.count(&is::GROUP_PENDING, &label, group.pending);
    if let Some(lag) = group.lag {
        samples.count(&is::GROUP_LAG, &label, lag);
    }
    if let Some(skipped) = group.skipped {
        samples.count(&is::GROUP_SKIPPED, &label, skipped);
    }
    // Nothing pending is no age; something of which the engine says nothing is unknown.
    if let Some(ms) = group.oldest_pending_ms.or((group.pending == 0).then_some(0)) {
        samples.age_ms(&is::GROUP_OLDEST_PENDING, &label, ms);
    }
}

fn group_label<'a>(options: &MetricsOptions, topic: &'a Topic, group: &'a str) -> [&'a str; 2] {
    if options.names_group(topic, group) { [topic.as_str(), group] } else { [OTHER, OTHER] }
}

/// Arbiters with series of their own; more threads than machines have.
const ARBITERS_MAX: usize = 256;
/// For the store, within the ten seconds that Prometheus gives a scrape.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::samples::Value;

    fn busy(arbiter: u32) -> ArbiterStats {
        ArbiterStats {
            arbiter,
            background: false,
            subscribers: 1,
            events: 2,
            delivered: 0,
            delivered_per_second: 0,
            port_depth: 0,
            port_peak: 0,
            port_capacity: 0,
            port_refused: 0,
            port_waits_ms: u64::from(arbiter),
            turns: 0,
            slice_us: 0,
            sweep_us: 0,
            registry_restarts: 0,
            foreign_panics: 0,
        }
    }

    #[test]
    fn arbiters_beyond_the_limit_are_summed_up_and_of_their_ages_the_greatest_counts() {
        for beyond in [0, 1, 2] {
            let mut samples = Samples::default();
            arbiters(&mut samples, &(0..ARBITERS_MAX as u32 + beyond).map(busy).collect::<Vec<_>>());
            let of = |metric: &str, label: &str| {
                let mut series = samples.iter().filter(|(sample, labels)| sample.metric.name == metric && labels[0] == label);
                series.next().map(|(sample, _)| sample.value)
            };
            assert_eq!(of("actix_pubsub_arbiter_subscribers", "255"), Some(Value::Level(1.0)));
            assert_eq!(of("actix_pubsub_arbiter_subscribers", "256"), None);
            let rest =
                ["actix_pubsub_arbiter_subscribers", "actix_pubsub_arbiter_events_total", "actix_pubsub_port_waits_seconds"];
            let expected = match beyond {
                0 => [None; 3],
                1 => [Some(Value::Level(1.0)), Some(Value::Total(2)), Some(Value::Level(0.256))],
                _ => [Some(Value::Level(2.0)), Some(Value::Total(4)), Some(Value::Level(0.257))],
            };
            assert_eq!(rest.map(|metric| of(metric, OTHER)), expected);
        }
    }
}
