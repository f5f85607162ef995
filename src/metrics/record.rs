//! Record: gives samples to the recorder that is current, once or again and again. Knows no numbers.

use std::time::Duration;

use metrics::Key;
use metrics::KeyName;
use metrics::Label;
use metrics::Level;
use metrics::Metadata;
use metrics::Recorder;
use metrics::SharedString;
use tokio::time::MissedTickBehavior;

use crate::log::StoreError;
use crate::metrics::names::INSTANCE;
use crate::metrics::names::METRICS;
use crate::metrics::names::MetricKind;
use crate::metrics::options::MetricsOptions;
use crate::metrics::samples::Samples;
use crate::metrics::samples::Value;
use crate::observe;
use crate::pubsub::PubSub;

/// Tells the current recorder what each metric means, and its unit. Once for each recorder is enough.
pub fn describe() {
    metrics::with_recorder(|recorder| {
        for metric in METRICS {
            let name = KeyName::from_const_str(metric.name);
            let help = SharedString::const_str(metric.help);
            match metric.kind {
                MetricKind::Counter => recorder.describe_counter(name, Some(metric.unit), help),
                MetricKind::Gauge => recorder.describe_gauge(name, Some(metric.unit), help),
            }
        }
    });
}

impl PubSub {
    /// Gives what this node knows of itself to the current recorder of the `metrics` facade, that of [`metrics::with_local_recorder`] or the global one, as the
    /// metrics in [`METRICS`]. Counters are set to what they are, so any number of recorders may be given them, at any time.
    ///
    /// ```
    /// use actix_pubsub::PubSub;
    /// use actix_pubsub::metrics::{MetricsOptions, describe};
    ///
    /// # #[cfg(feature = "prometheus")] {
    /// # let pubsub = PubSub::new();
    /// let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    /// metrics::with_local_recorder(&recorder, || {
    ///     describe();
    ///     pubsub.record_metrics(&MetricsOptions::new());
    /// });
    /// assert!(recorder.handle().render().contains("\nactix_pubsub_subscribers 0\n"));
    /// # }
    /// ```
    ///
    /// # Cost
    /// That of [`summary`](Self::summary): nothing is counted for it anywhere else. On the calling thread.
    pub fn record_metrics(&self, options: &MetricsOptions) {
        Samples::of(self, options).record(options);
    }

    /// The same of what the log's store keeps, for all nodes that share it: entries, and the lag and what is pending of each consumer group. Nothing, where there is no log.
    ///
    /// # Cost
    /// See [`MetricsOptions::log_topics_max`].
    ///
    /// # Errors
    /// What the store says; then `actix_pubsub_log_store_up` is 0, and the others are left as they are.
    pub async fn record_log_metrics(&self, options: &MetricsOptions) -> Result<(), StoreError> {
        let (samples, asked) = Samples::of_log(self, options).await;
        samples.record(options);
        asked
    }

    /// Both, at once and then every `interval`, which is a tenth of a second at least: `actix::spawn` this. It ends when the pub/sub is shut down, or within an interval after its
    /// last handle was dropped. Does not keep it. The walk over the subscriptions is on a thread of tokio's pool, the recorder is that of the thread that polls this.
    pub fn record_metrics_every(&self, interval: Duration, options: MetricsOptions) -> impl Future<Output = ()> + Send + 'static {
        let weak = self.downgrade();
        async move {
            let mut ticks = tokio::time::interval(interval.max(INTERVAL_MIN));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            describe();
            loop {
                ticks.tick().await;
                let Some(pubsub) = weak.upgrade().filter(|pubsub| !pubsub.is_closed()) else { return };
                let log = Samples::of_log_in_time(&pubsub, &options).await;
                let (walked, given) = (pubsub, options.clone());
                let Ok(node) = tokio::task::spawn_blocking(move || Samples::of(&walked, &given)).await else {
                    // The runtime is about to end.
                    return;
                };
                node.record(&options);
                log.record(&options);
            }
        }
    }
}

impl Samples {
    /// To the current recorder.
    pub(crate) fn record(&self, options: &MetricsOptions) {
        metrics::with_recorder(|recorder| self.record_to(recorder, options));
    }

    fn record_to(&self, recorder: &dyn Recorder, options: &MetricsOptions) {
        let metadata = Metadata::new(observe::TARGET, Level::INFO, Some(module_path!()));
        for (sample, values) in self.iter() {
            let own = sample.metric.labels.iter().zip(values).map(|(&name, value)| Label::new(name, value.clone()));
            let instance = options.instance.iter().map(|name| Label::new(INSTANCE, name.to_string()));
            let key = Key::from_parts(sample.metric.name, own.chain(instance).collect::<Vec<_>>());
            match sample.value {
                Value::Total(total) => recorder.register_counter(&key, &metadata).absolute(total),
                Value::Level(level) => recorder.register_gauge(&key, &metadata).set(level),
            }
        }
    }
}

/// A shorter interval would do little else.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
