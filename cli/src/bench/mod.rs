//! `ottla bench`: figures, measured on a cluster of real processes.
//!
//! Not its job: judging the figures. Each says what was measured, so that the
//! same command elsewhere can be compared.

mod catch_up;
mod cluster;
mod controller;
mod failover;
mod figures;
mod groups;
mod proc;

use crate::output::Format;
use clap::Subcommand;
use std::process::ExitCode;

/// Measure what a cluster can do.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    CatchUp(catch_up::Args),
    Controller(controller::Args),
    Failover(failover::Args),
    Groups(groups::Args),
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::CatchUp(args) => args.format(),
            Command::Controller(args) => args.format(),
            Command::Failover(args) => args.format(),
            Command::Groups(args) => args.format(),
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::CatchUp(args) => catch_up::run(args).await,
        Command::Controller(args) => controller::run(args).await,
        Command::Failover(args) => failover::run(args).await,
        Command::Groups(args) => groups::run(args).await,
    }
}
