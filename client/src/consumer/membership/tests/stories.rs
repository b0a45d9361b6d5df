//! What happens to one member, told word by word.

use super::super::*;
use ottla_proto::TopicId;

fn partitions(indexes: &[u32]) -> Partitions {
    let topic = TopicId(uuid::Uuid::from_u128(1));
    indexes.iter().map(|index| PartitionId { topic, index: *index }).collect()
}

fn orders() -> Subscription {
    Subscription { topics: vec!["orders".to_owned()], pattern: None }
}

fn told(epoch: u32, assigned: Option<&[u32]>) -> Event {
    let assigned = assigned.map(partitions);
    Event::Told(Told { epoch, interval: 1_000, session: 10_000, assigned })
}

/// A heartbeat that says nothing new.
fn plain(epoch: u32) -> Effect {
    Effect::Send(Beat { epoch, departure: None, held: None, subscription: None })
}

fn says(epoch: u32, held: &[u32]) -> Effect {
    Effect::Send(Beat { epoch, departure: None, held: Some(partitions(held)), subscription: None })
}

fn joins() -> Effect {
    Effect::Send(Beat {
        epoch: 0,
        departure: None,
        held: Some(partitions(&[])),
        subscription: Some(orders()),
    })
}

fn goodbye(epoch: u32, departure: Departure) -> Beat {
    Beat { epoch, departure: Some(departure), held: None, subscription: None }
}

/// One that reads 0 and 1 in epoch 3, and has said so at 1,000.
fn member() -> Membership {
    let mut member = Membership::new(orders(), false, 0);
    assert_eq!(member.on(Event::Time, 0), [joins()]);
    assert_eq!(member.on(told(3, Some(&[0, 1])), 5), [Effect::Start(partitions(&[0, 1]))]);
    assert_eq!(member.on(Event::Time, 999), []);
    assert_eq!(member.on(Event::Time, 1_000), [says(3, &[0, 1])]);
    assert_eq!(member.on(told(3, None), 1_005), []);
    member
}

#[test]
fn it_joins_reads_and_is_heard_of_every_second() {
    let mut member = member();
    assert_eq!(member.next_deadline(), Some(2_000));
    assert_eq!(member.lease(), 11_000);
    assert_eq!(member.on(Event::Time, 2_000), [plain(3)]);
    assert_eq!(member.next_deadline(), None, "one at a time");
}

/// What it has to give back it holds until reading has ended; the rest goes on.
#[test]
fn it_gives_back_and_says_so_at_once() {
    let mut member = member();
    member.on(Event::Time, 2_000);
    assert_eq!(member.on(told(3, Some(&[0])), 2_005), [Effect::Stop(partitions(&[1]))]);
    assert_eq!(member.on(Event::Time, 3_000), [plain(3)], "it still holds both");
    assert_eq!(member.on(told(3, None), 3_005), []);
    assert_eq!(member.on(Event::Released(partitions(&[1])), 3_010), [says(3, &[0])]);
    assert_eq!(member.on(told(4, Some(&[0, 2])), 3_015), [Effect::Start(partitions(&[2]))]);
}

/// K-16147: the revocation is taken back before it was carried out. The partition is
/// held all the time, and read again once reading has ended.
#[test]
fn a_revocation_that_is_taken_back() {
    let mut member = member();
    member.on(Event::Time, 2_000);
    member.on(told(3, Some(&[0])), 2_005);
    assert_eq!(member.on(Event::Time, 3_000), [plain(3)]);
    assert_eq!(member.on(told(5, Some(&[0, 1])), 3_005), [], "not before it has ended");
    let effects = member.on(Event::Released(partitions(&[1])), 3_010);
    assert_eq!(effects, [Effect::Start(partitions(&[1])), says(5, &[0, 1])]);
}

/// Released while a heartbeat is under way that says that it is held: the answer may give
/// it back, and then it is still its own.
#[test]
fn released_while_a_heartbeat_is_under_way() {
    let mut member = member();
    member.on(Event::Time, 2_000);
    member.on(told(3, Some(&[0])), 2_005);
    assert_eq!(member.on(Event::Time, 3_000), [plain(3)]);
    assert_eq!(member.on(Event::Released(partitions(&[1])), 3_001), []);
    assert_eq!(member.on(told(3, None), 3_005), [says(3, &[0])]);
}

