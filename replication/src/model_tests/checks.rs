//! What must hold in every state.

use super::world::World;
use crate::core::RoleKind;
use std::sync::Arc;

impl World {
    pub(super) fn check(&mut self) {
        self.check_acknowledged();
        let image = Arc::clone(self.image());
        let isr = &image.partitions[&self.partition].isr;
        self.robbed.retain(|index| {
            let node = &self.nodes[*index];
            let current = image.brokers[&node.id].epoch;
            let back = node.process.as_ref().is_some_and(|p| p.broker_epoch == current);
            !(back && isr.len() >= 2 && isr.contains(&node.id))
        });
        self.check_matching();
        self.check_reads();
        self.check_leaders();
    }

    /// Every member of the ISR, and everybody eligible beside it, has every
    /// acknowledged record, on stable storage where that was promised: whoever of
    /// them leads next, nothing is lost.
    fn check_acknowledged(&self) {
        let partition = &self.image().partitions[&self.partition];
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
                assert!(
                    found == Some(id) && (self.memory || at < node.disk.synced),
                    "request {id} at {offset} is not on node {}, which may lead: {}",
                    node.id,
                    self.describe()
                );
            }
        }
    }

    /// Two logs that have the same epoch at the same offset are equal up to it.
    fn check_matching(&self) {
        for left in &self.nodes {
            for right in self.nodes.iter().filter(|right| right.id > left.id) {
                let (left, right) = (&left.disk.log, &right.disk.log);
                let both = left.len().min(right.len());
                let last = (0..both).rev().find(|&at| left[at].0 == right[at].0);
                if let Some(last) = last {
                    assert_eq!(left[..=last], right[..=last], "{}", self.describe());
                }
            }
        }
    }

    /// What was ever below anybody's watermark never changes.
    fn check_reads(&mut self) {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let visible = usize::try_from(process.replica.status().high_watermark).expect("small");
            let visible = &node.disk.log[..visible.min(node.disk.log.len())];
            let both = visible.len().min(self.committed.len());
            assert_eq!(visible[..both], self.committed[..both], "{}", self.describe());
            if visible.len() > self.committed.len() {
                self.committed = visible.to_vec();
            }
        }
    }

    /// An epoch is led by one process, in one life of it.
    fn check_leaders(&mut self) {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let status = process.replica.status();
            if status.role == RoleKind::Leader {
                let who = (node.id, process.broker_epoch);
                let known = *self.led.entry(status.leader_epoch).or_insert(who);
                assert_eq!(known, who, "epoch {} is led twice", status.leader_epoch);
            }
        }
    }
}
