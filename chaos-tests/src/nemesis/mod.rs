//! Clusters of real processes that are hurt for minutes, as a seed says, while clients
//! write and read; then nothing is wrong any more, everything is read, and judged.
//!
//! A seed repeats what is done and in which order. It does not repeat a run: processes,
//! disks and networks take the time they take.

mod hurt;
mod load;
mod operators;
mod plan;
mod roles;
mod say;

pub use plan::{Fault, Means, Who, Window, windows};

use crate::checker::{self, Verdict};
use crate::history::Recorder;
use crate::members::{Habits, Members, Tell};
use crate::process::world::World;
use crate::process::{Cluster, binary};
use anyhow::Context as _;
use hurt::Hand;
pub use load::Histories;
use load::{HEALED_WITHIN, KEPT, Load, PARTITIONS};
use operators::Operators;
use ottla_client::{Client, ClientOptions, HostPort};
use rand::SeedableRng;
use rand::rngs::StdRng;
use say::Say;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How often somebody looks what has ended meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The group of a run. Members stay for some sessions, so that most changes are over
/// before the next.
const HABITS: Habits = Habits {
    topics: &KEPT,
    partitions: PARTITIONS,
    stays: Duration::from_secs(25),
    away: Duration::from_secs(3),
};

/// What is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nodes to begin with.
    pub nodes: u64,
    /// How long nodes are hurt.
    pub lasts: Duration,
    /// Of the plan.
    pub seed: u64,
    /// With hosts and disks of their own, or on loopback.
    pub means: Means,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The judgement of what was promised to stay.
    pub strict: Verdict,
    /// The judgement of what was not.
    pub weak: Verdict,
    /// The histories that were judged.
    pub histories: Histories,
    /// What did not work again although nothing was wrong any more, and nodes that ended
    /// by themselves.
    pub failures: Vec<String>,
    /// Where logs and data are, if they were kept.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Whether all is well.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.strict.good && self.weak.good && self.failures.is_empty()
    }
}

/// Runs a cluster, hurts it, heals it, and judges.
///
/// # Errors
/// It could not be begun, or a fault could neither be made nor refused.
pub fn run(options: Options) -> anyhow::Result<Report> {
    binary()?;
    match options.means {
        Means::World => {
            let world = World::new(options.seed)?;
            world.run(|| in_place(options, Some(Arc::clone(&world))))
        }
        Means::Processes => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(2).enable_all().build()?.block_on(in_place(options, None))
        }
    }
}

async fn in_place(options: Options, world: Option<Arc<World>>) -> anyhow::Result<Report> {
    let say = Say::from_now();
    let cluster = match &world {
        Some(world) => Cluster::start_in(world, options.nodes, "").await?,
        None => Cluster::start(options.nodes).await?,
    };
    say.line(&format!("{} nodes in {}", options.nodes, cluster.dir().display()));
    let bootstrap = HostPort::parse_list(&cluster.bootstrap().join(","))?;
    let histories = Histories::new(options.seed);
    let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
    let load = Load::start(bootstrap.clone(), options.nodes, histories.clone(), say).await?;
    let members = members(&bootstrap, say).await?;
    let mut rng = StdRng::seed_from_u64(options.seed);
    let operators = Operators::new(options.nodes + 1, StdRng::from_rng(&mut rng));
    let hand = Hand::new(cluster, world, client, rng);
    let mut nemesis = Nemesis { say, hand, operators, histories, failures: Vec::new() };
    tokio::select! {
        hurt = nemesis.hurt(options) => hurt?,
        // In order, so that nothing is left behind.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted");
        }
    }
    nemesis.heal(load, members).await
}

async fn members(bootstrap: &[HostPort], say: Say) -> anyhow::Result<Members> {
    let client = || Client::connect(bootstrap, ClientOptions::default());
    let clients = [client().await?, client().await?, client().await?];
    let tell: Tell = Arc::new(move |text| say.line(text));
    Ok(Members::start(client().await?, clients, HABITS, &tell))
}

