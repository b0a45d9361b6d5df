//! Leaderships that move while everybody is well: nobody's write is left in doubt.

use super::cluster::{CLUSTER, PATIENCE, Three, batch};

use crate::{Acks, Limits, Produced};
use ottla_metadata::controller::{Command, Reassign};
use ottla_proto::internal::v1::replication_service_client::ReplicationServiceClient;
use ottla_proto::internal::v1::{HoldWritesRequest, Leadership, PartitionKey};
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, NodeId, PartitionId};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Asks the leader over its port; whether it finished.
async fn hold_writes(three: &Three, id: PartitionId, cluster: &str) -> Result<bool, ApiError> {
    let image = three.quorum.image();
    let partition = &image.partitions[&id];
    let broker = &image.brokers[&partition.leader.expect("led")];
    let address = format!("http://{}:{}", broker.host, broker.port);
    let mut client = ReplicationServiceClient::connect(address).await.expect("connects");
    let key = PartitionKey { topic_id: id.topic.to_wire().into(), partition: id.index };
    let epoch = partition.leader_epoch.0;
    let request = HoldWritesRequest {
        cluster_id: cluster.to_owned(),
        leaderships: vec![Leadership { partition: Some(key.clone()), leader_epoch: epoch }],
        within_ms: 1_000,
    };
    let answer =
        client.hold_writes(request).await.map_err(|status| ApiError::from_status(&status))?;
    Ok(answer.into_inner().finished == [key])
}

fn write(three: &Three, node: NodeId, value: &str) -> JoinHandle<Result<Produced, ApiError>> {
    let (replicas, batch) = (three.node(node).replicas.clone(), batch(&[value]));
    tokio::spawn(async move {
        let deadline = Instant::now() + PATIENCE;
        let ticket = replicas.produce("t", 0, batch, Acks::All, deadline).await?;
        ticket.wait().await
    })
}

/// A leader that is asked to finish lets its followers catch up with what only it has
/// acknowledged, and lets writes wait. Who waits is sent to the next leader, with
/// nothing written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_the_next_leader() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    three.until_isr(id, &[1, 2, 3].map(NodeId)).await;
    let old = three.quorum.leader(id);
    let one = three.node(old).produce_with("t", "one", Acks::Leader, PATIENCE).await;
    one.expect("acknowledged by the leader alone");
    assert!(hold_writes(&three, id, CLUSTER).await.expect("an answer"));
    for node in [1, 2, 3].map(NodeId) {
        assert_eq!(three.node(node).partition(id).log().expect("open").bounds().end, 1);
    }
    let two = write(&three, old, "two");
    three.node(old).want_shutdown();
    let refused = two.await.expect("no panic").expect_err("somebody else leads");
    assert_eq!((refused.reason, refused.is_indefinite()), (R::NotLeader, false));
    let new = three.quorum.leader(id);
    assert_eq!(refused.leader.expect("a hint").node_id, new);
    assert_eq!(three.node(new).read_all("t").await, ["one"]);
    three.end().await;
}

/// Whoever wanted to lead does not come: writes go on by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_when_nobody_takes_over() {
    let three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let leader = three.quorum.leader(id);
    three.node(leader).produce("t", "one").await.expect("acknowledged");
    assert!(hold_writes(&three, id, CLUSTER).await.expect("an answer"));
    let waiting = write(&three, leader, "two");
    let written = timeout(PATIENCE, waiting).await.expect("in time").expect("no panic");
    assert_eq!(written.expect("acknowledged").base_offset, Some(1));
    let error = hold_writes(&three, id, "another").await.expect_err("not this cluster");
    assert_eq!(error.reason, R::WrongCluster);
    three.end().await;
}

/// A leader on its way out of the assignment finishes before it proposes the ISR that
/// ends its leadership: whoever writes meanwhile is acknowledged or sent on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_moves_away_leaves_nobody_in_doubt() {
    let mut three = Three::start(Limits::default()).await;
    let id = three.quorum.create_topic("t", &[]);
    let old = three.quorum.leader(id);
    let [stays, comes] = three.quorum.followers(id)[..] else { panic!("two followers") };
    three.node(old).produce("t", "one").await.expect("acknowledged");
    // Out of the ISR, so that its return completes the reassignment.
    three.take(comes).die().await;
    let command = Command::Reassign(Reassign {
        topic: "t".to_owned(),
        partitions: vec![(0, vec![stays, comes])],
        validate_only: false,
    });
    three.quorum.submit(command).expect("a good assignment");
    let replicas = three.node(old).replicas.clone();
    let writer = tokio::spawn(async move {
        let mut acknowledged = vec!["one".to_owned()];
        loop {
            let value = format!("value {}", acknowledged.len());
            let deadline = Instant::now() + PATIENCE;
            let written = async {
                let sent = replicas.produce("t", 0, batch(&[&value]), Acks::All, deadline);
                sent.await?.wait().await
            };
            match written.await {
                Ok(_) => acknowledged.push(value),
                Err(error) => return (acknowledged, error),
            }
        }
    });
    three.restart(comes).await;
    let (acknowledged, error) = writer.await.expect("no panic");
    assert_eq!((error.reason, error.is_indefinite()), (R::NotLeader, false), "{error}");
    let new = three.quorum.leader(id);
    assert!([stays, comes].contains(&new));
    assert_eq!(three.node(new).read_all("t").await, acknowledged);
    three.end().await;
}
