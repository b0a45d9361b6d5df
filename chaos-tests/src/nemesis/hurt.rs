//! Does to nodes what a plan says, and undoes it.
//!
//! Not its job: what to do when (`plan`), and what operators do (`operators`).

use super::plan::Fault;
use super::roles::{Roles, healthy};
use crate::process::world::{CLIENTS, Conditions, World, address};
use crate::process::{Cluster, Node, finished_segments, flip_a_bit, wait_until};
use anyhow::Context as _;
use ottla_client::Client;
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Between two looks at what is not so yet; each asks every node.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How long a restarted node may take to answer before the next one's turn.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// How long a node may take to stop when it is asked to. Then it is killed, which is
/// what an init system does.
const STOPS_WITHIN: Duration = Duration::from_secs(20);

/// How long the copies that are missing are waited for, before another is taken away.
const COPIED_WITHIN: Duration = Duration::from_secs(15);

/// How long the cluster is asked to give a disk up.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(10);

/// What is to be done when a fault is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    Start(u64),
    Resume(u64),
    RegainPower(u64),
    FreeDisk(u64),
}

impl Undo {
    fn node(self) -> u64 {
        match self {
            Self::Start(node)
            | Self::Resume(node)
            | Self::RegainPower(node)
            | Self::FreeDisk(node) => node,
        }
    }
}

/// The one who hurts.
pub(super) struct Hand {
    pub(super) cluster: Cluster,
    pub(super) world: Option<Arc<World>>,
    client: Client,
    rng: StdRng,
    /// The one whose disk rots.
    rots: u64,
    /// It has, and was not replaced yet.
    rotten: bool,
    undo: Vec<Undo>,
}

impl Hand {
    pub(super) fn new(
        cluster: Cluster,
        world: Option<Arc<World>>,
        client: Client,
        mut rng: StdRng,
    ) -> Self {
        let rots = rng.random_range(1..=cluster.nodes().len() as u64);
        Self { cluster, world, client, rng, rots, rotten: false, undo: Vec::new() }
    }

    /// Begins a fault. Says to whom it was done.
    ///
    /// # Errors
    /// It cannot be done now, and was not: why.
    pub(super) async fn begin(&mut self, fault: Fault) -> anyhow::Result<String> {
        if fault.costs_a_copy() {
            self.repair().await?;
            self.all_copies_are_there().await?;
        }
        let roles = Roles::now(&self.cluster).await?;
        let done = match fault {
            Fault::Kill(who)
            | Fault::Pause(who)
            | Fault::Restart(who)
            | Fault::PowerLoss(who)
            | Fault::FullDisk(who)
            | Fault::Wipe(who) => {
                let node = roles.node(who, &self.cluster)?;
                self.one(fault, node).await?;
                format!("node {node}")
            }
            Fault::BitRot => {
                let (node, flipped) = (self.rots, self.rot().await?);
                format!("node {node}: {flipped}")
            }
            Fault::RollingRestart => self.rolling_restart().await?,
            Fault::PowerLossOfAll => self.power_loss_of_all()?,
            Fault::Isolate(who)
            | Fault::Deaf(who)
            | Fault::Mute(who)
            | Fault::Halves(who)
            | Fault::Bridge(who)
            | Fault::Slow(who, _)
            | Fault::Narrow(who, _) => self.lines(fault, roles.node(who, &self.cluster)?)?,
            Fault::Lossy(_) => self.lines(fault, 0)?,
            Fault::Reassign(_) | Fault::Members | Fault::Topics | Fault::Elect(_) => {
                anyhow::bail!("that is for operators")
            }
        };
        Ok(done)
    }

