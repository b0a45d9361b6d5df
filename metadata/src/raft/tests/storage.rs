//! The Raft log store and the state machine: openraft's own suite, restarts,
//! and damage.

use super::super::applied::{Applied, AppliedStore};
use super::super::database::{Databases, SledDatabases};
use super::super::log_files::LogStoreError;
use super::super::log_store::LogStore;
use super::super::snapshot::{self, SnapshotBytes};
use super::super::state_machine::StateMachine;
use super::super::types::{Entry, LeaderId, LogId, Membership, Proposal, TypeConfig, Vote};
use crate::image::Image;
use crate::records::{
    BrokerDraining, BrokerRegistered, FeatureLevel, FeatureLevelFinalised, FeatureLevels,
    MetadataRecord, PartitionCreated, ProducerIdsAllocated, Reassignment, ReplicasOffline,
    RequestCarriedOut, TopicConfig, TopicCreated, TopicDeleted, VoterDirectoryRecorded,
};
use openraft::entry::RaftEntry;
use openraft::storage::{
    RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use ottla_commitlog::Shared;
use ottla_commitlog::vfs::{Fault, FaultRule, Operation, RealVfs, SimVfs, Vfs, create_dir_durably};
use ottla_proto::{
    BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, NodeId, PartitionEpoch,
    PartitionId, RequestId,
};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (log, machine) = open(dir.path());
        Ok((dir, log, machine))
    }
}

pub(super) fn open(dir: &Path) -> (LogStore, StateMachine) {
    let shared = Shared::new(Arc::new(RealVfs));
    let log = LogStore::open(&shared, dir).expect("opens");
    let justified = |id: &LogId, covered: Option<&LogId>| log.justifies(id, covered);
    let machine = StateMachine::open(
        dir,
        &shared,
        Arc::new(SledDatabases),
        FeatureLevels::SUPPORTED,
        justified,
    );
    (log, machine.expect("opens"))
}

pub(super) async fn close(log: LogStore, machine: StateMachine) {
    let (first, second) = (log.stopped(), machine.stopped());
    drop((log, machine));
    first.wait().await;
    second.wait().await;
}

/// openraft's contract for stores, all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn satisfies_openraft() {
    Suite::test_all(Builder).await.expect("the suite passes");
}

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

pub(super) fn entry(index: u64, decided_on: u64, records: Vec<MetadataRecord>) -> Entry {
    let proposal = Proposal::new(MetadataOffset(decided_on), records);
    Entry::new(log_id(1, index), EntryPayload::Normal(proposal))
}

pub(super) fn broker(node: u64, epoch: u64) -> MetadataRecord {
    BrokerRegistered {
        node_id: NodeId(node),
        epoch: BrokerEpoch(epoch),
        incarnation: IncarnationId(uuid::Uuid::from_u128(node.into())),
        directory: DirectoryId(uuid::Uuid::from_u128(node.into())),
        host: "h".to_owned(),
        port: 1,
        rack: None,
        fenced: true,
        shutting_down: false,
        levels: Default::default(),
    }
    .into()
}

fn voter(node: u64) -> MetadataRecord {
    let directory = DirectoryId(uuid::Uuid::from_u128(node.into()));
    VoterDirectoryRecorded { node_id: NodeId(node), directory }.into()
}

fn carried_out(id: u128, forgotten: Vec<RequestId>) -> MetadataRecord {
    let (id, what) = (RequestId(uuid::Uuid::from_u128(id)), "create topic orders".to_owned());
    RequestCarriedOut { id, what, topic: None, added: 0, at_ms: 0, forgotten }.into()
}

/// A node with a few entries applied and committed, closed again.
pub(super) async fn with_history(dir: &Path) -> Image {
    let (mut log, mut machine) = open(dir);
    log.save_vote(&Vote::new_committed(1, 1)).await.expect("saves");
    let entries = vec![
        Entry::new(log_id(1, 0), EntryPayload::Blank),
        entry(1, 0, vec![broker(1, 1), voter(1)]),
        entry(2, 2, vec![broker(2, 3)]),
    ];
    log.blocking_append(entries.clone()).await.expect("appends");
    log.save_committed(Some(log_id(1, 2))).await.expect("saves");
    let stream = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
    machine.apply(stream).await.expect("applies");
    let image = machine.images().borrow().as_ref().clone();
    assert_eq!(image.offset, MetadataOffset(3));
    close(log, machine).await;
    image
}

