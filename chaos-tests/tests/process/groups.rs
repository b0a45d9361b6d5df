//! Consumer groups, asked for by plain gRPC as a client in any language would.

use crate::group_edges::wrong_calls_change_nothing;
use crate::plain::{ottla, succeeded};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, wait_until};
use ottla_proto::ApiError;
use ottla_proto::v1::{self, ErrorReason as R};
use std::collections::{BTreeMap, BTreeSet};

const PARTITIONS: u32 = 6;

/// A member as a client is: it reads what it was told, and says so.
#[derive(Default)]
struct Member {
    id: String,
    epoch: u32,
    owned: Vec<v1::TopicPartitions>,
    reads: BTreeSet<u32>,
}

impl Member {
    fn new(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    fn request(&self) -> v1::HeartbeatRequest {
        let (group, member_id) = ("billing".to_owned(), self.id.clone());
        let joins = v1::Subscription { topics: vec!["orders".to_owned()], pattern: None };
        v1::HeartbeatRequest {
            group,
            member_id,
            member_epoch: self.epoch,
            subscription: (self.epoch == 0).then_some(joins),
            owned: Some(v1::OwnedPartitions { topics: self.owned.clone() }),
            ..Default::default()
        }
    }

    fn told(&mut self, answer: v1::HeartbeatResponse) {
        self.epoch = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            self.owned = assignment.topics;
        }
        self.reads = self.owned.iter().flat_map(|topic| topic.partitions.clone()).collect();
    }
}

/// Asks one node after the other until one is the coordinator. If nobody answers, what the
/// coordinator said, if any of them was it, is told.
pub(crate) async fn ask<T, F: Future<Output = Result<T, tonic::Status>>>(
    nodes: &[u64],
    call: impl Fn(u64) -> F,
) -> Result<T, ApiError> {
    let mut told: Option<ApiError> = None;
    for node in nodes {
        match call(*node).await {
            Ok(answer) => return Ok(answer),
            Err(status) => {
                let error = ApiError::from_status(&status);
                if !error.is_retriable() {
                    return Err(error);
                }
                let others = told.filter(|told| told.reason != R::NotCoordinator);
                told = Some(others.unwrap_or(error));
            }
        }
    }
    Err(told.expect("there are nodes"))
}

async fn heartbeat(
    cluster: &Cluster,
    nodes: &[u64],
    request: v1::HeartbeatRequest,
) -> Result<v1::HeartbeatResponse, ApiError> {
    ask(nodes, |node| {
        let (client, request) = (cluster.group_client(node), request.clone());
        async move {
            let mut client =
                client.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            client.heartbeat(request).await.map(tonic::Response::into_inner)
        }
    })
    .await
}

async fn commit(
    cluster: &Cluster,
    nodes: &[u64],
    member: Option<&Member>,
    partition: u32,
    offset: u64,
) -> Result<v1::CommitOffsetsResponse, ApiError> {
    let topic = "orders".to_owned();
    let request = v1::CommitOffsetsRequest {
        group: "billing".to_owned(),
        member_id: member.map(|member| member.id.clone()),
        member_epoch: member.map_or(0, |member| member.epoch),
        offsets: vec![v1::OffsetCommit { topic, partition, offset, ..Default::default() }],
    };
    commit_offsets(cluster, nodes, request).await
}

/// A commit by nobody's member.
pub(crate) async fn commit_alone(
    cluster: &Cluster,
    nodes: &[u64],
    group: &str,
    offsets: Vec<v1::OffsetCommit>,
) -> Result<(), ApiError> {
    let request =
        v1::CommitOffsetsRequest { group: group.to_owned(), offsets, ..Default::default() };
    commit_offsets(cluster, nodes, request).await.map(drop)
}

async fn commit_offsets(
    cluster: &Cluster,
    nodes: &[u64],
    request: v1::CommitOffsetsRequest,
) -> Result<v1::CommitOffsetsResponse, ApiError> {
    ask(nodes, |node| {
        let (client, request) = (cluster.group_client(node), request.clone());
        async move {
            let mut client =
                client.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            client.commit_offsets(request).await.map(tonic::Response::into_inner)
        }
    })
    .await
}

/// Heartbeats of all until each partition has one reader and everybody its share. No
/// partition ever has two.
async fn settle(
    cluster: &Cluster,
    nodes: &[u64],
    members: &mut BTreeMap<String, Member>,
) -> anyhow::Result<()> {
    wait_until("everybody reads its share", async || {
        let ids: Vec<String> = members.keys().cloned().collect();
        for id in ids {
            let request = members[&id].request();
            let answer = heartbeat(cluster, nodes, request).await?;
            members.get_mut(&id).context("a member")?.told(answer);
            let readers: usize = members.values().map(|member| member.reads.len()).sum();
            let read: BTreeSet<u32> = members.values().flat_map(|m| m.reads.clone()).collect();
            assert_eq!(readers, read.len(), "two read the same");
        }
        let share = PARTITIONS as usize / members.len();
        let fair = members.values().all(|member| member.reads.len() == share);
        let epochs: BTreeSet<u32> = members.values().map(|member| member.epoch).collect();
        anyhow::ensure!(fair && epochs.len() == 1, "not settled yet");
        Ok(())
    })
    .await
}