    /// Before one is taken away: otherwise it may be the last.
    async fn all_copies_are_there(&self) -> anyhow::Result<()> {
        let until = Instant::now() + COPIED_WITHIN;
        loop {
            match healthy(&self.cluster).await {
                Ok(()) => return Ok(()),
                Err(why) if Instant::now() > until => {
                    return Err(why.context("not all copies are there"));
                }
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    async fn one(&mut self, fault: Fault, node: u64) -> anyhow::Result<()> {
        anyhow::ensure!(self.cluster.node(node).is_running(), "node {node} is down already");
        match fault {
            Fault::Kill(_) => {
                self.cluster.node(node).kill()?;
                self.undo.push(Undo::Start(node));
            }
            Fault::Pause(_) => {
                self.cluster.node(node).pause()?;
                self.undo.push(Undo::Resume(node));
            }
            Fault::PowerLoss(_) => {
                self.cluster.node(node).lose_power()?;
                self.undo.push(Undo::RegainPower(node));
            }
            Fault::FullDisk(_) => {
                self.cluster.node(node).disk()?.fill()?;
                self.undo.push(Undo::FreeDisk(node));
            }
            Fault::Restart(_) => self.restart(node).await?,
            Fault::Wipe(_) => self.wipe(node).await?,
            _ => anyhow::bail!("not a fault of one node: {fault}"),
        }
        Ok(())
    }

    async fn restart(&mut self, node: u64) -> anyhow::Result<()> {
        let node = self.cluster.node(node);
        if timeout(STOPS_WITHIN, node.end()).await.is_err() {
            node.kill()?;
        }
        node.start()
    }

    async fn rolling_restart(&mut self) -> anyhow::Result<String> {
        let ids: Vec<u64> = self.cluster.members().map(Node::id).collect();
        let mut restarted = Vec::new();
        for id in ids {
            if !self.cluster.node(id).is_running() {
                continue;
            }
            self.restart(id).await?;
            restarted.push(id);
            let answers = async {
                wait_until("it answers", async || {
                    self.cluster.nodes()[id as usize - 1].ready().await
                })
                .await
            };
            // Under other faults it may not; the next one's turn all the same.
            let _answers = timeout(BACK_WITHIN, answers).await;
        }
        Ok(format!("nodes {restarted:?}"))
    }

    fn power_loss_of_all(&mut self) -> anyhow::Result<String> {
        let running = self.cluster.members().filter(|node| node.is_running());
        let ids: Vec<u64> = running.map(Node::id).collect();
        for &id in &ids {
            self.cluster.node(id).lose_power()?;
            self.undo.push(Undo::RegainPower(id));
        }
        Ok(format!("nodes {ids:?}"))
    }

    /// Replaces a node's disk as the operations guide says. Where the cluster does not
    /// agree, the node comes back with the old one.
    async fn wipe(&mut self, node: u64) -> anyhow::Result<()> {
        self.cluster.node(node).kill()?;
        let until = Instant::now() + GIVEN_UP_WITHIN;
        let agreed = loop {
            match self.client.admin().replace_disk(node).await {
                Ok(_) => break Ok(()),
                Err(refused) if Instant::now() > until => break Err(refused),
                // Not fenced yet, perhaps.
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        };
        if agreed.is_ok() {
            self.cluster.node(node).lose_disk()?;
        }
        self.cluster.node(node).start()?;
        agreed.with_context(|| format!("node {node} keeps its disk"))
    }

    /// Replaces the disk that has rotted, as somebody would who reads the log.
    pub(super) async fn repair(&mut self) -> anyhow::Result<()> {
        if self.rotten {
            let running = self.cluster.node(self.rots).is_running();
            anyhow::ensure!(running, "node {} is down already", self.rots);
            self.wipe(self.rots).await.context("a bad disk cannot be replaced")?;
            self.rotten = false;
        }
        Ok(())
    }

    /// Flips a bit of the bad disk.
    async fn rot(&mut self) -> anyhow::Result<String> {
        let node = self.rots;
        anyhow::ensure!(self.cluster.node(node).is_running(), "node {node} is down already");
        self.cluster.node(node).kill()?;
        let flipped = self.flip();
        self.cluster.node(node).start()?;
        self.rotten |= flipped.is_ok();
        flipped
    }

    fn flip(&mut self) -> anyhow::Result<String> {
        let segments = finished_segments(&self.cluster.nodes()[self.rots as usize - 1])?;
        anyhow::ensure!(!segments.is_empty(), "no segment is finished");
        let segment = &segments[self.rng.random_range(0..segments.len())];
        flip_a_bit(segment, self.rng.random())
    }

    /// Changes lines; all are good again when the window ends.
    fn lines(&mut self, fault: Fault, node: u64) -> anyhow::Result<String> {
        let world = self.world.as_ref().context("lines need a world")?;
        let ids: Vec<u64> = self.cluster.members().map(Node::id).collect();
        let at = ids.iter().position(|id| *id == node).unwrap_or_default();
        let half: Vec<u64> = (0..ids.len() / 2).map(|n| ids[(at + n) % ids.len()]).collect();
        let change = |from: u64, to: u64, line: &mut Conditions| match fault {
            Fault::Isolate(_) => line.cut |= from == node || to == node,
            Fault::Deaf(_) => line.cut |= to == node,
            Fault::Mute(_) => line.cut |= from == node,
            Fault::Halves(_) => line.cut |= half.contains(&from) != half.contains(&to),
            Fault::Bridge(_) if from == node || to == node => {}
            Fault::Bridge(_) => line.cut |= half.contains(&from) != half.contains(&to),
            Fault::Slow(_, latency) if from == node || to == node => {
                (line.latency, line.jitter) = (latency, latency);
            }
            Fault::Narrow(_, rate) if from == node || to == node => line.bytes_per_second = rate,
            Fault::Lossy(loss) => line.loss_per_mille = loss,
            _ => {}
        };
        for &from in &ids {
            for &to in ids.iter().filter(|to| **to != from) {
                world.line(address(from), address(to), |line| change(from, to, line));
            }
        }
        if matches!(fault, Fault::Isolate(_)) {
            world.line(address(node), CLIENTS, |line| line.cut = true);
            world.line(CLIENTS, address(node), |line| line.cut = true);
        }
        Ok(match fault {
            Fault::Lossy(_) => "all nodes".to_owned(),
            Fault::Halves(_) | Fault::Bridge(_) => {
                format!("node {node}, nodes {half:?} on one side")
            }
            _ => format!("node {node}"),
        })
    }

    /// The node that comes and goes starts; with an empty disk, if it was there before.
    pub(super) fn guest_comes(&mut self, guest: u64) -> anyhow::Result<()> {
        if guest > self.cluster.nodes().len() as u64 {
            self.cluster.join()?;
        } else {
            self.cluster.comes_back(guest);
            self.cluster.node(guest).lose_disk()?;
            self.cluster.node(guest).start()?;
        }
        Ok(())
    }

    /// It has been removed, and ends by itself.
    pub(super) async fn guest_goes(&mut self, guest: u64) -> anyhow::Result<()> {
        self.cluster.leaves(guest);
        let (theirs, others) = self.take_undo().into_iter().partition(|undo| undo.node() == guest);
        self.undo = others;
        for undo in theirs {
            match undo {
                Undo::RegainPower(node) => self.cluster.node(node).disk()?.regain_power()?,
                Undo::FreeDisk(node) => self.cluster.node(node).disk()?.free()?,
                Undo::Start(_) | Undo::Resume(_) => {}
            }
        }
        let node = self.cluster.node(guest);
        if node.is_running() {
            node.ended().await?;
        } else {
            node.abandon()?;
        }
        Ok(())
    }

    /// Starts members again that ended by themselves and had no reason to. Says who.
    pub(super) fn restart_the_dead(
        &mut self,
        may_end: impl Fn(u64) -> bool,
    ) -> anyhow::Result<Vec<String>> {
        let members = self.cluster.members().map(Node::id);
        let ids: Vec<u64> = members.filter(|id| !may_end(*id)).collect();
        let mut told = Vec::new();
        for id in ids {
            let node = self.cluster.node(id);
            if let Some(status) = node.died()? {
                told.push(format!("node {id} ended by itself: {status}"));
                node.start()?;
            }
        }
        Ok(told)
    }

    /// What lasts, in an order in which it can be undone: a disk that was full has its
    /// power first.
    fn take_undo(&mut self) -> Vec<Undo> {
        let mut undo = std::mem::take(&mut self.undo);
        undo.sort_by_key(|undo| matches!(undo, Undo::FreeDisk(_)));
        undo
    }

    /// Undoes everything that lasts.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        if let Some(world) = &self.world {
            world.heal();
        }
        for undo in self.take_undo() {
            match undo {
                Undo::Start(node) => self.cluster.node(node).start()?,
                Undo::Resume(node) => self.cluster.node(node).resume()?,
                Undo::RegainPower(node) => self.cluster.node(node).regain_power()?,
                Undo::FreeDisk(node) => self.cluster.node(node).disk()?.free()?,
            }
        }
        Ok(())
    }
}
