//! Log lines on standard error, as text or JSON.

use crate::config::{LogFormat, NodeConfig};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Installs the process's logger. A second call changes nothing: tests run
/// several nodes in one process.
pub(crate) fn init(config: &NodeConfig) -> anyhow::Result<()> {
    // sled and the HTTP layers narrate at `info`; openraft warns at every heartbeat
    // to a dead peer. What matters of the quorum our own lines say.
    let directives = format!("{},sled=warn,h2=warn,hyper=warn,openraft=error", config.log_level);
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| anyhow::anyhow!("configuration option `log_level`: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a logger is installed already.
    let _installed = match config.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    Ok(())
}
