//! Which value each option has, and who gave it, for whoever asks.

use std::collections::BTreeMap;

/// Who gave an option its value. What is below comes before what is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody.
    Default,
    /// The configuration file.
    File,
    /// A variable of the environment.
    Environment,
    /// A flag of the command line.
    Flag,
}

/// A value, and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// As it would be written in an environment variable or a flag.
    pub value: String,
    /// Who gave it.
    pub origin: Origin,
}

/// The values of a configuration as text.
pub(super) fn shown(
    table: &toml::Table,
    origins: &BTreeMap<&'static str, Origin>,
) -> BTreeMap<&'static str, Given> {
    let given = |(&name, &origin): (&&'static str, &Origin)| {
        Some((name, Given { value: text(table.get(name)?), origin }))
    };
    origins.iter().filter_map(given).collect()
}

fn text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(parts) => parts.iter().map(text).collect::<Vec<_>>().join(","),
        toml::Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key}={}", text(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}
