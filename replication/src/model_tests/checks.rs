//! What must hold in every state, whoever explores them. The names are those of the
//! TLA+ specifications of Kafka's protocol, in words.

use super::node::{Node, Process};
use super::world::World;
use crate::core::RoleKind;
use ottla_metadata::image::Partition;
use ottla_proto::NodeId;
use std::sync::Arc;

/// A rule, and what it says. What breaks it is told in words.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) holds: fn(&World) -> Result<(), String>,
}

pub(super) const RULES: [Rule; 12] = [
    Rule { name: "leader completeness", holds: World::leader_has_everything },
    Rule { name: "leader candidate completeness", holds: World::candidates_have_everything },
    Rule { name: "replication quorum superset", holds: World::leader_waits_for_the_isr },
    Rule { name: "log matching", holds: World::logs_match },
    Rule { name: "metadata log matching", holds: World::metadata_matches },
    Rule { name: "consistent read", holds: World::reads_are_consistent },
    Rule { name: "no committed record lost globally", holds: World::nothing_is_lost_everywhere },
    Rule { name: "min ISR recovery quorum", holds: World::a_minimum_has_it },
    Rule { name: "fenced not in the ISR", holds: World::fenced_are_outside },
    Rule { name: "nobody eligible beside an ISR that commits", holds: World::eligible_if_needed },
    Rule { name: "acknowledged is committed", holds: World::acknowledged_is_committed },
    Rule { name: "one leader an epoch", holds: World::epochs_are_led_once },
];

impl World {
    /// # Panics
    /// If a rule is broken.
    pub(super) fn check(&mut self) {
        self.observe();
        for rule in &RULES {
            if let Err(what) = (rule.holds)(self) {
                panic!("{}: {what}: {}", rule.name, self.describe());
            }
        }
    }

