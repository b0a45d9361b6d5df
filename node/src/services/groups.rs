//! `GroupService`: consumer groups, decided by the coordinator of each.

use super::{Context, group_wire as wire};
use crate::deadline;
use crate::ends::Ends;
use futures::stream::{self, StreamExt};
use ottla_coordinator::groups::{Commit, Committer, GroupError, GroupId};
use ottla_coordinator::{Answer, Coordinator, Refusal, Request as Ask};
use ottla_metadata::controller::GROUPS_TOPIC;
use ottla_metadata::image::Image;
use ottla_proto::v1::group_service_server::GroupService;
use ottla_proto::v1::{self, ErrorReason as R};
use ottla_proto::{ApiError, PartitionId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// How long leaders are asked whether offsets of a commit are beyond their ends: many round
/// trips, and short beside a member's session.
const ENDS_PATIENCE: Duration = Duration::from_millis(500);

/// Leaders asked at the same time for one commit.
const ENDS_AT_ONCE: usize = 32;

/// The service.
#[derive(Clone)]
pub(crate) struct Groups {
    pub(crate) context: Context,
    pub(crate) coordinator: Coordinator,
    pub(crate) ends: Arc<Ends>,
}

impl Groups {
    fn image(&self) -> Arc<Image> {
        self.context.metadata.image()
    }

    /// The partition of a group. The first one ever asked for has the topic created.
    async fn place(&self, group: &str, deadline: Instant) -> Result<PartitionId, ApiError> {
        wire::check_group(group)?;
        if let Some(id) = Coordinator::partition_of(&self.image(), group) {
            return Ok(id);
        }
        let request =
            v1::CreateTopicRequest { name: GROUPS_TOPIC.to_owned(), ..Default::default() };
        match self.context.metadata.administer(request, deadline).await {
            Ok(_) => {}
            Err(error) if error.reason == R::TopicAlreadyExists => {}
            Err(error) => return Err(error),
        }
        let image = self.context.metadata.current_image(deadline).await?;
        Coordinator::partition_of(&image, group).ok_or_else(|| {
            let message = format!("`{GROUPS_TOPIC}` was created, and is not there");
            ApiError::new(R::CoordinatorNotAvailable, message)
        })
    }

    /// Asks the group's coordinator, if this node is that.
    async fn ask(&self, group: &str, deadline: Instant, request: Ask) -> Result<Answer, ApiError> {
        self.place(group, deadline).await?;
        let answer = tokio::time::timeout_at(deadline, self.coordinator.ask(group, request));
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Refusal::Node(error))) => Err(error),
            Ok(Err(Refusal::Group(error))) => Err(wire::refusal(&error)),
            Err(_) => {
                let message = "the group's coordinator did not answer in time";
                Err(ApiError::new(R::RequestTimedOut, message))
            }
        }
    }

    /// That no offset is beyond the end of its partition. One whose partition has no leader
    /// that answers is taken: a group must be able to go on in all others
    /// (docs/decisions/0044).
    async fn check_ends(&self, commits: &[Commit], deadline: Instant) -> Result<(), ApiError> {
        let deadline = deadline.min(Instant::now() + ENDS_PATIENCE);
        let image = &self.image();
        // Owned: how long a borrow within a stream lives cannot be told to the compiler.
        let checked = commits.iter().cloned().map(|commit| async move {
            let (id, offset) = (commit.partition, commit.offset);
            if self.ends.is_committed(id, offset).await {
                return Ok(());
            }
            match self.ends.look(image, id, offset, deadline).await {
                Ok(place) if offset > place.high_watermark => {
                    Err(wire::beyond_the_end(image, &commit, place.high_watermark))
                }
                Ok(_) => Ok(()),
                Err(error) => {
                    tracing::debug!(partition = %id, %error, "a commit is taken unchecked");
                    Ok(())
                }
            }
        });
        let mut checked = stream::iter(checked).buffered(ENDS_AT_ONCE);
        while let Some(check) = checked.next().await {
            check?;
        }
        Ok(())
    }

    /// What is to be committed, by whom. Members take UNKNOWN_PARTITION for the end of a
    /// partition: nobody may be told so who asks a node that has only not heard of it yet.
    async fn commits(
        &self,
        request: &v1::CommitOffsetsRequest,
        deadline: Instant,
    ) -> Result<(Committer, Vec<Commit>), ApiError> {
        match wire::commits(&self.image(), request) {
            Err(error) if error.reason == R::UnknownPartition => {
                wire::commits(&*self.context.metadata.current_image(deadline).await?, request)
            }
            commits => commits,
        }
    }

    async fn group(&self, group: &str, deadline: Instant) -> Result<Answer, ApiError> {
        self.ask(group, deadline, Ask::Get(GroupId::from(group))).await
    }
}

