//! The language of the scripts: a word, then `name=value` in any order.

use crate::core::{
    Acks, AlterOutcome, Durability, EpochEnd, Event, Follow, FollowRefusal, LogState, Member, Peer,
    Progress, SessionRef, Stage, View,
};
use ottla_commitlog::ProducerRefusal;
use ottla_proto::{BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Words {
    pub(super) command: String,
    /// Words without a name.
    plain: Vec<String>,
    named: BTreeMap<String, String>,
}

impl Words {
    pub(super) fn read(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let command = words.next().expect("a command").to_owned();
        let (mut plain, mut named) = (Vec::new(), BTreeMap::new());
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => drop(named.insert(name.to_owned(), value.to_owned())),
                None => plain.push(word.to_owned()),
            }
        }
        Self { command, plain, named }
    }

    pub(super) fn optional(&self, name: &str) -> Option<u64> {
        self.named.get(name).map(|value| value.parse().expect("a number"))
    }

    pub(super) fn number(&self, name: &str, default: u64) -> u64 {
        self.optional(name).unwrap_or(default)
    }

    fn required(&self, name: &str) -> u64 {
        self.optional(name).unwrap_or_else(|| panic!("`{}` needs {name}=", self.command))
    }

    fn epoch(&self, name: &str) -> Option<LeaderEpoch> {
        self.optional(name).map(|epoch| LeaderEpoch(u32::try_from(epoch).expect("an epoch")))
    }

    fn nodes(&self, name: &str) -> Option<BTreeSet<NodeId>> {
        let list = self.named.get(name)?;
        Some(list.split(',').map(|node| NodeId(node.parse().expect("a node"))).collect())
    }

    /// `epoch:end`.
    fn known(&self) -> Option<EpochEnd> {
        let (epoch, end) = self.named.get("known")?.split_once(':').expect("epoch:end");
        Some(EpochEnd {
            epoch: LeaderEpoch(epoch.parse().expect("an epoch")),
            end: end.parse().expect("an offset"),
        })
    }

    pub(super) fn log(&self) -> LogState {
        let end = self.number("end", 0);
        LogState {
            start: self.number("start", 0),
            end,
            synced: self.number("synced", end),
            last_epoch: self.epoch("last"),
        }
    }

    /// Three replicas, all in sync, led by node 1; node n has broker epoch 10+n.
    pub(super) fn first_view() -> View {
        View {
            leader: Some(NodeId(1)),
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
            replicas: [1, 2, 3].map(NodeId).map(first_member).to_vec(),
            isr: [1, 2, 3].map(NodeId).into(),
            recovering: false,
            min_isr: 2,
            durability: Durability::Disk,
            lag_max: 10_000,
        }
    }

    /// What the line says about the metadata; the rest stays.
    pub(super) fn change(&self, view: &mut View) {
        if let Some(leader) = self.named.get("leader") {
            view.leader = leader.parse().ok().map(NodeId);
        }
        view.leader_epoch = self.epoch("epoch").unwrap_or(view.leader_epoch);
        if let Some(version) = self.optional("version") {
            view.partition_epoch = PartitionEpoch(u32::try_from(version).expect("a version"));
        }
        if let Some(nodes) = self.nodes("replicas") {
            let known = |node| view.replicas.iter().find(|member| member.node == node).copied();
            let member = |node| known(node).unwrap_or_else(|| first_member(node));
            view.replicas = nodes.into_iter().map(member).collect();
        }
        view.isr = self.nodes("isr").unwrap_or_else(|| view.isr.clone());
        if let Some(min) = self.optional("min") {
            view.min_isr = usize::try_from(min).expect("a count");
        }
        view.lag_max = self.number("lag", view.lag_max);
        for (word, durability) in [("memory", Durability::Memory), ("disk", Durability::Disk)] {
            if self.plain.iter().any(|plain| plain == word) {
                view.durability = durability;
            }
        }
        for (word, recovering) in [("recovering", true), ("recovered", false)] {
            if self.plain.iter().any(|plain| plain == word) {
                view.recovering = recovering;
            }
        }
        for (name, eligible) in [("fenced", false), ("unfenced", true)] {
            for node in self.nodes(name).unwrap_or_default() {
                member(view, node).eligible = eligible;
            }
        }
        if let Some(node) = self.optional("reregistered") {
            let member = member(view, NodeId(node));
            member.broker_epoch = Some(BrokerEpoch(20 + node));
        }
    }

    fn of(&self, view: &View) -> SessionRef {
        SessionRef {
            session: self.number("session", 1),
            leader_epoch: self.epoch("epoch").unwrap_or(view.leader_epoch),
        }
    }

    fn peer(&self) -> Peer {
        Peer { node: NodeId(self.required("node")), stream: self.number("stream", 1) }
    }

    /// `ids=id:next,…`; next may be `refused`. `end` if it is not the last next.
    fn wrote(&self, stage: Stage) -> Event {
        let refusal =
            |got| ProducerRefusal::OutOfOrderSequence { producer_id: 7, expected: 0, got };
        let write = |write: &str| {
            let (id, next) = write.split_once(':').expect("id:next");
            let outcome = match next {
                "refused" => Err(refusal(5)),
                next => Ok(next.parse().expect("an offset")),
            };
            (id.parse().expect("an id"), outcome)
        };
        let writes: Vec<_> =
            self.named.get("ids").expect("ids=id:next,…").split(',').map(write).collect();
        let last = writes.last().and_then(|(_, outcome)| outcome.ok()).unwrap_or_default();
        Event::Wrote { stage, end: self.number("end", last), writes }
    }

    pub(super) fn event(&self, view: &View, stage: Stage, now: u64) -> Event {
        let of = self.of(view);
        match self.command.as_str() {
            "tick" => Event::Tick,
            "settled" => Event::Settled { stage, log: self.log() },
            "produce" => Event::Produce {
                id: self.required("id"),
                acks: match self.named.get("acks").map(String::as_str) {
                    Some("0") => Acks::None,
                    Some("1") => Acks::Leader,
                    _ => Acks::All,
                },
                deadline: self.number("deadline", now + 30_000),
            },
            "wrote" => self.wrote(stage),
            "write-rejected" => Event::WriteRejected { stage, ids: vec![self.required("id")] },
            "copied" => Event::Copied { stage, end: self.required("end") },
            "copy-rejected" => Event::CopyRejected { stage },
            "synced" => Event::Synced { up_to: self.required("to") },
            "start-raised" => Event::StartRaised { start: self.required("to") },
            "delete-records" => Event::DeleteRecords {
                id: self.required("id"),
                before: self.optional("before"),
                deadline: self.number("deadline", now + 30_000),
            },
            "disk-failed" => Event::DiskFailed,
            "follow" => Event::Follow { follow: self.follow(of), local: self.known() },
            "progress" => Event::Progress(Progress {
                peer: self.peer(),
                session: of.session,
                leader_epoch: of.leader_epoch,
                end: self.required("end"),
                synced: self.number("synced", self.required("end")),
                start: self.number("start", 0),
            }),
            "unfollow" => Event::Unfollow { peer: self.peer() },
            "answered" => Event::AlterAnswered {
                leader_epoch: of.leader_epoch,
                partition_epoch: self.version("asked"),
                outcome: self.outcome(of.leader_epoch),
            },
            "link-opened" => Event::LinkOpened { leader: NodeId(self.required("leader")) },
            "data" => Event::Data {
                of,
                base: self.required("base"),
                end: self.required("end"),
                watermark: self.number("watermark", 0),
                log_start: self.number("start", 0),
            },
            "watermark" => Event::Watermark {
                of,
                watermark: self.required("to"),
                log_start: self.number("start", 0),
            },
            "diverging" => Event::Diverging {
                of,
                epoch: self.epoch("at"),
                end: self.required("end"),
                local: self.known(),
            },
            "refused" => Event::FollowRefused { of, refusal: self.refusal() },
            other => panic!("unknown command `{other}`"),
        }
    }

    fn follow(&self, of: SessionRef) -> Follow {
        let peer = self.peer();
        Follow {
            peer,
            broker_epoch: BrokerEpoch(self.number("broker", 10 + peer.node.0)),
            session: of.session,
            leader_epoch: of.leader_epoch,
            log: self.log(),
        }
    }

    fn version(&self, name: &str) -> PartitionEpoch {
        PartitionEpoch(u32::try_from(self.required(name)).expect("a version"))
    }

    fn outcome(&self, leader_epoch: LeaderEpoch) -> AlterOutcome {
        match self.plain.first().map(String::as_str) {
            Some("not-applied") => AlterOutcome::NotApplied,
            Some("superseded") => AlterOutcome::Superseded,
            Some("unknown") => AlterOutcome::Unknown,
            _ => AlterOutcome::Changed {
                leader_epoch: self.epoch("led").unwrap_or(leader_epoch),
                partition_epoch: self.version("version"),
                isr: self.nodes("isr").expect("isr="),
                min_isr: usize::try_from(self.number("min", 2)).expect("a count"),
            },
        }
    }

    fn refusal(&self) -> FollowRefusal {
        match self.plain.first().map(String::as_str) {
            Some("out-of-range") => FollowRefusal::OutOfRange { log_start: self.required("start") },
            Some("unknown-epoch") => FollowRefusal::UnknownLeaderEpoch,
            other => panic!("unknown refusal {other:?}"),
        }
    }
}

fn first_member(node: NodeId) -> Member {
    Member { node, broker_epoch: Some(BrokerEpoch(10 + node.0)), eligible: true }
}

fn member(view: &mut View, node: NodeId) -> &mut Member {
    view.replicas.iter_mut().find(|member| member.node == node).expect("a replica")
}
