//! The task that owns the groups of one partition while this node leads it.
//!
//! It takes the requests that wait, decides them one after the other, writes what
//! follows from all of them in one batch, and answers when that is committed. So an
//! answer never tells of anything that could still be lost, and thousands of groups
//! share a write. If a write fails the groups are read anew: nobody knows what became
//! of it.

use crate::coordinator::{Refusal, not_coordinator};
use crate::groups::{
    Commit, Committer, Fact, FactRecord, Group, GroupError, GroupId, GroupOptions, Groups,
    Heartbeat, HeartbeatAnswer, Now,
};
use crate::load::{leading, load};
use crate::node_members::{NodeMembers, Share};
use crate::write::write;
use ottla_metadata::image::Image;
use ottla_proto::v1::ErrorReason as R;
use ottla_proto::{ApiError, LeaderEpoch, MAX_BATCH_BYTES, Offset, PartitionId};
use ottla_replication::{LocalPartition, Replicas};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Requests decided in one go: what comes in during the sync of a disk at some 100,000
/// a second.
const REQUESTS_PER_TURN: usize = 512;

/// Facts of one turn that follow from time or from topics: some hundred kilobytes. What
/// is left is decided in the next.
const FACTS_PER_TURN: usize = 4096;

/// Bytes of facts after which no more requests are decided in a turn.
const TURN_BYTES: usize = 1024 * 1024;

/// Largest facts of one request, in bytes: on top of a turn that is just not full they
/// still fit into one batch.
const REQUEST_BYTES: usize = MAX_BATCH_BYTES / 2;

/// Pause before groups that could not be read or written are read again.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);

/// How often old offsets are looked for: they are days old.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);

/// What is asked.
#[derive(Debug)]
pub enum Request {
    /// A member joins, stays, leaves.
    Heartbeat(Heartbeat),
    /// Offsets are to be remembered.
    Commit(GroupId, Committer, Vec<Commit>),
    /// A group as it is.
    Get(GroupId),
    /// All of them.
    List,
    /// How far all of them are.
    Offsets,
    /// A group is to be deleted.
    Delete(GroupId),
}

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    /// To a heartbeat; in how many milliseconds the next one is due.
    Heartbeat(HeartbeatAnswer, u32),
    /// To what has nothing to tell but that it is done.
    Done,
    /// The group.
    Group(Box<Group>),
    /// Names, and groups.
    Groups(Vec<(GroupId, Group)>),
    /// What is committed, by group and partition.
    Offsets(Vec<(GroupId, PartitionId, Offset)>),
}

/// A request, and who waits for it.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Result<Answer, Refusal>>,
}

/// Serves whenever this node leads the partition; ends when it does not host it.
pub(crate) async fn run(
    replicas: Replicas,
    id: PartitionId,
    options: GroupOptions,
    members: NodeMembers,
    mut mailbox: mpsc::Receiver<Asked>,
) {
    let begun = Instant::now();
    while let Some(mut state) = replicas.watch(id) {
        let Some(epoch) = led(&replicas, id, &mut state, &mut mailbox).await else { return };
        let loaded = load(&replicas, id, epoch, &mut state, options).await;
        let images = replicas.images();
        match loaded {
            Ok(mut groups) => {
                groups.begin(now(begun));
                let (replicas, state) = (replicas.clone(), state.clone());
                let members = members.share();
                let shard = Shard { replicas, id, epoch, groups, members, state, images, begun };
                if shard.serve(&mut mailbox).await {
                    return;
                }
            }
            Err(error) => {
                if leading(&state, epoch).is_some() {
                    tracing::warn!(partition = %id, %error, "groups cannot be read");
                }
                tokio::time::sleep(RETRY_BACKOFF).await;
            }
        }
    }
}

