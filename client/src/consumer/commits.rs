//! The task that commits, one request after the other, so that of two commits the later
//! one holds.
//!
//! What is committed is checked against the shelf before each attempt: an offset of a
//! partition that was lost meanwhile must not be written over its new reader's.

use super::coordinator::CoordinatorLink;
use super::member::Command;
use super::shared::Shared;
use super::shelf::{Held, Progress};
use super::types::ConsumerError;
use crate::ClientError;
use crate::backoff::{Backoff, Deadline};
use ottla_proto::v1::{self, ErrorReason as R};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Requests that wait for the one before: they are committed together.
pub(super) const COMMITS_WAITING: usize = 1024;

/// Partitions of one request: what a node takes.
const COMMITS_AT_ONCE: usize = 1_000;

/// What a commit waits for that was refused because the member's epoch has changed.
const EPOCH_PATIENCE: Duration = Duration::from_secs(5);

pub(super) type Outcome = Result<(), ConsumerError>;

/// What is asked of the task.
pub(super) enum Asked {
    /// Commit these, and say how it went.
    Commit(Vec<Progress>, oneshot::Sender<Outcome>),
    /// Commit what is processed.
    Now,
    /// Commit what of these is processed, unless only the application commits, and give
    /// them back.
    Release(Vec<Held>),
}

pub(super) struct Committer {
    shared: Weak<Shared>,
    link: CoordinatorLink,
}

/// Runs as long as the consumer.
pub(super) async fn run(
    shared: Weak<Shared>,
    link: CoordinatorLink,
    every: Option<Duration>,
    mut asked: mpsc::Receiver<Asked>,
) {
    let committer = Committer { shared, link };
    let mut waiting = Vec::new();
    let mut next = every.map(|every| Instant::now() + every);
    loop {
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            count = asked.recv_many(&mut waiting, COMMITS_WAITING) => if count == 0 { return },
            () = due => {
                next = every.map(|every| Instant::now() + every);
                waiting.push(Asked::Now);
            }
        }
        let Some(shared) = committer.shared.upgrade() else { return };
        committer.carry_out(&shared, std::mem::take(&mut waiting)).await;
    }
}

impl Committer {
    /// All that waits, as one.
    async fn carry_out(&self, shared: &Arc<Shared>, asked: Vec<Asked>) {
        let mut all: BTreeMap<Held, u64> = BTreeMap::new();
        let (mut replies, mut released) = (Vec::new(), Vec::new());
        let automatic = shared.options.auto_commit.is_some();
        for one in asked {
            let (progress, reply) = match one {
                Asked::Commit(progress, reply) => (progress, Some(reply)),
                Asked::Now => (shared.shelf.lock().processed(), None),
                Asked::Release(held) => {
                    let progress = shared.shelf.lock().release(&held);
                    released.extend(held);
                    (if automatic { progress } else { Vec::new() }, None)
                }
            };
            let named: Vec<Held> = progress.iter().map(|p| p.held.clone()).collect();
            all.extend(progress.into_iter().map(|p| (p.held, p.offset)));
            replies.extend(reply.map(|reply| (reply, named)));
        }
        let progress: Vec<Progress> =
            all.into_iter().map(|(held, offset)| Progress { held, offset }).collect();
        let mut outcome = Ok(());
        for part in progress.chunks(COMMITS_AT_ONCE) {
            outcome = outcome.and(self.commit(shared, part).await);
        }
        if let Err(error) = &outcome {
            tracing::debug!(%error, "not committed");
        }
        for (reply, named) in replies {
            let lost: Vec<Held> = {
                let shelf = shared.shelf.lock();
                named.into_iter().filter(|held| !shelf.is_held(held)).collect()
            };
            let outcome = match (&outcome, lost.is_empty()) {
                (Ok(()), false) => Err(not_assigned(lost)),
                (outcome, _) => outcome.clone(),
            };
            // Fails when nobody waits for it any more.
            let _ = reply.send(outcome);
        }
        if !released.is_empty() {
            let ids = shared.remove(&released);
            // Fails when the member is gone, and with it what it held.
            let _ = shared.commands.send(Command::Released(ids)).await;
        }
    }

