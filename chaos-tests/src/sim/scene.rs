//! Doing what a story says (`story`).

use super::cluster::{CLIENT, Cluster, name};
use super::faults::{Stage, Undo};
use super::operator::Request;
use super::story::{Op, Sign, Step, Story, Who};
use super::trace;
use anyhow::Context as _;
use ottla_client::ClientError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long operators may take for what a story asks of them.
const OPERATED_WITHIN: Duration = Duration::from_secs(30);

/// How long a story waits for somebody to lead, when it begins. Nobody need: what happened
/// before may have left only replicas that may not.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// What a message takes between two nodes after they were slow, in place of a draw.
const LINK_LATENCY: Duration = Duration::from_millis(1);

/// The nodes of a partition, as they were seen when its story began.
struct Cast {
    partition: u32,
    leader: u64,
    followers: [Option<u64>; 2],
    controller: Option<u64>,
    other: Option<u64>,
    /// Writes that were acknowledged when something began to be waited for.
    acknowledged: u64,
    /// Who was hit last; at first, who led.
    hit: u64,
}

impl Cast {
    fn of(partition: u32, nodes: &[u64], stage: &Stage<'_>) -> Option<Self> {
        let view = stage.view.lock();
        let roles = view.partitions.get(&partition)?;
        let leader = roles.leader?;
        let mut followers = roles.replicas.iter().copied().filter(|node| *node != leader);
        let followers = [followers.next(), followers.next()];
        let other = nodes.iter().copied().find(|node| !roles.replicas.contains(node));
        let (controller, acknowledged, hit) = (view.controller, 0, leader);
        Some(Self { partition, leader, followers, controller, other, acknowledged, hit })
    }

    fn is(&self, who: Who, stage: &Stage<'_>) -> Option<u64> {
        match who {
            Who::Leader => Some(self.leader),
            Who::First => self.followers[0],
            Who::Second => self.followers[1],
            Who::Controller => self.controller,
            Who::Hit => Some(self.hit),
            Who::Other => self.other,
            Who::NewLeader => {
                stage.view.lock().partitions.get(&self.partition).and_then(|roles| roles.leader)
            }
        }
    }

    fn sees(&self, sign: Sign, stage: &Stage<'_>) -> bool {
        if sign == Sign::Acknowledged {
            return stage.handle.acknowledged(self.partition) > self.acknowledged;
        }
        let node = match sign {
            Sign::Out(who) | Sign::In(who) => self.is(who, stage),
            _ => None,
        };
        let view = stage.view.lock();
        let Some(roles) = view.partitions.get(&self.partition) else { return false };
        match sign {
            Sign::Acknowledged => false,
            Sign::Moved => roles.leader.is_some_and(|leader| leader != self.hit),
            Sign::Alone => roles.isr == [self.leader],
            Sign::Whole => roles.isr.len() == roles.replicas.len(),
            Sign::Out(_) => node.is_some_and(|node| !roles.isr.contains(&node)),
            Sign::In(_) => node.is_some_and(|node| roles.isr.contains(&node)),
        }
    }
}

impl Cluster {
    /// Tells a story to its last step. Returns how to undo what it leaves behind.
    pub(super) fn tell(&mut self, story: &Story, stage: &Stage<'_>) -> anyhow::Result<Vec<Undo>> {
        let nodes = self.all();
        let cast = || Cast::of(story.partition, &nodes, stage);
        self.until(SEEN_WITHIN, || cast().is_some())?;
        let must = story.steps.iter().any(|step| matches!(step, Step::Await(..)));
        let Some(mut cast) = cast() else {
            anyhow::ensure!(!must, "nobody leads, as far as is seen");
            return Ok(vec![]);
        };
        stage.view.lock().attended = true;
        let mut left = Left::default();
        for step in &story.steps {
            trace::told(&format!("story: {step:?}"));
            if let Step::Until(sign, ms) | Step::Await(sign, ms) = *step {
                cast.acknowledged = stage.handle.acknowledged(cast.partition);
                let seen = self.until(Duration::from_millis(ms), || cast.sees(sign, stage))?;
                let must = matches!(step, Step::Await(..));
                anyhow::ensure!(seen || !must, "{sign:?} is not seen within {ms} ms");
            } else {
                self.play(*step, &mut cast, stage, &mut left)?;
            }
        }
        stage.view.lock().attended = false;
        let mut undo = vec![Undo::GoOn, Undo::DiskSpeed];
        undo.extend(left.cuts.into_iter().chain(left.isolated.into_iter().map(|(_, undo)| undo)));
        undo.extend(left.slow.into_iter().map(|(one, other)| Undo::LinkLatency(one, other)));
        undo.extend(left.down.into_iter().map(Undo::Start));
        Ok(undo)
    }

