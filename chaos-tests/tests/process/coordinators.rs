//! What a coordinator must not believe: that it is still the one, that an offset is of the
//! topic that has its name now, that a partition was there when the group began.

use crate::groups::{ask, commit_alone};
use crate::network::in_a_world;
use crate::plain::{ottla, succeeded};
use anyhow::Context as _;
use ottla_chaos::process::world::{World, address};
use ottla_chaos::process::{Cluster, wait_until};
use ottla_client::{Client, ClientOptions, Consumer, HostPort, OffsetReset};
use ottla_proto::ApiError;
use ottla_proto::v1::{self, ErrorReason as R};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";

/// Longest wait for one answer of a node that may be cut off.
const ANSWER: Duration = Duration::from_secs(2);

async fn coordinator(cluster: &Cluster, asked: u64) -> anyhow::Result<u64> {
    let find = v1::FindCoordinatorRequest { group: GROUP.to_owned() };
    let found = cluster.group_client(asked)?.find_coordinator(find).await?;
    Ok(found.into_inner().node_id)
}

fn joins(member: &str) -> v1::HeartbeatRequest {
    v1::HeartbeatRequest {
        group: GROUP.to_owned(),
        member_id: member.to_owned(),
        subscription: Some(v1::Subscription { topics: vec![TOPIC.to_owned()], pattern: None }),
        ..Default::default()
    }
}

/// A member that is answered by one node only, and until when it may read by that.
struct Member {
    lease: Arc<Mutex<Instant>>,
    task: tokio::task::JoinHandle<()>,
}

impl Member {
    async fn start(cluster: &Cluster, node: u64) -> anyhow::Result<Self> {
        let mut client = cluster.group_client(node)?;
        let mut epoch = 0;
        wait_until("it reads the partition", async || {
            let request = v1::HeartbeatRequest { member_epoch: epoch, ..joins("a") };
            let answer = client.heartbeat(request).await?.into_inner();
            epoch = answer.member_epoch;
            let assigned = answer.assignment.context("nothing new")?;
            anyhow::ensure!(!assigned.topics.is_empty(), "nothing yet");
            Ok(())
        })
        .await?;
        let lease = Arc::new(Mutex::new(Instant::now()));
        let extended = Arc::clone(&lease);
        let task = tokio::spawn(async move {
            let mut turns = tokio::time::interval(Duration::from_millis(200));
            loop {
                turns.tick().await;
                let request =
                    v1::HeartbeatRequest { subscription: None, member_epoch: epoch, ..joins("a") };
                let sent = Instant::now();
                if let Ok(Ok(answer)) = timeout(ANSWER, client.heartbeat(request)).await {
                    let session = answer.into_inner().session_timeout_ms;
                    *extended.lock() = sent + Duration::from_millis(session.into());
                }
            }
        });
        Ok(Self { lease, task })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// It is cut off from the other nodes and does not know that it was replaced; its members
/// reach it. By the time another has what they read, it has not told them for long that
/// they may go on.
#[test]
fn a_deposed_coordinator_extends_no_lease() -> anyhow::Result<()> {
    in_a_world(async |world: Arc<World>| {
        let cluster = Cluster::start_in(&world, 3, "").await?;
        cluster.create_topic(TOPIC, 1, &[]).await?;
        let old = coordinator(&cluster, 1).await?;
        let member = Member::start(&cluster, old).await?;
        wait_until("its lease is extended", async || {
            anyhow::ensure!(*member.lease.lock() > Instant::now(), "not yet");
            Ok(())
        })
        .await?;
        let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
        for other in &others {
            world.line(address(old), address(*other), |line| line.cut = true);
            world.line(address(*other), address(old), |line| line.cut = true);
        }
        let mut epoch = 0;
        let mut given = Instant::now();
        wait_until("another member is given the partition", async || {
            let subscription = joins("b").subscription.filter(|_| epoch == 0);
            let request = v1::HeartbeatRequest { member_epoch: epoch, subscription, ..joins("b") };
            let answer = ask(&others, |node| {
                let (client, request) = (cluster.group_client(node), request.clone());
                async move {
                    let mut client =
                        client.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
                    let answer = timeout(ANSWER, client.heartbeat(request)).await;
                    answer.map_err(|_| tonic::Status::unavailable("no answer"))?
                }
            });
            let answer = answer.await?.into_inner();
            epoch = answer.member_epoch;
            given = Instant::now();
            let topics = answer.assignment.context("nothing new")?.topics;
            anyhow::ensure!(!topics.is_empty(), "nothing yet");
            Ok(())
        })
        .await?;
        let lease = *member.lease.lock();
        assert!(lease < given, "the first member may read for {:?} more", lease - given);
        world.heal();
        Ok(())
    })
}

fn at(topic: &str, partition: u32, offset: u64) -> v1::OffsetCommit {
    v1::OffsetCommit { topic: topic.to_owned(), partition, offset, ..Default::default() }
}

/// Whether an offset is beyond the end of a partition whose only replica is dead nobody
/// can know: a group goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_taken_when_no_leader_answers() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let create = ["topic", "create", "single", "--partitions", "3", "--replication-factor", "1"];
    succeeded(ottla(&cluster, &create, b"")?)?;
    let coordinator = coordinator(&cluster, 1).await?;
    let dead = (1..=3).find(|id| *id != coordinator).context("three nodes")?;
    let mut on_dead = None;
    for partition in 0..3 {
        if cluster.leader("single", partition).await? == dead {
            on_dead = Some(partition);
        }
    }
    let partition = on_dead.context("each node has one")?;
    let alive: Vec<u64> = (1..=3).filter(|id| *id != dead).collect();
    let beyond = vec![at("single", partition, 99)];
    let refused =
        commit_alone(&cluster, &alive, GROUP, beyond.clone()).await.expect_err("beyond the end");
    assert_eq!(refused.reason, R::OffsetOutOfRange);
    cluster.node(dead).kill()?;
    wait_until("the commit is taken", async || {
        // While it is not known that the leader is dead it may be asked for, in vain.
        Ok(commit_alone(&cluster, &alive, GROUP, beyond.clone()).await?)
    })
    .await?;
    let describe = ["group", "describe", GROUP, "--format", "json"];
    let described: serde_json::Value =
        serde_json::from_slice(&succeeded(ottla(&cluster, &describe, b"")?)?)?;
    assert_eq!(described["partitions"][0]["committed"], 99, "{described}");
    Ok(())
}

async fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    let bootstrap = HostPort::parse_list(&cluster.bootstrap().join(","))?;
    Ok(Client::connect(&bootstrap, ClientOptions::default()).await?)
}

