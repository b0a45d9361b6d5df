//! Notifications that cannot always be sent: tried again at once, then from a retry topic
//! after a while, then laid down as dead letters with the cause. Once the cause is gone the
//! dead letters are replayed. A status service answers requests meanwhile.
//!
//!     ottla dev                      # in another terminal
//!     cargo run -p ottla-client --example notifications

#![allow(clippy::print_stdout)] // what it is for

mod common;

use ottla_client::processing::{Processor, Requester, RetryPolicy, replay_dead_letters, respond};
use ottla_client::{Client, Consumer, Producer, ProducerOptions, ProducerRecord};
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const NOTIFICATIONS: usize = 30;

/// Sends to whoever has a mailbox; that of number 7 is full for a while.
#[derive(Default)]
struct Mailer {
    sent: Mutex<BTreeSet<String>>,
    has_room: AtomicBool,
    seen: Mutex<BTreeSet<String>>,
}

impl Mailer {
    async fn send(&self, to: String) -> Result<(), String> {
        if to == "7" && !self.has_room.load(Relaxed) {
            return Err("the mailbox is full".to_owned());
        }
        // Every third fails at first.
        let is_first = self.seen.lock().expect("nobody panics").insert(to.clone());
        if is_first && to.ends_with(['0', '3', '6', '9']) {
            return Err("the line is busy".to_owned());
        }
        self.sent.lock().expect("nobody panics").insert(to);
        Ok(())
    }

    fn sent(&self) -> usize {
        self.sent.lock().expect("nobody panics").len()
    }
}

struct Topics {
    notifications: String,
    retries: String,
    dead_letters: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = common::connect().await?;
    let topics = Topics {
        notifications: common::topic(&client, "notifications", 3).await?,
        retries: common::topic(&client, "notifications-retry", 1).await?,
        dead_letters: common::topic(&client, "notifications-dead", 1).await?,
    };
    let producer = Producer::new(&client, ProducerOptions::default());
    let notifications = producer.topic(&topics.notifications).await?;
    for number in 0..NOTIFICATIONS {
        notifications.send(ProducerRecord::value(number.to_string())).await?;
    }
    producer.flush().await;

    let mailer = Mailer::default();
    notify(&client, &producer, &topics, &mailer, NOTIFICATIONS - 1, true).await?;
    println!("sent {}, one is a dead letter", mailer.sent());

    mailer.has_room.store(true, Relaxed);
    let group = format!("{}-replay", topics.dead_letters);
    let replayed =
        replay_dead_letters(&client, &producer, &group, &topics.dead_letters, |_, failure| {
            println!("replaying {} of {}: {}", failure.offset, failure.partition, failure.cause);
            true
        })
        .await?;
    notify(&client, &producer, &topics, &mailer, NOTIFICATIONS, false).await?;
    println!("replayed {replayed}, sent {}", mailer.sent());
    status(&client, &producer, &mailer).await?;
    producer.shutdown().await;
    Ok(())
}

/// Until so many were sent, and, if one is to die, until it has.
async fn notify(
    client: &Client,
    producer: &Producer,
    topics: &Topics,
    mailer: &Mailer,
    wanted: usize,
    one_dies: bool,
) -> Result<(), Box<dyn Error>> {
    let both = [topics.notifications.clone(), topics.retries.clone()];
    let builder = Consumer::builder(client).group(topics.notifications.clone()).subscribe(both);
    let consumer = builder.build().await?;
    let policy = RetryPolicy {
        attempts: 2,
        first: Duration::from_millis(20),
        limit: Duration::from_secs(1),
    };
    let mut processor = Processor::new(&consumer, producer)
        .retry(policy)
        .retry_topic(topics.retries.clone(), Duration::from_millis(500))
        .dead_letters(topics.dead_letters.clone());
    let work = processor.run(|record| {
        let to = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        mailer.send(to)
    });
    let done = async {
        loop {
            let dead = ottla_client::StartPosition::End;
            let dead = client.offset_of(&topics.dead_letters, 0, dead).await?;
            if mailer.sent() >= wanted && (dead > 0 || !one_dies) {
                return Ok::<(), ottla_client::ClientError>(());
            }
            tokio::time::sleep(common::LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        ended = work => ended?,
        done = done => done?,
    }
    consumer.close().await?;
    Ok(())
}

/// Asks over a topic how many were sent.
async fn status(
    client: &Client,
    producer: &Producer,
    mailer: &Mailer,
) -> Result<(), Box<dyn Error>> {
    let requests = common::topic(client, "status-requests", 1).await?;
    let replies = common::topic(client, "status-replies", 2).await?;
    let group = format!("{requests}-service");
    let consumer =
        Consumer::builder(client).group(group).subscribe([requests.clone()]).build().await?;
    let service = respond(&consumer, producer, |_request| async {
        Ok::<_, String>(mailer.sent().to_string().into())
    });
    let requester = Requester::start(client, producer, &requests, &replies).await?;
    let request = requester.request(ProducerRecord::value("how many?"), Duration::from_secs(30));
    tokio::select! {
        ended = service => ended?,
        reply = request => {
            let reply = reply?.value.unwrap_or_default();
            println!("the service says {}", String::from_utf8_lossy(&reply));
        }
    }
    consumer.close().await?;
    Ok(())
}
