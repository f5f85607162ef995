//! Prometheus: the metrics as text, for whoever scrapes. Knows no connection and no metric.

use actix_web::HttpResponse;
use actix_web::Route;
use actix_web::http::StatusCode;
use actix_web::http::header;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::metrics::describe;
use crate::metrics::options::MetricsOptions;
use crate::metrics::samples::Samples;
use crate::pubsub::PubSub;
use crate::web::refusal::Refusal;

/// A route that answers with the metrics of a pub/sub as Prometheus reads them, in its [text format](https://prometheus.io/docs/instrumenting/exposition_formats/) 0.0.4.
///
/// It has a recorder of its own for each answer, so none needs to be installed; that of the process, if there is one, is not touched. The walk over the subscriptions
/// is on a thread of actix-web's pool, not on the arbiter. Anyone who can ask is answered: put it where strangers cannot.
///
/// ```
/// use actix_pubsub::PubSub;
/// use actix_pubsub::metrics::MetricsOptions;
/// use actix_pubsub::web::metrics;
/// use actix_web::{App, test};
///
/// # actix_web::rt::System::new().block_on(async {
/// let (pubsub, options) = (PubSub::new(), MetricsOptions::new().topics("orders.*")?);
/// let app = test::init_service(App::new().route("/metrics", metrics(&pubsub, &options))).await;
///
/// let answer = test::call_and_read_body(&app, test::TestRequest::get().uri("/metrics").to_request()).await;
/// assert!(std::str::from_utf8(&answer)?.contains("# TYPE actix_pubsub_delivered_total counter"));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub fn metrics(pubsub: &PubSub, options: &MetricsOptions) -> Route {
    let (pubsub, options) = (pubsub.clone(), options.clone());
    actix_web::web::get().to(move || {
        let (pubsub, options) = (pubsub.clone(), options.clone());
        async move { metrics_response(&pubsub, &options).await }
    })
}

/// What the route of [`metrics()`] answers, for a handler of your own. Asks the log's store for five seconds at most.
///
/// # Errors
/// 503: the thread pool is gone, because the program ends.
pub async fn metrics_response(pubsub: &PubSub, options: &MetricsOptions) -> Result<HttpResponse, Refusal> {
    let log = Samples::of_log_in_time(pubsub, options).await;
    let (pubsub, options) = (pubsub.clone(), options.clone());
    let text = actix_web::web::block(move || text(&[Samples::of(&pubsub, &options), log], &options)).await;
    let Ok(text) = text else {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "closed", "the server is about to end"));
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, TEXT))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(text))
}

fn text(samples: &[Samples], options: &MetricsOptions) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    ::metrics::with_local_recorder(&recorder, || {
        describe();
        for samples in samples {
            samples.record(options);
        }
    });
    recorder.handle().render()
}

/// [Exposition formats](https://prometheus.io/docs/instrumenting/exposition_formats/): the version is part of the type.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
