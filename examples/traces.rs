//! One trace over two nodes, printed as a tree: `cargo run --example traces --features opentelemetry`
//!
//! The nodes are in one process and meet in memory; over Redis, NATS or zenoh it is the same. An exporter to a collector stands where the printer stands here.

use std::collections::HashMap;
use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::Event;
use actix_pubsub::Payload;
use actix_pubsub::PubSub;
use actix_pubsub::cluster::Memory;
use opentelemetry::trace::SpanId;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::InMemorySpanExporter;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::SpanData;
use serde::Deserialize;
use serde::Serialize;
use tracing_subscriber::layer::SubscriberExt;

#[derive(Serialize, Deserialize)]
struct Order {
    number: u32,
}

impl Payload for Order {
    const NAME: &'static str = "shop.order";
}

/// An actor that takes orders on its node.
struct Kitchen {
    pubsub: PubSub,
}

impl Actor for Kitchen {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.pubsub.subscribe::<Order, _>(ctx, "orders").expect("a valid topic, on an arbiter");
    }
}

impl Handler<Event<Order>> for Kitchen {
    type Result = ();

    fn handle(&mut self, order: Event<Order>, _: &mut Self::Context) {
        // Whatever a handler records is within its span.
        let _cooking = tracing::info_span!("cook", order = order.number).entered();
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spans = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;

    let engine = Memory::new();
    let node = || PubSub::builder().cluster(engine.clone()).message::<Order>().build();
    let (here, there) = (node()?, node()?);
    for pubsub in [&here, &there] {
        Kitchen { pubsub: pubsub.clone() }.start();
    }
    // A program need not wait for this; the example wants both kitchens in its picture.
    while here.subscribers_cluster_wide("orders").await?.total() < 2 {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }

    tracing::info_span!("POST /orders")
        .in_scope(|| here.broadcast("orders", Order { number: 1 }).map_err(|error| error.to_string()))?;

    // A span is exported when it has ended: the last to end is that of the request's broadcast or of the delivery elsewhere.
    while spans.get_finished_spans()?.len() < 9 {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }
    let spans = spans.get_finished_spans()?;
    println!("trace {}", spans[0].span_context.trace_id());
    print(&spans, SpanId::INVALID, 0);
    Ok(())
}

/// The children of a span, each with its own.
fn print(spans: &[SpanData], parent: SpanId, depth: usize) {
    let mut children: Vec<_> = spans.iter().filter(|span| span.parent_span_id == parent).collect();
    children.sort_by_key(|span| span.start_time);
    for span in children {
        let attributes: HashMap<_, _> =
            span.attributes.iter().map(|field| (field.key.as_str(), field.value.to_string())).collect();
        let told: Vec<_> = ["topic", "actor", "origin", "subscribers", "order"]
            .iter()
            .filter_map(|key| Some(format!("{key}={}", attributes.get(key)?)))
            .collect();
        let elsewhere = if span.parent_span_is_remote { "on the other node: " } else { "" };
        println!("{:indent$}{elsewhere}{} {}", "", span.name, told.join(" "), indent = 2 * depth + 2);
        print(spans, span.span_context.span_id(), depth + 1);
    }
}
