//! What the cluster promises while nodes come and go.

use super::cluster::{Cluster, PATIENCE};
use crate::controller::PartitionAlteration;
use crate::raft::{LogLimits, MetadataError};
use ottla_proto::v1::{CreateTopicRequest, DeleteTopicRequest, ErrorReason};
use ottla_proto::{DirectoryId, IncarnationId, LeaderEpoch, NodeId, PartitionEpoch, TopicId};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

fn topic_id(bytes: &[u8]) -> TopicId {
    TopicId::from_wire(bytes).expect("16 bytes")
}

/// A quorum forms from blank disks; any node takes topic administration and
/// has applied it when it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_and_administers_topics_from_any_node() {
    let cluster = Cluster::formed().await;
    let leader = cluster.leader().await;
    for (index, node) in cluster.nodes.values().enumerate() {
        let name = format!("topic-{index}");
        let created = node.create(&name).await.expect("creates");
        let id = topic_id(&created.topic.expect("is described").topic_id);
        let image = node.metadata.image();
        assert_eq!(image.topic_by_name(&name).expect("applied here").id, id);
        assert_eq!(created.header.expect("always").node_id, node.id.0);
        assert!(image.partitions_of(id).all(|(_, partition)| partition.isr.len() == 3));
        let again = node.create(&name).await.expect_err("exists");
        assert_eq!(again.reason, ErrorReason::TopicAlreadyExists);
        let request = DeleteTopicRequest { name: name.clone(), ..Default::default() };
        let deadline = Instant::now() + PATIENCE;
        node.metadata.administer(request, deadline).await.expect("deletes");
        assert!(node.metadata.image().topic_by_name(&name).is_none());
    }
    let bad = CreateTopicRequest { name: "no/slash".to_owned(), ..Default::default() };
    let refused = cluster.follower().await.metadata.administer(bad, Instant::now() + PATIENCE);
    assert_eq!(refused.await.expect_err("bad name").reason, ErrorReason::InvalidTopicName);
    // Every voter's directory is on record.
    let node = cluster.node(leader);
    node.image_where("directories", |image| image.voter_directories.len() == 3).await;
    assert!(node.metadata.quorum().active_here);
}

/// The leader of the quorum dies: another takes over, fences it at once, and
/// gives its partitions to other replicas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_controller_is_replaced_and_fenced() {
    let mut cluster = Cluster::formed().await;
    let created = cluster.follower().await.create("orders").await.expect("creates");
    let id = topic_id(&created.topic.expect("is described").topic_id);
    let dead = cluster.leader().await;
    cluster.kill(dead).await;
    for node in cluster.nodes.values() {
        let image = node.image_where("new leaders", |image| {
            !image.is_active(dead)
                && image.partitions_of(id).count() == 3
                && image.partitions_of(id).all(|(_, p)| p.leader.is_some_and(|l| l != dead))
        });
        let image = image.await;
        assert!(image.partitions_of(id).all(|(_, p)| !p.isr.contains(&dead)));
    }
    cluster.follower().await.create("meanwhile").await.expect("two of three decide");

    // From its directory it comes back as a follower with all it missed.
    cluster.start(dead.0).await;
    let node = cluster.node(dead);
    node.image_where("what it missed", |i| i.topic_by_name("meanwhile").is_some()).await;
    node.unfenced_here(&[1, 2, 3]).await;
    node.create("after").await.expect("creates");
}

/// A broker that is not the controller dies: the break of its stream and the
/// refused connection fence it, before its session could expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_broker_is_fenced_on_proof() {
    let mut cluster = Cluster::new().await;
    cluster.session_timeout = Duration::from_secs(3600);
    cluster.start_all().await;
    let dead = cluster.follower().await.id;
    cluster.kill(dead).await;
    let leader = cluster.node(cluster.leader().await);
    leader.image_where("the fence", |image| !image.is_active(dead)).await;
}

/// The same for the leader, whose successor has only the advertised endpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_controller_probes_every_broker() {
    let mut cluster = Cluster::new().await;
    cluster.session_timeout = Duration::from_secs(3600);
    cluster.start_all().await;
    let dead = cluster.leader().await;
    cluster.kill(dead).await;
    let node = cluster.nodes.values().next().expect("two run");
    node.image_where("the fence", |image| !image.is_active(dead)).await;
}

