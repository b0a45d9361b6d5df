//! What the files of a log's directory are, by their names.

use ottla_proto::Offset;

/// What a file of a log's directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment: record batches from this offset on.
    Segment(Offset),
    /// The offset index of the segment of that name.
    OffsetIndex(Offset),
    /// The time index of the segment of that name.
    TimeIndex(Offset),
    /// The aborted transactions of the segment of that name.
    TxnIndex(Offset),
    /// What was known of producers when the log ended at this offset.
    Snapshot(Offset),
    /// Where leader epochs start.
    Epochs,
    /// The log start offset.
    Start,
    /// How far the log is compacted.
    Cleaner,
    /// Left by a change that a crash or an error interrupted.
    Leftover,
    /// Not a file of a log.
    Unknown,
}

impl FileKind {
    /// The kind of file that has this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            crate::log::EPOCHS_FILE => return Self::Epochs,
            crate::log::START_FILE => return Self::Start,
            crate::log::CLEANER_FILE => return Self::Cleaner,
            _ => {}
        }
        let Some((stem, extension)) = name.rsplit_once('.') else {
            return Self::Unknown;
        };
        if matches!(extension, "tmp" | "cleaned" | "swap" | "deleted") {
            return Self::Leftover;
        }
        let digits = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
        let Some(base) = digits.then(|| stem.parse().ok()).flatten() else {
            return Self::Unknown;
        };
        match extension {
            "log" => Self::Segment(base),
            "index" => Self::OffsetIndex(base),
            "timeindex" => Self::TimeIndex(base),
            "txnindex" => Self::TxnIndex(base),
            "snapshot" => Self::Snapshot(base),
            _ => Self::Unknown,
        }
    }

    /// The segment that the file belongs to, if it belongs to one.
    pub(super) fn segment(self) -> Option<Offset> {
        match self {
            Self::Segment(base)
            | Self::OffsetIndex(base)
            | Self::TimeIndex(base)
            | Self::TxnIndex(base) => Some(base),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_file_is() {
        let kinds = [
            ("00000000000000000042.log", FileKind::Segment(42)),
            ("00000000000000000042.index", FileKind::OffsetIndex(42)),
            ("00000000000000000042.timeindex", FileKind::TimeIndex(42)),
            ("00000000000000000042.txnindex", FileKind::TxnIndex(42)),
            ("00000000000000000042.snapshot", FileKind::Snapshot(42)),
            ("leader-epoch-checkpoint", FileKind::Epochs),
            ("log-start-offset-checkpoint", FileKind::Start),
            ("cleaner-offset-checkpoint", FileKind::Cleaner),
            ("leader-epoch-checkpoint.tmp", FileKind::Leftover),
            ("00000000000000000042.log.cleaned", FileKind::Leftover),
            ("00000000000000000042.log.swap", FileKind::Leftover),
            ("00000000000000000042.log.deleted", FileKind::Leftover),
            ("42.log", FileKind::Unknown),
            ("99999999999999999999.log", FileKind::Unknown),
            ("0000000000000000004x.log", FileKind::Unknown),
            ("notes", FileKind::Unknown),
        ];
        for (name, kind) in kinds {
            assert_eq!(FileKind::of(name), kind, "{name}");
        }
    }
}