pub(super) async fn recovered(dir: &Path) -> (Image, bool) {
    let (mut log, mut machine) = open(dir);
    let found_applied = machine.applied_state().await.expect("reads").0.is_some();
    let mut storage = openraft::StorageHelper::new(&mut log, &mut machine).with_id(1);
    storage.get_initial_state().await.expect("recovers");
    let image = machine.images().borrow().as_ref().clone();
    close(log, machine).await;
    (image, found_applied)
}

#[tokio::test]
async fn the_applied_image_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let image = with_history(dir.path()).await;
    assert_eq!(recovered(dir.path()).await, (image, true));
}

/// Whatever kind of fact changes the image, it is there after a restart.
#[tokio::test]
async fn every_kind_of_fact_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("image.sled");
    let partition = PartitionId { topic: topic(), index: 0 };
    let created = PartitionCreated {
        partition,
        replicas: vec![NodeId(1), NodeId(2), NodeId(3)],
        isr: vec![],
        elr: vec![NodeId(1)],
        last_known_elr: vec![NodeId(2)],
        last_leader: Some(NodeId(2)),
        recovering: true,
        reassignment: Some(Reassignment {
            from: vec![NodeId(2), NodeId(3)],
            to: vec![NodeId(1), NodeId(2)],
        }),
        leader: None,
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(2),
    };
    let (node_id, epoch) = (NodeId(1), BrokerEpoch(1));
    let name = "orders".to_owned();
    let history: Vec<MetadataRecord> = vec![
        broker(1, 1),
        voter(1),
        TopicCreated { id: topic(), name, partitions: 1, config: TopicConfig::default() }.into(),
        created.into(),
        ReplicasOffline { node_id, epoch, partitions: vec![partition] }.into(),
        FeatureLevelFinalised { level: FeatureLevel(2) }.into(),
        ProducerIdsAllocated { next_producer_id: 1000 }.into(),
        ProducerIdsAllocated { next_producer_id: 2000 }.into(),
        BrokerDraining { node_id, draining: true }.into(),
        carried_out(1, vec![]),
        carried_out(2, vec![RequestId(uuid::Uuid::from_u128(1))]),
        TopicDeleted { id: topic() }.into(),
        BrokerDraining { node_id, draining: false }.into(),
    ];
    let mut applied = Applied::default();
    for record in history {
        let (mut store, found) = AppliedStore::open(Arc::new(SledDatabases), &path).expect("opens");
        assert_eq!(found, applied);
        let before = applied.image.clone();
        applied.image.replay(&record).expect("makes sense");
        store.write(&before, &applied);
    }
    assert_eq!(AppliedStore::open(Arc::new(SledDatabases), &path).expect("opens").1, applied);
}

/// Every file of the sled database overwritten, cut, or gone: the image is
/// made again from the log.
#[tokio::test]
async fn a_damaged_applied_image_is_rebuilt() {
    for damage in ["garbage", "cut", "half", "gone"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let image = with_history(dir.path()).await;
        let sled = dir.path().join("image.sled");
        for file in std::fs::read_dir(&sled).expect("is there") {
            let path = file.expect("is readable").path();
            if !path.is_file() {
                continue;
            }
            let len = std::fs::metadata(&path).expect("is a file").len() as usize;
            match damage {
                "garbage" => std::fs::write(&path, vec![0xa5; len]),
                "cut" => std::fs::write(&path, b""),
                "half" => {
                    let bytes = std::fs::read(&path).expect("reads");
                    std::fs::write(&path, &bytes[..len / 2])
                }
                _ => std::fs::remove_file(&path),
            }
            .expect("can be damaged");
        }
        assert_eq!(recovered(dir.path()).await, (image.clone(), false), "{damage}");
        // And what was rebuilt is found the next time.
        assert_eq!(recovered(dir.path()).await, (image, true), "{damage}");
    }
}

/// A key that sled lost, or that another program changed, is noticed.
#[tokio::test]
async fn a_missing_key_in_the_applied_image_is_noticed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let image = with_history(dir.path()).await;
    let path = dir.path().join("image.sled");
    let mut database = SledDatabases.open(&path).expect("opens");
    let (key, _) = database.entries().expect("reads").swap_remove(0);
    database.apply(vec![(key, None)]).expect("removes");
    drop(database);
    assert_eq!(recovered(dir.path()).await, (image, false));
}

