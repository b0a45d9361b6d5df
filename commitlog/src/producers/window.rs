//! The last batches of a producer: what a retry is recognised by.

use ottla_proto::Offset;

/// Batches of a producer that are remembered: a client has at most that many
/// unanswered ones on their way when its order is to be kept (KAFKA-5494).
pub(super) const WINDOW: usize = 5;

/// A batch, as a retry is recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequenced {
    pub(super) first_sequence: i32,
    pub(super) last_sequence: i32,
    pub(super) first_offset: Offset,
    pub(super) last_offset: Offset,
    pub(super) timestamp: i64,
}

/// The last [`WINDOW`] batches of one producer epoch, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    batches: [Sequenced; WINDOW],
    len: usize,
}

impl Window {
    pub(super) fn batches(&self) -> &[Sequenced] {
        &self.batches[..self.len]
    }

    pub(super) fn push(&mut self, batch: Sequenced) {
        if self.len == WINDOW {
            self.batches.rotate_left(1);
            self.len -= 1;
        }
        self.batches[self.len] = batch;
        self.len += 1;
    }

    pub(super) fn last(&self) -> Option<&Sequenced> {
        self.batches().last()
    }

    /// The batch with exactly these sequences.
    pub(super) fn find(&self, (first, last): (i32, i32)) -> Option<&Sequenced> {
        let same =
            |known: &&Sequenced| known.first_sequence == first && known.last_sequence == last;
        // The newest: after a wrap an old one could have the same.
        self.batches().iter().rfind(same)
    }
}

/// The sequence `by` records behind `sequence`: after 2^31 - 1 comes 0.
pub(super) fn advance(sequence: i32, by: u32) -> i32 {
    // Neither sum nor remainder leaves its type: both are below 2^32.
    ((i64::from(sequence) + i64::from(by)) % (1 << 31)) as i32
}
