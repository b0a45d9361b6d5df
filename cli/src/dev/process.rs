//! One node as a process of its own.

use super::layout::{Layout, NodePlan};
use anyhow::Context;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// Options of a node that must come from its file, not from the environment
/// that `ottla dev` runs in: one value cannot be right for all nodes.
const NODE_OPTIONS: [&str; 9] = [
    "OTTLA_NODE_ID",
    "OTTLA_CLUSTER_ID",
    "OTTLA_DATA_DIR",
    "OTTLA_LISTEN",
    "OTTLA_ADVERTISE",
    "OTTLA_HTTP_LISTEN",
    "OTTLA_RACK",
    "OTTLA_VOTERS",
    "OTTLA_DEV",
];

/// Most of a log's end that is shown when its node did not come up, in bytes.
const LOG_TAIL_BYTES: u64 = 1000;

/// A running node. It stops when this is dropped, or when this process ends in
/// any way: it watches the pipe of which `stdin` is the other end.
pub(crate) struct Process {
    pub(crate) node: NodePlan,
    pub(crate) pid: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
    /// Where the log of this run begins.
    log_start: u64,
}

impl Process {
    pub(crate) fn start(layout: &Layout, node: &NodePlan) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program itself")?;
        let log_path = layout.log_path(node);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let log_start = log.metadata()?.len();
        let mut command = Command::new(program);
        command.arg("node").arg("--exit-with-parent").arg("--config").arg(layout.config_path(node));
        for option in NODE_OPTIONS {
            command.env_remove(option);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for this process, which then stops its nodes in good order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start node {}", node.node_id))?;
        let stdin = child.stdin.take();
        let pid = child.id().context("a process that was just started has an id")?;
        Ok(Self { node: node.clone(), pid, child, stdin, log: log_path, log_start })
    }

    /// When and how it ends. May be called again.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        // `Child::wait` would close standard input, which means "stop"; it was taken out.
        self.child.wait().await
    }

    /// Asks it to stop.
    pub(crate) fn stop(&mut self) {
        self.stdin = None;
    }

    /// Waits for it to stop, and kills it when it does not. False if it had to
    /// be killed.
    pub(crate) async fn stopped(&mut self, within: Duration) -> bool {
        if timeout(within, self.child.wait()).await.is_ok() {
            return true;
        }
        // Fails only if it has just ended.
        let _ = self.child.kill().await;
        false
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// The end of what it has logged in this run.
    pub(crate) fn log_tail(&self) -> String {
        let tail = || -> std::io::Result<String> {
            let length = fs::metadata(&self.log)?.len();
            let mut file = File::open(&self.log)?;
            let from = self.log_start.max(length.saturating_sub(LOG_TAIL_BYTES));
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        tail().unwrap_or_else(|error| format!("{}: {error}", self.log.display()))
    }
}
