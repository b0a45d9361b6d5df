//! `ottla bench`: figures, measured on a cluster of real processes.
//!
//! Not its job: judging the figures. Each says what was measured, so that the
//! same command elsewhere can be compared.

mod catch_up;
mod chain;
mod cluster;
mod consume;
mod controller;
mod end_to_end;
mod failover;
mod figures;
mod floor;
mod groups;
mod load;
mod page;
mod proc;
mod produce;
mod readers;
mod setting;
mod target;

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
    Produce(produce::Args),
    Consume(consume::Args),
    EndToEnd(end_to_end::Args),
    Floor(floor::Args),
    CatchUp(catch_up::Args),
    Controller(controller::Args),
    Failover(failover::Args),
    Groups(groups::Args),
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::Produce(args) => args.format(),
            Command::Consume(args) => args.format(),
            Command::EndToEnd(args) => args.format(),
            Command::Floor(args) => args.format(),
            Command::CatchUp(args) => args.format(),
            Command::Controller(args) => args.format(),
            Command::Failover(args) => args.format(),
            Command::Groups(args) => args.format(),
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Produce(args) => produce::run(args).await,
        Command::Consume(args) => consume::run(args).await,
        Command::EndToEnd(args) => end_to_end::run(args).await,
        Command::Floor(args) => floor::run(args),
        Command::CatchUp(args) => catch_up::run(args).await,
        Command::Controller(args) => controller::run(args).await,
        Command::Failover(args) => failover::run(args).await,
        Command::Groups(args) => groups::run(args).await,
    }
}
