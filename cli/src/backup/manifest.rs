//! `manifest.json`: what a backup holds. Written last, so that what lacks it is no backup.
//!
//! Its format is in docs/formats.md.

use super::error::BackupError;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// The format that this release writes and reads.
pub(super) const FORMAT: u32 = 1;

const NAME: &str = "manifest.json";

/// Most bytes of a manifest: a million partitions and offsets of groups.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// When it was begun, in UTC.
    pub(super) created_at: String,
    /// The release that wrote it.
    pub(super) ottla_version: String,
    pub(super) cluster_id: String,
    /// Options set on the cluster: defaults of its nodes and topics.
    pub(super) cluster_options: BTreeMap<String, String>,
    pub(super) topics: Vec<TopicEntry>,
    pub(super) groups: Vec<GroupEntry>,
    /// Of this file as it is with an empty string here.
    pub(super) sha256: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicEntry {
    pub(super) name: String,
    /// As it was; a restored topic has another.
    pub(super) topic_id: String,
    pub(super) replication_factor: u32,
    /// Options set on the topic.
    pub(super) options: BTreeMap<String, String>,
    /// All of them, by number from 0.
    pub(super) partitions: Vec<PartitionEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartitionEntry {
    pub(super) partition: u32,
    /// Offsets of the records that count: from the first, and below the second.
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) records: u64,
    /// The largest timestamp of any record, in milliseconds since the Unix epoch.
    pub(super) newest_timestamp_ms: Option<i64>,
    /// In the order of their offsets.
    pub(super) files: Vec<FileEntry>,
}

/// A file of whole batches, as in a segment, and named as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    /// The first batch's offset, which is the file's name.
    pub(super) base_offset: u64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupEntry {
    pub(super) group: String,
    pub(super) offsets: Vec<OffsetEntry>,
}

/// Where a group goes on, as the cluster had it. Restored it is another offset: that of
/// the same record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OffsetEntry {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) metadata: String,
}

impl TopicEntry {
    pub(super) fn records(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.records).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.partitions.iter().map(PartitionEntry::bytes).sum()
    }
}

impl PartitionEntry {
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Manifest {
    pub(super) fn bytes(&self) -> u64 {
        self.topics.iter().map(TopicEntry::bytes).sum()
    }

    /// As text, with the checksum of the rest.
    fn sealed(&self) -> serde_json::Result<String> {
        let mut sealed = Self { sha256: String::new(), ..self.clone() };
        sealed.sha256 = hex(&Sha256::digest(serde_json::to_string_pretty(&sealed)?));
        serde_json::to_string_pretty(&sealed)
    }

    /// Makes a backup of what lies in `dir`: all of it is on the disk then.
    pub(super) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(NAME);
        let writing = || format!("writing {}", path.display());
        let text = self.sealed().with_context(writing)?;
        let write = || {
            let new = path.with_extension("json.tmp");
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(dir)?.sync_all()
        };
        write().with_context(writing)
    }

    pub(super) fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(NAME);
        let text = match read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(BackupError::NoManifest(dir.to_owned()).into());
            }
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        Ok(Self::parse(&path, &text)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let damaged = |reason: String| BackupError::Manifest { path: path.to_owned(), reason };
        // A later format may have other fields: it is named, and not called damaged.
        let Version { format } =
            serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        if format != u64::from(FORMAT) {
            let path = path.to_owned();
            return Err(BackupError::Format { path, found: format, expected: FORMAT });
        }
        let manifest: Self =
            serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let sealed = manifest.sealed().map_err(|error| damaged(error.to_string()))?;
        if sealed != text {
            return Err(damaged("its sha256 is not that of its contents".to_owned()));
        }
        let bad = manifest.topics.iter().find(|topic| !is_name(&topic.name));
        match bad {
            Some(topic) => Err(damaged(format!("{:?} is no name of a topic", topic.name))),
            None => Ok(manifest),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = fs::metadata(path)?.len();
    if bytes > MAX_BYTES {
        let what = format!("{bytes} bytes, a manifest has {MAX_BYTES} at most");
        return Err(io::Error::new(ErrorKind::InvalidData, what));
    }
    fs::read_to_string(path)
}

/// What can be a directory's name wherever it came from.
fn is_name(topic: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    !topic.is_empty() && topic.chars().all(is_plain) && ![".", ".."].contains(&topic)
}

/// Where a partition's files are.
pub(super) fn partition_dir(dir: &Path, topic: &str, partition: u32) -> PathBuf {
    dir.join("topics").join(topic).join(partition.to_string())
}

/// As segments are named, so that `ottla log dump` reads them.
pub(super) fn file_name(base_offset: u64) -> String {
    format!("{base_offset:020}.log")
}

pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn manifest(topics: Vec<TopicEntry>) -> Manifest {
        Manifest {
            format: FORMAT,
            created_at: "2026-01-31T12:00:00.000Z".to_owned(),
            ottla_version: "0.1.0".to_owned(),
            cluster_id: "c".to_owned(),
            cluster_options: BTreeMap::new(),
            topics,
            groups: vec![GroupEntry {
                group: "billing".to_owned(),
                offsets: vec![OffsetEntry {
                    topic: "orders".to_owned(),
                    partition: 0,
                    offset: 7,
                    metadata: "so far".to_owned(),
                }],
            }],
            sha256: String::new(),
        }
    }

    fn topic(name: &str) -> TopicEntry {
        TopicEntry {
            name: name.to_owned(),
            topic_id: String::new(),
            replication_factor: 3,
            options: BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]),
            partitions: Vec::new(),
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        let none = Manifest::load(dir.path()).expect_err("none").to_string();
        assert!(none.contains("no manifest.json"), "{none}");
        let manifest = manifest(vec![topic("orders")]);
        manifest.save(dir.path()).expect("saved");
        let loaded = Manifest::load(dir.path()).expect("loaded");
        assert_eq!(loaded.sha256.len(), 64);
        assert_eq!(Manifest { sha256: String::new(), ..loaded }, manifest);
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1, "nothing is left over");
    }

    /// Every bit of the file counts.
    #[test]
    fn a_flipped_bit_is_found() {
        let path = Path::new("manifest.json");
        let text = manifest(vec![topic("orders")]).sealed().expect("JSON");
        Manifest::parse(path, &text).expect("as it was written");
        for position in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[position] ^= 1;
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            let error = Manifest::parse(path, &flipped).expect_err(&flipped).to_string();
            assert!(error.contains("manifest.json"), "{error}");
        }
    }

    #[test]
    fn a_later_format_and_names_that_lead_elsewhere_are_refused() {
        let path = Path::new("m");
        let later = r#"{"format": 2, "something": "new"}"#;
        let error = Manifest::parse(path, later).expect_err("later").to_string();
        assert_eq!(error, "m: format 2, this release reads 1");
        for name in ["..", ".", "", "a/b", "/etc"] {
            let text = manifest(vec![topic(name)]).sealed().expect("JSON");
            let error = Manifest::parse(path, &text).expect_err(name).to_string();
            assert!(error.contains("no name of a topic"), "{error}");
        }
    }
}
