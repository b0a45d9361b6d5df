//! Bytes a second.

/// Microseconds since a fixed moment.
pub(crate) type Micros = u64;

/// What an idle bucket saves up: the tenth of a second that keeps a sender, who is
/// woken a little late each time, at its speed.
const BURST: Micros = 100_000;

const SECOND: u128 = 1_000_000;

/// A token bucket that is paid afterwards: whoever may go takes what it takes, and
/// the next one goes once that is paid off. So a batch larger than any burst gets
/// through, and the speed holds all the same.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// 0: no limit.
    per_second: u64,
    /// When all that was taken is paid off.
    free_at: Micros,
}

impl Bucket {
    /// With a speed in bytes a second; 0 is no limit.
    pub(crate) fn new(per_second: u64) -> Self {
        Self { per_second, free_at: 0 }
    }

    pub(crate) fn per_second(&self) -> u64 {
        self.per_second
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.per_second > 0
    }

    /// What was taken before is paid off at the new speed.
    pub(crate) fn set(&mut self, per_second: u64, now: Micros) {
        let owed = u128::from(self.free_at.saturating_sub(now)) * u128::from(self.per_second);
        self.per_second = per_second;
        self.free_at = match u128::from(per_second) {
            0 => now,
            speed => now.saturating_add(clamp(owed.div_ceil(speed))),
        };
    }

    /// `None`: something may be taken now. Else how long until then.
    pub(crate) fn wait(&self, now: Micros) -> Option<Micros> {
        let left = if self.is_limited() { self.free_at.saturating_sub(now) } else { 0 };
        (left > 0).then_some(left)
    }

    pub(crate) fn take(&mut self, bytes: usize, now: Micros) {
        if self.is_limited() {
            let time = (bytes as u128 * SECOND).div_ceil(u128::from(self.per_second));
            self.free_at = self.free_at.max(now.saturating_sub(BURST)).saturating_add(clamp(time));
        }
    }
}

fn clamp(micros: u128) -> Micros {
    Micros::try_from(micros).unwrap_or(Micros::MAX)
}
