//! Why a group refused something. Nothing was changed then.

use super::facts::MemberId;

/// By what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The subscription's pattern is none.
    #[error("not a pattern: {why}")]
    InvalidPattern {
        /// What the parser says.
        why: String,
    },
    /// Nobody has committed or joined under this name.
    #[error("there is no group of this name")]
    UnknownGroup,
    /// It never joined, left, or was silent for too long: join again, with epoch 0.
    #[error("the group does not know member {0}: join again, with epoch 0")]
    UnknownMember(MemberId),
    /// The member is not where it believes to be: give everything up and join again.
    #[error("the member is at epoch {expected}, and the request says {got}: join again")]
    FencedMemberEpoch {
        /// Where it is.
        expected: u32,
        /// Where it believes to be.
        got: u32,
    },
    /// A heartbeat that was overtaken by a later one: nobody waits for its answer.
    #[error("heartbeat {got} of the member came after {last}, which has changed what it has")]
    Overtaken {
        /// The later one.
        last: u64,
        /// This one.
        got: u64,
    },
    /// A commit of an earlier epoch: take the one of the last heartbeat.
    #[error("the member is at epoch {expected}, and the commit is of {got}")]
    StaleMemberEpoch {
        /// Where it is.
        expected: u32,
        /// Where it was.
        got: u32,
    },
    /// Another live member has this instance id.
    #[error("instance {instance_id} is member {member}, which has not left")]
    UnreleasedInstance {
        /// The instance.
        instance_id: String,
        /// Who has it.
        member: MemberId,
    },
    /// A member with this instance id has taken over.
    #[error("instance {instance_id} is another member now")]
    FencedInstance {
        /// The instance.
        instance_id: String,
    },
    /// It has members.
    #[error("the group has members: {members}")]
    NotEmpty {
        /// How many.
        members: usize,
    },
    /// No room for one more.
    #[error("the group has {limit} members, which is as many as it may have")]
    Full {
        /// The bound.
        limit: usize,
    },
    /// There is no such partition.
    #[error("there is no partition {partition} of topic {topic}")]
    UnknownPartition {
        /// By name, as it was asked for.
        topic: String,
        /// Its index.
        partition: u32,
    },
    /// More than is kept for an offset, or taken with a commit.
    #[error("metadata of {got} bytes, at most {limit} may come with {with}")]
    MetadataTooLarge {
        /// Its bytes.
        got: usize,
        /// The bound.
        limit: usize,
        /// Whose bound.
        with: &'static str,
    },
    /// More than can be written at once.
    #[error(
        "this would change {got} bytes of what is remembered of the group, at most {limit} \
         can change at once: fewer members, or fewer topics"
    )]
    TooLarge {
        /// Bytes of facts.
        got: usize,
        /// The bound.
        limit: usize,
    },
}