fn produce(cluster: &Cluster, partition: &str, lines: &[u8]) -> anyhow::Result<()> {
    succeeded(ottla(cluster, &["produce", TOPIC, "--partition", partition], lines)?).map(drop)
}

async fn next(consumer: &Consumer) -> anyhow::Result<(u32, u64, String)> {
    let record = timeout(Duration::from_secs(30), consumer.next_record()).await??;
    let record = record.context("closed")?;
    let value = String::from_utf8(record.value.clone().context("a value")?.to_vec())?;
    Ok((record.partition.partition, record.offset, value))
}

/// B1 row 37, K-20539: a group that begins at the end reads all of a partition that came
/// while nobody was there; and all of a topic that was created again, under whose name it
/// had read another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_after_the_group_is_read_from_its_start() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(3).await?;
    cluster.create_topic(TOPIC, 1, &[]).await?;
    produce(&cluster, "0", b"before\nbefore\n")?;
    let client = client(&cluster).await?;
    let member = async || {
        let builder = Consumer::builder(&client).group(GROUP).subscribe([TOPIC]);
        builder.reset(OffsetReset::Latest).build().await
    };
    let first = member().await?;
    let committed = async || {
        let group = client.admin().describe_group(GROUP).await?;
        anyhow::Ok(group.offsets.iter().map(|one| one.offset).collect::<Vec<_>>())
    };
    let begun = wait_until("the group has begun at the end", async || {
        anyhow::ensure!(committed().await? == [2], "not yet");
        Ok(())
    });
    tokio::select! {
        record = next(&first) => anyhow::bail!("older than the group: {record:?}"),
        begun = begun => begun?,
    }
    first.close().await?;
    succeeded(ottla(&cluster, &["topic", "alter", TOPIC, "--partitions", "2"], b"")?)?;
    produce(&cluster, "1", b"first of its partition\n")?;
    let second = member().await?;
    assert_eq!(next(&second).await?, (1, 0, "first of its partition".to_owned()));
    second.commit().await?;

    // While it is read, so that commits and reads are under way.
    succeeded(ottla(&cluster, &["topic", "delete", TOPIC], b"")?)?;
    cluster.create_topic(TOPIC, 1, &[]).await?;
    produce(&cluster, "0", b"first of its topic\nsecond\nthird\n")?;
    for (offset, value) in [(0, "first of its topic"), (1, "second"), (2, "third")] {
        assert_eq!(next(&second).await?, (0, offset, value.to_owned()));
    }
    second.commit().await?;
    assert_eq!(committed().await?, [3], "nothing of the topic that is gone");
    second.close().await?;
    Ok(())
}

