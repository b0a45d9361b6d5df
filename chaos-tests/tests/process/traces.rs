//! One write is seen from the client that sends it, through the leader, to its followers, by
//! a collector that speaks OTLP.

use crate::plain::ottla;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use ottla_chaos::process::{Cluster, wait_until};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span as it came.
#[derive(Clone, Debug)]
struct Seen {
    service: String,
    instance: String,
    name: String,
    trace: Vec<u8>,
    span: Vec<u8>,
    parent: Vec<u8>,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    async fn start(&self) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let service = TraceServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.0.lock().clone()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of in request.into_inner().resource_spans {
            let resource = of.resource.unwrap_or_default();
            let (service, instance) =
                (text(&resource, "service.name"), text(&resource, "service.instance.id"));
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().extend(spans.map(|span| Seen {
                service: service.clone(),
                instance: instance.clone(),
                name: span.name,
                trace: span.trace_id,
                span: span.span_id,
                parent: span.parent_span_id,
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(resource: &Resource, name: &str) -> String {
    let found = resource.attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_seen_from_client_to_followers() -> anyhow::Result<()> {
    let collector = Collector::default();
    let url = format!("http://{}", collector.start().await?);
    let cluster = Cluster::start_patient_with(3, &format!("otlp_endpoint = {url:?}\n")).await?;
    cluster.create_topic("seen", 1, &[]).await?;
    // Nobody asks for traces of this one.
    assert!(ottla(&cluster, &["produce", "seen"], b"untraced\n")?.status.success());
    let produced = ottla(&cluster, &["produce", "seen", "--otlp-endpoint", &url], b"traced\n")?;
    assert!(produced.status.success(), "{produced:?}");

    let leader = cluster.leader("seen", 0).await?.to_string();
    wait_until("leader and followers have told their spans", async || {
        let seen = collector.seen();
        anyhow::ensure!(seen.len() >= 4, "{seen:?}");
        Ok(())
    })
    .await?;
    let seen = collector.seen();
    assert_eq!(seen.len(), 4, "{seen:?}");
    let root = seen.iter().find(|span| span.name == "send").expect("the client's");
    assert!(seen.iter().all(|span| span.trace == root.trace), "{seen:?}");
    assert_eq!((root.service.as_str(), root.parent.len()), ("ottla-produce", 0));
    let produce = seen.iter().find(|span| span.name == "produce").expect("the leader's");
    assert_eq!((&produce.parent, &produce.instance), (&root.span, &leader));
    let followers = seen.iter().filter(|span| span.name == "replicate");
    let told: BTreeSet<&str> = followers
        .map(|span| {
            assert_eq!((&span.parent, span.service.as_str()), (&produce.span, "ottla-node"));
            span.instance.as_str()
        })
        .collect();
    let others: BTreeSet<&str> = ["1", "2", "3"].into_iter().filter(|id| *id != leader).collect();
    assert_eq!(told, others);
    Ok(())
}

/// A collector that is away costs spans, and nobody anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_may_be_away() -> anyhow::Result<()> {
    // A port that was free a moment ago, and that nobody listens at.
    let nobody = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let url = format!("http://{nobody}");
    let mut cluster = Cluster::start_patient_with(1, &format!("otlp_endpoint = {url:?}\n")).await?;
    cluster.create_topic("unseen", 1, &[]).await?;
    let produced = ottla(&cluster, &["produce", "unseen", "--otlp-endpoint", &url], b"a\n")?;
    let told = String::from_utf8_lossy(&produced.stderr);
    assert!(produced.status.success(), "{told}");
    assert!(told.contains("not every span was taken"), "{told}");
    let status = cluster.node(1).end().await?;
    assert!(status.success(), "{status}");
    Ok(())
}
