//! Reading from the follower in one's own rack.

use crate::plain::{ottla, produce, record, succeeded};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, wait_until};
use ottla_proto::v1;

const LINES: &[u8] = b"one\ntwo\nthree\n";

/// Every in-sync node answers whoever allows it, with the same records; the command
/// reads from its rack, and from elsewhere when the node there is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_are_read_from() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.create_topic("lines", 1, &[]).await?;
    succeeded(ottla(&cluster, &["produce", "lines"], LINES)?)?;
    let leader = cluster.leader("lines", 0).await?;
    let request =
        v1::FetchRequest { topic: "lines".to_owned(), allow_follower: true, ..Default::default() };
    for node in 1..=3 {
        wait_until("all of it is committed here", async || {
            let answer = cluster.log_client(node)?.fetch(request.clone()).await?.into_inner();
            let header = answer.header.context("who answered")?;
            anyhow::ensure!(header.node_id == node);
            let Some(v1::fetch_response::Payload::Records(set)) = answer.payload else {
                anyhow::bail!("records were asked for");
            };
            let values: Vec<_> = set.records.iter().filter_map(|r| r.value.as_deref()).collect();
            anyhow::ensure!(values == [&b"one"[..], b"two", b"three"], "{values:?}");
            Ok(())
        })
        .await?;
    }
    let near = (1..=3).find(|node| *node != leader).context("a follower")?;
    let rack = format!("rack-{near}");
    let consume = ["consume", "lines", "--until", "end", "--rack", &rack];
    assert_eq!(succeeded(ottla(&cluster, &consume, b"")?)?, LINES);
    cluster.node(near).kill()?;
    assert_eq!(succeeded(ottla(&cluster, &consume, b"")?)?, LINES);
    let value = v1::Record { value: Some("four".into()), ..Default::default() };
    produce(&cluster, leader, "lines", record(value)).await?;
    assert_eq!(succeeded(ottla(&cluster, &consume, b"")?)?, b"one\ntwo\nthree\nfour\n");
    Ok(())
}