    /// Remembers what the rules compare with.
    pub(super) fn observe(&mut self) {
        let partition = self.partition().clone();
        let brokers = self.image().brokers.clone();
        self.robbed.retain(|index| {
            let node = &self.nodes[*index];
            let current = brokers[&node.id].epoch;
            let back = node.process.as_ref().is_some_and(|p| p.broker_epoch == current);
            !(back && partition.isr.len() >= 2 && partition.isr.contains(&node.id))
        });
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let status = process.replica.status();
            if status.role == RoleKind::Leader {
                let who = (node.id, process.broker_epoch);
                self.led.entry(status.leader_epoch).or_insert(who);
            }
            let visible = usize::try_from(status.high_watermark).expect("small");
            let visible = &node.disk.log[..visible.min(node.disk.log.len())];
            if visible.starts_with(&self.committed) {
                self.committed = visible.to_vec();
            }
        }
    }

    pub(super) fn partition(&self) -> &Partition {
        &self.image().partitions[&self.partition]
    }

    /// Who leads as the controller has it, once it has begun.
    fn leader(&self) -> Option<(NodeId, &Process)> {
        let partition = self.partition();
        self.nodes.iter().find_map(|node| {
            let process = node.process.as_ref()?;
            let status = process.replica.status();
            let leads = partition.leader == Some(node.id)
                && status.role == RoleKind::Leader
                && status.leader_epoch == partition.leader_epoch;
            leads.then_some((node.id, process))
        })
    }

    fn leader_has_everything(&self) -> Result<(), String> {
        let Some((id, _)) = self.leader() else { return Ok(()) };
        let node = self.nodes.iter().find(|node| node.id == id).expect("it leads");
        let log = &node.disk.log;
        let lost = |(request, offset): (&u64, &u64)| {
            let at = usize::try_from(*offset).expect("small");
            log.get(at).is_none_or(|record| record.1 != *request)
        };
        if let Some(lost) = self.acknowledged.iter().find(|both| lost(*both)) {
            return Err(format!("node {id} leads without {lost:?}"));
        }
        if !self.memory && !log.starts_with(&self.committed) {
            return Err(format!("node {id} leads without all of {:?}", self.committed));
        }
        Ok(())
    }

    /// Every member of the ISR, and everybody eligible beside it, has every
    /// committed record, on stable storage where that was promised: whoever of
    /// them leads next, nothing is lost.
    fn candidates_have_everything(&self) -> Result<(), String> {
        let partition = self.partition();
        let candidates = || partition.isr.iter().chain(&partition.elr);
        for (index, node) in self.nodes.iter().enumerate() {
            // Who has just lost power is found out when it registers.
            let unnoticed = self.memory && self.robbed.contains(&index) && node.process.is_none();
            if unnoticed || !candidates().any(|id| *id == node.id) {
                continue;
            }
            for (&id, &offset) in &self.acknowledged {
                let at = usize::try_from(offset).expect("small");
                let found = node.disk.log.get(at).map(|(_, id)| *id);
                if found != Some(id) || !(self.memory || at < node.disk.synced) {
                    let who = node.id;
                    return Err(format!("request {id} at {offset} is not on node {who}"));
                }
            }
            if !self.memory && !node.disk.stable().starts_with(&self.committed) {
                return Err(format!("node {} lacks some of {:?}", node.id, self.committed));
            }
        }
        Ok(())
    }

    /// The leader lets the watermark wait for every member of the ISR, also for
    /// those that it does not know to be members yet.
    fn leader_waits_for_the_isr(&self) -> Result<(), String> {
        let Some((id, process)) = self.leader() else { return Ok(()) };
        let isr = &self.partition().isr;
        let maximal = process.replica.maximal_isr();
        if isr.iter().all(|member| maximal.contains(member)) {
            return Ok(());
        }
        Err(format!("node {id} leads and waits for {maximal:?}, the ISR is {isr:?}"))
    }

    /// Two logs that have the same epoch at the same offset are equal up to it.
    fn logs_match(&self) -> Result<(), String> {
        for left in &self.nodes {
            for right in self.nodes.iter().filter(|right| right.id > left.id) {
                let (one, other) = (&left.disk.log, &right.disk.log);
                let both = one.len().min(other.len());
                let last = (0..both).rev().find(|&at| one[at].0 == other[at].0);
                if last.is_some_and(|last| one[..=last] != other[..=last]) {
                    return Err(format!("{one:?} on node {}, {other:?}", left.id));
                }
            }
        }
        Ok(())
    }

    /// What a replica takes for the ISR of a version was the ISR of that version.
    fn metadata_matches(&self) -> Result<(), String> {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let (status, isr) = (process.replica.status(), process.replica.isr());
            let mut versions = self.images.iter().filter_map(|i| i.partitions.get(&self.partition));
            let same = |p: &&Arc<Partition>| {
                p.partition_epoch == status.partition_epoch && p.leader_epoch == status.leader_epoch
            };
            let Some(version) = versions.find(same) else {
                return Err(format!("node {} knows a version that never was: {status:?}", node.id));
            };
            if !version.isr.iter().all(|n| isr.contains(n)) || version.isr.len() != isr.len() {
                return Err(format!("node {} has {isr:?} for {version:?}", node.id));
            }
        }
        Ok(())
    }

    /// What was ever below anybody's watermark never changes.
    fn reads_are_consistent(&self) -> Result<(), String> {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let visible = usize::try_from(process.replica.status().high_watermark).expect("small");
            let visible = &node.disk.log[..visible.min(node.disk.log.len())];
            if !visible.starts_with(&self.committed) && !self.committed.starts_with(visible) {
                let id = node.id;
                return Err(format!("node {id} shows {visible:?}, before: {:?}", self.committed));
            }
        }
        Ok(())
    }

    fn nothing_is_lost_everywhere(&self) -> Result<(), String> {
        let has = |node: &Node| node.disk.log.starts_with(&self.committed);
        if self.nodes.iter().any(has) { Ok(()) } else { Err(format!("{:?}", self.committed)) }
    }

    /// Committed records are on stable storage of as many nodes as an acknowledgement
    /// needs, so that fewer lost disks lose nothing.
    fn a_minimum_has_it(&self) -> Result<(), String> {
        let has = |node: &&Node| node.disk.stable().starts_with(&self.committed);
        let count = self.nodes.iter().filter(has).count();
        let least = self.least_min_isr;
        if self.memory || count >= least {
            return Ok(());
        }
        Err(format!("{count} nodes have all of {:?}, less than {least}", self.committed))
    }

    fn fenced_are_outside(&self) -> Result<(), String> {
        let fenced = |node: &&NodeId| self.image().brokers[*node].fenced;
        let inside = self.partition().isr.iter().find(fenced);
        inside.map_or(Ok(()), |node| Err(format!("node {node} is fenced")))
    }

    fn eligible_if_needed(&self) -> Result<(), String> {
        let Partition { isr, elr, .. } = self.partition();
        let min = self.image().effective_min_isr(self.partition).expect("a topic");
        if elr.is_empty() || isr.len() < min {
            return Ok(());
        }
        Err(format!("{elr:?} beside {isr:?}"))
    }

    fn acknowledged_is_committed(&self) -> Result<(), String> {
        let found = |offset: u64| self.committed.get(usize::try_from(offset).expect("small"));
        for (&id, &offset) in &self.acknowledged {
            if found(offset).is_none_or(|record| record.1 != id) {
                return Err(format!("request {id} at {offset} is not in {:?}", self.committed));
            }
        }
        Ok(())
    }

    /// An epoch is led by one process, in one life of it.
    fn epochs_are_led_once(&self) -> Result<(), String> {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let status = process.replica.status();
            let known = self.led.get(&status.leader_epoch);
            let leads = status.role == RoleKind::Leader;
            if leads && known.is_some_and(|known| *known != (node.id, process.broker_epoch)) {
                return Err(format!("epoch {} by node {} too", status.leader_epoch, node.id));
            }
        }
        Ok(())
    }
}
