//! Taking stock of the data directories at a start: which are there, which are whose,
//! and what lies in them.

use super::assignments::Assignments;
use super::{DataDir, DataDirError, DirectoryIdentity, Owner};
use ottla_proto::{BrokerEpoch, DirectoryId, PartitionId};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) enum Entry {
    Online(DataDir),
    Offline { path: PathBuf, reason: String },
}

impl Entry {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Online(dir) => dir.path(),
            Self::Offline { path, .. } => path,
        }
    }

    pub(super) fn online(&self) -> Option<&DataDir> {
        match self {
            Self::Online(dir) => Some(dir),
            Self::Offline { .. } => None,
        }
    }
}

pub(super) fn count(entry: &Entry, assignments: &Assignments) -> usize {
    let Some(dir) = entry.online() else { return 0 };
    let id = dir.identity().directory_id;
    assignments.directories.values().filter(|directory| **directory == id).count()
}

pub(super) fn open_one(
    path: &Path,
    owner: &Owner,
) -> Result<(DataDir, Option<BrokerEpoch>), DataDirError> {
    let dir = DataDir::open(path)?;
    check_owner(path, dir.identity(), owner)?;
    let epoch = dir.take_clean_shutdown()?;
    Ok((dir, epoch))
}

/// The disk's trouble, not the operator's.
pub(super) fn is_away(error: &DataDirError) -> bool {
    matches!(
        error,
        DataDirError::NotFormatted { .. } | DataDirError::Garbage { .. } | DataDirError::Io { .. }
    )
}

pub(super) fn check_owner(
    path: &Path,
    found: &DirectoryIdentity,
    expected: &Owner,
) -> Result<(), DataDirError> {
    let found = found.owner();
    if found == *expected {
        return Ok(());
    }
    Err(DataDirError::Foreign { path: path.to_owned(), found, expected: expected.clone() })
}

pub(super) fn refuse_same_path(paths: &[PathBuf]) -> Result<(), DataDirError> {
    let mut seen: BTreeMap<PathBuf, &PathBuf> = BTreeMap::new();
    for path in paths {
        // One that is not there yet is compared as it is written.
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        if let Some(first) = seen.insert(real.clone(), path) {
            let why = format!("both are {}", real.display());
            return Err(DataDirError::Same { first: first.clone(), second: path.clone(), why });
        }
    }
    Ok(())
}

pub(super) fn refuse_same_id(entries: &[Entry]) -> Result<(), DataDirError> {
    let mut seen: BTreeMap<DirectoryId, &Path> = BTreeMap::new();
    for dir in entries.iter().filter_map(Entry::online) {
        let id = dir.identity().directory_id;
        if let Some(first) = seen.insert(id, dir.path()) {
            let why = format!("both have the id {id}; one is a copy");
            let (first, second) = (first.to_owned(), dir.path().to_owned());
            return Err(DataDirError::Same { first, second, why });
        }
    }
    Ok(())
}

/// What the file says, and what is found: where they differ, the directories are
/// right. Also what was found twice, and whether the file has to be written.
pub(super) fn take_stock(
    entries: &mut [Entry],
) -> Result<(Assignments, BTreeMap<PartitionId, String>, bool), DataDirError> {
    let mut found: BTreeMap<PartitionId, Vec<(PathBuf, DirectoryId)>> = BTreeMap::new();
    for (index, entry) in entries.iter_mut().enumerate() {
        let Entry::Online(dir) = entry else { continue };
        match dir.partition_dirs() {
            Ok(partitions) => {
                for partition in partitions {
                    let place = (dir.path().to_owned(), dir.identity().directory_id);
                    found.entry(partition).or_default().push(place);
                }
            }
            Err(error) if index > 0 => {
                let reason = error.to_string();
                tracing::error!(dir = %dir.path().display(), reason, "data directory is offline");
                *entry = Entry::Offline { path: entry.path().to_owned(), reason };
            }
            Err(error) => return Err(error),
        }
    }
    let all_here = entries.iter().all(|entry| entry.online().is_some());
    let first = entries.first().and_then(Entry::online).expect("the first one is online");
    let recorded = Assignments::load(first.path())?;
    let mut now =
        recorded.clone().unwrap_or(Assignments { complete: false, directories: BTreeMap::new() });
    now.complete |= all_here;
    let mut doubled = BTreeMap::new();
    for (partition, places) in found {
        if let [(_, directory)] = places[..] {
            now.directories.insert(partition, directory);
        } else {
            let paths: Vec<String> =
                places.iter().map(|(path, _)| path.display().to_string()).collect();
            tracing::error!(%partition, ?paths, "partition lies in more than one data directory");
            doubled.insert(partition, paths.join(", "));
        }
    }
    let stale = recorded.as_ref() != Some(&now);
    Ok((now, doubled, stale))
}
