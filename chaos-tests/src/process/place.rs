//! Where a node is: on this machine's loopback, like all others, or on a host of its own
//! in a world of its own.

use super::ports;
use super::world::{Disk, Host, World, address};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

/// Ports on a host of its own.
const GRPC_PORT: u16 = 7401;
const HTTP_PORT: u16 = 7501;

/// Where nodes are put.
#[derive(Clone)]
pub(super) enum Ground {
    Loopback,
    World(Arc<World>),
}

pub(super) struct Place {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) disk: Option<Disk>,
    host: Option<Host>,
}

impl Ground {
    /// Where nodes with these ids will listen, first for gRPC, then for HTTP.
    pub(super) fn addresses(&self, ids: &[u64]) -> anyhow::Result<Vec<(SocketAddr, SocketAddr)>> {
        let Self::Loopback = self else {
            let of = |id| (address(id), GRPC_PORT).into();
            let http = |id| (address(id), HTTP_PORT).into();
            return Ok(ids.iter().map(|&id| (of(id), http(id))).collect());
        };
        let on = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ports = ports::free(2 * ids.len())?;
        Ok(ports.chunks(2).map(|pair| (on(pair[0]), on(pair[1]))).collect())
    }

    /// A node's place, its disk in a file below `dir`.
    pub(super) fn place(
        &self,
        id: u64,
        (grpc, http): (SocketAddr, SocketAddr),
        dir: &Path,
    ) -> anyhow::Result<Place> {
        let (host, disk) = match self {
            Self::Loopback => (None, None),
            Self::World(world) => (Some(world.add_host(id)?), Some(world.add_disk(dir)?)),
        };
        Ok(Place { grpc, http, disk, host })
    }
}

impl Place {
    /// A command for [`spawn`](Self::spawn).
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self.host {
            None => Command::new(program),
            Some(_) => {
                // Killed when the host's thread ends, and so also when this process is
                // killed: nobody else knows how to find it.
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL"]).arg(program);
                command
            }
        }
    }

    /// Starts a process there.
    pub(super) fn spawn(&self, mut command: Command) -> anyhow::Result<Child> {
        match &self.host {
            None => Ok(command.spawn()?),
            Some(host) => Ok(host.run(move || command.spawn())??),
        }
    }
}
