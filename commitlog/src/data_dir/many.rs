//! All data directories of a node.
//!
//! The first must be there for a node to start. Any other may be away, for
//! whatever reason: it is *offline* then, and so is what lies in it; the node
//! serves the rest. A directory that is not formatted counts as away too: it may
//! be the empty mount point of a disk that is missing.
//!
//! Not its job: opening logs, and telling the cluster what is offline.

use super::assignments::Assignments;
use super::error::io;
use super::stock::{
    Entry, check_owner, count, is_away, open_one, refuse_same_id, refuse_same_path, take_stock,
};
use super::{DataDir, DataDirError, DirectoryIdentity, Owner};
use ottla_proto::{BrokerEpoch, DirectoryId, PartitionId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The data directories of a node, locked for this process until dropped.
#[derive(Debug)]
pub struct DataDirs {
    entries: Vec<Entry>,
    clean: Option<BrokerEpoch>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    assignments: Assignments,
    /// The file says something else, or is not there.
    stale: bool,
    /// Partitions that were found in more than one directory, and where.
    doubled: BTreeMap<PartitionId, String>,
    /// Partitions in each directory; 0 for one that is offline.
    counts: Vec<usize>,
    /// The first failure of a log in each directory.
    suspect: Vec<Option<String>>,
}

/// A partition that a node is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub partition: PartitionId,
    /// It may have been here in an earlier run.
    pub may_be_old: bool,
    /// This node is its only in-sync replica: what it held nobody can give back.
    pub sole_copy: bool,
}

/// Where the log of a partition lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the data directory, in the configured order from 0.
    pub directory: usize,
    /// The log's directory.
    pub path: PathBuf,
}

/// One of the data directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryStatus {
    /// Where it is.
    pub path: PathBuf,
    /// Partitions that live there, as far as known.
    pub partitions: usize,
    /// How it is.
    pub state: DirectoryState,
}

/// How a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    /// In use.
    Online,
    /// In use, but a log in it failed: new partitions go elsewhere.
    Suspect {
        /// The first failure.
        reason: String,
    },
    /// Not usable until the node is started again.
    Offline {
        /// Why.
        reason: String,
    },
}

impl DataDirs {
    /// Which of these directories are blank; the others belong to `owner`. Locks and
    /// changes nothing.
    ///
    /// # Errors
    /// `Foreign`, `Same`, `Garbage`, `Io`.
    pub fn blank(paths: &[PathBuf], owner: &Owner) -> Result<Vec<PathBuf>, DataDirError> {
        refuse_same_path(paths)?;
        let mut blank = Vec::new();
        for path in paths {
            match DataDir::identity_at(path)? {
                Some(found) => check_owner(path, &found, owner)?,
                None => blank.push(path.clone()),
            }
        }
        Ok(blank)
    }

    /// Makes blank directories those of `owner`; the others must be already.
    /// Returns which were blank. Durable.
    ///
    /// # Errors
    /// As [`blank`](Self::blank), and then nothing was changed; `Io`: directories before it
    /// were formatted.
    pub fn format(paths: &[PathBuf], owner: &Owner) -> Result<Vec<PathBuf>, DataDirError> {
        let blank = Self::blank(paths, owner)?;
        for path in &blank {
            let Owner { cluster_id, node_id } = owner.clone();
            let directory_id = DirectoryId::random();
            DataDir::format(path, &DirectoryIdentity { cluster_id, node_id, directory_id })?;
        }
        Ok(blank)
    }

