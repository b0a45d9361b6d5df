//! A world for one run: hosts with their own addresses and disks, and a network between
//! them that can be cut, slowed and made lossy in every direction. Needs root, and says
//! what is missing.
//!
//! Nothing of it is seen outside, and nothing of it is left when this process is gone:
//! see docs/decisions/0029-a-world-for-each-run.md.

mod disk;
mod host;
mod link;
mod switch;

pub use disk::Disk;
pub(crate) use host::Host;
pub use link::Conditions;

use anyhow::Context as _;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use switch::Switch;

/// Threads of the runtime that clients run on.
const CLIENT_THREADS: usize = 2;

/// Programs of the system that a world calls, with Debian's packages that have them.
const TOOLS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("setpriv", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
    ("xfs_io", "xfsprogs"),
];

/// Where the clients are.
pub const CLIENTS: Ipv4Addr = address(254);

/// A node's address.
#[must_use]
pub const fn address(node: u64) -> Ipv4Addr {
    // The same in every run: their networks do not know each other.
    Ipv4Addr::new(10, 77, 0, node as u8)
}

/// See the module.
pub struct World {
    switch: Switch,
    clients: Host,
}

impl World {
    /// Whether this process may make one.
    #[must_use]
    pub fn is_allowed() -> bool {
        nix::unistd::geteuid().is_root()
    }

    /// With nobody in it but clients. The seed decides which packets get lost.
    ///
    /// # Errors
    /// This process may not make one, or the system lacks something: which.
    pub fn new(seed: u64) -> anyhow::Result<Arc<Self>> {
        // Now, and not in the middle of a run that needs the last of them.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let missing = missing_tools(&path);
        anyhow::ensure!(missing.is_empty(), "not installed: {}", missing.join(", "));
        let (clients, device) = Host::first(CLIENTS).context("no world of its own")?;
        let switch = Switch::new(seed)?;
        switch.plug(CLIENTS, device);
        Ok(Arc::new(Self { switch, clients }))
    }

    /// Runs clients: what the future opens and starts is on their host.
    ///
    /// # Errors
    /// Those of the work; there is no thread for it.
    pub fn run<F, T>(&self, work: impl FnOnce() -> F + Send) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
        T: Send,
    {
        let namespaces = Arc::clone(self.clients.namespaces());
        let runtime = move || -> anyhow::Result<T> {
            namespaces.enter()?;
            let enter = move || {
                // Without, it would be a client nobody can talk to: seen at once.
                if let Err(error) = namespaces.enter() {
                    panic!("a client's thread does not get to its host: {error:#}");
                }
            };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(CLIENT_THREADS)
                .on_thread_start(enter)
                .enable_all()
                .build()?;
            runtime.block_on(work())
        };
        std::thread::scope(|scope| match scope.spawn(runtime).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// A host more, for a node.
    pub(crate) fn add_host(&self, node: u64) -> anyhow::Result<Host> {
        let (host, device) = self.clients.beside(address(node))?;
        self.switch.plug(address(node), device);
        Ok(host)
    }

    /// A disk, for a node whose other files are in `dir`.
    pub(crate) fn add_disk(&self, dir: &Path) -> anyhow::Result<Disk> {
        let dir = dir.to_owned();
        self.clients.run(move || Disk::create(&dir))?
    }

    /// Changes the line from one host to another, in that direction.
    pub fn line(&self, from: Ipv4Addr, to: Ipv4Addr, change: impl FnOnce(&mut Conditions)) {
        self.switch.set(from, to, change);
    }

    /// Every line is good again.
    pub fn heal(&self) {
        self.switch.heal();
    }
}

/// What none of the folders of `path` has.
fn missing_tools(path: &OsStr) -> Vec<String> {
    let is_there = |tool: &str| std::env::split_paths(path).any(|dir| dir.join(tool).is_file());
    let missing = TOOLS.iter().filter(|(tool, _)| !is_there(tool));
    missing.map(|(tool, package)| format!("{tool} (Debian: {package})")).collect()
}

#[cfg(test)]
mod tests {
    use super::{TOOLS, missing_tools};

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let dir = tempfile::tempdir().expect("a folder");
        for (tool, _) in TOOLS.iter().filter(|(tool, _)| *tool != "xfs_io") {
            std::fs::write(dir.path().join(tool), "").expect("a file");
        }
        assert_eq!(missing_tools(dir.path().as_os_str()), ["xfs_io (Debian: xfsprogs)"]);
        assert_eq!(missing_tools("".as_ref()).len(), TOOLS.len());
    }
}
