//! `ottla-chaos sim`: one seed again, or many, and how to see a bad one again.

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use ottla_chaos::report::Gathered;
use ottla_chaos::sim::{self, Lines, Options, Run, Scenario};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, stderr, stdout};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(clap::Args)]
#[command(
    about = "Whole clusters in this process, their faults decided by seeds",
    group(clap::ArgGroup::new("which").required(true).args(["seed", "seeds", "fresh"])),
    after_help = "\
Examples:
  cargo run --profile sim -p ottla-chaos -- sim --seed 17 -v
  cargo run --profile sim -p ottla-chaos -- sim --seed 17 --report page.html
  cargo run --profile sim -p ottla-chaos -- sim --seeds 0..1000 --jobs 2
  cargo run --profile sim -p ottla-chaos -- sim --fresh 300 --within 5m"
)]
pub(crate) struct SimArgs {
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,

    /// Many: from the first to before the last.
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<Range<u64>>,

    /// So many that nobody has tried before: they begin at the time of day.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    fresh: Option<u64>,

    /// Begin no more seeds after so long, such as 5m.
    #[arg(long, value_parser = humantime::parse_duration)]
    within: Option<Duration>,

    /// Seeds that run at the same time, each in a process of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,

    /// Nodes of each cluster; otherwise three to five, as the seed draws.
    #[arg(long, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: Option<u64>,

    /// Faults of each run, one after the other.
    #[arg(long, default_value_t = Options::default().windows)]
    windows: usize,

    /// Write what happens, line by line. For one seed.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "fresh"])]
    trace: Option<PathBuf>,

    /// Show what happens, line by line. For one seed.
    #[arg(short, long, conflicts_with_all = ["seeds", "fresh", "trace"])]
    verbose: bool,

    /// A failure of another system, by name, in place of drawn faults. For one seed.
    #[arg(long, value_parser = scenario, conflicts_with_all = ["seeds", "fresh", "nodes"])]
    scenario: Option<&'static Scenario>,

    /// Write a page of the run, or its JSON where the name ends so. For one seed.
    #[arg(long, value_name = "FILE.html", conflicts_with_all = ["seeds", "fresh"])]
    report: Option<PathBuf>,

    /// Tell as JSON, to the process of a sweep that asked. For one seed.
    #[arg(long, hide = true, conflicts_with_all = ["seeds", "fresh", "trace", "verbose"])]
    tell: bool,
}

fn scenario(name: &str) -> anyhow::Result<&'static Scenario> {
    let names = || sim::SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>();
    Scenario::find(name).with_context(|| format!("there are {}", names().join(", ")))
}

fn range(text: &str) -> anyhow::Result<Range<u64>> {
    let (first, last) = text.split_once("..").context("expected A..B, such as 0..100")?;
    let range = first.parse()?..last.parse()?;
    anyhow::ensure!(!range.is_empty(), "there is no seed in {text}");
    Ok(range)
}

