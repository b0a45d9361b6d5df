//! The ports of a development cluster: the standard ones, or any that are free.

use super::layout::{NodePlan, Plan};
use anyhow::{Context, bail};
use std::net::{Ipv4Addr, TcpListener};

/// First gRPC port; the next nodes have the next ones.
const FIRST_GRPC_PORT: u16 = 7401;

/// First HTTP port.
const FIRST_HTTP_PORT: u16 = 7501;

/// The cluster on the standard ports, whatever it was on before.
pub(crate) fn standard(mut plan: Plan) -> anyhow::Result<Plan> {
    for (index, node) in (0..).zip(&mut plan.nodes) {
        node.grpc_port = FIRST_GRPC_PORT + index;
        node.http_port = FIRST_HTTP_PORT + index;
    }
    check(&plan)?;
    Ok(plan)
}

/// The cluster on the ports it was on before, or, if it had none or they are
/// taken by now, on free ones.
pub(crate) fn any(mut plan: Plan) -> anyhow::Result<Plan> {
    let has_ports = plan.nodes.iter().all(|node| node.grpc_port > 0 && node.http_port > 0);
    if has_ports && check(&plan).is_ok() {
        return Ok(plan);
    }
    // All are held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for node in &mut plan.nodes {
        for port in [&mut node.grpc_port, &mut node.http_port] {
            let listener = bind(0).context("cannot find a free port")?;
            *port = listener.local_addr()?.port();
            held.push(listener);
        }
    }
    Ok(plan)
}

fn check(plan: &Plan) -> anyhow::Result<()> {
    for NodePlan { node_id, grpc_port, http_port } in &plan.nodes {
        for (what, port) in [("gRPC", *grpc_port), ("HTTP", *http_port)] {
            if let Err(error) = bind(port) {
                bail!(
                    "port {port} ({what} of node {node_id}): {error}; stop what uses it, or let \
                     --any-port choose free ports"
                );
            }
        }
    }
    Ok(())
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_or_avoided() {
        let before = any(Plan::new("c".to_owned(), 2)).expect("four ports");
        let [first, second] = before.nodes.as_slice() else { panic!("two nodes") };
        let ports = [first.grpc_port, first.http_port, second.grpc_port, second.http_port];
        assert!((1..4).all(|n| !ports[..n].contains(&ports[n])), "{ports:?}");

        let _taken = bind(second.http_port).expect("free");
        let error = check(&before).expect_err("in use").to_string();
        assert!(error.contains(&format!("port {} (HTTP of node 2)", second.http_port)), "{error}");
        assert!(error.contains("--any-port"), "{error}");
        let after = any(before.clone()).expect("others");
        assert_ne!(after.nodes[1].http_port, second.http_port);
    }

    #[test]
    fn ports_that_are_free_are_kept() {
        let before = any(Plan::new("c".to_owned(), 1)).expect("two ports");
        assert_eq!(any(before.clone()).expect("free"), before);
    }
}
