//! The coordinator of groups: node 1, with the groups of a real one in memory.

use super::{Node, R, TOPIC};
use ottla_coordinator::groups::testing::FakeTopics;
use ottla_coordinator::groups::{
    Commit, Committer, Departure, Fact, GroupError, GroupOptions, Groups, Heartbeat, Now,
    OffsetFact, Topics,
};
use ottla_proto::{ApiError, PartitionId, TopicId, v1};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};
use v1::group_service_server::GroupService;
use v1::heartbeat_request::Departure as Leaves;

pub(crate) const TOPIC_ID: [u8; 16] = [7; 16];

/// A member is heard of so often, and waited for so long: tests are short.
const HEARTBEAT_MS: u32 = 50;
pub(crate) const SESSION: Duration = Duration::from_millis(1_000);

/// The groups, and the one topic.
pub(crate) struct Coordinator {
    groups: Groups,
    begun: Instant,
    /// Says nothing to heartbeats.
    pub(crate) silent: bool,
    /// Refuses the next heartbeats.
    pub(crate) refuse: Vec<ApiError>,
    pub(crate) heartbeats: usize,
    pub(crate) commits: usize,
}

impl Default for Coordinator {
    fn default() -> Self {
        let session_timeout_ms = u32::try_from(SESSION.as_millis()).expect("a second");
        let confirmation_ms = 0;
        let options =
            GroupOptions { session_timeout_ms, confirmation_ms, ..GroupOptions::default() };
        Self {
            groups: Groups::new(options),
            begun: Instant::now(),
            silent: false,
            refuse: Vec::new(),
            heartbeats: 0,
            commits: 0,
        }
    }
}

fn topic_id() -> TopicId {
    TopicId::from_wire(&TOPIC_ID).expect("16 bytes")
}

impl Coordinator {
    fn now(&self) -> Now {
        let monotonic = u64::try_from(self.begun.elapsed().as_millis()).expect("a short test");
        Now { monotonic, wall_ms: monotonic }
    }

    fn write(&mut self, facts: &[Fact]) {
        facts.iter().for_each(|fact| self.groups.replay(fact));
        let now = self.now();
        self.groups.settle(facts, now);
    }

    fn expire(&mut self, topics: &FakeTopics) {
        let facts = self.groups.expire(topics, self.now(), 100);
        self.write(&facts);
        let facts = self.groups.follow_topics(topics, self.now(), 100);
        self.write(&facts);
    }

    /// How far a group is in a partition.
    pub(crate) fn committed(&self, group: &str, index: u32) -> Option<u64> {
        let id = PartitionId { topic: topic_id(), index };
        Some(self.groups.get(group).ok()?.offsets.get(&id)?.offset)
    }

    /// Names of instances, or ids, of the members of a group.
    pub(crate) fn members(&self, group: &str) -> Vec<String> {
        let Ok(group) = self.groups.get(group) else { return Vec::new() };
        let name = |(id, member): (&Arc<str>, &ottla_coordinator::groups::Member)| {
            member.fact.instance_id.clone().unwrap_or_else(|| id.to_string())
        };
        group.members.iter().map(name).collect()
    }
}

fn refusal(error: GroupError) -> ApiError {
    let reason = match error {
        GroupError::UnknownMember(_) => R::UnknownMember,
        GroupError::UnknownGroup => R::UnknownGroup,
        GroupError::FencedMemberEpoch { .. } => R::FencedMemberEpoch,
        GroupError::StaleMemberEpoch { .. } => R::StaleMemberEpoch,
        GroupError::UnreleasedInstance { .. } => R::UnreleasedInstance,
        GroupError::FencedInstance { .. } => R::FencedInstance,
        GroupError::InvalidPattern { .. } => R::InvalidSubscription,
        GroupError::NotEmpty { .. } => R::GroupNotEmpty,
        _ => R::InvalidRequest,
    };
    ApiError::new(reason, error.to_string())
}

fn ids(listed: &[v1::TopicPartitions]) -> BTreeSet<PartitionId> {
    let of = |index: &u32| PartitionId { topic: topic_id(), index: *index };
    listed.iter().flat_map(|topic| topic.partitions.iter().map(of)).collect()
}

fn listed(ids: BTreeSet<PartitionId>) -> v1::TopicPartitions {
    v1::TopicPartitions {
        topic_id: TOPIC_ID.to_vec().into(),
        topic: TOPIC.to_owned(),
        partitions: ids.into_iter().map(|id| id.index).collect(),
    }
}

fn committed(id: PartitionId, fact: &OffsetFact) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: TOPIC.to_owned(),
        topic_id: TOPIC_ID.to_vec().into(),
        partition: id.index,
        offset: fact.offset,
        ..Default::default()
    }
}

