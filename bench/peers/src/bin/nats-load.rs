//! A load on NATS JetStream: records published at once, each acknowledged by the stream's
//! replicas, so many of them not yet acknowledged at any time.
//!
//! Not its job: starting servers (`bench/run` does).

use anyhow::Context as _;
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use clap::Parser;
use ottla_bench_peers::{Ledger, Load, MAX_UNNOTED};
use std::future::IntoFuture as _;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    load: Load,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let load = Args::parse().load;
    let streams = create(&load).await?;
    let ledger = Arc::new(Ledger::new(&load)?);
    let mut producers = JoinSet::new();
    for index in 0..load.producers as usize {
        let context = jetstream::new(async_nats::connect(&load.servers[..]).await?);
        producers.spawn(publish(context, load.clone(), index, ledger.clone()));
    }
    while let Some(ended) = producers.join_next().await {
        ledger.sent(ended.context("a producer failed")??);
    }
    let mut stored = 0;
    for stream in streams {
        stored += stream.get_info().await?.state.messages;
    }
    println!("{}", ledger.report(&load, stored)?);
    Ok(())
}

async fn create(load: &Load) -> anyhow::Result<Vec<stream::Stream>> {
    let context = jetstream::new(async_nats::connect(&load.servers[..]).await?);
    let mut streams = Vec::new();
    for index in 0..load.streams {
        let config = stream::Config {
            name: format!("bench-{index}"),
            subjects: vec![format!("bench.{index}")],
            num_replicas: load.replicas.into(),
            storage: stream::StorageType::File,
            ..Default::default()
        };
        streams.push(context.create_stream(config).await?);
    }
    Ok(streams)
}

/// Returns how many records were sent.
async fn publish(
    context: jetstream::Context,
    load: Load,
    index: usize,
    ledger: Arc<Ledger>,
) -> anyhow::Result<u64> {
    let room = Arc::new(Semaphore::new(load.in_flight));
    let subjects: Vec<String> = (0..load.streams).map(|stream| format!("bench.{stream}")).collect();
    let value = Bytes::from(vec![b'x'; load.record_size]);
    // A collector for each stream: acknowledgements of one come in order.
    let (mut collectors, mut under_way) = (JoinSet::new(), Vec::new());
    for _ in &subjects {
        let (sender, mut sent) = mpsc::channel(MAX_UNNOTED);
        let (ledger, room) = (ledger.clone(), room.clone());
        collectors.spawn(async move {
            while let Some((at, ack)) = sent.recv().await {
                let ack: jetstream::context::PublishAckFuture = ack;
                let outcome = ack.into_future().await;
                room.add_permits(1);
                ledger.note(at, outcome.map(drop).map_err(|error| error.kind().to_string()));
            }
        });
        under_way.push(sender);
    }
    let mut number = 0;
    while Instant::now() < ledger.to {
        room.acquire().await?.forget();
        let at = Instant::now();
        let stream = (number as usize + index) % subjects.len();
        let ack = context.publish(subjects[stream].clone(), value.clone()).await?;
        number += 1;
        under_way[stream].send((at, ack)).await.ok().context("a collector has ended")?;
    }
    drop(under_way);
    while let Some(ended) = collectors.join_next().await {
        ended.context("a collector failed")?;
    }
    Ok(number)
}
