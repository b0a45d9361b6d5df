//! Logs whose disk was full when they were to be compacted: each is tried again
//! later, and ever later while the disk stays full.

use ottla_proto::PartitionId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Wait after a full disk was met first.
const MIN_WAIT: Duration = Duration::from_secs(15);

/// Longest wait. A try reads and writes up to a segment before it meets the end
/// of the disk; somebody who made room waits no longer than this.
const MAX_WAIT: Duration = Duration::from_mins(10);

/// At most one entry for each log of the node.
#[derive(Default)]
pub(super) struct Postponed(HashMap<PartitionId, Wait>);

struct Wait {
    until: Instant,
    wait: Duration,
}

impl Postponed {
    /// Whether the log may be tried.
    pub(super) fn is_due(&self, id: PartitionId, now: Instant) -> bool {
        self.0.get(&id).is_none_or(|postponed| postponed.until <= now)
    }

    /// How a try ended: on a full disk, or in any other way.
    pub(super) fn note(&mut self, id: PartitionId, disk_full: bool, now: Instant) {
        // Whoever has not been tried for so long after its time is gone.
        self.0.retain(|_, postponed| now < postponed.until + MAX_WAIT);
        if !disk_full {
            self.0.remove(&id);
            return;
        }
        let last = self.0.get(&id).map(|postponed| postponed.wait);
        let wait = last.map_or(MIN_WAIT, |wait| (wait * 2).min(MAX_WAIT));
        self.0.insert(id, Wait { until: now + wait, wait });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::TopicId;

    #[test]
    fn a_full_disk_is_met_ever_later_up_to_a_bound() {
        let topic = TopicId::random();
        let id = |index| PartitionId { topic, index };
        let (mut postponed, mut now) = (Postponed::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(postponed.is_due(id(0), now));
            postponed.note(id(0), true, now);
            let wait = postponed.0[&id(0)].until - now;
            assert!(!postponed.is_due(id(0), now + wait - Duration::from_millis(1)));
            assert!(postponed.is_due(id(1), now), "others do not wait");
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 600, 600]);
        postponed.note(id(0), false, now);
        postponed.note(id(0), true, now);
        assert_eq!(postponed.0[&id(0)].until, now + MIN_WAIT);
        postponed.note(id(1), false, now + MIN_WAIT + MAX_WAIT);
        assert!(postponed.0.is_empty(), "what is no more is forgotten");
    }
}
