//! `ottla topic elect`: a leader by hand.

use super::partition_json;
use crate::connection::Connection;
use crate::output::{self, Format};
use ottla_client::{Admin, Election, v1};
use serde_json::json;

/// Have a partition led by its preferred replica, or, if it has no leader, by
/// whatever replica is there.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla topic elect orders --partition 0
  ottla topic elect orders --partition 0 --unclean")]
pub(super) struct Elect {
    name: String,

    /// The partition.
    #[arg(long, value_name = "P")]
    partition: u32,

    /// Elect a replica that may lack acknowledged records, if nobody else can
    /// lead. What it lacks is lost for good.
    #[arg(long)]
    unclean: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(admin: &Admin, args: Elect, format: Format) -> anyhow::Result<()> {
    let election = if args.unclean { Election::Unclean } else { Election::Preferred };
    let elected = admin.elect_leader(&args.name, args.partition, election).await?;
    match format {
        Format::Json => output::json(&json!({
            "topic": args.name,
            "partition": partition_json(&elected.partition),
            "changed": elected.changed,
        }))?,
        Format::Text => output::line(&text(&args.name, &elected.partition, elected.changed))?,
    }
    Ok(())
}

fn text(topic: &str, partition: &v1::PartitionMetadata, changed: bool) -> String {
    let leader = partition.leader_id.map_or_else(|| "nobody".to_owned(), |id| format!("node {id}"));
    let how = if changed { "is now led" } else { "is led already" };
    format!("{topic}-{} {how} by {leader}, epoch {}", partition.partition, partition.leader_epoch)
}
