//! Of each topic, neighbouring partitions to one reader (Kafka's range assignor).

use super::{Shares, Target};
use ottla_proto::PartitionId;

pub(super) fn assign(shares: &Shares<'_>) -> Target {
    let mut target: Target =
        shares.readers.keys().map(|member| (member.clone(), Default::default())).collect();
    for (topic, count) in shares.topics {
        let readers: Vec<_> = shares.readers_of(*topic).collect();
        let Ok(readers_count) = u32::try_from(readers.len()) else { continue };
        let mut next = 0;
        for (place, member) in (0..readers_count).zip(readers) {
            // The first ones get one more, until there is none left over.
            let size = count / readers_count + u32::from(place < count % readers_count);
            let run = (next..next + size).map(|index| PartitionId { topic: *topic, index });
            target.get_mut(member).expect("every reader has a place").extend(run);
            next += size;
        }
    }
    target
}
