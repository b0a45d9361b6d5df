//! `ottla topic alter`: options set and unset, partitions added, while the topic
//! is used.

use super::{each_once, key_value, to_json};
use crate::connection::Connection;
use crate::output::{self, Format};
use ottla_client::{Admin, Grown, TopicChange, v1};
use std::collections::BTreeMap;

/// Change the options of a topic, or add partitions to it.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("change").required(true).multiple(true),
    after_help = "\
Examples:
  ottla topic alter orders --config retention.ms=3600000
  ottla topic alter orders --config cleanup.policy=compact --delete-config retention.ms
  ottla topic alter orders --partitions 12"
)]
pub(super) struct Alter {
    name: String,

    /// An option to set. May be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value, group = "change")]
    configs: Vec<(String, String)>,

    /// An option to put back to its default. May be repeated.
    #[arg(long = "delete-config", value_name = "KEY", group = "change")]
    delete_configs: Vec<String>,

    /// How many partitions there are to be in all. They can only become more;
    /// as many as there are is no error. Which partition a key goes to follows
    /// from their number, so keys move.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        group = "change",
        conflicts_with_all = ["configs", "delete_configs"]
    )]
    partitions: Option<u32>,

    /// Check everything, change nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(admin: &Admin, args: Alter, format: Format) -> anyhow::Result<()> {
    if let Some(partitions) = args.partitions {
        return grow(admin, &args, partitions, format).await;
    }
    let change = TopicChange {
        set: each_once(args.configs)?,
        unset: args.delete_configs,
        validate_only: args.dry_run,
    };
    let topic = admin.alter_topic(&args.name, change).await?;
    match format {
        Format::Json => output::json(&to_json(&topic))?,
        Format::Text => output::line(&altered(&topic, args.dry_run))?,
    }
    Ok(())
}

async fn grow(admin: &Admin, args: &Alter, partitions: u32, format: Format) -> anyhow::Result<()> {
    let grown = admin.create_partitions(&args.name, partitions, args.dry_run).await?;
    match format {
        Format::Json => {
            let mut json = to_json(&grown.topic);
            json["added"] = grown.added.into();
            output::json(&json)?;
        }
        Format::Text => output::line(&grown_text(&grown, args.dry_run))?,
    }
    Ok(())
}

fn grown_text(grown: &Grown, dry_run: bool) -> String {
    let (name, all) = (&grown.topic.name, grown.topic.partitions.len());
    match grown.added {
        0 => format!("topic {name} has {all} partitions already"),
        added => {
            let what = if dry_run { "would have" } else { "has" };
            format!("topic {name} {what} {all} partitions, {added} of them new")
        }
    }
}

fn altered(topic: &v1::TopicMetadata, dry_run: bool) -> String {
    let configs: BTreeMap<_, _> = topic.configs.iter().collect();
    let pairs: Vec<String> = configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let options =
        if pairs.is_empty() { "all at their defaults".to_owned() } else { pairs.join(" ") };
    let what = if dry_run { "would have" } else { "has" };
    format!("topic {} {what} options: {options}", topic.name)
}
