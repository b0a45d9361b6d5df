//! `ottla topic`: create, list, describe, alter, delete, elect, reassign.

mod alter;
mod delete_records;
mod elect;
mod reassign;

pub(crate) use reassign::status_json as reassignments_json;

use crate::connection::Connection;
use crate::output::{self, Format, list, table};
use clap::Subcommand;
use ottla_client::{NewTopic, TopicDescription, v1};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

/// Create, list, describe, alter and delete topics; elect leaders; move partitions.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Describe(Describe),
    Alter(alter::Alter),
    Delete(Delete),
    DeleteRecords(delete_records::DeleteRecords),
    Elect(elect::Elect),
    Reassign(reassign::Reassign),
}

/// Create a topic.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla topic create orders --partitions 4 --replication-factor 3
  ottla topic create metrics --partitions 12 --replication-factor 3 \\
      --config min.insync.replicas=2 --config durability=memory")]
struct Create {
    /// 1 to 249 of [A-Za-z0-9._-].
    name: String,

    /// Number of partitions.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,

    /// Replicas of each partition. Default: 3, or all nodes if they are fewer.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    replication_factor: Option<u32>,

    /// An option of the topic, such as retention.ms or cleanup.policy;
    /// `ottla topic describe` shows all. May be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    configs: Vec<(String, String)>,

    /// Check everything, create nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    connection: Connection,
}

/// List all topics.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla topic list
  ottla topic list --format json | jq -r '.topics[].name'")]
struct List {
    #[command(flatten)]
    connection: Connection,
}

/// Show a topic's partitions, replicas and options.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla topic describe orders
  ottla topic describe orders --format json")]
struct Describe {
    name: String,

    #[command(flatten)]
    connection: Connection,
}

/// Delete a topic and everything in it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla topic delete orders")]
struct Delete {
    name: String,

    #[command(flatten)]
    connection: Connection,
}

