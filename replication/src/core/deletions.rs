//! Who waits for records to be gone from the start of the log: on the leader and
//! on every member of the ISR, durably (Kafka's low watermark, KIP-107).

use super::events::Effect;
use super::types::{DeletionRefusal, Millis, RequestId};
use ottla_proto::Offset;

#[derive(Clone, Debug, Hash)]
struct Waiting {
    id: RequestId,
    /// Records below are to be gone.
    before: Offset,
    deadline: Millis,
}

/// Bounded by the requests of clients, each of which has a deadline.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Deletions {
    waiting: Vec<Waiting>,
}

impl Deletions {
    pub(super) fn add(&mut self, id: RequestId, before: Offset, deadline: Millis) {
        self.waiting.push(Waiting { id, before, deadline });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Everything below `low` is gone everywhere.
    pub(super) fn gone(&mut self, low: Offset, out: &mut Vec<Effect>) {
        self.answer(|waiting| waiting.before <= low, Ok(low), out);
    }

    pub(super) fn expire(&mut self, now: Millis, out: &mut Vec<Effect>) {
        self.answer(|waiting| waiting.deadline <= now, Err(DeletionRefusal::TimedOut), out);
    }

    pub(super) fn fail_all(&mut self, refusal: DeletionRefusal, out: &mut Vec<Effect>) {
        self.answer(|_| true, Err(refusal), out);
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.waiting.iter().map(|waiting| waiting.deadline).min()
    }

    fn answer(
        &mut self,
        whom: impl Fn(&Waiting) -> bool,
        result: Result<Offset, DeletionRefusal>,
        out: &mut Vec<Effect>,
    ) {
        for answered in self.waiting.extract_if(.., |waiting| whom(waiting)) {
            out.push(Effect::AnswerDeletion { id: answered.id, result });
        }
    }
}