/// One node of three decides nothing, and says so: the one that led steps down once
/// nobody answers it, so both know that they have done nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_changes_nothing() {
    for survivor_leads in [true, false] {
        let mut cluster = Cluster::formed().await;
        let leader = cluster.leader().await;
        let last = if survivor_leads { leader } else { cluster.follower().await.id };
        let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != last).collect();
        for id in &others {
            cluster.kill(*id).await;
        }
        let node = cluster.node(last);
        let leads = |status: &crate::QuorumStatus| status.leader == Some(last);
        node.quorum_where("no leader here", |status| !leads(status) && !status.active_here).await;
        let before = node.metadata.image();
        let request = CreateTopicRequest { name: "lonely".to_owned(), ..Default::default() };
        let deadline = Instant::now() + Duration::from_millis(500);
        let error = node.metadata.administer(request, deadline).await.expect_err("no majority");
        assert!(!error.is_indefinite(), "{error}");
        assert_eq!(node.metadata.image().topics, before.topics);
        // Nor does it answer from what may be old.
        let deadline = Instant::now() + Duration::from_millis(500);
        let error = node.metadata.current_image(deadline).await.expect_err("no majority");
        assert_eq!(error.reason, ErrorReason::ControllerNotAvailable, "{error}");
        assert!(!error.is_indefinite(), "{error}");
        // With a second node there is a majority again.
        cluster.start(others[0].0).await;
        let node = cluster.node(last);
        node.image_where("the third to be missed", |image| !image.is_active(others[1])).await;
        node.unfenced_here(&[last.0, others[0].0]).await;
        node.create("together").await.expect("two of three decide");
    }
}

/// A request that is sent again, to another node and another controller, is
/// answered as the first time and carried out once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_sent_again_is_carried_out_once() {
    let mut cluster = Cluster::formed().await;
    let deadline = Instant::now() + PATIENCE;
    let create = |id: u8| CreateTopicRequest {
        name: "orders".to_owned(),
        replication_factor: 3,
        request_id: vec![id; 16].into(),
        ..Default::default()
    };
    let delete = DeleteTopicRequest { name: "orders".to_owned(), request_id: vec![9; 16].into() };
    let first = cluster.follower().await.metadata.administer(create(1), deadline).await;
    let first = first.expect("creates").topic.expect("is described");

    let dead = cluster.leader().await;
    cluster.kill(dead).await;
    let alive: Vec<_> = cluster.nodes.values().collect();
    for node in &alive {
        let again = node.metadata.administer(create(1), deadline).await.expect("is known");
        assert_eq!(again.topic.expect("is described").topic_id, first.topic_id);
    }
    let gone = alive[0].metadata.administer(delete.clone(), deadline).await.expect("deletes");
    let second = alive[1].metadata.administer(create(2), deadline).await.expect("creates");
    let again = alive[1].metadata.administer(delete, deadline).await.expect("is known");
    assert_eq!((&gone.topic_id, &again.topic_id), (&first.topic_id, &first.topic_id));
    let image = alive[1].metadata.current_image(deadline).await.expect("two of three");
    let id = topic_id(&second.topic.expect("is described").topic_id);
    assert_eq!(image.topic_by_name("orders").map(|topic| topic.id), Some(id));

    let odd = CreateTopicRequest { request_id: vec![1; 3].into(), ..create(3) };
    let refused = alive[0].metadata.administer(odd, deadline).await.expect_err("3 bytes");
    assert_eq!(refused.reason, ErrorReason::InvalidRequest);
}

/// What one node has answered, every other sees at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_seen_from_every_node() {
    let cluster = Cluster::formed().await;
    let nodes: Vec<_> = cluster.nodes.values().collect();
    for round in 0..30 {
        let name = format!("topic-{round}");
        nodes[round % 3].create(&name).await.expect("creates");
        let deadline = Instant::now() + PATIENCE;
        for by in [1, 2] {
            let reader = &nodes[(round + by) % 3].metadata;
            let image = reader.current_image(deadline).await.expect("answers");
            assert!(image.topic_by_name(&name).is_some(), "round {round}");
        }
    }
}

