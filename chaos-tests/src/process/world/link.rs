//! One direction between two hosts: what becomes of a packet. Pure: the time and the
//! chance come in, when the packet arrives comes out.

use std::time::Duration;

/// Most that a slow line holds back before it drops, as a router's buffer does. Half a
/// second is a large one; senders notice and slow down.
const LONGEST_QUEUE: Duration = Duration::from_millis(500);

/// How a line behaves, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Nothing gets through, and nobody is told.
    pub cut: bool,
    /// How long a packet is on its way, at least.
    pub latency: Duration,
    /// How much longer it may take. Packets do not overtake each other.
    pub jitter: Duration,
    /// Packets that get lost, of a thousand.
    pub loss_per_mille: u16,
    /// What gets through in a second; 0 is no limit.
    pub bytes_per_second: u64,
}

/// A line, and what is on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    pub(super) conditions: Conditions,
    /// When the last byte sent so far has left.
    free_at: Duration,
    /// When the last packet sent so far arrives.
    last_arrival: Duration,
}

impl Link {
    /// When a packet sent at `now` arrives; never, if it is lost. `chance` is drawn
    /// evenly from 0 to 1, twice: for loss, and for jitter.
    pub(super) fn send(
        &mut self,
        now: Duration,
        bytes: usize,
        chance: (f64, f64),
    ) -> Option<Duration> {
        let Conditions { cut, latency, jitter, loss_per_mille, bytes_per_second } = self.conditions;
        if cut || chance.0 * 1_000.0 < f64::from(loss_per_mille) {
            return None;
        }
        let mut leaves = now;
        if bytes_per_second > 0 {
            let begins = self.free_at.max(now);
            if begins - now > LONGEST_QUEUE {
                return None;
            }
            leaves = begins + Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
            self.free_at = leaves;
        }
        let arrival = (leaves + latency + jitter.mul_f64(chance.1)).max(self.last_arrival);
        self.last_arrival = arrival;
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SURE: (f64, f64) = (0.999, 0.0);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn link(conditions: Conditions) -> Link {
        Link { conditions, ..Link::default() }
    }

    #[test]
    fn a_good_line_delivers_at_once_and_a_cut_one_never() {
        let mut good = link(Conditions::default());
        assert_eq!(good.send(ms(5), 1_000, SURE), Some(ms(5)));
        let mut cut = link(Conditions { cut: true, ..Conditions::default() });
        assert_eq!(cut.send(ms(5), 1_000, SURE), None);
    }

    #[test]
    fn as_many_get_lost_as_is_said() {
        let mut lossy = link(Conditions { loss_per_mille: 50, ..Conditions::default() });
        assert_eq!(lossy.send(ms(0), 1, (0.049, 0.0)), None);
        assert_eq!(lossy.send(ms(0), 1, (0.051, 0.0)), Some(ms(0)));
    }

    #[test]
    fn packets_do_not_overtake_each_other() {
        let mut line =
            link(Conditions { latency: ms(10), jitter: ms(20), ..Conditions::default() });
        assert_eq!(line.send(ms(0), 1, (1.0, 1.0)), Some(ms(30)));
        assert_eq!(line.send(ms(5), 1, (1.0, 0.0)), Some(ms(30)));
        assert_eq!(line.send(ms(40), 1, (1.0, 0.5)), Some(ms(60)));
    }

    #[test]
    fn a_narrow_line_sends_one_after_the_other_and_drops_what_would_wait_too_long() {
        let mut line = link(Conditions { bytes_per_second: 1_000, ..Conditions::default() });
        assert_eq!(line.send(ms(0), 100, SURE), Some(ms(100)));
        assert_eq!(line.send(ms(0), 100, SURE), Some(ms(200)));
        assert_eq!(line.send(ms(150), 500, SURE), Some(ms(700)));
        assert_eq!(line.send(ms(199), 1, SURE), None);
        assert_eq!(line.send(ms(200), 100, SURE), Some(ms(800)));
    }
}