impl SimArgs {
    fn seeds(&self) -> anyhow::Result<Range<u64>> {
        Ok(match (self.seed, &self.seeds, self.fresh) {
            (Some(seed), ..) => seed..seed.saturating_add(1),
            (None, Some(seeds), _) => seeds.clone(),
            (None, None, fresh) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
                let first = u64::try_from(now)?;
                first..first.saturating_add(fresh.unwrap_or(1))
            }
        })
    }

    fn lines(&self) -> anyhow::Result<Option<Lines>> {
        Ok(match &self.trace {
            Some(file) => {
                let what = || format!("writing {}", file.display());
                Some(Box::new(BufWriter::new(File::create(file).with_context(what)?)))
            }
            None if self.verbose => Some(Box::new(BufWriter::new(stdout()))),
            None => None,
        })
    }

    /// The command that shows a seed again.
    fn again(&self, seed: u64) -> String {
        let mut command = format!("cargo run --profile sim -p ottla-chaos -- sim --seed {seed}");
        if let Some(nodes) = self.nodes {
            command += &format!(" --nodes {nodes}");
        }
        if self.windows != Options::default().windows {
            command += &format!(" --windows {}", self.windows);
        }
        command
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress(seeds: &Range<u64>) -> anyhow::Result<ProgressBar> {
    if !stderr().is_terminal() || seeds.end - seeds.start < 2 {
        return Ok(ProgressBar::hidden());
    }
    let style = "{elapsed_precise} {wide_bar} {pos}/{len} seeds, {msg}, {eta} left";
    let bar = ProgressBar::new(seeds.end - seeds.start);
    Ok(bar.with_style(ProgressStyle::with_template(style)?).with_message("none bad"))
}

pub(crate) fn sim(args: SimArgs) -> anyhow::Result<ExitCode> {
    let seeds = args.seeds()?;
    let (nodes, windows, scenario) = (args.nodes, args.windows, args.scenario);
    let options = Options { nodes, windows, scenario };
    let started = Instant::now();
    if let Some(fresh) = args.fresh {
        println!("{fresh} fresh seeds: {}..{}", seeds.start, seeds.end);
    }
    if args.seed.is_some() {
        // A simulation lives shorter than it takes to find it huge pages: measured, a sixth.
        // Where that cannot be had it is slower.
        let _ = nix::sys::prctl::set_thp_disable(true);
        let run = sim::run(seeds.start, options, args.lines()?)?;
        if let Some(path) = &args.report {
            save(&run, path)?;
        }
        if args.tell {
            println!("{}", serde_json::to_string(&Report::of(&run))?);
        } else {
            println!("{run}");
        }
        return Ok(if run.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let sum = sweep(&args, seeds, started)?;
    println!("{}", sum.line(started.elapsed()));
    for seed in &sum.bad {
        println!("again: {}", args.again(*seed));
    }
    Ok(if sum.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn save(run: &Run, path: &Path) -> anyhow::Result<()> {
    let mut gathered = Gathered::default();
    run.history.iter().for_each(|entry| gathered.add(entry));
    let saved = gathered.report(run.verdict.clone()).save(path);
    saved.with_context(|| format!("writing {}", path.display()))
}

/// What a process of a sweep tells the one that started it.
#[derive(Serialize, Deserialize)]
struct Report {
    seed: u64,
    good: bool,
    simulated: Duration,
    took: Duration,
    text: String,
}

impl Report {
    fn of(run: &Run) -> Self {
        let Run { seed, simulated, took, .. } = *run;
        Self { seed, good: run.is_good(), simulated, took, text: run.to_string() }
    }

    /// Runs a seed in a process of its own. If that dies, the seed is bad.
    fn ask(args: &SimArgs, seed: u64) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["sim", "--tell", "--seed", &seed.to_string()]);
        if let Some(nodes) = args.nodes {
            command.args(["--nodes", &nodes.to_string()]);
        }
        command.args(["--windows", &args.windows.to_string()]);
        let output = command.stderr(Stdio::null()).output()?;
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| Self {
            seed,
            good: false,
            simulated: Duration::ZERO,
            took: Duration::ZERO,
            text: format!("seed {seed}: its process ended with {}", output.status),
        }))
    }
}

fn sweep(args: &SimArgs, seeds: Range<u64>, started: Instant) -> anyhow::Result<Sum> {
    let bar = progress(&seeds)?;
    let mut sum = Sum::default();
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    let (done, reports) = mpsc::channel();
    thread::scope(|scope| -> anyhow::Result<()> {
        for _ in 0..args.jobs {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                let late = || args.within.is_some_and(|within| started.elapsed() >= within);
                while !late() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || done.send(Report::ask(args, seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for report in reports {
            let report = report?;
            bar.suspend(|| println!("{}", report.text));
            sum.add(&report);
            bar.inc(1);
            if !sum.bad.is_empty() {
                bar.set_message(format!("{} bad", sum.bad.len()));
            }
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    sum.bad.sort_unstable();
    Ok(sum)
}

/// What came of all seeds.
#[derive(Default)]
struct Sum {
    good: u64,
    bad: Vec<u64>,
    simulated: Duration,
    took: Duration,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        match report.good {
            true => self.good += 1,
            false => self.bad.push(report.seed),
        }
        self.simulated += report.simulated;
        self.took += report.took;
    }

    fn line(&self, elapsed: Duration) -> String {
        format!(
            "{} good, {} bad; {:.0} s simulated in {:.0} s, {:.0} times as fast as real on each job",
            self.good,
            self.bad.len(),
            self.simulated.as_secs_f64(),
            elapsed.as_secs_f64(),
            self.simulated.as_secs_f64() / self.took.as_secs_f64().max(f64::EPSILON),
        )
    }
}
