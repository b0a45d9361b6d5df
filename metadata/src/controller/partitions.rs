//! The rules about ISRs, eligible replicas and leaders (KIP-966), and the epochs
//! that follow from them.
//!
//! An ISR holds active brokers with a working disk only. Once it is below its
//! minimum nothing is committed any more, so whoever leaves it then still has
//! every committed record: it is *eligible* (ELR) to lead when the ISR is empty,
//! until it may have lost something. What a restart can lose, see [`Loss`].

use super::draft::Draft;
use super::reassign::{Assignment, complete};
use crate::image::{Image, Partition};
use crate::records::{Durability, PartitionChanged, TopicConfig};
use ottla_proto::{NodeId, PartitionId, TopicId};

/// What a broker's copies have lost since it was last heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It did not stop in order: perhaps what it had not synced. That is nothing
    /// acknowledged where an acknowledgement means "on stable storage".
    Unsynced,
    /// It came with another data directory: all of it.
    Everything,
}

/// What an event asks for a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// Members that the ISR is to have, as far as they can serve; all replicas.
    pub(super) isr: &'a [NodeId],
    /// A broker that may have lost something.
    pub(super) lost: Option<(NodeId, Loss)>,
    /// The leader is done with recovering.
    pub(super) recovered: bool,
    /// An operator wants, as a last resort, anybody to lead who is there.
    pub(super) unclean: bool,
    /// Who is to hold the partition; `None`: who does so already.
    pub(super) assignment: Option<&'a Assignment>,
}

impl<'a> Wish<'a> {
    /// That nothing changes but what the rules ask for.
    pub(super) fn none(partition: &'a Partition) -> Self {
        Self { isr: &partition.isr, lost: None, recovered: false, unclean: false, assignment: None }
    }
}

/// Applies the rules to every partition that a broker can matter to, after
/// something about the broker changed. One pass over all partitions.
pub(super) fn settle_all_of(draft: &mut Draft, node: NodeId, loss: Option<Loss>) {
    let lost = loss.map(|loss| (node, loss));
    settle_where(draft, lost, |_, partition| concerns(partition, node));
}

/// Whether a broker can matter to a partition.
pub(super) fn concerns(partition: &Partition, node: NodeId) -> bool {
    partition.isr.contains(&node)
        || partition.elr.contains(&node)
        || (partition.leader.is_none() && partition.replicas.contains(&node))
}

/// Applies the rules to the partitions that are chosen.
pub(super) fn settle_where(
    draft: &mut Draft,
    lost: Option<(NodeId, Loss)>,
    chosen: impl Fn(PartitionId, &Partition) -> bool,
) {
    let image = draft.image();
    let changes: Vec<PartitionChanged> = image
        .partitions
        .iter()
        .filter(|(id, partition)| chosen(**id, partition))
        .filter_map(|(&id, partition)| {
            let wish = Wish { lost, ..Wish::none(partition) };
            settle(image, id, partition, &wish)
        })
        .collect();
    // Partitions do not depend on each other: deciding all of them on the same
    // image and then writing them down is the same as one by one.
    for change in changes {
        draft.push(change);
    }
}

/// What has to change in a partition for the wish to come true as far as its
/// members can serve, and the leader that goes with it. `None`: nothing.
pub(super) fn settle(
    image: &Image,
    id: PartitionId,
    partition: &Partition,
    wish: &Wish<'_>,
) -> Option<PartitionChanged> {
    let config = &image.topics.get(&id.topic).expect("a partition has a topic").config;
    let robbed = wish.lost.filter(|(_, loss)| matters(*loss, config));
    let mut after = partition.clone();
    if let Some(Assignment { replicas, reassignment }) = wish.assignment {
        (after.replicas, after.reassignment) = (replicas.clone(), reassignment.clone());
    }
    after.recovering &= !wish.recovered;
    after.isr = serving_isr(image, id, &after, wish.isr);
    complete(&mut after);
    track_eligible(partition, &mut after, config, robbed);
    elect(&Electorate { image, id, config, by_hand: wish.unclean }, &mut after);
    // Who leads for want of an ISR may be the only one that was awaited.
    complete(&mut after);
    changed(id, partition, &after)
}

/// Whether a loss may be one of acknowledged records.
fn matters(loss: Loss, config: &TopicConfig) -> bool {
    loss == Loss::Everything || config.durability == Durability::Memory
}

