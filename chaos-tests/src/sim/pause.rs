//! A node that stands still, as a process does after SIGSTOP: nothing of it runs, no
//! timer of it fires, and its host goes on taking what others send to it. When it goes
//! on, its clock has jumped, and everything that was due meanwhile is due at once.
//!
//! turmoil runs every host in every tick: it waits for a tick by the host's own clock,
//! and what is due until then is done. But a timer that is due already when it is set
//! fires at once, before anything else of the host gets its turn. So a host whose timers
//! have run ahead of its clock by more than a tick does nothing at all:
//!
//! 1. Its clock, else tokio's paused one, is bound to this thread's monotonic one (`os`),
//! 2. which, for one tick, moves on whenever it is read: the host's timers run ahead by
//!    some milliseconds. That is its last tick.
//! 3. The monotonic clock is set back, and stands.
//! 4. In the end it jumps to the time that it is, the host's with it.
//!
//! Timers that are ahead of their clock are what tokio expects of clocks that go back.
//! Everybody's `Instant`s stand meanwhile, but those are for metrics only.

use super::cluster::Cluster;
use super::os;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time;

/// A host that stands still.
struct Still {
    runtime: Handle,
    /// Where its timers are, since the beginning of the simulation.
    timers: Duration,
}

impl Still {
    /// Stops a host. `tick` is its last tick.
    fn begin<T>(runtime: Handle, now: Duration, tick: impl FnOnce() -> T) -> (Self, T) {
        os::stop_uptime(now);
        in_host(&runtime, time::resume);
        os::wind_uptime();
        let ticked = tick();
        let timers = os::stop_uptime(now);
        (Self { runtime, timers }, ticked)
    }

    /// It goes on. Its clock is never behind its timers then, or it would stand until it
    /// has caught up with them.
    fn end(self, now: Duration) {
        os::stop_uptime(now.max(self.timers));
        in_host(&self.runtime, time::pause);
        os::go_on_uptime();
    }
}

fn in_host(runtime: &Handle, change_clock: impl FnOnce()) {
    let _host = runtime.enter();
    change_clock();
}

/// The node that stands still: one at a time, as there is one monotonic clock.
pub(super) struct Paused {
    node: u64,
    host: Still,
}

impl Cluster {
    /// A node stands still from here on, unless it does not run or another one does.
    pub(super) fn pause(&mut self, node: u64) -> anyhow::Result<()> {
        let state = &self.nodes[&node];
        let runtime = state.runtime.lock().clone().filter(|_| state.running);
        let (Some(runtime), None) = (runtime, &self.paused) else { return Ok(()) };
        let (host, stepped) = Still::begin(runtime, self.elapsed(), || self.step());
        self.paused = Some(Paused { node, host });
        stepped.map(drop)
    }

    /// Whoever stands still goes on.
    pub(super) fn go_on(&mut self) {
        if let Some(paused) = self.paused.take() {
            paused.host.end(self.elapsed());
        }
    }

    /// The same, if it is this one.
    pub(super) fn go_on_if(&mut self, node: u64) {
        if self.paused.as_ref().is_some_and(|paused| paused.node == node) {
            self.go_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::cluster::TICK;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use tokio::time::Instant;

    /// The longest that the host's clock runs ahead in its last tick, with so little to do.
    const AHEAD: Duration = Duration::from_millis(100);

    /// What a host with a timer of ten milliseconds notes: the simulation's time and its
    /// own, since it began.
    type Noted = Arc<Mutex<Vec<(Duration, Duration)>>>;

    fn simulated(pause: Duration) -> Vec<(Duration, Duration)> {
        os::simulate(1);
        let (noted, runtime): (Noted, Arc<Mutex<Option<Handle>>>) = Default::default();
        let mut sim = turmoil::Builder::new().tick_duration(TICK).build();
        let (notes, handle) = (Arc::clone(&noted), Arc::clone(&runtime));
        sim.host("host", move || {
            let (notes, handle) = (Arc::clone(&notes), Arc::clone(&handle));
            async move {
                *handle.lock() = Some(Handle::current());
                let begun = Instant::now();
                let mut ticks = time::interval(Duration::from_millis(10));
                ticks.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
                // Elsewhere, as most of what a node does.
                let work = tokio::spawn(async move {
                    loop {
                        ticks.tick().await;
                        notes.lock().push((os::now(), begun.elapsed()));
                    }
                });
                work.await.map_err(Into::into)
            }
        });
        let run_until = |sim: &mut turmoil::Sim<'_>, end: Duration| {
            while sim.elapsed() < end {
                os::set_now(sim.elapsed());
                sim.step().expect("no error");
            }
        };
        run_until(&mut sim, Duration::from_secs(1));
        let runtime = runtime.lock().clone().expect("the host began");
        let (still, stepped) = Still::begin(runtime, sim.elapsed(), || sim.step());
        stepped.expect("no error");
        let end = sim.elapsed() + pause;
        run_until(&mut sim, end);
        still.end(sim.elapsed());
        run_until(&mut sim, end + Duration::from_secs(1));
        drop(sim);
        Arc::into_inner(noted).expect("the host is gone").into_inner()
    }

    #[test]
    fn a_host_stands_still_and_its_clock_jumps_when_it_goes_on() {
        let paused = Duration::from_secs(3);
        let noted = std::thread::spawn(move || simulated(paused)).join().expect("no panic");
        let (before, after): (Vec<_>, Vec<_>) =
            noted.iter().copied().partition(|(now, _)| *now < Duration::from_secs(2));
        let last = before.last().expect("it ran before");
        assert!(last.0 <= Duration::from_millis(1_002), "it did something: {last:?}");
        assert!(last.1 <= Duration::from_secs(1) + AHEAD, "{last:?}");
        let first = after.first().expect("it went on");
        assert!(first.0 >= Duration::from_secs(4), "it did something: {first:?}");
        assert!(first.1 >= Duration::from_secs(4), "its clock has not jumped: {first:?}");
        assert!((95..=105).contains(&after.len()), "{} in the last second", after.len());
        for (now, own) in after {
            let apart = now.abs_diff(own);
            assert!(apart <= Duration::from_millis(10), "{apart:?} apart at {now:?}");
        }
    }
}
