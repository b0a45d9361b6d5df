//! `ottla`, the one binary: runs nodes, and talks to a cluster.
//!
//! Not its job: anything the libraries can do. Each command parses its flags,
//! calls them, and shows what came of it: results on standard output,
//! diagnostics on standard error, non-zero exit on failure.

mod bench;
mod cluster;
mod connection;
mod consume;
mod dev;
mod failure;
mod group;
mod log;
mod node;
mod output;
mod produce;
mod topic;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A replicated, distributed commit log.
#[derive(Parser)]
#[command(name = "ottla", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dev(dev::Args),
    Node(Box<node::Args>),
    Topic(topic::Args),
    Produce(produce::Args),
    Consume(consume::Args),
    Group(group::Args),
    Cluster(cluster::Args),
    Log(log::Args),
    Bench(bench::Args),
}

impl Command {
    fn format(&self) -> output::Format {
        match self {
            Self::Dev(args) => args.format(),
            Self::Node(args) => args.format(),
            Self::Topic(args) => args.format(),
            Self::Produce(args) => args.format(),
            Self::Consume(args) => args.format(),
            Self::Group(args) => args.format(),
            Self::Cluster(args) => args.format(),
            Self::Log(args) => args.format(),
            Self::Bench(args) => args.format(),
        }
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let format = command.format();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&anyhow::Error::new(error), format),
    };
    let outcome = runtime.block_on(async {
        match command {
            Command::Dev(args) => dev::run(args).await,
            Command::Node(args) => node::run(*args).await,
            Command::Topic(args) => topic::run(args).await,
            Command::Produce(args) => produce::run(args).await,
            Command::Consume(args) => consume::run(args).await,
            Command::Group(args) => group::run(args).await,
            Command::Cluster(args) => cluster::run(args).await,
            Command::Log(args) => Ok(log::run(args)),
            Command::Bench(args) => bench::run(args).await,
        }
    });
    // A thread that reads standard input may still hang in there.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => failure::report(&error, format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
