//! What a replica does, in words.

use crate::core::{Effect, FollowRefusal, LogState, ProduceRefusal, Replica, RoleKind, SessionRef};
use ottla_proto::{LeaderEpoch, NodeId};

pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Inspect { stage } => format!("inspect the log (stage {})", stage.0),
        Effect::StartEpoch { stage, epoch } => {
            format!("record the start of epoch {epoch} (stage {})", stage.0)
        }
        Effect::Truncate { stage, to } => format!("truncate to {to} (stage {})", stage.0),
        Effect::Reset { stage, start } => format!("reset to {start} (stage {})", stage.0),
        Effect::Write { stage, id, epoch } => {
            format!("write request {id} under epoch {epoch} (stage {})", stage.0)
        }
        Effect::Copy { stage } => format!("append the leader's records (stage {})", stage.0),
        Effect::Sync => "sync".to_owned(),
        Effect::Answer { id, result: Ok(()) } => format!("answer request {id}: done"),
        Effect::Answer { id, result: Err(refusal) } => {
            format!("answer request {id}: {}", produce_refusal(*refusal))
        }
        Effect::AlterPartition { leader_epoch, partition_epoch, isr } => {
            let members: Vec<String> =
                isr.iter().map(|(node, epoch)| format!("{node} (broker epoch {epoch})")).collect();
            format!(
                "propose ISR {} at leader epoch {leader_epoch}, version {partition_epoch}",
                members.join(", ")
            )
        }
        Effect::Serve { peer, of, from } => {
            format!("serve node {} {} from {from}", peer.node, session(of))
        }
        Effect::Diverge { peer, of, epoch, end } => format!(
            "tell node {} {} that epoch {} ends at {end}",
            peer.node,
            session(of),
            epoch_or_none(*epoch)
        ),
        Effect::Refuse { peer, of, refusal } => {
            format!("refuse node {} {}: {}", peer.node, session(of), follow_refusal(*refusal))
        }
        Effect::Reconsider(follow) => {
            let (node, session, log) = (follow.peer.node, follow.session, log_state(&follow.log));
            format!("reconsider node {node}'s session {session} with {log}")
        }
        Effect::Follow { leader, of, log } => {
            format!("follow node {leader} {} with {}", session(of), log_state(log))
        }
        Effect::Unfollow { leader } => format!("unfollow node {leader}"),
        Effect::Acknowledge { leader, of, end, synced, start } => {
            let start = if *start == 0 { String::new() } else { format!(", start {start}") };
            format!(
                "acknowledge to node {leader} {}: end {end}, synced {synced}{start}",
                session(of)
            )
        }
        Effect::RaiseStart { stage, to } => {
            format!("remove what is below {to} (stage {})", stage.0)
        }
        Effect::AnswerDeletion { id, result } => match result {
            Ok(low) => format!("answer request {id}: gone below {low}"),
            Err(refusal) => format!("answer request {id}: {refusal:?}"),
        },
    }
}

pub(super) fn status(replica: &Replica) -> String {
    let status = replica.status();
    let isr: Vec<String> = replica.isr().iter().map(NodeId::to_string).collect();
    let is_other = |node: &&NodeId| Some(**node) != status.leader;
    let waited_for: Vec<NodeId> = replica.waited_for().collect();
    let as_usual = replica.isr().iter().filter(is_other).eq(&waited_for);
    let waits = if as_usual || status.role != RoleKind::Leader {
        String::new()
    } else {
        let nodes: Vec<String> = waited_for.iter().map(NodeId::to_string).collect();
        format!(", waits for {}", nodes.join(","))
    };
    format!(
        "{:?} in epoch {}: log {}..{} synced {}, watermark {}{}, ISR {} of version {}{waits}",
        status.role,
        status.leader_epoch,
        status.log_start,
        status.log_end,
        status.synced,
        status.high_watermark,
        if status.watermark_is_current { " (current)" } else { "" },
        isr.join(","),
        status.partition_epoch
    )
}

fn session(of: &SessionRef) -> String {
    format!("[session {}, epoch {}]", of.session, of.leader_epoch)
}

fn log_state(log: &LogState) -> String {
    let last = epoch_or_none(log.last_epoch);
    format!("log {}..{} synced {}, last epoch {last}", log.start, log.end, log.synced)
}

fn epoch_or_none(epoch: Option<LeaderEpoch>) -> String {
    epoch.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string())
}

fn produce_refusal(refusal: ProduceRefusal) -> &'static str {
    match refusal {
        ProduceRefusal::NotLeader => "NOT_LEADER",
        ProduceRefusal::NotEnoughReplicas => "NOT_ENOUGH_REPLICAS",
        ProduceRefusal::NotEnoughReplicasAfterAppend => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        ProduceRefusal::TimedOut => "REQUEST_TIMED_OUT",
        ProduceRefusal::LeadershipLost => "LEADERSHIP_LOST",
        ProduceRefusal::Offline => "PARTITION_OFFLINE",
        ProduceRefusal::DiskFull => "DISK_FULL",
        ProduceRefusal::Producer(_) => "OUT_OF_ORDER_SEQUENCE",
    }
}

fn follow_refusal(refusal: FollowRefusal) -> String {
    match refusal {
        FollowRefusal::FencedLeaderEpoch => "its epoch is behind".to_owned(),
        FollowRefusal::UnknownLeaderEpoch => "its epoch is ahead".to_owned(),
        FollowRefusal::NotLeader => "not the leader".to_owned(),
        FollowRefusal::UnknownPartition => "no replica".to_owned(),
        FollowRefusal::OutOfRange { log_start } => {
            format!("out of range, the log starts at {log_start}")
        }
        FollowRefusal::StaleBrokerEpoch => "it has registered again since".to_owned(),
        FollowRefusal::Offline => "the disk failed".to_owned(),
    }
}