fn heartbeat(request: v1::HeartbeatRequest) -> Heartbeat {
    let subscription =
        |wanted: v1::Subscription| (wanted.topics.into_iter().collect(), wanted.pattern);
    Heartbeat {
        group: request.group.into(),
        member: request.member_id.into(),
        epoch: request.member_epoch,
        departure: match request.departure {
            Some(Leaves::Leave(_)) => Some(Departure::Leave),
            Some(Leaves::Pause(_)) => Some(Departure::Pause),
            None => None,
        },
        instance_id: request.instance_id,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscription: request.subscription.map(subscription),
        owned: request.owned.map(|owned| ids(&owned.topics)),
        sequence: request.sequence,
        ..Heartbeat::default()
    }
}

impl Node {
    fn not_refused(&self) -> Result<FakeTopics, ApiError> {
        let mut state = self.cluster.state.lock();
        if let Some(error) = state.coordinator.refuse.pop() {
            return Err(error);
        }
        drop(state);
        Ok(self.topics())
    }

    /// The one topic, unless it is gone.
    fn topics(&self) -> FakeTopics {
        let state = self.cluster.state.lock();
        let shape = (topic_id(), state.leaders.len() as u32);
        let topic = (!state.topic_is_gone).then(|| (TOPIC.to_owned(), shape));
        FakeTopics(topic.into_iter().collect())
    }
}

#[tonic::async_trait]
impl GroupService for Node {
    async fn find_coordinator(
        &self,
        _: Request<v1::FindCoordinatorRequest>,
    ) -> Result<Response<v1::FindCoordinatorResponse>, Status> {
        let endpoint = self.cluster.state.lock().endpoints[0].clone();
        let (host, port) = (endpoint.host().to_owned(), endpoint.port().into());
        let endpoint = Some(v1::Endpoint { host, port });
        Ok(Response::new(v1::FindCoordinatorResponse { header: None, node_id: 1, endpoint }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let topics = self.not_refused()?;
        if self.cluster.state.lock().coordinator.silent {
            return Err(Status::unavailable("nothing to be heard"));
        }
        let mut state = self.cluster.state.lock();
        let coordinator = &mut state.coordinator;
        coordinator.heartbeats += 1;
        coordinator.expire(&topics);
        let (beat, now) = (heartbeat(request.into_inner()), coordinator.now());
        let (facts, answer) = coordinator.groups.heartbeat(&beat, &topics, now).map_err(refusal)?;
        coordinator.write(&facts);
        coordinator.groups.heard(&beat.group, &beat.member, now);
        let assignment =
            answer.assignment.map(|ids| v1::OwnedPartitions { topics: vec![listed(ids)] });
        Ok(Response::new(v1::HeartbeatResponse {
            header: None,
            member_epoch: answer.epoch,
            heartbeat_interval_ms: HEARTBEAT_MS,
            assignment,
            session_timeout_ms: u32::try_from(SESSION.as_millis()).expect("a second"),
        }))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let topics = self.topics();
        let request = request.into_inner();
        let mut state = self.cluster.state.lock();
        let coordinator = &mut state.coordinator;
        let committer = match request.member_id {
            Some(member) => Committer::Member(member.into(), request.member_epoch),
            None => Committer::Anybody,
        };
        let commit = |one: v1::OffsetCommit| {
            if one.partition >= topics.partitions(topic_id()) {
                return Err(ApiError::new(R::UnknownPartition, "no such partition"));
            }
            let partition = PartitionId { topic: topic_id(), index: one.partition };
            let (offset, metadata) = (one.offset, one.metadata);
            Ok(Commit { partition, offset, leader_epoch: None, metadata })
        };
        let commits = request.offsets.into_iter().map(commit).collect::<Result<Vec<_>, _>>()?;
        let now = coordinator.now();
        let group = request.group.as_str().into();
        let facts = coordinator.groups.commit(&group, &committer, commits, now).map_err(refusal)?;
        coordinator.write(&facts);
        coordinator.commits += 1;
        Ok(Response::new(v1::CommitOffsetsResponse { header: None }))
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        let request = request.into_inner();
        let wanted = ids(&request.partitions);
        let state = self.cluster.state.lock();
        let found = state.coordinator.groups.get(&request.group).ok();
        let all = found.iter().flat_map(|group| &group.offsets);
        let asked = all.filter(|(id, _)| wanted.is_empty() || wanted.contains(id));
        let offsets = asked.map(|(id, fact)| committed(*id, fact));
        let offsets = offsets.collect();
        let appeared = found.iter().flat_map(|group| {
            let is_new =
                |id: &&PartitionId| group.has_appeared(**id) && !group.offsets.contains_key(*id);
            wanted.iter().filter(is_new)
        });
        let appeared = vec![listed(appeared.copied().collect())];
        Ok(Response::new(v1::FetchOffsetsResponse { header: None, offsets, appeared }))
    }

    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        let group = request.into_inner().group;
        let state = self.cluster.state.lock();
        let found = state.coordinator.groups.get(&group).map_err(refusal)?;
        let offsets = found.offsets.iter().map(|(id, fact)| committed(*id, fact)).collect();
        Ok(Response::new(v1::DescribeGroupResponse { group, offsets, ..Default::default() }))
    }

    async fn delete_group(
        &self,
        _: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }
}
