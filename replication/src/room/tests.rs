//! Disks that fill up and are emptied.

use super::{Levels, Room, Thresholds, room};
use ottla_commitlog::vfs::Space;
use proptest::prelude::*;

const GIB: u64 = 1024 * 1024 * 1024;

const DEFAULT: Thresholds = Thresholds { alert: 20 * GIB, refuse: GIB };

#[test]
fn bytes_count_on_large_disks_and_shares_on_small_ones() {
    let large = Levels { alert: 20 * GIB, writes: GIB, copies: GIB / 2 };
    assert_eq!(DEFAULT.on(4096 * GIB), large);
    assert_eq!(DEFAULT.on(1000), Levels { alert: 150, writes: 50, copies: 25 });
    assert_eq!(Thresholds { alert: 0, refuse: 0 }.on(1000), Levels::default());
    let no_alert = Levels { alert: 0, writes: 50, copies: 25 };
    assert_eq!(Thresholds { alert: 0, refuse: GIB }.on(1000), no_alert);
    // Nothing is refused without a word before.
    let late = Thresholds { alert: 1, refuse: 10 }.on(1000);
    assert_eq!(late, Levels { alert: 10, writes: 10, copies: 5 });
}

#[test]
fn a_disk_fills_up_and_is_emptied() {
    let levels = DEFAULT.on(1000);
    let mut now = Room::Enough;
    let story = [
        (1000, Room::Enough),
        (150, Room::Enough),
        (149, Room::Low),
        (160, Room::Low),
        (50, Room::Low),
        (49, Room::NoWrites),
        // A compaction comes and goes.
        (55, Room::NoWrites),
        (40, Room::NoWrites),
        (24, Room::NoCopies),
        (0, Room::NoCopies),
        (30, Room::NoCopies),
        (31, Room::NoWrites),
        (61, Room::NoWrites),
        (62, Room::Low),
        (187, Room::Enough),
        (10, Room::NoCopies),
        (900, Room::Enough),
    ];
    for (free, expected) in story {
        now = room(now, Space { free, total: 1000 }, levels);
        assert_eq!(now, expected, "{free} free");
    }
}

/// Whoever sets a threshold to 0 in the middle of it is rid of it.
#[test]
fn without_thresholds_nothing_is_refused() {
    let full = Space { free: 0, total: 1000 };
    for before in [Room::Enough, Room::Low, Room::NoWrites, Room::NoCopies] {
        assert_eq!(room(before, full, Levels::default()), Room::Enough);
    }
}

fn rooms() -> impl Strategy<Value = Room> {
    let all = [Room::Enough, Room::Low, Room::NoWrites, Room::NoCopies];
    proptest::sample::select(all.to_vec())
}

proptest! {
    #[test]
    fn what_is_below_a_level_counts_and_an_empty_disk_is_well(
        before in rooms(), total in 1_u64..10_000, free in 0_u64..10_000,
        alert in 0_u64..20_000, refuse in 0_u64..20_000,
    ) {
        let space = Space { free: free.min(total), total };
        let levels = Thresholds { alert, refuse }.on(total);
        let now = room(before, space, levels);
        prop_assert!(now.refuses_writes() || space.free >= levels.writes);
        prop_assert!(now.refuses_copies() || space.free >= levels.copies);
        prop_assert_eq!(room(now, space, levels), now, "looking again changes nothing");
        prop_assert!(now <= before || space.free < levels.of(now), "worse for a reason");
        prop_assert_eq!(room(now, Space { free: total, total }, levels), Room::Enough);
    }
}
