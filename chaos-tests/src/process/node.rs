//! One `ottla node` process.

use super::channel;
use super::place::Place;
use super::world::Disk;
use anyhow::{Context as _, bail};
use ottla_proto::v1;
use ottla_proto::v1::metadata_service_client::MetadataServiceClient;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;

/// A node: its files, its addresses, and its process while it runs.
pub struct Node {
    id: u64,
    dir: PathBuf,
    place: Place,
    /// The `ottla` binary that it runs.
    binary: PathBuf,
    child: Option<Child>,
    paused: bool,
}

impl Node {
    /// Writes the node's configuration to `dir`. Starts nothing.
    pub(super) fn create(
        dir: &Path,
        id: u64,
        voters: &[(u64, SocketAddr)],
        place: Place,
        options: &str,
        binary: &Path,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (dir, binary) = (dir.to_owned(), binary.to_owned());
        let node = Self { id, dir, place, binary, child: None, paused: false };
        let (data, Place { grpc, http, .. }) = (node.data_dir(), &node.place);
        let mut config = format!(
            "node_id = {id}\ncluster_id = \"process-test\"\ndata_dir = {data:?}\n\
             rack = \"rack-{id}\"\nlisten = \"{grpc}\"\nhttp_listen = \"{http}\"\n{options}\n[voters]\n"
        );
        for (voter, address) in voters {
            writeln!(config, "{voter} = \"{address}\"")?;
        }
        std::fs::write(node.config_file(), config)?;
        Ok(node)
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Host and port of its gRPC service.
    #[must_use]
    pub fn address(&self) -> String {
        self.place.grpc.to_string()
    }

    /// Host and port of its HTTP service.
    #[must_use]
    pub fn http_address(&self) -> String {
        self.place.http.to_string()
    }

    /// What its HTTP service answers.
    ///
    /// # Errors
    /// It cannot be reached, or answers with something else than 200: with what.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.http_address()).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        Ok(answer)
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.place.disk.as_ref().map_or(&*self.dir, Disk::path).join("data")
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

    /// From its next start on it runs this binary, of another release perhaps.
    pub fn runs(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Formats its data directory.
    pub fn format(&self) -> anyhow::Result<()> {
        let output = Command::new(&self.binary)
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
        let mut command = self.place.command(&self.binary);
        command
            .args(["node", "--config"])
            .arg(self.config_file())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(self.place.spawn(command).context("cannot start the node")?);
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

    /// How it ended, if it did by itself since it was looked at last.
    pub fn died(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
            self.paused = false;
        }
        Ok(status)
    }

    /// SIGTERM, and waits for the end without blocking a thread.
    pub async fn end(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        self.ended().await
    }

    /// Nobody needs it any more, whatever it does.
    pub fn abandon(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() { self.kill() } else { Ok(()) }
    }

    /// Whether it answers.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let mut client = MetadataServiceClient::new(self.channel()?);
        client.get_metadata(v1::GetMetadataRequest::default()).await?;
        Ok(())
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let mut status = None;
        let outcome = super::wait_until("the process has ended", async || {
            status = self.died()?;
            status.map(drop).context("it runs")
        });
        let outcome = outcome.await;
        if outcome.is_err() {
            self.kill()?;
        }
        outcome?;
        status.context("was waited for")
    }

    /// The disk of its own, where it has one.
    pub fn disk(&self) -> anyhow::Result<&Disk> {
        self.place.disk.as_ref().context("nodes on loopback have no disks of their own")
    }

    /// The machine loses power: the process is gone, and what was not synced with it.
    pub fn lose_power(&mut self) -> anyhow::Result<()> {
        // In this order nothing that the process still does can reach the disk.
        self.disk()?.lose_power()?;
        self.kill()
    }

    /// It is switched on again.
    pub fn regain_power(&mut self) -> anyhow::Result<()> {
        self.disk()?.regain_power()?;
        self.start()
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
