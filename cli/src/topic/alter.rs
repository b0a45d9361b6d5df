//! `ottla topic alter`: options set and unset while the topic is used.

use super::{each_once, key_value, to_json};
use crate::connection::Connection;
use crate::output::{self, Format};
use ottla_client::{Admin, TopicChange, v1};
use std::collections::BTreeMap;

/// Change the options of a topic.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("change").required(true).multiple(true),
    after_help = "\
Examples:
  ottla topic alter orders --config retention.ms=3600000
  ottla topic alter orders --config cleanup.policy=compact --delete-config retention.ms"
)]
pub(super) struct Alter {
    name: String,

    /// An option to set. May be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value, group = "change")]
    configs: Vec<(String, String)>,

    /// An option to put back to its default. May be repeated.
    #[arg(long = "delete-config", value_name = "KEY", group = "change")]
    delete_configs: Vec<String>,

    /// Check everything, change nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(admin: &Admin, args: Alter, format: Format) -> anyhow::Result<()> {
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

fn altered(topic: &v1::TopicMetadata, dry_run: bool) -> String {
    let configs: BTreeMap<_, _> = topic.configs.iter().collect();
    let pairs: Vec<String> = configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let options =
        if pairs.is_empty() { "all at their defaults".to_owned() } else { pairs.join(" ") };
    let what = if dry_run { "would have" } else { "has" };
    format!("topic {} {what} options: {options}", topic.name)
}
