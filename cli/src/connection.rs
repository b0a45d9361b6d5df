//! The flags of every command that talks to a cluster.

use crate::failure::diagnose;
use crate::output::Format;
use clap::Args;
use ottla_client::{Client, ClientError, ClientOptions, HostPort};
use std::io::IsTerminal;
use std::time::Duration;

/// Longest search for one node that answers at all. A cluster that is up
/// answers within milliseconds, and somebody who forgot to start one should
/// not wait for the whole `--timeout`.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(5);

/// The nodes of `ottla dev`: the first, and those that take over when somebody
/// has killed it (docs/decisions/0005).
const DEFAULT_BOOTSTRAP: &str = "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403";

#[derive(Args, Clone, Debug)]
pub(crate) struct Connection {
    /// Nodes to connect to first, tried in turn; any of the cluster will do.
    #[arg(
        long,
        value_name = "HOST:PORT[,…]",
        env = "OTTLA_BOOTSTRAP",
        default_value = DEFAULT_BOOTSTRAP
    )]
    pub(crate) bootstrap: String,

    /// Take the addresses, and what else it says, from this profile; see `ottla profile`.
    #[arg(long, value_name = "NAME", env = "OTTLA_PROFILE")]
    pub(crate) profile: Option<String>,

    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,

    /// How long to keep trying before giving up, such as 500ms, 30s, 2m.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// Say on standard error what is tried and retried.
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

impl Connection {
    pub(crate) async fn client(&self) -> Result<Client, ClientError> {
        if self.verbose {
            trace();
            let profile = self.profile.iter().map(|name| format!(" (profile {name})"));
            let profile: String = profile.collect();
            diagnose(&format!("ottla: connecting to {}{profile}", self.bootstrap));
        }
        let bootstrap = HostPort::parse_list(&self.bootstrap)?;
        let options = ClientOptions {
            bootstrap_timeout: self.timeout.min(BOOTSTRAP_TIMEOUT),
            request_timeout: self.timeout,
            ..ClientOptions::default()
        };
        Client::connect(&bootstrap, options).await
    }
}

fn trace() {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("ottla=debug,ottla_client=debug")
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // Fails only where one is set already, which then does the job.
    let _ = subscriber.try_init();
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("must be more than nothing".to_owned()) } else { Ok(duration) }
}
