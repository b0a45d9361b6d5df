//! Records being decided, and the image they make so far. Every record is
//! replayed as soon as it is decided, so that the next decision, within the
//! same command or the next one, stands on it.

use crate::image::Image;
use crate::records::MetadataRecord;

/// An image, and the records that have been put on top of it.
pub(super) struct Draft {
    image: Image,
    records: Vec<MetadataRecord>,
}

/// A state of a draft to compare with.
pub(super) struct Mark {
    image: Image,
    records: usize,
}

impl Mark {
    pub(super) fn image(&self) -> &Image {
        &self.image
    }
}

impl Draft {
    pub(super) fn on(image: &Image) -> Self {
        Self { image: image.clone(), records: Vec::new() }
    }

    /// The image with everything decided so far.
    pub(super) fn image(&self) -> &Image {
        &self.image
    }

    /// Decides a fact.
    pub(super) fn push(&mut self, record: impl Into<MetadataRecord>) {
        let record = record.into();
        self.image
            .replay(&record)
            .expect("a decision's own record fits the image it was decided on");
        self.records.push(record);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { image: self.image.clone(), records: self.records.len() }
    }

    pub(super) fn records_since(&self, mark: &Mark) -> &[MetadataRecord] {
        &self.records[mark.records..]
    }

    /// Takes back what was decided since.
    pub(super) fn restore(&mut self, mark: &Mark) {
        self.image.clone_from(&mark.image);
        self.records.truncate(mark.records);
    }

    pub(super) fn finish(self) -> (Vec<MetadataRecord>, Image) {
        (self.records, self.image)
    }
}