impl Args {
    fn connection(&self) -> &Connection {
        match &self.command {
            Command::Create(args) => &args.connection,
            Command::List(args) => &args.connection,
            Command::Describe(args) => &args.connection,
            Command::Alter(args) => &args.connection,
            Command::Delete(args) => &args.connection,
            Command::DeleteRecords(args) => &args.connection,
            Command::Elect(args) => &args.connection,
            Command::Reassign(args) => &args.connection,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.connection().format
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let format = args.format();
    let admin = args.connection().client().await?.admin();
    match args.command {
        Command::Create(args) => {
            let dry_run = args.dry_run;
            let topic = admin.create_topic(new_topic(args)?).await?;
            match format {
                Format::Json => output::json(&to_json(&topic))?,
                Format::Text => output::line(&created(&topic, dry_run))?,
            }
        }
        Command::List(_) => {
            let topics = admin.list_topics().await?;
            match format {
                Format::Json => output::json(&json!({ "topics": summaries(&topics) }))?,
                Format::Text => output::line(&list_text(&topics))?,
            }
        }
        Command::Describe(args) => {
            let described = admin.describe_topic(&args.name).await?;
            match format {
                Format::Json => output::json(&describe_json(&described))?,
                Format::Text => output::line(&describe_text(&described))?,
            }
        }
        Command::Alter(args) => alter::run(&admin, args, format).await?,
        Command::DeleteRecords(args) => delete_records::run(&admin, args, format).await?,
        Command::Elect(args) => elect::run(&admin, args, format).await?,
        Command::Reassign(args) => reassign::run(&admin, args, format).await?,
        Command::Delete(args) => {
            admin.delete_topic(&args.name).await?;
            match format {
                Format::Json => output::json(&json!({ "deleted": args.name }))?,
                Format::Text => output::line(&format!("deleted topic {}", args.name))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn new_topic(args: Create) -> anyhow::Result<NewTopic> {
    Ok(NewTopic {
        name: args.name,
        partitions: args.partitions,
        // The cluster's default.
        replication_factor: args.replication_factor.unwrap_or(0),
        configs: each_once(args.configs)?,
        validate_only: args.dry_run,
    })
}

pub(crate) fn each_once(pairs: Vec<(String, String)>) -> anyhow::Result<HashMap<String, String>> {
    let mut configs = HashMap::new();
    for (key, value) in pairs {
        if configs.insert(key.clone(), value).is_some() {
            anyhow::bail!("--config {key} is given twice");
        }
    }
    Ok(configs)
}

pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not of the form KEY=VALUE".to_owned()),
    }
}

fn created(topic: &v1::TopicMetadata, dry_run: bool) -> String {
    let what = if dry_run { "would create" } else { "created" };
    let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    let partitions = topic.partitions.len();
    format!("{what} topic {}: partitions {partitions}, replication factor {replicas}", topic.name)
}

fn list_text(topics: &[v1::TopicSummary]) -> String {
    let mut rows = vec![vec![
        "NAME".to_owned(),
        "PARTITIONS".to_owned(),
        "REPLICATION".to_owned(),
        "ID".to_owned(),
    ]];
    rows.extend(topics.iter().map(|topic| {
        vec![
            topic.name.clone(),
            topic.partitions.to_string(),
            topic.replication_factor.to_string(),
            uuid(&topic.topic_id),
        ]
    }));
    table(&rows)
}

pub(crate) fn summaries(topics: &[v1::TopicSummary]) -> Vec<Value> {
    let summary = |topic: &v1::TopicSummary| {
        json!({
            "name": topic.name,
            "topic_id": uuid(&topic.topic_id),
            "partitions": topic.partitions,
            "replication_factor": topic.replication_factor,
        })
    };
    topics.iter().map(summary).collect()
}

fn describe_text(described: &TopicDescription) -> String {
    let topic = &described.topic;
    let head = format!("topic {}  id {}", topic.name, uuid(&topic.topic_id));
    let mut options = vec![["OPTION", "VALUE", "SOURCE"].map(str::to_owned).to_vec()];
    options.extend(
        described.options.iter().map(|option| {
            vec![option.name.clone(), option.value.clone(), source(option).to_owned()]
        }),
    );
    let heading = ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "ELIGIBLE"];
    let mut rows = vec![heading.iter().map(|cell| (*cell).to_owned()).collect()];
    rows.extend(topic.partitions.iter().map(|partition| {
        vec![
            partition.partition.to_string(),
            partition.leader_id.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            partition.leader_epoch.to_string(),
            list(&partition.replicas),
            or_none(&partition.isr),
            or_none(&partition.elr),
        ]
    }));
    format!("{head}\n\n{}\n\n{}", table(&options), table(&rows))
}

/// Nodes, or a word where there are none.
fn or_none(nodes: &[u64]) -> String {
    if nodes.is_empty() { "none".to_owned() } else { list(nodes) }
}

fn source(option: &v1::TopicOption) -> &'static str {
    match option.source() {
        v1::topic_option::Source::Topic => "topic",
        v1::topic_option::Source::Cluster => "cluster",
        v1::topic_option::Source::Default | v1::topic_option::Source::Unspecified => "default",
    }
}

/// A topic with every option's value and whether it was set on it (`topic`), on the
/// cluster (`cluster`), or not at all (`default`).
pub(crate) fn describe_json(described: &TopicDescription) -> Value {
    let mut json = to_json(&described.topic);
    let option = |option: &v1::TopicOption| {
        (option.name.clone(), json!({ "value": option.value, "source": source(option) }))
    };
    json["options"] = Value::Object(described.options.iter().map(option).collect());
    json
}

fn to_json(topic: &v1::TopicMetadata) -> Value {
    json!({
        "name": topic.name,
        "topic_id": uuid(&topic.topic_id),
        "configs": topic.configs.iter().collect::<BTreeMap<_, _>>(),
        "partitions": topic.partitions.iter().map(partition_json).collect::<Vec<_>>(),
    })
}

fn partition_json(partition: &v1::PartitionMetadata) -> Value {
    json!({
        "partition": partition.partition,
        "leader": partition.leader_id,
        "leader_epoch": partition.leader_epoch,
        "partition_epoch": partition.partition_epoch,
        "replicas": partition.replicas,
        "isr": partition.isr,
        "elr": partition.elr,
        "last_known_elr": partition.last_known_elr,
        "recovering": partition.recovering,
        "adding_replicas": partition.adding_replicas,
        "removing_replicas": partition.removing_replicas,
    })
}

fn uuid(bytes: &[u8]) -> String {
    ottla_proto::TopicId::from_wire(bytes).map_or_else(|| "?".to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(key_value("a").is_err() && key_value("=b").is_err());
    }

    #[test]
    fn a_partition_without_leader_is_shown_as_such() {
        let partition = v1::PartitionMetadata {
            replicas: vec![1, 2, 3],
            elr: vec![2],
            ..v1::PartitionMetadata::default()
        };
        let topic = v1::TopicMetadata {
            name: "orders".to_owned(),
            topic_id: vec![0; 16].into(),
            partitions: vec![partition],
            configs: HashMap::from([("durability".to_owned(), "memory".to_owned())]),
        };
        let option = |name: &str, value: &str, source: v1::topic_option::Source| v1::TopicOption {
            name: name.to_owned(),
            value: value.to_owned(),
            source: source.into(),
        };
        let options = vec![
            option("durability", "memory", v1::topic_option::Source::Topic),
            option("segment.ms", "604800000", v1::topic_option::Source::Default),
        ];
        let described = TopicDescription { topic, options };
        let text = describe_text(&described);
        assert!(text.contains("durability  memory     topic\n"), "{text}");
        assert!(text.contains("segment.ms  604800000  default\n"), "{text}");
        assert!(text.ends_with("0          none    0      1,2,3     none  2"), "{text}");
        let json = describe_json(&described);
        assert!(json["partitions"][0]["leader"].is_null());
        assert_eq!(json["configs"], json!({ "durability": "memory" }));
        assert_eq!(
            json["options"]["segment.ms"],
            json!({ "value": "604800000", "source": "default" })
        );
    }
}
