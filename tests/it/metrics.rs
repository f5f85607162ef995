//! Metrics: what is recorded is what `stats` tells, under few names, and the dashboard and the alerts for it are right.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use actix::prelude::*;
use actix_pubsub::Overflow;
use actix_pubsub::PubSub;
use actix_pubsub::SubscribeOptions;
use actix_pubsub::Topic;
use actix_pubsub::cluster::Memory;
use actix_pubsub::log::MemoryStore;
use actix_pubsub::metrics::METRICS;
use actix_pubsub::metrics::Metric;
use actix_pubsub::metrics::MetricKind;
use actix_pubsub::metrics::MetricsOptions;
use actix_pubsub::testing::faults::FaultyStore;
use actix_pubsub::web::metrics as metrics_route;
use actix_web::App;
use actix_web::test as http;
use futures::StreamExt;
use futures::future::Either;
use futures::future::select;
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::support::Folder;
use crate::support::Note;
use crate::support::Probe;
use crate::support::Worker;
use crate::support::append_notes;
use crate::support::failed;
use crate::support::ok;
use crate::support::one_turn;
use crate::support::subscribe;
use crate::support::system;
use crate::support::until;
use crate::support::within;

/// A series as it is written: its name, and its labels by name.
type Series = (String, BTreeMap<String, String>);

/// What a Prometheus would read.
struct Scrape {
    text: String,
    series: BTreeMap<Series, f64>,
}

impl Scrape {
    fn parse(text: String) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let series = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap().split("\",").filter(|label| !label.is_empty());
            let labels = labels.map(|label| {
                let (name, value) = label.split_once("=\"").unwrap();
                (name.to_owned(), value.trim_end_matches('"').to_owned())
            });
            ((name.to_owned(), labels.collect()), value.parse().unwrap())
        });
        Self { series: series.collect(), text }
    }

    /// What is recorded at one look.
    async fn of(pubsub: &PubSub, options: &MetricsOptions) -> Self {
        let app = http::init_service(App::new().route("/metrics", metrics_route(pubsub, options))).await;
        let answer = http::call_service(&app, http::TestRequest::get().uri("/metrics").to_request()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers().get("content-type").unwrap(), "text/plain; version=0.0.4; charset=utf-8");
        Self::parse(String::from_utf8(http::read_body(answer).await.to_vec()).unwrap())
    }

    /// The series of a metric, by the value of one of its labels.
    fn by<'a>(&'a self, metric: &str, label: &str) -> BTreeMap<&'a str, f64> {
        let series = self.series.iter().filter(|((name, _), _)| name == metric);
        series.map(|((_, labels), value)| (labels.get(label).map_or("", String::as_str), *value)).collect()
    }

    /// The one series of a metric that has one.
    fn one(&self, metric: &str) -> f64 {
        let values: Vec<_> = self.series.iter().filter(|((name, _), _)| name == metric).map(|(_, value)| *value).collect();
        assert_eq!(values.len(), 1, "{metric}");
        values[0]
    }
}

#[expect(clippy::cast_precision_loss, reason = "they are small")]
fn float(number: u64) -> f64 {
    number as f64
}

/// A subscriber that has events and takes none, beside one that reads.
async fn slow_and_well(pubsub: &PubSub) -> (impl Sized + use<>, Addr<Probe>) {
    let options = SubscribeOptions::new().capacity(4).overflow(Overflow::DropOldest);
    let unread = pubsub.stream_with::<Note>("t", &options).unwrap();
    let (probe, log) = Probe::start_new();
    subscribe(pubsub, &probe, "t").await;
    for value in 0..10 {
        pubsub.local_broadcast("t", Note(value)).unwrap();
    }
    until("the probe has them", || log.len() == 10).await;
    (unread, probe)
}

