//! Options of the cluster and of single nodes: what they are, and changing them.

use crate::admin::{Admin, request_id};
use crate::channel::Connection;
use crate::client::{Asked, with_timeout};
use crate::{ClientError, HostPort};
use ottla_proto::v1;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tonic::Response;

/// How long a node may take to say what its options are. What only it knows is left
/// out then.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Options of the cluster or of a node are to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigChange {
    /// Whose: `None` is the cluster, for the defaults of all nodes and topics.
    pub node: Option<u64>,
    /// Options to set, such as `replica_lag_max_ms`.
    pub set: HashMap<String, String>,
    /// Options that are not to be set any more.
    pub unset: Vec<String>,
    /// Check everything, change nothing.
    pub validate_only: bool,
}

impl Admin {
    /// The options of the cluster or of a node, with the values in force and where
    /// they come from. The node itself is asked; while it does not answer another
    /// one is, which leaves out the values that only the node knows.
    ///
    /// # Errors
    /// Such as UNKNOWN_NODE, or when no node answers.
    pub async fn describe_config(
        &self,
        node: Option<u64>,
    ) -> Result<Vec<v1::ConfigOption>, ClientError> {
        let request = v1::DescribeConfigRequest { node_id: node };
        if let Some(node) = node
            && let Some(options) = self.options_of(node, request).await?
        {
            return Ok(options);
        }
        let call = |connection: Connection, request| async move {
            connection.cluster().describe_config(request).await
        };
        Ok(self.ask("asking for the options", Asked::ToTell, request, call).await?.options)
    }

    /// What a node says of itself; `None` if it does not.
    async fn options_of(
        &self,
        node: u64,
        request: v1::DescribeConfigRequest,
    ) -> Result<Option<Vec<v1::ConfigOption>>, ClientError> {
        let info = self.cluster_info().await?;
        let known = info.nodes.iter().find(|known| known.node_id == node);
        let endpoint = known.and_then(|known| known.endpoint.as_ref());
        let Some(endpoint) = endpoint.and_then(HostPort::from_wire) else { return Ok(None) };
        let request = with_timeout(request, NODE_TIMEOUT);
        let call = |connection: Connection| async move {
            connection.cluster().describe_config(request).await.map(Response::into_inner)
        };
        let answer = self.client().attempt(&endpoint, NODE_TIMEOUT, call).await;
        Ok(answer.ok().map(|answer| answer.options))
    }

    /// Sets some options of the cluster or of a node, and takes others back. Running
    /// nodes follow at once. Returns what is set there then.
    ///
    /// # Errors
    /// Such as UNKNOWN_NODE or INVALID_CONFIG; nothing is changed then.
    pub async fn alter_config(
        &self,
        change: ConfigChange,
    ) -> Result<BTreeMap<String, String>, ClientError> {
        let request = v1::AlterConfigRequest {
            node_id: change.node,
            set: change.set,
            unset: change.unset,
            validate_only: change.validate_only,
            request_id: request_id(),
        };
        let call = |connection: Connection, request| async move {
            connection.cluster().alter_config(request).await
        };
        let answer = self.ask("changing options", Asked::ToChange, request, call).await?;
        Ok(answer.options.into_iter().collect())
    }
}
