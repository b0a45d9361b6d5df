//! Callers who take more than they may, by mistake or on purpose: each is refused or waits,
//! and nobody else notices.

use crate::plain::{fetch, produce, record};
use crate::raw::{self, Raw};
use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ottla_chaos::process::{Cluster, wait_until};
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::v1::log_service_client::LogServiceClient;
use ottla_proto::{ApiError, HTTP2_FRAME_BYTES, MAX_GRPC_MESSAGE_BYTES, v1};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Request;

const MIB: usize = 1024 * 1024;

/// What others wait for at most while a node is under attack: of a busy machine with two
/// processors. A write takes milliseconds.
const IN_TIME: Duration = Duration::from_secs(30);

/// A figure of a node.
async fn figure(cluster: &Cluster, node: u64, name: &str) -> anyhow::Result<f64> {
    let text = cluster.nodes()[node as usize - 1].get("/metrics").await?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {name} in\n{text}"))?.parse()?)
}

/// The node lives, and takes a write and gives it back.
async fn is_well(cluster: &Cluster, node: u64) -> anyhow::Result<()> {
    let work = async {
        cluster.nodes()[node as usize - 1].get("/livez").await?;
        let leader = cluster.leader("good", 0).await?;
        let value = v1::Record { value: Some("value".into()), ..Default::default() };
        let produced = produce(cluster, leader, "good", record(value)).await?;
        let offset = produced.base_offset.context("acks=all has an offset")?;
        let read = fetch(cluster, leader, "good", offset).await?;
        anyhow::ensure!(!read.is_empty(), "what was written is read");
        anyhow::Ok(())
    };
    timeout(IN_TIME, work).await.context("not in time")?
}

/// Frames that are too long, and such as there are not: their connection ends, and nothing
/// else. Messages and headers that are too long end their call.
#[tokio::test]
async fn wrong_frames_end_their_connection_and_nothing_else() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("good", 1, &[]).await?;
    let address = cluster.nodes()[0].address();
    let frames: [(&str, Vec<u8>); 5] = [
        ("a frame that is too long", raw::header(HTTP2_FRAME_BYTES + 1, raw::DATA, 0, 1)),
        ("the longest there can be", raw::header((1 << 24) - 1, raw::HEADERS, 0, 1)),
        ("data that belong to nothing", raw::frame(raw::DATA, 0, 1, b"data")),
        ("headers that are none", raw::frame(raw::HEADERS, raw::END_HEADERS, 1, &[0xff; 64])),
        ("settings of a wrong length", raw::frame(raw::SETTINGS, 0, 0, b"odd")),
    ];
    for (what, bytes) in frames {
        let mut raw = Raw::connect(&address).await?;
        raw.send(&bytes).await?;
        timeout(IN_TIME, raw.until_closed()).await.with_context(|| format!("open: {what}"))?;
    }
    // What is no HTTP/2 at all.
    let mut raw = Raw::from(TcpStream::connect(&address).await?);
    raw.send(&[0xff; 4096]).await?;
    timeout(IN_TIME, raw.until_closed()).await.context("noise is listened to")?;
    is_well(&cluster, 1).await?;

    let channel = cluster.nodes()[0].channel()?;
    let mut client = LogServiceClient::new(channel).max_encoding_message_size(64 * MIB);
    let value = v1::Record { value: Some(vec![7; 20 * MIB].into()), ..Default::default() };
    let (topic, payload) = ("good".to_owned(), Some(record(value)));
    let long = v1::ProduceRequest { topic, payload, ..Default::default() };
    let error = client.produce(long).await.expect_err("too long");
    let limit = format!("{MAX_GRPC_MESSAGE_BYTES} bytes");
    assert!(error.message().contains(&limit), "{error:?}");
    let mut headers = Request::new(v1::FetchRequest::default());
    headers.metadata_mut().insert("long", "x".repeat(20 * 1024).parse()?);
    client.fetch(headers).await.expect_err("headers are too long");
    // On the same connection.
    let offsets = v1::ListOffsetsRequest {
        topic: "good".to_owned(),
        position: v1::OffsetPosition::Latest.into(),
        ..Default::default()
    };
    assert_eq!(client.list_offsets(offsets).await?.into_inner().offset, 1);
    is_well(&cluster, 1).await
}

/// A thousand connections, of which half have said what they are, and all are silent then.
/// Those that are too many are closed; other nodes and clients are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_are_too_many() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let cluster = Cluster::start_patient_with(3, "max_connections = 64\n").await?;
    cluster.create_topic("good", 1, &[]).await?;
    let attacked = cluster.leader("good", 0).await?;
    let term = figure(&cluster, attacked, "ottla_raft_term").await?;
    let address = cluster.nodes()[attacked as usize - 1].address();
    let mut idle = Vec::new();
    for number in 0..1000 {
        let stream = TcpStream::connect(&address).await?;
        // A handshake may be cut off already.
        let handshake = number % 2 == 0;
        idle.push(if handshake {
            Raw::shake_hands(stream).await.ok()
        } else {
            Some(stream.into())
        });
        if number % 250 == 249 {
            is_well(&cluster, attacked).await?;
        }
    }
    wait_until("those that are too many are closed", async || {
        let open = figure(&cluster, attacked, "ottla_connections").await?;
        anyhow::ensure!(open <= 64.0, "{open} are open");
        Ok(())
    })
    .await?;
    assert!(figure(&cluster, attacked, "ottla_connections_closed_total").await? > 900.0);
    cluster.wait_healthy().await?;
    is_well(&cluster, attacked).await?;
    assert_eq!(figure(&cluster, attacked, "ottla_raft_term").await?, term, "an election");
    drop(idle);
    Ok(())
}