/// An applied image ahead of the log (which lost its unsynced tail with the
/// power) must not stay: what it holds may never have been committed.
#[tokio::test]
async fn an_applied_image_ahead_of_the_log_is_wiped() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    with_history(dir.path()).await;
    let (mut log, machine) = open(dir.path());
    log.truncate_after(Some(log_id(1, 1))).await.expect("truncates");
    close(log, machine).await;
    let (image, found_applied) = recovered(dir.path()).await;
    assert!(!found_applied);
    assert!(image.brokers.is_empty(), "{image:?}");
}

#[tokio::test]
async fn a_log_without_its_vote_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    with_history(dir.path()).await;
    let vote = dir.path().join("vote");
    for damage in [None, Some(&b"garbage"[..])] {
        match damage {
            None => std::fs::remove_file(&vote).expect("removes"),
            Some(bytes) => std::fs::write(&vote, bytes).expect("writes"),
        }
        let error =
            LogStore::open(&Shared::new(Arc::new(RealVfs)), dir.path()).err().expect("refuses");
        assert!(matches!(error, LogStoreError::Damaged { .. }), "{error}");
    }
}

/// Facts decided on another image than the one they meet change nothing.
#[tokio::test]
async fn a_stale_proposal_is_a_conflict() {
    use super::super::types::Outcome;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (log, mut machine) = open(dir.path());
    let outcome = machine.replay(entry(0, 0, vec![broker(1, 1)])).expect("replays");
    assert_eq!(outcome, Outcome::Applied(MetadataOffset(1)));
    let outcome = machine.replay(entry(1, 0, vec![broker(2, 1)])).expect("replays");
    assert_eq!(outcome, Outcome::Conflict(MetadataOffset(1)));
    // A record that makes no sense is no conflict: Raft must stop.
    let nonsense = entry(2, 1, vec![crate::records::TopicDeleted { id: topic() }.into()]);
    machine.replay(nonsense).expect_err("stops");
    close(log, machine).await;
}

fn topic() -> ottla_proto::TopicId {
    ottla_proto::TopicId(uuid::Uuid::from_u128(9))
}

#[tokio::test]
async fn snapshots_survive_and_damaged_ones_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let image = with_history(dir.path()).await;
    let (log, mut machine) = open(dir.path());
    let built = machine.get_snapshot_builder().await.build_snapshot().await.expect("builds");
    close(log, machine).await;

    let (log, mut machine) = open(dir.path());
    let current = machine.get_current_snapshot().await.expect("reads").expect("is there");
    assert_eq!(current.meta, built.meta);
    assert_eq!(snapshot::decode(&current.snapshot).expect("decodes"), (built.meta.clone(), image));
    let bytes = current.snapshot.0.to_vec();
    for position in [0, 4, 5, 9, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1;
        let damaged = SnapshotBytes(damaged.into());
        snapshot::decode(&damaged).expect_err("is damaged");
        machine.install_snapshot(&built.meta, damaged).await.expect_err("refuses");
    }
    close(log, machine).await;
}

/// The log is purged, the snapshot takes over what it held, and sled may be
/// lost all the same.
#[tokio::test]
async fn a_snapshot_stands_for_a_purged_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let image = with_history(dir.path()).await;
    let (mut log, mut machine) = open(dir.path());
    machine.get_snapshot_builder().await.build_snapshot().await.expect("builds");
    log.purge(log_id(1, 2)).await.expect("purges");
    close(log, machine).await;
    let path = dir.path().join("image.sled");
    let (store, _) = AppliedStore::open(Arc::new(SledDatabases), &path).expect("opens");
    drop(store.wipe());
    assert_eq!(recovered(dir.path()).await, (image, false));
    let (mut log, machine) = open(dir.path());
    let state = log.get_log_state().await.expect("reads");
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (Some(log_id(1, 2)), Some(log_id(1, 2)))
    );
    // And the log goes on behind it.
    log.blocking_append([entry(3, 3, vec![])]).await.expect("appends");
    let mut reader = log.get_log_reader().await;
    assert_eq!(reader.try_get_log_entries(0..9).await.expect("reads").len(), 1);
    // Whoever can read keeps the files open.
    drop(reader);
    close(log, machine).await;
}

