//! `ottla node --check`: whether a node could start with a configuration.

use crate::output::{self, Format};
use ottla_node::config::NodeConfig;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

pub(super) fn run(config: &NodeConfig, format: Format) -> anyhow::Result<ExitCode> {
    let blank = ottla_node::check(config)?;
    let shown = |paths: &[PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path.display().to_string()).collect()
    };
    let (dirs, blank) = (shown(&config.data_dirs()), shown(&blank));
    match format {
        Format::Json => output::json(&json!({
            "good": true,
            "node_id": config.node_id,
            "cluster_id": config.cluster_id,
            "advertise": config.advertised().to_string(),
            "data_dirs": dirs,
            "to_be_formatted": blank,
        }))?,
        Format::Text => {
            output::line(&format!(
                "good: node {} of cluster {}, known as {}, data in {}",
                config.node_id,
                config.cluster_id,
                config.advertised(),
                dirs.join(", ")
            ))?;
            if !blank.is_empty() && !config.dev {
                let dirs = blank.join(", ");
                output::line(&format!("to be formatted first, with `ottla node format`: {dirs}"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
