//! What groups refuse by name, and how far behind they are, as nodes and commands tell.

use crate::groups::{ask, commit_alone};
use crate::plain::{ottla, succeeded};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, wait_until};
use ottla_proto::v1::{self, ErrorReason as R};

/// Of a topic with one copy of each partition: on three nodes the coordinator hosts one
/// of them at most, and has to ask for the ends of the others.
const PARTITIONS: u32 = 3;

/// Every node.
const ALL: [u64; 3] = [1, 2, 3];

fn at(partition: u32, offset: u64) -> v1::OffsetCommit {
    v1::OffsetCommit { topic: "single".to_owned(), partition, offset, ..Default::default() }
}

async fn committed(cluster: &Cluster, group: &str) -> anyhow::Result<Vec<u64>> {
    let request = v1::FetchOffsetsRequest { group: group.to_owned(), ..Default::default() };
    let answer = ask(&ALL, |node| {
        let (client, request) = (cluster.group_client(node), request.clone());
        async move {
            let mut client =
                client.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            client.fetch_offsets(request).await
        }
    });
    Ok(answer.await?.into_inner().offsets.iter().map(|offset| offset.offset).collect())
}

/// Commits beyond the end, wherever the partition is; too much metadata; groups that
/// nobody knows; names that are none.
pub(crate) async fn wrong_calls_change_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    let create = ["topic", "create", "single", "--partitions", "3", "--replication-factor", "1"];
    succeeded(ottla(cluster, &create, b"")?)?;
    for partition in 0..PARTITIONS {
        let partition = partition.to_string();
        let produce = ["produce", "single", "--partition", &partition];
        succeeded(ottla(cluster, &produce, b"one\ntwo\nthree\n")?)?;
    }
    let all = |offset| (0..PARTITIONS).map(|partition| at(partition, offset)).collect::<Vec<_>>();
    commit_alone(cluster, &ALL, "audit", all(1)).await?;

    for partition in 0..PARTITIONS {
        let refused = commit_alone(cluster, &ALL, "audit", vec![at(partition, 4)]).await;
        let refused = refused.expect_err("beyond the end");
        assert_eq!((refused.reason, refused.is_indefinite()), (R::OffsetOutOfRange, false));
        assert_eq!(refused.metadata["high_watermark"], "3", "{refused}");
    }
    // All of a commit or nothing.
    let mut mixed = all(3);
    mixed[1].offset = u64::MAX;
    let refused =
        commit_alone(cluster, &ALL, "audit", mixed).await.expect_err("one is beyond the end");
    assert_eq!(refused.reason, R::OffsetOutOfRange);
    let large = v1::OffsetCommit { metadata: "x".repeat(4097), ..at(0, 2) };
    let refused =
        commit_alone(cluster, &ALL, "audit", vec![large]).await.expect_err("too much metadata");
    assert_eq!(refused.reason, R::OffsetMetadataTooLarge);
    for name in [String::new(), "x".repeat(256)] {
        let refused = commit_alone(cluster, &ALL, &name, all(1)).await.expect_err("not a name");
        assert_eq!(refused.reason, R::InvalidRequest);
    }
    let many = vec![at(0, 1); 2_001];
    let refused =
        commit_alone(cluster, &ALL, "audit", many).await.expect_err("more than a batch holds");
    assert_eq!(refused.reason, R::InvalidRequest);
    assert_eq!(committed(cluster, "audit").await?, [1, 1, 1], "nothing changed");
    wrong_heartbeats(cluster).await?;
    let just = v1::OffsetCommit { metadata: "x".repeat(4096), ..at(0, 1) };
    commit_alone(cluster, &ALL, "audit", vec![just]).await?;
    unknown_groups(cluster)?;
    lag_is_shown(cluster).await
}

/// Nobody has joined after any of them.
async fn wrong_heartbeats(cluster: &Cluster) -> anyhow::Result<()> {
    let topics = |topics: &[&str], pattern: Option<&str>| {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Some(v1::Subscription { topics, pattern: pattern.map(str::to_owned) })
    };
    let good = v1::HeartbeatRequest {
        group: "audit".to_owned(),
        member_id: "m".to_owned(),
        subscription: topics(&["single"], None),
        ..Default::default()
    };
    let listed = v1::TopicPartitions { topic_id: vec![1, 2, 3].into(), ..Default::default() };
    let owned = Some(v1::OwnedPartitions { topics: vec![listed] });
    let wrong = [
        ("no name", v1::HeartbeatRequest { member_id: String::new(), ..good.clone() }),
        ("no topic", v1::HeartbeatRequest { subscription: topics(&[], None), ..good.clone() }),
        ("no topic id", v1::HeartbeatRequest { owned, ..good.clone() }),
        ("an assignor that is none", {
            v1::HeartbeatRequest { assignor: Some("mine".to_owned()), ..good.clone() }
        }),
        ("a member that nobody knows", v1::HeartbeatRequest { member_epoch: 7, ..good.clone() }),
        ("a pattern that is none", {
            v1::HeartbeatRequest { subscription: topics(&[], Some("(")), ..good.clone() }
        }),
    ];
    let reasons =
        [R::InvalidRequest; 4].into_iter().chain([R::UnknownMember, R::InvalidSubscription]);
    for ((what, request), reason) in wrong.into_iter().zip(reasons) {
        let answer = ask(&ALL, |node| {
            let (client, request) = (cluster.group_client(node), request.clone());
            async move {
                let mut client =
                    client.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
                client.heartbeat(request).await
            }
        });
        let refused = answer.await.expect_err(what);
        assert_eq!((refused.reason, refused.is_indefinite()), (reason, false), "{what}: {refused}");
    }
    let described = ottla(cluster, &["group", "describe", "audit", "--format", "json"], b"")?;
    let described: serde_json::Value = serde_json::from_slice(&succeeded(described)?)?;
    assert_eq!(described["members"], serde_json::json!([]), "{described}");
    Ok(())
}

