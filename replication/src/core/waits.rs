//! Producers that wait, all of one leadership. They end with it.

use super::events::Effect;
use super::types::{Acks, Millis, ProduceRefusal, RequestId};
use ottla_proto::Offset;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Hash)]
struct Waiting {
    acks: Acks,
    deadline: Millis,
    /// The offset after its last record, once appended.
    next: Option<Offset>,
}

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Waits {
    by_id: BTreeMap<RequestId, Waiting>,
    /// A repeated request ends where the first one does.
    by_offset: BTreeSet<(Offset, RequestId)>,
    by_deadline: BTreeSet<(Millis, RequestId)>,
}

impl Waits {
    pub(super) fn add(&mut self, id: RequestId, acks: Acks, deadline: Millis) {
        let before = self.by_id.insert(id, Waiting { acks, deadline, next: None });
        assert!(before.is_none(), "request {id} was handed in twice");
        self.by_deadline.insert((deadline, id));
    }

    /// `id` is in the log, up to `next`. One that has expired is unknown here.
    pub(super) fn appended(&mut self, id: RequestId, next: Offset, out: &mut Vec<Effect>) {
        let Some(waiting) = self.by_id.get_mut(&id) else { return };
        if waiting.acks == Acks::All {
            waiting.next = Some(next);
            self.by_offset.insert((next, id));
        } else {
            self.answer(id, Ok(()), out);
        }
    }

    pub(super) fn committed(&mut self, watermark: Offset, out: &mut Vec<Effect>) {
        while let Some(&(next, id)) = self.by_offset.first()
            && next <= watermark
        {
            self.answer(id, Ok(()), out);
        }
    }

    pub(super) fn expire(&mut self, now: Millis, below_min_isr: bool, out: &mut Vec<Effect>) {
        while let Some(&(deadline, id)) = self.by_deadline.first()
            && deadline <= now
        {
            let appended = self.by_id.get(&id).is_some_and(|waiting| waiting.next.is_some());
            let refusal = if appended && below_min_isr {
                ProduceRefusal::NotEnoughReplicasAfterAppend
            } else {
                ProduceRefusal::TimedOut
            };
            self.answer(id, Err(refusal), out);
        }
    }

    pub(super) fn fail(&mut self, id: RequestId, refusal: ProduceRefusal, out: &mut Vec<Effect>) {
        if self.by_id.contains_key(&id) {
            self.answer(id, Err(refusal), out);
        }
    }

    pub(super) fn fail_all(&mut self, refusal: ProduceRefusal, out: &mut Vec<Effect>) {
        while let Some((&id, _)) = self.by_id.first_key_value() {
            self.answer(id, Err(refusal), out);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    fn answer(&mut self, id: RequestId, result: Result<(), ProduceRefusal>, out: &mut Vec<Effect>) {
        let waiting = self.by_id.remove(&id).expect("only a waiting request is answered");
        self.by_deadline.remove(&(waiting.deadline, id));
        if let Some(next) = waiting.next {
            self.by_offset.remove(&(next, id));
        }
        out.push(Effect::Answer { id, result });
    }
}