    /// Locks the directories of `owner` and durably deletes their markers of a
    /// clean shutdown: [`clean_shutdown`](Self::clean_shutdown) says what they said.
    ///
    /// # Errors
    /// Whatever keeps the first from being used. Of any other: `Foreign`, `Same`,
    /// `Locked`, which are mistakes of the operator; a disk's trouble only takes it
    /// offline.
    pub fn open(paths: &[PathBuf], owner: &Owner) -> Result<Self, DataDirError> {
        refuse_same_path(paths)?;
        let mut entries = Vec::new();
        let mut epochs = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            match open_one(path, owner) {
                Ok((dir, epoch)) => {
                    epochs.push(epoch);
                    entries.push(Entry::Online(dir));
                }
                Err(error) if index > 0 && is_away(&error) => {
                    let reason = error.to_string();
                    tracing::error!(dir = %path.display(), reason, "data directory is offline");
                    epochs.push(None);
                    entries.push(Entry::Offline { path: path.clone(), reason });
                }
                Err(error) => return Err(error),
            }
        }
        refuse_same_id(&entries)?;
        let (assignments, doubled, stale) = take_stock(&mut entries)?;
        // Valid only if all of them agree and are there.
        let all_here = entries.iter().all(|entry| entry.online().is_some());
        let clean = epochs.first().copied().flatten();
        let clean = clean.filter(|_| all_here && epochs.iter().all(|epoch| *epoch == clean));
        let counts = entries.iter().map(|entry| count(entry, &assignments)).collect();
        let suspect = vec![None; entries.len()];
        let state = State { assignments, stale, doubled, counts, suspect };
        let this = Self { entries, clean, state: Mutex::new(state) };
        this.store_if_possible();
        Ok(this)
    }

    /// The broker epoch of the run before, if that ended cleanly: every directory
    /// said so, and they agreed.
    #[must_use]
    pub fn clean_shutdown(&self) -> Option<BrokerEpoch> {
        self.clean
    }

    /// Says, durably and in every directory, that all logs were synced and closed in
    /// this broker epoch. Says nothing if a directory is offline.
    ///
    /// # Errors
    /// `Io`. Some directories may have been told; a start believes only all.
    pub fn mark_clean_shutdown(&self, epoch: BrokerEpoch) -> Result<(), DataDirError> {
        self.store_if_possible();
        if self.entries.iter().all(|entry| entry.online().is_some()) {
            for dir in self.online() {
                dir.mark_clean_shutdown(epoch)?;
            }
        }
        Ok(())
    }

    /// The first directory, which holds what belongs to the node as a whole.
    #[must_use]
    pub fn first(&self) -> &DataDir {
        self.entries.first().and_then(Entry::online).expect("the first one is online")
    }

    /// How many there are, whether or not they are online.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// How each is, in the configured order.
    #[must_use]
    pub fn statuses(&self) -> Vec<DirectoryStatus> {
        let state = self.state.lock();
        let status = |(index, entry): (usize, &Entry)| DirectoryStatus {
            path: entry.path().to_owned(),
            partitions: state.counts[index],
            state: match (entry, &state.suspect[index]) {
                (Entry::Offline { reason, .. }, _) => {
                    DirectoryState::Offline { reason: reason.clone() }
                }
                (Entry::Online(_), Some(reason)) => {
                    DirectoryState::Suspect { reason: reason.clone() }
                }
                (Entry::Online(_), None) => DirectoryState::Online,
            },
        };
        self.entries.iter().enumerate().map(status).collect()
    }

    /// The partitions that lie in the directories that are online, in order.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionId> {
        let state = self.state.lock();
        let online: BTreeSet<DirectoryId> =
            self.online().map(|dir| dir.identity().directory_id).collect();
        let directories = state.assignments.directories.iter();
        let here = directories.filter(|(_, directory)| online.contains(directory));
        let mut found: BTreeSet<PartitionId> = here.map(|(partition, _)| *partition).collect();
        found.extend(state.doubled.keys());
        found.into_iter().collect()
    }

    /// Where each of these partitions lies; a new one is given a place, durably: in
    /// the directory with the fewest. An error is why it is offline on this node.
    pub fn locate(&self, wanted: &[Wanted]) -> Vec<Result<Place, String>> {
        let mut state = self.state.lock();
        let mut new = BTreeSet::new();
        let mut places: Vec<Result<Place, String>> = wanted
            .iter()
            .map(|one| {
                let place = self.known_place(&state, *one)?;
                Ok(place.unwrap_or_else(|| {
                    new.insert(one.partition);
                    self.new_place(&mut state, one.partition)
                }))
            })
            .collect();
        if let Err(error) = self.store(&mut state) {
            // What is not on record could be given another place by the next run.
            for (one, place) in wanted.iter().zip(&mut places) {
                if new.contains(&one.partition) {
                    self.forget(&mut state, one.partition);
                    *place = Err(format!("its place could not be recorded: {error}"));
                }
            }
        }
        places
    }

    /// Takes note that a log failed: new partitions go to other directories, as long
    /// as there are any.
    pub fn suspect(&self, directory: usize, reason: &str) {
        if let Some(known @ None) = self.state.lock().suspect.get_mut(directory) {
            *known = Some(reason.to_owned());
        }
    }

    /// Removes the log of a partition, as [`DataDir::delete_partition`], from
    /// wherever it lies.
    ///
    /// # Errors
    /// `Io`. That there is none is no error.
    pub fn delete_partition(&self, partition: PartitionId) -> Result<(), DataDirError> {
        for dir in self.online() {
            dir.delete_partition(partition)?;
        }
        let mut state = self.state.lock();
        state.doubled.remove(&partition);
        // Written with the next one: the line that remains says where nothing is.
        self.forget(&mut state, partition);
        Ok(())
    }

    /// Forgets where a partition lies, if that is in a directory that is online.
    fn forget(&self, state: &mut State, partition: PartitionId) {
        let lies_in = state.assignments.directories.get(&partition);
        if let Some(index) = lies_in.and_then(|directory| self.index_of(*directory)) {
            state.assignments.directories.remove(&partition);
            state.counts[index] -= 1;
            state.stale = true;
        }
    }

    fn online(&self) -> impl Iterator<Item = &DataDir> {
        self.entries.iter().filter_map(Entry::online)
    }

    fn index_of(&self, directory: DirectoryId) -> Option<usize> {
        let is_it = |dir: &DataDir| dir.identity().directory_id == directory;
        self.entries.iter().position(|entry| entry.online().is_some_and(is_it))
    }

    fn place(&self, index: usize, partition: PartitionId) -> Place {
        let dir = self.entries[index].online().expect("only what is online is a place");
        Place { directory: index, path: dir.partition_dir(partition) }
    }

    /// Paths and reasons of what is offline; empty if nothing is.
    fn away(&self) -> String {
        let away = self.entries.iter().filter_map(|entry| match entry {
            Entry::Offline { reason, .. } => Some(reason.as_str()),
            Entry::Online(_) => None,
        });
        away.collect::<Vec<_>>().join("; ")
    }

    /// `None` if it is new here.
    fn known_place(&self, state: &State, wanted: Wanted) -> Result<Option<Place>, String> {
        let id = wanted.partition;
        if let Some(places) = state.doubled.get(&id) {
            return Err(format!("it lies in more than one data directory: {places}"));
        }
        let away = self.away();
        match state.assignments.directories.get(&id) {
            Some(directory) => {
                if let Some(index) = self.index_of(*directory) {
                    return Ok(Some(self.place(index, id)));
                }
                if !away.is_empty() {
                    return Err(format!("its data directory is offline: {away}"));
                }
                if wanted.sole_copy {
                    return Err(format!(
                        "this node has the only in-sync copy, and data directory {directory}, \
                         which held it, is not configured any more"
                    ));
                }
                // The directory is gone for good; others have what it held.
                Ok(None)
            }
            None if !away.is_empty() && !state.assignments.complete && wanted.may_be_old => {
                Err(format!("it may lie in a data directory that is offline: {away}"))
            }
            None => Ok(None),
        }
    }

    fn new_place(&self, state: &mut State, partition: PartitionId) -> Place {
        let online =
            self.entries.iter().enumerate().filter_map(|(index, entry)| {
                Some((index, entry.online()?.identity().directory_id))
            });
        let (index, directory) = online
            .min_by_key(|(index, _)| {
                (state.suspect[*index].is_some(), state.counts[*index], *index)
            })
            .expect("the first one is online");
        state.assignments.directories.insert(partition, directory);
        state.counts[index] += 1;
        state.stale = true;
        self.place(index, partition)
    }

    /// For what may be written later as well, such as that something is gone.
    fn store_if_possible(&self) {
        if let Err(error) = self.store(&mut self.state.lock()) {
            tracing::warn!(%error, "it is not on record which partition lies where");
        }
    }

    /// Writes what is known, unless the file says it already or there is only one
    /// place where anything could be.
    fn store(&self, state: &mut State) -> Result<(), DataDirError> {
        let first = self.first();
        let only = |directory: &DirectoryId| *directory == first.identity().directory_id;
        let obvious = self.entries.len() == 1 && state.assignments.directories.values().all(only);
        if !state.stale || obvious {
            return Ok(());
        }
        state.assignments.store(first.path()).map_err(io("write", first.path()))?;
        state.stale = false;
        Ok(())
    }
}
