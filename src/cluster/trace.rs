//! Trace: W3C trace context, from the span of a publisher to that of a delivery on another node. Knows no frames.

use tracing::Span;

/// The two headers of [W3C Trace Context](https://www.w3.org/TR/trace-context/).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) parent: String,
    pub(crate) state: String,
}

/// The trace of the span that the caller is in, if there is one that is recorded.
#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn current() -> Option<Trace> {
    None
}

/// Makes `span` a child of the span that these headers name.
#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn continue_in(_: &Span, _: &str, _: &str) {}

#[cfg(feature = "opentelemetry")]
pub(crate) use with_opentelemetry::continue_in;
#[cfg(feature = "opentelemetry")]
pub(crate) use with_opentelemetry::current;

#[cfg(feature = "opentelemetry")]
mod with_opentelemetry {
    use super::Span;
    use super::Trace;

    use opentelemetry::Context;
    use opentelemetry::trace::SpanContext;
    use opentelemetry::trace::SpanId;
    use opentelemetry::trace::TraceContextExt;
    use opentelemetry::trace::TraceFlags;
    use opentelemetry::trace::TraceId;
    use opentelemetry::trace::TraceState;
    use std::str::FromStr;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    /// The trace of the span that the caller is in, if there is one that is recorded.
    pub(crate) fn current() -> Option<Trace> {
        let span = Span::current();
        // Without a span, or with one that nobody records, there is nothing to ask.
        if span.is_disabled() {
            return None;
        }
        let context = span.context();
        let context = context.span().span_context().clone();
        context.is_valid().then(|| Trace {
            parent: format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()),
            state: Some(context.trace_state().header()).filter(|state| state.len() <= STATE_BYTES_MAX).unwrap_or_default(),
        })
    }

    /// Makes `span` a child of the span that these headers name.
    pub(crate) fn continue_in(span: &Span, parent: &str, state: &str) {
        if let Some(parent) = parse(parent, state) {
            // A span that nobody records has no parent either.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
    }

    /// `00-` trace id, span id and flags, in hexadecimal: [version 00](https://www.w3.org/TR/trace-context/#traceparent-header).
    fn parse(parent: &str, state: &str) -> Option<SpanContext> {
        let mut parts = parent.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let sizes = [version.len(), trace.len(), span.len(), flags.len()] == [2, 32, 16, 2];
        if !sizes || version == "ff" {
            return None;
        }
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            // What is no trace state is none.
            TraceState::from_str(state).unwrap_or_default(),
        );
        context.is_valid().then_some(context)
    }

    /// What is longer may be left out: [limits](https://www.w3.org/TR/trace-context/#tracestate-limits).
    const STATE_BYTES_MAX: usize = 512;
}