/// Waits until this node leads; `None`: it never will. Who asks meanwhile is told so.
async fn led(
    replicas: &Replicas,
    id: PartitionId,
    state: &mut watch::Receiver<LocalPartition>,
    mailbox: &mut mpsc::Receiver<Asked>,
) -> Option<LeaderEpoch> {
    loop {
        tokio::select! {
            biased;
            led = state.wait_for(|now| now.leading().is_some()) => {
                return led.ok()?.leading().map(|status| status.leader_epoch);
            }
            asked = mailbox.recv() => {
                let error = not_coordinator(replicas, id);
                // Fails when nobody waits for it any more.
                let _ = asked?.reply.send(Err(error.into()));
            }
        }
    }
}

fn now(begun: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Now { monotonic: millis(begun.elapsed()), wall_ms: millis(wall) }
}

/// A leadership of the partition.
struct Shard {
    replicas: Replicas,
    id: PartitionId,
    epoch: LeaderEpoch,
    groups: Groups,
    members: Share,
    state: watch::Receiver<LocalPartition>,
    images: watch::Receiver<Arc<Image>>,
    begun: Instant,
}

/// Of keys and values.
fn bytes(records: &[FactRecord]) -> usize {
    records.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

type Reply = (oneshot::Sender<Result<Answer, Refusal>>, Result<Answer, Refusal>);

/// What one turn has decided, not yet written.
#[derive(Default)]
struct Turn {
    records: Vec<FactRecord>,
    /// Of all records.
    bytes: usize,
    replies: Vec<Reply>,
    /// A member is told that it keeps what it has.
    extends_leases: bool,
}

enum Woken {
    Asked,
    Topics,
    Time,
    Expiry,
    Ended { for_good: bool },
}

impl Shard {
    /// Until the leadership is over, or a write failed. True: the node stops.
    async fn serve(mut self, mailbox: &mut mpsc::Receiver<Asked>) -> bool {
        self.images.mark_changed();
        let mut asked = Vec::new();
        let mut expiry = Instant::now() + EXPIRY_INTERVAL;
        loop {
            let mut turn = Turn::default();
            self.members.set(self.groups.members());
            match self.wait(mailbox, &mut asked, expiry).await {
                Woken::Ended { for_good } => return for_good,
                Woken::Asked | Woken::Time => {}
                Woken::Topics => {
                    let image = Arc::clone(&self.images.borrow_and_update());
                    let facts = self.groups.follow_topics(&*image, self.now(), FACTS_PER_TURN);
                    self.decide(&mut turn, &facts);
                    if !facts.is_empty() {
                        self.images.mark_changed();
                    }
                }
                Woken::Expiry => {
                    expiry = Instant::now() + EXPIRY_INTERVAL;
                    let facts = self.groups.forget_old_offsets(self.now(), FACTS_PER_TURN);
                    self.decide(&mut turn, &facts);
                }
            }
            let image = Arc::clone(&self.images.borrow());
            let facts = self.groups.expire(&*image, self.now(), FACTS_PER_TURN);
            self.decide(&mut turn, &facts);
            for Asked { request, reply } in asked.drain(..) {
                let answer = self.answer(&mut turn, request, &image);
                turn.replies.push((reply, answer));
            }
            if !self.end(turn).await {
                return false;
            }
        }
    }

    async fn wait(
        &mut self,
        mailbox: &mut mpsc::Receiver<Asked>,
        asked: &mut Vec<Asked>,
        expiry: Instant,
    ) -> Woken {
        let deadline = self.groups.next_deadline().map(|at| self.begun + Duration::from_millis(at));
        let epoch = self.epoch;
        let ended =
            |now: &LocalPartition| now.leading().is_none_or(|status| status.leader_epoch != epoch);
        tokio::select! {
            biased;
            _ = self.state.wait_for(ended) => Woken::Ended { for_good: false },
            _ = self.images.changed() => {
                self.images.mark_changed();
                Woken::Topics
            }
            count = mailbox.recv_many(asked, REQUESTS_PER_TURN) => match count {
                0 => Woken::Ended { for_good: true },
                _ => Woken::Asked,
            },
            () = async { tokio::time::sleep_until(deadline.expect("guarded")).await },
                if deadline.is_some() => Woken::Time,
            () = tokio::time::sleep_until(expiry) => Woken::Expiry,
        }
    }

    fn now(&self) -> Now {
        now(self.begun)
    }

    /// From now on the groups are as if that were so.
    fn decide(&mut self, turn: &mut Turn, facts: &[Fact]) {
        self.remember(turn, facts, facts.iter().map(Fact::encode).collect());
    }

    /// The same for what somebody asked for, unless that is too much.
    fn grant(&mut self, turn: &mut Turn, facts: &[Fact]) -> Result<(), GroupError> {
        let records: Vec<FactRecord> = facts.iter().map(Fact::encode).collect();
        let (got, limit) = (bytes(&records), REQUEST_BYTES);
        if got > limit {
            return Err(GroupError::TooLarge { got, limit });
        }
        self.remember(turn, facts, records);
        Ok(())
    }

    fn remember(&mut self, turn: &mut Turn, facts: &[Fact], records: Vec<FactRecord>) {
        facts.iter().for_each(|fact| self.groups.replay(fact));
        self.groups.settle(facts, self.now());
        turn.bytes += bytes(&records);
        turn.records.extend(records);
    }

    fn answer(
        &mut self,
        turn: &mut Turn,
        request: Request,
        image: &Image,
    ) -> Result<Answer, Refusal> {
        if turn.bytes > TURN_BYTES {
            let message = "too much is being decided at this moment";
            return Err(ApiError::new(R::Overloaded, message).into());
        }
        let now = self.now();
        match request {
            Request::Heartbeat(beat) => {
                let (facts, answer) = self.groups.heartbeat(&beat, image, now)?;
                if let Err(error) = self.grant(turn, &facts) {
                    self.groups.forget_unused_patterns();
                    return Err(error.into());
                }
                self.groups.heard(&beat.group, &beat.member, now);
                turn.extends_leases = true;
                let members = self.members.of_node();
                let next_ms = self.groups.next_heartbeat_ms(&beat.group, members, now);
                Ok(Answer::Heartbeat(answer, next_ms))
            }
            Request::Commit(group, committer, commits) => {
                let facts = self.groups.commit(&group, &committer, commits, now)?;
                self.grant(turn, &facts)?;
                Ok(Answer::Done)
            }
            Request::Delete(group) => {
                let facts = self.groups.delete(&group)?;
                self.grant(turn, &facts)?;
                Ok(Answer::Done)
            }
            Request::Get(group) => Ok(Answer::Group(Box::new(self.groups.get(&group)?.clone()))),
            Request::List => {
                let all = self.groups.iter().map(|(id, group)| (id.clone(), group.clone()));
                Ok(Answer::Groups(all.collect()))
            }
            Request::Offsets => Ok(Answer::Offsets(self.groups.committed().collect())),
        }
    }

    /// Writes down what was decided, and answers. False: the groups are to be read anew.
    async fn end(&mut self, mut turn: Turn) -> bool {
        let now = self.now();
        let decided_nothing = turn.records.is_empty();
        if decided_nothing && turn.extends_leases && self.groups.must_confirm(now) {
            turn.records.push(Fact::nothing().encode());
        }
        let written = if turn.records.is_empty() {
            Ok(())
        } else {
            let written =
                write(&self.replicas, self.id, self.epoch, turn.records, now.wall_ms).await;
            written.map(|()| self.groups.confirmed(now))
        };
        for (reply, answer) in turn.replies {
            let answer = match &written {
                Ok(()) => answer,
                Err(error) => Err(Refusal::Node(error.clone())),
            };
            // Fails when nobody waits for it any more.
            let _ = reply.send(answer);
        }
        if let Err(error) = &written {
            tracing::warn!(partition = %self.id, %error, "facts of groups were not written");
        }
        // Whatever became of a record that says nothing, the groups are what they were.
        written.is_ok() || decided_nothing
    }
}
