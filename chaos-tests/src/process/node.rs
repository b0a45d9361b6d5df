//! One `ottla node` process.

use super::{binary, channel};
use anyhow::{Context as _, bail};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use tonic::transport::Channel;

/// A node: its files, its ports, and its process while it runs.
pub struct Node {
    id: u64,
    dir: PathBuf,
    port: u16,
    http_port: u16,
    child: Option<Child>,
    paused: bool,
}

impl Node {
    /// Writes the node's configuration below `root`. Starts nothing.
    pub(crate) fn create(
        root: &Path,
        id: u64,
        voters: &[(u64, u16)],
        (port, http_port): (u16, u16),
        options: &str,
    ) -> anyhow::Result<Self> {
        let dir = root.join(format!("node-{id}"));
        std::fs::create_dir_all(&dir)?;
        let data = dir.join("data");
        let mut config = format!(
            "node_id = {id}\ncluster_id = \"process-test\"\ndata_dir = {data:?}\n\
             rack = \"rack-{id}\"\nlisten = \"127.0.0.1:{port}\"\nhttp_listen = \"127.0.0.1:{http_port}\"\n{options}\n[voters]\n"
        );
        for (voter, port) in voters {
            writeln!(config, "{voter} = \"127.0.0.1:{port}\"")?;
        }
        std::fs::write(dir.join("ottla.toml"), config)?;
        Ok(Self { id, dir, port, http_port, child: None, paused: false })
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Host and port of its gRPC service.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Host and port of its HTTP service.
    #[must_use]
    pub fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.http_port)
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("ottla.toml")
    }

    /// Everything it has logged since it was created.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.dir.join("log"))?)
    }

    /// Formats its data directory.
    pub fn format(&self) -> anyhow::Result<()> {
        let output = Command::new(binary()?)
            .args(["node", "format", "--config"])
            .arg(self.config_file())
            .output()?;
        if !output.status.success() {
            bail!("format: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Starts the process. Does not wait for it to serve.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            bail!("node {} runs already", self.id);
        }
        let log: File = OpenOptions::new().create(true).append(true).open(self.dir.join("log"))?;
        let child = Command::new(binary()?)
            .args(["node", "--config"])
            .arg(self.config_file())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the node")?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether it was started and neither stopped nor paused since.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.signal("STOP")?;
        self.paused = true;
        Ok(())
    }

    /// SIGCONT: it goes on where it stood.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.signal("CONT")?;
        self.paused = false;
        Ok(())
    }

    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the node does not run")?;
        let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status()?;
        if !sent.success() {
            bail!("cannot send SIG{name} to node {}", self.id);
        }
        Ok(())
    }

    /// SIGKILL: the process ends where it stands.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the node does not run")?;
        child.kill()?;
        child.wait()?;
        self.paused = false;
        Ok(())
    }

    /// SIGTERM, and waits for the process to end by itself.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        let mut child = self.child.take().context("the node does not run")?;
        Ok(child.wait()?)
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("the node does not run")?;
        let mut status = None;
        let outcome = super::wait_until("the process has ended", async || {
            status = child.try_wait()?;
            status.map(drop).context("it runs")
        });
        let outcome = outcome.await;
        if outcome.is_err() {
            child.kill()?;
        }
        outcome?;
        status.context("was waited for")
    }

    /// Its disk is lost, and another one put in its place.
    pub fn lose_disk(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.data_dir())?;
        self.format()
    }

    /// A new connection to it.
    pub fn channel(&self) -> anyhow::Result<Channel> {
        channel(&self.address())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            // It may have ended by itself; there is nobody left to tell.
            let _ended = self.kill();
        }
    }
}
