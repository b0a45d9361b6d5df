//! The groups of this node: one shard for each partition of the internal topic that it
//! hosts, and whom to ask about a group.

use crate::groups::{GroupError, GroupOptions};
use crate::node_members::NodeMembers;
use crate::shard::{self, Answer, Asked, Request};
use ottla_metadata::controller::GROUPS_TOPIC;
use ottla_metadata::image::Image;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, PartitionId};
use ottla_replication::Replicas;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Requests that wait for a shard: what comes in while one write is committed. More
/// would only wait longer than their callers do.
const MAILBOX_REQUESTS: usize = 4096;

/// Why a request was not carried out.
#[derive(Debug)]
pub enum Refusal {
    /// It is not to be carried out; nothing was changed.
    Group(GroupError),
    /// Ask elsewhere, or later; the error says whether it may have been carried out.
    Node(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Node(error)
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        Self::Group(error)
    }
}

/// The coordinator of the groups whose partitions this node leads.
#[derive(Clone)]
pub struct Coordinator(Arc<Inner>);

struct Inner {
    replicas: Replicas,
    options: GroupOptions,
    members: NodeMembers,
    shards: Mutex<BTreeMap<PartitionId, mpsc::Sender<Asked>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Coordinator {
    /// Begins to follow what this node hosts. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(replicas: Replicas, options: GroupOptions) -> Self {
        let inner = Inner {
            replicas,
            options,
            members: NodeMembers::default(),
            shards: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let coordinator = Self(Arc::new(inner));
        coordinator.0.tasks.spawn(follow(coordinator.clone()));
        coordinator
    }

    /// Bounds and times.
    #[must_use]
    pub fn options(&self) -> &GroupOptions {
        &self.0.options
    }

    /// Ends all shards. What was asked and not answered is answered with an error.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.shards().clear();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn shards(&self) -> std::sync::MutexGuard<'_, BTreeMap<PartitionId, mpsc::Sender<Asked>>> {
        // Nothing is left half done while it is held.
        self.0.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition that a group belongs to; `None` while there is no such topic.
    #[must_use]
    pub fn partition_of(image: &Image, group: &str) -> Option<PartitionId> {
        let topic = image.topic_by_name(GROUPS_TOPIC)?;
        Some(PartitionId { topic: topic.id, index: bucket(group, topic.partitions) })
    }

    /// Asks about one group.
    ///
    /// # Errors
    /// `NOT_COORDINATOR`, with who is; `COORDINATOR_NOT_AVAILABLE`; `OVERLOADED`; what the
    /// group says. It waits while groups are read: the caller sets a deadline.
    pub async fn ask(&self, group: &str, request: Request) -> Result<Answer, Refusal> {
        let image = Arc::clone(&self.0.replicas.images().borrow());
        let id = Self::partition_of(&image, group)
            .ok_or_else(|| not_available("there are no groups yet"))?;
        self.ask_shard(id, request).await
    }

    /// That this node coordinates a group: what to find out first, where work comes before
    /// [`ask`](Self::ask).
    ///
    /// # Errors
    /// `NOT_COORDINATOR`, with who does.
    pub fn check(&self, group: &str) -> Result<(), ApiError> {
        let image = Arc::clone(&self.0.replicas.images().borrow());
        match Self::partition_of(&image, group) {
            Some(id) if self.leads(id) => Ok(()),
            Some(id) => Err(self.not_coordinator(id)),
            None => Err(not_available("there are no groups yet")),
        }
    }

    /// Asks every shard that this node is in charge of.
    pub async fn ask_all(&self, request: impl Fn() -> Request) -> Vec<Answer> {
        let ids: Vec<PartitionId> = self.shards().keys().copied().collect();
        let mut answers = Vec::new();
        for id in ids {
            if self.leads(id)
                && let Ok(answer) = self.ask_shard(id, request()).await
            {
                answers.push(answer);
            }
        }
        answers
    }

    async fn ask_shard(&self, id: PartitionId, request: Request) -> Result<Answer, Refusal> {
        if !self.leads(id) {
            return Err(self.not_coordinator(id).into());
        }
        let shard = self.shards().get(&id).cloned();
        let shard = shard.ok_or_else(|| self.not_coordinator(id))?;
        let (reply, answer) = oneshot::channel();
        if let Err(error) = shard.try_send(Asked { request, reply }) {
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => overloaded().into(),
                mpsc::error::TrySendError::Closed(_) => self.not_coordinator(id).into(),
            });
        }
        answer.await.unwrap_or_else(|_| {
            let message = "the coordinator was stopped before it answered";
            Err(ApiError::new(R::LeadershipLost, message).into())
        })
    }

    fn leads(&self, id: PartitionId) -> bool {
        self.0.replicas.status(id).is_some_and(|state| state.leading().is_some())
    }

    fn not_coordinator(&self, id: PartitionId) -> ApiError {
        not_coordinator(&self.0.replicas, id)
    }
}

/// Whom to ask instead.
pub(crate) fn not_coordinator(replicas: &Replicas, id: PartitionId) -> ApiError {
    let hint = replicas.leader_of(id);
    let message = match &hint {
        Some(leader) => format!("node {} coordinates this group", leader.node_id),
        None => "this group has no coordinator at the moment".to_owned(),
    };
    ApiError::new(R::NotCoordinator, message).with_leader(hint)
}

fn not_available(message: &str) -> ApiError {
    ApiError::new(R::CoordinatorNotAvailable, message)
}

fn overloaded() -> ApiError {
    let message =
        format!("{MAILBOX_REQUESTS} requests wait for the groups of this partition already");
    ApiError::new(R::Overloaded, message)
}

/// Which of so many partitions: by FNV-1a, which every client can compute if it wants
/// to ask the right node at once.
fn bucket(group: &str, partitions: u32) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    group.as_bytes().iter().fold(0x811c_9dc5, step) % partitions.max(1)
}

/// A shard for each partition that this node hosts, as long as it does.
async fn follow(coordinator: Coordinator) {
    let mut images = coordinator.0.replicas.images();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let topic = image.topic_by_name(GROUPS_TOPIC).map(|topic| topic.id);
        let hosted = topic.iter().flat_map(|topic| image.partitions_of(*topic));
        let hosted: Vec<PartitionId> = hosted
            .map(|(id, _)| id)
            .filter(|id| coordinator.0.replicas.watch(*id).is_some())
            .collect();
        {
            let mut shards = coordinator.shards();
            shards.retain(|id, shard| hosted.contains(id) && !shard.is_closed());
            for id in hosted {
                shards.entry(id).or_insert_with(|| begin(&coordinator.0, id));
            }
        }
        tokio::select! {
            () = coordinator.0.stop.cancelled() => return,
            changed = images.changed() => if changed.is_err() { return },
        }
    }
}

fn begin(inner: &Arc<Inner>, id: PartitionId) -> mpsc::Sender<Asked> {
    let (shard, mailbox) = mpsc::channel(MAILBOX_REQUESTS);
    let (replicas, options) = (inner.replicas.clone(), inner.options);
    let members = inner.members.clone();
    let stop = inner.stop.clone();
    inner.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = shard::run(replicas, id, options, members, mailbox) => {}
        }
    });
    shard
}
