//! `ottla cluster restart-check`: what a restart of a node would cost now, and whether a
//! node that was restarted has everything again.
//!
//! Not its job: restarting anything, and what else is wrong with the cluster (`health`).

use super::{WATCH_INTERVAL, name, names};
use crate::connection::Connection;
use crate::output::{self, Format};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use ottla_client::{Admin, ClientError, v1};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Instant;

/// Topics asked about at the same time.
const TOPICS_AT_ONCE: usize = 16;

/// The option that says how many replicas a write with acks=all takes.
const MIN_ISR: &str = "min.insync.replicas";

/// Tell what stopping a node would cost now, or whether it has everything again.
///
/// Before: exits with 1 if a partition would have no leader, if writes with acks=all
/// would be refused that are taken now, or if the metadata quorum would lose its majority.
/// With --after: exits with 1 until the node is registered, has its vote, and all its
/// replicas are in sync. Meant for scripts that restart one node after the other.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster restart-check 2 && systemctl restart ottla   # on the host of node 2
  ottla cluster restart-check 2 --after --wait --timeout 10m
  ottla cluster restart-check --wait   # of the node on this host, before it is stopped")]
pub(super) struct RestartCheck {
    /// The node; by default the one that answers first at --bootstrap.
    #[arg(value_name = "NODE")]
    node: Option<u64>,

    /// The node was restarted: tell whether it has everything again.
    #[arg(long)]
    after: bool,

