//! How often members are to be heard: often while they are few, and so that a node that
//! coordinates many of them keeps up.

use super::GroupOptions;

/// Of what a member is told of its session: so many heartbeats in a row may be lost, or
/// late, before it has to stop reading, but for one that is still under way.
const HEARTBEATS_IN_A_LEASE: u32 = 3;

/// How much later than it was told to a member may be heard, in milliseconds: an answer that
/// waits for a write and for a busy machine.
const LATE_MS: u32 = 1_000;

/// When a member of a group that is at rest is to be heard again, in milliseconds, where the
/// node coordinates so many.
pub(super) fn interval_ms(members: usize, options: &GroupOptions) -> u32 {
    let GroupOptions { heartbeat_interval_ms, heartbeats_per_second, .. } = *options;
    let longest = (options.lease_ms() / HEARTBEATS_IN_A_LEASE).max(heartbeat_interval_ms);
    let shared = (members as u64).saturating_mul(1_000) / u64::from(heartbeats_per_second.max(1));
    u32::try_from(shared).unwrap_or(u32::MAX).clamp(heartbeat_interval_ms, longest)
}

/// How long before a silent member's session ends the others of its group are told to be
/// heard often, in milliseconds: each is heard once more before, and learns what it has to
/// take over as soon as others do whose node coordinates few.
pub(super) fn notice_ms(interval_ms: u32) -> u64 {
    u64::from(interval_ms) + u64::from(LATE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_heard_often_and_many_seldom() {
        let options = GroupOptions::default();
        let of = |members| interval_ms(members, &options);
        assert_eq!([of(0), of(1), of(50), of(500)], [500; 4]);
        assert_eq!([of(501), of(1_000), of(2_000)], [501, 1_000, 2_000]);
        let longest = options.lease_ms() / 3;
        assert_eq!([of(3_334), of(10_000), of(usize::MAX)], [longest; 3]);
    }

    /// Whatever the node has to do, a heartbeat may be lost without a member having to stop,
    /// and a death is known of in time.
    #[test]
    fn sessions_outlast_any_interval() {
        let options = GroupOptions::default();
        for members in (0..20_000).step_by(100) {
            let interval = interval_ms(members, &options);
            assert!(HEARTBEATS_IN_A_LEASE * interval <= options.lease_ms());
            let silent = u64::from(options.session_timeout_ms) - notice_ms(interval);
            assert!(silent > 2 * u64::from(interval), "who is on time is not silent");
        }
    }

    #[test]
    fn an_interval_is_never_shorter_than_it_is_said_to_be() {
        let options = GroupOptions { session_timeout_ms: 900, ..GroupOptions::default() };
        assert_eq!(interval_ms(usize::MAX, &options), options.heartbeat_interval_ms);
        let options = GroupOptions { heartbeats_per_second: 0, ..GroupOptions::default() };
        assert_eq!(interval_ms(1, &options), 1_000);
    }
}
