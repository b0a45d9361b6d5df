//! What a simulation's thread gets when it, or any library on it, asks the operating
//! system for random bytes or for the time: both follow from the seed.
//!
//! `getrandom` and `clock_gettime` are defined here, and so stand before libc's in every
//! program that links this crate: std's hash maps, `rand`, `uuid` and openraft's election
//! timeouts all come down to the first, `SystemTime` and `Instant` to the second. On
//! threads that simulate nothing they ask the kernel, as libc's do.
//!
//! Not its job: tokio's clock, which is paused and moved by the simulation anyway.

#![expect(unsafe_code, reason = "symbols of the C library are replaced; each block says why")]

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::time::Duration;

/// The wall clock when a simulation begins: 2026-01-01T00:00:00Z.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// `Instant`s before this cannot be told from none by subtraction, so clocks of a machine
/// that has been up for a while: a day.
const UPTIME: Duration = Duration::from_secs(24 * 3600);

/// Hosts whose wall clocks can be wrong at the same time: all nodes there can be.
const HOSTS: usize = 8;

#[derive(Clone, Copy)]
struct Simulated {
    /// State of SplitMix64.
    random: u64,
    now: Duration,
    /// Of each host, known by when it was added to the simulation: how far its wall
    /// clock is ahead.
    skews_ms: [(Duration, i64); HOSTS],
    uptime: Uptime,
}

/// How the clock goes that `Instant`s are read from. tokio's own clocks are not it, but
/// for the one of a host that stands still (`pause`).
#[derive(Clone, Copy)]
enum Uptime {
    /// With the simulation.
    Goes,
    /// Each reading moves it on.
    Winds(Duration),
    Stands(Duration),
}

/// How far a reading moves a clock that is wound: further than a tick, rounded up, so that
/// nobody who waits for a tick by it waits.
const WIND: Duration = Duration::from_millis(4);

thread_local! {
    static SIMULATED: Cell<Option<Simulated>> = const { Cell::new(None) };
}

/// From here on this thread draws from `seed`, and its clocks stand. It should be a fresh
/// one: what was drawn on it before stays.
pub(super) fn simulate(seed: u64) {
    SIMULATED.set(Some(Simulated {
        random: seed,
        now: Duration::ZERO,
        skews_ms: [(Duration::MAX, 0); HOSTS],
        uptime: Uptime::Goes,
    }));
}

/// From here on each reading of this thread's monotonic clock moves it on.
pub(super) fn wind_uptime() {
    update(|simulated| simulated.uptime = Uptime::Winds(simulated.now));
}

/// This thread's monotonic clock stands at `at`. Returns where it was.
pub(super) fn stop_uptime(at: Duration) -> Duration {
    let mut was = Duration::ZERO;
    update(|simulated| {
        was = match simulated.uptime {
            Uptime::Goes => simulated.now,
            Uptime::Winds(at) | Uptime::Stands(at) => at,
        };
        simulated.uptime = Uptime::Stands(at);
    });
    was
}

/// It goes with the simulation again.
pub(super) fn go_on_uptime() {
    update(|simulated| simulated.uptime = Uptime::Goes);
}

/// Sets this thread's clocks to what they are `now` after the beginning.
pub(super) fn set_now(now: Duration) {
    update(|simulated| simulated.now = now);
}

/// Puts the wall clock of the host that was added at `added` ahead, or behind (negative).
pub(super) fn set_skew(added: Duration, ahead_ms: i64) {
    update(|simulated| {
        let of_host = |skew: &&mut (Duration, i64)| skew.0 == added || skew.1 == 0;
        if let Some(skew) = simulated.skews_ms.iter_mut().find(of_host) {
            *skew = (added, ahead_ms);
        }
    });
}

/// How long the simulation of this thread has been going on.
pub(super) fn now() -> Duration {
    SIMULATED.get().map_or(Duration::ZERO, |simulated| simulated.now)
}

