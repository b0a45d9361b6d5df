//! What the examples have in common: a connection, and a topic of their own.

#![allow(dead_code)] // each uses a part

use ottla_client::{Client, ClientError, ClientOptions, HostPort, NewTopic};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often who waits for records looks whether it is done.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(crate) async fn connect() -> Result<Client, ClientError> {
    let bootstrap = std::env::var("OTTLA_BOOTSTRAP").unwrap_or("127.0.0.1:7401".to_owned());
    Client::connect(&HostPort::parse_list(&bootstrap)?, ClientOptions::default()).await
}

/// A new topic, so that each run begins with nothing.
pub(crate) async fn topic(
    client: &Client,
    name: &str,
    partitions: u32,
) -> Result<String, ClientError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let name = format!("{name}-{now}");
    let nodes = client.admin().cluster_info().await?.nodes.len();
    let replication_factor = u32::try_from(nodes.min(3)).unwrap_or(1);
    let topic =
        NewTopic { name: name.clone(), partitions, replication_factor, ..NewTopic::default() };
    client.admin().create_topic(topic).await?;
    Ok(name)
}
