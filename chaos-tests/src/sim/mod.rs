//! Whole nodes in one process, with their clients, on a network, disks and a clock that
//! belong to the simulation: what happens, and when, follows from a seed.
//!
//! What is real: every line of a node and of the client, gRPC and Raft included. What
//! is not: TCP and time ([turmoil](https://docs.rs/turmoil)), and the disks under the
//! logs (`commitlog::vfs::sim`), which lose what was not synced when their power fails.
//! Marks and locks of data directories, and the rebuildable image in sled, are on the
//! real disk.
//!
//! Not there yet: one trace for one seed. Ids, partitioners and hash maps still draw
//! from the process's own randomness, so a seed repeats its faults and not every
//! interleaving.

mod cluster;
mod load;
mod network;
mod plan;

pub use load::{PARTITIONS, Told};
pub use network::SimNetwork;
pub use plan::{Fault, Window, plan};

use crate::checker::{Anomaly, Outcome, check};
use cluster::Cluster;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

/// Simulated time after which a run is given up: many times what any recovery takes.
const GIVE_UP: Duration = Duration::from_secs(300);

/// What a simulation is made of, beside its seed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nodes, each a voter.
    pub nodes: u64,
    /// Windows of the plan, each of some seconds.
    pub windows: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 3, windows: 6 }
    }
}

/// What came of one seed.
#[derive(Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// What was done to the nodes.
    pub plan: Vec<Window>,
    /// Simulated time.
    pub simulated: Duration,
    /// Real time.
    pub took: Duration,
    /// What writers were told, and readers saw.
    pub told: Told,
    /// What must not be.
    pub anomalies: Vec<Anomaly>,
    /// Why it did not get to its end: a node that ended, a panic, no progress.
    pub trouble: Option<String>,
}

impl Run {
    /// Nothing was wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.anomalies.is_empty() && self.trouble.is_none()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.told.writes.iter().filter(|write| wanted(&write.outcome)).count()
        };
        write!(
            f,
            "seed {}: {} written, {} in doubt, {} refused; {:.1} s in {:.1} s",
            self.seed,
            count(|outcome| matches!(outcome, Outcome::Acknowledged(_))),
            count(|outcome| matches!(outcome, Outcome::Unknown)),
            count(|outcome| matches!(outcome, Outcome::Failed)),
            self.simulated.as_secs_f64(),
            self.took.as_secs_f64(),
        )?;
        if self.is_good() {
            return Ok(());
        }
        for window in &self.plan {
            write!(f, "\n  {window}")?;
        }
        if let Some(trouble) = &self.trouble {
            write!(f, "\n  {trouble}")?;
        }
        for anomaly in &self.anomalies {
            write!(f, "\n  {anomaly}")?;
        }
        Ok(())
    }
}

thread_local! {
    /// Panics on this thread, on which a whole simulation runs. A task's own panic ends
    /// nothing but the task.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}

/// Runs one seed to its end.
///
/// # Errors
/// What kept the simulation from starting, such as no temporary directory. What goes
/// wrong inside is in the [`Run`].
pub fn run(seed: u64, options: Options) -> anyhow::Result<Run> {
    count_panics();
    let (panics, started) = (PANICS.get(), Instant::now());
    let plan = plan(seed, options.nodes, options.windows);
    let (handle, client) = load::load(options.nodes);
    let mut cluster = Cluster::new(seed, options.nodes)?;
    cluster.client(client);
    let driven = AssertUnwindSafe(|| drive(&mut cluster, &handle, &plan));
    let mut trouble = match catch_unwind(driven) {
        Ok(driven) => driven.err().map(|error| format!("{error:#}")),
        Err(_) => Some("the simulation panicked".to_owned()),
    };
    let simulated = cluster.elapsed();
    drop(cluster);
    if PANICS.get() > panics {
        trouble.get_or_insert_with(|| "a task panicked".to_owned());
    }
    let told = handle.told();
    if let (None, Some(failed)) = (&trouble, &told.failed) {
        trouble = Some(failed.clone());
    }
    let anomalies = check(&told.writes, &told.readings);
    Ok(Run { seed, plan, simulated, took: started.elapsed(), told, anomalies, trouble })
}

fn drive(cluster: &mut Cluster, handle: &load::Handle, plan: &[Window]) -> anyhow::Result<()> {
    while !handle.has_begun() {
        cluster.step()?;
        anyhow::ensure!(cluster.elapsed() < GIVE_UP, "no topic after {GIVE_UP:?}");
    }
    for window in plan {
        cluster.begin(window.fault);
        cluster.run_for(window.lasts)?;
        cluster.end(window.fault);
    }
    handle.end();
    let deadline = cluster.elapsed() + GIVE_UP;
    while !cluster.step()? {
        anyhow::ensure!(cluster.elapsed() < deadline, "not healed after {GIVE_UP:?}");
    }
    Ok(())
}
