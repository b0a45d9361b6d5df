//! Whether the ports of a development cluster are free, and others if not.

use super::layout::{NodePlan, Plan};
use anyhow::{Context, bail};
use std::net::{Ipv4Addr, TcpListener};

/// Makes sure that every port can be bound. With `any_port`, a cluster that
/// cannot have its ports gets free ones instead.
pub(super) fn settle(plan: Plan, any_port: bool) -> anyhow::Result<Plan> {
    let taken = plan
        .nodes
        .iter()
        .flat_map(|node| [("gRPC", node.grpc_port, node), ("HTTP", node.http_port, node)])
        .find(|(_, port, _)| bind(*port).is_err());
    match taken {
        None => Ok(plan),
        Some(_) if any_port => free(plan),
        Some((what, port, node)) => bail!(
            "port {port} ({what} of node {}) is in use; stop what uses it, \
             or let --any-port choose free ports",
            node.node_id
        ),
    }
}

/// The same cluster on ports that are free. All are held until all are found,
/// so that none is found twice.
fn free(plan: Plan) -> anyhow::Result<Plan> {
    let mut held = Vec::new();
    let mut port = || -> anyhow::Result<u16> {
        let listener = bind(0).context("cannot find a free port")?;
        let port = listener.local_addr()?.port();
        held.push(listener);
        Ok(port)
    };
    let mut nodes = Vec::new();
    for NodePlan { node_id, .. } in plan.nodes {
        nodes.push(NodePlan { node_id, grpc_port: port()?, http_port: port()? });
    }
    Ok(Plan { nodes, ..plan })
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(grpc_port: u16, http_port: u16) -> Plan {
        let node = NodePlan { node_id: 1, grpc_port, http_port };
        Plan { cluster_id: "c".to_owned(), nodes: vec![node] }
    }

    #[test]
    fn a_port_in_use_is_named_or_avoided() {
        let taken = bind(0).expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let free = free(plan(0, 0)).expect("two ports").nodes[0].clone();
        assert_ne!(free.grpc_port, free.http_port);

        let error = settle(plan(free.grpc_port, port), false).expect_err("in use").to_string();
        assert!(error.contains(&format!("port {port} (HTTP of node 1)")), "{error}");
        assert!(error.contains("--any-port"), "{error}");

        let other = settle(plan(free.grpc_port, port), true).expect("others").nodes[0].clone();
        assert_ne!(other.http_port, port);

        let kept = settle(plan(free.grpc_port, free.http_port), true).expect("free");
        assert_eq!(kept.nodes[0], free, "ports that are free are kept");
    }
}
