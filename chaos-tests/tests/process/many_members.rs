//! A node that coordinates many members, of whichever groups, tells them to be heard less
//! often.

use anyhow::Context as _;
use futures::stream::{self, StreamExt, TryStreamExt};
use ottla_chaos::process::{Cluster, wait_until};
use ottla_proto::v1;
use ottla_proto::v1::group_service_client::GroupServiceClient;
use tonic::transport::Channel;

/// Groups of one member each: more than are heard as often as a few are.
const GROUPS: u32 = 800;

/// Joins under way at once.
const AT_ONCE: usize = 32;

/// What a member is told that joins a group of its own: when it is to be heard next, in
/// milliseconds.
async fn join(mut client: GroupServiceClient<Channel>, group: u32) -> anyhow::Result<u32> {
    let subscription = v1::Subscription { topics: vec!["orders".to_owned()], pattern: None };
    let request = v1::HeartbeatRequest {
        group: format!("group-{group}"),
        member_id: "member".to_owned(),
        subscription: Some(subscription),
        ..Default::default()
    };
    Ok(client.heartbeat(request).await?.into_inner().heartbeat_interval_ms)
}

#[tokio::test]
async fn many_members_are_heard_less_often() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    cluster.create_topic("orders", 1, &[]).await?;
    let client = cluster.group_client(1)?;
    let mut alone = 0;
    wait_until("the node coordinates groups", async || {
        alone = join(client.clone(), 0).await?;
        Ok(())
    })
    .await?;
    assert_eq!(alone, 500);
    let joins = stream::iter((1..GROUPS).map(|group| join(client.clone(), group)));
    let told: Vec<u32> = joins.buffered(AT_ONCE).try_collect().await?;
    // One a millisecond is what a node wants, and nobody is counted twice.
    let longest = told.iter().max().context("they joined")?;
    assert!((501..=GROUPS).contains(longest), "{longest} ms");
    Ok(())
}
