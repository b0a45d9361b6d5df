//! `ottla node`: one node of a cluster; what is done once before it, and asked of it.
//!
//! Not its job: running the node (`ottla_node`).

mod check;
mod format;
mod health;
mod reference;

use crate::output::Format;
use anyhow::bail;
use clap::Subcommand;
use ottla_node::config::NodeConfig;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Run one node of a cluster.
///
/// Options come from the file, from environment variables OTTLA_<OPTION> over
/// it, and from flags over both. A data directory is formatted once, with
/// `ottla node format`, before its node is first started; run again, that adds
/// further blank directories of the option `extra_data_dirs`.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  ottla node format --config node-1.toml --cluster-id $(ottla cluster new-id)
  ottla node --config node-1.toml
  ottla node --config node-1.toml --log-format json --log-level debug
  ottla node --config node-1.toml --check
  ottla node reference > ottla.toml"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    options: Options,

    /// Say whether the configuration is good and the data directories are this node's,
    /// and start nothing.
    #[arg(long)]
    check: bool,

    /// How the result of --check is written.
    #[arg(long, value_enum, default_value_t, requires = "check")]
    format: Format,

    /// Stop when standard input ends, so that a node started by another
    /// program does not outlive it.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

#[derive(Subcommand)]
enum Command {
    Format(Box<format::Args>),
    Health(health::Args),
    Reference(reference::Args),
}

#[derive(clap::Args)]
struct Options {
    /// The configuration file, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// This node's number, from 1, unique in the cluster.
    #[arg(long, value_name = "N")]
    node_id: Option<String>,

    /// Name of the cluster, the same on every node.
    #[arg(long, value_name = "ID")]
    cluster_id: Option<String>,

    /// Where this node keeps everything.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,

    /// Address the gRPC port binds to.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,

    /// Address that clients and other nodes are told.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,

    /// Address of the HTTP port for probes.
    #[arg(long, value_name = "IP:PORT")]
    http_listen: Option<String>,

    /// Failure domain of this node.
    #[arg(long)]
    rack: Option<String>,

    /// The voters of the metadata quorum.
    #[arg(long, value_name = "ID=HOST:PORT,…")]
    voters: Option<String>,

    /// text or json.
    #[arg(long)]
    log_format: Option<String>,

    /// error, warn, info, debug, trace, or a filter.
    #[arg(long)]
    log_level: Option<String>,

    /// Any option of the file, by name. May be repeated.
    #[arg(long = "set", value_name = "OPTION=VALUE")]
    set: Vec<String>,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Some(Command::Format(args)) => args.format,
            Some(Command::Health(args)) => args.format,
            Some(Command::Reference(args)) => args.format,
            None => self.format,
        }
    }
}

impl Options {
    fn load(&self) -> anyhow::Result<NodeConfig> {
        let named = [
            ("node_id", &self.node_id),
            ("cluster_id", &self.cluster_id),
            ("data_dir", &self.data_dir),
            ("listen", &self.listen),
            ("advertise", &self.advertise),
            ("http_listen", &self.http_listen),
            ("rack", &self.rack),
            ("voters", &self.voters),
            ("log_format", &self.log_format),
            ("log_level", &self.log_level),
        ];
        let mut flags: Vec<(String, String)> = named
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
            .collect();
        for text in &self.set {
            let Some((name, value)) = text.split_once('=') else {
                bail!("--set {text}: is not of the form OPTION=VALUE");
            };
            flags.push((name.to_owned(), value.to_owned()));
        }
        Ok(NodeConfig::load(self.config.as_deref(), &flags)?)
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Command::Format(args)) => return format::run(&args).await,
        Some(Command::Health(args)) => return health::run(&args).await,
        Some(Command::Reference(args)) => return reference::run(&args),
        None => {}
    }
    let config = args.options.load()?;
    if args.check {
        return check::run(&config, args.format);
    }
    let stop = CancellationToken::new();
    if args.exit_with_parent {
        stop_at_end_of_input(stop.clone());
    }
    ottla_node::run(config, stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// The parent holds the other end of standard input and never writes to it;
/// however it ends, the kernel closes it.
fn stop_at_end_of_input(stop: CancellationToken) {
    std::thread::spawn(move || {
        let mut byte = [0];
        // Interrupted reads aside, whatever comes is the end or an error: both mean stop.
        while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        stop.cancel();
    });
}
