//! How far groups are: commits, and what is forgotten of them.

use super::error::GroupError;
use super::facts::{Fact, GroupFact, GroupId, MemberId, OffsetFact};
use super::group::Group;
use super::topics::Topics;
use super::{Groups, Now};
use ottla_proto::{Offset, PartitionId};

/// What a reader may keep with an offset, in bytes (Kafka's
/// `offset.metadata.max.bytes`).
pub const MAX_OFFSET_METADATA_BYTES: usize = 4096;

/// What may come with all offsets of one commit, in bytes: it is written at once, together
/// with what others want at the same time.
pub const MAX_COMMIT_METADATA_BYTES: usize = 256 * 1024;

/// Who commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committer {
    /// A member, at the epoch it was told last.
    Member(MemberId, u32),
    /// Anybody, for a group without members.
    Anybody,
}

/// One offset to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where.
    pub partition: PartitionId,
    /// Of the next record to be read.
    pub offset: Offset,
    /// Of the last record read, if its reader knows.
    pub leader_epoch: Option<u32>,
    /// The reader's own.
    pub metadata: String,
}

impl Groups {
    /// Decides a commit: all of it or nothing.
    ///
    /// # Errors
    /// `UnknownMember`, `StaleMemberEpoch`: the committer is not, or no longer, who may
    /// commit. `NotEmpty`: nobody but members may. `MetadataTooLarge`.
    pub fn commit(
        &self,
        id: &GroupId,
        committer: &Committer,
        commits: Vec<Commit>,
        now: Now,
    ) -> Result<Vec<Fact>, GroupError> {
        let none = Group::default();
        let group = self.groups.get(id).unwrap_or(&none);
        check_committer(group, committer)?;
        check_metadata(&commits)?;
        let fact = |commit: Commit| {
            let Commit { partition, offset, leader_epoch, metadata } = commit;
            let committed_at_ms = now.wall_ms;
            let fact = OffsetFact { offset, leader_epoch, metadata, committed_at_ms };
            Fact::Offset(id.clone(), partition, Some(fact))
        };
        let mut facts: Vec<_> = commits.into_iter().map(fact).collect();
        // A group that nobody ever joined ages from its last commit on.
        if group.members.is_empty() && !facts.is_empty() {
            let fact = GroupFact { empty_since_ms: Some(now.wall_ms), ..group.fact.clone() };
            facts.push(Fact::Group(id.clone(), Some(fact)));
        }
        Ok(facts)
    }

    /// How far each group is in each partition.
    pub fn committed(&self) -> impl Iterator<Item = (GroupId, PartitionId, Offset)> {
        let of = |(id, group): (&GroupId, &Group)| {
            let id = id.clone();
            let offsets: Vec<_> =
                group.offsets.iter().map(|(of, fact)| (*of, fact.offset)).collect();
            offsets.into_iter().map(move |(of, offset)| (id.clone(), of, offset))
        };
        self.groups.iter().flat_map(of)
    }

    /// Deletes a group that nobody is in, with its offsets.
    ///
    /// # Errors
    /// `UnknownGroup`, `NotEmpty`.
    pub fn delete(&self, id: &GroupId) -> Result<Vec<Fact>, GroupError> {
        let group = self.get(id)?;
        if !group.members.is_empty() {
            return Err(GroupError::NotEmpty { members: group.members.len() });
        }
        let offsets = group.offsets.keys().map(|of| Fact::Offset(id.clone(), *of, None));
        Ok(offsets.chain([Fact::Group(id.clone(), None)]).collect())
    }

    /// Offsets of topics that are gone, at most about `limit`.
    pub(super) fn forget_topics(&self, topics: &dyn Topics, limit: usize) -> Vec<Fact> {
        let mut facts = Vec::new();
        for (id, group) in &self.groups {
            let gone = group.offsets.keys().filter(|of| topics.partitions(of.topic) == 0);
            facts.extend(gone.take(limit).map(|of| Fact::Offset(id.clone(), *of, None)));
            if facts.len() >= limit {
                break;
            }
        }
        facts
    }

    /// Offsets that nobody has read from for `offsets_retention_ms`, at most about
    /// `limit`. Those of topics that a member reads never get old (K-13636).
    #[must_use]
    pub fn forget_old_offsets(&self, now: Now, limit: usize) -> Vec<Fact> {
        let mut facts = Vec::new();
        for (id, group) in &self.groups {
            let old = group.old_offsets(now.wall_ms, self.options.offsets_retention_ms);
            let left = group.offsets.len() - old.len();
            facts.extend(old.into_iter().map(|of| Fact::Offset(id.clone(), of, None)));
            if left == 0 && group.is_long_empty(now.wall_ms, self.options.offsets_retention_ms) {
                facts.push(Fact::Group(id.clone(), None));
            }
            if facts.len() >= limit {
                break;
            }
        }
        facts
    }
}

impl Group {
    fn is_long_empty(&self, now_ms: u64, retention_ms: u64) -> bool {
        let since = self.fact.empty_since_ms;
        self.members.is_empty() && since.is_some_and(|at| at.saturating_add(retention_ms) <= now_ms)
    }

    fn old_offsets(&self, now_ms: u64, retention_ms: u64) -> Vec<PartitionId> {
        if self.members.is_empty() && !self.is_long_empty(now_ms, retention_ms) {
            return Vec::new();
        }
        let is_old = |(of, fact): &(&PartitionId, &OffsetFact)| {
            !self.fact.topics.contains_key(&of.topic)
                && fact.committed_at_ms.saturating_add(retention_ms) <= now_ms
        };
        self.offsets.iter().filter(is_old).map(|(of, _)| *of).collect()
    }
}

fn check_metadata(commits: &[Commit]) -> Result<(), GroupError> {
    let lengths = || commits.iter().map(|commit| commit.metadata.len());
    let one = (lengths().max().unwrap_or(0), MAX_OFFSET_METADATA_BYTES, "an offset");
    let all = (lengths().sum(), MAX_COMMIT_METADATA_BYTES, "a commit");
    match [one, all].into_iter().find(|(got, limit, _)| got > limit) {
        Some((got, limit, with)) => Err(GroupError::MetadataTooLarge { got, limit, with }),
        None => Ok(()),
    }
}

fn check_committer(group: &Group, committer: &Committer) -> Result<(), GroupError> {
    match committer {
        Committer::Anybody if group.members.is_empty() => Ok(()),
        Committer::Anybody => Err(GroupError::NotEmpty { members: group.members.len() }),
        Committer::Member(id, got) => {
            let unknown = || GroupError::UnknownMember(id.clone());
            let expected = group.members.get(id).ok_or_else(unknown)?.current.epoch;
            if expected == *got {
                Ok(())
            } else {
                Err(GroupError::StaleMemberEpoch { expected, got: *got })
            }
        }
    }
}
