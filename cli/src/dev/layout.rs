//! What a development cluster looks like on disk, so that a second start finds
//! it as the first one left it.
//!
//! ```text
//! DIR/cluster.json       cluster id and ports
//! DIR/dev.lock           held while `ottla dev` runs
//! DIR/node-1/ottla.toml  configuration, written at every start
//! DIR/node-1/ottla.log   what the node has logged, all runs
//! DIR/node-1/data/       the node's data directory
//! ```

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// A stopping node of a development cluster does not wait for others for
/// longer, in milliseconds: usually all of them stop, and then there is nobody
/// to hand anything over to.
const SHUTDOWN_TIMEOUT_MS: u64 = 2_000;

/// One node of a development cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodePlan {
    pub(crate) node_id: u64,
    pub(crate) grpc_port: u16,
    pub(crate) http_port: u16,
}

impl NodePlan {
    pub(crate) fn grpc(&self) -> String {
        format!("127.0.0.1:{}", self.grpc_port)
    }

    pub(crate) fn http(&self) -> String {
        format!("127.0.0.1:{}", self.http_port)
    }
}

/// A development cluster, as kept in `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) cluster_id: String,
    pub(crate) nodes: Vec<NodePlan>,
}

impl Plan {
    /// A new cluster that has no ports yet.
    pub(crate) fn new(cluster_id: String, nodes: u16) -> Self {
        let node = |id: u16| NodePlan { node_id: id.into(), grpc_port: 0, http_port: 0 };
        Self { cluster_id, nodes: (1..=nodes).map(node).collect() }
    }

    /// Every gRPC address, as `--bootstrap` takes it.
    pub(crate) fn bootstrap(&self) -> String {
        self.nodes.iter().map(NodePlan::grpc).collect::<Vec<_>>().join(",")
    }
}

/// The directory of a development cluster, locked.
pub(crate) struct Layout {
    dir: PathBuf,
    _lock: File,
}

impl Layout {
    /// Creates the directory if need be, and locks it.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir =
            fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))?;
        let lock = File::create(dir.join("dev.lock"))
            .with_context(|| format!("cannot write to {}", dir.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("another `ottla dev` runs in {}; give one a --dir of its own", dir.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", dir.display()))
            }
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn node_dir(&self, node: &NodePlan) -> PathBuf {
        self.dir.join(format!("node-{}", node.node_id))
    }

    pub(crate) fn config_path(&self, node: &NodePlan) -> PathBuf {
        self.node_dir(node).join("ottla.toml")
    }

    pub(crate) fn log_path(&self, node: &NodePlan) -> PathBuf {
        self.node_dir(node).join("ottla.log")
    }

    /// The cluster that lives here, if one does.
    pub(crate) fn load(&self) -> anyhow::Result<Option<Plan>> {
        let path = self.dir.join("cluster.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let plan = serde_json::from_str(&text)
            .with_context(|| format!("{} was not written by `ottla dev`", path.display()))?;
        Ok(Some(plan))
    }

    /// Writes everything down. The cluster's own file comes last and at once:
    /// a cluster is either there or not.
    pub(crate) fn save(&self, plan: &Plan) -> anyhow::Result<()> {
        for node in &plan.nodes {
            let dir = self.node_dir(node);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let path = self.config_path(node);
            fs::write(&path, self.config(plan, node)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let (path, new) = (self.dir.join("cluster.json"), self.dir.join("cluster.json.new"));
        fs::write(&new, serde_json::to_string_pretty(plan)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn config(&self, plan: &Plan, node: &NodePlan) -> anyhow::Result<String> {
        #[derive(Serialize)]
        struct Config {
            node_id: u64,
            cluster_id: String,
            data_dir: PathBuf,
            listen: String,
            http_listen: String,
            dev: bool,
            shutdown_timeout_ms: u64,
            voters: BTreeMap<String, String>,
        }
        let voters = plan.nodes.iter().map(|node| (node.node_id.to_string(), node.grpc()));
        let config = Config {
            node_id: node.node_id,
            cluster_id: plan.cluster_id.clone(),
            data_dir: self.node_dir(node).join("data"),
            listen: node.grpc(),
            http_listen: node.http(),
            dev: true,
            shutdown_timeout_ms: SHUTDOWN_TIMEOUT_MS,
            voters: voters.collect(),
        };
        let header = "# Written by `ottla dev` at every start; changes are lost.\n";
        Ok(header.to_owned() + &toml::to_string(&config)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Plan {
        let mut plan = Plan::new("c".to_owned(), 3);
        for (port, node) in (1..).zip(&mut plan.nodes) {
            (node.grpc_port, node.http_port) = (1000 + port, 2000 + port);
        }
        plan
    }

    #[test]
    fn a_cluster_is_found_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout::open(&dir.path().join("new")).expect("created");
        assert_eq!(layout.load().expect("readable"), None);
        let plan = three();
        layout.save(&plan).expect("written");
        assert_eq!(layout.load().expect("readable"), Some(plan.clone()));
        assert_eq!(plan.bootstrap(), "127.0.0.1:1001,127.0.0.1:1002,127.0.0.1:1003");
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = Layout::open(dir.path()).expect("free");
        let error = Layout::open(dir.path()).err().expect("taken").to_string();
        assert!(error.contains("--dir"), "{error}");
        drop(first);
        Layout::open(dir.path()).expect("free again");
    }

    /// What is written is what a node reads.
    #[test]
    fn nodes_understand_their_configuration() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout::open(dir.path()).expect("free");
        let plan = three();
        layout.save(&plan).expect("written");
        let path = layout.config_path(&plan.nodes[1]);
        let config = ottla_node::config::NodeConfig::load(Some(&path), &[]).expect("good");
        assert_eq!((config.node_id, config.dev, config.voters.len()), (2, true, 3));
        assert_eq!(config.http_listen.to_string(), "127.0.0.1:2002");
    }

    #[test]
    fn a_foreign_file_is_not_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("cluster.json"), "{\"mine\": 1}").expect("written");
        let error = Layout::open(dir.path()).expect("free").load().expect_err("foreign");
        assert!(error.to_string().contains("cluster.json"), "{error}");
    }
}
