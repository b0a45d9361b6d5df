//! What every measurement that starts nodes of its own begins and ends with: a
//! directory, the nodes, the figures.

use super::cluster::{LocalCluster, Place};
use crate::output::{self, Format};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The flags of all of them.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Setting {
    /// Where the nodes keep their files; must be empty. Default: a temporary
    /// directory. Either is removed afterwards, unless the command fails.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,

    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// What was measured, to be shown.
pub(super) trait Figures {
    /// For people.
    fn text(&self) -> String;
    /// For programs.
    fn json(&self) -> Value;
}

impl Setting {
    /// Starts so many nodes, has them measured, stops them. What they leave behind goes
    /// unless something failed.
    pub(super) async fn on_nodes<R>(
        &self,
        nodes: u16,
        measure: impl AsyncFnOnce(&mut LocalCluster, &Path) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let place = Place::open(self.dir.as_deref())?;
        let measured = match LocalCluster::start(place.dir(), nodes).await {
            Ok(mut cluster) => {
                let measured = measure(&mut cluster, place.dir()).await;
                cluster.stop().await;
                measured
            }
            Err(error) => Err(error),
        };
        place.leave(measured)
    }

    pub(super) fn show(&self, figures: &impl Figures) -> anyhow::Result<ExitCode> {
        match self.format {
            Format::Text => output::line(&figures.text())?,
            Format::Json => output::json(&figures.json())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
