//! The way to a collector.

use crate::Tracer;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};
use std::time::Duration;

/// Spans that wait for the collector at most; those that come then are dropped. Some MiB,
/// and what a collector that is back within seconds has missed of a hundred traces a second.
pub const MAX_QUEUED_SPANS: usize = 8192;

/// Longest wait for the collector to take what it is sent, and at the end for what is left.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a span waits for others to be sent with.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Where spans cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Not an address.
    #[error("{endpoint:?} is no address of an OTLP collector, such as http://localhost:4317")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// The library refuses.
    #[error("spans cannot be sent to {endpoint}: {source}")]
    Build {
        /// Where.
        endpoint: String,
        /// Why.
        source: ExporterBuildError,
    },
}

/// Sends spans to a collector, from a thread of its own. A collector that is away costs
/// spans, and nobody anything else.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Spans of `service`, and of this `instance` of it, go to the collector at `endpoint`,
    /// `http://HOST:PORT`. Of the traces that begin here the share `sampled`, 0 to 1, is
    /// traced; of those that others begin, what they say. Must be called within a tokio
    /// runtime, which must live as long as this.
    ///
    /// # Errors
    /// The address is none. Whether somebody listens there is not tried.
    pub fn to(
        endpoint: &str,
        service: &'static str,
        instance: String,
        sampled: f64,
    ) -> Result<Self, ExportError> {
        let endpoint = endpoint.to_owned();
        if !endpoint.starts_with("http://") || endpoint.len() == "http://".len() {
            return Err(ExportError::Endpoint { endpoint });
        }
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|source| ExportError::Build { endpoint, source })?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUED_SPANS)
            .with_scheduled_delay(EXPORT_INTERVAL)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.instance.id", instance))
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sampled)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// Begins the spans that it sends.
    #[must_use]
    pub fn tracer(&self) -> Tracer {
        Tracer(Some(self.0.tracer("ottla")))
    }

    /// Sends what is left, for ten seconds at most. Blocks the thread meanwhile.
    ///
    /// # Errors
    /// What kept the collector from taking all: for a log line.
    pub fn shutdown(self) -> Result<(), String> {
        // Only a flush says what the collector did not take.
        let flushed = self.0.force_flush();
        let ended = self.0.shutdown_with_timeout(EXPORT_TIMEOUT);
        flushed.and(ended).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_told() {
        for bad in ["", "http://", "collector:4317", "https://collector:4317"] {
            let error = Exporter::to(bad, "ottla", "1".to_owned(), 1.0).expect_err(bad);
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
