//! Snapshots of the image as files: one file, replaced atomically, checked
//! before anything is believed.
//!
//! ```text
//! magic "OTTS" · version u8 · CRC-32C of the body u32 LE · body (MessagePack)
//! ```
//! The same bytes travel to a voter that is too far behind.

use super::incompatible::{Fact, Incompatible};
use super::types::{self, SnapshotMeta};
use crate::image::Image;
use bytes::Bytes;
use ottla_commitlog::Shared;
use ottla_commitlog::checkpoint;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

const MAGIC: &[u8; 4] = b"OTTS";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 9;
const FILE_NAME: &str = "snapshot";

/// Largest snapshot that is accepted from another voter, in bytes: far above
/// 10,000 partitions (about 2 MiB), and a bound on what a peer can make us hold.
pub(crate) const MAX_SNAPSHOT_BYTES: u64 = 512 * 1024 * 1024;

/// A whole encoded snapshot.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotBytes(pub(crate) Bytes);

#[derive(Serialize, Deserialize)]
struct Body {
    meta: SnapshotMeta,
    records: Vec<Fact>,
}

/// Encodes an image and what Raft knows about it.
pub(crate) fn encode(meta: &SnapshotMeta, image: &Image) -> io::Result<SnapshotBytes> {
    let records = image.to_records().into_iter().map(Fact::Known).collect();
    let body = types::encode(&Body { meta: meta.clone(), records })?;
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(SnapshotBytes(bytes.into()))
}

/// Reads what [`encode`] wrote. Anything else is `InvalidData`, or [`Incompatible`]
/// where only another release reads it.
///
/// [`Incompatible`]: super::incompatible::Incompatible
pub(crate) fn decode(snapshot: &SnapshotBytes) -> io::Result<(SnapshotMeta, Image)> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let bytes = &snapshot.0;
    let (Some(header), Some(body)) = (bytes.get(..HEADER_LEN), bytes.get(HEADER_LEN..)) else {
        return Err(invalid(format!("a snapshot of {} bytes", bytes.len())));
    };
    if &header[..4] != MAGIC {
        return Err(invalid("not a metadata snapshot".to_owned()));
    }
    if header[4] != VERSION {
        let found = header[4];
        return Err(invalid(format!("snapshot version {found}, this release reads {VERSION}")));
    }
    let expected = u32::from_le_bytes([header[5], header[6], header[7], header[8]]);
    let found = crc32c::crc32c(body);
    if expected != found {
        return Err(invalid(format!("snapshot CRC {found:08x}, expected {expected:08x}")));
    }
    let body: Body = types::decode(body)?;
    let place = "the metadata snapshot";
    let records = body.records.iter().map(|fact| fact.read(&place));
    let records: Vec<_> = records.collect::<Result<_, _>>()?;
    let image = Image::from_records(records).map_err(|error| invalid(error.to_string()))?;
    Ok((body.meta, image))
}

/// The one current snapshot file of a node.
pub(crate) struct SnapshotStore {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Meta of the file. The lock spans a write: a build that was overtaken by
    /// an installed snapshot must not put its older one on top.
    current: Mutex<Option<SnapshotMeta>>,
}

impl SnapshotStore {
    /// Looks at the file, if there is one. A damaged file counts as none: what
    /// it held is in the log, or Raft refuses to start without it. One of another
    /// release is an error.
    pub(crate) fn open(shared: Arc<Shared>, dir: &std::path::Path) -> io::Result<Self> {
        let store = Self { shared, path: dir.join(FILE_NAME), current: Mutex::new(None) };
        if let Some(bytes) = store.read_file()? {
            match decode(&bytes) {
                Ok((meta, _)) => *store.current.lock() = Some(meta),
                Err(error) if Incompatible::within(&error).is_some() => return Err(error),
                Err(error) => {
                    tracing::error!(path = %store.path.display(), %error, "ignoring a damaged snapshot");
                }
            }
        }
        Ok(store)
    }

    fn read_file(&self) -> io::Result<Option<SnapshotBytes>> {
        let file = match self.shared.vfs().open_read_only(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = usize::try_from(file.len()?.min(MAX_SNAPSHOT_BYTES)).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        file.read_at(0, len, &mut bytes)?;
        Ok(Some(SnapshotBytes(bytes.into())))
    }

    /// What the current snapshot covers.
    pub(crate) fn meta(&self) -> Option<SnapshotMeta> {
        self.current.lock().clone()
    }

    /// The current snapshot. Blocks on the disk.
    pub(crate) fn read(&self) -> io::Result<Option<(SnapshotMeta, SnapshotBytes)>> {
        let current = self.current.lock();
        let Some(meta) = current.clone() else { return Ok(None) };
        let bytes = self.read_file()?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the snapshot file is damaged or gone")
        })?;
        Ok(Some((meta, bytes)))
    }

    /// Makes this the current snapshot, durably, unless the current one covers
    /// more. Blocks on the disk.
    pub(crate) fn write(&self, meta: &SnapshotMeta, bytes: &SnapshotBytes) -> io::Result<()> {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|current| current.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        checkpoint::write_plain_atomically(self.shared.vfs(), &self.path, &bytes.0)?;
        *current = Some(meta.clone());
        Ok(())
    }
}
