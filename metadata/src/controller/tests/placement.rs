//! What placement promises, over all kinds of clusters.

use crate::controller::placement::{Candidate, place};
use ottla_proto::NodeId;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn cluster(racks: &[Option<&str>]) -> Vec<Candidate> {
    (1..)
        .zip(racks)
        .map(|(node, rack)| Candidate {
            node: NodeId(node),
            rack: rack.map(str::to_owned),
            active: true,
        })
        .collect()
}

fn count(nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, usize> {
    let mut counts = BTreeMap::new();
    for node in nodes {
        *counts.entry(node).or_default() += 1;
    }
    counts
}

#[test]
fn three_nodes_share_leaderships_and_what_falls_to_each_when_one_dies() {
    let placed = place(&cluster(&[None; 3]), 300, 3, 42);
    assert_eq!(count(placed.iter().map(|r| r[0])).into_values().collect::<Vec<_>>(), [100; 3]);
    let heirs = count(placed.iter().filter(|r| r[0] == NodeId(1)).map(|r| r[1]));
    assert_eq!(heirs.len(), 2);
    assert!(heirs.values().all(|&share| share > 30), "of 100: {heirs:?}");
}

#[test]
fn first_partitions_of_many_topics_are_spread() {
    let nodes = cluster(&[None; 3]);
    let leaders = count((0..300).map(|seed| place(&nodes, 1, 3, seed)[0][0]));
    assert!(leaders.values().all(|&share| share > 70), "of 300: {leaders:?}");
}

#[test]
fn the_same_seed_places_the_same() {
    let nodes = cluster(&[Some("a"), Some("b"), Some("a"), None]);
    assert_eq!(place(&nodes, 50, 3, 7), place(&nodes, 50, 3, 7));
    assert_ne!(place(&nodes, 50, 3, 7), place(&nodes, 50, 3, 8));
}

#[test]
fn equal_racks_lead_equally_and_so_do_their_nodes() {
    let racks = [Some("a"), Some("a"), Some("b"), Some("b")];
    let placed = place(&cluster(&racks), 400, 2, 1);
    assert_eq!(count(placed.iter().map(|r| r[0])).into_values().collect::<Vec<_>>(), [100; 4]);
}

#[test]
fn a_small_rack_gets_its_replica_all_the_same() {
    let racks = [Some("a"), Some("a"), Some("a"), Some("b")];
    for replicas in place(&cluster(&racks), 100, 2, 3) {
        assert!(replicas.contains(&NodeId(4)), "{replicas:?}");
    }
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let rack = prop_oneof![Just(None), Just(Some("a")), Just(Some("b")), Just(Some("c"))];
    proptest::collection::vec((rack, any::<bool>()), 1..9)
        .prop_filter("somebody active", |list| list.iter().any(|(_, active)| *active))
        .prop_map(|list| {
            let racks: Vec<_> = list.iter().map(|(rack, _)| *rack).collect();
            let mut nodes = cluster(&racks);
            for (node, (_, active)) in nodes.iter_mut().zip(list) {
                node.active = active;
            }
            nodes
        })
}

proptest! {
    #[test]
    fn every_placement_keeps_the_promises(
        candidates in candidates(),
        partitions in 1u32..40,
        seed in any::<u64>(),
        factor in any::<prop::sample::Index>(),
    ) {
        let factor = factor.index(candidates.len()) + 1;
        let find = |node: NodeId| candidates.iter().find(|c| c.node == node).unwrap();
        let racks = |nodes: &[NodeId]| -> BTreeSet<_> {
            nodes.iter().map(|&node| find(node).rack.clone()).collect()
        };
        let all: Vec<NodeId> = candidates.iter().map(|c| c.node).collect();
        let placed = place(&candidates, partitions, factor, seed);
        prop_assert_eq!(placed.len(), partitions as usize);
        for replicas in placed {
            prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), factor);
            prop_assert!(find(replicas[0]).active, "the preferred leader is away");
            prop_assert_eq!(racks(&replicas).len(), racks(&all).len().min(factor));
            for &node in replicas.iter().filter(|&&node| !find(node).active) {
                // Everybody active in the same rack is a replica already.
                let rack = &find(node).rack;
                let idle = candidates
                    .iter()
                    .any(|c| &c.rack == rack && c.active && !replicas.contains(&c.node));
                prop_assert!(!idle, "node {} is away, another of its rack is not", node);
            }
        }
    }
}