/// A second process with the id of a broker that lives is refused, wherever
/// the controller is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_refused_while_the_first_lives() {
    use ottla_proto::internal::v1 as wire;
    use ottla_proto::internal::v1::controller_service_client::ControllerServiceClient;
    use ottla_proto::{ApiError, v1};
    let cluster = Cluster::formed().await;
    let leader = cluster.leader().await;
    let (host, port) = &cluster.voters[&leader];
    let mut client =
        ControllerServiceClient::connect(format!("http://{host}:{port}")).await.expect("connects");
    for node in cluster.nodes.values() {
        let options = cluster.options(node.id);
        let request = wire::RegisterBrokerRequest {
            min_feature_level: 1,
            max_feature_level: crate::records::FeatureLevel::NEWEST.0.into(),
            cluster_id: options.cluster_id,
            node_id: node.id.0,
            incarnation_id: options.incarnation_id.to_wire().into(),
            directory_id: options.directory_id.to_wire().into(),
            endpoint: Some(v1::Endpoint { host: host.clone(), port: (*port).into() }),
            rack: None,
            previous_broker_epoch: None,
        };
        let status = client.register_broker(request).await.expect_err("is refused");
        let error = ApiError::from_status(&status);
        assert_eq!(error.reason, ErrorReason::DuplicateBrokerRegistration, "{error}");
    }
    // Elsewhere the answer is who to ask.
    let other = cluster.follower().await.id;
    let (host, port) = &cluster.voters[&other];
    let mut client =
        ControllerServiceClient::connect(format!("http://{host}:{port}")).await.expect("connects");
    let alteration = wire::AlterPartitionRequest::default();
    let status = client.alter_partition(alteration).await.expect_err("not the controller");
    let error = ApiError::from_status(&status);
    assert_eq!(error.reason, ErrorReason::NotController);
    assert_eq!(error.leader.expect("a hint").node_id, leader);
}

/// All nodes stop and start again from their directories.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_restarts_from_its_directories() {
    let mut cluster = Cluster::formed().await;
    cluster.follower().await.create("kept").await.expect("creates");
    let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    for id in ids {
        cluster.kill(id).await;
    }
    cluster.start_all().await;
    for node in cluster.nodes.values() {
        let image = node.unfenced_here(&[1, 2, 3]).await;
        assert!(image.topic_by_name("kept").is_some());
    }
}

/// A voter that lost its disk is refused, unless `dev` says otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blank_disk_of_a_known_voter_is_refused() {
    let mut cluster = Cluster::formed().await;
    cluster.follower().await.create("kept").await.expect("creates");
    let lost = cluster.follower().await.id;
    cluster.kill(lost).await;
    cluster.lose_disk(lost);

    let mut blank = cluster.options(lost);
    blank.directory_id = DirectoryId::random();
    let error = cluster.start_with(blank.clone()).await.expect_err("is refused");
    assert!(matches!(error, MetadataError::BlankDiskOfKnownVoter { .. }), "{error}");
    assert!(error.to_string().starts_with("BLANK_DISK_OF_KNOWN_VOTER"), "{error}");

    // The two others go on.
    cluster.follower().await.create("meanwhile").await.expect("two of three decide");
    blank.replace_directory = true;
    blank.incarnation_id = IncarnationId::random();
    let directory = blank.directory_id;
    cluster.start_with(blank).await.expect("dev may replace a disk");
    let node = cluster.node(lost);
    node.image_where("what was lost", |i| i.topic_by_name("meanwhile").is_some()).await;
    let image = node.unfenced_here(&[1, 2, 3]).await;
    assert!(image.topic_by_name("kept").is_some());
    assert_eq!(image.voter_directories.get(&lost), Some(&directory));
}

