//! `ottla node format`: a data directory is given to one node of one cluster.
//!
//! Not its job: which disk a cluster admits. That is decided where the metadata is, when
//! the node is started (docs/decisions/0013).

use super::Options;
use crate::connection::duration;
use crate::failure::diagnose;
use crate::output::{self, Format};
use anyhow::{Context as _, bail};
use ottla_client::{Client, ClientOptions, HostPort};
use ottla_node::config::NodeConfig;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// What `format` writes last (docs/formats.md): without it a directory is blank.
const META: &str = "meta.properties";

/// Prepare the blank ones of its data directories for one node of one cluster.
///
/// A new cluster is founded as soon as a majority of its voters are started with blank
/// directories and hear of none that is not blank. With --join that cannot happen: it
/// formats only while a majority of the cluster's voters answers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla node format --config node-1.toml
  ottla node format --config node-4.toml --join      # the cluster is there
  ottla node format --config node-1.toml --cluster-id $(ottla cluster new-id)")]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,

    /// Format only while a majority of the cluster's voters answers. A directory that is
    /// formatted already needs nobody.
    #[arg(long, env = "OTTLA_FORMAT_JOIN")]
    join: bool,

    /// With --join: how long to wait for that majority, such as 500ms, 30s, 2m.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,

    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.options.load()?;
    // Only the first has the metadata, and with it what a node may have promised.
    if args.join && is_blank(&config.data_dir)? {
        see_cluster(&config, args.timeout).await.with_context(|| {
            format!(
                "{} is blank and was not formatted: --join expects a majority of the voters of \
                 cluster {} to answer; to found a new cluster, format without it",
                config.data_dir.display(),
                config.cluster_id
            )
        })?;
    }
    let formatted = ottla_node::format(&config)?;
    let dir = config.data_dir.display().to_string();
    let paths: Vec<String> = formatted.iter().map(|path| path.display().to_string()).collect();
    match args.format {
        Format::Json => output::json(&json!({
            "formatted": !paths.is_empty(),
            "formatted_dirs": paths,
            "data_dir": dir,
            "cluster_id": config.cluster_id,
            "node_id": config.node_id,
        }))?,
        Format::Text if !paths.is_empty() => output::line(&format!(
            "formatted {} for node {} of cluster {}",
            paths.join(", "),
            config.node_id,
            config.cluster_id
        ))?,
        Format::Text => diagnose(&format!("{dir} is formatted already; nothing was changed")),
    }
    Ok(ExitCode::SUCCESS)
}

fn is_blank(dir: &Path) -> anyhow::Result<bool> {
    let meta = dir.join(META);
    let exists = meta.try_exists();
    Ok(!exists.with_context(|| format!("cannot tell whether {} exists", meta.display()))?)
}

/// Whether the cluster is there: an answer that a majority of its voters has confirmed.
async fn see_cluster(config: &NodeConfig, within: Duration) -> anyhow::Result<()> {
    let voters = config.voter_addresses()?;
    let voters: Vec<HostPort> =
        voters.values().map(|voter| HostPort::new(&*voter.host, voter.port)).collect();
    let options = ClientOptions {
        bootstrap_timeout: within,
        request_timeout: within,
        ..ClientOptions::default()
    };
    let client = Client::connect(&voters, options).await?;
    let answer = client.admin().cluster_info().await?;
    let found = answer.header.unwrap_or_default().cluster_id;
    if found != config.cluster_id {
        bail!("the voters are those of cluster {found}, expected {}", config.cluster_id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::net::TcpListener;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Run with `flags` against voters of which none answers.
    async fn run_alone(dir: &Path, flags: &[&str]) -> anyhow::Result<ExitCode> {
        // Bound and not listening for gRPC: nobody else gets the port meanwhile.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let voter = silent.local_addr().expect("bound");
        let voters = format!("1={voter},2={voter},3={voter}");
        let dir = dir.to_str().expect("UTF-8");
        let own = ["format", "--node-id", "1", "--cluster-id", "c", "--voters", &voters];
        let rest = ["--data-dir", dir, "--timeout", "300ms"];
        let line = Line::try_parse_from(own.iter().chain(&rest).chain(flags));
        run(&line.expect("a good line").args).await
    }

    /// A majority of blank disks would found a cluster beside one that is down.
    #[tokio::test]
    async fn a_blank_directory_joins_no_cluster_that_does_not_answer() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path().join("data");
        let error = run_alone(&dir, &["--join"]).await.expect_err("nobody answers");
        let told = format!("{error:#}");
        assert!(told.contains("to found a new cluster, format without it"), "{told}");
        assert!(!dir.exists(), "something was made");

        run_alone(&dir, &[]).await.expect("founds");
        assert!(!is_blank(&dir).expect("can be read"));
        // As after a restart of the whole cluster.
        run_alone(&dir, &["--join"]).await.expect("needs nobody");
    }
}
