//! A host of a run: a network namespace with one address, and a thread that lives in it
//! and starts processes there.
//!
//! Namespaces have no name: the kernel removes them, and every mount in them, with the
//! last process or thread inside, however this process ends.

use super::switch::MTU;
use anyhow::Context as _;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Arc, mpsc};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Bits of an address that all hosts have in common.
const PREFIX_BITS: u8 = 24;

type Job = Box<dyn FnOnce() + Send>;

/// Where a thread can go to be on a host.
#[derive(Debug)]
pub(super) struct Namespaces {
    network: File,
    mounts: File,
}

impl Namespaces {
    /// Those of this thread.
    fn here() -> anyhow::Result<Self> {
        let open = |kind| File::open(format!("/proc/thread-self/ns/{kind}"));
        Ok(Self { network: open("net")?, mounts: open("mnt")? })
    }

    /// This thread goes there, and all processes that it starts from now on.
    pub(super) fn enter(&self) -> anyhow::Result<()> {
        // A thread that shares its working directory with others cannot leave alone.
        unshare(CloneFlags::CLONE_FS).context("unshare")?;
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).context("enter the mounts")?;
        setns(&self.network, CloneFlags::CLONE_NEWNET).context("enter the network")
    }
}

/// The thread ends with the last clone, and the processes started on it with the
/// thread.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    jobs: mpsc::Sender<Job>,
    namespaces: Arc<Namespaces>,
}

impl Host {
    /// A host with mounts of its own, which others can share.
    pub(super) fn first(address: Ipv4Addr) -> anyhow::Result<(Self, SyncDevice)> {
        Self::new(address, || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).context("own mounts")?;
            // What is mounted here is nobody else's.
            run("mount", &["--make-rprivate", "/"])
        })
    }

    /// A host that shares this one's mounts.
    pub(super) fn beside(&self, address: Ipv4Addr) -> anyhow::Result<(Self, SyncDevice)> {
        let namespaces = Arc::clone(&self.namespaces);
        Self::new(address, move || namespaces.enter())
    }

    fn new(
        address: Ipv4Addr,
        mounts: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<(Self, SyncDevice)> {
        let (jobs, to_do) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        std::thread::Builder::new().name(format!("host {address}")).spawn(move || {
            let network = mounts().and_then(|()| network(address));
            let is_up = network.is_ok();
            if ready.send(network).is_ok() && is_up {
                to_do.into_iter().for_each(|job| job());
            }
        })?;
        let (namespaces, device) = made.recv().context("the host's thread is gone")??;
        Ok((Self { jobs, namespaces: Arc::new(namespaces) }, device))
    }

    /// Runs a job on the host's thread.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (done, result) = mpsc::channel();
        let job = move || {
            // Whoever asked may have given up.
            let _asked = done.send(job());
        };
        self.jobs.send(Box::new(job)).ok().context("the host's thread is gone")?;
        result.recv().context("the host's thread is gone")
    }

    pub(super) fn namespaces(&self) -> &Arc<Namespaces> {
        &self.namespaces
    }
}

/// Puts this thread on a network of its own, where nobody else is yet.
fn network(address: Ipv4Addr) -> anyhow::Result<(Namespaces, SyncDevice)> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
    // A node talks to itself too, over its own address.
    run("ip", &["link", "set", "lo", "up"])?;
    let device = DeviceBuilder::new()
        .name("net0")
        .mtu(MTU)
        .ipv4(address, PREFIX_BITS, None)
        .build_sync()
        .context("a network device (/dev/net/tun)")?;
    device.set_nonblocking(true)?;
    Ok((Namespaces::here()?, device))
}

/// Runs a command of the system to its end.
pub(super) fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("{program}: is it installed?"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {}: {}", args.join(" "), told.trim());
    Ok(())
}