struct Nemesis {
    say: Say,
    hand: Hand,
    operators: Operators,
    histories: Histories,
    failures: Vec<String>,
}

impl Nemesis {
    async fn hurt(&mut self, options: Options) -> anyhow::Result<()> {
        let until = Instant::now() + options.lasts;
        for window in windows(options.seed, options.means, PARTITIONS) {
            if Instant::now() >= until {
                break;
            }
            let mut begun = Vec::new();
            for &fault in &window.faults {
                begun.extend(self.begin(fault).await);
            }
            if window.faults.is_empty() {
                self.say.line("calm");
            }
            // Some take a while to begin; then they last.
            let ends = Instant::now() + window.lasts;
            while Instant::now() < ends {
                tokio::time::sleep(LOOK_AGAIN).await;
                self.operators.look(&mut self.hand, &self.say).await?;
                self.look_for_the_dead()?;
            }
            self.hand.end()?;
            for id in begun {
                self.histories.strict.fault_end(self.say.elapsed(), id);
            }
        }
        Ok(())
    }

    /// Begins a fault, if it can be; its number in the history.
    async fn begin(&mut self, fault: Fault) -> Option<u64> {
        self.say.line(&fault.to_string());
        let done = if Operators::does(fault) {
            self.operators.begin(fault, &mut self.hand)
        } else {
            self.hand.begin(fault).await
        };
        match done {
            Ok(to) => {
                self.say.line(&format!("  {to}"));
                Some(self.histories.strict.fault(self.say.elapsed(), fault.name(), &to))
            }
            Err(why) => {
                self.say.line(&format!("  not now: {why:#}"));
                None
            }
        }
    }

    /// Nodes that ended by themselves are started again, as an init system would, and
    /// told about in the end: no fault of a run is a reason to end.
    fn look_for_the_dead(&mut self) -> anyhow::Result<()> {
        for what in self.hand.restart_the_dead(|node| self.operators.removes(node))? {
            self.say.line(&what);
            self.failures.push(what);
        }
        Ok(())
    }

    /// Waits until all is well, reads everything, judges.
    async fn heal(mut self, mut load: Load, members: Members) -> anyhow::Result<Report> {
        self.say.line("nothing is wrong any more");
        let deadline = Instant::now() + HEALED_WITHIN;
        if let Err(why) = self.well_again(&mut load, members, deadline).await {
            self.failures.push(format!("{why:#}"));
        }
        let judge = |history: &Recorder| checker::check(&history.entries()).context("the history");
        let (strict, weak) = (judge(&self.histories.strict)?, judge(&self.histories.weak)?);
        let (histories, failures) = (self.histories, self.failures);
        let mut report = Report { strict, weak, histories, failures, kept: None };
        if !report.is_good() {
            report.kept = Some(self.hand.cluster.keep());
        }
        Ok(report)
    }

    async fn well_again(
        &mut self,
        load: &mut Load,
        members: Members,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        while !self.operators.is_idle() {
            anyhow::ensure!(Instant::now() < deadline, "operators' commands still run");
            self.operators.look(&mut self.hand, &self.say).await?;
            self.look_for_the_dead()?;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        while let Err(not_yet) = self.hand.repair().await {
            anyhow::ensure!(Instant::now() < deadline, not_yet);
        }
        let healthy = timeout_at(deadline, self.hand.cluster.wait_healthy()).await;
        healthy.context("not healthy in time")??;
        self.look_for_the_dead()?;
        self.say.line("healthy");
        load.finish_writing().await?;
        let figures = members.finish(Instant::now() + HEALED_WITHIN).await?;
        self.say.line(&format!("the group has read and committed everything: {figures}"));
        load.read_back().await?;
        self.say.line("everything is read");
        Ok(())
    }
}
