//! `ottla log`: looks into the files of a node, with or without the node.
//!
//! Not its job: reading the files (`ottla_node::inspect`).

mod dump;
mod render;
mod verify;

use crate::failure;
use crate::output::Format;
use clap::{Args as ClapArgs, Subcommand};
use std::io::{self, BufWriter, StdoutLock};
use std::process::ExitCode;

/// Exit code where nothing could be said: wrong usage, or files that cannot be
/// read.
const CANNOT_TELL: u8 = 2;

/// Bytes gathered before they are written.
const OUTPUT_BUFFER_BYTES: usize = 64 * 1024;

/// Look into logs on disk: read only, also beside a running node.
#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dump(dump::Args),
    Verify(verify::Args),
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::Dump(args) => args.format,
            Command::Verify(args) => args.format,
        }
    }
}

/// 0: nothing wrong; 1: something is; 2: cannot tell.
pub(crate) fn run(args: Args) -> ExitCode {
    let format = args.format();
    let outcome = match args.command {
        Command::Dump(args) => dump::run(&args),
        Command::Verify(args) => verify::run(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if failure::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            failure::report(&error, format);
            ExitCode::from(CANNOT_TELL)
        }
    }
}

fn out() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, io::stdout().lock())
}
