//! Orders that several groups read, each for its own purpose and in its own time: billing,
//! two members of which share the partitions, and shipping, which keeps the orders of one
//! customer in order and works on many customers at once.
//!
//!     ottla dev                      # in another terminal
//!     cargo run -p ottla-client --example order_processing

#![allow(clippy::print_stdout)] // what it is for

mod common;

use ottla_client::processing::Parallel;
use ottla_client::{Client, Consumer, Producer, ProducerOptions, ProducerRecord};
use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const ORDERS: u64 = 300;
const CUSTOMERS: u64 = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = common::connect().await?;
    let topic = common::topic(&client, "orders", 6).await?;
    let producer = Producer::new(&client, ProducerOptions::default());
    let orders = producer.topic(&topic).await?;
    for number in 0..ORDERS {
        let customer = format!("customer {}", number % CUSTOMERS);
        orders.send(ProducerRecord::keyed(customer, number.to_string())).await?;
    }
    producer.flush().await;

    let (billed, shipped) = tokio::join!(bill(&client, &topic), ship(&client, &topic));
    println!("billed {}, shipped {}", billed?, shipped?);
    producer.shutdown().await;
    Ok(())
}

/// Two members: each order is billed by one of them.
async fn bill(client: &Client, topic: &str) -> Result<u64, Box<dyn Error>> {
    let billed = AtomicU64::new(0);
    let member = || async {
        let group = format!("{topic}-billing");
        let consumer = Consumer::builder(client).group(group).subscribe([topic]).build().await?;
        while billed.load(Relaxed) < ORDERS {
            // The other member may have had the last one meanwhile.
            let next = tokio::time::timeout(common::LOOK_AGAIN, consumer.next_record()).await;
            if let Ok(order) = next
                && order?.is_some()
            {
                billed.fetch_add(1, Relaxed);
            }
        }
        // What was read is committed, and the partitions go to whoever is left.
        consumer.commit().await?;
        consumer.close().await
    };
    let (one, other) = tokio::join!(member(), member());
    one?;
    other?;
    Ok(billed.load(Relaxed))
}

/// Eight customers at once, the orders of each in their order.
async fn ship(client: &Client, topic: &str) -> Result<usize, Box<dyn Error>> {
    let group = format!("{topic}-shipping");
    let builder = Consumer::builder(client).group(group).subscribe([topic]);
    let consumer = builder.manual_commit().build().await?;
    let shipped: Arc<Mutex<HashMap<String, Vec<u64>>>> = Arc::default();
    let done = Arc::new(tokio::sync::Notify::new());
    let work = Parallel::new(&consumer, 8).run(|order| {
        let (shipped, done) = (Arc::clone(&shipped), Arc::clone(&done));
        async move {
            let text = |bytes: &Option<bytes::Bytes>| {
                String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
            };
            let number: u64 = text(&order.value).parse()?;
            let mut all = shipped.lock().expect("nobody panics");
            let before = all.entry(text(&order.key)).or_default();
            assert!(before.last().is_none_or(|last| *last <= number), "in order");
            before.push(number);
            if all.values().map(Vec::len).sum::<usize>() as u64 >= ORDERS {
                done.notify_one();
            }
            Ok::<(), std::num::ParseIntError>(())
        }
    });
    tokio::select! {
        ended = work => ended?,
        () = done.notified() => {}
    }
    consumer.close().await?;
    let shipped = shipped.lock().expect("nobody panics");
    Ok(shipped.values().map(Vec::len).sum())
}