/// A node that was away while the others purged their logs gets a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::new().await;
    cluster.limits = LogLimits { snapshot_every: 20, kept: 5, ..LogLimits::default() };
    cluster.start_all().await;
    let away = cluster.follower().await.id;
    let seen = cluster.node(away).last_log_index();
    cluster.kill(away).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    for index in 0..60 {
        let request = CreateTopicRequest {
            name: format!("topic-{index}"),
            replication_factor: 2,
            ..Default::default()
        };
        let deadline = Instant::now() + PATIENCE;
        node.metadata.administer(request, deadline).await.expect("creates");
    }
    // What it lacks is in no log any more.
    node.purged_beyond(seen).await;
    cluster.start(away.0).await;
    let node = cluster.node(away);
    node.image_where("what it missed", |image| image.topics.len() == 60).await;
    node.unfenced_here(&[1, 2, 3]).await;
}

/// A broker that leaves in order loses its leaderships first, and the quorum's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controlled_shutdown_hands_everything_over() {
    let mut cluster = Cluster::formed().await;
    let created = cluster.follower().await.create("orders").await.expect("creates");
    let id = topic_id(&created.topic.expect("is described").topic_id);
    let leaving = cluster.leader().await;
    let node = cluster.node(leaving);
    node.metadata.controlled_shutdown(PATIENCE).await.expect("gets leave");
    let image = node.metadata.image();
    let leaders: BTreeSet<_> = image.partitions_of(id).map(|(_, p)| p.leader).collect();
    assert!(!leaders.contains(&Some(leaving)), "{leaders:?}");
    assert!(!leaders.contains(&None), "{leaders:?}");
    node.quorum_where("another leader", |s| s.leader.is_some_and(|l| l != leaving)).await;
    let epoch = node.epoch();
    cluster.kill(leaving).await;

    let mut options = cluster.options(leaving);
    options.previous_broker_epoch = Some(epoch);
    cluster.start_with(options).await.expect("joins");
    cluster.node(leaving).unfenced_here(&[1, 2, 3]).await;
    assert!(cluster.node(leaving).epoch() > epoch);
}

/// A leader's ISR proposal goes to the controller from wherever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isr_changes_reach_the_controller() {
    let cluster = Cluster::formed().await;
    let created = cluster.follower().await.create("orders").await.expect("creates");
    let id = topic_id(&created.topic.expect("is described").topic_id);
    for node in cluster.nodes.values() {
        let image = node.image_where("the topic", |image| image.topics.contains_key(&id)).await;
        let led = image.partitions_of(id).find(|(_, p)| p.leader == Some(node.id));
        let Some((partition, state)) = led else { continue };
        let alteration = PartitionAlteration {
            partition,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            new_isr: vec![(node.id, node.epoch())],
            recovered: true,
        };
        let outcomes =
            node.metadata.alter_partition(vec![alteration.clone()]).await.expect("is decided");
        let changed = outcomes[0].result.as_ref().expect("is taken");
        assert_eq!(changed.isr, vec![node.id]);
        assert_eq!(changed.partition_epoch, PartitionEpoch(state.partition_epoch.0 + 1));
        node.image_where("the ISR", |i| i.partitions[&partition].isr == [node.id]).await;
        // The same again is about a state that is gone.
        let outcomes = node.metadata.alter_partition(vec![alteration]).await.expect("is decided");
        let error = outcomes[0].result.as_ref().expect_err("is stale");
        assert_eq!(error.reason, ErrorReason::InvalidUpdateVersion);
        assert_eq!(changed.leader_epoch, LeaderEpoch(state.leader_epoch.0));
    }
}

/// A report of a failed disk reaches the controller from wherever it is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_replicas_reach_the_controller() {
    let cluster = Cluster::formed().await;
    let created = cluster.follower().await.create("orders").await.expect("creates");
    let id = topic_id(&created.topic.expect("is described").topic_id);
    for node in cluster.nodes.values() {
        let image = node.image_where("the topic", |image| image.topics.contains_key(&id)).await;
        let (partition, _) = image.partitions_of(id).next().expect("a partition");
        node.metadata.report_offline(vec![partition]).await.expect("is taken");
        node.image_where("the report", |image| {
            image.is_offline(node.id, partition)
                && image.partitions[&partition].leader != Some(node.id)
        })
        .await;
    }
}

