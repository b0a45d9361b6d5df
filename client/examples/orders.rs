//! Writes orders with their customer as the key, so that those of one customer stay in
//! order, and handles what can go wrong.
//!
//!     ottla dev                      # in another terminal
//!     ottla topic create orders --partitions 3 --replication-factor 3
//!     cargo run -p ottla-client --example orders

#![allow(clippy::print_stdout)] // what it is for

use ottla_client::{
    Client, ClientError, ClientOptions, HostPort, Producer, ProducerOptions, ProducerRecord,
};
use std::error::Error;

const CUSTOMERS: [&str; 3] = ["alice", "bob", "carol"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bootstrap = std::env::var("OTTLA_BOOTSTRAP").unwrap_or("127.0.0.1:7401".to_owned());
    let client =
        Client::connect(&HostPort::parse_list(&bootstrap)?, ClientOptions::default()).await?;

    // acks=all, written once, sent again for 30 seconds when a node is gone.
    let producer = Producer::new(&client, ProducerOptions::default());
    let topic = producer.topic("orders").await?;

    let mut deliveries = Vec::new();
    for number in 0..30 {
        let customer = CUSTOMERS[number % CUSTOMERS.len()];
        // Waits while the producer's buffer is full.
        let record = ProducerRecord::keyed(customer, format!("order {number}"));
        deliveries.push((number, topic.send(record).await?));
    }

    // Nothing lingers any more, and the fate of each is known.
    producer.flush().await;
    for (number, delivery) in deliveries {
        match delivery.await {
            Ok(delivered) => {
                let offset = delivered.offset.unwrap_or_default();
                println!("order {number}: partition {}, offset {offset}", delivered.partition);
            }
            Err(error) => println!("order {number}: {}", advice(&error)),
        }
    }
    producer.shutdown().await;
    Ok(())
}

/// Errors are told apart by what can be done about them.
fn advice(error: &ClientError) -> String {
    if error.is_indefinite() {
        format!("may have been written; look before you send it again: {error}")
    } else if error.is_retriable() {
        format!("was not written; a later attempt may succeed: {error}")
    } else {
        format!("was not written, {}: {error}", error.reason_name())
    }
}
