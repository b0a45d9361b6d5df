//! Every call of the disk that an operation of the log makes fails once, in every
//! way. The outcome is one of a few: nobody notices (derived data), the disk is full
//! and the same can be tried again, or the log is offline. Nothing that was synced is
//! lost, and no part of an append is ever visible.

use super::*;
use crate::Cleanup;
use std::ops::ControlFlow;

type Action = (&'static str, fn(&Log) -> Result<(), LogError>);

const ACTIONS: [Action; 9] = [
    ("append", |log| append(log, 2)),
    ("new epoch", |log| log.start_epoch(LeaderEpoch(2))),
    ("roll", |log| log.finish_segment().map(drop)),
    ("sync", |log| log.sync().map(drop)),
    ("truncate", |log| log.truncate_to(8)),
    ("reset", |log| log.reset_to(50)),
    ("delete_before", |log| log.delete_before(7)),
    ("retain", |log| log.retain(NOW, 9).map(drop)),
    ("compact", |log| {
        let go = &mut |_| ControlFlow::Continue(());
        log.compact(NOW, 9, &mut Cleaner::new(1 << 20), go).map(drop)
    }),
];

const OPERATIONS: [Operation; 7] = [
    Operation::Write,
    Operation::Sync,
    Operation::SetLen,
    Operation::Create,
    Operation::Rename,
    Operation::Remove,
    Operation::SyncDir,
];

fn append(log: &Log, epoch: u32) -> Result<(), LogError> {
    log.append_as_leader(vec![batch(&["x"]), batch(&["y"])], LeaderEpoch(epoch), NOW).map(drop)
}

fn config() -> LogConfig {
    let cleanup = Cleanup { delete: true, compact: true };
    LogConfig { cleanup, retention_bytes: Some(500), retention_ms: None, ..small() }
}

/// Ten synced records in segments of a few, two that are not.
fn prepared() -> (SimVfs, Log) {
    let vfs = SimVfs::new();
    let (log, _) = open(&vfs, config(), OpenMode::Recover);
    fill(&log, 10, 1);
    log.sync().expect("syncs");
    fill(&log, 2, 1);
    (vfs, log)
}

/// Returns whether the fault was met.
fn one(name: &str, action: fn(&Log) -> Result<(), LogError>, rule: &FaultRule) -> bool {
    let (vfs, log) = prepared();
    let before = values(&log);
    vfs.fail(rule.clone());
    let result = action(&log);
    // Met if the disk has no such rule left.
    let met = vfs.unmet() == 0;
    vfs.heal();
    let row = format!("{name}, {rule:?}: {result:?}");
    match &result {
        Ok(()) => assert_eq!(log.offline_reason(), None, "{row}"),
        Err(LogError::DiskFull { .. }) => {
            assert_ne!(rule.fault, Fault::Eio, "{row}");
            assert_eq!(log.offline_reason(), None, "{row}");
            if name == "append" {
                assert_eq!(values(&log), before, "{row}");
            }
            action(&log).expect("there is space again");
        }
        Err(LogError::Io { .. }) => {
            let refused = append(&log, 3);
            let offline = log.offline_reason().is_some();
            assert_eq!(offline, refused.is_err(), "{row}");
            // Compaction writes beside the log: what fails there is no harm to it.
            assert!(offline || name == "compact", "{row}");
        }
        Err(other) => panic!("{row}: {other}"),
    }
    drop(log);
    vfs.crash(7);
    let (log, recovery) = open(&vfs, config(), OpenMode::Recover);
    assert_eq!(recovery.damage, None, "{row}");
    if !matches!(name, "reset" | "truncate") {
        let kept = values(&log);
        let start = log.bounds().start;
        let wanted = before[..10].iter().filter(|it| it.0 >= start);
        assert!(wanted.clone().all(|it| kept.contains(it)), "{row}: {kept:?}");
    }
    let found = Log::verify(&vfs, dir()).expect("reads");
    assert_eq!(found.damage().count(), 0, "{row}: {:?}", found.problems);
    met
}

#[test]
fn every_call_may_fail_once() {
    let mut met = 0;
    for (name, action) in ACTIONS {
        for operation in OPERATIONS {
            for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite(30)] {
                let rule = |skip| FaultRule { skip, ..rule(operation, "", fault) };
                met += (0..40).take_while(|skip| one(name, action, &rule(*skip))).count();
            }
        }
    }
    // As many calls as there are, three times.
    assert!(met > 100, "{met}");
}
