//! How much room a disk has left, and what is refused for the want of it.
//!
//! A function of what is told: free and total bytes, thresholds, what was so before.
//!
//! Not its job: asking the disk, and refusing anything ([`crate::disks`]).

use ottla_commitlog::vfs::Space;

/// Percent of a disk that `disk_alert_free_bytes` stands for at most: on a small disk the
/// bytes that are few on a large one would be most of it.
const ALERT_PERCENT: u64 = 15;

/// The same of `disk_refuse_free_bytes`.
const REFUSE_PERCENT: u64 = 5;

/// Of the room that clients' writes must leave, the part that copies of other nodes'
/// records must leave too: a half. So a follower is refused nothing as long as only its
/// leaders, which may have more room, let somebody write; and what a cluster needs to be
/// administered and mended (metadata, groups, checkpoints) has a disk's last bytes for
/// itself.
const COPIES_LEAVE: u64 = 2;

/// A threshold that was crossed is left again where there is a quarter more room: what
/// comes and goes by itself, such as the copy that a compaction makes, changes nothing.
const LEAVE_PERCENT: u64 = 125;

/// What a disk's room allows. Later is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Everything.
    #[default]
    Enough,
    /// Everything; somebody should look.
    Low,
    /// No writes of clients. Everything else: reads, copies of other leaders' records,
    /// what nodes themselves write.
    NoWrites,
    /// Nor copies of what clients wrote elsewhere.
    NoCopies,
}

impl Room {
    const WORST_FIRST: [Self; 3] = [Self::NoCopies, Self::NoWrites, Self::Low];

    /// The next better one.
    fn better(self) -> Self {
        match self {
            Self::Enough | Self::Low => Self::Enough,
            Self::NoWrites => Self::Low,
            Self::NoCopies => Self::NoWrites,
        }
    }

    /// Clients' writes are refused.
    #[must_use]
    pub fn refuses_writes(self) -> bool {
        self >= Self::NoWrites
    }

    /// Copies of other leaders' records are refused as well.
    #[must_use]
    pub fn refuses_copies(self) -> bool {
        self >= Self::NoCopies
    }
}

/// What a disk should have left, as configured, in bytes; 0: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) alert: u64,
    pub(crate) refuse: u64,
}

/// The same for one disk: below so many free bytes. 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Somebody should look.
    pub alert: u64,
    /// Clients' writes are refused.
    pub writes: u64,
    /// Copies of other leaders' records are refused as well.
    pub copies: u64,
}

impl Thresholds {
    /// What they are on a disk of so many bytes.
    pub(crate) fn on(self, total: u64) -> Levels {
        let share = |percent| u128::from(total) * u128::from(percent) / 100;
        let least = |bytes: u64, percent| bytes.min(share(percent).try_into().unwrap_or(u64::MAX));
        let writes = least(self.refuse, REFUSE_PERCENT);
        // What is refused was told of before.
        let alert = match self.alert {
            0 => 0,
            alert => least(alert, ALERT_PERCENT).max(writes),
        };
        Levels { alert, writes, copies: writes / COPIES_LEAVE }
    }
}

impl Levels {
    /// The level below which a disk's room is `room`.
    fn of(self, room: Room) -> u64 {
        match room {
            Room::Enough => u64::MAX,
            Room::Low => self.alert,
            Room::NoWrites => self.writes,
            Room::NoCopies => self.copies,
        }
    }
}

/// What a disk's room allows now: worse at once, better with some room to spare.
pub(crate) fn room(before: Room, space: Space, levels: Levels) -> Room {
    let crossed = |room: &Room| space.free < levels.of(*room);
    let worst = Room::WORST_FIRST.into_iter().find(crossed).unwrap_or_default();
    let mut now = before;
    while now > worst && has_left(space, levels.of(now)) {
        now = now.better();
    }
    now.max(worst)
}

fn has_left(space: Space, level: u64) -> bool {
    u128::from(space.free) >= u128::from(level) * u128::from(LEAVE_PERCENT) / 100
}

#[cfg(test)]
mod tests;