    fn play(
        &mut self,
        step: Step,
        cast: &mut Cast,
        stage: &Stage<'_>,
        left: &mut Left,
    ) -> anyhow::Result<()> {
        let there = |who| cast.is(who, stage).filter(|node| self.nodes.contains_key(node));
        match step {
            Step::For(ms) => self.run_for(Duration::from_millis(ms))?,
            Step::SlowDisks(ms) => self.busy_us.store(ms * 1_000, Relaxed),
            Step::GoOn => self.go_on(),
            Step::Join => left.cuts.drain(..).for_each(|undo| self.end(undo)),
            Step::PowerLossOfAll(seed) => {
                left.down.extend(self.all());
                self.lose_all_power(seed, 0)?;
            }
            Step::Cut(one, other) | Step::Slow(one, other, _) => {
                let (Some(one), Some(other)) = (there(one), there(other)) else { return Ok(()) };
                if one == other {
                    return Ok(());
                }
                match step {
                    Step::Slow(.., ms) => {
                        self.set_link_latency(one, other, Duration::from_millis(ms));
                        left.slow.push((one, other));
                    }
                    _ => left.cuts.extend(self.hold(&[one], &[name(other)])),
                }
            }
            Step::Start(who) => {
                let Some(node) = there(who) else { return Ok(()) };
                self.bring_back(node, left);
            }
            Step::Kill(who)
            | Step::Stop(who)
            | Step::PowerLoss(who, _)
            | Step::Pause(who)
            | Step::Isolate(who) => {
                let Some(node) = there(who) else { return Ok(()) };
                cast.hit = node;
                self.hit(step, node, left)?;
            }
            Step::Operate(op) => self.operate(op, cast, stage)?,
            Step::Until(..) | Step::Await(..) => {}
        }
        Ok(())
    }

    fn operate(&mut self, op: Op, cast: &Cast, stage: &Stage<'_>) -> anyhow::Result<()> {
        let request = match op {
            Op::Create(name) => Request::Create(name),
            Op::Delete(name) => Request::Delete(name),
            Op::Whole(name) => Request::Whole(name),
            Op::Move(nodes) => {
                let nodes = nodes.into_iter().filter_map(|who| cast.is(who, stage)).collect();
                Request::Move(cast.partition, nodes)
            }
        };
        let mut answer = stage.desk.ask(request);
        let done = |answer: &mut oneshot::Receiver<_>| answer.try_recv().ok();
        let late = self.elapsed() + OPERATED_WITHIN;
        loop {
            if let Some(outcome) = done(&mut answer) {
                let outcome: Result<(), ClientError> = outcome;
                return outcome.with_context(|| format!("{op:?}"));
            }
            anyhow::ensure!(self.elapsed() < late, "{op:?} is not done in {OPERATED_WITHIN:?}");
            anyhow::ensure!(!self.step()?, "the client ended before its time");
        }
    }

    fn hit(&mut self, step: Step, node: u64, left: &mut Left) -> anyhow::Result<()> {
        match step {
            Step::Stop(_) => self.stop_in_order(node),
            Step::PowerLoss(_, seed) => self.lose_power(node, seed),
            Step::Pause(_) => return self.pause(node),
            Step::Isolate(_) => {
                let undo = self.hold(&[node], &self.everybody_but(node));
                left.isolated.extend(undo.into_iter().map(|undo| (node, undo)));
                return Ok(());
            }
            _ => self.kill(node),
        }
        left.down.push(node);
        Ok(())
    }

    fn bring_back(&mut self, node: u64, left: &mut Left) {
        let back: Vec<_> = left.isolated.extract_if(.., |(who, _)| *who == node).collect();
        back.into_iter().for_each(|(_, undo)| self.end(undo));
        if left.down.contains(&node) {
            self.start(node);
        }
    }

    pub(super) fn set_link_latency(&self, one: u64, other: u64, latency: Duration) {
        self.sim.set_link_latency(name(one), name(other), latency);
    }

    pub(super) fn end_link_latency(&self, one: u64, other: u64) {
        self.set_link_latency(one, other, LINK_LATENCY);
    }

    /// Until something is seen, or so much time has passed. Whether it was seen.
    pub(super) fn until(
        &mut self,
        most: Duration,
        seen: impl Fn() -> bool,
    ) -> anyhow::Result<bool> {
        let late = self.elapsed() + most;
        while !seen() {
            if self.elapsed() >= late {
                return Ok(false);
            }
            anyhow::ensure!(!self.step()?, "the client ended before its time");
        }
        Ok(true)
    }

    pub(super) fn everybody_but(&self, node: u64) -> Vec<String> {
        let others = self.nodes.keys().filter(|id| **id != node).map(|id| name(*id));
        others.chain([CLIENT.to_owned()]).collect()
    }
}

/// What is to be undone.
#[derive(Default)]
struct Left {
    cuts: Vec<Undo>,
    isolated: Vec<(u64, Undo)>,
    slow: Vec<(u64, u64)>,
    down: Vec<u64>,
}
