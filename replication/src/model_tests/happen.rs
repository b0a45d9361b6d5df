//! What can happen, one thing at a time. Two drivers choose: chance (`mod`), and a
//! model checker that tries everything (`exhaustive`).

use super::said::Said;
use super::world::{NODES, World, index_of};
use crate::core::{Event, Millis};
use ottla_proto::NodeId;
use std::sync::Arc;

/// Something that happens. Nodes are given by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A node reads newer metadata.
    Tell { node: usize, newest: bool },
    /// A node carries out the next operation on its log.
    RunOp(usize),
    /// A sync begins, or the one under way ends.
    Sync(usize),
    /// A leader sends a follower up to `most` records, or its watermark.
    Push { from: usize, to: NodeId, most: usize },
    /// A message arrives; they overtake each other.
    Deliver(usize),
    /// A message arrives, and may arrive again.
    Repeat(usize),
    /// A message does not arrive.
    Lose(usize),
    /// A client writes, and waits for all or for the leader only.
    Produce { node: usize, all: bool },
    /// Time passes.
    Pass(Millis),
    /// A machine loses power, and of what it had not synced all but `kept` records.
    /// The controller hears of it now, or from the next process of that node.
    Crash { node: usize, kept: usize, noticed: bool },
    /// A new process on a machine that has power again.
    Restart(usize),
    /// The controller fences a node.
    Fence(usize),
    /// The controller takes a node back.
    Unfence(usize),
    /// A follower connects anew.
    Reconnect(usize),
    /// Another min.insync.replicas.
    Configure(u32),
    /// Everything happens that can, so many times.
    Rounds(u32),
}

impl World {
    /// One thing happens, as the number says.
    pub(super) fn happen(&mut self, choice: u32) {
        if let Some(action) = self.drawn(choice) {
            self.act(action);
        }
        self.collect();
        self.check();
    }

    /// Weighed so that most histories get somewhere.
    fn drawn(&self, choice: u32) -> Option<Action> {
        let (what, which) = (choice % 64, choice / 64);
        let node = (which % 3) as usize;
        let more = which / 3;
        Some(match what {
            0..=2 => Action::Tell { node, newest: more.is_multiple_of(2) },
            3..=8 => Action::RunOp(node),
            9..=13 => Action::Sync(node),
            14..=18 => {
                let to = NodeId(u64::from(more) % NODES + 1);
                Action::Push { from: node, to, most: 1 + (more / 3 % 4) as usize }
            }
            19..=26 => Action::Deliver(self.on_the_way(which)?),
            27 => Action::Repeat(self.on_the_way(which)?),
            28 => Action::Lose(self.on_the_way(which)?),
            29..=36 => {
                Action::Produce { node: self.target(node, more), all: !more.is_multiple_of(4) }
            }
            37 => Action::Pass([1, 60, 3_000, 11_000][(more % 4) as usize]),
            38 => {
                let kept = (more % 4) as usize;
                Action::Crash { node, kept, noticed: kept.is_multiple_of(2) }
            }
            39..=43 => Action::Restart(node),
            44 => Action::Fence(node),
            45..=50 => Action::Unfence(node),
            51 => Action::Reconnect(node),
            52 if !self.memory => Action::Configure(1 + more % 3),
            _ => Action::Rounds(more % 4),
        })
    }

    fn on_the_way(&self, which: u32) -> Option<usize> {
        (which as usize).checked_rem(self.network.len())
    }

    pub(super) fn act(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::Tell { node, newest } => self.tell(node, newest),
            Action::RunOp(node) => drop(self.nodes[node].run_op(now)),
            Action::Sync(node) => drop(self.nodes[node].sync(now)),
            Action::Push { from, to, most } => self.nodes[from].push(to, most),
            Action::Deliver(which) => self.deliver(which),
            Action::Repeat(which) => self.repeat(which),
            Action::Lose(which) => {
                let lost = self.network.remove(which);
                self.lost(&lost);
            }
            Action::Produce { node, all } => self.produce(node, all),
            Action::Pass(millis) => self.pass(millis),
            Action::Crash { node, kept, noticed } => self.crash(node, kept, noticed),
            Action::Restart(node) => self.restart(node),
            Action::Fence(node) => self.heartbeat(node, true),
            Action::Unfence(node) => self.unfence_running(node),
            Action::Reconnect(node) => self.nodes[node].reconnect(now),
            Action::Configure(min_isr) => self.configure(min_isr),
            Action::Rounds(rounds) => (0..rounds).for_each(|_| self.round()),
        }
    }

    /// An answer belongs to one call: it is not heard twice, and a proposal that is
    /// has one answer.
    fn repeat(&mut self, which: usize) {
        let mut again = self.network[which].clone();
        match &mut again.said {
            Said::Answered { .. } => {}
            Said::Propose { awaited, .. } => {
                *awaited = false;
                self.network.push(again);
            }
            _ => self.network.push(again),
        }
        self.deliver(which);
    }

    fn tell(&mut self, index: usize, newest: bool) {
        let last = self.images.len() - 1;
        let Some(process) = &mut self.nodes[index].process else { return };
        if process.image < last {
            process.image = if newest { last } else { process.image + 1 };
            let image = Arc::clone(&self.images[process.image]);
            let (view, now) = (self.view(&image), self.now);
            self.nodes[index].step(Event::Metadata(view), &[], now);
        }
    }

    /// Mostly the leader, as clients know it.
    fn target(&self, index: usize, draw: u32) -> usize {
        let leader = self.image().partitions[&self.partition].leader;
        let known = leader.filter(|_| !draw.is_multiple_of(5));
        known.map_or(index, index_of)
    }

    fn pass(&mut self, millis: Millis) {
        self.now += millis;
        for index in 0..3 {
            let now = self.now;
            let due = self.nodes[index].process.as_ref().and_then(|p| p.replica.next_deadline());
            if due.is_some_and(|due| due <= now) {
                self.nodes[index].step(Event::Tick, &[], now);
            }
        }
    }

    fn unfence_running(&mut self, index: usize) {
        if self.nodes[index].process.is_some() {
            self.unfence(index);
        }
    }

    /// Everything happens once that can.
    pub(super) fn round(&mut self) {
        self.pass(100);
        for index in 0..3 {
            self.tell(index, true);
            let now = self.now;
            while self.nodes[index].run_op(now) || self.nodes[index].sync(now) {}
            for to in 1..=NODES {
                self.nodes[index].push(NodeId(to), 8);
            }
        }
        self.collect();
        for _ in 0..self.network.len() {
            self.deliver(0);
            self.collect();
            self.check();
        }
    }
}