/// Writes down the differences, with the epochs after them: the partition
/// epoch moves on every change, the leader epoch whenever the leader is set
/// (protocol rule, `PartitionRegistration.merge`). It is set, if only to the same
/// again, when a node leaves the assignment too: nothing that node still sends or
/// asks for may count. A mere ISR change leaves the leader epoch alone
/// (KAFKA-15021).
pub(super) fn changed(
    id: PartitionId,
    before: &Partition,
    after: &Partition,
) -> Option<PartitionChanged> {
    let list = |before: &Vec<NodeId>, after: &Vec<NodeId>| (before != after).then(|| after.clone());
    let who =
        |before: Option<NodeId>, after: Option<NodeId>| (before != after).then(|| after.into());
    let somebody_left = before.replicas.iter().any(|node| !after.replicas.contains(node));
    let leader =
        if somebody_left { Some(after.leader.into()) } else { who(before.leader, after.leader) };
    let moved = before.reassignment != after.reassignment;
    let change = PartitionChanged {
        partition: id,
        isr: list(&before.isr, &after.isr),
        elr: list(&before.elr, &after.elr),
        last_known_elr: list(&before.last_known_elr, &after.last_known_elr),
        last_leader: who(before.last_leader, after.last_leader),
        recovering: (before.recovering != after.recovering).then_some(after.recovering),
        replicas: list(&before.replicas, &after.replicas),
        reassignment: moved.then(|| after.reassignment.clone().into()),
        leader,
        leader_epoch: match leader {
            Some(_) => before.leader_epoch.next(),
            None => before.leader_epoch,
        },
        partition_epoch: before.partition_epoch.next(),
    };
    let nothing = change.isr.is_none()
        && change.elr.is_none()
        && change.last_known_elr.is_none()
        && change.last_leader.is_none()
        && change.recovering.is_none()
        && change.replicas.is_none()
        && change.reassignment.is_none()
        && change.leader.is_none();
    (!nothing).then_some(change)
}

/// Everything stays as it is, under a new version.
pub(super) fn confirmed(id: PartitionId, partition: &Partition) -> PartitionChanged {
    PartitionChanged {
        partition: id,
        isr: None,
        elr: None,
        last_known_elr: None,
        last_leader: None,
        recovering: None,
        replicas: None,
        reassignment: None,
        leader: None,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch.next(),
    }
}

/// The wanted members that can serve (they are active, and their disk has not
/// failed), in assignment order. If none can, a leader on its way out stays: it
/// is still there, and nobody else in the ISR can serve.
fn serving_isr(
    image: &Image,
    id: PartitionId,
    partition: &Partition,
    wanted: &[NodeId],
) -> Vec<NodeId> {
    let in_order = || partition.replicas.iter().copied().filter(|node| wanted.contains(node));
    let able: Vec<NodeId> = in_order().filter(|&node| image.can_serve(node, id)).collect();
    if able.is_empty() {
        in_order()
            .filter(|&node| partition.leader == Some(node) && goes_on(image, id, node))
            .collect()
    } else {
        able
    }
}

/// Whether a leader can go on: also one on its way out.
fn goes_on(image: &Image, id: PartitionId, leader: NodeId) -> bool {
    image.brokers.get(&leader).is_some_and(|broker| !broker.fenced) && !image.is_offline(leader, id)
}

/// Who is eligible beside the new ISR, and who was. With as many members as an
/// acknowledgement needs records are committed again, so nobody is.
fn track_eligible(
    before: &Partition,
    after: &mut Partition,
    config: &TopicConfig,
    robbed: Option<(NodeId, Loss)>,
) {
    let stays = |node: &NodeId| after.replicas.contains(node);
    let last_leader = before.last_leader.or(before.leader).filter(stays);
    if after.isr.len() >= config.effective_min_isr(after.replication_factor()) {
        forget_eligible(after);
    } else {
        let left = |node: &&NodeId| !after.isr.contains(node);
        let had_all = |node: &NodeId| before.isr.contains(node) || before.elr.contains(node);
        let may_lack = |node: &NodeId| robbed.is_some_and(|(robbed, _)| robbed == *node);
        let known = |node: &NodeId| had_all(node) || before.last_known_elr.contains(node);
        let outside: Vec<NodeId> = after.replicas.iter().filter(left).copied().collect();
        let (elr, others): (Vec<_>, Vec<_>) = outside
            .into_iter()
            .filter(|node| known(node) && !is_blank(node, robbed))
            .partition(|node| had_all(node) && !may_lack(node));
        (after.elr, after.last_known_elr) = (elr, others);
    }
    after.last_leader = if after.isr.is_empty() {
        // A blank copy must not be taken for the best one, unless there is no
        // other.
        let only = after.replicas.len() == 1;
        last_leader.filter(|node| only || !is_blank(node, robbed))
    } else {
        None
    };
}

