//! Whoever subscribes to whatever: every partition has one reader, nobody has much more
//! than it need, and little moves.

use super::{Assignor, Reader, Shares, Target};
use crate::groups::facts::MemberId;
use ottla_proto::{PartitionId, TopicId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn topic(number: u128) -> TopicId {
    TopicId(uuid::Uuid::from_u128(number))
}

fn id(number: u128, index: u32) -> PartitionId {
    PartitionId { topic: topic(number), index }
}

fn reader(topics: &[u128]) -> Reader {
    Reader { topics: topics.iter().map(|t| topic(*t)).collect(), ..Reader::default() }
}

/// Readers by name, and what they subscribe to.
type Readers = BTreeMap<MemberId, Reader>;

fn assign(assignor: Assignor, readers: &Readers, topics: &BTreeMap<TopicId, u32>) -> Target {
    let is_in_rack = |id: PartitionId, rack: &str| format!("rack-{}", id.index % 3) == rack;
    Shares { readers: readers.clone(), topics, is_in_rack: &is_in_rack }.assign(assignor)
}

fn keeping(readers: &Readers, target: &Target) -> Readers {
    let keeps = |(member, reader): (&MemberId, &Reader)| {
        let before = target.get(member).cloned().unwrap_or_default();
        (member.clone(), Reader { before, ..reader.clone() })
    };
    readers.iter().map(keeps).collect()
}

fn moved(before: &Target, after: &Target) -> usize {
    let stay = |(member, had): (&MemberId, &BTreeSet<PartitionId>)| {
        after.get(member).map_or(0, |has| had.intersection(has).count())
    };
    before.values().map(BTreeSet::len).sum::<usize>() - before.iter().map(stay).sum::<usize>()
}

fn check(readers: &Readers, topics: &BTreeMap<TopicId, u32>, target: &Target) {
    let mut owners = BTreeMap::new();
    for (member, partitions) in target {
        for id in partitions {
            assert!(readers[member].topics.contains(&id.topic), "{member} does not read {id}");
            assert_eq!(owners.insert(*id, member), None, "{id} has two readers");
        }
    }
    for (topic, count) in topics {
        let read = readers.values().any(|reader| reader.topics.contains(topic));
        let all = (0..*count)
            .filter(|index| owners.contains_key(&PartitionId { topic: *topic, index: *index }));
        assert_eq!(all.count(), if read { *count as usize } else { 0 });
    }
}

/// Nothing can be given to somebody with two fewer.
fn check_balance(readers: &Readers, target: &Target) {
    for (member, partitions) in target {
        for id in partitions {
            for (other, theirs) in target {
                let fair = !readers[other].topics.contains(&id.topic)
                    || theirs.len() + 2 > partitions.len();
                assert!(fair, "{member} has {}, {other} {}", partitions.len(), theirs.len());
            }
        }
    }
}

fn worlds() -> impl Strategy<Value = (Readers, BTreeMap<TopicId, u32>)> {
    let topics = prop::collection::btree_map((0_u128..4).prop_map(topic), 1_u32..20, 1..4);
    let member = (0_u32..12).prop_map(|n| MemberId::from(format!("m{n:02}")));
    let wants = (prop::collection::btree_set(0_usize..4, 1..4), prop::option::of(0_u32..3));
    let members = prop::collection::btree_map(member, wants, 1..10);
    (topics, members).prop_map(|(topics, members)| {
        let ids: Vec<TopicId> = topics.keys().copied().collect();
        let reader = |(picks, rack): (BTreeSet<usize>, Option<u32>)| Reader {
            rack: rack.map(|rack| format!("rack-{rack}")),
            topics: picks.into_iter().map(|pick| ids[pick % ids.len()]).collect(),
            before: BTreeSet::new(),
        };
        let readers = members.into_iter().map(|(id, wants)| (id, reader(wants))).collect();
        (readers, topics)
    })
}

proptest! {
    #[test]
    fn everything_has_one_reader((readers, topics) in worlds()) {
        for assignor in Assignor::ALL {
            let target = assign(assignor, &readers, &topics);
            check(&readers, &topics, &target);
            if assignor != Assignor::Range {
                check_balance(&readers, &target);
            }
            let again = assign(assignor, &keeping(&readers, &target), &topics);
            prop_assert_eq!(&again, &target, "{:?} is not at rest", assignor);
        }
    }

    /// Who leaves takes along what it had, and nothing else moves but for balance.
    #[test]
    fn who_stays_keeps_what_it_has((mut readers, topics) in worlds(), leaves in 0_usize..10) {
        let target = assign(Assignor::Sticky, &readers, &topics);
        let gone = readers.keys().nth(leaves % readers.len()).expect("some").clone();
        readers.remove(&gone);
        if readers.is_empty() {
            return Ok(()); // nobody is left to keep anything
        }
        let after = assign(Assignor::Sticky, &keeping(&readers, &target), &topics);
        check(&readers, &topics, &after);
        check_balance(&readers, &after);
        let same = readers.values().all(|r| r.topics == readers.values().next().unwrap().topics);
        if same {
            let mut stayed = target.clone();
            stayed.remove(&gone);
            prop_assert_eq!(moved(&stayed, &after), 0, "all read the same: who stays has too little");
        }
    }
}

#[test]
fn a_newcomer_is_given_its_share_and_no_more_moves() {
    let topics = BTreeMap::from([(topic(1), 12)]);
    let mut readers: Readers = ["a", "b", "c"].map(|m| (m.into(), reader(&[1]))).into();
    let before = assign(Assignor::Sticky, &readers, &topics);
    readers.insert("d".into(), reader(&[1]));
    let after = assign(Assignor::Sticky, &keeping(&readers, &before), &topics);
    assert!(after.values().all(|partitions| partitions.len() == 3), "{after:?}");
    assert_eq!(moved(&before, &after), 3);
}

#[test]
fn neighbours_go_together_by_range() {
    let topics = BTreeMap::from([(topic(1), 5), (topic(2), 5)]);
    let readers: Readers = ["a", "b"].map(|m| (m.into(), reader(&[1, 2]))).into();
    let target = assign(Assignor::Range, &readers, &topics);
    let run = |indexes: &[u32]| -> BTreeSet<_> {
        [1, 2].into_iter().flat_map(|t| indexes.iter().map(move |i| id(t, *i))).collect()
    };
    assert_eq!(target, Target::from([("a".into(), run(&[0, 1, 2])), ("b".into(), run(&[3, 4]))]));
}

/// A partition of another topic in exchange would be balanced for the two, and not for a
/// third reader who has less and could take that one.
#[test]
fn racks_do_not_cost_a_third_reader_its_share() {
    let topics = BTreeMap::from([(topic(1), 3), (topic(2), 6)]);
    let near = |topics: &[u128], rack: &str| Reader { rack: Some(rack.into()), ..reader(topics) };
    for rack in ["rack-0", "rack-1", "rack-2"] {
        let readers: Readers = [
            ("a".into(), near(&[1, 2], rack)),
            ("b".into(), near(&[1, 2], "rack-1")),
            ("c".into(), near(&[1], "rack-2")),
            ("d".into(), reader(&[2])),
        ]
        .into();
        let target = assign(Assignor::Uniform, &readers, &topics);
        check(&readers, &topics, &target);
        check_balance(&readers, &target);
    }
}

/// Partition n has replicas in rack n mod 3.
#[test]
fn who_is_near_reads_where_that_costs_nothing() {
    let topics = BTreeMap::from([(topic(1), 9)]);
    let near = |n: u32| Reader { rack: Some(format!("rack-{n}")), ..reader(&[1]) };
    let readers: Readers = (0..3).map(|n| (format!("m{n}").as_str().into(), near(n))).collect();
    let target = assign(Assignor::Uniform, &readers, &topics);
    for n in 0..3_u32 {
        let wanted: BTreeSet<_> = (0..3).map(|i| id(1, 3 * i + n)).collect();
        assert_eq!(target[format!("m{n}").as_str()], wanted);
    }
}
