//! `cargo run -p ottla-chaos -- sim`: simulated clusters, a seed or many.

// Results are for people, on standard output.
#![allow(clippy::print_stdout)]

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ottla_chaos::sim::{self, Options, Run};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

/// Tries Ottla with faults.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  cargo run --release -p ottla-chaos -- sim --seed 17
  cargo run --release -p ottla-chaos -- sim --seeds 0..1000 --jobs 2")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Whole clusters in this process, their faults decided by seeds.
    Sim(SimArgs),
}

#[derive(clap::Args)]
struct SimArgs {
    /// One seed.
    #[arg(long, conflicts_with = "seeds", required_unless_present = "seeds")]
    seed: Option<u64>,

    /// Many: from the first to before the last.
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<Range<u64>>,

    /// Seeds that run at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,

    /// Nodes of each cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: u64,

    /// Faults of each run, one after the other.
    #[arg(long, default_value_t = Options::default().windows)]
    windows: usize,
}

fn range(text: &str) -> anyhow::Result<Range<u64>> {
    let (first, last) = text.split_once("..").context("expected A..B, such as 0..100")?;
    let range = first.parse()?..last.parse()?;
    anyhow::ensure!(!range.is_empty(), "there is no seed in {text}");
    Ok(range)
}

fn main() -> anyhow::Result<ExitCode> {
    let Command::Sim(args) = Args::parse().command;
    let seeds = match (args.seed, args.seeds) {
        (Some(seed), _) => seed..seed.saturating_add(1),
        (None, Some(seeds)) => seeds,
        (None, None) => anyhow::bail!("neither --seed nor --seeds"),
    };
    let options = Options { nodes: args.nodes, windows: args.windows };
    let next = AtomicU64::new(seeds.start);
    let (done, runs) = mpsc::channel();
    let (mut good, mut bad) = (0_u64, Vec::new());
    thread::scope(|scope| -> anyhow::Result<()> {
        for _ in 0..args.jobs {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || done.send(sim::run(seed, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for run in runs {
            let run: Run = run?;
            println!("{run}");
            match run.is_good() {
                true => good += 1,
                false => bad.push(run.seed),
            }
        }
        Ok(())
    })?;
    bad.sort_unstable();
    println!("{good} good, {} bad", bad.len());
    for seed in &bad {
        println!(
            "again: cargo run --release -p ottla-chaos -- sim --seed {seed} --nodes {} --windows {}",
            options.nodes, options.windows
        );
    }
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
