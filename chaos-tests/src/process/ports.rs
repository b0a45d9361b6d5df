//! Free TCP ports for listeners.

use anyhow::bail;
use rand::RngExt;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below Linux's ephemeral range: while a killed node is down, no outgoing
/// connection can take its port.
const RANGE: Range<u16> = 12_000..32_000;

/// Ports that are tried before the search is given up.
const TRIES: usize = 1_000;

/// Finds `count` ports that nobody listens on.
pub(super) fn free(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut held = Vec::new();
    for _ in 0..TRIES {
        if held.len() == count {
            break;
        }
        let port = rand::rng().random_range(RANGE);
        // Held until all are found, so that none is given twice.
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
    }
    if held.len() < count {
        bail!("found only {} of {count} free ports in {RANGE:?}", held.len());
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}
