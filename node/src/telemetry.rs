//! Log lines on standard error, as text or JSON.

use crate::config::{LogFormat, NodeConfig};
use std::io::IsTerminal;
use std::sync::Arc;
use tracing_subscriber::{EnvFilter, reload};

/// Chooses which log lines the process writes, while it runs.
#[derive(Clone, Default)]
pub(crate) struct LogLevels {
    /// `None`: somebody else chooses.
    reload: Option<Arc<Reload>>,
}

type Reload = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

impl LogLevels {
    /// From now on these lines are written.
    pub(crate) fn set(&self, levels: &str) {
        let Some(reload) = &self.reload else { return };
        // What got here was checked; whatever is wrong with it must not end the node.
        let done = filter(levels).and_then(|filter| Ok(reload(filter)?));
        if let Err(error) = done {
            tracing::warn!(%error, "the log level stays as it was");
        }
    }
}

/// Installs the process's logger. A second call changes nothing: tests run
/// several nodes in one process.
pub(crate) fn init(config: &NodeConfig) -> anyhow::Result<LogLevels> {
    let filter = filter(&config.log_level)?;
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr);
    // An error means that a logger is installed already.
    let reload: Option<Arc<Reload>> = match config.log_format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().ok().map(|()| Arc::new(move |new| handle.reload(new)) as _)
        }
        LogFormat::Text => {
            let builder = builder.with_ansi(std::io::stderr().is_terminal());
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().ok().map(|()| Arc::new(move |new| handle.reload(new)) as _)
        }
    };
    Ok(LogLevels { reload })
}

/// What the configuration asks for, without what nobody asked for.
pub(crate) fn filter(levels: &str) -> anyhow::Result<EnvFilter> {
    // sled and the HTTP layers narrate at `info`; openraft warns at every heartbeat
    // to a dead peer. What matters of the quorum our own lines say.
    let directives = format!("{levels},sled=warn,h2=warn,hyper=warn,openraft=error");
    EnvFilter::try_new(&directives)
        .map_err(|error| anyhow::anyhow!("configuration option `log_level`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_metadata::records::NodeOptions;

    /// The metadata cannot hold a level that no node could follow.
    #[test]
    fn whatever_the_metadata_takes_is_a_filter() {
        for levels in ["off", "error,a::b=trace", "info,ottla_node=debug,x1=off", ":=warn"] {
            let mut options = NodeOptions::default();
            options.set("log_level", levels).expect(levels);
            filter(levels).expect(levels);
        }
    }
}
