//! Trace: one OpenTelemetry trace spans a publisher and the deliveries on other nodes.

use std::time::Duration;

use actix::prelude::*;
use actix_pubsub::cluster::Memory;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::InMemorySpanExporter;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::SpanData;
use tracing_subscriber::layer::SubscriberExt;

use crate::cluster::listen;
use crate::cluster::nodes;
use crate::cluster::take;
use crate::support::Note;
use crate::support::until;

fn named(spans: &InMemorySpanExporter, name: &str) -> Vec<SpanData> {
    spans.get_finished_spans().unwrap().into_iter().filter(|span| span.name == name).collect()
}

fn children(spans: &InMemorySpanExporter, name: &str, of: &SpanData) -> Vec<SpanData> {
    named(spans, name).into_iter().filter(|span| span.parent_span_id == of.span_context.span_id()).collect()
}

#[test]
fn a_delivery_on_another_node_is_a_child_of_the_broadcast_and_that_of_the_publishers_span() {
    let spans = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    // The relays run on threads of their own, so it is that of the whole process; no other test asks for spans.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    System::new().block_on(async {
        let nodes = nodes(&Memory::new(), 3).await;
        let (mut one, mut two) = (listen(&nodes[1], "t").await, listen(&nodes[2], "t").await);
        nodes[0].broadcast("t", Note(1)).unwrap();
        tracing::info_span!("publish").in_scope(|| nodes[0].broadcast("t", Note(2)).unwrap());
        assert_eq!((take(&mut one, 2).await, take(&mut two, 2).await), (vec![1, 2], vec![1, 2]));
        until("the arrivals are recorded", || named(&spans, "pubsub.receive").len() == 4).await;
        let publish = &named(&spans, "publish")[0];
        let broadcasts = named(&spans, "pubsub.broadcast");
        let (within, alone): (Vec<_>, Vec<_>) =
            broadcasts.iter().partition(|broadcast| broadcast.parent_span_id == publish.span_context.span_id());
        assert_eq!((within.len(), alone.len()), (1, 1));
        assert_eq!(within[0].span_context.trace_id(), publish.span_context.trace_id());
        for broadcast in &broadcasts {
            let receive: Vec<_> = children(&spans, "pubsub.receive", broadcast);
            let traces: Vec<_> =
                receive.iter().map(|receive| (receive.span_context.trace_id(), receive.parent_span_is_remote)).collect();
            assert_eq!(traces, [(broadcast.span_context.trace_id(), true); 2]);
            for receive in &receive {
                assert_eq!(children(&spans, "pubsub.deliver", receive).len(), 1, "one arbiter there");
            }
        }
        actix::clock::timeout(Duration::from_secs(20), nodes[0].shutdown()).await.unwrap();
    });
}
