//! Writes a history.

use super::Entry;
use std::io::{self, Write};

/// Writes entries, each in a line of its own.
///
/// # Errors
/// Those of the file.
pub fn write<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    mut to: impl Write,
) -> io::Result<()> {
    for entry in entries {
        serde_json::to_writer(&mut to, entry)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}
