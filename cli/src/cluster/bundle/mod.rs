//! `ottla cluster debug-bundle`: what somebody needs who is to find a bug from far away, in
//! one file, without secrets.

mod archive;
mod collect;
mod http;
mod mask;

use crate::connection::Connection;
use crate::failure::diagnose;
use crate::output::{self, Format};
use archive::Archive;
use collect::Collector;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// Gather what a bug report needs into one file.
///
/// In it: versions, the nodes and the quorum, health, feature levels, the options of cluster
/// and nodes with their sources, topics with their partitions, moves under way, groups with
/// their lag, and of each node /metrics and /readyz. No records. Values of options whose
/// names say that they are secret, and passwords in addresses, are masked; MANIFEST.json
/// lists what is in the bundle, and what could not be had: a node that does not answer is
/// named there, and keeps nothing else out.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster debug-bundle
  ottla cluster debug-bundle --output trouble.tar.gz
  ottla cluster debug-bundle --http 1=10.0.0.1:7501 --http 2=10.0.0.2:7501
  tar -xzf trouble.tar.gz                       look into it before it is sent")]
pub(super) struct DebugBundle {
    /// The file. Default: ottla-debug-TIME.tar.gz, here.
    #[arg(long, value_name = "FILE.tar.gz")]
    output: Option<PathBuf>,

    /// Where a node's HTTP port is reached from here, if its option http_listen does not
    /// say so. May be repeated.
    #[arg(long = "http", value_name = "NODE=HOST:PORT", value_parser = http_address)]
    http: Vec<(u64, String)>,

    #[command(flatten)]
    pub(super) connection: Connection,
}

fn http_address(text: &str) -> Result<(u64, String), String> {
    let (node, address) = crate::topic::key_value(text)?;
    let node = node.parse().map_err(|_| format!("{node:?} is no number of a node"))?;
    Ok((node, address))
}

pub(super) async fn run(args: &DebugBundle) -> anyhow::Result<ExitCode> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let root = format!("ottla-debug-{}", now.replace([':', '-'], ""));
    let path = args.output.clone().unwrap_or_else(|| format!("{root}.tar.gz").into());
    let archive = Archive::create(&path, &root)?;
    let mut collector = Collector { archive, http: args.http.iter().cloned().collect() };
    collector.all(&args.connection).await?;
    let about = json!({ "created_at": now, "ottla_version": ottla_node::VERSION });
    let made = collector.archive.finish(about)?;
    match args.connection.format {
        Format::Text => {
            for (what, why) in &made.missing {
                diagnose(&format!("ottla: without {what}: {why}"));
            }
            let (path, files, bytes) = (path.display(), made.files, made.bytes);
            let masked = made.masked;
            output::line(&format!("{path}: {files} files, {bytes} bytes, {masked} values masked"))?;
        }
        Format::Json => {
            let missing = made.missing.iter();
            let missing = missing.map(|(what, why)| json!({ "what": what, "why": why }));
            output::json(&json!({
                "file": path,
                "files": made.files,
                "bytes": made.bytes,
                "masked_values": made.masked,
                "missing": missing.collect::<Vec<_>>(),
            }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
