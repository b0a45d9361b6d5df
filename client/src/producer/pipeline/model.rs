//! Any history of lost requests, lost and late answers, refusals, new leaders, and
//! streams that are given up while their requests are still on the way: what was
//! acknowledged is in the log once, in order; what was refused is not; what is in
//! doubt is there at most once.

use super::{Answer, BatchId, Fate, MAX_UNANSWERED, Pipeline, Rules, SEQUENCES, sequence};
use ottla_commitlog::format::ProducerSequence;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeMap, VecDeque};

/// What lies in a leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    id: BatchId,
    records: u32,
    sequence: ProducerSequence,
}

impl Entry {
    fn last(&self) -> i32 {
        sequence(self.sequence.base_sequence as u64 + u64::from(self.records) - 1)
    }

    fn next(&self) -> i32 {
        sequence(self.last() as u64 + 1)
    }
}

/// A stream of requests: those on the way, and answers on the way back.
#[derive(Debug, Default)]
struct Stream {
    node: usize,
    requests: VecDeque<Entry>,
    /// Ready at once, or when the log is committed up to there.
    answers: Vec<(BatchId, Answer, usize)>,
}

/// One partition on two nodes, one of which leads.
#[derive(Debug, Default)]
struct World {
    log: Vec<Entry>,
    committed: usize,
    leader: usize,
    /// The last is the producer's; requests of the others may still arrive.
    streams: Vec<Stream>,
    in_sync: bool,
}

impl World {
    /// As the nodes judge: see `commitlog/src/producers`.
    fn judge(&self, new: &Entry) -> Result<usize, Answer> {
        let known = self.log.iter().enumerate().rev();
        let mut known = known.filter(|(_, entry)| entry.sequence.id == new.sequence.id).peekable();
        let Some((_, last)) = known.peek().copied() else { return Ok(self.log.len()) };
        let epoch = last.sequence.epoch;
        let same = |entry: &Entry| entry.sequence == new.sequence && entry.last() == new.last();
        let mut window = known.take_while(|(_, entry)| entry.sequence.epoch == epoch).take(5);
        if let Some((at, _)) = window.find(|(_, entry)| same(entry)) {
            return Ok(at);
        }
        if new.sequence.epoch < epoch {
            return Err(Answer::Fenced);
        }
        let expected = if new.sequence.epoch == epoch { last.next() } else { 0 };
        if new.sequence.base_sequence == expected {
            return Ok(self.log.len());
        }
        Err(Answer::OutOfOrder { expected: Some(expected) })
    }

    /// The leader takes the next request of a stream.
    fn deliver(&mut self, stream: usize) {
        let Some(request) = self.streams[stream].requests.pop_front() else { return };
        let answer = if self.streams[stream].node != self.leader || !self.in_sync {
            (Answer::NotNow, 0)
        } else {
            match self.judge(&request) {
                Ok(at) => {
                    if at == self.log.len() {
                        self.log.push(request);
                    }
                    assert_eq!(self.log[at].id, request.id, "one batch is taken for another");
                    (Answer::Written, at + 1)
                }
                Err(refusal) => (refusal, 0),
            }
        };
        self.streams[stream].answers.push((request.id, answer.0, answer.1));
    }

    /// Another node leads, with all that was committed and some of the rest. Who waited
    /// for the old one is told that it does not know.
    fn elect(&mut self, keep: Index) {
        let rest = self.log.len() - self.committed;
        self.log.truncate(self.committed + keep.index(rest + 1));
        self.leader = 1 - self.leader;
        for stream in &mut self.streams {
            for (_, answer, at) in &mut stream.answers {
                if *at > self.committed {
                    (*answer, *at) = (Answer::InDoubt { retriable: true }, 0);
                }
            }
        }
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    Offer(u32),
    Send,
    Deliver(Index),
    Commit,
    Answer(Index),
    /// The producer gives the stream up; its requests still arrive, some time.
    Leave,
    /// It takes everything with it that is on the way.
    Break,
    Elect(Index),
    Shrink,
    Expand,
    GiveUp,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1u32..4).prop_map(Act::Offer),
        8 => Just(Act::Send),
        8 => any::<Index>().prop_map(Act::Deliver),
        6 => Just(Act::Commit),
        6 => any::<Index>().prop_map(Act::Answer),
        1 => Just(Act::Leave),
        1 => Just(Act::Break),
        1 => any::<Index>().prop_map(Act::Elect),
        1 => Just(Act::Shrink),
        2 => Just(Act::Expand),
        1 => Just(Act::GiveUp),
    ]
}

struct Run {
    pipeline: Pipeline,
    world: World,
    offered: BatchId,
    ids: i64,
    records: BTreeMap<BatchId, u32>,
    fates: BTreeMap<BatchId, Fate>,
}

impl Run {
    fn new(rules: Rules, begin: u64) -> Self {
        let mut pipeline = Pipeline::new(rules);
        pipeline.identify(1);
        pipeline.acknowledged = begin;
        let streams = vec![Stream::default()];
        let world = World { streams, in_sync: true, ..World::default() };
        let (records, fates) = (BTreeMap::new(), BTreeMap::new());
        Self { pipeline, world, offered: 0, ids: 1, records, fates }
    }

