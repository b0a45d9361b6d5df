//! Compressed records, framed as Kafka's clients and brokers frame them, so that
//! each side reads the other's.
//!
//! Reading is bounded: nothing the compressed bytes say can make it produce, or
//! reserve memory for, more than [`MAX_INFLATED_BYTES`].

mod inflate;
mod lz4;
mod snappy;

pub(super) use inflate::{Inflated, decompress};

use super::{Compression, FormatError};
use std::io::{Read, Write};

/// Most bytes that the records of one batch may take once decompressed: eight
/// times the largest batch, so that text (which shrinks to a fifth or a tenth)
/// still fills one, and no batch can ask for more than a node can spare.
pub(super) const MAX_INFLATED_BYTES: usize = 64 * 1024 * 1024;

/// zstd's own default, and Kafka's.
const ZSTD_LEVEL: i32 = 3;

/// Largest window of a zstd frame, as a power of two: what the decoder accepts
/// unasked, and the largest that any level uses (22, in a stream of unknown
/// size). Pages of it that the content does not reach are never touched.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// `records` under `codec`; `None` if that is no compression at all.
pub(super) fn compress(codec: Compression, records: &[u8]) -> Option<Vec<u8>> {
    const MEMORY: &str = "writing to memory does not fail";
    Some(match codec {
        Compression::None => return None,
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(records).expect(MEMORY);
            encoder.finish().expect(MEMORY)
        }
        Compression::Snappy => snappy::compress(records),
        Compression::Lz4 => lz4::compress(records),
        Compression::Zstd => zstd::bulk::compress(records, ZSTD_LEVEL).expect(MEMORY),
    })
}

/// Reads `compressed` from its beginning. The second value says what is wrong
/// with it where that can be told at once.
fn reader<'a>(codec: Compression, compressed: &'a [u8]) -> Result<Box<dyn Read + 'a>, String> {
    Ok(match codec {
        Compression::None => Box::new(compressed),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
        Compression::Snappy => Box::new(snappy::Blocks::new(compressed)?),
        Compression::Lz4 => Box::new(lz4::reader(compressed)?),
        Compression::Zstd => {
            let mut decoder =
                zstd::Decoder::with_buffer(compressed).map_err(|error| error.to_string())?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| error.to_string())?;
            Box::new(decoder)
        }
    })
}
