//! The data directories as the node sees them: formatted once for one cluster and
//! one node, and refused when they belong to another.

use crate::config::NodeConfig;
use ottla_commitlog::data_dir::{DataDirError, DataDirs, Owner};
use ottla_proto::NodeId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::PathBuf;

/// Open files that a node should be allowed: each partition keeps one for every
/// segment, beside a few hundred connections and files of its own.
const WANTED_FILES: u64 = 65_536;

/// Formats those of the configured data directories that are blank, for the
/// configured cluster and node. Returns them; the others are not changed.
///
/// # Errors
/// [`DataDirError::Foreign`] for a directory of another cluster or node.
pub fn format(config: &NodeConfig) -> Result<Vec<PathBuf>, DataDirError> {
    DataDirs::format(&config.data_dirs(), &owner(config))
}

/// Those of the configured data directories that are blank.
pub(crate) fn blank(config: &NodeConfig) -> Result<Vec<PathBuf>, DataDirError> {
    DataDirs::blank(&config.data_dirs(), &owner(config))
}

/// Opens and locks the configured directories. With `dev` blank ones are
/// formatted first.
pub(crate) fn open(config: &NodeConfig) -> Result<DataDirs, DataDirError> {
    if config.dev {
        format(config)?;
    }
    DataDirs::open(&config.data_dirs(), &owner(config))
}

/// Takes what the system allows this process of open files: most systems begin with
/// 1024, which a thousand partitions use up. Says so if that is little.
pub(crate) fn allow_many_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
    if let Some(files) = getrlimit(Resource::Nofile).current
        && files < WANTED_FILES
    {
        tracing::warn!(
            files,
            wanted = WANTED_FILES,
            "few open files are allowed: about one is needed for each partition; raise the hard \
             limit (LimitNOFILE of systemd, --ulimit nofile of a container)"
        );
    }
}

fn owner(config: &NodeConfig) -> Owner {
    Owner { cluster_id: config.cluster_id.clone(), node_id: NodeId(config.node_id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests run in one process, and none of them wants a lower limit.
    #[test]
    fn what_is_allowed_of_open_files_is_taken() {
        allow_many_files();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }

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
        assert!(matches!(open(&mine).expect_err("blank"), DataDirError::NotFormatted { .. }));
        assert_eq!(format(&mine).expect("formats"), [dir.path()]);
        assert!(format(&mine).expect("is formatted").is_empty());
        let id = open(&mine).expect("opens").first().identity().directory_id;
        for other in [config(dir.path(), "west", "1"), config(dir.path(), "east", "2")] {
            assert!(matches!(open(&other), Err(DataDirError::Foreign { .. })));
            assert!(matches!(format(&other), Err(DataDirError::Foreign { .. })));
        }
        assert_eq!(open(&mine).expect("unchanged").first().identity().directory_id, id);
    }

    #[test]
    fn dev_formats_by_itself() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let extra_data_dirs = vec![dir.path().join("extra")];
        let first = config(&dir.path().join("new"), "dev", "1");
        let mine = NodeConfig { dev: true, extra_data_dirs, ..first };
        assert_eq!(open(&mine).expect("formatted and opened").count(), 2);
    }
}