#[tonic::async_trait]
impl GroupService for Groups {
    async fn find_coordinator(
        &self,
        request: Request<v1::FindCoordinatorRequest>,
    ) -> Result<Response<v1::FindCoordinatorResponse>, Status> {
        let deadline = deadline::of(request.metadata(), 0);
        let id = self.place(&request.into_inner().group, deadline).await?;
        let image = self.image();
        let leader = image.partitions.get(&id).and_then(|partition| partition.leader);
        let broker = leader.and_then(|node| image.brokers.get(&node)).ok_or_else(|| {
            ApiError::new(R::CoordinatorNotAvailable, "the group has no coordinator at the moment")
        })?;
        let endpoint = v1::Endpoint { host: broker.host.clone(), port: u32::from(broker.port) };
        Ok(Response::new(v1::FindCoordinatorResponse {
            header: self.context.header(),
            node_id: broker.node_id.0,
            endpoint: Some(endpoint),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let deadline = deadline::of(request.metadata(), 0);
        let beat = wire::heartbeat(request.into_inner())?;
        let group = Arc::clone(&beat.group);
        let answer = self.ask(&group, deadline, Ask::Heartbeat(beat)).await?;
        let Answer::Heartbeat(answer, heartbeat_interval_ms) = answer else {
            return Err(unexpected().into());
        };
        let image = self.image();
        let assignment = answer
            .assignment
            .map(|owned| v1::OwnedPartitions { topics: wire::partitions(&image, &owned) });
        Ok(Response::new(v1::HeartbeatResponse {
            header: self.context.header(),
            member_epoch: answer.epoch,
            heartbeat_interval_ms,
            assignment,
            session_timeout_ms: self.coordinator.options().lease_ms(),
        }))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let deadline = deadline::of(request.metadata(), 0);
        let request = request.into_inner();
        let group = GroupId::from(request.group.as_str());
        self.place(&group, deadline).await?;
        self.coordinator.check(&group)?;
        let (committer, commits) = self.commits(&request, deadline).await?;
        if let Err(beyond) = self.check_ends(&commits, deadline).await {
            // Who may not commit at all is told that first: it has to join again.
            let nothing = Ask::Commit(Arc::clone(&group), committer, Vec::new());
            self.ask(&group, deadline, nothing).await?;
            return Err(beyond.into());
        }
        let ask = Ask::Commit(Arc::clone(&group), committer, commits);
        self.ask(&group, deadline, ask).await?;
        Ok(Response::new(v1::CommitOffsetsResponse { header: self.context.header() }))
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        let deadline = deadline::of(request.metadata(), 0);
        let request = request.into_inner();
        let wanted = wire::wanted(&request.partitions)?;
        let found = match self.group(&request.group, deadline).await {
            Ok(Answer::Group(group)) => group,
            Ok(_) => return Err(unexpected().into()),
            // Nobody has committed yet: that is no error to who begins to read.
            Err(error) if error.reason == R::UnknownGroup => Box::default(),
            Err(error) => return Err(error.into()),
        };
        let asked = |id: &PartitionId| wanted.is_empty() || wanted.contains(id);
        let image = self.image();
        let offsets = found.offsets.iter().filter(|(id, _)| asked(id));
        let offsets = offsets.map(|(id, fact)| wire::committed(&image, *id, fact)).collect();
        let appeared = wire::partitions(&image, &wire::appeared(&found, &wanted));
        let header = self.context.header();
        Ok(Response::new(v1::FetchOffsetsResponse { header, offsets, appeared }))
    }

    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let mut groups = Vec::new();
        for answer in self.coordinator.ask_all(|| Ask::List).await {
            let Answer::Groups(all) = answer else { return Err(unexpected().into()) };
            groups.extend(all.iter().map(|(id, group)| v1::ListedGroup {
                group: id.to_string(),
                state: wire::state(group).into(),
                members: u32::try_from(group.members.len()).unwrap_or(u32::MAX),
            }));
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(Response::new(v1::ListGroupsResponse { header: self.context.header(), groups }))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        let deadline = deadline::of(request.metadata(), 0);
        let name = request.into_inner().group;
        let Answer::Group(group) = self.group(&name, deadline).await? else {
            return Err(unexpected().into());
        };
        let mut described = wire::describe(&self.image(), &name, &group);
        described.header = self.context.header();
        Ok(Response::new(described))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let deadline = deadline::of(request.metadata(), 0);
        let group = GroupId::from(request.into_inner().group);
        self.ask(&group, deadline, Ask::Delete(Arc::clone(&group))).await?;
        Ok(Response::new(v1::DeleteGroupResponse { header: self.context.header() }))
    }
}

/// A shard answered another question than it was asked.
fn unexpected() -> ApiError {
    wire::refusal(&GroupError::Invalid("the coordinator gave another answer".to_owned()))
}
