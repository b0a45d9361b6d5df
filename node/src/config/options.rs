//! How each option is written in an environment variable or a flag, and what the
//! table of options says of its value.

use super::ConfigError;
use ottla_metadata::records::{NodeDefault, NodeOption, NodeValue, node_options};

/// The value of an option that was written as text.
pub(super) fn typed(option: &NodeOption, text: &str) -> Result<toml::Value, ConfigError> {
    let invalid = |expected: &str| ConfigError::Invalid {
        option: option.name,
        message: format!("`{text}` is not {expected}"),
    };
    Ok(match option.value {
        NodeValue::Text | NodeValue::Word(_) | NodeValue::LogFilter => text.to_owned().into(),
        NodeValue::Number(..) | NodeValue::Limit(..) => {
            toml::Value::Integer(text.parse().map_err(|_| invalid("a number"))?)
        }
        NodeValue::Flag => {
            toml::Value::Boolean(text.parse().map_err(|_| invalid("true or false"))?)
        }
        NodeValue::List => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            toml::Value::Array(parts.map(|part| part.to_owned().into()).collect())
        }
        NodeValue::Voters => {
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

/// The value of an option that nobody set.
pub(super) fn default(option: &NodeOption) -> Option<toml::Value> {
    match option.default {
        NodeDefault::None => None,
        // Bounds are within what TOML holds.
        NodeDefault::Number(number) => i64::try_from(number).ok().map(toml::Value::Integer),
        NodeDefault::Text(text) => Some(text.to_owned().into()),
        NodeDefault::Flag(flag) => Some(flag.into()),
    }
}

/// Whether every number is within its bounds.
pub(super) fn check_bounds(table: &toml::Table) -> Result<(), ConfigError> {
    for option in node_options() {
        let Some(toml::Value::Integer(number)) = table.get(option.name) else { continue };
        let fits = u64::try_from(*number).is_ok_and(|number| option.check_bounds(number).is_ok());
        if !fits {
            let message = format!("{number} is not within {}", option.info().takes);
            return Err(ConfigError::Invalid { option: option.name, message });
        }
    }
    Ok(())
}
