//! Why there is no backup, or why it cannot be restored.

use std::path::PathBuf;

/// What stands in the way, and what was expected instead.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackupError {
    #[error(
        "{} is not empty: a backup is written to a directory of its own, which need not be there \
         yet", .0.display()
    )]
    NotEmpty(PathBuf),

    #[error(
        "{} has no manifest.json: it is no backup, or one that was never finished", .0.display()
    )]
    NoManifest(PathBuf),

    #[error("{}: format {found}, this release reads {expected}", .path.display())]
    Format { path: PathBuf, found: u64, expected: u32 },

    #[error("{} is damaged: {reason}", .path.display())]
    Manifest { path: PathBuf, reason: String },

    #[error("no {what} matches {pattern}")]
    NoMatch { what: &'static str, pattern: String },

    #[error(
        "the cluster has these topics already: {}. A topic is restored as a whole, and into \
         nothing: delete them (`ottla topic delete`), or choose others with --topic", .0.join(", ")
    )]
    TopicsExist(Vec<String>),

    #[error(
        "these groups have members at the moment: {}. Stop those, or choose other groups with \
         --group", .0.join(", ")
    )]
    GroupsInUse(Vec<String>),

    #[error(
        "the cluster's feature level is {found}, a restore needs {expected}: `ottla cluster \
         features --upgrade` raises it"
    )]
    FeatureLevel { found: u32, expected: u32 },

    #[error("{problems} problems in {}: `ottla backup verify` lists them", .dir.display())]
    Damaged { dir: PathBuf, problems: usize },

    #[error(
        "a record was written at offset {found} instead of {expected}: somebody else writes to \
         the topic while it is restored"
    )]
    NotAlone { expected: u64, found: u64 },

    #[error(
        "{topic}-{partition} is compacted quicker than it is read: raise min.compaction.lag.ms, \
         and try again"
    )]
    CompactedMeanwhile { topic: String, partition: u32 },
}

/// A place in a backup's files that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} byte {position}: {reason}", .path.display())]
pub(super) struct Damage {
    pub(super) path: PathBuf,
    pub(super) position: u64,
    pub(super) reason: String,
}
