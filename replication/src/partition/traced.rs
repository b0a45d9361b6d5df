//! Writes that somebody traces, on their way through a partition: which spans of the leader
//! the records belong to that a follower is sent, and spans of a follower that last until
//! it has them on stable storage.
//!
//! Not its job: whether anything is traced, which who sends it decides.

use crate::env::Env;
use ottla_proto::{LeaderEpoch, Offset, PartitionId};
use ottla_trace::{Side, Span};
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Traced writes that a partition remembers, of the leader for who follows it, and of a
/// follower until they are synced. Those beyond are told less of: traces are samples.
const MAX_TRACED: usize = 64;

/// What was appended last and is traced.
#[derive(Default)]
pub(crate) struct Traced(Mutex<VecDeque<Appended>>);

struct Appended {
    epoch: LeaderEpoch,
    base: Offset,
    trace_parent: String,
}

impl Traced {
    /// A write was appended that is traced. To be told before anybody is sent it.
    pub(super) fn appended(&self, epoch: LeaderEpoch, base: Offset, trace_parent: String) {
        let mut all = self.0.lock();
        if all.len() == MAX_TRACED {
            all.pop_front();
        }
        all.push_back(Appended { epoch, base, trace_parent });
    }

    /// The spans of what that leadership appended from one offset on and below another.
    pub(crate) fn between(&self, epoch: LeaderEpoch, from: Offset, to: Offset) -> Vec<String> {
        let all = self.0.lock();
        let within = |one: &&Appended| one.epoch == epoch && (from..to).contains(&one.base);
        all.iter().filter(within).map(|one| one.trace_parent.clone()).collect()
    }
}

/// A follower's spans of what it has been sent and not yet synced.
#[derive(Default)]
pub(super) struct Copying(VecDeque<(Offset, Span)>);

impl Copying {
    /// Records that were sent and end at `end` belong to these spans of the leader: each has
    /// one here, until they are synced.
    pub(super) fn begin(&mut self, env: &Env, id: PartitionId, parents: &[String], end: Offset) {
        for parent in parents {
            let mut span = env.tracer.below(parent, "replicate", Side::Consumer);
            if span.is_recorded() {
                span.set("messaging.destination.name", env.name(id));
                if self.0.len() == MAX_TRACED {
                    self.0.pop_front();
                }
                self.0.push_back((end, span));
            }
        }
    }

    pub(super) fn synced(&mut self, up_to: Offset) {
        self.0.retain(|(end, _)| *end > up_to);
    }

    /// What they were is sent again, or never.
    pub(super) fn start_over(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_sent_is_told_of() {
        let traced = Traced::default();
        let (old, new) = (LeaderEpoch(3), LeaderEpoch(4));
        traced.appended(old, 10, "old".to_owned());
        traced.appended(new, 10, "a".to_owned());
        traced.appended(new, 12, "b".to_owned());
        assert_eq!(traced.between(new, 10, 13), ["a", "b"]);
        assert_eq!(traced.between(new, 10, 12), ["a"]);
        assert_eq!(traced.between(new, 13, 20), [""; 0]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let traced = Traced::default();
        for offset in 0..1000 {
            traced.appended(LeaderEpoch(1), offset, offset.to_string());
        }
        let all = traced.between(LeaderEpoch(1), 0, 1000);
        assert_eq!((all.len(), all[0].as_str()), (MAX_TRACED, "936"));
    }
}
