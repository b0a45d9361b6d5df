//! `ottla`, the one binary: runs nodes, and talks to a cluster.
//!
//! Not its job: anything the libraries can do. Each command parses its flags,
//! calls them, and shows what came of it: results on standard output,
//! diagnostics on standard error, non-zero exit on failure.

mod backup;
mod bench;
mod cluster;
mod completion;
mod connection;
mod consume;
mod dev;
mod failure;
mod group;
mod log;
mod node;
mod output;
mod produce;
mod profile;
mod progress;
mod topic;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
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
    Backup(backup::Args),
    Log(log::Args),
    Bench(bench::Args),
    Profile(profile::Args),
    Completion(completion::Args),
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
            Self::Backup(args) => args.format(),
            Self::Log(args) => args.format(),
            Self::Bench(args) => args.format(),
            Self::Profile(args) => args.format(),
            Self::Completion(_) => output::Format::Text,
        }
    }
}

fn main() -> ExitCode {
    let command = match parse() {
        Ok(command) => command,
        Err(error) => return failure::report(&error, output::Format::Text),
    };
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
            Command::Backup(args) => backup::run(args).await,
            Command::Log(args) => Ok(log::run(args)),
            Command::Bench(args) => bench::run(args).await,
            Command::Profile(args) => profile::run(args),
            Command::Completion(args) => completion::run(&args, Cli::command()),
        }
    });
    // A thread that reads standard input may still hang in there.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => failure::report(&error, format),
    }
}

/// The command line, with the defaults of a profile if one is to be used. What is wrong
/// with the line itself ends the process, as does `--help`.
fn parse() -> anyhow::Result<Command> {
    let args: Vec<_> = std::env::args_os().collect();
    let matches = profile::defaults(Cli::command(), &args)?.get_matches_from(args);
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// Every command that can be run, by its words.
    fn commands(command: &clap::Command, path: &str, into: &mut Vec<(String, clap::Command)>) {
        let path = format!("{path} {}", command.get_name());
        let parts: Vec<_> = command.get_subcommands().collect();
        if parts.is_empty() || path == " ottla node" {
            into.push((path.clone(), command.clone()));
        }
        for part in parts {
            commands(part, &path, into);
        }
    }

    #[test]
    fn every_command_has_examples_and_writes_json() {
        // A completion is a script.
        let without_format = [" ottla completion"];
        let mut all = Vec::new();
        commands(&Cli::command(), "", &mut all);
        assert!(all.len() > 25, "{} commands", all.len());
        for (path, command) in all {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  "), "{path} has no examples");
            let words = path.trim();
            assert!(help.contains(words), "the examples of {path} do not show it");
            assert!(command.get_about().is_some(), "{path} does not say what it does");
            let has_format = command.get_arguments().any(|arg| arg.get_id() == "format");
            assert_eq!(has_format, !without_format.contains(&path.as_str()), "{path} --format");
        }
    }

    /// A profile can only say what some flag says.
    #[test]
    fn settings_of_profiles_are_flags() {
        assert_eq!(profile::unused_settings(&Cli::command()), Vec::<&str>::new());
    }

    #[test]
    fn every_shell_gets_a_script() {
        use clap_complete::Shell;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ottla", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("replication-factor"), "{shell}");
        }
    }
}