#[test]
fn what_is_recorded_is_what_stats_says() {
    system(async {
        let pubsub = PubSub::new();
        let _both = slow_and_well(&pubsub).await;
        let unread = pubsub.stream::<Note>("another").unwrap();
        for value in 0..3 {
            pubsub.local_broadcast("another", Note(value)).unwrap();
        }
        until("they wait", || pubsub.summary().waiting == 7).await;
        drop(unread);
        let scrape = Scrape::of(&pubsub, &MetricsOptions::new()).await;
        let stats = pubsub.summary();
        for (name, is) in [
            ("actix_pubsub_topics", stats.topics as u64),
            ("actix_pubsub_subscribers", stats.subscribers as u64),
            ("actix_pubsub_subscriptions", stats.subscriptions_total as u64),
            ("actix_pubsub_addressed_total", stats.addressed),
            ("actix_pubsub_delivered_total", stats.delivered),
            ("actix_pubsub_missed_total", stats.missed),
            ("actix_pubsub_discarded_total", stats.discarded),
            ("actix_pubsub_waiting", stats.waiting),
            ("actix_pubsub_slowest_waiting", 4),
            ("actix_pubsub_port_capacity", stats.arbiters[0].port_capacity as u64),
        ] {
            assert!((scrape.one(name) - float(is)).abs() < f64::EPSILON, "{name} is {is}:\n{}", scrape.text);
        }
        assert_eq!((stats.addressed, stats.delivered, stats.missed, stats.discarded, stats.waiting), (23, 10, 6, 3, 4));
        assert!(
            scrape.by("actix_pubsub_incidents_total", "kind").contains_key("port_full"),
            "also those of which there was none"
        );
    });
}

/// A pub/sub with everything that can be measured.
async fn full() -> (PubSub, PubSub, impl Sized) {
    let engine = Memory::new();
    let node = || PubSub::builder().cluster(engine.clone()).message::<Note>();
    let (pubsub, other) = (node().log(MemoryStore::new()).build().unwrap(), node().build().unwrap());
    until("the nodes know each other", || !pubsub.nodes().is_empty()).await;
    let both = slow_and_well(&pubsub).await;
    append_notes(&pubsub, 0..3).await;
    let worker = Worker::new(&pubsub, |delivery, _| if delivery.0 == 1 { failed("on purpose") } else { ok() }).start();
    let delivered = || pubsub.summary().log.unwrap().groups.iter().any(|group| group.failed > 0 && group.handled == 2);
    until("entries were handled and failed", delivered).await;
    (pubsub, other, (both, worker))
}

