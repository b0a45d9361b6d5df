//! `ottla backup`: topics, their options and groups' offsets, out to files and back.
//!
//! Not its job: copies of a node's disk, which replicas are for.

mod batches;
mod check;
mod copied;
mod create;
mod error;
mod fill;
mod manifest;
mod mapping;
mod restore;
mod source;
mod target;
mod verify;

use crate::output::Format;
use clap::Subcommand;
use error::BackupError;
use manifest::TopicEntry;
use ottla_client::{Admin, v1};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// What the names of topics begin with that are the nodes' own.
const INTERNAL_PREFIX: &str = "__";

/// Copy topics, their options, and how far groups are, to files and back.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(create::Create),
    Restore(restore::Restore),
    Verify(verify::Verify),
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::Create(args) => args.connection.format,
            Command::Restore(args) => args.connection.format,
            Command::Verify(args) => args.format,
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Create(args) => create::run(&args).await,
        Command::Restore(args) => restore::run(args).await,
        Command::Verify(args) => tokio::task::block_in_place(|| verify::run(&args)),
    }
}

/// Which topics and groups.
#[derive(clap::Args)]
struct Selection {
    /// Topics whose whole name matches this regular expression. May be repeated. Default:
    /// all.
    #[arg(long = "topic", value_name = "PATTERN", value_parser = pattern)]
    topics: Vec<Regex>,

    /// Groups whose whole name matches this regular expression. May be repeated. Default:
    /// all that are in one of the topics.
    #[arg(long = "group", value_name = "PATTERN", value_parser = pattern)]
    groups: Vec<Regex>,
}

/// As a subscription's: the whole name has to match.
fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{text})$")).map_err(|error| error.to_string())
}

impl Selection {
    fn topics<'a>(&self, all: impl Iterator<Item = &'a str>) -> Result<Vec<&'a str>, BackupError> {
        select(&self.topics, "topic", all)
    }

    fn groups<'a>(&self, all: impl Iterator<Item = &'a str>) -> Result<Vec<&'a str>, BackupError> {
        select(&self.groups, "group", all)
    }
}

/// A pattern that matches nothing is a mistake: whoever gave it would miss something.
fn select<'a>(
    patterns: &[Regex],
    what: &'static str,
    all: impl Iterator<Item = &'a str>,
) -> Result<Vec<&'a str>, BackupError> {
    let all: Vec<&str> = all.collect();
    let useless = patterns.iter().find(|pattern| !all.iter().any(|name| pattern.is_match(name)));
    if let Some(pattern) = useless {
        let pattern = pattern.as_str().trim_start_matches("^(?:").trim_end_matches(")$").to_owned();
        return Err(BackupError::NoMatch { what, pattern });
    }
    let is_chosen =
        |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| pattern.is_match(name));
    Ok(all.into_iter().filter(|name| is_chosen(name)).collect())
}

/// Options that are set on the cluster.
async fn cluster_options(admin: &Admin) -> anyhow::Result<BTreeMap<String, String>> {
    let options = admin.describe_config(None).await?.into_iter();
    let set = options.filter(|option| option.source() == v1::ConfigSource::Cluster);
    Ok(set.filter_map(|option| Some((option.name, option.value?))).collect())
}

/// Such as `2 topics, 5 partitions, 1200 records, 3400 bytes, 1 groups`.
fn summary(topics: &[TopicEntry], groups: usize) -> String {
    let partitions: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    let records: u64 = topics.iter().map(TopicEntry::records).sum();
    let bytes: u64 = topics.iter().map(TopicEntry::bytes).sum();
    let topics = topics.len();
    format!(
        "{topics} topics, {partitions} partitions, {records} records, {bytes} bytes, {groups} groups"
    )
}

fn topics_json(topics: &[TopicEntry]) -> Vec<Value> {
    let topic = |topic: &TopicEntry| {
        json!({
            "name": topic.name,
            "partitions": topic.partitions.len(),
            "replication_factor": topic.replication_factor,
            "records": topic.records(),
            "bytes": topic.bytes(),
        })
    };
    topics.iter().map(topic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(patterns: &[&str]) -> Result<Vec<&'static str>, String> {
        let patterns: Vec<Regex> =
            patterns.iter().map(|text| pattern(text).expect("a pattern")).collect();
        let all = ["orders", "orders-eu", "refunds"];
        select(&patterns, "topic", all.into_iter()).map_err(|error| error.to_string())
    }

    #[test]
    fn patterns_match_whole_names_and_must_match_something() {
        assert_eq!(chosen(&[]), Ok(vec!["orders", "orders-eu", "refunds"]));
        assert_eq!(chosen(&["orders"]), Ok(vec!["orders"]));
        assert_eq!(chosen(&["refunds|x", "orders.+"]), Ok(vec!["orders-eu", "refunds"]));
        assert_eq!(chosen(&["orders", "order"]), Err("no topic matches order".to_owned()));
        assert!(pattern("(").is_err());
    }
}
