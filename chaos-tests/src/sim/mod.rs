//! Whole nodes in one process, with their clients, on a network, disks and a clock that
//! belong to the simulation: what happens, and when, follows from a seed.
//!
//! What is real: every line of a node and of the client, gRPC and Raft included. What
//! is not: TCP and time ([turmoil](https://docs.rs/turmoil)), and the disks under the
//! logs (`commitlog::vfs::sim`), which lose what was not synced when their power fails.
//! Marks and locks of data directories are on the real disk; the rebuildable image is
//! not in sled but in a double of it.
//!
//! One seed is one run, to the byte: each has a process of its own, the randomness and
//! clocks of its thread are the simulation's (`os`), and `trace` tells what happened.

mod churn;
mod cluster;
mod faults;
mod load;
mod network;
mod operator;
mod os;
mod pause;
mod plan;
mod reader;
mod scenarios;
mod scene;
mod story;
mod trace;
mod view;
mod writer;

pub use load::PARTITIONS;
pub use network::SimNetwork;
pub use plan::{Fault, Target, Window, plan};
pub use scenarios::{SCENARIOS, Scenario};
pub use story::{Op, Sign, Step, Story, Who};
pub use trace::{Fingerprint, Lines};

use crate::checker::{Verdict, check};
use crate::history::Entry;
use anyhow::bail;
use cluster::Cluster;
use faults::Stage;
use nix::sys::resource::{UsageWho, getrusage};
use parking_lot::Mutex;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use view::View;

/// Simulated time after which a run is given up: many times what any recovery takes.
const GIVE_UP: Duration = Duration::from_secs(300);

/// Processor time after which a run is given up, a hundred times what it takes: it may have
/// stopped in a moment of simulated time in which something goes on for ever. Not real
/// time: a busy machine makes no run a bad one.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// How often to look at it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a simulation is made of, beside its seed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nodes at the beginning, each a voter; `None`: three to five, as the seed draws.
    pub nodes: Option<u64>,
    /// Windows of the plan, each of some seconds.
    pub windows: usize,
    /// In place of a plan that is drawn. Operators do then only what it says.
    pub scenario: Option<&'static Scenario>,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: None, windows: 6, scenario: None }
    }
}

/// What came of one seed.
#[derive(Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// How many nodes there were at the beginning.
    pub nodes: u64,
    /// What was done to the nodes.
    pub plan: Vec<Window>,
    /// Simulated time.
    pub simulated: Duration,
    /// Real time.
    pub took: Duration,
    /// What clients did and were told, and what was done to the nodes.
    pub history: Vec<Entry>,
    /// What the checker says to it.
    pub verdict: Verdict,
    /// Of all that happened: the same for the same seed.
    pub fingerprint: Fingerprint,
    /// Why it did not get to its end: a node that ended, a panic, no progress.
    pub trouble: Option<String>,
}