fn is_blank(node: &NodeId, robbed: Option<(NodeId, Loss)>) -> bool {
    robbed == Some((*node, Loss::Everything))
}

fn forget_eligible(partition: &mut Partition) {
    partition.elr.clear();
    partition.last_known_elr.clear();
}

/// Ends what was eligible in a topic, where somebody leads: members that left the
/// ISR have to catch up to count again.
pub(super) fn forget_eligible_of(draft: &mut Draft, topic: TopicId) {
    let changes: Vec<PartitionChanged> = draft
        .image()
        .partitions_of(topic)
        .filter(|(_, partition)| !partition.isr.is_empty())
        .filter_map(|(id, partition)| {
            let mut after = Partition::clone(partition);
            forget_eligible(&mut after);
            changed(id, partition, &after)
        })
        .collect();
    for change in changes {
        draft.push(change);
    }
}

/// What an election of one partition looks at, beside the partition.
struct Electorate<'a> {
    image: &'a Image,
    id: PartitionId,
    config: &'a TopicConfig,
    by_hand: bool,
}

impl Electorate<'_> {
    fn can_serve(&self, node: NodeId) -> bool {
        self.image.can_serve(node, self.id)
    }

    fn goes_on(&self, partition: &Partition) -> bool {
        let valid = partition.leader.filter(|leader| partition.isr.contains(leader));
        valid.is_some_and(|leader| goes_on(self.image, self.id, leader))
    }

    fn first(&self, among: &[NodeId]) -> Option<NodeId> {
        among.iter().copied().find(|&node| self.can_serve(node))
    }

    /// Somebody who has every committed record.
    fn complete(&self, partition: &Partition) -> Option<NodeId> {
        self.first(if partition.isr.is_empty() { &partition.elr } else { &partition.isr })
    }

    fn last_leader(&self, partition: &Partition) -> Option<NodeId> {
        let nobody = partition.isr.is_empty() && partition.elr.is_empty();
        partition.last_leader.filter(|&node| nobody && self.can_serve(node))
    }

    fn anybody(&self, partition: &Partition) -> Option<NodeId> {
        let allowed = self.by_hand || self.config.unclean_leader_election_enable;
        let any =
            || self.first(&partition.last_known_elr).or_else(|| self.first(partition.origin()));
        // A copy that is being made may be empty still. Nobody agreed to lose all.
        let last = || if self.by_hand { self.first(&partition.replicas) } else { None };
        if allowed { any().or_else(last) } else { None }
    }
}

/// The election, in the order of the protocol:
/// 1. a valid leader goes on;
/// 2. else the first replica, in assignment order, that can serve and is in the
///    ISR, or, if that is empty, eligible;
/// 3. else, if ISR and ELR are empty, who led last, if it is alive (KAFKA-19522);
/// 4. else, if that is allowed, the first replica that can serve; those that were
///    eligible once come first. One that a reassignment adds only by hand.
///
/// The last two may lack committed records: the leader starts as recovering.
fn elect(among: &Electorate<'_>, after: &mut Partition) {
    if among.goes_on(after) {
        return;
    }
    let complete = among.complete(after);
    let incomplete = || among.last_leader(after).or_else(|| among.anybody(after));
    after.leader = complete.or_else(incomplete);
    let Some(leader) = after.leader else { return };
    if complete.is_none() {
        forget_eligible(after);
        after.recovering = true;
    }
    if !after.isr.contains(&leader) {
        after.isr = vec![leader];
    }
    after.elr.retain(|node| *node != leader);
    after.last_leader = None;
    if after.isr.len() >= among.config.effective_min_isr(after.replication_factor()) {
        forget_eligible(after);
    }
}