    /// Look again every second until the answer is good, and exit with 1 when it is not
    /// within --timeout.
    #[arg(long)]
    wait: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(args: &RestartCheck) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let mut told = None;
    loop {
        let answer = Answer::of(args).await;
        let last = !args.wait || started.elapsed() >= args.connection.timeout;
        let (good, shown) = match answer {
            Ok(answer) => (answer.good, answer.shown(args.connection.format)),
            // A node that is about to be back may be the only one who is asked.
            Err(error) if last || !error.is_retriable() => return Err(error.into()),
            Err(error) => (false, error.to_string()),
        };
        if told.as_ref() != Some(&shown) {
            output::line(&shown)?;
            told = Some(shown);
        }
        if good || last {
            return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// What is told of a node at one time.
struct Answer {
    good: bool,
    text: String,
    json: Value,
}

impl Answer {
    async fn of(args: &RestartCheck) -> Result<Self, ClientError> {
        let admin = args.connection.client().await?.admin();
        let node = match args.node {
            Some(node) => node,
            None => admin.local_cluster_info().await?.header.unwrap_or_default().node_id,
        };
        let seen = Seen::of(&admin).await?;
        Ok(if args.after {
            let back = Back::of(&seen, node);
            Self { good: back.is_complete(), text: back.text(), json: back.json() }
        } else {
            let cost = Cost::of(&seen, node);
            Self { good: cost.is_none(), text: cost.text(), json: cost.json() }
        })
    }

    fn shown(self, format: Format) -> String {
        match format {
            Format::Text => self.text,
            Format::Json => self.json.to_string(),
        }
    }
}

/// What the cluster says of itself.
struct Seen {
    nodes: Vec<v1::ClusterNode>,
    quorum: v1::DescribeQuorumResponse,
    partitions: Vec<Partition>,
}

/// A partition, as far as it concerns restarts.
struct Partition {
    place: v1::PartitionRef,
    replicas: Vec<u64>,
    isr: Vec<u64>,
    /// In-sync replicas that acks=all takes.
    min: usize,
}

impl Seen {
    async fn of(admin: &Admin) -> Result<Self, ClientError> {
        let nodes = admin.cluster_info().await?.nodes;
        let quorum = admin.describe_quorum().await?;
        let topics = admin.list_topics().await?;
        let described = stream::iter(topics).map(|topic| async move {
            match admin.describe_topic(&topic.name).await {
                // Deleted meanwhile.
                Err(error) if error.reason() == Some(v1::ErrorReason::UnknownTopic) => Ok(vec![]),
                described => Ok::<_, ClientError>(partitions(described?)),
            }
        });
        let partitions: Vec<Vec<Partition>> =
            described.buffered(TOPICS_AT_ONCE).try_collect().await?;
        Ok(Self { nodes, quorum, partitions: partitions.into_iter().flatten().collect() })
    }

    fn partitions_where(&self, is: impl Fn(&Partition) -> bool) -> Vec<v1::PartitionRef> {
        self.partitions.iter().filter(|one| is(one)).map(|one| one.place.clone()).collect()
    }
}

fn partitions(described: ottla_client::TopicDescription) -> Vec<Partition> {
    let option = described.options.iter().find(|option| option.name == MIN_ISR);
    let min: usize = option.and_then(|option| option.value.parse().ok()).unwrap_or(1);
    let topic = described.topic.name;
    let partition = |one: v1::PartitionMetadata| Partition {
        place: v1::PartitionRef { topic: topic.clone(), partition: one.partition },
        min: min.min(one.replicas.len()),
        replicas: one.replicas,
        isr: one.isr,
    };
    described.topic.partitions.into_iter().map(partition).collect()
}

/// What stops working while a node is away that works now.
#[derive(Debug, PartialEq)]
struct Cost {
    node: u64,
    /// Partitions that nobody could lead.
    without_leader: Vec<v1::PartitionRef>,
    /// Partitions that would refuse acks=all.
    without_min_isr: Vec<v1::PartitionRef>,
    /// No change of metadata, and no election, would be possible.
    without_quorum: bool,
}

impl Cost {
    fn of(seen: &Seen, node: u64) -> Self {
        let is_last = |one: &Partition| one.isr == [node];
        let breaks_min =
            |one: &Partition| !is_last(one) && one.isr.contains(&node) && one.isr.len() == one.min;
        let voters = seen.quorum.members.iter().filter(|member| member.voter);
        let up = voters.clone().filter(|member| member.up && member.node_id != node).count();
        let votes = voters.clone().any(|member| member.node_id == node);
        Self {
            node,
            without_leader: seen.partitions_where(is_last),
            without_min_isr: seen.partitions_where(breaks_min),
            without_quorum: votes && up <= voters.count() / 2,
        }
    }

    fn is_none(&self) -> bool {
        self.without_leader.is_empty() && self.without_min_isr.is_empty() && !self.without_quorum
    }

    fn text(&self) -> String {
        if self.is_none() {
            return format!("node {} can be restarted: nothing stops working", self.node);
        }
        let mut lines = vec![format!("while node {} is away", self.node)];
        let partitions = [
            ("would have no leader", &self.without_leader),
            ("would refuse acks=all", &self.without_min_isr),
        ];
        for (what, refs) in partitions {
            if !refs.is_empty() {
                lines.push(format!("  {} partitions {what}: {}", refs.len(), names(refs)));
            }
        }
        if self.without_quorum {
            lines.push("  the metadata quorum would have no majority".to_owned());
        }
        lines.join("\n")
    }

    fn json(&self) -> Value {
        json!({
            "node": self.node,
            "safe": self.is_none(),
            "without_leader": self.without_leader.iter().map(name).collect::<Vec<_>>(),
            "without_min_isr": self.without_min_isr.iter().map(name).collect::<Vec<_>>(),
            "without_quorum": self.without_quorum,
        })
    }
}

/// What a node that was restarted has again.
#[derive(Debug, PartialEq)]
struct Back {
    node: u64,
    /// The controller gives it leaderships.
    active: bool,
    /// The metadata quorum's leader hears of it.
    in_quorum: bool,
    /// Its replicas that are not in sync.
    behind: Vec<v1::PartitionRef>,
    replicas: usize,
}

impl Back {
    fn of(seen: &Seen, node: u64) -> Self {
        let registered = seen.nodes.iter().find(|one| one.node_id == node);
        let is_member = |member: &&v1::QuorumMember| member.node_id == node;
        let has = |one: &Partition| one.replicas.contains(&node);
        Self {
            node,
            active: registered.is_some_and(|one| one.registered && !one.fenced),
            in_quorum: seen.quorum.members.iter().find(is_member).is_some_and(|member| member.up),
            behind: seen.partitions_where(|one| has(one) && !one.isr.contains(&node)),
            replicas: seen.partitions.iter().filter(|one| has(one)).count(),
        }
    }

    fn is_complete(&self) -> bool {
        self.active && self.in_quorum && self.behind.is_empty()
    }

    fn text(&self) -> String {
        let Self { node, replicas, behind, .. } = self;
        if self.is_complete() {
            return format!("node {node} is back: {replicas} replicas, all in sync");
        }
        let mut lines = vec![format!("node {node} is not back yet")];
        if !self.active {
            lines.push("  the controller does not count on it".to_owned());
        }
        if !self.in_quorum {
            lines.push("  the metadata quorum does not hear of it".to_owned());
        }
        if !behind.is_empty() {
            let count = behind.len();
            lines.push(format!("  {count} of {replicas} replicas not in sync: {}", names(behind)));
        }
        lines.join("\n")
    }

    fn json(&self) -> Value {
        json!({
            "node": self.node,
            "back": self.is_complete(),
            "active": self.active,
            "in_quorum": self.in_quorum,
            "replicas": self.replicas,
            "behind": self.behind.iter().map(name).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32, isr: &[u64], min: usize) -> Partition {
        let place = v1::PartitionRef { topic: "t".to_owned(), partition: number };
        Partition { place, replicas: vec![1, 2, 3], isr: isr.to_vec(), min }
    }

    fn seen(partitions: Vec<Partition>, up: &[u64]) -> Seen {
        let member = |node_id| v1::QuorumMember {
            node_id,
            voter: true,
            up: up.contains(&node_id),
            ..v1::QuorumMember::default()
        };
        let node = |node_id| v1::ClusterNode {
            node_id,
            registered: true,
            fenced: !up.contains(&node_id),
            ..v1::ClusterNode::default()
        };
        let members = [1, 2, 3].map(member).to_vec();
        let quorum = v1::DescribeQuorumResponse { members, ..Default::default() };
        Seen { nodes: [1, 2, 3].map(node).to_vec(), quorum, partitions }
    }

    fn cost(partitions: Vec<Partition>, up: &[u64], node: u64) -> (Vec<String>, Vec<String>, bool) {
        let cost = Cost::of(&seen(partitions, up), node);
        let all = |refs: &[v1::PartitionRef]| refs.iter().map(name).collect();
        (all(&cost.without_leader), all(&cost.without_min_isr), cost.without_quorum)
    }

    #[test]
    fn only_what_works_now_and_would_not_is_a_cost() {
        let partitions = || {
            vec![
                partition(0, &[1, 2, 3], 2),
                partition(1, &[1, 2], 2),
                partition(2, &[2], 1),
                // Refuses acks=all already.
                partition(3, &[2], 2),
                partition(4, &[1, 3], 2),
            ]
        };
        let names = |refs: &[&str]| refs.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let all = [1, 2, 3];
        let found = cost(partitions(), &all, 2);
        assert_eq!(found, (names(&["t-2", "t-3"]), names(&["t-1"]), false));
        assert_eq!(cost(partitions(), &all, 3), (vec![], names(&["t-4"]), false));
        assert_eq!(cost(vec![partition(0, &all, 2)], &all, 1), (vec![], vec![], false));
    }

    #[test]
    fn a_majority_must_stay() {
        assert!(cost(vec![], &[1, 2], 1).2, "one of three would be left");
        assert!(!cost(vec![], &[1, 2], 3).2, "it is away already");
        assert!(!cost(vec![], &[1, 2, 3], 1).2);
    }

    #[test]
    fn a_node_is_back_when_nothing_of_it_is_behind() {
        let complete = |partitions, up: &[u64]| Back::of(&seen(partitions, up), 3).is_complete();
        assert!(complete(vec![partition(0, &[1, 2, 3], 2)], &[1, 2, 3]));
        assert!(!complete(vec![partition(0, &[1, 2], 2)], &[1, 2, 3]));
        assert!(!complete(vec![], &[1, 2]));
    }
}
