//! Page views counted in windows of ten seconds, by the time at which they happened. A
//! window is told once all partitions have come past it, and late views are told apart.
//!
//!     ottla dev                      # in another terminal
//!     cargo run -p ottla-client --example analytics

#![allow(clippy::print_stdout)] // what it is for

mod common;

use ottla_client::{Consumer, Producer, ProducerOptions, ProducerRecord};
use std::collections::BTreeMap;
use std::error::Error;

const WINDOW_MS: i64 = 10_000;
const PARTITIONS: u32 = 3;
const VIEWS: i64 = 600;
const BEGIN_MS: i64 = 1_700_000_000_000;

/// Counts by window and page.
#[derive(Default)]
struct Windows {
    open: BTreeMap<i64, BTreeMap<String, u64>>,
    /// The newest view of each partition: all before it has come, but for late ones.
    watermarks: BTreeMap<u32, i64>,
    told: i64,
    late: u64,
    counted: u64,
}

impl Windows {
    /// Takes a view in; returns the windows that are over.
    fn view(
        &mut self,
        partition: u32,
        at_ms: i64,
        page: String,
    ) -> Vec<(i64, BTreeMap<String, u64>)> {
        let window = at_ms - at_ms % WINDOW_MS;
        if window < self.told {
            self.late += 1;
            return Vec::new();
        }
        *self.open.entry(window).or_default().entry(page).or_default() += 1;
        self.counted += 1;
        let newest = self.watermarks.entry(partition).or_insert(at_ms);
        *newest = at_ms.max(*newest);
        if self.watermarks.len() < PARTITIONS as usize {
            return Vec::new();
        }
        let passed = self.watermarks.values().min().copied().unwrap_or(0);
        self.told = self.told.max(passed - passed % WINDOW_MS);
        let open = self.open.split_off(&self.told);
        std::mem::replace(&mut self.open, open).into_iter().collect()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = common::connect().await?;
    let topic = common::topic(&client, "page-views", PARTITIONS).await?;
    let producer = Producer::new(&client, ProducerOptions::default());
    let views = producer.topic(&topic).await?;
    for n in 0..VIEWS {
        let page = ["/", "/shop", "/help"][usize::try_from(n % 3)?];
        // One view in a hundred was long on its way.
        let late = if n % 100 == 99 { 60_000 } else { 0 };
        let record = ProducerRecord {
            timestamp_ms: Some(BEGIN_MS + n * 250 - late),
            partition: Some(u32::try_from(n)? % PARTITIONS),
            ..ProducerRecord::value(page)
        };
        views.send(record).await?;
    }
    producer.flush().await;

    let group = format!("{topic}-analytics");
    let consumer = Consumer::builder(&client).group(group).subscribe([topic]).build().await?;
    let mut windows = Windows::default();
    while windows.counted + windows.late < VIEWS as u64 {
        let Some(view) = consumer.next_record().await? else { break };
        let page = String::from_utf8_lossy(view.value.as_deref().unwrap_or_default()).into_owned();
        for (window, pages) in windows.view(view.partition.partition, view.timestamp_ms, page) {
            println!("{window}: {pages:?}");
        }
    }
    println!("counted {}, late {}", windows.counted, windows.late);
    consumer.close().await?;
    producer.shutdown().await;
    Ok(())
}
