//! `ottla backup verify`: every byte of a backup, without a cluster.

use super::check::check;
use super::manifest::Manifest;
use super::{summary, topics_json};
use crate::failure;
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code where nothing could be said: there is no backup.
const CANNOT_TELL: u8 = 2;

/// Check a backup: every file, every batch, and the manifest.
///
/// Exit code: 0 if all is as it was written, 1 if something is damaged (each file is named,
/// with the byte), 2 if there is no backup whose manifest can be read.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla backup verify /backups/monday
  ottla backup verify /backups/monday --format json | jq .clean

A partition's files are segments: `ottla log dump /backups/monday/topics/orders/0` shows them.")]
pub(super) struct Verify {
    /// A backup.
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

pub(super) fn run(args: &Verify) -> anyhow::Result<ExitCode> {
    let manifest = match Manifest::load(&args.dir) {
        Ok(manifest) => manifest,
        Err(error) => {
            failure::report(&error, args.format);
            return Ok(ExitCode::from(CANNOT_TELL));
        }
    };
    let progress = Progress::new(Unit::Bytes, Some(manifest.bytes()), true);
    let damages = check(&args.dir, &manifest, &manifest.topics, &progress).damages;
    drop(progress);
    match args.format {
        Format::Text => {
            for damage in &damages {
                output::line(&format!("damage: {damage}"))?;
            }
            let what = summary(&manifest.topics, manifest.groups.len());
            let (when, whose) = (&manifest.created_at, &manifest.cluster_id);
            let found = match damages.len() {
                0 => "clean".to_owned(),
                damages => format!("{damages} damaged partitions"),
            };
            output::line(&format!("{what} of cluster {whose} at {when}: {found}"))?;
        }
        Format::Json => {
            let damage = |damage: &super::error::Damage| json!({ "path": damage.path, "position": damage.position, "reason": damage.reason });
            output::json(&json!({
                "clean": damages.is_empty(),
                "created_at": manifest.created_at,
                "cluster_id": manifest.cluster_id,
                "topics": topics_json(&manifest.topics),
                "groups": manifest.groups.iter().map(|group| &group.group).collect::<Vec<_>>(),
                "damages": damages.iter().map(damage).collect::<Vec<Value>>(),
            }))?;
        }
    }
    Ok(if damages.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
