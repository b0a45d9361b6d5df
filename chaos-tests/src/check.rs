//! `check`: judges a history in a file.

// The verdict is for people and programs, on standard output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use anyhow::Context as _;
use clap::ValueEnum;
use ottla_chaos::checker::check_lines;
use ottla_chaos::history::read;
use ottla_chaos::report::Gathered;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a history that is none ends with; one with anomalies ends with 1.
const NOT_A_HISTORY: u8 = 2;

#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    /// The history: one JSON object a line (docs/history-format.md).
    file: PathBuf,

    /// How the verdict is told.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Writes a page of the run too, or its JSON where the name ends so.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Ends with 0 if nothing is wrong.
pub(crate) fn check(args: &CheckArgs) -> ExitCode {
    match judged(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}: {error:#}", args.file.display());
            ExitCode::from(NOT_A_HISTORY)
        }
    }
}

fn judged(args: &CheckArgs) -> anyhow::Result<bool> {
    let file = File::open(&args.file).context("cannot be opened")?;
    let mut gathered = Gathered::default();
    let wants_report = args.report.is_some();
    let lines = read(BufReader::new(file)).inspect(|line| {
        if let (true, Ok((_, entry))) = (wants_report, line) {
            gathered.add(entry);
        }
    });
    let verdict = check_lines(lines)?;
    if let Some(path) = &args.report {
        let saved = gathered.report(verdict.clone()).save(path);
        saved.with_context(|| format!("writing {}", path.display()))?;
    }
    match args.format {
        Format::Text => print!("{verdict}"),
        Format::Json => println!("{}", serde_json::to_string(&verdict)?),
    }
    Ok(verdict.good)
}