/// The name is another topic's by now: an offset of the old one is not committed to it, and
/// it is not read in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_gone_is_not_taken_for_another() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(3).await?;
    let old = cluster.create_topic(TOPIC, 1, &[]).await?.topic_id;
    succeeded(ottla(&cluster, &["topic", "delete", TOPIC], b"")?)?;
    let new = cluster.create_topic(TOPIC, 1, &[]).await?.topic_id;
    produce(&cluster, "0", b"one\ntwo\n")?;
    let of = |topic_id: &bytes::Bytes, offset| {
        vec![v1::OffsetCommit { topic_id: topic_id.clone(), ..at(TOPIC, 0, offset) }]
    };
    let nodes = [1, 2, 3];
    wait_until("the commit is taken", async || {
        // The topic of the offsets came with the first question: its replicas may not all
        // be there yet, and the commit is refused for the moment.
        Ok(commit_alone(&cluster, &nodes, GROUP, of(&new, 1)).await?)
    })
    .await?;
    let refused = commit_alone(&cluster, &nodes, GROUP, of(&old, 1)).await.expect_err("it is gone");
    assert_eq!((refused.reason, refused.is_indefinite()), (R::UnknownPartition, false));
    // Others may only not have heard of a topic: nobody is to take a commit for needless
    // because of what they say.
    let elsewhere = coordinator(&cluster, 1).await? % 3 + 1;
    let (group, offsets) = (GROUP.to_owned(), of(&old, 1));
    let request = v1::CommitOffsetsRequest { group, offsets, ..Default::default() };
    let refused = cluster.group_client(elsewhere)?.commit_offsets(request).await;
    let refused = ApiError::from_status(&refused.expect_err("it is not the coordinator"));
    assert_eq!(refused.reason, R::NotCoordinator);
    let odd =
        commit_alone(&cluster, &nodes, GROUP, of(&bytes::Bytes::from_static(b"odd"), 1)).await;
    assert_eq!(odd.expect_err("no id").reason, R::InvalidRequest);
    let leader = cluster.leader(TOPIC, 0).await?;
    let fetch = |topic_id: &bytes::Bytes| v1::FetchRequest {
        topic: TOPIC.to_owned(),
        topic_id: topic_id.clone(),
        ..Default::default()
    };
    let mut log = cluster.log_client(leader)?;
    let refused = log.fetch(fetch(&old)).await.expect_err("it is gone");
    assert_eq!(ApiError::from_status(&refused).reason, R::UnknownTopic);
    assert_eq!(log.fetch(fetch(&new)).await?.into_inner().next_offset, 2);
    let start = v1::ConsumeStart { topic: TOPIC.to_owned(), topic_id: old, ..Default::default() };
    let request =
        v1::ConsumeRequest { start: Some(start), add_credit_records: 1, add_credit_bytes: 1 };
    let mut stream = log.consume(futures::stream::iter([request])).await?.into_inner();
    let refused = stream.message().await.expect_err("it is gone");
    assert_eq!(ApiError::from_status(&refused).reason, R::UnknownTopic);
    Ok(())
}
