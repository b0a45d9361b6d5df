//! Figures of group commit, and the syncs that nobody asked for.

use super::*;

#[test]
fn a_sync_says_what_it_covered() {
    let vfs = SimVfs::new();
    let shared = Shared::new(Arc::new(vfs));
    let log = Log::open(&shared, dir(), LogConfig::default(), OpenMode::Recover).expect("opens").0;
    let one = || batch(&["a", "b"]);
    let size = one().len() as u64;
    log.append_as_leader(vec![one(), one()], LeaderEpoch(1), NOW).expect("appends");
    log.append_as_leader(vec![one()], LeaderEpoch(1), NOW).expect("appends");
    log.sync().expect("syncs");
    log.sync().expect("has nothing to do");
    log.append_as_leader(vec![one()], LeaderEpoch(1), NOW).expect("appends");
    log.finish_segment().expect("syncs as well");
    let figures = shared.figures();
    let sum = |histogram: &crate::Histogram| {
        let snapshot = histogram.snapshot();
        (snapshot.count, snapshot.sum)
    };
    assert_eq!(sum(&figures.sync_appends), (2, 3));
    assert_eq!(sum(&figures.sync_records), (2, 8));
    assert_eq!(sum(&figures.sync_bytes), (2, 4 * size));
    assert_eq!(figures.sync_micros.snapshot().count, 2);
    assert_eq!(figures.sync_wait_micros.snapshot().count, 1);
    let appended = (&figures.appends, &figures.appended_records, &figures.appended_bytes);
    assert_eq!((appended.0.get(), appended.1.get(), appended.2.get()), (3, 8, 4 * size));
}

#[test]
fn flushes_are_due_by_time_and_by_records() {
    let (log, _) = open(&SimVfs::new(), LogConfig::default(), OpenMode::Recover);
    let lead = |now| {
        log.append_as_leader(vec![batch(&["a", "b"])], LeaderEpoch(1), now).expect("appends");
    };
    lead(NOW);
    assert!(!log.flush_due(i64::MAX), "nobody asked for it");
    let config = LogConfig { flush_ms: Some(500), ..LogConfig::default() };
    log.configure(config);
    lead(NOW + 400);
    assert_eq!((log.flush_due(NOW + 499), log.flush_due(NOW + 500)), (false, true));
    log.sync().expect("syncs");
    assert!(!log.flush_due(i64::MAX), "nothing is unsynced");
    // Only the first append after a sync counts, and after a truncation none.
    lead(NOW + 1000);
    log.truncate_to(2).expect("truncates");
    lead(NOW + 5000);
    assert_eq!((log.flush_due(NOW + 5499), log.flush_due(NOW + 5500)), (false, true));
    log.configure(LogConfig { flush_ms: None, flush_messages: Some(5), ..config });
    lead(NOW);
    assert!(!log.flush_due(i64::MAX), "four records are fewer than five");
    lead(NOW);
    assert!(log.flush_due(0));
}

/// A follower is told no time: it counts from when somebody looked.
#[test]
fn a_followers_flush_counts_from_the_first_look() {
    let (log, _) = open(&SimVfs::new(), LogConfig::default(), OpenMode::Recover);
    log.configure(LogConfig { flush_ms: Some(500), ..LogConfig::default() });
    let mut batch = batch(&["a"]);
    batch.stamp(0, LeaderEpoch(1));
    log.append_as_follower(Bytes::copy_from_slice(batch.as_bytes())).expect("appends");
    let due = |now| log.flush_due(now);
    assert_eq!((due(NOW), due(NOW + 499), due(NOW + 500)), (false, false, true));
}

/// With `message.timestamp.type=LogAppendTime` the leader's clock counts, for
/// look-ups too; the records themselves are not touched.
#[test]
fn append_time_is_stamped() {
    let (log, _) = open(&SimVfs::new(), LogConfig::default(), OpenMode::Recover);
    fill(&log, 1, 1);
    let timestamp_type = crate::format::TimestampType::LogAppendTime;
    log.configure(LogConfig { timestamp_type, ..LogConfig::default() });
    fill(&log, 1, 1);
    let bytes = log.read(0, u64::MAX, 1 << 20).expect("reads");
    let times: Vec<i64> = decode_records(&bytes).map(|r| r.expect("good").timestamp_ms).collect();
    assert_eq!(times, [10, NOW]);
    assert_eq!(log.offset_for_timestamp(11, 9).expect("reads"), Some((1, NOW)));
    let refused = log.append_as_leader(vec![batch(&["x"])], LeaderEpoch(1), -1);
    assert!(matches!(refused, Err(LogError::Invalid(_))));
}
