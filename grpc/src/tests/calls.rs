//! Generated clients and services over TCP, with and without the layers on either side.

use super::{LIMIT, append, payload, payload_of};
use crate::{Answers, Client, Messages, ServerLayer, answer, ask};
use futures::StreamExt as _;
use ottla_proto::internal::v1::replicate_request::Message as Asked;
use ottla_proto::internal::v1::replication_service_client::ReplicationServiceClient;
use ottla_proto::internal::v1::replication_service_server::{
    ReplicationService, ReplicationServiceServer,
};
use ottla_proto::internal::v1::{
    Hello, HoldWritesRequest, HoldWritesResponse, PartitionKey, ReplicateRequest, ReplicateResponse,
};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// Payloads of the requests, and of the answers, in bytes. Then comes what the requests'
/// were together.
const LENS: [usize; 5] = [10, 500_000, 0, 4_096, 70_000];

struct Service;

#[tonic::async_trait]
impl ReplicationService for Service {
    type ReplicateStream = Answers<ReplicateResponse>;

    async fn replicate(
        &self,
        request: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        if request.metadata().contains_key("refuse") {
            return Err(Status::permission_denied("not you"));
        }
        let requests = Messages::of_request(request, LIMIT);
        let appends = futures::stream::iter(LENS.map(|len| Ok(append(payload(len)))));
        let end = async move {
            let lens = requests.map(|request| match request.map(|request| request.message) {
                Ok(Some(Asked::Hello(hello))) => hello.cluster_id.len(),
                other => panic!("expected a Hello, found {other:?}"),
            });
            let sum = lens.fold(0, |sum, len| std::future::ready(sum + len)).await;
            Err(Status::aborted(format!("{sum} bytes")))
        };
        Ok(answer(appends.chain(futures::stream::once(end)), LIMIT))
    }

    async fn hold_writes(
        &self,
        request: Request<HoldWritesRequest>,
    ) -> Result<Response<HoldWritesResponse>, Status> {
        let topic_id = request.into_inner().cluster_id.into_bytes().into();
        let finished = vec![PartitionKey { topic_id, partition: 1 }];
        Ok(Response::new(HoldWritesResponse { finished }))
    }
}

async fn serve(layer: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let incoming = TcpListenerStream::new(listener);
    let service = ReplicationServiceServer::new(Service);
    if layer {
        let server = Server::builder().layer(ServerLayer).add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
    } else {
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    }
    address
}

async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("connects")
}

/// What every call of these says, whoever encodes and decodes it.
async fn converse<C>(mut client: ReplicationServiceClient<C>)
where
    C: tonic::client::GrpcService<Body>,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError> + Send,
    C::Error: std::fmt::Debug,
{
    let requests = LENS.map(|len| ReplicateRequest {
        message: Some(Asked::Hello(Hello { cluster_id: "c".repeat(len), ..Hello::default() })),
    });
    let asked = ask(tokio_stream::iter(requests), LIMIT);
    let response = client.replicate(asked).await.expect("answered");
    let mut messages = Messages::of_response(response, LIMIT);
    for len in LENS {
        let message = messages.message().await.expect("no error").expect("a message");
        assert_eq!(payload_of(&message), &payload(len));
    }
    let end = messages.message().await.expect_err("it ends with an error");
    assert_eq!((end.code(), end.message()), (Code::Aborted, "574106 bytes"));
    assert!(messages.message().await.expect("the end").is_none());

    let asked = HoldWritesRequest { cluster_id: "eu".to_owned(), ..HoldWritesRequest::default() };
    let response = client.hold_writes(asked).await.expect("answered").into_inner();
    assert_eq!(response.finished[0].topic_id, "eu".as_bytes());

    let mut refused = Request::new(tokio_stream::iter(vec![ReplicateRequest::default()]));
    refused.metadata_mut().insert("refuse", "yes".parse().expect("ASCII"));
    let error = client.replicate(refused).await.map(drop).expect_err("refused");
    assert_eq!((error.code(), error.message()), (Code::PermissionDenied, "not you"));
}

#[tokio::test]
async fn calls_are_the_same_with_and_without_layers() {
    for server in [false, true] {
        let address = serve(server).await;
        converse(ReplicationServiceClient::new(channel(address).await)).await;
        converse(ReplicationServiceClient::new(Client::new(channel(address).await))).await;
    }
}
