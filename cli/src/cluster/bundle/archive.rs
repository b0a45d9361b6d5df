//! The file itself: a gzipped tar, masked and bounded, and a list of what is in it.

use super::mask::{mask_json, mask_text};
use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most bytes of one file of the bundle; a text that is longer is cut, at a line.
const MAX_FILE_BYTES: usize = 32 * 1024 * 1024;

/// Most bytes of all of them, before they are compressed to a tenth or so: what can still
/// be attached somewhere.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// For its owner only: it says much about a cluster.
const MODE: u32 = 0o600;

/// A bundle that is being made. Dropped before it is finished it leaves nothing.
pub(super) struct Archive {
    tar: tar::Builder<GzEncoder<BufWriter<File>>>,
    path: PathBuf,
    temporary: tempfile::TempPath,
    /// The directory that everything is in.
    root: String,
    mtime: u64,
    bytes: usize,
    files: Vec<Value>,
    missing: Vec<Value>,
    masked: usize,
}

/// What was made.
pub(super) struct Made {
    pub(super) bytes: u64,
    pub(super) files: usize,
    /// What could not be had, and why.
    pub(super) missing: Vec<(String, String)>,
    pub(super) masked: usize,
}

impl Archive {
    pub(super) fn create(path: &Path, root: &str) -> anyhow::Result<Self> {
        let writing = || format!("writing {}", path.display());
        if path.exists() {
            anyhow::bail!("{} is there already", path.display());
        }
        let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary);
        let file = file.with_context(writing)?;
        let gzip = GzEncoder::new(BufWriter::new(file), Compression::default());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            tar: tar::Builder::new(gzip),
            path: path.to_owned(),
            temporary: tempfile::TempPath::try_from_path(temporary).with_context(writing)?,
            root: root.to_owned(),
            mtime: since.as_secs(),
            bytes: 0,
            files: Vec::new(),
            missing: Vec::new(),
            masked: 0,
        })
    }

    /// A JSON file. One that is too large is left out, and named.
    pub(super) fn json(&mut self, name: &str, mut value: Value) -> anyhow::Result<()> {
        self.masked += mask_json(&mut value);
        let text = serde_json::to_string_pretty(&value)?;
        if text.len() > self.room() {
            self.missing(name, format!("{} bytes are too many", text.len()));
            return Ok(());
        }
        self.append(name, &text, false)
    }

    /// A text file, perhaps cut.
    pub(super) fn text(&mut self, name: &str, text: &str, is_cut: bool) -> anyhow::Result<()> {
        let (text, masked) = mask_text(text);
        self.masked += masked;
        let kept = first_lines(&text, self.room());
        self.append(name, kept, is_cut || kept.len() < text.len())
    }

    fn room(&self) -> usize {
        MAX_FILE_BYTES.min(MAX_BYTES.saturating_sub(self.bytes))
    }

    /// Something could not be had.
    pub(super) fn missing(&mut self, what: &str, why: impl ToString) {
        let (why, masked) = mask_text(&why.to_string());
        self.masked += masked;
        self.missing.push(json!({ "what": what, "why": why }));
    }

    fn append(&mut self, name: &str, text: &str, is_cut: bool) -> anyhow::Result<()> {
        self.bytes += text.len();
        self.files.push(json!({ "name": name, "bytes": text.len(), "cut": is_cut }));
        Ok(self.append_raw(name, text)?)
    }

    fn append_raw(&mut self, name: &str, text: &str) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(self.mtime);
        self.tar.append_data(&mut header, format!("{}/{name}", self.root), text.as_bytes())
    }

    /// Writes the list, and gives the file its name.
    pub(super) fn finish(mut self, about: Value) -> anyhow::Result<Made> {
        let (files, missing) = (std::mem::take(&mut self.files), std::mem::take(&mut self.missing));
        let count = files.len() + 1;
        let manifest = json!({
            "about": about, "files": files, "missing": missing, "masked_values": self.masked,
        });
        self.append_raw("MANIFEST.json", &serde_json::to_string_pretty(&manifest)?)?;
        let mut file = self.tar.into_inner()?.finish()?;
        file.flush()?;
        let file = file.into_inner()?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        fs::rename(&self.temporary, &self.path)
            .with_context(|| format!("writing {}", self.path.display()))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let missing = missing.iter().map(|one| (text(&one["what"]), text(&one["why"]))).collect();
        Ok(Made { bytes, files: count, missing, masked: self.masked })
    }
}

/// As many whole lines as fit.
fn first_lines(text: &str, room: usize) -> &str {
    if text.len() <= room {
        return text;
    }
    let fits = &text.as_bytes()[..room];
    let end = fits.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read as _;

    fn read(path: &Path) -> BTreeMap<String, String> {
        let file = flate2::read::GzDecoder::new(File::open(path).expect("there"));
        let mut tar = tar::Archive::new(file);
        let entries = tar.entries().expect("a tar");
        let text = |entry: io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            (name, text)
        };
        entries.map(text).collect()
    }

    #[test]
    fn what_goes_in_is_masked_listed_and_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("b.tar.gz");
        let mut archive = Archive::create(&path, "bundle").expect("a file");
        archive.json("a.json", json!({ "password": "hush" })).expect("written");
        archive.text("nodes/1/b.txt", "http://me:hush@host/\n", false).expect("written");
        archive.missing("node 3", "it hung up on me:hush@host");
        let made = archive.finish(json!({ "version": 1 })).expect("finished");
        assert_eq!((made.files, made.masked), (3, 3));
        assert_eq!(made.missing, [("node 3".to_owned(), "it hung up on me:***@host".to_owned())]);
        let files = read(&path);
        assert!(files.values().all(|text| !text.contains("hush")), "{files:?}");
        let manifest: Value =
            serde_json::from_str(&files["bundle/MANIFEST.json"]).expect("a manifest");
        assert_eq!(manifest["files"][1]["name"], "nodes/1/b.txt");
        assert_eq!(
            (&manifest["missing"][0]["what"], &manifest["masked_values"]),
            (&"node 3".into(), &3.into())
        );
        assert!(Archive::create(&path, "bundle").is_err(), "nothing is overwritten");
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[test]
    fn a_bundle_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut archive = Archive::create(&dir.path().join("b.tar.gz"), "b").expect("a file");
        archive.text("a", "b", false).expect("written");
        drop(archive);
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 0);
    }

    #[test]
    fn long_texts_are_cut_at_a_line() {
        assert_eq!(first_lines("one\ntwo\n", 8), "one\ntwo\n");
        assert_eq!(first_lines("one\ntwo\n", 7), "one\n");
        assert_eq!(first_lines("é\n", 1), "");
    }
}