fn update(change: impl FnOnce(&mut Simulated)) {
    SIMULATED.set(SIMULATED.get().map(|mut simulated| {
        change(&mut simulated);
        simulated
    }));
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Replaces libc's `getrandom`.
///
/// # Safety
/// As its manual page has it: `into` has room for `len` bytes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getrandom(into: *mut c_void, len: usize, flags: c_uint) -> isize {
    let Some(mut simulated) = SIMULATED.get() else {
        // SAFETY: the same call, with the caller's own arguments.
        return unsafe { libc::syscall(libc::SYS_getrandom, into, len, flags) as isize };
    };
    let mut at = 0;
    while at < len {
        let bytes = next(&mut simulated.random).to_le_bytes();
        let some = bytes.len().min(len - at);
        // SAFETY: `at + some <= len`, and the caller has room for `len` bytes at `into`.
        unsafe { into.cast::<u8>().add(at).copy_from_nonoverlapping(bytes.as_ptr(), some) };
        at += some;
    }
    SIMULATED.set(Some(simulated));
    len as isize
}

/// Replaces libc's `clock_gettime`.
///
/// # Safety
/// As its manual page has it: `into` may be written.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    into: *mut libc::timespec,
) -> c_int {
    let shown = SIMULATED.get().and_then(|mut simulated| {
        let shown = simulated.clock(clock);
        SIMULATED.set(Some(simulated));
        shown
    });
    let Some(shown) = shown else {
        // SAFETY: the same call, with the caller's own arguments.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) as c_int };
    };
    let tv_sec = shown.as_secs() as libc::time_t;
    let time = libc::timespec { tv_sec, tv_nsec: shown.subsec_nanos().into() };
    // SAFETY: the caller gave a place for it.
    unsafe { into.write(time) };
    0
}

impl Simulated {
    fn uptime(&mut self) -> Duration {
        match &mut self.uptime {
            Uptime::Goes => self.now,
            Uptime::Stands(at) => *at,
            Uptime::Winds(at) => {
                *at += WIND;
                *at
            }
        }
    }

    /// Of the host that runs, if one does.
    fn ahead_ms(&self) -> i64 {
        if self.skews_ms.iter().all(|(_, ahead_ms)| *ahead_ms == 0) {
            return 0;
        }
        // The second would panic where the first says that there is nobody to ask.
        let Some(simulated) = turmoil::sim_elapsed() else { return 0 };
        let added = simulated.saturating_sub(turmoil::elapsed());
        self.skews_ms.iter().find(|(host, _)| *host == added).map_or(0, |(_, ahead)| *ahead)
    }

    fn clock(&mut self, clock: libc::clockid_t) -> Option<Duration> {
        match clock {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
                let ahead_ms = self.ahead_ms();
                let skew = Duration::from_millis(ahead_ms.unsigned_abs());
                let right = EPOCH + self.now;
                Some(if ahead_ms < 0 { right - skew } else { right + skew })
            }
            libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
                Some(UPTIME + self.uptime())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;
    use std::collections::HashSet;
    use std::time::{Instant, SystemTime};

    /// What libraries make of the two calls, on a thread of its own.
    fn seen(seed: Option<u64>) -> (Vec<u32>, u64, String) {
        let look = move || {
            if let Some(seed) = seed {
                simulate(seed);
            }
            let set: HashSet<u32> = (0..100).collect();
            let id = ottla_proto::IncarnationId::random().to_string();
            (set.into_iter().collect(), rand::rng().random(), id)
        };
        std::thread::spawn(look).join().expect("no panic")
    }

    #[test]
    fn a_seed_decides_what_libraries_draw() {
        assert_eq!(seen(Some(7)), seen(Some(7)));
        assert_ne!(seen(Some(7)), seen(Some(8)));
        assert_ne!(seen(None), seen(None), "threads that simulate nothing draw from the kernel");
    }

    #[test]
    fn clocks_stand_until_they_are_set() {
        let before = Instant::now();
        let clocks = std::thread::spawn(|| {
            simulate(7);
            let (wall, instant) = (SystemTime::now(), Instant::now());
            set_now(Duration::from_secs(5));
            (wall.elapsed().expect("forwards"), instant.elapsed())
        });
        let five = Duration::from_secs(5);
        assert_eq!(clocks.join().expect("no panic"), (five, five));
        assert!(before.elapsed() < five && SystemTime::now() > SystemTime::UNIX_EPOCH + EPOCH);
    }
}