#[test]
fn every_metric_is_produced_with_its_labels_and_its_help_and_no_other() {
    system(async {
        let (pubsub, _other, _held) = full().await;
        let options = MetricsOptions::new().topics("*").unwrap().instance("here");
        let scrape = Scrape::of(&pubsub, &options).await;
        for Metric { name, kind, labels, help, .. } in METRICS {
            let kind = match kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            assert!(scrape.text.contains(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")), "{name}");
            let found: Vec<_> = scrape.series.keys().filter(|(found, _)| found == name).collect();
            assert!(!found.is_empty(), "{name} is not produced");
            let expected: BTreeSet<_> = labels.iter().copied().chain(["pubsub"]).collect();
            for (_, labels) in found {
                assert_eq!(labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{name}");
                assert_eq!(labels["pubsub"], "here");
            }
        }
        let known: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        for (name, _) in scrape.series.keys() {
            assert!(known.contains(name.as_str()), "{name} is in no table");
        }
    });
}

#[test]
fn what_the_facade_records_is_what_the_route_answers() {
    system(async {
        let (pubsub, _other, _held) = full().await;
        let (recorder, options) = (PrometheusBuilder::new().build_recorder(), MetricsOptions::new());
        let (asked, answered) = {
            let _current = metrics::set_default_local_recorder(&recorder);
            pubsub.record_metrics(&options);
            (pubsub.record_log_metrics(&options).await, Scrape::parse(recorder.handle().render()))
        };
        asked.unwrap();
        let scrape = Scrape::of(&pubsub, &options).await;
        assert_eq!(answered.series.keys().collect::<Vec<_>>(), scrape.series.keys().collect::<Vec<_>>());
    });
}

#[test]
fn a_store_that_does_not_answer_is_told_by_a_metric_and_nothing_else_is_missing() {
    system(async {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), 0);
        let pubsub = PubSub::builder().log(store.clone()).build().unwrap();
        let up = |scrape: &Scrape| scrape.one("actix_pubsub_log_store_up") > 0.5;
        assert!(up(&Scrape::of(&pubsub, &MetricsOptions::new()).await));
        store.set_down(true);
        let scrape = Scrape::of(&pubsub, &MetricsOptions::new()).await;
        assert!(!up(&scrape) && scrape.one("actix_pubsub_subscribers").abs() < f64::EPSILON);
        store.set_down(false);
        store.set_silent(true);
        let scrape = Scrape::of(&pubsub, &MetricsOptions::new()).await;
        assert!(!up(&scrape) && scrape.one("actix_pubsub_subscribers").abs() < f64::EPSILON);
    });
}

#[test]
fn a_hundred_thousand_topics_have_as_many_series_as_were_asked_for() {
    system(async {
        let (pubsub, (probe, log)) = (PubSub::new(), Probe::start_new());
        let topics: Vec<_> = (0..100_000).map(|number| Topic::parse(&format!("orders.{number:05}")).unwrap()).collect();
        let (joins, theirs) = (pubsub.clone(), topics.clone());
        within(&probe, move |_, ctx| {
            for topic in &theirs {
                joins.subscribe::<Note, _>(ctx, topic).unwrap();
            }
        })
        .await;
        for (value, topic) in topics.iter().step_by(1_000).enumerate() {
            pubsub.local_broadcast_async(topic, Note(value as u64)).await.unwrap();
        }
        until("they are there", || log.len() == 100).await;

        let few = Scrape::of(&pubsub, &MetricsOptions::new()).await;
        assert!(few.series.len() < 100, "{} series", few.series.len());
        let options = MetricsOptions::new().topics("orders.000*").unwrap().topics("orders.01*").unwrap().topics_max(50);
        for look in 1..=2 {
            let scrape = Scrape::of(&pubsub, &options).await;
            let topics = scrape.by("actix_pubsub_topic_subscribers", "topic");
            assert_eq!((topics.len(), topics["orders.00000"], topics["other"]), (51, 1.0, 99_950.0), "look {look}");
            let events = scrape.by("actix_pubsub_topic_events_total", "topic");
            assert_eq!((events.len(), events["orders.00000"], events["other"]), (51, 1.0, 99.0), "look {look}");
            assert_eq!(scrape.series.len(), few.series.len() + 3 * 51, "look {look}");
        }
        // Those that end stay among the named, at 0, and give their place to nobody.
        pubsub.unsubscribe::<Note>(&probe, "orders.00000");
        let scrape = Scrape::of(&pubsub, &options).await;
        let topics = scrape.by("actix_pubsub_topic_subscribers", "topic");
        assert_eq!((topics.len(), topics["orders.00000"], topics["other"]), (51, 0.0, 99_950.0));
    });
}

#[test]
fn a_look_at_a_hundred_thousand_subscribers_lets_the_arbiter_go_on() {
    system(async {
        let pubsub = PubSub::new();
        let streams: Vec<_> = (0..100_000).map(|_| pubsub.stream::<Note>("t").unwrap()).collect();
        pubsub.local_broadcast("t", Note(1)).unwrap();
        let waiting = || pubsub.summary().waiting;
        until("it waits for all of them", || waiting() == 100_000).await;
        // What it would be on the arbiter.
        let walk = || {
            let begun = Instant::now();
            pubsub.summary();
            begun.elapsed()
        };
        let walk = [walk(), walk(), walk()].into_iter().min().unwrap();
        let longest = Cell::new(Duration::ZERO);
        let others = async {
            loop {
                let begun = Instant::now();
                one_turn().await;
                longest.set(longest.get().max(begun.elapsed()));
            }
        };
        let mut others = pin!(others);
        // Other programs hold it up, too, but not each time.
        let mut lets_others_go_on = async || {
            // They wait for their turn from before the look begins.
            assert!(futures::poll!(others.as_mut()).is_pending());
            longest.set(Duration::ZERO);
            let options = MetricsOptions::new();
            let look = Scrape::of(&pubsub, &options);
            let Either::Left((scrape, _)) = select(pin!(look), others.as_mut()).await;
            // The turn that they waited for when it ended counts, too: a look within one turn has no other.
            assert!(futures::poll!(others.as_mut()).is_pending());
            assert!((scrape.one("actix_pubsub_waiting") - 100_000.0).abs() < f64::EPSILON);
            longest.get() < walk / 2
        };
        let mut looks = 1;
        while !lets_others_go_on().await {
            assert!(looks < 20, "others waited for {:?}, a walk takes {walk:?}", longest.get());
            looks += 1;
        }
        drop(streams);
    });
}

#[test]
fn of_the_log_the_topics_that_are_consumed_here_are_looked_at_first() {
    system(async {
        let pubsub = PubSub::builder().log(MemoryStore::new()).build().unwrap();
        for topic in ["a", "b"] {
            pubsub.append(topic, &Note(0)).await.unwrap();
        }
        append_notes(&pubsub, 0..3).await;
        let worker = Worker::new(&pubsub, |_, _| ok()).start();
        until("it handled all", || pubsub.summary().log.unwrap().groups.iter().any(|group| group.handled == 3)).await;
        for (max, entries) in [(1, 3.0), (2, 4.0), (3, 5.0), (4, 5.0)] {
            let scrape = Scrape::of(&pubsub, &MetricsOptions::new().log_topics_max(max)).await;
            assert!((scrape.one("actix_pubsub_log_entries") - entries).abs() < f64::EPSILON, "of {max} topics");
            assert_eq!(scrape.by("actix_pubsub_group_lag", "group"), BTreeMap::from([("workers", 0.0)]));
        }
        let none = Scrape::of(&pubsub, &MetricsOptions::new().log_topics_max(0)).await;
        assert_eq!(none.by("actix_pubsub_log_store_up", ""), BTreeMap::new());
        drop(worker);
    });
}

/// A recorder that is that of this thread until the test ends.
fn recorder() -> (&'static PrometheusRecorder, metrics::LocalRecorderGuard<'static>) {
    let recorder: &'static _ = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    (recorder, metrics::set_default_local_recorder(recorder))
}

#[test]
fn recording_goes_on_until_the_pubsub_is_shut_down_or_dropped_and_does_not_keep_it() {
    system(async {
        let (recorder, _current) = recorder();
        let recorded = |name: &str| Scrape::parse(recorder.handle().render()).by(name, "").values().next().copied();
        for drops in [false, true] {
            let pubsub = PubSub::new();
            let recording = actix::spawn(pubsub.record_metrics_every(Duration::ZERO, MetricsOptions::new()));
            until("it was recorded", || recorded("actix_pubsub_subscribers") == Some(0.0)).await;
            let mut stream = pubsub.stream::<Note>("t").unwrap();
            until("it is recorded again", || recorded("actix_pubsub_subscribers") == Some(1.0)).await;
            if drops {
                drop(pubsub);
            } else {
                pubsub.shutdown().await;
            }
            assert!(stream.next().await.is_none(), "the pub/sub is closed");
            recording.await.unwrap();
            drop(stream);
            metrics::with_recorder(|recorder| {
                let key = metrics::Key::from_name("actix_pubsub_subscribers");
                recorder.register_gauge(&key, &metrics::Metadata::new("test", metrics::Level::INFO, None)).set(7.0);
            });
        }
    });
}

// ---- the dashboard and the alerts ------------------------------------------------------------------------------------

fn grafana(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/grafana")
}

/// The words in a text, and what comes before each.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Checks that an expression names metrics and labels that there are.
fn check(expression: &str) -> BTreeSet<&'static str> {
    let used: Vec<_> = words(expression).filter(|word| word.starts_with("actix_pubsub_")).collect();
    assert!(!used.is_empty(), "{expression}");
    let metric =
        |name: &&str| *METRICS.iter().find(|metric| metric.name == *name).unwrap_or_else(|| panic!("{name} in {expression}"));
    let metrics: Vec<_> = used.iter().map(metric).collect();
    // Prometheus itself adds these.
    let labels: BTreeSet<_> =
        metrics.iter().flat_map(|metric| metric.labels).copied().chain(["job", "instance", "pubsub"]).collect();
    let grouped = expression.split(" by (").skip(1).flat_map(|rest| words(rest.split(')').next().unwrap()));
    let matched = expression.split('{').skip(1).flat_map(|rest| {
        let matchers = rest.split('}').next().unwrap().split(',');
        matchers.map(|matcher| matcher.split(['=', '!']).next().unwrap().trim())
    });
    for label in grouped.chain(matched) {
        assert!(labels.contains(label), "label {label} in {expression}");
    }
    metrics.iter().map(|metric| metric.name).collect()
}

