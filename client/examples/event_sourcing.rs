//! Accounts whose state is what has happened to them: a balance is never written, it is
//! computed from all events, again and again with the same result. A snapshot says up to
//! where it was computed, so that only the rest has to be read.
//!
//!     ottla dev                      # in another terminal
//!     cargo run -p ottla-client --example event_sourcing

#![allow(clippy::print_stdout)] // what it is for

mod common;

use ottla_client::{
    Client, Consumer, Producer, ProducerOptions, ProducerRecord, StartPosition, TopicPartition,
};
use std::collections::BTreeMap;
use std::error::Error;

/// Balances, and the offset in each partition up to which they were computed.
#[derive(Clone, Debug, Default, PartialEq)]
struct Accounts {
    balances: BTreeMap<String, i64>,
    computed: BTreeMap<u32, u64>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = common::connect().await?;
    let topic = common::topic(&client, "account-events", 4).await?;
    let producer = Producer::new(&client, ProducerOptions::default());
    let events = producer.topic(&topic).await?;
    for n in 0..200_i64 {
        let amount = if n % 3 == 0 { -n } else { n };
        let account = format!("account {}", n % 7);
        events.send(ProducerRecord::keyed(account, amount.to_string())).await?;
    }
    producer.flush().await;

    let snapshot = replay(&client, &topic, Accounts::default()).await?;
    events.send(ProducerRecord::keyed("account 1", "1000")).await?.await?;
    let from_snapshot = replay(&client, &topic, snapshot).await?;
    let from_scratch = replay(&client, &topic, Accounts::default()).await?;
    assert_eq!(from_snapshot, from_scratch, "the events are the truth");
    for (account, balance) in &from_scratch.balances {
        println!("{account}: {balance}");
    }
    producer.shutdown().await;
    Ok(())
}

/// Everything that has happened since, up to now.
async fn replay(
    client: &Client,
    topic: &str,
    mut accounts: Accounts,
) -> Result<Accounts, Box<dyn Error>> {
    let mut builder = Consumer::builder(client);
    let mut ends = BTreeMap::new();
    for partition in 0..client.partitions(topic).await? {
        let end = client.offset_of(topic, partition, StartPosition::End).await?;
        let from = accounts.computed.get(&partition).copied().unwrap_or(0);
        if from < end {
            ends.insert(partition, end);
            let at = StartPosition::Offset(from);
            builder = builder.assign_at(TopicPartition::new(topic, partition), at);
        }
    }
    if ends.is_empty() {
        return Ok(accounts);
    }
    let consumer = builder.build().await?;
    while !ends.is_empty() {
        let Some(event) = consumer.next_record().await? else { break };
        let text = |bytes: &Option<bytes::Bytes>| {
            String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
        };
        let amount: i64 = text(&event.value).parse()?;
        *accounts.balances.entry(text(&event.key)).or_default() += amount;
        let (partition, next) = (event.partition.partition, event.offset + 1);
        accounts.computed.insert(partition, next);
        if ends.get(&partition).is_some_and(|end| next >= *end) {
            ends.remove(&partition);
        }
    }
    consumer.close().await?;
    Ok(accounts)
}
