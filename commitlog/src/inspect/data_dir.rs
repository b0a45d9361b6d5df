//! Verifies the small files of a data directory, beside its logs.

use super::problem::{Problem, Problems, Severity};
use super::verify::Owner;
use crate::checkpoint::{self, CheckpointError};
use crate::data_dir::DataDir;
use crate::vfs::{RealVfs, Vfs};
use std::io;
use std::path::Path;

const REFUSES: &str = "the node refuses to start";

/// Checkpoints, what is put at risk where one is damaged, and what happens then.
const CHECKPOINTS: [(&str, Severity, &str); 5] = [
    ("clean-shutdown", Severity::Derived, "the stop counts as not clean: logs are recovered"),
    (
        "replication-offset-checkpoint",
        Severity::Derived,
        "readers wait until the watermarks are known again",
    ),
    ("partition-directories", Severity::Derived, "made anew from what is found"),
    ("metadata/vote", Severity::Damage, REFUSES),
    ("metadata/purged", Severity::Damage, REFUSES),
];

/// Checks the identity of a data directory, its checkpoints, and what else lies
/// in `partitions/`. Says nothing of the logs.
///
/// # Errors
/// The directory cannot be listed.
pub fn verify_data_dir(dir: &Path, owner: Owner) -> io::Result<Vec<Problem>> {
    let mut problems = Problems::default();
    let meta = dir.join("meta.properties");
    let identity = match DataDir::identity_at(dir) {
        Ok(Some(_)) => None,
        Ok(None) => Some("missing".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(reason) = identity {
        problems.add(&meta, 0, Severity::Damage, reason, REFUSES);
    }
    for (name, severity, outcome) in CHECKPOINTS {
        let path = dir.join(name);
        let reason = match checkpoint::read(&RealVfs, &path) {
            Ok(_) => continue,
            Err(CheckpointError::Garbage { reason, .. }) => reason.to_owned(),
            Err(CheckpointError::Io { source, .. }) => format!("cannot be read: {source}"),
        };
        problems.add(&path, 0, severity, reason, outcome);
    }
    check_partitions(&dir.join("partitions"), owner, &mut problems)?;
    Ok(problems.0)
}

fn check_partitions(dir: &Path, owner: Owner, problems: &mut Problems) -> io::Result<()> {
    let mut names = match RealVfs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    names.sort_unstable();
    for name in names {
        let (partition, doomed) = match name.strip_suffix(".deleted") {
            Some(partition) => (partition, true),
            None => (name.as_str(), false),
        };
        let path = dir.join(&name);
        if crate::data_dir::partition_of(partition).is_none() {
            let reason = "not the directory of a partition";
            problems.add(&path, 0, Severity::Leftover, reason, "left alone");
        } else if doomed && owner != Owner::Running {
            let reason = "a deletion was interrupted";
            problems.add(&path, 0, Severity::Leftover, reason, "removed by the next start");
        }
    }
    Ok(())
}
