//! `cargo run -p ottla-chaos`: simulated clusters, a seed or many (`sim`), real
//! processes that are hurt for minutes (`process`), and the judgement of any history
//! (`check`).

// Results are for people, on standard output.
#![allow(clippy::print_stdout)]

mod check;
mod process_command;
mod sim_command;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Half of what a simulation does is small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tries Ottla with faults.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  cargo run --profile sim -p ottla-chaos -- sim --seed 17 -v
  cargo run --profile sim -p ottla-chaos -- sim --seeds 0..1000 --jobs 2
  cargo run --release -p ottla-chaos -- process --nodes 5 --minutes 30
  cargo run --release -p ottla-chaos -- check history.jsonl --format json")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Whole clusters in this process, their faults decided by seeds.
    Sim(sim_command::SimArgs),
    /// Real processes, hurt for minutes.
    Process(process_command::ProcessArgs),
    /// Judges a history: ends with 1 if there are anomalies, with 2 if it is none.
    Check(check::CheckArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    match Args::parse().command {
        Command::Sim(args) => sim_command::sim(args),
        Command::Process(args) => process_command::run(&args),
        Command::Check(args) => Ok(check::check(&args)),
    }
}