#[test]
fn after_a_lost_answer_everything_is_said() {
    let mut member = member();
    member.on(Event::Time, 2_000);
    assert_eq!(member.on(Event::Lost { wait: 50 }, 2_500), []);
    assert_eq!(member.lease(), 11_000, "not heard of since then, perhaps");
    let all = Beat {
        epoch: 3,
        departure: None,
        held: Some(partitions(&[0, 1])),
        subscription: Some(orders()),
    };
    assert_eq!(member.on(Event::Time, 2_550), [Effect::Send(all)]);
}

/// Nothing is read any more before it joins again: it says that it holds nothing.
#[test]
fn who_is_put_out_gives_everything_up_before_it_joins_again() {
    let mut member = member();
    member.on(Event::Time, 2_000);
    let refused = Event::Refused(Refused::PutOut, 0);
    assert_eq!(member.on(refused, 2_005), [Effect::Lose(partitions(&[0, 1]))]);
    assert_eq!(member.lease(), 0);
    assert_eq!(member.on(Event::Released(partitions(&[0])), 2_006), []);
    assert_eq!(member.on(Event::Time, 9_000), [], "1 is still read");
    assert_eq!(member.on(Event::Released(partitions(&[1])), 9_001), [joins()]);
}

#[test]
fn it_leaves_with_empty_hands() {
    let mut member = member();
    assert_eq!(member.on(Event::Leave, 1_500), [Effect::Stop(partitions(&[0, 1]))]);
    assert_eq!(member.on(Event::Released(partitions(&[0])), 1_600), []);
    let effects = member.on(Event::Released(partitions(&[1])), 1_700);
    assert_eq!(effects, [Effect::Send(goodbye(3, Departure::Leave))]);
    assert_eq!(member.on(told(0, None), 1_705), [Effect::Ended(End::Left)]);
    assert_eq!(member.next_deadline(), None);
}

/// The join was sent, and may be heard: it leaves whatever the answer is.
#[test]
fn it_leaves_while_it_joins() {
    let mut member = Membership::new(orders(), true, 0);
    assert_eq!(member.on(Event::Time, 0), [joins()]);
    assert_eq!(member.on(Event::Leave, 1), []);
    let effects = member.on(told(1, Some(&[0])), 2);
    assert_eq!(effects, [Effect::Send(goodbye(1, Departure::Pause))], "nothing was begun");
    assert_eq!(member.on(told(0, None), 3), [Effect::Ended(End::Left)]);

    let mut never = Membership::new(orders(), false, 0);
    assert_eq!(never.on(Event::Leave, 0), [Effect::Ended(End::Left)], "nobody knows it");
}

/// Its predecessor died without a word, and is waited for.
#[test]
fn a_name_that_is_taken_is_waited_for() {
    let mut member = Membership::new(orders(), true, 0);
    member.on(Event::Time, 0);
    assert_eq!(member.on(Event::Refused(Refused::NameTaken, 500), 10), []);
    assert_eq!(member.on(Event::Time, 510), [joins()]);
    let effects = member.on(Event::Refused(Refused::NameTaken, 500), 10 + NAME_PATIENCE_MS);
    assert_eq!(effects, [Effect::Ended(End::Refused)]);
}

/// An application that does not ask for records holds nothing, and may come back.
#[test]
fn who_is_absent_leaves_until_it_is_back() {
    let mut member = member();
    assert_eq!(member.on(Event::Absent, 1_500), [Effect::Lose(partitions(&[0, 1]))]);
    let effects = member.on(Event::Released(partitions(&[0, 1])), 1_501);
    assert_eq!(effects, [Effect::Send(goodbye(3, Departure::Leave))]);
    assert_eq!(member.on(told(0, None), 1_505), []);
    assert_eq!(member.next_deadline(), None);
    assert_eq!(member.on(Event::Present, 60_000), [joins()]);
}

#[test]
fn what_it_wants_is_said_when_it_changes() {
    let mut member = member();
    let wants = Subscription { topics: Vec::new(), pattern: Some("o.*".to_owned()) };
    let effects = member.on(Event::Subscribe(wants.clone()), 1_500);
    let subscription = Some(wants.clone());
    let beat = Beat { epoch: 3, departure: None, held: None, subscription };
    assert_eq!(effects, [Effect::Send(beat)]);
    member.on(told(4, None), 1_505);
    assert_eq!(member.on(Event::Subscribe(wants), 1_600), [], "no news");
}

#[test]
fn a_refusal_for_good_ends_it() {
    let mut member = member();
    member.on(Event::Time, 2_000);
    let effects = member.on(Event::Refused(Refused::ForGood, 0), 2_005);
    assert_eq!(effects, [Effect::Lose(partitions(&[0, 1])), Effect::Ended(End::Refused)]);
    assert_eq!(member.on(Event::Released(partitions(&[0, 1])), 2_006), []);
}
