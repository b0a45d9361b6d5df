//! `ottla cluster config`: options of the cluster and of nodes, shown and changed.

use crate::connection::Connection;
use crate::output::{self, Format, table};
use clap::ArgAction;
use ottla_client::{ConfigChange, v1};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

/// Show the options of the cluster or of a node, or change them while nodes run.
///
/// Options of the cluster are the defaults of every node and of every topic. What is
/// set on a node, or a topic, comes first; then what is set on the cluster; then, for a
/// node, its flags, environment and configuration file. Options marked `restart` are
/// read from there only, when the node starts.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla cluster config                                        the cluster's options
  ottla cluster config --node 2                               and a node's
  ottla cluster config --set replica_lag_max_ms=5000          for every node
  ottla cluster config --node 2 --set log_level=debug --unset replica_lag_max_ms
  ottla cluster config --set retention.ms=86400000            for every topic")]
pub(super) struct Config {
    /// The node; otherwise the cluster.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    node: Option<u64>,

    /// An option to set. May be repeated: all of a change is made, or nothing.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = crate::topic::key_value)]
    set: Vec<(String, String)>,

    /// An option that is not to be set here any more. May be repeated.
    #[arg(long, value_name = "KEY", action = ArgAction::Append)]
    unset: Vec<String>,

    /// Check everything, change nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) async fn run(args: Config) -> anyhow::Result<ExitCode> {
    let admin = args.connection.client().await?.admin();
    let (node, format) = (args.node, args.connection.format);
    if args.set.is_empty() && args.unset.is_empty() {
        let options = admin.describe_config(node).await?;
        match format {
            Format::Text => output::line(&shown_text(&options))?,
            Format::Json => output::json(&shown_json(node, &options))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut set = HashMap::new();
    for (name, value) in args.set {
        if set.insert(name.clone(), value).is_some() {
            anyhow::bail!("--set {name} is given twice");
        }
    }
    let change = ConfigChange { node, set, unset: args.unset, validate_only: args.dry_run };
    let options = admin.alter_config(change).await?;
    match format {
        Format::Text => output::line(&altered_text(node, &options, args.dry_run))?,
        Format::Json => output::json(&json!({ "node": node, "set": options }))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn altered_text(node: Option<u64>, options: &BTreeMap<String, String>, dry_run: bool) -> String {
    let who = node.map_or_else(|| "the cluster".to_owned(), |node| format!("node {node}"));
    let what = if dry_run { "would have" } else { "has" };
    let pairs: Vec<String> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let set = if pairs.is_empty() { "no options".to_owned() } else { pairs.join(" ") };
    format!("{who} {what} set: {set}")
}

fn shown_text(options: &[v1::ConfigOption]) -> String {
    let mut rows = vec![["OPTION", "VALUE", "SOURCE", "CHANGES"].map(str::to_owned).to_vec()];
    rows.extend(options.iter().map(|option| {
        let unset = if option.source() == v1::ConfigSource::Unspecified { "?" } else { "-" };
        vec![
            option.name.clone(),
            option.value.clone().unwrap_or_else(|| unset.to_owned()),
            source(option).to_owned(),
            if option.dynamic { "at once" } else { "restart" }.to_owned(),
        ]
    }));
    table(&rows)
}

pub(super) fn shown_json(node: Option<u64>, options: &[v1::ConfigOption]) -> Value {
    let option = |option: &v1::ConfigOption| {
        let shown = json!({
            "value": option.value,
            "source": source(option),
            "dynamic": option.dynamic,
            "unit": option.unit,
            "takes": option.takes,
        });
        (option.name.clone(), shown)
    };
    let options: serde_json::Map<String, Value> = options.iter().map(option).collect();
    json!({ "node": node, "options": options })
}

fn source(option: &v1::ConfigOption) -> &'static str {
    match option.source() {
        v1::ConfigSource::Default => "default",
        v1::ConfigSource::File => "file",
        v1::ConfigSource::Environment => "environment",
        v1::ConfigSource::Flag => "flag",
        v1::ConfigSource::Cluster => "cluster",
        v1::ConfigSource::Node => "node",
        // The node does not answer, and nobody else knows its file.
        v1::ConfigSource::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_nobody_knows_is_shown_as_such() {
        let option = |name: &str, value: Option<&str>, source: v1::ConfigSource, dynamic| {
            let (name, value) = (name.to_owned(), value.map(str::to_owned));
            let (unit, takes) = ("ms".to_owned(), "1 to 9".to_owned());
            v1::ConfigOption { name, value, source: source.into(), dynamic, unit, takes }
        };
        let options = [
            option("a", Some("5"), v1::ConfigSource::Node, true),
            option("rack", None, v1::ConfigSource::Default, false),
            option("z", None, v1::ConfigSource::Unspecified, false),
        ];
        let text = shown_text(&options);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "a       5      node     at once",
                "rack    -      default  restart",
                "z       ?      unknown  restart",
            ]
        );
        let json = shown_json(Some(2), &options);
        assert_eq!(json["node"], 2);
        assert_eq!(
            json["options"]["a"],
            json!({ "value": "5", "source": "node", "dynamic": true, "unit": "ms", "takes": "1 to 9" })
        );
        assert!(json["options"]["z"]["value"].is_null());
    }

    #[test]
    fn a_change_tells_what_is_set_then() {
        let set = BTreeMap::from([("a".to_owned(), "5".to_owned())]);
        assert_eq!(altered_text(Some(2), &set, false), "node 2 has set: a=5");
        let none = BTreeMap::new();
        assert_eq!(altered_text(None, &none, true), "the cluster would have set: no options");
    }
}
