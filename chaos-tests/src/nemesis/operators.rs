//! What operators do while nodes are hurt, with the commands they have: partitions
//! move, nodes come and go, topics too. Each kind one at a time, for as long as it
//! takes, whatever else happens.

use super::hurt::Hand;
use super::load::STRICT;
use super::plan::Fault;
use super::say::Say;
use crate::process::{self, Node};
use anyhow::Context as _;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use serde_json::Value;
use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Replicas of a partition that is moved.
const REPLICAS: usize = 3;

/// Voters of a cluster. Whoever comes then serves without a vote.
const MOST_VOTERS: u64 = 5;

/// How long a command may look for its answer. A drain needs some windows.
const COMMAND_TIMEOUT: &str = "120s";

/// How long a node that was started may take until the cluster knows it.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What is to be done when a command has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    /// This node is no part of the cluster any more.
    Gone(u64),
    /// The topic is there, or it is not.
    Topic(bool),
}

/// A node that has just been started is not known yet.
fn until_known(command: impl Fn() -> anyhow::Result<Value>) -> anyhow::Result<Value> {
    let until = Instant::now() + KNOWN_WITHIN;
    loop {
        match command() {
            Err(refused)
                if refused.to_string().contains("UNKNOWN_NODE") && Instant::now() < until =>
            {
                std::thread::sleep(ASK_AGAIN);
            }
            done => return done,
        }
    }
}

struct Running {
    kind: Discriminant<Fault>,
    what: String,
    then: Then,
    command: JoinHandle<anyhow::Result<Value>>,
}

/// See the module.
pub(super) struct Operators {
    running: Vec<Running>,
    /// The node that comes and goes.
    guest: u64,
    /// Whether the topic that comes and goes is there.
    has_topic: bool,
    rng: StdRng,
}

impl Operators {
    pub(super) fn new(guest: u64, rng: StdRng) -> Self {
        Self { running: Vec::new(), guest, has_topic: false, rng }
    }

    /// Whether it is theirs.
    pub(super) fn does(fault: Fault) -> bool {
        matches!(fault, Fault::Reassign(_) | Fault::Members | Fault::Topics | Fault::Elect(_))
    }

    /// Begins what operators do. Says what.
    ///
    /// # Errors
    /// It cannot be begun now: why.
    pub(super) fn begin(&mut self, fault: Fault, hand: &mut Hand) -> anyhow::Result<String> {
        let kind = discriminant(&fault);
        let busy = self.running.iter().any(|running| running.kind == kind);
        anyhow::ensure!(!busy, "the one before is still under way");
        let (commands, then) = self.commands(fault, hand)?;
        let what = commands.iter().map(|args| args.join(" ")).collect::<Vec<_>>().join("; ");
        let bootstrap = hand.cluster.bootstrap();
        // A command is a process that is waited for.
        let command = tokio::task::spawn_blocking(move || {
            let mut last = Value::Null;
            for args in &commands {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                last = until_known(|| process::ottla(&bootstrap, &args))?;
            }
            Ok(last)
        });
        self.running.push(Running { kind, what: what.clone(), then, command });
        Ok(what)
    }

    fn commands(
        &mut self,
        fault: Fault,
        hand: &mut Hand,
    ) -> anyhow::Result<(Vec<Vec<String>>, Then)> {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        match fault {
            Fault::Reassign(partition) => {
                let mut nodes: Vec<u64> = hand.cluster.members().map(Node::id).collect();
                nodes.shuffle(&mut self.rng);
                let to: Vec<_> = nodes.iter().take(REPLICAS).map(u64::to_string).collect();
                let to = to.join(",");
                let line =
                    format!("topic reassign {STRICT} --partition {partition} --replicas {to}");
                Ok((vec![words(&line)], Then::Nothing))
            }
            Fault::Elect(partition) => {
                let line = format!("topic elect {STRICT} --partition {partition}");
                Ok((vec![words(&line)], Then::Nothing))
            }
            Fault::Topics if self.has_topic => {
                Ok((vec![words("topic delete comes-and-goes")], Then::Topic(false)))
            }
            Fault::Topics => {
                let partitions = self.rng.random_range(1..=8);
                let line = format!(
                    "topic create comes-and-goes --partitions {partitions} --replication-factor 3"
                );
                Ok((vec![words(&line)], Then::Topic(true)))
            }
            Fault::Members if hand.cluster.members().any(|node| node.id() == self.guest) => {
                let (guest, limit) = (self.guest, COMMAND_TIMEOUT);
                let drain = format!("cluster drain {guest} --timeout {limit}");
                let remove = format!("cluster remove {guest} --timeout {limit}");
                Ok((vec![words(&drain), words(&remove)], Then::Gone(guest)))
            }
            Fault::Members => {
                hand.guest_comes(self.guest).context("starting it")?;
                if self.guest > MOST_VOTERS {
                    return Ok((vec![words("cluster info")], Then::Nothing));
                }
                let line = format!("cluster add {} --timeout {COMMAND_TIMEOUT}", self.guest);
                Ok((vec![words(&line)], Then::Nothing))
            }
            _ => anyhow::bail!("not for operators: {fault}"),
        }
    }

    /// Looks what has ended. A refusal is no failure: much is refused, and rightly,
    /// while nodes are away.
    pub(super) async fn look(&mut self, hand: &mut Hand, say: &Say) -> anyhow::Result<()> {
        let (ended, running): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|r| r.command.is_finished());
        self.running = running;
        for Running { what, then, command, .. } in ended {
            match command.await? {
                Ok(_) => {
                    say.line(&format!("done: {what}"));
                    match then {
                        Then::Nothing => {}
                        Then::Gone(node) => hand.guest_goes(node).await?,
                        Then::Topic(there) => self.has_topic = there,
                    }
                }
                Err(refused) => {
                    say.line(&format!("refused: {what}: {refused:#}"));
                    if refused.to_string().contains("ALREADY_EXISTS") {
                        self.has_topic = true;
                    }
                }
            }
        }
        Ok(())
    }

    /// A node that is being removed ends by itself, perhaps before the command has.
    pub(super) fn removes(&self, node: u64) -> bool {
        self.running.iter().any(|running| running.then == Then::Gone(node))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}