async fn describe(cluster: &Cluster) -> anyhow::Result<serde_json::Value> {
    let describe = ["group", "describe", "billing", "--format", "json"];
    Ok(serde_json::from_slice(&succeeded(ottla(cluster, &describe, b"")?)?)?)
}

/// Three members share six partitions; one is silent, and the others take over; the
/// coordinator is killed, and the next one knows members and offsets, and moves nothing.
/// What is wrong is refused by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_partitions_whoever_dies() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    cluster.create_topic("orders", PARTITIONS, &[]).await?;
    let all = [1, 2, 3];
    let mut members: BTreeMap<String, Member> =
        ["a", "b", "c"].map(|id| (id.to_owned(), Member::new(id))).into();
    settle(&cluster, &all, &mut members).await?;
    let reader = &members["a"];
    let partition = *reader.reads.first().context("two partitions")?;
    commit(&cluster, &all, Some(reader), partition, 0).await?;

    let stale = Member { epoch: reader.epoch + 7, id: "a".to_owned(), ..Member::default() };
    let refused = commit(&cluster, &all, Some(&stale), partition, 5).await;
    assert_eq!(refused.expect_err("stale").reason, R::StaleMemberEpoch);
    let stranger = Member { id: "x".to_owned(), epoch: 1, ..Member::default() };
    let refused = commit(&cluster, &all, Some(&stranger), partition, 5).await;
    assert_eq!(refused.expect_err("a stranger").reason, R::UnknownMember);
    let refused = heartbeat(&cluster, &all, stranger.request()).await;
    assert_eq!(refused.expect_err("a stranger").reason, R::UnknownMember);
    let refused = commit(&cluster, &all, None, partition, 5).await;
    assert_eq!(refused.expect_err("it has members").reason, R::GroupNotEmpty);
    let refused = commit(&cluster, &all, Some(reader), PARTITIONS, 5).await;
    assert_eq!(refused.expect_err("no such partition").reason, R::UnknownPartition);
    assert!(!ottla(&cluster, &["group", "delete", "billing"], b"")?.status.success());
    wrong_calls_change_nothing(&cluster).await?;
    let written = ottla(&cluster, &["produce", "__consumer_offsets"], b"mine\n")?;
    assert!(!written.status.success(), "only nodes write to internal topics");

    let find = v1::FindCoordinatorRequest { group: "billing".to_owned() };
    let coordinator = cluster.group_client(1)?.find_coordinator(find).await?.into_inner().node_id;
    let before: BTreeMap<_, _> =
        members.iter().map(|(id, m)| (id.clone(), m.reads.clone())).collect();
    cluster.node(coordinator).kill()?;
    let left: Vec<u64> = all.into_iter().filter(|node| *node != coordinator).collect();
    settle(&cluster, &left, &mut members).await?;
    let after: BTreeMap<_, _> =
        members.iter().map(|(id, m)| (id.clone(), m.reads.clone())).collect();
    assert_eq!(before, after, "nothing moves because a coordinator died");
    let described = describe(&cluster).await?;
    let rows = described["partitions"].as_array().context("rows")?;
    let row = rows.iter().find(|row| row["partition"] == partition).context("the row")?;
    assert_eq!((&row["committed"], &row["member"]), (&0.into(), &"a".into()), "{described}");

    // From now on `c` is silent: its session ends.
    members.remove("c");
    settle(&cluster, &left, &mut members).await?;

    for id in ["a", "b"] {
        let leaves = v1::HeartbeatRequest {
            departure: Some(v1::heartbeat_request::Departure::Leave(true)),
            ..members[id].request()
        };
        heartbeat(&cluster, &left, leaves).await?;
    }
    assert_eq!(describe(&cluster).await?["state"], "empty");
    succeeded(ottla(&cluster, &["group", "seek", "billing", "orders", "--to", "end"], b"")?)?;
    assert_eq!(describe(&cluster).await?["partitions"].as_array().map(Vec::len), Some(6));
    let beyond = ["group", "seek", "billing", "orders", "--to", "99"];
    assert!(!ottla(&cluster, &beyond, b"")?.status.success(), "beyond the end");
    succeeded(ottla(&cluster, &["group", "delete", "billing"], b"")?)?;
    // One node is down. It is fenced, so what it coordinated others do.
    let listed = succeeded(ottla(&cluster, &["group", "list", "--format", "json"], b"")?)?;
    let listed: serde_json::Value = serde_json::from_slice(&listed)?;
    let names: Vec<_> = listed["groups"].as_array().context("a list")?.iter().collect();
    assert_eq!(names.len(), 1, "{listed}");
    assert_eq!(names[0]["group"], "audit", "{listed}");
    Ok(())
}
