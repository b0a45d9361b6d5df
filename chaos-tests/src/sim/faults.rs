//! Doing to the nodes what a plan says, and undoing it when its window ends.

use super::cluster::{BUSY_DISK_US, Cluster, LATENCY, MOST_NODES, OneWay, name};
use super::load::Handle;
use super::operator::Desk;
use super::plan::{Fault, Target};
use super::view::View;
use super::{os, trace};
use parking_lot::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Nodes that stay when others leave: replicas need as many.
const FEWEST_NODES: usize = 3;

/// Longest wait for the acknowledgement after which the power goes: there may be none
/// for as long as a client waits for one.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// What a fault is aimed by.
pub(super) struct Stage<'a> {
    pub(super) view: &'a Mutex<View>,
    pub(super) handle: &'a Handle,
    pub(super) desk: &'a Desk,
}

/// What ends with a window.
pub(super) enum Undo {
    Start(u64),
    GoOn,
    LinkLatency(u64, u64),
    Release(String, String),
    OneWay,
    Latency,
    DiskSpeed,
    Resets,
    /// The disk, and with it the process: who has seen it fail does not trust it.
    HealAndRestart(u64),
    Heal(u64),
    Clock(u64),
}

impl Cluster {
    pub(super) fn all(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Who plays a role, as far as anybody knows; else the first.
    fn find(&self, who: Target, view: &View) -> u64 {
        let roles = |partition| view.partitions.get(&partition);
        let found = match who {
            Target::Node(node) => Some(node),
            Target::Leader(partition) => roles(partition).and_then(|roles| roles.leader),
            Target::Follower(partition) => roles(partition).and_then(|roles| {
                let mut followers = roles.isr.iter().chain(&roles.replicas);
                followers.find(|node| Some(**node) != roles.leader).copied()
            }),
            Target::LastInSync(partition) => roles(partition).and_then(|roles| {
                let first = roles.isr.first().copied();
                roles.leader.filter(|leader| roles.isr.contains(leader)).or(first)
            }),
            Target::Controller => view.controller,
        };
        found.filter(|node| self.nodes.contains_key(node)).unwrap_or(1)
    }

    /// Begins a fault. Some take time by themselves.
    pub(super) fn begin(&mut self, fault: &Fault, stage: &Stage<'_>) -> anyhow::Result<Vec<Undo>> {
        trace::told(&format!("begins: {fault:?}"));
        let seen = stage.view.lock().clone();
        let node = fault.target().map_or(1, |who| self.find(who, &seen));
        Ok(match fault {
            Fault::Calm => vec![],
            Fault::Kill { .. } => {
                self.kill(node);
                vec![Undo::Start(node)]
            }
            Fault::Stop { .. } => {
                self.stop_in_order(node);
                vec![Undo::Start(node)]
            }
            Fault::PowerLoss { seed, .. } => {
                self.lose_power(node, *seed);
                vec![Undo::Start(node)]
            }
            Fault::PowerLossOfAll { seed, apart_ms } => self.lose_all_power(*seed, *apart_ms)?,
            Fault::PowerLossAfterAcknowledgement { partition, seed } => {
                self.await_acknowledgement(*partition, stage.handle)?;
                self.lose_all_power(*seed, 0)?
            }
            Fault::Pause { .. } => {
                self.pause(node)?;
                vec![Undo::GoOn]
            }
            Fault::DiskErrors { .. }
            | Fault::FullDisk { .. }
            | Fault::SlowDisks { .. }
            | Fault::Clock { .. } => self.begin_on_machine(fault, node),
            Fault::Join => self.join()?,
            Fault::Leave => self.leave(),
            Fault::Story(story) => self.tell(story, stage)?,
            _ => self.begin_on_network(fault, node),
        })
    }

    fn begin_on_network(&mut self, fault: &Fault, node: u64) -> Vec<Undo> {
        match *fault {
            Fault::Isolate { .. } => self.hold(&[node], &self.everybody_but(node)),
            Fault::Cut { one, other } => self.hold(&[one], &[name(other)]),
            Fault::Mute { .. } => self.one_way(node, true),
            Fault::Deaf { .. } => self.one_way(node, false),
            Fault::Split { side } => {
                let is_in = |node: &u64| side & (1 << (node - 1)) != 0;
                let (one, other): (Vec<_>, Vec<_>) = self.all().into_iter().partition(is_in);
                let other: Vec<_> = other.into_iter().map(name).collect();
                self.hold(&one, &other)
            }
            Fault::Resets { every_ms, .. } => {
                self.resets = Some((node, every_ms.max(1)));
                vec![Undo::Resets]
            }
            Fault::Slow { latency_ms } => {
                self.sim.set_max_message_latency(Duration::from_millis(latency_ms));
                vec![Undo::Latency]
            }
            _ => vec![],
        }
    }

    fn begin_on_machine(&mut self, fault: &Fault, node: u64) -> Vec<Undo> {
        let state = self.nodes.get_mut(&node).expect("a node that there is");
        match *fault {
            Fault::SlowDisks { ms } => {
                self.busy_us.store(ms * 1_000, Relaxed);
                vec![Undo::DiskSpeed]
            }
            Fault::DiskErrors { one_in, seed, .. } => {
                state.disk.files.fail_one_in(one_in, seed);
                state.may_end = true;
                vec![Undo::HealAndRestart(node)]
            }
            Fault::FullDisk { .. } => {
                state.disk.files.fill();
                state.may_end = true;
                vec![Undo::Heal(node)]
            }
            Fault::Clock { ahead_ms, .. } => {
                os::set_skew(state.added, ahead_ms);
                vec![Undo::Clock(node)]
            }
            _ => vec![],
        }
    }

    /// Until a writer of the partition is told that its record is safe.
    fn await_acknowledgement(&mut self, partition: u32, handle: &Handle) -> anyhow::Result<()> {
        let before = handle.acknowledged(partition);
        self.until(ACKNOWLEDGED_WITHIN, || handle.acknowledged(partition) != before).map(drop)
    }

    pub(super) fn end(&mut self, undo: Undo) {
        match undo {
            Undo::Start(node) => self.start(node),
            Undo::GoOn => self.go_on(),
            Undo::LinkLatency(one, other) => self.end_link_latency(one, other),
            Undo::Release(one, other) => self.sim.release(one, other),
            Undo::OneWay => self.one_way = None,
            Undo::Latency => self.sim.set_max_message_latency(LATENCY.1),
            Undo::DiskSpeed => self.busy_us.store(BUSY_DISK_US.1, Relaxed),
            Undo::Resets => self.resets = None,
            Undo::HealAndRestart(node) => {
                self.nodes[&node].disk.files.heal();
                self.kill(node);
                self.may_end(node, false);
                self.start(node);
            }
            Undo::Heal(node) => {
                self.nodes[&node].disk.files.heal();
                self.may_end(node, false);
                self.start(node);
            }
            Undo::Clock(node) => os::set_skew(self.nodes[&node].added, 0),
        }
    }

    fn may_end(&mut self, node: u64, may: bool) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.may_end = may;
        }
    }

    pub(super) fn lose_all_power(&mut self, seed: u64, apart_ms: u64) -> anyhow::Result<Vec<Undo>> {
        for node in self.all() {
            self.lose_power(node, seed.wrapping_add(node));
            self.run_for(Duration::from_millis(apart_ms))?;
        }
        Ok(self.all().into_iter().map(Undo::Start).collect())
    }

    /// Nothing gets from one side to the other. What is sent meanwhile arrives later, as
    /// TCP would send it again.
    pub(super) fn hold(&self, side: &[u64], others: &[String]) -> Vec<Undo> {
        let mut undo = Vec::new();
        for (node, other) in side.iter().flat_map(|node| others.iter().map(move |o| (node, o))) {
            self.sim.hold(name(*node), other.as_str());
            undo.push(Undo::Release(name(*node), other.clone()));
        }
        undo
    }

    /// What a node sends to other nodes is held, or what they send to it.
    fn one_way(&mut self, node: u64, outwards: bool) -> Vec<Undo> {
        let others: Vec<_> =
            self.all().into_iter().filter(|other| *other != node).map(name).collect();
        let mut undo = self.hold(&[node], &others);
        self.one_way = Some(OneWay { host: self.sim.lookup(name(node)), outwards });
        undo.push(Undo::OneWay);
        undo
    }

    fn join(&mut self) -> anyhow::Result<Vec<Undo>> {
        let next = self.nodes.len() as u64 + 1;
        if next <= MOST_NODES {
            self.add(next)?;
        }
        Ok(vec![])
    }

    /// The operators see to it that it leaves (`churn`).
    fn leave(&self) -> Vec<Undo> {
        let mut members = self.members.lock();
        if members.there.len() > FEWEST_NODES
            && members.leaving.is_empty()
            && let Some(last) = members.there.pop_last()
        {
            members.leaving.insert(last);
        }
        vec![]
    }
}
