//! `ottla topic delete-records`: the start of a partition, given up by hand.

use crate::connection::Connection;
use crate::output::{self, Format};
use ottla_client::Admin;
use serde_json::json;
use std::str::FromStr;

/// Delete the oldest records of a partition, for ever.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla topic delete-records orders --partition 0 --before 1200
  ottla topic delete-records orders --partition 0 --before end")]
pub(super) struct DeleteRecords {
    name: String,

    #[arg(long, value_name = "P")]
    partition: u32,

    /// Records below this offset go; `end`: all that are committed.
    #[arg(long, value_name = "OFFSET|end")]
    before: Before,

    #[command(flatten)]
    pub(super) connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Offset(u64),
    End,
}

impl FromStr for Before {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "end" => Ok(Self::End),
            _ => text.parse().map(Self::Offset).map_err(|_| "is neither an offset nor end".into()),
        }
    }
}

pub(super) async fn run(admin: &Admin, args: DeleteRecords, format: Format) -> anyhow::Result<()> {
    let before = match args.before {
        Before::Offset(offset) => Some(offset),
        Before::End => None,
    };
    let (name, partition) = (&args.name, args.partition);
    let start = admin.delete_records(name, partition, before).await?;
    match format {
        Format::Json => {
            output::json(&json!({ "topic": name, "partition": partition, "low_watermark": start }))?
        }
        Format::Text => {
            output::line(&format!(
                "{name}-{partition} starts at {start} on every in-sync replica"
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_or_the_end() {
        assert_eq!("12".parse(), Ok(Before::Offset(12)));
        assert_eq!("end".parse(), Ok(Before::End));
        assert!("-1".parse::<Before>().is_err());
    }
}
