//! What can happen to a cluster, drawn at will.

use super::script::SESSION_MS;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

pub(super) const NODES: u64 = 4;

/// Something that happens, told without knowing the image it happens to.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Register { node: u64, restarted: bool, clean: bool, stream_open: bool },
    Beat { node: u64, stale: bool, behind: u64, fence: bool, shutdown: bool },
    Gone { node: u64, stale: bool },
    Tick,
    Create { name: u8, partitions: u32, factor: u32, seed: u64 },
    Configure { name: u8, option: &'static str, value: Option<&'static str> },
    Set { node: Option<u64>, option: &'static str, value: Option<&'static str> },
    Grow { name: u8, partitions: u32, seed: u64 },
    Reassign { of: Index, to: Vec<u64> },
    Cancel { name: u8, index: Option<u32> },
    Delete { name: u8 },
    Alter { of: Index, by_leader: bool, node: u64, members: u8, leader_skew: i8, skew: i8 },
    Balance,
    Elect { name: u8, index: u32, unclean: bool },
    Offline { node: u64, stale: bool, of: Index, count: usize },
    ProducerIds { node: u64, stale: bool },
    Again(Index),
    Voter { node: u64, directory: u128 },
    Retire { node: u64 },
    Drain { node: u64, cancel: bool },
    Remove { node: u64 },
}

/// A batch, and what is around it.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) acts: Vec<Act>,
    pub(super) wait_ms: u64,
    pub(super) committed: bool,
    pub(super) new_controller: bool,
}

fn skew() -> impl Strategy<Value = i8> {
    prop_oneof![8 => Just(0), 1 => Just(-1), 1 => Just(1)]
}

fn option() -> impl Strategy<Value = (&'static str, Option<&'static str>)> {
    let min_isr = || Just("min.insync.replicas");
    let number = prop_oneof![Just("0"), Just("1"), Just("2"), Just("3")];
    let durability = prop_oneof![Just("disk"), Just("memory")];
    let unclean = Just(("unclean.leader.election.enable", Some("true")));
    let unset = prop_oneof![min_isr(), Just("durability"), Just("unclean.leader.election.enable")];
    prop_oneof![
        4 => (min_isr(), number.prop_map(Some)),
        4 => (Just("durability"), durability.prop_map(Some)),
        1 => unclean,
        4 => unset.prop_map(|option| (option, None)),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let node = || 1..=NODES;
    let rarely = || prop::bool::weighted(0.1);
    let register = (node(), any::<(bool, bool, bool)>()).prop_map(
        |(node, (restarted, clean, stream_open))| Act::Register {
            node,
            restarted,
            clean,
            stream_open,
        },
    );
    let beat = (node(), rarely(), 0u64..3, rarely(), rarely()).prop_map(
        |(node, stale, behind, fence, shutdown)| Act::Beat { node, stale, behind, fence, shutdown },
    );
    let create =
        (0u8..3, 0u32..4, 0u32..5, any::<u64>()).prop_map(|(name, partitions, factor, seed)| {
            Act::Create { name, partitions, factor, seed }
        });
    let mostly = prop::bool::weighted(0.9);
    let alter = (any::<Index>(), mostly, node(), any::<u8>(), skew(), skew()).prop_map(
        |(of, by_leader, node, members, leader_skew, skew)| Act::Alter {
            of,
            by_leader,
            node,
            members,
            leader_skew,
            skew,
        },
    );
    prop_oneof![
        3 => register,
        8 => beat,
        2 => (node(), rarely()).prop_map(|(node, stale)| Act::Gone { node, stale }),
        2 => Just(Act::Tick),
        2 => create,
        1 => (0u8..3, option())
            .prop_map(|(name, (option, value))| Act::Configure { name, option, value }),
        1 => option().prop_map(|(option, value)| Act::Set { node: None, option, value }),
        1 => (node(), prop::option::of(Just("7")))
            .prop_map(|(node, value)| Act::Set { node: Some(node), option: "replica_lag_max_ms", value }),
        1 => (0u8..3, 0u32..6, any::<u64>())
            .prop_map(|(name, partitions, seed)| Act::Grow { name, partitions, seed }),
        3 => (any::<Index>(), prop::sample::subsequence((1..=NODES).collect::<Vec<_>>(), 0..4))
            .prop_flat_map(|(of, to)| (Just(of), Just(to).prop_shuffle()))
            .prop_map(|(of, to)| Act::Reassign { of, to }),
        1 => (0u8..3, prop::option::of(0u32..3))
            .prop_map(|(name, index)| Act::Cancel { name, index }),
        1 => (0u8..3).prop_map(|name| Act::Delete { name }),
        8 => alter,
        1 => Just(Act::Balance),
        1 => (0u8..3, 0u32..4, any::<bool>())
            .prop_map(|(name, index, unclean)| Act::Elect { name, index, unclean }),
        2 => (node(), rarely(), any::<Index>(), 0usize..4)
            .prop_map(|(node, stale, of, count)| Act::Offline { node, stale, of, count }),
        1 => (node(), rarely()).prop_map(|(node, stale)| Act::ProducerIds { node, stale }),
        2 => any::<Index>().prop_map(Act::Again),
        1 => (node(), 1u128..3).prop_map(|(node, directory)| Act::Voter { node, directory }),
        1 => node().prop_map(|node| Act::Retire { node }),
        1 => node().prop_map(|node| Act::Remove { node }),
        1 => (node(), any::<bool>()).prop_map(|(node, cancel)| Act::Drain { node, cancel }),
    ]
}

pub(super) fn round() -> impl Strategy<Value = Round> {
    (vec(act(), 1..5), 0..SESSION_MS / 2, prop::bool::weighted(0.9), prop::bool::weighted(0.05))
        .prop_map(|(acts, wait_ms, committed, new_controller)| Round {
            acts,
            wait_ms,
            committed,
            new_controller,
        })
}
