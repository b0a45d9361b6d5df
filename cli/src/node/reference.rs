//! `ottla node reference`: every option of a node.

use crate::output::{self, Format};
use ottla_node::config::{node_options, reference};
use serde_json::json;
use std::process::ExitCode;

/// Print a configuration file with every option, its unit, bounds and default.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla node reference > ottla.toml
  ottla node reference --format json | jq -r '.options[] | select(.while_running) | .name'")]
pub(super) struct Args {
    /// How the options are written: a file in TOML, or JSON.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.format {
        Format::Text => output::line(reference().trim_end())?,
        Format::Json => {
            let all = node_options().map(|option| {
                let info = option.info();
                json!({
                    "name": info.name,
                    "what": option.what(),
                    "unit": info.unit,
                    "takes": info.takes,
                    "default": info.default,
                    "while_running": info.dynamic,
                })
            });
            output::json(&json!({ "options": all.collect::<Vec<_>>() }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