/// Who asks for much and reads nothing gets what its connection may hold, and the node
/// holds no more than that for it, whatever it says that it can take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_read_are_bounded() -> anyhow::Result<()> {
    const CALLS: u32 = 500;
    // Four connections, 32 MiB each (`max_connection_bytes`), which are there twice while they
    // are encoded, in buffers that double as they grow. 500 fetches of 8 MiB and as many
    // streams of 3 MiB would be more than 5,000.
    const MOST: usize = 4 * 32 * 2 * 2 * MIB;
    let cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("good", 1, &[]).await?;
    cluster.create_topic("large", 1, &[]).await?;
    for _ in 0..16 {
        let value = v1::Record { value: Some(vec![7; MIB - 1024].into()), ..Default::default() };
        produce(&cluster, 1, "large", record(value)).await?;
    }
    let before = figure(&cluster, 1, "ottla_process_resident_bytes").await?;
    let address = cluster.nodes()[0].address();
    for format in [v1::PayloadFormat::Records, v1::PayloadFormat::RecordBatches] {
        let (topic, format) = ("large".to_owned(), format.into());
        let max_bytes = 8 * MIB as u32;
        let fetch = v1::FetchRequest { topic, max_bytes, format, ..Default::default() };
        let start = v1::ConsumeStart { topic: "large".to_owned(), format, ..Default::default() };
        let consume = v1::ConsumeRequest {
            start: Some(start),
            add_credit_records: u64::from(u32::MAX),
            add_credit_bytes: u64::from(u32::MAX),
        };
        let mut fetching = Raw::connect(&address).await?;
        let mut consuming = Raw::connect(&address).await?;
        for call in 0..CALLS {
            fetching.call(call, "/ottla.v1.LogService/Fetch", &fetch, true).await?;
            consuming.call(call, "/ottla.v1.LogService/Consume", &consume, false).await?;
        }
        // All of them have been taken in: the node answers pings in their order.
        for _ in 0..4 {
            is_well(&cluster, 1).await?;
        }
        let grown = figure(&cluster, 1, "ottla_process_resident_bytes").await? - before;
        println!("{} MiB more", grown / MIB as f64);
        assert!(grown < MOST as f64, "{} MiB more", grown / MIB as f64);
    }
    is_well(&cluster, 1).await
}

/// Thousands of requests for metadata whose answers nobody reads: those that are too many
/// for their connection are refused, writes are acknowledged in time, and no node takes
/// another for dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_metadata_requests_is_bounded() -> anyhow::Result<()> {
    let options = "max_requests_per_connection = 100\n";
    let cluster = Cluster::start_patient_with(3, options).await?;
    cluster.create_topic("good", 1, &[]).await?;
    cluster.create_topic("wide", 100, &[]).await?;
    let attacked = cluster.leader("good", 0).await?;
    let term = figure(&cluster, attacked, "ottla_raft_term").await?;
    let before = figure(&cluster, attacked, "ottla_process_resident_bytes").await?;
    let address = cluster.nodes()[attacked as usize - 1].address();
    let request = v1::GetMetadataRequest::default();
    let mut flood = Vec::new();
    for _ in 0..4 {
        let address = address.clone();
        let request = request.clone();
        flood.push(tokio::spawn(async move {
            let mut raw = Raw::connect(&address).await?;
            for call in 0..1000 {
                raw.call(call, "/ottla.v1.MetadataService/GetMetadata", &request, true).await?;
            }
            anyhow::Ok(raw)
        }));
    }
    for _ in 0..4 {
        is_well(&cluster, attacked).await?;
    }
    wait_until("some were too many", async || {
        let refused = figure(&cluster, attacked, "ottla_requests_refused_total").await?;
        anyhow::ensure!(refused > 0.0, "{refused}");
        Ok(())
    })
    .await?;
    let grown = figure(&cluster, attacked, "ottla_process_resident_bytes").await? - before;
    println!("{} MiB more", grown / MIB as f64);
    assert!(grown < 400.0 * MIB as f64, "{} MiB more", grown / MIB as f64);
    cluster.wait_healthy().await?;
    assert_eq!(figure(&cluster, attacked, "ottla_raft_term").await?, term, "an election");
    for sent in flood {
        // It may wait for the node to read on, for ever; or was told to go away.
        sent.abort();
    }
    Ok(())
}

/// One request more than a connection may have open is refused by name, until another
/// ends.
#[tokio::test]
async fn open_requests_are_counted() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient_with(1, "max_requests_per_connection = 16\n").await?;
    cluster.create_topic("good", 1, &[]).await?;
    let mut client = cluster.log_client(1)?;
    let fetch = |max_wait_ms| v1::FetchRequest {
        topic: "good".to_owned(),
        max_wait_ms,
        ..Default::default()
    };
    let mut streams = Vec::new();
    for _ in 0..16 {
        let (sender, requests) = futures::channel::mpsc::channel(1);
        streams.push((sender, client.consume(requests).await?));
    }
    let error = client.fetch(fetch(0)).await.expect_err("one more");
    let error = ApiError::from_status(&error);
    assert_eq!((error.reason, error.is_indefinite()), (R::Overloaded, false), "{error}");
    assert!(error.retry_after.is_some());
    // Another connection has its own.
    is_well(&cluster, 1).await?;
    streams.clear();
    wait_until("there is room for one more", async || {
        client.fetch(fetch(0)).await?;
        Ok(())
    })
    .await
}