fn unknown_groups(cluster: &Cluster) -> anyhow::Result<()> {
    for verb in ["describe", "delete"] {
        let refused = ottla(cluster, &["group", verb, "nobody"], b"")?;
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && told.contains("UNKNOWN_GROUP"), "{verb}: {told}");
    }
    let listed = succeeded(ottla(cluster, &["group", "list", "--format", "json"], b"")?)?;
    assert!(!String::from_utf8_lossy(&listed).contains("nobody"));
    Ok(())
}

/// In `ottla group describe`, and in `/metrics` of the coordinator alone, wherever the
/// partitions are.
async fn lag_is_shown(cluster: &Cluster) -> anyhow::Result<()> {
    let describe = ["group", "describe", "audit", "--format", "json"];
    let described: serde_json::Value =
        serde_json::from_slice(&succeeded(ottla(cluster, &describe, b"")?)?)?;
    let rows = described["partitions"].as_array().context("rows")?;
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!((&row["committed"], &row["lag"]), (&1.into(), &2.into()), "{row}");
        let seconds = row["lag_seconds"].as_f64().context("seconds")?;
        assert!((0.0..600.0).contains(&seconds), "{row}");
    }
    let find = v1::FindCoordinatorRequest { group: "audit".to_owned() };
    let coordinator = cluster.group_client(1)?.find_coordinator(find).await?.into_inner().node_id;
    // What was measured a moment ago is shown again.
    wait_until("the coordinator shows the lag", async || {
        for node in cluster.nodes() {
            let shown = lags(&node.get("/metrics").await?, "audit");
            let expected = if node.id() == coordinator { 3 } else { 0 };
            anyhow::ensure!(shown.len() == expected, "node {}: {shown:?}", node.id());
            anyhow::ensure!(shown.iter().all(|lag| *lag == 2.0), "{shown:?}");
        }
        Ok(())
    })
    .await?;
    let all = |offset| (0..PARTITIONS).map(|partition| at(partition, offset)).collect();
    commit_alone(cluster, &ALL, "audit", all(3)).await?;
    shows(cluster, coordinator, [0.0, 0.0, 0.0]).await?;

    // What was deleted is not to be read, wherever the group is.
    commit_alone(cluster, &ALL, "audit", all(1)).await?;
    for (partition, before) in [("0", "2"), ("1", "end")] {
        let delete = ["topic", "delete-records", "single", "--partition", partition];
        succeeded(ottla(cluster, &[&delete[..], &["--before", before]].concat(), b"")?)?;
    }
    shows(cluster, coordinator, [1.0, 0.0, 2.0]).await?;
    let described: serde_json::Value =
        serde_json::from_slice(&succeeded(ottla(cluster, &describe, b"")?)?)?;
    let rows = described["partitions"].as_array().context("rows")?;
    let lags: Vec<_> = rows.iter().map(|row| row["lag"].as_u64()).collect();
    assert_eq!(lags, [Some(1), Some(0), Some(2)], "{described}");
    Ok(())
}

/// The coordinator's `/metrics` comes to say so, by partition.
async fn shows(cluster: &Cluster, coordinator: u64, lag: [f64; 3]) -> anyhow::Result<()> {
    wait_until("the coordinator shows how far the group is", async || {
        let node = &cluster.nodes()[coordinator as usize - 1];
        let shown = lags(&node.get("/metrics").await?, "audit");
        anyhow::ensure!(shown == lag, "{shown:?}");
        Ok(())
    })
    .await
}

/// Of a group, in records. Seconds stand beside each.
fn lags(metrics: &str, group: &str) -> Vec<f64> {
    let of = |unit: &str| {
        let start = format!("ottla_group_lag_{unit}{{group=\"{group}\"");
        let lines = metrics.lines().filter(move |line| line.starts_with(&start));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect::<Vec<f64>>()
    };
    let (records, seconds) = (of("records"), of("seconds"));
    assert_eq!(records.len(), seconds.len(), "{metrics}");
    for (records, seconds) in records.iter().zip(&seconds) {
        assert_eq!(*records == 0.0, *seconds == 0.0, "{records} records, {seconds} s old");
    }
    records
}