/// The labels that a text of an alert or a legend names, by what stands before them.
fn named_labels<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(|rest| words(rest).next().unwrap())
}

#[test]
fn the_dashboard_shows_metrics_and_labels_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(&grafana("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<_> = panels.iter().filter(|panel| panel["type"] == "row").map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(rows, ["Throughput", "Slow subscribers", "Ports", "Log groups", "Cluster", "Incidents"]);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for variable in &dashboard["templating"]["list"].as_array().unwrap()[1..] {
        assert_eq!(check(variable["query"]["query"].as_str().unwrap()).len(), 1);
    }
    let mut shown = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
        for target in panel["targets"].as_array().unwrap() {
            let (expression, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
            let metrics = check(expression);
            let labels = METRICS.iter().filter(|metric| metrics.contains(metric.name)).flat_map(|metric| metric.labels);
            let labels: BTreeSet<_> = labels.copied().chain(["instance"]).collect();
            for label in named_labels(legend, "{{") {
                let aggregated = expression.contains(" by (") && !expression.split(" by (").nth(1).unwrap().contains(label);
                assert!(labels.contains(label) && !aggregated, "{label} in {legend} of {expression}");
            }
            shown += 1;
        }
    }
    assert!(shown > 30, "{shown} queries");
}

/// The rules, by name: what they ask, and what they say.
fn rules() -> BTreeMap<String, (String, String)> {
    let alerts = grafana("alerts.yml");
    let rules = alerts.split("- alert: ").skip(1).map(|rule| {
        let line = |key| rule.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap().to_owned();
        (rule.lines().next().unwrap().to_owned(), (line("expr: "), line("summary: ")))
    });
    rules.collect()
}