    async fn commit(&self, shared: &Arc<Shared>, progress: &[Progress]) -> Outcome {
        let deadline = shared.client.deadline();
        let mut backoff = Backoff::default();
        loop {
            let held: Vec<&Progress> = {
                let shelf = shared.shelf.lock();
                progress.iter().filter(|one| shelf.is_held(&one.held)).collect()
            };
            if held.is_empty() {
                return Ok(());
            }
            let epoch = match self.epoch(shared) {
                Ok(epoch) => epoch,
                Err(error) => return Err(error),
            };
            let error = match self.attempt(shared, &held, epoch, deadline).await {
                Ok(()) => {
                    let done: Vec<Progress> = held.into_iter().cloned().collect();
                    shared.shelf.lock().committed(&done);
                    return Ok(());
                }
                Err(error) => error,
            };
            match error.reason() {
                Some(R::StaleMemberEpoch) => {
                    // The answer that tells the new one is on its way, or will be asked for.
                    let mut news = shared.epoch.subscribe();
                    let changed = news.wait_for(|now| *now != epoch);
                    if tokio::time::timeout(EPOCH_PATIENCE, changed).await.is_err() {
                        return Err(ConsumerError::Commit(error));
                    }
                }
                Some(R::UnknownPartition) => return self.one_by_one(shared, &held, epoch).await,
                Some(R::UnknownMember | R::FencedMemberEpoch | R::FencedInstance) => {
                    return Err(not_assigned(held.into_iter().map(|p| p.held.clone()).collect()));
                }
                _ if error.is_retriable() && !deadline.is_over() => {
                    deadline.sleep(backoff.next()).await;
                }
                _ => return Err(ConsumerError::Commit(error)),
            }
        }
    }

    /// Of a topic that is gone nothing can be committed, nor need be.
    async fn one_by_one(
        &self,
        shared: &Arc<Shared>,
        held: &[&Progress],
        epoch: Option<u32>,
    ) -> Outcome {
        let deadline = shared.client.deadline();
        let mut outcome = Ok(());
        for one in held {
            let error = match self.attempt(shared, &[one], epoch, deadline).await {
                Ok(()) => None,
                Err(error) if error.reason() == Some(R::UnknownPartition) => None,
                Err(error) => Some(error),
            };
            match error {
                None => shared.shelf.lock().committed(std::slice::from_ref(*one)),
                Some(error) => outcome = Err(ConsumerError::Commit(error)),
            }
        }
        outcome
    }

    /// The member's epoch; `None` if it is no member, but has a group.
    fn epoch(&self, shared: &Shared) -> Result<Option<u32>, ConsumerError> {
        let epoch = *shared.epoch.borrow();
        if epoch.is_none() && shared.lease.borrow().is_some() {
            let held = shared.shelf.lock().held();
            return Err(not_assigned(held));
        }
        Ok(epoch)
    }

    async fn attempt(
        &self,
        shared: &Shared,
        progress: &[&Progress],
        epoch: Option<u32>,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let offset = |one: &&Progress| {
            let id = shared.shelf.lock().id(&one.held);
            v1::OffsetCommit {
                topic: one.held.partition.topic.to_string(),
                topic_id: id.map(|id| id.topic.to_wire().into()).unwrap_or_default(),
                partition: one.held.partition.partition,
                offset: one.offset,
                ..Default::default()
            }
        };
        let request = v1::CommitOffsetsRequest {
            group: shared.group.as_deref().unwrap_or_default().to_owned(),
            member_id: epoch.map(|_| shared.member_id.clone()),
            member_epoch: epoch.unwrap_or_default(),
            offsets: progress.iter().map(offset).collect(),
        };
        self.link.commit(request, deadline).await
    }
}

fn not_assigned(held: Vec<Held>) -> ConsumerError {
    ConsumerError::NotAssigned(held.into_iter().map(|held| held.partition).collect())
}
