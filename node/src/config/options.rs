//! The options by name, and how each is written in an environment variable or a
//! flag.

use super::ConfigError;

/// How an option is written in an environment variable or a flag.
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    /// `one,two`
    List,
    /// `1=host:port,2=host:port`
    Voters,
}

pub(super) const OPTIONS: [(&str, Kind); 28] = [
    ("node_id", Kind::Number),
    ("cluster_id", Kind::Text),
    ("data_dir", Kind::Text),
    ("extra_data_dirs", Kind::List),
    ("listen", Kind::Text),
    ("advertise", Kind::Text),
    ("http_listen", Kind::Text),
    ("rack", Kind::Text),
    ("voters", Kind::Voters),
    ("log_format", Kind::Text),
    ("log_level", Kind::Text),
    ("dev", Kind::Flag),
    ("replica_lag_max_ms", Kind::Number),
    ("heartbeat_interval_ms", Kind::Number),
    ("session_timeout_ms", Kind::Number),
    ("election_timeout_min_ms", Kind::Number),
    ("election_timeout_max_ms", Kind::Number),
    ("raft_heartbeat_ms", Kind::Number),
    ("max_in_flight_produce_bytes", Kind::Number),
    ("log_retention_check_ms", Kind::Number),
    ("log_flush_check_ms", Kind::Number),
    ("catch_up_bytes_per_second", Kind::Number),
    ("reassignment_bytes_per_second", Kind::Number),
    ("hot_tail_bytes", Kind::Number),
    ("log_cleaner_backoff_ms", Kind::Number),
    ("log_cleaner_bytes_per_second", Kind::Number),
    ("log_cleaner_key_map_bytes", Kind::Number),
    ("shutdown_timeout_ms", Kind::Number),
];

/// The value of an option that was written as text.
pub(super) fn typed(
    option: &'static str,
    kind: &Kind,
    text: &str,
) -> Result<toml::Value, ConfigError> {
    let invalid = |expected: &str| ConfigError::Invalid {
        option,
        message: format!("`{text}` is not {expected}"),
    };
    Ok(match kind {
        Kind::Text => toml::Value::String(text.to_owned()),
        Kind::Number => toml::Value::Integer(text.parse().map_err(|_| invalid("a number"))?),
        Kind::Flag => toml::Value::Boolean(text.parse().map_err(|_| invalid("true or false"))?),
        Kind::List => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            toml::Value::Array(parts.map(|part| part.to_owned().into()).collect())
        }
        Kind::Voters => {
            let mut table = toml::Table::new();
            for pair in text.split(',') {
                let (id, address) =
                    pair.split_once('=').ok_or_else(|| invalid("ID=HOST:PORT[,…]"))?;
                table.insert(id.trim().to_owned(), address.trim().to_owned().into());
            }
            toml::Value::Table(table)
        }
    })
}