#[test]
fn each_alert_is_of_metrics_that_there_are_is_tested_and_is_explained() {
    let (rules, tested, explained) = (rules(), grafana("alerts.test.yml"), grafana("README.md"));
    assert_eq!(rules.len(), 15);
    for (name, (expression, summary)) in &rules {
        let metrics = check(expression);
        let labels = METRICS.iter().filter(|metric| metrics.contains(metric.name)).flat_map(|metric| metric.labels);
        let labels: BTreeSet<_> = labels.copied().chain(["instance"]).collect();
        for label in named_labels(summary, "$labels.") {
            assert!(labels.contains(label), "{label} in {name}");
        }
        assert!(
            tested.contains(&format!("{{ alertname: {name}, eval_time: 1h, exp_alerts: [] }}")),
            "{name} is silent where all is well"
        );
        assert!(tested.contains(&format!("- alertname: {name}\n")), "{name} is heard");
        assert!(explained.contains(&format!("| `{name}` |")), "{name} is explained");
    }
}

/// Prometheus' own tester of rules.
fn promtool(arguments: &[&str], file: &Path) {
    let output = Command::new("promtool").args(arguments).arg(file).output().expect("promtool, which tests/run.sh installs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    promtool(&["check", "rules"], &folder().join("alerts.yml"));
    promtool(&["test", "rules"], &folder().join("alerts.test.yml"));
}

#[test]
fn a_subscriber_that_is_stuck_fires_its_alert_and_one_that_reads_does_not() {
    system(async {
        let pubsub = PubSub::new();
        let (unread, _probe) = slow_and_well(&pubsub).await;
        let stalled = || pubsub.top_slow(1).first().is_some_and(|slow| slow.stalled_ms > 0);
        until("it is noticed", stalled).await;
        let stuck = Scrape::of(&pubsub, &MetricsOptions::new()).await;
        assert!(stuck.one("actix_pubsub_slowest_stalled_seconds") > 0.0);
        fires(
            &stuck,
            "[{ exp_labels: { severity: warning, instance: shop }, exp_annotations: { summary: \"A subscriber on shop has had events for 10m 0s and has taken none.\" } }]",
        );
        drop(unread);
        fires(&Scrape::of(&pubsub, &MetricsOptions::new()).await, "[]");
    });
}

/// Lets promtool evaluate the alert of a stuck subscriber over the series of a scrape, in which time goes on: ages of something grow.
fn fires(scrape: &Scrape, expected: &str) {
    let folder = Folder::new();
    let mut series = String::new();
    for ((name, labels), value) in &scrape.series {
        let mut labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        labels.push(String::from("instance=\"shop\""));
        let ages = METRICS.iter().any(|metric| metric.name == name && metric.labels.is_empty() && name.ends_with("_seconds"));
        // To the second, so that the text of the alert is known.
        let values = if ages && *value > 0.0 { String::from("0+15x40") } else { format!("{value}x40") };
        writeln!(series, "      - {{ series: '{name}{{{}}}', values: '{values}' }}", labels.join(", ")).unwrap();
    }
    let rules = self::folder().join("alerts.yml");
    let test = format!(
        "rule_files: [\"{}\"]\ntests:\n  - interval: 15s\n    input_series:\n{series}    alert_rule_test:\n      \
         - {{ alertname: ActixPubsubSubscriberStuck, eval_time: 10m, exp_alerts: {expected} }}\n",
        rules.display()
    );
    let file = folder.file();
    fs::write(&file, test).unwrap();
    promtool(&["test", "rules"], &file);
}
