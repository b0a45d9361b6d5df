//! Traces of single requests (OpenTelemetry): spans in clients, leaders and followers that
//! belong to one write, and their way to a collector, over OTLP and gRPC.
//!
//! Who sends a request decides whether it is traced, and says so with it, as a W3C
//! `traceparent`. What comes without one costs nothing beyond the look.
//!
//! Not its job: log lines (`tracing`), figures (`/metrics`), and where in the messages a
//! `traceparent` stands (`proto`).

mod exporter;
mod traceparent;

pub use exporter::{ExportError, Exporter, MAX_QUEUED_SPANS};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};
use std::borrow::Cow;

/// On which side of a message something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It sends records for somebody else to keep.
    Producer,
    /// It answers a call.
    Server,
    /// It takes what another node sends on.
    Consumer,
}

/// Begins spans. Cheap to clone; the default begins none.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<SdkTracer>);

impl Tracer {
    /// A span that begins a trace of its own, if this one is to be traced.
    #[must_use]
    pub fn root(&self, name: impl Into<Cow<'static, str>>, side: Side) -> Span {
        self.span(name, side, &Context::new())
    }

    /// A span below the one that another process told of. None if that is not traced, or
    /// not a `traceparent`: whoever sends nonsense is not traced, and served all the same.
    #[must_use]
    pub fn below(&self, traceparent: &str, name: impl Into<Cow<'static, str>>, side: Side) -> Span {
        match traceparent::parse(traceparent) {
            Some(parent) if self.0.is_some() && parent.is_sampled() => {
                self.span(name, side, &Context::new().with_remote_span_context(parent))
            }
            _ => Span::default(),
        }
    }

    fn span(&self, name: impl Into<Cow<'static, str>>, side: Side, parent: &Context) -> Span {
        let Some(tracer) = &self.0 else { return Span::default() };
        let kind = match side {
            Side::Producer => SpanKind::Producer,
            Side::Server => SpanKind::Server,
            Side::Consumer => SpanKind::Consumer,
        };
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        let span = tracer.build_with_context(builder, parent);
        Span(span.is_recording().then(|| Box::new(span)))
    }
}

/// Something that takes its time. It ends when it is dropped. The default is none: it costs
/// nothing, and whatever is done with it has no effect.
#[derive(Debug, Default)]
pub struct Span(Option<Box<SdkSpan>>);

impl Span {
    /// How other processes are told of it; empty if it is none.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.0.as_ref().map(|span| traceparent::write(span.span_context())).unwrap_or_default()
    }

    /// Whether it is one.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Says something of it. Names are those of OpenTelemetry's semantic conventions where
    /// they have one.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// It has failed.
    pub fn fail(&mut self, why: &impl ToString) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(why.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TracerProvider as _};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};

    fn memory() -> (Tracer, InMemorySpanExporter) {
        let spans = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
        (Tracer(Some(provider.tracer("ottla"))), spans)
    }

    #[test]
    fn a_span_is_below_the_one_that_another_process_told_of() {
        let (tracer, spans) = memory();
        let root = tracer.root("send", Side::Producer);
        let mut below = tracer.below(&root.traceparent(), "produce", Side::Server);
        below.set("messaging.system", "ottla");
        drop((below, root));
        let spans = spans.get_finished_spans().expect("spans");
        let by_name = |name| spans.iter().find(|span| span.name == name).expect(name);
        let (root, below) = (by_name("send"), by_name("produce"));
        assert_eq!(below.parent_span_id, root.span_context.span_id());
        assert_eq!(below.span_context.trace_id(), root.span_context.trace_id());
        assert_eq!((&root.span_kind, root.parent_span_id), (&SpanKind::Producer, SpanId::INVALID));
    }

    #[test]
    fn nothing_is_traced_that_nobody_wants_traced() {
        let (tracer, spans) = memory();
        let of = |traceparent| tracer.below(traceparent, "produce", Side::Server);
        assert!(!of("").is_recorded());
        assert!(!of("nonsense").is_recorded());
        assert!(!of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").is_recorded());
        assert!(of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_recorded());
        assert_eq!(spans.get_finished_spans().expect("spans").len(), 1);

        let off = Tracer::default();
        assert_eq!(off.root("send", Side::Producer).traceparent(), "");
        let sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(!off.below(sampled, "produce", Side::Server).is_recorded());
    }
}
