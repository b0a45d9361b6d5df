//! The data directory as the node sees it: formatted once for one cluster and
//! one node, and refused when it belongs to another.

use crate::config::{ConfigError, NodeConfig};
use ottla_commitlog::data_dir::{DataDir, DataDirError, DirectoryIdentity};
use ottla_proto::{DirectoryId, NodeId};
use std::path::PathBuf;
use thiserror::Error;

/// Why a data directory cannot be formatted or used.
#[derive(Debug, Error)]
pub enum FormatError {
    /// It is another node's, or of another cluster.
    #[error(
        "data directory {path} belongs to node {found_node} of cluster `{found_cluster}`, \
         but the configuration says node {node} of cluster `{cluster}`"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What it says.
        found_node: NodeId,
        /// What it says.
        found_cluster: String,
        /// What the configuration says.
        node: NodeId,
        /// What the configuration says.
        cluster: String,
    },
    /// Not readable, not writable, in use, or not a data directory.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// The configuration itself is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Formats the configured data directory for the configured cluster and node.
/// Returns false, and changes nothing, if it already is.
///
/// # Errors
/// [`FormatError::Foreign`] for a directory of another cluster or node.
pub fn format(config: &NodeConfig) -> Result<bool, FormatError> {
    match DataDir::open(&config.data_dir) {
        Ok(dir) => check(config, &dir).map(|()| false),
        Err(DataDirError::NotFormatted { .. }) => {
            DataDir::format(
                &config.data_dir,
                &DirectoryIdentity {
                    cluster_id: config.cluster_id.clone(),
                    node_id: NodeId(config.node_id),
                    directory_id: DirectoryId::random(),
                },
            )?;
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens and locks the configured directory. With `dev` a blank one is
/// formatted first.
pub(crate) fn open(config: &NodeConfig) -> Result<DataDir, FormatError> {
    if config.dev {
        format(config)?;
    }
    let dir = DataDir::open(&config.data_dir)?;
    check(config, &dir)?;
    Ok(dir)
}

fn check(config: &NodeConfig, dir: &DataDir) -> Result<(), FormatError> {
    let found = dir.identity();
    let node = NodeId(config.node_id);
    if found.node_id == node && found.cluster_id == config.cluster_id {
        return Ok(());
    }
    Err(FormatError::Foreign {
        path: config.data_dir.clone(),
        found_node: found.node_id,
        found_cluster: found.cluster_id.clone(),
        node,
        cluster: config.cluster_id.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &std::path::Path, cluster: &str, node: &str) -> NodeConfig {
        let pairs = [
            ("node_id", node),
            ("cluster_id", cluster),
            ("data_dir", dir.to_str().expect("UTF-8")),
            ("voters", "1=127.0.0.1:7401,2=127.0.0.1:7402"),
        ];
        let flags: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        NodeConfig::load(None, &flags).expect("a good configuration")
    }

    #[test]
    fn a_directory_is_formatted_once_and_belongs_to_one_node() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mine = config(dir.path(), "east", "1");
        assert!(matches!(
            open(&mine).expect_err("blank"),
            FormatError::Directory(DataDirError::NotFormatted { .. })
        ));
        assert!(format(&mine).expect("formats"));
        assert!(!format(&mine).expect("is formatted"));
        let id = open(&mine).expect("opens").identity().directory_id;
        for other in [config(dir.path(), "west", "1"), config(dir.path(), "east", "2")] {
            assert!(matches!(open(&other), Err(FormatError::Foreign { .. })));
            assert!(matches!(format(&other), Err(FormatError::Foreign { .. })));
        }
        assert_eq!(open(&mine).expect("unchanged").identity().directory_id, id);
    }

    #[test]
    fn dev_formats_by_itself() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mine = NodeConfig { dev: true, ..config(&dir.path().join("new"), "dev", "1") };
        open(&mine).expect("formatted and opened");
    }
}