    fn done(&mut self, id: BatchId, fate: Fate) {
        assert_eq!(self.fates.insert(id, fate), None, "{id} has two fates");
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Offer(records) => self.offer(*records),
            Act::Send => self.send(),
            Act::Deliver(which) => self.world.deliver(which.index(self.world.streams.len())),
            Act::Commit => self.world.committed = self.world.log.len(),
            Act::Answer(which) => self.answer(*which),
            Act::Leave => self.lose(false),
            Act::Break => self.lose(true),
            Act::Elect(keep) => self.world.elect(*keep),
            Act::Shrink => self.world.in_sync = false,
            Act::Expand => self.world.in_sync = true,
            Act::GiveUp => self.give_up(),
        }
        self.turn();
    }

    fn offer(&mut self, records: u32) {
        if self.pipeline.has_room() {
            assert_eq!(self.pipeline.admit(records), self.offered);
            self.records.insert(self.offered, records);
            self.offered += 1;
        }
    }

    fn send(&mut self) {
        if self.pipeline.needs_identity().is_some() {
            self.ids += 1;
            self.pipeline.identify(self.ids);
        }
        let Some(send) = self.pipeline.next() else { return };
        assert!(self.pipeline.unanswered() <= MAX_UNANSWERED);
        let sequence = send.sequence.expect("idempotent");
        let entry = Entry { id: send.id, records: self.records[&send.id], sequence };
        self.world.streams.last_mut().expect("one is open").requests.push_back(entry);
    }

    fn answer(&mut self, which: Index) {
        let committed = self.world.committed;
        let stream = self.world.streams.last_mut().expect("one is open");
        let ready = |(_, _, at): &(BatchId, Answer, usize)| *at <= committed;
        let mut ready: Vec<usize> =
            (0..stream.answers.len()).filter(|i| ready(&stream.answers[*i])).collect();
        if ready.is_empty() {
            return;
        }
        let (id, answer, _) = stream.answers.remove(ready.swap_remove(which.index(ready.len())));
        if let Some(fate) = self.pipeline.answered(id, answer) {
            self.done(id, fate);
        }
    }

    /// A new stream, to whoever leads.
    fn lose(&mut self, with_requests: bool) {
        if with_requests {
            self.world.streams.pop();
        }
        for (id, fate) in self.pipeline.lost() {
            self.done(id, fate);
        }
        let node = self.world.leader;
        self.world.streams.push(Stream { node, ..Stream::default() });
    }

    fn give_up(&mut self) {
        if self.pipeline.unanswered() == 0
            && let Some(oldest) = self.pipeline.slots.front().map(|slot| slot.id)
            && let Some(fate) = self.pipeline.give_up(oldest)
        {
            self.done(oldest, fate);
        }
    }

    /// What a worker does by itself.
    fn turn(&mut self) {
        if self.pipeline.has_failed() && self.pipeline.unanswered() == 0 {
            for (id, fate) in self.pipeline.end_leg() {
                self.done(id, fate);
            }
            if self.world.streams.last().is_none_or(|open| open.node != self.world.leader) {
                let node = self.world.leader;
                self.world.streams.push(Stream { node, ..Stream::default() });
            }
        }
    }

    /// All goes well from here on, and everything comes to an end.
    fn finish(&mut self) {
        self.world.in_sync = true;
        for _ in 0..1000 {
            if self.fates.len() as u64 == self.offered {
                break;
            }
            self.send();
            for stream in 0..self.world.streams.len() {
                self.world.deliver(stream);
            }
            self.world.committed = self.world.log.len();
            self.answer_all();
            self.turn();
        }
        assert_eq!(self.fates.len() as u64, self.offered, "{:?}", self.pipeline);
        // What was still on its way in streams that were given up.
        for stream in 0..self.world.streams.len() {
            while !self.world.streams[stream].requests.is_empty() {
                self.world.deliver(stream);
            }
        }
    }

    fn answer_all(&mut self) {
        let committed = self.world.committed;
        let stream = self.world.streams.last_mut().expect("one is open");
        let answers = std::mem::take(&mut stream.answers);
        for (id, answer, at) in answers {
            assert!(at <= committed);
            if let Some(fate) = self.pipeline.answered(id, answer) {
                self.done(id, fate);
            }
        }
    }

    fn check(&self) {
        let ids: Vec<BatchId> = self.world.log.iter().map(|entry| entry.id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "out of order, or twice: {ids:?}");
        for (id, fate) in &self.fates {
            let there = ids.contains(id);
            match fate {
                Fate::Written => assert!(there, "{id} was acknowledged and is lost: {ids:?}"),
                Fate::NotWritten => assert!(!there, "{id} was refused and is there: {ids:?}"),
                Fate::InDoubt => {}
            }
        }
    }
}

fn history(rules: Rules, begin: u64, acts: &[Act]) -> Run {
    let mut run = Run::new(rules, begin);
    for act in acts {
        run.act(act);
    }
    run.finish();
    run.check();
    run
}

const RULES: Rules = Rules { idempotent: true, retry_in_doubt: true, lossy: false };

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_batch_is_there_once_and_in_order(
        acts in vec(act(), 1..120),
        before_the_round in 0u64..20,
    ) {
        let wraps = SEQUENCES - before_the_round;
        history(RULES, if before_the_round < 10 { wraps } else { 0 }, &acts);
    }

    /// Without giving up, nothing stays in doubt.
    #[test]
    fn who_waits_long_enough_is_never_in_doubt(acts in vec(act(), 1..120)) {
        let acts: Vec<Act> = acts.into_iter().filter(|act| !matches!(act, Act::GiveUp)).collect();
        let run = history(RULES, 0, &acts);
        prop_assert!(run.fates.values().all(|fate| *fate == Fate::Written), "{:?}", run.fates);
    }

    /// A producer that does not send again what is in doubt.
    #[test]
    fn nothing_is_sent_twice_by_who_does_not_retry(acts in vec(act(), 1..120)) {
        history(Rules { retry_in_doubt: false, ..RULES }, 0, &acts);
    }
}
