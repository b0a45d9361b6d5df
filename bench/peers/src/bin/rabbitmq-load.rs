//! A load on RabbitMQ: records published to quorum queues or streams over AMQP 0.9.1 with
//! publisher confirms, so many of them not yet confirmed at any time.
//!
//! Not its job: starting servers (`bench/run` does).

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use ottla_bench_peers::{Ledger, Load, MAX_UNNOTED};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

#[derive(Parser)]
struct Args {
    /// What is published to.
    #[arg(long, value_enum, default_value_t = Kind::Quorum)]
    kind: Kind,

    #[command(flatten)]
    load: Load,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Quorum,
    Stream,
}

/// A persistent message.
const PERSISTENT: u8 = 2;

/// How long counts of messages may take to be there: RabbitMQ gathers them every now and
/// then.
const COUNTS_WITHIN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { kind, load } = Args::parse();
    let channel = connect(&load.servers[0]).await?;
    let queues: Vec<String> = (0..load.streams).map(|index| format!("bench-{index}")).collect();
    for queue in &queues {
        declare(&channel, queue, kind, &load).await?;
    }
    let ledger = Arc::new(Ledger::new(&load)?);
    let mut producers = JoinSet::new();
    for index in 0..load.producers as usize {
        // Each by another server.
        let channel = connect(&load.servers[index % load.servers.len()]).await?;
        producers.spawn(publish(channel, load.clone(), queues.clone(), index, ledger.clone()));
    }
    let mut acknowledged = 0;
    while let Some(ended) = producers.join_next().await {
        let (sent, confirmed) = ended.context("a producer failed")??;
        ledger.sent(sent);
        acknowledged += confirmed;
    }
    let stored = match kind {
        Kind::Quorum => stored(&channel, &queues, acknowledged).await?,
        // A stream has no count that a queue's client is told.
        Kind::Stream => acknowledged,
    };
    println!("{}", ledger.report(&load, stored)?);
    Ok(())
}

async fn connect(server: &str) -> anyhow::Result<Channel> {
    let address = format!("amqp://{server}/%2f");
    let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

async fn declare(channel: &Channel, queue: &str, kind: Kind, load: &Load) -> anyhow::Result<u32> {
    let mut arguments = FieldTable::default();
    let (name, size) = match kind {
        Kind::Quorum => ("quorum", "x-quorum-initial-group-size"),
        Kind::Stream => ("stream", "x-initial-cluster-size"),
    };
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(name.into()));
    arguments.insert(size.into(), AMQPValue::LongInt(load.replicas.into()));
    let balanced = AMQPValue::LongString("balanced".into());
    arguments.insert("x-queue-leader-locator".into(), balanced);
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.into(), options, arguments).await?.message_count())
}

/// How many records the queues have, when they have said that they have so many.
async fn stored(channel: &Channel, queues: &[String], wanted: u64) -> anyhow::Result<u64> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let deadline = Instant::now() + COUNTS_WITHIN;
    loop {
        let mut stored = 0;
        for queue in queues {
            let queue = queue.as_str().into();
            let found = channel.queue_declare(queue, passive, FieldTable::default()).await?;
            stored += u64::from(found.message_count());
        }
        if stored >= wanted {
            return Ok(stored);
        }
        ensure!(Instant::now() < deadline, "{wanted} records were confirmed, {stored} are there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns how many records were sent, and how many confirmed.
async fn publish(
    channel: Channel,
    load: Load,
    queues: Vec<String>,
    index: usize,
    ledger: Arc<Ledger>,
) -> anyhow::Result<(u64, u64)> {
    let room = Arc::new(Semaphore::new(load.in_flight));
    let value = vec![b'x'; load.record_size];
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let (sender, under_way) = mpsc::channel(MAX_UNNOTED);
    let (noted, freed) = (ledger.clone(), room.clone());
    let collector = tokio::spawn(collect(under_way, freed, noted));
    let mut number = 0;
    while Instant::now() < ledger.to {
        room.acquire().await?.forget();
        let at = Instant::now();
        let queue = queues[(number as usize + index) % queues.len()].as_str();
        let options = BasicPublishOptions::default();
        let published =
            channel.basic_publish("".into(), queue.into(), options, &value, properties.clone());
        let confirm = published.await?;
        number += 1;
        sender.send((at, confirm)).await.ok().context("the collector has ended")?;
    }
    drop(sender);
    Ok((number, collector.await.context("the collector failed")?))
}

/// Notes how the records under way end; returns how many were confirmed. Confirms come in
/// order of delivery tags: one that waits for the first sees all soon.
async fn collect(
    mut under_way: mpsc::Receiver<(Instant, impl Future<Output = lapin::Result<Confirmation>>)>,
    freed: Arc<Semaphore>,
    noted: Arc<Ledger>,
) -> u64 {
    let mut confirmed = 0;
    while let Some((at, confirm)) = under_way.recv().await {
        let outcome = match confirm.await {
            Ok(confirmation) if confirmation.is_ack() => Ok(()),
            Ok(_) => Err("refused".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        confirmed += u64::from(outcome.is_ok());
        freed.add_permits(1);
        noted.note(at, outcome);
    }
    confirmed
}
