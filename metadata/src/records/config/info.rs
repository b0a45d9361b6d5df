//! What there is to know of an option, whoever it belongs to: for lists of
//! options, such as those that are shown to operators.

/// An option as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionInfo {
    /// Its name.
    pub name: &'static str,
    /// What its numbers count; empty where it takes no number.
    pub unit: &'static str,
    /// Its value where nobody set it; `None`: none.
    pub default: Option<String>,
    /// The values that it takes, bounds included.
    pub takes: String,
    /// Whether it changes while a node runs. Otherwise the node's file says it,
    /// at the start.
    pub dynamic: bool,
}

/// The unit of a number, which is part of every such option's name.
pub(super) fn unit(name: &str) -> &'static str {
    const UNITS: [(&str, &str); 7] = [
        ("bytes_per_second", "bytes/s"),
        ("bytes", "bytes"),
        ("ms", "ms"),
        ("messages", "records"),
        ("replicas", "replicas"),
        ("max_connections", "connections"),
        ("requests_per_connection", "requests"),
    ];
    UNITS.iter().find(|(end, _)| name.ends_with(end)).map_or("", |(_, unit)| unit)
}
