//! `process`: real processes that are hurt for minutes.

// Results are for people, on standard output.
#![allow(clippy::print_stdout)]

use anyhow::Context as _;
use ottla_chaos::checker::Verdict;
use ottla_chaos::nemesis::{self, Histories, Means, Options, Report};
use ottla_chaos::process::world::World;
use ottla_chaos::report::keep;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct ProcessArgs {
    /// What is done to the nodes. Drawn, and told, if it is not given.
    #[arg(long)]
    seed: Option<u64>,

    /// Nodes to begin with.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(3..=7))]
    nodes: u64,

    /// How long they are hurt.
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    minutes: f64,

    /// On loopback, with the faults that are possible there, also as root.
    #[arg(long)]
    loopback: bool,

    /// Where histories and their reports go; otherwise they are kept only if something is
    /// wrong.
    #[arg(long, value_name = "DIR")]
    histories: Option<PathBuf>,
}

fn minutes(text: &str) -> anyhow::Result<f64> {
    let minutes: f64 = text.parse()?;
    anyhow::ensure!((0.1..=1_440.0).contains(&minutes), "from 0.1 to 1440 minutes");
    Ok(minutes)
}

pub(crate) fn run(args: &ProcessArgs) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let means = match (args.loopback, World::is_allowed()) {
        (false, true) => Means::World,
        (true, _) => Means::Processes,
        (false, false) => {
            println!("not root: nodes on loopback; no faults of networks and disks");
            Means::Processes
        }
    };
    let lasts = Duration::from_secs_f64(args.minutes * 60.0);
    println!("seed {seed}");
    let report = nemesis::run(Options { nodes: args.nodes, lasts, seed, means })?;
    tell(&report);
    for dir in args.histories.iter().chain(&report.kept) {
        save(&report, dir)?;
    }
    if let Some(dir) = &report.kept {
        println!("logs, data, histories and reports: {}", dir.display());
    }
    let loopback = if args.loopback { " --loopback" } else { "" };
    println!(
        "again: cargo run --release -p ottla-chaos -- process --nodes {} --minutes {} --seed {seed}{loopback}",
        args.nodes, args.minutes
    );
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(report: &Report) {
    print!("acks=all: {}", report.strict);
    // It has no acknowledgements that count: nothing that could be unavailable.
    let weak = Verdict { unavailable: Vec::new(), ..report.weak.clone() };
    print!("acks=1 and acks=0: {weak}");
    for failure in &report.failures {
        println!("FAILED: {failure}");
    }
}

fn save(report: &Report, dir: &Path) -> anyhow::Result<()> {
    let Histories { strict, weak } = &report.histories;
    for (name, history, verdict) in
        [("strict", strict, &report.strict), ("weak", weak, &report.weak)]
    {
        let folder = dir.join(name);
        keep(&folder, &history.entries(), verdict)
            .with_context(|| format!("cannot write to {}", folder.display()))?;
    }
    Ok(())
}
