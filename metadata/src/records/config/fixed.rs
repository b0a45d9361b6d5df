//! The options of a node that are read at its start, from its own configuration.

use super::MAX_LONG;
use super::node::{MAX_NODE_MEMORY_BYTES, MS, NodeDefault, NodeOption, NodeValue};
use ottla_proto::MAX_GRPC_MESSAGE_BYTES;

const fn fixed(
    name: &'static str,
    value: NodeValue,
    default: NodeDefault,
    doc: &'static str,
) -> NodeOption {
    NodeOption { name, doc, value, default, dynamic: false }
}

/// By name.
pub(super) const FIXED: &[NodeOption] = &[
    fixed(
        "advertise",
        NodeValue::Text,
        NodeDefault::None,
        "Address, HOST:PORT, that clients and other nodes are told. Where there is none, \
         `listen`, which then must not be a wildcard.",
    ),
    fixed(
        "cluster_id",
        NodeValue::Text,
        NodeDefault::None,
        "Name of the cluster: 1 to 64 of [A-Za-z0-9_-], the same on every node.",
    ),
    fixed(
        "data_dir",
        NodeValue::Text,
        NodeDefault::None,
        "Where the node keeps everything: the metadata, and partitions. Formatted once, by \
         `ottla node format`.",
    ),
    fixed(
        "dev",
        NodeValue::Flag,
        NodeDefault::Flag(false),
        "Formats a blank data directory by itself, and lets a voter that lost its disk come \
         back blank. Never for data that matters.",
    ),
    fixed(
        "election_timeout_max_ms",
        MS,
        NodeDefault::Number(300),
        "Longest time without a Raft leader before a voter stands for election: each election \
         draws one between this and the shortest.",
    ),
    fixed(
        "election_timeout_min_ms",
        MS,
        NodeDefault::Number(150),
        "Shortest time without a Raft leader before a voter stands for election.",
    ),
    fixed(
        "extra_data_dirs",
        NodeValue::List,
        NodeDefault::None,
        "Further directories for partitions, each on a disk of its own. One that is missing \
         or fails takes only what lies there offline.",
    ),
    fixed(
        "heartbeat_interval_ms",
        MS,
        NodeDefault::Number(200),
        "How often the node tells the controller that it lives.",
    ),
    fixed(
        "http_listen",
        NodeValue::Text,
        NodeDefault::Text("127.0.0.1:7501"),
        "Address, IP:PORT, that probes and metrics are asked for at: /livez, /readyz, \
         /startupz, /metrics, /public_metrics.",
    ),
    fixed(
        "listen",
        NodeValue::Text,
        NodeDefault::Text("127.0.0.1:7401"),
        "Address, IP:PORT, that the gRPC port binds to.",
    ),
    fixed(
        "log_format",
        NodeValue::Word(&["text", "json"]),
        NodeDefault::Text("text"),
        "How log lines are written, on standard error.",
    ),
    fixed(
        "max_connection_bytes",
        NodeValue::Number(MAX_GRPC_MESSAGE_BYTES as u64, MAX_NODE_MEMORY_BYTES),
        NodeDefault::Number(32 * 1024 * 1024),
        "Bytes of requests that the node holds for one connection, and as many of answers. \
         What is more waits until the caller has sent the rest, or read.",
    ),
    fixed(
        "max_connections",
        NodeValue::Number(16, 1_000_000),
        NodeDefault::Number(4096),
        "Connections to the gRPC port, those of other nodes included. For one more the one \
         that has been silent longest is closed. Each takes an open file.",
    ),
    fixed(
        "max_requests_per_connection",
        NodeValue::Number(16, 1_000_000),
        NodeDefault::Number(8192),
        "Requests and streams that one connection has open; a consumer has one for each \
         partition. Further ones are refused (OVERLOADED).",
    ),
    fixed(
        "node_id",
        NodeValue::Number(1, MAX_LONG),
        NodeDefault::None,
        "The node's number, unique in the cluster.",
    ),
    fixed(
        "otlp_endpoint",
        NodeValue::Text,
        NodeDefault::None,
        "Where spans of writes are sent whose senders trace them: an OTLP collector (gRPC), \
         such as http://localhost:4317. Where there is none, no spans are made.",
    ),
    fixed(
        "rack",
        NodeValue::Text,
        NodeDefault::None,
        "Failure domain of the node; replicas are spread over racks.",
    ),
    fixed(
        "raft_heartbeat_ms",
        MS,
        NodeDefault::Number(50),
        "Interval of the Raft leader's heartbeats.",
    ),
    fixed(
        "session_timeout_ms",
        MS,
        NodeDefault::Number(1_000),
        "Silence after which the controller fences a node.",
    ),
    fixed(
        "voters",
        NodeValue::Voters,
        NodeDefault::None,
        "The voters that a new cluster begins with, the same on each of them. A node that is \
         not among them joins the cluster that they are.",
    ),
];
