//! Every byte of a backup's files, read and compared with what the manifest says of them.

use super::batches::BatchReader;
use super::error::Damage;
use super::manifest::{FileEntry, Manifest, PartitionEntry, TopicEntry, partition_dir};
use super::mapping::{Mapping, has_records};
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) damages: Vec<Damage>,
    /// By topic and partition: where the groups' offsets go.
    mappings: BTreeMap<(String, u32), Mapping>,
}

impl Checked {
    /// Where a group goes on in a partition restored.
    pub(super) fn offset(&self, topic: &str, partition: u32, offset: u64) -> Option<u64> {
        self.mappings.get(&(topic.to_owned(), partition))?.get(offset)
    }
}

/// Checks these topics of a backup. Blocks on the disk.
pub(super) fn check(
    dir: &Path,
    manifest: &Manifest,
    topics: &[TopicEntry],
    progress: &Progress,
) -> Checked {
    let mut checked = Checked::default();
    let mut wanted: BTreeMap<(&str, u32), Vec<u64>> = BTreeMap::new();
    for offset in manifest.groups.iter().flat_map(|group| &group.offsets) {
        wanted.entry((&offset.topic, offset.partition)).or_default().push(offset.offset);
    }
    for topic in topics {
        for entry in &topic.partitions {
            let offsets = wanted.remove(&(&*topic.name, entry.partition)).unwrap_or_default();
            let mut pass = Pass {
                dir: partition_dir(dir, &topic.name, entry.partition),
                mapping: Mapping::new(entry.from, offsets),
                records: 0,
                next_offset: 0,
                progress,
            };
            if let Err(damage) = pass.run(entry) {
                checked.damages.push(damage);
            }
            checked.mappings.insert((topic.name.clone(), entry.partition), pass.mapping);
        }
    }
    checked
}

/// One partition, from its first file to its last.
struct Pass<'a> {
    dir: PathBuf,
    mapping: Mapping,
    records: u64,
    /// No record may be below.
    next_offset: u64,
    progress: &'a Progress,
}

impl Pass<'_> {
    fn run(&mut self, entry: &PartitionEntry) -> Result<(), Damage> {
        for file in &entry.files {
            self.file(file)?;
        }
        let damage = |reason| Damage { path: self.dir.clone(), position: 0, reason };
        if self.records != entry.records {
            let (found, stated) = (self.records, entry.records);
            return Err(damage(format!("{found} records, the manifest states {stated}")));
        }
        if self.next_offset > entry.until {
            let (found, stated) = (self.next_offset, entry.until);
            return Err(damage(format!("records up to {found}, the manifest states {stated}")));
        }
        Ok(())
    }

    fn file(&mut self, entry: &FileEntry) -> Result<(), Damage> {
        let mut reader = BatchReader::open(&self.dir, entry)?;
        while let Some((header, batch)) = reader.next()? {
            if has_records(&header) {
                if header.base_offset < self.next_offset {
                    let (found, after) = (header.base_offset, self.next_offset);
                    return Err(reader.damage(format!("offset {found} after {after}")));
                }
                self.next_offset = header.next_offset();
            }
            let passed = self.mapping.pass(&header, &batch);
            self.records += passed.map_err(|reason| reader.damage(reason))?;
            self.progress.add(batch.len() as u64);
        }
        reader.check_end(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::batches::tests::{batch, placeholder, written};
    use crate::backup::manifest::{file_name, tests::manifest};
    use crate::progress::Unit;
    use std::fs;

    fn backup(dir: &Path) -> Manifest {
        let batches = [batch(4, &[0, 1, 2]), placeholder(7, 7), batch(8, &[0, 2])];
        let partition = PartitionEntry {
            partition: 0,
            from: 5,
            until: 11,
            records: 4,
            newest_timestamp_ms: Some(0),
            files: written(&partition_dir(dir, "orders", 0), &batches, 1),
        };
        manifest(vec![TopicEntry {
            name: "orders".to_owned(),
            topic_id: String::new(),
            replication_factor: 1,
            options: BTreeMap::new(),
            partitions: vec![partition],
        }])
    }

    fn checked(dir: &Path, manifest: &Manifest) -> Checked {
        let progress = Progress::new(Unit::Bytes, None, false);
        check(dir, manifest, &manifest.topics, &progress)
    }

    #[test]
    fn a_whole_backup_is_clean_and_says_where_groups_go_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut manifest = backup(dir.path());
        let good = checked(dir.path(), &manifest);
        assert_eq!(good.damages, []);
        // The group was at 7: the records at 5 and 6 were before that.
        assert_eq!(good.offset("orders", 0, 7), Some(2));
        assert_eq!(good.offset("refunds", 0, 7), None);
        manifest.topics[0].partitions[0].records = 5;
        let counted = checked(dir.path(), &manifest).damages;
        assert_eq!(counted[0].reason, "4 records, the manifest states 5");
        manifest.topics[0].partitions[0].records = 4;
        manifest.topics[0].partitions[0].until = 10;
        let beyond = checked(dir.path(), &manifest).damages;
        assert_eq!(beyond[0].reason, "records up to 11, the manifest states 10");
    }

    #[test]
    fn a_flipped_bit_is_named_and_so_are_files_in_a_wrong_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut manifest = backup(dir.path());
        let path = partition_dir(dir.path(), "orders", 0).join(file_name(8));
        let good = fs::read(&path).expect("read");
        let mut flipped = good.clone();
        flipped[70] ^= 1;
        fs::write(&path, flipped).expect("written");
        let damages = checked(dir.path(), &manifest).damages;
        assert_eq!(damages.len(), 1);
        assert_eq!(damages[0].path, path);
        assert!(damages[0].reason.starts_with("CRC-32C is"), "{}", damages[0]);
        fs::write(&path, good).expect("written");
        manifest.topics[0].partitions[0].files.reverse();
        let damages = checked(dir.path(), &manifest).damages;
        assert_eq!(damages[0].reason, "offset 4 after 11");
    }
}