/// Every node gets producer ids of its own, wherever the controller is, and a new
/// controller knows which are taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_ids_are_given_to_one_node() {
    let mut cluster = Cluster::formed().await;
    let mut taken = std::collections::BTreeSet::new();
    for round in 0..2 {
        for node in cluster.nodes.values() {
            node.unfenced_here(&[node.id.0]).await;
            let deadline = Instant::now() + PATIENCE;
            let ids = node.metadata.allocate_producer_ids(deadline).await.expect("is given some");
            assert!(!ids.is_empty() && ids.into_iter().all(|id| taken.insert(id)), "{round}");
        }
        if round == 0 {
            let controller = cluster.leader().await;
            cluster.kill(controller).await;
        }
    }
    assert_eq!(taken.len() as i64, 5 * crate::controller::PRODUCER_ID_BLOCK);
}

/// Raft's calls of another cluster, or meant for another node, are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    use ottla_proto::internal::v1 as wire;
    use ottla_proto::internal::v1::raft_service_client::RaftServiceClient;
    let cluster = Cluster::new().await;
    let node = cluster.open(NodeId(1), cluster.options(NodeId(1))).await;
    let (host, port) = &cluster.voters[&NodeId(1)];
    let mut client =
        RaftServiceClient::connect(format!("http://{host}:{port}")).await.expect("connects");
    let request = |cluster_id: &str, target_node_id| wire::VoteRequest {
        cluster_id: cluster_id.to_owned(),
        target_node_id,
        payload: Vec::new().into(),
    };
    let code = client.vote(request("other", 1)).await.expect_err("wrong cluster").code();
    assert_eq!(code, tonic::Code::FailedPrecondition);
    let code = client.vote(request("test-cluster", 2)).await.expect_err("wrong node").code();
    assert_eq!(code, tonic::Code::FailedPrecondition);
    // Not in the quorum yet: nothing but introductions.
    let code = client.vote(request("test-cluster", 1)).await.expect_err("not joined").code();
    assert_eq!(code, tonic::Code::Unavailable);
    let introduce = wire::IntroduceRequest {
        cluster_id: "test-cluster".to_owned(),
        node_id: 2,
        directory_id: DirectoryId::random().to_wire().into(),
        replace_directory: false,
        endpoint: None,
        has_log: false,
    };
    let standing = client.introduce(introduce).await.expect("answers").into_inner().standing();
    assert_eq!(standing, wire::introduce_response::Standing::Blank);
    node.stop().await;
}

/// Where the leader's end is proven nobody waits for an election timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_succeeded_without_an_election_timeout() {
    let mut cluster = Cluster::new().await;
    cluster.election = Duration::from_secs(3600);
    cluster.start_all().await;
    for node in cluster.nodes.values() {
        // The last thing that forming a cluster writes: now all logs are equal.
        node.image_where("directories", |image| image.voter_directories.len() == 3).await;
    }
    let dead = cluster.leader().await;
    cluster.kill(dead).await;
    for node in cluster.nodes.values() {
        node.quorum_where("a successor", |s| s.leader.is_some_and(|l| l != dead)).await;
    }
    cluster.follower().await.create("soon").await.expect("two of three decide");
}

/// A majority of blank nodes forms the quorum, also if one of them has
/// initialised itself before another asks; the third finds it formed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_forms_and_the_rest_joins() {
    let mut cluster = Cluster::new().await;
    let (first, second) = (NodeId(1), NodeId(2));
    let a = cluster.open(first, cluster.options(first)).await;
    let b = cluster.open(second, cluster.options(second)).await;
    a.metadata.join().await.expect("sees a majority of blank nodes");
    b.metadata.join().await.expect("sees one that has only initialised itself");
    cluster.nodes.extend([(first, a), (second, b)]);
    cluster.node(first).unfenced_here(&[1, 2]).await;
    cluster.start(3).await;
    cluster.node(NodeId(3)).unfenced_here(&[1, 2, 3]).await;
    cluster.node(NodeId(3)).create("together").await.expect("creates");
}