#[test]
fn membership_and_ids_survive_messagepack() {
    let membership = Membership::default();
    let bytes = super::super::types::encode(&(log_id(3, 4), &membership)).expect("encodes");
    let read: (LogId, Membership) = super::super::types::decode(&bytes).expect("decodes");
    assert_eq!(read, (log_id(3, 4), membership));
}

/// What openraft was told is durable outlives a power loss, at any moment and
/// with any part of the unsynced writes lost.
#[tokio::test]
async fn what_was_promised_survives_a_power_loss() {
    for seed in 0..20 {
        let vfs = Arc::new(SimVfs::new());
        let dir = Path::new("/metadata");
        create_dir_durably(&*vfs, dir).expect("simulated");
        let shared = Shared::new(vfs.clone());
        let open = || LogStore::open(&shared, dir).expect("opens");
        let mut log = open();
        log.save_vote(&Vote::new(1, 1)).await.expect("saves");
        let mut written = Vec::new();
        for index in 0..10 {
            let entry = entry(index, index, vec![voter(index)]);
            log.blocking_append([entry.clone()]).await.expect("appends");
            written.push(entry);
        }
        log.truncate_after(Some(log_id(1, 7))).await.expect("truncates");
        log.purge(log_id(1, 1)).await.expect("purges");
        log.save_vote(&Vote::new(2, 1)).await.expect("saves");
        let stopped = log.stopped();
        drop(log);
        stopped.wait().await;
        vfs.crash(seed);

        let mut log = open();
        let mut reader = log.get_log_reader().await;
        assert_eq!(reader.read_vote().await.expect("reads"), Some(Vote::new(2, 1)));
        let found = reader.try_get_log_entries(..).await.expect("reads");
        assert_eq!(found, written[2..=7], "seed {seed}");
        let state = log.get_log_state().await.expect("reads");
        assert_eq!(state.last_purged_log_id, Some(log_id(1, 1)));
        assert_eq!(state.last_log_id, Some(log_id(1, 7)));
    }
}

/// A full disk is not the end: what does not fit waits, in its order, until there is
/// room, or until the node stops.
#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let vfs = Arc::new(SimVfs::new());
    let dir = Path::new("/metadata");
    create_dir_durably(&*vfs, dir).expect("simulated");
    let shared = Shared::new(vfs.clone());
    let full = |times| {
        for operation in [Operation::Write, Operation::Create] {
            let (path_ends_with, fault) = (String::new(), Fault::Enospc);
            vfs.fail(FaultRule { operation, path_ends_with, skip: 0, times, fault });
        }
    };
    let mut log = LogStore::open(&shared, dir).expect("opens");
    full(2);
    log.save_vote(&Vote::new(1, 1)).await.expect("waits");
    full(2);
    let written = [entry(0, 0, vec![voter(0)]), entry(1, 1, vec![voter(1)])];
    log.blocking_append(written.clone()).await.expect("waits");
    vfs.heal();
    let mut reader = log.get_log_reader().await;
    assert_eq!(reader.try_get_log_entries(..).await.expect("reads"), written);

    full(u64::MAX);
    let hurry = log.hurry();
    let append = log.blocking_append([entry(2, 2, vec![voter(2)])]);
    let (refused, ()) = tokio::join!(append, async { hurry.up() });
    assert!(refused.is_err(), "nobody waits when the node stops");
}

/// An fdatasync that fails is reported, and nothing is written after it.
#[tokio::test]
async fn a_failed_sync_is_no_promise() {
    let vfs = Arc::new(SimVfs::new());
    let dir = Path::new("/metadata");
    vfs.create_dir_all(dir).expect("simulated");
    let mut log = LogStore::open(&Shared::new(vfs.clone()), dir).expect("opens");
    log.save_vote(&Vote::new(1, 1)).await.expect("saves");
    log.blocking_append([entry(0, 0, vec![])]).await.expect("appends");
    vfs.fail(FaultRule {
        operation: Operation::Sync,
        path_ends_with: ".log".to_owned(),
        skip: 0,
        times: 1,
        fault: Fault::Eio,
    });
    log.blocking_append([entry(1, 0, vec![])]).await.expect_err("could not be synced");
    log.blocking_append([entry(2, 0, vec![])]).await.expect_err("the log is offline");
}