impl Run {
    /// Nothing was wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict.good && self.trouble.is_none()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} nodes, {}; {:.1} s in {:.1} s; {}",
            self.seed,
            self.nodes,
            self.verdict.total,
            self.simulated.as_secs_f64(),
            self.took.as_secs_f64(),
            self.fingerprint,
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
        write!(f, "\n{}", self.verdict)
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

/// Runs one seed to its end, on a thread of its own. What happens goes to `lines`.
///
/// Once in a process: tokio counts runtimes and tasks in all of it, and draws and orders
/// by those counts. Many seeds are many processes (`ottla-chaos sim`).
///
/// # Errors
/// What kept the simulation from starting, such as no temporary directory. What goes
/// wrong inside is in the [`Run`].
pub fn run(seed: u64, options: Options, lines: Option<Lines>) -> anyhow::Result<Run> {
    count_panics();
    let started = Instant::now();
    // Here, as its name is drawn, and again if it is taken. It is worked in, as errors name
    // the files of nodes and are sent to clients: a drawn name would be in what is sent.
    let dir = tempfile::Builder::new().prefix("ottla-sim-").tempdir()?;
    let _inside = WorkingIn::enter(dir.path())?;
    let (done, ended) = mpsc::channel();
    thread::Builder::new().name(format!("seed {seed}")).spawn(move || {
        os::simulate(seed);
        trace::begin(lines);
        let _logs = trace::logs();
        let run = simulate(seed, options, dir);
        // Whoever waited has given up.
        let _ = done.send(run.map(|run| Run { fingerprint: trace::end(), ..run }));
    })?;
    loop {
        match ended.recv_timeout(LOOK_EVERY) {
            Ok(run) => return Ok(Run { took: started.elapsed(), ..run? }),
            Err(RecvTimeoutError::Disconnected) => bail!("the simulation of seed {seed} panicked"),
            Err(RecvTimeoutError::Timeout) => {
                let used = getrusage(UsageWho::RUSAGE_SELF)?.user_time().tv_sec();
                let is_stuck = used.unsigned_abs() >= STUCK_AFTER.as_secs();
                anyhow::ensure!(!is_stuck, "seed {seed} has not ended in {STUCK_AFTER:?}");
            }
        }
    }
}

/// This process's working directory, until it is dropped.
struct WorkingIn {
    before: PathBuf,
}

impl WorkingIn {
    fn enter(dir: &Path) -> std::io::Result<Self> {
        let before = std::env::current_dir()?;
        std::env::set_current_dir(dir)?;
        Ok(Self { before })
    }
}

impl Drop for WorkingIn {
    fn drop(&mut self) {
        // Gone, perhaps: then so are the files that somebody wanted to write there.
        let _ = std::env::set_current_dir(&self.before);
    }
}

fn simulate(seed: u64, options: Options, dir: TempDir) -> anyhow::Result<Run> {
    let drawn = || options.nodes.unwrap_or_else(|| plan::nodes(seed));
    let nodes = options.scenario.map_or_else(drawn, |scenario| scenario.nodes);
    let (plan, lag_ms) = match options.scenario {
        Some(scenario) => (scenario.plan(), scenario.lag_ms),
        None => (plan(seed, nodes, PARTITIONS, options.windows), plan::lag_ms(seed)),
    };
    let (handle, load) = load::load(format!("simulation of seed {seed}"), nodes);
    let mut cluster = Cluster::new(seed, nodes, lag_ms, dir)?;
    let view = Arc::new(Mutex::new(View::default()));
    let watch = view::watch(nodes, Arc::clone(&view));
    let (desk, operator) = operator::operator(nodes);
    let (members, over) = (Arc::clone(&cluster.members), handle.over());
    let churn = async move {
        if options.scenario.is_none() {
            churn::churn(seed, nodes, members, over).await;
        }
    };
    cluster.client(async move {
        tokio::select! {
            biased;
            done = load => done,
            ((), (), ()) = async { tokio::join!(watch, churn, operator) } => {
                Err("nobody watches".into())
            }
        }
    });
    let driven = AssertUnwindSafe(|| {
        drive(&mut cluster, &Stage { view: &view, handle: &handle, desk: &desk }, &plan)
    });
    let mut trouble = match catch_unwind(driven) {
        Ok(driven) => driven.err().map(|error| format!("{error:#}")),
        Err(_) => Some("the simulation panicked".to_owned()),
    };
    let simulated = cluster.elapsed();
    drop(cluster);
    if PANICS.get() > 0 {
        trouble.get_or_insert_with(|| "a task panicked".to_owned());
    }
    let (history, trouble) = (handle.history(), trouble.or_else(|| handle.failed()));
    let verdict = check(&history)?;
    let (took, fingerprint) = (Duration::ZERO, Fingerprint::default());
    Ok(Run { seed, nodes, plan, simulated, took, history, verdict, fingerprint, trouble })
}

fn drive(cluster: &mut Cluster, stage: &Stage<'_>, plan: &[Window]) -> anyhow::Result<()> {
    let handle = stage.handle;
    while !handle.has_begun() {
        cluster.step()?;
        anyhow::ensure!(cluster.elapsed() < GIVE_UP, "no topic after {GIVE_UP:?}");
    }
    for window in plan {
        let told = (window.fault != Fault::Calm).then(|| {
            let (name, detail) = (window.fault.name(), format!("{:?}", window.fault));
            handle.recorder().fault(cluster.elapsed(), name, &detail)
        });
        let undo = cluster.begin(&window.fault, stage)?;
        cluster.run_for(window.lasts)?;
        trace::told("ends");
        undo.into_iter().for_each(|undo| cluster.end(undo));
        if let Some(told) = told {
            handle.recorder().fault_end(cluster.elapsed(), told);
        }
    }
    handle.end();
    let deadline = cluster.elapsed() + GIVE_UP;
    while !cluster.step()? {
        anyhow::ensure!(cluster.elapsed() < deadline, "not healed after {GIVE_UP:?}");
    }
    Ok(())
}
