//! Where the replicas of a new topic go, and who takes the place of one that leaves.
//!
//! Those of a new topic: round-robin over racks, then over the
//! brokers of each rack, in an order drawn from the command's seed.
//!
//! - No node holds two replicas of a partition.
//! - The first replica, the preferred leader, is on an active broker.
//! - The replicas of a partition stand in as many racks as there are, even if
//!   that puts more on the brokers of a small rack.
//! - Within a rack, active brokers come first.
//! - The order is drawn anew after every active broker had its turn, so that
//!   what one broker leads falls to all others when it dies, not to the next in
//!   line.

use ottla_proto::NodeId;
use std::collections::BTreeMap;

/// A broker that can be given replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    pub(super) rack: Option<String>,
    pub(super) active: bool,
}

/// One rack: nodes in their current order.
#[derive(Clone, Debug, Default)]
struct Rack {
    active: Vec<NodeId>,
    inactive: Vec<NodeId>,
}

/// The replicas of each partition.
///
/// At least one candidate must be active, and there must be as many candidates
/// as replicas; the caller has checked both.
pub(super) fn place(
    candidates: &[Candidate],
    partitions: u32,
    replication_factor: usize,
    seed: u64,
) -> Vec<Vec<NodeId>> {
    let active = candidates.iter().filter(|candidate| candidate.active).count();
    assert!(active > 0, "somebody must be able to lead");
    assert!(replication_factor <= candidates.len(), "one replica for each node at most");
    let mut racks = by_rack(candidates);
    let mut numbers = Numbers(seed);
    let mut turn = 0;
    let mut placed = Vec::new();
    for _ in 0..partitions {
        if turn == 0 {
            redraw(&mut racks, &mut numbers);
        }
        placed.push(place_one(&racks, turn, replication_factor));
        turn = (turn + 1) % active;
    }
    placed
}

/// Who takes the place of a replica that leaves, beside those that stay: a node in a
/// rack that none of them stands in, if there is one; of these the node with the
/// fewest replicas. `None`: every candidate has a replica already.
pub(super) fn replacement(
    candidates: &[Candidate],
    kept: &[(NodeId, Option<String>)],
    load: impl Fn(NodeId) -> usize,
) -> Option<NodeId> {
    let free = |candidate: &&Candidate| kept.iter().all(|(node, _)| *node != candidate.node);
    let taken = |candidate: &Candidate| kept.iter().any(|(_, rack)| *rack == candidate.rack);
    let best = candidates.iter().filter(free);
    best.min_by_key(|c| (taken(c), load(c.node), c.node)).map(|candidate| candidate.node)
}

fn by_rack(candidates: &[Candidate]) -> Vec<Rack> {
    let mut racks: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
    for candidate in candidates {
        let rack = racks.entry(candidate.rack.as_deref()).or_default();
        let list = if candidate.active { &mut rack.active } else { &mut rack.inactive };
        list.push(candidate.node);
    }
    racks.into_values().collect()
}

fn redraw(racks: &mut [Rack], numbers: &mut Numbers) {
    for rack in racks.iter_mut() {
        numbers.shuffle(&mut rack.active);
        numbers.shuffle(&mut rack.inactive);
    }
    numbers.shuffle(racks);
}

fn place_one(racks: &[Rack], turn: usize, replication_factor: usize) -> Vec<NodeId> {
    // The n-th turn of a rack starts with its n-th broker.
    let lap = turn / racks.len();
    let mut queues: Vec<_> = racks.iter().map(|rack| rack.queue(lap)).collect();
    let in_turn = |step: usize| (turn + step) % racks.len();
    let first = (0..racks.len())
        .map(in_turn)
        .find(|&rack| !racks[rack].active.is_empty())
        .expect("the caller has an active broker");
    let mut replicas: Vec<NodeId> = queues[first].next().into_iter().collect();
    let mut rack = first;
    while replicas.len() < replication_factor {
        rack = (rack + 1) % racks.len();
        replicas.extend(queues[rack].next());
    }
    replicas
}

impl Rack {
    /// Its brokers, active ones first, each list from the same turn on.
    fn queue(&self, lap: usize) -> impl Iterator<Item = NodeId> {
        rotated(&self.active, lap).chain(rotated(&self.inactive, lap))
    }
}

fn rotated(nodes: &[NodeId], by: usize) -> impl Iterator<Item = NodeId> {
    let start = by.checked_rem(nodes.len()).unwrap_or(0);
    nodes.iter().cycle().skip(start).take(nodes.len()).copied()
}

/// SplitMix64: a few arithmetic steps give well-mixed numbers from any seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fisher–Yates. The bias of the remainder is below 2^-50 for any list
    /// that fits into memory.
    fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            let pick = self.next() % (end as u64 + 1);
            list.swap(end, usize::try_from(pick).expect("at most the length of a list"));
        }
    }
}
